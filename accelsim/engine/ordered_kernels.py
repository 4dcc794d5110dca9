"""Sums in registers of limited width, in the order of additions, overflows counted: two rows of outputs at a time.

The columns are the SIMD axis, in blocks of 64 that each lie in one piece, completed with zeros; eight elements of K
stay in SIMD registers. Lanes are int32, which the caller knows to hold a register's content plus an addend; or, of
registers of 16 bits or fewer that saturate, int16.

Indices are np.uintp: one that could be negative would be counted from the end, which keeps loops out of SIMD.
"""

# mypy: disable-error-code="arg-type, assignment, no-any-return, return-value"
# To Numba a NumPy scalar and a Python int are one thing; to a type checker they are not.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
COLUMNS = 64
UNROLLED = 8


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
def saturating_tile(
    x: I32, y: I32, start: int, w: I32, psums: I32, counts: I32, low: int, high: int
) -> None:  # fmt: skip
    """Add eight elements from `start` on to two rows of psums [128], one after another; x, y [K] : the rows."""
    k, at = np.uintp(start), np.uintp(start * COLUMNS)
    for j in range(np.uintp(COLUMNS)):
        one, two = psums[j], psums[np.uintp(COLUMNS) + j]
        one_count, two_count = counts[j], counts[np.uintp(COLUMNS) + j]
        for u in range(UNROLLED):
            weight = w[at + np.uintp(u * COLUMNS) + j]
            exact = np.int32(one + np.int32(x[k + np.uintp(u)] * weight))
            one = clamped(exact, low, high)
            one_count = np.int32(one_count + np.int32(exact != one))
            exact = np.int32(two + np.int32(y[k + np.uintp(u)] * weight))
            two = clamped(exact, low, high)
            two_count = np.int32(two_count + np.int32(exact != two))
        psums[j], psums[np.uintp(COLUMNS) + j] = one, two
        counts[j], counts[np.uintp(COLUMNS) + j] = one_count, two_count


@njit
def wrapping_tile(x: I32, y: I32, start: int, w: I32, psums: I32, counts: I32, unused: int) -> None:
    """The same for registers that wrap."""
    k, at = np.uintp(start), np.uintp(start * COLUMNS)
    for j in range(np.uintp(COLUMNS)):
        one, two = psums[j], psums[np.uintp(COLUMNS) + j]
        one_count, two_count = counts[j], counts[np.uintp(COLUMNS) + j]
        for u in range(UNROLLED):
            weight = w[at + np.uintp(u * COLUMNS) + j]
            exact = np.int32(one + np.int32(x[k + np.uintp(u)] * weight))
            one = wrapped(exact, unused)
            one_count = np.int32(one_count + np.int32(exact != one))
            exact = np.int32(two + np.int32(y[k + np.uintp(u)] * weight))
            two = wrapped(exact, unused)
            two_count = np.int32(two_count + np.int32(exact != two))
        psums[j], psums[np.uintp(COLUMNS) + j] = one, two
        counts[j], counts[np.uintp(COLUMNS) + j] = one_count, two_count


@njit
def dot_tile(x: I32, y: I32, start: int, w: I32, parts: I32) -> None:
    """Add eight products to two rows of exact sums."""
    k, at = np.uintp(start), np.uintp(start * COLUMNS)
    for j in range(np.uintp(COLUMNS)):
        one, two = parts[j], parts[np.uintp(COLUMNS) + j]
        for u in range(UNROLLED):
            weight = w[at + np.uintp(u * COLUMNS) + j]
            one = np.int32(one + np.int32(x[k + np.uintp(u)] * weight))
            two = np.int32(two + np.int32(y[k + np.uintp(u)] * weight))
        parts[j], parts[np.uintp(COLUMNS) + j] = one, two


@njit
def dot_step(x: int, y: int, start: int, w: I32, parts: I32) -> None:
    """Add one product to two rows of exact sums."""
    at = np.uintp(start * COLUMNS)
    for j in range(np.uintp(COLUMNS)):
        weight = w[at + j]
        parts[j] += np.int32(x * weight)
        parts[np.uintp(COLUMNS) + j] += np.int32(y * weight)


@njit
def add_parts(parts: I32, psums: I32, counts: I32, low: int, high: int, unused: int, saturates: bool) -> None:
    """Add exact sums to two rows of psums, and clear them."""
    for j in range(np.uintp(2 * COLUMNS)):
        exact = np.int32(psums[j] + parts[j])
        held = clamped(exact, low, high) if saturates else wrapped(exact, unused)
        counts[j] += np.int32(exact != held)
        psums[j] = held
        parts[j] = 0


