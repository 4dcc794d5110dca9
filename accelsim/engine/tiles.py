"""Registers that cannot overflow, followed in tiles of rows: a matrix product delivers the sums of blocks.

A tile's psums, and the sums of a few blocks, stay in the cache. Float products are exact here: the callers know a
bound on every block's sum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.block_values import FLOAT32_EXACT, FLOAT32_UNITS, FLOAT64_EXACT, BlockValues
from accelsim.engine.checks import SHIFTED_LIMIT, largest_magnitude, register_limits
from accelsim.engine.ordered import column_blocks
from accelsim.engine.threads import run_together
from accelsim.mapping.contract import LayerPlan

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
BLOCKS_AT_ONCE = 4
TILE_BYTES = 1 << 19
# Groups of so many elements are one product, where only the psums' extremes between its ends remain to be found: of one
# fold that is all of K, and of shorter ones, whose psums start from zero too often to have extremes that settle much.
CHUNK, SHORT_CHUNK = 64, 32


def exact_product(a: NDArray[Any], w: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return a @ w of floats that are whole numbers, known to be exact in every order of additions; in `out`, if given.

    OpenBLAS now and then leaves the processor's flag for an invalid operation behind, for lanes beyond the operands
    that it computes and drops. NumPy would warn; the numbers are finite, and so is every sum of theirs.
    """
    with np.errstate(invalid="ignore"):
        return np.matmul(a, w, out=out)


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
                exact_product(self.a[start:stop, block], self.w[block], parts[i])
            yield v, parts


def block_columns(dtype: type[np.generic]) -> int:
    """Return how many columns loops over blocks work at once, of operands of a dtype."""
    return 32 if np.dtype(dtype).itemsize == 8 else 64


Lanes = tuple[Int32, Int32, NDArray[Any], NDArray[Any], int]
Share = TypeVar("Share")


def scaled(values: BlockValues) -> Lanes:
    """Return a [M, K] and w [K, N], what their blocks are multiplied by, float32 where `values.narrow`, else float64
    ([M, B] and [B, N]), and the columns that are worked at once.

    A block's products remain multiples of one unit: what was exact stays so.
    """
    dtype = np.float32 if values.narrow else np.float64
    lanes = np.ascontiguousarray(values.a), np.ascontiguousarray(values.w)
    return *lanes, *values.factors(dtype), block_columns(dtype)


