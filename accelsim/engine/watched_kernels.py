"""Loops over a layer's PEs with the skew of the wave removed, in which every event still has its exact cycle.

PE(i, j) does in cycle t what belongs to element k = t - i - j (os), or to streamed row m = t - i - j (ws). So the loops
walk k, or m, for all columns at once, which are the SIMD axis; what happens in row i is counted into the word of cycle
k + i, a word for each column, and at a pass's end the columns' words are shifted by j and added up (`settle`).

Columns lie in blocks of 64, each block contiguous: distances that are known when this is compiled let the compiler keep
columns in SIMD registers. Columns, elements of K and (os) rows that fill up a block are zero, and cause no event.

A word holds a cycle's toggled bits in its low `SHIFT` bits, and its overflows above. Registers are int32: the caller
knows that no register content plus a product leaves int32.

Indices are np.uintp: one that could be negative would be counted from the end, which keeps loops out of SIMD.
"""

# mypy: disable-error-code="arg-type, assignment, no-any-return, return-value"
# To Numba a NumPy scalar and a Python int are one thing; to a type checker they are not.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
COLUMNS = 64
UNROLLED = 8  # elements of K
ROWS = 4  # of PEs
CYCLES = 256  # of a pass whose words are kept before they settle, so that they stay in the cache
SHIFT = 18
TOGGLES = (1 << SHIFT) - 1


@njit
def ones(x: int) -> int:
    """Return the ones among 32 bits: neighbours of 1, 2 and 4 bits are added up, then all bytes (see popcount)."""
    z = np.uint32(x)
    z = np.uint32(z - (np.uint32(z >> np.uint32(1)) & np.uint32(0x55555555)))
    z = np.uint32((z & np.uint32(0x33333333)) + ((z >> np.uint32(2)) & np.uint32(0x33333333)))
    z = np.uint32(np.uint32(z + (z >> np.uint32(4))) & np.uint32(0x0F0F0F0F))
    return np.int32(np.uint32(np.uint32(z * np.uint32(0x01010101)) >> np.uint32(24)))


