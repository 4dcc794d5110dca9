"""XNOR-popcount: sums of products of +1 and -1 as popcounts of packed words.

A word's sum of products is (its valid bits) - 2 * (bits in which both operands differ). A bit where nothing is valid
is 0 in both operands, and so never differs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
# Words that stay in SIMD registers between two loads of the counts.
UNROLLED = 4


@njit
def count_strays(a: I32, w: I32, valid: I32) -> int:
    """Return how many lanes of a [M, K] and w [K, N] are not +1 or -1 where valid[k] is 1, or not 0 where it is 0."""
    strays = 0
    for m in range(a.shape[0]):
        for k in range(a.shape[1]):
            strays += abs(a[m, k]) != valid[k]
    for k in range(w.shape[0]):
        expected = valid[k]
        for n in range(w.shape[1]):
            strays += abs(w[k, n]) != expected
    return strays


@njit
def pack_columns(lanes: I32, group: int, words_per_group: int, packed: U64) -> None:
    """Pack [K, N] lanes along K: the first element is bit 0; 1 for +1, 0 for -1 and 0.

    packed [G * words_per_group, N] : each group of K starts a word; bits beyond a group's end are 0; written
    """
    length, columns = lanes.shape
    packed[:] = 0
    for k in range(length):
        g, inside = k // group, k % group
        row = packed[g * words_per_group + inside // 64]
        bit = np.uint64(inside % 64)
        for n in range(columns):
            row[n] |= np.uint64(lanes[k, n] > 0) << bit


@njit
def popcount(x: np.uint64) -> np.uint64:
    """Return the ones among 64 bits: neighbours of 1, 2 and 4 bits are added up, then all bytes.

    The compiler knows this idiom: where the processor has an instruction for it, this is that instruction.
    """
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit
def add_differences(a: U64, w: U64, m: int, first: int, stop: int, total: U64) -> None:
    """Add the bits in which row m of `a` and each column of `w` differ, over words first..stop-1."""
    i = first
    while i + UNROLLED <= stop:
        for n in range(total.size):
            s = total[n]
            for u in range(UNROLLED):
                s += popcount(a[m, i + u] ^ w[i + u, n])
            total[n] = s
        i += UNROLLED
    while i < stop:
        x = a[m, i]
        for n in range(total.size):
            total[n] += popcount(x ^ w[i, n])
        i += 1


@njit
def sums(a: U64, w: U64, valid: int, out: I64) -> None:
    """Write every sum of products; `valid` of K's elements are not zero. a [M, words], w [words, N], out [M, N]."""
    columns = w.shape[1]
    total = np.empty(columns, np.uint64)
    for m in range(a.shape[0]):
        total[:] = 0
        add_differences(a, w, m, 0, a.shape[1], total)
        for n in range(columns):
            out[m, n] = valid - 2 * np.int64(total[n])


@njit
def watched_sums(
    a: U64, w: U64, valid: I64, words_per_group: int, groups_per_fold: int, extremes: I64, out: I64
) -> None:
    """The same, and the extremes of every register's trajectory: psums after each group, accumulators after each fold.

    valid [G] : elements of each group that are not zero
    extremes [4, N] : psum low, high; accumulator low, high (less the bias); written, 0 included
    """
    columns = w.shape[1]
    total = np.empty(columns, np.uint64)
    psum = np.empty(columns, np.int64)
    psum_low, psum_high, acc_low, acc_high = extremes[0], extremes[1], extremes[2], extremes[3]
    extremes[:] = 0
    groups = valid.size
    for m in range(a.shape[0]):
        acc = out[m]
        acc[:] = 0
        for fold in range(0, groups, groups_per_fold):
            psum[:] = 0
            g, stop = fold, min(fold + groups_per_fold, groups)
            while words_per_group == 1 and g + UNROLLED <= stop:
                for n in range(columns):
                    s, low, high = psum[n], psum_low[n], psum_high[n]
                    for u in range(UNROLLED):
                        s += valid[g + u] - 2 * np.int64(popcount(a[m, g + u] ^ w[g + u, n]))
                        low = min(low, s)
                        high = max(high, s)
                    psum[n], psum_low[n], psum_high[n] = s, low, high
                g += UNROLLED
            while g < stop:
                total[:] = 0
                add_differences(a, w, m, g * words_per_group, (g + 1) * words_per_group, total)
                for n in range(columns):
                    s = psum[n] + valid[g] - 2 * np.int64(total[n])
                    psum[n] = s
                    psum_low[n] = min(psum_low[n], s)
                    psum_high[n] = max(psum_high[n], s)
                g += 1
            for n in range(columns):
                s = acc[n] + psum[n]
                acc[n] = s
                acc_low[n] = min(acc_low[n], s)
                acc_high[n] = max(acc_high[n], s)
