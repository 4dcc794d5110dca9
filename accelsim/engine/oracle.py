"""The meaning of a layer's GEMMs, one addition at a time, in Python integers of unlimited width.

Written from the docstrings of GemmOperands and RegisterWatch alone; shares nothing with the engines. Slow on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.contract import OverflowEvent, RegisterWatch
from accelsim.mapping.contract import GemmOperands, LayerPlan


class LimitedRegister:
    """A register that adds and watches: what it holds, what an unlimited one would hold, and what did not fit."""

    def __init__(self, bits: int, overflow: str) -> None:
        self.low_limit, self.high_limit = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.wraps = overflow == "wrap"
        self.held = self.unlimited = 0
        self.overflows = 0
        self.first: OverflowEvent | None = None
        self.low = self.high = 0

    def restart(self) -> None:
        """Empty the register; what it has seen stays."""
        self.held = self.unlimited = 0

    def add(self, addend: int, exact_addend: int, index: tuple[int, int, int], k: int) -> None:
        """Add `addend` to what is held, and `exact_addend` to the unlimited companion."""
        total = self.held + addend
        if self.low_limit <= total <= self.high_limit:
            self.held = total
        else:
            self.overflows += 1
            if self.first is None:
                self.first = OverflowEvent(index, k, total)
            if self.wraps:
                span = self.high_limit - self.low_limit + 1
                self.held = (total - self.low_limit) % span + self.low_limit
            else:
                self.held = self.low_limit if total < 0 else self.high_limit
        self.unlimited += exact_addend
        self.low = min(self.low, self.unlimited)
        self.high = max(self.high, self.unlimited)

    def watch(self) -> RegisterWatch:
        """What the register went through."""
        return RegisterWatch(self.overflows, self.first, self.low, self.high)


@dataclass(frozen=True, eq=False)
class OracleResult:
    """acc : int64 [batch, M, N]; the watches of the two registers."""

    acc: NDArray[np.int64]
    psum: RegisterWatch
    accumulator: RegisterWatch


def group_sum(operands: GemmOperands, index: tuple[int, int, int], first_k: int, size: int) -> int:
    """Return the exact addend of the lane group that starts at `first_k`: plain, or block by block times the scales."""
    b, m, n = index
    a, w, blocks = operands.a, operands.w, operands.blocks
    ks = range(first_k, min(first_k + size, operands.shape.k))
    if blocks is None:
        return sum(int(a[b, m, k]) * int(w[b, k, n]) for k in ks)
    total = 0
    for block in sorted({k // blocks.size for k in ks}):
        dot = sum(int(a[b, m, k]) * int(w[b, k, n]) for k in ks if k // blocks.size == block)
        scale = int(blocks.a_scales[b, m, block]) * int(blocks.w_scales[b, block, n])
        if blocks.product_shift:
            # Half up: the floor of scale / 2^shift + 1/2.
            scale = (2 * scale + 2**blocks.product_shift) // 2 ** (blocks.product_shift + 1)
        total += dot * scale
    return total


def matmul(operands: GemmOperands, plan: LayerPlan) -> OracleResult:
    """Compute every output by itself: batch by batch, row by row, column by column, ascending k."""
    shape = operands.shape
    psum = LimitedRegister(plan.psum_bits, plan.psum_overflow)
    accumulator = LimitedRegister(plan.acc_bits, plan.acc_overflow)
    acc = np.zeros((shape.batch, shape.m, shape.n), np.int64)
    fold_size = plan.group * plan.groups_per_fold
    for index in np.ndindex(acc.shape):
        b, m, n = index
        bias = int(operands.bias[b, n])
        accumulator.restart()
        accumulator.add(bias, bias, (b, m, n), -1)
        for fold_k in range(0, shape.k, fold_size):
            psum.restart()
            for k in range(fold_k, min(fold_k + fold_size, shape.k), plan.group):
                part = group_sum(operands, (b, m, n), k, plan.group)
                psum.add(part, part, (b, m, n), k)
            accumulator.add(psum.held, psum.unlimited, (b, m, n), fold_k)
        acc[index] = accumulator.held
    return OracleResult(acc, psum.watch(), accumulator.watch())
