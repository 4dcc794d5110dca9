"""Writes the results into docs/performance.md, between markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import table
from benchmarks.cases import CASES
from benchmarks.document import DocumentError
from benchmarks.machine import ROOT
from benchmarks.result import Row

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- results: begin (python -m benchmarks --write-docs) -->"
END = "<!-- results: end -->"


def write(about: dict[str, Any], rows: Sequence[Row]) -> None:
    """Replace what is between the markers by the results. DocumentError where there is no page with markers."""
    path = PAGE
    try:
        text = path.read_text()
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}; --write-docs needs the page") from None
    path.write_text(replaced(text, "\n".join(results(about, rows)), str(path)))


def replaced(text: str, between: str, name: str = "the page") -> str:
    """Return `text` with `between` between its markers."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise DocumentError(f"{name}: the markers {BEGIN!r} and {END!r} are not there, in this order; put them in")
    return f"{head}{BEGIN}\n{between}\n{END}{tail}"


def results(about: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """Return the lines of the page: the machine, then a table for each case."""
    where, git = about["machine"], about["git"]
    changed = git.get("changed_files")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    text = [
        f"Measured {about['created'][:10]} at revision `{git['revision'][:10]}`"
        + (f" with {changed} changed files" if changed else "")
        + (" (more changed while it ran)" if git.get("changed_while_it_ran") else "")
        + f", {about['repeats']} repeats{', **quick run: small sizes**' if about['quick'] else ''}.",
        "",
        f"- Machine: {where['processor']}; {where['cores']} cores; {where['system']}; load average at the start "
        + ", ".join(f"{load:.1f}" for load in where["load_average"]),
        f"- Software: {versions}; BLAS: {where['blas']}",
    ]
    text += ["", *_summary(rows)]
    for case in CASES:
        mine = [row for row in rows if row.case == case.name]
        if mine:
            text += ["", f"### `{case.name}`: {case.title}", ""]
            text += [f"Goal: {case.goal}.", ""] if case.goal else []
            text += table.markdown(mine)
    return text


def _summary(rows: Sequence[Row]) -> list[str]:
    """Return how many goals are met, and for each case how far its weakest row gets."""
    with_goal = [row for row in rows if row.goal is not None]
    met = sum(row.met is True for row in with_goal)
    text = [f"**{met} of {len(with_goal)} goals are met.** A row for every case that has goals:", ""]
    text += ["| case | goal | rows that meet it | the weakest row reaches |", "| --- | --- | --- | --- |"]
    for case in CASES:
        mine = [row for row in with_goal if row.case == case.name]
        if mine:
            weakest = min((row.reached for row in mine if row.reached is not None), default=None)
            reaches = "not measured" if weakest is None else f"{table.figure(weakest)} of its goal"
            met = sum(row.met is True for row in mine)
            text.append(f"| `{case.name}` | {case.goal} | {met} of {len(mine)} | {reaches} |")
    return text
