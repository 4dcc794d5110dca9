"""Limits of the machine: plain products of the same size in float32 and, with PyTorch, int8; NumPy's popcount."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.peers import NotInstalledError
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


def torch_product(gemm: Gemm) -> Callable[[], object]:
    """Return the exact int8 product (int32 sums) by PyTorch on one thread. NotInstalledError."""
    try:
        import torch
    except ImportError:
        raise NotInstalledError("pip install torch (a CPU build is enough)") from None
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    a, w = (
        torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator)
        for shape in ((gemm.m, gemm.k), (gemm.k, gemm.n))
    )
    return lambda: torch._int_mm(a, w)
