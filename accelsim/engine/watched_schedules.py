"""The two schedules of the watched engine: output-stationary, and operand-stationary (ws, is)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.contract import OverflowEvent
from accelsim.engine.watched_layer import (
    RegisterHistory,
    TimedEvent,
    WatchedLayer,
    WatchedResult,
    in_blocks,
    out_of_blocks,
    run_tasks,
    thread_shares,
)
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class OutputStationary(WatchedLayer):
    """os: rows of outputs and columns stay, K streams."""

    def run(self, threads: int) -> WatchedResult:
        plan, shape = self.plan, self.plan.shape
        folds, column_folds = -(-shape.m // plan.rows), -(-shape.n // plan.cols)
        psums = np.empty((shape.batch, shape.m, shape.n), np.int32)
        by_output, misfits = np.empty_like(psums), np.empty_like(psums)
        acc = np.empty(psums.shape, np.int64)
        # Passes are in the array one after another, and in the drain chain too: no two threads count into one cycle.
        counts = np.zeros((4, self.timeline.total + 1), np.int64)
        for b in range(shape.batch):
            passes = slice(b * folds * column_folds, (b + 1) * folds * column_folds)
            a, w = self.operand_blocks(b)
            share = partial(
                self.run_folds, b, passes, a, w, (psums[b], by_output[b]), (acc[b], misfits[b]), tuple(counts)
            )
            run_tasks([partial(share, *folds_of) for folds_of in thread_shares(folds, threads)], threads)
        toggles, overflows, acc_toggles, acc_overflows = counts
        psum = RegisterHistory(
            int(overflows.sum()), by_output, self.first_psum(overflows), int(toggles.sum()), overflows, toggles
        )
        accumulator = RegisterHistory(
            int(acc_overflows.sum()),
            misfits,
            self.first_accumulator(psums, misfits, acc_overflows),
            int(acc_toggles.sum()),
            acc_overflows,
            acc_toggles,
        )
        return WatchedResult(acc, self.timeline.total, psum, accumulator)

    def operand_blocks(self, b: int) -> tuple[Int32, Int32]:
        """Return a [folds, rows, K] and w [blocks, K * 64] as the kernels take them."""
        from accelsim.engine import watched_kernels as kernels

        plan, shape = self.plan, self.plan.shape
        length = -(-shape.k // kernels.UNROLLED) * kernels.UNROLLED
        folds = np.zeros((-(-shape.m // plan.rows), plan.rows + plan.rows % 2, length), np.int32)
        for f, fold in enumerate(folds):
            rows = self.operands.a[b, f * plan.rows : (f + 1) * plan.rows]
            fold[: rows.shape[0], : shape.k] = rows
        w = np.zeros((length, shape.n), np.int32)
        w[: shape.k] = self.operands.w[b]
        return folds, in_blocks(w, np.int32, self.order)

    def run_folds(
        self,
        b: int,
        passes: slice,
        a: Int32,
        w: Int32,
        outputs: tuple[Int32, Int32],
        accumulators: tuple[Int64, Int32],
        counts: tuple[Int64, ...],
        first: int,
        last: int,
    ) -> None:
        """Run row folds first .. last - 1 of GEMM b: their passes, and their drains."""
        from accelsim.engine import watched_kernels as kernels

        plan, shape, timeline, limits, acc_limits = (
            self.plan,
            self.plan.shape,
            self.timeline,
            self.psum,
            self.acc_limits,
        )
        held = np.empty((a.shape[0], w.shape[0], a.shape[1] * kernels.COLUMNS), np.int32)
        misfits = np.empty_like(held)
        kernels.os_folds(
            a, w, first, last, shape.n, plan.cols, self.levels, self.order, timeline.start[passes],
            limits.low, limits.high, limits.mask, limits.unused, limits.saturates, held, misfits, *counts[:2],
        )  # fmt: skip
        for to, source in zip(outputs, (held, misfits), strict=True):
            for f in range(first, last):
                part = to[f * plan.rows : (f + 1) * plan.rows]
                part[...] = out_of_blocks(source[f], a.shape[1], shape.n, self.order)[: part.shape[0]]
        own = slice(first * plan.rows, last * plan.rows)
        column_folds = -(-shape.n // plan.cols)
        drains = slice(passes.start + first * column_folds, passes.start + last * column_folds)
        kernels.os_drain(
            outputs[0][own], self.bias_in.held[b], plan.rows, plan.cols, timeline.drained[drains],
            timeline.rows[drains], acc_limits.low, acc_limits.high, acc_limits.mask, acc_limits.unused,
            acc_limits.saturates, accumulators[0][own], accumulators[1][own], *counts[2:],
        )  # fmt: skip

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

    def first_accumulator(self, psums: Int32, misfits: Int32, overflows: Int64) -> TimedEvent | None:
        """Rows of PEs leave the array from the bottom up."""
        if not overflows.any():
            return None
        plan, timeline = self.plan, self.timeline
        cycle = int(np.argmax(overflows > 0))
        p = int(np.searchsorted(timeline.drained, cycle, side="right")) - 1
        b, col0 = int(plan.passes.batch[p]), int(plan.passes.col0[p])
        m = int(plan.passes.row0[p] + timeline.rows[p] - 1) - (cycle - int(timeline.drained[p]))
        n = col0 + int(np.argmax(misfits[b, m, col0 : col0 + plan.cols]))
        event = OverflowEvent((b, m, n), 0, int(self.bias_in.held[b, n]) + int(psums[b, m, n]))
        return TimedEvent(event, p, cycle - int(timeline.start[p]), cycle)


class Stationary(WatchedLayer):
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
        shares = thread_shares(self.streamed, threads)
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
            blocks, held_blocks = in_blocks(w, np.int32, self.order), self.preloaded(b)
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

            run_tasks(
                [partial(task, share, own) for share, own in zip(shares, counts, strict=True)],
                threads,
            )
            acc[b] = self.seen(out_of_blocks(held_blocks, self.streamed, self.columns, self.order))
            for to, source in zip(by_output, misfits, strict=True):
                to[b] = self.seen(out_of_blocks(source, self.streamed, self.columns, self.order))
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

    def preloaded(self, b: int) -> Int64:
        """Return the accumulators in blocks [Q, T * 64]; those of columns that do not exist hold anything that fits."""
        held, width = self.bias_in.held[b], self.order.size
        blocks = -(-self.columns // width)
        if self.plan.transposed:
            return np.tile(np.repeat(held, width), (blocks, 1))
        one = in_blocks(held[None], np.int64, self.order)
        return np.tile(one, (1, self.streamed))

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
