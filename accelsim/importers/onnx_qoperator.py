"""ONNX's operators on codes (QOperator format): each takes scales and zero points beside its codes.

The operators of the domain com.microsoft are ONNX Runtime's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from accelsim import formats
from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_constants import float32, format_of
from accelsim.importers.onnx_functions import function, leaky_relu, softmax
from accelsim.importers.onnx_graph import MICROSOFT, Node
from accelsim.importers.onnx_layers import add_product
from accelsim.importers.onnx_moves import arrange_all
from accelsim.importers.onnx_pending import Pending, VectorCall, quantize
from accelsim.importers.onnx_products import Product, Weight
from accelsim.importers.onnx_thresholds import Quantizer
from accelsim.importers.onnx_values import Array, Codes, Constant, Move, Output, View
from accelsim.importers.onnx_vectors import clipped, elementwise, pooled
from accelsim.importers.onnx_walk import Walk


def qlinear_conv(walk: Walk, node: Node) -> None:
    """QLinearConv: x, its scale and zero point, w and its, the output's, bias."""
    if node.attributes.get("channels_last", 0):
        raise NotSupported("channels_last is 1; ONNX's own order is supported")
    x, scale = _read(walk, node, 0)
    weight = _weight(walk, node, 3, channels_at=0)
    product = Product("conv", node, x, weight, bias=_bias(walk, node, 8))
    _finish(walk, node, product, float32(scale * float32(weight.scale)), _target(walk, node, 6, 7))


def qlinear_matmul(walk: Walk, node: Node) -> None:
    """QLinearMatMul: a, b, the output; each with scale and zero point. b may be another activation."""
    a, scale = _read(walk, node, 0, "first operand")
    product, second = _second(walk, node, a, 3)
    _finish(walk, node, product, float32(scale * second), _target(walk, node, 6, 7))


def qgemm(walk: Walk, node: Node) -> None:
    """QGemm: alpha * A' * B' + C in integers, C in units of the accumulator; without an output scale raw."""
    a, scale = _read(walk, node, 0, "first operand")
    if node.attributes.get("transA", 0):
        a = replace(a, view=a.view.moved(Move("transpose", (1, 0))))
    swapped = bool(node.attributes.get("transB", 0))
    weight = _weight(walk, node, 3, channels_at=0 if swapped else 1)
    if weight.codes.ndim != 2:
        raise NotSupported(f"B has shape {weight.codes.shape}; a matrix is supported")
    codes = weight.codes.T if swapped else weight.codes
    weight = replace(weight, codes=codes)
    bias = _bias(walk, node, 6)
    if bias is not None:
        if bias.size not in (1, codes.shape[1]):
            raise NotSupported(f"C has {bias.size} elements, but there are {codes.shape[1]} output channels")
        bias = np.broadcast_to(bias, (codes.shape[1],)).copy()
    product = Product("linear", node, a, weight, bias=bias)
    alpha = float32(node.attributes.get("alpha", 1.0))
    unit = float32(float32(alpha * scale) * float32(weight.scale))
    if node.input(7):
        _finish(walk, node, product, unit, _target(walk, node, 7, 8))
    else:
        walk.set(node, Pending(node, product.shape, product, unit=unit))


def conv_integer(walk: Walk, node: Node) -> None:
    """ConvInteger: x, w and their zero points; int32 accumulators leave."""
    x = _zero_read(walk, node, 0, 2)
    codes = walk.constant(node, 1, "the weight")
    zero = walk.zero(node, 3, "the weight's zero point")
    weight = Weight(codes, *per_channel(codes, np.ones(()), zero, 0), format_of(codes))
    _accumulators(walk, node, Product("conv", node, x, weight))


def matmul_integer(walk: Walk, node: Node) -> None:
    """MatMulInteger: a, b and their zero points; int32 accumulators leave."""
    a = _zero_read(walk, node, 0, 2)
    if isinstance(walk.values.get(node.input(1)), Constant):
        codes = walk.constant(node, 1, "b")
        zero = walk.zero(node, 3, "b's zero point")
        weight = Weight(_matrix(codes), *per_channel(codes, np.ones(()), zero, -1), format_of(codes))
        _accumulators(walk, node, Product("linear", node, a, weight))
        return
    _accumulators(walk, node, Product("matmul", node, a, other=_zero_read(walk, node, 1, 3)))


def _accumulators(walk: Walk, node: Node, product: Product) -> None:
    view = add_product(walk, node, product, node.outputs[0], {"rounding": None}, "int32")
    scale = product.x.scale if product.other is None else product.x.scale * product.other.scale
    walk.set(node, Codes(view, "int32", scale, 0, real=False, known=False))


