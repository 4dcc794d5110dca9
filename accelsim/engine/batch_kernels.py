"""Many products of few columns, as depthwise convolutions are: one call for all of them, rows as the SIMD axis."""

# mypy: disable-error-code="arg-type, assignment, no-any-return, return-value"
# To Numba a NumPy scalar and a Python int are one thing; to a type checker they are not.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
ROWS = 64


@njit
def turned(a: I32, first: int, lanes: I32) -> None:
    """Write rows first.. of a [M, K] to the columns of lanes [K, ROWS]; zero where there is none."""
    many = min(ROWS, a.shape[0] - first)
    for k in range(lanes.shape[0]):
        to = lanes[k]
        for r in range(many):
            to[r] = a[first + r, k]
        to[many:] = 0


@njit
def add_element(lanes: I32, factor: int, psum: I32) -> None:
    """Add lanes times a factor to psums [ROWS]."""
    for r in range(ROWS):
        psum[r] += np.int32(lanes[r] * factor)


@njit
def widen(held: I32, low: I32, high: I32) -> None:
    """Widen the extremes of each register [ROWS]."""
    for r in range(ROWS):
        low[r] = min(low[r], held[r])
        high[r] = max(high[r], held[r])


@njit
def moved(psum: I32, acc: I32) -> None:
    """Move psums to their accumulators [ROWS]."""
    for r in range(ROWS):
        acc[r] += psum[r]
        psum[r] = 0


@njit
def batch_sums(a: I32, w: I32, group: int, fold: int, extremes: I64, out: I64) -> None:
    """Add without limits, of a whole batch; note the extremes of every register's trajectory.

    a [B, M, K], w [B, K, N] : operands, of which no sum leaves int32
    group, fold : elements between which a psum is seen, and after which it moves to the accumulator
    extremes [B, 4, N] : psum low, high; accumulator low, high (less the bias); written, 0 included
    out [B, M, N] : sums of products; written
    """
    batch, rows, length = a.shape
    columns = w.shape[2]
    lanes, psum, acc = np.empty((length, ROWS), np.int32), np.zeros(ROWS, np.int32), np.empty(ROWS, np.int32)
    seen = np.zeros((columns, 4, ROWS), np.int32)
    for b in range(batch):
        seen[:] = 0
        for first in range(0, rows, ROWS):
            turned(a[b], first, lanes)
            many = min(ROWS, rows - first)
            for n in range(columns):
                low, high, acc_low, acc_high = seen[n, 0], seen[n, 1], seen[n, 2], seen[n, 3]
                acc[:] = 0
                for k in range(length):
                    add_element(lanes[k], w[b, k, n], psum)
                    ends = (k + 1) % fold == 0 or k + 1 == length
                    if ends or (k % fold + 1) % group == 0:
                        widen(psum, low, high)
                    if ends:
                        moved(psum, acc)
                        widen(acc, acc_low, acc_high)
                for r in range(many):
                    out[b, first + r, n] = acc[r]
        for n in range(columns):
            extremes[b, 0, n], extremes[b, 1, n] = seen[n, 0].min(), seen[n, 1].max()
            extremes[b, 2, n], extremes[b, 3, n] = seen[n, 2].min(), seen[n, 3].max()
