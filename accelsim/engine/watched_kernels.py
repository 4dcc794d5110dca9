"""Loops over a layer's PEs with the skew of the wave removed, in which every event still has its exact cycle.

PE(i, j) does in cycle t what belongs to element k = t - i - j (os), or to streamed row m = t - i - j (ws). So the loops
walk k, or m, for all columns at once, which are the SIMD axis; what happens in row i is counted into the word of cycle
k + i, a word for each column. A piece's words are added up (`total`), or shifted by j and added to the cycles of the
layer (`settle`).

Columns lie in blocks of 64, each block contiguous: loops over K keep a part of them in SIMD registers (_watched_lanes).
Columns, elements of K and rows that fill up a block are zero, and cause no event.

A word holds a cycle's toggled bits in its low `SHIFT` bits, and its overflows above. Registers are int32, and hold
their content plus `offset`, half of their range: what fits is then a number of `bits` bits without sign. The caller
knows that no register content plus a product leaves int32.

Overflow is rare, so work is done twice where it happens. A tile (`*_clean`) is computed as if nothing could overflow,
with two operations fewer for each of clamping, comparing and counting; bits beyond the register in any sum say that
something did. Then what was counted is taken back, and the tile done in full (`*_exact`).

Operands come as they are. What a tile needs of them is copied to where it stays in the cache, and what comes out of it
goes to the outputs at once: nothing but these is as large as the layer.

Indices are np.uintp: one that could be negative would be counted from the end, which keeps loops out of SIMD.
"""

# mypy: disable-error-code="arg-type, assignment, no-any-return, return-value"
# To Numba a NumPy scalar and a Python int are one thing; to a type checker they are not.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit
from accelsim._watched_lanes import os_clean, os_exact, ws_clean, ws_exact

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
COLUMNS = 64
TOGETHER = 4  # rows of PEs (os), streamed rows (ws) in a tile
ELEMENTS = 16  # of K in a tile (os)
CYCLES = 256  # of a pass whose words are kept before they settle, so that they stay in the cache
SHIFT = 18
TOGGLES = (1 << SHIFT) - 1
TOTALLED = 16
# What is known of a kind of register after a call: toggled bits, overflows, and the layer's earliest cycle with one;
# and of the toggled bits those of the cycle behind a thread's own (`settle`).
BITS, MISFITS, EARLIEST, BEHIND = 0, 1, 2, 3


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
def halved(words: I32, first: int, steps: int, apart: int, half: int, to: I32) -> None:
    """Write rows of `half` words to `to`: the first half of each row of `words`, from `first` on, plus the second half
    of the row `apart` steps before, if there is one.
    """
    for s in range(np.uintp(apart)):
        for x in range(half):
            to[s * half + x] = words[np.uintp(first) + np.uintp(2) * s * half + x]
    for s in range(np.uintp(apart), np.uintp(steps)):
        this = np.uintp(first) + np.uintp(2) * s * half
        other = np.uintp(first) + np.uintp(2) * (s - np.uintp(apart)) * half + half
        for x in range(half):
            to[s * half + x] = np.int32(words[this + x] + words[other + x])