def _read(walk: Walk, node: Node, index: int, what: str = "input", *, exact: bool = False) -> tuple[Codes, Array]:
    """Return codes and the float32 scale that the node reads them with.

    exact : the operator takes the scale from the tensor, so it must be the one that the codes were written with
    """
    codes = walk.codes(node, index, what)
    scale = walk.one_scale(node, index + 1, f"the {what}'s scale")
    walk.check_meaning(codes, walk.one_zero(node, index + 2, f"the {what}'s zero point"), what)
    if exact and float(scale) != codes.scale:
        raise NotSupported(
            f"the {what} was written with scale {codes.scale:g} and is read with {float(scale):g}; requantize it in "
            f"between"
        )
    return codes, np.asarray(scale)


def _zero_read(walk: Walk, node: Node, index: int, zero_at: int) -> Codes:
    codes = walk.codes(node, index)
    walk.check_meaning(codes, walk.one_zero(node, zero_at))
    return codes


def _second(walk: Walk, node: Node, a: Codes, index: int) -> tuple[Product, Array]:
    """Return the product with a constant or an activation, and the second operand's float32 scale."""
    if isinstance(walk.values.get(node.input(index)), Constant):
        weight = _weight(walk, node, index, channels_at=-1)
        weight = replace(weight, codes=_matrix(weight.codes))
        return Product("linear", node, a, weight), float32(weight.scale)
    b, scale = _read(walk, node, index, "second operand")
    return Product("matmul", node, a, other=b), scale


def _matrix(codes: Array) -> Array:
    """Return a constant second operand as a matrix."""
    if codes.ndim > 2 and codes.size == codes.shape[-1] * codes.shape[-2]:
        codes = codes.reshape(codes.shape[-2:])
    if codes.ndim != 2:
        raise NotSupported(f"b is a constant of shape {codes.shape}; a matrix is supported")
    return codes


def _weight(walk: Walk, node: Node, index: int, channels_at: int) -> Weight:
    """Return a constant weight with the scale and zero point in the inputs after it."""
    codes = walk.constant(node, index, "the weight")
    scale = walk.scale(node, index + 1, "the weight's scale")
    zero = walk.zero(node, index + 2, "the weight's zero point")
    return Weight(codes, *per_channel(codes, scale, zero, channels_at), format_of(codes))


def per_channel(codes: Array, scale: Array, zero: Array, channels_at: int) -> tuple[Array, Array]:
    """Return scale and zero point as () or (channels,)."""
    channels = codes.shape[channels_at]
    flat = []
    for what, array in (("scale", scale), ("zero point", zero)):
        if array.size not in (1, channels):
            raise NotSupported(
                f"the weight's {what} has shape {array.shape}, and there are {channels} output channels; one number, "
                f"or one a channel, is supported"
            )
        flat.append(array.reshape(() if array.size == 1 else (channels,)))
    return flat[0], flat[1].astype(np.int64)


def _bias(walk: Walk, node: Node, index: int) -> Any:
    if not node.input(index):
        return None
    bias = walk.constant(node, index, "the bias")
    if bias.dtype.kind not in "iu":
        raise NotSupported(f"the bias holds {bias.dtype}; integers in units of the accumulator are needed")
    return bias.astype(np.int64).ravel()


def _target(walk: Walk, node: Node, scale_at: int, zero_at: int) -> Quantizer:
    """Return what the output means; its type is the zero point's."""
    zero = walk.optional(node, zero_at, "the output's zero point", np.zeros((), np.uint8))
    if zero.size != 1:
        raise NotSupported(f"the output's zero point has shape {zero.shape}; one number is supported")
    number_format = formats.get(format_of(zero))
    scale = walk.one_scale(node, scale_at, "the output's scale")
    return Quantizer(number_format.name, number_format.code_low, number_format.code_high, scale, int(zero.reshape(())))


def _finish(walk: Walk, node: Node, product: Product, unit: Array, target: Quantizer) -> None:
    """Add the layer with ONNX Runtime's requantization: one float32 factor, float32(s_x * s_w) / s_y."""
    walk.set(node, quantize(walk, node, Pending(node, product.shape, product, unit=unit), target))


# --- the vector unit


def qlinear_binary(walk: Walk, node: Node) -> None:
    """QLinearAdd, QLinearMul: a, b, the output; each with scale and zero point."""
    values: list[Codes | Constant] = []
    for index in (0, 3):
        if isinstance(walk.values.get(node.input(index)), Constant):
            array = walk.constant(node, index, "an operand")
            scale = np.asarray(walk.one_scale(node, index + 1), np.float64)
            zero = np.asarray(walk.one_zero(node, index + 2), np.int64)
            values.append(Constant(array, scale, zero, None, format_of(array)))
        else:
            values.append(_read(walk, node, index, exact=True)[0])
    operator = {"QLinearAdd": "add", "QLinearMul": "mul"}[node.op]
    pending = elementwise(walk, node, operator, values)
    walk.set(node, quantize(walk, node, pending, _target(walk, node, 6, 7)))


