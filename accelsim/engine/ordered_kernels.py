"""Sums in registers of limited width, in the order of additions, overflows counted: two rows of outputs at a time.

The columns are the SIMD axis, in blocks of 64 that each lie in one piece, completed with zeros. Lanes are int32, which
the caller knows to hold a register's content plus an addend; or int16.

A register that wraps is kept shifted left where products fit it, such that its last bit is that of the lane: the lane
wraps as the register does, and signs tell where it did.

Indices are np.uintp: one that could be negative would be counted from the end, which keeps loops out of SIMD.
"""

# mypy: disable-error-code="arg-type, assignment, no-any-return, return-value, no-untyped-call"
# To Numba a NumPy scalar and a Python int are one thing; to a type checker they are not.

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit
from accelsim._lanes import (
    dots,
    saturating,
    saturating_folds,
    saturating_lanes,
    saturating_lanes_folds,
    wrapping,
    wrapping_folds,
    wrapping_lanes,
    wrapping_lanes_folds,
)

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Lanes = NDArray[Any]
COLUMNS = 64
# What happens to a sum that does not fit: a register saturates at its limits; or at those of its lane, without further
# ado; a register that is kept shifted left wraps with its lane; or one wraps whose products may not fit it.
SATURATE, SATURATE_LANE, WRAP_LANE, WRAP = 0, 1, 2, 3
# Additions that an int16 count can hold.
COUNTED = 32_000


@njit
def clamped(x: int, low: int, high: int) -> int:
    """Return x as a register that saturates holds it."""
    return min(max(x, low), high)


@njit
def wrapped(x: int, unused: int) -> int:
    """Return x as a register of 32 - unused bits that wraps holds it."""
    n = unused & np.int32(31)  # tells the compiler that 32-bit shifts will do
    return np.int32(np.int32(x << n) >> n)


@njit
def add_elements(
    a: Lanes, m: int, other: int, start: int, stop: int, w: Lanes, state: Lanes, mode: int, low: int, high: int,
    unused: int,
) -> None:  # fmt: skip
    """Add elements start .. stop - 1, one after another, to psums of rows m and other; state [2, 128] : and counts."""
    if mode == SATURATE:
        saturating(a, m, other, start, stop, w, state, low, high)
    elif mode == SATURATE_LANE:
        saturating_lanes(a, m, other, start, stop, w, state)
    elif mode == WRAP_LANE:
        wrapping_lanes(a, m, other, start, stop, w, state)
    else:
        wrapping(a, m, other, start, stop, w, state, unused)


@njit
def add_folds(
    a: Lanes, m: int, other: int, start: int, stop: int, w: Lanes, state: Lanes, sums: I32, fold: int, behind: int,
    mode: int, low: int, high: int, unused: int,
) -> None:  # fmt: skip
    """Do what `add_elements` does in folds of `fold` elements, and add what psums are at the end of each, without the
    bits by which they are kept shifted left (`behind`), to exact sums [128].
    """
    if mode == SATURATE:
        saturating_folds(a, m, other, start, stop, w, state, sums, fold, behind, low, high)
    elif mode == SATURATE_LANE:
        saturating_lanes_folds(a, m, other, start, stop, w, state, sums, fold, behind)
    elif mode == WRAP_LANE:
        wrapping_lanes_folds(a, m, other, start, stop, w, state, sums, fold, behind)
    else:
        wrapping_folds(a, m, other, start, stop, w, state, sums, fold, behind, unused)


@njit
def add_parts(parts: I32, psums: I32, counts: I32, low: int, high: int, unused: int, saturates: bool) -> None:
    """Add exact sums to two rows of psums, and clear them."""
    low, high, unused = np.int32(low), np.int32(high), np.int32(unused)
    for j in range(np.uintp(2 * COLUMNS)):
        exact = np.int32(psums[j] + parts[j])
        held = clamped(exact, low, high) if saturates else wrapped(exact, unused)
        counts[j] += np.int32(exact != held)
        psums[j] = held
        parts[j] = 0


@njit
def add_groups(
    a: I32, m: int, other: int, start: int, stop: int, group: int, w: I32, state: I32, parts: I32, saturates: bool,
    low: int, high: int, unused: int,
) -> None:  # fmt: skip
    """Add the groups of elements start .. stop - 1 to psums; parts [1, 128] : working memory, zero."""
    for k in range(start, stop, group):
        dots(a, m, other, k, min(k + group, stop), w, parts)
        add_parts(parts[0], state[0], state[1], low, high, unused, saturates)


