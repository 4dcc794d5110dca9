"""The plan of a layer: its passes over the array, and the cycles and actions that follow from them in closed form.

A function of shapes and configuration only, so a timing-only run needs no tensors. Semantics: docs/timing.md. The
stepped engine moves registers and must count the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.errors import UnsupportedLayerError
from accelsim.mapping.contract import CycleCounts, EdgeTraffic, GemmOperands, GemmShape, LayerPlan, Passes, Widths
from accelsim.mapping.tally import Tally, array_actions

Int64 = NDArray[np.int64]


def plan_operands(operands: GemmOperands, config: HardwareConfig, *, layer: str = "layer") -> LayerPlan:
    """Return the plan of lowered operands; see :func:`plan_layer`."""
    blocks = operands.blocks
    return plan_layer(
        operands.shape,
        config,
        a_bits=operands.a_bits,
        w_bits=operands.w_bits,
        k_valid=operands.k_valid,
        block_size=blocks.size if blocks else 0,
        a_scale_bits=blocks.a_scale_bits if blocks else 0,
        w_scale_bits=blocks.w_scale_bits if blocks else 0,
        layer=layer,
    )


def plan_layer(
    shape: GemmShape,
    config: HardwareConfig,
    *,
    a_bits: int,
    w_bits: int,
    k_valid: NDArray[np.bool_] | None = None,
    block_size: int = 0,
    a_scale_bits: int = 0,
    w_scale_bits: int = 0,
    layer: str = "layer",
) -> LayerPlan:
    """Return how GEMMs of `shape` run on the configured array.

    k_valid : bool [K], False where K was padded to complete a block; None: all of K is valid
    block_size : elements that share a scale, 0 without block scales
    a_bits, w_bits, a_scale_bits, w_scale_bits : widths of lanes and block scales
    layer : what messages call it

    Raises UnsupportedLayerError where blocks do not fit the lanes or the rows, with the sizes that would.
    """
    array = config.array
    group = group_size(array.lanes, block_size, layer)
    steps_per_group = group // array.lanes
    groups = -(-shape.k // group)
    if array.dataflow != "os" and array.rows % steps_per_group:
        raise UnsupportedLayerError(
            f"{layer}: a block of {block_size} elements spans {steps_per_group} rows of {array.lanes} lanes, which "
            f"does not divide the array's {array.rows} rows, so a block would straddle two folds; use rows divisible "
            f"by {steps_per_group}, {block_size} lanes, or dataflow 'os'"
        )
    valid = np.ones(shape.k, np.bool_) if k_valid is None else k_valid
    widths = _widths(config, a_bits, w_bits, block_size, a_scale_bits, w_scale_bits)
    steps = groups * steps_per_group
    passes = _passes(shape, steps, config)
    contents = _step_contents(shape.k, valid, array.lanes, block_size, group)
    return LayerPlan(
        dataflow=array.dataflow,
        shape=shape,
        rows=array.rows,
        cols=array.cols,
        lanes=array.lanes,
        group=group,
        steps_per_group=steps_per_group,
        groups_per_fold=groups if array.dataflow == "os" else array.rows // steps_per_group,
        psum_bits=array.psum.bits,
        psum_overflow=array.psum.overflow,
        acc_bits=config.accumulator.bits,
        acc_overflow=config.accumulator.overflow,
        double_buffered=array.double_buffered,
        drain_overlap=array.drain_overlap,
        skip_unused=array.skip_unused,
        widths=widths,
        passes=passes,
        cycles=_cycles(shape, passes, steps, config),
        actions=array_actions(
            _tally(shape, passes, contents, config), widths, shape, transposed=array.dataflow == "is"
        ),
        edge=_edge_traffic(shape, passes, contents, config),
    )


def group_size(lanes: int, block_size: int, layer: str = "layer") -> int:
    """Return the elements of K in one psum addition: the lanes, or a block if that is larger."""
    if block_size and block_size % lanes and lanes % block_size:
        fitting = [size for size in range(1, 257) if block_size % size == 0 or size % block_size == 0]
        raise UnsupportedLayerError(
            f"{layer}: blocks of {block_size} elements do not fit {lanes} lanes a PE; lanes must divide the block or "
            f"be a multiple of it: use one of {', '.join(map(str, fitting[:12]))}"
        )
    return max(lanes, block_size)


def _widths(
    config: HardwareConfig, a_bits: int, w_bits: int, block_size: int, a_scale_bits: int, w_scale_bits: int
) -> Widths:
    scale_product = a_scale_bits + w_scale_bits
    unit = config.array.scale_unit
    if unit is not None and unit.product_bits is not None:
        scale_product = min(scale_product, unit.product_bits)
    return Widths(
        a=a_bits,
        w=w_bits,
        a_scale=a_scale_bits,
        w_scale=w_scale_bits,
        scale_product=scale_product,
        dot=a_bits + w_bits + ((block_size or config.array.lanes) - 1).bit_length(),
        psum=config.array.psum.bits,
        acc=config.accumulator.bits,
        accumulator_bytes=config.buffers.accumulator.size_bytes,
    )


def _passes(shape: GemmShape, steps: int, config: HardwareConfig) -> Passes:
    """Return all passes in order; os: m folds, then n folds; ws and is: column folds, then K folds (innermost)."""
    array = config.array
    stationary_cols = shape.m if array.dataflow == "is" else shape.n
    outer, inner = (shape.m, shape.n) if array.dataflow == "os" else (stationary_cols, steps)
    outer_step, inner_step = (array.rows, array.cols) if array.dataflow == "os" else (array.cols, array.rows)
    starts_outer = np.arange(0, outer, outer_step, dtype=np.int64)
    starts_inner = np.arange(0, inner, inner_step, dtype=np.int64)
    first = np.tile(np.repeat(starts_outer, starts_inner.size), shape.batch)
    second = np.tile(starts_inner, starts_outer.size * shape.batch)
    batch = np.repeat(np.arange(shape.batch, dtype=np.int64), starts_outer.size * starts_inner.size)
    first_used, second_used = np.minimum(outer - first, outer_step), np.minimum(inner - second, inner_step)
    if array.dataflow == "os":
        return Passes(batch, first, first_used, second, second_used)
    return Passes(batch, second, second_used, first, first_used)


def _extents(passes: Passes, config: HardwareConfig) -> tuple[Int64, Int64]:
    """Return the rows and columns that each pass travels: the whole array, or only what it uses."""
    if config.array.skip_unused:
        return passes.rows, passes.cols
    return np.full_like(passes.rows, config.array.rows), np.full_like(passes.cols, config.array.cols)


def _cycles(shape: GemmShape, passes: Passes, steps: int, config: HardwareConfig) -> CycleCounts:
    array, ppu = config.array, config.ppu
    r, c = _extents(passes, config)
    fill = r + c - 2
    results = -(-passes.cols // ppu.lanes)  # PPU cycles for one row of a pass's results
    if array.dataflow == "os":
        busy = steps + fill
        stall = passes.rows * (results - 1)
        if array.drain_overlap:  # what does not hide behind the next pass; nothing hides the last drain
            hidden = np.append(busy[1:], 0)
            drain = np.maximum(0, r - hidden)
            stall = np.maximum(0, r + stall - hidden) - drain
        else:
            drain = r
        return CycleCounts(
            fill=int(fill.sum()),
            compute=steps * len(passes),
            drain=int(drain.sum()),
            ppu=int(stall.sum()) + ppu.latency_cycles,
        )
    streamed = _streamed(shape, config)
    busy = streamed + fill
    load = np.maximum(0, r - np.append(0, busy[:-1])) if array.double_buffered else r
    last_fold = passes.row0 + passes.rows == steps  # its results are final and leave for the PPU
    stall = np.where(last_fold, np.maximum(0, streamed * results - busy), 0)
    return CycleCounts(
        load=int(load.sum()),
        fill=int(fill.sum()),
        compute=streamed * len(passes),
        ppu=int(stall.sum()) + ppu.latency_cycles,
    )


@dataclass(frozen=True, eq=False)
class StepContents:
    """What the lane steps that cover K hold, gated padding left out; the same for every output.

    elements, scales : int64 [lane steps], valid elements of each, and valid block scales that come with each
    products, tree_adds, block_adds, block_sum_adds, scaled_blocks : events for one output; see Tally
    groups, block_latches : psum additions, and latches of the block register, for one output
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


