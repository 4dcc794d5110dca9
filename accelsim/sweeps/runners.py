"""Who runs the points: this process, all cores of this machine, or a distributed engine.

Each runner is a generator: it takes {key: job}, and yields (key, result) in whatever order points finish. A result that
was yielded is kept by the caller, so a runner that is stopped at any time has lost nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from accelsim.errors import SweepError
from accelsim.sweeps.digests import numerics_version
from accelsim.sweeps.worker import failure, run_job

Jobs = Mapping[str, Mapping[str, Any]]
Result = dict[str, Any]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SCHEMES = ("tcp", "tls", "ucx", "ws", "wss", "inproc")  # of Dask's addresses
DIED = "the process that ran this point died, twice (out of memory?)"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_here(jobs: Jobs) -> Iterator[tuple[str, Result]]:
    """Run the points one after another in this process."""
    for key, job in jobs.items():
        yield key, run_job(job)


def run_local(jobs: Jobs, workers: int) -> Iterator[tuple[str, Result]]:
    """Run the points in `workers` processes, each with one thread.

    Where a process dies, the points that were running are run again; one that was running both times, alone in its
    process, gets a result that says so.
    """
    todo, suspects = dict(jobs), {}
    while todo:
        lost = yield from _until_a_process_dies(todo, workers)
        suspects.update(lost)
        for key in lost:
            todo.pop(key, None)
    for key, job in suspects.items():
        if (yield from _until_a_process_dies({key: job}, 1)):
            yield key, failure(DIED, again=True)


def _until_a_process_dies(todo: dict[str, Mapping[str, Any]], workers: int) -> Any:
    """Run and remove points of `todo`; return those that were running when a process died, or nothing."""
    context = _Spawned()
    with _one_thread_each(), ProcessPoolExecutor(workers, context, initializer=end_with_parent) as pool:
        waiting = iter(list(todo.items()))
        running: dict[Future[Result], str] = {}
        while True:
            for key, job in waiting:  # few at once: what dies with a process is known
                with _main_left_alone():  # a process begins here
                    running[pool.submit(run_job, job)] = key
                if len(running) >= workers:
                    break
            if not running:
                return {}
            try:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    key = running.pop(future)
                    todo.pop(key, None)
                    yield key, result
            except BrokenProcessPool:
                return {key: todo[key] for key in running.values() if key in todo}
            except BaseException:  # stopped, or closed by the caller: nobody waits for what runs now
                pool.shutdown(wait=False, cancel_futures=True)
                for process in context.begun:
                    process.terminate()
                raise


class _Spawned(SpawnContext):
    """Begins processes anew, rather than as copies of this one, and knows which it has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[BaseProcess] = []

    def Process(self, *words: Any, **options: Any) -> Any:  # type: ignore[override]  # noqa: N802 -- its name
        self.begun.append(super().Process(*words, **options))
        return self.begun[-1]


def end_with_parent() -> None:
    """Let this process end when the one that began it does, even by a kill; else it would wait for points for ever."""
    import multiprocessing
    import multiprocessing.connection
    import threading

    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_for_the_end() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


@contextmanager
def _main_left_alone() -> Iterator[None]:
    """Processes that begin inside do not run the caller's script, as spawned ones do to find functions there.

    They need none, and a script without ``if __name__ == "__main__":`` would begin its sweep in each of them.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Tell the processes that are begun meanwhile to use one thread each: there is one for every core."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run_distributed(jobs: Jobs, client: Any) -> Iterator[tuple[str, Result]]:
    """Run the points on a Dask cluster. The scheduler runs a point again whose worker was lost.

    Raises SweepError where the scheduler is lost.
    """
    from distributed import CancelledError, as_completed

    address = client.scheduler.address  # which a client that was closed has not
    numerics = numerics_version()  # of workers that come later, too
    try:
        futures = {
            client.submit(run_job, {**job, "numerics": numerics}, key=f"accelsim-{key}", pure=False, retries=3): key
            for key, job in jobs.items()
        }
        for future in as_completed(list(futures), loop=client.loop):
            if future.status == "finished":
                result = future.result()
            elif future.status == "error":  # run_job catches what a point does: this is a worker's end, or Dask's own
                error = future.exception()
                result = failure(f"{type(error).__name__}: {error}", again=True)
            else:
                raise CancelledError(future.status)
            yield futures[future], result
            future.release()
    except CancelledError:  # nobody but a client without a scheduler cancels our points
        raise _lost(address) from None
    except Exception:
        if client.status == "running":
            raise
        raise _lost(address) from None


def _lost(address: str) -> SweepError:
    return SweepError(
        f"the scheduler {address} was lost; what is done is kept in the journal of the results file, where one is "
        f"named, and the same sweep goes on from there when the scheduler is back, or without it"
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Dask logs from several of its parts when its scheduler is lost; we say it in one message of our own."""
    parts = ("distributed", "tornado", "asyncio")
    names = {*parts, *(name for name in list(logging.root.manager.loggerDict) if name.partition(".")[0] in parts)}
    before = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in before:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


@contextmanager
def connected(address: str, timeout_s: float = 10.0) -> Iterator[Any]:
    """Connect to a Dask scheduler.

    Raises SweepError where it cannot be reached, has no workers, or workers of another accelsim, or Dask is missing.
    """
    try:
        from distributed import Client
    except ImportError:
        raise SweepError("--scheduler needs Dask: pip install 'accelsim[distributed]'") from None
    _check_address(address)
    with _silent():
        try:
            client = Client(address, timeout=timeout_s, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise SweepError(
                f"scheduler {address!r} cannot be reached within {timeout_s:g} s ({str(error).splitlines()[0][:200]}); "
                f"start one with 'dask scheduler', and name its address, such as tcp://host:8786"
            ) from None
        with client:
            if not client.scheduler_info()["workers"]:
                raise SweepError(f"scheduler {address!r} has no workers; start some with 'dask worker {address}'")
            _check_workers(client)
            yield client


def _check_address(address: str) -> None:
    """Raise SweepError for what is no address of Dask's: a client that was made of it would not end cleanly."""
    scheme, mark, rest = address.rpartition("://")
    host, colon, port = rest.partition("/")[0].rpartition(":")
    right = bool(host) and bool(colon) and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16
    if (mark and scheme not in SCHEMES) or not (right or scheme == "inproc"):
        raise SweepError(
            f"scheduler {address!r} is not an address; name one as tcp://HOST:PORT ('dask scheduler' prints it); the "
            f"schemes are {', '.join(SCHEMES)}"
        )


def _check_workers(client: Any) -> None:
    """Raise SweepError where a worker lacks accelsim, or has another version: its numbers would be others."""
    ours = numerics_version()
    for worker, theirs in client.run(numerics_version, on_error="return").items():
        if isinstance(theirs, ImportError):
            raise SweepError(f"worker {worker} has no accelsim ({theirs}); install the same version there")
        if theirs != ours:
            raise SweepError(
                f"worker {worker} has another version of accelsim (numerics {theirs}, here {ours}); install the same "
                f"one there, and start it anew"
            )
