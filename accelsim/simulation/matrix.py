"""A matrix layer among the stages: which tensors it reads, what it asks of the PPU, and what its registers tell."""

from __future__ import annotations

import numpy as np

from accelsim.config.model import Register
from accelsim.engine.contract import RegisterWatch
from accelsim.mapping.contract import GemmOperands, LayerPlan
from accelsim.mapping.lower import LoweredLayer
from accelsim.ppu.padding import subtract_padding
from accelsim.ppu.pipeline import OutputStage
from accelsim.ppu.zero_point import Corrected
from accelsim.report.findings import OverflowPlace, RegisterReport
from accelsim.trace.reader import Trace
from accelsim.trace.schema import Layer
from accelsim.trace.shapes import weight_name


def operand_names(layer: Layer) -> tuple[str, str]:
    """Return the names of what enters the activation port and the weight port."""
    return layer.input, weight_name(layer)


def without_padding(corrected: Corrected, lowered: LoweredLayer, plan: LayerPlan) -> Corrected:
    """Return the accumulators less what padding bits added to binary sums, with all that was watched and done."""
    if lowered.padding is None or corrected.acc.dtype != np.int64:
        return corrected
    further = subtract_padding(
        corrected.acc.astype(np.int64, copy=False),
        lowered.padding,
        acc_bits=plan.acc_bits,
        overflow=plan.acc_overflow,
        k=plan.shape.k,
    )
    return Corrected(further.acc, corrected.watch.followed_by(further.watch), corrected.actions + further.actions)


def output_stage(layer: Layer, trace: Trace, operands: GemmOperands) -> OutputStage:
    """Return what the layer asks of the PPU."""
    factors = trace.requantization(layer)
    acc_shift = operands.blocks.product_shift if operands.blocks is not None else 0
    if operands.summation.kind == "fixed":
        acc_shift = operands.summation.lsb_exponent
    output_format, output_scale, zero_point = trace.output_factors(layer)
    if layer.activation == "threshold":
        zero_point = np.zeros_like(zero_point)  # thresholds make codes as they are; what codes mean is the reader's
    return OutputStage(
        rounding=layer.rounding,
        scale=None if factors is None else factors.scale,
        multiplier=None if factors is None else factors.multiplier,
        shift=None if factors is None else factors.shift,
        format=output_format,
        zero_point=zero_point,
        output_scale=output_scale,
        activation=layer.activation,
        clamp=None if layer.clamp is None else (layer.clamp.low, layer.clamp.high),
        acc_shift=acc_shift,
        thresholds=trace.thresholds(layer),
    )


def useful_macs(lowered: LoweredLayer) -> int:
    """Return multiply-accumulates that the layer asks for; sums of zero-point corrections are not among them."""
    shape, zero_points = lowered.operands.shape, lowered.zero_points
    rows = shape.m - (zero_points.a is not None)
    cols = shape.n - (zero_points.w is not None)
    return shape.batch * rows * cols * int(lowered.operands.k_valid.sum())


def register_report(
    layer: Layer, lowered: LoweredLayer, watch: RegisterWatch, register: Register, earliest_cycle: int | None
) -> RegisterReport:
    """Return what a register was seen to do, with the first overflow as a place in the layer's output."""
    first = None
    if watch.first is not None:
        index = lowered.output_index(*watch.first.index)
        first = OverflowPlace(layer=layer.name, index=index, k=watch.first.k, value=watch.first.value)
    return RegisterReport.from_watch(
        watch, bits=register.bits, policy=register.overflow, first=first, earliest_cycle=earliest_cycle
    )


def idle_report(register: Register) -> RegisterReport:
    """Return the report of a register that a layer leaves alone."""
    return RegisterReport.from_watch(
        RegisterWatch(0, None, 0, 0), bits=register.bits, policy=register.overflow, first=None
    )
