"""Operations on real numbers whose result is quantized by a later node: layers as soon as it says to what.

Between DequantizeLinear and QuantizeLinear, or between two of QONNX's Quant, an ONNX file computes in floats; this is
where it becomes integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_constants import float32
from accelsim.importers.onnx_graph import Node
from accelsim.importers.onnx_layers import add_product
from accelsim.importers.onnx_products import Product, exact_units, negated_channels, reach_of
from accelsim.importers.onnx_thresholds import Quantizer, Step, fold
from accelsim.importers.onnx_values import Codes, Move, Output, Shape, View
from accelsim.importers.onnx_walk import Walk

RULE = "float32_half_even"
"""What ONNX Runtime does on its way out (docs/numerics.md): one float32 product, ties to even."""
THRESHOLD_BITS = 8
"""The widest output that is made by thresholds; wider ones are scaled."""


@dataclass(frozen=True, eq=False)
class VectorCall:
    """An operator of the vector unit, still without its output's format.

    inputs : tensors of the trace, constants, or functions that make a constant of the output's meaning
    view : how ONNX will see the output, of no tensor yet
    sources : the codes among the inputs
    """

    operator: str
    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any]
    view: View
    sources: tuple[Codes, ...] = ()


@dataclass(frozen=True, eq=False)
class Pending:
    """An operation that waits for its output's format.

    node : which
    shape : of its result, as ONNX sees it
    product, vector : what it is, one or both (a mean is both: a product with ones, and an operator)
    unit : float32 scale of the product's accumulators as ONNX Runtime computes it, () or (channels,)
    channels_at : ONNX's axis of the product's output channels
    steps : what has been done to the result since
    moves : and how it has been moved
    """

    node: Node
    shape: Shape
    product: Product | None = None
    vector: VectorCall | None = None
    unit: NDArray[np.float32] | None = None
    factor: Fraction = Fraction(1)
    channels_at: int = -1
    steps: tuple[Step, ...] = ()
    moves: tuple[Move, ...] = ()

    def then(self, *steps: Step) -> Pending:
        """Return what it is after one more operation."""
        for step in steps:
            if step.kind != "clip" and not np.all(np.isfinite(step.value)):
                raise NotSupported("a constant is NaN or infinite")
            if self.product is not None and step.value.size not in (1, self.product_channels):
                raise NotSupported(
                    f"{step.value.size} constants meet {self.product_channels} output channels; one number, or one a "
                    f"channel, is supported"
                )
        if self.moves and any(each.value.size > 1 for each in steps):
            raise NotSupported("an operation a channel comes after a reshape or transpose; put it before")
        return replace(self, steps=(*self.steps, *steps))

    def moved(self, move: Move) -> Pending:
        """Return what it is after a move."""
        return replace(self, moves=(*self.moves, move), shape=move.shape(self.shape))

    @property
    def never_negative(self) -> bool:
        """Whether the result is a sum of numbers that are not negative, times some."""
        product = self.product
        if product is None or product.weight is None or product.bias is not None:
            return False
        x, weight = formats.get(product.x.format), product.weight
        positive = x.datapath == "integer" and x.code_low >= product.x.zero_point and weight.format != "binary"
        positive = positive and bool(np.all(weight.codes >= 0)) and not weight.zero_point.any()
        return positive and all(step.kind != "add" and bool(np.all(step.value >= 0)) for step in self.steps)

    @property
    def product_channels(self) -> int:
        """Output channels of the product."""
        assert self.product is not None
        return self.product.shape[1 if self.product.kind == "conv" else -1]


def quantize(walk: Walk, node: Node, pending: Pending, quantizer: Quantizer) -> Codes:
    """Add the layer, with the output that `quantizer` says; return its codes.

    node : the quantizer
    """
    name = node.outputs[0]
    if pending.vector is not None and not (quantizer.zero_first and pending.product is not None):
        view = _vector(walk, pending, quantizer, name)
    elif pending.product is not None:
        view = _product(walk, pending, quantizer, name)
    else:  # pragma: no cover (one of the two is always there)
        raise NotSupported("nothing to quantize")
    return Codes(view, quantizer.format, float(quantizer.scale), quantizer.zero_point, real=False)


def raw(walk: Walk, node: Node, pending: Pending, name: str) -> tuple[Codes, Pending]:
    """Add the layer so that its accumulators leave as they are.

    Returns them, and what is left to do to their real values. Scales become part of what the accumulators mean, biases
    are rounded to whole units.
    """
    assert pending.product is not None
    pending = _folded(walk, pending) if pending.steps and pending.product.weight is not None else pending
    product = pending.product
    assert product is not None
    view = add_product(walk, pending.node, product, name, {"rounding": None}, "int32", pending.moves)
    units = np.array([float(each) for each in exact_units(product, 1 if product.weight is None else
                                                           pending.product_channels, pending.factor)])  # fmt: skip
    scale: float | NDArray[np.float64] = units if len(set(units.tolist())) > 1 else float(units[0])
    return Codes(view, "int32", scale, 0, real=True), pending


def _vector(walk: Walk, pending: Pending, quantizer: Quantizer, name: str) -> View:
    call = pending.vector
    assert call is not None
    if quantizer.rounding != "half_even" or quantizer.inner is not None or quantizer.is_sign:
        raise NotSupported(f"{pending.node.place} is followed by a quantizer of signs, or one that truncates")
    if quantizer.zero_first and quantizer.zero_point % 2:
        raise NotSupported("the quantizer rounds after adding an odd zero point; ties would go the other way")
    low, high = _limits(pending.steps, quantizer)
    whole, stored = formats.get(quantizer.format), call.view.stored
    output = Output(quantizer.format, float(quantizer.scale), quantizer.zero_point)
    inputs = [each(output) if callable(each) else each for each in call.inputs]
    limited = (low, high) != (whole.code_low, whole.code_high)
    view = call.view
    for move in pending.moves:
        view = view.moved(move)
    made = walk.vector_layer(
        pending.node, call.operator, inputs, output, call.attributes, after=stored, names="" if limited else name,
        view=view,
    )  # fmt: skip
    if limited:  # rounding keeps the order, so what is rounded may be clipped
        attributes = {"minimum": output.real(low), "maximum": output.real(high), "rule": "onnxruntime"}
        made = walk.vector_layer(pending.node, "clip", [made], output, attributes, after=stored, names=name,
                                 view=view)  # fmt: skip
    return replace(view, tensor=made)


def _product(walk: Walk, pending: Pending, quantizer: Quantizer, name: str) -> View:
    whole = formats.get(quantizer.format)
    straight = _only_limits(pending.steps) and not quantizer.zero_first and pending.factor == 1
    if straight and not quantizer.is_sign and quantizer.inner is None and quantizer.rounding == "half_even":
        return _scaled(walk, pending, quantizer, name)
    if whole.code_high - whole.code_low < 1 << THRESHOLD_BITS:
        return _thresholds(walk, pending, quantizer, name)
    return _rescaled(walk, pending, quantizer, name)


def _scaled(walk: Walk, pending: Pending, quantizer: Quantizer, name: str) -> View:
    """ONNX Runtime's way: a bias, one float32 factor, a clamp."""
    assert pending.product is not None
    assert pending.unit is not None
    steps, product = list(pending.steps), pending.product
    while steps and steps[0].kind == "add":
        product = replace(product, bias=_plus(product.bias, steps.pop(0).value, pending))
        walk.note(f"{pending.node.place}: the float bias is rounded to whole accumulator units")
    with np.errstate(over="ignore"):
        factor = float32(pending.unit / quantizer.scale)
    finish: dict[str, Any] = {
        "output": quantizer.format,
        "scale": float(quantizer.scale),
        "zero_point": quantizer.zero_point,
        "rounding": RULE,
        "requantization_scale": factor.astype(np.float64),
    }
    whole = formats.get(quantizer.format)
    low, high = _limits(steps, quantizer)
    if (low, high) != (whole.code_low, whole.code_high):
        finish.update(activation="clamp", clamp=(low, high))
    return add_product(walk, pending.node, product, name, finish, quantizer.format, pending.moves)


