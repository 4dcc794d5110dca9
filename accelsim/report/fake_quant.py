"""Simulated ("fake") quantization in float32: what a training framework computes in place of the integer hardware.

Frameworks multiply dequantized tensors in floating point and then quantize and dequantize the result. The integer
hardware rounds differently (its requantization multiplier has few bits, its bias is an integer), and the two drift
apart from layer to layer: the distance reaches the order of whole output steps (Yao et al., HAWQ-V3, 2021). This
module runs the fake network beside the integer one, so that the report can state the distance.

It knows nothing of im2col, of accumulators or of the PPU: plain float32 arithmetic on the layer's definition.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from accelsim.formats.spec import QTensor
from accelsim.trace.schema import Conv2dMeta, Layer, LinearMeta

Float32 = NDArray[np.float32]
LARGEST = float(np.finfo(np.float32).max)


def fake_layer(
    layer: Layer,
    x: Float32,
    weight: Float32,
    bias: Float32 | None,
    output: QTensor,
    *,
    thresholds: NDArray[np.float64] | None = None,
    pad: float = 0.0,
) -> Float32:
    """Return the layer's fake-quantized output, float32, on the grid of `output`.

    x : float32, the layer's (fake-quantized) input
    weight : float32, dequantized weights, or the second operand of a matrix product
    bias : float32 [N] or None
    output : the integer result; its format, scale and zero point define the output grid, its codes are not read
    thresholds : float64 [N, T], in real units, where thresholds make the codes
    pad : the real value that padding stands for
    """
    y = _convolve(layer, x, weight, pad) if isinstance(layer, Conv2dMeta) else _multiply(layer, x, weight)
    if bias is not None:
        y = y + bias
    if thresholds is not None:
        codes = output.format.code_low + (thresholds < y[..., None]).sum(axis=-1)
        return replace(output, codes=codes.astype(np.int32)).dequantize().astype(np.float32)
    if layer.activation in ("relu", "relu6"):
        y = np.maximum(y, np.float32(0))
    if layer.activation == "relu6":
        y = np.minimum(y, np.float32(6))
    if layer.rounding is None:  # raw accumulators leave: nothing is quantized
        return y.astype(np.float32)
    quantized = _quantized(y, output)
    if layer.clamp is not None:
        limited = np.clip(quantized.codes, layer.clamp.low, layer.clamp.high).astype(np.int32)
        quantized = replace(quantized, codes=limited)
    return quantized.dequantize().astype(np.float32)


def on_grid(values: NDArray[np.float64], output: QTensor) -> Float32:
    """Return real values quantized as `output` is, and back."""
    return _quantized(values, output).dequantize().astype(np.float32)


def _quantized(values: NDArray[np.floating], output: QTensor) -> QTensor:
    finite = np.clip(np.nan_to_num(values), -LARGEST, LARGEST)  # what left float32 on the way saturates
    return output.format.quantize(
        finite, output.block_axis, channel_axis=output.channel_axis, scale=output.scale, zero_point=output.zero_point
    )


def _convolve(layer: Conv2dMeta, x: Float32, weight: Float32, pad: float) -> Float32:
    """Add up one matrix product for each kernel tap: x [B, H, W, C], weight [O, KH, KW, C / groups]."""
    padded = np.pad(x, ((0, 0), *layer.padding, (0, 0)), constant_values=pad)
    out_channels, kernel_h, kernel_w, group_in = weight.shape
    (stride_h, stride_w), (dilation_h, dilation_w) = layer.stride, layer.dilation
    out_h = (padded.shape[1] - dilation_h * (kernel_h - 1) - 1) // stride_h + 1
    out_w = (padded.shape[2] - dilation_w * (kernel_w - 1) - 1) // stride_w + 1
    grouped = weight.reshape(layer.groups, out_channels // layer.groups, kernel_h, kernel_w, group_in)
    y = np.zeros((x.shape[0], out_h, out_w, layer.groups, out_channels // layer.groups), np.float32)
    for i in range(kernel_h):
        for j in range(kernel_w):
            rows = slice(i * dilation_h, i * dilation_h + stride_h * (out_h - 1) + 1, stride_h)
            cols = slice(j * dilation_w, j * dilation_w + stride_w * (out_w - 1) + 1, stride_w)
            tap = padded[:, rows, cols, :].reshape(x.shape[0], out_h, out_w, layer.groups, group_in)
            y += np.einsum("bhwgc,goc->bhwgo", tap, grouped[:, :, i, j, :], optimize=True)
    return y.reshape(x.shape[0], out_h, out_w, out_channels)


def _multiply(layer: Layer, x: Float32, weight: Float32) -> Float32:
    if isinstance(layer, LinearMeta):
        flat = x.reshape(x.shape[0], -1) if layer.flatten else x
        return np.asarray(np.matmul(flat, weight.T), np.float32)
    transposed = getattr(layer, "transpose_other", False)
    return np.asarray(np.matmul(x, np.swapaxes(weight, -1, -2) if transposed else weight), np.float32)
