"""What softmax and log_softmax share: rows, exponentials in fixed point and in floats, and the oracle's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Actions
from accelsim.errors import FormatError
from accelsim.formats.spec import Codes
from accelsim.operators import fixed_exp_oracle as slow
from accelsim.operators import fixed_point_oracle as integers
from accelsim.operators.common import add_actions, axis_of, check_count, compare_actions, limit, rounded, vector_actions
from accelsim.operators.fixed_exp import SUM_BITS, difference_scale, exp_of_negative, smallest_difference
from accelsim.operators.fixed_point import Int64Array, divide_by_power, high_product
from accelsim.operators.spec import Reals, Shape, TensorSpec

EXP_MULTIPLICATIONS = 12  # 5 of the polynomial, 7 of the bits

Scalar = TypeVar("Scalar", bound=np.generic)


class Rows:
    """What works on rows along one axis; the maximum of each row is 0 after a subtraction."""

    def output_shape(self, inputs: Sequence[Shape], attributes: Any) -> Shape:
        check_count(inputs, 1, "x")
        axis_of(attributes.axis, inputs[0])
        return inputs[0]

    def rows(self, codes: Codes, axis: int) -> Int64Array:
        rows = np.moveaxis(codes.astype(np.int64), axis_of(axis, codes.shape), -1)
        return np.asarray(rows - rows.max(axis=-1, keepdims=True))

    def back(self, rows: NDArray[Scalar], axis: int) -> NDArray[Scalar]:
        return np.moveaxis(rows, -1, axis_of(axis, rows.shape))

    def lists(self, codes: Codes, axis: int) -> Iterator[list[int]]:
        moved = np.moveaxis(codes, axis_of(axis, codes.shape), -1)
        for row in moved.reshape(-1, moved.shape[-1]).tolist():
            yield [code - max(row) for code in row]

    def unlisted(self, found: list[list[int]], codes: Codes, axis: int) -> Codes:
        shape = np.moveaxis(codes, axis_of(axis, codes.shape), -1).shape
        return np.moveaxis(np.array(found).reshape(shape), -1, axis_of(axis, codes.shape))


def common_actions(x: TensorSpec, count: int, rows: int) -> Actions:
    """Count the maxima, the differences in Q5.26, the exponentials and their sums."""
    bits = x.format.lane_bits
    return (
        compare_actions(2 * count - rows, bits)
        + add_actions(count, bits + 1)
        + vector_actions({("mult", (bits + 1, 32)): count, ("mult", (32, 32)): EXP_MULTIPLICATIONS * count})
        + add_actions((EXP_MULTIPLICATIONS + 1) * count, 32)
        + vector_actions({("shift_clamp", ()): count})
    )


def check_difference_scale(beta: float, scale: float, length: int) -> None:
    """Raise FormatError where differences or a row's sum do not fit their fixed-point numbers."""
    _, shift = difference_scale(beta, scale)
    if beta <= 0 or shift < 0:
        raise FormatError(f"beta {beta:g} and the input scale {scale:g} are too small for Q5.26; use more than 2**-27")
    if length >= 1 << SUM_BITS:
        raise FormatError(
            f"a row of {length} elements may not fit the sum in Q12.19; use at most {(1 << SUM_BITS) - 1}"
        )


def exponentials(differences: Int64Array, beta: float, scale: float) -> tuple[Int64Array, NDArray[np.bool]]:
    """Return (exponentials in Q0.31, which differences are large enough for Q5.26)."""
    multiplier, shift = difference_scale(beta, scale)
    inside = differences >= smallest_difference(shift)
    scaled = high_product(np.where(inside, differences, 0) << shift, multiplier)
    return exp_of_negative(scaled), inside


def sum_of(exps: Int64Array, inside: NDArray[np.bool]) -> Int64Array:
    """Return each row's sum of exponentials, Q12.19."""
    return np.asarray(np.where(inside, divide_by_power(exps, SUM_BITS), 0).sum(axis=-1, keepdims=True))


def float_exponentials(differences: Int64Array, scale: float) -> tuple[Reals, Reals]:
    """Return exponentials by the C library, and the sums of rows, rounded once: no order of additions matters."""
    distinct, places = np.unique(differences, return_inverse=True)
    values = np.array([math.exp(difference * scale) for difference in distinct.tolist()])
    exps = values[places.reshape(differences.shape)]
    sums = [math.fsum(row) for row in exps.reshape(-1, exps.shape[-1]).tolist()]
    return exps, np.array(sums).reshape((*exps.shape[:-1], 1))


def quantized(reals: Reals, output: TensorSpec) -> Codes:
    """Return the codes of real numbers, ties to even."""
    return limit(rounded(reals / output.scale) + output.zero_point, output.format.code_low, output.format.code_high)


# -- the oracle's pieces ----------------------------------------------------------------------------------------------


def oracle_scale(beta: float, scale: float) -> tuple[int, int]:
    """Return multiplier and shift that turn differences of codes into Q5.26."""
    return integers.quantize_multiplier(min(beta * scale * 2.0**26, 2.0**31 - 1))


def oracle_smallest(shift: int) -> int:
    """Return the most negative difference of codes that Q5.26 holds."""
    return -((31 << 26) >> shift)


def oracle_exponentials(row: list[int], beta: float, scale: float) -> list[slow.Fixed | None]:
    """Return the exponentials; None where a difference is too negative."""
    multiplier, shift = oracle_scale(beta, scale)
    return [
        slow.exp_of_negative(slow.Fixed(integers.high_product(difference << shift, multiplier), 5))
        if difference >= oracle_smallest(shift)
        else None
        for difference in row
    ]


def oracle_sum(exps: list[slow.Fixed | None]) -> slow.Fixed:
    """Return the sum with 12 integer bits."""
    total = slow.Fixed(0, 12)
    for exp in exps:
        if exp is not None:
            total = slow.plus(total, slow.rescale(exp, 12))
    return total


def quantized_one(real: float, output: TensorSpec) -> int:
    """Return the code of a real number, ties to even."""
    return integers.clamp(
        round(real / output.scale) + output.zero_point, output.format.code_low, output.format.code_high
    )
