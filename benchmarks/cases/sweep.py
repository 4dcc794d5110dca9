"""A sweep as a search makes it: one trace on many machines."""

from __future__ import annotations

from collections.abc import Iterator

import accelsim
from accelsim.config.loader import load_config
from benchmarks.machine import ROOT
from benchmarks.measure import cpu_timer, in_turns
from benchmarks.result import Row, timed_row
from benchmarks.run import Case, Run


def _sweep(run: Run) -> Iterator[Row]:
    trace = accelsim.load_trace(ROOT / "traces" / "digits_cnn_int8.npz")
    base = load_config(ROOT / "configs" / "int8_ws.yaml")
    machines = []
    for dataflow in ("os", "ws", "is"):
        for size in (8, 16) if run.quick else (4, 8, 16, 32, 64):
            changes = {"rows": size, "cols": size, "dataflow": dataflow, "double_buffered": dataflow != "os"}
            machines.append(base.model_copy(update={"array": base.array.model_copy(update=changes)}))
    for watch in (True, False):

        def work(watch: bool = watch) -> None:
            for config in machines:
                accelsim.simulate(config, trace, watch=watch)

        yield timed_row(
            "sweep",
            f"digits network, 240 images, {len(machines)} machines, {'watched' if watch else 'proved'}",
            in_turns({"ours": cpu_timer(work)}, min(run.repeats, 3))["ours"],
            work=float(len(machines)),
            work_unit="machine",
        )


CASES = (Case("sweep", "one network of 26 MMAC on machines of 4 x 4 to 64 x 64, three dataflows", "", _sweep),)