def _plus(bias: NDArray[np.int64] | None, more: NDArray[np.float64], pending: Pending) -> NDArray[np.int64]:
    """Return the bias with a float one added, rounded to nearest even in units of the accumulator."""
    assert pending.unit is not None
    units = np.rint(more.reshape(-1) / pending.unit.astype(np.float64))
    if not np.all(np.abs(units) < 2.0**31):
        raise NotSupported("the float bias does not fit 32 bits in units of the accumulator")
    total = units.astype(np.int64) + (0 if bias is None else bias)
    return np.broadcast_to(total, (pending.product_channels,)).copy()


def _only_limits(steps: tuple[Step, ...]) -> bool:
    """Return whether the steps are biases, and then limits."""
    kinds = [step.kind for step in steps]
    while kinds and kinds[0] == "add":
        kinds.pop(0)
    return all(kind == "clip" for kind in kinds) and all(
        step.value.size == 1 and (step.high is None or step.high.size == 1) for step in steps if step.kind == "clip"
    )


def _limits(steps: list[Step] | tuple[Step, ...], quantizer: Quantizer) -> tuple[int, int]:
    """Return the smallest and largest code behind clips: rounding keeps the order, so bounds may be rounded first."""
    low, high = quantizer.low, quantizer.high
    for step in steps:
        if step.kind != "clip":
            raise NotSupported("scales or biases follow an operator of the vector unit; quantize in between")
        bounds = (step.value, np.full(1, np.inf) if step.high is None else step.high)
        lower, upper = (int(quantizer.codes(float32(bound).reshape(-1))[0]) for bound in bounds)
        low, high = max(low, min(lower, high)), min(high, max(upper, low))
    return low, high


