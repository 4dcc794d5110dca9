"""Registers that cannot overflow, followed block by block, or from sums that a matrix product delivered.

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
from accelsim._lanes import add_rounded, add_scaled, add_whole, add_whole_limited
from accelsim._lanes import close_fold as close_blocks

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Lanes = NDArray[Any]
COLUMNS = 64
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
    """The same of [K, N] lanes and factors [B, N], into blocks of 64 columns [Q, K * 64], of which the rest is left."""
    length, columns = lanes.shape
    for q in range(scaled.shape[0]):
        many = min(COLUMNS, columns - q * COLUMNS)
        for k in range(length):
            v = k // size
            row, factor = lanes[k, q * COLUMNS : q * COLUMNS + many], factors[v, q * COLUMNS : q * COLUMNS + many]
            packed = scaled[q, k * COLUMNS : k * COLUMNS + many]
            for n in range(np.uintp(many)):
                packed[n] = row[n]
                packed[n] *= factor[n]


# ------------------------------------------------------------------------------------------ registers of blocks


@njit
def open_columns(state: Lanes, held: Lanes, q: int, columns: int) -> tuple[int, int]:
    """Clear registers and extremes for a block of columns; return its first column, and how many there are."""
    state[:] = 0
    held[:] = 0
    return q * COLUMNS, min(COLUMNS, columns - q * COLUMNS)


@njit
def keep_extremes(state: Lanes, column: int, many: int, low: Lanes, high: Lanes) -> None:
    """Widen low, high [N] by what loops over blocks have found."""
    for j in range(many):
        low[column + j] = min(low[column + j], state[1, j])
        high[column + j] = max(high[column + j], state[1, COLUMNS + j])


@njit
def float_rows(
    a: Lanes, w: Lanes, first_row: int, last_row: int, size: int, blocks_per_fold: int, bias: F32, extremes: F32,
    out: F32,
) -> None:  # fmt: skip
    """Add blocks' sums of products, exact in the operands' dtype, to float32 registers. Nothing may overflow.

    a [M, K], w [Q, K * 64] : float32 or float64; w in blocks of columns, the last completed with zeros
    bias [N] : what accumulators are preloaded with
    extremes [4, N] : psum low, high; accumulator low, high; widened
    out [M, N] : accumulators of rows first_row .. last_row - 1; written
    """
    length, fold = a.shape[1], size * blocks_per_fold
    state, held = np.zeros((2, 2 * COLUMNS), np.float32), np.zeros((2, 2 * COLUMNS), np.float32)
    for q in range(w.shape[0]):
        column, many = open_columns(state, held, q, out.shape[1])
        for m in range(first_row, last_row, 2):
            other = min(m + 1, last_row - 1)  # an odd row out is computed beside itself
            held[0, :many] = bias[column : column + many]
            held[0, COLUMNS : COLUMNS + many] = bias[column : column + many]
            for start in range(0, length, fold):
                add_rounded(a, m, other, start, min(start + fold, length), w[q], state, size, 1)
                close_blocks(state, held)
            out[m, column : column + many] = held[0, :many]
            out[other, column : column + many] = held[0, COLUMNS : COLUMNS + many]
        keep_extremes(state, column, many, extremes[0], extremes[1])
        keep_extremes(held, column, many, extremes[2], extremes[3])


@njit
def fixed_rows(
    a: Lanes, w: Lanes, first_row: int, last_row: int, size: int, per_group: int, blocks_per_fold: int, rounding: int,
    limit: float, extremes: I64, out: I64,
) -> None:  # fmt: skip
    """Add blocks' sums, in the psum's unit, each rounded and within +-limit, to registers, all below 2^53.

    per_group : blocks a group, after which psums are watched
    rounding : 0 down, 1 towards zero, 2 nearest, ties to even
    extremes [4, N], out [M, N] : less the bias
    The rest as in `float_rows`.
    """
    length, fold = a.shape[1], size * blocks_per_fold
    state, held = np.zeros((2, 2 * COLUMNS), np.float64), np.zeros((2, 2 * COLUMNS), np.float64)
    for q in range(w.shape[0]):
        column, many = open_columns(state, held, q, out.shape[1])
        for m in range(first_row, last_row, 2):
            other = min(m + 1, last_row - 1)
            held[0] = 0
            for start in range(0, length, fold):
                stop = min(start + fold, length)
                add_whole(a, m, other, start, stop, w[q], state, size, per_group, rounding, limit)
                close_blocks(state, held)
            for j in range(many):
                out[m, column + j] = np.int64(held[0, j])
                out[other, column + j] = np.int64(held[0, COLUMNS + j])
        keep_extremes(state, column, many, extremes[0], extremes[1])
        keep_extremes(held, column, many, extremes[2], extremes[3])


@njit
def accumulate_whole(psums: F64, acc: F64, counts: F64, low: float, high: float, saturates: bool) -> None:
    """Add psums [128] to accumulators of limited width, count what does not fit, and clear the psums."""
    span = high - low + 1.0
    part = 1.0 / span  # exactly: a power of two
    for j in range(np.uintp(2 * COLUMNS)):
        exact = acc[j] + psums[j]
        held = exact
        if saturates:
            held = high if exact > high else held
            held = low if exact < low else held
        else:
            held = exact - span * np.floor((exact - low) * part)
        counts[j] += np.float64(exact != held)
        acc[j] = held
        psums[j] = 0


@njit
def count_row(counts: F64, m: int, first_row: int) -> tuple[int, int]:
    """Return a row's overflows, and the first row that has any: this one, or what it was (-1: none)."""
    total = 0.0
    for j in range(counts.size):
        total += counts[j]
    return np.int64(total), m if total > 0 and (first_row < 0 or m < first_row) else first_row


