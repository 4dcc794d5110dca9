"""Integer registers that cannot overflow, followed from the sums of chunks of groups that a matrix product delivered.

A tile is [R, N], all columns of a few rows, small enough to stay in the cache. Extremes are widened, 0 included.
"""

# mypy: disable-error-code="arg-type, assignment, no-any-return, return-value"
# To Numba a NumPy scalar and a Python int are one thing; to a type checker they are not.

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
# More than the roundings of the float32 numbers that are compared in `add_chunk`, as a part of them.
SLACK = 2.0**-20


@njit
def norm_of(lanes: I32) -> float:
    """Return the Euclidean norm, rounded up, of lanes whose squares add up to less than 2^63."""
    squares = np.int64(0)
    for k in range(lanes.size):
        squares += np.int64(lanes[k]) * np.int64(lanes[k])
    return math.sqrt(squares) * (1 + SLACK)


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
