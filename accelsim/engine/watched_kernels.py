"""Loops over a layer's PEs with the skew of the wave removed, in which every event still has its exact cycle.

PE(i, j) does in cycle t what belongs to element k = t - i - j (os), or to streamed row m = t - i - j (ws). So the loops
walk k, or m, for all columns at once, which are the SIMD axis; what happens in row i is counted into the word of cycle
k + i, a word for each column. A piece's words are added up (`total`), or shifted by j and added to the cycles of the
layer (`settle`).

Columns lie in blocks of 64, each block contiguous: distances that are known when this is compiled let the compiler keep
columns in SIMD registers. Columns, elements of K and (os) rows that fill up a block are zero, and cause no event.

A word holds a cycle's toggled bits in its low `SHIFT` bits, and its overflows above. Registers are int32, and hold
their content plus `offset`, half of their range: what fits is then a number of `bits` bits without sign. The caller
knows that no register content plus a product leaves int32.

Overflow is rare, so work is done twice where it happens. A tile (`*_clean`) is computed as if nothing could overflow,
with two operations fewer for each of clamping, comparing and counting; bits beyond the register in any sum say that
something did. Then what was counted is taken back, and the tile done in full (`*_exact`).

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
U8 = NDArray[np.uint8]
COLUMNS = 64
UNROLLED = 8  # elements of K (os), rows of PEs (ws)
TOGETHER = 4  # rows of PEs (os), streamed rows (ws)
ROWS = 4  # of PEs, where ws sums are done in full
CYCLES = 256  # of a pass whose words are kept before they settle, so that they stay in the cache
SHIFT = 18
TOGGLES = (1 << SHIFT) - 1
TOTALLED = 16
# What is known of a kind of register after a call: toggled bits, overflows, and the layer's earliest cycle with one.
BITS, MISFITS, EARLIEST = 0, 1, 2


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
    first_pass: int, passes_apart: int, first_cycle: int, events: int, even: I32, odd: I32, toggles: I64,
    overflows: I64,
) -> int:  # fmt: skip
    """Shift each column's words by its j, and add them up over the columns of a pass. Return the toggled bits.

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
            for s in range(np.uintp(rows)):
                toggled = settled[at + s * np.uintp(left)] & TOGGLES
                if toggled != 0:
                    toggles[cycle + s] += toggled
                    bits += toggled
            if events > 0:
                for s in range(np.uintp(rows)):
                    misfits = settled[at + s * np.uintp(left)] >> SHIFT
                    if misfits != 0:
                        overflows[cycle + s] += misfits
    return bits


