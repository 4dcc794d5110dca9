"""Registers of blocks: each block's exact sum of products is an addition to a psum. Four rows at a time.

Extremes are widened, 0 included where they start at 0.
"""

# mypy: disable-error-code="arg-type, assignment, no-any-return, return-value"
# To Numba a NumPy scalar and a Python int are one thing; to a type checker they are not.

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim._float_block_lanes import add_aligned, add_fitting, add_rounded
from accelsim._jit import njit
from accelsim._whole_block_lanes import add_scaled, add_signs, add_whole, add_whole_limited

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
Lanes = NDArray[Any]
TOGETHER = 4  # rows that a loop over blocks works at once
# More than the roundings of a norm, as a part of it.
SLACK = 2.0**-20
# More than what so many additions, each rounded to float32, add to a sum of magnitudes, as a part of it.
ROUNDING_SLACK, MOST_ADDITIONS = 2.0**-10, 1 << 13
NO_EXPONENT = -(1 << 28)  # of a lane that is zero: far below all others, and two of them fit int32


@njit
def scaled_columns(lanes: I32, factors: Lanes, size: int, column: int, scaled: Lanes) -> int:
    """Write columns from `column` on of [K, N] lanes times the factors [B, N] of their blocks, into [K, C]; all
    products are exact. Columns that there are not are zero. Returns how many there are.
    """
    many = min(scaled.shape[1], lanes.shape[1] - column)
    if many < scaled.shape[1]:
        scaled[:] = 0
    first = np.uintp(column)
    for v in range(factors.shape[0]):
        factor = factors[v]
        for k in range(np.uintp(v * size), np.uintp(min((v + 1) * size, lanes.shape[0]))):
            for n in range(np.uintp(many)):
                x = scaled.dtype.type(lanes[k, first + n])
                scaled[k, n] = x * factor[first + n]
    return many


@njit
def magnitude_bits(lanes: I32) -> int:
    """Return a number whose highest bit is that of the largest magnitude; of -2^n, that of 2^n - 1."""
    bits = np.int32(0)
    for k in range(lanes.size):
        bits |= lanes[k] ^ (lanes[k] >> np.int32(31))
    return bits


@njit
def norm_of(lanes: I32) -> float:
    """Return the Euclidean norm, rounded up, of lanes whose squares add up to less than 2^63."""
    squares = np.int64(0)
    for k in range(lanes.size):
        squares += np.int64(lanes[k]) * np.int64(lanes[k])
    return math.sqrt(squares) * (1 + SLACK)


