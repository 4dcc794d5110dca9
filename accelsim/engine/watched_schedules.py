"""The two schedules of the watched engine: output-stationary, and operand-stationary (ws, is)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import largest_magnitude
from accelsim.engine.contract import OverflowEvent
from accelsim.engine.threads import run_together
from accelsim.engine.watched_layer import (
    Watched,
    WatchedLayer,
    as_kernels_take_them,
    joined,
    thread_shares,
)
from accelsim.engine.watched_report import TimedEvent
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int64 = NDArray[np.int64]


class OutputStationary(WatchedLayer):
    """os: rows of outputs and columns stay, K streams."""

    def watch(self, *, keep: bool) -> Watched:
        from accelsim.engine import watched_kernels as kernels

        plan, shape, timeline = self.plan, self.plan.shape, self.timeline
        folds, column_folds = -(-shape.m // plan.rows), -(-shape.n // plan.cols)
        shares = thread_shares(folds, self.threads)
        found = self.nothing_found(len(shares))
        levels, order = self.order(keep=keep)
        # Passes are in the array one after another, and in the drain chain too: no two threads count into one cycle.
        watched = self.empty(keep=keep)
        for b in range(shape.batch):
            passes = slice(b * folds * column_folds, (b + 1) * folds * column_folds)
            times = timeline.start[passes], timeline.drained[passes], timeline.rows[passes]
            args: tuple[Any, ...] = (
                plan.rows, plan.cols, levels, order, *times, *self.psum, *self.acc_limits, self.bias_in.held[b],
                watched.acc[b], *watched.by_output[:, b], keep,
            )  # fmt: skip
            a, w = as_kernels_take_them(self.operands.a[b], self.operands.w[b])
            tasks: list[Callable[[], object]] = []
            for (first, last), own in zip(shares, found, strict=True):
                rest: tuple[Any, ...] = (*args, *own, *watched.cycles)
                tasks.append(partial(kernels.os_blocks, a, w, first, last, *rest))
            run_together(tasks)
        return replace(watched, found=joined(found))

    def first_psum(self, cycle: int, watched: Watched) -> TimedEvent:
        p, t = self.locate(cycle)
        passes, (i, j) = self.plan.passes, self.places(p)
        k = t - i - j
        additions = np.stack([passes.row0[p] + i, passes.col0[p] + j, np.zeros_like(k), k], axis=1)
        there = (k >= 0) & (k < self.plan.shape.k)
        return TimedEvent(self.first_of(int(passes.batch[p]), additions[there], watched), p, t, cycle)

    def first_accumulator(self, cycle: int, watched: Watched) -> TimedEvent:
        """Rows of PEs leave the array from the bottom up."""
        plan, timeline = self.plan, self.timeline
        p = int(np.searchsorted(timeline.drained, cycle, side="right")) - 1
        b, col0 = int(plan.passes.batch[p]), int(plan.passes.col0[p])
        m = int(plan.passes.row0[p] + timeline.rows[p] - 1) - (cycle - int(timeline.drained[p]))
        n = col0 + int(np.argmax(watched.by_output[1, b, m, col0 : col0 + plan.cols]))
        event = OverflowEvent((b, m, n), 0, int(self.bias_in.held[b, n]) + self.psum_before(b, m, n, 0, plan.shape.k))
        return TimedEvent(event, p, cycle - int(timeline.start[p]), cycle)


class Stationary(WatchedLayer):
    """ws; `is` on the transposed problem: rows stream, columns and K stay."""

    def __init__(self, operands: GemmOperands, plan: LayerPlan, threads: int, product: int) -> None:
        super().__init__(operands, plan, threads, product)
        shape = plan.shape
        self.streamed, self.columns = (shape.n, shape.m) if plan.transposed else (shape.m, shape.n)
        self.folds = -(-shape.k // plan.rows)

    @property
    def narrow(self) -> bool:
        """Return whether accumulators can be int32: an exact sum has bits beyond the register's, or there is none."""
        psum = min(1 << (self.plan.psum_bits - 1), self.product * self.plan.rows)
        bits = self.plan.acc_bits
        proved = largest_magnitude(self.bias_in.held) + psum * self.folds < 1 << 31
        return (bits < 32 and psum <= 1 << 30) or (bits == 32 and proved)

    def watch(self, *, keep: bool) -> Watched:
        from accelsim.engine import watched_kernels as kernels

        plan, shape = self.plan, self.plan.shape
        column_folds = -(-self.columns // plan.cols)
        used_rows = shape.k - (self.folds - 1) * plan.rows if plan.skip_unused else plan.rows
        blocks, groups = -(-self.columns // kernels.COLUMNS), self.streamed // kernels.TOGETHER + 1
        # Blocks of whole passes have cycles of their own, but for the one in which the last registers return to zero.
        by_columns = blocks % self.threads == 0 and kernels.COLUMNS % plan.cols == 0
        shares = thread_shares(blocks if by_columns else groups, self.threads)
        found = self.nothing_found(len(shares))
        levels, order = self.order(keep=keep)
        watched, narrow = self.empty(keep=keep), self.narrow
        # Waves of neighbouring rows overlap in time: each share of rows has counts of its own.
        cycles = [watched.cycles if by_columns or i == 0 else np.zeros_like(watched.cycles) for i in range(len(shares))]
        for b in range(shape.batch):
            a, w = self.operands.a[b], self.operands.w[b]
            starts = self.timeline.start[b * column_folds * self.folds : (b + 1) * column_folds * self.folds]
            ends = [self.timeline.total + 1] * len(shares)
            if by_columns:
                folds = [last * kernels.COLUMNS // plan.cols for _, last in shares[:-1]]
                ends = [int(starts[fold * self.folds]) for fold in folds] + ends[-1:]
            args: tuple[Any, ...] = (
                plan.rows, used_rows, plan.cols, levels, order, starts, *self.psum, *self.acc_limits, narrow,
                plan.transposed, self.bias_in.held[b], watched.acc[b], *watched.by_output[:, b], keep,
            )  # fmt: skip
            a, w = as_kernels_take_them(*((w.T, a.T) if plan.transposed else (a, w)))
            tasks: list[Callable[[], object]] = []
            for (first, last), own, end, of_share in zip(shares, found, ends, cycles, strict=True):
                rows = first * kernels.TOGETHER, last * kernels.TOGETHER
                work = (first, last, 0, groups * kernels.TOGETHER) if by_columns else (0, blocks, *rows)
                rest: tuple[Any, ...] = (*work, *args, *own, end, *of_share)
                tasks.append(partial(kernels.ws_blocks, a, w, *rest))
            run_together(tasks)
            for own, end in zip(found[:-1, 0], ends, strict=False):
                if keep and by_columns:
                    watched.cycles[0, end] += own[kernels.BEHIND]
                own[kernels.BEHIND] = 0
        for others in cycles[1:]:
            if others is not watched.cycles:
                watched.cycles[:] += others
        return replace(watched, found=joined(found))

    def outputs_of(self, p: int, offset: int) -> Int64:
        """Return (m, n, i) [X, 3] of what PEs (i, j) of pass p work on where i + j + streamed row = offset, in the
        order of the outputs.
        """
        i, j = self.places(p)
        row, column = offset - i - j, self.plan.passes.col0[p] + j
        m, n = (column, row) if self.plan.transposed else (row, column)
        there = (row >= 0) & (row < self.streamed)
        found = np.stack([m, n, i], axis=1)[there]
        return found[np.lexsort((found[:, 1], found[:, 0]))]

    def first_psum(self, cycle: int, watched: Watched) -> TimedEvent:
        p, t = self.locate(cycle)
        row0, outputs = int(self.plan.passes.row0[p]), self.outputs_of(p, t)
        additions = np.column_stack([outputs[:, :2], np.full(len(outputs), row0), row0 + outputs[:, 2]])
        return TimedEvent(self.first_of(int(self.plan.passes.batch[p]), additions, watched), p, t, cycle)

    def first_accumulator(self, cycle: int, watched: Watched) -> TimedEvent:
        p, t = self.locate(cycle)
        passes, limits = self.plan.passes, self.acc_limits
        b, row0 = int(passes.batch[p]), int(passes.row0[p])
        bottom = int(self.timeline.rows[p]) - 1
        for m, n, i in self.outputs_of(p, t - bottom).tolist():
            if i > 0 or not watched.by_output[1, b, m, n]:
                continue
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
