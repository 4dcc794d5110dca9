"""Activations that are straight lines: clip (ReLU, ReLU6), leaky_relu, prelu (docs/operators.md, Activations)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from accelsim.actions import Actions
from accelsim.errors import ShapeError
from accelsim.formats.spec import Codes
from accelsim.operators import fixed_point_oracle as slow
from accelsim.operators.common import (
    SameShape,
    centred,
    check_count,
    check_integers,
    check_register,
    compare_actions,
    float_actions,
    largest_difference,
    limit,
    listed,
    rounded,
    rounding_actions,
    vector_actions,
    zero_point_actions,
)
from accelsim.operators.fixed_point import Int64Array, multiply, quantize_multiplier
from accelsim.operators.spec import Attributes, Operand, Reals, Shape, TensorSpec, Work

Bound = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]


class ClipAttributes(Attributes):
    """minimum, maximum : real bounds, None for none: ReLU is (0, None), ReLU6 (0, 6)

    rule : "tflite": rescaled by R1, bounds as codes; "onnxruntime": float32 between dequantizing and quantizing
    """

    minimum: Bound | None = None
    maximum: Bound | None = None
    rule: Literal["tflite", "onnxruntime"] = "tflite"

    @model_validator(mode="after")
    def _in_order(self) -> ClipAttributes:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is larger than maximum {self.maximum:g}")
        return self


class Clip(SameShape):
    """Values beyond the bounds become the bounds."""

    name: ClassVar[str] = "clip"
    attributes = ClipAttributes

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: ClipAttributes) -> None:
        check_integers(inputs[0], output)
        if attributes.rule == "tflite":
            _check_ratio(_ratio32(inputs[0], output), inputs[0])

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: ClipAttributes) -> Codes:
        low, high = output.format.code_low, output.format.code_high
        differences = centred(inputs[0])
        if attributes.rule == "tflite":
            codes = multiply(differences, *quantize_multiplier(_ratio32(inputs[0], output)))
            return limit(codes + output.zero_point, *_code_bounds(output, attributes))
        reals = differences.astype(np.float32) * np.float32(inputs[0].scale)
        bounded = np.clip(reals, *_real_bounds(attributes), dtype=np.float32)
        with np.errstate(over="ignore"):  # a bound of too many steps is infinite, and clamps
            steps = bounded / np.float32(output.scale)
        return limit(rounded(steps) + output.zero_point, low, high)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: ClipAttributes) -> Codes:
        x, codes = inputs[0], []
        factors = slow.quantize_multiplier(_ratio32(x, output))
        for code in listed(x):
            if attributes.rule == "tflite":
                moved = slow.multiply(code - x.zero_point, *factors) + output.zero_point
                codes.append(slow.clamp(moved, *_code_bounds(output, attributes)))
                continue
            real = np.float32(code - x.zero_point) * np.float32(x.scale)
            least, most = (np.float32(bound) for bound in _real_bounds(attributes))
            real = min(max(real, least), most)
            moved = slow.half_even(Fraction(float(real / np.float32(output.scale)))) + output.zero_point
            codes.append(slow.clamp(moved, output.format.code_low, output.format.code_high))
        return np.array(codes).reshape(x.shape)

    def real(self, inputs: Sequence[Reals], attributes: ClipAttributes) -> Reals:
        return np.asarray(np.clip(inputs[0], *_real_bounds(attributes)))

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: ClipAttributes) -> Work:
        count, bits = math.prod(output.shape), inputs[0].format.lane_bits + 1
        bounds = (attributes.minimum is not None) + (attributes.maximum is not None)
        if attributes.rule == "tflite":
            actions = rounding_actions(count, bits) + compare_actions(bounds * count, bits)
        else:
            actions = compare_actions(bounds * count, 32) + float_actions(count)
        return Work(1, count, actions + zero_point_actions(inputs[:1], output, count, output.format.lane_bits + 1))


class LeakyReluAttributes(Attributes):
    """alpha : the slope of negative values

    rule : "tflite": each side rescaled by R1; "onnxruntime": float32 between dequantizing and quantizing
    """

    alpha: float = Field(ge=-1e4, le=1e4, allow_inf_nan=False)
    rule: Literal["tflite", "onnxruntime"] = "tflite"


class LeakyRelu(SameShape):
    """x, or alpha * x where x is negative."""

    name: ClassVar[str] = "leaky_relu"
    attributes = LeakyReluAttributes

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: LeakyReluAttributes) -> None:
        check_integers(inputs[0], output)
        if attributes.rule == "tflite":
            for ratio in _leaky_ratios(inputs[0], output, attributes):
                _check_ratio(ratio, inputs[0])

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: LeakyReluAttributes) -> Codes:
        differences = centred(inputs[0])
        if attributes.rule == "onnxruntime":
            reals = differences.astype(np.float32) * np.float32(inputs[0].scale)
            steps = np.where(reals >= 0, reals, reals * np.float32(attributes.alpha)) / np.float32(output.scale)
            return limit(rounded(steps) + output.zero_point, output.format.code_low, output.format.code_high)
        ratio, slope = _leaky_ratios(inputs[0], output, attributes)
        return _by_sign(differences, _signed(differences, ratio), _signed(differences, slope), output)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: LeakyReluAttributes) -> Codes:
        x, codes = inputs[0], []
        ratio, slope = _leaky_ratios(x, output, attributes)
        for code in listed(x):
            difference = code - x.zero_point
            if attributes.rule == "onnxruntime":
                factor = np.float32(attributes.alpha if difference < 0 else 1)
                step = np.float32(difference) * np.float32(x.scale) * factor / np.float32(output.scale)
                moved = slow.half_even(Fraction(float(step))) + output.zero_point
            else:
                moved = _oracle_signed(difference, ratio if difference >= 0 else slope) + output.zero_point
            codes.append(slow.clamp(moved, output.format.code_low, output.format.code_high))
        return np.array(codes).reshape(x.shape)

    def real(self, inputs: Sequence[Reals], attributes: LeakyReluAttributes) -> Reals:
        return np.where(inputs[0] >= 0, inputs[0], attributes.alpha * inputs[0])

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: LeakyReluAttributes) -> Work:
        count, bits = math.prod(output.shape), inputs[0].format.lane_bits + 1
        if attributes.rule == "tflite":
            actions = rounding_actions(count, bits) + compare_actions(count, bits)
        else:
            actions = compare_actions(count, 32) + float_actions(count, factors=2)
        return Work(1, count, actions + zero_point_actions(inputs, output, count, output.format.lane_bits + 1))


class PReluAttributes(Attributes):
    """None: the slopes are the second input."""


class PRelu:
    """Inputs x and slopes (which broadcast): x, or slope * x where x is negative; each side rescaled by R1."""

    name: ClassVar[str] = "prelu"
    attributes = PReluAttributes

    def output_shape(self, inputs: Sequence[Shape], attributes: PReluAttributes) -> Shape:
        check_count(inputs, 2, "x, slopes")
        try:
            shape = np.broadcast_shapes(*inputs)
        except ValueError:
            shape = ()
        if shape != inputs[0]:
            raise ShapeError(f"slopes of shape {inputs[1]} do not broadcast to the input's {inputs[0]}")
        return shape

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: PReluAttributes) -> None:
        x, slopes = inputs
        check_integers(*inputs, output)
        _check_ratio(x.scale / output.scale, x)
        ratio = x.scale * slopes.scale / output.scale
        largest = largest_difference(x) * largest_difference(slopes)
        check_register(largest, quantize_multiplier(ratio)[1], ratio)

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: PReluAttributes) -> Codes:
        x, slopes = inputs
        differences = centred(x)
        above = _signed(differences, x.scale / output.scale)
        below = _signed(differences * centred(slopes), x.scale * slopes.scale / output.scale)
        return _by_sign(differences, above, below, output)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: PReluAttributes) -> Codes:
        x, slopes = inputs
        wide = np.broadcast_to(slopes.codes, x.shape).ravel().tolist()
        codes = []
        for code, slope in zip(listed(x), wide, strict=True):
            value, ratio = code - x.zero_point, x.scale / output.scale
            if value < 0:
                value, ratio = value * (slope - slopes.zero_point), x.scale * slopes.scale / output.scale
            moved = slow.multiply(value, *slow.quantize_multiplier(ratio)) + output.zero_point
            codes.append(slow.clamp(moved, output.format.code_low, output.format.code_high))
        return np.array(codes).reshape(x.shape)

    def real(self, inputs: Sequence[Reals], attributes: PReluAttributes) -> Reals:
        return np.where(inputs[0] >= 0, inputs[0], inputs[1] * inputs[0])

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: PReluAttributes) -> Work:
        count = math.prod(output.shape)
        bits, slope_bits = (tensor.format.lane_bits + 1 for tensor in inputs)
        actions: Actions = rounding_actions(count, bits + slope_bits) + compare_actions(count, bits)
        actions += vector_actions({("mult", (bits, slope_bits)): count})
        return Work(1, count, actions + zero_point_actions(inputs, output, count, output.format.lane_bits + 1))


def _ratio32(x: TensorSpec, output: TensorSpec) -> float:
    return float(np.float32(x.scale) / np.float32(output.scale))


def _check_ratio(ratio: float, x: TensorSpec) -> None:
    check_register(largest_difference(x) - 1, quantize_multiplier(abs(ratio))[1], ratio)


def _leaky_ratios(x: TensorSpec, output: TensorSpec, attributes: LeakyReluAttributes) -> tuple[float, float]:
    slope = np.float32(x.scale) * np.float32(attributes.alpha) / np.float32(output.scale)
    return _ratio32(x, output), float(slope)


def _signed(values: Int64Array, ratio: float) -> Int64Array:
    """Return R1 of values times a ratio, whose multiplier has the ratio's sign."""
    multiplier, shift = quantize_multiplier(abs(ratio))
    return multiply(values, -multiplier if ratio < 0 else multiplier, shift)


