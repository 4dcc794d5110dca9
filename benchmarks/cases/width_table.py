"""The cost of every layer of MobileNetV2 at every pair of widths: what a search for mixed precision asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from accelsim.config.loader import load_config
from accelsim.config.model import HardwareConfig, Multiplier
from accelsim.search.costs import cost_table
from accelsim.trace.reader import Trace
from benchmarks.machine import ROOT
from benchmarks.measure import in_turns
from benchmarks.networks import builder
from benchmarks.result import Goal, Row, timed_row
from benchmarks.run import Case, Run
from benchmarks.shapes import mobilenet_v2

WIDTHS = range(2, 9)


def _timer(config: HardwareConfig, trace: Trace) -> Callable[[], float]:
    """Return what makes the table once and returns the CPU time; the first time counts: a user's is the first one."""

    def timed() -> float:
        start = time.process_time()
        table = cost_table(config, trace, WIDTHS, WIDTHS)
        seconds = time.process_time() - start
        assert len(table.cells) == len(trace.layers) * len(WIDTHS) ** 2
        assert all(None not in (cell.weight_sqnr_db, cell.activation_sqnr_db) for cell in table.cells.values())
        return seconds

    return timed


def _width_table(run: Run) -> Iterator[Row]:
    layers = mobilenet_v2()[:: 26 if run.quick else 1]
    trace = builder("mobilenet_v2", layers).build()
    fused = load_config(ROOT / "configs" / "bitfusion.yaml")
    parallel = fused.model_copy(update={"array": fused.array.model_copy(update={"multiplier": Multiplier()})})
    configs = {
        "parallel": parallel,
        "fused": fused,
        "bit-serial": load_config(ROOT / "configs" / "bitserial.yaml"),
    }
    for name, config in configs.items():
        sample = in_turns({"ours": _timer(config, trace)}, min(run.repeats, 2))["ours"]
        yield timed_row(
            "width-table",
            f"MobileNetV2, {len(layers)} layers x {len(WIDTHS) ** 2} pairs of widths with SQNR, {name} multipliers",
            sample,
            work=float(len(layers) * len(WIDTHS) ** 2),
            work_unit="point",
            goal=Goal("value", 60),
        )


CASES = (
    Case(
        "width-table",
        "accelsim costs of MobileNetV2: every layer at 2 to 8 bits of weights and of inputs, with the SQNR of both "
        "(HAQ's 1 bit costs what 2 bits do)",
        "60 s for the full 8 x 8 table",
        _width_table,
    ),
)
