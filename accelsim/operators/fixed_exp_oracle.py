"""The functions of fixed_exp.py, one value at a time, in Python integers.

A number is (raw, integer bits), as in gemmlowp, where the type carries the bits; constants are computed, not copied.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from accelsim.operators.fixed_point_oracle import INT32_MAX, INT32_MIN, c_divide, clamp, divide_by_power, high_product


class Fixed(NamedTuple):
    """raw * 2**(bits - 31), raw an int32."""

    raw: int
    bits: int


def constant(value: float, bits: int) -> Fixed:
    """Return the nearest number; 1 without integer bits is the largest below it."""
    return Fixed(clamp(math.floor(value * 2.0 ** (31 - bits) + 0.5), INT32_MIN, INT32_MAX), bits)


def plus(a: Fixed, b: Fixed) -> Fixed:
    """Return a + b, of equal bits; it has to fit."""
    if a.bits != b.bits or not INT32_MIN <= a.raw + b.raw <= INT32_MAX:
        raise OverflowError(f"{a} + {b}")
    return Fixed(a.raw + b.raw, a.bits)


def minus(a: Fixed, b: Fixed) -> Fixed:
    """Return a - b."""
    return plus(a, Fixed(-b.raw, b.bits))


def times(a: Fixed, b: Fixed) -> Fixed:
    """Return a * b: the integer bits add up."""
    return Fixed(high_product(a.raw, b.raw), a.bits + b.bits)


def by_power(raw: int, exponent: int) -> int:
    """Return raw * 2**exponent, rounded half away from zero or saturated."""
    return clamp(raw << exponent, INT32_MIN, INT32_MAX) if exponent >= 0 else divide_by_power(raw, -exponent)


def rescale(a: Fixed, bits: int) -> Fixed:
    """Return the same number with other integer bits."""
    return Fixed(by_power(a.raw, a.bits - bits), bits)


def half_sum(a: Fixed, b: Fixed) -> Fixed:
    """Return (a + b) / 2, ties away from zero."""
    total = a.raw + b.raw
    return Fixed(c_divide(total + (1 if total >= 0 else -1), 2), a.bits)


def exp_of_negative(x: Fixed) -> Fixed:
    """Return exp(x) without integer bits; x <= 0."""
    one = constant(1.0, 0)
    if x.raw == 0:
        return one
    quarter = 1 << (31 - x.bits - 2)
    part = Fixed(x.raw % quarter - quarter, x.bits)
    y = plus(rescale(part, 0), constant(1 / 8, 0))
    y2 = times(y, y)
    y3, y4 = times(y2, y), times(y2, y2)
    fourth = Fixed(by_power(y4.raw, -2), 0)
    tail = plus(times(plus(fourth, y3), constant(1 / 3, 0)), y2)
    scale = constant(math.exp(-1 / 8), 0)
    result = plus(scale, times(scale, plus(y, Fixed(by_power(tail.raw, -1), 0))))
    quarters = (part.raw - x.raw) // quarter
    for bit in range(7):
        if quarters >> bit & 1:
            result = times(result, constant(math.exp(-(2.0 ** (bit - 2))), 0))
    return result


def reciprocal_of_one_plus(x: Fixed) -> Fixed:
    """Return 1 / (1 + x) without integer bits; x in [0, 1)."""
    half = half_sum(x, constant(1.0, 0))
    y = plus(constant(48 / 17, 2), times(half, constant(-32 / 17, 2)))
    for _ in range(3):
        error = minus(constant(1.0, 2), times(half, y))
        y = plus(y, rescale(times(y, error), 2))
    return rescale(Fixed(y.raw, 1), 0)  # halved by the change of bits


def reciprocal(x: Fixed) -> tuple[Fixed, int]:
    """Return (1 / m, e) where x = m * 2**e and m in [1, 2); x > 0."""
    headroom = 32 - x.raw.bit_length()
    return reciprocal_of_one_plus(Fixed((x.raw << headroom) - (1 << 31), 0)), x.bits - headroom


def log(x: Fixed, bits: int) -> Fixed:
    """Return the logarithm of x >= 1 with `bits` integer bits."""
    accumulator = bits + 1
    fourth_root, root = constant(0.5**0.25, 0), constant(0.5**0.5, 0)
    zeros = 32 - x.raw.bit_length()
    r_a = by_power(times(Fixed(x.raw << (zeros - 1), 0), root).raw, 1)
    power_a = by_power(x.bits - zeros, 31 - accumulator) + constant(0.25, accumulator).raw
    zeros_b = 32 - times(Fixed(x.raw, 0), root).raw.bit_length() - 1
    r_b = by_power(x.raw, zeros_b)
    power_b = by_power(x.bits - zeros_b, 31 - accumulator) - constant(0.25, accumulator).raw
    r, power = Fixed(min(r_a, r_b), 0), Fixed(clamp(max(power_a, power_b), INT32_MIN, INT32_MAX), accumulator)
    p = half_sum(r, fourth_root)
    q = minus(r, fourth_root)
    q = plus(q, q)
    q2 = times(q, q)
    two_fourth = 2**0.25
    numerator = plus(times(q, r), times(times(q, q2), constant(11 / 240 * two_fourth, 0)))
    inner = plus(plus(constant(2 / two_fourth - two_fourth, 0), q), times(constant(two_fourth / 20, 0), q2))
    denominator = plus(times(p, inner), times(constant(two_fourth / 4, 0), q))
    quotient = times(rescale(numerator, accumulator), reciprocal_of_one_plus(denominator))
    return rescale(plus(times(power, constant(math.log(2), 0)), quotient), bits)
