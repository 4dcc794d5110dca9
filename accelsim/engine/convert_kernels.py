"""Integer lanes become float32, while one pass over them finds what bounds their sums."""

# mypy: disable-error-code="arg-type, assignment, no-any-return, return-value"
# To Numba a NumPy scalar and a Python int are one thing; to a type checker they are not.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit
from accelsim._operand_lanes import float_strips

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
# Magnitudes below this add up, `STRIP` of them, to an int32.
LARGEST, STRIP = 1 << 27, 16


@njit
def convert_row(lanes: I32, floats: F32) -> int:
    """Write lanes as float32 numbers; return the largest magnitude."""
    low, high = np.int32(0), np.int32(0)
    for k in range(lanes.size):
        x = lanes[k]
        low = min(low, x)
        high = max(high, x)
        floats[k] = np.float32(x)
    return max(np.int64(high), -np.int64(low))


@njit
def widen(largest: I64, strips: I32) -> None:
    """Widen the largest sums so far."""
    for s in range(strips.size):
        largest[s] = max(largest[s], np.int64(strips[s]))


@njit
def magnitudes(lanes: I32, strips: I32, start: int, stop: int) -> int:
    """Return the sum of magnitudes of lanes start..stop-1; strips : of `strip_sums`."""
    total, k = np.int64(0), start
    while k < stop and k % STRIP:
        total += abs(lanes[k])
        k += 1
    while k + STRIP <= stop:
        total += strips[k // STRIP]
        k += STRIP
    while k < stop:
        total += abs(lanes[k])
        k += 1
    return total


@njit
def convert_rows(
    a: I32, first_row: int, start: int, fold: int, running: I64, floats: F32, sums: I64
) -> int:  # fmt: skip
    """Convert a piece of rows of a [M, K]; return the largest magnitude; -1 where that is `LARGEST` or more.

    floats [rows, k] : written, from elements a[first_row + r, start + k]
    running [M] : sums of magnitudes of the fold that was not complete before `start`; updated
    sums [folds] : the largest sums of magnitudes of any row; widened. The last fold is complete at the end of K only
    """
    rows, length = floats.shape
    peak = np.int64(0)
    strips = np.empty(length // STRIP, np.int32)
    whole = STRIP * strips.size
    aligned = fold == STRIP and start % STRIP == 0  # the most frequent one: each strip is a fold
    for r in range(rows):
        m = first_row + r
        lanes = a[m, start : start + length]
        found = max(float_strips(lanes, floats[r], strips), convert_row(lanes[whole:], floats[r, whole:]))
        if found >= LARGEST:
            return -1
        peak = max(peak, found)
        k, f = 0, start // fold
        if aligned:
            widen(sums[f : f + strips.size], strips)
            k, f = whole, f + strips.size
        while k < length:
            stop = min((f + 1) * fold - start, length)
            running[m] += magnitudes(lanes, strips, k, stop)
            sums[f] = max(sums[f], running[m])
            if start + stop == (f + 1) * fold:
                running[m] = 0
            k = stop
            f += 1
    return peak


@njit
def convert_columns(w: I32, start: int, fold: int, floats: F32, peaks: I64) -> None:
    """Convert rows start.. of w [k, N]; widen the largest magnitudes peaks [folds]."""
    length = w.shape[0]
    for k in range(length):
        row, converted = w[k], floats[k]
        low, high = np.int32(0), np.int32(0)
        for n in range(row.size):
            x = row[n]
            low = min(low, x)
            high = max(high, x)
            converted[n] = x
        f = (start + k) // fold
        peaks[f] = max(peaks[f], max(np.int64(high), -np.int64(low)))


@njit
def add_products(products: F32, bias: I64, first: bool, out: I64) -> None:
    """Add whole float products [M, N] to sums that start with the bias [N]."""
    rows, columns = products.shape
    for m in range(rows):
        if first:
            for n in range(columns):
                out[m, n] = bias[n] + np.int64(np.int32(products[m, n]))
        else:
            for n in range(columns):
                out[m, n] += np.int64(np.int32(products[m, n]))
