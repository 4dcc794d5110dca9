"""What data do to operand registers and multipliers, in closed form over the streams (docs/timing.md, "Activity").

All registers of a row of PEs see the row's stream, later and later: toggles of the row are those of one register, times
the columns that the pass travels. So nothing here looks at a PE, and the work is that of reading the operands once.

Psums and accumulators have no such form. Where the watched engine can take the layer, it counts them; else they are
None.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.contract import Activity, OperandActivity
from accelsim.engine.lane_codes import lane_codes, operand_codes
from accelsim.engine.watched import watch_layer, why_not_watched
from accelsim.mapping.contract import GemmOperands, Int64, LayerPlan

Codes = NDArray[np.uint32]


def layer_activity(operands: GemmOperands, plan: LayerPlan) -> Activity:
    """Return what the data do in a layer; equal to what the stepped engine counts."""
    streams = _codes(operands, plan)
    stream, other = _output_stationary(plan, *streams) if plan.dataflow == "os" else _stationary(plan, *streams)
    kinds = operand_codes(operands, plan)
    bits = [kind.total_bits for kind in (reversed(kinds) if plan.transposed else kinds)]
    tally = plan.tally
    psum_toggles, accumulator_toggles = None, None
    if why_not_watched(operands, plan) is None:
        watched = watch_layer(operands, plan)
        psum_toggles, accumulator_toggles = watched.psum.toggles, watched.accumulator.toggles
    return Activity(
        products=tally.products,
        zero_products=zero_products(operands),
        stream=OperandActivity(bits[0], tally.stream_hops, *stream),
        other=OperandActivity(bits[1], tally.other_hops, *other),
        psum_bits=psum_bits(plan),
        psum_toggles=psum_toggles,
        accumulator_toggles=accumulator_toggles,
    )


def psum_bits(plan: LayerPlan) -> int:
    """Return the bits of psum registers latched in a layer, moves of psums that drain (os) apart."""
    shape = plan.shape
    additions = shape.batch * shape.m * shape.n * -(-shape.k // plan.group)
    return (additions if plan.dataflow == "os" else plan.tally.psum_latches) * plan.widths.psum


def zero_products(operands: GemmOperands) -> int:
    """Return how many products have a zero operand: all but those of two that are not, element of K by element."""
    shape, valid = operands.shape, operands.k_valid
    of_a = (operands.a[:, :, valid] != 0).sum(axis=1, dtype=np.int64)
    of_w = (operands.w[:, valid] != 0).sum(axis=2, dtype=np.int64)
    return shape.batch * shape.m * shape.n * int(valid.sum()) - int((of_a * of_w).sum())


def _codes(operands: GemmOperands, plan: LayerPlan) -> tuple[Codes, Codes]:
    """Return the codes of the stream [batch, rows, K] and of the other operand [batch, columns, K], K filled up."""
    of_a, of_w = operand_codes(operands, plan)
    a = lane_codes(of_a, operands.a, operands.a_exponents)
    w = lane_codes(of_w, operands.w, operands.w_exponents).swapaxes(1, 2)
    length = -(-plan.shape.k // plan.group) * plan.group

    def padded(codes: Codes) -> Codes:
        whole = np.zeros((*codes.shape[:2], length), np.uint32)
        whole[:, :, : plan.shape.k] = np.where(operands.k_valid, codes, 0)
        return whole

    return (padded(w), padded(a)) if plan.transposed else (padded(a), padded(w))


def _extents(plan: LayerPlan) -> tuple[Int64, Int64]:
    passes = plan.passes
    if plan.skip_unused:
        return passes.rows, passes.cols
    return np.full_like(passes.rows, plan.rows), np.full_like(passes.cols, plan.cols)


def _over_passes(counts: Int64, batch: Int64, first: Int64, used: Int64, times: Int64) -> int:
    """Return the sum over passes of counts[batch, first : first + used], `times` each."""
    sums = np.zeros((counts.shape[0], counts.shape[1] + 1), np.int64)
    np.cumsum(counts, axis=1, out=sums[:, 1:])
    return int(((sums[batch, first + used] - sums[batch, first]) * times).sum())


Counted = tuple[int, int]


def _output_stationary(plan: LayerPlan, stream: Codes, other: Codes) -> tuple[Counted, Counted]:
    from accelsim.engine import activity_kernels as kernels

    passes, (r, c) = plan.passes, _extents(plan)
    found = []
    for codes, first, used, times in (
        (stream, passes.row0, passes.rows, c),
        (other, passes.col0, passes.cols, r),
    ):
        counts = np.zeros((2, *codes.shape[:2]), np.int64)
        for b, of_one in enumerate(codes):
            kernels.along_steps(of_one, plan.lanes, counts[0, b], counts[1, b])
        found.append(
            (
                _over_passes(counts[0], passes.batch, first, used, times),
                _over_passes(counts[1], passes.batch, first, used, times),
            )
        )
    return found[0], found[1]


def _stationary(plan: LayerPlan, stream: Codes, other: Codes) -> tuple[Counted, Counted]:
    from accelsim.engine import activity_kernels as kernels

    passes, (_, c) = plan.passes, _extents(plan)
    batch, steps = stream.shape[0], stream.shape[2] // plan.lanes
    counts = np.zeros((2, batch, stream.shape[2]), np.int64)
    loaded = np.zeros(2, np.int64)
    held = np.zeros((plan.rows, plan.cols, plan.lanes), np.uint32)
    for b in range(batch):
        kernels.along_rows(stream[b], counts[0, b], counts[1, b])
        own = passes.batch == b
        row0, rows, col0, cols = (array[own] for array in (passes.row0, passes.rows, passes.col0, passes.cols))
        kernels.loading(other[b], plan.lanes, row0, rows, col0, cols, loaded)
        if plan.double_buffered:
            kernels.holding(other[b], plan.lanes, row0, rows, col0, cols, held, loaded)
    if plan.double_buffered:  # and empty when the layer ends
        loaded += np.array([int(np.bitwise_count(held).sum()), int((held != 0).sum())])
    in_step = counts.reshape(2, batch, steps, plan.lanes).sum(axis=3)
    streamed = [_over_passes(each, passes.batch, passes.row0, passes.rows, c) for each in in_step]
    return (streamed[0], streamed[1]), (int(loaded[0]), int(loaded[1]))
