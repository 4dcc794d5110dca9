"""Registers of a tile of rows, from sums of blocks that a matrix product delivered: trajectories without limits.

A tile is [R, N], all columns of a few rows, small enough to stay in the cache; parts [B, R, N] are the sums of B
consecutive blocks (or groups), in the order of k. Extremes are widened, 0 included where they start at 0.
"""

# mypy: disable-error-code="arg-type, assignment, no-any-return, return-value"
# To Numba a NumPy scalar and a Python int are one thing; to a type checker they are not.

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
                scaled[m, k] = lanes[m, k]
                scaled[m, k] *= factor  # in its own type


@njit
def scaled_columns(lanes: I32, factors: Lanes, size: int, scaled: Lanes) -> None:
    """The same of [K, N] lanes and factors [B, N]."""
    length, columns = lanes.shape
    for k in range(length):
        v = k // size
        for n in range(columns):
            scaled[k, n] = lanes[k, n]
            scaled[k, n] *= factors[v, n]


# ------------------------------------------------------------------------------------------ float32 registers


@njit
def add_many(psum: F32, parts: F32, v: int, r: int, low: F32, high: F32) -> None:
    """Add `UNROLLED` float32 block sums from v on to a row of psums [N]."""
    for n in range(psum.size):
        s, lowest, highest = psum[n], low[n], high[n]
        for u in range(UNROLLED):
            s += parts[v + u, r, n]
            # Comparisons rather than min and max, whose care for NaN would keep this loop out of SIMD.
            lowest = s if s < lowest else lowest
            highest = s if s > highest else highest
        psum[n], low[n], high[n] = s, lowest, highest


@njit
def add_two(psum: F32, parts: F32, v: int, r: int, low: F32, high: F32) -> None:
    """The same of two block sums."""
    for n in range(psum.size):
        s, lowest, highest = psum[n], low[n], high[n]
        for u in range(2):
            s += parts[v + u, r, n]
            lowest = s if s < lowest else lowest
            highest = s if s > highest else highest
        psum[n], low[n], high[n] = s, lowest, highest


@njit
def add_one(psum: F32, part: F32, low: F32, high: F32) -> None:
    """The same of one."""
    for n in range(psum.size):
        s = psum[n] + part[n]
        psum[n] = s
        low[n] = s if s < low[n] else low[n]
        high[n] = s if s > high[n] else high[n]


