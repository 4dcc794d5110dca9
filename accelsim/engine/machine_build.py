"""From a layer's operands and plan to the machine before its first cycle: what is wired, fed and preloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import check_operands
from accelsim.engine.float_registers import from_float32, sums_are_floats
from accelsim.engine.lane_codes import operand_codes
from accelsim.engine.machine import Machine
from accelsim.engine.preload import preload
from accelsim.errors import ShapeError
from accelsim.mapping.contract import GemmOperands, Int32, LayerPlan
from accelsim.mapping.step import fused_bits

if TYPE_CHECKING:
    from accelsim.engine.stepped_kernels import Job, Pe, State

WORD_EXPONENTS = (-2048, 2047)
WORD_SIGNIFICAND_BITS = 20
"""What a register for numbers with exponents holds: an int32 word, significand * 4096 + exponent + 2048."""


def build_machine(operands: GemmOperands, plan: LayerPlan, *, activity: bool = False) -> Machine:
    """Return the machine before its first cycle, bias preloaded. activity : it counts toggles, too."""
    from accelsim.engine import stepped_kernels as kernels

    check_operands(operands, plan)
    _check_lanes(operands, plan)
    job = _build_job(operands, plan, activity=activity)
    held = from_float32(operands.bias) if sums_are_floats(plan) else preload(operands, plan).held
    held = np.repeat(held[:, None, :], plan.shape.m, axis=1)
    state = _build_state(job, held.swapaxes(1, 2) if plan.transposed else held)
    output_stationary = plan.dataflow == "os"
    ctrl = np.zeros(kernels.CTRL, np.int64)
    ctrl[kernels.PHASE] = kernels.COMPUTE if output_stationary else kernels.LOAD
    ctrl[kernels.LAST] = ctrl[kernels.PHASE]
    none = np.array([-1, 0, 0, 0, 0], np.int64)
    log = kernels.Log(np.zeros(kernels.COUNTS, np.int64), np.zeros(4, np.int64), none, none.copy())
    return Machine(job, state, ctrl, log, output_stationary)


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
