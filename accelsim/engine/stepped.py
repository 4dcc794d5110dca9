"""The stepped engine: moves every register of every PE, every cycle, and counts what happens in them.

The slow truth behind the fast engine, and the source of waveforms (accelsim.engine.vcd).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import check_operands
from accelsim.engine.contract import ComputeResult, OverflowEvent, RegisterWatch
from accelsim.engine.preload import accumulator_extremes, earlier, preload
from accelsim.mapping.contract import CycleCounts, GemmOperands, LayerPlan
from accelsim.mapping.tally import Datapath, Tally, array_actions

if TYPE_CHECKING:
    from accelsim.engine.stepped_kernels import Job, Log, State


@dataclass(frozen=True, eq=False)
class Registers:
    """What the registers hold in a cycle: operands as the multipliers see them, sums as they latch at the cycle's end.

    cause : "load", "fill", "compute" or "drain"
    number : the pass that is in the array (while it loads: the one that enters)
    x, y, chain_y : int32 [rows, cols, lanes + scales], operand elements, then block scales: of the operand that moves
        right, of the one that moves down (os) or stays (ws, is), and of its load chain (ws, is)
    x_ok, y_ok, chain_y_ok : bool, likewise; False where there is no data
    x_token : int64 [rows, cols], lane step (os) or streamed row (ws, is) that is in x; -1: none
    row, col : int64 [rows, cols], whose output the psum belongs to, -1: nobody's; of the GEMM as the array sees it
    psum, block : int64 [rows, cols], psum and block register
    chain_row, chain_psum : int64 [rows, cols], the drain chain (os; without drain_overlap it is the psums themselves)
    outlet : int64 [cols, 3], row and column of the accumulator that was written below each column, and its new content
    """

    cause: str
    number: int
    x: NDArray[np.int32]
    y: NDArray[np.int32]
    chain_y: NDArray[np.int32]
    x_ok: NDArray[np.bool_]
    y_ok: NDArray[np.bool_]
    chain_y_ok: NDArray[np.bool_]
    x_token: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    psum: NDArray[np.int64]
    block: NDArray[np.int64]
    chain_row: NDArray[np.int64]
    chain_psum: NDArray[np.int64]
    outlet: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Machine:
    """One layer on the array: its operands, every register, the controller's registers, and the log of events."""

    job: Job
    state: State
    ctrl: NDArray[np.int64]
    log: Log
    output_stationary: bool

    def advance(self) -> bool:
        """Carry out one cycle; return whether there is another."""
        from accelsim.engine import stepped_kernels as kernels

        step = kernels.advance_os if self.output_stationary else kernels.advance_stationary
        return step(self.job, self.state, self.ctrl, self.log)

    def registers(self) -> Registers:
        """Return a copy of what the registers hold in the cycle that `advance` has just carried out."""
        from accelsim.engine import stepped_kernels as kernels

        state, job = self.state, self.job
        current, cause = int(self.ctrl[kernels.CUR]), int(self.ctrl[kernels.LAST])
        y_at, sums_at = (current, kernels.HELD) if self.output_stationary else (kernels.HELD, current)
        pes = (job.array_rows, job.array_cols)
        value = state.value.reshape(2, 2, *pes, -1).copy()
        ok = state.ok.reshape(2, 2, *pes, -1) != 0
        sums, chain = state.sums[sums_at].copy(), state.sums[kernels.CHAIN].copy()
        return Registers(
            cause=("load", "fill", "compute", "drain")[cause],
            number=int(self.ctrl[kernels.CHAIN_PASS if cause == kernels.LOAD else kernels.PASS]),
            x=value[kernels.X, current],
            y=value[kernels.Y, y_at],
            chain_y=value[kernels.Y, kernels.CHAIN],
            x_ok=ok[kernels.X, current],
            y_ok=ok[kernels.Y, y_at],
            chain_y_ok=ok[kernels.Y, kernels.CHAIN],
            x_token=state.tag.reshape(2, 2, *pes, 2)[kernels.X, current, ..., kernels.TOKEN].copy(),
            row=sums[..., kernels.ROW],
            col=sums[..., kernels.COL],
            psum=sums[..., kernels.PSUM],
            block=sums[..., kernels.PART],
            chain_row=chain[..., kernels.ROW],
            chain_psum=chain[..., kernels.PSUM],
            outlet=state.outlet.copy(),
        )

    def run(self) -> None:
        """Carry out all cycles; RuntimeError if the controller never stops (a defect of ours)."""
        from accelsim.engine import stepped_kernels as kernels

        run = kernels.run_os if self.output_stationary else kernels.run_stationary
        job = self.job
        longest_pass = job.steps + job.stream.shape[1] + 4 * (job.array_rows + job.array_cols)
        if not run(job, self.state, self.ctrl, self.log, longest_pass * job.passes.shape[1]):
            raise RuntimeError(f"the stepped engine did not stop after {longest_pass} cycles a pass")


def build_machine(operands: GemmOperands, plan: LayerPlan) -> Machine:
    """Return the machine before its first cycle, bias preloaded."""
    from accelsim.engine import stepped_kernels as kernels

    check_operands(operands, plan)
    job = _build_job(operands, plan)
    held = np.repeat(preload(operands, plan).held[:, None, :], plan.shape.m, axis=1)
    state = _build_state(job, held.swapaxes(1, 2) if plan.transposed else held)
    output_stationary = plan.dataflow == "os"
    ctrl = np.zeros(kernels.CTRL, np.int64)
    ctrl[kernels.PHASE] = kernels.COMPUTE if output_stationary else kernels.LOAD
    ctrl[kernels.LAST] = ctrl[kernels.PHASE]
    none = np.array([-1, 0, 0, 0], np.int64)
    log = kernels.Log(np.zeros(kernels.COUNTS, np.int64), np.zeros(4, np.int64), none, none.copy())
    return Machine(job, state, ctrl, log, output_stationary)


