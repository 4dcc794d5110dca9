"""What the families of operators share: named rules, fused activations, checks, and the price of a rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Action, Actions
from accelsim.errors import FormatError, ShapeError
from accelsim.operators.fixed_point import INT32_MAX, Int64Array
from accelsim.operators.spec import Operand, Reals, Shape, TensorSpec

Activation = Literal["none", "relu", "relu6", "relu_n1_to_1"]
"""A fused activation: a clamp of the output's codes."""

_BOUNDS: dict[Activation, tuple[float, float]] = {
    "none": (-np.inf, np.inf),
    "relu": (0.0, np.inf),
    "relu6": (0.0, 6.0),
    "relu_n1_to_1": (-1.0, 1.0),
}


def activation_range(activation: Activation, output: TensorSpec) -> tuple[int, int]:
    """Return the smallest and largest code that a fused activation lets through.

    A bound b becomes the code ``zero_point + round(float32(b) / float32(scale))``, ties away from zero, as TFLite's
    CalculateActivationRangeQuantized; the output's own range limits it.
    """
    low, high = output.format.code_low, output.format.code_high
    lower, upper = (_code(bound, output) for bound in _BOUNDS[activation])
    return max(low, min(lower, high)), min(high, max(upper, low))


def _code(bound: float, output: TensorSpec) -> int:
    if np.isinf(bound):
        return output.format.code_low if bound < 0 else output.format.code_high
    steps = float(np.float32(abs(bound)) / np.float32(output.scale))
    return output.zero_point + int(np.sign(bound)) * int(np.floor(steps + 0.5))


def activate(values: Reals, activation: Activation) -> Reals:
    """Return the activation of real numbers."""
    return np.clip(values, *_BOUNDS[activation])


def centred(operand: Operand) -> Int64Array:
    """Return the codes less their zero point."""
    return operand.codes.astype(np.int64) - operand.zero_point


def listed(operand: Operand) -> list[int]:
    """Return the codes, flat, as Python integers: what oracles read."""
    return [int(code) for code in operand.codes.ravel().tolist()]


def limit(values: NDArray[np.int64], low: int, high: int) -> NDArray[np.int32]:
    """Return the values clamped to codes."""
    return np.clip(values, low, high).astype(np.int32)


def rounded(steps: NDArray[np.float32] | Reals) -> Int64Array:
    """Return numbers rounded to integers, ties to even; those far beyond any code come out smaller."""
    far = 2.0**40
    return np.clip(np.rint(steps.astype(np.float64)), -far, far).astype(np.int64)


def check_count(inputs: Sequence[object], count: int, names: str) -> None:
    """Raise ShapeError unless there are `count` inputs."""
    if len(inputs) != count:
        raise ShapeError(f"takes {count} input{'s' * (count != 1)} ({names}), but has {len(inputs)}")


class SameShape:
    """What operators of one input share whose output has the input's shape."""

    def output_shape(self, inputs: Sequence[Shape], attributes: Any) -> Shape:
        check_count(inputs, 1, "x")
        return inputs[0]


SMALLEST_SCALE, LARGEST_SCALE = 2.0**-40, 2.0**40  # float32 holds the product of two and a quotient by a third


def check_integers(*tensors: TensorSpec, bits: int = 16) -> None:
    """Raise FormatError unless all tensors are plain integers of at most `bits` bits, with scales of a usable size."""
    for tensor in tensors:
        if not SMALLEST_SCALE <= tensor.scale <= LARGEST_SCALE:
            raise FormatError(f"scale {tensor.scale:g} is beyond 2**-40..2**40, where arithmetic on it is exact enough")
        if tensor.format.datapath != "integer" or tensor.format.blocks is not None or tensor.format.lane_bits > bits:
            raise FormatError(
                f"{tensor.format.name} is no plain integer of at most {bits} bits; use int8, for instance"
            )


def check_symmetric(*tensors: TensorSpec, why: str) -> None:
    """Raise FormatError where a tensor has a zero point."""
    for tensor in tensors:
        if tensor.zero_point:
            raise FormatError(f"{why} has no zero points, but a tensor has {tensor.zero_point}")


def check_same_meaning(first: TensorSpec, second: TensorSpec, why: str) -> None:
    """Raise FormatError unless equal codes of the two tensors mean the same."""
    if meaning(first) != meaning(second):
        raise FormatError(
            f"{why}, but one tensor is {meaning(first)} and the other {meaning(second)}; requantize first"
        )


def meaning(tensor: TensorSpec) -> str:
    """Return what a tensor's codes mean, in words."""
    return f"{tensor.format.name} with scale {tensor.scale!r} and zero point {tensor.zero_point}"


def largest_difference(tensor: TensorSpec) -> int:
    """Return the largest magnitude of a code less its zero point."""
    return max(tensor.format.code_high - tensor.zero_point, tensor.zero_point - tensor.format.code_low)


def check_register(largest: int, shift: int, ratio: float) -> None:
    """Raise FormatError where rule R1 would leave int32: its result is then undefined in C."""
    if largest << max(shift, 0) > INT32_MAX:
        raise FormatError(
            f"the ratio of scales {ratio:g} moves values of up to {largest} out of int32, in which the rule computes; "
            f"use a larger output scale"
        )


def axes_of(axes: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return axes counted from 0, sorted; ShapeError for unknown or repeated ones."""
    found = [axis + ndim if axis < 0 else axis for axis in axes]
    if any(not 0 <= axis < ndim for axis in found) or len(set(found)) != len(found):
        raise ShapeError(
            f"axes {tuple(axes)} do not fit {ndim} dimensions: use each of {-ndim}..{ndim - 1} at most once"
        )
    return tuple(sorted(found))


def axis_of(axis: int, shape: Shape) -> int:
    """Return an axis counted from 0; ShapeError for an unknown one."""
    return axes_of((axis,), len(shape))[0]


def vector_actions(counts: dict[tuple[str, tuple[int, ...]], int]) -> Actions:
    """Return actions of the vector unit from (operation, params) -> count."""
    return Actions({Action("vector", operation, params): count for (operation, params), count in counts.items()})


def rounding_actions(count: int, bits: int) -> Actions:
    """Return the price of `count` fixed-point rescalings of values of `bits` bits by a 32-bit multiplier."""
    return vector_actions({("mult", (bits, 32)): count, ("add", (bits + 32,)): count, ("shift_clamp", ()): count})


def add_actions(count: int, bits: int) -> Actions:
    """Return the price of additions (or subtractions, zero points among them)."""
    return vector_actions({("add", (bits,)): count})


def compare_actions(count: int, bits: int) -> Actions:
    """Return the price of comparisons (maxima, clamps)."""
    return vector_actions({("compare", (bits,)): count})


def float_actions(count: int, factors: int = 1) -> Actions:
    """Return the price of `count` codes that become float32 numbers, times `factors` numbers, and codes again."""
    each = {("fp32_from_int", ()): 1, ("fp32_mult", ()): factors, ("divide", (24, 24)): 1, ("shift_clamp", ()): 1}
    return vector_actions({operation: number * count for operation, number in each.items()})


def zero_point_actions(inputs: Sequence[TensorSpec], output: TensorSpec, count: int, bits: int) -> Actions:
    """Return the price of taking inputs' zero points off, and adding the output's, where they are not 0."""
    return add_actions(sum(tensor.zero_point != 0 for tensor in (*inputs, output)) * count, bits)


COMPARES: dict[Activation, int] = {"none": 0, "relu": 1, "relu6": 2, "relu_n1_to_1": 2}
"""How many comparisons a fused activation takes."""