@njit
def fold_end(block: int, blocks_per_fold: int, count: int) -> int:
    """Return one past the last block of the fold that `block` is in."""
    return min((block // blocks_per_fold + 1) * blocks_per_fold, count)


@njit
def add_narrow(
    psum: F32, acc: F32, parts: F32, first: int, blocks_per_fold: int, count: int, extremes: F32
) -> None:  # fmt: skip
    """Add float32 block sums to float32 psums, and each fold's psum to the accumulator. Nothing may overflow.

    first, count : number of the first block, and all blocks of K
    extremes [4, N] : psum low, high; accumulator low, high
    """
    blocks, rows, _ = parts.shape
    low, high, acc_low, acc_high = extremes[0], extremes[1], extremes[2], extremes[3]
    for r in range(rows):
        held = psum[r]
        v = 0
        while v < blocks:
            end = fold_end(first + v, blocks_per_fold, count)
            stop = min(end - first, blocks)
            while v + UNROLLED <= stop:
                add_many(held, parts, v, r, low, high)
                v += UNROLLED
            if v + 2 <= stop:
                add_two(held, parts, v, r, low, high)
                v += 2
            while v < stop:
                add_one(held, parts[v, r], low, high)
                v += 1
            if first + v == end:
                add_one(acc[r], held, acc_low, acc_high)
                held[:] = 0


@njit
def add_wide(
    psum: F32, acc: F32, parts: F64, first: int, blocks_per_fold: int, count: int, extremes: F32, sums: F64,
    sum_bits: I64,
) -> None:  # fmt: skip
    """The same of float64 block sums. sums [N], sum_bits [N] : one piece of memory, as float64 and as int64."""
    blocks, rows, columns = parts.shape
    low, high, acc_low, acc_high = extremes[0], extremes[1], extremes[2], extremes[3]
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
            if first + v + 1 == fold_end(first + v, blocks_per_fold, count):
                add_one(acc[r], psum[r], acc_low, acc_high)
                psum[r] = 0


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
    psum: F64, acc: F64, parts: Lanes, first: int, per_group: int, blocks_per_fold: int, count: int, rounding: int,
    limited: bool, whole: F64, extremes: F64,
) -> None:  # fmt: skip
    """Add float block sums, in the psum's unit, to whole psums, and each fold's to the accumulator, all below 2^53.

    per_group : blocks a group, after which psums are watched
    rounding, limited : of `rounded_row`; limited False where no sum can reach the limit
    The rest as in `add_narrow`.
    """
    blocks, rows, columns = parts.shape
    low, high, acc_low, acc_high = extremes[0], extremes[1], extremes[2], extremes[3]
    for r in range(rows):
        for v in range(blocks):
            block = first + v
            end = block + 1 == fold_end(block, blocks_per_fold, count)
            rounded_row(parts[v, r], rounding, limited, whole)
            if end or (block + 1) % per_group == 0:
                for n in range(columns):
                    s = psum[r, n] + whole[n]
                    psum[r, n] = s
                    low[n] = s if s < low[n] else low[n]
                    high[n] = s if s > high[n] else high[n]
            else:
                for n in range(columns):
                    psum[r, n] += whole[n]
            if end:
                for n in range(columns):
                    s = acc[r, n] + psum[r, n]
                    psum[r, n] = 0
                    acc[r, n] = s
                    acc_low[n] = s if s < acc_low[n] else acc_low[n]
                    acc_high[n] = s if s > acc_high[n] else acc_high[n]


# ------------------------------------------------------------------------------------------ integer registers


@njit
def add_dots(
    psum: I32, dots: F32, scale: int, w_scales: I32, shift: int, low: I32, high: I32
) -> None:  # fmt: skip
    """Add a block's dot products [N] times rounded products of scales to psums, and watch them."""
    bits, factor = np.int32(shift) & np.int32(31), np.int32(scale)  # tells the compiler that 32-bit shifts will do
    half = np.int32((np.int32(1) << bits) >> np.int32(1))
    for n in range(psum.size):
        rounded = np.int32(np.int32(np.int32(factor * w_scales[n]) + half) >> bits)
        s = np.int32(psum[n] + np.int32(np.int32(dots[n]) * rounded))
        psum[n] = s
        low[n] = min(low[n], s)
        high[n] = max(high[n], s)


@njit
def add_many_dots(
    psum: I32, parts: F32, v: int, r: int, a_scales: I32, w_scales: I32, block: int, shift: int, low: I32, high: I32
) -> None:  # fmt: skip
    """The same of `UNROLLED` blocks, one after another, each of which is a group."""
    bits = np.int32(shift) & np.int32(31)
    half = np.int32((np.int32(1) << bits) >> np.int32(1))
    for n in range(psum.size):
        s, lowest, highest = psum[n], low[n], high[n]
        for u in range(UNROLLED):
            rounded = np.int32(np.int32(np.int32(a_scales[r, block + u] * w_scales[block + u, n]) + half) >> bits)
            s = np.int32(s + np.int32(np.int32(parts[v + u, r, n]) * rounded))
            lowest = min(lowest, s)
            highest = max(highest, s)
        psum[n], low[n], high[n] = s, lowest, highest


@njit
def add_more_dots(psum: I32, dots: F32, scale: int, w_scales: I32, shift: int) -> None:
    """The same within a group, where no psum is complete."""
    bits, factor = np.int32(shift) & np.int32(31), np.int32(scale)
    half = np.int32((np.int32(1) << bits) >> np.int32(1))
    for n in range(psum.size):
        rounded = np.int32(np.int32(np.int32(factor * w_scales[n]) + half) >> bits)
        psum[n] = np.int32(psum[n] + np.int32(np.int32(dots[n]) * rounded))


@njit
def add_watched(held: I32, addend: I32, low: I32, high: I32) -> None:
    """Add a row [N] to registers, and watch them."""
    for n in range(held.size):
        s = np.int32(held[n] + addend[n])
        held[n] = s
        low[n] = min(low[n], s)
        high[n] = max(high[n], s)


@njit
def add_scaled(
    psum: I32, acc: I32, parts: F32, first: int, per_group: int, blocks_per_fold: int, count: int, a_scales: I32,
    w_scales: I32, shift: int, extremes: I32,
) -> None:  # fmt: skip
    """Add blocks' dot products times rounded products of their scales; no sum leaves int32.

    a_scales [R, B], w_scales [B, N] : of all blocks of K
    The rest as in `add_fixed`.
    """
    blocks, rows, _ = parts.shape
    for r in range(rows):
        v = 0
        while v < blocks:
            block = first + v
            stop = fold_end(block, blocks_per_fold, count)
            if per_group == 1 and v + UNROLLED <= blocks and block + UNROLLED <= stop:
                add_many_dots(psum[r], parts, v, r, a_scales, w_scales, block, shift, extremes[0], extremes[1])
                v += UNROLLED
            else:
                scale = a_scales[r, block]
                if block + 1 == stop or (block + 1) % per_group == 0:
                    add_dots(psum[r], parts[v, r], scale, w_scales[block], shift, extremes[0], extremes[1])
                else:
                    add_more_dots(psum[r], parts[v, r], scale, w_scales[block], shift)
                v += 1
            if first + v == stop:
                add_watched(acc[r], psum[r], extremes[2], extremes[3])
                psum[r] = 0


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
def norm_of(lanes: I32) -> float:
    """Return the Euclidean norm, rounded up, of lanes whose squares add up to less than 2^62."""
    squares = 0
    for k in range(lanes.size):
        squares += np.int64(lanes[k]) * lanes[k]
    return math.sqrt(squares) * (1 + SLACK)


@njit
def chunk_ends(psum: I32, part: F32) -> tuple[int, int]:
    """Return the extremes of psum + part; 0 included."""
    low, high = np.int32(0), np.int32(0)
    for n in range(psum.size):
        s = np.int32(psum[n] + np.int32(part[n]))
        low = min(low, s)
        high = max(high, s)
    return low, high


@njit
def count_beyond(psum: I32, part: F32, norm: float, w_norms: F32, below: float, above: float) -> int:
    """Return how many psums may have been beyond below / 2 or above / 2 within a chunk; see `add_chunk`."""
    count = np.int32(0)
    for n in range(psum.size):
        p = np.float32(psum[n])
        both, reach = p + p + part[n], norm * w_norms[n]
        count = np.int32(count + np.int32((both + reach > above) | (both - reach < below)))
    return count


@njit
def move_chunk(psum: I32, part: F32) -> None:
    """Add a row of a chunk's sums to psums [N]."""
    for n in range(psum.size):
        psum[n] = np.int32(psum[n] + np.int32(part[n]))


@njit
def close_fold(psum: I32, part: F32, acc: I32, low: I32, high: I32) -> None:
    """Add psum + part to accumulators [N], and watch them; clear the psums."""
    for n in range(psum.size):
        s = np.int32(acc[n] + np.int32(psum[n] + np.int32(part[n])))
        psum[n] = 0
        acc[n] = s
        low[n] = min(low[n], s)
        high[n] = max(high[n], s)


@njit
def walk_row(a: I32, w: I32, m: int, start: int, stop: int, group: int, psum: I32, best: I32) -> float:
    """Follow the psums [N] of row m group by group; widen best [2]: low, high; return the largest magnitude."""
    low, high = np.int32(0), np.int32(0)
    for first in range(start, stop, group):
        for k in range(first, min(first + group, stop)):
            x = a[m, k]
            for n in range(psum.size):
                psum[n] += np.int32(x * w[k, n])
        for n in range(psum.size):
            low = min(low, psum[n])
            high = max(high, psum[n])
    best[0], best[1] = min(best[0], low), max(best[1], high)
    return max(-np.float64(low), np.float64(high))


@njit
def walk_output(a: I32, w: I32, m: int, n: int, start: int, stop: int, group: int, before: int, best: I32) -> float:
    """The same of one output, whose psum is `before`; return the largest magnitude that it had."""
    s, low, high = np.int32(before), np.int32(0), np.int32(0)
    for first in range(start, stop, group):
        for k in range(first, min(first + group, stop)):
            s = np.int32(s + np.int32(a[m, k] * w[k, n]))
        low, high = min(low, s), max(high, s)
    best[0], best[1] = min(best[0], low), max(best[1], high)
    return max(-np.float64(low), np.float64(high))


@njit
def walk_some(
    a: I32, w: I32, m: int, start: int, stop: int, group: int, psum: I32, part: F32, norm: float, w_norms: F32,
    below: float, above: float, best: I32,
) -> float:  # fmt: skip
    """The same of the outputs of a row that `count_beyond` counts."""
    peak = 0.0
    for n in range(psum.size):
        p = np.float32(psum[n])
        both, reach = p + p + part[n], norm * w_norms[n]
        if both + reach > above or both - reach < below:
            peak = max(peak, walk_output(a, w, m, n, start, stop, group, psum[n], best))
    return peak


@njit
def add_chunk(
    psum: I32, acc: I32, part: F32, a: I32, w: I32, first_row: int, start: int, stop: int, group: int, closes: bool,
    w_norms: F32, limit: float, walked: I32, best: I32, acc_low: I32, acc_high: I32, unsafe: NDArray[np.bool_],
    watched: bool,
) -> None:  # fmt: skip
    """Add the sums of a chunk of groups to the psums [R, N], and widen best [2] by what psums were within the chunk.

    Between a chunk's ends, where a psum is p and q, it is nowhere beyond (p + q + t) / 2, where t, the sum of the
    products' magnitudes, is at most the product of the two vectors' norms (Cauchy and Schwarz). Only psums for which
    that is beyond what was seen already are followed group by group.

    part [R, N] : sums of elements start..stop-1; a [M, K], w [K, N] : the operands; w_norms [N] : of the chunk
    closes : whether the fold ends: psums move to the accumulators [R, N], whose extremes are widened
    limit : the psum register's largest magnitude
    walked [N] : working memory
    watched : whether to look between the chunk's ends
    unsafe [M] : set where a row's psum may have been beyond the limit
    """
    rows, columns = psum.shape
    inner = watched and stop - start > group
    for r in range(rows):
        m = first_row + r
        row_low, row_high = chunk_ends(psum[r], part[r])
        if row_low < -limit or row_high > limit:
            unsafe[m] = True
        best[0], best[1] = min(best[0], row_low), max(best[1], row_high)
        if inner:
            norm = np.float32(norm_of(a[m, start:stop]))
            # p and q lie within the extremes: all float32 roundings of `count_beyond` are covered by this.
            slack = 2 * max(-np.float64(best[0]), np.float64(best[1])) * SLACK
            above, below = np.float32(2 * np.float64(best[1]) - slack), np.float32(2 * np.float64(best[0]) + slack)
            most = np.float32(2 * limit - slack)
            candidates = count_beyond(psum[r], part[r], norm, w_norms, below, above)
            if candidates * 16 > columns:
                for n in range(columns):
                    walked[n] = psum[r, n]
                if walk_row(a, w, m, start, stop, group, walked, best) > limit:
                    unsafe[m] = True
            else:
                if not unsafe[m] and (most < above or -most > below):
                    beyond = count_beyond(psum[r], part[r], norm, w_norms, -most, most)
                    if beyond * 16 > columns:
                        unsafe[m] = True  # perhaps: to know would take longer
                    elif beyond > 0:
                        above, below = min(above, most), max(below, -most)
                        candidates += beyond
                if (
                    candidates > 0
                    and walk_some(a, w, m, start, stop, group, psum[r], part[r], norm, w_norms, below, above, best)
                    > limit
                ):
                    unsafe[m] = True
        if closes:
            close_fold(psum[r], part[r], acc[r], acc_low, acc_high)
        else:
            move_chunk(psum[r], part[r])
