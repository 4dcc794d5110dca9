"""The fast engine: closed-form cycles and actions, and values by the cheapest way that is exact.

1. ``watch=False`` or ``extremes=False``, and a bound shows that nothing can overflow: exact float matrix products over
   pieces of K.
2. ``extremes=False``, and much is seen to overflow: registers of limited width, in the order of additions that the
   plan defines; of what they would have held with unlimited width only bounds.
3. Else the exact trajectory of every register, with its extremes. Within the registers' limits nothing overflowed.
4. Else also registers of limited width.

Float32 registers round, and so are always followed addition by addition (accelsim.engine.fast_float). Binary products
are popcounts of packed words where nothing overflows (accelsim.engine.fast_xnor).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.activity import layer_activity
from accelsim.engine.checks import (
    check_bound,
    check_operands,
    check_shapes,
    largest_magnitude,
    register_limits,
)
from accelsim.engine.contract import ComputeResult, RegisterWatch
from accelsim.engine.fast_batch import batch_gemms, few_columns
from accelsim.engine.fast_float import FixedGemm, float_result
from accelsim.engine.fast_integers import IntegerGemm
from accelsim.engine.fast_xnor import may_pack, packed_gemms
from accelsim.engine.preload import accumulator_extremes, earlier, preload
from accelsim.engine.proved import exact_products
from accelsim.engine.tiles import exact_product
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int64 = NDArray[np.int64]

# A float sum of integers is exact while no partial sum needs more than the significand's bits.
FLOAT32_EXACT, FLOAT64_EXACT = 1 << 24, 1 << 53


class FastEngine:
    """Equal to the stepped engine in everything that is reported."""

    name = "fast"

    def __init__(self, threads: int = 1) -> None:
        """Take the number of threads that share a layer's rows; results do not depend on it."""
        self.threads = threads

    def run(
        self,
        operands: GemmOperands,
        plan: LayerPlan,
        *,
        watch: bool = True,
        extremes: bool = True,
        activity: bool = False,
    ) -> ComputeResult:
        """Compute a layer; see the module's docstring for `watch` and `extremes`.

        activity : also count toggles and zeros: operands in closed form, psums and accumulators where the watched
            engine can take the layer (accelsim.engine.activity)

        Raises ShapeError where operands and plan do not fit, UnsupportedLayerError where sums could leave int64.
        """
        result = self._run(operands, plan, watch=watch, extremes=extremes)
        return replace(result, activity=layer_activity(operands, plan)) if activity else result

    def _run(self, operands: GemmOperands, plan: LayerPlan, *, watch: bool, extremes: bool) -> ComputeResult:
        kind = operands.summation.kind
        if not (watch and extremes) and kind == "integer":
            proved = _proved(operands, plan)
            if proved is not None:
                return proved
        bound = check_operands(operands, plan)
        if kind == "float32":
            return float_result(operands, plan, bound, self.threads)
        return _watched(operands, plan, bound, self.threads, count_only=not extremes)


def _proved(operands: GemmOperands, plan: LayerPlan) -> ComputeResult | None:
    """Return the result where a bound shows that no register overflows, else None; one pass converts and bounds."""
    check_shapes(operands, plan)
    if operands.blocks is not None:
        return _proved_blocks(operands, plan)
    bias = operands.bias.astype(np.int64)
    if may_pack(operands):
        gemms = packed_gemms(operands, plan, operands.shape.k)
        if gemms is not None:
            watches = _proof(operands, plan, *_binary_bounds(operands, plan))
            if watches is None:
                return None
            shape = operands.shape
            acc = np.empty((shape.batch, shape.m, shape.n), np.int64)
            for b, gemm in enumerate(gemms):
                gemm.products(bias[b], acc[b])
            return ComputeResult(acc, plan.cycles, plan.actions, *watches)
    if _overflow_bounds(operands, plan):
        return None
    products = exact_products(operands, plan)
    if products is not None:
        check_bound(operands, plan, products.peak * operands.shape.k)
        watches = _proof(operands, plan, products.psum_bound, products.sum_bound)
        return None if watches is None else ComputeResult(products.acc, plan.cycles, plan.actions, *watches)
    return _proved_blocks(operands, plan)


