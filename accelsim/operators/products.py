"""Products, element by element (docs/operators.md, Arithmetic)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np

from accelsim.actions import Actions
from accelsim.formats.spec import Codes
from accelsim.operators import fixed_point_oracle as slow
from accelsim.operators.common import (
    COMPARES,
    Activation,
    activate,
    activation_range,
    centred,
    check_register,
    compare_actions,
    largest_difference,
    limit,
    rounded,
    rounding_actions,
    vector_actions,
    zero_point_actions,
)
from accelsim.operators.elementwise import Elementwise, pairs
from accelsim.operators.fixed_point import multiply, quantize_multiplier
from accelsim.operators.spec import Attributes, Operand, Reals, TensorSpec, Work


class ProductAttributes(Attributes):
    """rule : whose arithmetic; activation : fused, the TFLite rules only.

    "tflite" and "tflite_micro" differ in the multiplier alone: scale_a * scale_b / scale_out in float32 or in float64.
    """

    rule: Literal["tflite", "tflite_micro", "onnxruntime"] = "tflite"
    activation: Activation = "none"


class Mul(Elementwise):
    """a * b."""

    name: ClassVar[str] = "mul"
    attributes = ProductAttributes

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: ProductAttributes) -> None:
        self.check_kinds(inputs, output, attributes.activation, attributes.rule)
        if attributes.rule != "onnxruntime":
            scale = _product_scale(inputs, output, attributes.rule)
            largest = largest_difference(inputs[0]) * largest_difference(inputs[1])
            check_register(largest, quantize_multiplier(scale)[1], scale)

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: ProductAttributes) -> Codes:
        product = centred(inputs[0]) * centred(inputs[1])
        scale = _product_scale(inputs, output, attributes.rule)
        if attributes.rule == "onnxruntime":
            scaled = product.astype(np.float32) * np.float32(scale) + np.float32(output.zero_point)
            return limit(rounded(scaled), output.format.code_low, output.format.code_high)
        codes = multiply(product, *quantize_multiplier(scale)) + output.zero_point
        return limit(codes, *activation_range(attributes.activation, output))

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: ProductAttributes) -> Codes:
        scale = _product_scale(inputs, output, attributes.rule)
        codes = []
        for a, b in pairs(inputs):
            if attributes.rule == "onnxruntime":
                scaled = np.float32(a * b) * np.float32(scale) + np.float32(output.zero_point)
                code = slow.half_even(Fraction(float(scaled)))
            else:
                code = slow.multiply(a * b, *slow.quantize_multiplier(scale)) + output.zero_point
            codes.append(slow.clamp(code, *activation_range(attributes.activation, output)))
        return np.array(codes).reshape(self.output_shape([operand.shape for operand in inputs], attributes))

    def real(self, inputs: Sequence[Reals], attributes: ProductAttributes) -> Reals:
        return activate(inputs[0] * inputs[1], attributes.activation)

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: ProductAttributes) -> Work:
        count = math.prod(output.shape)
        a_bits, b_bits = (tensor.format.lane_bits + (tensor.zero_point != 0) for tensor in inputs)
        actions: Actions = vector_actions({("mult", (a_bits, b_bits)): count})
        if attributes.rule == "onnxruntime":
            actions += vector_actions(
                {("fp32_from_int", ()): count, ("fp32_mult", ()): count, ("fp32_add", ()): count}
            ) + vector_actions({("shift_clamp", ()): count})
        else:
            actions += rounding_actions(count, a_bits + b_bits)
            actions += zero_point_actions(inputs, output, count, max(a_bits, b_bits) + 1)
            actions += compare_actions(COMPARES[attributes.activation] * count, output.format.lane_bits + 1)
        return Work(1, count, actions)


def _product_scale(inputs: Sequence[TensorSpec], output: TensorSpec, rule: str) -> float:
    a, b = (tensor.scale for tensor in inputs)
    if rule == "tflite_micro":
        return a * b / output.scale
    return float(np.float32(a) * np.float32(b) / np.float32(output.scale))


PRODUCTS = (Mul(),)
