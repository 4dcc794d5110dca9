"""Registers of a tile of rows, from sums of blocks that a matrix product delivered: trajectories without limits.

A tile is [R, N], all columns of a few rows, small enough to stay in the cache; parts [B, R, N] are the sums of B
consecutive blocks (or groups), in the order of k. Extremes are widened, 0 included where they start at 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Lanes = NDArray[Any]
# Blocks that stay in SIMD registers between two loads of the psums.
UNROLLED = 4
SHIFTED_LIMIT = (1 << 48) - 1
# More than the roundings of the float32 numbers that are compared in `add_chunk`, as a part of them.
SLACK = 2.0**-20


@njit
def scaled_rows(lanes: I32, factors: Lanes, size: int, scaled: Lanes) -> None:
    """Write [M, K] lanes times the factors [M, B] of their blocks; all products are exact."""
    rows, length = lanes.shape
    for m in range(rows):
        for v in range(factors.shape[1]):
            factor = factors[m, v]
            for k in range(v * size, min((v + 1) * size, length)):
                scaled[m, k] = lanes[m, k] * factor


@njit
def scaled_columns(lanes: I32, factors: Lanes, size: int, scaled: Lanes) -> None:
    """The same of [K, N] lanes and factors [B, N]."""
    length, columns = lanes.shape
    for k in range(length):
        v = k // size
        for n in range(columns):
            scaled[k, n] = lanes[k, n] * factors[v, n]


# ------------------------------------------------------------------------------------------ float32 registers


@njit
def add_narrow(psum: F32, parts: F32, low: F32, high: F32) -> None:
    """Add float32 block sums to float32 psums; extremes [N]. Nothing may overflow."""
    blocks, rows, columns = parts.shape
    for r in range(rows):
        v = 0
        while v + UNROLLED <= blocks:
            for n in range(columns):
                s, lowest, highest = psum[r, n], low[n], high[n]
                for u in range(UNROLLED):
                    s += parts[v + u, r, n]
                    # Comparisons rather than min and max, whose care for NaN would keep this loop out of SIMD.
                    lowest = s if s < lowest else lowest
                    highest = s if s > highest else highest
                psum[r, n], low[n], high[n] = s, lowest, highest
            v += UNROLLED
        while v < blocks:
            for n in range(columns):
                s = psum[r, n] + parts[v, r, n]
                psum[r, n] = s
                low[n] = s if s < low[n] else low[n]
                high[n] = s if s > high[n] else high[n]
            v += 1


@njit
def add_wide(psum: F32, parts: F64, low: F32, high: F32, sums: F64, sum_bits: I64) -> None:
    """The same of float64 block sums. sums [N], sum_bits [N] : one piece of memory, as float64 and as int64."""
    blocks, rows, columns = parts.shape
    for r in range(rows):
        for v in range(blocks):
            inexact = 0
            for n in range(columns):
                x, y = np.float64(psum[r, n]), parts[v, r, n]
                s = x + y
                sums[n] = s
                # Taking the larger of the two from the rounded sum is exact, so that it leaves not quite the other one.
                inexact += (s - x != y) | (s - y != x)
            if inexact > 0:
                for n in range(columns):
                    x, y = np.float64(psum[r, n]), parts[v, r, n]
                    s = sums[n]
                    x_part = s - y
                    error = (x - x_part) + (y - (s - x_part))  # exactly what the float64 sum has lost (Knuth)
                    if error != 0.0 and (sum_bits[n] & 1) == 0:
                        # Rounded to odd: the odd neighbour on the side of what was lost.
                        sum_bits[n] += 1 if (s < 0) == (error < 0) else -1
            for n in range(columns):
                total = np.float32(sums[n])
                psum[r, n] = total
                low[n] = total if total < low[n] else low[n]
                high[n] = total if total > high[n] else high[n]


@njit
def close_float(acc: F32, psum: F32, low: F32, high: F32) -> None:
    """Add a fold's psums to the accumulators, watch these, and clear the psums."""
    rows, columns = acc.shape
    for r in range(rows):
        for n in range(columns):
            s = acc[r, n] + psum[r, n]
            psum[r, n] = 0
            acc[r, n] = s
            low[n] = s if s < low[n] else low[n]
            high[n] = s if s > high[n] else high[n]


