"""Means over whole axes: mean, which global average pooling is (docs/operators.md, Mean)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from accelsim.formats.spec import Codes
from accelsim.operators import fixed_point_oracle as slow
from accelsim.operators.common import (
    add_actions,
    axes_of,
    centred,
    check_count,
    check_integers,
    check_register,
    largest_difference,
    limit,
    rounded,
    rounding_actions,
    vector_actions,
)
from accelsim.operators.fixed_point import multiply, quantize_multiplier
from accelsim.operators.spec import Attributes, Operand, Reals, Shape, TensorSpec, Work


class MeanAttributes(Attributes):
    """axes : the axes to average over, negative ones from the end

    keepdims : leave those axes as sizes of 1
    rule : "tflite": MEAN; "onnxruntime": QLinearGlobalAveragePool
    """

    axes: tuple[int, ...] = Field(min_length=1)
    keepdims: bool = True
    rule: Literal["tflite", "onnxruntime"] = "tflite"


class Mean:
    """The mean over axes."""

    name: ClassVar[str] = "mean"
    attributes = MeanAttributes

    def output_shape(self, inputs: Sequence[Shape], attributes: MeanAttributes) -> Shape:
        check_count(inputs, 1, "x")
        axes = axes_of(attributes.axes, len(inputs[0]))
        if attributes.keepdims:
            return tuple(1 if axis in axes else size for axis, size in enumerate(inputs[0]))
        return tuple(size for axis, size in enumerate(inputs[0]) if axis not in axes)

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: MeanAttributes) -> None:
        check_integers(inputs[0], output)
        count = _count(inputs[0].shape, attributes)
        if attributes.rule == "tflite":
            _, shift = _tflite_factors(inputs[0].scale / output.scale, count)
            check_register(largest_difference(inputs[0]) * count, shift, inputs[0].scale / output.scale)

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: MeanAttributes) -> Codes:
        x, count = inputs[0], _count(inputs[0].shape, attributes)
        total = centred(x).sum(axis=axes_of(attributes.axes, len(x.shape)), keepdims=attributes.keepdims)
        if attributes.rule == "tflite":
            codes = multiply(total, *_tflite_factors(x.scale / output.scale, count))
        else:
            factor = np.float32(x.scale) / (np.float32(output.scale) * np.float32(count))
            codes = rounded(total.astype(np.float32) * factor)
        return limit(codes + output.zero_point, output.format.code_low, output.format.code_high)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: MeanAttributes) -> Codes:
        x, codes = inputs[0], []
        for group in _groups(x, attributes):
            total, count = sum(code - x.zero_point for code in group), len(group)
            if attributes.rule == "tflite":
                multiplier, shift = slow.quantize_multiplier(x.scale / output.scale)
                bits = min(len(f"{count:b}") - 1, 32, 31 + shift)
                code = slow.multiply(total, slow.c_divide(multiplier * 2**bits, count), shift - bits)
            else:
                factor = np.float32(x.scale) / (np.float32(output.scale) * np.float32(count))
                code = slow.half_even(Fraction(float(np.float32(total) * factor)))
            codes.append(slow.clamp(code + output.zero_point, output.format.code_low, output.format.code_high))
        return np.array(codes).reshape(output.shape)

    def real(self, inputs: Sequence[Reals], attributes: MeanAttributes) -> Reals:
        axes = axes_of(attributes.axes, inputs[0].ndim)
        return np.asarray(inputs[0].mean(axis=axes, keepdims=attributes.keepdims))

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: MeanAttributes) -> Work:
        elements, outputs = math.prod(inputs[0].shape), math.prod(output.shape)
        count = _count(inputs[0].shape, attributes)
        total_bits = inputs[0].format.lane_bits + max(1, (count - 1).bit_length())
        actions = add_actions(elements, total_bits)  # the zero points of all elements are one addition
        if attributes.rule == "tflite":
            actions += rounding_actions(outputs, total_bits)
        else:
            actions += vector_actions(
                {("fp32_from_int", ()): outputs, ("fp32_mult", ()): outputs, ("shift_clamp", ()): outputs}
            )
        return Work(1, elements, actions + add_actions((output.zero_point != 0) * outputs, total_bits))


def _count(shape: Shape, attributes: MeanAttributes) -> int:
    return math.prod(shape[axis] for axis in axes_of(attributes.axes, len(shape)))


def _tflite_factors(scale: float, count: int) -> tuple[int, int]:
    """Return multiplier and shift of scale / count: the division by `count` is one of the multiplier, once."""
    multiplier, shift = quantize_multiplier(scale)
    bits = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << bits) // count, shift - bits


def _groups(x: Operand, attributes: MeanAttributes) -> Iterator[list[int]]:
    """Yield the codes that make one mean, in the order of the output."""
    axes = axes_of(attributes.axes, len(x.shape))
    for place in np.ndindex(*(1 if axis in axes else size for axis, size in enumerate(x.shape))):
        index = tuple(slice(None) if axis in axes else position for axis, position in enumerate(place))
        yield [int(code) for code in x.codes[index].ravel()]


MEANS = (Mean(),)
