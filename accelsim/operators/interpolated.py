"""Functions of one 16-bit code, by straight lines between stored points (docs/operators.md, Tables)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import FormatError, ShapeError
from accelsim.formats.spec import Codes
from accelsim.operators.common import (
    add_actions,
    check_count,
    check_integers,
    check_same_meaning,
    check_symmetric,
    limit,
    listed,
    vector_actions,
)
from accelsim.operators.fixed_point import Int64Array
from accelsim.operators.lut import LookupAttributes
from accelsim.operators.spec import Operand, Reals, Shape, TensorSpec, Work
from accelsim.operators.tables import function_named, real_function

Float32 = np.float32
POINTS = 513
"""One at every 128th code of 16 bits, and one at the end."""
FRACTION_BITS = 7
LOW, HIGH = -(1 << 15), (1 << 15) - 1


def interpolation_table(function: str, x: TensorSpec, output: TensorSpec) -> NDArray[np.int32]:
    """Return the points of `function` over the codes of `x`, int32 [513] (TFLite's LUTPopulate for int16).

    Raises FormatError where `x` or `output` is not int16, or has a zero point.

    >>> from accelsim import formats
    >>> int16 = formats.get("int16")
    >>> x, y = TensorSpec((1,), int16, 2.0**-12, 0), TensorSpec((1,), int16, 2.0**-15, 0)
    >>> points = interpolation_table("tanh", x, y)
    >>> points.shape, points[[0, 512]].tolist()  # tanh(-8) and tanh(8), saturated
    ((513,), [-32768, 32767])
    """
    function_named(function)
    _check_int16(x, output)

    def of(values: NDArray[np.float32]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            if function in _IN_FLOAT32:
                return _IN_FLOAT32[function](values)
            return real_function(function, values.astype(np.float64)).astype(Float32)

    return _points(of, (x.scale, x.zero_point), (output.scale, output.zero_point))


def points_of(function: Callable[[float], float], x: tuple[float, int], output: tuple[float, int]) -> NDArray[np.int32]:
    """Return the points of a function of real numbers; `x` and `output` are (scale, zero point)."""

    def of(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.array([function(value) for value in values.astype(np.float64).tolist()], Float32)

    return _points(of, x, output)


def _points(
    of: Callable[[NDArray[np.float32]], NDArray[np.float32]], x: tuple[float, int], output: tuple[float, int]
) -> NDArray[np.int32]:
    """Every point is moved by half of the error that the straight line would have in the middle; all in float32."""
    first, last = (Float32(x[0]) * Float32(code - x[1]) for code in (LOW, HIGH))
    lowest, highest = (Float32(output[0]) * Float32(code - output[1]) for code in (LOW, HIGH))
    step = (last - first) / Float32(POINTS - 1)
    inverse = Float32(1 << 16) / (highest - lowest)
    starts = first + np.arange(POINTS - 1, dtype=Float32) * step
    with np.errstate(over="ignore", invalid="ignore"):
        here, middle = of(starts) * inverse, of(starts + step / Float32(2)) * inverse
        after = of(first + np.arange(1, POINTS, dtype=Float32) * step) * inverse
        sampled = _half_away(here)
        error = _half_away((after + sampled) / Float32(2)) - _half_away(middle)
        points = np.append(sampled - _half_away(error / Float32(2)), _half_away(of(np.array([last])) * inverse))
    points = np.where(np.isnan(points), np.float32(LOW), points)
    return np.clip(points, LOW, HIGH).astype(np.int32)


def _gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    arguments = (x * -Float32(math.sqrt(0.5))).astype(np.float64)
    return Float32(0.5) * x * np.array([math.erfc(each) for each in arguments.tolist()], Float32)


def _gelu_tanh(x: NDArray[np.float32]) -> NDArray[np.float32]:
    arguments = (Float32(math.sqrt(2 / math.pi)) * (x + Float32(0.044715) * x * x * x)).astype(np.float64)
    return Float32(0.5) * x * (Float32(1) + np.array([math.tanh(each) for each in arguments.tolist()], Float32))


_IN_FLOAT32: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {"gelu": _gelu, "gelu_tanh": _gelu_tanh}
"""What TFLite computes of several float32 steps, each rounded."""


def _half_away(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the nearest integers, ties away from zero, as float32: C's round."""
    exact = values.astype(np.float64)
    return (np.sign(exact) * np.floor(np.abs(exact) + 0.5)).astype(Float32)


def interpolated(points: Codes | Int64Array, codes: Int64Array) -> Int64Array:
    """Return the line's value at each code, int64."""
    places = (1 << 8) + (codes >> FRACTION_BITS)
    offsets = codes & ((1 << FRACTION_BITS) - 1)
    base, following = points[places].astype(np.int64), points[places + 1].astype(np.int64)
    return np.asarray(base + (((following - base) * offsets + (1 << FRACTION_BITS - 1)) >> FRACTION_BITS))


def interpolated_one(points: list[int], code: int) -> int:
    """Return the line's value at one code, by floor division."""
    place, offset = divmod(code - LOW, 1 << FRACTION_BITS)
    rise = (points[place + 1] - points[place]) * offset
    return points[place] + (2 * rise + (1 << FRACTION_BITS)) // (2 << FRACTION_BITS)


class Interpolate:
    """Inputs x (int16) and points: the straight line between the two points around a code, rounded half up."""

    name: ClassVar[str] = "interpolate"
    attributes = LookupAttributes

    def output_shape(self, inputs: Sequence[Shape], attributes: LookupAttributes) -> Shape:
        check_count(inputs, 2, "x, points")
        if inputs[1] != (POINTS,):
            raise ShapeError(f"the points have shape {inputs[1]}; there are {POINTS} of them")
        return inputs[0]

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: LookupAttributes) -> None:
        x, points = inputs
        check_integers(x, points, output)
        _check_int16(x, output)
        check_same_meaning(points, output, "the points' codes are the output's")

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: LookupAttributes) -> Codes:
        x, points = inputs
        return limit(interpolated(points.codes, x.codes.astype(np.int64)), LOW, HIGH)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: LookupAttributes) -> Codes:
        points = listed(inputs[1])
        codes = [min(max(interpolated_one(points, code), LOW), HIGH) for code in listed(inputs[0])]
        return np.array(codes).reshape(inputs[0].shape)

    def real(self, inputs: Sequence[Reals], attributes: LookupAttributes) -> Reals:
        return real_function(attributes.function, inputs[0])

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: LookupAttributes) -> Work:
        count = math.prod(output.shape)
        lines = vector_actions({("lookup", (9, 16)): 2 * count, ("mult", (17, FRACTION_BITS)): count})
        return Work(1, count, lines + add_actions(2 * count, 17) + vector_actions({("shift_clamp", ()): count}))


def _check_int16(*tensors: TensorSpec) -> None:
    for tensor in tensors:
        if (tensor.format.code_low, tensor.format.code_high) != (LOW, HIGH):
            raise FormatError(f"interpolation is of int16 codes, and makes such; found {tensor.format.name}")
    check_symmetric(*tensors, why="interpolation of int16 codes")


INTERPOLATIONS = (Interpolate(),)
