"""The arithmetic of fixed_point.py, one value at a time, as the C sources define it: Python integers and fractions."""

from __future__ import annotations

from fractions import Fraction

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1


def clamp(value: int, low: int, high: int) -> int:
    """Return the nearest number to `value` in [low, high]."""
    return min(max(value, low), high)


def c_divide(a: int, b: int) -> int:
    """Return a / b as C divides integers: towards zero."""
    quotient = abs(a) // abs(b)
    return quotient if (a >= 0) == (b > 0) else -quotient


def quantize_multiplier(scale: float) -> tuple[int, int]:
    """Return (multiplier, shift): scale * 2**(31 - shift) rounded, the shift being the smallest that fits 31 bits."""
    exact = Fraction(scale)
    if exact == 0:
        return 0, 0
    shift = 0
    while exact >= Fraction(2) ** shift:
        shift += 1
    while exact < Fraction(2) ** (shift - 1):
        shift -= 1
    multiplier = (exact * Fraction(2) ** (31 - shift) + Fraction(1, 2)).__floor__()
    if multiplier == 1 << 31:
        multiplier, shift = 1 << 30, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


def high_product(a: int, b: int) -> int:
    """Return the doubled high half of a product, as gemmlowp spells it: a nudge by sign, then a C division."""
    if a == b == INT32_MIN:
        return INT32_MAX
    product = a * b
    return c_divide(product + ((1 << 30) if product >= 0 else 1 - (1 << 30)), 1 << 31)


def divide_by_power(x: int, exponent: int) -> int:
    """Return x / 2**exponent, as gemmlowp spells it: floor, and one more where the remainder is above a threshold."""
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if x & mask > threshold else 0)


def multiply(x: int, multiplier: int, shift: int) -> int:
    """Return rule R1: the high product of the shifted value, then the rounding division."""
    return divide_by_power(high_product(x * (1 << max(shift, 0)), multiplier), max(-shift, 0))


def half_even(value: Fraction) -> int:
    """Return the nearest integer, ties to even."""
    return round(value)


def half_away(value: Fraction) -> int:
    """Return the nearest integer, ties away from zero."""
    magnitude = (abs(value) + Fraction(1, 2)).__floor__()
    return magnitude if value >= 0 else -magnitude