def _proof(
    operands: GemmOperands, plan: LayerPlan, psum_bound: int, sum_bound: int
) -> tuple[RegisterWatch, RegisterWatch] | None:
    """Return what is known of both registers where neither can overflow, else None."""
    bias_low, bias_high = int(operands.bias.min(initial=0)), int(operands.bias.max(initial=0))
    psum = RegisterWatch(0, None, -psum_bound, psum_bound, exact=False)
    accumulator = RegisterWatch(0, None, bias_low - sum_bound, bias_high + sum_bound, exact=False)
    return (psum, accumulator) if _fits(psum, plan.psum_bits) and _fits(accumulator, plan.acc_bits) else None


def _overflow_bounds(operands: GemmOperands, plan: LayerPlan) -> bool:
    """Return whether bounds of a few rows and columns alone are beyond a register: there is nothing to prove then."""
    fold, length = plan.group * plan.groups_per_fold, operands.shape.k
    psum_high, acc_high = register_limits(plan.psum_bits)[1], register_limits(plan.acc_bits)[1]
    widest = 1 << (operands.a_bits + operands.w_bits)  # of products, if lanes are no wider than their format
    if widest * min(fold, length) <= psum_high and widest * length <= acc_high:
        return False
    some = operands.a[:1, :8], operands.w[:1, :, :8]
    if 0 in (some[0].size, some[1].size):
        return False
    starts = np.arange(0, length, fold)
    sums = np.add.reduceat(np.abs(some[0][0].astype(np.int64)), starts, axis=1)
    peaks = np.maximum.reduceat(np.abs(some[1][0].astype(np.int64)).max(axis=1), starts)
    bounds = [int(row) * int(peak) for row, peak in zip(sums.max(axis=0), peaks, strict=True)]
    return max(bounds) > psum_high or sum(bounds) > acc_high


def _proved_blocks(operands: GemmOperands, plan: LayerPlan) -> ComputeResult | None:
    """The same of wider integers, and of blocks whose scales' products are not rounded."""
    check_operands(operands, plan)
    if operands.blocks is not None and operands.blocks.product_shift:
        return None  # rounded scale products cannot be folded into the operands
    watches = _proof(operands, plan, *_bounds(operands, plan))
    products = None if watches is None else _float_products(operands)
    if watches is None or products is None:
        return None
    return ComputeResult(products + operands.bias[:, None, :], plan.cycles, plan.actions, *watches)


def _float_products(operands: GemmOperands) -> Int64 | None:
    """Return the exact products, block scales folded into the operands; None where no float product is exact."""
    a: NDArray[np.signedinteger] = operands.a
    w: NDArray[np.signedinteger] = operands.w
    blocks = operands.blocks
    if blocks is not None:
        a = a * np.repeat(blocks.a_scales.astype(np.int64), blocks.size, axis=2)
        w = w * np.repeat(blocks.w_scales.astype(np.int64), blocks.size, axis=1)
    return exact_matmul(a, w)


def _fits(register: RegisterWatch, bits: int) -> bool:
    return register.sufficient_bits is not None and register.sufficient_bits <= bits


def _binary_bounds(operands: GemmOperands, plan: LayerPlan) -> tuple[int, int]:
    """Return the same as `_bounds` of lanes of +1 and -1: as many as there are."""
    length = operands.shape.k
    return min(plan.group * plan.groups_per_fold, length), length


def _bounds(operands: GemmOperands, plan: LayerPlan) -> tuple[int, int]:
    """Return what no psum, and no sum of all products, can exceed in magnitude: row sums of |a| times max |w|."""
    a, w = np.abs(operands.a.astype(np.int64)), np.abs(operands.w.astype(np.int64))
    blocks = operands.blocks
    if blocks is not None:
        a *= np.repeat(blocks.a_scales, blocks.size, axis=2)
        w *= np.repeat(blocks.w_scales, blocks.size, axis=1)
    fold = plan.group * plan.groups_per_fold
    starts = np.arange(0, operands.shape.k, fold)
    row_sums = np.add.reduceat(a, starts, axis=2).max(axis=(0, 1), initial=0)
    peaks = np.maximum.reduceat(w, starts, axis=1).max(axis=(0, 2), initial=0)
    bounds = [int(row) * int(peak) for row, peak in zip(row_sums, peaks, strict=True)]
    return max(bounds, default=0), sum(bounds)