def shared(rows: int, threads: int, work: Callable[[int, int], Share]) -> list[Share]:
    """Return work(first row, one past the last) of up to `threads` shares of rows, by four but the last."""
    bounds = [4 * (rows * i // (4 * threads)) for i in range(threads)] + [rows]
    shares = [(first, last) for first, last in itertools.pairwise(bounds) if first < last]
    return run_together([partial(work, first, last) for first, last in shares])


def widen(extremes: NDArray[Any], found: NDArray[Any]) -> None:
    """Widen lows (rows 0, 2) and highs (1, 3)."""
    extremes[::2] = np.minimum(extremes[::2], found[::2])
    extremes[1::2] = np.maximum(extremes[1::2], found[1::2])


def float_sums(
    values: BlockValues,
    blocks_per_fold: int,
    bias: NDArray[np.float32],
    extremes: NDArray[np.float32],
    out: NDArray[np.float32],
    threads: int,
) -> None:
    """Write float32 accumulators; widen the registers' extremes [4, N]. No sum may overflow; `values.wide` holds."""
    from accelsim.engine import tile_kernels as kernels

    order = values.size, blocks_per_fold, values.smallest_exponent < FLOAT32_UNITS[0]
    aligned = values.align_bits is not None
    kernel: Any = kernels.aligned_rows if aligned else kernels.float_rows
    operands: Any = _aligned(values) if aligned else scaled(values)
    reach: Any = () if aligned else _reach(values, *operands)

    def share(first: int, last: int) -> NDArray[np.float32]:
        found = np.zeros_like(extremes)
        kernel(*operands, first, last, *order, *reach, bias, found, out)
        return found

    for found in shared(values.rows, threads, share):
        widen(extremes, found)


def _aligned(values: BlockValues) -> tuple[Any, ...]:
    """Return the same as `scaled` of lanes with exponents of their own, as `aligned_rows` takes them."""
    from accelsim.engine import tile_kernels as kernels

    lanes, width = values.aligned, block_columns(np.float64)
    of_a = np.empty((-(-values.rows // kernels.TOGETHER), values.count), np.int32)
    of_w = np.empty((-(-values.columns // width), values.count), np.int32)
    kernels.spans_of_rows(lanes.a_exponents, values.size, of_a)
    kernels.spans_of_columns(lanes.w_exponents, values.size, width, of_w)
    known = lanes.a, lanes.w, lanes.a_exponents, lanes.w_exponents
    return *known, of_a, of_w, values.align_bits, *values.factors(np.float64), width


def _reach(
    values: BlockValues, a: Int32, w: Int32, a_factors: NDArray[Any], w_factors: NDArray[Any], width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far the blocks of quads of rows, and of columns worked at once, reach (tile_kernels): of float64."""
    from accelsim.engine import tile_kernels as kernels

    count = 0 if values.narrow else values.count  # sums of float32 numbers need none
    of_a = np.empty((2, -(-values.rows // kernels.TOGETHER), count))
    of_w = np.empty((2, -(-values.columns // width), count))
    if count:
        a_units, w_units = np.ldexp(1.0, values.a_units), np.ldexp(1.0, values.w_units)
        kernels.reach_of_rows(a, a_factors, a_units, values.size, of_a)
        kernels.reach_of_columns(w, w_factors, w_units, values.size, width, of_w)
    return of_a, of_w


def fixed_sums(
    operands: Lanes, size: int, plan: LayerPlan, limited: bool, extremes: Int64, out: Int64, threads: int
) -> None:
    """Write fixed-point sums, less the bias; write the registers' extremes [4, N]. All sums are below 2^53.

    operands : of `scaled`, in blocks of `size`; limited : whether a block's sum may reach the shifter's limit
    """
    from accelsim.engine import tile_kernels as kernels
    from accelsim.engine.fast_float import ROUNDINGS

    per_group = plan.group // size
    order = size, per_group, per_group * plan.groups_per_fold, ROUNDINGS.index(plan.summation.rounding)
    limit = float(SHIFTED_LIMIT if limited else FLOAT64_EXACT)

    def share(first: int, last: int) -> Int64:
        found = np.zeros_like(extremes)
        kernels.fixed_rows(*operands, first, last, *order, limit, found, out)
        return found

    for found in shared(out.shape[0], threads, share):
        widen(extremes, found)


def limited_fixed_sums(
    operands: Lanes, size: int, plan: LayerPlan, limited: bool, held: Int64, out: Int64, threads: int
) -> tuple[int, int, int, int]:
    """Write fixed-point accumulators of limited width; blocks are groups, and all sums below 2^53.

    operands, limited : of `fixed_sums`; held : int64 [N], what accumulators hold before; rows : as many as `out` has
    Returns the overflows of psums and accumulators, and the first row with one of either, -1 if there is none.
    """
    from accelsim.engine import tile_kernels as kernels
    from accelsim.engine.fast_float import ROUNDINGS

    registers: list[Any] = []
    for bits, policy in ((plan.psum_bits, plan.psum_overflow), (plan.acc_bits, plan.acc_overflow)):
        registers += [*map(float, register_limits(bits)), policy == "saturate"]
    order = size, plan.groups_per_fold, ROUNDINGS.index(plan.summation.rounding)
    limit = float(SHIFTED_LIMIT if limited else FLOAT64_EXACT)
    rest: tuple[Any, ...] = (*order, limit, *registers, held.astype(np.float64), out)
    found = shared(out.shape[0], threads, lambda first, last: kernels.limited_fixed_rows(*operands, first, last, *rest))
    rows = (next((share[i] for share in found if share[i] >= 0), -1) for i in (2, 3))  # shares are in their order
    return sum(share[0] for share in found), sum(share[1] for share in found), *rows  # type: ignore[return-value]


def scaled_sums(
    a: Int32,
    w: Int32,
    scales: tuple[Int32, Int32],
    size: int,
    shift: int,
    plan: LayerPlan,
    extremes: Int64,
    out: Int64,
    threads: int,
) -> None:
    """The same of integers with integer scales, whose products lose `shift` bits; all sums fit int32, dots float32."""
    from accelsim.engine import tile_kernels as kernels

    bound = largest_magnitude(a) * largest_magnitude(w) * size
    dtype: type[np.generic] = np.int16 if bound < 1 << 15 else np.float32
    per_group = plan.group // size
    order = size, per_group, per_group * plan.groups_per_fold
    stream: NDArray[Any] = np.ascontiguousarray(a, np.int16 if dtype is np.int16 else np.int32)
    blocks, w_scales = (
        column_blocks(x, kind).reshape(-1, x.shape[0], block_columns(kind))
        for x, kind in ((w, dtype), (scales[1], np.int32))
    )

    def share(first: int, last: int) -> Int64:
        found = np.zeros_like(extremes)
        kernels.scaled_sums(stream, blocks, first, last, *order, scales[0], w_scales, shift, found, out)
        return found

    for found in shared(a.shape[0], threads, share):
        widen(extremes, found)


def sign_sums(
    a: NDArray[np.uint64],
    w: NDArray[np.uint64],
    valid: Int64,
    words_per_group: int,
    groups_per_fold: int,
    extremes: Int64,
    out: Int64,
    threads: int,
) -> None:
    """The same of products of +1 and -1, packed: a [M, words], w [words, N]; all sums fit int32.

    valid [groups] : elements of each group that are not zero
    """
    from accelsim.engine import tile_kernels as kernels

    columns, width = w.shape[1], block_columns(np.uint32)
    # Columns that there are not would have psums of their own: a block is completed with copies of the last one.
    whole = w if columns % width == 0 else np.pad(w, ((0, 0), (0, -columns % width)), mode="edge")
    halves = whole.view(np.uint32).reshape(*whole.shape, 2).swapaxes(1, 2)  # twice as many sums in a SIMD register
    halves = halves.reshape(-1, whole.shape[1])
    blocks = column_blocks(halves, np.uint32).reshape(-1, halves.shape[0], width)
    rows, elements = a.view(np.uint32), valid.astype(np.int32)

    def share(first: int, last: int) -> Int64:
        found = np.zeros_like(extremes)
        order = 2 * words_per_group, groups_per_fold
        kernels.sign_sums(rows, blocks, elements, first, last, *order, found, out)
        return found

    for found in shared(a.shape[0], threads, share):
        widen(extremes, found)


def plain_sums(a: Int32, w: Int32, plan: LayerPlan, extremes: Int64, out: Int64, threads: int = 1) -> NDArray[np.bool_]:
    """The same of integers without scales; a chunk's sum is a float32 number (`chunk_size`).

    The psums' extremes are those of all outputs, the same for every column. Returns the rows, bool [M], in which a psum
    may have been beyond its register's limits: in all others none was. Which ones these are is all that may depend on
    the number of threads.
    """
    from accelsim.engine import chunk_kernels as kernels

    fold, length = plan.group * plan.groups_per_fold, a.shape[1]
    size = chunk_size(plan)
    lanes, weights = a.astype(np.float32), w.astype(np.float32)
    norms = np.empty((-(-length // size), w.shape[1]), np.float32)
    kernels.column_norms(w, size, norms)
    limit = float(register_limits(plan.psum_bits)[1])
    unsafe = np.zeros(a.shape[0], np.bool_)

    def share(top: int, bottom: int) -> Int64:
        parts = Parts(lanes[top:bottom], weights, size, at_once=1)
        rows, mine, sums_of = a[top:bottom], unsafe[top:bottom], out[top:bottom]
        psums = np.zeros((parts.tile, parts.columns), np.int32)
        accs, found = np.empty_like(psums), np.zeros((2, parts.columns), np.int32)
        best, walked = np.zeros(2, np.int32), np.empty(parts.columns, np.int32)
        # A few rows are looked at twice, at first only at chunks' ends: what these show spares most of the following.
        few = min(parts.tile, -(-parts.rows // 16))
        for seeds, (start, stop) in [(True, (0, few)), *((False, tile) for tile in parts.tiles())]:
            psum, acc = psums[: stop - start], accs[: stop - start]
            acc[:] = 0
            for v, sums in parts.sums(start, stop):
                first, last = v * size, min((v + 1) * size, length)
                kernels.add_chunk(
                    psum, acc, sums[0], rows, w, start, first, last, plan.group, last % fold == 0 or last == length,
                    norms[v], limit, walked, best, found[0], found[1], mine, not seeds,
                )  # fmt: skip
            sums_of[start:stop] = acc
        whole = np.empty((4, parts.columns), np.int64)
        whole[0], whole[1], whole[2:] = best[0], best[1], found
        return whole

    for found in shared(a.shape[0], threads, share):
        widen(extremes, found)
    return unsafe


def chunk_size(plan: LayerPlan) -> int:
    """Return how many elements a chunk of groups has: it divides a fold, unless there is only one."""
    fold = plan.group * plan.groups_per_fold
    if fold >= plan.shape.k:
        return plan.group * max(1, CHUNK // plan.group)
    groups = next(n for n in range(max(1, SHORT_CHUNK // plan.group), 0, -1) if plan.groups_per_fold % n == 0)
    return plan.group * groups


def exact_in_float32(bound: int) -> bool:
    """Return whether float32 holds every partial sum of integers whose magnitudes add up to `bound` at most."""
    return bound <= FLOAT32_EXACT
