"""Lowering: a layer becomes GEMMs, and the GEMMs' results become the layer's output again.

The order of K is kernel row, kernel column, input channel. With block scales every kernel tap's channels are completed
by zeros to whole blocks. Lanes come from accelsim.mapping.lanes, zero points are handled in
accelsim.mapping.zero_points, padding that binary words cannot hold in accelsim.mapping.padding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.errors import ShapeError, UnsupportedLayerError
from accelsim.formats.spec import QTensor
from accelsim.mapping.contract import BlockScaling, Float32, GemmOperands, Int32, Int64, Summation
from accelsim.mapping.lanes import OperandLanes, operand_lanes
from accelsim.mapping.padding import padding_correction
from accelsim.mapping.support import block_size, check_supported, is_floating, product_of, summation_of
from accelsim.mapping.zero_points import ZeroPoints, handle_zero_points
from accelsim.trace.schema import Conv2dMeta, Layer, LinearMeta
from accelsim.trace.shapes import output_shape

LARGEST_BIAS = 2.0**62


@dataclass(frozen=True, eq=False)
class LoweredLayer:
    """A layer as GEMMs.

    operands : for the engine
    zero_points : corrections that depend on the data
    padding : what padding that stands for 0 has added to the results, int64 [batch, M, N]; or None: nothing
    output_shape : shape of the layer's output
    output_axes : the GEMM results [batch, M, N], reshaped to this, ...
    output_order : ... and transposed by this, are the output
    """

    operands: GemmOperands
    zero_points: ZeroPoints
    padding: Int64 | None
    output_shape: tuple[int, ...]
    output_axes: tuple[int, ...]
    output_order: tuple[int, ...]

    def assemble(self, results: Int64 | Float32) -> Int64 | Float32:
        """Return GEMM results, [batch, M, N] without the rows and columns of ones, in the output's shape."""
        arranged: NDArray[Any] = results.reshape(self.output_axes).transpose(self.output_order)
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


def lower(
    layer: Layer, x: QTensor, weight: QTensor, bias: Int64 | Float32 | None, config: HardwareConfig
) -> LoweredLayer:
    """Return the layer as GEMMs for the configured hardware.

    x : activations: conv2d [batch, height, width, channel]; linear [..., in]; matmul [..., M, K]
    weight : conv2d [out, kernel height, kernel width, in / groups]; linear [out, in]; matmul: the other activation
    bias : [N] or None: int64, in units of the accumulator; or, where an operand is a float, float32

    Raises ShapeError where the arrays do not fit together, UnsupportedLayerError where the hardware lacks what the
    layer needs.
    """
    check_supported(layer, x, weight, config)
    summation = summation_of(x, weight, config)
    _check_shapes(layer, x, weight, bias, summation)
    size, aligned = block_size(x, weight), summation.align_bits is not None
    k_last = weight
    if not isinstance(layer, Conv2dMeta | LinearMeta) and not layer.transpose_other:
        k_last = _swap_last(weight)  # [..., N, K]: K is last, as blocks need it
    a, w = operand_lanes(x, size, own_exponents=aligned), operand_lanes(k_last, size, own_exponents=aligned)
    product = product_of(layer, x, weight, config)
    padding = None
    if isinstance(layer, Conv2dMeta):
        pad = layer.pad_value or (1 if product == "xnor" else _pad_code(x))  # a word has no 0: 1, and then a correction
        gemm = _lower_conv2d(layer, a, w, x.shape, weight.shape, size, pad)
        if product == "xnor" and layer.pad_value == 0:
            padding = padding_correction(layer, x.shape, w.values, pad)
    elif isinstance(layer, LinearMeta):
        gemm = _lower_linear(layer, a, w, x.shape, weight.shape)
    else:
        gemm = _lower_matmul(a, w, x.shape, k_last.shape)
    operands = GemmOperands(
        a=gemm.a.values,
        w=gemm.w.values,
        bias=np.zeros((len(gemm.a.values), gemm.w.values.shape[2]), np.int64),
        k_valid=_k_valid(layer, k_last.shape, size),
        a_bits=x.format.lane_bits,
        w_bits=weight.format.lane_bits,
        blocks=_block_scaling(x, weight, gemm, size),
        product=product,
        a_code_bits=x.format.code_bits,
        w_code_bits=weight.format.code_bits,
        summation=summation,
        a_exponents=gemm.a.exponents,
        w_exponents=gemm.w.exponents,
        exponent_spans=(_span(x), _span(weight)),
    )
    operands = _preload_bias(layer, _round_scales(operands, config), bias)
    operands, zero_points = handle_zero_points(layer, operands, x, weight)
    return LoweredLayer(operands, zero_points, padding, gemm.output_shape, gemm.output_axes, gemm.output_order)