def _step_contents(k: int, k_valid: NDArray[np.bool_], lanes: int, block_size: int, group: int) -> StepContents:
    groups, steps_per_group = -(-k // group), group // lanes
    padded = np.zeros(groups * group, np.int64)
    padded[:k] = k_valid
    elements = padded.reshape(-1, lanes).sum(axis=1)
    scales = np.zeros_like(elements)
    summed, block_adds, block_sum_adds, scaled_blocks = elements, 0, 0, 0
    if block_size:
        in_block = padded.reshape(-1, block_size).sum(axis=1)
        scaled_blocks = int((in_block > 0).sum())
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
    )


def _tally(shape: GemmShape, passes: Passes, contents: StepContents, config: HardwareConfig) -> Tally:
    outputs = shape.batch * shape.m * shape.n
    hops = _hops(shape, passes, contents.elements, config)
    scale_hops = _hops(shape, passes, contents.scales, config)
    r, _ = _extents(passes, config)
    if config.array.dataflow == "os":
        folds = 1
        below = passes.rows * (r - 1) - passes.rows * (passes.rows - 1) // 2  # rows that draining psums pass
        psum_latches = outputs * contents.groups + int((passes.cols * below).sum())
    else:
        folds = -(-contents.elements.size // config.array.rows)
        psum_latches = _streamed(shape, config) * int((passes.cols * r).sum())
    return Tally(
        products=outputs * contents.products,
        tree_adds=outputs * contents.tree_adds,
        block_adds=outputs * contents.block_adds,
        block_sum_adds=outputs * contents.block_sum_adds,
        scaled_blocks=outputs * contents.scaled_blocks,
        psum_adds=outputs * contents.groups,
        stream_hops=hops[0],
        other_hops=hops[1],
        stream_scale_hops=scale_hops[0],
        other_scale_hops=scale_hops[1],
        psum_latches=psum_latches,
        block_latches=outputs * contents.block_latches,
        acc_adds=outputs * folds,
    )


def _streamed(shape: GemmShape, config: HardwareConfig) -> int:
    """Return the rows that stream past a stationary operand in one pass."""
    return shape.n if config.array.dataflow == "is" else shape.m


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
    return _streamed(shape, config) * int(held.sum()), int((passes.cols * held).sum())


def _edge_traffic(shape: GemmShape, passes: Passes, contents: StepContents, config: HardwareConfig) -> EdgeTraffic:
    stream, other = _entering(shape, passes, contents.elements, config)
    stream_scales, other_scales = _entering(shape, passes, contents.scales, config)
    return EdgeTraffic(stream, stream_scales, other, other_scales)


def _hops(shape: GemmShape, passes: Passes, in_step: Int64, config: HardwareConfig) -> tuple[int, int]:
    """Return the latches of the operand that moves right, and of the other one, given what each lane step holds.

    Data travels through all columns (rows) of the pass's extents, used or not. A stationary element of row i passes
    the registers of rows 0 to i on its way in.
    """
    r, c = _extents(passes, config)
    if config.array.dataflow == "os":
        total = int(in_step.sum())
        return total * int((passes.rows * c).sum()), total * int((passes.cols * r).sum())
    held = _in_fold(passes, in_step)
    moments = np.append(0, np.cumsum(in_step * np.arange(1, in_step.size + 1)))
    loaded = moments[passes.row0 + passes.rows] - moments[passes.row0] - passes.row0 * held
    return _streamed(shape, config) * int((held * c).sum()), int((passes.cols * loaded).sum())
