"""The exact sum of every block of a GEMM, in the narrowest arithmetic that is proved exact.

A block is what reaches the psum register as one number: a block with a scale of its own, or, without block scales, the
lanes of one step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import addend_size, exact_bound
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int32 = NDArray[np.int32]

# A sum of integers in floats is exact while no partial sum needs more than the significand's bits.
FLOAT32_EXACT, FLOAT64_EXACT = 1 << 24, 1 << 53
# Exponents that keep a whole number below 2^24 a float32, subnormals included.
FLOAT32_UNITS = (-149, 104)
CHUNK_BYTES = 1 << 19
EXPONENT_OFFSET = 1022
POWERS_OF_TWO = np.ldexp(1.0, np.arange(-EXPONENT_OFFSET, 1024))


class BlockValues:
    """The blocks of one GEMM of the batch; rows are worked in chunks, so that their sums stay in the cache.

    size, count : elements a block, and blocks along K
    """

    def __init__(self, operands: GemmOperands, plan: LayerPlan, index: int) -> None:
        self.size = addend_size(operands, plan)
        self.rows, length = operands.a[index].shape
        self.columns = operands.w.shape[2]
        self.count = -(-length // self.size)
        self.bound = exact_bound(operands, plan)
        self.align_bits = operands.summation.align_bits
        self.a, self.w = operands.a[index], operands.w[index]
        of_a, of_w = (self.rows, self.count), (self.count, self.columns)
        self.a_scales, self.w_scales = np.ones(of_a, np.int32), np.ones(of_w, np.int32)
        self.a_units, self.w_units = np.full(of_a, operands.summation.unit_exponent, np.int32), np.zeros(of_w, np.int32)
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
        self.chunk = max(2, CHUNK_BYTES // max(1, 8 * self.count * self.columns) // 2 * 2)
        self._converted: dict[Any, tuple[NDArray[Any], ...]] = {}

    def chunks(self) -> list[tuple[int, int]]:
        """Return (first row, one past the last) of every chunk."""
        return [(m, min(m + self.chunk, self.rows)) for m in range(0, self.rows, self.chunk)]

    def integers(self, start: int, stop: int) -> tuple[NDArray[Any], Int32]:
        """Return rows start..stop-1 as (values, exponents), [rows, count, N] both: each sum is values * 2**exponents.

        The values are whole numbers of any dtype.
        """
        exponents = self.a_units[start:stop, :, None] + self.w_units
        if self.align_bits is not None:
            values, lane_exponents = self._aligned(start, stop, self.align_bits)
            return values, exponents + lane_exponents
        dtype: type[Any] = np.int64
        if self.bound < FLOAT64_EXACT:
            dtype = np.float32 if self.bound < FLOAT32_EXACT else np.float64
        if dtype not in self._converted:
            self._convert(dtype, self.a_scales, self.w_scales)
        return self._multiplied(start, stop, dtype), exponents

    def reals(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows start..stop-1 as float32 where `narrow`, else as float64; only where the bound is below 2^53."""
        if self.align_bits is not None:
            values, exponents = self.integers(start, stop)
            return values * POWERS_OF_TWO[exponents + EXPONENT_OFFSET]
        dtype = np.float32 if self.narrow else np.float64
        if dtype not in self._converted:
            a_scales, w_scales = np.ldexp(self.a_scales, self.a_units), np.ldexp(self.w_scales, self.w_units)
            self._convert(dtype, *self._without_zeros(a_scales, w_scales))
        return self._multiplied(start, stop, dtype)

    @property
    def wide(self) -> bool:
        """Whether every sum is a float64 number."""
        return self.bound < FLOAT64_EXACT

    @property
    def narrow(self) -> bool:
        """Whether every sum, and each of its factors, is a float32 number."""
        if self.bound >= FLOAT32_EXACT or self.align_bits is not None:
            return False
        low, high = FLOAT32_UNITS
        spans = []
        for scales, units in zip(self._without_zeros(self.a_scales, self.w_scales), self._units(), strict=True):
            used = units[scales != 0]
            spans.append((int(used.min(initial=0)), int(used.max(initial=0))) if used.size else (0, 0))
        lows, highs = [s[0] for s in spans], [s[1] for s in spans]
        return min(*lows, sum(lows)) >= low and max(*highs, sum(highs)) <= high

    def _units(self) -> tuple[Int32, Int32]:
        return self.a_units, self.w_units

    def _without_zeros(self, a_scales: NDArray[Any], w_scales: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return scales with 0 for each block of zeros, whose scale has no meaning and is often an extreme."""
        starts = np.arange(0, self.a.shape[1], self.size)
        a_used = np.bitwise_or.reduceat(self.a, starts, axis=1) != 0
        w_used = np.bitwise_or.reduceat(self.w, starts, axis=0) != 0
        return a_scales * a_used, w_scales * w_used

    def _convert(self, dtype: Any, a_scales: NDArray[Any], w_scales: NDArray[Any]) -> None:
        arrays = (self.a, self.w, a_scales, w_scales)
        self._converted[dtype] = tuple(np.ascontiguousarray(array, dtype) for array in arrays)

    def _multiplied(self, start: int, stop: int, dtype: Any) -> NDArray[Any]:
        from accelsim.engine import block_kernels as kernels

        a, w, a_scales, w_scales = self._converted[dtype]
        values: NDArray[Any] = np.empty((stop - start, self.count, self.columns), dtype)
        kernels.block_values(a[start:stop], w, a_scales[start:stop], w_scales, self.size, values)
        return values

    def _aligned(self, start: int, stop: int, align_bits: int) -> tuple[NDArray[np.int64], Int32]:
        from accelsim.engine import block_kernels as kernels

        values = np.empty((stop - start, self.count, self.columns), np.int64)
        exponents = np.empty(values.shape, np.int32)
        a, w = np.ascontiguousarray(self.a), np.ascontiguousarray(self.w)
        kernels.aligned_values(
            a[start:stop], w, self.a_exponents[start:stop], self.w_exponents, self.size, align_bits, values, exponents
        )
        values *= self.a_scales[start:stop, :, None].astype(np.int64) * self.w_scales
        return values, exponents
