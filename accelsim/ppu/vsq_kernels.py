"""Kernel of VSQ output: integers in guard units to element codes and per-vector integer scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit


@njit
def encode_vectors(
    values: NDArray[np.int64],
    size: int,
    low: int,
    high: int,
    scale_max: int,
    guard_bits: int,
    round_up: bool,
    codes: NDArray[np.int32],
    scales: NDArray[np.int32],
) -> int:
    """Scale every vector of `size` values along the last axis (the last one may be shorter) and write its codes.

    values : int64 [R, N], in units of gamma / 2**guard_bits, at most 2**48 in magnitude
    low, high : range of an element; low >= 0 means unsigned
    codes : int32 [R, N];  scales : int32 [R, ceil(N / size)], both written in place

    Returns how many elements the range moved. Elements have at most 16 bits, scales 12 and the guard 8: the largest
    term, 2 * value + divisor, stays below 2**50.
    """
    rows, columns = values.shape
    saturated = 0
    for r in range(rows):
        for v in range(scales.shape[1]):
            start = v * size
            stop = min(start + size, columns)
            top = 0
            for c in range(start, stop):
                magnitude = values[r, c] if low >= 0 else abs(values[r, c])
                top = max(top, magnitude)
            unit = high << guard_bits  # what a vector scale of 1 reaches
            scale = (top + unit - 1) // unit if round_up else (2 * top + unit) // (2 * unit)
            scale = min(scale, scale_max)
            scales[r, v] = scale
            divisor = scale << guard_bits
            for c in range(start, stop):
                code = 0 if scale == 0 else (2 * values[r, c] + divisor) // (2 * divisor)
                if code < low or code > high:
                    saturated += 1
                    code = min(max(code, low), high)
                codes[r, c] = code
    return saturated
