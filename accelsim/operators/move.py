"""Operators that only move codes: reshape, transpose, slice, pad, concat. Every code keeps its meaning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from accelsim.actions import Actions
from accelsim.errors import FormatError, ShapeError
from accelsim.formats.spec import Codes
from accelsim.operators.spec import Attributes, Operand, Reals, Shape, TensorSpec, Work


class _Move:
    """What moving operators share: codes pass through, so input and output mean the same by the same code."""

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: Any) -> None:
        for tensor in inputs:
            same = (tensor.format.name, tensor.scale, tensor.zero_point) == (
                output.format.name,
                output.scale,
                output.zero_point,
            )
            if not same:
                raise FormatError(
                    f"codes only move, but the input is {_meaning(tensor)} and the output {_meaning(output)}; "
                    f"requantize the input first"
                )

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: Any) -> Work:
        return Work(passes=1, elements=math.prod(output.shape), actions=Actions())


def _meaning(tensor: TensorSpec) -> str:
    return f"{tensor.format.name} with scale {tensor.scale:g} and zero point {tensor.zero_point}"


class ReshapeAttributes(Attributes):
    """shape : the new sizes, as many elements as before."""

    shape: tuple[int, ...]


class Reshape(_Move):
    """The same codes in the same order, in another shape; only addresses change, so it takes no time."""

    name: ClassVar[str] = "reshape"
    attributes = ReshapeAttributes

    def output_shape(self, inputs: Sequence[Shape], attributes: ReshapeAttributes) -> Shape:
        (shape,) = inputs
        if math.prod(shape) != math.prod(attributes.shape):
            raise ShapeError(f"{shape} has {math.prod(shape)} elements, {attributes.shape} another number")
        return attributes.shape

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: ReshapeAttributes) -> Codes:
        return inputs[0].codes.reshape(attributes.shape)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: ReshapeAttributes) -> Codes:
        return np.array(inputs[0].codes.ravel().tolist()).reshape(attributes.shape)

    def real(self, inputs: Sequence[Reals], attributes: ReshapeAttributes) -> Reals:
        return inputs[0].reshape(attributes.shape)

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: ReshapeAttributes) -> Work:
        return Work(passes=0, elements=math.prod(output.shape), actions=Actions())


MOVES = (Reshape(),)
