"""The stepped engine: moves every register of every PE, every cycle, and counts what happens in them.

The slow truth behind the fast engine, and the source of waveforms (accelsim.engine.vcd). The machine is in
accelsim.engine.machine; here it runs to its end, and what it counted becomes the engine's result.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.activity import psum_bits
from accelsim.engine.contract import Activity, ComputeResult, OperandActivity, OverflowEvent, RegisterWatch
from accelsim.engine.float_registers import as_float32, from_float32, sums_are_floats
from accelsim.engine.lane_codes import LaneCode
from accelsim.engine.machine_build import build_machine
from accelsim.engine.preload import accumulator_extremes, earlier, preload
from accelsim.mapping.contract import CycleCounts, GemmOperands, LayerPlan, Tally
from accelsim.mapping.tally import Datapath, array_actions

if TYPE_CHECKING:
    from accelsim.engine.stepped_kernels import Job, Log


class SteppedEngine:
    """Measures by moving registers; see accelsim.engine.stepped_kernels."""

    name = "stepped"

    def run(
        self,
        operands: GemmOperands,
        plan: LayerPlan,
        *,
        watch: bool = True,
        extremes: bool = True,
        activity: bool = False,
    ) -> ComputeResult:
        """Compute a layer cycle by cycle; every addition is watched, whatever `watch` and `extremes` say.

        activity : also compare every register with what it held a cycle before

        Raises ShapeError where operands and plan do not fit, UnsupportedLayerError where sums could leave int64.
        """
        from accelsim.engine import stepped_kernels as kernels

        machine = build_machine(operands, plan, activity=activity)
        machine.run()
        state, log, counts = machine.state, machine.log, machine.log.counts.tolist()
        registers = state.acc.swapaxes(1, 2) if plan.transposed else state.acc
        load, fill, compute, drain = log.cycles.tolist()
        tally = Tally(*counts[: kernels.PSUM_OVERFLOW])
        acc = np.ascontiguousarray(registers[..., kernels.ACC])
        return ComputeResult(
            acc=as_float32(acc) if sums_are_floats(plan) else acc,
            cycles=CycleCounts(load, fill, compute, drain, plan.cycles.ppu),
            actions=array_actions(tally, _datapath(plan), plan.shape, transposed=plan.transposed),
            psum=RegisterWatch(
                counts[kernels.PSUM_OVERFLOW],
                _event(log.psum_first, plan),
                *_extremes(counts[kernels.PSUM_LOW], counts[kernels.PSUM_HIGH], plan),
            ),
            accumulator=_accumulator_watch(operands, plan, registers, log),
            activity=_activity(counts, tally, machine.job, plan) if activity else None,
        )


def _activity(counts: list[int], tally: Tally, job: Job, plan: LayerPlan) -> Activity:
    from accelsim.engine import stepped_kernels as kernels

    hops = (tally.stream_hops, tally.other_hops)
    stream, other = (
        OperandActivity(
            bits=LaneCode(*code).total_bits,
            latches=hops[side],
            toggles=counts[kernels.TOGGLE + side],
            changes=counts[kernels.CHANGE + side],
        )
        for side, code in enumerate((job.x_code, job.y_code))
    )
    return Activity(
        products=tally.products,
        zero_products=counts[kernels.ZERO_PRODUCT],
        stream=stream,
        other=other,
        psum_bits=psum_bits(plan),
        psum_toggles=counts[kernels.PSUM_TOGGLE],
        accumulator_toggles=counts[kernels.ACC_TOGGLE],
    )


def _accumulator_watch(
    operands: GemmOperands, plan: LayerPlan, registers: NDArray[np.int64], log: Log
) -> RegisterWatch:
    from accelsim.engine import stepped_kernels as kernels

    overflows, first = int(log.counts[kernels.ACC_OVERFLOW]), _event(log.acc_first, plan)
    low, high = registers[..., kernels.LOWEST], registers[..., kernels.HIGHEST]
    if sums_are_floats(plan):  # the bias is a float32: its preload is exact
        bias = from_float32(operands.bias)
        extremes = (
            min(int(low.min(initial=0)), int(bias.min(initial=0))),
            max(int(high.max()), int(bias.max(initial=0))),
        )
        return RegisterWatch(overflows, first, *_extremes(*extremes, plan))
    bias_in = preload(operands, plan)
    return RegisterWatch(
        overflows + bias_in.overflows,
        earlier(bias_in.first, first),
        *accumulator_extremes(operands.bias.astype(np.int64), low.min(axis=1), high.max(axis=1)),
    )


def _extremes(low: int, high: int, plan: LayerPlan) -> tuple[int, int] | tuple[float, float]:
    """Return the extremes of registers as numbers."""
    if not sums_are_floats(plan):
        return low, high
    least, most = as_float32(np.array([low, high], np.int64)).tolist()
    return least, most


def _datapath(plan: LayerPlan) -> Datapath:
    return Datapath(plan.widths, plan.multiplier, plan.product, plan.summation)


def _event(first: NDArray[np.int64], plan: LayerPlan) -> OverflowEvent | None:
    """Decode (key, k, before, addend, exponent); integer sums may need a 65th bit, hence Python integers."""
    key, k, before, addend, exponent = first.tolist()
    if key < 0:
        return None
    shape = plan.shape
    b, m, n = (int(i) for i in np.unravel_index(key, (shape.batch, shape.m, shape.n)))
    if not sums_are_floats(plan):
        return OverflowEvent((b, m, n), k, before + addend)
    held = Fraction(float(as_float32(np.array([before], np.int64))[0]))
    return OverflowEvent((b, m, n), k, float(held + addend * Fraction(2) ** exponent))
