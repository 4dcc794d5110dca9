"""Zero points on an array that multiplies raw codes (docs/numerics.md, section 2.2).

    sum (x - zx)(w - zw)  =  sum x w  -  zw sum x  -  zx sum w  +  K zx zw

What is known in advance is preloaded into accumulators. What depends on the data is measured by the array itself: a
last column of ones beside the weights gives sum x, a last row of ones below the activations gives sum w.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from accelsim.errors import UnsupportedLayerError
from accelsim.formats.spec import QTensor
from accelsim.mapping.contract import GemmOperands, Int64
from accelsim.trace.schema import Layer, MatmulMeta
from accelsim.trace.shapes import channel_axis_of_weight


@dataclass(frozen=True, eq=False)
class ZeroPoints:
    """What is left to correct after the array::

        acc[b, m, n] - w[b, n] * (last column of row m) - a * (last row of column n)

    w : int64 [batch, N] (N without the column of ones), or None: no column of ones
    a : the first operand's zero point, or None: no row of ones. Only for two activations, where sum w depends on the
        data
    """

    w: Int64 | None
    a: int | None


def handle_zero_points(
    layer: Layer, operands: GemmOperands, x: QTensor, weight: QTensor
) -> tuple[GemmOperands, ZeroPoints]:
    """Fold what is known in advance into the preload; let the array measure what is not.

    Returns operands with the column and row of ones that are needed, and what they are for. Every port has at least
    two bits, so a one always enters. Constant weights: -zx sum w + K zx zw joins the bias of every output. Two
    activations: the column of ones starts at -K zx and thus measures sum (x - zx), which covers the last term.

    Raises UnsupportedLayerError for zero points that cannot be factored out of the sum over K, for a bias that the
    row of ones would get too, and for a preload that does not fit int64.
    """
    zero_x, zero_w = _zero_point_of_activations(layer, x), _zero_points_of_weights(layer, weight)
    if not zero_x and not zero_w.any():
        return operands, ZeroPoints(None, None)
    gemms, _, cols = operands.w.shape
    constant = not isinstance(layer, MatmulMeta)
    k = int(operands.k_valid.sum())
    # [1], or one an output channel: the channels of a grouped convolution are spread over its GEMMs.
    per_output = np.broadcast_to(zero_w if zero_w.size == 1 else zero_w.reshape(-1, cols), (gemms, cols))
    a, w, bias = operands.a, operands.w, operands.bias.astype(np.int64)  # only integers have zero points
    if constant:
        bias = _preload(layer, bias, k * zero_x * per_output - zero_x * w.sum(axis=1, dtype=np.int64))
    elif zero_x and bias.any():
        raise UnsupportedLayerError(
            f"layer {layer.name!r} adds a bias to a product of two activations of which the first has zero point "
            f"{zero_x}; the row of ones that measures the second's sums would get the bias too; use zero point 0 for "
            f"the first, or no bias"
        )
    measured_w = per_output if zero_w.any() else None
    measured_a = zero_x if zero_x and not constant else None
    if measured_w is not None:
        ones = np.broadcast_to(operands.k_valid.astype(np.int32)[None, :, None], (gemms, a.shape[2], 1))
        w = np.concatenate([w, ones], axis=2)
        bias = np.concatenate([bias, np.full((gemms, 1), 0 if constant else -k * zero_x, np.int64)], axis=1)
    if measured_a is not None:
        ones = np.broadcast_to(operands.k_valid.astype(np.int32)[None, None, :], (gemms, 1, a.shape[2]))
        a = np.concatenate([a, ones], axis=1)
    changed = replace(operands, a=np.ascontiguousarray(a), w=np.ascontiguousarray(w), bias=bias)
    return changed, ZeroPoints(None if measured_w is None else np.ascontiguousarray(measured_w), measured_a)


def _preload(layer: Layer, bias: Int64, terms: Int64) -> Int64:
    """Return bias + terms, exact."""
    preload = bias + terms  # wraps where bias and terms have one sign and the sum has the other
    wrapped = ((bias ^ preload) & (terms ^ preload)) < 0
    if wrapped.any():
        channel = int(wrapped.argmax())  # the GEMMs of a grouped convolution hold its channels one after another
        raise UnsupportedLayerError(
            f"layer {layer.name!r}: bias {int(bias.flat[channel])} of output channel {channel} and its zero-point "
            f"terms {int(terms.flat[channel])} add up to more than 64 bits hold; use a smaller bias"
        )
    return preload


def _zero_point_of_activations(layer: Layer, x: QTensor) -> int:
    if x.zero_point.ndim == 0:
        return int(x.zero_point)
    if x.zero_point.any():
        raise UnsupportedLayerError(
            f"layer {layer.name!r}: the activations have a zero point per channel, which cannot be factored out of the "
            f"sum over channels; use one zero point for the tensor"
        )
    return 0


def _zero_points_of_weights(layer: Layer, weight: QTensor) -> Int64:
    """Return [1] or one an output channel."""
    output_axis = channel_axis_of_weight(layer, len(weight.shape))
    if weight.zero_point.ndim and weight.zero_point.any() and weight.channel_axis != output_axis:
        raise UnsupportedLayerError(
            f"layer {layer.name!r}: the second operand has zero points along axis {weight.channel_axis}, but only axis "
            f"{output_axis}, the output's channels, can have its own; use that axis, or one zero point for the tensor"
        )
    return np.atleast_1d(weight.zero_point)
