"""The two schedules of the watched engine: output-stationary, and operand-stationary (ws, is)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from accelsim.engine.checks import largest_magnitude
from accelsim.engine.contract import OverflowEvent
from accelsim.engine.watched_layer import (
    Watched,
    WatchedLayer,
    as_kernels_take_them,
    joined,
    run_tasks,
    thread_shares,
)
from accelsim.engine.watched_report import TimedEvent
from accelsim.mapping.contract import GemmOperands, LayerPlan


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
            args = (
                plan.rows, plan.cols, levels, order, *times, *self.psum, *self.acc_limits, self.bias_in.held[b],
                watched.acc[b], *watched.by_output[:, b], keep,
            )  # fmt: skip
            operands = as_kernels_take_them(self.operands.a[b], self.operands.w[b])
            run_tasks(
                [
                    partial(kernels.os_blocks, *operands, *share, *args, *own, *watched.cycles)
                    for share, own in zip(shares, found, strict=True)
                ],
                self.threads,
            )
        return replace(watched, found=joined(found))

    def first_psum(self, cycle: int, watched: Watched) -> TimedEvent:
        p, t = self.locate(cycle)
        passes = self.plan.passes
        b, row0, col0 = int(passes.batch[p]), int(passes.row0[p]), int(passes.col0[p])
        for i in range(int(passes.rows[p])):
            for j in range(int(passes.cols[p])):
                m, n, k = row0 + i, col0 + j, t - i - j
                if 0 <= k < self.plan.shape.k and watched.by_output[0, b, m, n]:
                    event = self.psum_event(b, m, n, 0, k)
                    if event is not None:
                        return TimedEvent(event, p, t, cycle)
        raise AssertionError("no output overflows in a cycle that has an overflow")

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
        watched = self.empty(keep=keep)
        # Waves of neighbouring rows overlap in time: each share of rows has counts of its own.
        cycles = [watched.cycles if by_columns or i == 0 else np.zeros_like(watched.cycles) for i in range(len(shares))]
        for b in range(shape.batch):
            a, w = self.operands.a[b], self.operands.w[b]
            operands = as_kernels_take_them(*((w.T, a.T) if plan.transposed else (a, w)))
            starts = self.timeline.start[b * column_folds * self.folds : (b + 1) * column_folds * self.folds]
            ends = [self.timeline.total + 1] * len(shares)
            if by_columns:
                folds = [last * kernels.COLUMNS // plan.cols for _, last in shares[:-1]]
                ends = [int(starts[fold * self.folds]) for fold in folds] + ends[-1:]
            args = (
                plan.rows, used_rows, plan.cols, levels, order, starts, *self.psum, *self.acc_limits, self.narrow,
                plan.transposed, self.bias_in.held[b], watched.acc[b], *watched.by_output[:, b], keep,
            )  # fmt: skip
            run_tasks(
                [
                    partial(
                        kernels.ws_blocks,
                        *operands,
                        *(
                            (*share, 0, kernels.TOGETHER * groups)
                            if by_columns
                            else (0, blocks, *(4 * x for x in share))
                        ),
                        *args,
                        *own,
                        end,
                        *of_share,
                    )
                    for share, own, end, of_share in zip(shares, found, ends, cycles, strict=True)
                ],
                self.threads,
            )
            for own, end in zip(found[:-1, 0], ends, strict=False):
                if keep and by_columns:
                    watched.cycles[0, end] += own[kernels.BEHIND]
                own[kernels.BEHIND] = 0
        for others in cycles[1:]:
            if others is not watched.cycles:
                watched.cycles[:] += others
        return replace(watched, found=joined(found))

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

    def first_psum(self, cycle: int, watched: Watched) -> TimedEvent:
        p, t = self.locate(cycle)
        b, row0 = int(self.plan.passes.batch[p]), int(self.plan.passes.row0[p])
        for m, n, i, _ in self.outputs_of(p, t):
            event = self.psum_event(b, m, n, row0, row0 + i) if watched.by_output[0, b, m, n] else None
            if event is not None:
                return TimedEvent(event, p, t, cycle)
        raise AssertionError("no psum overflows in a cycle that has an overflow")

    def first_accumulator(self, cycle: int, watched: Watched) -> TimedEvent:
        p, t = self.locate(cycle)
        passes, limits = self.plan.passes, self.acc_limits
        b, row0 = int(passes.batch[p]), int(passes.row0[p])
        bottom = int(self.timeline.rows[p]) - 1
        candidates = sorted((m, n) for m, n, i, _ in self.outputs_of(p, t - bottom) if i == 0)
        for m, n in candidates:
            if not watched.by_output[1, b, m, n]:
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
