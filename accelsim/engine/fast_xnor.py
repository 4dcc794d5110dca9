"""Binary layers of the fast engine: products of +1 and -1 as popcounts of packed words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.fast_integers import Int64, IntegerGemm
from accelsim.mapping.contract import GemmOperands

WORD_BITS = 64


def packs(operands: GemmOperands) -> bool:
    """Return whether the products of a layer are popcounts: all lanes are +1 or -1, but 0 where K is only padding."""
    if operands.product != "xnor" or operands.summation.kind != "integer" or operands.blocks is not None:
        return False
    from accelsim.engine import popcount_kernels as kernels

    valid = operands.k_valid.astype(np.int32)
    for a, w in zip(operands.a, operands.w, strict=True):
        if kernels.count_strays(np.ascontiguousarray(a), np.ascontiguousarray(w), valid):
            return False
    return True


class XnorGemm(IntegerGemm):
    """One product of the batch, of lanes that pack. Limited registers take the lanes as they are."""

    def products(self, out: Int64) -> None:
        """Write the sums of products, int64 [M, N]."""
        from accelsim.engine import popcount_kernels as kernels

        length = self.a.shape[1]
        kernels.sums(*self._packed(length), int(self.valid.sum()), out)

    def exact(self, out: Int64) -> Int64:
        """Write the sums of products; return the trajectories' extremes, int64 [4, N]."""
        from accelsim.engine import popcount_kernels as kernels

        group, length = self.plan.group, self.a.shape[1]
        valid = np.add.reduceat(self.valid.astype(np.int64), np.arange(0, length, group))
        extremes = np.empty((4, self.w.shape[1]), np.int64)
        words = -(-group // WORD_BITS)
        kernels.watched_sums(*self._packed(group), valid, words, self.plan.groups_per_fold, extremes, out)
        return extremes

    def _packed(self, group: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return a as [M, words] and w as [words, N]; each `group` of K starts a word."""
        from accelsim.engine import popcount_kernels as kernels

        rows, length = self.a.shape
        groups, words = -(-length // group), -(-group // WORD_BITS)
        bits = self.a > 0
        if group % WORD_BITS:  # each group is completed to whole words
            bits = np.pad(bits, ((0, 0), (0, groups * group - length))).reshape(rows, groups, group)
            bits = np.pad(bits, ((0, 0), (0, 0), (0, words * WORD_BITS - group))).reshape(rows, -1)
        packed_bytes = np.packbits(bits, axis=1, bitorder="little")
        a = np.zeros((rows, groups * words * WORD_BITS // 8), np.uint8)
        a[:, : packed_bytes.shape[1]] = packed_bytes
        w = np.empty((groups * words, self.w.shape[1]), np.uint64)
        kernels.pack_columns(self.w, group, words, w)
        return a.view("<u8"), w
