"""What the watched engine's two schedules share: when passes happen, blocks of columns, and the result."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import register_limits
from accelsim.engine.contract import OverflowEvent
from accelsim.engine.preload import Preload, preload
from accelsim.engine.watched_report import RegisterHistory, TimedEvent, WatchedResult
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
NEVER = int(np.iinfo(np.int64).max)  # the earliest cycle of an overflow where there is none


@dataclass(frozen=True, eq=False)
class Timeline:
    """When passes happen. start : first cycle of the array phase; drained : os: first cycle of the drain."""

    start: Int64
    drained: Int64
    rows: Int64
    total: int


class Limits(NamedTuple):
    """A register: smallest and largest value, bits in use, bits of its word not in use, and its policy."""

    low: int
    high: int
    mask: int
    unused: int
    saturates: bool


def register_of(bits: int, policy: str, word: int) -> Limits:
    """Return the limits of a register of `bits` bits that is kept in a word of `word` bits."""
    low, high = register_limits(bits)
    mask = (1 << bits) - 1 if bits < word else -1
    return Limits(low, high, mask, word - bits, policy == "saturate")


def settling_levels(plan: LayerPlan) -> int:
    """Return how often neighbouring columns' words can be added up in pairs: no pair straddles two passes, and at most
    so many PEs' events share a word that its fields hold them (watched_kernels.SHIFT).
    """
    levels = 0
    while levels < 6 and plan.cols % (2 << levels) == 0 and plan.rows << (levels + 1) < 1 << 13:
        levels += 1
    return levels


def pass_times(plan: LayerPlan) -> Timeline:
    """Return when the passes happen; docs/timing.md, sections 3 and 5, without the PPU."""
    passes = plan.passes
    r = passes.rows if plan.skip_unused else np.full_like(passes.rows, plan.rows)
    c = passes.cols if plan.skip_unused else np.full_like(passes.cols, plan.cols)
    shape = plan.shape
    if plan.dataflow != "os":
        phase = (shape.n if plan.transposed else shape.m) + r + c - 2
        hidden = np.append(0, phase[:-1]) if plan.double_buffered else np.zeros_like(phase)
        ends = np.cumsum(np.maximum(0, r - hidden) + phase)
        return Timeline(ends - phase, ends, r, int(ends[-1]))
    phase = shape.k + r + c - 2
    if not plan.drain_overlap:
        ends = np.cumsum(phase + r)
        return Timeline(ends - phase - r, ends - r, r, int(ends[-1]))
    start, drained = np.zeros_like(phase), np.zeros_like(phase)
    free = 0  # first cycle in which the chain is empty
    for p in range(len(passes)):
        start[p] = drained[p - 1] if p else 0
        drained[p] = max(int(start[p] + phase[p]), free)
        free = int(drained[p] + r[p])
    return Timeline(start, drained, r, free)


def column_order(levels: int) -> Int64:
    """Return the column of each place of a block of 64: neighbours in halves of it, theirs in quarters, and so on.

    The lowest bit of the column is the highest of the place, for `levels` bits; the others are the low bits of the
    place, in order.
    """
    places = np.arange(64)
    order = places & ((64 >> levels) - 1)
    order = order << levels
    for level in range(levels):
        order |= (places >> (5 - level) & 1) << level
    return order


def as_kernels_take_them(*operands: Int32) -> list[Int32]:
    """Return operands contiguous and writable: Numba would compile a kernel for each kind of array."""
    return [x if x.flags.carray and x.dtype == np.int32 else np.require(x, np.int32, ("C", "W")) for x in operands]


def thread_shares(items: int, threads: int) -> list[tuple[int, int]]:
    """Return [first, last) of each thread's share; no share is empty."""
    bounds = np.linspace(0, items, min(threads, items) + 1).astype(int).tolist()
    return list(itertools.pairwise(bounds))


@dataclass(frozen=True, eq=False)
class Watched:
    """What the kernels of a schedule found.

    acc : int64 [batch, M, N]
    by_output : int32 [2, batch, M, N], overflows of psums and accumulators
    found : int64 [2, 4], toggled bits, overflows, the earliest cycle with an overflow, and what is not joined
    cycles : int64 [4, array cycles + 1], toggles and overflows of psums, then of accumulators; or, not kept, [4, 1]
    """

    acc: Int64
    by_output: Int32
    found: Int64
    cycles: Int64


