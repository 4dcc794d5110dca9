"""Events of a layer in closed form: what the multipliers, adders, registers and edge feeders of all passes do.

Counting rules: docs/timing.md, section "What is counted".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.mapping.contract import EdgeTraffic, GemmShape, Int64, Passes, Summation, Tally
from accelsim.mapping.passes import extents, streamed_rows


@dataclass(frozen=True, eq=False)
class StepContents:
    """What the lane steps that cover K hold, gated padding left out; the same for every output.

    elements, scales : int64 [lane steps], valid elements of each, and valid block scales that come with each
    products, tree_adds, block_adds, block_sum_adds, scaled_blocks : events for one output; see Tally
    groups, block_latches : psum additions, and latches of the block register, for one output
    block_size : 0 without block scales
    """

    elements: Int64
    scales: Int64
    products: int
    tree_adds: int
    block_adds: int
    block_sum_adds: int
    scaled_blocks: int
    groups: int
    block_latches: int
    block_size: int


def step_contents(k: int, k_valid: NDArray[np.bool_], lanes: int, block_size: int, group: int) -> StepContents:
    """Return what covers K: `group` elements a psum addition, `lanes` a step; block_size is 0 without block scales."""
    groups, steps_per_group = -(-k // group), group // lanes
    padded = np.zeros(groups * group, np.int64)
    padded[:k] = k_valid
    elements = padded.reshape(-1, lanes).sum(axis=1)
    scales = np.zeros_like(elements)
    summed, block_adds, block_sum_adds, scaled_blocks = elements, 0, 0, 0
    if block_size:
        in_block = padded.reshape(-1, block_size).sum(axis=1)
        scaled_blocks = int((in_block > 0).sum())  # a block without any element is gated
        if block_size <= lanes:  # whole blocks in a step: each is summed, scaled, and added to the others
            summed = in_block
            scales = (in_block > 0).reshape(-1, lanes // block_size).sum(axis=1)
            block_sum_adds = int(np.maximum(scales - 1, 0).sum())
        else:  # a block over several steps: its last step brings the scales
            scales[steps_per_group - 1 :: steps_per_group] = in_block > 0
            working = (elements > 0).reshape(-1, steps_per_group).sum(axis=1)
            block_adds = int(np.maximum(working - 1, 0).sum())
    return StepContents(
        elements=elements,
        scales=scales,
        products=int(k_valid.sum()),
        tree_adds=int(np.maximum(summed - 1, 0).sum()),
        block_adds=block_adds,
        block_sum_adds=block_sum_adds,
        scaled_blocks=scaled_blocks,
        groups=groups,
        block_latches=groups * (steps_per_group - 1),
        block_size=block_size,
    )


def array_tally(
    shape: GemmShape, passes: Passes, contents: StepContents, summation: Summation, config: HardwareConfig
) -> Tally:
    """Return the events of all passes."""
    outputs = shape.batch * shape.m * shape.n
    # In float32 each block is an addition to the psum by itself; else the blocks of a step are added to one another.
    one_by_one = summation.kind == "float32" and contents.block_size > 0
    hops = _hops(shape, passes, contents.elements, config)
    scale_hops = _hops(shape, passes, contents.scales, config)
    r, _ = extents(passes, config)
    if config.array.dataflow == "os":
        folds = 1
        below = passes.rows * (r - 1) - passes.rows * (passes.rows - 1) // 2  # rows that draining psums pass
        psum_latches = outputs * contents.groups + int((passes.cols * below).sum())
    else:
        folds = -(-contents.elements.size // config.array.rows)
        psum_latches = streamed_rows(shape, config) * int((passes.cols * r).sum())
    return Tally(
        products=outputs * contents.products,
        tree_adds=outputs * contents.tree_adds,
        block_adds=outputs * contents.block_adds,
        block_sum_adds=0 if one_by_one else outputs * contents.block_sum_adds,
        scaled_blocks=outputs * contents.scaled_blocks,
        psum_adds=outputs * (contents.scaled_blocks if one_by_one else contents.groups),
        stream_hops=hops[0],
        other_hops=hops[1],
        stream_scale_hops=scale_hops[0],
        other_scale_hops=scale_hops[1],
        psum_latches=psum_latches,
        block_latches=outputs * contents.block_latches,
        acc_adds=outputs * folds,
    )


def _in_fold(passes: Passes, in_step: Int64) -> Int64:
    """Return what the lane steps of each pass's K fold hold together (ws, is)."""
    sums = np.append(0, np.cumsum(in_step))
    held: Int64 = sums[passes.row0 + passes.rows] - sums[passes.row0]
    return held


def _entering(shape: GemmShape, passes: Passes, in_step: Int64, config: HardwareConfig) -> tuple[int, int]:
    """Return how much of the operand that moves right, and of the other one, enters the edges in all passes."""
    if config.array.dataflow == "os":
        total = int(in_step.sum())
        return total * int(passes.rows.sum()), total * int(passes.cols.sum())
    held = _in_fold(passes, in_step)
    return streamed_rows(shape, config) * int(held.sum()), int((passes.cols * held).sum())


def edge_traffic(shape: GemmShape, passes: Passes, contents: StepContents, config: HardwareConfig) -> EdgeTraffic:
    """Return what the buffers feed into the edges in all passes."""
    stream, other = _entering(shape, passes, contents.elements, config)
    stream_scales, other_scales = _entering(shape, passes, contents.scales, config)
    return EdgeTraffic(stream, stream_scales, other, other_scales)


def _hops(shape: GemmShape, passes: Passes, in_step: Int64, config: HardwareConfig) -> tuple[int, int]:
    """Return the latches of the operand that moves right, and of the other one, given what each lane step holds.

    Data travels through all columns (rows) of the pass's extents, used or not. A stationary element of row i passes
    the registers of rows 0 to i on its way in.
    """
    r, c = extents(passes, config)
    if config.array.dataflow == "os":
        total = int(in_step.sum())
        return total * int((passes.rows * c).sum()), total * int((passes.cols * r).sum())
    held = _in_fold(passes, in_step)
    moments = np.append(0, np.cumsum(in_step * np.arange(1, in_step.size + 1)))
    loaded = moments[passes.row0 + passes.rows] - moments[passes.row0] - passes.row0 * held
    return streamed_rows(shape, config) * int((held * c).sum()), int((passes.cols * loaded).sum())
