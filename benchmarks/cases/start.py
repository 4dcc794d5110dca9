"""Start-up of the command line and of the package: whole processes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.measure import Sample, checked, run_child
from benchmarks.result import Goal, Row, timed_row
from benchmarks.run import Case, Run

CONFIG, TRACE = ROOT / "configs" / "int8_ws.yaml", ROOT / "traces" / "digits_cnn_int8.npz"
CLI = (sys.executable, "-m", "accelsim")
# As after an installation: modules are compiled once, also where the environment (a container's) keeps Python from it.
INSTALLED = {"NUMBA_CACHE_DIR": "", "PYTHONDONTWRITEBYTECODE": ""}
BAD = CONFIG.read_text().replace("rows: 16", "rows: none", 1)


def _start(run: Run) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bad = folder / "bad.yaml"
        bad.write_text(BAD)
        warm = {"XDG_CACHE_HOME": str(folder / "warm"), **INSTALLED}
        first = [*CLI, "run", CONFIG, TRACE]
        checked(run_child(first, environment=warm), "the first run")  # fills the cache
        commands = {
            "accelsim --help": ([*CLI, "--help"], 0, 0.2),
            "accelsim --version": ([*CLI, "--version"], 0, 0.2),
            "accelsim run, a bad configuration": ([*CLI, "run", bad, TRACE], 2, 0.2),
            "accelsim run, first result, warm cache": (first, 0, 1.0),
            "import accelsim": ([sys.executable, "-c", "import accelsim"], 0, 0.1),
            "import accelsim, load a configuration": (
                [sys.executable, "-c", f"import accelsim; accelsim.load_config({str(CONFIG)!r})"],
                0,
                None,
            ),
        }
        peer = [sys.executable, "-c", "import numba"]
        checked(run_child(peer), "import numba")
        cpu: dict[str, list[float]] = {what: [] for what in commands}
        wall: dict[str, list[float]] = {what: [] for what in commands}
        numba: list[float] = []
        for _ in range(run.repeats):
            numba.append(checked(run_child(peer), "import numba").cpu_s)
            for what, (command, code, _) in commands.items():
                child = checked(run_child(command, environment=warm), what, returncode=code)
                cpu[what].append(child.cpu_s)
                wall[what].append(child.wall_s)
        peer_sample = Sample(tuple(numba))
        for what, (_, _, limit) in commands.items():
            yield timed_row(
                "start",
                what,
                Sample(tuple(cpu[what])),
                peer=peer_sample,
                against="a bare `import numba`",
                goal=None if limit is None else Goal("value", limit),
                note=f"{Sample(tuple(wall[what])).median:.2f} s on the wall",
            )
        yield _first_ever(run, folder, peer_sample)


def _first_ever(run: Run, folder: Path, peer: Sample) -> Row:
    """Return the first run with an empty cache: every kernel is compiled."""
    times, walls = [], []
    for number in range(1 if run.quick else min(run.repeats, 3)):
        empty = {"XDG_CACHE_HOME": str(folder / f"cold{number}"), **INSTALLED}
        child = checked(run_child([*CLI, "run", CONFIG, TRACE], environment=empty), "the first run ever")
        times.append(child.cpu_s)
        walls.append(child.wall_s)
    return timed_row(
        "start",
        "accelsim run, first run ever, empty cache",
        Sample(tuple(times)),
        peer=peer,
        against="a bare `import numba`",
        goal=Goal("value", 15),
        note=f"{Sample(tuple(walls)).median:.1f} s on the wall",
    )


CASES = (
    Case(
        "start",
        "the command line as a process, from start to end",
        "0.2 s for help, version, a bad configuration; 1.0 s to the first result; 15 s for the first run ever; import: "
        "0.1 s",
        _start,
    ),
)
