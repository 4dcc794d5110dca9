"""XNOR-popcount: sums of products of +1 and -1 as popcounts of packed words.

A word's sum of products is (its valid bits) - 2 * (bits in which both operands differ). A bit where nothing is valid
is 0 in both operands, and so never differs.
"""

# mypy: disable-error-code="arg-type, assignment, no-any-return, return-value"
# To Numba a NumPy scalar and a Python int are one thing; to a type checker they are not.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit
from accelsim._lanes import differences
from accelsim._operand_lanes import sign_bits

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
COLUMNS = 64


@njit
def pack_word(lanes: I32, valid: I32) -> tuple[np.uint64, int]:
    """Return up to 64 lanes as bits, the first one as bit 0, 1 for +1; and a number that is not 0 where they are not
    +1 or -1 where valid, and 0 elsewhere.
    """
    word, strays = np.uint64(0), np.int32(0)
    for i in range(lanes.size):
        x = np.int32(lanes[i] + valid[i])  # 2 or 0; of padding 0
        strays |= x & ~np.int32(valid[i] << np.int32(1))
        word |= np.uint64(x >> 1) << np.uint64(i)
    return word, strays


@njit
def pack_rows(lanes: I32, valid: I32, group: int, words_per_group: int, packed: U64) -> bool:
    """Pack [M, K] lanes along K; return whether all are +1 or -1 where valid [K] is 1, and 0 where it is 0.

    packed [M, G * words_per_group] : each group of K starts a word; bits beyond a group's end are 0; written
    """
    rows, length = lanes.shape
    allowed = np.empty(packed.shape[1], np.uint64)  # where a word has valid bits
    for start in range(0, length, group):
        stop = min(start + group, length)
        for i in range(words_per_group):
            word, end = np.uint64(0), min(start + 64 * (i + 1), stop)
            for k in range(start + 64 * i, end):
                word |= np.uint64(valid[k]) << np.uint64(k - start - 64 * i)
            allowed[start // group * words_per_group + i] = word
    strays, others = np.int32(0), np.uint64(0)
    for m in range(rows):
        row = lanes[m]
        for start in range(0, length, group):
            stop = min(start + group, length)
            first = start // group * words_per_group
            for i in range(words_per_group):
                k = min(start + 64 * i, stop)
                if k + 64 <= stop:
                    packed[m, first + i], found = sign_bits(row, k, allowed[first + i])
                    others |= found
                else:
                    packed[m, first + i], few = pack_word(row[k:stop], valid[k:stop])
                    strays |= few
    return strays == 0 and others == 0


@njit
def or_row(lanes: I32, valid: int, bit: int, bits: I32, strays: I32) -> None:
    """Put a row of lanes [N] into one bit of `bits`; bits of `strays` are set where a lane is not what it should be."""
    one, place = np.int32(valid), np.int32(bit)
    allowed = ~np.int32(one << np.int32(1))
    for n in range(lanes.size):
        x = np.int32(lanes[n] + one)
        strays[n] |= x & allowed
        bits[n] |= np.int32(x >> np.int32(1)) << place


@njit
def or_rows(lanes: I32, k: int, valid: I32, bits: I32, strays: I32) -> None:
    """The same of the eight rows from k on, into eight bits; `bits` written."""
    for n in range(bits.size):
        word, stray = np.int32(0), strays[n]
        for u in range(8):
            x = np.int32(lanes[k + u, n] + valid[k + u])
            stray |= x & ~np.int32(valid[k + u] << np.int32(1))
            word |= np.int32(np.int32(x >> np.int32(1)) << np.int32(u))
        bits[n], strays[n] = word, stray


@njit
def add_byte(bits: I32, place: int, packed: U64) -> None:
    """Put eight bits of each column at bit `place` of its word."""
    shift = np.uint64(place)
    for n in range(bits.size):
        packed[n] |= np.uint64(np.uint32(bits[n])) << shift


@njit
def pack_columns(lanes: I32, valid: I32, group: int, words_per_group: int, packed: U64) -> bool:
    """The same of [K, N] lanes along K; packed [G * words_per_group, N]."""
    length, columns = lanes.shape
    bits, strays = np.empty(columns, np.int32), np.zeros(columns, np.int32)
    packed[:] = 0
    for start in range(0, length, group):
        stop = min(start + group, length)
        for k in range(start, stop, 8):
            if k + 8 <= stop:
                or_rows(lanes, k, valid, bits, strays)
            else:
                bits[:] = 0
                for u in range(stop - k):
                    or_row(lanes[k + u], valid[k + u], u, bits, strays)
            inside = k - start
            add_byte(bits, inside % 64, packed[start // group * words_per_group + inside // 64])
    found = np.int32(0)
    for n in range(columns):
        found |= strays[n]
    return found == 0


@njit
def sums(a: U64, w: U64, valid: int, bias: I64, out: I64) -> None:
    """Write every sum of products and the bias [N]; `valid` of K's elements are not zero.

    a [M, words], w [Q, words * 64] : in blocks of 64 columns; out [M, N]
    """
    rows, words = a.shape
    state = np.zeros((1, 2 * COLUMNS), np.uint64)
    for q in range(w.shape[0]):
        column = q * COLUMNS
        many = min(COLUMNS, out.shape[1] - column)
        for m in range(0, rows, 2):
            state[:] = 0
            differences(a, m, min(m + 1, rows - 1), 0, words, w[q], state)
            for r in range(min(2, rows - m)):
                total, sums_of = state[0, r * COLUMNS : r * COLUMNS + many], out[m + r, column : column + many]
                held = bias[column : column + many]
                for n in range(np.uintp(many)):
                    sums_of[n] = held[n] + valid - 2 * np.int64(total[n])