def qlinear_function(walk: Walk, node: Node) -> None:
    """QLinearSigmoid, QLinearLeakyRelu, QLinearSoftmax: x, the output; each with scale and zero point."""
    x, _ = _read(walk, node, 0, exact=True)
    if node.op == "QLinearSigmoid":
        pending = function(node, x, "logistic")
    elif node.op == "QLinearSoftmax":
        pending = softmax(walk, node, x)
    else:
        pending = leaky_relu(node, x)
    walk.set(node, quantize(walk, node, pending, _target(walk, node, 3, 4)))


def qlinear_pool(walk: Walk, node: Node) -> None:
    """QLinearAveragePool, QLinearGlobalAveragePool: x, the output; each with scale and zero point."""
    if node.attributes.get("channels_last", 0):
        raise NotSupported("channels_last is 1; ONNX's own order is supported")
    x, _ = _read(walk, node, 0, exact=True)
    walk.set(node, quantize(walk, node, pooled(walk, node, x), _target(walk, node, 3, 4)))


def qlinear_concat(walk: Walk, node: Node) -> None:
    """QLinearConcat: the output's scale and zero point, then tensors, each with scale and zero point."""
    tensors = [_read(walk, node, index, exact=True)[0] for index in range(2, len(node.inputs), 3)]
    walk.set(node, quantize(walk, node, concatenated(walk, node, tensors), _target(walk, node, 0, 1)))


def concat(walk: Walk, node: Node) -> None:
    """Concat of codes, or of quantized reals."""
    values = [walk.values.get(name) for name in node.inputs]
    if not all(isinstance(value, Codes) for value in values):
        raise NotSupported("concatenates what is not quantized, or constants")
    reals = {value.real for value in values if isinstance(value, Codes)}
    tensors = [walk.codes(node, index, real=reals == {True}) for index in range(len(values))]
    pending = concatenated(walk, node, tensors)
    if reals == {True}:
        walk.set(node, pending)
        return
    first = tensors[0]
    if any((each.format, each.scale, each.zero_point) != (first.format, first.scale, first.zero_point)
           for each in tensors):  # fmt: skip
        raise NotSupported("concatenates codes with different scales or zero points")
    walk.set(node, quantize(walk, node, pending, same_meaning(first)))


def same_meaning(codes: Codes) -> Quantizer:
    """Return the quantizer that gives codes their own meaning."""
    number_format = formats.get(codes.format)
    return Quantizer(codes.format, number_format.code_low, number_format.code_high, np.float32(codes.scale),
                     codes.zero_point)  # fmt: skip


def concatenated(walk: Walk, node: Node, tensors: list[Codes]) -> Pending:
    """Return tensors one after another, each requantized where it means something else than the output."""
    if any(each.format not in ("int8", "uint8") for each in tensors):
        raise NotSupported("concatenates codes of other than 8 bits")
    arranged, order = arrange_all(walk, node, tensors)
    axis = int(node.attributes["axis"]) % len(order)
    if axis == 0 and walk.batches > 1:
        raise NotSupported("concatenates along the batch; import one batch of the file at a time (batch=1)")
    shape = list(arranged[0].view.stored)
    shape[order[axis]] = sum(each.view.stored[order[axis]] for each in arranged)
    call = VectorCall(
        "concat",
        tuple(each.view.tensor for each in arranged),
        {"axis": order[axis], "rule": "onnxruntime"},
        View("", tuple(shape), arranged[0].view.moves),
        tuple(arranged),
    )
    return Pending(node, call.view.shape, vector=call)


def clip_codes(walk: Walk, node: Node) -> None:
    """Relu and Clip on codes: bounds are codes too."""
    x = walk.codes(node, 0)
    output = Output(x.format, float(x.scale), x.zero_point)
    low = walk.number(node, 1, "min") if node.input(1) else 0 if node.op == "Relu" else None
    high = walk.number(node, 2, "max") if node.input(2) else None
    bounds = [-np.inf if low is None else output.real(int(low)), np.inf if high is None else output.real(int(high))]
    pending = clipped(replace(x, real=True), node, *bounds)
    walk.set(node, quantize(walk, node, pending, same_meaning(x)))


QOPERATORS: dict[tuple[str, str], Callable[[Walk, Node], None]] = {
    ("", "QLinearConv"): qlinear_conv,
    (MICROSOFT, "QLinearConv"): qlinear_conv,
    ("", "QLinearMatMul"): qlinear_matmul,
    (MICROSOFT, "QGemm"): qgemm,
    ("", "ConvInteger"): conv_integer,
    ("", "MatMulInteger"): matmul_integer,
    (MICROSOFT, "QLinearAdd"): qlinear_binary,
    (MICROSOFT, "QLinearMul"): qlinear_binary,
    (MICROSOFT, "QLinearSigmoid"): qlinear_function,
    (MICROSOFT, "QLinearLeakyRelu"): qlinear_function,
    (MICROSOFT, "QLinearSoftmax"): qlinear_function,
    (MICROSOFT, "QLinearAveragePool"): qlinear_pool,
    (MICROSOFT, "QLinearGlobalAveragePool"): qlinear_pool,
    (MICROSOFT, "QLinearConcat"): qlinear_concat,
    ("", "Concat"): concat,
}