@dataclass(frozen=True, eq=False)
class _Gemm:
    """Both operands' lanes as [batch, M, K] and [batch, K, N], and where the results belong (see LoweredLayer)."""

    a: OperandLanes
    w: OperandLanes
    output_shape: tuple[int, ...]
    output_axes: tuple[int, ...]
    output_order: tuple[int, ...]


def _check_shapes(
    layer: Layer, x: QTensor, weight: QTensor, bias: Int64 | Float32 | None, summation: Summation
) -> None:
    try:
        outputs = output_shape(layer, x.shape, weight.shape)[-1]
    except ShapeError as error:
        raise ShapeError(f"layer {layer.name!r}: {error}") from None
    dtype = np.dtype(np.int64 if summation.kind == "integer" else np.float32)
    if bias is not None and (bias.dtype != dtype or bias.shape != (outputs,)):
        raise ShapeError(f"layer {layer.name!r}: bias is {bias.dtype} {bias.shape}, but must be {dtype} ({outputs},)")


def _lower_conv2d(
    layer: Conv2dMeta,
    a: OperandLanes,
    w: OperandLanes,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    size: int,
    pad: int,
) -> _Gemm:
    groups, (out_channels, kernel_h, kernel_w, channels) = layer.groups, weight_shape

    def rows(array: Int32, fill: int, completed: bool) -> Int32:
        """Return patches as [groups, M, K]."""
        patches = _im2col(layer, array, fill, kernel_h, kernel_w)
        split = patches.reshape(*patches.shape[:5], groups, -1).transpose(5, 0, 1, 2, 3, 4, 6)
        missing = -channels % size if completed and size else 0
        if missing:
            split = np.pad(split, [(0, 0)] * 6 + [(0, missing)])
        return np.ascontiguousarray(split.reshape(groups, int(np.prod(split.shape[1:4])), -1))

    def columns(array: Int32) -> Int32:
        """Return weights, last axis completed, as [groups, K, N]."""
        split = array.reshape(groups, out_channels // groups, -1).swapaxes(1, 2)
        return np.ascontiguousarray(split)

    lanes = OperandLanes(
        rows(a.values, pad, True),
        None if a.exponents is None else rows(a.exponents, 0, True),
        None if a.block_scales is None else rows(a.block_scales, a.neutral_scale, False),
        None if a.block_exponents is None else rows(a.block_exponents, 0, False),
    )
    pixels = lanes.values.shape[1] // x_shape[0]
    out_h = (x_shape[1] + sum(layer.padding[0]) - layer.dilation[0] * (kernel_h - 1) - 1) // layer.stride[0] + 1
    return _Gemm(
        lanes,
        w.completed(size).mapped(columns),
        output_shape=(x_shape[0], out_h, pixels // out_h, out_channels),
        output_axes=(groups, x_shape[0], out_h, pixels // out_h, out_channels // groups),
        output_order=(1, 2, 3, 0, 4),
    )


def _im2col(layer: Conv2dMeta, x: Int32, pad: int, kernel_h: int, kernel_w: int) -> Int32:
    """Return patches [batch, out height, out width, kernel height, kernel width, channel]."""
    padded = np.pad(x, ((0, 0), *layer.padding, (0, 0)), constant_values=pad)
    span_h = layer.dilation[0] * (kernel_h - 1) + 1
    span_w = layer.dilation[1] * (kernel_w - 1) + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (span_h, span_w), axis=(1, 2))
    windows = windows[:, :: layer.stride[0], :: layer.stride[1], :, :: layer.dilation[0], :: layer.dilation[1]]
    return windows.transpose(0, 1, 2, 4, 5, 3)


def _lower_linear(
    layer: LinearMeta, a: OperandLanes, w: OperandLanes, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]
) -> _Gemm:
    lead = x_shape[:1] if layer.flatten else x_shape[:-1]
    size, rows = a.block_size, int(np.prod(lead))
    # Flattening joins the rows of channels before they are completed; blocks end with each row (check_supported).
    flat = a.mapped(lambda array: np.ascontiguousarray(array.reshape(1, rows, -1)))
    shape = (*lead, weight_shape[0])
    return _Gemm(
        flat.completed(size),
        w.completed(size).mapped(lambda array: np.ascontiguousarray(array.T[None])),
        output_shape=shape,
        output_axes=shape,
        output_order=tuple(range(len(shape))),
    )


def _lower_matmul(a: OperandLanes, w: OperandLanes, x_shape: tuple[int, ...], other_shape: tuple[int, ...]) -> _Gemm:
    """other_shape : [..., N, K]."""
    lead = np.broadcast_shapes(x_shape[:-2], other_shape[:-2])
    rows, cols = x_shape[-2], other_shape[-2]

    def each(array: Int32) -> Int32:
        """Return an operand's matrices, one for each product."""
        return np.broadcast_to(array, (*lead, *array.shape[-2:])).reshape(count, *array.shape[-2:])

    count, size = int(np.prod(lead, dtype=np.int64)), a.block_size
    shape = (*lead, rows, cols)
    return _Gemm(
        a.completed(size).mapped(lambda array: np.ascontiguousarray(each(array))),
        w.completed(size).mapped(lambda array: np.ascontiguousarray(each(array).swapaxes(1, 2))),
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


def _k_valid(layer: Layer, weight_shape: tuple[int, ...], size: int) -> NDArray[np.bool_]:
    """Return which elements of K exist; the rest completes the last axis of the weight, tap by tap, to whole blocks."""
    taps = weight_shape[1] * weight_shape[2] if isinstance(layer, Conv2dMeta) else 1
    channels = weight_shape[-1]
    completed = channels + (-channels % size if size else 0)
    return np.tile(np.arange(completed) < channels, taps)


def _pad_code(x: QTensor) -> int:
    """Return the lane that stands for zero: padding contributes nothing."""
    return int(x.zero_point) if x.zero_point.ndim == 0 else 0


def _span(tensor: QTensor) -> int:
    low, high = tensor.format.exponent_range
    return high - low


def _block_scaling(x: QTensor, weight: QTensor, gemm: _Gemm, size: int) -> BlockScaling | None:
    if not size:
        return None
    assert gemm.a.block_scales is not None  # operand_lanes gives both operands scales
    assert gemm.w.block_scales is not None
    of_each, floating = (x.format.blocks, weight.format.blocks), is_floating(x, weight)
    bits = [0 if blocks is None else blocks.scale_bits for blocks in of_each]
    return BlockScaling(
        size=size,
        a_scales=gemm.a.block_scales,
        w_scales=gemm.w.block_scales,
        product_shift=0,
        a_scale_bits=bits[0],
        w_scale_bits=bits[1],
        a_exponents=gemm.a.block_exponents,
        w_exponents=gemm.w.block_exponents,
        significand_bits=max(blocks.significand_bits for blocks in of_each if blocks is not None) if floating else 0,
    )


def _round_scales(operands: GemmOperands, config: HardwareConfig) -> GemmOperands:
    """Put in the hardware's rounding of integer scale products."""
    blocks, unit = operands.blocks, config.array.scale_unit
    if blocks is None or blocks.a_exponents is not None or unit is None or unit.product_bits is None:
        return operands
    shift = max(0, blocks.a_scale_bits + blocks.w_scale_bits - unit.product_bits)
    return replace(operands, blocks=replace(blocks, product_shift=shift))


def _preload_bias(layer: Layer, operands: GemmOperands, bias: Int64 | Float32 | None) -> GemmOperands:
    """Put in the bias, in the accumulators' units."""
    gemms, _, cols = operands.w.shape
    summation, shift = operands.summation, operands.blocks.product_shift if operands.blocks is not None else 0
    if bias is None:
        bias = np.zeros(cols, np.float32) if summation.kind == "float32" else np.zeros(cols, np.int64)
    if summation.kind == "fixed" and bias.dtype == np.float32:
        steps = np.rint(np.ldexp(bias.astype(np.float64), -summation.lsb_exponent))
        if not np.all(np.abs(steps) < LARGEST_BIAS):
            raise UnsupportedLayerError(
                f"layer {layer.name!r}: a bias of {np.abs(bias).max():g} is {np.abs(steps).max():g} of the "
                f"accumulator's steps of 2^{summation.lsb_exponent}, beyond 2^62; use a smaller "
                f"array.float_unit.fraction_bits"
            )
        bias = steps.astype(np.int64)
    # [N] over all groups of a convolution; every matrix product of a batch has the same.
    of_groups = bias.size == gemms * cols
    preloaded: Any = bias.reshape(gemms, cols) if of_groups else np.tile(bias, (gemms, 1))
    if shift:
        # Half up without the sum bias + 2^(shift-1), which can leave int64: the last bit shifted out is the half.
        preloaded = (preloaded >> shift) + ((preloaded >> (shift - 1)) & 1)
    return replace(operands, bias=preloaded)
