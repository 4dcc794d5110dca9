"""The float network's values, float64: the reference of every trace, and what calibration looks at.

Every sum is one multiplication and one addition after the other, k ascending, each rounded by itself. No BLAS, whose
order of additions (and fused multiply-adds) differ between machines: the same network gives the same bits everywhere,
and so the same scales and the same trace.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import NetworkError
from accelsim.quantize.evaluate_vector import evaluate_vector
from accelsim.quantize.layers import INPUT, Conv2d, Linear, Matmul
from accelsim.quantize.network import FloatLayer, FloatNetwork, Floats
from accelsim.quantize.vector_layers import VECTOR_LAYERS

Float64 = NDArray[np.float64]

_ROWS_BYTES = 1 << 26  # of a convolution's windows, laid out as rows


def evaluate(network: FloatNetwork, inputs: Floats) -> dict[str, Float64]:
    """Return the input and every layer's output by name ("input", layer names), float64.

    inputs : floats [any number, ...], as the network's own

    Raises NetworkError where a sum leaves the range of float64.
    """
    values: dict[str, Float64] = {INPUT: inputs.astype(np.float64)}
    for layer in network.layers:
        operands = [values[name] for name in network.sources(layer)]
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            value = _activate(_layer(layer, operands), layer)
        if not np.all(np.isfinite(value)):
            raise NetworkError(
                f"float network {network.name!r}: layer {layer.name!r} computes values beyond float64; scale its "
                f"weights or inputs (a layer norm over equal numbers needs an epsilon)"
            )
        values[layer.name] = value
    return values


def ordered_product(x: Float64, w: Float64) -> Float64:
    """Return x [M, K] times w [N, K] transposed, [M, N]: for k ascending, sum += x[m, k] * w[n, k]."""
    from accelsim.quantize.evaluate_kernels import ordered_sums

    y = np.zeros((x.shape[0], w.shape[0]))
    ordered_sums(np.ascontiguousarray(x), np.ascontiguousarray(w.T), y)
    return y


def _layer(layer: FloatLayer, operands: list[Float64]) -> Float64:
    """Return the layer's sums with its bias, or what the vector unit makes."""
    meta, x = layer.meta, operands[0]
    if isinstance(meta, VECTOR_LAYERS):
        weight, bias = (None if part is None else part.astype(np.float64) for part in (layer.weight, layer.bias))
        return evaluate_vector(meta, operands, weight, bias)
    if isinstance(meta, Matmul):
        y = _matmul(meta, x, operands[1])
    else:
        assert layer.weight is not None  # FloatNetwork saw to it
        kernel = layer.weight.astype(np.float64)
        y = _conv2d(meta, x, kernel) if isinstance(meta, Conv2d) else _linear(meta, x, kernel)
    return y if layer.bias is None else y + layer.bias.astype(np.float64)


def _activate(y: Float64, layer: FloatLayer) -> Float64:
    if layer.activation == "sign":
        return np.where(y >= 0, 1.0, np.where(np.isnan(y), np.nan, -1.0))
    if layer.activation in ("relu", "relu6"):
        y = np.maximum(y, 0.0)
    return np.minimum(y, 6.0) if layer.activation == "relu6" else y


def _linear(meta: Linear, x: Float64, w: Float64) -> Float64:
    rows = x.reshape(len(x), -1) if meta.flatten else x
    flat = ordered_product(rows.reshape(-1, rows.shape[-1]), w)
    return flat.reshape(*rows.shape[:-1], len(w))


def _matmul(meta: Matmul, a: Float64, b: Float64) -> Float64:
    other = b if meta.transpose_other else np.swapaxes(b, -1, -2)
    lead = np.broadcast_shapes(a.shape[:-2], other.shape[:-2])
    a, other = (np.broadcast_to(each, (*lead, *each.shape[-2:])) for each in (a, other))
    pairs = zip(a.reshape(-1, *a.shape[-2:]), other.reshape(-1, *other.shape[-2:]), strict=True)
    return np.stack([ordered_product(x, y) for x, y in pairs]).reshape(*a.shape[:-1], other.shape[-2])


def _conv2d(meta: Conv2d, x: Float64, w: Float64) -> Float64:
    """Windows of x [B, H, W, C] as rows (kernel height, kernel width, channel), times w [O, KH, KW, C / groups]."""
    _, kernel_h, kernel_w, _ = w.shape
    each = max(1, _ROWS_BYTES // (8 * x[0].size * kernel_h * kernel_w))
    parts = [_conv2d_some(meta, x[start : start + each], w) for start in range(0, len(x), each)]
    return np.concatenate(parts)


def _conv2d_some(meta: Conv2d, x: Float64, w: Float64) -> Float64:
    outputs, kernel_h, kernel_w, depth = w.shape
    padded = np.pad(x, ((0, 0), *meta.padding, (0, 0)), constant_values=float(meta.pad_value))
    (stride_h, stride_w), (dilation_h, dilation_w) = meta.stride, meta.dilation
    reach = (dilation_h * (kernel_h - 1) + 1, dilation_w * (kernel_w - 1) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
    windows = windows[:, ::stride_h, ::stride_w, :, ::dilation_h, ::dilation_w]  # B, HO, WO, C, KH, KW
    batch, height, width = windows.shape[:3]
    each = outputs // meta.groups
    groups = []
    for group in range(meta.groups):
        rows = windows[:, :, :, group * depth : (group + 1) * depth].transpose(0, 1, 2, 4, 5, 3)
        kernels = w[group * each : (group + 1) * each].reshape(each, -1)
        groups.append(ordered_product(rows.reshape(batch * height * width, -1), kernels))
    return np.concatenate(groups, axis=1).reshape(batch, height, width, outputs)
