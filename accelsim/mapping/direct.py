"""Layers computed straight from their definition: the independent integer reference behind ``accelsim run --verify``.

Follows docs/numerics.md, section 2. Outputs stay where the layer has them, and the elements of K come one after another
(kernel row, kernel column, channel); there are no GEMMs, patches or passes here, and nothing is shared with the
lowering, the plan or the engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig, Register
from accelsim.formats.spec import QTensor
from accelsim.trace.schema import Conv2dMeta, Layer, LinearMeta, MatmulMeta

Exact = NDArray[Any]
"""Exact integers: int64 where no sum can leave it, Python's own (dtype object) otherwise."""
DType = np.dtype[Any]


@dataclass(frozen=True, eq=False)
class Element:
    """One element of K, for every output at once; the arrays broadcast to the output's shape.

    position : its place on the lanes; blocks start at multiples of the block size, so ragged ones leave gaps
    x, w : what enters the multiplier
    x_scale, w_scale : scales of the blocks that they belong to; 1 without blocks
    """

    position: int
    x: Exact
    w: Exact
    x_scale: Exact
    w_scale: Exact


Elements = Callable[[], Iterator[Element]]


def direct_accumulators(
    layer: Layer, x: QTensor, weight: QTensor, bias: NDArray[np.int64] | None, config: HardwareConfig
) -> NDArray[np.int64]:
    """Return the accumulators of a layer after its zero-point correction, int64, in the shape of the layer's output.

    x : activations: conv2d [batch, height, width, channel]; linear [..., in]; matmul [..., M, K]
    weight : conv2d [out, kernel height, kernel width, in / groups]; linear [out, in]; matmul: the other activation
    bias : int64 [N], in units of the accumulator, or None
    config : lanes, rows and dataflow order the additions; the registers limit each of them

    The operands must be ones that :func:`accelsim.mapping.lower.lower` accepts.
    """
    dtype: DType = np.dtype(np.int64 if _bound(layer, x, weight, bias) < 1 << 61 else object)
    elements = _elements(layer, x, weight, dtype)
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
        preload = preload - zero_x * sum(element.w for element in elements()) + count * zero_x * zero_w
    run = partial(_accumulate, config=config, block_size=_block_size(weight), shift=shift)
    acc = run(elements, preload)
    if np.any(zero_w != 0):
        row_sums = run(partial(_with_ones, elements, "w"), row_preload)
        acc = _limit(acc - zero_w * row_sums, config.accumulator)
    if isinstance(layer, MatmulMeta) and zero_x:
        column_sums = run(partial(_with_ones, elements, "x"), np.zeros(1, dtype))
        acc = _limit(acc - zero_x * column_sums, config.accumulator)
    return np.ascontiguousarray(acc.astype(np.int64))


def _accumulate(elements: Elements, preload: Exact, *, config: HardwareConfig, block_size: int, shift: int) -> Exact:
    """Add products to blocks, blocks to groups, groups to psums and psums to accumulators."""
    array = config.array
    group_size = max(array.lanes, block_size)
    fold_size = array.rows * array.lanes  # elements of K that ws and is hold at once; os holds all of them

    def fold_of(element: Element) -> int:
        return 0 if array.dataflow == "os" else element.position // fold_size

    def group_of(element: Element) -> int:
        return element.position // group_size

    def block_of(element: Element) -> int:
        return element.position // (block_size or group_size)

    acc = _limit(preload, config.accumulator)
    for _, in_fold in groupby(elements(), fold_of):
        psum: Any = 0
        for _, in_group in groupby(in_fold, group_of):
            part: Any = 0
            for _, in_block in groupby(in_group, block_of):
                dot: Any = 0
                for element in in_block:
                    dot = dot + element.x * element.w
                scale = element.x_scale * element.w_scale  # one for the whole block
                if shift:
                    scale = (scale + (1 << (shift - 1))) >> shift
                part = part + dot * scale
            psum = _limit(psum + part, array.psum)
        acc = _limit(acc + psum, config.accumulator)
    return acc


def _limit(total: Exact, register: Register) -> Exact:
    """Return what a register holds after an addition whose exact result is `total`."""
    low, high = register.low, register.high
    if register.overflow == "saturate":
        return np.minimum(np.maximum(total, low), high)
    if total.dtype != object and register.bits >= 63:
        return total  # exact sums are below 2^62 in magnitude: nothing to wrap
    return ((total - low) & (high - low)) + low


def _bound(layer: Layer, x: QTensor, weight: QTensor, bias: NDArray[np.int64] | None) -> int:
    """Return a magnitude that no exact sum of the layer exceeds, bias and corrections included."""
    largest_x, largest_w = _peak(_lanes(x)), _peak(_lanes(weight))
    zero_x, zero_w = _peak(x.zero_point), _peak(weight.zero_point)
    k = int(np.prod(weight.shape[1:])) if not isinstance(layer, MatmulMeta) else x.shape[-1]
    scale = 1
    if x.block_scales is not None and weight.block_scales is not None:
        scale = _peak(x.block_scales) * _peak(weight.block_scales)
    products = (largest_x + zero_x) * (largest_w + zero_w) * scale
    return k * products + (0 if bias is None else _peak(bias))


