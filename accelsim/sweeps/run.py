"""Run a sweep, or go on with one: what is missing is computed, and the table is written when all of it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.errors import SweepError
from accelsim.progress import Ticker
from accelsim.sweeps.journal import Journal
from accelsim.sweeps.points import Point, axis_names, expand, numerics_version
from accelsim.sweeps.runners import connected, cores, run_distributed, run_here, run_local
from accelsim.sweeps.spec import SweepSpec, load_spec
from accelsim.sweeps.table import check_target, need_pandas, read_meta, table, write_table

if TYPE_CHECKING:
    import pandas as pd

Runner = Callable[[Mapping[str, Mapping[str, Any]]], Iterator[tuple[str, dict[str, Any]]]]


def sweep(
    spec: str | Path | Mapping[str, Any] | SweepSpec,
    out: str | Path | None = None,
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run every point of a sweep, and return one tidy table: a row for each point and layer (docs/sweeps.md).

    spec : a YAML file's path, or a mapping of the same shape
    out : where to write the table, ``.parquet`` or ``.csv`` (both are written). A journal beside it holds what is done
        so far: called again after it was stopped, at any moment, the sweep goes on from there. None: nothing is written
    jobs : processes on this machine; None: one a core; 1: none besides this one
    scheduler : address of a Dask scheduler, which runs the points instead; its workers must see the files
    progress : show what is done and how long the rest will take, on stderr or in the notebook

    Identical points are computed once. A point that fails has one row with the message in `error`.

    Raises SweepError before anything runs: an unknown field, an empty grid, too many points, a results file of another
    sweep, an unreachable scheduler.

    >>> from accelsim.sweeps.run import sweep
    >>> frame = sweep({"config": "configs/int8_ws.yaml", "trace": "traces/digits_cnn_int8.npz", "batch": 1,
    ...                "grid": {"array.rows": [8, 16]}}, jobs=1, progress=False)
    >>> frame.groupby("array.rows").run_cycles_total.first().is_monotonic_decreasing
    True
    """
    need_pandas()
    if jobs is not None and jobs < 1:
        raise SweepError(f"jobs={jobs}: use 1 or more processes, or leave it out for one a core")
    loaded, home = load_spec(spec)
    target = None if out is None else check_target(out)
    points = expand(loaded, home)
    axes, identity = axis_names(loaded), {"spec": loaded.digest, "numerics": numerics_version()}
    if target is not None and _is_complete(target, identity):
        import pandas as pd

        return pd.read_parquet(target.with_suffix(".parquet"))
    with ExitStack() as stack:
        runner = _runner(stack, jobs, scheduler, points)
        if target is None:
            results: dict[str, Any] = {}
            _run(points, runner, results, results.__setitem__, progress)
            return table(axes, points, results)
        journal = stack.enter_context(Journal(_journal_path(target), identity["spec"], identity["numerics"]))
        _run(points, runner, journal.results, journal.add, progress)
        frame = table(axes, points, journal.results)
        write_table(frame, target, identity)
        journal.remove()
        return frame


def _journal_path(target: Path) -> Path:
    return target.with_suffix(".journal.jsonl")


def _is_complete(target: Path, identity: Mapping[str, str]) -> bool:
    """Return whether the table is there already. Raises SweepError where another sweep's is."""
    meta = read_meta(target.with_suffix(".parquet"))
    if meta is None:
        return False
    if meta.get("spec") != identity["spec"]:
        raise SweepError(
            f"{target.with_suffix('.parquet')}: these are results of another sweep (specification {meta.get('spec')}, "
            f"this one is {identity['spec']}); name another results file, or delete it"
        )
    return meta.get("numerics") == identity["numerics"]  # else they are computed anew, and replaced when all are there


def _runner(stack: ExitStack, jobs: int | None, scheduler: str | None, points: list[Point]) -> Runner:
    if scheduler is not None:
        client = stack.enter_context(connected(scheduler))
        return lambda todo: run_distributed(todo, client)
    workers = min(jobs or cores(), len(points))
    return run_here if workers == 1 else lambda todo: run_local(todo, workers)


def _run(
    points: list[Point],
    runner: Runner,
    results: Mapping[str, Any],
    keep: Callable[[str, dict[str, Any]], object],
    progress: bool,
) -> None:
    todo = {point.key: point.job for point in points if point.job is not None and point.key not in results}
    done = len({point.key for point in points}) - len(todo)
    with Ticker(done, done + len(todo), shown=progress) as ticker:
        if todo:
            with closing(runner(todo)) as finished:  # type: ignore[type-var]
                for key, result in finished:
                    keep(key, result)
                    ticker.step(failed=result["error"] is not None)
