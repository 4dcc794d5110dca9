"""Exact sums of blocks: the products of a block, added up and scaled, before any register rounds or limits them.

A block here is whatever reaches the psum register as one number: a block with a scale of its own, or, without block
scales, the lanes of one step (the last may be shorter). All columns n are worked at once (they are the SIMD axis).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Exact = NDArray[Any]
# Rows that share a loaded weight, and elements of K whose products are added before a sum is stored again.
ROWS, UNROLLED = 4, 4
# What the shifter in front of a fixed-point psum delivers at most, either sign.
SHIFTED_LIMIT = (1 << 48) - 1


@njit
def add_row(a: Exact, w: Exact, m: int, start: int, stop: int, total: Exact) -> None:
    """Add the products of row m and k = start..stop-1 to `total`."""
    for k in range(start, stop):
        x = a[m, k]
        for n in range(total.size):
            total[n] += x * w[k, n]


@njit
def add_rows(
    a: Exact, w: Exact, m: int, start: int, stop: int, total0: Exact, total1: Exact, total2: Exact, total3: Exact
) -> None:
    """The same for the four rows from m on: a weight that is loaded serves all of them, four steps of k at a time."""
    k = start
    while k + UNROLLED <= stop:
        for n in range(total0.size):
            s0, s1, s2, s3 = total0[n], total1[n], total2[n], total3[n]
            for u in range(UNROLLED):
                x = w[k + u, n]
                s0 += a[m, k + u] * x
                s1 += a[m + 1, k + u] * x
                s2 += a[m + 2, k + u] * x
                s3 += a[m + 3, k + u] * x
            total0[n], total1[n], total2[n], total3[n] = s0, s1, s2, s3
        k += UNROLLED
    add_row(a, w, m, k, stop, total0)
    add_row(a, w, m + 1, k, stop, total1)
    add_row(a, w, m + 2, k, stop, total2)
    add_row(a, w, m + 3, k, stop, total3)


@njit
def block_values(a: Exact, w: Exact, a_factors: Exact, w_factors: Exact, size: int, values: Exact) -> None:
    """Write every block's sum of products times its two factors.

    a [M, K], w [K, N], a_factors [M, B], w_factors [B, N], values [M, B, N] : all of one dtype, float32, float64 or
        int64, in which every sum and product is exact
    size : elements a block; the last block may be shorter
    """
    rows, length = a.shape
    total = np.empty((ROWS, w.shape[1]), values.dtype)
    for v in range(values.shape[1]):  # outermost: the weights of a block stay in the cache for all rows
        start = v * size
        stop = min(start + size, length)
        for first in range(0, rows, ROWS):
            many = min(ROWS, rows - first)
            total[:] = 0
            if many == ROWS:
                add_rows(a, w, first, start, stop, total[0], total[1], total[2], total[3])
            else:
                for r in range(many):
                    add_row(a, w, first + r, start, stop, total[r])
            for r in range(many):
                scale = a_factors[first + r, v]
                for n in range(w.shape[1]):
                    values[first + r, v, n] = total[r, n] * (scale * w_factors[v, n])


@njit
def aligned_values(
    a: I32, w: I32, a_exponents: I32, w_exponents: I32, size: int, align_bits: int, values: I64, exponents: I32
) -> None:
    """Write every block's sum of products, aligned to the largest exponent among those that are not zero.

    a, a_exponents [M, K], w, w_exponents [K, N] : significands and exponents of the lanes
    values [M, B, N] : the sum of products, each shifted to the unit 2**exponents, its further bits truncated towards 0
    exponents [M, B, N] : (the largest exponent) - align_bits
    """
    rows, length = a.shape
    for m in range(rows):
        for v in range(values.shape[1]):
            start = v * size
            stop = min(start + size, length)
            total, largest = values[m, v], exponents[m, v]
            lowest = np.int32(-(1 << 30))
            largest[:] = lowest
            for k in range(start, stop):
                if a[m, k] != 0:
                    e = a_exponents[m, k]
                    for n in range(total.size):
                        if w[k, n] != 0:
                            largest[n] = max(largest[n], e + w_exponents[k, n])
            total[:] = 0
            for k in range(start, stop):
                x, e = np.int64(a[m, k]), a_exponents[m, k]
                if x != 0:
                    for n in range(total.size):
                        product = x * w[k, n]
                        # A product of zero is zero wherever it is shifted: its exponent may be above the largest.
                        behind = min(max(largest[n] - (e + w_exponents[k, n]), 0), 63)
                        magnitude = (abs(product) << align_bits) >> behind
                        total[n] += magnitude if product > 0 else -magnitude
            for n in range(total.size):
                largest[n] = largest[n] - align_bits if largest[n] != lowest else 0


@njit
def largest_exponents(a_exponents: I32, w_exponents: I32, m: int, start: int, stop: int, largest: I32) -> None:
    """Put the largest a_exponent + w_exponent of k = start..stop-1 into `largest`."""
    largest[:] = -(1 << 30)
    k = start
    while k + UNROLLED <= stop:
        for n in range(largest.size):
            top = largest[n]
            for u in range(UNROLLED):
                top = max(top, np.int32(a_exponents[m, k + u] + w_exponents[k + u, n]))
            largest[n] = top
        k += UNROLLED
    while k < stop:
        e = a_exponents[m, k]
        for n in range(largest.size):
            largest[n] = max(largest[n], np.int32(e + w_exponents[k, n]))
        k += 1


@njit
def add_aligned(a: F64, w: F64, m: int, start: int, stop: int, scale: F64, total: F64) -> None:
    """Add the products of row m and k = start..stop-1, each times `scale` and truncated towards zero, to `total`."""
    k = start
    while k + UNROLLED <= stop:
        for n in range(total.size):
            s = total[n]
            for u in range(UNROLLED):
                s += np.trunc(a[m, k + u] * w[k + u, n] * scale[n])
            total[n] = s
        k += UNROLLED
    while k < stop:
        x = a[m, k]
        for n in range(total.size):
            total[n] += np.trunc(x * w[k, n] * scale[n])
        k += 1


@njit
def aligned_reals(
    a: F64,
    w: F64,
    a_exponents: I32,
    w_exponents: I32,
    a_factors: F64,
    w_factors: F64,
    size: int,
    align_bits: int,
    powers: F64,
    values: F64,
) -> None:
    """Write what `aligned_values` does as real numbers, times the blocks' factors, where they are float64 numbers.

    a [M, K], w [K, N] : the lanes' values, significand * 2**exponent
    a_exponents [M, K], w_exponents [K, N] : their exponents; far below any other where the lane is zero
    powers : 2**e at index e + powers.size // 2
    """
    rows, length = a.shape
    columns = w.shape[1]
    largest = np.empty(columns, np.int32)
    scale, total = np.empty(columns, np.float64), np.empty(columns, np.float64)
    middle = powers.size // 2
    for v in range(values.shape[1]):  # outermost: the weights of a block stay in the cache for all rows
        start = v * size
        stop = min(start + size, length)
        for m in range(rows):
            largest_exponents(a_exponents, w_exponents, m, start, stop, largest)
            for n in range(columns):
                if largest[n] < -middle:
                    largest[n] = 0  # nothing but zeros
                scale[n] = powers[align_bits - largest[n] + middle]
            total[:] = 0
            add_aligned(a, w, m, start, stop, scale, total)
            factor = a_factors[m, v]
            for n in range(columns):
                values[m, v, n] = total[n] * powers[largest[n] - align_bits + middle] * (factor * w_factors[v, n])


@njit
def shift_limited(value: int, shift: int, rounding: int) -> int:
    """Return value * 2**shift, rounded where bits are lost, and limited to +-SHIFTED_LIMIT; |value| < 2^62.

    rounding : 0 towards -infinity, 1 towards zero, 2 nearest, ties to even
    """
    left = min(max(shift, 0), 48)  # 48 bits leave nothing but zero within the limit
    right = min(max(-shift, 0), 63)  # 63 bits leave nothing but the sign, and less than a half
    mask = 0x7FFFFFFFFFFFFFFF >> (63 - right)
    half = mask - (mask >> 1)
    below = value & mask
    result = value >> right
    if rounding == 1:
        result += (value < 0) & (below != 0)
    elif rounding == 2:
        result += (below > half) | ((below == half) & (right > 0) & ((result & 1) != 0))
    fits = SHIFTED_LIMIT >> left  # the most that can be shifted left and stay within the limit
    shifted = result << left
    shifted = SHIFTED_LIMIT if result > fits else shifted
    return -SHIFTED_LIMIT if result < -fits else shifted


@njit
def fixed_parts(values: Exact, exponents: I32, blocks_per_group: int, rounding: int, parts: I64) -> None:
    """Write each group's addend: its blocks' sums, shifted to the psum's unit, rounded, limited, and added.

    values [M, B, N] : whole numbers below 2^62 in magnitude, any dtype
    exponents [M, B, N] : of each value's unit, in units of the psum's
    parts [M, G, N] : G groups of `blocks_per_group` blocks, the last of which may have fewer
    """
    rows, blocks, columns = values.shape
    for m in range(rows):
        for v in range(blocks):
            g = v // blocks_per_group
            part = parts[m, g]
            if v % blocks_per_group == 0:
                part[:] = 0
            for n in range(columns):
                part[n] += shift_limited(int(values[m, v, n]), exponents[m, v, n], rounding)


@njit
def rounded_parts(values: Exact, blocks_per_group: int, rounding: int, parts: I64) -> None:
    """The same of values that are floats in the psum's unit already; parts of a unit are what is rounded."""
    rows, blocks, columns = values.shape
    limit = np.float64(SHIFTED_LIMIT)
    for m in range(rows):
        for v in range(blocks):
            part = parts[m, v // blocks_per_group]
            if v % blocks_per_group == 0:
                part[:] = 0
            if rounding == 0:
                for n in range(columns):
                    values[m, v, n] = np.floor(values[m, v, n])
            elif rounding == 1:
                for n in range(columns):
                    values[m, v, n] = np.trunc(values[m, v, n])
            else:
                for n in range(columns):
                    values[m, v, n] = np.rint(values[m, v, n])  # ties to even
            for n in range(columns):
                whole = np.float64(values[m, v, n])
                whole = limit if whole > limit else whole
                whole = -limit if whole < -limit else whole
                part[n] += np.int64(whole)
