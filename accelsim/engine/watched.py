"""The watched engine: every overflow with its place and its cycle, every toggled bit, at a fraction of stepping's cost.

It walks elements of K (os) or streamed rows (ws, is) over all columns at once instead of cycles; see watched_kernels.
For one lane a PE, without block scales.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import check_operands, largest_magnitude, register_limits
from accelsim.engine.contract import OverflowEvent
from accelsim.engine.preload import Preload, preload
from accelsim.errors import UnsupportedLayerError
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
ACCUMULATOR_BITS = 62  # with a psum of 32 bits on top, sums stay in int64


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
class _Timeline:
    """When passes happen. start : first cycle of the array phase; drained : os: first cycle of the drain."""

    start: Int64
    drained: Int64
    rows: Int64
    total: int


@dataclass(frozen=True)
class _Limits:
    """A register: smallest and largest value, bits in use, bits of its word not in use, and its policy."""

    low: int
    high: int
    mask: int
    unused: int
    saturates: bool


def why_not_watched(operands: GemmOperands, plan: LayerPlan) -> str | None:
    """Return why this engine cannot take a layer, or None if it can."""
    if operands.summation.kind != "integer" or operands.blocks is not None:
        return "it has block scales or sums that are no plain integers"
    if plan.lanes != 1 or plan.step_cycles != 1 or not operands.k_valid.all():
        return f"its PEs take {plan.lanes} lanes in {plan.step_cycles} cycles, and the watched engine knows 1 and 1"
    if plan.psum_bits > 32 or plan.acc_bits > ACCUMULATOR_BITS:
        return (
            f"psums of {plan.psum_bits} and accumulators of {plan.acc_bits} bits are wider than 32 and "
            f"{ACCUMULATOR_BITS}"
        )
    product = largest_magnitude(operands.a) * largest_magnitude(operands.w)
    held = min(1 << (plan.psum_bits - 1), product * plan.shape.k)
    if held + product >= 1 << 31:
        return f"a psum of {plan.psum_bits} bits and a product may reach {held + product}, beyond int32"
    if plan.rows > 1 << 12:
        return f"{plan.rows} rows of PEs are more than {1 << 12}"
    return None


def watch_layer(operands: GemmOperands, plan: LayerPlan, *, threads: int = 1) -> WatchedResult:
    """Compute a layer and watch every addition to psums and accumulators.

    threads : how many to use; the result does not depend on it

    Raises ShapeError where operands and plan do not fit, UnsupportedLayerError where `why_not_watched` says so.
    """
    check_operands(operands, plan)
    reason = why_not_watched(operands, plan)
    if reason is not None:
        raise UnsupportedLayerError(f"the watched engine cannot take this layer: {reason}; use the stepped engine")
    layer = _OutputStationary(operands, plan) if plan.dataflow == "os" else _Stationary(operands, plan)
    return layer.run(max(1, threads))


def _limits(bits: int, policy: str, word: int) -> _Limits:
    low, high = register_limits(bits)
    mask = (1 << bits) - 1 if bits < word else -1
    return _Limits(low, high, mask, word - bits, policy == "saturate")


def _levels(plan: LayerPlan) -> int:
    """Return how often neighbouring columns' words can be added up in pairs: no pair straddles two passes, and at most
    so many PEs' events share a word that its fields hold them (watched_kernels.SHIFT).
    """
    levels = 0
    while levels < 6 and plan.cols % (2 << levels) == 0 and plan.rows << (levels + 1) < 1 << 13:
        levels += 1
    return levels


def _timeline(plan: LayerPlan) -> _Timeline:
    """Return when the passes happen; docs/timing.md, sections 3 and 5, without the PPU."""
    passes = plan.passes
    r = passes.rows if plan.skip_unused else np.full_like(passes.rows, plan.rows)
    c = passes.cols if plan.skip_unused else np.full_like(passes.cols, plan.cols)
    shape = plan.shape
    if plan.dataflow != "os":
        phase = (shape.n if plan.transposed else shape.m) + r + c - 2
        hidden = np.append(0, phase[:-1]) if plan.double_buffered else np.zeros_like(phase)
        ends = np.cumsum(np.maximum(0, r - hidden) + phase)
        return _Timeline(ends - phase, ends, r, int(ends[-1]))
    phase = shape.k + r + c - 2
    if not plan.drain_overlap:
        ends = np.cumsum(phase + r)
        return _Timeline(ends - phase - r, ends - r, r, int(ends[-1]))
    start, drained = np.zeros_like(phase), np.zeros_like(phase)
    free = 0  # first cycle in which the chain is empty
    for p in range(len(passes)):
        start[p] = drained[p - 1] if p else 0
        drained[p] = max(int(start[p] + phase[p]), free)
        free = int(drained[p] + r[p])
    return _Timeline(start, drained, r, free)


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


def _blocks(array: NDArray[Any], dtype: type[np.generic], order: Int64) -> NDArray[Any]:
    """Return [K, N] as blocks of 64 columns [Q, K * 64], completed with zeros."""
    rows, columns = array.shape
    blocks = -(-columns // order.size)
    padded = np.zeros((rows, blocks * order.size), dtype)
    padded[:, :columns] = array
    return np.ascontiguousarray(padded.reshape(rows, blocks, -1).swapaxes(0, 1)[:, :, order]).reshape(blocks, -1)


def _unblocked(blocks: NDArray[Any], rows: int, columns: int, order: Int64) -> NDArray[Any]:
    """Return blocks of 64 columns [Q, rows * 64] as [rows, columns]."""
    places = np.argsort(order)
    return blocks.reshape(-1, rows, order.size)[:, :, places].swapaxes(0, 1).reshape(rows, -1)[:, :columns]


def _shares(items: int, threads: int) -> list[tuple[int, int]]:
    """Return [first, last) of each thread's share; no share is empty."""
    bounds = np.linspace(0, items, min(threads, items) + 1).astype(int).tolist()
    return list(itertools.pairwise(bounds))


