"""Float32 registers: each addition of an exact block sum is rounded once, to nearest, ties to even.

Three kernels with one meaning, for block sums of different widths; all of them walk the rows m, then the blocks in the
order of k, and add for all columns n at once.

narrow : every block sum is a float32: the processor's own float32 addition rounds once
wide : every block sum is a float64; the float64 sum, rounded to odd, is then rounded to float32 as the exact one would
any : a block sum is value * 2**exponent, |value| < 2^62: additions in integers, one column after another

Rounding to odd (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE Trans. Computers 57(4),
2008): an inexact sum takes the neighbour whose last bit is 1, so that it can never be mistaken for a tie of the second,
narrower rounding.

What the three have in common:

size, blocks_per_fold : elements a block, blocks a fold
first_row : the number m of the first row
bias [N] : what the accumulators are preloaded with
extremes [4, N] : psum low, high; accumulator low, high; widened
places [2, 3], events [2, 3] : (m, n, k) of the first overflow of the psum and of the accumulator, in the order of
    outputs, then of k, m = -1 where there is none; and what was added: content before, and an addend in two exact parts
out [M, N] : the accumulators; written
They return (psum overflows, accumulator overflows).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
LARGEST = 3.4028234663852886e38  # finite float32
# Blocks that stay in SIMD registers between two loads of the psums.
UNROLLED = 4


@njit
def settle_row(total: F32, after: F32, low: F32, high: F32) -> int:
    """Put `total` into `after`, saturated at the largest finite numbers; watch it; return how many did not fit."""
    misfits = 0
    most = np.float32(LARGEST)
    for n in range(total.size):
        s = total[n]
        # Comparisons rather than min and max, whose care for NaN (there is none) would keep this loop out of SIMD.
        limited = most if s > most else s
        limited = -most if s < -most else limited
        after[n] = limited
        low[n] = limited if limited < low[n] else low[n]
        high[n] = limited if limited > high[n] else high[n]
        misfits += limited != s
    return misfits


@njit
def add_unlimited(psum: F32, values: F32, r: int, first: int, stop: int, low: F32, high: F32) -> None:
    """Add blocks first..stop-1 of a row that cannot overflow, and watch."""
    v = first
    while v + UNROLLED <= stop:
        for n in range(psum.size):
            s, lowest, highest = psum[n], low[n], high[n]
            for u in range(UNROLLED):
                s += values[r, v + u, n]
                lowest = s if s < lowest else lowest
                highest = s if s > highest else highest
            psum[n], low[n], high[n] = s, lowest, highest
        v += UNROLLED
    while v < stop:
        for n in range(psum.size):
            s = psum[n] + values[r, v, n]
            psum[n] = s
            low[n] = s if s < low[n] else low[n]
            high[n] = s if s > high[n] else high[n]
        v += 1


@njit
def note(place: I64, event: F64, m: int, n: int, k: int, before: float, addend: float, rest: float) -> None:
    """Keep the overflow that comes first in the order of outputs; those of one output arrive in the order of k."""
    if place[0] < 0 or (m == place[0] and n < place[1]):
        place[0], place[1], place[2] = m, n, k
        event[0], event[1], event[2] = before, addend, rest


@njit
def add_narrow(held: F32, addend: F32, total: F32) -> None:
    """Put held + addend, rounded once, into `total`; infinite where it is too large."""
    for n in range(held.size):
        total[n] = held[n] + addend[n]


@njit
def add_wide(held: F32, addend: F64, near: F64, error: F64, near_bits: I64, error_bits: I64, total: F32) -> None:
    """The same of wider addends. near_bits and error_bits are the working rows near and error, seen as integers."""
    for n in range(held.size):
        x, y = np.float64(held[n]), addend[n]
        s = x + y
        x_part = s - y
        near[n] = s
        error[n] = (x - x_part) + (y - (s - x_part))  # exactly what the float64 sum has lost (Knuth)
    for n in range(held.size):
        bits, lost = near_bits[n], error_bits[n]
        # Of an inexact sum that is even, take the odd neighbour on the side of what was lost.
        inexact = (lost << 1) != 0
        away = 1 if (bits ^ lost) >= 0 else -1
        near_bits[n] = bits + (away if inexact and (bits & 1) == 0 else 0)
    for n in range(held.size):
        total[n] = np.float32(near[n])


@njit
def add_any(held: float, value: int, exponent: int) -> float:
    """Return held + value * 2**exponent, rounded once; infinite where it is too large. |value| < 2^62."""
    if value == 0:
        return held
    p, p_unit = abs(value), exponent
    for width in (32, 16, 8, 4, 2, 1):  # shift the highest one of p to bit 61
        if p < 1 << (62 - width):
            p <<= width
            p_unit -= width
    significand, binade = math.frexp(abs(float(held)))
    h, h_unit = int(significand * 2.0**62), binade - 62  # 24 bits, the highest one at bit 61, or zero
    negative = value < 0
    magnitude, unit = p, p_unit
    if h != 0:
        same = (held < 0) == negative
        behind = h_unit - p_unit
        if behind == 1 and not same:
            h, unit = h << 1, p_unit  # the sum may be small: no bit may be lost
        elif behind > 0:
            p, unit = shifted_sticky(p, behind), h_unit
        else:
            h = shifted_sticky(h, -behind)
        if same:
            magnitude = p + h
        else:
            magnitude = abs(p - h)
            negative = negative if p > h else not negative
    return rounded(magnitude, unit, negative)


@njit
def shifted_sticky(value: int, bits: int) -> int:
    """Return value >> bits, with the last bit set where any bit was lost."""
    if bits > 62:
        return 1 if value else 0
    result = value >> bits
    return result | 1 if (result << bits) != value else result


@njit
def rounded(magnitude: int, unit: int, negative: bool) -> float:
    """Return +-magnitude * 2**unit as a float32, as a float64 that may be infinite; 0 <= magnitude < 2^63."""
    if magnitude == 0:
        return 0.0
    length = 0
    rest = magnitude
    while rest:
        rest >>= 1
        length += 1
    drop = max(length - 24, -149 - unit)  # a float32 has 24 bits, and none below 2**-149
    if drop > 63:
        return 0.0
    if drop > 0:
        mask = 0x7FFFFFFFFFFFFFFF >> (63 - drop)
        half = mask - (mask >> 1)
        below = magnitude & mask
        magnitude = magnitude >> drop
        if below > half or (below == half and (magnitude & 1) != 0):
            magnitude += 1
        unit += drop
    result = math.ldexp(float(magnitude), unit)
    if result > LARGEST:
        result = math.inf
    return -result if negative and result > 0 else result


@njit
def add_fold(
    acc: F32,
    psum: F32,
    total: F32,
    after: F32,
    extremes: F32,
    places: I64,
    events: F64,
    m: int,
    k: int,
) -> int:
    """Put acc + psum into `after`; return the overflows."""
    add_narrow(acc, psum, total)
    misfits = settle_row(total, after, extremes[2], extremes[3])
    if misfits:
        for n in range(total.size):
            if abs(total[n]) > LARGEST:
                note(places[1], events[1], m, n, k, acc[n], psum[n], 0.0)
    return misfits


@njit
def sums_narrow(
    values: F32,
    limits: bool,
    size: int,
    blocks_per_fold: int,
    first_row: int,
    bias: F32,
    extremes: F32,
    places: I64,
    events: F64,
    out: F32,
) -> tuple[int, int]:
    """Add block sums that are float32 numbers; values [M, B, N]. The rest: see the module.

    limits : False where no sum can overflow
    """
    rows, blocks, columns = values.shape
    psum, after, total = np.empty(columns, np.float32), np.empty(columns, np.float32), np.empty(columns, np.float32)
    acc = np.empty(columns, np.float32)
    psum_overflows, acc_overflows = 0, 0
    for r in range(rows):
        m = first_row + r
        acc[:] = bias
        for fold in range(0, blocks, blocks_per_fold):
            psum[:] = 0
            stop = min(fold + blocks_per_fold, blocks)
            if not limits:
                add_unlimited(psum, values, r, fold, stop, extremes[0], extremes[1])
            for v in range(fold if limits else stop, stop):
                add_narrow(psum, values[r, v], total)
                misfits = settle_row(total, after, extremes[0], extremes[1])
                if misfits:
                    psum_overflows += misfits
                    for n in range(columns):
                        if abs(total[n]) > LARGEST:
                            note(places[0], events[0], m, n, v * size, psum[n], values[r, v, n], 0.0)
                psum, after = after, psum
            acc_overflows += add_fold(acc, psum, total, after, extremes, places, events, m, fold * size)
            acc, after = after, acc
        out[r] = acc
    return psum_overflows, acc_overflows


@njit
def sums_wide(
    values: F64,
    working: F64,
    working_bits: I64,
    size: int,
    blocks_per_fold: int,
    first_row: int,
    bias: F32,
    extremes: F32,
    places: I64,
    events: F64,
    out: F32,
) -> tuple[int, int]:
    """Add block sums that are float64 numbers; values [M, B, N]. The rest: see the module.

    working [2, N], working_bits [2, N] : one piece of memory, seen as float64 and as int64
    """
    rows, blocks, columns = values.shape
    psum, after, total = np.empty(columns, np.float32), np.empty(columns, np.float32), np.empty(columns, np.float32)
    acc = np.empty(columns, np.float32)
    psum_overflows, acc_overflows = 0, 0
    for r in range(rows):
        m = first_row + r
        acc[:] = bias
        for fold in range(0, blocks, blocks_per_fold):
            psum[:] = 0
            for v in range(fold, min(fold + blocks_per_fold, blocks)):
                add_wide(psum, values[r, v], working[0], working[1], working_bits[0], working_bits[1], total)
                misfits = settle_row(total, after, extremes[0], extremes[1])
                if misfits:
                    psum_overflows += misfits
                    for n in range(columns):
                        if abs(total[n]) > LARGEST:
                            note(places[0], events[0], m, n, v * size, psum[n], values[r, v, n], 0.0)
                psum, after = after, psum
            acc_overflows += add_fold(acc, psum, total, after, extremes, places, events, m, fold * size)
            acc, after = after, acc
        out[r] = acc
    return psum_overflows, acc_overflows


@njit
def sums_any(
    values: I64,
    exponents: I32,
    size: int,
    blocks_per_fold: int,
    first_row: int,
    bias: F32,
    extremes: F32,
    places: I64,
    events: F64,
    out: F32,
) -> tuple[int, int]:
    """Add block sums values * 2**exponents, [M, B, N] both. The rest: see the module."""
    rows, blocks, columns = values.shape
    psum, after, total = np.empty(columns, np.float32), np.empty(columns, np.float32), np.empty(columns, np.float32)
    acc = np.empty(columns, np.float32)
    psum_overflows, acc_overflows = 0, 0
    for r in range(rows):
        m = first_row + r
        acc[:] = bias
        for fold in range(0, blocks, blocks_per_fold):
            psum[:] = 0
            for v in range(fold, min(fold + blocks_per_fold, blocks)):
                for n in range(columns):
                    total[n] = add_any(psum[n], values[r, v, n], exponents[r, v, n])
                misfits = settle_row(total, after, extremes[0], extremes[1])
                if misfits:
                    psum_overflows += misfits
                    for n in range(columns):
                        if abs(total[n]) > LARGEST:
                            # More than the 53 bits of a float64: in two parts.
                            e, value = exponents[r, v, n], values[r, v, n]
                            high = math.ldexp(float(value >> 31), e + 31)
                            low = math.ldexp(float(value & 0x7FFFFFFF), e)
                            note(places[0], events[0], m, n, v * size, psum[n], high, low)
                psum, after = after, psum
            acc_overflows += add_fold(acc, psum, total, after, extremes, places, events, m, fold * size)
            acc, after = after, acc
        out[r] = acc
    return psum_overflows, acc_overflows
