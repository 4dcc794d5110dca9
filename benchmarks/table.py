"""Rows as text: for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.document import Change
from benchmarks.result import Row

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def figure(number: float) -> str:
    """Return three significant digits without an exponent."""
    if number == 0:
        return "0"
    if abs(number) >= 100:
        return f"{number:,.0f}"
    digits = 1 if abs(number) >= 10 else 2 if abs(number) >= 1 else 3
    return f"{number:.{digits}f}" if abs(number) >= 0.01 else f"{number:.2g}"


def seconds(value: float) -> str:
    """Return a time in s, ms or µs."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= scale:
            return f"{figure(value / scale)} {unit}"
    return f"{figure(value / 1e-6)} µs"


def value(row: Row) -> str:
    """Return what was measured."""
    if row.value is None:
        return "not measured"
    text = seconds(row.value) if row.unit == "s" else f"{figure(row.value)} {row.unit}"
    if row.low is not None and row.high is not None and row.repeats > 1 and row.value:
        text += f" ±{100 * (row.high - row.low) / 2 / row.value:.0f} %"
    return text


def rate(work_rate: float | None, unit: str) -> str:
    """Return a rate: "1.23 GMAC/s"."""
    if work_rate is None:
        return ""
    for scale, prefix in PREFIXES:
        if work_rate >= scale:
            return f"{figure(work_rate / scale)} {prefix}{unit}/s"
    return f"{work_rate:.2g} {unit}/s"


def ratio(row: Row) -> str:
    """Return how it compares with its peer."""
    if row.ratio is None:
        return ""
    times = row.ratio >= 1.5 or (row.goal is not None and row.goal.kind == "ratio" and row.goal.limit >= 1)
    return f"{figure(row.ratio)}x" if times else _percent(row.ratio)


def _percent(number: float) -> str:
    return f"{100 * number:.0f} %" if number >= 0.1 else f"{figure(100 * number)} %"


def goal(row: Row) -> str:
    """Return the goal, in the row's terms."""
    if row.goal is None:
        return ""
    limit = row.goal.limit
    if row.goal.kind == "value":
        return f"<= {figure(limit)} {row.unit}"
    return f">= {figure(limit)}x" if limit >= 1 else f">= {_percent(limit)}"


def verdict(row: Row) -> str:
    """Return whether the goal is met, and how far it is reached."""
    if row.goal is None:
        return ""
    if row.reached is None:
        return "not measured"
    return f"{'met' if row.met else 'NOT met'} ({figure(row.reached)} of it)"


def lines(row: Row) -> list[str]:
    """Return a row for the terminal."""
    parts = [f"  {row.name:58s} {value(row):>18s}"]
    if row.rate is not None:
        parts.append(f"{rate(row.rate, row.work_unit):>20s}")
    if row.ratio is not None:
        theirs = f" ({rate(row.against_rate, row.work_unit)})" if row.work is not None and row.against_rate else ""
        if not theirs and row.against_value is not None:
            theirs = f" ({seconds(row.against_value) if row.unit == 's' else figure(row.against_value)})"
        parts.append(f"{ratio(row):>7s} of {row.against}{theirs}")
    if row.goal is not None:
        parts.append(f"goal {goal(row)}: {verdict(row)}")
    text = ["  ".join(parts)]
    text += [f"      {word}: {said}" for word, said in (("not measured", row.missing), ("note", row.note)) if said]
    return text


def markdown(rows: Sequence[Row]) -> list[str]:
    """Return the rows as a table of the page."""
    text = [
        "| measured | CPU time (median, half range) | rate | against | ratio | goal | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        theirs = rate(row.against_rate, row.work_unit) if row.work is not None else ""
        if not theirs and row.against_value is not None:
            theirs = seconds(row.against_value) if row.unit == "s" else f"{figure(row.against_value)} {row.unit}"
        against = f"{row.against}: {theirs}" if theirs else row.against
        met = "" if row.met is None else "met" if row.met else "**not met**"
        cells = [row.name, value(row), rate(row.rate, row.work_unit), against, ratio(row), goal(row), met]
        text.append("| " + " | ".join(cells) + " |")
    notes: dict[str, list[str]] = {}
    for row in rows:
        for said in filter(None, (row.missing, row.note)):
            notes.setdefault(said, []).append(row.name)
    return (
        [*text, "", *(f"- {'; '.join(dict.fromkeys(names))}: {said}" for said, names in notes.items())]
        if notes
        else text
    )


def comparison(changes: Sequence[Change]) -> list[str]:
    """Return the lines of a comparison with an earlier run."""
    text = ["compared with the earlier run (above 1: faster or smaller now; * beyond the spread of the repeats)"]
    for change in changes:
        factor = "" if change.factor is None else f"{figure(change.factor)}x"
        mark = "*" if change.beyond_spread else " "
        text.append(f"  {change.key:80s} {factor:>8s} {mark} {change.remark}".rstrip())
    return text
