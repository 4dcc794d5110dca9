"""Sums and differences, element by element (docs/operators.md, Arithmetic)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import FormatError
from accelsim.formats.spec import Codes
from accelsim.operators import fixed_point_oracle as slow
from accelsim.operators.common import (
    COMPARES,
    Activation,
    activate,
    activation_range,
    add_actions,
    centred,
    check_symmetric,
    compare_actions,
    limit,
    rounded,
    rounding_actions,
    vector_actions,
    zero_point_actions,
)
from accelsim.operators.elementwise import Elementwise, pairs
from accelsim.operators.fixed_point import (
    Int64Array,
    divide_by_power,
    dyadic,
    half_even_shift,
    multiply,
    quantize_multiplier,
)
from accelsim.operators.fused_float import fused, fused_oracle
from accelsim.operators.spec import Attributes, Operand, Reals, TensorSpec, Work

Float32Array = NDArray[np.float32]


class SumAttributes(Attributes):
    """rule : whose arithmetic; activation : fused, the TFLite rules only.

    "tflite_pot": what TFLite does with int16 where all scales are powers of two and the model says pot_scale_int16
    """

    rule: Literal["tflite", "tflite_pot", "onnxruntime", "hawq"] = "tflite"
    activation: Activation = "none"


class _Sum(Elementwise):
    attributes = SumAttributes
    sign: ClassVar[int]

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: SumAttributes) -> None:
        self.check_kinds(inputs, output, attributes.activation, attributes.rule)
        if attributes.rule == "hawq":
            check_symmetric(*inputs, output, why="dyadic arithmetic")
            for tensor in inputs:
                ratio = tensor.scale / output.scale
                if ratio >= 2.0**30:
                    raise FormatError(f"the ratio of scales {ratio:g} is too large; use less than 2**30")
        if attributes.rule == "tflite_pot":
            _check_powers_of_two(inputs, output)
        if attributes.rule == "tflite":
            if _left_shift(inputs) == 15:
                check_symmetric(*inputs, output, why="16-bit addition")
            _, output_scale = _sum_scales(inputs, output)
            if output_scale >= 1:
                raise FormatError(
                    f"output scale {output.scale:g} is too small for these inputs: the sum would be multiplied by "
                    f"{output_scale:g}, and the rule needs less than 1"
                )

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: SumAttributes) -> Codes:
        a, b = (centred(operand) for operand in inputs)
        if attributes.rule == "tflite":
            left = _left_shift(inputs)
            input_scales, output_scale = _sum_scales(inputs, output)
            first, second = (quantize_multiplier(scale) for scale in input_scales)
            total = multiply(a << left, *first) + self.sign * multiply(b << left, *second)
            codes = multiply(total, *quantize_multiplier(output_scale)) + output.zero_point
            return limit(codes, *activation_range(attributes.activation, output))
        if attributes.rule == "tflite_pot":
            a, b = (
                divide_by_power(each, -_exponent(operand, output)) for each, operand in zip((a, b), inputs, strict=True)
            )
            return limit(a + self.sign * b, *activation_range(attributes.activation, output))
        low, high = output.format.code_low, output.format.code_high
        if attributes.rule == "hawq":
            return limit(_dyadic(a, inputs[0], output) + self.sign * _dyadic(b, inputs[1], output), low, high)
        if self.sign < 0:
            return _round32((_real32(a, inputs[0]) - _real32(b, inputs[1])) / np.float32(output.scale), output)
        ratios, fixed = _qlinear_add(inputs, output)
        a32, b32 = (operand.codes.astype(np.float32) for operand in inputs)
        return limit(rounded(fused(a32, ratios[0], fused(b32, ratios[1], fixed))), low, high)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: SumAttributes) -> Codes:
        rule, shape = attributes.rule, self.output_shape([operand.shape for operand in inputs], attributes)
        if rule == "tflite":
            codes = [_tflite_sum(a, b, self.sign, inputs, output, attributes) for a, b in pairs(inputs)]
        elif rule == "tflite_pot":
            shifts = [-_exponent(operand, output) for operand in inputs]
            bounds = activation_range(attributes.activation, output)
            codes = [
                slow.clamp(slow.divide_by_power(a, shifts[0]) + self.sign * slow.divide_by_power(b, shifts[1]), *bounds)
                for a, b in pairs(inputs)
            ]
        elif rule == "hawq":
            codes = [_hawq_sum(a, b, self.sign, inputs, output) for a, b in pairs(inputs)]
        else:
            codes = [_onnxruntime_sum(a, b, self.sign, inputs, output) for a, b in pairs(inputs)]
        return np.array(codes).reshape(shape)

    def real(self, inputs: Sequence[Reals], attributes: SumAttributes) -> Reals:
        return activate(inputs[0] + self.sign * inputs[1], attributes.activation)

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: SumAttributes) -> Work:
        count = math.prod(output.shape)
        bits = max(tensor.format.lane_bits for tensor in inputs)
        if attributes.rule == "tflite":
            actions = rounding_actions(2 * count, 32) + rounding_actions(count, 32) + add_actions(count, 32)
        elif attributes.rule == "hawq":
            actions = rounding_actions(2 * count, bits) + add_actions(count, 32)
        elif self.sign > 0:  # two fused multiply-adds; what zero points add is one constant
            each = {("fp32_from_int", ()): 2, ("fp32_mult", ()): 2, ("fp32_add", ()): 2, ("shift_clamp", ()): 1}
            return Work(1, count, vector_actions({operation: number * count for operation, number in each.items()}))
        else:
            actions = vector_actions(
                {
                    ("fp32_from_int", ()): 2 * count,
                    ("fp32_mult", ()): 2 * count,
                    ("fp32_add", ()): count,
                    ("divide", (24, 24)): count,
                    ("shift_clamp", ()): count,
                }
            )
        actions += zero_point_actions(inputs, output, count, bits + 1)
        return Work(1, count, actions + compare_actions(COMPARES[attributes.activation] * count, bits + 1))


class Add(_Sum):
    """a + b."""

    name: ClassVar[str] = "add"
    sign: ClassVar[int] = 1


class Sub(_Sum):
    """a - b."""

    name: ClassVar[str] = "sub"
    sign: ClassVar[int] = -1


# -- rule "tflite" ----------------------------------------------------------------------------------------------------


def is_power_of_two(scale: float) -> bool:
    """Return whether TFLite takes a scale for a power of two: within a thousandth of an octave."""
    exponent = math.log2(scale)
    return abs(exponent - round(exponent)) < 1e-3


def _exponent(tensor: TensorSpec, output: TensorSpec) -> int:
    return round(math.log2(tensor.scale)) - round(math.log2(output.scale))


def _check_powers_of_two(inputs: Sequence[TensorSpec], output: TensorSpec) -> None:
    check_symmetric(*inputs, output, why="a sum of powers of two")
    exponents = [_exponent(tensor, output) for tensor in inputs]
    scales = [tensor.scale for tensor in (*inputs, output)]
    if not all(is_power_of_two(scale) for scale in scales) or max(exponents) != 0 or min(exponents) < -31:
        raise FormatError(
            f"needs scales that are powers of two, one input's the output's, the other's at most as large; found "
            f"{scales[0]:g}, {scales[1]:g} and {scales[2]:g}"
        )


def _left_shift(inputs: Sequence[TensorSpec]) -> int:
    return 20 if max(tensor.format.lane_bits for tensor in inputs) <= 8 else 15


def _sum_scales(inputs: Sequence[TensorSpec], output: TensorSpec) -> tuple[list[float], float]:
    """Return the scales of the inputs (at most 1/2) and of the sum, from values shifted left."""
    twice_largest = 2 * max(tensor.scale for tensor in inputs)
    scales = [tensor.scale / twice_largest for tensor in inputs]
    return scales, twice_largest / ((1 << _left_shift(inputs)) * output.scale)


def _tflite_sum(
    a: int, b: int, sign: int, inputs: Sequence[Operand], output: TensorSpec, attributes: SumAttributes
) -> int:
    shift = 20 if all(operand.format.lane_bits <= 8 for operand in inputs) else 15
    largest = max(operand.scale for operand in inputs)
    halves = [
        slow.multiply(value * (1 << shift), *slow.quantize_multiplier(operand.scale / (2 * largest)))
        for value, operand in zip((a, b), inputs, strict=True)
    ]
    total_scale = 2 * largest / ((1 << shift) * output.scale)
    code = slow.multiply(halves[0] + sign * halves[1], *slow.quantize_multiplier(total_scale)) + output.zero_point
    return slow.clamp(code, *activation_range(attributes.activation, output))


# -- rule "onnxruntime" -----------------------------------------------------------------------------------------------


def _real32(differences: Int64Array, tensor: TensorSpec) -> Float32Array:
    return differences.astype(np.float32) * np.float32(tensor.scale)


def _round32(quotient: Float32Array, output: TensorSpec) -> Codes:
    low, high = output.format.code_low, output.format.code_high
    limited = np.clip(quotient, np.float32(low - output.zero_point), np.float32(high - output.zero_point))
    return limit(rounded(limited) + output.zero_point, low, high)


def _qlinear_add(inputs: Sequence[TensorSpec], output: TensorSpec) -> tuple[list[np.float32], np.float32]:
    """Return what QLinearAdd multiplies the two codes by, and what it adds: zero points in one float32."""
    ratios = [np.float32(tensor.scale) / np.float32(output.scale) for tensor in inputs]
    a_zero, b_zero = (np.float32(tensor.zero_point) for tensor in inputs)
    moved = fused(np.asarray(a_zero), ratios[0], ratios[1] * b_zero)
    return ratios, np.float32(output.zero_point) - np.float32(moved)


def _onnxruntime_sum(a: int, b: int, sign: int, inputs: Sequence[Operand], output: TensorSpec) -> int:
    if sign > 0:
        low, high = output.format.code_low, output.format.code_high
        ratios = [float(np.float32(operand.scale) / np.float32(output.scale)) for operand in inputs]
        b_part = float(np.float32(ratios[1]) * np.float32(inputs[1].zero_point))
        fixed = float(np.float32(output.zero_point) - np.float32(fused_oracle(inputs[0].zero_point, ratios[0], b_part)))
        with_b = fused_oracle(b + inputs[1].zero_point, ratios[1], fixed)
        with_both = fused_oracle(a + inputs[0].zero_point, ratios[0], with_b)
        return slow.clamp(slow.half_even(Fraction(with_both)), low, high)
    first, second = np.float32(a) * np.float32(inputs[0].scale), np.float32(b) * np.float32(inputs[1].scale)
    total = (first - second) / np.float32(output.scale)
    code = slow.half_even(Fraction(float(total))) + output.zero_point
    return slow.clamp(code, output.format.code_low, output.format.code_high)


# -- rule "hawq" ------------------------------------------------------------------------------------------------------


def _dyadic(differences: Int64Array, tensor: TensorSpec, output: TensorSpec) -> Int64Array:
    """Return the values in steps of the output: times m / 2**e, m of 31 bits, ties to even."""
    multiplier, shift = dyadic(tensor.scale / output.scale)
    return half_even_shift(differences * multiplier, shift)


def _hawq_sum(a: int, b: int, sign: int, inputs: Sequence[Operand], output: TensorSpec) -> int:
    branches = []
    for value, operand in zip((a, b), inputs, strict=True):
        fraction, exponent = np.frexp(np.float64(operand.scale) / np.float64(output.scale))
        multiplier = slow.half_away(Fraction(float(fraction)) * (1 << 31))
        branches.append(slow.half_even(Fraction(value * multiplier) * Fraction(2) ** int(exponent - 31)))
    return slow.clamp(branches[0] + sign * branches[1], output.format.code_low, output.format.code_high)


SUMS = (Add(), Sub())
