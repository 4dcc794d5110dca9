"""Toggles of operand registers, from the streams that pass them: no register is simulated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]


@njit
def ones(word: int) -> int:
    """Return the ones among 32 bits."""
    x = np.uint32(word)
    x = x - ((x >> np.uint32(1)) & np.uint32(0x55555555))
    x = (x & np.uint32(0x33333333)) + ((x >> np.uint32(2)) & np.uint32(0x33333333))
    x = (x + (x >> np.uint32(4))) & np.uint32(0x0F0F0F0F)
    count: int = np.int64(np.uint32(x * np.uint32(0x01010101)) >> np.uint32(24))  # type: ignore[assignment]
    return count


@njit
def along_steps(codes: U32, lanes: int, toggles: I64, changes: I64) -> None:
    """Count for each row of codes [rows, K], K in steps of `lanes`: lane registers see a step after the other, with
    zeros before the first and after the last.

    toggles, changes : int64 [rows], written
    """
    rows, length = codes.shape
    for m in range(rows):
        row = codes[m]
        toggled, changed = np.int64(0), np.int64(0)
        for k in range(length):
            before = row[k - lanes] if k >= lanes else np.uint32(0)
            toggled += ones(before ^ row[k])
            changed += (before | row[k]) != 0
        for k in range(length - lanes, length):
            toggled += ones(row[k])
            changed += row[k] != 0
        toggles[m], changes[m] = toggled, changed


@njit
def along_rows(codes: U32, toggles: I64, changes: I64) -> None:
    """Count for each element k of codes [rows, K]: its register sees a row after the other, zeros before and after.

    toggles, changes : int64 [K], zeros, added to
    """
    rows, length = codes.shape
    for m in range(rows):
        row, above = codes[m], codes[max(m - 1, 0)]
        for k in range(length):
            before = above[k] if m > 0 else np.uint32(0)
            toggles[k] += ones(before ^ row[k])
            changes[k] += (before | row[k]) != 0
    for k in range(length):
        toggles[k] += ones(codes[rows - 1, k])
        changes[k] += codes[rows - 1, k] != 0


@njit
def loading(codes: U32, lanes: int, row0: I64, rows: I64, col0: I64, cols: I64, found: I64) -> None:
    """Count the load chains of the passes of one GEMM: codes [columns, K] stay, `lanes` elements a row of PEs.

    A chain's register of row i latches the rows of the tile from the last one up to its own, and is empty before the
    next load: so a change from row q + 1 to row q (from nothing to the last) happens in q + 1 registers.

    row0, rows, col0, cols : of each pass. found : [toggles, changes], added to
    """
    for p in range(row0.size):
        for n in range(col0[p], col0[p] + cols[p]):
            column = codes[n]
            for q in range(rows[p]):
                for lane in range(lanes):
                    k = (row0[p] + q) * lanes + lane
                    held = column[k]
                    before = column[k + lanes] if q < rows[p] - 1 else np.uint32(0)
                    found[0] += (q + 1) * ones(before ^ held) + ones(held)
                    found[1] += (q + 1) * ((before | held) != 0) + (held != 0)


@njit
def holding(codes: U32, lanes: int, row0: I64, rows: I64, col0: I64, cols: I64, held: U32, found: I64) -> None:
    """Count the holding registers of double-buffered PEs over the passes of one GEMM: a tile takes another's place.

    held [rows, columns, lanes] : what they hold before the first pass, and then after the last; found as in `loading`
    """
    for p in range(row0.size):
        for i in range(held.shape[0]):
            for j in range(held.shape[1]):
                for lane in range(lanes):
                    after = np.uint32(0)
                    if i < rows[p] and j < cols[p]:
                        after = codes[col0[p] + j, (row0[p] + i) * lanes + lane]
                    before = held[i, j, lane]
                    found[0] += ones(before ^ after)
                    found[1] += (before | after) != 0
                    held[i, j, lane] = after
