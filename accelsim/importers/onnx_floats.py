"""ONNX's float operators between quantized tensors (QDQ and QONNX files): they wait for the node that quantizes their
result (accelsim.importers.onnx_pending).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_constants import float32
from accelsim.importers.onnx_graph import Node
from accelsim.importers.onnx_pending import Pending
from accelsim.importers.onnx_products import Product, Weight
from accelsim.importers.onnx_thresholds import Step
from accelsim.importers.onnx_values import Array, Codes, Constant, FloatInput, Move, Shape
from accelsim.importers.onnx_vectors import clipped, elementwise, pooled
from accelsim.importers.onnx_walk import Walk

Float64 = NDArray[np.float64]


def conv(walk: Walk, node: Node) -> None:
    """Conv of quantized reals with a quantized weight."""
    x, weight = walk.codes(node, 0, real=True), _weight(walk, node, 1, channels_at=0)
    product = Product("conv", node, x, weight)
    _product(walk, node, product, _unit(x, weight), _bias(walk, node, 2), channels_at=1)


def matmul(walk: Walk, node: Node) -> None:
    """MatMul of quantized reals."""
    x = walk.codes(node, 0, real=True)
    if isinstance(walk.values.get(node.input(1)), Constant):
        weight = _weight(walk, node, 1, channels_at=-1)
        if weight.codes.ndim != 2:
            raise NotSupported(f"the weight has shape {weight.codes.shape}; a matrix is supported")
        _product(walk, node, Product("linear", node, x, weight), _unit(x, weight), None)
        return
    other = walk.codes(node, 1, "second operand", real=True)
    unit = float32(float32(x.scale) * float32(other.scale))
    _product(walk, node, Product("matmul", node, x, other=other), unit, None)


def gemm(walk: Walk, node: Node) -> None:
    """Gemm: alpha * A' * B' + beta * C, B a quantized weight."""
    x, weight = walk.codes(node, 0, real=True), _weight(walk, node, 1, channels_at=None)
    if node.attributes.get("transA", 0):
        x = replace(x, view=x.view.moved(Move("transpose", (1, 0))))
    if weight.codes.ndim != 2:
        raise NotSupported(f"the weight has shape {weight.codes.shape}; a matrix is supported")
    if node.attributes.get("transB", 0):
        weight = replace(weight, codes=weight.codes.T)
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    bias = _bias(walk, node, 2)
    if bias is not None and beta != 1.0:
        raise NotSupported(f"beta is {beta}; 1 is supported")
    unit = float32(float32(float32(alpha) * float32(x.scale)) * float32(weight.scale))
    _product(walk, node, Product("linear", node, x, weight), unit, bias, factor=Fraction(float(alpha)))


def _unit(x: Codes, weight: Weight) -> NDArray[np.float32]:
    return float32(float32(x.scale) * float32(weight.scale))


def _product(
    walk: Walk,
    node: Node,
    product: Product,
    unit: NDArray[np.float32],
    bias: Constant | None,
    *,
    channels_at: int = -1,
    factor: Fraction = Fraction(1),
) -> None:
    x = product.x
    if np.ndim(x.scale):
        raise NotSupported("the input holds accumulators with a scale a channel; quantize it")
    shape = product.shape
    pending = Pending(node, shape, product, unit=unit, channels_at=channels_at, factor=factor)
    if bias is not None and bias.scale is None:
        pending = pending.then(Step("add", np.asarray(bias.array, np.float64).reshape(-1)))
    elif bias is not None:
        pending = replace(pending, product=replace(product, bias=_whole_bias(bias, unit, pending.product_channels)))
    walk.set(node, pending)


def _bias(walk: Walk, node: Node, index: int) -> Constant | None:
    if not node.input(index):
        return None
    value = walk.values.get(node.input(index))
    if not isinstance(value, Constant):
        raise NotSupported(f"the bias {node.input(index)!r} is not a constant")
    return value


def _whole_bias(bias: Constant, unit: NDArray[np.float32], channels: int) -> NDArray[np.int64]:
    """Return a quantized bias in units of the accumulator, which its scale has to be."""
    assert bias.scale is not None
    if bias.array.size != channels or bias.scale.size not in (1, channels) or unit.size not in (1, channels):
        raise NotSupported(f"the bias has shape {bias.array.shape}, but there are {channels} output channels")
    off = np.abs(bias.scale.reshape(-1) / unit.reshape(-1).astype(np.float64) - 1)
    if np.any(off > 1e-3) or np.any(bias.zero_point):
        raise NotSupported(
            f"the bias has scale {bias.scale.reshape(-1)[0]:g}, but the accumulator {unit.reshape(-1)[0]:g}; they have "
            f"to be equal, and its zero point 0"
        )
    return bias.array.astype(np.int64).reshape(-1)


def _weight(walk: Walk, node: Node, index: int, channels_at: int | None) -> Weight:
    """Return a quantized constant. channels_at : axis of scales that may differ; None: any axis of Gemm's B."""
    value = walk.values.get(node.input(index))
    if not isinstance(value, Constant):
        raise NotSupported(f"the weight {node.input(index)!r} is not a constant")
    if value.scale is None or value.zero_point is None:
        raise NotSupported(f"the weight {node.input(index)!r} is not quantized; quantize the model's weights")
    if channels_at is None:
        channels_at = 0 if node.attributes.get("transB", 0) else 1
    if value.scale.size > 1 or value.zero_point.size > 1:
        axis = None if value.axis is None else value.axis % value.array.ndim
        if axis != channels_at % value.array.ndim:
            raise NotSupported(
                f"the weight's scales run along axis {axis} of {value.array.shape}; only its output channels can have "
                f"their own"
            )
    scale, zero = (part.reshape(-1) if part.size > 1 else part.reshape(()) for part in (value.scale, value.zero_point))
    return Weight(value.array, scale, zero, value.format)


