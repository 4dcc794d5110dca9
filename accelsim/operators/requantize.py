"""Other codes for the same numbers: requantize (docs/operators.md, Requantize)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np

from accelsim.formats.spec import Codes
from accelsim.operators import fixed_point_oracle as slow
from accelsim.operators.common import (
    SameShape,
    centred,
    check_integers,
    check_register,
    float_actions,
    largest_difference,
    limit,
    listed,
    rounded,
    rounding_actions,
    zero_point_actions,
)
from accelsim.operators.fixed_point import multiply, quantize_multiplier
from accelsim.operators.spec import Attributes, Operand, Reals, TensorSpec, Work


class RequantizeAttributes(Attributes):
    """rule : "tflite": QUANTIZE of integers, rounded twice; "onnxruntime": DequantizeLinear, then QuantizeLinear."""

    rule: Literal["tflite", "onnxruntime"] = "tflite"


class Requantize(SameShape):
    """The same number as another code: other scale, zero point or width."""

    name: ClassVar[str] = "requantize"
    attributes = RequantizeAttributes

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: RequantizeAttributes) -> None:
        check_integers(inputs[0], bits=32)
        check_integers(output, bits=32)
        if attributes.rule == "tflite":
            ratio = inputs[0].scale / output.scale
            check_register(largest_difference(inputs[0]) - 1, quantize_multiplier(ratio)[1], ratio)

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: RequantizeAttributes) -> Codes:
        differences = centred(inputs[0])
        low, high = output.format.code_low, output.format.code_high
        if attributes.rule == "tflite":
            multiplier, shift = quantize_multiplier(inputs[0].scale / output.scale)
            return limit(multiply(differences, multiplier, shift) + output.zero_point, low, high)
        reals = differences.astype(np.float32) * np.float32(inputs[0].scale)
        return limit(rounded(reals / np.float32(output.scale)) + output.zero_point, low, high)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: RequantizeAttributes) -> Codes:
        codes = []
        for code in listed(inputs[0]):
            difference = code - inputs[0].zero_point
            if attributes.rule == "tflite":
                factors = slow.quantize_multiplier(inputs[0].scale / output.scale)
                moved = slow.multiply(difference, *factors)
            else:
                real = np.float32(difference) * np.float32(inputs[0].scale)
                moved = slow.half_even(Fraction(float(real / np.float32(output.scale))))
            codes.append(slow.clamp(moved + output.zero_point, output.format.code_low, output.format.code_high))
        return np.array(codes).reshape(inputs[0].shape)

    def real(self, inputs: Sequence[Reals], attributes: RequantizeAttributes) -> Reals:
        return inputs[0]

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: RequantizeAttributes) -> Work:
        count, bits = math.prod(output.shape), inputs[0].format.lane_bits + 1
        actions = rounding_actions(count, bits) if attributes.rule == "tflite" else float_actions(count)
        return Work(1, count, actions + zero_point_actions(inputs, output, count, bits))


REQUANTIZE = (Requantize(),)