def _oracle_signed(value: int, ratio: float) -> int:
    multiplier, shift = slow.quantize_multiplier(abs(ratio))
    return slow.multiply(value, -multiplier if ratio < 0 else multiplier, shift)


def _by_sign(differences: Int64Array, above: Int64Array, below: Int64Array, output: TensorSpec) -> Codes:
    chosen = np.where(differences >= 0, above, below) + output.zero_point
    return limit(chosen, output.format.code_low, output.format.code_high)


def _real_bounds(attributes: ClipAttributes) -> tuple[float, float]:
    least, most = attributes.minimum, attributes.maximum
    return -math.inf if least is None else least, math.inf if most is None else most


def _code_bounds(output: TensorSpec, attributes: ClipAttributes) -> tuple[int, int]:
    """Return the bounds as codes: round(float32(bound) / float32(scale)), ties away from zero, plus the zero point."""
    low, high = output.format.code_low, output.format.code_high
    codes: list[Any] = [low, high]
    for i, bound in enumerate((attributes.minimum, attributes.maximum)):
        if bound is not None:
            with np.errstate(over="ignore"):
                steps = float(np.float32(bound) / np.float32(output.scale))
            magnitude = math.floor(min(abs(steps), 2.0**40) + 0.5)
            codes[i] = output.zero_point + (magnitude if steps >= 0 else -magnitude)
    return slow.clamp(codes[0], low, high), slow.clamp(codes[1], low, high)


ACTIVATIONS = (Clip(), LeakyRelu(), PRelu())
