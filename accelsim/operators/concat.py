"""Tensors one after another along an axis: concat (docs/operators.md, Concat)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np

from accelsim.actions import Actions
from accelsim.errors import ShapeError
from accelsim.formats.spec import Codes
from accelsim.operators import fixed_point_oracle as slow
from accelsim.operators.common import (
    axis_of,
    centred,
    check_integers,
    check_same_meaning,
    limit,
    meaning,
    rounded,
    vector_actions,
)
from accelsim.operators.spec import Attributes, Operand, Reals, Shape, TensorSpec, Work


class ConcatAttributes(Attributes):
    """axis : along which; the other sizes are equal

    rule : "tflite": all inputs mean the same as the output; "onnxruntime": each is requantized in float32 (by a table
        of 256 entries), as QLinearConcat
    """

    axis: int = -1
    rule: Literal["tflite", "onnxruntime"] = "tflite"


class Concat:
    """The inputs one after another."""

    name: ClassVar[str] = "concat"
    attributes = ConcatAttributes

    def output_shape(self, inputs: Sequence[Shape], attributes: ConcatAttributes) -> Shape:
        first = inputs[0]
        axis = axis_of(attributes.axis, first)
        for shape in inputs[1:]:
            if len(shape) != len(first) or any(
                a != b for i, (a, b) in enumerate(zip(first, shape, strict=True)) if i != axis
            ):
                raise ShapeError(f"{first} and {shape} differ elsewhere than along axis {axis}")
        return (*first[:axis], sum(shape[axis] for shape in inputs), *first[axis + 1 :])

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: ConcatAttributes) -> None:
        for tensor in inputs:
            if attributes.rule == "tflite":
                check_same_meaning(tensor, output, "codes only move")
            else:
                check_integers(tensor, output, bits=8)

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: ConcatAttributes) -> Codes:
        pieces = [_moved(operand, output) for operand in inputs]
        return np.concatenate(pieces, axis=axis_of(attributes.axis, inputs[0].shape))

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: ConcatAttributes) -> Codes:
        axis = axis_of(attributes.axis, output.shape)
        starts = np.cumsum([0] + [operand.shape[axis] for operand in inputs]).tolist()
        found = np.zeros(output.shape, np.int64)
        for place in np.ndindex(*output.shape):
            which = max(i for i, start in enumerate(starts[:-1]) if start <= place[axis])
            operand = inputs[which]
            code = int(operand.codes[(*place[:axis], place[axis] - starts[which], *place[axis + 1 :])])
            if meaning(operand) != meaning(output):
                real = np.float32(code - operand.zero_point) * np.float32(operand.scale)
                code = slow.half_even(Fraction(float(real / np.float32(output.scale)))) + output.zero_point
                code = slow.clamp(code, output.format.code_low, output.format.code_high)
            found[place] = code
        return found

    def real(self, inputs: Sequence[Reals], attributes: ConcatAttributes) -> Reals:
        return np.concatenate(inputs, axis=attributes.axis)

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: ConcatAttributes) -> Work:
        actions = Actions()
        for tensor in inputs:
            if meaning(tensor) != meaning(output):
                lookups = ("lookup", (tensor.format.lane_bits, output.format.lane_bits))
                actions += vector_actions({lookups: math.prod(tensor.shape)})
        return Work(1, math.prod(output.shape), actions)


def _moved(operand: Operand, output: TensorSpec) -> Codes:
    if meaning(operand) == meaning(output):
        return operand.codes
    reals = centred(operand).astype(np.float32) * np.float32(operand.scale)
    codes = rounded(reals / np.float32(output.scale)) + output.zero_point
    return limit(codes, output.format.code_low, output.format.code_high)


CONCATS = (Concat(),)
