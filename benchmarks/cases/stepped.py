"""The stepped engine: every token of every format in every cycle, every event counted; the truth behind the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import accelsim
from accelsim.config.loader import load_config
from accelsim.config.model import FloatUnit, HardwareConfig, Popcount, Register, ScaleUnit
from accelsim.mapping.contract import GemmOperands
from accelsim.mapping.plan import plan_operands
from benchmarks import engines
from benchmarks.machine import ROOT
from benchmarks.measure import cpu_timer, in_turns
from benchmarks.result import Goal, Row, timed_row
from benchmarks.run import Case, Run
from benchmarks.shapes import Gemm
from benchmarks.workloads import integers, machine, mx, signs, vsq

MACS_A_SECOND = 2e6
GEMM, QUICK = Gemm("128 x 128 x 128", 1, 128, 128, 128), Gemm("64 x 64 x 64", 1, 64, 64, 64)
NARROW = Register(bits=18, overflow="saturate")
IMAGES = 8


def _layers(gemm: Gemm) -> Iterator[tuple[str, GemmOperands, HardwareConfig]]:
    plain = integers(gemm)
    for dataflow in ("os", "ws", "is"):
        yield f"int8, 16 x 16 {dataflow}", plain, machine(dataflow=dataflow)
    yield "int8, psums of 18 bits that overflow, 16 x 16 os", plain, machine(dataflow="os", psum=NARROW)
    yield "VSQ, vectors of 16 int4", vsq(gemm), machine(4, lanes=16, scale_unit=ScaleUnit(product_bits=6))
    yield "MX, blocks of 32 int8, float32", mx(gemm, "float32"), machine(2, lanes=32, float_unit=FloatUnit())
    fixed = FloatUnit(accumulate="fixed")
    yield "MX, blocks of 32 int8, fixed point", mx(gemm, "fixed"), machine(2, lanes=32, float_unit=fixed)
    yield "XNOR, words of 64", signs(gemm), machine(4, 16, popcount=Popcount(word_bits=64))


def _stepped(run: Run) -> Iterator[Row]:
    gemm = QUICK if run.quick else GEMM
    for name, operands, config in _layers(gemm):
        plan = plan_operands(operands, config)
        work = {"ours": engines.stepped(operands, plan), "fast": engines.fast(operands, plan, watch=True)}
        if not np.array_equal(work["ours"]().acc, work["fast"]().acc):
            raise RuntimeError(f"{name}: the engines differ")
        samples = in_turns({engine: cpu_timer(done) for engine, done in work.items()}, run.repeats)
        pe_cycles = (plan.cycles.total - plan.cycles.ppu) * plan.rows * plan.cols
        yield timed_row(
            "stepped",
            f"{name}, {gemm.name}",
            samples["ours"],
            work=float(gemm.macs),
            work_unit="MAC",
            peer=samples["fast"],
            against="the fast engine, watched",
            goal=Goal("value", gemm.macs / MACS_A_SECOND),
            pe_cycles=pe_cycles,
        )
    yield _network(run)


def _network(run: Run) -> Row:
    """Return a whole network through it, as `accelsim run --engine stepped` does it."""
    images = 1 if run.quick else IMAGES
    config = load_config(ROOT / "configs" / "int8_ws.yaml")
    trace = accelsim.load_trace(ROOT / "traces" / "digits_cnn_int8.npz").head(images)
    timers = {name: cpu_timer(lambda name=name: accelsim.simulate(config, trace, name)) for name in ("stepped", "fast")}
    samples = in_turns(timers, min(run.repeats, 3))
    macs = accelsim.simulate(config, trace).totals.macs
    return timed_row(
        "stepped",
        f"digits network, {images} images, accelsim.simulate",
        samples["stepped"],
        work=float(macs),
        work_unit="MAC",
        peer=samples["fast"],
        against="the fast engine, watched",
        goal=Goal("value", macs / MACS_A_SECOND),
    )


CASES = (
    Case(
        "stepped",
        "the stepped engine on each datapath, and on a small network; every event of every PE counted",
        "2 million MACs a second",
        _stepped,
    ),
)
