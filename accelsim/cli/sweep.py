"""`accelsim sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli.app import INTERRUPTED, TERMINATED, app, path, user_errors
from accelsim.cli.startup import Terminated

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 5
"""Messages of points that failed, and points of each."""


@app.command()
def sweep(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="What to vary: YAML, docs/sweeps.md.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", parser=path, help="Results: .parquet, and .csv.")],
    jobs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes; default: one a core.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on this Dask scheduler's workers instead.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, list the points, run nothing.")] = False,
) -> None:
    """Run every point of SPEC, or go on where it was stopped.

    A point is a configuration, formats and a trace.
    """
    with user_errors():
        from accelsim.sweeps.points import expand, named
        from accelsim.sweeps.run import sweep as run_sweep
        from accelsim.sweeps.spec import load_spec
        from accelsim.sweeps.target import Target, check_target
        from accelsim.sweeps.worker import INTERNAL

        if dry_run:
            loaded, home = load_spec(spec)
            place = check_target(out)
            points = expand(loaded, home)
            Target(place, loaded, points).check_free()
            for point in points:
                typer.echo(f"{point.index}: {named(point.axes)}" + (f"  -- {point.problem}" if point.problem else ""))
            typer.echo(f"{len(points)} points, {len({point.key for point in points})} of them different")
            return
        try:
            frame = run_sweep(spec, out, jobs=jobs, scheduler=scheduler)
        except (KeyboardInterrupt, Terminated) as stop:
            word, code = ("terminated", TERMINATED) if isinstance(stop, Terminated) else ("interrupted", INTERRUPTED)
            typer.echo(f"{word}; what is done is kept, and the same command goes on from there", err=True)
            raise typer.Exit(code) from None
        failed = frame[frame["error"].notna()]
        typer.echo(
            f"{out.with_suffix('.parquet')}, {out.with_suffix('.csv')}: {len(frame)} rows of "
            f"{frame['point'].nunique()} points, {len(failed)} failed"
        )
        _say_why(failed)
        if out.with_suffix(".journal.jsonl").exists():
            typer.echo("some failed for want of memory or by a process that died; the same command tries them again")
        if failed["error"].str.startswith(INTERNAL).any():  # a mistake of ours
            raise typer.Exit(1)


def _say_why(failed: pd.DataFrame) -> None:
    """Print the messages of points that failed, equal ones once."""
    alike = list(failed.groupby("error", sort=False)["point"])
    for error, points in alike[:SHOWN]:
        named = ", ".join(map(str, points[:SHOWN]))
        more = f" and {len(points) - SHOWN} more" if len(points) > SHOWN else ""
        typer.echo(f"  point{'s' if len(points) > 1 else ''} {named}{more}: {error}")
    if len(alike) > SHOWN:
        typer.echo(f"  and {len(alike) - SHOWN} other messages, in the column error")
