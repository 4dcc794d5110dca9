"""Layers computed straight from their definition: the independent exact reference behind ``accelsim run --verify``.

Follows docs/numerics.md, sections 2 and 5. Outputs stay where the layer has them, and the elements of K come one after
another (kernel row, kernel column, channel); there are no GEMMs, patches or passes here, and nothing is shared with the
lowering, the plan or the engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import Array, HardwareConfig, Register
from accelsim.formats.spec import QTensor
from accelsim.mapping.direct_elements import Element, Elements, Exact, Operand, layer_elements, runs
from accelsim.mapping.direct_float import (
    block_value,
    fixed_bias,
    fixed_point,
    float32_accumulators,
    float_operands,
)
from accelsim.trace.schema import Conv2dMeta, Layer, MatmulMeta

DType = np.dtype[Any]
BlockSum = Callable[[Iterator[Element]], Exact]
Sizes = tuple[int, int, int]
"""Elements of K in a fold (0: all of them), in a group, and in a block (without block scales: the group)."""


def direct_accumulators(
    layer: Layer,
    x: QTensor,
    weight: QTensor,
    bias: NDArray[np.int64] | NDArray[np.float32] | None,
    config: HardwareConfig,
) -> NDArray[np.int64] | NDArray[np.float32]:
    """Return the accumulators of a layer after its corrections, in the shape of the layer's output.

    x : activations: conv2d [batch, height, width, channel]; linear [..., in]; matmul [..., M, K]
    weight : conv2d [out, kernel height, kernel width, in / groups]; linear [out, in]; matmul: the other activation
    bias : [N], or None. Integers in units of the accumulator; where an operand has exponents, real numbers in units of
        the product of the coarse scales
    config : lanes, rows and dataflow order the additions; the registers limit each of them

    Returns float32 where psums are float32, else int64.

    The operands must be ones that :func:`accelsim.mapping.lower.lower` accepts.
    """
    if _has_exponents(x) or _has_exponents(weight):
        return _with_exponents(layer, x, weight, bias, config)
    dtype: DType = np.dtype(np.int64 if _bound(layer, x, weight, bias) < 1 << 61 else object)
    x_operand, w_operand = _integers(x, dtype), _integers(weight, dtype)
    padding, corrected = _padding(layer, x, weight, config.array)
    elements = layer_elements(layer, x_operand, w_operand, _block_size(x, weight), padding)
    shift = _product_shift(x, weight, config)
    zero_x, zero_w = _zero_points(x, weight, dtype)
    count = sum(1 for _ in elements())
    preload = np.zeros(1, dtype) if bias is None else bias.astype(dtype)
    if shift:
        preload = (preload + (1 << (shift - 1))) >> shift
    row_preload = np.zeros(1, dtype)
    if isinstance(layer, MatmulMeta):  # zw sum (x - zx): what is known of it goes where the rest is measured
        row_preload = row_preload - count * zero_x
    elif zero_x:
        preload = preload - zero_x * sum(element.w.values for element in elements()) + count * zero_x * zero_w
    run = partial(
        _accumulate, block_sum=partial(_scaled_dot, shift), sizes=_sizes(x, weight, config.array), config=config
    )
    acc = run(elements, preload)
    if corrected:  # the array took the bits beyond the edges for +1
        outside = layer_elements(layer, replace(x_operand, values=np.zeros_like(x_operand.values)), w_operand, 0, 1)
        acc = _limit(acc - sum(element.product for element in outside()), config.accumulator)
    if np.any(zero_w != 0):
        row_sums = run(partial(_with_ones, elements, "w"), row_preload)
        acc = _limit(acc - zero_w * row_sums, config.accumulator)
    if isinstance(layer, MatmulMeta) and zero_x:
        column_sums = run(partial(_with_ones, elements, "x"), np.zeros(1, dtype))
        acc = _limit(acc - zero_x * column_sums, config.accumulator)
    return np.ascontiguousarray(acc.astype(np.int64))


def _with_exponents(
    layer: Layer,
    x: QTensor,
    weight: QTensor,
    bias: NDArray[np.int64] | NDArray[np.float32] | None,
    config: HardwareConfig,
) -> NDArray[np.int64] | NDArray[np.float32]:
    """Return the accumulators of a layer with an operand that has exponents; there are no zero points."""
    unit = config.array.float_unit
    assert unit is not None  # support.check_supported saw to it
    sizes = _sizes(x, weight, config.array)
    x_operand, w_operand, shared = float_operands(x, weight, sizes[2], unit)
    padding, _ = _padding(layer, x, weight, config.array)
    elements = layer_elements(layer, x_operand, w_operand, _block_size(x, weight), padding)
    reals = np.zeros(1, np.float32) if bias is None else bias
    if unit.accumulate == "float32":
        return float32_accumulators(elements, reals.astype(np.float32), sizes, shared, unit.align_bits)

    def block_sum(block: Iterator[Element]) -> Exact:
        return fixed_point(*block_value(block, shared, unit.align_bits), unit)

    acc = _accumulate(elements, fixed_bias(reals, unit), block_sum=block_sum, sizes=sizes, config=config)
    return np.ascontiguousarray(acc.astype(np.int64))


def _accumulate(
    elements: Elements, preload: Exact, *, block_sum: BlockSum, sizes: Sizes, config: HardwareConfig
) -> Exact:
    """Add products to blocks, blocks to groups, groups to psums and psums to accumulators."""
    fold_size, group_size, block_size = sizes
    acc = _limit(preload, config.accumulator)
    for fold in runs(elements(), fold_size):
        psum: Any = 0
        for group in runs(fold, group_size):
            part: Any = 0
            for block in runs(group, block_size):
                part = part + block_sum(block)
            psum = _limit(psum + part, config.array.psum)
        acc = _limit(acc + psum, config.accumulator)
    return acc


def _scaled_dot(shift: int, block: Iterator[Element]) -> Exact:
    """Return a block's sum of products, times the product of its scales without `shift` low bits (half up)."""
    dot: Any = 0
    for element in block:
        dot = dot + element.product
    scale = element.scale  # one for the whole block
    if shift:
        scale = (scale + (1 << (shift - 1))) >> shift
    return np.asarray(dot * scale)


