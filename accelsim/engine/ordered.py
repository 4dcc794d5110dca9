"""Ordered accumulation of one GEMM in narrow registers, many times faster than the general kernels (fast_kernels)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import largest_magnitude, register_limits
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


def fits_narrow(a: NDArray[np.signedinteger], w: NDArray[np.signedinteger], registers: Registers) -> bool:
    """Return whether `limited_gemm` can take operands a [M, K], w [K, N]: sums stay in int32 lanes."""
    if registers.psum_bits > 32 or registers.acc_bits > ACCUMULATOR_BITS:
        return False
    product = largest_magnitude(a) * largest_magnitude(w)
    held = min(1 << (registers.psum_bits - 1), product * a.shape[1])
    return bool(held + product * min(registers.group, max(1, a.shape[1])) < 1 << 31)


def limited_gemm(a: Int32, w: Int32, held: Int64, registers: Registers, *, threads: int = 1) -> LimitedGemm:
    """Add a [M, K] times w [K, N] in registers of limited width, in order; `fits_narrow` must hold.

    held : int64 [N], what the accumulators hold before the first fold
    threads : how many to use; the result does not depend on it
    """
    from accelsim.engine import ordered_kernels as kernels

    rows, columns = a.shape[0], w.shape[1]
    psum_low, psum_high = register_limits(registers.psum_bits)
    acc_low, acc_high = register_limits(registers.acc_bits)
    acc_saturates = registers.acc_overflow == "saturate"
    acc_policy = acc_low, acc_high, 64 - registers.acc_bits
    saturates = registers.psum_overflow == "saturate"
    product = largest_magnitude(a) * largest_magnitude(w)
    full = registers.psum_bits == 16
    # int16 lanes hold an exact sum of fewer bits and a product, or saturate just where 16 bits do.
    fits_lanes = product < 1 << 15 if full else psum_high + product < 1 << 15
    narrow = saturates and registers.group == 1 and fits_lanes and _peak(a, w) < 1 << 15
    lane = np.int16 if narrow else np.int32
    stream: NDArray[Any] = np.ascontiguousarray(a, lane)
    blocks = _blocks(w, lane)
    acc = _blocks(np.broadcast_to(held, (rows, columns)), np.int64)
    bounds = [2 * (rows * i // (2 * threads)) for i in range(threads)] + [rows]
    shares = [(first, last) for first, last in itertools.pairwise(bounds) if first < last]
    firsts = np.full((len(shares), 2, 2), -1, np.int64)

    def share(i: int) -> tuple[int, int]:
        if narrow:
            fold = registers.groups_per_fold
            return kernels.limited_rows16(
                stream,
                blocks,
                *shares[i],
                fold,
                full,
                psum_low,
                psum_high,
                *acc_policy,
                acc_saturates,
                acc,
                firsts[i, 0],
                firsts[i, 1],
            )
        return kernels.limited_rows(
            stream, blocks, *shares[i], registers.group, registers.groups_per_fold, psum_low, psum_high,
            32 - registers.psum_bits, saturates, *acc_policy, acc_saturates, acc, firsts[i, 0], firsts[i, 1],
        )  # fmt: skip

    if len(shares) > 1:
        with ThreadPoolExecutor(len(shares)) as pool:
            counts = list(pool.map(share, range(len(shares))))
    else:
        counts = [share(i) for i in range(len(shares))]
    found: list[FirstOverflow | None] = []
    for register in range(2):  # shares are in the order of rows
        first = next(((int(m), int(n)) for m, n in firsts[:, register] if m >= 0), None)
        found.append(None if first is None else _replay(a, w, held, registers, first, register))
    width = kernels.COLUMNS
    return LimitedGemm(
        acc=acc.reshape(-1, rows, width).swapaxes(0, 1).reshape(rows, -1)[:, :columns],
        psum_overflows=sum(psum for psum, _ in counts),
        acc_overflows=sum(accumulator for _, accumulator in counts),
        psum_first=found[0],
        acc_first=found[1],
    )


def _peak(a: Int32, w: Int32) -> int:
    return max(largest_magnitude(a), largest_magnitude(w))


def _blocks(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Return [K, N] as blocks of 64 columns [Q, K * 64], completed with zeros."""
    from accelsim.engine.ordered_kernels import COLUMNS

    rows, columns = array.shape
    blocks = -(-columns // COLUMNS)
    packed = np.zeros((blocks, rows, COLUMNS), dtype)
    for q in range(blocks):
        part = array[:, q * COLUMNS : (q + 1) * COLUMNS]
        packed[q, :, : part.shape[1]] = part
    return packed.reshape(blocks, -1)


def _limited(exact: int, bits: int, policy: Overflow) -> int:
    low, high = register_limits(bits)
    if policy == "saturate":
        return min(max(exact, low), high)
    return (exact - low) % (high - low + 1) + low


def _additions(
    a: Int32, w: Int32, held: Int64, registers: Registers, output: tuple[int, int]
) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield every addition of one output: (register: 0 psum, 1 accumulator; k; before; addend; after)."""
    m, n = output
    products = (a[m].astype(np.int64) * w[:, n]).tolist()
    acc, fold = int(held[n]), registers.group * registers.groups_per_fold
    for start in range(0, len(products), fold):
        psum, stop = 0, min(start + fold, len(products))
        for k in range(start, stop, registers.group):
            part = sum(products[k : min(k + registers.group, stop)])
            after = _limited(psum + part, registers.psum_bits, registers.psum_overflow)
            yield 0, k, psum, part, after
            psum = after
        after = _limited(acc + psum, registers.acc_bits, registers.acc_overflow)
        yield 1, start, acc, psum, after
        acc = after


def _replay(
    a: Int32, w: Int32, held: Int64, registers: Registers, output: tuple[int, int], register: int
) -> FirstOverflow:
    """Return the first overflow of one output, known to have one."""
    for which, k, before, addend, after in _additions(a, w, held, registers, output):
        if which == register and after != before + addend:
            return FirstOverflow(*output, k, before, addend)
    raise AssertionError(f"output {output} was counted as overflowed, but is not")