@njit
def accumulate(
    psums: Lanes, unused: int, acc: I64, counts: I32, low: int, high: int, acc_unused: int, saturates: bool
) -> None:  # fmt: skip
    """Add a row of psums, kept shifted left by `unused`, to accumulators [N]."""
    for j in range(np.uintp(acc.size)):
        exact = acc[j] + np.int64(psums[j] >> unused)
        held = clamped(exact, low, high) if saturates else (exact << acc_unused) >> acc_unused
        counts[j] += np.int32(exact != held)
        acc[j] = held


@njit
def add_up(psums: Lanes, unused: int, sums: I32) -> None:
    """Add two rows of psums, kept shifted left by `unused`, to exact sums [128]; clear the psums."""
    n = np.int32(unused) & np.int32(31)
    for j in range(np.uintp(2 * COLUMNS)):
        sums[j] = np.int32(sums[j] + np.int32(np.int32(psums[j]) >> n))
        psums[j] = 0


@njit
def finish(held: I64, sums: I32, acc: I64) -> None:
    """Put held + exact sums into a row of accumulators [N]."""
    for j in range(np.uintp(acc.size)):
        acc[j] = held[j] + np.int64(sums[j])


@njit
def close_row(counts: I32, m: int, column: int, first: I64) -> int:
    """Return a row's overflows, and clear them; keep in `first` (m, n) the first output that has any."""
    total = np.int64(0)
    for j in range(np.uintp(counts.size)):
        total += counts[j]
    if total > 0:
        n = 0
        while counts[n] == 0:
            n += 1
        if first[0] < 0 or m < first[0] or (m == first[0] and column + n < first[1]):
            first[0], first[1] = m, column + n
        counts[:] = 0
    return total


@njit
def keep_counts(state: Lanes, counts: I32) -> None:
    """Move the lanes' counts to [128] int32."""
    for j in range(np.uintp(2 * COLUMNS)):
        counts[j] += np.int32(state[1, j])
        state[1, j] = 0


@njit
def limited_rows(
    a: Lanes, w: Lanes, first_row: int, last_row: int, groups_per_fold: int, state: Lanes, mode: int, low: int,
    high: int, unused: int, acc_low: int, acc_high: int, acc_unused: int, acc_saturates: bool, acc_exact: bool,
    held: I64, acc: I64, psum_first: I64, acc_first: I64,
) -> tuple[int, int]:  # fmt: skip
    """Compute rows first_row .. last_row - 1, each element an addition; return (psum, accumulator overflows).

    a [M, K], w [Q, K * 64] : int16 or int32; w in blocks of columns. With WRAP_LANE, `a` is shifted left by `unused`
    state [2, 128] : of the same dtype, zeros: working memory
    low, high, unused : the psum's limits, and the lane's bits less its own; acc_* : the accumulator's, and 64 less its;
        acc_exact : it is known that no accumulator overflows, and that a row's psums add up to an int32
    held [N], acc [M, N] : what the accumulators hold before, and after all folds; written
    psum_first, acc_first [2] : (m, n) of the first output that overflowed, kept; (-1, -1): none yet
    """
    length, columns = a.shape[1], acc.shape[1]
    behind = np.int32(unused if mode == WRAP_LANE else 0)
    counts, acc_counts = np.zeros(2 * COLUMNS, np.int32), np.zeros(2 * COLUMNS, np.int32)
    sums = np.zeros(2 * COLUMNS, np.int32)
    psum_overflows, acc_overflows = 0, 0
    for q in range(w.shape[0]):
        column = q * COLUMNS
        many = min(COLUMNS, columns - column)
        for m in range(first_row, last_row, 2):
            other = min(m + 1, last_row - 1)  # an odd row out is computed beside itself
            if not acc_exact:
                acc[m, column : column + many] = held[column : column + many]
                acc[other, column : column + many] = held[column : column + many]
            since, begun = 0, 0
            if acc_exact and groups_per_fold <= COUNTED:
                some = COUNTED // groups_per_fold * groups_per_fold  # whole folds
                while begun < length:
                    k = min(begun + some, length)
                    add_folds(
                        a, m, other, begun, k, w[q], state, sums, groups_per_fold, behind, mode, low, high, unused
                    )  # fmt: skip
                    keep_counts(state, counts)
                    begun = k
            for start in range(begun, length, groups_per_fold):
                stop = min(start + groups_per_fold, length)
                k = start
                while k < stop:
                    pause = min(k + COUNTED, stop)
                    if since + pause - k > COUNTED:
                        keep_counts(state, counts)
                        since = 0
                    add_elements(a, m, other, k, pause, w[q], state, mode, low, high, unused)
                    since += pause - k
                    k = pause
                if acc_exact:
                    add_up(state[0], behind, sums)
                    continue
                for row in range(other - m + 1):
                    accumulate(
                        state[0, row * COLUMNS : row * COLUMNS + many], behind, acc[m + row, column : column + many],
                        acc_counts[row * COLUMNS : row * COLUMNS + many], acc_low, acc_high, acc_unused, acc_saturates,
                    )  # fmt: skip
                state[0] = 0
            keep_counts(state, counts)
            for row in range(other - m + 1):
                mine = slice(row * COLUMNS, (row + 1) * COLUMNS)
                if acc_exact:
                    finish(held[column : column + many], sums[mine], acc[m + row, column : column + many])
                psum_overflows += close_row(counts[mine], m + row, column, psum_first)
                acc_overflows += close_row(acc_counts[mine], m + row, column, acc_first)
            counts[:] = 0
            sums[:] = 0
    return psum_overflows, acc_overflows


