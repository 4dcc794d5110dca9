"""Kernels of requantization: accumulators to integers by a named rule, then the output's limits.

Every integer rule is one addition and one arithmetic shift, because floors by integers compose::

    round(p / 2**s) = floor((p + addend) / 2**s),      p = (acc - offset) * multiplier,  s >= 1

and only the addend differs from rule to rule (`_addend`). Two ways compute it: in one int64 where the product is known
to fit, in two limbs otherwise. For s <= 0 the scale is a left shift and nothing is rounded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

Int64Array = NDArray[np.int64]

# Rules, as the wrapper passes them. R3 and R4 differ only in the multipliers that they accept.
DOUBLE_HALF_UP_THEN_AWAY = 1
DOUBLE_HALF_UP = 2
HALF_UP = 3
DYADIC_HALF_EVEN = 7
HALF_AWAY_17BIT = 8
TRUNCATE = 9

INT64_MAX = 9223372036854775807
INT64_MIN = -9223372036854775808
LIMB_MASK = 4294967295  # 2**32 - 1


@njit
def _addend(rule: int, shift: int, negative: bool, odd: int) -> tuple[int, int]:
    """Return (power, small): the addend is 2**power + small, or just small where power is -1.

    negative : p < 0;  odd : the lowest bit of floor(p / 2**shift);  shift >= 1
    """
    half = shift - 1
    if rule == DOUBLE_HALF_UP_THEN_AWAY:
        if shift <= 31:  # no second rounding
            return half, 0
        return half, -1073741824 if negative else 1073741824
    if rule == DOUBLE_HALF_UP:
        return half, 1073741824 if shift > 31 else 0
    if rule == DYADIC_HALF_EVEN:  # just less than a half, unless the tie has to go up to become even
        return half, odd - 1
    if rule == HALF_AWAY_17BIT:
        return half, -1 if negative else 0
    if rule == TRUNCATE:  # floor, or ceiling where negative
        return (shift, -1) if negative else (-1, 0)
    return half, 0


@njit
def _add_saturating(a: int, b: int) -> int:
    if b > 0 and a > INT64_MAX - b:
        return INT64_MAX
    if b < 0 and a < INT64_MIN - b:
        return INT64_MIN
    return a + b


@njit
def _narrow(acc: int, multiplier: int, shift: int, offset: int, rule: int) -> int:
    """One int64: for 1 <= shift <= 62 and |acc * multiplier| <= 2**62 (see `_fits`).

    The addend is at most 2**61 + 2**30 in the direction of the product (truncation adds up to 2**62 to a negative
    product only), and offset * multiplier is below 2**46: the sum stays below 2**63.
    """
    product = (acc - offset) * multiplier
    power, small = _addend(rule, shift, product < 0, (product >> shift) & 1)
    addend = small if power < 0 else (1 << power) + small
    return (product + addend) >> shift


@njit
def _fits(acc: int, magnitude: int, shift: int) -> bool:
    """Whether `_narrow` may be used: acc of 32 bits with any multiplier, or of 48 bits with a 16-bit multiplier."""
    limit = 140737488355328 if magnitude <= 32768 else 2147483648
    return 1 <= shift <= 62 and -limit <= acc <= limit


@njit
def _wide(acc: int, multiplier: int, shift: int, offset: int, rule: int) -> int:
    """Two limbs, p = high * 2**32 + low with 0 <= low < 2**32: right for every int64 accumulator, shift -63..94.

    |acc| <= 2**63 and |multiplier| < 2**31 give |p| < 2**94, so |high| < 2**62 and the limbs cannot overflow. The
    result saturates to 64 bits.
    """
    low = (acc & LIMB_MASK) - offset
    high = (acc >> 32) + (low >> 32)
    low = (low & LIMB_MASK) * multiplier  # below 2**63
    high = high * multiplier + (low >> 32)
    low &= LIMB_MASK
    if shift >= 1:
        odd = (low >> shift) & 1 if shift < 32 else (high >> (shift - 32)) & 1
        power, small = _addend(rule, shift, high < 0, odd)
        if power >= 32:
            high += 1 << (power - 32)
        elif power >= 0:
            small += 1 << power
        low += small
        high += low >> 32
        low &= LIMB_MASK
        if shift >= 32:
            return high >> (shift - 32)
        reach = 1 << (31 + shift)  # the limbs' value / 2**shift fits int64 exactly below it
        if high >= reach:
            return INT64_MAX
        if high < -reach:
            return INT64_MIN
        return (high << (32 - shift)) | (low >> shift)
    if high >= 2147483648:
        return INT64_MAX
    if high < -2147483648:
        return INT64_MIN
    value = (high << 32) | low
    left = -shift  # at most 63
    if value > INT64_MAX >> left:
        return INT64_MAX
    if value < INT64_MIN >> left:
        return INT64_MIN
    return value << left


@njit
def requantize_integer(
    acc: Int64Array,
    multiplier: Int64Array,
    shift: Int64Array,
    offset: int,
    rule: int,
    zero_point: Int64Array,
    active_low: Int64Array,
    active_high: Int64Array,
    low: int,
    high: int,
    out: Int64Array,
) -> int:
    """Round, add the zero point, apply the activation's bounds, then the output's; write `out`.

    acc : int64 [R, C];  multiplier, shift, zero_point, active_low, active_high : int64 [C]
    offset : subtracted from acc before the multiply (0 unless the rule is HALF_AWAY_17BIT)
    low, high : the output's range, inclusive
    out : int64 [R, C], written in place

    Returns how many values the last step (low, high) moved.
    """
    rows, columns = acc.shape
    saturated = 0
    for r in range(rows):
        for c in range(columns):
            x = acc[r, c]
            m = multiplier[c]
            s = shift[c]
            y = _narrow(x, m, s, offset, rule) if _fits(x, abs(m), s) else _wide(x, m, s, offset, rule)
            if rule == HALF_AWAY_17BIT:
                y = min(max(y, -65536), 65535)
            y = _add_saturating(y, zero_point[c])
            y = min(max(y, active_low[c]), active_high[c])
            if y < low or y > high:
                saturated += 1
                y = min(max(y, low), high)
            out[r, c] = y
    return saturated


@njit
def _int64_of(value: float) -> int:
    """Convert an integral float, saturating; +-infinity too."""
    if value >= 9223372036854775808.0:
        return INT64_MAX
    if value < -9223372036854775808.0:
        return INT64_MIN
    return int(value)


@njit
def requantize_float32(
    acc: NDArray[np.float32],
    scale: NDArray[np.float32],
    zero_point: Int64Array,
    active_low: Int64Array,
    active_high: Int64Array,
    low: int,
    high: int,
    out: Int64Array,
) -> int:
    """As `requantize_integer`, of float32 accumulators by float32 [C] scales: the product is rounded to float32, and
    that to an integer; each time to nearest, ties to even.
    """
    rows, columns = acc.shape
    saturated = 0
    for r in range(rows):
        for c in range(columns):
            product = acc[r, c] * scale[c]
            y = _add_saturating(_int64_of(np.rint(product)), zero_point[c])
            y = min(max(y, active_low[c]), active_high[c])
            if y < low or y > high:
                saturated += 1
                y = min(max(y, low), high)
            out[r, c] = y
    return saturated


@njit
def requantize_float64(
    acc: Int64Array,
    scale: NDArray[np.float64],
    zero_point: Int64Array,
    active_low: Int64Array,
    active_high: Int64Array,
    low: int,
    high: int,
    out: Int64Array,
) -> int:
    """As `requantize_integer`, by float64 [C] scales: product in float64, then to nearest, ties away from zero."""
    rows, columns = acc.shape
    saturated = 0
    for r in range(rows):
        for c in range(columns):
            product = np.float64(acc[r, c]) * scale[c]
            whole = np.trunc(product)
            # The fraction is exact; adding 0.5 to the product before a floor would not be.
            if abs(product - whole) >= 0.5:
                whole += 1.0 if product > 0 else -1.0
            y = _add_saturating(_int64_of(whole), zero_point[c])
            y = min(max(y, active_low[c]), active_high[c])
            if y < low or y > high:
                saturated += 1
                y = min(max(y, low), high)
            out[r, c] = y
    return saturated
