"""The post-processing unit: requantize, activate, clamp, and encode to the output's format (docs/numerics.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Actions
from accelsim.config.model import Ppu
from accelsim.errors import FormatError, ShapeError
from accelsim.formats.spec import Codes, Format
from accelsim.ppu.cost import comparator_actions, float_actions, integer_actions
from accelsim.ppu.float_output import encode_floats
from accelsim.ppu.multiplier import LARGEST_SHIFT, effective_bits, encode_multiplier, is_power_of_two
from accelsim.ppu.requantize import INT64_MAX, INT64_MIN, Int64Array, Limits, round_and_limit
from accelsim.ppu.stage import OutputPath, OutputStage, check_stage, rule_in_force
from accelsim.ppu.thresholds import count_thresholds, signs
from accelsim.rounding import RULES

__all__ = ["OutputStage", "PpuResult", "post_process", "rule_in_force", "stage_actions"]

# Wider than any VSQ vector reaches (16 element, 12 scale and 8 guard bits), so that limiting to it changes no code.
_VSQ_LIMIT = 1 << 48

Accumulators = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PpuResult:
    """What left the PPU.

    codes : int32 (int64 for raw formats wider than 32 bits) [..., N], in the output format
    block_scales : int32 [..., ceil(N / V)] where the format has blocks, or None
    saturated : outputs that the format's range moved; what the activation moved is not counted
    actions : the work (accelsim.ppu.cost)
    """

    codes: Codes
    block_scales: NDArray[np.int32] | None
    saturated: int
    actions: Actions


class _Factors(NamedTuple):
    """The rule in force with its multipliers and shifts, [N] each; rule None passes integers on unrounded."""

    rule: str | None
    multiplier: NDArray[Any]
    shift: Int64Array


def post_process(acc: Accumulators, stage: OutputStage, ppu: Ppu, acc_bits: int) -> PpuResult:
    """Turn accumulators into output codes as `stage` asks, on the silicon that `ppu` describes.

    The rule is the silicon's, or the layer's where the silicon says "trace". Integer rules use the layer's multiplier
    and shift exactly where they fit the multiplier's width, and encode the real scale to that width otherwise. Then, in
    this order: round, add the zero point, activate, limit to the format's range. VSQ outputs are rounded to
    ``vsq_guard_bits`` fraction bits, activated, and scaled vector by vector along the last axis. Float outputs are
    scaled in float32, activated and encoded (accelsim.ppu.float_output). Thresholds and signs are compared
    (accelsim.ppu.thresholds).

    acc : int64 [..., N], each within `acc_bits` (two's complement); or float32 [..., N], finite. Float accumulators,
        and float outputs, need the rule "float32_half_even"

    Raises:
    FormatError : the stage asks for something contradictory, or a number that the rule cannot take
    ShapeError : per-channel arrays that do not have N entries
    ValueError : an accumulator wider than `acc_bits`, or not finite
    """
    if acc.dtype not in (np.int64, np.float32) or acc.ndim == 0:
        raise ShapeError(f"acc is {acc.dtype} of shape {acc.shape}; the PPU takes int64 or float32 [..., N]")
    float_acc = acc.dtype == np.float32
    path = check_stage(stage, ppu, float_acc=float_acc)
    _check_accumulators(acc, acc_bits)
    channels = acc.shape[-1]
    rows: Any = np.ascontiguousarray(acc).reshape(math.prod(acc.shape[:-1]), channels)
    factors = _factors(stage, ppu, channels, path)
    actions = _actions(rows.shape[0], channels, factors, stage, ppu, acc_bits, path, float_acc=float_acc)
    codes, scales, saturated = _outputs(rows, factors, stage, ppu, path)
    if scales is not None:
        scales = scales.reshape(*acc.shape[:-1], scales.shape[1])
    return PpuResult(codes.reshape(acc.shape), scales, saturated, actions)


def stage_actions(
    rows: int, channels: int, stage: OutputStage, ppu: Ppu, acc_bits: int, *, float_acc: bool = False
) -> Actions:
    """Count the work of :func:`post_process` on rows x channels accumulators, without any values."""
    path = check_stage(stage, ppu, float_acc=float_acc)
    factors = _factors(stage, ppu, channels, path)
    return _actions(rows, channels, factors, stage, ppu, acc_bits, path, float_acc=float_acc)


def _check_accumulators(acc: Accumulators, acc_bits: int) -> None:
    if acc.dtype == np.float32:
        wrong = ~np.isfinite(acc)
        if wrong.any():
            raise ValueError(f"{int(wrong.sum())} accumulators are NaN or infinite; float32 registers saturate")
        return
    reach = 1 << (acc_bits - 1)
    if acc.size and not -reach <= int(acc.min()) <= int(acc.max()) < reach:
        raise ValueError(f"accumulators span {acc.min()}..{acc.max()}, which does not fit {acc_bits} bits")


def _outputs(
    rows: Accumulators, factors: _Factors, stage: OutputStage, ppu: Ppu, path: OutputPath
) -> tuple[Codes, NDArray[np.int32] | None, int]:
    """Return (codes [R, N], block scales [R, blocks] or None, how many outputs were limited)."""
    if path == "comparators":
        if stage.thresholds is None:
            return signs(rows, stage.format), None, 0
        return count_thresholds(rows.astype(np.int64), stage.thresholds, stage.format, stage.acc_shift), None, 0
    if path == "floats":
        return encode_floats(rows, factors.multiplier, stage, ppu)
    limits = _limits(stage, ppu, rows.shape[1])
    # Nothing is rounded in raw output: with a shift <= 0 every integer rule is exact.
    rounded, saturated = round_and_limit(rows, factors.multiplier, factors.shift, factors.rule or "half_up", limits)
    if stage.format.blocks is not None:
        return _encode_vectors(rounded, stage.format, ppu)
    return rounded.astype(np.int32 if stage.format.lane_bits <= 32 else np.int64), None, saturated


def _guard_bits(stage: OutputStage, ppu: Ppu) -> int:
    return ppu.vsq_guard_bits if stage.format.datapath == "block_integer" else 0


def _factors(stage: OutputStage, ppu: Ppu, channels: int, path: OutputPath) -> _Factors:
    """Return the rule in force, and its factors from accumulators to the integers that it rounds to."""
    rule = None if path == "comparators" else rule_in_force(stage.rounding, ppu)
    if rule is None:
        shift = np.full(channels, -stage.acc_shift, np.int64)
        return _Factors(None, np.ones(channels, np.int64), shift)
    # Fraction bits of an integer accumulator are the shifter's business: in the multiplier they would count against
    # its smallest exponent, and ordinary scales would vanish.
    fraction_bits = max(-stage.acc_shift, 0) if RULES[rule].multiplier == "integer" else 0
    left = stage.acc_shift + fraction_bits + _guard_bits(stage, ppu)
    multiplier: NDArray[Any]
    if stage.multiplier is not None and stage.shift is not None:
        multiplier, shift = np.asarray(stage.multiplier), np.asarray(stage.shift) - left
        bits = effective_bits(rule, ppu.multiplier_bits)
        lowest = -(1 << (bits - 1)) if rule == "half_away_17bit" else 0
        fits = np.all((multiplier >= lowest) & (multiplier < 1 << (bits - 1)))
        if RULES[rule].multiplier != "integer" or not fits:
            real = np.ldexp(multiplier.astype(np.float64), -shift)
            multiplier, shift = encode_multiplier(real, rule, ppu.multiplier_bits)
    else:
        assert stage.scale is not None  # _check_stage saw to it
        real = np.ldexp(np.asarray(stage.scale, np.float64), left)
        multiplier, shift = encode_multiplier(real, rule, ppu.multiplier_bits)
    if fraction_bits:
        shift = np.where(multiplier != 0, shift + fraction_bits, 0)
        gone = shift > LARGEST_SHIFT  # every accumulator rounds to 0
        multiplier, shift = np.where(gone, 0, multiplier), np.where(gone, 0, shift)
    spread = _one_a_channel("multiplier", multiplier, channels), _one_a_channel("shift", shift, channels)
    return _Factors(rule, *spread)


def _limits(stage: OutputStage, ppu: Ppu, channels: int) -> Limits:
    """Return what follows the rounding: zero point, activation, and the format's range (VSQ: none yet)."""
    zero_point = _one_a_channel("zero_point", np.asarray(stage.zero_point, np.int64), channels)
    if np.any(np.abs(zero_point) >= 1 << 31):
        raise FormatError(f"zero_point {zero_point[np.abs(zero_point).argmax()]} does not fit 32 bits")
    low, high = np.full(channels, INT64_MIN), np.full(channels, INT64_MAX)
    if stage.activation in ("relu", "relu6"):
        low = zero_point
    if stage.activation == "relu6":
        six = _one_a_channel("output_scale", _code_of_six(stage, ppu), channels)
        high = zero_point + six
    if stage.clamp is not None:
        low, high = np.full(channels, stage.clamp[0]), np.full(channels, stage.clamp[1])
    if stage.format.blocks is not None:
        return Limits(zero_point, low, high, INT64_MIN, INT64_MAX)
    return Limits(zero_point, low, high, stage.format.low, stage.format.high)


def _code_of_six(stage: OutputStage, ppu: Ppu) -> Int64Array:
    """Return 6.0 in output units, half away from zero. The quotient is TFLite's, in float32; VSQ's, which has no
    reference, is in float64 and in guard units.
    """
    scale = np.asarray(stage.output_scale)
    with np.errstate(divide="ignore", over="ignore"):  # a tiny scale puts 6 beyond every bound
        if stage.format.blocks is None:
            quotient = (np.float32(6) / scale.astype(np.float32)).astype(np.float64)
        else:
            quotient = np.ldexp(6.0, _guard_bits(stage, ppu)) / scale.astype(np.float64)
    return np.asarray(np.floor(np.minimum(quotient, 2.0**52 - 1) + 0.5)).astype(np.int64)


def _encode_vectors(
    rounded: Int64Array, output_format: Format, ppu: Ppu
) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    from accelsim.ppu import vsq_kernels

    blocks = output_format.blocks
    assert blocks is not None
    rows, channels = rounded.shape
    values = np.clip(rounded, -_VSQ_LIMIT, _VSQ_LIMIT)
    codes = np.empty(rounded.shape, np.int32)
    scales = np.empty((rows, -(-channels // blocks.size)), np.int32)
    saturated = vsq_kernels.encode_vectors(
        values,
        blocks.size,
        output_format.low,
        output_format.high,
        (1 << blocks.scale_bits) - 1,
        ppu.vsq_guard_bits,
        ppu.vsq_scale_rounding == "up",
        codes,
        scales,
    )
    return codes, scales, int(saturated)


def _actions(
    rows: int,
    channels: int,
    factors: _Factors,
    stage: OutputStage,
    ppu: Ppu,
    acc_bits: int,
    path: OutputPath,
    *,
    float_acc: bool,
) -> Actions:
    if path == "comparators":
        return comparator_actions(rows, channels, stage, acc_bits)
    if path == "floats":
        return float_actions(rows, channels, stage, ppu, float_acc=float_acc)
    rule = factors.rule
    return integer_actions(
        rows,
        channels,
        rule=rule,
        shift_only_channels=int(np.count_nonzero(is_power_of_two(factors.multiplier))),
        acc_bits=acc_bits,
        float_acc=float_acc,
        multiplier_bits=effective_bits(rule, ppu.multiplier_bits) if rule else 0,
        output_format=stage.format,
        has_zero_point=bool(np.any(stage.zero_point)),
        activation=stage.activation,
        guard_bits=_guard_bits(stage, ppu),
    )


def _one_a_channel(name: str, array: NDArray[Any], channels: int) -> NDArray[Any]:
    if array.ndim > 1 or (array.ndim == 1 and array.size != channels):
        raise ShapeError(f"{name} has shape {array.shape}; the output has {channels} channels: use () or ({channels},)")
    return np.broadcast_to(array, (channels,))
