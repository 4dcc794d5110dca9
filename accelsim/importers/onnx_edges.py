"""Where reals become codes and codes reals: QuantizeLinear, DequantizeLinear; and the floats behind the last codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from accelsim import formats
from accelsim.formats import Format
from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_constants import float32, format_of
from accelsim.importers.onnx_graph import Node
from accelsim.importers.onnx_pending import Pending, VectorCall, quantize, raw
from accelsim.importers.onnx_thresholds import Quantizer
from accelsim.importers.onnx_values import Array, Codes, Constant, FloatInput, Host, Output, Shape, spread
from accelsim.importers.onnx_walk import Walk


def quantize_linear(walk: Walk, node: Node) -> None:
    """QuantizeLinear: x, the scale, the zero point, whose type is the output's."""
    value = walk.values.get(node.input(0))
    scale = walk.scale(node, 1)
    zero = _zero_point(walk, node)
    if node.attributes.get("block_size", 0):
        raise NotSupported("has a scale a block, which no layer of a QOperator or QDQ network takes")
    if isinstance(value, Constant):
        walk.set(node, _quantized_constant(node, value, scale, zero))
        return
    if scale.size != 1 or zero.size != 1:
        raise NotSupported("quantizes activations with a scale a channel, which cannot leave a sum over channels")
    number_format = formats.get(format_of(zero))
    factor, offset = np.float32(scale.reshape(())), int(zero.reshape(()))
    quantizer = Quantizer(number_format.name, number_format.code_low, number_format.code_high, factor, offset)
    walk.set(node, quantized(walk, node, value, quantizer))


def quantized(walk: Walk, node: Node, value: object, quantizer: Quantizer) -> Codes:
    """Return what a node makes of reals, as codes: at the network's edge on the host, behind an operation as part of
    its layer, of other codes by a requantization.
    """
    output = Output(quantizer.format, float(quantizer.scale), quantizer.zero_point)
    if isinstance(value, FloatInput):
        return walk.enter(node, value, output, quantizer.codes)
    if isinstance(value, Pending):
        return quantize(walk, node, value, quantizer)
    if isinstance(value, Codes) and value.real:
        same = (value.format, value.scale, value.zero_point) == (output.format, output.scale, output.zero_point)
        if same and (quantizer.low, quantizer.high) == _range(quantizer.format):
            return replace(value, real=False)
        if np.ndim(value.scale) == 0 and value.format != "binary":
            moved = replace(value.view, tensor="", moves=())
            call = VectorCall("requantize", (value.view.tensor,), {"rule": "onnxruntime"}, moved, (value,))
            return quantize(walk, node, Pending(node, value.shape, vector=call, moves=value.view.moves), quantizer)
        raise NotSupported("quantizes what has a scale a channel, or signs, once more")
    if isinstance(value, Host):
        raise NotSupported(f"quantizes what {value.why} computes in floats, which has no integer form here")
    raise NotSupported(f"quantizes {node.input(0)!r}, which holds codes already")


def _range(name: str) -> tuple[int, int]:
    number_format = formats.get(name)
    return number_format.code_low, number_format.code_high


def _zero_point(walk: Walk, node: Node) -> Array:
    if node.input(2):
        return walk.constant(node, 2, "the zero point")
    kind = node.attributes.get("output_dtype", 0)
    return np.zeros((), _INTEGER_TYPES.get(int(kind), np.uint8))


_INTEGER_TYPES = {2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16}  # of TensorProto


def _quantized_constant(node: Node, value: Constant, scale: Array, zero: Array) -> Constant:
    if value.scale is not None:
        raise NotSupported("quantizes a constant that is quantized already")
    number_format, axis = formats.get(format_of(zero)), int(node.attributes.get("axis", 1))
    for what, array in (("scale", scale), ("zero point", zero)):
        check_slices(array, value.array.shape, axis, what)
    if not np.all(np.isfinite(value.array)):
        raise NotSupported("quantizes a constant that holds NaN or infinity")
    codes = quantize_codes(value.array, scale, zero, number_format, axis)
    return Constant(codes.astype(np.int32), format=number_format.name)


def quantize_codes(reals: Array, scale: Array, zero_point: Array, number_format: Format, axis: int = 1) -> Array:
    """Return what QuantizeLinear does to reals: one float32 division, ties to even, then the zero point.

    scale, zero_point : () or one a slice along `axis`
    """
    array = float32(reals)
    steps = np.rint(array / spread(float32(scale), axis % max(array.ndim, 1), array.ndim)).astype(np.float64)
    codes = steps + spread(zero_point, axis % max(array.ndim, 1), array.ndim).astype(np.float64)
    return np.clip(codes, number_format.code_low, number_format.code_high).astype(np.int64)