@njit
def settle(
    words: I32, steps: int, levels: int, column_of: I64, first_column: int, columns: int, cols: int, starts: I64,
    first_pass: int, passes_apart: int, first_cycle: int, events: int, even: I32, odd: I32, found: I64, end: int,
    toggles: I64, overflows: I64,
) -> None:  # fmt: skip
    """Shift each column's words by its j, and add them up over the columns of a pass; add the toggled bits to `found`.

    words : int32 [(1 + steps + 64 + 1) * 64], word (s, place) at (1 + s) * 64 + place, row 0 and those from `steps` on
        are zero
    levels : log2 of how many columns are added up as words: it divides `cols`, and no sum leaves a word
    column_of : int64 [64], the column of each place of the block (watched_layer.column_order): after `levels` halvings
        of a row neighbouring columns have met, the right one as many cycles later as columns had met before
    first_column : of this block, of `columns` in all, `cols` a pass
    starts : int64 [passes], first cycle of each; column fold f is in pass first_pass + f * passes_apart
    first_cycle : cycle of the pass of s = 0 in column 0
    events : overflows in the words
    even, odd : scratch, of half the size of words
    end : the first cycle that is another thread's, or behind the layer's last one. Registers that return to zero may
        toggle in it, and in none behind it
    toggles, overflows : int64 [cycles of the layer + 1], added to
    """
    rows, left = steps + (1 << levels), COLUMNS >> levels
    settled, first = words, COLUMNS
    if levels > 0:  # halves that are known when this is compiled become SIMD instructions
        halved(words, COLUMNS, rows, 1, np.uintp(32), even)
        settled, first = even, 0
    if levels > 1:
        halved(even, 0, rows, 2, np.uintp(16), odd)
        settled = odd
    if levels > 2:
        halved(odd, 0, rows, 4, np.uintp(8), even)
        settled = even
    if levels > 3:
        halved(even, 0, rows, 8, np.uintp(4), odd)
        settled = odd
    if levels > 4:
        halved(odd, 0, rows, 16, np.uintp(2), even)
        settled = even
    if levels > 5:
        halved(even, 0, rows, 32, np.uintp(1), odd)
        settled = odd
    bits = 0
    for x in range(left):
        column = first_column + column_of[x]
        if column < columns:
            number = first_pass + column // cols * passes_apart
            cycle = np.uintp(starts[number] + first_cycle + column % cols)
            at = np.uintp(first + x)
            # Words beyond the pass are zero, and their cycles another thread's, or none at all: they are not touched.
            own = np.uintp(max(0, min(rows, end - np.int64(cycle))))
            for s in range(own):
                toggled = settled[at + s * np.uintp(left)] & TOGGLES
                if toggled != 0:
                    toggles[cycle + s] += toggled
                    bits += toggled
            if own < np.uintp(rows):
                toggled = settled[at + own * np.uintp(left)] & TOGGLES
                found[BEHIND] += toggled
                bits += toggled
            if events > 0:
                for s in range(own):
                    misfits = settled[at + s * np.uintp(left)] >> SHIFT
                    if misfits != 0:
                        overflows[cycle + s] += misfits
    found[BITS] += bits