def _build_job(operands: GemmOperands, plan: LayerPlan) -> Job:
    from accelsim.engine import stepped_kernels as kernels

    shape, blocks, passes = operands.shape, operands.blocks, plan.passes
    size = 0 if blocks is None else blocks.size
    if blocks is None:
        a_scales = np.zeros((shape.batch, shape.m, 0), np.int32)
        w_scales = np.zeros((shape.batch, 0, shape.n), np.int32)
    else:
        a_scales, w_scales = blocks.a_scales, blocks.w_scales
    # K is the last axis of every operand, so that a feeder reads along memory.
    stream, other = operands.a, operands.w.swapaxes(1, 2)
    stream_scales, other_scales = a_scales, w_scales.swapaxes(1, 2)
    if plan.transposed:
        stream, other, stream_scales, other_scales = other, stream, other_scales, stream_scales
    k_valid = operands.k_valid
    return kernels.Job(
        stream=np.ascontiguousarray(stream),
        other=np.ascontiguousarray(other),
        stream_scales=np.ascontiguousarray(stream_scales),
        other_scales=np.ascontiguousarray(other_scales),
        k_valid=k_valid.astype(np.uint8),
        block_valid=np.asarray(k_valid.reshape(-1, size).any(axis=1) if size else np.zeros(0), np.uint8),
        passes=np.array([passes.batch, passes.row0, passes.rows, passes.col0, passes.cols], np.int64),
        array_rows=plan.rows,
        array_cols=plan.cols,
        lanes=plan.lanes,
        scales=max(1, plan.lanes // size) if size else 0,
        block=size,
        steps_per_group=plan.steps_per_group,
        steps=-(-shape.k // plan.group) * plan.steps_per_group,
        product_shift=0 if blocks is None else blocks.product_shift,
        psum_bits=plan.psum_bits,
        psum_saturates=plan.psum_overflow == "saturate",
        acc_bits=plan.acc_bits,
        acc_saturates=plan.acc_overflow == "saturate",
        double_buffered=plan.double_buffered,
        drain_overlap=plan.drain_overlap,
        skip_unused=plan.skip_unused,
        transposed=plan.transposed,
    )


def _build_state(job: Job, held: NDArray[np.int64]) -> State:
    from accelsim.engine import stepped_kernels as kernels

    rows, cols, width = job.array_rows, job.array_cols, job.lanes + job.scales
    sums = np.zeros((2, rows, cols, 6), np.int64)
    sums[..., [kernels.ROW, kernels.COL]] = -1
    acc = np.zeros((*held.shape, 4), np.int64)
    acc[..., kernels.ACC] = held
    return kernels.State(
        value=np.zeros((2, 2, rows, cols * width), np.int32),
        ok=np.zeros((2, 2, rows, cols * width), np.uint8),
        tag=np.full((2, 2, rows, cols * 2), -1, np.int64),
        sums=sums,
        acc=acc,
        outlet=np.tile(np.array([-1, -1, 0], np.int64), (cols, 1)),
    )


class SteppedEngine:
    """Measures by moving registers; see accelsim.engine.stepped_kernels."""

    name = "stepped"

    def run(self, operands: GemmOperands, plan: LayerPlan, *, watch: bool = True) -> ComputeResult:
        """Compute a layer cycle by cycle; every addition is watched, whatever `watch` says.

        Raises ShapeError where operands and plan do not fit, UnsupportedLayerError where sums could leave int64.
        """
        from accelsim.engine import stepped_kernels as kernels

        machine = build_machine(operands, plan)
        machine.run()
        state, log, counts = machine.state, machine.log, machine.log.counts.tolist()
        registers = state.acc.swapaxes(1, 2) if plan.transposed else state.acc
        low, high = registers[..., kernels.LOWEST], registers[..., kernels.HIGHEST]
        bias_in = preload(operands, plan)
        acc_low, acc_high = accumulator_extremes(operands.bias, low.min(axis=1), high.max(axis=1))
        load, fill, compute, drain = log.cycles.tolist()
        tally = Tally(*counts[: kernels.PSUM_OVERFLOW])
        return ComputeResult(
            acc=np.ascontiguousarray(registers[..., kernels.ACC]),
            cycles=CycleCounts(load, fill, compute, drain, plan.cycles.ppu),
            actions=array_actions(tally, _datapath(plan), plan.shape, transposed=plan.transposed),
            psum=RegisterWatch(
                counts[kernels.PSUM_OVERFLOW],
                _event(log.psum_first, plan),
                counts[kernels.PSUM_LOW],
                counts[kernels.PSUM_HIGH],
            ),
            accumulator=RegisterWatch(
                counts[kernels.ACC_OVERFLOW] + bias_in.overflows,
                earlier(bias_in.first, _event(log.acc_first, plan)),
                acc_low,
                acc_high,
            ),
        )


def _datapath(plan: LayerPlan) -> Datapath:
    return Datapath(plan.widths, plan.multiplier, plan.product, plan.summation)


def _event(first: NDArray[np.int64], plan: LayerPlan) -> OverflowEvent | None:
    """Decode (key, k, before, addend); their sum may need a 65th bit, hence Python integers."""
    key, k, before, addend = first.tolist()
    if key < 0:
        return None
    shape = plan.shape
    b, m, n = (int(i) for i in np.unravel_index(key, (shape.batch, shape.m, shape.n)))
    return OverflowEvent((b, m, n), k, before + addend)