# --- what follows a product


def batch_normalization(walk: Walk, node: Node) -> None:
    """BatchNormalization in inference: (x - mean) / sqrt(variance + epsilon) * scale + bias."""
    scale, bias, mean, variance = (
        np.asarray(walk.constant(node, 1 + i, what), np.float64).reshape(-1)
        for i, what in enumerate(("scale", "bias", "mean", "variance"))
    )
    radicand = variance + float(np.float32(node.attributes.get("epsilon", 1e-5)))  # exact: float64 holds both
    if np.any(radicand <= 0):
        raise NotSupported("a variance is negative")
    steps = (Step("add", -mean), Step("divide_by_root", radicand), Step("multiply", scale), Step("add", bias))
    value = walk.values.get(node.input(0))
    if isinstance(value, FloatInput):

        def normalize(x: Array) -> Array:
            shape = (1, -1) + (1,) * (x.ndim - 2)
            at = [float32(each).reshape(shape) for each in (mean, radicand, scale, bias)]
            return float32((x - at[0]) / np.sqrt(at[1]) * at[2] + at[3])

        walk.set(node, stepped(value, normalize))
        return
    pending = waiting(walk, node, 0)
    if pending is None:
        raise NotSupported("batch normalization of what no product made")
    if pending.channels_at % max(len(pending.shape), 1) != 1:
        raise NotSupported("the channels that are normalized are not the product's output channels")
    walk.set(node, pending.then(*steps))


def waiting(walk: Walk, node: Node, index: int) -> Pending | None:
    """Return a pending operation; of quantized reals None."""
    value = walk.values.get(node.input(index))
    return value if isinstance(value, Pending) else None


def clip(walk: Walk, node: Node) -> None:
    """Relu, and Clip with constant bounds, of reals."""
    value = walk.values.get(node.input(0))
    low, high = _bounds(walk, node)
    if isinstance(value, FloatInput):
        walk.set(node, stepped(value, lambda x: float32(np.clip(x, np.float32(low), np.float32(high)))))
    elif isinstance(value, Pending):
        walk.set(node, value.then(Step("clip", np.array([low]), np.array([high]))))
    else:
        walk.set(node, clipped(walk.codes(node, 0, real=True), node, low, high))


