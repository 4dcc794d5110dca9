"""Integer lanes become float32, while one pass over them finds what bounds their sums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
# Magnitudes below this add up, `STRIP` of them, to an int32.
LARGEST, STRIP = 1 << 27, 16


@njit
def convert_row(lanes: I32, floats: F32) -> int:
    """Write lanes as float32 numbers; return the largest magnitude; -2^31 if that is not an int32."""
    low, high = np.int32(0), np.int32(0)
    for k in range(lanes.size):
        size = np.int32(abs(lanes[k]))
        low = min(low, size)
        high = max(high, size)
        floats[k] = lanes[k]
    return low if low < 0 else high


@njit
def magnitudes(lanes: I32) -> int:
    """Return the sum of magnitudes, which are below `LARGEST`."""
    total, k = np.int64(0), 0
    while k + STRIP <= lanes.size:
        part = np.int32(0)
        for u in range(STRIP):
            part = np.int32(part + np.int32(abs(lanes[k + u])))
        total += part
        k += STRIP
    while k < lanes.size:
        total += abs(lanes[k])
        k += 1
    return total


@njit
def convert_rows(a: I32, start: int, fold: int, running: I64, floats: F32, sums: I64) -> int:
    """Convert elements start.. of rows a [M, k]; return the largest magnitude; -1 where that is `LARGEST` or more.

    a : a piece of K; floats [M, k] : written
    running [M] : sums of magnitudes of the fold that was not complete before `start`; updated
    sums [folds] : the largest sums of magnitudes of any row; widened. The last fold is complete at the end of K only
    """
    rows, length = a.shape
    peak = np.int64(0)
    for m in range(rows):
        found = convert_row(a[m], floats[m])
        if found < 0 or found >= LARGEST:
            return -1
        peak = max(peak, np.int64(found))
        k = 0
        f = start // fold
        while k < length:
            stop = min((f + 1) * fold - start, length)
            running[m] += magnitudes(a[m, k:stop])
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
