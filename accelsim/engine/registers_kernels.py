"""Every register of every PE, moved in every cycle: the stepped engine's meaning, for PEs of one lane.

Two sets of registers alternate; in each cycle every PE takes what its neighbours held. A register file is one flat run
of memory with a place for each PE and one more a row: place i * (cols + 1) + j is what PE (i, j) receives, so an
operand that moves right goes to the next place, and one that moves down to the place cols + 1 further on. The first
place of each row is its feeder's. What leaves the last PE of a row goes to the next row's first place, where the feeder
overwrites it.

A token moves with every operand: 0, nothing; STEP, or LAST for a stream's last element. When the far corner meets the
last one the array has finished; no cycle is counted that was not carried out.

Indices are np.uintp: one that could be negative would be counted from the end, which keeps loops out of SIMD.
"""

# mypy: disable-error-code="arg-type, assignment, no-any-return, return-value"
# To Numba a NumPy scalar and a Python int are one thing; to a type checker they are not.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

U8 = NDArray[np.uint8]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
STEP, LAST = 1, 2
LOAD, FILL, COMPUTE, DRAIN = 0, 1, 2, 3
BATCH, ROW0, ROWS, COL0, COLS = 0, 1, 2, 3, 4


@njit
def feed_rows(feeds: I16, tokens: U8, cycle: int, r: int, places: int, x: I16, x_token: U8) -> None:
    """Put what the feeders on the left send in a cycle in the first place of each row."""
    for i in range(np.uintp(r)):
        x[i * np.uintp(places)] = feeds[cycle, i]
        x_token[i * np.uintp(places)] = tokens[cycle, i]


@njit
def feed_columns(feeds: I16, tokens: U8, cycle: int, c: int, y: I16, y_token: U8) -> None:
    """Put what the feeders on top send in a cycle in the places of row 0."""
    for j in range(np.uintp(c)):
        y[j] = feeds[cycle, j]
        y_token[j] = tokens[cycle, j]


@njit
def move_tokens(token: U8, new: U8, count: int, apart: int) -> None:
    """Tokens take the places `apart` further on."""
    for e in range(np.uintp(count)):
        new[e + np.uintp(apart)] = token[e]


@njit
def os_move(x: I16, new_x: I16, y: I16, new_y: I16, psums: I32, r: int, places: int) -> None:
    """One cycle of all PEs, output-stationary: operands move, products are added in place."""
    for e in range(np.uintp(r * places)):
        right, down = x[e], y[e]
        new_x[e + np.uintp(1)] = right
        new_y[e + np.uintp(places)] = down
        psums[e] = np.int32(psums[e] + np.int32(right) * np.int32(down))


@njit
def ws_move(x: I16, new_x: I16, weights: I16, psums: I32, new_psums: I32, r: int, places: int) -> None:
    """One cycle of all PEs, weight-stationary: activations move right, psums down, each gaining a product."""
    for e in range(np.uintp(r * places)):
        right = x[e]
        new_x[e + np.uintp(1)] = right
        new_psums[e + np.uintp(places)] = np.int32(psums[e] + np.int32(right) * np.int32(weights[e]))


@njit
def shift_down(chain: I32, spare: I32, r: int, places: int) -> None:
    """Psums move down a row, over `spare`; zeros enter at the top."""
    for e in range(np.uintp(r * places)):
        spare[e + np.uintp(places)] = chain[e]
    for e in range(np.uintp(places)):
        spare[e] = 0
    for e in range(np.uintp((r + 1) * places)):
        chain[e] = spare[e]


@njit
def drain_row(
    chain: I32, spare: I32, live: I64, r: int, c: int, row0: int, col0: int, cols: int, out: I64
) -> bool:  # fmt: skip
    """Shift the drain chain by one row, the bottom one into the accumulators; return whether it is empty now.

    live [R] : the row of outputs that each row of the chain holds, -1: none; shifted with it
    """
    places = c + 1
    if live[r - 1] >= 0:
        m = row0 + live[r - 1]
        for j in range(cols):
            out[m, col0 + j] += chain[(r - 1) * places + j]
    shift_down(chain, spare, r, places)
    empty = True
    for i in range(r - 1, 0, -1):
        live[i] = live[i - 1]
        empty = empty and live[i] < 0
    live[0] = -1
    return empty


