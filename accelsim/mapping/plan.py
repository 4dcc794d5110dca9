"""The plan of a layer: its passes over the array, and the cycles and actions that follow from them in closed form.

A function of shapes and configuration only, so a timing-only run needs no tensors. Semantics: docs/timing.md. The
stepped engine moves registers and must count the same numbers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Actions
from accelsim.config.model import HardwareConfig
from accelsim.errors import ShapeError, UnsupportedLayerError
from accelsim.mapping.contract import INTEGERS, GemmOperands, GemmShape, LayerPlan, Product, Summation, Widths
from accelsim.mapping.counts import array_tally, edge_traffic, step_contents
from accelsim.mapping.cycles import cycle_counts
from accelsim.mapping.passes import layer_passes, pass_count
from accelsim.mapping.step import lane_step, operand_pieces
from accelsim.mapping.tally import Datapath, array_actions, entry_actions

MOST_MACS = 1 << 56
"""Of a layer: what 64-bit counters of bits and cycles hold."""
MOST_PASSES, MOST_K = 1 << 24, 1 << 25
"""Of a layer: planned one by one, in some gigabytes of memory."""


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
        significand_bits=blocks.significand_bits if blocks else 0,
        product=operands.product,
        a_code_bits=operands.a_code_bits,
        w_code_bits=operands.w_code_bits,
        summation=operands.summation,
        exponent_spans=operands.exponent_spans,
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
    significand_bits: int = 0,
    product: Product = "multiply",
    a_code_bits: int = 0,
    w_code_bits: int = 0,
    summation: Summation = INTEGERS,
    exponent_spans: tuple[int, int] = (0, 0),
    layer: str = "layer",
) -> LayerPlan:
    """Return how GEMMs of `shape` run on the configured array.

    k_valid : bool [K], False where K was padded to complete a block; None: all of K is valid
    block_size : elements that share a scale, 0 without block scales
    a_bits, w_bits, a_scale_bits, w_scale_bits, significand_bits : widths of lanes and block scales
    product, a_code_bits, w_code_bits, summation, exponent_spans : as in GemmOperands
    layer : what messages call it

    Raises UnsupportedLayerError where blocks do not fit the lanes or the rows, with the sizes that would; ShapeError
    where k_valid is not one bool an element of K.
    """
    array = config.array
    step = lane_step(config, product, a_bits=a_bits, w_bits=w_bits)
    group = group_size(step.lanes, block_size, layer)
    steps_per_group = group // step.lanes
    if summation.align_bits is not None and steps_per_group > 1:
        raise UnsupportedLayerError(
            f"{layer}: a block of {block_size} elements spans {steps_per_group} steps of {step.lanes} lanes, but "
            f"array.float_unit.align_bits={summation.align_bits} aligns the products of one step; use lanes: "
            f"{block_size} or a multiple, or align_bits: null"
        )
    groups = -(-shape.k // group)
    steps = groups * steps_per_group
    check_size(shape, config, steps, layer)
    if array.dataflow != "os" and array.rows % steps_per_group:
        raise UnsupportedLayerError(
            f"{layer}: a block of {block_size} elements spans {steps_per_group} rows of {step.lanes} lanes, which "
            f"does not divide the array's {array.rows} rows, so a block would straddle two folds; use rows divisible "
            f"by {steps_per_group}, {block_size} lanes, or dataflow 'os'"
        )
    valid = np.ones(shape.k, np.bool_) if k_valid is None else k_valid
    if valid.dtype != np.bool_ or valid.shape != (shape.k,):
        raise ShapeError(f"{layer}: k_valid is {valid.dtype} {valid.shape}, but must be bool ({shape.k},)")
    widths = replace(
        _widths(config, a_bits, w_bits, a_scale_bits, w_scale_bits),
        dot=_dot_bits(a_bits + w_bits, block_size or step.lanes, summation, exponent_spans),
        a_code=a_code_bits or a_bits,
        w_code=w_code_bits or w_bits,
        a_exponent=exponent_spans[0].bit_length(),
        w_exponent=exponent_spans[1].bit_length(),
    )
    if summation.kind != "integer":
        widths = replace(widths, scale_product=2 * significand_bits)
    passes = layer_passes(shape, steps, config)
    contents = step_contents(shape.k, valid, step.lanes, block_size, group)
    tally = array_tally(shape, passes, contents, summation, config)
    datapath = Datapath(widths, array.multiplier, product, summation)
    return LayerPlan(
        dataflow=array.dataflow,
        shape=shape,
        rows=array.rows,
        cols=array.cols,
        lanes=step.lanes,
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
        step_cycles=step.cycles,
        pieces=operand_pieces(config, product, a_bits=a_bits, w_bits=w_bits),
        multiplier=array.multiplier,
        product=product,
        summation=summation,
        widths=widths,
        passes=passes,
        cycles=cycle_counts(shape, passes, steps, step.cycles, config),
        actions=array_actions(tally, datapath, shape, transposed=array.dataflow == "is"),
        tally=tally,
        edge=edge_traffic(shape, passes, contents, config),
        arguments={
            "a_bits": a_bits,
            "w_bits": w_bits,
            "k_valid": k_valid,
            "block_size": block_size,
            "a_scale_bits": a_scale_bits,
            "w_scale_bits": w_scale_bits,
            "significand_bits": significand_bits,
            "product": product,
            "a_code_bits": a_code_bits,
            "w_code_bits": w_code_bits,
            "summation": summation,
            "exponent_spans": exponent_spans,
            "layer": layer,
        },
        entry=Actions()
        if array.dataflow == "os"
        else entry_actions(tally, datapath, transposed=array.dataflow == "is"),
    )


def check_size(shape: GemmShape, config: HardwareConfig, steps: int, layer: str = "layer") -> None:
    """Raise UnsupportedLayerError for a layer that is too large to be planned. steps : lane steps that cover K"""
    size = f"{layer}: {shape.batch:,} x {shape.m:,} x {shape.k:,} x {shape.n:,} (batch, M, K, N)"
    macs = shape.batch * shape.m * shape.k * shape.n
    if macs > MOST_MACS:
        raise UnsupportedLayerError(
            f"{size} is {macs:,} multiply-accumulates; use up to {MOST_MACS:,}, or cut it into smaller layers"
        )
    if shape.k > MOST_K:
        raise UnsupportedLayerError(f"{size}: K is too large; use up to {MOST_K:,}, or cut it into smaller layers")
    count = pass_count(shape, steps, config)
    if count > MOST_PASSES:
        rows, cols = config.array.rows, config.array.cols
        raise UnsupportedLayerError(
            f"{size} is {count:,} passes of the {rows} x {cols} array; use up to {MOST_PASSES:,}, with a larger array, "
            f"or cut it into smaller layers"
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


def _dot_bits(product_bits: int, size: int, summation: Summation, exponent_spans: tuple[int, int]) -> int:
    """Return the width of a sum of `size` products, those with exponents on one grid."""
    grid = sum(exponent_spans) if summation.align_bits is None else summation.align_bits
    return product_bits + grid + (size - 1).bit_length()


def _widths(config: HardwareConfig, a_bits: int, w_bits: int, a_scale_bits: int, w_scale_bits: int) -> Widths:
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
        dot=0,
        psum=config.array.psum.bits,
        acc=config.accumulator.bits,
        accumulator_sram=config.buffers.accumulator.sram,
        a_code=a_bits,
        w_code=w_bits,
    )
