"""Registers that cannot overflow, followed in tiles of rows: a matrix product delivers the sums of blocks.

A tile's psums, and the sums of a few blocks, stay in the cache. Float products are exact here: the callers know a
bound on every block's sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.block_values import FLOAT32_EXACT, FLOAT64_EXACT, BlockValues
from accelsim.engine.checks import SHIFTED_LIMIT, largest_magnitude, register_limits
from accelsim.engine.ordered import column_blocks
from accelsim.mapping.contract import LayerPlan

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
BLOCKS_AT_ONCE = 4
TILE_BYTES = 1 << 19
# Groups of so many elements are one product, where only the psums' extremes between its ends remain to be found.
CHUNK = 64


class Parts:
    """Exact sums of consecutive blocks of [M, K] times [K, N] lanes, by float products; a tile of rows at a time."""

    def __init__(self, a: NDArray[Any], w: NDArray[Any], size: int, *, at_once: int = BLOCKS_AT_ONCE) -> None:
        """Take operands of one float dtype, and the elements a block."""
        self.a, self.w, self.size, self.at_once = a, w, size, at_once
        self.rows, self.columns = a.shape[0], w.shape[1]
        self.count = -(-a.shape[1] // size)
        row_bytes = (at_once + 2) * a.dtype.itemsize * max(1, self.columns)
        self.tile = max(1, min(self.rows, max(8, TILE_BYTES // row_bytes // 4 * 4)))
        self._scratch = np.empty(at_once * self.tile * self.columns, a.dtype)

    def tiles(self) -> Iterator[tuple[int, int]]:
        """Yield (first row, one past the last)."""
        for start in range(0, self.rows, self.tile):
            yield start, min(start + self.tile, self.rows)

    def sums(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (number of the first block, sums [blocks, rows, N]) of rows start..stop-1, to the end."""
        for v in range(0, self.count, self.at_once):
            many = min(self.at_once, self.count - v)
            shape = many, stop - start, self.columns
            parts = self._scratch[: math.prod(shape)].reshape(shape)  # contiguous whatever the shape
            for i in range(many):
                block = slice((v + i) * self.size, (v + i + 1) * self.size)
                np.matmul(self.a[start:stop, block], self.w[block], out=parts[i])
            yield v, parts


def scaled(values: BlockValues) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both operands times their blocks' factors, float32 where `values.narrow`, else float64: [M, K], and w in
    blocks of columns [Q, K * 64].

    A block's products remain multiples of one unit: what was exact stays so.
    """
    from accelsim.engine import tile_kernels as kernels

    dtype = np.float32 if values.narrow else np.float64
    length, columns = values.w.shape
    a, w = np.empty(values.a.shape, dtype), np.zeros((-(-columns // kernels.COLUMNS), length * kernels.COLUMNS), dtype)
    a_factors, w_factors = values.factors(dtype)
    kernels.scaled_rows(np.ascontiguousarray(values.a), a_factors, values.size, a)
    kernels.scaled_columns(np.ascontiguousarray(values.w), w_factors, values.size, w)
    return a, w


def float_sums(
    values: BlockValues,
    blocks_per_fold: int,
    bias: NDArray[np.float32],
    extremes: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write float32 accumulators; widen the registers' extremes [4, N]. No sum may overflow; `values.wide` holds."""
    from accelsim.engine import tile_kernels as kernels

    kernels.float_rows(*scaled(values), 0, values.rows, values.size, blocks_per_fold, bias, extremes, out)


def fixed_sums(values: BlockValues, plan: LayerPlan, limited: bool, extremes: Int64, out: Int64) -> None:
    """Write fixed-point sums, less the bias; write the registers' extremes [4, N]. All sums are below 2^53.

    limited : whether a block's sum may reach the shifter's limit
    """
    from accelsim.engine import tile_kernels as kernels
    from accelsim.engine.fast_float import ROUNDINGS

    per_group = plan.group // values.size
    order = values.size, per_group, per_group * plan.groups_per_fold, ROUNDINGS.index(plan.summation.rounding)
    limit = float(SHIFTED_LIMIT if limited else FLOAT64_EXACT)
    kernels.fixed_rows(*scaled(values), 0, values.rows, *order, limit, extremes, out)