class WatchedLayer:
    """What both schedules share."""

    def __init__(self, operands: GemmOperands, plan: LayerPlan, threads: int, product: int) -> None:
        """Take a layer; product : what no product exceeds in magnitude."""
        self.plan, self.operands, self.threads, self.product = plan, operands, threads, product
        self.bias_in: Preload = preload(operands, plan)
        self.psum = register_of(plan.psum_bits, plan.psum_overflow, 32)
        self.acc_limits = register_of(plan.acc_bits, plan.acc_overflow, 64)
        self.timeline = pass_times(plan)

    def watch(self, *, keep: bool) -> Watched:
        """Compute the layer; with `keep`, keep what happened in each cycle."""
        raise NotImplementedError

    def first_psum(self, cycle: int, watched: Watched) -> TimedEvent:
        """Return the psum overflow of a cycle whose output comes first."""
        raise NotImplementedError

    def first_accumulator(self, cycle: int, watched: Watched) -> TimedEvent:
        """Return the accumulator overflow of a cycle whose output comes first."""
        raise NotImplementedError

    def run(self, *, history: bool) -> WatchedResult:
        watched = self.watch(keep=history)
        kept = watched.cycles if history else None

        @cache
        def cycles() -> Int64:
            return kept if kept is not None else self.watch(keep=True).cycles

        registers = []
        for number, find in enumerate((self.first_psum, self.first_accumulator)):
            toggles, overflows, earliest, _ = watched.found[number].tolist()
            registers.append(
                RegisterHistory(
                    overflows,
                    watched.by_output[number],
                    find(earliest, watched) if overflows else None,
                    toggles,
                    partial(_pair, cycles, number),
                )
            )
        return WatchedResult(watched.acc, self.timeline.total, *registers)

    def places(self, p: int) -> tuple[Int64, Int64]:
        """Return (i, j) of all PEs that pass p uses, row by row."""
        passes = self.plan.passes
        i, j = np.indices((int(passes.rows[p]), int(passes.cols[p]))).reshape(2, -1)
        return i, j

    def nothing_found(self, shares: int) -> Int64:
        """Return what each of so many threads has found of each register before it begins: [shares, 2, 4]."""
        found = np.zeros((shares, 2, 4), np.int64)
        found[..., 2] = NEVER
        return found

    def empty(self, *, keep: bool) -> Watched:
        """Return room for what the kernels find."""
        shape = self.plan.shape
        outputs = shape.batch, shape.m, shape.n
        cycles = np.zeros((4, self.timeline.total + 1 if keep else 1), np.int64)
        found = self.nothing_found(1)[0]
        return Watched(np.empty(outputs, np.int64), np.zeros((2, *outputs), np.int32), found, cycles)

    def order(self, *, keep: bool) -> tuple[int, Int64]:
        """Return the levels of settling, and the columns' order that goes with it; only kept words settle."""
        levels = settling_levels(self.plan) if keep else 0
        return levels, column_order(levels)

    def psum_before(self, b: int, m: int, n: int, first: int, stop: int) -> int:
        """Return what the psum register of an output holds after elements first..stop-1 of a fold."""
        from accelsim.engine import watched_kernels as kernels

        a, w = as_kernels_take_them(self.operands.a[b], self.operands.w[b])
        low, high, _, unused, saturates = self.psum
        return int(kernels.register_before(a, w, m, n, first, stop, low, high, unused, saturates))

    def first_of(self, b: int, additions: Int64, watched: Watched) -> OverflowEvent:
        """Return the first psum overflow of additions [X, 4]: m, n, first element of the fold, k."""
        from accelsim.engine import watched_kernels as kernels

        m, n, _, _ = additions.T
        some = np.ascontiguousarray(additions[watched.by_output[0, b, m, n] > 0])
        a, w = as_kernels_take_them(self.operands.a[b], self.operands.w[b])
        low, high, _, unused, saturates = self.psum
        number, exact = kernels.first_misfit(a, w, some, low, high, unused, saturates)
        if number < 0:
            raise AssertionError("no psum overflows in a cycle that has an overflow")
        row, column, _, k = some[number].tolist()
        return OverflowEvent((b, row, column), k, int(exact))

    def locate(self, cycle: int) -> tuple[int, int]:
        """Return (pass, cycle of the pass) of a cycle of the layer."""
        p = int(np.searchsorted(self.timeline.start, cycle, side="right")) - 1
        return p, cycle - int(self.timeline.start[p])


def joined(found: Int64) -> Int64:
    """Return what all threads have found [shares, 2, 4], as one [2, 4]."""
    whole: Int64 = found.sum(axis=0)
    whole[:, 2] = found[..., 2].min(axis=0)
    return whole


def _pair(cycles: Callable[[], Int64], number: int) -> tuple[Int64, Int64]:
    """Return (toggles, overflows) of the first or second register."""
    kept = cycles()
    return kept[2 * number], kept[2 * number + 1]
