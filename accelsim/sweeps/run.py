"""Run a sweep, or go on with one: what is missing is computed, and the table is written when all of it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.errors import SweepError
from accelsim.progress import Ticker
from accelsim.sweeps.points import Point, axis_names, expand
from accelsim.sweeps.runners import connected, cores, run_distributed, run_here, run_local
from accelsim.sweeps.spec import SweepSpec, load_spec
from accelsim.sweeps.table import need_pandas, table
from accelsim.sweeps.target import Target, check_target

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

    Identical points are computed once. A point that fails has one row with the message in `error`. Where it was the
    machine that failed (memory, a process that died), the journal stays, and another call tries the point again.

    Raises SweepError before anything runs: an unknown field, an empty grid, too many points, points of which none can
    run, a results file of another sweep, or one that another process writes, an unreachable scheduler. And where the
    scheduler is lost while it runs: what is done is kept.

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
    path = None if out is None else check_target(out)
    points = expand(loaded, home)
    if path is None:
        with ExitStack() as stack:
            results: dict[str, Any] = {}
            _run(points, _runner(stack, jobs, scheduler, points), results, results.__setitem__, progress)
            return table(axis_names(loaded), points, results)
    target = Target(path, loaded, points)
    target.check_free()
    if target.is_complete():
        return target.read()
    with ExitStack() as stack:
        runner = _runner(stack, jobs, scheduler, points)
        journal = stack.enter_context(target.journal)
        if target.is_computed():  # a kill came before all was cleared away; or another process has ended it just now
            return target.mend()
        _run(points, runner, journal.results, journal.add, progress)
        return target.write(journal.results)


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