# ------------------------------------------------------------------------------------- fixed-point registers


@njit
def rounded_row(values: Lanes, rounding: int, limited: bool, whole: F64) -> None:
    """Put values, rounded and limited as by the shifter in front of a fixed-point psum, into `whole`."""
    if rounding == 0:
        for n in range(whole.size):
            whole[n] = np.floor(np.float64(values[n]))
    elif rounding == 1:
        for n in range(whole.size):
            whole[n] = np.trunc(np.float64(values[n]))
    else:
        for n in range(whole.size):
            whole[n] = np.rint(np.float64(values[n]))  # ties to even
    if limited:
        limit = np.float64(SHIFTED_LIMIT)
        for n in range(whole.size):
            s = whole[n]
            s = limit if s > limit else s
            whole[n] = -limit if s < -limit else s


@njit
def add_fixed(
    psum: F64, parts: Lanes, first: int, per_group: int, last: int, rounding: int, limited: bool, whole: F64,
    low: F64, high: F64,
) -> None:  # fmt: skip
    """Add float block sums, in the psum's unit, to whole psums that a float64 holds exactly.

    first : number of the first block; per_group : blocks a group, after which psums are watched; last : the last block
    rounding, limited : of `rounded_row`; limited False where no sum can reach the limit
    """
    blocks, rows, columns = parts.shape
    for r in range(rows):
        for v in range(blocks):
            rounded_row(parts[v, r], rounding, limited, whole)
            if (first + v + 1) % per_group == 0 or first + v == last:
                for n in range(columns):
                    s = psum[r, n] + whole[n]
                    psum[r, n] = s
                    low[n] = s if s < low[n] else low[n]
                    high[n] = s if s > high[n] else high[n]
            else:
                for n in range(columns):
                    psum[r, n] += whole[n]


@njit
def close_fixed(acc: I64, psum: F64, low: I64, high: I64) -> None:
    """Add a fold's whole psums to the accumulators, watch these, and clear the psums."""
    rows, columns = acc.shape
    for r in range(rows):
        for n in range(columns):
            s = acc[r, n] + np.int64(psum[r, n])
            psum[r, n] = 0
            acc[r, n] = s
            low[n] = min(low[n], s)
            high[n] = max(high[n], s)


# ------------------------------------------------------------------------------------------ integer registers


@njit
def add_scaled(
    psum: I32, parts: F32, a_scales: I32, w_scales: I32, shift: int, first: int, per_group: int, last: int, low: I32,
    high: I32,
) -> None:  # fmt: skip
    """Add blocks' dot products times rounded products of their scales; no sum leaves int32.

    a_scales [R, B], w_scales [B, N] : of all blocks of K; first, per_group, last : as in `add_fixed`
    """
    blocks, rows, columns = parts.shape
    half = np.int32((1 << shift) >> 1)
    bits = np.int32(shift)
    for r in range(rows):
        for v in range(blocks):
            b = first + v
            scale = a_scales[r, b]
            if (b + 1) % per_group == 0 or b == last:
                for n in range(columns):
                    factor = np.int32(np.int32(np.int32(scale * w_scales[b, n]) + half) >> bits)
                    s = np.int32(psum[r, n] + np.int32(np.int32(parts[v, r, n]) * factor))
                    psum[r, n] = s
                    low[n] = min(low[n], s)
                    high[n] = max(high[n], s)
            else:
                for n in range(columns):
                    factor = np.int32(np.int32(np.int32(scale * w_scales[b, n]) + half) >> bits)
                    psum[r, n] += np.int32(np.int32(parts[v, r, n]) * factor)


@njit
def close_integer(acc: I32, psum: I32, low: I32, high: I32) -> None:
    """Add a fold's psums to the accumulators, watch these, and clear the psums."""
    rows, columns = acc.shape
    for r in range(rows):
        for n in range(columns):
            s = np.int32(acc[r, n] + psum[r, n])
            psum[r, n] = 0
            acc[r, n] = s
            low[n] = min(low[n], s)
            high[n] = max(high[n], s)