@njit
def total(
    words: I32, steps: int, levels: int, column_of: I64, first_column: int, columns: int, cols: int, starts: I64,
    first_pass: int, passes_apart: int, first_cycle: int, events: int, keep: bool, even: I32, odd: I32, found: I64,
    toggles: I64, overflows: I64,
) -> None:  # fmt: skip
    """Add a piece's words, in which there are so many overflows, to `found` [3], and, to `keep` them, to every cycle's;
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
        found[BITS] += settle(
            words, steps, levels, column_of, first_column, columns, cols, starts, first_pass, passes_apart,
            first_cycle, events, even, odd, toggles, overflows,
        )  # fmt: skip
    else:
        for row in range(0, steps + 1, TOTALLED):  # so few rows that int32 sums cannot overflow
            bits = np.int32(0)
            for x in range(np.uintp(row * COLUMNS), np.uintp(min(row + TOTALLED, steps + 1) * COLUMNS)):
                bits = np.int32(bits + np.int32(words[x] & np.int32(TOGGLES)))
            found[BITS] += bits
    words[: (steps + 1) * COLUMNS] = 0


# ------------------------------------------------------------------------------------------- output-stationary


@njit
def os_clean(a: I32, first: int, start: int, w: I32, acc: I32, words: I32, s: int) -> int:
    """Add eight elements of K, from `start` on, to four rows of registers, `first` and below, of one block of columns,
    as if none could overflow. Return the bits that any sum has set.

    s : place of (first, start) in `words`

    What happens in row i + 1 at element k belongs to the cycle of row i's element k + 1: it waits in `late`.
    """
    i, k = np.uintp(first), np.uintp(start)
    at, from_w, to = np.uintp(first * COLUMNS), np.uintp(start * COLUMNS), np.uintp((s + 1) * COLUMNS)
    found = np.int32(0)
    for j in range(np.uintp(COLUMNS)):
        r0, r1 = acc[at + j], acc[at + np.uintp(COLUMNS) + j]
        r2, r3 = acc[at + np.uintp(2 * COLUMNS) + j], acc[at + np.uintp(3 * COLUMNS) + j]
        late1, late2, late3 = np.int32(0), np.int32(0), np.int32(0)
        for u in range(UNROLLED):
            weight, e = w[from_w + np.uintp(u * COLUMNS) + j], to + np.uintp(u * COLUMNS) + j
            ku = k + np.uintp(u)
            s0 = np.int32(r0 + np.int32(a[i, ku] * weight))
            s1 = np.int32(r1 + np.int32(a[i + np.uintp(1), ku] * weight))
            s2 = np.int32(r2 + np.int32(a[i + np.uintp(2), ku] * weight))
            s3 = np.int32(r3 + np.int32(a[i + np.uintp(3), ku] * weight))
            found = np.int32(found | np.int32(np.int32(s0 | s1) | np.int32(s2 | s3)))
            words[e] = np.int32(words[e] + np.int32(ones(np.int32(s0 ^ r0)) + late1))
            late1 = np.int32(ones(np.int32(s1 ^ r1)) + late2)
            late2 = np.int32(ones(np.int32(s2 ^ r2)) + late3)
            late3 = ones(np.int32(s3 ^ r3))
            r0, r1, r2, r3 = s0, s1, s2, s3
        words[to + np.uintp(UNROLLED * COLUMNS) + j] += late1
        words[to + np.uintp((UNROLLED + 1) * COLUMNS) + j] += late2
        words[to + np.uintp((UNROLLED + 2) * COLUMNS) + j] += late3
        acc[at + j], acc[at + np.uintp(COLUMNS) + j] = r0, r1
        acc[at + np.uintp(2 * COLUMNS) + j], acc[at + np.uintp(3 * COLUMNS) + j] = r2, r3
    return found


@njit
def os_take_back(a: I32, first: int, start: int, w: I32, acc: I32, words: I32, s: int) -> None:
    """Undo what `os_clean` did to registers and words; int32 sums can be undone even where they have wrapped."""
    for r in range(TOGETHER):
        at = np.uintp((first + r) * COLUMNS)
        for u in range(UNROLLED - 1, -1, -1):
            x = a[first + r, start + u]
            from_w, to = np.uintp((start + u) * COLUMNS), np.uintp((s + r + u + 1) * COLUMNS)
            for j in range(np.uintp(COLUMNS)):
                before = np.int32(acc[at + j] - np.int32(x * w[from_w + j]))
                words[to + j] -= ones(np.int32(before ^ acc[at + j]))
                acc[at + j] = before


@njit
def os_exact(
    a: I32, first: int, start: int, w: I32, acc: I32, counts: I32, words: I32, s: int, low: int, high: int, mask: int,
    unused: int, saturates: bool, offset: int,
) -> int:  # fmt: skip
    """Do what `os_clean` does, for two rows of registers and in full. Return the overflows; counts : added to."""
    i, k = np.uintp(first), np.uintp(start)
    at, from_w, to = np.uintp(first * COLUMNS), np.uintp(start * COLUMNS), np.uintp((s + 1) * COLUMNS)
    misfits = np.int32(0)
    if saturates:
        for j in range(np.uintp(COLUMNS)):
            one, two = np.int32(acc[at + j] - offset), np.int32(acc[at + np.uintp(COLUMNS) + j] - offset)
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
            acc[at + j], acc[at + np.uintp(COLUMNS) + j] = np.int32(one + offset), np.int32(two + offset)
            one_count, two_count = np.int32(one_count >> SHIFT), np.int32(two_count >> SHIFT)
            counts[at + j] += one_count
            counts[at + np.uintp(COLUMNS) + j] += two_count
            misfits = np.int32(misfits + one_count + two_count)
    else:
        for j in range(np.uintp(COLUMNS)):
            one, two = np.int32(acc[at + j] - offset), np.int32(acc[at + np.uintp(COLUMNS) + j] - offset)
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
            acc[at + j], acc[at + np.uintp(COLUMNS) + j] = np.int32(one + offset), np.int32(two + offset)
            one_count, two_count = np.int32(one_count >> SHIFT), np.int32(two_count >> SHIFT)
            counts[at + j] += one_count
            counts[at + np.uintp(COLUMNS) + j] += two_count
            misfits = np.int32(misfits + one_count + two_count)
    return misfits


@njit
def os_folds(
    a: I32, w: I32, columns: int, cols: int, levels: int, column_of: I64, starts: I64, low: int, high: int, mask: int,
    unused: int, saturates: bool, acc: I32, counts: I32, keep: bool, found: I64, toggles: I64, overflows: I64,
) -> None:  # fmt: skip
    """Run the passes of the row folds a [F] of one GEMM, output-stationary.

    a [F, rows, K] : rows a multiple of 4, K of 8, completed with zeros
    w [Q, K * 64] : blocks of columns; `columns` of them are in use, `cols` a pass
    low, high, mask, unused, saturates : the psum registers' limits, bits in use, and 32 less their number
    acc, counts [F, Q, rows * 64] : psums, written; and how often each overflowed, added to
    starts [F * column folds] : first cycle of each pass
    keep : whether to add to toggles, overflows [cycles of the layer + 1]
    found [3] : added to, the earliest cycle lowered
    """
    folds, rows, length = a.shape
    low, high, mask, unused = np.int32(low), np.int32(high), np.int32(mask), np.int32(unused)
    offset = np.int32(np.int32(-1) * low)
    steps = CYCLES + rows
    column_folds = (columns + cols - 1) // cols
    words = np.zeros((steps + COLUMNS + 2) * COLUMNS, np.int32)
    even, odd = np.empty(words.size // 2, np.int32), np.empty(words.size // 2, np.int32)
    troubled = np.zeros(rows // TOGETHER, np.uint8)  # what overflowed in the last tile may do so again
    for fold in range(folds):
        for q in range(w.shape[0]):
            psums, misfits, weights = acc[fold, q], counts[fold, q], w[q]
            psums[:] = offset
            troubled[:] = 0
            for start in range(0, length, CYCLES):
                piece = 0
                for k in range(start, min(start + CYCLES, length), UNROLLED):
                    for i in range(0, rows, TOGETHER):
                        s = k - start + i
                        if troubled[i // TOGETHER] == 0:
                            beyond = os_clean(a[fold], i, k, weights, psums, words, s) & ~mask
                            if beyond == 0:
                                continue
                            os_take_back(a[fold], i, k, weights, psums, words, s)
                        events = 0
                        for pair in range(0, TOGETHER, 2):
                            events += os_exact(
                                a[fold], i + pair, k, weights, psums, misfits, words, s + pair, low, high, mask,
                                unused, saturates, offset,
                            )  # fmt: skip
                        troubled[i // TOGETHER] = events > 0
                        piece += events
                total(
                    words, min(CYCLES, length - start) + rows, levels, column_of, q * COLUMNS, columns, cols, starts,
                    fold * column_folds, 1, start, piece, keep, even, odd, found, toggles, overflows,
                )  # fmt: skip
            for x in range(np.uintp(rows * COLUMNS)):
                psums[x] -= offset


@njit
def os_drain(
    psums: I32, preloaded: I64, rows: int, cols: int, drained: I64, extents: I64, low: int, high: int, mask: int,
    unused: int, saturates: bool, acc: I64, counts: I32, keep: bool, found: I64, toggles: I64, overflows: I64,
) -> None:  # fmt: skip
    """Add the psums of one GEMM to the accumulators, as rows of PEs leave the array, the bottom one first.

    psums [M, N]; preloaded [N] : accumulators
    drained, extents [passes] : first cycle of each pass's drain, and the rows that it travels
    acc, counts [M, N] : accumulators, and which of them overflowed; written
    keep, found, toggles, overflows : as in `os_folds`
    """
    streams, columns = psums.shape
    column_folds = (columns + cols - 1) // cols
    words = np.zeros(columns, np.int64)
    for m in range(streams):
        of_row, to, misfits = psums[m], acc[m], counts[m]
        if saturates:
            for n in range(np.uintp(columns)):
                exact = preloaded[n] + of_row[n]
                held = clamped(exact, low, high)
                to[n] = held
                misfits[n] = exact != held
                words[n] = ones64((held ^ preloaded[n]) & mask)
        else:
            for n in range(np.uintp(columns)):
                exact = preloaded[n] + of_row[n]
                held = (exact << unused) >> unused
                to[n] = held
                misfits[n] = exact != held
                words[n] = ones64((held ^ preloaded[n]) & mask)
        for fold in range(column_folds):
            number = m // rows * column_folds + fold
            cycle = drained[number] + extents[number] - 1 - m % rows
            bits, events = np.int64(0), np.int64(0)
            for n in range(np.uintp(fold * cols), np.uintp(min((fold + 1) * cols, columns))):
                bits += words[n]
                events += misfits[n]
            found[BITS] += bits
            found[MISFITS] += events
            if events > 0:
                found[EARLIEST] = min(found[EARLIEST], cycle)
            if keep:
                toggles[cycle] += bits
                overflows[cycle] += events


# ------------------------------------------------------------------------------------------- stationary operand


@njit
def ws_clean(
    a: I32, row0: int, start: int, w: I32, psums: I32, before: I32, after: I32, i: int, words: I32, s: int
) -> int:  # fmt: skip
    """Let the psums of streamed row `row0` and the next three pass eight rows of PEs, i to i + 7, of one block of
    columns, as if none could overflow. Return the bits that any sum has set.

    start : element of K in row i; s : place of (row0, i) in `words`
    psums [4 * 64] : of the four rows, as they come from above; then as they leave
    before, after [R * 64] : what the psum registers hold from the row before, and from the last of the four (written)
    """
    m, k = np.uintp(row0), np.uintp(start)
    from_w, at, to = np.uintp(start * COLUMNS), np.uintp(i * COLUMNS), np.uintp((s + 1) * COLUMNS)
    found = np.int32(0)
    for j in range(np.uintp(COLUMNS)):
        p0, p1 = psums[j], psums[np.uintp(COLUMNS) + j]
        p2, p3 = psums[np.uintp(2 * COLUMNS) + j], psums[np.uintp(3 * COLUMNS) + j]
        late1, late2, late3 = np.int32(0), np.int32(0), np.int32(0)
        for u in range(UNROLLED):
            row, e = np.uintp(u * COLUMNS) + j, to + np.uintp(u * COLUMNS) + j
            weight, ku = w[from_w + row], k + np.uintp(u)
            p0 = np.int32(p0 + np.int32(a[m, ku] * weight))
            p1 = np.int32(p1 + np.int32(a[m + np.uintp(1), ku] * weight))
            p2 = np.int32(p2 + np.int32(a[m + np.uintp(2), ku] * weight))
            p3 = np.int32(p3 + np.int32(a[m + np.uintp(3), ku] * weight))
            found = np.int32(found | np.int32(np.int32(p0 | p1) | np.int32(p2 | p3)))
            words[e] = np.int32(words[e] + np.int32(ones(np.int32(p0 ^ before[at + row])) + late1))
            late1 = np.int32(ones(np.int32(p1 ^ p0)) + late2)
            late2 = np.int32(ones(np.int32(p2 ^ p1)) + late3)
            late3 = ones(np.int32(p3 ^ p2))
            after[at + row] = p3
        words[to + np.uintp(UNROLLED * COLUMNS) + j] += late1
        words[to + np.uintp((UNROLLED + 1) * COLUMNS) + j] += late2
        words[to + np.uintp((UNROLLED + 2) * COLUMNS) + j] += late3
        psums[j], psums[np.uintp(COLUMNS) + j] = p0, p1
        psums[np.uintp(2 * COLUMNS) + j], psums[np.uintp(3 * COLUMNS) + j] = p2, p3
    return found


@njit
def ws_clean_row(
    a: I32, row0: int, start: int, w: I32, psums: I32, before: I32, after: I32, i: int, words: I32, s: int
) -> int:  # fmt: skip
    """Do what `ws_clean` does, for one row of PEs."""
    m, k = np.uintp(row0), np.uintp(start)
    from_w, at, to = np.uintp(start * COLUMNS), np.uintp(i * COLUMNS), np.uintp((s + 1) * COLUMNS)
    found = np.int32(0)
    for j in range(np.uintp(COLUMNS)):
        p0, p1 = psums[j], psums[np.uintp(COLUMNS) + j]
        p2, p3 = psums[np.uintp(2 * COLUMNS) + j], psums[np.uintp(3 * COLUMNS) + j]
        late1, late2, late3 = np.int32(0), np.int32(0), np.int32(0)
        for u in range(1):
            row, e = np.uintp(u * COLUMNS) + j, to + np.uintp(u * COLUMNS) + j
            weight, ku = w[from_w + row], k + np.uintp(u)
            p0 = np.int32(p0 + np.int32(a[m, ku] * weight))
            p1 = np.int32(p1 + np.int32(a[m + np.uintp(1), ku] * weight))
            p2 = np.int32(p2 + np.int32(a[m + np.uintp(2), ku] * weight))
            p3 = np.int32(p3 + np.int32(a[m + np.uintp(3), ku] * weight))
            found = np.int32(found | np.int32(np.int32(p0 | p1) | np.int32(p2 | p3)))
            words[e] = np.int32(words[e] + np.int32(ones(np.int32(p0 ^ before[at + row])) + late1))
            late1 = np.int32(ones(np.int32(p1 ^ p0)) + late2)
            late2 = np.int32(ones(np.int32(p2 ^ p1)) + late3)
            late3 = ones(np.int32(p3 ^ p2))
            after[at + row] = p3
        words[to + np.uintp(1 * COLUMNS) + j] += late1
        words[to + np.uintp((1 + 1) * COLUMNS) + j] += late2
        words[to + np.uintp((1 + 2) * COLUMNS) + j] += late3
        psums[j], psums[np.uintp(COLUMNS) + j] = p0, p1
        psums[np.uintp(2 * COLUMNS) + j], psums[np.uintp(3 * COLUMNS) + j] = p2, p3
    return found


@njit
def ws_group(
    a: I32, row0: int, k0: int, r: int, w: I32, psums: I32, before: I32, after: I32, words: I32, s: int, offset: int
) -> int:  # fmt: skip
    """Let four streamed rows pass a fold's r rows of PEs as if no psum could overflow; return the bits set."""
    psums[:] = offset
    found, i = np.int32(0), 0
    while i + UNROLLED <= r:
        found |= ws_clean(a, row0, k0 + i, w, psums, before, after, i, words, s + i)
        i += UNROLLED
    while i < r:
        found |= ws_clean_row(a, row0, k0 + i, w, psums, before, after, i, words, s + i)
        i += 1
    return found


