"""Integer layers of the fast engine, one product of the batch at a time."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import largest_magnitude, register_limits
from accelsim.engine.contract import OverflowEvent
from accelsim.engine.ordered import FirstOverflow, Registers, fits_narrow, limited_gemm, narrow_lanes
from accelsim.engine.tiles import chunk_size, exact_in_float32, plain_sums, scaled_sums
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int64 = NDArray[np.int64]
SOME_ROWS, SOME_COLUMNS = 16, 64  # that tell about the others


class IntegerGemm:
    """One product of the batch, as the kernels take it: contiguous, one dtype."""

    def __init__(self, operands: GemmOperands, plan: LayerPlan, index: int, bound: int, threads: int = 1) -> None:
        self.index, self.plan, self.threads = index, plan, threads
        self.narrow = bound < 1 << 31
        self.a, self.w = np.ascontiguousarray(operands.a[index]), np.ascontiguousarray(operands.w[index])
        self.valid = operands.k_valid
        self.registers = Registers(
            plan.group, plan.groups_per_fold, plan.psum_bits, plan.psum_overflow, plan.acc_bits, plan.acc_overflow
        )
        self.unsafe: NDArray[np.bool_] | None = None  # rows whose psums may overflow, where `exact` finds out
        self.acc_range = 0, 0  # what it finds the accumulators to move by
        blocks = operands.blocks
        if blocks is None:
            none = np.zeros((1, 1), np.int32)
            self.scales, self.block, self.shift = (none, none), 0, 0
        else:
            a_scales = np.ascontiguousarray(blocks.a_scales[index])
            self.scales = a_scales, np.ascontiguousarray(blocks.w_scales[index])
            self.block, self.shift = blocks.size, blocks.product_shift

    @cached_property
    def product(self) -> int:
        """What no product exceeds in magnitude."""
        return largest_magnitude(self.a) * largest_magnitude(self.w)

    @property
    def quick(self) -> bool:
        """Whether limited registers are followed by `limited_gemm`."""
        return self.block == 0 and fits_narrow(self.a, self.w, self.registers, self.product)

    def overflows_much(self) -> bool:
        """Return whether following limited registers is quicker than to look for the rows that need it.

        Lanes of 16 bits are as quick as that; else a few rows tell, of which most would have to be followed.
        """
        if not self.quick or self.a.size == 0:
            return False
        if narrow_lanes(self.registers, self.product):
            return True
        if not exact_in_float32(self.product * chunk_size(self.plan)):
            return True
        some = np.ascontiguousarray(self.a[:: -(-self.a.shape[0] // SOME_ROWS)])
        columns = np.ascontiguousarray(self.w[:, :SOME_COLUMNS])
        found = np.zeros((4, columns.shape[1]), np.int64)
        unsafe = plain_sums(some, columns, self.plan, found, np.empty((len(some), columns.shape[1]), np.int64))
        return bool(2 * np.count_nonzero(unsafe) > len(some))

    def bounds(self) -> Int64:
        """Return what the trajectories' extremes cannot exceed, int64 [4, N]."""
        length, columns = self.w.shape
        psum = min(length, self.plan.group * self.plan.groups_per_fold) * self.product
        found = np.empty((4, columns), np.int64)
        found[:] = np.array([-psum, psum, -length * self.product, length * self.product])[:, None]
        return found

    def exact(self, out: Int64) -> Int64:
        """Write the sums of products; return the trajectories' extremes, int64 [4, N]."""
        from accelsim.engine import fast_kernels as kernels

        columns = self.w.shape[1]
        if self.narrow:
            found = np.zeros((4, columns), np.int64)
            peak = self.product
            if self.block and exact_in_float32(peak * self.block):
                scaled_sums(self.a, self.w, self.scales, self.block, self.shift, self.plan, found, out, self.threads)
                return found
            if not self.block and exact_in_float32(peak * chunk_size(self.plan)):
                self.unsafe = plain_sums(self.a, self.w, self.plan, found, out, self.threads)
                self.acc_range = int(found[2].min(initial=0)), int(found[3].max(initial=0))
                return found
        dtype = np.int32 if self.narrow else np.int64
        extremes: NDArray[Any] = np.empty((4, columns), dtype)
        scratch: NDArray[Any] = np.empty((2, columns), dtype)
        sums: NDArray[Any] = np.empty((2, columns), dtype)
        order = (self.block, self.shift, self.plan.group, self.plan.groups_per_fold)
        kernels.exact_sums(self.a, self.w, *self.scales, *order, scratch, sums, extremes, out)
        return extremes.astype(np.int64)

    def limited(
        self, held: Int64, out: Int64
    ) -> tuple[tuple[int, int], tuple[OverflowEvent | None, OverflowEvent | None]]:
        """Write the accumulators, where `exact`, if it was called, left its sums; return the overflows of both
        registers and the first of each.
        """
        from accelsim.engine import fast_kernels as kernels

        plan = self.plan
        if self.quick:
            rows = self._followed(held)
            if rows.size == 0:
                out += held
                return (0, 0), (None, None)
            every = rows.size == self.a.shape[0]
            found = limited_gemm(
                self.a if every else self.a[rows], self.w, held, self.registers, product=self.product,
                threads=self.threads,
                out=out if every else None,
            )  # fmt: skip
            if not every:
                out += held
                out[rows] = found.acc
            events = self._event(found.psum_first, rows), self._event(found.acc_first, rows)
            return (found.psum_overflows, found.acc_overflows), events
        firsts = np.full((2, 5), -1, np.int64)
        order = (self.block, self.shift, plan.group, plan.groups_per_fold)
        widths = (plan.psum_bits, plan.psum_overflow == "saturate", plan.acc_bits, plan.acc_overflow == "saturate")
        counts = kernels.limited_sums(
            self.a, self.w, *self.scales, *order, np.ascontiguousarray(held), *widths, firsts[0], firsts[1], out
        )
        return counts, (integer_event(firsts[0], self.index), integer_event(firsts[1], self.index))

    def _followed(self, held: Int64) -> Int64:
        """Return the rows whose registers must be followed: in all others, exact sums are what they held."""
        every = np.arange(self.a.shape[0])
        if self.unsafe is None:
            return every
        low, high = register_limits(self.plan.acc_bits)
        if int(held.min(initial=0)) + self.acc_range[0] < low or int(held.max(initial=0)) + self.acc_range[1] > high:
            return every
        return every[self.unsafe]

    def _event(self, first: FirstOverflow | None, rows: Int64) -> OverflowEvent | None:
        if first is None:
            return None
        return OverflowEvent((self.index, int(rows[first.m]), first.n), first.k, first.before + first.addend)


def integer_event(first: Int64, batch: int) -> OverflowEvent | None:
    """Decode (m, n, k, before, addend); the sum may need a 65th bit, hence Python integers."""
    m, n, k, before, addend = first.tolist()
    return None if m < 0 else OverflowEvent((batch, m, n), k, before + addend)