@njit
def ones64(x: int) -> int:
    """Return the ones among 64 bits."""
    z = np.uint64(x)
    z = z - ((z >> np.uint64(1)) & np.uint64(0x5555555555555555))
    z = (z & np.uint64(0x3333333333333333)) + ((z >> np.uint64(2)) & np.uint64(0x3333333333333333))
    z = (z + (z >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((z * np.uint64(0x0101010101010101)) >> np.uint64(56))


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
def word(exact: int, held: int, before: int, mask: int) -> int:
    """Return what the word of a cycle gains when a register takes `held` for `before`; `exact` is the exact sum."""
    toggled = ones(np.int32(np.int32(held ^ before) & mask))
    return np.int32(toggled + (np.int32(1 << SHIFT) if exact != held else np.int32(0)))


@njit
def settle(
    words: I32, steps: int, levels: int, column_of: I64, first_column: int, columns: int, cols: int, starts: I64,
    first_pass: int, passes_apart: int, first_cycle: int, toggles: I64, overflows: I64,
) -> None:  # fmt: skip
    """Shift each column's words by its j, add them up over the columns of a pass, and clear them.

    words : int32 [(1 + steps + 64 + 1) * 64], word (s, place) at (1 + s) * 64 + place, row 0 and those from `steps` on
        are zero
    levels : log2 of how many columns are added up as words: it divides `cols`, and no sum leaves a word
    column_of : int64 [64], the column of each place of the block (watched_layer.column_order): after `levels` halvings
        of a row neighbouring columns have met, the right one as many cycles later as columns had met before
    first_column : of this block, of `columns` in all, `cols` a pass
    starts : int64 [passes], first cycle of each; column fold f is in pass first_pass + f * passes_apart
    first_cycle : cycle of the pass of s = 0 in column 0
    toggles, overflows : int64 [cycles of the layer + 1], added to
    """
    rows = steps + (1 << levels)
    for level in range(levels):
        half = np.uintp(COLUMNS >> (level + 1))
        for s in range(rows, (1 << level) - 1, -1):
            to, source = np.uintp((s + 1) * COLUMNS), np.uintp((s + 1 - (1 << level)) * COLUMNS) + half
            for x in range(half):
                words[to + x] += words[source + x]
    for x in range(COLUMNS >> levels):
        column = first_column + column_of[x]
        if column < columns:
            number = first_pass + column // cols * passes_apart
            cycle = starts[number] + first_cycle + column % cols
            for s in range(rows):
                both = words[np.uintp((s + 1) * COLUMNS + x)]
                if both != 0:
                    toggles[cycle + s] += both & TOGGLES
                    overflows[cycle + s] += both >> SHIFT
    words[: (rows + 2) * COLUMNS] = 0


# ------------------------------------------------------------------------------------------- output-stationary


@njit
def os_tile(
    a: I32, first: int, start: int, w: I32, acc: I32, counts: I32, words: I32, s: int, low: int, high: int, mask: int,
    unused: int, saturates: bool,
) -> None:  # fmt: skip
    """Add eight elements of K, from `start` on, to rows of registers `first` and the next, of one block of columns.

    s : place of (first, start) in `words`

    The second row's events of element k come in the cycle of the first row's of k + 1: they wait in `late`.
    """
    i, k = np.uintp(first), np.uintp(start)
    at, from_w, to = np.uintp(first * COLUMNS), np.uintp(start * COLUMNS), np.uintp((s + 1) * COLUMNS)
    if saturates:
        for j in range(np.uintp(COLUMNS)):
            one, two = acc[at + j], acc[at + np.uintp(COLUMNS) + j]
            one_count, two_count, late = np.int32(0), np.int32(0), np.int32(0)
            for u in range(UNROLLED):
                weight, e = w[from_w + np.uintp(u * COLUMNS) + j], to + np.uintp(u * COLUMNS) + j
                exact = np.int32(one + np.int32(a[i, k + np.uintp(u)] * weight))
                held = clamped(exact, low, high)
                gain = word(exact, held, one, mask)
                one, one_count = held, np.int32(one_count + gain)
                words[e] = np.int32(words[e] + np.int32(gain + late))
                exact = np.int32(two + np.int32(a[i + np.uintp(1), k + np.uintp(u)] * weight))
                held = clamped(exact, low, high)
                late = word(exact, held, two, mask)
                two, two_count = held, np.int32(two_count + late)
            words[to + np.uintp(UNROLLED * COLUMNS) + j] += late
            acc[at + j], acc[at + np.uintp(COLUMNS) + j] = one, two
            counts[at + j] += one_count >> SHIFT
            counts[at + np.uintp(COLUMNS) + j] += two_count >> SHIFT
    else:
        for j in range(np.uintp(COLUMNS)):
            one, two = acc[at + j], acc[at + np.uintp(COLUMNS) + j]
            one_count, two_count, late = np.int32(0), np.int32(0), np.int32(0)
            for u in range(UNROLLED):
                weight, e = w[from_w + np.uintp(u * COLUMNS) + j], to + np.uintp(u * COLUMNS) + j
                exact = np.int32(one + np.int32(a[i, k + np.uintp(u)] * weight))
                held = wrapped(exact, unused)
                gain = word(exact, held, one, mask)
                one, one_count = held, np.int32(one_count + gain)
                words[e] = np.int32(words[e] + np.int32(gain + late))
                exact = np.int32(two + np.int32(a[i + np.uintp(1), k + np.uintp(u)] * weight))
                held = wrapped(exact, unused)
                late = word(exact, held, two, mask)
                two, two_count = held, np.int32(two_count + late)
            words[to + np.uintp(UNROLLED * COLUMNS) + j] += late
            acc[at + j], acc[at + np.uintp(COLUMNS) + j] = one, two
            counts[at + j] += one_count >> SHIFT
            counts[at + np.uintp(COLUMNS) + j] += two_count >> SHIFT


@njit
def os_folds(
    a: I32, w: I32, first_fold: int, last_fold: int, columns: int, cols: int, levels: int, column_of: I64,
    starts: I64, low: int, high: int, mask: int, unused: int, saturates: bool, acc: I32, counts: I32, toggles: I64,
    overflows: I64,
) -> None:  # fmt: skip
    """Run the passes of row folds first_fold .. last_fold - 1 of one GEMM, output-stationary.

    a [F, rows, K] : rows an even number, K a multiple of 8, completed with zeros
    w [Q, K * 64] : blocks of columns; `columns` of them are in use, `cols` a pass
    low, high, mask, unused, saturates : the psum registers' limits, bits in use, and 32 less their number
    acc, counts [F, Q, rows * 64] : psums, and how often each overflowed; written
    starts [F * column folds] : first cycle of each pass
    toggles, overflows [cycles of the layer + 1] : added to
    """
    _, rows, length = a.shape
    low, high, mask, unused = np.int32(low), np.int32(high), np.int32(mask), np.int32(unused)
    steps = CYCLES + rows
    column_folds = (columns + cols - 1) // cols
    words = np.zeros((steps + COLUMNS + 2) * COLUMNS, np.int32)
    for fold in range(first_fold, last_fold):
        for q in range(w.shape[0]):
            psums, misfits, weights = acc[fold, q], counts[fold, q], w[q]
            psums[:] = 0
            misfits[:] = 0
            for start in range(0, length, CYCLES):
                for k in range(start, min(start + CYCLES, length), UNROLLED):
                    for i in range(0, rows, 2):
                        os_tile(
                            a[fold], i, k, weights, psums, misfits, words, k - start + i, low, high, mask, unused,
                            saturates,
                        )  # fmt: skip
                settle(
                    words, min(CYCLES, length - start) + rows, levels, column_of, q * COLUMNS, columns, cols, starts,
                    fold * column_folds, 1, start, toggles, overflows,
                )  # fmt: skip


@njit
def os_drain(
    psums: I32, preloaded: I64, rows: int, cols: int, drained: I64, extents: I64, low: int, high: int, mask: int,
    unused: int, saturates: bool, acc: I64, counts: I32, toggles: I64, overflows: I64,
) -> None:  # fmt: skip
    """Add the psums of one GEMM to the accumulators, as rows of PEs leave the array, the bottom one first.

    psums [M, N]; preloaded [N] : accumulators
    drained, extents [passes] : first cycle of each pass's drain, and the rows that it travels
    acc, counts [M, N] : accumulators, and which of them overflowed; written
    """
    streams, columns = psums.shape
    number = 0
    for row0 in range(0, streams, rows):
        for col0 in range(0, columns, cols):
            for i in range(min(rows, streams - row0)):
                cycle = drained[number] + extents[number] - 1 - i
                m, bits, misfits = row0 + i, 0, 0
                for n in range(col0, min(col0 + cols, columns)):
                    before = preloaded[n]
                    exact = before + psums[m, n]
                    held = clamped(exact, low, high) if saturates else (exact << unused) >> unused
                    acc[m, n] = held
                    counts[m, n] = exact != held
                    misfits += exact != held
                    bits += ones64((held ^ before) & mask)
                toggles[cycle] += bits
                overflows[cycle] += misfits
            number += 1


# ------------------------------------------------------------------------------------------- stationary operand


@njit
def ws_tile(
    a: I32, row0: int, start: int, w: I32, psums: I32, before: I32, i: int, words: I32, s: int, counts: I32, low: int,
    high: int, mask: int, unused: int, saturates: bool,
) -> None:  # fmt: skip
    """Let the psums of streamed row `row0` and the next pass four rows of PEs, i to i + 3, of one block of columns.

    start : element of K in row i; s : place of (row0, i) in `words`
    psums [2 * 64] : of the two rows, as they come from above; then as they leave
    before [R * 64] : what the psum registers hold from the row before; then from the second of the two
    counts [2 * 64] : overflows of the two rows' psums; added to
    """
    m, k = np.uintp(row0), np.uintp(start)
    from_w, at, to = np.uintp(start * COLUMNS), np.uintp(i * COLUMNS), np.uintp((s + 1) * COLUMNS)
    if saturates:
        for j in range(np.uintp(COLUMNS)):
            one, two = psums[j], psums[np.uintp(COLUMNS) + j]
            one_count, two_count, late = np.int32(0), np.int32(0), np.int32(0)
            for u in range(ROWS):
                row, e = np.uintp(u * COLUMNS) + j, to + np.uintp(u * COLUMNS) + j
                weight = w[from_w + row]
                exact = np.int32(one + np.int32(a[m, k + np.uintp(u)] * weight))
                one = clamped(exact, low, high)
                gain = word(exact, one, before[at + row], mask)
                one_count = np.int32(one_count + gain)
                words[e] = np.int32(words[e] + np.int32(gain + late))
                exact = np.int32(two + np.int32(a[m + np.uintp(1), k + np.uintp(u)] * weight))
                two = clamped(exact, low, high)
                late = word(exact, two, one, mask)
                two_count = np.int32(two_count + late)
                before[at + row] = two
            words[to + np.uintp(ROWS * COLUMNS) + j] += late
            psums[j], psums[np.uintp(COLUMNS) + j] = one, two
            counts[j] += one_count >> SHIFT
            counts[np.uintp(COLUMNS) + j] += two_count >> SHIFT
    else:
        for j in range(np.uintp(COLUMNS)):
            one, two = psums[j], psums[np.uintp(COLUMNS) + j]
            one_count, two_count, late = np.int32(0), np.int32(0), np.int32(0)
            for u in range(ROWS):
                row, e = np.uintp(u * COLUMNS) + j, to + np.uintp(u * COLUMNS) + j
                weight = w[from_w + row]
                exact = np.int32(one + np.int32(a[m, k + np.uintp(u)] * weight))
                one = wrapped(exact, unused)
                gain = word(exact, one, before[at + row], mask)
                one_count = np.int32(one_count + gain)
                words[e] = np.int32(words[e] + np.int32(gain + late))
                exact = np.int32(two + np.int32(a[m + np.uintp(1), k + np.uintp(u)] * weight))
                two = wrapped(exact, unused)
                late = word(exact, two, one, mask)
                two_count = np.int32(two_count + late)
                before[at + row] = two
            words[to + np.uintp(ROWS * COLUMNS) + j] += late
            psums[j], psums[np.uintp(COLUMNS) + j] = one, two
            counts[j] += one_count >> SHIFT
            counts[np.uintp(COLUMNS) + j] += two_count >> SHIFT


@njit
def ws_step(
    x: int, k: int, w: I32, psums: I32, row: int, before: I32, i: int, words: I32, s: int, counts: I32, low: int,
    high: int, mask: int, unused: int, saturates: bool,
) -> None:  # fmt: skip
    """The same for one streamed row, the first or second (`row`) of psums, its element x, and one row of PEs."""
    from_w, at, to, mine = (
        np.uintp(k * COLUMNS),
        np.uintp(i * COLUMNS),
        np.uintp((s + 1) * COLUMNS),
        np.uintp(row * COLUMNS),
    )
    for j in range(np.uintp(COLUMNS)):
        exact = np.int32(psums[mine + j] + np.int32(x * w[from_w + j]))
        held = clamped(exact, low, high) if saturates else wrapped(exact, unused)
        gain = word(exact, held, before[at + j], mask)
        words[to + j] += gain
        counts[mine + j] += gain >> SHIFT
        before[at + j] = held
        psums[mine + j] = held


@njit
def add_row(to: I32, counts: I32, row: int) -> None:
    """Add the first or second row of `counts` to `to` [64]."""
    mine = np.uintp(row * COLUMNS)
    for j in range(np.uintp(COLUMNS)):
        to[j] += counts[mine + j]


@njit
def accumulate(
    psums: I32, row: int, acc: I64, counts: I32, words: I32, s: int, low: int, high: int, mask: int, unused: int,
    saturates: bool,
) -> None:  # fmt: skip
    """Add a row of psums that leaves the array (the first or second of `psums`) to accumulators acc [64]."""
    to, mine = np.uintp((s + 1) * COLUMNS), np.uintp(row * COLUMNS)
    for j in range(np.uintp(COLUMNS)):
        before = acc[j]
        exact = before + psums[mine + j]
        held = clamped(exact, low, high) if saturates else (exact << unused) >> unused
        misfit = np.int32(exact != held)
        words[to + j] += np.int32(ones64((held ^ before) & mask)) + (misfit << SHIFT)
        counts[j] += misfit
        acc[j] = held


@njit
def ws_rows(
    a: I32, w: I32, first_row: int, last_row: int, rows: int, used_rows: int, columns: int, cols: int, levels: int,
    column_of: I64, starts: I64, low: int, high: int, mask: int, unused: int, saturates: bool, acc_low: int,
    acc_high: int, acc_mask: int,
    acc_unused: int, acc_saturates: bool, acc: I64, psum_counts: I32, acc_counts: I32, psum_toggles: I64,
    psum_overflows: I64, acc_toggles: I64, acc_overflows: I64,
) -> None:  # fmt: skip
    """Stream rows first_row .. last_row - 1 of one GEMM past all its passes, weight-stationary.

    a [T, F * rows], w [Q, F * rows * 64] : completed with zeros to F folds of K
    used_rows : PE rows that the last fold travels (`rows`, or fewer with skip_unused)
    low .. saturates, acc_low .. acc_saturates : limits of the psum registers and of the accumulators; see `os_folds`
    acc [Q, T * 64] : accumulators, preloaded; updated
    psum_counts, acc_counts [Q, T * 64] : overflows of each output; added to
    starts [column folds * F] : first cycle of each pass
    *_toggles, *_overflows [cycles of the layer + 1] : added to
    """
    streamed = a.shape[0]
    folds = a.shape[1] // rows
    low, high, mask, unused = np.int32(low), np.int32(high), np.int32(mask), np.int32(unused)
    steps = CYCLES + rows + 1
    words = np.zeros((steps + COLUMNS + 2) * COLUMNS, np.int32)
    acc_words = np.zeros_like(words)
    psums, counts = np.zeros(2 * COLUMNS, np.int32), np.zeros(2 * COLUMNS, np.int32)
    registers = np.zeros((folds, rows * COLUMNS), np.int32)
    for q in range(w.shape[0]):
        weights = w[q]
        registers[:] = 0
        for fold in range(folds):  # what the row before left in the registers
            r, k0, before = rows if fold < folds - 1 else used_rows, fold * rows, registers[fold]
            psums[:] = 0
            for i in range(r if first_row > 0 else 0):
                ws_step(
                    a[first_row - 1, k0 + i], k0 + i, weights, psums, 0, before, i, words, i, counts,
                    low, high, mask, unused, saturates,
                )  # fmt: skip
        words[:] = 0
        # Streamed rows in pieces, and all folds of each, so that what a piece touches stays in the cache.
        for start in range(first_row, last_row, CYCLES):
            stop = min(start + CYCLES, last_row)
            for fold in range(folds):
                r, k0, before = rows if fold < folds - 1 else used_rows, fold * rows, registers[fold]
                for m in range(start, stop, 2):
                    together = min(2, stop - m)
                    psums[:] = 0
                    counts[:] = 0
                    i = 0
                    while together == 2 and i + ROWS <= r:
                        ws_tile(
                            a, m, k0 + i, weights, psums, before, i, words, m - start + i, counts,
                            low, high, mask, unused, saturates,
                        )  # fmt: skip
                        i += ROWS
                    while i < r:
                        for row in range(together):
                            ws_step(
                                a[m + row, k0 + i], k0 + i, weights, psums, row, before, i, words, m - start + row + i,
                                counts, low, high, mask, unused, saturates,
                            )  # fmt: skip
                        i += 1
                    for row in range(together):
                        at = (m + row) * COLUMNS
                        add_row(psum_counts[q, at : at + COLUMNS], counts, row)
                        accumulate(
                            psums, row, acc[q, at : at + COLUMNS], acc_counts[q, at : at + COLUMNS], acc_words,
                            m - start + row + r - 1, acc_low, acc_high, acc_mask, acc_unused, acc_saturates,
                        )  # fmt: skip
                if stop == streamed:  # the wave has passed: registers return to zero
                    for i in range(r):
                        for j in range(COLUMNS):
                            words[(stop - start + i + 1) * COLUMNS + j] += ones(
                                np.int32(before[i * COLUMNS + j] & mask)
                            )
                settle(
                    words, stop - start + rows + 1, levels, column_of, q * COLUMNS, columns, cols, starts, fold, folds,
                    start, psum_toggles, psum_overflows,
                )  # fmt: skip
                settle(
                    acc_words, stop - start + rows + 1, levels, column_of, q * COLUMNS, columns, cols, starts, fold,
                    folds, start, acc_toggles, acc_overflows,
                )  # fmt: skip


# ------------------------------------------------------------------------------------------- one output


@njit
def register_before(a: I32, w: I32, low: int, high: int, unused: int, saturates: bool) -> int:
    """Return what one output's psum register holds after the elements a, w [K] int32."""
    held = np.int64(0)
    wide = unused + 32
    for k in range(a.size):
        held += np.int64(a[k]) * np.int64(w[k])
        held = clamped(held, low, high) if saturates else (held << wide) >> wide
    return held
