"""Requantization, one value at a time, as the sources define it: the truth that the kernels are tested against.

Written from the published definitions, not from the kernels' one-shift form: two rounding steps are two steps here,
and every other rule is exact fractions. Slow on purpose.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


def requantize_one(
    acc: int | float,
    multiplier: int | float,
    shift: int,
    rounding: str,
    *,
    zero_point: int = 0,
    qmin: int = INT64_MIN,
    qmax: int = INT64_MAX,
    offset: int = 0,
) -> int:
    """Return what :func:`accelsim.ppu.requantize.requantize` has to give for one accumulator.

    acc : an int; for rule "float32_half_even" also a float, which float32 holds exactly
    """
    if rounding == "float32_half_even":
        rounded = _float32(acc, float(multiplier), qmin - zero_point, qmax - zero_point)
    elif not isinstance(acc, int):
        raise TypeError(f"rule {rounding!r} takes integer accumulators; found {acc!r}")
    elif rounding == "float64_half_away":
        with np.errstate(over="ignore"):
            rounded = _half_away(_exact(np.float64(np.int64(acc)) * np.float64(multiplier)))
    else:
        rounded = _INTEGER_RULES[rounding](acc - offset, int(multiplier), shift)
    rounded = _clamp(rounded, INT64_MIN, INT64_MAX)
    return _clamp(_clamp(rounded + zero_point, INT64_MIN, INT64_MAX), qmin, qmax)


def _clamp(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


def _scaled(acc: int, multiplier: int, shift: int) -> Fraction:
    return acc * multiplier * Fraction(2) ** -shift


def _half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def _half_away(value: Fraction) -> int:
    return _half_up(value) if value >= 0 else -_half_up(-value)


def doubling_high_multiply(a: int, b: int) -> int:
    """Apply gemmlowp's SaturatingRoundingDoublingHighMul without its saturation: C division truncates towards zero."""
    nudged = a * b + ((1 << 30) if a * b >= 0 else 1 - (1 << 30))
    return abs(nudged) // (1 << 31) * (1 if nudged >= 0 else -1)


def rounding_divide_by_power_of_two(x: int, exponent: int) -> int:
    """Apply gemmlowp's RoundingDivideByPOT: ties away from zero, by remainder and threshold."""
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if (x & mask) > threshold else 0)


def _gemmlowp(acc: int, multiplier: int, shift: int) -> int:
    """TFLite's MultiplyByQuantizedMultiplier; a left shift comes first, here without the wrap of int32."""
    if shift <= 0:  # more than the 31 fraction bits of the high multiply shifted left: nothing is left to round
        return math.floor(_scaled(acc, multiplier, shift))
    exponent = 31 - shift
    high = doubling_high_multiply(acc << max(exponent, 0), multiplier)
    return rounding_divide_by_power_of_two(high, max(-exponent, 0))


def _ruy(acc: int, multiplier: int, shift: int) -> int:
    """The high multiply as gemmlowp's, then a rounding shift whose ties go up."""
    if shift <= 31:
        return _half_up(_scaled(acc, multiplier, shift))
    return _half_up(Fraction(doubling_high_multiply(acc, multiplier), 1 << (shift - 31)))


def _single(acc: int, multiplier: int, shift: int) -> int:
    return _half_up(_scaled(acc, multiplier, shift))


def _dyadic(acc: int, multiplier: int, shift: int) -> int:
    return round(_scaled(acc, multiplier, shift))  # Python rounds a fraction's ties to even


def _nvdla(acc: int, multiplier: int, shift: int) -> int:
    return _clamp(_half_away(_scaled(acc, multiplier, shift)), -(1 << 16), (1 << 16) - 1)


def _truncate(acc: int, multiplier: int, shift: int) -> int:
    return math.trunc(_scaled(acc, multiplier, shift))


_INTEGER_RULES = {
    "double_half_up_then_away": _gemmlowp,
    "double_half_up": _ruy,
    "half_up": _single,
    "half_up_int16_multiplier": _single,
    "dyadic_half_even": _dyadic,
    "half_away_17bit": _nvdla,
    "truncate": _truncate,
}


def _exact(value: np.floating) -> Fraction:
    """The float as a fraction; infinity as something far beyond every bound."""
    return Fraction(float(value)) if math.isfinite(value) else Fraction(1 << 2000) * (1 if value > 0 else -1)


def _float32(acc: int | float, scale: float, low: int, high: int) -> int:
    """ONNX Runtime's order: convert, multiply, clamp while still a float, round to even."""
    with np.errstate(over="ignore", under="ignore"):
        # An integer goes to float32 at once: by way of float64 it would be rounded twice.
        exact = np.float32(acc) if isinstance(acc, float) else np.int64(acc).astype(np.float32)
        product = exact * np.float32(scale)
    assert product.dtype == np.float32
    return round(min(max(_exact(product), Fraction(low)), Fraction(high)))