def _thresholds(walk: Walk, pending: Pending, quantizer: Quantizer, name: str) -> View:
    """Everything up to the quantizer becomes thresholds of the accumulator, exactly."""
    product = pending.product
    assert product is not None
    whole = formats.get(quantizer.format)
    channels = pending.product_channels
    units = exact_units(product, channels, pending.factor)
    reach = reach_of(product, channels)
    thresholds, negated = fold(pending.steps, units, quantizer, whole.code_high - whole.code_low, reach)
    product = negated_channels(product, negated)
    finish = {
        "output": quantizer.format,
        "scale": float(quantizer.scale),
        "zero_point": quantizer.zero_point,
        "rounding": None,
        "activation": "threshold",
        "thresholds": thresholds,
    }
    return add_product(walk, pending.node, product, name, finish, quantizer.format, pending.moves)


def _folded(walk: Walk, pending: Pending) -> Pending:
    """Return the same operation with its leading scales and biases in the weight's scales and an integer bias."""
    product, channels = pending.product, pending.product_channels
    assert product is not None
    assert product.weight is not None
    factor, offset, steps = _linear(pending.steps, channels)
    if not np.all(np.isfinite(factor) & (factor != 0)):
        raise NotSupported("a factor is 0, or not finite")
    units = np.array([float(each) for each in exact_units(product, channels, pending.factor)])
    bias = product.bias
    if np.any(offset != 0):
        with np.errstate(over="ignore"):
            more = np.rint(offset / (factor * units))
        if not np.all(np.abs(more) < 2.0**31):
            raise NotSupported("a bias does not fit 32 bits in units of the accumulator")
        bias = more.astype(np.int64) + (0 if bias is None else bias)
        walk.note(f"{pending.node.place}: biases are rounded to whole units of the accumulator")
    product = negated_channels(replace(product, bias=bias), factor < 0)
    assert product.weight is not None
    scale = np.abs(factor) * product.weight.scale.astype(np.float64)
    scale = scale if len(set(scale.tolist())) > 1 else scale[0].reshape(())
    weight = replace(product.weight, scale=scale)
    unit = float32(scale * float(float32(product.x.scale)) * float(pending.factor))
    return replace(pending, product=replace(product, weight=weight), steps=tuple(steps), unit=unit)


def _linear(
    steps: tuple[Step, ...], channels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[Step, ...]]:
    """Return (factor, offset, what is left) with ``x * factor + offset`` for the steps before the first clip."""
    factor, offset, rest = np.ones(channels), np.zeros(channels), list(steps)
    while rest and rest[0].kind != "clip":
        step = rest.pop(0)
        value = step.value.reshape(-1)
        if step.kind == "add":
            offset = offset + value
        else:
            by = value if step.kind == "multiply" else 1 / np.sqrt(value)
            factor, offset = factor * by, offset * by
    return factor, offset, tuple(rest)


def _rescaled(walk: Walk, pending: Pending, quantizer: Quantizer, name: str) -> View:
    """Scales and biases as one factor and a bias in units of the accumulator: for outputs that are too wide for
    thresholds. The bias is rounded, and the factor is a float32.
    """
    product = pending.product
    assert product is not None
    if quantizer.rounding != "half_even" or quantizer.inner is not None:
        raise NotSupported(f"a quantizer to {quantizer.format} that does not round to nearest")
    walk.note(f"{pending.node.place}: scale and bias are folded into a float32 factor and a whole bias (not exact)")
    return _scaled(walk, replace(_folded(walk, pending), factor=Fraction(1)), quantizer, name)


def whole_number(value: Any, what: str) -> int:
    """Return a float that has to be a whole number."""
    number = float(value)
    if not number.is_integer() or not math.isfinite(number):
        raise NotSupported(f"{what} is {number}; a whole number is needed")
    return int(number)