def _run_all(tasks: list[Callable[[], None]], threads: int) -> None:
    if threads == 1 or len(tasks) == 1:
        for task in tasks:
            task()
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


class _Layer:
    """What both schedules share."""

    def __init__(self, operands: GemmOperands, plan: LayerPlan) -> None:
        self.plan, self.operands = plan, operands
        self.bias_in: Preload = preload(operands, plan)
        self.psum = _limits(plan.psum_bits, plan.psum_overflow, 32)
        self.acc_limits = _limits(plan.acc_bits, plan.acc_overflow, 64)
        self.timeline = _timeline(plan)
        self.levels = _levels(plan)
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


class _OutputStationary(_Layer):
    def run(self, threads: int) -> WatchedResult:
        from accelsim.engine import watched_kernels as kernels

        plan, shape, limits = self.plan, self.plan.shape, self.psum
        folds, column_folds = -(-shape.m // plan.rows), -(-shape.n // plan.cols)
        rows = plan.rows + plan.rows % 2
        length = -(-shape.k // kernels.UNROLLED) * kernels.UNROLLED
        toggles, overflows = np.zeros((2, self.timeline.total + 1), np.int64)
        psums = np.empty((shape.batch, shape.m, shape.n), np.int32)
        by_output = np.empty_like(psums)
        for b in range(shape.batch):
            a = np.zeros((folds * plan.rows, length), np.int32)
            a[: shape.m, : shape.k] = self.operands.a[b]
            a_folds = np.zeros((folds, rows, length), np.int32)
            a_folds[:, : plan.rows] = a.reshape(folds, plan.rows, length)
            w = np.zeros((length, shape.n), np.int32)
            w[: shape.k] = self.operands.w[b]
            blocks = _blocks(w, np.int32, self.order)
            held = np.empty((folds, blocks.shape[0], rows * kernels.COLUMNS), np.int32)
            misfits = np.empty_like(held)
            passes = slice(b * folds * column_folds, (b + 1) * folds * column_folds)
            args = (
                shape.n, plan.cols, self.levels, self.order, self.timeline.start[passes], limits.low, limits.high,
                limits.mask, limits.unused, limits.saturates, held, misfits, toggles, overflows,
            )  # fmt: skip

            def task(share: tuple[int, int], a: Int32 = a_folds, w: Int32 = blocks, args: Any = args) -> None:
                kernels.os_folds(a, w, *share, *args)

            _run_all([partial(task, share) for share in _shares(folds, threads)], threads)
            for to, source in ((psums, held), (by_output, misfits)):
                for f in range(folds):
                    part = to[b, f * plan.rows : (f + 1) * plan.rows]
                    part[...] = _unblocked(source[f], rows, shape.n, self.order)[: part.shape[0]]
        psum = RegisterHistory(
            int(overflows.sum()), by_output, self.first_psum(overflows), int(toggles.sum()), overflows, toggles
        )
        acc, accumulator = self.accumulate(psums)
        return WatchedResult(acc, self.timeline.total, psum, accumulator)

    def first_psum(self, overflows: Int64) -> TimedEvent | None:
        if not overflows.any():
            return None
        cycle = int(np.argmax(overflows > 0))
        p = int(np.searchsorted(self.timeline.start, cycle, side="right")) - 1
        t = cycle - int(self.timeline.start[p])
        passes = self.plan.passes
        b, row0, col0 = int(passes.batch[p]), int(passes.row0[p]), int(passes.col0[p])
        for i in range(int(passes.rows[p])):
            for j in range(int(passes.cols[p])):
                k = t - i - j
                event = self.psum_event(b, row0 + i, col0 + j, 0, k) if 0 <= k < self.plan.shape.k else None
                if event is not None:
                    return TimedEvent(event, p, t, cycle)
        raise AssertionError("no output overflows in a cycle that has an overflow")

    def accumulate(self, psums: Int32) -> tuple[Int64, RegisterHistory]:
        """Add the psums to the accumulators."""
        from accelsim.engine import watched_kernels as kernels

        plan, shape, limits, timeline = self.plan, self.plan.shape, self.acc_limits, self.timeline
        acc, misfits = np.empty(psums.shape, np.int64), np.empty_like(psums)
        toggles, overflows = np.zeros((2, timeline.total + 1), np.int64)
        passes = len(plan.passes) // shape.batch
        for b in range(shape.batch):
            own = slice(b * passes, (b + 1) * passes)
            kernels.os_drain(
                psums[b], self.bias_in.held[b], plan.rows, plan.cols, timeline.drained[own], timeline.rows[own],
                limits.low, limits.high, limits.mask, limits.unused, limits.saturates, acc[b], misfits[b],
                toggles, overflows,
            )  # fmt: skip
        first = None
        if overflows.any():
            cycle = int(np.argmax(overflows > 0))
            p = int(np.searchsorted(timeline.drained, cycle, side="right")) - 1
            b, m = int(plan.passes.batch[p]), int(plan.passes.row0[p] + timeline.drained[p] + timeline.rows[p]) - 1
            m -= cycle
            col0 = int(plan.passes.col0[p])
            n = col0 + int(np.argmax(misfits[b, m, col0 : col0 + plan.cols]))
            event = OverflowEvent((b, m, n), 0, int(self.bias_in.held[b, n]) + int(psums[b, m, n]))
            first = TimedEvent(event, p, cycle - int(timeline.start[p]), cycle)
        return acc, RegisterHistory(int(misfits.sum()), misfits, first, int(toggles.sum()), overflows, toggles)


class _Stationary(_Layer):
    """ws; `is` on the transposed problem: rows stream, columns and K stay."""

    def __init__(self, operands: GemmOperands, plan: LayerPlan) -> None:
        super().__init__(operands, plan)
        shape = plan.shape
        self.streamed, self.columns = (shape.n, shape.m) if plan.transposed else (shape.m, shape.n)
        self.folds = -(-shape.k // plan.rows)

    def seen(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return [..., M, N] as the array sees it, or back."""
        return array.swapaxes(-1, -2) if self.plan.transposed else array

    def run(self, threads: int) -> WatchedResult:
        from accelsim.engine import watched_kernels as kernels

        plan, shape, limits, acc_limits = self.plan, self.plan.shape, self.psum, self.acc_limits
        column_folds, length = -(-self.columns // plan.cols), self.folds * plan.rows
        used_rows = shape.k - (self.folds - 1) * plan.rows if plan.skip_unused else plan.rows
        shares = _shares(self.streamed, threads)
        # Waves of neighbouring shares overlap in time: each share has counts of its own.
        counts = np.zeros((len(shares), 4, self.timeline.total + 1), np.int64)
        acc = np.empty((shape.batch, shape.m, shape.n), np.int64)
        by_output = np.empty((2, shape.batch, shape.m, shape.n), np.int32)
        for b in range(shape.batch):
            stream, other = self.operands.a[b], self.operands.w[b]
            if plan.transposed:
                stream, other = other.T, stream.T
            a = np.zeros((self.streamed, length), np.int32)
            a[:, : shape.k] = stream
            w = np.zeros((length, self.columns), np.int32)
            w[: shape.k] = other
            held = np.broadcast_to(self.bias_in.held[b], (shape.m, shape.n))
            blocks, held_blocks = _blocks(w, np.int32, self.order), _blocks(self.seen(held), np.int64, self.order)
            misfits = np.zeros((2, *held_blocks.shape), np.int32)
            passes = slice(b * column_folds * self.folds, (b + 1) * column_folds * self.folds)
            args = (
                plan.rows, used_rows, self.columns, plan.cols, self.levels, self.order, self.timeline.start[passes],
                limits.low, limits.high, limits.mask, limits.unused, limits.saturates,
                acc_limits.low, acc_limits.high, acc_limits.mask, acc_limits.unused, acc_limits.saturates,
                held_blocks, *misfits,
            )  # fmt: skip

            def task(
                share: tuple[int, int], of_share: Int64, a: Int32 = a, w: Int32 = blocks, args: Any = args
            ) -> None:
                kernels.ws_rows(a, w, *share, *args, *of_share)

            _run_all(
                [partial(task, share, own) for share, own in zip(shares, counts, strict=True)],
                threads,
            )
            acc[b] = self.seen(_unblocked(held_blocks, self.streamed, self.columns, self.order))
            for to, source in zip(by_output, misfits, strict=True):
                to[b] = self.seen(_unblocked(source, self.streamed, self.columns, self.order))
        timelines = counts.sum(axis=0)
        histories = []
        for toggles, overflows, outputs, find in (
            (timelines[0], timelines[1], by_output[0], self.first_psum),
            (timelines[2], timelines[3], by_output[1], self.first_accumulator),
        ):
            first = find(overflows)
            histories.append(
                RegisterHistory(int(overflows.sum()), outputs, first, int(toggles.sum()), overflows, toggles)
            )
        return WatchedResult(acc, self.timeline.total, *histories)

    def locate(self, overflows: Int64) -> tuple[int, int, int]:
        """Return (cycle of the layer, pass, cycle of the pass) of the first overflow."""
        cycle = int(np.argmax(overflows > 0))
        p = int(np.searchsorted(self.timeline.start, cycle, side="right")) - 1
        return cycle, p, cycle - int(self.timeline.start[p])

    def outputs_of(self, p: int, offset: int) -> list[tuple[int, int, int, int]]:
        """Return (m, n, i, streamed row) of what PEs (i, j) of pass p work on where i + j + row = offset, in the order
        of the outputs.
        """
        passes, found = self.plan.passes, []
        for i in range(int(passes.rows[p])):
            for j in range(int(passes.cols[p])):
                row, col = offset - i - j, int(passes.col0[p]) + j
                if 0 <= row < self.streamed:
                    found.append((col, row, i, row) if self.plan.transposed else (row, col, i, row))
        return sorted(found)

    def first_psum(self, overflows: Int64) -> TimedEvent | None:
        if not overflows.any():
            return None
        cycle, p, t = self.locate(overflows)
        b, row0 = int(self.plan.passes.batch[p]), int(self.plan.passes.row0[p])
        for m, n, i, _ in self.outputs_of(p, t):
            event = self.psum_event(b, m, n, row0, row0 + i)
            if event is not None:
                return TimedEvent(event, p, t, cycle)
        raise AssertionError("no psum overflows in a cycle that has an overflow")

    def first_accumulator(self, overflows: Int64) -> TimedEvent | None:
        if not overflows.any():
            return None
        cycle, p, t = self.locate(overflows)
        passes, limits = self.plan.passes, self.acc_limits
        b, row0 = int(passes.batch[p]), int(passes.row0[p])
        bottom = int(self.timeline.rows[p]) - 1
        candidates = sorted((m, n) for m, n, i, _ in self.outputs_of(p, t - bottom) if i == 0)
        for m, n in candidates:
            held = int(self.bias_in.held[b, n])
            for start in range(0, row0 + 1, self.plan.rows):
                stop = min(start + self.plan.rows, self.plan.shape.k)
                exact = held + self.psum_before(b, m, n, start, stop)
                fits = limits.low <= exact <= limits.high
                if start == row0 and not fits:
                    return TimedEvent(OverflowEvent((b, m, n), row0, exact), p, t, cycle)
                if fits:
                    held = exact
                elif limits.saturates:
                    held = limits.low if exact < 0 else limits.high
                else:
                    held = (exact - limits.low) % (limits.high - limits.low + 1) + limits.low
        raise AssertionError("no accumulator overflows in a cycle that has an overflow")