@njit
def ws_take_back(
    a: I32, row0: int, k0: int, r: int, w: I32, psums: I32, before: I32, words: I32, s: int, offset: int
) -> None:  # fmt: skip
    """Undo what `ws_group` did to words."""
    psums[:] = offset
    for i in range(r):
        from_w, at = np.uintp((k0 + i) * COLUMNS), np.uintp(i * COLUMNS)
        for row in range(TOGETHER):
            x, to, mine = a[row0 + row, k0 + i], np.uintp((s + i + row + 1) * COLUMNS), np.uintp(row * COLUMNS)
            for j in range(np.uintp(COLUMNS)):
                held = before[at + j] if row == 0 else psums[mine - np.uintp(COLUMNS) + j]
                psums[mine + j] += np.int32(x * w[from_w + j])
                words[to + j] -= ones(np.int32(held ^ psums[mine + j]))


@njit
def ws_exact(
    a: I32, row0: int, start: int, w: I32, psums: I32, pair: int, before: I32, after: I32, i: int, words: I32, s: int,
    counts: I32, low: int, high: int, mask: int, unused: int, saturates: bool, offset: int,
) -> int:  # fmt: skip
    """Let two streamed rows, the first or second `pair` of psums, pass four rows of PEs, in full; return the overflows.

    counts [4 * 64] : overflows of the rows' psums; added to
    """
    m, k = np.uintp(row0), np.uintp(start)
    from_w, at, to = np.uintp(start * COLUMNS), np.uintp(i * COLUMNS), np.uintp((s + 1) * COLUMNS)
    mine, misfits = np.uintp(2 * pair * COLUMNS), np.int32(0)
    if saturates:
        for j in range(np.uintp(COLUMNS)):
            one, two = np.int32(psums[mine + j] - offset), np.int32(psums[mine + np.uintp(COLUMNS) + j] - offset)
            one_count, two_count, late = np.int32(0), np.int32(0), np.int32(0)
            for u in range(ROWS):
                row, e = np.uintp(u * COLUMNS) + j, to + np.uintp(u * COLUMNS) + j
                weight = w[from_w + row]
                exact = np.int32(one + np.int32(a[m, k + np.uintp(u)] * weight))
                one = clamped(exact, low, high)
                gain = word(exact, one, np.int32(before[at + row] - offset), mask)
                one_count = np.int32(one_count + gain)
                words[e] = np.int32(words[e] + np.int32(gain + late))
                exact = np.int32(two + np.int32(a[m + np.uintp(1), k + np.uintp(u)] * weight))
                two = clamped(exact, low, high)
                late = word(exact, two, one, mask)
                two_count = np.int32(two_count + late)
                after[at + row] = np.int32(two + offset)
            words[to + np.uintp(ROWS * COLUMNS) + j] += late
            psums[mine + j], psums[mine + np.uintp(COLUMNS) + j] = np.int32(one + offset), np.int32(two + offset)
            one_count, two_count = np.int32(one_count >> SHIFT), np.int32(two_count >> SHIFT)
            counts[mine + j] += one_count
            counts[mine + np.uintp(COLUMNS) + j] += two_count
            misfits = np.int32(misfits + one_count + two_count)
    else:
        for j in range(np.uintp(COLUMNS)):
            one, two = np.int32(psums[mine + j] - offset), np.int32(psums[mine + np.uintp(COLUMNS) + j] - offset)
            one_count, two_count, late = np.int32(0), np.int32(0), np.int32(0)
            for u in range(ROWS):
                row, e = np.uintp(u * COLUMNS) + j, to + np.uintp(u * COLUMNS) + j
                weight = w[from_w + row]
                exact = np.int32(one + np.int32(a[m, k + np.uintp(u)] * weight))
                one = wrapped(exact, unused)
                gain = word(exact, one, np.int32(before[at + row] - offset), mask)
                one_count = np.int32(one_count + gain)
                words[e] = np.int32(words[e] + np.int32(gain + late))
                exact = np.int32(two + np.int32(a[m + np.uintp(1), k + np.uintp(u)] * weight))
                two = wrapped(exact, unused)
                late = word(exact, two, one, mask)
                two_count = np.int32(two_count + late)
                after[at + row] = np.int32(two + offset)
            words[to + np.uintp(ROWS * COLUMNS) + j] += late
            psums[mine + j], psums[mine + np.uintp(COLUMNS) + j] = np.int32(one + offset), np.int32(two + offset)
            one_count, two_count = np.int32(one_count >> SHIFT), np.int32(two_count >> SHIFT)
            counts[mine + j] += one_count
            counts[mine + np.uintp(COLUMNS) + j] += two_count
            misfits = np.int32(misfits + one_count + two_count)
    return misfits