def _peak(array: NDArray[Any]) -> int:
    return max(abs(int(array.min())), abs(int(array.max())))


def _lanes(tensor: QTensor) -> NDArray[np.int32]:
    return tensor.lanes().values


def _block_size(tensor: QTensor) -> int:
    return 0 if tensor.format.blocks is None else tensor.format.blocks.size


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
        one = np.ones((), element.x.dtype)
        x, w = (one, element.w) if operand == "x" else (element.x, one)
        yield Element(element.position, x, w, element.x_scale, element.w_scale)


def _elements(layer: Layer, x: QTensor, weight: QTensor, dtype: DType) -> Elements:
    """Return a function that yields all elements of K in order."""
    if isinstance(layer, Conv2dMeta):
        return partial(_conv2d_elements, layer, x, weight, dtype)
    if isinstance(layer, LinearMeta):
        return partial(_linear_elements, layer.flatten, x, weight, dtype)
    return partial(_matmul_elements, layer.transpose_other, x, weight, dtype)


def _conv2d_elements(layer: Conv2dMeta, x: QTensor, weight: QTensor, dtype: DType) -> Iterator[Element]:
    """Arrays are [batch, out height, out width, channel] or [channel], channel: out, or 1 for all of them."""
    outputs, kernel_h, kernel_w, channels = weight.shape
    size, zero = _block_size(weight), int(x.zero_point.max())
    first = np.arange(outputs) // (outputs // layer.groups) * channels  # of the input channels that an output sees
    lanes, w, one = _lanes(x).astype(dtype), _lanes(weight).astype(dtype), np.ones(1, dtype)
    position = 0
    for i in range(kernel_h):
        for j in range(kernel_w):
            pixels = _tap(layer, lanes, zero, (i, j), (kernel_h, kernel_w))
            scales = None
            if x.block_scales is not None:
                scales = _tap(layer, x.block_scales.astype(dtype), 0, (i, j), (kernel_h, kernel_w))
            for c in range(channels):
                seen = np.array([c]) if layer.groups == 1 else first + c
                x_scale = w_scale = one
                if scales is not None and weight.block_scales is not None:
                    x_scale = scales[..., seen // size]
                    w_scale = weight.block_scales[:, i, j, c // size].astype(dtype)
                yield Element(position + c, pixels[..., seen], w[:, i, j, c], x_scale, w_scale)
            position += -(-channels // size) * size if size else channels


def _tap(layer: Conv2dMeta, x: Exact, padding: int, at: tuple[int, int], kernel: tuple[int, int]) -> Exact:
    """Return what lies under kernel element `at` for every output pixel: [batch, out height, out width, channel]."""
    axes = []
    for axis in (0, 1):
        before, after = layer.padding[axis]
        size, stride, dilation = x.shape[1 + axis], layer.stride[axis], layer.dilation[axis]
        count = (size + before + after - dilation * (kernel[axis] - 1) - 1) // stride + 1
        axes.append(np.arange(count) * stride + at[axis] * dilation - before)
    rows, cols = axes
    inside = ((rows >= 0) & (rows < x.shape[1]))[:, None] & ((cols >= 0) & (cols < x.shape[2]))
    there = x[:, np.clip(rows, 0, x.shape[1] - 1)][:, :, np.clip(cols, 0, x.shape[2] - 1)]
    return np.where(inside[..., None], there, padding)


def _linear_elements(flatten: bool, x: QTensor, weight: QTensor, dtype: DType) -> Iterator[Element]:
    """Arrays are x [..., 1] and w [out]."""
    lead = x.shape[:1] if flatten else x.shape[:-1]
    lanes, scales = _lanes(x).astype(dtype).reshape(*lead, -1), _scales(x, dtype)
    scales = scales.reshape(*(lead if x.block_scales is not None else ()), -1)
    w, w_scales = _lanes(weight).astype(dtype), _scales(weight, dtype)
    size = _block_size(weight)
    for k in range(weight.shape[1]):
        block = slice(k // size, k // size + 1) if size else slice(0, 1)
        yield Element(k, lanes[..., k : k + 1], w[:, k], scales[..., block], w_scales[:, block.start])


def _matmul_elements(transpose_other: bool, x: QTensor, other: QTensor, dtype: DType) -> Iterator[Element]:
    """Arrays are x [..., M, 1] and w [..., 1, N]."""
    lanes, scales = _lanes(x).astype(dtype), _scales(x, dtype)
    w, w_scales = _lanes(other).astype(dtype), _scales(other, dtype)
    if not transpose_other:
        w, w_scales = w.swapaxes(-1, -2), w_scales.swapaxes(-1, -2)
    size = _block_size(other)
    for k in range(x.shape[-1]):
        block = k // size if size else 0
        yield Element(
            k,
            lanes[..., k : k + 1],
            w[..., None, :, k],
            scales[..., block : block + 1],
            w_scales[..., None, :, block],
        )


def _scales(tensor: QTensor, dtype: DType) -> Exact:
    """Return the block scales; without blocks a one on every axis."""
    if tensor.block_scales is None:
        return np.ones([1] * len(tensor.shape), dtype)
    return tensor.block_scales.astype(dtype)
