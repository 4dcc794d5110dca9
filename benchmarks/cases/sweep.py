"""A sweep as a search makes it: one trace on many machines, in one process, and as a table."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import accelsim
from accelsim.config.loader import load_config
from benchmarks.machine import ROOT
from benchmarks.measure import checked, cpu_timer, in_turns, run_child
from benchmarks.result import Goal, Row, timed_row
from benchmarks.run import Case, Run

CONFIG, TRACE = ROOT / "configs" / "int8_ws.yaml", ROOT / "traces" / "digits_cnn_int8.npz"
DATAFLOWS = ("os", "ws", "is")
AGAINST = "a process for each machine (`accelsim run --json`)"


def _machines(run: Run) -> list[dict[str, object]]:
    """Return what each machine changes in the configuration's array."""
    return [
        {"rows": size, "cols": size, "dataflow": dataflow, "double_buffered": dataflow != "os"}
        for dataflow in DATAFLOWS
        for size in ((8, 16) if run.quick else (4, 8, 16, 32, 64))
    ]


def _process() -> float:
    """Run one machine as a process of its own, kernels in the cache; return its CPU time."""
    command = [sys.executable, "-m", "accelsim", "run", CONFIG, TRACE, "--json"]
    child = run_child(command, environment={"PYTHONDONTWRITEBYTECODE": ""}, folder=ROOT)
    return checked(child, "accelsim run").cpu_s


def _sweep(run: Run) -> Iterator[Row]:
    trace, base = accelsim.load_trace(TRACE), load_config(CONFIG)
    changes = _machines(run)
    machines = [base.model_copy(update={"array": base.array.model_copy(update=change)}) for change in changes]
    spec = {
        "config": str(CONFIG),
        "trace": str(TRACE),
        "points": [{f"array.{key}": value for key, value in change.items()} for change in changes],
    }

    def simulate(watch: bool) -> None:
        for config in machines:
            accelsim.simulate(config, trace, watch=watch)

    timers = {
        "watched": cpu_timer(lambda: simulate(True)),
        "proved": cpu_timer(lambda: simulate(False)),
        "accelsim.sweep, a table, watched": cpu_timer(lambda: accelsim.sweep(spec, jobs=1, progress=False)),
        "process": _process,
    }
    _process()  # fills the cache
    samples = in_turns(timers, min(run.repeats, 3))
    for name in list(timers)[:-1]:
        yield timed_row(
            "sweep",
            f"digits network, 240 images, {len(machines)} machines, {name}",
            samples[name],
            work=float(len(machines)),
            work_unit="machine",
            peer=samples["process"],
            peer_work=1.0,
            against=AGAINST,
            goal=Goal("ratio", 5),
        )


CASES = (
    Case(
        "sweep",
        "one network of 26 MMAC on machines of 4 x 4 to 64 x 64, three dataflows",
        "5 times as many machines a second as with a process for each",
        _sweep,
    ),
)