@njit
def limited(x: int, low: int, high: int, unused: int, saturates: bool) -> int:
    """Return x as a register that leaves `unused` of 64 bits holds it."""
    return min(max(x, low), high) if saturates else (x << unused) >> unused


@njit
def first_overflow(
    a: I32, w: I32, m: int, n: int, held: int, group: int, groups_per_fold: int, psum_low: int, psum_high: int,
    psum_unused: int, psum_saturates: bool, acc_low: int, acc_high: int, acc_unused: int, acc_saturates: bool,
    of_acc: bool,
) -> tuple[int, int, int]:  # fmt: skip
    """Return the first addition of output (m, n) that does not fit its psum, or, `of_acc`, its accumulator: (k, content
    before, addend); k is -1 where all fit. *_unused : of 64 bits; held : what the accumulator holds before
    """
    length, fold = a.shape[1], group * groups_per_fold
    acc = np.int64(held)
    for start in range(0, length, fold):
        psum, stop = np.int64(0), min(start + fold, length)
        for k in range(start, stop, group):
            part = np.int64(0)
            for i in range(k, min(k + group, stop)):
                part += np.int64(a[m, i]) * np.int64(w[i, n])
            exact = psum + part
            if not of_acc and (exact < psum_low or exact > psum_high):
                return k, psum, part
            psum = limited(exact, psum_low, psum_high, psum_unused, psum_saturates)
        exact = acc + psum
        if of_acc and (exact < acc_low or exact > acc_high):
            return start, acc, psum
        acc = limited(exact, acc_low, acc_high, acc_unused, acc_saturates)
    return -1, np.int64(0), np.int64(0)


@njit
def limited_groups(
    a: I32, w: I32, first_row: int, last_row: int, group: int, groups_per_fold: int, saturates: bool, low: int,
    high: int, unused: int, acc_low: int, acc_high: int, acc_unused: int, acc_saturates: bool, acc_exact: bool,
    held: I64, acc: I64, psum_first: I64, acc_first: I64,
) -> tuple[int, int]:  # fmt: skip
    """The same of groups of several elements, in int32 lanes."""
    length, columns, fold = a.shape[1], acc.shape[1], group * groups_per_fold
    state, parts = np.zeros((2, 2 * COLUMNS), np.int32), np.zeros((1, 2 * COLUMNS), np.int32)
    acc_counts = np.zeros(2 * COLUMNS, np.int32)
    sums = np.zeros(2 * COLUMNS, np.int32)
    psum_overflows, acc_overflows = 0, 0
    for q in range(w.shape[0]):
        column = q * COLUMNS
        many = min(COLUMNS, columns - column)
        for m in range(first_row, last_row, 2):
            other = min(m + 1, last_row - 1)
            if not acc_exact:
                acc[m, column : column + many] = held[column : column + many]
                acc[other, column : column + many] = held[column : column + many]
            for start in range(0, length, fold):
                add_groups(
                    a, m, other, start, min(start + fold, length), group, w[q], state, parts, saturates, low, high,
                    unused,
                )  # fmt: skip
                if acc_exact:
                    add_up(state[0], 0, sums)
                    continue
                for row in range(other - m + 1):
                    accumulate(
                        state[0, row * COLUMNS : row * COLUMNS + many], 0, acc[m + row, column : column + many],
                        acc_counts[row * COLUMNS : row * COLUMNS + many], acc_low, acc_high, acc_unused, acc_saturates,
                    )  # fmt: skip
                state[0] = 0
            for row in range(other - m + 1):
                mine = slice(row * COLUMNS, (row + 1) * COLUMNS)
                if acc_exact:
                    finish(held[column : column + many], sums[mine], acc[m + row, column : column + many])
                psum_overflows += close_row(state[1, mine], m + row, column, psum_first)
                acc_overflows += close_row(acc_counts[mine], m + row, column, acc_first)
            state[1] = 0
            sums[:] = 0
    return psum_overflows, acc_overflows
