"""Pooling over windows: average_pool2d, max_pool2d (docs/operators.md, Pooling)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np

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
    check_count,
    check_integers,
    check_same_meaning,
    compare_actions,
    limit,
    rounded,
    vector_actions,
)
from accelsim.operators.spec import Attributes, Operand, Reals, Shape, TensorSpec, Work
from accelsim.operators.windows import (
    Pads,
    Pair,
    pad,
    places,
    window_counts,
    window_places,
    window_shape,
    window_sum,
)


class MaxPoolAttributes(Attributes):
    """kernel, stride : (height, width)

    padding : ((top, bottom), (left, right)), each less than the kernel; padding is never the maximum
    activation : fused
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pads = ((0, 0), (0, 0))
    activation: Activation = "none"


class AveragePoolAttributes(MaxPoolAttributes):
    """Besides what maxima take:

    rule : "tflite": integers, over the input's own elements; "onnxruntime": float32
    count_include_pad : padding counts as zeros ("onnxruntime" only)
    """

    rule: Literal["tflite", "onnxruntime"] = "tflite"
    count_include_pad: bool = False


class MaxPool2d:
    """The largest code of each window: input and output mean the same by the same code."""

    name: ClassVar[str] = "max_pool2d"
    attributes = MaxPoolAttributes

    def output_shape(self, inputs: Sequence[Shape], attributes: MaxPoolAttributes) -> Shape:
        check_count(inputs, 1, "x")
        return window_shape(inputs[0], attributes)

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: MaxPoolAttributes) -> None:
        check_integers(inputs[0], output)
        check_same_meaning(inputs[0], output, "the largest code leaves as it is")

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: MaxPoolAttributes) -> Codes:
        codes, lowest = inputs[0].codes, inputs[0].format.code_low
        _, height, width, _ = output.shape
        largest = np.full(output.shape, lowest, codes.dtype)
        for place in places(pad(codes, attributes, lowest), attributes, height, width):
            largest = np.maximum(largest, place)
        return limit(largest.astype(np.int64), *activation_range(attributes.activation, output))

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: MaxPoolAttributes) -> Codes:
        codes, found = inputs[0].codes, np.zeros(output.shape, np.int64)
        for (n, y, x, c), inside in window_places(inputs[0].shape, attributes):
            largest = max(int(codes[n, row, column, c]) for row, column in inside)
            found[n, y, x, c] = slow.clamp(largest, *activation_range(attributes.activation, output))
        return found

    def real(self, inputs: Sequence[Reals], attributes: MaxPoolAttributes) -> Reals:
        _, height, width, _ = window_shape(inputs[0].shape, attributes)
        padded = pad(inputs[0], attributes, -np.inf)
        largest = np.max(np.stack(list(places(padded, attributes, height, width))), axis=0)
        return activate(largest, attributes.activation)

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: MaxPoolAttributes) -> Work:
        outputs, window = math.prod(output.shape), math.prod(attributes.kernel)
        compares = outputs * (window - 1 + COMPARES[attributes.activation])
        return Work(1, outputs * window, compare_actions(compares, inputs[0].format.lane_bits))


class AveragePool2d:
    """The mean of each window."""

    name: ClassVar[str] = "average_pool2d"
    attributes = AveragePoolAttributes

    def output_shape(self, inputs: Sequence[Shape], attributes: AveragePoolAttributes) -> Shape:
        check_count(inputs, 1, "x")
        return window_shape(inputs[0], attributes)

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: AveragePoolAttributes) -> None:
        check_integers(inputs[0], output)
        if attributes.rule == "tflite":
            check_same_meaning(inputs[0], output, "a mean of codes is rounded to the same scale")
            if attributes.count_include_pad:
                raise FormatError('rule "tflite" never counts padding; leave out count_include_pad')
        elif attributes.activation != "none":
            raise FormatError('rule "onnxruntime" has no fused activation; add it as an operator of its own')

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: AveragePoolAttributes) -> Codes:
        x = inputs[0]
        counts = window_counts(x.shape, attributes)
        if attributes.rule == "tflite":
            total = window_sum(x.codes.astype(np.int64), attributes)
            magnitude = (np.abs(total) + counts // 2) // counts
            return limit(np.sign(total) * magnitude, *activation_range(attributes.activation, output))
        if attributes.count_include_pad:
            counts = np.full_like(counts, math.prod(attributes.kernel))
        total32 = window_sum(centred(x).astype(np.float32) * np.float32(x.scale), attributes)
        steps = np.asarray(total32 / counts.astype(np.float32) / np.float32(output.scale), np.float32)
        codes = rounded(steps + np.float32(output.zero_point))  # the zero point first: ties see its parity
        return limit(codes, output.format.code_low, output.format.code_high)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: AveragePoolAttributes) -> Codes:
        x, found = inputs[0], np.zeros(output.shape, np.int64)
        for (n, y, column_out, c), inside in window_places(x.shape, attributes):
            codes = [int(x.codes[n, row, column, c]) for row, column in inside]
            if attributes.rule == "tflite":
                total, count = sum(codes), len(codes)
                half = count // 2 if total > 0 else -(count // 2)
                code = slow.c_divide(total + half, count)
            else:
                count = math.prod(attributes.kernel) if attributes.count_include_pad else len(codes)
                total32 = np.float32(0)
                for value in codes:
                    total32 = total32 + np.float32(value - x.zero_point) * np.float32(x.scale)
                steps = total32 / np.float32(count) / np.float32(output.scale)
                code = slow.half_even(Fraction(float(steps + np.float32(output.zero_point))))
            found[n, y, column_out, c] = slow.clamp(code, *activation_range(attributes.activation, output))
        return found

    def real(self, inputs: Sequence[Reals], attributes: AveragePoolAttributes) -> Reals:
        counts = window_counts(inputs[0].shape, attributes).astype(np.float64)
        if attributes.count_include_pad:
            counts = np.full_like(counts, math.prod(attributes.kernel))
        return activate(window_sum(inputs[0], attributes) / counts, attributes.activation)

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: AveragePoolAttributes) -> Work:
        outputs, window = math.prod(output.shape), math.prod(attributes.kernel)
        elements, bits = outputs * window, inputs[0].format.lane_bits
        if attributes.rule == "tflite":
            total_bits = bits + (window - 1).bit_length()
            divisor_bits = window.bit_length()
            actions = add_actions(elements, total_bits)  # the rounding half takes the place of one element
            actions += vector_actions({("divide", (total_bits, divisor_bits)): outputs})
            actions += compare_actions(COMPARES[attributes.activation] * outputs, bits)
        else:
            actions = vector_actions(
                {
                    ("fp32_from_int", ()): elements,
                    ("fp32_mult", ()): elements,
                    ("fp32_add", ()): elements,
                    ("divide", (24, 24)): 2 * outputs,
                    ("shift_clamp", ()): outputs,
                }
            )
        return Work(1, elements, actions)


POOLS = (AveragePool2d(), MaxPool2d())