def _limit(total: Exact, register: Register) -> Exact:
    """Return what a register holds after an addition whose exact result is `total`."""
    low, high = register.low, register.high
    if register.overflow == "saturate":
        return np.minimum(np.maximum(total, low), high)
    if total.dtype != object and register.bits >= 63:
        return total  # exact sums are below 2^62 in magnitude: nothing to wrap
    return ((total - low) & (high - low)) + low


def _has_exponents(tensor: QTensor) -> bool:
    return tensor.format.datapath in ("float", "block_float")


def _is_xnor(x: QTensor, weight: QTensor, array: Array) -> bool:
    return array.popcount is not None and x.format.datapath == weight.format.datapath == "binary"


def _sizes(x: QTensor, weight: QTensor, array: Array) -> Sizes:
    """Return the sizes of folds, groups and blocks of a layer: what the PE takes in a step follows its multiplier."""
    lanes, block_size = array.lanes, _block_size(x, weight)
    if _is_xnor(x, weight, array):
        assert array.popcount is not None
        lanes = array.popcount.word_bits
    elif array.multiplier.kind == "fusion":
        for tensor, port in ((x, array.activation), (weight, array.weight)):
            bits = 2
            while bits < tensor.format.lane_bits:
                bits *= 2
            lanes *= max(1, port.bits // bits)
    group_size = max(lanes, block_size)
    # ws and is hold rows * lanes elements of K at once; os holds all of them.
    return 0 if array.dataflow == "os" else array.rows * lanes, group_size, block_size or group_size


def _padding(layer: Layer, x: QTensor, weight: QTensor, array: Array) -> tuple[int, bool]:
    """Return what the array sees beyond the edges of an image, and whether it should have been 0 instead."""
    if not isinstance(layer, Conv2dMeta) or x.format.datapath != "binary":
        return int(x.zero_point.max()), False  # stands for 0
    if layer.pad_value == 0 and _is_xnor(x, weight, array):
        return 1, True
    return layer.pad_value, False


def _bound(layer: Layer, x: QTensor, weight: QTensor, bias: NDArray[np.int64] | NDArray[np.float32] | None) -> int:
    """Return a magnitude that no exact sum of the layer exceeds, bias and corrections included."""
    largest_x, largest_w = _peak(x.lanes().values), _peak(weight.lanes().values)
    zero_x, zero_w = _peak(x.zero_point), _peak(weight.zero_point)
    k = int(np.prod(weight.shape[1:])) if not isinstance(layer, MatmulMeta) else x.shape[-1]
    scale = 1
    if x.block_scales is not None and weight.block_scales is not None:
        scale = _peak(x.block_scales) * _peak(weight.block_scales)
    products = (max(largest_x, 1) + zero_x) * (largest_w + zero_w) * scale
    return 2 * k * products + (0 if bias is None else _peak(bias))


def _peak(array: NDArray[Any]) -> int:
    return max(abs(int(array.min())), abs(int(array.max())))


def _integers(tensor: QTensor, dtype: DType) -> Operand:
    lanes = tensor.lanes()
    return Operand(
        lanes.values.astype(dtype), None, None if lanes.block_scales is None else lanes.block_scales.astype(dtype)
    )


def _block_size(*tensors: QTensor) -> int:
    """Return the elements that share a scale, of the tensor that has any; 0 without block scales."""
    return max(0 if tensor.format.blocks is None else tensor.format.blocks.size for tensor in tensors)


def _product_shift(x: QTensor, weight: QTensor, config: HardwareConfig) -> int:
    """Return the low bits that the scale unit drops from a product of block scales."""
    unit = config.array.scale_unit
    if x.format.blocks is None or weight.format.blocks is None or unit is None or unit.product_bits is None:
        return 0
    return max(0, x.format.blocks.scale_bits + weight.format.blocks.scale_bits - unit.product_bits)


def _zero_points(x: QTensor, weight: QTensor, dtype: DType) -> tuple[int, Exact]:
    """Return the zero point of x, and those of the weight, [N] or [1]."""
    return int(x.zero_point.max()), np.atleast_1d(weight.zero_point).astype(dtype)  # x: one a tensor, or all are 0


def _with_ones(elements: Elements, operand: str) -> Iterator[Element]:
    """Yield the elements with ones in the place of an operand, which measures the sums of the other."""
    for element in elements():
        one = Operand(np.ones((), element.x.values.dtype))
        yield replace(element, x=one) if operand == "x" else replace(element, w=one)