@njit
def limited_fixed_rows(
    a: Lanes, w: Lanes, first_row: int, last_row: int, size: int, blocks_per_fold: int, rounding: int, limit: float,
    low: float, high: float, saturates: bool, acc_low: float, acc_high: float, acc_saturates: bool, bias: F64, out: I64,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Add blocks' sums as in `fixed_rows`, each a group, in registers of limited width.

    low, high, saturates : the psum's limits and policy; acc_* : the accumulator's
    bias [N] : what accumulators hold before
    Returns the overflows of psums and accumulators, and the first row with one of either, -1 if there is none.
    """
    length, fold = a.shape[1], size * blocks_per_fold
    state, acc, acc_counts = np.zeros((2, 2 * COLUMNS)), np.zeros(2 * COLUMNS), np.zeros(2 * COLUMNS)
    overflows, acc_overflows, row, acc_row = 0, 0, -1, -1
    for q in range(w.shape[0]):
        column = q * COLUMNS
        many = min(COLUMNS, out.shape[1] - column)
        for m in range(first_row, last_row, 2):
            other = min(m + 1, last_row - 1)
            acc[:many] = bias[column : column + many]
            acc[COLUMNS : COLUMNS + many] = bias[column : column + many]
            for start in range(0, length, fold):
                stop = min(start + fold, length)
                add_whole_limited(
                    a, m, other, start, stop, w[q], state, size, 1, rounding, limit, low, high, np.int64(saturates)
                )
                accumulate_whole(state[0], acc, acc_counts, acc_low, acc_high, acc_saturates)
            for r in range(other - m + 1):
                mine = slice(r * COLUMNS, (r + 1) * COLUMNS)
                found, row = count_row(state[1, mine], m + r, row)
                acc_found, acc_row = count_row(acc_counts[mine], m + r, acc_row)
                overflows, acc_overflows = overflows + found, acc_overflows + acc_found
                for j in range(many):
                    out[m + r, column + j] = np.int64(acc[r * COLUMNS + j])
            state[1] = 0
            acc_counts[:] = 0
    return overflows, acc_overflows, row, acc_row


@njit
def scaled_sums(
    a: Lanes, w: Lanes, first_row: int, last_row: int, size: int, per_group: int, blocks_per_fold: int, a_scales: I32,
    w_scales: I32, shift: int, extremes: I64, out: I64,
) -> None:  # fmt: skip
    """Add blocks' sums of products (int16, or float32) times rounded products of their scales; no sum leaves int32.

    a_scales [M, B], w_scales [Q, B * 64] : of all blocks of K; a product of two loses `shift` bits
    The rest as in `fixed_rows`.
    """
    length, fold = a.shape[1], size * blocks_per_fold
    state, held = np.zeros((2, 2 * COLUMNS), np.int32), np.zeros((2, 2 * COLUMNS), np.int32)
    for q in range(w.shape[0]):
        column, many = open_columns(state, held, q, out.shape[1])
        for m in range(first_row, last_row, 2):
            other = min(m + 1, last_row - 1)
            held[0] = 0
            for start in range(0, length, fold):
                stop = min(start + fold, length)
                add_scaled(a, m, other, start, stop, w[q], state, size, per_group, a_scales, w_scales[q], shift)
                close_blocks(state, held)
            for j in range(many):
                out[m, column + j] = held[0, j]
                out[other, column + j] = held[0, COLUMNS + j]
        keep_extremes(state, column, many, extremes[0], extremes[1])
        keep_extremes(held, column, many, extremes[2], extremes[3])


# ------------------------------------------------------------------------------------------ integer registers


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
