"""Exponential and reciprocal in 32-bit fixed point, on int64 arrays (docs/operators.md, Softmax).

"Q5.26" is a signed number with 5 integer and 26 fraction bits; products of such numbers are high products. Source:
google/gemmlowp fixedpoint/fixedpoint.h. The logarithm: TFLite kernels/internal/common.h.
"""

from __future__ import annotations

import math

import numpy as np

from accelsim.operators.fixed_point import (
    INT32_MAX,
    INT32_MIN,
    Int64Array,
    divide_by_power,
    high_product,
    quantize_multiplier,
    saturating_shift_left,
)

DIFFERENCE_BITS = 5  # differences to the row's maximum are Q5.26
SUM_BITS = 12  # sums of exponentials are Q12.19
LOGISTIC_BITS = 4  # arguments of logistic and tanh are Q4.27

# round(exp(-2**k) * 2**31): one factor for each bit of a number of quarters.
EXP_OF_POWERS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)
EXP_OF_MINUS_EIGHTH = 1895147668
ONE_THIRD = 715827883
FORTY_EIGHT_SEVENTEENTHS, MINUS_THIRTY_TWO_SEVENTEENTHS = 1515870810, -1010580540  # Q2.29


def exp_of_negative(x: Int64Array, integer_bits: int = DIFFERENCE_BITS) -> Int64Array:
    """Return exp(x), Q0.31, of x <= 0 with at most 5 integer bits.

    The part in [-1/4, 0) goes through a Taylor polynomial of degree 4 around -1/8; each bit of the quarters that
    remain multiplies by its constant. 0 gives the largest number below 1.
    """
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    part = (x & (quarter - 1)) - quarter
    result = _exp_of_quarter(saturating_shift_left(part, integer_bits))
    remainder = part - x
    for exponent, factor in EXP_OF_POWERS:
        if exponent < integer_bits:
            result = np.where(remainder & (1 << (fraction_bits + exponent)), high_product(result, factor), result)
    return np.where(x == 0, INT32_MAX, result)


def _exp_of_quarter(a: Int64Array) -> Int64Array:
    """Return exp(a), Q0.31, for -1/4 <= a < 0 in Q0.31."""
    x = a + (1 << 28)
    square = high_product(x, x)
    cube, fourth = high_product(square, x), high_product(square, square)
    tail = high_product(divide_by_power(fourth, 2) + cube, ONE_THIRD) + square
    return EXP_OF_MINUS_EIGHTH + high_product(x + divide_by_power(tail, 1), EXP_OF_MINUS_EIGHTH)


def reciprocal_of_one_plus(x: Int64Array) -> Int64Array:
    """Return 1 / (1 + x), Q0.31, for 0 <= x < 1 in Q0.31."""
    return saturating_shift_left(_double_reciprocal(x), 1)


def _double_reciprocal(x: Int64Array) -> Int64Array:
    """Return 2 / (1 + x), Q2.29, for 0 <= x < 1 in Q0.31: three Newton steps on the half denominator."""
    half_denominator = (x + INT32_MAX + 1) >> 1  # half of x + 1, rounded up: all is positive
    y = FORTY_EIGHT_SEVENTEENTHS + high_product(half_denominator, MINUS_THIRTY_TWO_SEVENTEENTHS)
    for _ in range(3):
        error = (1 << 29) - high_product(half_denominator, y)
        y = y + saturating_shift_left(high_product(y, error), 2)
    return y


def logistic(x: Int64Array) -> Int64Array:
    """Return 1 / (1 + exp(-x)), Q0.31, of x in Q4.27."""
    of_magnitude = reciprocal_of_one_plus(exp_of_negative(-np.abs(x), LOGISTIC_BITS))
    return np.where(x == 0, 1 << 30, np.where(x > 0, of_magnitude, INT32_MAX - of_magnitude))


def tanh(x: Int64Array) -> Int64Array:
    """Return the hyperbolic tangent, Q0.31, of x in Q4.27: (1 - e) / (1 + e) with e = exp(-2 |x|)."""
    doubled = exp_of_negative(-np.abs(x), LOGISTIC_BITS + 1)  # the same digits, with one more integer bit
    magnitude = saturating_shift_left(_double_reciprocal(doubled) - (1 << 29), 2)
    return np.sign(x) * magnitude


def reciprocal(x: Int64Array, integer_bits: int) -> tuple[Int64Array, Int64Array]:
    """Return (1 / x as Q0.31, bits): x, a positive int32 with `integer_bits`, is 2**bits times a number in [1, 2)."""
    headroom = leading_zeros(x)
    return reciprocal_of_one_plus((x << headroom) - (1 << 31)), integer_bits - headroom


def leading_zeros(x: Int64Array) -> Int64Array:
    """Return how many of 32 bits are zero before the first one; x : 1..2**31 - 1."""
    return 32 - np.frexp(x.astype(np.float64))[1].astype(np.int64)


def difference_scale(beta: float, scale: float) -> tuple[int, int]:
    """Return multiplier and shift that turn differences of codes into Q5.26."""
    return quantize_multiplier(min(beta * scale * (1 << (31 - DIFFERENCE_BITS)), float(INT32_MAX)))


def smallest_difference(shift: int) -> int:
    """Return the most negative difference of codes that Q5.26 holds after the scaling by `difference_scale`."""
    return -input_radius(DIFFERENCE_BITS, shift)


def input_radius(integer_bits: int, shift: int) -> int:
    """Return the largest magnitude that `integer_bits` hold after a shift to the left."""
    return math.floor(((1 << integer_bits) - 1) * 2.0 ** (31 - integer_bits - shift))


LOG_2, ROOT_HALF, FOURTH_ROOT_HALF = 1488522236, 1518500250, 1805811301
ALPHA_N, ALPHA_D, ALPHA_I, ALPHA_F = 117049297, 127690142, 1057819769, 638450708
_LOG_BITS = DIFFERENCE_BITS + 1  # the accumulator has a bit more than the result


def log_of_sum(x: Int64Array) -> Int64Array:
    """Return log(x), Q5.26, of x >= 1 in Q12.19.

    x = 2**k * r with r near 2**(-1/4); log r is a rational function of the distance from there.
    """
    quarter = 1 << (31 - _LOG_BITS - 2)
    zeros = leading_zeros(x)
    power_a = np.clip((SUM_BITS - zeros) << (31 - _LOG_BITS), INT32_MIN, INT32_MAX) + quarter
    r_a = saturating_shift_left(high_product(x << (zeros - 1), ROOT_HALF), 1)
    zeros_b = leading_zeros(high_product(x, ROOT_HALF)) - 1
    power_b = np.clip((SUM_BITS - zeros_b) << (31 - _LOG_BITS), INT32_MIN, INT32_MAX) - quarter
    r_b = np.clip(x << zeros_b, INT32_MIN, INT32_MAX)
    r, power = np.minimum(r_a, r_b), np.maximum(power_a, power_b)

    total = r + FOURTH_ROOT_HALF
    p = (total + 1) >> 1  # all is positive
    q = 2 * (r - FOURTH_ROOT_HALF)
    square = high_product(q, q)
    numerator = high_product(q, r) + high_product(high_product(q, square), ALPHA_N)
    denominator = high_product(p, ALPHA_I + q + high_product(square, ALPHA_D)) + high_product(q, ALPHA_F)
    quotient = high_product(divide_by_power(numerator, _LOG_BITS), reciprocal_of_one_plus(denominator))
    return saturating_shift_left(high_product(power, LOG_2) + quotient, 1)