@njit
def add_fold(
    x: I32, y: I32, start: int, stop: int, group: int, w: I32, parts: I32, psums: I32, counts: I32, low: int, high: int,
    unused: int, saturates: bool,
) -> None:  # fmt: skip
    """Add the groups of elements start .. stop - 1 to two rows of psums."""
    k = start
    if group == 1:
        while k + UNROLLED <= stop:
            if saturates:
                saturating_tile(x, y, k, w, psums, counts, low, high)
            else:
                wrapping_tile(x, y, k, w, psums, counts, unused)
            k += UNROLLED
    while k < stop:
        end = min(k + group, stop)
        while k + UNROLLED <= end:
            dot_tile(x, y, k, w, parts)
            k += UNROLLED
        while k < end:
            dot_step(x[k], y[k], k, w, parts)
            k += 1
        add_parts(parts, psums, counts, low, high, unused, saturates)


@njit
def accumulate(
    psums: I32, row: int, acc: I64, counts: I32, low: int, high: int, unused: int, saturates: bool
) -> None:  # fmt: skip
    """Add the first or second row of psums to accumulators [64]; counts [128]."""
    mine = np.uintp(row * COLUMNS)
    for j in range(np.uintp(COLUMNS)):
        exact = acc[j] + np.int64(psums[mine + j])
        held = clamped(exact, low, high) if saturates else (exact << unused) >> unused
        counts[mine + j] += np.int32(exact != held)
        acc[j] = held


@njit
def close_row(counts: I32, row: int, m: int, column: int, first: I64) -> int:
    """Return a row's overflows, and clear them; keep in `first` (m, n) the first output that has any."""
    total = 0
    for j in range(row * COLUMNS, (row + 1) * COLUMNS):
        total += counts[j]
    if total > 0:
        n = 0
        while counts[row * COLUMNS + n] == 0:
            n += 1
        if first[0] < 0 or m < first[0] or (m == first[0] and column + n < first[1]):
            first[0], first[1] = m, column + n
        for j in range(row * COLUMNS, (row + 1) * COLUMNS):
            counts[j] = 0
    return total


@njit
def limited_rows(
    a: I32, w: I32, first_row: int, last_row: int, group: int, groups_per_fold: int, low: int, high: int, unused: int,
    saturates: bool, acc_low: int, acc_high: int, acc_unused: int, acc_saturates: bool, acc: I64, psum_first: I64,
    acc_first: I64,
) -> tuple[int, int]:  # fmt: skip
    """Compute rows first_row .. last_row - 1; return (psum overflows, accumulator overflows).

    a [M, K], w [Q, K * 64] : blocks of columns
    low, high, unused, saturates : the psum's limits, and 32 less its bits; acc_* : the accumulator's, and 64 less
    acc [Q, M * 64] : accumulators, preloaded; updated
    psum_first, acc_first [2] : (m, n) of the first output that overflowed, kept; (-1, -1): none yet
    """
    length = a.shape[1]
    fold = group * groups_per_fold
    low, high, unused = np.int32(low), np.int32(high), np.int32(unused)
    parts, psums = np.zeros(2 * COLUMNS, np.int32), np.zeros(2 * COLUMNS, np.int32)
    counts, acc_counts = np.zeros(2 * COLUMNS, np.int32), np.zeros(2 * COLUMNS, np.int32)
    psum_overflows, acc_overflows = 0, 0
    for q in range(w.shape[0]):
        for m in range(first_row, last_row, 2):
            other = min(m + 1, last_row - 1)  # an odd row out is computed beside itself
            for start in range(0, length, fold):
                psums[:] = 0
                add_fold(
                    a[m], a[other], start, min(start + fold, length), group, w[q], parts, psums, counts,
                    low, high, unused, saturates,
                )  # fmt: skip
                for row in range(other - m + 1):
                    at = (m + row) * COLUMNS
                    accumulate(
                        psums, row, acc[q, at : at + COLUMNS], acc_counts, acc_low, acc_high, acc_unused, acc_saturates
                    )
            for row in range(other - m + 1):
                psum_overflows += close_row(counts, row, m + row, q * COLUMNS, psum_first)
                acc_overflows += close_row(acc_counts, row, m + row, q * COLUMNS, acc_first)
            counts[:] = 0
    return psum_overflows, acc_overflows


# ------------------------------------------------------------------------------------------- int16 lanes


@njit
def add16(held: int, addend: int) -> tuple[int, int]:
    """Return (new content, 1 if the exact sum did not fit) of a register of 16 bits that saturates.

    The compiler knows the first two lines as a saturating addition. It was exact if what it added, modulo 2^16, is the
    addend: it falls short by less than 2^16.
    """
    wide = np.int32(np.int32(held) + np.int32(addend))
    new = np.int16(min(max(wide, np.int32(-32768)), np.int32(32767)))
    return new, np.int16(np.int16(new - held) != addend)


@njit
def add_fewer(held: int, addend: int, low: int, high: int) -> tuple[int, int]:
    """The same of fewer bits, where the exact sum fits int16."""
    exact = np.int16(held + addend)
    new = clamped(exact, low, high)
    return new, np.int16(exact != new)


