"""QONNX: networks of any width, whose floats are quantized by nodes Quant, BipolarQuant and Trunc (Pappalardo et al.,
2022). What lies between a product and a quantizer becomes thresholds (accelsim.importers.onnx_thresholds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from accelsim.formats import get
from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_constants import float32
from accelsim.importers.onnx_edges import quantized
from accelsim.importers.onnx_graph import QONNX, Node
from accelsim.importers.onnx_pending import Pending, quantize, whole_number
from accelsim.importers.onnx_thresholds import Quantizer, Rounding
from accelsim.importers.onnx_values import Array, Constant
from accelsim.importers.onnx_walk import Walk

_ROUNDINGS: dict[str, Rounding] = {
    "ROUND": "half_even",
    "HALF_EVEN": "half_even",
    "CEIL": "ceil",
    "FLOOR": "floor",
    "UP": "away",
    "DOWN": "towards_zero",
    "HALF_UP": "half_away",
    "HALF_DOWN": "half_towards_zero",
}
MAX_BITS = 16


def quant(walk: Walk, node: Node) -> None:
    """Quant (IntQuant): x, scale, zero point, bit width; attributes signed, narrow, rounding_mode."""
    scale = walk.scale(node, 1)
    zero = walk.constant(node, 2, "the zero point")
    bits = whole_number(walk.number(node, 3, "the bit width"), "the bit width")
    signed, narrow = bool(node.attributes.get("signed", 1)), bool(node.attributes.get("narrow", 0))
    if signed and bits == 1:  # +1 and -1, as BipolarQuant
        _apply(walk, node, scale, _bipolar)
        return
    if zero.size != 1:
        raise NotSupported(f"the zero point has shape {zero.shape}; one number is supported")
    offset = whole_number(zero.reshape(-1)[0], "the zero point")
    format_name, low, high = _range(bits, signed, narrow)
    rounding = _rounding(node, "ROUND")

    def make(one: np.float32) -> Quantizer:
        return Quantizer(format_name, low, high, one, offset, rounding, zero_first=True)

    _apply(walk, node, scale, make)


def bipolar_quant(walk: Walk, node: Node) -> None:
    """BipolarQuant: x, scale: +scale from 0 on, and -scale below."""
    _apply(walk, node, walk.scale(node, 1), _bipolar)


def trunc(walk: Walk, node: Node) -> None:
    """Trunc, versions 1 (x, scale, zero point, bits before, bits after) and 2 (..., bits before, scale after, bits
    after): drops low bits of what has few enough of them.
    """
    scale = walk.one_scale(node, 1)
    if float(walk.number(node, 2, "the zero point")) != 0:
        raise NotSupported("truncates what has a zero point; only 0 is supported")
    before = whole_number(walk.number(node, 3, "the bits before"), "the bits before")
    after = whole_number(walk.number(node, len(node.inputs) - 1, "the bits after"), "the bits after")
    value = walk.values.get(node.input(0))
    signed = bool(node.attributes.get("signed", 1))
    if len(node.inputs) == 5:  # says no sign, and never clamps: what cannot be negative gets all bits
        step, means = np.float32(scale * np.float32(2.0 ** (before - after))), scale
        signed = not (isinstance(value, Pending) and value.never_negative)
    else:
        means = walk.one_scale(node, 4, "the scale after")
        step = np.float32(scale * np.float32(2.0 ** np.round(np.log2(means / scale))))
    format_name, low, high = _range(after, signed, bool(node.attributes.get("narrow", 0)))
    made = Quantizer(format_name, low, high, step, 0, _rounding(node, "FLOOR"), zero_first=True, inner=scale)
    if not isinstance(value, Pending):
        raise NotSupported("truncates what no product and no pooling made; quantize it instead")
    codes = quantize(walk, node, value, made)
    walk.set(node, replace(codes, scale=float(means), real=True))


def _range(bits: int, signed: bool, narrow: bool) -> tuple[str, int, int]:
    """Return (format, smallest code, largest code)."""
    if not 1 <= bits <= MAX_BITS:
        raise NotSupported(f"a bit width of {bits}; 1 to {MAX_BITS} bits are supported")
    if not signed:
        return f"uint{max(bits, 2)}", 0, (1 << bits) - 1 - narrow
    number_format = get(f"int{bits}{'n' if narrow else ''}")
    return number_format.name, number_format.code_low, number_format.code_high


def _rounding(node: Node, default: str) -> Rounding:
    mode = str(node.attributes.get("rounding_mode", default)).upper()
    if mode not in _ROUNDINGS:
        raise NotSupported(f"rounding_mode {mode!r} is unknown; use one of {', '.join(_ROUNDINGS)}")
    return _ROUNDINGS[mode]


def _bipolar(scale: np.float32) -> Quantizer:
    return Quantizer("binary", 0, 1, scale, 0)


def _apply(walk: Walk, node: Node, scale: Array, make: Callable[[np.float32], Quantizer]) -> None:
    """Quantize a node's input: a constant, a network input, or what a product made."""
    value = walk.values.get(node.input(0))
    if isinstance(value, Constant):
        walk.set(node, _constant(value, scale, make))
        return
    if scale.size != 1:
        raise NotSupported("quantizes activations with a scale a channel, which cannot leave a sum over channels")
    codes = quantized(walk, node, value, make(np.float32(scale.reshape(-1)[0])))
    walk.set(node, replace(codes, real=True))


def _constant(value: Constant, scale: Array, make: Callable[[np.float32], Quantizer]) -> Constant:
    """Return a constant's codes, in float32 as the quantizer says."""
    reals = value.reals()
    if not np.all(np.isfinite(reals)):
        raise NotSupported("quantizes a constant that holds NaN or infinity")
    axis = None
    if scale.size > 1:
        axes = [i for i, size in enumerate(scale.shape) if size > 1]
        axis = axes[0] + reals.ndim - scale.ndim
        if len(axes) != 1 or reals.shape[axis] != scale.size:
            raise NotSupported(f"the scale has shape {scale.shape}, for a constant of {reals.shape}")
    flat = scale.reshape(-1)
    if axis is None:
        codes = make(np.float32(flat[0])).codes(reals)
    else:
        slices = [make(np.float32(flat[i])).codes(float32(reals.take(i, axis=axis))) for i in range(flat.size)]
        codes = np.stack(slices, axis=axis)
    quantizer = make(np.float32(flat[0]))
    scales = flat.astype(np.float64)
    zero = np.asarray(quantizer.zero_point, np.int64)
    return Constant(codes, scales if axis is not None else scales[0].reshape(()), zero, axis, quantizer.format)


QUANTIZERS: dict[tuple[str, str], Callable[[Walk, Node], None]] = {
    (QONNX, "Quant"): quant,
    (QONNX, "IntQuant"): quant,
    (QONNX, "BipolarQuant"): bipolar_quant,
    (QONNX, "Trunc"): trunc,
}
