"""The exact sum of every block of a GEMM, in the narrowest arithmetic that is proved exact.

A block is what reaches the psum register as one number: a block with a scale of its own, or, without block scales, the
lanes of one step.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import addend_size
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int32 = NDArray[np.int32]

# A sum of integers in floats is exact while no partial sum needs more than the significand's bits.
FLOAT32_EXACT, FLOAT64_EXACT = 1 << 24, 1 << 53
# Exponents that keep a whole number below 2^24 a float32, subnormals included.
FLOAT32_UNITS = (-149, 104)
# Rows of one chunk fill about so much memory with their block sums.
CHUNK_BYTES = 1 << 20
POWERS_OF_TWO = np.ldexp(1.0, np.arange(-1022, 1023))


class AlignedLanes(NamedTuple):
    """Lanes with exponents of their own.

    a, w : float64 [M, K] and [K, N], the numbers that lanes are
    a_exponents, w_exponents : int32; far below any other where a lane is zero
    lowest, highest : exponents of the products of lanes that are not zero are between these
    """

    a: NDArray[np.float64]
    w: NDArray[np.float64]
    a_exponents: Int32
    w_exponents: Int32
    lowest: int
    highest: int


class BlockValues:
    """The blocks of one GEMM of the batch; rows are worked in chunks, so that their sums stay in the cache.

    size, count : elements a block, and blocks along K

    Fixed-point sums are in units of 2**lsb_exponent.
    """

    def __init__(self, operands: GemmOperands, plan: LayerPlan, index: int, bound: int) -> None:
        """Take product `index` of the batch; no block sum exceeds `bound` (checks.exact_bound)."""
        summation = operands.summation
        unit = summation.unit_exponent - (summation.lsb_exponent if summation.kind == "fixed" else 0)
        self.size = addend_size(operands, plan)
        self.rows, length = operands.a[index].shape
        self.columns = operands.w.shape[2]
        self.count = -(-length // self.size)
        self.bound = bound
        self.align_bits = operands.summation.align_bits
        self.a, self.w = operands.a[index], operands.w[index]
        of_a, of_w = (self.rows, self.count), (self.count, self.columns)
        self.a_scales, self.w_scales = np.ones(of_a, np.int32), np.ones(of_w, np.int32)
        self.a_units, self.w_units = np.full(of_a, unit, np.int32), np.zeros(of_w, np.int32)
        blocks = operands.blocks
        if blocks is not None:
            self.a_scales, self.w_scales = blocks.a_scales[index], blocks.w_scales[index]
            if blocks.a_exponents is not None and blocks.w_exponents is not None:
                self.a_units = self.a_units + blocks.a_exponents[index]
                self.w_units = self.w_units + blocks.w_exponents[index]
        if self.align_bits is not None:
            assert operands.a_exponents is not None
            assert operands.w_exponents is not None
            self.a_exponents = np.ascontiguousarray(operands.a_exponents[index])
            self.w_exponents = np.ascontiguousarray(operands.w_exponents[index])
        self.chunk = max(4, CHUNK_BYTES // max(1, 4 * self.count * self.columns) // 4 * 4)
        self._scratch: NDArray[Any] | None = None
        self._converted: dict[Any, tuple[NDArray[Any], ...]] = {}

    def chunks(self) -> list[tuple[int, int]]:
        """Return (first row, one past the last) of every chunk."""
        return [(m, min(m + self.chunk, self.rows)) for m in range(0, self.rows, self.chunk)]

    def integers(self, start: int, stop: int) -> tuple[NDArray[np.int64], Int32]:
        """Return rows start..stop-1 as (values, exponents), [rows, count, N] both: a sum is values * 2**exponents."""
        exponents = self.a_units[start:stop, :, None] + self.w_units
        if self.align_bits is not None:
            values, lane_exponents = self._aligned(start, stop, self.align_bits)
            return values, exponents + lane_exponents
        if np.int64 not in self._converted:
            self._convert(np.int64, self.a_scales, self.w_scales)
        return self._multiplied(start, stop, np.int64), exponents

    def reals(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows start..stop-1 as float32 where `narrow`, else as float64; only where the bound is below 2^53."""
        if self.align_bits is not None:
            return self._aligned_reals(start, stop, self.align_bits)
        dtype = np.float32 if self.narrow else np.float64
        if dtype not in self._converted:
            self._convert(dtype, np.ldexp(self.a_scales, self.a_units), np.ldexp(self.w_scales, self.w_units))
        return self._multiplied(start, stop, dtype)

    @property
    def wide(self) -> bool:
        """Whether every sum is a float64 number."""
        return self.bound < FLOAT64_EXACT

    @cached_property
    def narrow(self) -> bool:
        """Whether every sum, and each of its factors, is a float32 number."""
        if self.bound >= FLOAT32_EXACT or self.align_bits is not None:
            return False
        (a_low, a_high), (w_low, w_high) = self._exponents
        low, high = FLOAT32_UNITS
        return min(a_low, w_low, a_low + w_low) >= low and max(a_high, w_high, a_high + w_high) <= high

    @property
    def largest(self) -> float:
        """What no sum of all blocks of a row can exceed; infinity where that is not known."""
        if self.align_bits is not None and not self.wide:
            return math.inf
        (_, a_high), (_, w_high) = self._exponents
        lanes = 0 if self.align_bits is None else self.aligned.highest - self.align_bits
        return math.ldexp(float(self.bound * self.count), a_high + w_high + lanes)

    @property
    def smallest_exponent(self) -> int:
        """What no block's exponent is below."""
        (a_low, _), (w_low, _) = self._exponents
        return a_low + w_low + (0 if self.align_bits is None else self.aligned.lowest)

    @cached_property
    def aligned(self) -> AlignedLanes:
        """Both operands, where lanes have exponents of their own."""
        from accelsim.engine import tile_kernels as kernels

        def known(lanes: Int32, exponents: Int32) -> tuple[NDArray[np.float64], Int32, int, int]:
            reals, seen = np.empty(lanes.shape, np.float64), np.empty(lanes.shape, np.int32)
            return (
                reals,
                seen,
                *kernels.aligned_lanes(np.ascontiguousarray(lanes), exponents, POWERS_OF_TWO, reals, seen),
            )

        a, a_exponents, a_low, a_high = known(self.a, self.a_exponents)
        w, w_exponents, w_low, w_high = known(self.w, self.w_exponents)
        return AlignedLanes(a, w, a_exponents, w_exponents, a_low + w_low, a_high + w_high)

    @cached_property
    def _exponents(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the smallest and the largest exponent of a's blocks, and of w's; 0 included.

        Blocks of zeros, whose exponents have no meaning and are often extremes, have got the exponent 0 by then, if
        the exponents would otherwise keep sums from being narrow.
        """
        low, high = FLOAT32_UNITS
        found = _span(self.a_units), _span(self.w_units)
        if found[0][0] + found[1][0] < low or found[0][1] + found[1][1] > high:
            starts = np.arange(0, self.a.shape[1], self.size)
            self.a_units = np.where(np.bitwise_or.reduceat(self.a, starts, axis=1) == 0, 0, self.a_units)
            self.w_units = np.where(np.bitwise_or.reduceat(self.w, starts, axis=0) == 0, 0, self.w_units)
            found = _span(self.a_units), _span(self.w_units)
        return found

    def factors(self, dtype: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return what the blocks' sums of products are multiplied by, of a and of w: [M, count], [count, N]."""
        _ = self._exponents  # those of blocks of zeros have no meaning
        a, w = self.a_scales.astype(dtype), self.w_scales.astype(dtype)
        return np.ldexp(a, self.a_units), np.ldexp(w, self.w_units)

    def _convert(self, dtype: Any, a_scales: NDArray[Any], w_scales: NDArray[Any]) -> None:
        arrays = (self.a, self.w, a_scales, w_scales)
        self._converted[dtype] = tuple(np.ascontiguousarray(array, dtype) for array in arrays)

    def _room(self, rows: int, dtype: Any) -> NDArray[Any]:
        """Return an array for the sums of so many rows: one piece of memory for chunk after chunk."""
        if self._scratch is None or self._scratch.dtype != dtype:
            self._scratch = np.empty((min(self.chunk, self.rows), self.count, self.columns), dtype)
        return self._scratch[:rows]

    def _multiplied(self, start: int, stop: int, dtype: Any) -> NDArray[Any]:
        from accelsim.engine import block_kernels as kernels

        a, w, a_scales, w_scales = self._converted[dtype]
        values = self._room(stop - start, dtype)
        kernels.block_values(a[start:stop], w, a_scales[start:stop], w_scales, self.size, values)
        return values

    def _aligned_reals(self, start: int, stop: int, align_bits: int) -> NDArray[np.float64]:
        from accelsim.engine import block_kernels as kernels

        lanes, (a_factors, w_factors) = self.aligned, self.factors(np.float64)
        values = self._room(stop - start, np.float64)
        kernels.aligned_reals(
            lanes.a[start:stop], lanes.w, lanes.a_exponents[start:stop], lanes.w_exponents, a_factors[start:stop],
            w_factors, self.size, align_bits, POWERS_OF_TWO, values,
        )  # fmt: skip
        return values

    def _aligned(self, start: int, stop: int, align_bits: int) -> tuple[NDArray[np.int64], Int32]:
        from accelsim.engine import block_kernels as kernels

        values = self._room(stop - start, np.int64)
        exponents = np.empty(values.shape, np.int32)
        a, w = np.ascontiguousarray(self.a), np.ascontiguousarray(self.w)
        kernels.aligned_values(
            a[start:stop], w, self.a_exponents[start:stop], self.w_exponents, self.size, align_bits, values, exponents
        )
        values *= self.a_scales[start:stop, :, None].astype(np.int64) * self.w_scales
        return values, exponents


def _span(exponents: Int32) -> tuple[int, int]:
    return int(exponents.min(initial=0)), int(exponents.max(initial=0))