def check_slices(array: Array, shape: Shape, axis: int, what: str) -> None:
    """Refuse scales or zero points that are neither one for a tensor nor one for each slice along an axis."""
    if array.size == 1:
        return
    if not -len(shape) <= axis < len(shape) or array.size != shape[axis]:
        raise NotSupported(f"the {what} has shape {array.shape}, which fits no axis {axis} of {shape}")


def dequantize_linear(walk: Walk, node: Node) -> None:
    """DequantizeLinear: only says what codes mean."""
    value = walk.values.get(node.input(0))
    scale, zero = walk.scale(node, 1), walk.zero(node, 2)
    if isinstance(value, Constant) and value.scale is None:
        axis = int(node.attributes.get("axis", 1))
        if node.attributes.get("block_size", 0):
            raise NotSupported("a constant has a scale a block; one scale, or one an output channel, is supported")
        name = value.format or format_of(value.array)
        for what, array in (("scale", scale), ("zero point", zero)):
            check_slices(array, value.array.shape, axis, what)
        walk.set(node, Constant(value.array, scale.astype(np.float64), zero, axis, name))
        return
    codes = walk.codes(node, 0)
    if scale.size != 1 or zero.size != 1:
        raise NotSupported("dequantizes activations with a scale a channel")
    walk.check_meaning(codes, int(zero.reshape(())))
    if codes.known and float(scale.reshape(())) != codes.scale:
        raise NotSupported(
            f"the input was written with scale {codes.scale:g} and is read with {float(scale.reshape(())):g}"
        )
    walk.set(node, replace(codes, real=True))


def host(walk: Walk, node: Node, reason: str) -> None:
    """Any float operator behind the network's last codes: it stays with the reader of the codes."""
    sources: list[Codes] = []
    for name in dict.fromkeys(each for each in node.inputs if each):
        value = walk.values.get(name)
        if isinstance(value, Pending):
            value = walk.values[name] = leave(walk, node, value, name)
        if isinstance(value, Codes) and (value.real or value.format == "int32"):
            sources.append(value)
        elif isinstance(value, Host):
            sources.extend(value.sources)
        elif not isinstance(value, Constant):
            raise NotSupported(f"takes {name!r}, which is not quantized")
    if not sources:
        raise NotSupported("takes constants only")
    shape = walk.shape_of(node.outputs[0]) or walk.shape_of(node.input(0))
    for index in range(len(node.outputs)):
        walk.set(node, Host(shape, f"{node.place} ({reason})", tuple(sources)), index)
    walk.host_row(node, sources[0], shape)


def leave(walk: Walk, node: Node, pending: Pending, name: str) -> Codes | Host:
    """Return what is left of an operation whose result nobody quantizes: raw accumulators, or floats for the host."""
    if pending.product is not None and pending.vector is None:
        codes, rest = raw(walk, node, pending, name)
        if not rest.steps:
            return codes
        walk.host_row(pending.node, codes, pending.shape)
        return Host(pending.shape, pending.node.place, (codes,))
    assert pending.vector is not None
    if not pending.vector.sources:
        raise NotSupported("makes floats of constants")
    walk.host_row(pending.node, pending.vector.sources[0], pending.shape)
    return Host(pending.shape, pending.node.place, pending.vector.sources)


EDGES: dict[tuple[str, str], Callable[[Walk, Node], None]] = {
    ("", "QuantizeLinear"): quantize_linear,
    ("", "DequantizeLinear"): dequantize_linear,
    ("com.microsoft", "QuantizeLinear"): quantize_linear,
    ("com.microsoft", "DequantizeLinear"): dequantize_linear,
}
HOST_OPERATORS = frozenset(
    {
        "Add", "ArgMax", "ArgMin", "Cast", "Div", "Exp", "Identity", "LogSoftmax", "Mul", "Pow", "Sigmoid", "Softmax",
        "Sqrt", "Sub", "Tanh", "TopK", "Neg", "ReduceMean", "ReduceSum", "ReduceMax", "Unsqueeze", "Squeeze", "Reshape",
        "Transpose", "Relu", "Clip", "Gather", "Slice", "Concat", "Log", "BatchNormalization", "Where", "Equal",
    }
)  # fmt: skip
"""What may follow a network's last codes in floats."""