@njit
def os_layer(
    x_feeds: I16, x_tokens: U8, y_feeds: I16, y_tokens: U8, passes: I64, rows: int, cols: int, skip_unused: bool,
    drain_overlap: bool, cycles: I64, out: I64,
) -> None:  # fmt: skip
    """Run all passes of a layer, output-stationary.

    x_feeds, x_tokens [batch, row folds, cycles, rows] : what the feeders on the left send in each cycle of a pass
    y_feeds, y_tokens [batch, column folds, cycles, cols] : likewise on top
    passes [5, P] : batch, row0, rows, col0, cols
    cycles [4] : counted, by cause
    out [batch, M, N] : accumulators, preloaded; added to
    """
    size = (rows + 1) * (cols + 1) + 1
    x, new_x, y, new_y = (
        np.zeros(size, np.int16), np.zeros(size, np.int16), np.zeros(size, np.int16), np.zeros(size, np.int16),
    )  # fmt: skip
    xt, new_xt, yt, new_yt = (
        np.zeros(size, np.uint8), np.zeros(size, np.uint8), np.zeros(size, np.uint8), np.zeros(size, np.uint8),
    )  # fmt: skip
    psums, chain, spare = np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(size, np.int32)
    live = np.full(rows, -1, np.int64)
    busy, chain_r, chain_c, chain_pass = False, rows, cols, 0
    count = passes.shape[1]
    for p in range(count):
        r, c = rows, cols
        if skip_unused:
            r, c = passes[ROWS, p], passes[COLS, p]
        places = c + 1
        batch, row_fold, column_fold = passes[BATCH, p], passes[ROW0, p] // rows, passes[COL0, p] // cols
        x[:], new_x[:], y[:], new_y[:], psums[:] = 0, 0, 0, 0, 0
        xt[:], new_xt[:], yt[:], new_yt[:] = 0, 0, 0, 0
        finished, t = False, 0
        while not finished:
            feed_rows(x_feeds[batch, row_fold], x_tokens[batch, row_fold], t, r, places, x, xt)
            feed_columns(y_feeds[batch, column_fold], y_tokens[batch, column_fold], t, c, y, yt)
            os_move(x, new_x, y, new_y, psums, r, places)
            move_tokens(xt, new_xt, r * places, 1)
            move_tokens(yt, new_yt, r * places, places)
            x, new_x, y, new_y = new_x, x, new_y, y
            xt, new_xt, yt, new_yt = new_xt, xt, new_yt, yt
            corner_x, corner_y = xt[(r - 1) * places + c], yt[r * places + c - 1]
            cycles[COMPUTE if corner_x > 0 and corner_y > 0 else FILL] += 1
            finished = corner_x == LAST and corner_y == LAST
            if busy:
                busy = not drain_row(
                    chain, spare, live, chain_r, chain_c, passes[ROW0, chain_pass], passes[COL0, chain_pass],
                    passes[COLS, chain_pass], out[passes[BATCH, chain_pass]],
                )  # fmt: skip
            t += 1
        while True:
            if not busy and chain_pass >= 0 and t >= 0:  # the chain is empty: hand over
                for e in range(r * places):
                    chain[e] = psums[e]
                for i in range(r):
                    live[i] = i if i < passes[ROWS, p] else -1
                busy, chain_r, chain_c, chain_pass = True, r, c, p
                t = -1
                if drain_overlap and p + 1 < count:
                    break
            cycles[DRAIN] += 1
            busy = not drain_row(
                chain, spare, live, chain_r, chain_c, passes[ROW0, chain_pass], passes[COL0, chain_pass],
                passes[COLS, chain_pass], out[passes[BATCH, chain_pass]],
            )  # fmt: skip
            if not busy and t < 0:
                break