@njit
def tile16(x: I16, y: I16, start: int, w: I16, psums: I16, counts: I16) -> None:
    """Add eight elements to two rows of 16-bit psums, one after another; products fit int16."""
    k, at = np.uintp(start), np.uintp(start * COLUMNS)
    for j in range(np.uintp(COLUMNS)):
        one, two = psums[j], psums[np.uintp(COLUMNS) + j]
        one_count, two_count = counts[j], counts[np.uintp(COLUMNS) + j]
        for u in range(UNROLLED):
            weight = w[at + np.uintp(u * COLUMNS) + j]
            one, misfit = add16(one, np.int16(x[k + np.uintp(u)] * weight))
            one_count = np.int16(one_count + misfit)
            two, misfit = add16(two, np.int16(y[k + np.uintp(u)] * weight))
            two_count = np.int16(two_count + misfit)
        psums[j], psums[np.uintp(COLUMNS) + j] = one, two
        counts[j], counts[np.uintp(COLUMNS) + j] = one_count, two_count


@njit
def tile_of_fewer(x: I16, y: I16, start: int, w: I16, psums: I16, counts: I16, low: int, high: int) -> None:
    """The same for psums of fewer bits."""
    k, at = np.uintp(start), np.uintp(start * COLUMNS)
    for j in range(np.uintp(COLUMNS)):
        one, two = psums[j], psums[np.uintp(COLUMNS) + j]
        one_count, two_count = counts[j], counts[np.uintp(COLUMNS) + j]
        for u in range(UNROLLED):
            weight = w[at + np.uintp(u * COLUMNS) + j]
            one, misfit = add_fewer(one, np.int16(x[k + np.uintp(u)] * weight), low, high)
            one_count = np.int16(one_count + misfit)
            two, misfit = add_fewer(two, np.int16(y[k + np.uintp(u)] * weight), low, high)
            two_count = np.int16(two_count + misfit)
        psums[j], psums[np.uintp(COLUMNS) + j] = one, two
        counts[j], counts[np.uintp(COLUMNS) + j] = one_count, two_count


@njit
def step16(x: int, y: int, start: int, w: I16, psums: I16, counts: I16, full: bool, low: int, high: int) -> None:
    """The same for one element; full : psums have 16 bits."""
    at = np.uintp(start * COLUMNS)
    for row in range(2):
        mine = np.uintp(row * COLUMNS)
        factor = x if row == 0 else y
        for j in range(np.uintp(COLUMNS)):
            product = np.int16(factor * w[at + j])
            if full:
                psums[mine + j], misfit = add16(psums[mine + j], product)
            else:
                psums[mine + j], misfit = add_fewer(psums[mine + j], product, low, high)
            counts[mine + j] += misfit


@njit
def limited_rows16(
    a: I16, w: I16, first_row: int, last_row: int, fold: int, full: bool, low: int, high: int, acc_low: int,
    acc_high: int, acc_unused: int, acc_saturates: bool, acc: I64, psum_first: I64, acc_first: I64,
) -> tuple[int, int]:  # fmt: skip
    """The same as `limited_rows` for groups of one element and psums that saturate: of 16 bits (`full`), or fewer."""
    length = a.shape[1]
    low, high = np.int16(low), np.int16(high)
    psums, wide, counts16 = (
        np.zeros(2 * COLUMNS, np.int16), np.zeros(2 * COLUMNS, np.int32), np.zeros(2 * COLUMNS, np.int16),
    )  # fmt: skip
    counts, acc_counts = np.zeros(2 * COLUMNS, np.int32), np.zeros(2 * COLUMNS, np.int32)
    psum_overflows, acc_overflows = 0, 0
    for q in range(w.shape[0]):
        weights = w[q]
        for m in range(first_row, last_row, 2):
            other = min(m + 1, last_row - 1)
            x, y = a[m], a[other]
            for start in range(0, length, fold):
                stop = min(start + fold, length)
                psums[:] = 0
                k = start
                while k < stop:
                    pause = min(k + 4096, stop)  # before an int16 count can overflow
                    while k + UNROLLED <= pause:
                        if full:
                            tile16(x, y, k, weights, psums, counts16)
                        else:
                            tile_of_fewer(x, y, k, weights, psums, counts16, low, high)
                        k += UNROLLED
                    while k < pause:
                        step16(x[k], y[k], k, weights, psums, counts16, full, low, high)
                        k += 1
                    for j in range(np.uintp(2 * COLUMNS)):
                        counts[j] += counts16[j]
                        counts16[j] = 0
                for j in range(np.uintp(2 * COLUMNS)):
                    wide[j] = psums[j]
                for row in range(other - m + 1):
                    at = (m + row) * COLUMNS
                    accumulate(
                        wide, row, acc[q, at : at + COLUMNS], acc_counts, acc_low, acc_high, acc_unused, acc_saturates
                    )
            for row in range(other - m + 1):
                psum_overflows += close_row(counts, row, m + row, q * COLUMNS, psum_first)
                acc_overflows += close_row(acc_counts, row, m + row, q * COLUMNS, acc_first)
            counts[:] = 0
    return psum_overflows, acc_overflows