@njit
def ws_exact_row(
    x: int, k: int, w: I32, psums: I32, row: int, before: I32, after: I32, i: int, words: I32, s: int, counts: I32,
    low: int, high: int, mask: int, unused: int, saturates: bool, offset: int,
) -> int:  # fmt: skip
    """The same for one streamed row, the `row`-th of psums, its element x, and one row of PEs."""
    from_w, at, to = np.uintp(k * COLUMNS), np.uintp(i * COLUMNS), np.uintp((s + 1) * COLUMNS)
    mine, misfits = np.uintp(row * COLUMNS), np.int32(0)
    for j in range(np.uintp(COLUMNS)):
        exact = np.int32(np.int32(psums[mine + j] - offset) + np.int32(x * w[from_w + j]))
        held = clamped(exact, low, high) if saturates else wrapped(exact, unused)
        gain = word(exact, held, np.int32(before[at + j] - offset), mask)
        words[to + j] += gain
        counts[mine + j] += gain >> SHIFT
        misfits += gain >> SHIFT
        after[at + j] = np.int32(held + offset)
        psums[mine + j] = np.int32(held + offset)
    return misfits


@njit
def ws_group_exact(
    a: I32, row0: int, k0: int, r: int, w: I32, psums: I32, before: I32, between: I32, after: I32, words: I32, s: int,
    counts: I32, low: int, high: int, mask: int, unused: int, saturates: bool, offset: int,
) -> int:  # fmt: skip
    """Do what `ws_group` does, in full; return the overflows.

    between [R * 64] : scratch; what is read and written must be two arrays, else the compiler keeps loops out of SIMD
    """
    psums[:] = offset
    counts[:] = 0
    events, i = 0, 0
    while i + ROWS <= r:
        for pair in range(2):
            events += ws_exact(
                a, row0 + 2 * pair, k0 + i, w, psums, pair, before if pair == 0 else between,
                between if pair == 0 else after, i, words, s + i + 2 * pair, counts, low, high, mask, unused,
                saturates, offset,
            )  # fmt: skip
        i += ROWS
    while i < r:
        for row in range(TOGETHER):
            held = before if row == 0 else (between if row % 2 == 1 else after)
            events += ws_exact_row(
                a[row0 + row, k0 + i], k0 + i, w, psums, row, held, between if row % 2 == 0 else after, i, words,
                s + i + row, counts, low, high, mask, unused, saturates, offset,
            )  # fmt: skip
        i += 1
    return events


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
def left_behind(a: I32, k0: int, r: int, w: I32, held: I32, low: int, high: int, unused: int, saturates: bool) -> None:
    """Write what a streamed row a [K] leaves in the psum registers of a fold, held [R * 64]; see `ws_group`."""
    offset = np.int32(np.int32(-1) * low)
    for i in range(r):
        at, from_w = np.uintp(i * COLUMNS), np.uintp((k0 + i) * COLUMNS)
        for j in range(np.uintp(COLUMNS)):
            above = np.int32(held[at - np.uintp(COLUMNS) + j] - offset) if i > 0 else np.int32(0)
            exact = np.int32(above + np.int32(a[k0 + i] * w[from_w + j]))
            held[at + j] = np.int32((clamped(exact, low, high) if saturates else wrapped(exact, unused)) + offset)


