"""The stepped engine: moves every register of every PE, every cycle, and counts what happens in them.

The slow truth behind the fast engine, and the source of waveforms (accelsim.engine.vcd).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.activity import psum_bits
from accelsim.engine.checks import check_operands
from accelsim.engine.contract import Activity, ComputeResult, OperandActivity, OverflowEvent, RegisterWatch
from accelsim.engine.lane_codes import LaneCode, operand_codes
from accelsim.engine.preload import accumulator_extremes, earlier, preload
from accelsim.errors import ShapeError
from accelsim.mapping.contract import CycleCounts, GemmOperands, Int32, LayerPlan, Tally
from accelsim.mapping.step import fused_bits
from accelsim.mapping.tally import Datapath, array_actions

if TYPE_CHECKING:
    from accelsim.engine.stepped_kernels import Job, Log, Pe, State

WORD_EXPONENTS = (-2048, 2047)
WORD_SIGNIFICAND_BITS = 20
"""What a register for numbers with exponents holds: an int32 word, significand * 4096 + exponent + 2048."""


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


def build_machine(operands: GemmOperands, plan: LayerPlan, *, activity: bool = False) -> Machine:
    """Return the machine before its first cycle, bias preloaded. activity : it counts toggles, too."""
    from accelsim.engine import stepped_kernels as kernels

    check_operands(operands, plan)
    _check_lanes(operands, plan)
    job = _build_job(operands, plan, activity=activity)
    held = _from_float32(operands.bias) if _is_float(plan) else preload(operands, plan).held
    held = np.repeat(held[:, None, :], plan.shape.m, axis=1)
    state = _build_state(job, held.swapaxes(1, 2) if plan.transposed else held)
    output_stationary = plan.dataflow == "os"
    ctrl = np.zeros(kernels.CTRL, np.int64)
    ctrl[kernels.PHASE] = kernels.COMPUTE if output_stationary else kernels.LOAD
    ctrl[kernels.LAST] = ctrl[kernels.PHASE]
    none = np.array([-1, 0, 0, 0, 0], np.int64)
    log = kernels.Log(np.zeros(kernels.COUNTS, np.int64), np.zeros(4, np.int64), none, none.copy())
    return Machine(job, state, ctrl, log, output_stationary)


def _is_float(plan: LayerPlan) -> bool:
    return plan.summation.kind == "float32"


def as_float32(registers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what float32 psum and accumulator registers hold, given as the kernels keep them: the bits of the
    magnitude, negative where the float is.
    """
    sign = np.where(registers < 0, 1 << 31, 0)
    return (np.abs(registers) | sign).astype(np.uint32).view(np.float32)


def _from_float32(values: NDArray[Any]) -> NDArray[np.int64]:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)
    magnitude = bits & 0x7FFFFFFF
    return np.where(bits >> 31, -magnitude, magnitude)


def _check_lanes(operands: GemmOperands, plan: LayerPlan) -> None:
    """Raise ShapeError where a lane is no operand of the plan's way to multiply."""
    product, valid = operands.product, operands.k_valid
    lanes = (("a", operands.a[:, :, valid], plan.widths.a), ("w", operands.w[:, valid], plan.widths.w))
    if product == "shift" and (np.abs(operands.w) & (np.abs(operands.w) - 1)).any():
        raise ShapeError("w has lanes that are neither zero nor a power of two; product 'shift' needs such")
    for name, values, bits in lanes:
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        if product == "xnor" and (np.abs(values) != 1).any():
            raise ShapeError(f"{name} has lanes from {low} to {high}; product 'xnor' needs +1 and -1")
        smallest, largest = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if low < 0 else (0, (1 << bits) - 1)
        binary = bits == 1 and low >= -1 and high <= 1
        if plan.multiplier.kind in ("fusion", "bit_serial") and not binary and (low < smallest or high > largest):
            raise ShapeError(
                f"{name} has lanes from {low} to {high}, but a {plan.multiplier.kind} multiplier takes the {bits} bits "
                f"of its format: {smallest} to {largest}"
            )


def _words(significands: Int32, exponents: Int32 | None, name: str) -> Int32:
    """Pack numbers with exponents; those without stay as they are."""
    if exponents is None:
        return significands
    low, high = WORD_EXPONENTS
    limit = 1 << (WORD_SIGNIFICAND_BITS - 1)
    for what, array, least, most in (
        ("significands", significands, -limit, limit - 1),
        ("exponents", exponents, low, high),
    ):
        if array.size and (array.min() < least or array.max() > most):
            raise ShapeError(
                f"{name} has {what} from {array.min()} to {array.max()}; the stepped engine's registers hold {least} "
                f"to {most}"
            )
    return significands * np.int32(4096) + (exponents + np.int32(2048))


