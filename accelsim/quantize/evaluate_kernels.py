"""Sums of products in one order, whatever the machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit


@njit
def ordered_sums(x: NDArray[np.float64], w: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Add to y [M, N] the products of x [M, K] and w [K, N], k ascending: one multiplication, then one addition, each
    rounded by itself. All float64, contiguous.
    """
    for m in range(x.shape[0]):
        for k in range(x.shape[1]):
            factor = x[m, k]
            for n in range(w.shape[1]):
                y[m, n] += factor * w[k, n]
