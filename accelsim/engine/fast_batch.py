"""Integer layers of many products with few columns each, such as depthwise convolutions: all of them at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import register_limits
from accelsim.engine.fast_integers import IntegerGemm
from accelsim.engine.threads import run_together
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int64 = NDArray[np.int64]
FEW, MANY = 8, 4  # columns that a matrix product is not worth, where there are so many products


def few_columns(operands: GemmOperands, bound: int) -> bool:
    """Return whether `batch_gemms` takes a layer; bound : of every exact sum."""
    plain = operands.summation.kind == "integer" and operands.blocks is None
    shape = operands.shape
    return plain and bound < 1 << 31 and shape.batch >= MANY and 0 < shape.n <= FEW and shape.m > 0


def batch_gemms(
    operands: GemmOperands, plan: LayerPlan, bound: int, threads: int, extremes: Int64, acc: Int64
) -> Iterator[IntegerGemm]:
    """Write the sums of all products [B, M, N] and their trajectories' extremes [B, 4, N], as `IntegerGemm.exact` does;
    return the products, each made when it is wanted: only where a register of any has to be followed.
    """
    from accelsim.engine import batch_kernels as kernels

    a, w = np.ascontiguousarray(operands.a), np.ascontiguousarray(operands.w)
    order = plan.group, plan.group * plan.groups_per_fold
    bounds = np.linspace(0, operands.shape.batch, threads + 1).astype(int).tolist()
    shares = [slice(first, last) for first, last in itertools.pairwise(bounds) if first < last]
    run_together([partial(kernels.batch_sums, a[b], w[b], *order, extremes[b], acc[b]) for b in shares])
    return (_gemm(operands, plan, b, bound, threads, extremes[b]) for b in range(operands.shape.batch))


def _gemm(
    operands: GemmOperands, plan: LayerPlan, index: int, bound: int, threads: int, extremes: Int64
) -> IntegerGemm:
    """Return a product that knows from its extremes [4, N] whether it has to be followed."""
    gemm = IntegerGemm(operands, plan, index, bound, threads)
    psum_low, psum_high, acc_low, acc_high = extremes
    low, high = register_limits(plan.psum_bits)
    gemm.unsafe = np.full(gemm.a.shape[0], int(psum_low.min()) < low or int(psum_high.max()) > high)
    gemm.acc_range = int(acc_low.min()), int(acc_high.max())
    return gemm
