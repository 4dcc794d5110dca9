"""The fixed-point arithmetic that TFLite's kernels share, on int64 arrays (docs/operators.md, Fixed point).

Sources: google/gemmlowp fixedpoint/fixedpoint.h, TFLite kernels/internal/common.cc and quantization_util.cc. Their
registers are int32; here a product never wraps, and the operators refuse scales for which a register would.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1


def quantize_multiplier(scale: float) -> tuple[int, int]:
    """Return (multiplier, shift) such that ``scale ~ multiplier * 2**(shift - 31)``.

    scale = f * 2**shift with 0.5 <= f < 1; the multiplier is f * 2**31 rounded half away from zero, a carry to 2**31
    raises the shift. 0, and scales below 2**-32, give (0, 0). TFLite's QuantizeMultiplier.

    scale : finite, >= 0
    """
    fraction, shift = math.frexp(scale)
    multiplier = math.floor(fraction * (1 << 31) + 0.5)  # exact: 31 + 22 bits fit a float64
    if multiplier == 1 << 31:
        multiplier, shift = multiplier >> 1, shift + 1
    return (0, 0) if multiplier == 0 or shift < -31 else (multiplier, shift)


def high_product(a: Int64Array, b: Int64Array | int) -> Int64Array:
    """Return a * b / 2**31, ties towards +inf, int32; gemmlowp's SaturatingRoundingDoublingHighMul.

    a, b : int32 range. Only INT_MIN * INT_MIN does not fit, and gives INT_MAX.
    """
    return np.asarray(np.minimum((a * b + (1 << 30)) >> 31, INT32_MAX))


def divide_by_power(x: Int64Array, exponent: int | Int64Array) -> Int64Array:
    """Return x / 2**exponent, ties away from zero; gemmlowp's RoundingDivideByPOT.

    exponent : 0..62, one number or one for each element
    """
    exponents = np.asarray(exponent, np.int64)
    half = np.where(exponents > 0, np.int64(1) << np.maximum(exponents - 1, 0), 0)
    return np.where(x >= 0, (x + half) >> exponents, -((half - x) >> exponents))


def multiply(x: Int64Array, multiplier: int, shift: int) -> Int64Array:
    """Return x * multiplier * 2**(shift - 31), rounded twice: rule R1, TFLite's MultiplyByQuantizedMultiplier.

    x : |x| * 2**max(shift, 0) fits int32
    """
    return divide_by_power(high_product(x << max(shift, 0), multiplier), max(-shift, 0))


def saturating_shift_left(x: Int64Array, exponent: int) -> Int64Array:
    """Return x * 2**exponent, saturated to int32; gemmlowp's SaturatingRoundingMultiplyByPOT for exponents >= 0.

    x : int32 range
    """
    return np.asarray(np.clip(x << exponent, INT32_MIN, INT32_MAX))


def half_even_shift(x: Int64Array, shift: int | Int64Array) -> Int64Array:
    """Return x / 2**shift, ties to even: rule R7.

    x : |x| <= 2**62
    shift : one number or one for each element; negative ones multiply, and what comes out has to fit int64
    """
    shifts = np.asarray(shift, np.int64)
    right = np.clip(shifts, 0, 63)
    quotient = x >> right
    remainder = x - (quotient << right)
    half = np.int64(1) << np.maximum(right - 1, 0)
    up = (remainder > half) | ((remainder == half) & (quotient & 1 == 1))
    rounded = quotient + ((right > 0) & up)
    return np.where(shifts > 63, 0, rounded << np.maximum(-shifts, 0))  # beyond 63: less than half of one


def half_even_product(x: Int64Array, multiplier: int | Int64Array, shift: int | Int64Array) -> Int64Array:
    """Return x * multiplier / 2**shift, ties to even: rule R7 for wide values.

    x : |x| < 2**62 where shift > 31, 2**47 where it is 17..31, 2**31 where it is less; what comes out has to fit int64
    multiplier : up to 31 bits and a sign
    """
    multipliers, shifts = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)
    narrow = half_even_shift(x * multipliers, np.minimum(shifts, 16))
    wide = np.where(shifts > 31, _split_product(x, multipliers, shifts, 31), _split_product(x, multipliers, shifts, 16))
    return np.where(shifts > 16, wide, narrow)


def _split_product(x: Int64Array, multiplier: Int64Array, shift: Int64Array, split: int) -> Int64Array:
    """Return the product / 2**shift, shift > split, from the two parts of x: its low `split` bits and the rest."""
    mask = (1 << split) - 1
    low_part = (x & mask) * multiplier
    high_part = (x >> split) * multiplier + (low_part >> split)  # the product is high_part * 2**split + low bits
    right = np.clip(shift - split, 1, 63)
    quotient = high_part >> right
    remainder = high_part - (quotient << right)
    half = np.int64(1) << (right - 1)
    below = (low_part & mask) > 0
    up = (remainder > half) | ((remainder == half) & (below | (quotient & 1 == 1)))
    return np.where(shift - split > 63, 0, quotient + up)


def dyadic(ratio: float) -> tuple[int, int]:
    """Return (multiplier, shift) such that ``ratio ~ multiplier / 2**shift``, the multiplier of 31 bits and a sign.

    HAWQ's and I-BERT's batch_frexp. ratio : finite; 0 gives (0, 31)
    """
    fraction, exponent = math.frexp(abs(ratio))
    multiplier = math.floor(fraction * (1 << 31) + 0.5)
    return -multiplier if ratio < 0 else multiplier, 31 - exponent
