"""The machine that the stepped engine moves: one layer on the array, and what its registers hold in each cycle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.mapping.contract import Int32

if TYPE_CHECKING:
    from accelsim.engine.stepped_kernels import Job, Log, State


@dataclass(frozen=True, eq=False)
class Registers:
    """What the registers hold in a cycle: operands as the multipliers see them, sums as they latch at the cycle's end.

    cause : "load", "fill", "compute" or "drain"
    number : the pass that is in the array (while it loads: the one that enters)
    x, y, chain_y : int32 [rows, cols, lanes + scales], operand elements, then block scales: of the operand that moves
        right, of the one that moves down (os) or stays (ws, is), and of its load chain (ws, is)
    x_exponent, y_exponent, chain_y_exponent : int32, likewise; 0 of what has no exponent
    x_ok, y_ok, chain_y_ok : bool, likewise; False where there is no data
    x_token : int64 [rows, cols], lane step (os) or streamed row (ws, is) that is in x; -1: none
    sub_cycle : int64 [rows, cols], of the lane step (a pair of pieces of the operands); -1: none
    serial : int64 [rows, cols, sums], what the lane step's sub-cycles have added up; 0 when it has gone to the psum
    row, col : int64 [rows, cols], whose output the psum belongs to, -1: nobody's; of the GEMM as the array sees it
    psum, block : int64 [rows, cols], psum and block register
    chain_row, chain_psum : int64 [rows, cols], the drain chain (os; without drain_overlap it is the psums themselves)
    outlet : int64 [cols, 3], row and column of the accumulator that was written below each column, and its new content

    psums and accumulators that are float32 are in the form that :func:`as_float32` reads.
    """

    cause: str
    number: int
    x: NDArray[np.int32]
    y: NDArray[np.int32]
    chain_y: NDArray[np.int32]
    x_exponent: NDArray[np.int32]
    y_exponent: NDArray[np.int32]
    chain_y_exponent: NDArray[np.int32]
    x_ok: NDArray[np.bool_]
    y_ok: NDArray[np.bool_]
    chain_y_ok: NDArray[np.bool_]
    x_token: NDArray[np.int64]
    sub_cycle: NDArray[np.int64]
    serial: NDArray[np.int64]
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

    def advance(self, cycles: int = 1) -> bool:
        """Carry out so many cycles; return whether there is another."""
        from accelsim.engine import stepped_kernels as kernels

        step = kernels.advance_os if self.output_stationary else kernels.advance_stationary
        return step(self.job, self.state, self.ctrl, self.log, cycles)

    def registers(self) -> Registers:
        """Return a copy of what the registers hold in the cycle that `advance` has just carried out."""
        from accelsim.engine import stepped_kernels as kernels

        state, job = self.state, self.job
        current, cause = int(self.ctrl[kernels.CUR]), int(self.ctrl[kernels.LAST])
        y_at, sums_at = (current, kernels.HELD) if self.output_stationary else (kernels.HELD, current)
        pes = (job.array_rows, job.array_cols)
        value, exponent = self._unpacked(state.value.reshape(2, 2, *pes, -1))
        ok = state.ok.reshape(2, 2, *pes, -1) != 0
        tag = state.tag.reshape(2, 2, *pes, kernels.TAGS)[kernels.X, current].copy()
        sums, chain = state.sums[sums_at].copy(), state.sums[kernels.CHAIN].copy()
        return Registers(
            cause=("load", "fill", "compute", "drain")[cause],
            number=int(self.ctrl[kernels.CHAIN_PASS if cause == kernels.LOAD else kernels.PASS]),
            x=value[kernels.X, current],
            y=value[kernels.Y, y_at],
            chain_y=value[kernels.Y, kernels.CHAIN],
            x_exponent=exponent[kernels.X, current],
            y_exponent=exponent[kernels.Y, y_at],
            chain_y_exponent=exponent[kernels.Y, kernels.CHAIN],
            x_ok=ok[kernels.X, current],
            y_ok=ok[kernels.Y, y_at],
            chain_y_ok=ok[kernels.Y, kernels.CHAIN],
            x_token=tag[..., kernels.TOKEN],
            sub_cycle=np.where(tag[..., kernels.TOKEN] >= 0, tag[..., kernels.SUB], -1),
            serial=state.serial.reshape(*pes, -1).copy(),
            row=sums[..., kernels.ROW],
            col=sums[..., kernels.COL],
            psum=sums[..., kernels.PSUM],
            block=sums[..., kernels.PART],
            chain_row=chain[..., kernels.ROW],
            chain_psum=chain[..., kernels.PSUM],
            outlet=state.outlet.copy(),
        )

    def _unpacked(self, words: Int32) -> tuple[Int32, Int32]:
        """Return copies: what words [..., lanes + scales] hold, and its exponents."""
        from accelsim.engine import stepped_kernels as kernels

        pe = self.job.pe
        with_exponent = np.arange(pe.width) >= pe.lanes
        with_exponent = np.where(with_exponent, pe.scale_exponents, pe.arithmetic == kernels.ALIGNED)
        values = np.where(with_exponent, words >> 12, words)
        exponents = np.where(with_exponent, (words & 4095) - 2048, 0)
        return values.astype(np.int32), exponents.astype(np.int32)

    def run(self) -> None:
        """Carry out all cycles; RuntimeError if the controller never stops (a defect of ours)."""
        job = self.job
        longest_pass = (job.steps + job.stream.shape[1]) * job.pe.step_cycles + 4 * (job.array_rows + job.array_cols)
        if self.advance(longest_pass * job.passes.shape[1]):
            raise RuntimeError(f"the stepped engine did not stop after {longest_pass} cycles a pass")