def _bounds(walk: Walk, node: Node) -> tuple[float, float]:
    if node.op == "Relu":
        return 0.0, math.inf
    low, high = node.attributes.get("min", -math.inf), node.attributes.get("max", math.inf)
    if node.input(1):
        low = float(walk.number(node, 1, "min"))
    if node.input(2):
        high = float(walk.number(node, 2, "max"))
    if not low <= high:  # NaN too
        raise NotSupported(f"clips to {low}..{high}")
    return low, high


def arithmetic(walk: Walk, node: Node) -> None:
    """Add, Sub, Mul, Div: of a constant, or of two quantized tensors (Div: of a constant only)."""
    values = [walk.values.get(node.input(i)) for i in (0, 1)]
    constants = [isinstance(value, Constant) and value.scale is None for value in values]
    if any(constants) and any(isinstance(value, FloatInput | Pending) for value in values):
        _with_constant(walk, node, values, first=constants[0])
        return
    if node.op == "Div":
        raise NotSupported("divides by what is no constant")
    walk.set(node, elementwise(walk, node, node.op.lower(), values))


_STEPS: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
}


def _with_constant(walk: Walk, node: Node, values: list[Any], *, first: bool) -> None:
    value, constant = (values[1], values[0].array) if first else (values[0], values[1].array)
    if isinstance(value, FloatInput):
        operation, single = _STEPS[node.op], float32(constant)
        if not _broadcasts_to(single.shape, value.shape):
            raise NotSupported(f"a constant of shape {single.shape} does not broadcast to {value.shape}")
        walk.set(node, stepped(value, lambda x: float32(operation(single, x) if first else operation(x, single))))
        return
    number = _channel_vector(np.asarray(constant, np.float64), value)
    if node.op == "Add":
        steps = [Step("add", number)]
    elif node.op == "Sub":
        steps = [Step("multiply", np.array([-1.0])), Step("add", number)] if first else [Step("add", -number)]
    elif node.op == "Mul":
        steps = [Step("multiply", number)]
    elif first:
        raise NotSupported("divides a constant by what is computed")
    else:
        if not np.all(np.isfinite(number) & (number != 0)):
            raise NotSupported("divides by 0, or by what is not finite")
        # The root of a float32's square, which float64 holds exactly, is the float32 itself.
        steps = [Step("divide_by_root", number**2), Step("multiply", np.sign(number))]
    walk.set(node, value.then(*steps))


def _broadcasts_to(shape: Shape, larger: Shape) -> bool:
    try:
        return np.broadcast_shapes(shape, larger) == larger
    except ValueError:
        return False


def _channel_vector(constant: Float64, pending: Pending) -> Float64:
    """Return a constant as one number, or one an output channel of the product."""
    if constant.size == 1:
        return constant.reshape(-1)
    rank = len(pending.shape)
    axis = pending.channels_at % rank
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if len(shape) != rank or any(size != 1 for i, size in enumerate(shape) if i != axis):
        raise NotSupported(
            f"a constant of shape {constant.shape} meets a result of shape {pending.shape}; one number, or one for "
            f"each of the {pending.shape[axis]} channels, is supported"
        )
    return constant.reshape(-1)


def stepped(value: FloatInput, operation: Callable[[Array], Array]) -> FloatInput:
    """Return a float input after one more operation, which takes arrays as ONNX sees them there."""
    view = value.view

    def step(array: Array) -> Array:
        return view.to_trace(operation(view.to_onnx(array)))

    return replace(value, steps=(*value.steps, step))


def average_pool(walk: Walk, node: Node) -> None:
    """AveragePool and GlobalAveragePool of quantized reals."""
    walk.set(node, pooled(walk, node, walk.codes(node, 0, real=True)))


FLOATS: dict[tuple[str, str], Callable[[Walk, Node], None]] = {
    ("", "Conv"): conv,
    ("", "MatMul"): matmul,
    ("", "Gemm"): gemm,
    ("", "BatchNormalization"): batch_normalization,
    ("", "Add"): arithmetic,
    ("", "Sub"): arithmetic,
    ("", "Mul"): arithmetic,
    ("", "Div"): arithmetic,
    ("", "AveragePool"): average_pool,
    ("", "GlobalAveragePool"): average_pool,
}