@njit
def column_norms(w: I32, size: int, norms: F32) -> None:
    """Write the Euclidean norms, rounded up, of chunks of `size` elements of the columns of w [K, N]: [chunks, N]."""
    length, columns = w.shape
    squares = np.empty(columns, np.float64)
    for c in range(norms.shape[0]):
        squares[:] = 0
        for k in range(c * size, min((c + 1) * size, length)):
            for n in range(columns):
                x = np.float64(w[k, n])
                squares[n] += x * x
        for n in range(columns):
            norms[c, n] = math.sqrt(squares[n]) * (1 + SLACK)


@njit
def row_norm(a: I32, m: int, start: int, stop: int) -> float:
    """Return the Euclidean norm, rounded up, of elements start..stop-1 of row m."""
    squares = 0.0
    for k in range(start, stop):
        x = np.float64(a[m, k])
        squares += x * x
    return math.sqrt(squares) * (1 + SLACK)


@njit
def walk_row(a: I32, w: I32, m: int, start: int, stop: int, group: int, psum: I32, best: I32) -> None:
    """Follow the psums [N] of row m, one group after another; widen best [2]: low, high."""
    low, high = best[0], best[1]
    for first in range(start, stop, group):
        for k in range(first, min(first + group, stop)):
            x = a[m, k]
            for n in range(psum.size):
                psum[n] += np.int32(x * w[k, n])
        for n in range(psum.size):
            low = min(low, psum[n])
            high = max(high, psum[n])
    best[0], best[1] = low, high


@njit
def walk_output(a: I32, w: I32, m: int, n: int, start: int, stop: int, group: int, before: int, best: I32) -> None:
    """The same of one output, whose psum is `before`."""
    s = np.int32(before)
    for first in range(start, stop, group):
        for k in range(first, min(first + group, stop)):
            s = np.int32(s + np.int32(a[m, k] * w[k, n]))
        best[0] = min(best[0], s)
        best[1] = max(best[1], s)


@njit
def add_chunk(
    psum: I32, part: F32, a: I32, w: I32, first_row: int, start: int, stop: int, group: int, w_norms: F32, walked: I32,
    best: I32,
) -> None:  # fmt: skip
    """Add the sums of a chunk of groups to the psums [R, N], and widen best [2] by what psums were within the chunk.

    Between a chunk's ends, where a psum is p and q, it is nowhere beyond (p + q + t) / 2, where t, the sum of the
    products' magnitudes, is at most the product of the two vectors' norms (Cauchy and Schwarz). Only psums for which
    that is beyond what was seen already are followed group by group.

    part [R, N] : sums of elements start..stop-1; a [M, K], w [K, N] : the operands; w_norms [N] : of the chunk
    walked [N] : working memory
    """
    rows, columns = psum.shape
    inner = stop - start > group
    for r in range(rows):
        low, high = best[0], best[1]
        for n in range(columns):
            s = np.int32(psum[r, n] + np.int32(part[r, n]))
            low = min(low, s)
            high = max(high, s)
        best[0], best[1] = low, high
        if inner:
            norm = np.float32(row_norm(a, first_row + r, start, stop))
            # p and q lie within the extremes: all float32 roundings below are covered by this.
            slack = 2 * max(-np.float64(low), np.float64(high)) * SLACK
            above, below = np.float32(2 * np.float64(high) - slack), np.float32(2 * np.float64(low) + slack)
            candidates = 0
            for n in range(columns):
                p, q = np.float32(psum[r, n]), np.float32(part[r, n])
                both, reach = p + p + q, norm * w_norms[n]
                candidates += (both + reach > above) | (both - reach < below)
            if candidates * 16 > columns:
                for n in range(columns):
                    walked[n] = psum[r, n]
                walk_row(a, w, first_row + r, start, stop, group, walked, best)
            elif candidates > 0:
                for n in range(columns):
                    p, q = np.float32(psum[r, n]), np.float32(part[r, n])
                    both, reach = p + p + q, norm * w_norms[n]
                    if (both + reach > above) | (both - reach < below):
                        walk_output(a, w, first_row + r, n, start, stop, group, psum[r, n], best)
        for n in range(columns):
            psum[r, n] += np.int32(part[r, n])