@njit
def total(
    words: I32, steps: int, levels: int, column_of: I64, first_column: int, columns: int, cols: int, starts: I64,
    first_pass: int, passes_apart: int, first_cycle: int, events: int, keep: bool, even: I32, odd: I32, found: I64,
    end: int, toggles: I64, overflows: I64,
) -> None:  # fmt: skip
    """Add a piece's words, in which there are so many overflows, to `found` [4], and, to `keep` them, to every cycle's;
    clear them. See `settle`.
    """
    found[MISFITS] += events
    if events > 0:
        for x in range(COLUMNS):
            column = first_column + column_of[x]
            if column < columns:
                first = starts[first_pass + column // cols * passes_apart] + first_cycle + column % cols
                for step in range(steps):
                    if first + step >= found[EARLIEST]:
                        break
                    if words[np.uintp((step + 1) * COLUMNS + x)] >> SHIFT:
                        found[EARLIEST] = first + step
    if keep:
        settle(
            words, steps, levels, column_of, first_column, columns, cols, starts, first_pass, passes_apart,
            first_cycle, events, even, odd, found, end, toggles, overflows,
        )  # fmt: skip
    else:
        for row in range(0, steps + 1, TOTALLED):  # so few rows that int32 sums cannot overflow
            bits = np.int32(0)
            for x in range(np.uintp(row * COLUMNS), np.uintp(min(row + TOTALLED, steps + 1) * COLUMNS)):
                bits = np.int32(bits + np.int32(words[x] & np.int32(TOGGLES)))
            found[BITS] += bits
    words[: (steps + 1) * COLUMNS] = 0


@njit
def packed(w: I32, first_column: int, column_of: I64, block: I32) -> None:
    """Write the columns of w [K, N] from `first_column` on as a block [K * 64], each where `column_of` has it."""
    many = min(COLUMNS, w.shape[1] - first_column)
    for k in range(w.shape[0]):
        row, to = w[k, first_column : first_column + many], block[k * COLUMNS : (k + 1) * COLUMNS]
        for x in range(COLUMNS):
            column = np.uintp(column_of[x])
            to[x] = row[column] if column < np.uintp(many) else 0


@njit
def lanes_of(a: I32, first_row: int, start: int, lanes: I32) -> None:
    """Write a piece of a [M, K] from (first_row, start) on, zero where there is none."""
    rows = max(0, min(lanes.shape[0], a.shape[0] - first_row))
    length = max(0, min(lanes.shape[1], a.shape[1] - start))
    lanes[:] = 0
    for r in range(max(0, -first_row), rows):
        row, to = a[first_row + r, start : start + length], lanes[r, :length]
        for k in range(length):
            to[k] = row[k]


# ------------------------------------------------------------------------------------------- output-stationary


@njit
def os_take_back(a: I32, first: int, start: int, stop: int, w: I32, acc: I32, words: I32, s: int) -> None:
    """Undo what `os_clean` did to registers and words; int32 sums can be undone even where they have wrapped.

    s : place of (first, start) in `words`
    """
    for r in range(TOGETHER):
        at = np.uintp(r * COLUMNS)
        for k in range(stop - 1, start - 1, -1):
            x = a[first + r, k]
            from_w, to = np.uintp(k * COLUMNS), np.uintp((s + r + k - start) * COLUMNS)
            for j in range(np.uintp(COLUMNS)):
                before = np.int32(acc[at + j] - np.int32(x * w[from_w + j]))
                words[to + j] -= ones(np.int32(before ^ acc[at + j]))
                acc[at + j] = before


@njit
def os_pass(
    a: I32, w: I32, start: int, stop: int, acc: I32, counts: I32, troubled: U8, words: I32, low: int, high: int,
    mask: int, unused: int, saturates: bool, offset: int,
) -> int:  # fmt: skip
    """Add elements start .. stop - 1 to the registers of rows a [R, K], of one block of columns; return the overflows.

    acc, counts [R * 64] : registers plus offset, and how often each overflowed; updated
    troubled [R / 4] : rows that overflowed in their last tile may do so again
    words : the piece's, the word of (row 0, start) behind a row of zeros
    """
    misfits = 0
    for first in range(start, stop, ELEMENTS):
        last = min(first + ELEMENTS, stop)
        for i in range(0, a.shape[0], TOGETHER):
            mine, place = acc[i * COLUMNS : (i + TOGETHER) * COLUMNS], first - start + i + 1
            if troubled[i // TOGETHER] == 0:
                if os_clean(a, i, first, last, w, mine, words, place) & ~mask == 0:
                    continue
                os_take_back(a, i, first, last, w, mine, words, place)
            events = os_exact(
                a, i, first, last, w, mine, words, place, counts[i * COLUMNS : (i + TOGETHER) * COLUMNS], low, high,
                mask, unused, saturates, offset,
            )  # fmt: skip
            troubled[i // TOGETHER] = events > 0
            misfits += events
    return misfits


@njit
def os_drain(
    psums: I32, preloaded: I64, first_column: int, cols: int, drained: I64, first_pass: int, rows_apart: int,
    low: int, high: int, mask: int, unused: int, saturates: bool, acc: I64, counts: I32, words: I64, keep: bool,
    found: I64, toggles: I64, overflows: I64,
) -> None:  # fmt: skip
    """Add a row of psums, of columns from `first_column` on, to the accumulators as it leaves the array.

    preloaded [N] : accumulators
    drained [passes] : first cycle of each pass's drain; the row leaves so many cycles (rows_apart) later
    first_pass : of the row's passes, one for each column fold
    acc, counts [N] : a row of accumulators, and which of them overflowed; written
    words [64] : scratch
    found, toggles, overflows : as in `os_blocks`
    """
    missed = np.int64(0)
    many = np.uintp(psums.size)
    for n in range(many):
        before = preloaded[np.uintp(first_column) + n]
        exact = before + psums[n]
        held = clamped(exact, low, high) if saturates else (exact << unused) >> unused
        acc[np.uintp(first_column) + n] = held
        missed += exact != held
        words[n] = ones64((held ^ before) & mask)
    n = 0
    while n < psums.size:
        fold = (first_column + n) // cols
        last = min((fold + 1) * cols - first_column, psums.size)
        cycle = drained[first_pass + fold] + rows_apart
        bits = np.int64(0)
        for x in range(np.uintp(n), np.uintp(last)):
            bits += words[x]
        found[BITS] += bits
        if keep:
            toggles[cycle] += bits
        if missed > 0:
            events = 0
            for x in range(n, last):
                before, column = preloaded[first_column + x], first_column + x
                misfit = np.int32(before + psums[x] != acc[column])
                counts[column] = misfit
                events += misfit
            found[MISFITS] += events
            if events > 0:
                found[EARLIEST] = min(found[EARLIEST], cycle)
            if keep:
                overflows[cycle] += events
        n = last


@njit
def os_blocks(
    a: I32, w: I32, first_fold: int, last_fold: int, rows: int, cols: int, levels: int, column_of: I64, starts: I64,
    drained: I64, extents: I64, low: int, high: int, mask: int, unused: int, saturates: bool, acc_low: int,
    acc_high: int, acc_mask: int, acc_unused: int, acc_saturates: bool, preloaded: I64, acc: I64, psum_counts: I32,
    acc_counts: I32, keep: bool, psum_found: I64, acc_found: I64, psum_toggles: I64, psum_overflows: I64,
    acc_toggles: I64, acc_overflows: I64,
) -> None:  # fmt: skip
    """Run the passes of row folds first_fold .. last_fold - 1 of one GEMM, output-stationary.

    a [M, K], w [K, N] : operands; a pass has `rows` and `cols` of them
    levels, column_of : of `settle`
    starts, drained, extents [row folds * column folds] : of each pass the first cycle, the first one of the drain, and
        the rows that this travels
    low, high, mask, unused, saturates : the psum registers' limits, bits in use, and 32 less their number
    acc_* : the accumulators', 64 less their number; preloaded [N] : what they hold before
    acc, psum_counts, acc_counts [M, N] : accumulators, written; how often registers overflowed, added to
    keep : whether to add to *_toggles, *_overflows [cycles of the layer + 1]
    psum_found, acc_found [4] : added to, the earliest cycle lowered
    """
    length, columns = w.shape
    low, high, mask, unused = np.int32(low), np.int32(high), np.int32(mask), np.int32(unused)
    offset = np.int32(np.int32(-1) * low)
    height = (rows + TOGETHER - 1) // TOGETHER * TOGETHER
    column_folds = (columns + cols - 1) // cols
    words = np.zeros((CYCLES + height + COLUMNS + 2) * COLUMNS, np.int32)
    even, odd = np.empty(words.size // 2, np.int32), np.empty(words.size // 2, np.int32)
    lanes, weights = np.empty((height, length), np.int32), np.empty(length * COLUMNS, np.int32)
    psums, counts = np.empty(height * COLUMNS, np.int32), np.zeros(height * COLUMNS, np.int32)
    row, scratch = np.empty(COLUMNS, np.int32), np.empty(COLUMNS, np.int64)
    troubled = np.zeros(height // TOGETHER, np.uint8)
    end = psum_toggles.size
    for column in range(0, columns, COLUMNS):
        packed(w, column, column_of, weights)
        many = min(COLUMNS, columns - column)
        for fold in range(first_fold, last_fold):
            used = min(rows, a.shape[0] - fold * rows)
            lanes_of(a[: fold * rows + used], fold * rows, 0, lanes)
            psums[:] = offset
            troubled[:] = 0
            misfits = 0
            for start in range(0, length, CYCLES):
                stop = min(start + CYCLES, length)
                events = os_pass(
                    lanes, weights, start, stop, psums, counts, troubled, words, low, high, mask, unused, saturates,
                    offset,
                )  # fmt: skip
                misfits += events
                total(
                    words, stop - start + height, levels, column_of, column, columns, cols, starts,
                    fold * column_folds, 1, start, events, keep, even, odd, psum_found, end, psum_toggles,
                    psum_overflows,
                )  # fmt: skip
            for i in range(used):
                m = fold * rows + i
                for x in range(COLUMNS):
                    row[column_of[x]] = np.int32(psums[i * COLUMNS + x] - offset)
                os_drain(
                    row[:many], preloaded, column, cols, drained, fold * column_folds,
                    extents[fold * column_folds] - 1 - i, acc_low, acc_high, acc_mask, acc_unused, acc_saturates,
                    acc[m], acc_counts[m], scratch, keep, acc_found, acc_toggles, acc_overflows,
                )  # fmt: skip
                if misfits > 0:
                    for x in range(COLUMNS):
                        if column_of[x] < many:
                            psum_counts[m, column + column_of[x]] = counts[i * COLUMNS + x]
            if misfits > 0:
                counts[:] = 0


# ------------------------------------------------------------------------------------------- stationary operand


@njit
def ws_take_back(a: I32, row0: int, r: int, w: I32, psums: I32, held: I32, words: I32, s: int, offset: int) -> None:
    """Undo what `ws_clean` did to words.

    held [R * 64] : as it was before; s : place of (row0, 0) in `words`
    """
    psums[:] = offset
    for i in range(r):
        from_w, at = np.uintp(i * COLUMNS), np.uintp(i * COLUMNS)
        for row in range(TOGETHER):
            x, to, mine = a[row0 + row, i], np.uintp((s + i + row) * COLUMNS), np.uintp(row * COLUMNS)
            for j in range(np.uintp(COLUMNS)):
                before = held[at + j] if row == 0 else psums[mine - np.uintp(COLUMNS) + j]
                psums[mine + j] += np.int32(x * w[from_w + j])
                words[to + j] -= ones(np.int32(before ^ psums[mine + j]))


@njit
def left_behind(
    a: I32, row: int, r: int, w: I32, held: I32, low: int, high: int, unused: int, saturates: bool, offset: int
) -> None:  # fmt: skip
    """Write what a streamed row of a [T, R] leaves in the psum registers of r rows of PEs, held [R * 64]."""
    for i in range(r):
        at = np.uintp(i * COLUMNS)
        for j in range(np.uintp(COLUMNS)):
            above = np.int32(held[at - np.uintp(COLUMNS) + j] - offset) if i > 0 else np.int32(0)
            exact = np.int32(above + np.int32(a[row, i] * w[at + j]))
            held[at + j] = np.int32((clamped(exact, low, high) if saturates else wrapped(exact, unused)) + offset)


@njit
def accumulate_clean(psums: I32, offset: int, acc: I32, words: I32, s: int) -> int:
    """Add rows of psums that leave the array to accumulators acc [rows * 64] as if none could overflow; return the bits
    set.

    acc : plus an offset of their own, as psums are
    s : place in `words` of the first row; a row later, a cycle later
    """
    to, found = np.uintp((s + 1) * COLUMNS), np.int32(0)
    for x in range(np.uintp(acc.size)):
        before = acc[x]
        after = np.int32(before + np.int32(psums[x] - offset))
        found = np.int32(found | after)
        words[to + x] += ones(np.int32(before ^ after))
        acc[x] = after
    return found


@njit
def accumulate_take_back(psums: I32, offset: int, acc: I32, words: I32, s: int) -> None:
    """Undo what `accumulate_clean` did."""
    to = np.uintp((s + 1) * COLUMNS)
    for x in range(np.uintp(acc.size)):
        before = np.int32(acc[x] - np.int32(psums[x] - offset))
        words[to + x] -= ones(np.int32(before ^ acc[x]))
        acc[x] = before


@njit
def accumulate(
    psums: I32, offset: int, acc: NDArray[np.signedinteger], acc_offset: int, counts: I32, words: I32, s: int,
    low: int, high: int, mask: int, unused: int, saturates: bool,
) -> int:  # fmt: skip
    """Do what `accumulate_clean` does, in full; return the overflows.

    acc : int64, or int32; plus acc_offset
    counts [rows * 64] : of each accumulator, added to
    """
    to, misfits = np.uintp((s + 1) * COLUMNS), 0
    for x in range(np.uintp(acc.size)):
        before = np.int64(acc[x]) - acc_offset
        exact = before + np.int32(psums[x] - offset)
        held = clamped(exact, low, high) if saturates else (exact << unused) >> unused
        misfit = np.int32(exact != held)
        words[to + x] += np.int32(ones64((held ^ before) & mask)) + (misfit << SHIFT)
        counts[x] += misfit
        misfits += misfit
        acc[x] = held + acc_offset
    return misfits


@njit
def add(to: I32, counts: I32) -> None:
    """Add to `to` as many of `counts` as it has."""
    for x in range(np.uintp(to.size)):
        to[x] += counts[x]


@njit
def ws_psums(
    a: I32, row0: int, r: int, w: I32, psums: I32, held: I32, words: I32, s: int, counts: I32, troubled: bool,
    low: int, high: int, mask: int, unused: int, saturates: bool, offset: int,
) -> int:  # fmt: skip
    """Let four streamed rows, from `row0` of a [T, R] on, pass r rows of PEs; return the overflows.

    w [R * 64]; psums [4 * 64] : as they leave; counts [4 * 64] : their overflows, written where there are any
    held [R * 64] : what the PEs' registers hold, from row `row0` - 1; then from the last row
    s : place of (row0, 0) in `words`
    troubled : whether psums overflowed in the last four rows: then they may do so again
    """
    if not troubled:
        if ws_clean(a, row0, 0, r, w, psums, words, s, held, offset) & ~mask == 0:
            return 0
        left_behind(a, row0 - 1, r, w, held, low, high, unused, saturates, offset)
        ws_take_back(a, row0, r, w, psums, held, words, s, offset)
    counts[:] = 0
    return ws_exact(a, row0, 0, r, w, psums, words, s, held, counts, low, high, mask, unused, saturates, offset)


@njit
def opened(
    acc: NDArray[np.signedinteger], offset: int, preloaded: I64, first_column: int, first_row: int, column_of: I64,
    transposed: bool,
) -> None:  # fmt: skip
    """Preload accumulators [rows * 64] of streamed rows and a block of columns; see `ws_blocks`."""
    for r in range(acc.size // COLUMNS):
        for x in range(COLUMNS):
            n = first_row + r if transposed else first_column + column_of[x]
            acc[r * COLUMNS + x] = (preloaded[n] if n < preloaded.size else 0) + offset


@njit
def closed(
    block: NDArray[np.signedinteger], first_column: int, first_row: int, column_of: I64, transposed: bool,
    to: NDArray[np.signedinteger],
) -> None:  # fmt: skip
    """Write a block [rows * 64] to the outputs [M, N]."""
    columns = to.shape[0] if transposed else to.shape[1]
    for r in range(block.size // COLUMNS):
        for x in range(COLUMNS):
            column = first_column + column_of[x]
            if column < columns:
                if transposed:
                    to[column, first_row + r] = block[r * COLUMNS + x]
                else:
                    to[first_row + r, column] = block[r * COLUMNS + x]


@njit
def ws_blocks(
    a: I32, w: I32, first_block: int, last_block: int, first_row: int, last_row: int, rows: int, used_rows: int,
    cols: int, levels: int, column_of: I64, starts: I64, low: int, high: int, mask: int, unused: int,
    saturates: bool, acc_low: int, acc_high: int, acc_mask: int, acc_unused: int, acc_saturates: bool, narrow: bool,
    transposed: bool, preloaded: I64, acc: I64, psum_counts: I32, acc_counts: I32, keep: bool, psum_found: I64,
    acc_found: I64, end: int, psum_toggles: I64, psum_overflows: I64, acc_toggles: I64, acc_overflows: I64,
) -> None:  # fmt: skip
    """Stream rows first_row .. last_row - 1 of one GEMM past blocks of columns first_block .. last_block - 1.

    a [T, K], w [K, C] : operands as the array sees them. Behind the T streamed rows there are rows of zeros, one at
        least, behind which registers are zero again; first_row and last_row are multiples of 4
    used_rows : PE rows that the last fold travels (`rows`, or fewer with skip_unused)
    narrow : an int32 holds an accumulator plus half of its range, and a sum that does not fit it has other bits set
    transposed : streamed rows are columns of the outputs
    starts [column folds * folds of K] : first cycle of each pass
    end : of `settle`
    The rest as in `os_blocks`.
    """
    streamed, length, columns = a.shape[0], a.shape[1], w.shape[1]
    folds = (length + rows - 1) // rows
    low, high, mask, unused = np.int32(low), np.int32(high), np.int32(mask), np.int32(unused)
    offset, acc_offset = np.int32(np.int32(-1) * low), np.int64(-acc_low) if narrow else np.int64(0)
    beyond = np.int32(~np.int32(acc_mask)) if narrow else np.int32(-1)
    words = np.zeros((CYCLES + rows + COLUMNS + 3) * COLUMNS, np.int32)
    even, odd = np.empty(words.size // 2, np.int32), np.empty(words.size // 2, np.int32)
    acc_words = np.zeros_like(words)
    psums, counts = np.zeros(TOGETHER * COLUMNS, np.int32), np.zeros(TOGETHER * COLUMNS, np.int32)
    lanes, weights = np.empty((1 + CYCLES, rows), np.int32), np.zeros(folds * rows * COLUMNS, np.int32)
    registers = np.zeros((folds, rows * COLUMNS), np.int32)
    narrow_acc = np.empty(CYCLES * COLUMNS if narrow else 0, np.int32)
    wide_acc = np.empty(0 if narrow else CYCLES * COLUMNS, np.int64)
    psum_misfits, acc_misfits = np.zeros(CYCLES * COLUMNS, np.int32), np.zeros(CYCLES * COLUMNS, np.int32)
    troubled = np.zeros(folds, np.uint8)
    for q in range(first_block, last_block):
        column = q * COLUMNS
        packed(w, column, column_of, weights)
        registers[:] = offset
        troubled[:] = 0
        # Streamed rows in pieces, and all folds of each, so that what a piece touches stays in the cache.
        for start in range(first_row, last_row, CYCLES):
            stop = min(start + CYCLES, last_row)
            size, psum_total, acc_total = (min(stop, streamed) - start) * COLUMNS, 0, 0
            if narrow:
                opened(narrow_acc[:size], acc_offset, preloaded, column, start, column_of, transposed)
            else:
                opened(wide_acc[:size], 0, preloaded, column, start, column_of, transposed)
            for fold in range(folds):
                r, from_w = rows if fold < folds - 1 else used_rows, weights[fold * rows * COLUMNS :]
                lanes_of(a, start - 1, fold * rows, lanes)
                if start == first_row and first_row > 0:
                    left_behind(lanes, 0, r, from_w, registers[fold], low, high, unused, saturates, offset)
                psum_piece, acc_piece = 0, 0
                for m in range(0, stop - start, TOGETHER):
                    at, last = m * COLUMNS, min((m + TOGETHER) * COLUMNS, size)
                    events = ws_psums(
                        lanes, m + 1, r, from_w, psums, registers[fold], words, m + 1, counts, troubled[fold] != 0,
                        low, high, mask, unused, saturates, offset,
                    )  # fmt: skip
                    troubled[fold] = events > 0
                    if events > 0:
                        psum_piece += events
                        add(psum_misfits[at:last], counts)
                    if narrow:
                        mine = narrow_acc[at:last]
                        if accumulate_clean(psums, offset, mine, acc_words, m + r - 1) & beyond != 0:
                            accumulate_take_back(psums, offset, mine, acc_words, m + r - 1)
                            acc_piece += accumulate(
                                psums, offset, mine, acc_offset, acc_misfits[at:last], acc_words, m + r - 1,
                                acc_low, acc_high, acc_mask, acc_unused, acc_saturates,
                            )  # fmt: skip
                    else:
                        acc_piece += accumulate(
                            psums, offset, wide_acc[at:last], 0, acc_misfits[at:last], acc_words, m + r - 1,
                            acc_low, acc_high, acc_mask, acc_unused, acc_saturates,
                        )  # fmt: skip
                total(
                    words, stop - start + rows, levels, column_of, column, columns, cols, starts, fold, folds,
                    start, psum_piece, keep, even, odd, psum_found, end, psum_toggles, psum_overflows,
                )  # fmt: skip
                total(
                    acc_words, stop - start + rows, levels, column_of, column, columns, cols, starts, fold,
                    folds, start, acc_piece, keep, even, odd, acc_found, end, acc_toggles, acc_overflows,
                )  # fmt: skip
                psum_total, acc_total = psum_total + psum_piece, acc_total + acc_piece
            if narrow:
                for x in range(size):
                    narrow_acc[x] = np.int32(narrow_acc[x] - np.int32(acc_offset))  # modulo 2^32
                closed(narrow_acc[:size], column, start, column_of, transposed, acc)
            else:
                closed(wide_acc[:size], column, start, column_of, transposed, acc)
            if psum_total > 0:
                closed(psum_misfits[:size], column, start, column_of, transposed, psum_counts)
                psum_misfits[:] = 0
            if acc_total > 0:
                closed(acc_misfits[:size], column, start, column_of, transposed, acc_counts)
                acc_misfits[:] = 0


# ------------------------------------------------------------------------------------------- single outputs


@njit
def register_before(
    a: I32, w: I32, m: int, n: int, start: int, stop: int, low: int, high: int, unused: int, saturates: bool
) -> int:  # fmt: skip
    """Return what an output's psum register holds after elements start .. stop - 1 of a fold, of a [M, K], w [K, N]."""
    held = np.int64(0)
    wide = unused + 32
    for k in range(start, stop):
        held += np.int64(a[m, k]) * np.int64(w[k, n])
        held = clamped(held, low, high) if saturates else (held << wide) >> wide
    return held


@njit
def first_misfit(
    a: I32, w: I32, additions: I64, low: int, high: int, unused: int, saturates: bool
) -> tuple[int, int]:  # fmt: skip
    """Return the first of additions [X, 4] (m, n, first element of the fold, k) whose sum does not fit, and that sum;
    -1 if there is none.
    """
    for x in range(additions.shape[0]):
        m, n, start, k = additions[x]
        before = register_before(a, w, m, n, start, k, low, high, unused, saturates)
        exact = before + np.int64(a[m, k]) * np.int64(w[k, n])
        if exact < low or exact > high:
            return x, exact
    return -1, np.int64(0)