def _build_pe(operands: GemmOperands, plan: LayerPlan) -> Pe:
    from accelsim.engine import stepped_kernels as kernels

    blocks, summation = operands.blocks, plan.summation
    size = 0 if blocks is None else blocks.size
    dot_size = plan.lanes if size == 0 or size > plan.lanes else size
    arithmetic = {"xnor": kernels.BITS, "accumulate": kernels.BINS, "shift": kernels.SHIFTS}.get(plan.product)
    a_bits, w_bits = 1, 1  # of a piece
    if arithmetic is None:
        of_multiplier = {"fusion": kernels.BRICKS, "bit_serial": kernels.PIECES}
        arithmetic = of_multiplier.get(plan.multiplier.kind, kernels.WORDS)
        if summation.align_bits is not None:
            arithmetic = kernels.ALIGNED
    if arithmetic == kernels.BRICKS:
        a_bits = fused_bits(plan.widths.a) // plan.pieces[0]
        w_bits = fused_bits(plan.widths.w) // plan.pieces[1]
    pieces, bits = plan.pieces, (a_bits, w_bits)
    if plan.transposed:
        pieces, bits = (pieces[1], pieces[0]), (w_bits, a_bits)
    return kernels.Pe(
        lanes=plan.lanes,
        width=plan.lanes + (max(1, plan.lanes // size) if size else 0),
        block=size,
        dot_size=dot_size,
        dots=plan.lanes // dot_size,
        steps_per_group=plan.steps_per_group,
        step_cycles=plan.step_cycles,
        arithmetic=arithmetic,
        x_pieces=pieces[0],
        y_pieces=pieces[1],
        x_piece_bits=bits[0],
        y_piece_bits=bits[1],
        weights_move=plan.transposed,
        unit_exponent=summation.unit_exponent,
        align_bits=summation.align_bits or 0,
        scale_exponents=blocks is not None and blocks.a_exponents is not None,
        product_shift=0 if blocks is None else blocks.product_shift,
        summation={"integer": kernels.INTEGER, "fixed": kernels.FIXED, "float32": kernels.FLOAT32}[summation.kind],
        lsb_exponent=summation.lsb_exponent,
        rounding=("truncate", "toward_zero", "half_even").index(summation.rounding),
        psum_bits=plan.psum_bits,
        psum_saturates=plan.psum_overflow == "saturate",
    )


def _build_job(operands: GemmOperands, plan: LayerPlan, *, activity: bool) -> Job:
    from accelsim.engine import stepped_kernels as kernels

    shape, blocks, passes = operands.shape, operands.blocks, plan.passes
    size = 0 if blocks is None else blocks.size
    if blocks is None:
        a_scales = np.zeros((shape.batch, shape.m, 0), np.int32)
        w_scales = np.zeros((shape.batch, 0, shape.n), np.int32)
    else:
        a_scales = _words(blocks.a_scales, blocks.a_exponents, "a_scales")
        w_scales = _words(blocks.w_scales, blocks.w_exponents, "w_scales")
    # K is the last axis of every operand, so that a feeder reads along memory.
    stream = _words(operands.a, operands.a_exponents, "a")
    other = _words(operands.w, operands.w_exponents, "w").swapaxes(1, 2)
    stream_scales, other_scales = a_scales, w_scales.swapaxes(1, 2)
    if plan.transposed:
        stream, other, stream_scales, other_scales = other, stream, other_scales, stream_scales
    k_valid = operands.k_valid
    codes = [kernels.Code(*code) for code in operand_codes(operands, plan)]
    if plan.transposed:
        codes.reverse()
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
        pe=_build_pe(operands, plan),
        acc_bits=plan.acc_bits,
        acc_saturates=plan.acc_overflow == "saturate",
        double_buffered=plan.double_buffered,
        drain_overlap=plan.drain_overlap,
        skip_unused=plan.skip_unused,
        transposed=plan.transposed,
        activity=activity,
        x_code=codes[0],
        y_code=codes[1],
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
        tag=np.full((2, 2, rows, cols * kernels.TAGS), -1, np.int64),
        sums=sums,
        serial=np.zeros((rows, cols * job.pe.dots), np.int64),
        acc=acc,
        outlet=np.tile(np.array([-1, -1, 0], np.int64), (cols, 1)),
    )


class SteppedEngine:
    """Measures by moving registers; see accelsim.engine.stepped_kernels."""

    name = "stepped"

    def run(
        self,
        operands: GemmOperands,
        plan: LayerPlan,
        *,
        watch: bool = True,
        extremes: bool = True,
        activity: bool = False,
    ) -> ComputeResult:
        """Compute a layer cycle by cycle; every addition is watched, whatever `watch` and `extremes` say.

        activity : also compare every register with what it held a cycle before

        Raises ShapeError where operands and plan do not fit, UnsupportedLayerError where sums could leave int64.
        """
        from accelsim.engine import stepped_kernels as kernels

        machine = build_machine(operands, plan, activity=activity)
        machine.run()
        state, log, counts = machine.state, machine.log, machine.log.counts.tolist()
        registers = state.acc.swapaxes(1, 2) if plan.transposed else state.acc
        load, fill, compute, drain = log.cycles.tolist()
        tally = Tally(*counts[: kernels.PSUM_OVERFLOW])
        acc = np.ascontiguousarray(registers[..., kernels.ACC])
        return ComputeResult(
            acc=as_float32(acc) if _is_float(plan) else acc,
            cycles=CycleCounts(load, fill, compute, drain, plan.cycles.ppu),
            actions=array_actions(tally, _datapath(plan), plan.shape, transposed=plan.transposed),
            psum=RegisterWatch(
                counts[kernels.PSUM_OVERFLOW],
                _event(log.psum_first, plan),
                *_extremes(counts[kernels.PSUM_LOW], counts[kernels.PSUM_HIGH], plan),
            ),
            accumulator=_accumulator_watch(operands, plan, registers, log),
            activity=_activity(counts, tally, machine.job, plan) if activity else None,
        )


def _activity(counts: list[int], tally: Tally, job: Job, plan: LayerPlan) -> Activity:
    from accelsim.engine import stepped_kernels as kernels

    hops = (tally.stream_hops, tally.other_hops)
    stream, other = (
        OperandActivity(
            bits=LaneCode(*code).total_bits,
            latches=hops[side],
            toggles=counts[kernels.TOGGLE + side],
            changes=counts[kernels.CHANGE + side],
        )
        for side, code in enumerate((job.x_code, job.y_code))
    )
    return Activity(
        products=tally.products,
        zero_products=counts[kernels.ZERO_PRODUCT],
        stream=stream,
        other=other,
        psum_bits=psum_bits(plan),
        psum_toggles=counts[kernels.PSUM_TOGGLE],
        accumulator_toggles=counts[kernels.ACC_TOGGLE],
    )


def _accumulator_watch(
    operands: GemmOperands, plan: LayerPlan, registers: NDArray[np.int64], log: Log
) -> RegisterWatch:
    from accelsim.engine import stepped_kernels as kernels

    overflows, first = int(log.counts[kernels.ACC_OVERFLOW]), _event(log.acc_first, plan)
    low, high = registers[..., kernels.LOWEST], registers[..., kernels.HIGHEST]
    if _is_float(plan):  # the bias is a float32: its preload is exact
        bias = _from_float32(operands.bias)
        extremes = (
            min(int(low.min(initial=0)), int(bias.min(initial=0))),
            max(int(high.max()), int(bias.max(initial=0))),
        )
        return RegisterWatch(overflows, first, *_extremes(*extremes, plan))
    bias_in = preload(operands, plan)
    return RegisterWatch(
        overflows + bias_in.overflows,
        earlier(bias_in.first, first),
        *accumulator_extremes(operands.bias.astype(np.int64), low.min(axis=1), high.max(axis=1)),
    )


def _extremes(low: int, high: int, plan: LayerPlan) -> tuple[int, int] | tuple[float, float]:
    """Return the extremes of registers as numbers."""
    if not _is_float(plan):
        return low, high
    least, most = as_float32(np.array([low, high], np.int64)).tolist()
    return least, most


def _datapath(plan: LayerPlan) -> Datapath:
    return Datapath(plan.widths, plan.multiplier, plan.product, plan.summation)


def _event(first: NDArray[np.int64], plan: LayerPlan) -> OverflowEvent | None:
    """Decode (key, k, before, addend, exponent); integer sums may need a 65th bit, hence Python integers."""
    key, k, before, addend, exponent = first.tolist()
    if key < 0:
        return None
    shape = plan.shape
    b, m, n = (int(i) for i in np.unravel_index(key, (shape.batch, shape.m, shape.n)))
    if not _is_float(plan):
        return OverflowEvent((b, m, n), k, before + addend)
    held = Fraction(float(as_float32(np.array([before], np.int64))[0]))
    return OverflowEvent((b, m, n), k, float(held + addend * Fraction(2) ** exponent))
