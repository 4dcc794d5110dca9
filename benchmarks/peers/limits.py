"""Limits of the machine: the plain float32 product of the same size, and NumPy's popcount."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.shapes import Gemm


def float32_product(gemm: Gemm) -> Callable[[], object]:
    """Return the plain float32 product of the same size by NumPy's BLAS; operands are float32 already."""
    rng = np.random.default_rng(1)
    a = rng.integers(-128, 128, (gemm.batch, gemm.m, gemm.k)).astype(np.float32)
    w = rng.integers(-128, 128, (gemm.batch, gemm.k, gemm.n)).astype(np.float32)
    return lambda: a @ w


def numpy_xnor(gemm: Gemm) -> Callable[[], np.ndarray]:
    """Return binary products by NumPy's bitwise_count over packed words, row by row; operands are packed already."""
    rng = np.random.default_rng(1)
    words = -(-gemm.k // 64)
    a = rng.integers(0, 1 << 63, (gemm.m, words), np.uint64)
    w = rng.integers(0, 1 << 63, (gemm.n, words), np.uint64)

    def product() -> np.ndarray:
        out = np.empty((gemm.m, gemm.n), np.int32)
        for m in range(gemm.m):
            out[m] = gemm.k - 2 * np.bitwise_count(w ^ a[m]).sum(axis=1, dtype=np.int32)
        return out

    return product
