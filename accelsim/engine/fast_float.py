"""The fast engine's layers whose numbers have exponents: fixed-point and float32 sums of exact block sums."""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.block_values import FLOAT64_EXACT, BlockValues
from accelsim.engine.checks import EXACT_LIMIT, SHIFTED_LIMIT, shifted_bound
from accelsim.engine.contract import ComputeResult, OverflowEvent, RegisterWatch
from accelsim.engine.fast_integers import integer_event
from accelsim.engine.preload import earlier
from accelsim.engine.tiles import Lanes, fixed_sums, float_sums, limited_fixed_sums, scaled
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int64 = NDArray[np.int64]
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
SOME_ROWS = 16  # that tell about the others
ROUNDINGS = ("truncate", "toward_zero", "half_even")  # the kernel's numbers for them


class FixedGemm:
    """One product of the batch whose blocks' sums are shifted to the integer psum's units."""

    def __init__(self, operands: GemmOperands, plan: LayerPlan, index: int, bound: int, threads: int = 1) -> None:
        self.plan, self.index, self.threads = plan, index, threads
        self.values = BlockValues(operands, plan, index, bound)
        self.blocks_per_group = plan.group // self.values.size
        self.shifted = shifted_bound(operands, plan)  # one block's sum
        self.groups = -(-self.values.count // self.blocks_per_group)
        self._scratch = np.empty((min(self.values.chunk, self.values.rows), self.groups, self.values.columns), np.int64)

    def exact(self, out: Int64) -> Int64:
        """Write the sums; return the trajectories' extremes, int64 [4, N]."""
        from accelsim.engine import fast_kernels as kernels

        extremes = np.zeros((4, self.values.columns), np.int64)
        most = self.shifted * self.values.count
        # Of sums that are watched one by one, the first that is no float64 number would be seen.
        if self._real() and (most < FLOAT64_EXACT or (self.blocks_per_group == 1 and most < EXACT_LIMIT)):
            fixed_sums(self._scaled, self.values.size, self.plan, self._limits, extremes, out, self.threads)
            if max(int(extremes.max(initial=0)), -int(extremes.min(initial=0))) < FLOAT64_EXACT:
                return extremes
            extremes[:] = 0
        for start, stop in self.values.chunks():
            kernels.exact_parts(self._parts(start, stop), self.plan.groups_per_fold, extremes, out[start:stop])
        return extremes

    def overflows_much(self) -> bool:
        """Return whether following limited registers is quicker than to look whether they overflow: a few rows do."""
        if not self._whole():
            return False
        some = np.empty((min(SOME_ROWS, self.values.rows), self.values.columns), np.int64)
        held = np.zeros(self.values.columns, np.int64)
        return limited_fixed_sums(self._scaled, self.values.size, self.plan, self._limits, held, some, 1)[:2] != (0, 0)

    @cached_property
    def _scaled(self) -> Lanes:
        return scaled(self.values)

    @property
    def _limits(self) -> bool:
        return self.shifted == SHIFTED_LIMIT

    def _real(self) -> bool:
        """Return whether every block's sum is a float64 number."""
        return self.values.wide and self.values.align_bits is None

    def bounds(self) -> Int64:
        """Return what the trajectories' extremes cannot exceed, int64 [4, N]."""
        most = np.full(self.values.columns, self.shifted * self.values.count, np.int64)
        return np.stack([-most, most, -most, most])

    def limited(
        self, held: Int64, out: Int64
    ) -> tuple[tuple[int, int], tuple[OverflowEvent | None, OverflowEvent | None]]:
        """Write the accumulators; return the overflows of both registers and the first of each."""
        from accelsim.engine import fast_kernels as kernels

        plan = self.plan
        firsts = np.full((2, 5), -1, np.int64)
        widths = (plan.psum_bits, plan.psum_overflow == "saturate", plan.acc_bits, plan.acc_overflow == "saturate")
        order = (plan.group, plan.groups_per_fold)
        counts = [0, 0]
        if self._whole():
            size, threads = self.values.size, self.threads
            *counts, row, acc_row = limited_fixed_sums(self._scaled, size, plan, self._limits, held, out, threads)
            for register, m in enumerate((row, acc_row)):
                if m >= 0:  # the first of each register is looked for in its row
                    found = np.full((2, 5), -1, np.int64)
                    one = self._parts(m, m + 1)
                    kernels.limited_parts(one, *order, m, held, *widths, found[0], found[1], np.empty_like(out[:1]))
                    firsts[register] = found[register]
            return (counts[0], counts[1]), (integer_event(firsts[0], self.index), integer_event(firsts[1], self.index))
        for start, stop in self.values.chunks():
            misfits = kernels.limited_parts(
                self._parts(start, stop), *order, start, held, *widths, firsts[0], firsts[1], out[start:stop]
            )
            counts = [counts[0] + misfits[0], counts[1] + misfits[1]]
        return (counts[0], counts[1]), (integer_event(firsts[0], self.index), integer_event(firsts[1], self.index))

    def _whole(self) -> bool:
        """Return whether limited registers, each block an addition, and all sums on the way are float64 numbers."""
        psum, acc = 1 << (self.plan.psum_bits - 1), 1 << (self.plan.acc_bits - 1)
        return self._real() and self.blocks_per_group == 1 and max(psum + self.shifted, acc + psum) < FLOAT64_EXACT // 2

    def _parts(self, start: int, stop: int) -> Int64:
        from accelsim.engine import block_kernels as kernels

        order = (self.blocks_per_group, ROUNDINGS.index(self.plan.summation.rounding))
        parts = self._scratch[: stop - start]
        if self.values.wide:
            kernels.rounded_parts(self.values.reals(start, stop), *order, parts)
        else:
            kernels.fixed_parts(*self.values.integers(start, stop), *order, parts)
        return parts


def float_result(operands: GemmOperands, plan: LayerPlan, bound: int, threads: int = 1) -> ComputeResult:
    """Compute a layer of float32 summation; psums and accumulators are watched in any case. bound : `exact_bound`."""
    shape = operands.shape
    acc = np.empty((shape.batch, shape.m, shape.n), np.float32)
    bias = operands.bias.astype(np.float32) + np.float32(0)  # a register holds no negative zero
    extremes = np.zeros((4, shape.n), np.float32)
    overflows = np.zeros(2, np.int64)
    firsts: list[OverflowEvent | None] = [None, None]
    for b in range(shape.batch):
        places, events = np.full((2, 3), -1, np.int64), np.zeros((2, 3), np.float64)
        overflows += _float_gemm(operands, plan, b, bound, bias[b], extremes, places, events, acc[b], threads)
        if shape.m:
            extremes[2:] = np.minimum(extremes[2], bias[b]), np.maximum(extremes[3], bias[b])
        for register in range(2):
            firsts[register] = earlier(firsts[register], _float_event(places[register], events[register], b))
    lows, highs = extremes[::2].min(axis=1, initial=0), extremes[1::2].max(axis=1, initial=0)
    psum, accumulator = (RegisterWatch(int(overflows[i]), firsts[i], float(lows[i]), float(highs[i])) for i in range(2))
    return ComputeResult(acc, plan.cycles, plan.actions, psum, accumulator)


def _float_gemm(
    operands: GemmOperands,
    plan: LayerPlan,
    index: int,
    bound: int,
    bias: NDArray[np.float32],
    extremes: NDArray[np.float32],
    places: Int64,
    events: NDArray[np.float64],
    out: NDArray[np.float32],
    threads: int,
) -> Int64:
    """Compute one product of the batch, by the narrowest kernel that its block sums allow."""
    from accelsim.engine import float_kernels as kernels

    values = BlockValues(operands, plan, index, bound)
    order = (values.size, plan.group // values.size * plan.groups_per_fold)
    overflows = np.zeros(2, np.int64)
    narrow, wide = values.narrow, values.wide
    # Rounded sums exceed exact ones by less than twice.
    largest = 2 * (values.largest + float(np.abs(bias).max(initial=0)))
    limits = largest >= LARGEST_FLOAT32
    if wide and not limits:
        float_sums(values, order[1], bias, extremes, out, threads)
        return overflows
    working = np.empty((2, values.columns), np.float64)
    for start, stop in values.chunks():
        rest = (*order, start, bias, extremes, places, events, out[start:stop])
        if narrow:
            found = kernels.sums_narrow(values.reals(start, stop), limits, *rest)
        elif wide:
            found = kernels.sums_wide(values.reals(start, stop), working, working.view(np.int64), *rest)
        else:
            integers, exponents = values.integers(start, stop)
            found = kernels.sums_any(integers, exponents, *rest)
        overflows += found
    return overflows


def _float_event(place: Int64, event: NDArray[np.float64], batch: int) -> OverflowEvent | None:
    """Return the overflow at (m, n, k); its exact sum, which may need more bits than a float64, rounded to one."""
    m, n, k = place.tolist()
    return None if m < 0 else OverflowEvent((batch, m, n), k, float(sum(map(Fraction, event.tolist()))))
