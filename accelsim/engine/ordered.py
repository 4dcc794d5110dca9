"""Ordered accumulation of one GEMM in narrow registers, many times faster than the general kernels (fast_kernels)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import largest_magnitude, register_limits
from accelsim.engine.threads import run_together
from accelsim.mapping.contract import Overflow

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
ACCUMULATOR_BITS = 62  # with a psum of 32 bits on top, sums stay in int64


@dataclass(frozen=True)
class Registers:
    """The two registers, and the order of additions: as in LayerPlan."""

    group: int
    groups_per_fold: int
    psum_bits: int
    psum_overflow: Overflow
    acc_bits: int
    acc_overflow: Overflow


@dataclass(frozen=True)
class FirstOverflow:
    """The first addition that did not fit, in the order of outputs, then of k: content before, and the addend."""

    m: int
    n: int
    k: int
    before: int
    addend: int


@dataclass(frozen=True, eq=False)
class LimitedGemm:
    """acc : int64 [M, N], accumulators; overflows of the two registers, and the first of each or None."""

    acc: Int64
    psum_overflows: int
    acc_overflows: int
    psum_first: FirstOverflow | None
    acc_first: FirstOverflow | None


def fits_narrow(
    a: NDArray[np.signedinteger], w: NDArray[np.signedinteger], registers: Registers, product: int | None = None
) -> bool:
    """Return whether `limited_gemm` can take operands a [M, K], w [K, N]: sums stay in int32 lanes.

    product : the largest |a| times the largest |w|, where that is known
    """
    if registers.psum_bits > 32 or registers.acc_bits > ACCUMULATOR_BITS:
        return False
    if product is None:
        product = largest_magnitude(a) * largest_magnitude(w)
    held = min(1 << (registers.psum_bits - 1), product * a.shape[1])
    return bool(held + product * min(registers.group, max(1, a.shape[1])) < 1 << 31)


def limited_gemm(
    a: Int32, w: Int32, held: Int64, registers: Registers, *, threads: int = 1, product: int | None = None,
    out: Int64 | None = None,
) -> LimitedGemm:  # fmt: skip
    """Add a [M, K] times w [K, N] in registers of limited width, in order; `fits_narrow` must hold.

    held : int64 [N], what the accumulators hold before the first fold
    threads : how many to use; the result does not depend on it
    product : of `fits_narrow`
    out : int64 [M, N], contiguous; where to put the accumulators
    """
    from accelsim.engine import ordered_kernels as kernels

    if product is None:
        product = largest_magnitude(a) * largest_magnitude(w)
    (rows, length), columns = a.shape, w.shape[1]
    dtype, mode = _lanes(registers, product)
    unused = (16 if dtype is np.int16 else 32) - registers.psum_bits
    shifted = a << unused if mode == kernels.WRAP_LANE else a
    stream: NDArray[Any] = np.ascontiguousarray(shifted, dtype)
    blocks = column_blocks(w, dtype)
    acc = np.empty((rows, columns), np.int64) if out is None else out
    held = np.ascontiguousarray(held)
    psum_low, psum_high = register_limits(registers.psum_bits)
    acc_low, acc_high = register_limits(registers.acc_bits)
    fold = registers.group * registers.groups_per_fold
    total = -(-length // fold) * min(-psum_low, fold * product)  # what psums add up to at most
    acc_exact = bool(total < 1 << 31 and largest_magnitude(held) + total <= acc_high)
    policy: tuple[Any, ...] = (
        psum_low,
        psum_high,
        unused,
        acc_low,
        acc_high,
        64 - registers.acc_bits,
        registers.acc_overflow == "saturate",
        acc_exact,
    )
    bounds = [2 * (rows * i // (2 * threads)) for i in range(threads)] + [rows]
    shares = [(first, last) for first, last in itertools.pairwise(bounds) if first < last]
    firsts = np.full((len(shares), 2, 2), -1, np.int64)

    def share(i: int) -> tuple[int, int]:
        first, last = shares[i]
        rest: tuple[Any, ...] = (*policy, held, acc, firsts[i, 0], firsts[i, 1])
        if registers.group == 1:
            state: NDArray[Any] = np.zeros((2, 2 * kernels.COLUMNS), dtype)
            return kernels.limited_rows(stream, blocks, first, last, registers.groups_per_fold, state, mode, *rest)
        saturates = registers.psum_overflow == "saturate"
        order = registers.group, registers.groups_per_fold
        return kernels.limited_groups(stream, blocks, first, last, *order, saturates, *rest)

    counts = run_together([partial(share, i) for i in range(len(shares))])
    found: list[FirstOverflow | None] = []
    for register in range(2):  # shares are in the order of rows
        first = next(((int(m), int(n)) for m, n in firsts[:, register] if m >= 0), None)
        found.append(None if first is None else _replay(a, w, held, registers, first, of_acc=register == 1))
    return LimitedGemm(
        acc=acc,
        psum_overflows=sum(psum for psum, _ in counts),
        acc_overflows=sum(accumulator for _, accumulator in counts),
        psum_first=found[0],
        acc_first=found[1],
    )


def narrow_lanes(registers: Registers, product: int) -> bool:
    """Return whether lanes of 16 bits hold the psums; product : of `fits_narrow`."""
    return _lanes(registers, product)[0] is np.int16


def _lanes(registers: Registers, product: int) -> tuple[type[np.int16] | type[np.int32], int]:
    """Return the dtype of a lane that holds a psum, and what happens to a sum that does not fit (ordered_kernels).

    product : what no product exceeds in magnitude
    """
    from accelsim.engine.ordered_kernels import SATURATE, SATURATE_LANE, WRAP, WRAP_LANE

    bits, high = registers.psum_bits, register_limits(registers.psum_bits)[1]
    saturates = registers.psum_overflow == "saturate"
    if registers.group == 1 and product <= (32767 if saturates else high):
        if bits == 16 and saturates:
            return np.int16, SATURATE_LANE
        if not saturates:
            return (np.int16 if bits <= 16 else np.int32), WRAP_LANE
        if high + product <= 32767:
            return np.int16, SATURATE
    return np.int32, SATURATE if saturates else WRAP


def column_blocks(w: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Return [K, N] as blocks of 64 columns [Q, K * 64], completed with zeros."""
    from accelsim.engine.ordered_kernels import COLUMNS

    rows, columns = w.shape
    blocks = -(-columns // COLUMNS)
    packed = np.zeros((blocks, rows, COLUMNS), dtype)
    for q in range(blocks):
        part = w[:, q * COLUMNS : (q + 1) * COLUMNS]
        packed[q, :, : part.shape[1]] = part
    return packed.reshape(blocks, -1)


def _replay(
    a: Int32, w: Int32, held: Int64, registers: Registers, output: tuple[int, int], *, of_acc: bool
) -> FirstOverflow:
    """Return the first overflow of one output, known to have one."""
    from accelsim.engine import ordered_kernels as kernels

    policy: list[Any] = []
    for bits, overflow in (
        (registers.psum_bits, registers.psum_overflow),
        (registers.acc_bits, registers.acc_overflow),
    ):
        policy += [*register_limits(bits), 64 - bits, overflow == "saturate"]
    m, n = output
    order = registers.group, registers.groups_per_fold
    rest: tuple[Any, ...] = (int(held[n]), *order, *policy, of_acc)
    k, before, addend = kernels.first_overflow(a, w, m, n, *rest)
    if k < 0:
        raise AssertionError(f"output {output} was counted as overflowed, but is not")
    return FirstOverflow(m, n, int(k), int(before), int(addend))
