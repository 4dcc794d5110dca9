"""CPU time of work in this process and in children: medians of repeats, in turns with what they are compared to."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Timed = Callable[[], float]
"""Does the work once and returns the seconds that it took."""

SHORTEST_S = 0.05  # work that takes less is repeated within one sample


@dataclass(frozen=True)
class Sample:
    """Seconds of the same work, several times."""

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.seconds or any(not second > 0 for second in self.seconds):
            raise ValueError(f"a sample needs positive seconds; found {self.seconds}")

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def low(self) -> float:
        return min(self.seconds)

    @property
    def high(self) -> float:
        return max(self.seconds)

    @property
    def spread(self) -> float:
        """Half of the distance between the extremes, as a part of the median."""
        return (self.high - self.low) / 2 / self.median


def cpu_timer(work: Callable[[], object], *, clock: Callable[[], float] = time.process_time) -> Timed:
    """Return what times `work`, after one run to warm up; short work is run often enough to be seen by the clock."""
    work()
    start = clock()
    work()
    once = clock() - start
    number = max(1, round(SHORTEST_S / max(once, 1e-7))) if once < SHORTEST_S else 1

    def timed() -> float:
        start = clock()
        for _ in range(number):
            work()
        return (clock() - start) / number

    return timed


def wall_timer(work: Callable[[], object]) -> Timed:
    """Return what times `work` by the clock on the wall: for threads, whose CPU times add up."""
    return cpu_timer(work, clock=time.perf_counter)


def in_turns(timers: Mapping[str, Timed], repeats: int) -> dict[str, Sample]:
    """Run every timer `repeats` times, in rounds, so that a slow spell of the machine is shared."""
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(repeats):
        for name, timer in timers.items():
            seconds[name].append(timer())
    return {name: Sample(tuple(values)) for name, values in seconds.items()}


@dataclass(frozen=True)
class Child:
    """What a finished child process took, its own children included."""

    cpu_s: float
    wall_s: float
    returncode: int
    stdout: str
    stderr: str


def run_child(
    command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Child:
    """Run `command` to its end; RuntimeError is the caller's to raise, as some commands are meant to fail."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        # The resource usage of this one child comes from wait4, which subprocess does not offer: it waits by itself.
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, **(environment or {})},
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return Child(usage.ru_utime + usage.ru_stime, wall_s, process.returncode, *texts)


def checked(child: Child, what: str, *, returncode: int = 0) -> Child:
    """Return `child`; RuntimeError, with what it said, if it did not end as it should."""
    if child.returncode != returncode:
        said = (child.stderr or child.stdout).strip()[-2000:]
        raise RuntimeError(f"{what} ended with code {child.returncode}, not {returncode}: {said}")
    return child


def own_peak_bytes() -> int:
    """Return the largest resident memory that this process ever had.

    Linux counts the parent's memory in a child's resource usage until it runs another program; /proc does not.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
