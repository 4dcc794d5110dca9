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
