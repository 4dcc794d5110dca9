"""Where the largest element is: argmax (docs/operators.md, Argmax)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from accelsim.errors import FormatError
from accelsim.formats.spec import Codes
from accelsim.operators.common import axis_of, check_count, check_integers, compare_actions
from accelsim.operators.spec import Attributes, Operand, Reals, Shape, TensorSpec, Work


class ArgmaxAttributes(Attributes):
    """axis : to search along; keepdims : leave it as a size of 1; last : of equal ones take the last."""

    axis: int = -1
    keepdims: bool = False
    last: bool = False


class Argmax:
    """The index of the largest code along an axis; of equal ones the first."""

    name: ClassVar[str] = "argmax"
    attributes = ArgmaxAttributes

    def output_shape(self, inputs: Sequence[Shape], attributes: ArgmaxAttributes) -> Shape:
        check_count(inputs, 1, "x")
        axis = axis_of(attributes.axis, inputs[0])
        return (*inputs[0][:axis], *((1,) if attributes.keepdims else ()), *inputs[0][axis + 1 :])

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: ArgmaxAttributes) -> None:
        check_integers(inputs[0], output, bits=32)
        largest = inputs[0].shape[attributes.axis] - 1
        if output.scale != 1 or output.zero_point != 0 or output.format.code_high < largest:
            raise FormatError(
                f"indices up to {largest} need scale 1, zero point 0 and enough bits, int32 for instance; found "
                f"{output.format.name}, {output.scale!r}, {output.zero_point}"
            )

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: ArgmaxAttributes) -> Codes:
        return _argmax(inputs[0].codes, attributes).astype(np.int32)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: ArgmaxAttributes) -> Codes:
        axis = axis_of(attributes.axis, inputs[0].shape)
        moved = np.moveaxis(inputs[0].codes, axis, -1)
        found = []
        for row in moved.reshape(-1, moved.shape[-1]).tolist():
            best = 0
            for i, code in enumerate(row):
                if code > row[best] or (attributes.last and code == row[best]):
                    best = i
            found.append(best)
        return np.array(found).reshape(output.shape)

    def real(self, inputs: Sequence[Reals], attributes: ArgmaxAttributes) -> Reals:
        return _argmax(inputs[0], attributes).astype(np.float64)

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: ArgmaxAttributes) -> Work:
        elements = math.prod(inputs[0].shape)
        compares = elements - math.prod(output.shape)
        return Work(1, elements, compare_actions(compares, inputs[0].format.lane_bits))


def _argmax(values: Codes | Reals, attributes: ArgmaxAttributes) -> Codes:
    if not attributes.last:
        return np.asarray(np.argmax(values, axis=attributes.axis, keepdims=attributes.keepdims))
    backwards = np.flip(values, axis=attributes.axis)
    first = np.argmax(backwards, axis=attributes.axis, keepdims=attributes.keepdims)
    return np.asarray(values.shape[attributes.axis] - 1 - first)


ARGMAXES = (Argmax(),)