@njit
def load_row(
    chain: I16, spare: I16, weights: I16, row0: int, used: int, col0: int, cols: int, r: int, c: int, at: int
) -> None:  # fmt: skip
    """Shift the load chain down one row; the at-th row to enter is the (r - 1 - at)-th of the fold."""
    places = c + 1
    for e in range(np.uintp((r - 1) * places)):
        spare[e + np.uintp(places)] = chain[e]
    entering = r - 1 - at
    for j in range(c):
        spare[j] = weights[row0 + entering, col0 + j] if entering < used and j < cols else 0
    for e in range(np.uintp(r * places)):
        chain[e] = spare[e]


@njit
def ws_layer(
    x_feeds: I16, x_tokens: U8, weights: I16, passes: I64, rows: int, cols: int, streamed: int, skip_unused: bool,
    double_buffered: bool, cycles: I64, outlet: I32, out: I64,
) -> None:  # fmt: skip
    """Run all passes of a layer, weight-stationary.

    x_feeds, x_tokens [K folds, cycles, rows] : what the feeders on the left send in each cycle of a pass
    weights [batch, K, N]
    outlet [cycles, cols] : what has left the bottom of each column in each cycle of the array phase, added up over the
        K folds, counted from when the first psum can leave; scratch
    The rest as in `os_layer`.
    """
    size = (rows + 1) * (cols + 1) + 1
    x, new_x, held = np.zeros(size, np.int16), np.zeros(size, np.int16), np.zeros(size, np.int16)
    chain, spare = np.zeros(size, np.int16), np.zeros(size, np.int16)
    xt, new_xt = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    psums, new_psums = np.zeros(size, np.int32), np.zeros(size, np.int32)
    count = passes.shape[1]
    loaded = 0  # rows of the coming pass that are in the chain
    outlet[:] = 0
    for p in range(count):
        batch = passes[BATCH, p]
        row0, used, col0, used_cols = passes[ROW0, p], passes[ROWS, p], passes[COL0, p], passes[COLS, p]
        r, c = rows, cols
        if skip_unused:
            r, c = used, used_cols
        while loaded < r:
            load_row(chain, spare, weights[batch], row0, used, col0, used_cols, r, c, loaded)
            loaded += 1
            cycles[LOAD] += 1
        held[:] = chain
        loaded = 0
        places = c + 1
        x[:], new_x[:], psums[:], new_psums[:] = 0, 0, 0, 0
        xt[:], new_xt[:] = 0, 0
        fold = row0 // rows
        finished, t = False, 0
        while not finished:
            feed_rows(x_feeds[batch, fold], x_tokens[batch, fold], t, r, places, x, xt)
            ws_move(x, new_x, held, psums, new_psums, r, places)
            move_tokens(xt, new_xt, r * places, 1)
            x, new_x, xt, new_xt, psums, new_psums = new_x, x, new_xt, xt, new_psums, psums
            if t >= r - 1:
                for j in range(np.uintp(c)):
                    outlet[t - r + 1, j] += psums[np.uintp(r * places) + j]
            corner = xt[(r - 1) * places + c]
            cycles[COMPUTE if corner > 0 else FILL] += 1
            finished = corner == LAST
            if double_buffered and p + 1 < count:
                next_r, next_c = rows, cols
                if skip_unused:
                    next_r, next_c = passes[ROWS, p + 1], passes[COLS, p + 1]
                if loaded < next_r:
                    load_row(
                        chain, spare, weights[passes[BATCH, p + 1]], passes[ROW0, p + 1], passes[ROWS, p + 1],
                        passes[COL0, p + 1], passes[COLS, p + 1], next_r, next_c, loaded,
                    )  # fmt: skip
                    loaded += 1
            t += 1
        if p + 1 == count or passes[ROW0, p + 1] == 0:  # K's last fold; column j is j cycles behind
            for m in range(streamed):
                for j in range(used_cols):
                    out[batch, m, col0 + j] += outlet[m + j, j]
            outlet[:] = 0
