"""What sums and products of two tensors have in common: NumPy's broadcasting (docs/operators.md, Arithmetic)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from accelsim.errors import FormatError, ShapeError
from accelsim.operators.common import Activation, check_count, check_integers
from accelsim.operators.spec import Operand, Shape, TensorSpec


class Elementwise:
    """An operator of two inputs that broadcast."""

    def output_shape(self, inputs: Sequence[Shape], attributes: Any) -> Shape:
        check_count(inputs, 2, "a, b")
        try:
            return np.broadcast_shapes(*inputs)
        except ValueError:
            raise ShapeError(
                f"{inputs[0]} and {inputs[1]} do not broadcast: from the last axis on, sizes must be equal or 1"
            ) from None

    def check_kinds(self, inputs: Sequence[TensorSpec], output: TensorSpec, activation: Activation, rule: str) -> None:
        """Raise FormatError for formats that the rule does not add or multiply, and for what it cannot fuse."""
        check_integers(*inputs, output, bits=32 if rule == "hawq" else 16)
        if activation != "none" and not rule.startswith("tflite"):
            raise FormatError(f"rule {rule!r} has no fused activation; add {activation!r} as an operator of its own")


def pairs(inputs: Sequence[Operand]) -> Iterator[tuple[int, int]]:
    """Yield the two inputs' codes less their zero points, in the order of the broadcast output."""
    a, b = inputs
    for first, second in np.nditer([a.codes, b.codes], order="C"):
        yield int(first) - a.zero_point, int(second) - b.zero_point
