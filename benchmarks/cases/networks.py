"""Whole networks: ResNet-18, MobileNetV2, a transformer layer."""

from __future__ import annotations

from collections.abc import Iterator

import accelsim
from accelsim.config.model import Register
from benchmarks import engines
from benchmarks.measure import cpu_timer, in_turns
from benchmarks.networks import array_work, builder
from benchmarks.result import Goal, Row, timed_row
from benchmarks.run import Case, Run
from benchmarks.shapes import Conv, Gemm, mobilenet_v2, resnet18, transformer_layer
from benchmarks.workloads import machine

PSUM, ACCUMULATOR = Register(bits=20, overflow="saturate"), Register(bits=24, overflow="saturate")
ENGINES = (
    ("everything watched", lambda operands, plan: engines.watched(operands, plan)),
    ("fast engine, watched", lambda operands, plan: engines.fast(operands, plan, watch=True)),
    ("fast engine, proved", lambda operands, plan: engines.fast(operands, plan, watch=False)),
)


def _network(run: Run, case: str, name: str, layers: tuple[Conv | Gemm, ...], goal: Goal | None) -> Iterator[Row]:
    trace = builder(name.replace(" ", "_"), layers).build()
    macs = float(sum(layer.macs for layer in layers))
    for what, engine in ENGINES:
        narrow = {} if "proved" in what else {"psum": PSUM, "accumulator": ACCUMULATOR}
        for dataflow in ("os", "ws") if what == ENGINES[0][0] else ("ws",):
            label = f"{name}, 16 x 16 {dataflow}, {what}"
            mine = goal if what == ENGINES[0][0] else None
            work = array_work(trace, machine(16, 16, dataflow, **narrow), engine)
            sample = in_turns({"ours": cpu_timer(work)}, run.repeats)["ours"]
            yield timed_row(case, label, sample, work=macs, work_unit="MAC", goal=mine)
    config = machine(16, 16, "ws")

    def whole() -> object:
        return accelsim.simulate(config, trace)

    sample = in_turns({"ours": cpu_timer(whole)}, min(run.repeats, 3))["ours"]
    note = "lowering, array, PPU, energy and the fake-quantized twin of every layer"
    yield timed_row(case, f"{name}, 16 x 16 ws, accelsim.simulate", sample, work=macs, work_unit="MAC", note=note)


def _resnet(run: Run) -> Iterator[Row]:
    return _network(run, "resnet18", "ResNet-18", resnet18()[:: 7 if run.quick else 1], Goal("value", 0.5))


def _others(run: Run) -> Iterator[Row]:
    for name, layers in (("MobileNetV2", mobilenet_v2()), ("transformer layer", transformer_layer())):
        yield from _network(run, "networks", name, layers[:: 7 if run.quick else 1], None)
    yield _stepped(run)


def _stepped(run: Run) -> Row:
    """Return the stepped engine on one layer: whole networks would take hours."""
    gemm = Gemm("128 x 128 x 128", 1, 128, 128, 128) if not run.quick else Gemm("64 x 64 x 64", 1, 64, 64, 64)
    from accelsim.mapping.plan import plan_operands
    from benchmarks.workloads import integers

    operands = integers(gemm)
    plan = plan_operands(operands, machine())
    sample = in_turns({"ours": cpu_timer(engines.stepped(operands, plan))}, run.repeats)["ours"]
    pe_cycles = float((plan.cycles.total - plan.cycles.ppu) * plan.rows * plan.cols)
    name = f"int8, {gemm.name}, 16 x 16 ws, stepped engine"
    return timed_row("networks", name, sample, work=pe_cycles, work_unit="PE-cycle", macs=gemm.macs)


CASES = (
    Case(
        "resnet18",
        "ResNet-18 for 224 x 224 pixels, 1.81 GMAC, lowering included",
        "0.5 s of CPU time on 16 x 16, everything watched",
        _resnet,
    ),
    Case("networks", "other networks, and the stepped engine", "", _others),
)