def limited_fixed_sums(
    values: BlockValues, plan: LayerPlan, limited: bool, held: Int64, out: Int64
) -> tuple[int, int, int, int]:
    """Write fixed-point accumulators of limited width; blocks are groups, and all sums below 2^53.

    limited : of `fixed_sums`; held : int64 [N], what accumulators hold before
    Returns the overflows of psums and accumulators, and the first row with one of either, -1 if there is none.
    """
    from accelsim.engine import tile_kernels as kernels
    from accelsim.engine.fast_float import ROUNDINGS

    registers: list[Any] = []
    for bits, policy in ((plan.psum_bits, plan.psum_overflow), (plan.acc_bits, plan.acc_overflow)):
        registers += [*map(float, register_limits(bits)), policy == "saturate"]
    order = values.size, plan.groups_per_fold, ROUNDINGS.index(plan.summation.rounding)
    limit = float(SHIFTED_LIMIT if limited else FLOAT64_EXACT)
    rest = (*registers, held.astype(np.float64), out)
    return kernels.limited_fixed_rows(*scaled(values), 0, values.rows, *order, limit, *rest)


def scaled_sums(
    a: Int32, w: Int32, scales: tuple[Int32, Int32], size: int, shift: int, plan: LayerPlan, extremes: Int64, out: Int64
) -> None:
    """The same of integers with integer scales, whose products lose `shift` bits; all sums fit int32, dots float32."""
    from accelsim.engine import tile_kernels as kernels

    bound = largest_magnitude(a) * largest_magnitude(w) * size
    dtype: type[np.generic] = np.int16 if bound < 1 << 15 else np.float32
    per_group = plan.group // size
    order = size, per_group, per_group * plan.groups_per_fold
    blocks = column_blocks(w, dtype), column_blocks(scales[1], np.int32)
    kernels.scaled_sums(
        np.ascontiguousarray(a, dtype), blocks[0], 0, a.shape[0], *order, scales[0], blocks[1], shift, extremes, out
    )


def plain_sums(a: Int32, w: Int32, plan: LayerPlan, extremes: Int64, out: Int64) -> NDArray[np.bool_]:
    """The same of integers without scales; a chunk's sum is a float32 number (`chunk_size`).

    The psums' extremes are those of all outputs, the same for every column. Returns the rows, bool [M], in which a psum
    may have been beyond its register's limits: in all others none was.
    """
    from accelsim.engine import tile_kernels as kernels

    fold, length = plan.group * plan.groups_per_fold, a.shape[1]
    size = chunk_size(plan)
    parts = Parts(a.astype(np.float32), w.astype(np.float32), size, at_once=1)
    norms = np.empty((parts.count, parts.columns), np.float32)
    kernels.column_norms(w, size, norms)
    limit = float(register_limits(plan.psum_bits)[1])
    psums = np.zeros((parts.tile, parts.columns), np.int32)
    accs, found = np.empty_like(psums), np.zeros((2, parts.columns), np.int32)
    best, walked, unsafe = np.zeros(2, np.int32), np.empty(parts.columns, np.int32), np.zeros(parts.rows, np.bool_)
    # A few rows are looked at twice, at first only at chunks' ends: what these show spares most of the following.
    few = min(parts.tile, -(-parts.rows // 16))
    for seeds, (start, stop) in [(True, (0, few)), *((False, tile) for tile in parts.tiles())]:
        psum, acc = psums[: stop - start], accs[: stop - start]
        acc[:] = 0
        for v, sums in parts.sums(start, stop):
            first, last = v * size, min((v + 1) * size, length)
            kernels.add_chunk(
                psum, acc, sums[0], a, w, start, first, last, plan.group, last % fold == 0 or last == length, norms[v],
                limit, walked, best, found[0], found[1], unsafe, not seeds,
            )  # fmt: skip
        out[start:stop] = acc
    extremes[0], extremes[1], extremes[2:] = best[0], best[1], found
    return unsafe


def chunk_size(plan: LayerPlan) -> int:
    """Return how many elements a chunk of groups has: it divides a fold, unless there is only one."""
    fold = plan.group * plan.groups_per_fold
    if fold >= plan.shape.k:
        return plan.group * max(1, CHUNK // plan.group)
    groups = next(n for n in range(max(1, CHUNK // plan.group), 0, -1) if plan.groups_per_fold % n == 0)
    return plan.group * groups


def exact_in_float32(bound: int) -> bool:
    """Return whether float32 holds every partial sum of integers whose magnitudes add up to `bound` at most."""
    return bound <= FLOAT32_EXACT