@njit
def ws_rows(
    a: I32, w: I32, first_row: int, last_row: int, streamed: int, rows: int, used_rows: int, columns: int, cols: int,
    levels: int, column_of: I64, starts: I64, low: int, high: int, mask: int, unused: int, saturates: bool,
    acc_low: int, acc_high: int, acc_mask: int, acc_unused: int, acc_saturates: bool, narrow: bool, narrow_acc: I32,
    wide_acc: I64, psum_counts: I32, acc_counts: I32, keep: bool, psum_found: I64, acc_found: I64, psum_toggles: I64,
    psum_overflows: I64, acc_toggles: I64, acc_overflows: I64,
) -> None:  # fmt: skip
    """Stream rows first_row .. last_row - 1 of one GEMM past all its passes, weight-stationary.

    a [T, F * rows], w [Q, F * rows * 64] : completed with zeros to F folds of K. Beyond its `streamed` rows a has rows
        of zeros, one at least, behind which registers are zero again; T, first_row and last_row are multiples of 4
    used_rows : PE rows that the last fold travels (`rows`, or fewer with skip_unused)
    low .. saturates, acc_low .. acc_saturates : limits of the psum registers and of the accumulators; see `os_folds`
    narrow : accumulators are narrow_acc, plus half of their range, else wide_acc; [Q, streamed * 64], preloaded;
        updated
    psum_counts, acc_counts [Q, streamed * 64] : overflows of each output; added to
    starts [column folds * F] : first cycle of each pass
    keep, *_found, *_toggles, *_overflows : as in `os_folds`
    """
    folds = a.shape[1] // rows
    low, high, mask, unused = np.int32(low), np.int32(high), np.int32(mask), np.int32(unused)
    offset, acc_offset = np.int32(np.int32(-1) * low), -acc_low
    beyond = np.int32(~np.int32(acc_mask)) if narrow else np.int32(-1)
    steps = CYCLES + rows + 1
    words = np.zeros((steps + COLUMNS + 2) * COLUMNS, np.int32)
    even, odd = np.empty(words.size // 2, np.int32), np.empty(words.size // 2, np.int32)
    acc_words = np.zeros_like(words)
    psums, counts = np.zeros(TOGETHER * COLUMNS, np.int32), np.zeros(TOGETHER * COLUMNS, np.int32)
    registers = np.zeros((2, folds, rows * COLUMNS), np.int32)  # as they were, and as they become
    between = np.zeros(rows * COLUMNS, np.int32)
    troubled = np.zeros(folds, np.uint8)  # folds whose psums overflowed in the last group may do so again
    for q in range(w.shape[0]):
        weights = w[q]
        registers[:] = offset
        troubled[:] = 0
        if first_row > 0:
            for fold in range(folds):
                left_behind(
                    a[first_row - 1], fold * rows, rows if fold < folds - 1 else used_rows, weights,
                    registers[0, fold], low, high, unused, saturates,
                )  # fmt: skip
        # Streamed rows in pieces, and all folds of each, so that what a piece touches stays in the cache.
        for start in range(first_row, last_row, CYCLES):
            stop = min(start + CYCLES, last_row)
            for fold in range(folds):
                r, k0 = rows if fold < folds - 1 else used_rows, fold * rows
                psum_piece, acc_piece = 0, 0
                for m in range(start, stop, TOGETHER):
                    turn = (m - first_row) // TOGETHER % 2
                    before, after = registers[turn, fold], registers[1 - turn, fold]
                    at, end = m * COLUMNS, min(m + TOGETHER, streamed) * COLUMNS
                    clean = False
                    if troubled[fold] == 0:
                        bits = ws_group(a, m, k0, r, weights, psums, before, after, words, m - start, offset)
                        clean = (bits & ~mask) == 0
                        if not clean:
                            ws_take_back(a, m, k0, r, weights, psums, before, words, m - start, offset)
                    if not clean:
                        events = ws_group_exact(
                            a, m, k0, r, weights, psums, before, between, after, words, m - start, counts,
                            low, high, mask, unused, saturates, offset,
                        )  # fmt: skip
                        psum_piece += events
                        troubled[fold] = events > 0
                        add(psum_counts[q, at:end], counts)
                    s = m - start + r - 1
                    if narrow:
                        clean = accumulate_clean(psums, offset, narrow_acc[q, at:end], acc_words, s) & beyond == 0
                        if not clean:
                            accumulate_take_back(psums, offset, narrow_acc[q, at:end], acc_words, s)
                            acc_piece += accumulate(
                                psums, offset, narrow_acc[q, at:end], acc_offset, acc_counts[q, at:end], acc_words, s,
                                acc_low, acc_high, acc_mask, acc_unused, acc_saturates,
                            )  # fmt: skip
                    else:
                        acc_piece += accumulate(
                            psums, offset, wide_acc[q, at:end], 0, acc_counts[q, at:end], acc_words, s,
                            acc_low, acc_high, acc_mask, acc_unused, acc_saturates,
                        )  # fmt: skip
                total(
                    words, stop - start + rows, levels, column_of, q * COLUMNS, columns, cols, starts, fold, folds,
                    start, psum_piece, keep, even, odd, psum_found, psum_toggles, psum_overflows,
                )  # fmt: skip
                total(
                    acc_words, stop - start + rows, levels, column_of, q * COLUMNS, columns, cols, starts, fold,
                    folds, start, acc_piece, keep, even, odd, acc_found, acc_toggles, acc_overflows,
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
