"""Binary layers of the fast engine: products of +1 and -1 as popcounts of packed words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.fast_integers import Int64, IntegerGemm
from accelsim.engine.ordered import column_blocks
from accelsim.engine.tiles import sign_sums
from accelsim.mapping.contract import GemmOperands, LayerPlan

WORD_BITS = 64


def packs(operands: GemmOperands) -> bool:
    """Return whether the products of a layer are popcounts: all lanes are +1 or -1, but 0 where K is only padding."""
    if not may_pack(operands):
        return False
    length = operands.shape.k
    return all(_packed(operands, index, length) is not None for index in range(operands.shape.batch))


def may_pack(operands: GemmOperands) -> bool:
    """Return whether a layer is of a kind whose lanes may pack."""
    integer = operands.summation.kind == "integer" and operands.blocks is None
    return operands.product == "xnor" and integer and operands.shape.k < 1 << 31


def packed_gemms(operands: GemmOperands, plan: LayerPlan, group: int, threads: int = 1) -> Sequence[XnorGemm] | None:
    """Return the products of the batch, each `group` of K starting a word; None if a lane does not pack."""
    gemms = []
    for index in range(operands.shape.batch):
        packed = _packed(operands, index, group)
        if packed is None:
            return None
        gemms.append(XnorGemm(operands, plan, index, packed, threads))
    return gemms


def _packed(operands: GemmOperands, index: int, group: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]] | None:
    """Return a as [M, words] and w as [words, N], in one pass that looks at every lane; None if one does not pack."""
    from accelsim.engine import popcount_kernels as kernels

    shape, words = operands.shape, -(-group // WORD_BITS)
    valid = operands.k_valid.astype(np.int32)
    count = -(-shape.k // group) * words
    a, w = np.empty((shape.m, count), np.uint64), np.empty((count, shape.n), np.uint64)
    if not kernels.pack_columns(np.ascontiguousarray(operands.w[index]), valid, group, words, w):
        return None
    if not kernels.pack_rows(np.ascontiguousarray(operands.a[index]), valid, group, words, a):
        return None
    return a, w


class XnorGemm(IntegerGemm):
    """One product of the batch, of lanes that pack. Limited registers take the lanes as they are."""

    def __init__(
        self,
        operands: GemmOperands,
        plan: LayerPlan,
        index: int,
        packed: tuple[NDArray[np.uint64], NDArray[np.uint64]],
        threads: int = 1,
    ) -> None:
        """Take product `index` of the batch, and its packed words (`packed_gemms`)."""
        super().__init__(operands, plan, index, operands.shape.k, threads)
        self.packed = packed

    def products(self, bias: Int64, out: Int64) -> None:
        """Write the sums of products, int64 [M, N], and the bias [N]; all of K is one group."""
        from accelsim.engine import popcount_kernels as kernels

        kernels.sums(self.packed[0], self.blocks, int(self.valid.sum()), bias, out)

    @cached_property
    def blocks(self) -> NDArray[np.uint64]:
        """The words of w in blocks of columns."""
        return column_blocks(self.packed[1], np.uint64)

    def overflows_much(self) -> bool:
        """Return False: to follow words without limits takes next to no time."""
        return False

    def exact(self, out: Int64) -> Int64:
        """Write the sums of products; return the trajectories' extremes, int64 [4, N]."""
        group, length = self.plan.group, self.a.shape[1]
        valid = np.add.reduceat(self.valid.astype(np.int64), np.arange(0, length, group))
        extremes = np.zeros((4, self.w.shape[1]), np.int64)
        order = -(-group // WORD_BITS), self.plan.groups_per_fold
        sign_sums(*self.packed, valid, *order, extremes, out, self.threads)
        return extremes
