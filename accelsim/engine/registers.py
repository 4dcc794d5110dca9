"""The registers engine: moves every register in every cycle, for the plain case of the stepped engine, fast.

One lane a PE, integers, and registers of which a bound proves that nothing can overflow. Values and cycles are what the
moving registers show; actions are the plan's (the stepped engine counts them).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import check_operands, exact_bound, largest_magnitude
from accelsim.engine.contract import ComputeResult, RegisterWatch
from accelsim.errors import UnsupportedLayerError
from accelsim.mapping.contract import CycleCounts, GemmOperands, LayerPlan

Int16 = NDArray[np.int16]


def why_not_moved(operands: GemmOperands, plan: LayerPlan) -> str | None:
    """Return why this engine cannot take a layer, or None if it can."""
    if operands.summation.kind != "integer" or operands.blocks is not None:
        return "it has block scales or sums that are no plain integers"
    if plan.product != "multiply" or plan.lanes != 1 or plan.step_cycles != 1 or not operands.k_valid.all():
        return f"its PEs take {plan.lanes} lanes in {plan.step_cycles} cycles, and this engine knows 1 and 1"
    if max(largest_magnitude(operands.a), largest_magnitude(operands.w)) >= 1 << 15:
        return "its operands are wider than 16 bits"
    bound = exact_bound(operands, plan)
    if bound >= 1 << (min(plan.psum_bits, 32) - 1):
        return f"sums may reach {bound}, which psums of {min(plan.psum_bits, 32)} bits need not hold"
    if bound + largest_magnitude(operands.bias.astype(np.int64)) >= 1 << (plan.acc_bits - 1):
        return f"sums may exceed accumulators of {plan.acc_bits} bits"
    return None


def move_registers(operands: GemmOperands, plan: LayerPlan) -> ComputeResult:
    """Compute a layer cycle by cycle.

    Raises ShapeError where operands and plan do not fit, UnsupportedLayerError where `why_not_moved` says so.
    """
    from accelsim.engine import registers_kernels as kernels

    check_operands(operands, plan)
    reason = why_not_moved(operands, plan)
    if reason is not None:
        raise UnsupportedLayerError(f"the registers engine cannot take this layer: {reason}; use the stepped engine")
    shape, passes, rows, cols = plan.shape, plan.passes, plan.rows, plan.cols
    cycles = np.zeros(4, np.int64)
    acc = np.repeat(operands.bias.astype(np.int64)[:, None, :], shape.m, axis=1)
    stream, other = operands.a.astype(np.int16), operands.w.astype(np.int16)
    if plan.transposed:
        stream, other, acc = other.swapaxes(1, 2), stream.swapaxes(1, 2), acc.swapaxes(1, 2)
    acc = np.ascontiguousarray(acc)
    order = np.array([passes.batch, passes.row0, passes.rows, passes.col0, passes.cols], np.int64)
    if plan.dataflow == "os":
        duration = shape.k + rows + cols
        kernels.os_layer(
            *_feeds(stream, rows, duration), *_feeds(other.swapaxes(1, 2), cols, duration), order, rows, cols,
            plan.skip_unused, plan.drain_overlap, cycles, acc,
        )  # fmt: skip
    else:
        streamed = stream.shape[1]
        duration = streamed + rows + cols
        outlet = np.zeros((duration, cols), np.int32)
        kernels.ws_layer(
            *_feeds(stream.swapaxes(1, 2), rows, duration), np.ascontiguousarray(other), order, rows, cols, streamed,
            plan.skip_unused, plan.double_buffered, cycles, outlet, acc,
        )  # fmt: skip
    load, fill, compute, drain = cycles.tolist()
    bound = exact_bound(operands, plan)
    bias = operands.bias.astype(np.int64)
    return ComputeResult(
        acc=np.ascontiguousarray(acc.swapaxes(1, 2)) if plan.transposed else acc,
        cycles=CycleCounts(load, fill, compute, drain, plan.cycles.ppu),
        actions=plan.actions,
        psum=RegisterWatch(0, None, -bound, bound, exact=False),
        accumulator=RegisterWatch(
            0, None, min(0, int(bias.min(initial=0))) - bound, max(0, int(bias.max(initial=0))) + bound, exact=False
        ),
    )


def _feeds(lines: Int16, width: int, duration: int) -> tuple[Int16, NDArray[np.uint8]]:
    """Return what feeders send in each cycle of a pass: [batch, folds, duration, width], elements and tokens.

    lines [batch, L, elements] : feeder i of a fold sends line i of it, an element a cycle, from cycle i on; a line that
        a fold lacks sends tokens without data
    """
    from accelsim.engine.registers_kernels import LAST, STEP

    batch, count, elements = lines.shape
    sizes = (batch, -(-count // width), duration, width)
    feeds, tokens = np.zeros(sizes, np.int16), np.zeros(sizes, np.uint8)
    for i in range(width):
        own = lines[:, i::width]
        feeds[:, : own.shape[1], i : i + elements, i] = own
        tokens[:, :, i : i + elements, i] = STEP
        tokens[:, :, i + elements - 1, i] = LAST
    return feeds, tokens
