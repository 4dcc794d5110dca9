"""The two schedules of the watched engine: output-stationary, and operand-stationary (ws, is)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import largest_magnitude
from accelsim.engine.contract import OverflowEvent
from accelsim.engine.watched_layer import (
    Watched,
    WatchedLayer,
    in_blocks,
    joined,
    out_of_blocks,
    run_tasks,
    thread_shares,
)
from accelsim.engine.watched_report import TimedEvent
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class OutputStationary(WatchedLayer):
    """os: rows of outputs and columns stay, K streams."""

    def watch(self, *, keep: bool) -> Watched:
        plan, shape = self.plan, self.plan.shape
        folds, column_folds = -(-shape.m // plan.rows), -(-shape.n // plan.cols)
        psums = np.empty((shape.batch, shape.m, shape.n), np.int32)
        by_output = np.zeros((2, *psums.shape), np.int32)
        acc = np.empty(psums.shape, np.int64)
        shares = thread_shares(folds, self.threads)
        # Passes are in the array one after another, and in the drain chain too: no two threads count into one cycle.
        cycles = np.zeros((4, self.timeline.total + 1 if keep else 1), np.int64)
        found = self.nothing_found(len(shares))
        levels, order = self.order(keep=keep)
        for b in range(shape.batch):
            passes = slice(b * folds * column_folds, (b + 1) * folds * column_folds)
            a, w = self.operand_blocks(b, order)
            task = partial(
                self.run_folds, b, passes, a, w, levels, order, (psums[b], *by_output[:, b], acc[b]), cycles, keep
            )
            run_tasks([partial(task, own, *share) for share, own in zip(shares, found, strict=True)], self.threads)
        self.psums = psums
        return Watched(acc, by_output, joined(found), cycles)

    def operand_blocks(self, b: int, order: Int64) -> tuple[Int32, Int32]:
        """Return a [folds, rows, K] and w [blocks, K * 64] as the kernels take them."""
        from accelsim.engine import watched_kernels as kernels

        plan, shape = self.plan, self.plan.shape
        length = -(-shape.k // kernels.UNROLLED) * kernels.UNROLLED
        height = -(-plan.rows // kernels.TOGETHER) * kernels.TOGETHER
        folds = np.zeros((-(-shape.m // plan.rows), height, length), np.int32)
        for f, fold in enumerate(folds):
            rows = self.operands.a[b, f * plan.rows : (f + 1) * plan.rows]
            fold[: rows.shape[0], : shape.k] = rows
        return folds, in_blocks(self.operands.w[b], length, np.int32, order)

    def run_folds(
        self,
        b: int,
        passes: slice,
        a: Int32,
        w: Int32,
        levels: int,
        order: Int64,
        outputs: tuple[Int32, Int32, Int32, Int64],
        cycles: Int64,
        keep: bool,
        found: Int64,
        first: int,
        last: int,
    ) -> None:
        """Run row folds first .. last - 1 of GEMM b: their passes, and their drains. outputs : see `os_drain`."""
        from accelsim.engine import watched_kernels as kernels

        plan, shape, timeline, limits, acc_limits = (
            self.plan,
            self.plan.shape,
            self.timeline,
            self.psum,
            self.acc_limits,
        )
        psums, overflows, misfits, acc = outputs
        held = np.empty((last - first, w.shape[0], a.shape[1] * kernels.COLUMNS), np.int32)
        counts = np.zeros_like(held)
        column_folds = -(-shape.n // plan.cols)
        own = slice(passes.start + first * column_folds, passes.start + last * column_folds)
        kernels.os_folds(
            a[first:last], w, shape.n, plan.cols, levels, order, timeline.start[own],
            limits.low, limits.high, limits.mask, limits.unused, limits.saturates, held, counts, keep, found[0],
            *cycles[:2],
        )  # fmt: skip
        rows = slice(first * plan.rows, last * plan.rows)
        for to, source in ((psums[rows], held), (overflows[rows], counts))[: 2 if found[0, 1] else 1]:
            whole = to.shape[0] // plan.rows
            full = to[: whole * plan.rows].reshape(whole, plan.rows, shape.n)
            out_of_blocks(source[:whole].swapaxes(0, 1), full, order)
            if whole < last - first:
                out_of_blocks(source[-1], to[whole * plan.rows :], order)
        kernels.os_drain(
            psums[rows], self.bias_in.held[b], plan.rows, plan.cols, timeline.drained[own],
            timeline.rows[own], acc_limits.low, acc_limits.high, acc_limits.mask, acc_limits.unused,
            acc_limits.saturates, acc[rows], misfits[rows], keep, found[1], *cycles[2:],
        )  # fmt: skip

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
        event = OverflowEvent((b, m, n), 0, int(self.bias_in.held[b, n]) + int(self.psums[b, m, n]))
        return TimedEvent(event, p, cycle - int(timeline.start[p]), cycle)


class Stationary(WatchedLayer):
    """ws; `is` on the transposed problem: rows stream, columns and K stay."""

    def __init__(self, operands: GemmOperands, plan: LayerPlan, threads: int) -> None:
        super().__init__(operands, plan, threads)
        shape = plan.shape
        self.streamed, self.columns = (shape.n, shape.m) if plan.transposed else (shape.m, shape.n)
        self.folds = -(-shape.k // plan.rows)

    def seen(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return [..., M, N] as the array sees it, or back."""
        return array.swapaxes(-1, -2) if self.plan.transposed else array

    def narrow(self) -> bool:
        """Return whether accumulators can be int32: an exact sum has bits beyond the register's, or there is none."""
        product = largest_magnitude(self.operands.a) * largest_magnitude(self.operands.w)
        psum = min(1 << (self.plan.psum_bits - 1), product * self.plan.rows)
        bits = self.plan.acc_bits
        proved = largest_magnitude(self.bias_in.held) + psum * self.folds < 1 << 31
        return (bits < 32 and psum <= 1 << 30) or (bits == 32 and proved)

    def watch(self, *, keep: bool) -> Watched:
        from accelsim.engine import watched_kernels as kernels

        plan, shape, limits, acc_limits = self.plan, self.plan.shape, self.psum, self.acc_limits
        column_folds, length, together = -(-self.columns // plan.cols), self.folds * plan.rows, kernels.TOGETHER
        used_rows = shape.k - (self.folds - 1) * plan.rows if plan.skip_unused else plan.rows
        groups = self.streamed // together + 1  # a row of zeros at least follows the last one
        shares = thread_shares(groups, self.threads)
        # Waves of neighbouring shares overlap in time: each share has counts of its own.
        cycles = np.zeros((len(shares), 4, self.timeline.total + 1 if keep else 1), np.int64)
        found = self.nothing_found(len(shares))
        levels, order = self.order(keep=keep)
        narrow = self.narrow()
        acc = np.empty((shape.batch, shape.m, shape.n), np.int64)
        by_output = np.zeros((2, shape.batch, shape.m, shape.n), np.int32)
        for b in range(shape.batch):
            stream, other = self.operands.a[b], self.operands.w[b]
            if plan.transposed:
                stream, other = other.T, stream.T
            a = np.zeros((groups * together, length), np.int32)
            a[: self.streamed, : shape.k] = stream
            blocks = in_blocks(other, length, np.int32, order)
            held = self.preloaded(b, order, narrow=narrow)
            empty = np.zeros((1, 1), np.int64 if narrow else np.int32)
            misfits = np.zeros((2, *held.shape), np.int32)
            passes = slice(b * column_folds * self.folds, (b + 1) * column_folds * self.folds)
            args = (
                self.streamed, plan.rows, used_rows, self.columns, plan.cols, levels, order,
                self.timeline.start[passes], limits.low, limits.high, limits.mask, limits.unused, limits.saturates,
                acc_limits.low, acc_limits.high, acc_limits.mask, acc_limits.unused, acc_limits.saturates, narrow,
                *((held, empty) if narrow else (empty, held)), *misfits, keep,
            )  # fmt: skip
            run_tasks(
                [
                    partial(kernels.ws_rows, a, blocks, first * together, last * together, *args, *own, *of_share)
                    for (first, last), own, of_share in zip(shares, found, cycles, strict=True)
                ],
                self.threads,
            )
            out_of_blocks(held, self.seen(acc[b]), order)
            for to, source, overflows in zip(by_output, misfits, joined(found)[:, 1], strict=True):
                if overflows:
                    out_of_blocks(source, self.seen(to[b]), order)
        if narrow:
            acc -= 1 << (plan.acc_bits - 1)
            if plan.acc_bits == 32:  # half of the range does not fit int32 itself: it was added modulo 2^32
                acc += (acc < acc_limits.low).astype(np.int64) << 32
        return Watched(acc, by_output, joined(found), cycles[0] if len(shares) == 1 else cycles.sum(axis=0))

    def preloaded(self, b: int, order: Int64, *, narrow: bool) -> Int64 | Int32:
        """Return the accumulators in blocks [Q, T * 64]; those of columns that do not exist hold anything that fits."""
        held, width = self.bias_in.held[b], order.size
        if narrow:
            held = (held + (1 << (self.plan.acc_bits - 1))).astype(np.int32)
        if not self.plan.transposed:
            one = in_blocks(held[None], 1, held.dtype.type, order)
            return np.tile(one, (1, self.streamed))
        return np.tile(np.repeat(held, width), (-(-self.columns // width), 1))

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
