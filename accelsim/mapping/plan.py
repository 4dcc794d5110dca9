"""The plan of a layer: its passes over the array, and the cycles and actions that follow from them in closed form.

A function of shapes and configuration only, so a timing-only run needs no tensors. Semantics: docs/timing.md. The
stepped engine moves registers and must count the same numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.errors import UnsupportedLayerError
from accelsim.mapping.contract import CycleCounts, GemmOperands, GemmShape, LayerPlan, Passes, Widths
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
            f"does not divide the array's {array.rows} rows, so a block would straddle two folds; use rows divisible by "
            f"{steps_per_group}, {block_size} lanes, or dataflow 'os'"
        )
    valid = np.ones(shape.k, np.bool_) if k_valid is None else k_valid
    widths = _widths(config, a_bits, w_bits, block_size, a_scale_bits, w_scale_bits)
    steps = groups * steps_per_group
    passes = _passes(shape, steps, config)
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
            _tally(shape, passes, valid, array.lanes, block_size, group, config),
            widths,
            shape,
            transposed=array.dataflow == "is",
        ),
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
    streamed = shape.n if array.dataflow == "is" else shape.m
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


def _tally(
    shape: GemmShape,
    passes: Passes,
    k_valid: NDArray[np.bool_],
    lanes: int,
    block_size: int,
    group: int,
    config: HardwareConfig,
) -> Tally:
    outputs = shape.batch * shape.m * shape.n
    groups = -(-shape.k // group)
    steps_per_group = group // lanes
    padded = np.zeros(groups * group, np.int64)
    padded[: shape.k] = k_valid
    in_step = padded.reshape(-1, lanes).sum(axis=1)  # valid elements of each lane step
    scales_in_step = np.zeros_like(in_step)
    block_adds = block_sum_adds = scaled_blocks = 0
    if block_size:
        in_block = padded.reshape(-1, block_size).sum(axis=1)
        scaled_blocks = int((in_block > 0).sum())
        parts = in_block if block_size <= lanes else in_step
        if block_size <= lanes:
            scales_in_step = (in_block > 0).reshape(-1, lanes // block_size).sum(axis=1)
            block_sum_adds = int(np.maximum(scales_in_step - 1, 0).sum())
        else:
            scales_in_step[steps_per_group - 1 :: steps_per_group] = in_block > 0
            working = (in_step > 0).reshape(-1, steps_per_group).sum(axis=1)
            block_adds = int(np.maximum(working - 1, 0).sum())
    else:
        parts = in_step
    hops = _hops(shape, passes, in_step, config)
    scale_hops = _hops(shape, passes, scales_in_step, config)
    r, _ = _extents(passes, config)
    if config.array.dataflow == "os":
        folds = 1
        below = passes.rows * (r - 1) - passes.rows * (passes.rows - 1) // 2  # rows that draining psums pass
        psum_latches = outputs * groups + int((passes.cols * below).sum())
    else:
        folds = -(-in_step.size // config.array.rows)
        streamed = shape.n if config.array.dataflow == "is" else shape.m
        psum_latches = streamed * int((passes.cols * r).sum())
    return Tally(
        products=outputs * int(k_valid.sum()),
        tree_adds=outputs * int(np.maximum(parts - 1, 0).sum()),
        block_adds=outputs * block_adds,
        block_sum_adds=outputs * block_sum_adds,
        scaled_blocks=outputs * scaled_blocks,
        psum_adds=outputs * groups,
        stream_hops=hops[0],
        other_hops=hops[1],
        stream_scale_hops=scale_hops[0],
        other_scale_hops=scale_hops[1],
        psum_latches=psum_latches,
        block_latches=outputs * groups * (steps_per_group - 1),
        acc_adds=outputs * folds,
    )


def _hops(shape: GemmShape, passes: Passes, in_step: Int64, config: HardwareConfig) -> tuple[int, int]:
    """Return the latches of the operand that moves right, and of the other one, given its elements in each lane step.

    Data travels through all columns (rows) of the pass's extents, used or not. A stationary element of row i passes
    the registers of rows 0 to i on its way in.
    """
    r, c = _extents(passes, config)
    if config.array.dataflow == "os":
        total = int(in_step.sum())
        return total * int((passes.rows * c).sum()), total * int((passes.cols * r).sum())
    streamed = shape.n if config.array.dataflow == "is" else shape.m
    sums = np.append(0, np.cumsum(in_step))
    moments = np.append(0, np.cumsum(in_step * np.arange(1, in_step.size + 1)))
    stop = passes.row0 + passes.rows
    in_fold = sums[stop] - sums[passes.row0]
    loaded = moments[stop] - moments[passes.row0] - passes.row0 * in_fold
    return streamed * int((in_fold * c).sum()), int((passes.cols * loaded).sum())
