"""Lowering: a layer becomes GEMMs, and the GEMMs' results become the layer's output again.

The order of K is kernel row, kernel column, input channel. With block scales every kernel tap's channels are completed
by zeros to whole blocks. Zero points are handled in accelsim.mapping.zero_points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.errors import ShapeError, UnsupportedLayerError
from accelsim.formats.spec import QTensor
from accelsim.mapping.contract import BlockScaling, GemmOperands, Int32, Int64
from accelsim.mapping.support import check_supported
from accelsim.mapping.zero_points import ZeroPoints, handle_zero_points
from accelsim.trace.schema import Conv2dMeta, Layer, LinearMeta
from accelsim.trace.shapes import output_shape


@dataclass(frozen=True, eq=False)
class LoweredLayer:
    """A layer as GEMMs.

    operands : for the engine
    zero_points : corrections that depend on the data
    output_shape : shape of the layer's output
    output_axes : the GEMM results [batch, M, N], reshaped to this, ...
    output_order : ... and transposed by this, are the output
    """

    operands: GemmOperands
    zero_points: ZeroPoints
    output_shape: tuple[int, ...]
    output_axes: tuple[int, ...]
    output_order: tuple[int, ...]

    def assemble(self, results: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return GEMM results, int64 [batch, M, N] without the rows and columns of ones, in the output's shape."""
        arranged = results.reshape(self.output_axes).transpose(self.output_order)
        return np.ascontiguousarray(arranged).reshape(self.output_shape)

    def output_index(self, batch: int, m: int, n: int) -> tuple[int, ...]:
        """Return where GEMM result (batch, m, n) lies in the output; a sum that zero points need (a result in the row
        or column of ones) is placed at the first output that uses it.
        """
        sizes = self.operands.shape
        rows = sizes.m - (self.zero_points.a is not None)
        cols = sizes.n - (self.zero_points.w is not None)
        m, n = (m if m < rows else 0), (n if n < cols else 0)
        index = np.unravel_index((batch * rows + m) * cols + n, self.output_axes)
        arranged = [index[axis] for axis in self.output_order]
        arranged_sizes = [self.output_axes[axis] for axis in self.output_order]
        flat = np.ravel_multi_index(arranged, arranged_sizes)
        return tuple(int(i) for i in np.unravel_index(int(flat), self.output_shape))


def lower(layer: Layer, x: QTensor, weight: QTensor, bias: Int64 | None, config: HardwareConfig) -> LoweredLayer:
    """Return the layer as GEMMs for the configured hardware.

    x : activations: conv2d [batch, height, width, channel]; linear [..., in]; matmul [..., M, K]
    weight : conv2d [out, kernel height, kernel width, in / groups]; linear [out, in]; matmul: the other activation
    bias : int64 [N], in units of the accumulator, or None

    Raises ShapeError where the arrays do not fit together, UnsupportedLayerError where the hardware lacks what the
    layer needs.
    """
    _check_shapes(layer, x, weight, bias)
    check_supported(layer, x, weight, config)
    if isinstance(layer, Conv2dMeta):
        lowered = _lower_conv2d(layer, x, weight)
    elif isinstance(layer, LinearMeta):
        lowered = _lower_linear(layer, x, weight)
    else:
        lowered = _lower_matmul(layer.transpose_other, x, weight)
    lowered = _scale_blocks(lowered, x, weight, bias, config)
    operands, zero_points = handle_zero_points(layer, lowered.operands, x, weight)
    return replace(lowered, operands=operands, zero_points=zero_points)


def _check_shapes(layer: Layer, x: QTensor, weight: QTensor, bias: Int64 | None) -> None:
    try:
        outputs = output_shape(layer, x.shape, weight.shape)[-1]
    except ShapeError as error:
        raise ShapeError(f"layer {layer.name!r}: {error}") from None
    if bias is not None and (bias.dtype != np.int64 or bias.shape != (outputs,)):
        raise ShapeError(f"layer {layer.name!r}: bias is {bias.dtype} {bias.shape}, but must be int64 ({outputs},)")


