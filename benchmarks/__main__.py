"""``python -m benchmarks [case ...]``: how fast accelsim is, against peers and limits measured in the same run."""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import document, machine, page, table
from benchmarks.cases import CASES
from benchmarks.peers import NotInstalledError, scalesim, verilator
from benchmarks.result import Row
from benchmarks.run import Case, Run

USER_ERROR = 2


def main(words: Sequence[str] | None = None) -> int:
    """Run the cases that are named, or all; return the exit code."""
    options = _parser().parse_args(words)
    if options.install_peers:
        return _install_peers()
    try:
        return _main(options)
    except document.DocumentError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {case.name:20s} {case.title}" for case in CASES)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"cases:\n{names}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", metavar="case", help="which cases; all without any")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare with the results of an earlier run")
    parser.add_argument("--quick", action="store_true", help="small sizes, no peer that takes minutes: to try it out")
    parser.add_argument("--repeats", type=_positive, metavar="N", help="samples of each measurement (5; quick: 2)")
    parser.add_argument("--write-docs", action="store_true", help="put the results into docs/performance.md")
    parser.add_argument("--from", type=Path, dest="earlier", metavar="FILE", help="measure nothing: results of FILE")
    parser.add_argument("--install-peers", action="store_true", help="install the peers that pip can, name the others")
    return parser


def _install_peers() -> int:
    """Install SCALE-Sim in an environment of its own; say how to get Verilator, if it is not there."""
    try:
        print(scalesim.install())
        print(verilator.version())
    except (NotInstalledError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    return 0


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return number


def _main(options: argparse.Namespace) -> int:
    unknown = [name for name in options.cases if name not in {case.name for case in CASES}]
    if unknown:
        print(f"error: {unknown_case(unknown[0])}", file=sys.stderr)
        return USER_ERROR
    before = document.read(options.compare) if options.compare else None  # a bad file is found before the work
    if options.json and not options.json.resolve().parent.is_dir():
        raise document.DocumentError(f"{options.json}: its folder does not exist; make it, or use another one")
    if options.earlier:
        about, rows = document.read(options.earlier)
        if options.cases:
            rows = [row for row in rows if row.case in options.cases]
        for case in CASES:
            _show(case, [row for row in rows if row.case == case.name])
    else:
        chosen = [case for case in CASES if not options.cases or case.name in options.cases]
        run = Run(options.repeats or (2 if options.quick else 5), options.quick)
        before_run = _about(run)
        rows = _measure(chosen, run)
        before_run["git"]["changed_while_it_ran"] = machine.sources() != before_run["git"]["sources"]
        about = document.to_document(rows, before_run)
    _summary(rows)
    if options.json:
        document.write(options.json, about)
    if before is not None:
        _compare(before, about, rows)
    if options.write_docs:
        page.write(about, rows)
    return 1 if any(row.details.get("failed") for row in rows) else 0


def unknown_case(name: str) -> str:
    """Return what to say of a case that does not exist."""
    names = [case.name for case in CASES]
    near = difflib.get_close_matches(name, names, 1)
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    return f"case {name!r} is unknown{guess}; use one of {', '.join(names)}"


def _measure(cases: Sequence[Case], run: Run) -> list[Row]:
    """Run the cases; one that fails is reported as a row, and the others run on."""
    described = machine.description()
    where = f"{described['processor']}, {described['cores']} cores; {described['blas']}"
    print(f"{where}; load average {described['load_average'][0]:.1f}")
    rows: list[Row] = []
    for case in cases:
        try:
            found = list(case.run(run))
        except Exception as error:  # a benchmark of hours must not lose what it has
            text = f"{type(error).__name__}: {error}"
            found = [Row(case.name, case.title, missing=f"FAILED: {text}", details={"failed": True})]
        _show(case, found)
        rows += found
    return rows


def _show(case: Case, rows: Sequence[Row]) -> None:
    if not rows:
        return
    print(f"\n{case.name}: {case.title}")
    if case.goal:
        print(f"  goal: {case.goal}")
    for row in rows:
        print("\n".join(table.lines(row)), flush=True)


def _summary(rows: Sequence[Row]) -> None:
    with_goal = [row for row in rows if row.goal is not None]
    met = sum(row.met is True for row in with_goal)
    print(f"\n{met} of {len(with_goal)} goals met", end="")
    print(f", {sum(row.met is None for row in with_goal)} not measured" if with_goal else "")
    for row in with_goal:
        if not row.met:
            print(f"  {row.key}: {table.verdict(row)}")


def _about(run: Run) -> dict[str, Any]:
    return {
        "quick": run.quick,
        "repeats": run.repeats,
        "machine": machine.description(),
        "versions": machine.versions(),
        "git": machine.revision(),
    }


def _compare(before: tuple[dict[str, Any], list[Row]], about: dict[str, Any], rows: Sequence[Row]) -> None:
    earlier, earlier_rows = before
    print()
    for what in ("machine", "quick"):
        old, new = earlier.get(what), about.get(what)
        if what == "machine":
            old, new = (part and part.get("processor") for part in (old, new))
        if old != new:
            print(f"note: {what} differs: {old!r} then, {new!r} now")
    named = {row.case for row in rows}
    print("\n".join(table.comparison(document.compare([row for row in earlier_rows if row.case in named], rows))))


if __name__ == "__main__":
    sys.exit(main())