@njit
def reach_of_rows(lanes: I32, factors: F64, units: F64, size: int, reach: F64) -> None:
    """Write how far the blocks of four rows of [M, K] reach: [2, quads, B], the largest of their Euclidean norms,
    rounded up, and the smallest of their units; infinite units of blocks that are zero.

    factors, units [M, B] : what a block's lanes are multiplied by, a whole number of units
    """
    rows, length = lanes.shape
    reach[0], reach[1] = 0, np.inf
    for m in range(rows):
        row, largest, least = lanes[m], reach[0, m // TOGETHER], reach[1, m // TOGETHER]
        peak = 2 * np.float64(magnitude_bits(row)) + 1
        fits = peak * peak * size < 2.0**62
        for v in range(largest.size):
            norm = norm_of(row[v * size : min((v + 1) * size, length)]) if fits else np.inf
            norm *= factors[m, v]
            if norm > 0:
                largest[v], least[v] = max(largest[v], norm), min(least[v], units[m, v])


@njit
def reach_of_columns(lanes: I32, factors: F64, units: F64, size: int, width: int, reach: F64) -> None:
    """The same of `width` columns of [K, N] at a time: [2, Q, B].

    factors, units [B, N]
    """
    length, columns = lanes.shape
    squares = np.empty(columns, np.float32)
    roundings = 1 + (size + 3) * 2.0**-23  # more than those of so many float32 squares and their sum
    for v in range(reach.shape[2]):
        squares[:] = 0
        for k in range(v * size, min((v + 1) * size, length)):
            for n in range(columns):
                x = np.float32(lanes[k, n])
                squares[n] += x * x
        for q in range(reach.shape[1]):
            largest, least = 0.0, np.inf
            for n in range(q * width, min(q * width + width, columns)):
                norm = math.sqrt(np.float64(squares[n])) * factors[v, n]
                if norm > 0:
                    largest, least = max(largest, norm), min(least, units[v, n])
            reach[0, q, v], reach[1, q, v] = largest * roundings, least


@njit
def sums_fit(a_reach: F64, w_reach: F64, quad: int, q: int, blocks_per_fold: int) -> bool:
    """Return whether the sums of a fold, rounded to float32 after each block, are always float64 numbers.

    They are whole multiples of the smallest unit of the fold's products, and so they are where these add up (by the
    inequality of Cauchy and Schwarz) to less than 2^53 of them.
    """
    if blocks_per_fold > MOST_ADDITIONS:
        return False
    for fold in range(0, a_reach.shape[2], blocks_per_fold):
        total, unit = 0.0, np.inf
        for v in range(fold, min(fold + blocks_per_fold, a_reach.shape[2])):
            total += a_reach[0, quad, v] * w_reach[0, q, v]
            unit = min(unit, a_reach[1, quad, v] * w_reach[1, q, v])
        if not total * (1 + ROUNDING_SLACK) < 2.0**53 * unit:
            return False
    return True


# ------------------------------------------------------------------------------------------ registers of blocks

# a [M, K] and w [K, N] are int32, and a_factors [M, B] and w_factors [B, N] what their blocks are multiplied by,
# float32 or float64: the type in which products are added. Columns are worked in blocks of `width`. Rows first_row ..
# last_row - 1 of out [M, N] are written; extremes [4, N], lows and highs of psums (of any column) and of accumulators,
# are widened.


@njit
def preload(bias: Lanes, column: int, many: int, acc: Lanes) -> None:
    """Put what accumulators hold at first, bias [N], into four rows of a block of columns."""
    for r in range(TOGETHER):
        for j in range(np.uintp(many)):
            acc[r, j] = bias[np.uintp(column) + j]


@njit
def keep_rows(acc: Lanes, first_row: int, last_row: int, column: int, many: int, out: Lanes) -> None:
    """Put four rows of a block of columns, or those before last_row, into out [M, N]."""
    for r in range(min(TOGETHER, last_row - first_row)):
        row = out[first_row + r]
        for j in range(np.uintp(many)):
            row[np.uintp(column) + j] = row.dtype.type(acc[r, j])


@njit
def keep_extremes(watched: Lanes, column: int, many: int, extremes: Lanes) -> None:
    """Widen extremes [4, N] by what a loop over blocks has found: psums', of all columns, in the first one."""
    for j in range(watched.shape[1]):
        extremes[0, column] = min(extremes[0, column], watched[0, j])
        extremes[1, column] = max(extremes[1, column], watched[1, j])
    for j in range(many):
        extremes[2, column + j] = min(extremes[2, column + j], watched[2, j])
        extremes[3, column + j] = max(extremes[3, column + j], watched[3, j])


@njit
def float_rows(
    a: I32, w: I32, a_factors: Lanes, w_factors: Lanes, width: int, first_row: int, last_row: int, size: int,
    blocks_per_fold: int, fine: bool, a_reach: F64, w_reach: F64, bias: F32, extremes: F32, out: F32,
) -> None:  # fmt: skip
    """Add blocks' sums of products, exact in the factors' type, to float32 registers. Nothing may overflow.

    fine : whether sums may have bits below 2**-149
    a_reach [2, quads of rows, B], w_reach [2, Q, B] : of float64 sums (reach_of_rows, reach_of_columns)
    bias [N] : what accumulators are preloaded with
    """
    block = np.zeros((w.shape[0], width), w_factors.dtype)
    acc, watched = np.zeros((TOGETHER, width), np.float32), np.zeros((4, width), np.float32)
    for column in range(0, w.shape[1], width):
        many = scaled_columns(w, w_factors, size, column, block)
        watched[:] = 0
        acc[:] = 0
        for m in range(first_row, last_row, TOGETHER):
            preload(bias, column, many, acc)
            if sums_fit(a_reach, w_reach, m // TOGETHER, column // width, blocks_per_fold):
                add_fitting(a, m, last_row, block, size, 1, blocks_per_fold, acc, watched, a_factors)
            else:
                add_rounded(a, m, last_row, block, size, 1, blocks_per_fold, acc, watched, a_factors, fine)
            keep_rows(acc, m, last_row, column, many, out)
        keep_extremes(watched, column, many, extremes)


@njit
def aligned_lanes(lanes: I32, exponents: I32, powers: F64, reals: F64, known: I32) -> tuple[int, int]:
    """Write [M, K] lanes times 2**exponents to `reals`, and exponents to `known`, but NO_EXPONENT where a lane is zero.

    powers : 2**e at index e + powers.size // 2
    Returns the lowest and the highest exponent of lanes that are not zero; (0, 0) where all are.
    """
    middle = np.uintp(powers.size // 2)
    low, high = np.int32(-NO_EXPONENT), np.int32(NO_EXPONENT)
    for m in range(lanes.shape[0]):
        for k in range(np.uintp(lanes.shape[1])):
            x, e = lanes[m, k], exponents[m, k]
            reals[m, k] = x * powers[np.uintp(e + middle)]
            known[m, k] = e if x != 0 else np.int32(NO_EXPONENT)
            low, high = min(low, e if x != 0 else np.int32(-NO_EXPONENT)), max(high, known[m, k])
    return (low, high) if low <= high else (0, 0)


@njit
def spans_of_rows(known: I32, size: int, spans: I32) -> None:
    """Write by how much the exponents of the blocks of rows differ, at most among four rows: [quads, B]."""
    rows, length = known.shape
    spans[:] = 0
    for m in range(rows):
        for v in range(spans.shape[1]):
            low, high = np.int32(-NO_EXPONENT), np.int32(NO_EXPONENT)
            for k in range(v * size, min((v + 1) * size, length)):
                e = known[m, k]
                low, high = min(low, e if e != NO_EXPONENT else np.int32(-NO_EXPONENT)), max(high, e)
            spans[m // TOGETHER, v] = max(spans[m // TOGETHER, v], high - low)


@njit
def spans_of_columns(known: I32, size: int, width: int, spans: I32) -> None:
    """The same of `width` columns of [K, N] at a time: [Q, B]."""
    length, columns = known.shape
    lows, highs = np.empty(columns, np.int32), np.empty(columns, np.int32)
    for v in range(spans.shape[1]):
        lows[:], highs[:] = -NO_EXPONENT, NO_EXPONENT
        for k in range(v * size, min((v + 1) * size, length)):
            for n in range(columns):
                e = known[k, n]
                lows[n] = min(lows[n], e if e != NO_EXPONENT else np.int32(-NO_EXPONENT))
                highs[n] = max(highs[n], e)
        for q in range(spans.shape[0]):
            widest = np.int32(0)
            for n in range(q * width, min(q * width + width, columns)):
                widest = max(widest, highs[n] - lows[n])
            spans[q, v] = widest


@njit
def block_of(array: Lanes, column: int, many: int, part: Lanes) -> None:
    """Put `many` columns of [K, N] from `column` on into [K, C]; the others are not written."""
    first = np.uintp(column)
    for k in range(np.uintp(array.shape[0])):
        for n in range(np.uintp(many)):
            part[k, n] = array[k, first + n]


@njit
def aligned_rows(
    a: F64, w: F64, a_known: I32, w_known: I32, a_spans: I32, w_spans: I32, align_bits: int, a_factors: F64,
    w_factors: F64, width: int, first_row: int, last_row: int, size: int, blocks_per_fold: int, fine: bool, bias: F32,
    extremes: F32, out: F32,
) -> None:  # fmt: skip
    """Do what `float_rows` does with sums of products that are aligned, and truncated, block by block.

    a, w, a_known, w_known : of `aligned_lanes`; a_spans, w_spans : of these. Where two blocks' exponents differ by no
        more than align_bits in all, nothing is truncated
    """
    shape, count = (w.shape[0], width), w_factors.shape[0]
    block, plain, known = np.zeros(shape, np.float64), np.zeros(shape, np.float64), np.zeros(shape, np.int32)
    factors, truncates = np.zeros((count, width), np.float64), np.zeros(count, np.int64)
    acc, watched = np.zeros((TOGETHER, width), np.float32), np.zeros((4, width), np.float32)
    for column in range(0, w.shape[1], width):
        many = scaled_columns(w, w_factors, size, column, block)
        if many < width:
            plain[:], known[:], factors[:] = 0, NO_EXPONENT, 0
        block_of(w, column, many, plain)
        block_of(w_known, column, many, known)
        block_of(w_factors, column, many, factors)
        watched[:] = 0
        acc[:] = 0
        for m in range(first_row, last_row, TOGETHER):
            for v in range(count):
                truncates[v] = a_spans[m // TOGETHER, v] + w_spans[column // width, v] > align_bits
            preload(bias, column, many, acc)
            add_aligned(
                a, m, last_row, block, size, 1, blocks_per_fold, acc, watched, a_factors, fine, truncates, a_known,
                plain, known, factors, align_bits,
            )  # fmt: skip
            keep_rows(acc, m, last_row, column, many, out)
        keep_extremes(watched, column, many, extremes)


@njit
def fixed_rows(
    a: I32, w: I32, a_factors: Lanes, w_factors: Lanes, width: int, first_row: int, last_row: int, size: int,
    per_group: int, blocks_per_fold: int, rounding: int, limit: float, extremes: I64, out: I64,
) -> None:  # fmt: skip
    """Add blocks' sums, in the psum's unit, each rounded and within +-limit, to registers, all below 2^53.

    per_group : blocks a group, after which psums are watched
    rounding : 0 down, 1 towards zero, 2 nearest, ties to even
    limit : 2^53 where no sum exceeds it
    extremes, out : less the bias
    """
    block = np.zeros((w.shape[0], width), w_factors.dtype)
    acc, watched = np.zeros((TOGETHER, width), np.float64), np.zeros((4, width), np.float64)
    for column in range(0, w.shape[1], width):
        many = scaled_columns(w, w_factors, size, column, block)
        watched[:] = 0
        for m in range(first_row, last_row, TOGETHER):
            acc[:] = 0
            add_whole(a, m, last_row, block, size, per_group, blocks_per_fold, acc, watched, a_factors, rounding, limit)
            keep_rows(acc, m, last_row, column, many, out)
        keep_extremes(watched, column, many, extremes)


@njit
def limited_fixed_rows(
    a: I32, w: I32, a_factors: Lanes, w_factors: Lanes, width: int, first_row: int, last_row: int, size: int,
    blocks_per_fold: int, rounding: int, limit: float, low: float, high: float, saturates: bool, acc_low: float,
    acc_high: float, acc_saturates: bool, bias: F64, out: I64,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Add blocks' sums as in `fixed_rows`, each a group, in registers of limited width.

    low, high, saturates : the psum's limits and policy; acc_* : the accumulator's
    bias [N] : what accumulators hold before
    Returns the overflows of psums and accumulators, and the first row with one of either, -1 if there is none.
    """
    block = np.zeros((w.shape[0], width), w_factors.dtype)
    acc, counts = np.zeros((TOGETHER, width), np.float64), np.zeros((2, TOGETHER), np.int64)
    totals, rows = np.zeros(2, np.int64), np.full(2, -1, np.int64)
    for column in range(0, w.shape[1], width):
        many = scaled_columns(w, w_factors, size, column, block)
        acc[:] = 0
        for m in range(first_row, last_row, TOGETHER):
            counts[:] = 0
            preload(bias, column, many, acc)
            add_whole_limited(
                a, m, last_row, block, size, 1, blocks_per_fold, acc, counts, a_factors, rounding, limit, low, high,
                saturates, acc_low, acc_high, acc_saturates,
            )  # fmt: skip
            for r in range(min(TOGETHER, last_row - m)):
                for register in range(2):
                    totals[register] += counts[register, r]
                    if counts[register, r] > 0 and (rows[register] < 0 or m + r < rows[register]):
                        rows[register] = m + r
            keep_rows(acc, m, last_row, column, many, out)
    return totals[0], totals[1], rows[0], rows[1]


@njit
def scaled_sums(
    a: Lanes, w: Lanes, first_row: int, last_row: int, size: int, per_group: int, blocks_per_fold: int, a_scales: I32,
    w_scales: I32, shift: int, extremes: I64, out: I64,
) -> None:  # fmt: skip
    """Add blocks' sums of products (int16, or float32) times rounded products of their scales; no sum leaves int32.

    a [M, K], w [Q, K, C] : w in blocks of columns, int16 or float32; a of int16, or of int32 where w is of float32
    a_scales [M, B], w_scales [Q, B, 64] : of all blocks of K; a product of two loses `shift` bits
    The rest as in `fixed_rows`.
    """
    width = w.shape[2]
    acc, watched = np.zeros((TOGETHER, width), np.int32), np.zeros((4, width), np.int32)
    for q in range(w.shape[0]):
        column, many = q * width, min(width, out.shape[1] - q * width)
        watched[:] = 0
        for m in range(first_row, last_row, TOGETHER):
            acc[:] = 0
            add_scaled(
                a, m, last_row, w[q], size, per_group, blocks_per_fold, acc, watched, a_scales, w_scales[q], shift
            )
            keep_rows(acc, m, last_row, column, many, out)
        keep_extremes(watched, column, many, extremes)


@njit
def sign_sums(
    a: U32, w: U32, valid: I32, first_row: int, last_row: int, size: int, blocks_per_fold: int, extremes: I64, out: I64
) -> None:
    """Add blocks' sums of products of +1 and -1, each a bit; no sum leaves int32.

    a [M, words], w [Q, words, 64] : w in blocks of columns; size : words a block
    valid [B] : elements of each block that are not zero
    The rest as in `fixed_rows`.
    """
    width = w.shape[2]
    acc, watched = np.zeros((TOGETHER, width), np.int32), np.zeros((4, width), np.int32)
    for q in range(w.shape[0]):
        column, many = q * width, min(width, out.shape[1] - q * width)
        watched[:] = 0
        for m in range(first_row, last_row, TOGETHER):
            acc[:] = 0
            add_signs(a, m, last_row, w[q], size, 1, blocks_per_fold, acc, watched, valid)
            keep_rows(acc, m, last_row, column, many, out)
        keep_extremes(watched, column, many, extremes)