def exact_matmul(a: NDArray[np.signedinteger], w: NDArray[np.signedinteger]) -> Int64 | None:
    """Return a @ w, int64 [batch, M, N], by float products over pieces of K short enough to be exact; None if none is.

    a, w : integers [batch, M, K] and [batch, K, N]; sums must fit int64
    """
    peak = max(1, largest_magnitude(a) * largest_magnitude(w))
    dtype, limit = (np.float32, FLOAT32_EXACT) if peak * 16 < FLOAT32_EXACT else (np.float64, FLOAT64_EXACT)
    piece = (limit - 1) // peak
    if piece == 0:
        return None
    total = np.zeros((a.shape[0], a.shape[1], w.shape[2]), np.int64)
    for start in range(0, a.shape[2], piece):
        part = exact_product(a[:, :, start : start + piece].astype(dtype), w[:, start : start + piece].astype(dtype))
        total += part.astype(np.int64)
    return total


def _watched(operands: GemmOperands, plan: LayerPlan, bound: int, threads: int, *, count_only: bool) -> ComputeResult:
    """Follow every register; count_only : where much overflows, bounds will do for the extremes."""
    shape, bias_in = operands.shape, preload(operands, plan)
    bias = operands.bias.astype(np.int64)
    acc = np.empty((shape.batch, shape.m, shape.n), np.int64)
    extremes = np.empty((shape.batch, 4, shape.n), np.int64)
    packed = packed_gemms(operands, plan, plan.group, threads) if may_pack(operands) else None
    gemms: Iterable[FixedGemm | IntegerGemm]
    if packed is None and few_columns(operands, bound):
        gemms, count_only = batch_gemms(operands, plan, bound, threads, extremes, acc), False
    else:
        kind = FixedGemm if operands.summation.kind == "fixed" else IntegerGemm
        gemms = packed or [kind(operands, plan, b, bound, threads) for b in range(shape.batch)]
        count_only = count_only and all(gemm.overflows_much() for gemm in gemms)
        for b, gemm in enumerate(gemms):
            extremes[b] = gemm.bounds() if count_only else gemm.exact(acc[b])
    psum_low, psum_high = int(extremes[:, 0].min(initial=0)), int(extremes[:, 1].max(initial=0))
    acc_low, acc_high = accumulator_extremes(bias, extremes[:, 2], extremes[:, 3])
    psum = RegisterWatch(0, None, psum_low, psum_high)
    accumulator = RegisterWatch(0, None, acc_low, acc_high)
    if not count_only and _fits(psum, plan.psum_bits) and _fits(accumulator, plan.acc_bits):
        acc += bias[:, None, :]  # exact sums are what the registers held
        return ComputeResult(acc, plan.cycles, plan.actions, psum, accumulator)
    psum_overflows, acc_overflows = 0, bias_in.overflows
    psum_first, acc_first = None, bias_in.first
    for b, gemm in enumerate(gemms):
        counts, firsts = gemm.limited(bias_in.held[b], acc[b])
        psum_overflows, acc_overflows = psum_overflows + counts[0], acc_overflows + counts[1]
        psum_first, acc_first = earlier(psum_first, firsts[0]), earlier(acc_first, firsts[1])
    psum = RegisterWatch(psum_overflows, psum_first, psum_low, psum_high, exact=not count_only)
    accumulator = RegisterWatch(acc_overflows, acc_first, acc_low, acc_high, exact=not count_only)
    low, high = register_limits(plan.acc_bits)
    assert acc.size == 0 or (low <= int(acc.min()) and int(acc.max()) <= high)
    return ComputeResult(acc, plan.cycles, plan.actions, psum, accumulator)
