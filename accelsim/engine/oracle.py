"""The meaning of a layer's GEMMs, one addition at a time, in Python integers and fractions of unlimited width.

Written from the docstrings of GemmOperands, Summation and RegisterWatch alone; shares nothing with the engines. Slow on
purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.contract import OverflowEvent, RegisterWatch
from accelsim.mapping.contract import GemmOperands, LayerPlan

LARGEST_FLOAT32 = Fraction(2**24 - 1) * 2**104
SHIFTED_LIMIT = 2**48 - 1


def round_float32(value: Fraction) -> Fraction:
    """Return the nearest number with 24 bits of significand and no exponent limit upwards; subnormal below 2**-126."""
    if value == 0:
        return value
    step = Fraction(2) ** -149
    while abs(value) >= step * 2**24:
        step *= 2
    return round(value / step) * step  # Python rounds fractions to nearest, ties to even


class LimitedRegister:
    """An integer register that adds and watches: what it holds, what an unlimited one would, and what did not fit."""

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


class FloatRegister:
    """A float32 register that adds: each sum is rounded once, and saturates at the largest finite float32."""

    def __init__(self) -> None:
        self.held = self.low = self.high = Fraction(0)
        self.overflows = 0
        self.first: OverflowEvent | None = None

    def restart(self) -> None:
        """Empty the register; what it has seen stays."""
        self.held = Fraction(0)

    def add(self, addend: Fraction, index: tuple[int, int, int], k: int) -> None:
        """Add; note an overflow."""
        total = self.held + addend
        rounded = round_float32(total)
        if abs(rounded) > LARGEST_FLOAT32:
            self.overflows += 1
            if self.first is None:
                self.first = OverflowEvent(index, k, float(total))
            rounded = LARGEST_FLOAT32 if rounded > 0 else -LARGEST_FLOAT32
        self.held = rounded
        self.low = min(self.low, rounded)
        self.high = max(self.high, rounded)

    def watch(self) -> RegisterWatch:
        """What the register went through."""
        return RegisterWatch(self.overflows, self.first, float(self.low), float(self.high))


@dataclass(frozen=True, eq=False)
class OracleResult:
    """acc : [batch, M, N], int64, or float32 with float32 summation; the watches of the two registers."""

    acc: NDArray[np.int64] | NDArray[np.float32]
    psum: RegisterWatch
    accumulator: RegisterWatch


def dot_product(operands: GemmOperands, index: tuple[int, int, int], ks: range) -> Fraction:
    """Return the sum of products over `ks`: exact, in units of 2**unit_exponent; or aligned, and then a real value."""
    b, m, n = index
    a, w, align_bits = operands.a, operands.w, operands.summation.align_bits
    products = [int(a[b, m, k]) * int(w[b, k, n]) for k in ks]
    if align_bits is None:
        return Fraction(sum(products))
    assert operands.a_exponents is not None
    assert operands.w_exponents is not None
    exponents = [int(operands.a_exponents[b, m, k]) + int(operands.w_exponents[b, k, n]) for k in ks]
    largest = max((e for e, product in zip(exponents, products, strict=True) if product), default=0)
    unit = Fraction(2) ** (largest - align_bits)
    total = 0
    for e, product in zip(exponents, products, strict=True):
        aligned = abs(product) * Fraction(2) ** e / unit
        total += floor(aligned) if product > 0 else -floor(aligned)
    return total * unit


def block_sums(
    operands: GemmOperands, index: tuple[int, int, int], first_k: int, size: int
) -> Iterator[tuple[int, Fraction]]:
    """Yield (first k, value) of each block of a lane group, or of the whole group where there are no block scales.

    The value is exact; with exponents it is a real number, not in units of anything.
    """
    b, m, n = index
    blocks, summation = operands.blocks, operands.summation
    ks = range(first_k, min(first_k + size, operands.shape.k))
    unit = Fraction(2) ** summation.unit_exponent
    if blocks is None:
        yield first_k, dot_product(operands, index, ks) * unit
        return
    for block in sorted({k // blocks.size for k in ks}):
        scale = int(blocks.a_scales[b, m, block]) * int(blocks.w_scales[b, block, n])
        if blocks.product_shift:
            # Half up: the floor of scale / 2^shift + 1/2.
            scale = (2 * scale + 2**blocks.product_shift) // 2 ** (blocks.product_shift + 1)
        factor = Fraction(scale)
        if blocks.a_exponents is not None and blocks.w_exponents is not None:
            factor *= Fraction(2) ** (int(blocks.a_exponents[b, m, block]) + int(blocks.w_exponents[b, block, n]))
        in_block = range(block * blocks.size, (block + 1) * blocks.size)
        yield in_block.start, dot_product(operands, index, in_block) * unit * factor


def shifted(value: Fraction, lsb_exponent: int, rounding: str) -> int:
    """Return a real value in units of 2**lsb_exponent, rounded, and limited as the shifter is."""
    steps = value / Fraction(2) ** lsb_exponent
    if rounding == "truncate":
        whole = floor(steps)
    elif rounding == "toward_zero":
        whole = int(steps)
    else:
        whole = round(steps)
    return min(max(whole, -SHIFTED_LIMIT), SHIFTED_LIMIT)


def group_sum(operands: GemmOperands, index: tuple[int, int, int], first_k: int, size: int) -> int:
    """Return the addend of the lane group that starts at `first_k`, for integer psums."""
    values = [value for _, value in block_sums(operands, index, first_k, size)]
    summation = operands.summation
    if summation.kind == "fixed":
        return sum(shifted(value, summation.lsb_exponent, summation.rounding) for value in values)
    return int(sum(values))


def matmul(operands: GemmOperands, plan: LayerPlan) -> OracleResult:
    """Compute every output by itself: batch by batch, row by row, column by column, ascending k."""
    if operands.summation.kind == "float32":
        return _float_matmul(operands, plan)
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


def _float_matmul(operands: GemmOperands, plan: LayerPlan) -> OracleResult:
    shape = operands.shape
    psum, accumulator = FloatRegister(), FloatRegister()
    acc = np.zeros((shape.batch, shape.m, shape.n), np.float32)
    fold_size = plan.group * plan.groups_per_fold
    for index in np.ndindex(acc.shape):
        b, m, n = index
        accumulator.restart()
        accumulator.add(Fraction(float(operands.bias[b, n])), (b, m, n), -1)
        for fold_k in range(0, shape.k, fold_size):
            psum.restart()
            for k in range(fold_k, min(fold_k + fold_size, shape.k), plan.group):
                for first_k, value in block_sums(operands, (b, m, n), k, plan.group):
                    psum.add(value, (b, m, n), first_k)
            accumulator.add(psum.held, (b, m, n), fold_k)
        acc[index] = float(accumulator.held)
    return OracleResult(acc, psum.watch(), accumulator.watch())
