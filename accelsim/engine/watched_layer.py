"""What the watched engine reports, and what its two schedules share: when passes happen, and blocks of columns."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import register_limits
from accelsim.engine.contract import OverflowEvent
from accelsim.engine.preload import Preload, preload
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class TimedEvent:
    """An overflow and when it happened.

    event : what did not fit, and where
    number : the pass
    cycle : of the pass, counted from the first cycle of its array phase (docs/timing.md)
    array_cycle : of the layer, waiting for the PPU apart
    """

    event: OverflowEvent
    number: int
    cycle: int
    array_cycle: int


@dataclass(frozen=True, eq=False)
class RegisterHistory:
    """What one kind of register (psum or accumulator) did in a layer, cycle by cycle.

    overflows : additions whose exact sum did not fit (the bias preload apart)
    overflows_by_output : int32 [batch, M, N]
    first : the overflow of the earliest cycle; of several the one whose output comes first. None: there is none
    toggles : bits that changed in additions, and (psums of ws and is) as registers return to zero behind the wave
    overflows_by_cycle, toggles_by_cycle : int64 [array cycles + 1], the changes at the end of each cycle; the last
        entry: registers that return to zero as the layer ends
    """

    overflows: int
    overflows_by_output: Int32
    first: TimedEvent | None
    toggles: int
    overflows_by_cycle: Int64
    toggles_by_cycle: Int64


@dataclass(frozen=True, eq=False)
class WatchedResult:
    """What the array did with one layer.

    acc : int64 [batch, M, N], the accumulators after the last fold
    array_cycles : load, fill, compute, and drain
    psum, accumulator : the two registers. Moves of psums while os drains are no additions, and are not in `psum`
    """

    acc: Int64
    array_cycles: int
    psum: RegisterHistory
    accumulator: RegisterHistory


@dataclass(frozen=True, eq=False)
class Timeline:
    """When passes happen. start : first cycle of the array phase; drained : os: first cycle of the drain."""

    start: Int64
    drained: Int64
    rows: Int64
    total: int


@dataclass(frozen=True)
class Limits:
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


def in_blocks(array: NDArray[Any], dtype: type[np.generic], order: Int64) -> NDArray[Any]:
    """Return [K, N] as blocks of 64 columns [Q, K * 64], completed with zeros."""
    rows, columns = array.shape
    blocks = -(-columns // order.size)
    padded = np.zeros((rows, blocks * order.size), dtype)
    padded[:, :columns] = array
    return np.ascontiguousarray(padded.reshape(rows, blocks, -1).swapaxes(0, 1)[:, :, order]).reshape(blocks, -1)


def out_of_blocks(blocks: NDArray[Any], rows: int, columns: int, order: Int64) -> NDArray[Any]:
    """Return blocks of 64 columns [Q, rows * 64] as [rows, columns]."""
    places = np.argsort(order)
    found = np.empty((rows, blocks.shape[0], order.size), blocks.dtype)
    np.take(blocks.reshape(-1, rows, order.size).swapaxes(0, 1), places, axis=2, out=found, mode="clip")
    return found.reshape(rows, -1)[:, :columns]


def thread_shares(items: int, threads: int) -> list[tuple[int, int]]:
    """Return [first, last) of each thread's share; no share is empty."""
    bounds = np.linspace(0, items, min(threads, items) + 1).astype(int).tolist()
    return list(itertools.pairwise(bounds))


def run_tasks(tasks: list[Callable[[], None]], threads: int) -> None:
    """Run all tasks, on so many threads; the first exception of any is raised."""
    if threads == 1 or len(tasks) == 1:
        for task in tasks:
            task()
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


class WatchedLayer:
    """What both schedules share."""

    def __init__(self, operands: GemmOperands, plan: LayerPlan) -> None:
        self.plan, self.operands = plan, operands
        self.bias_in: Preload = preload(operands, plan)
        self.psum = register_of(plan.psum_bits, plan.psum_overflow, 32)
        self.acc_limits = register_of(plan.acc_bits, plan.acc_overflow, 64)
        self.timeline = pass_times(plan)
        self.levels = settling_levels(plan)
        self.order = column_order(self.levels)

    def run(self, threads: int) -> WatchedResult:
        raise NotImplementedError

    def psum_before(self, b: int, m: int, n: int, first: int, stop: int) -> int:
        """Return what the psum register of an output holds after elements first..stop-1 of a fold."""
        from accelsim.engine import watched_kernels as kernels

        a = np.ascontiguousarray(self.operands.a[b, m, first:stop])
        w = np.ascontiguousarray(self.operands.w[b, first:stop, n])
        limits = self.psum
        return int(kernels.register_before(a, w, limits.low, limits.high, limits.unused, limits.saturates))

    def psum_event(self, b: int, m: int, n: int, fold_start: int, k: int) -> OverflowEvent | None:
        """Return the overflow of the addition of element k, if it is one."""
        before = self.psum_before(b, m, n, fold_start, k)
        exact = before + int(self.operands.a[b, m, k]) * int(self.operands.w[b, k, n])
        fits = self.psum.low <= exact <= self.psum.high
        return None if fits else OverflowEvent((b, m, n), k, exact)