def _lower_conv2d(layer: Conv2dMeta, x: QTensor, weight: QTensor) -> LoweredLayer:
    groups, (out_channels, kernel_h, kernel_w, _) = layer.groups, weight.shape
    patches, out_h, out_w = _im2col(layer, _blocked(x, x.lanes().values), _pad_code(x), kernel_h, kernel_w)
    a = _group_patches(patches, groups)  # [groups, M, K]
    w = _blocked(weight, weight.lanes().values).reshape(groups, out_channels // groups, -1).swapaxes(1, 2)
    batch = x.shape[0]
    blocks = None
    if x.block_scales is not None and weight.block_scales is not None:
        scales, _, _ = _im2col(layer, x.block_scales, 0, kernel_h, kernel_w)
        w_scales = weight.block_scales.reshape(groups, out_channels // groups, -1).swapaxes(1, 2)
        blocks = _block_scaling(x, weight, _group_patches(scales, groups), w_scales)
    k_valid = np.tile(_channel_valid(weight), kernel_h * kernel_w)
    return LoweredLayer(
        _operands(a, w, k_valid, x, weight, blocks),
        ZeroPoints(None, None),
        output_shape=(batch, out_h, out_w, out_channels),
        output_axes=(groups, batch, out_h, out_w, out_channels // groups),
        output_order=(1, 2, 3, 0, 4),
    )


def _im2col(layer: Conv2dMeta, x: Int32, pad_code: int, kernel_h: int, kernel_w: int) -> tuple[Int32, int, int]:
    """Return (patches [batch, out height, out width, kernel height, kernel width, channel], out height, out width)."""
    padded = np.pad(x, ((0, 0), *layer.padding, (0, 0)), constant_values=pad_code)
    span_h = layer.dilation[0] * (kernel_h - 1) + 1
    span_w = layer.dilation[1] * (kernel_w - 1) + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (span_h, span_w), axis=(1, 2))
    windows = windows[:, :: layer.stride[0], :: layer.stride[1], :, :: layer.dilation[0], :: layer.dilation[1]]
    patches = windows.transpose(0, 1, 2, 4, 5, 3)
    return patches, patches.shape[1], patches.shape[2]


def _group_patches(patches: Int32, groups: int) -> Int32:
    """Turn patches [batch, oh, ow, kh, kw, channel] into GEMM rows [groups, M, K]."""
    batch, out_h, out_w, kernel_h, kernel_w, channels = patches.shape
    split = patches.reshape(batch, out_h, out_w, kernel_h, kernel_w, groups, channels // groups)
    return split.transpose(5, 0, 1, 2, 3, 4, 6).reshape(groups, batch * out_h * out_w, -1)


def _lower_linear(layer: LinearMeta, x: QTensor, weight: QTensor) -> LoweredLayer:
    out_features = weight.shape[0]
    lead = x.shape[:1] if layer.flatten else x.shape[:-1]
    a = _blocked(x, x.lanes().values).reshape(1, int(np.prod(lead)), -1)
    w = _blocked(weight, weight.lanes().values).T[None]
    blocks = None
    if x.block_scales is not None and weight.block_scales is not None:
        size = weight.format.blocks.size if weight.format.blocks else 1
        if layer.flatten and x.shape[-1] % size and len(x.shape) > 2:
            raise UnsupportedLayerError(
                f"layer {layer.name!r} flattens {x.shape[-1]} channels, but scale vectors hold {size}: the vectors of "
                f"input and weight would not line up; use a vector size that divides {x.shape[-1]}"
            )
        blocks = _block_scaling(x, weight, x.block_scales.reshape((*a.shape[:2], -1)), weight.block_scales.T[None])
    return LoweredLayer(
        _operands(a, w, _channel_valid(weight), x, weight, blocks),
        ZeroPoints(None, None),
        output_shape=(*lead, out_features),
        output_axes=(*lead, out_features),
        output_order=tuple(range(len(lead) + 1)),
    )


def _lower_matmul(transpose_other: bool, x: QTensor, other: QTensor) -> LoweredLayer:
    lead = x.shape[:-2]
    rows, cols = x.shape[-2], other.shape[-2 if transpose_other else -1]
    count = int(np.prod(lead, dtype=np.int64))
    a = _blocked(x, x.lanes().values).reshape(count, rows, -1)
    turned = other if transpose_other else _swap_last(other)  # [..., N, K]: K is last, as blocks need it
    w = _blocked(turned, turned.lanes().values).reshape(count, cols, -1).swapaxes(1, 2)
    blocks = None
    if x.block_scales is not None and turned.block_scales is not None:
        w_scales = turned.block_scales.reshape(count, cols, -1).swapaxes(1, 2)
        blocks = _block_scaling(x, turned, x.block_scales.reshape(count, rows, -1), w_scales)
    shape = (*lead, rows, cols)
    return LoweredLayer(
        _operands(a, w, _channel_valid(turned), x, turned, blocks),
        ZeroPoints(None, None),
        output_shape=shape,
        output_axes=shape,
        output_order=tuple(range(len(shape))),
    )


def _swap_last(tensor: QTensor) -> QTensor:
    """Return [..., N, K] of a tensor [..., K, N]; its blocks, if any, run along K."""
    last = len(tensor.shape) - 1
    moved = {last: last - 1, last - 1: last}
    scales = tensor.block_scales
    return replace(
        tensor,
        codes=tensor.codes.swapaxes(-1, -2),
        channel_axis=moved.get(tensor.channel_axis, tensor.channel_axis) if tensor.channel_axis is not None else None,
        block_axis=None if tensor.block_axis is None else last,
        block_scales=None if scales is None else scales.swapaxes(-1, -2),
    )


def _blocked(tensor: QTensor, values: Int32) -> Int32:
    """Complete the last axis by zeros to whole blocks."""
    if tensor.format.blocks is None:
        return values
    missing = -values.shape[-1] % tensor.format.blocks.size
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])


def _channel_valid(weight: QTensor) -> NDArray[np.bool_]:
    """Return which elements of the (completed) last axis exist."""
    channels = weight.shape[-1]
    size = weight.format.blocks.size if weight.format.blocks else 1
    return np.arange(-(-channels // size) * size) < channels


def _pad_code(x: QTensor) -> int:
    """Return the code that stands for zero: padding contributes nothing."""
    return int(x.zero_point) if x.zero_point.ndim == 0 else 0


def _operands(
    a: Int32, w: Int32, k_valid: NDArray[np.bool_], x: QTensor, weight: QTensor, blocks: BlockScaling | None
) -> GemmOperands:
    return GemmOperands(
        a=np.ascontiguousarray(a, np.int32),
        w=np.ascontiguousarray(w, np.int32),
        bias=np.zeros((a.shape[0], w.shape[2]), np.int64),
        k_valid=k_valid,
        a_bits=x.format.lane_bits,
        w_bits=weight.format.lane_bits,
        blocks=blocks,
    )


def _block_scaling(x: QTensor, weight: QTensor, a_scales: Int32, w_scales: Int32) -> BlockScaling:
    assert x.format.blocks is not None
    assert weight.format.blocks is not None
    return BlockScaling(
        size=weight.format.blocks.size,
        a_scales=np.ascontiguousarray(a_scales, np.int32),
        w_scales=np.ascontiguousarray(w_scales, np.int32),
        product_shift=0,
        a_scale_bits=x.format.blocks.scale_bits,
        w_scale_bits=weight.format.blocks.scale_bits,
    )


def _scale_blocks(
    lowered: LoweredLayer, x: QTensor, weight: QTensor, bias: Int64 | None, config: HardwareConfig
) -> LoweredLayer:
    """Put in the bias, and the hardware's rounding of scale products, whose unit the bias then shares."""
    operands = lowered.operands
    gemms, _, cols = operands.w.shape
    preloaded = np.zeros((gemms, cols), np.int64)
    if bias is not None:  # [N] over all groups of a convolution; every matrix product of a batch has the same
        preloaded = bias.reshape(gemms, cols) if bias.size == gemms * cols else np.tile(bias, (gemms, 1))
    blocks, unit = operands.blocks, config.array.scale_unit
    if blocks is not None and unit is not None and unit.product_bits is not None:
        shift = max(0, blocks.a_scale_bits + blocks.w_scale_bits - unit.product_bits)
        blocks = replace(blocks, product_shift=shift)
        if shift:
            # Half up without the sum bias + 2^(shift-1), which can leave int64: the last bit shifted out is the half.
            preloaded = (preloaded >> shift) + ((preloaded >> (shift - 1)) & 1)
    return replace(lowered, operands=replace(operands, bias=preloaded, blocks=blocks))
