"""The post-processing unit: requantize, activate, clamp, and encode to the output's format (docs/numerics.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Actions
from accelsim.config.model import Ppu
from accelsim.errors import FormatError, ShapeError, did_you_mean
from accelsim.formats.spec import Codes, CodesAreLanes, Format
from accelsim.ppu.cost import COMPARES, output_actions
from accelsim.ppu.multiplier import effective_bits, encode_multiplier, is_power_of_two
from accelsim.ppu.requantize import INT64_MAX, INT64_MIN, Int64Array, Limits, round_and_limit
from accelsim.rounding import RULES

# Wider than any VSQ vector reaches (16 element, 12 scale and 8 guard bits), so that limiting to it changes no code.
_VSQ_LIMIT = 1 << 48
_MAX_VSQ_ELEMENT_BITS = 16


def _zero() -> Int64Array:
    return np.zeros((), np.int64)


@dataclass(frozen=True, eq=False, kw_only=True)
class OutputStage:
    """What one layer asks of the PPU. Arrays are () for all channels, or (N,).

    rounding : the layer's rule; None: raw accumulators leave (into a format intN), only activated and limited
    scale : float64, accumulator scale / output scale; or None where `multiplier` and `shift` say it in integers
    multiplier, shift : int64, scale = multiplier / 2**shift; or None
    format : the output's number format
    zero_point : int64, the output's; 0 for formats without zero points
    output_scale : float64, the output's scale (VSQ: gamma, of shape ()); ReLU6 needs it
    activation : "none", "relu", "relu6", "clamp" or "threshold"
    clamp : inclusive bounds of "clamp", in output codes
    acc_shift : the accumulators are in units of 2**acc_shift (VSQ scale products whose low bits were dropped;
        fixed-point sums of floats: Summation.lsb_exponent, mostly negative)
    thresholds : int64 [N, T], each row ascending; with ``activation="threshold"`` (FINN), and without anything else,
        ``code = format.code_low + how many thresholds of the channel are less than the accumulator``
    """

    rounding: str | None
    format: Format
    scale: NDArray[np.float64] | None = None
    multiplier: Int64Array | None = None
    shift: Int64Array | None = None
    zero_point: Int64Array = field(default_factory=_zero)
    output_scale: NDArray[np.float64] | None = None
    activation: str = "none"
    clamp: tuple[int, int] | None = None
    acc_shift: int = 0
    thresholds: Int64Array | None = None


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


def post_process(acc: Int64Array, stage: OutputStage, ppu: Ppu, acc_bits: int) -> PpuResult:
    """Turn accumulators into output codes as `stage` asks, on the silicon that `ppu` describes.

    The rule is the silicon's, or the layer's where the silicon says "trace". Integer rules use the layer's multiplier
    and shift exactly where they fit the multiplier's width, and encode the real scale to that width otherwise. Then, in
    this order: round, add the zero point, activate, limit to the format's range. VSQ outputs are rounded to
    ``vsq_guard_bits`` fraction bits, activated, and scaled vector by vector along the last axis.

    acc : int64 [..., N], each within `acc_bits` (two's complement)

    Raises:
    FormatError : the stage asks for something contradictory, or a number that the rule cannot take
    ShapeError : per-channel arrays that do not have N entries
    ValueError : an accumulator wider than `acc_bits`
    """
    if acc.dtype != np.int64 or acc.ndim == 0:
        raise ShapeError(f"acc is {acc.dtype} of shape {acc.shape}; the PPU takes int64 [..., N]")
    _check_stage(stage, ppu)
    reach = 1 << (acc_bits - 1)
    if acc.size and not -reach <= int(acc.min()) <= int(acc.max()) < reach:
        raise ValueError(f"accumulators span {acc.min()}..{acc.max()}, which does not fit {acc_bits} bits")
    channels = acc.shape[-1]
    rows = np.ascontiguousarray(acc).reshape(math.prod(acc.shape[:-1]), channels)
    factors = _factors(stage, ppu, channels)
    limits = _limits(stage, ppu, channels)
    # Nothing is rounded in raw output: with a shift <= 0 every integer rule is exact.
    rounded, saturated = round_and_limit(rows, factors.multiplier, factors.shift, factors.rule or "half_up", limits)
    actions = _actions(rows.shape[0], channels, factors, stage, ppu, acc_bits)
    if stage.format.blocks is not None:
        codes, scales, saturated = _encode_vectors(rounded, stage.format, ppu)
        return PpuResult(codes.reshape(acc.shape), scales.reshape(*acc.shape[:-1], scales.shape[1]), saturated, actions)
    dtype = np.int32 if stage.format.lane_bits <= 32 else np.int64
    return PpuResult(rounded.astype(dtype).reshape(acc.shape), None, saturated, actions)


def stage_actions(rows: int, channels: int, stage: OutputStage, ppu: Ppu, acc_bits: int) -> Actions:
    """Count the work of :func:`post_process` on rows x channels accumulators, without any values."""
    _check_stage(stage, ppu)
    return _actions(rows, channels, _factors(stage, ppu, channels), stage, ppu, acc_bits)


def _check_stage(stage: OutputStage, ppu: Ppu) -> None:
    """Raise FormatError for what no PPU could do."""
    if stage.activation not in COMPARES:
        near = did_you_mean(stage.activation, COMPARES)
        raise FormatError(f"activation={stage.activation!r} is unknown{near}; use one of {', '.join(COMPARES)}")
    if stage.format.datapath not in ("integer", "block_integer"):
        raise FormatError(
            f"{stage.format.name}: the PPU makes integers and integers with integer block scales (VSQ), no "
            f"{stage.format.datapath} codes; choose an output format such as int8 or vsq4"
        )
    if (stage.activation == "clamp") != (stage.clamp is not None):
        raise FormatError(f"activation={stage.activation!r} with clamp={stage.clamp}: 'clamp', and only it, has bounds")
    if stage.clamp is not None and stage.clamp[0] > stage.clamp[1]:
        raise FormatError(f"clamp={stage.clamp}: the lower bound exceeds the upper one")
    integer, real = (stage.multiplier is not None, stage.shift is not None), stage.scale is not None
    if stage.rounding is not None and (real, *integer) not in ((True, False, False), (False, True, True)):
        raise FormatError("requantization takes either a real scale, or a multiplier and a shift")
    if stage.activation == "relu6" and (
        stage.output_scale is None or not np.all(np.isfinite(stage.output_scale) & (stage.output_scale > 0))
    ):
        raise FormatError(f"relu6 needs the output's scale, positive and finite; found {stage.output_scale}")
    name = stage.format.name
    if not isinstance(stage.format, CodesAreLanes):
        raise FormatError(
            f"the PPU cannot emit {name}: it rounds to integers, and the codes of {name} are not the integers that "
            f"they stand for; use an integer, fixed-point or VSQ format for this output"
        )
    if stage.format.blocks is None:
        return
    if stage.rounding is None:
        raise FormatError(f"{name}: raw accumulators cannot leave in a format with block scales; name a rounding rule")
    if np.any(stage.zero_point):
        raise FormatError(f"{name}: formats with block scales have no zero points")
    if stage.clamp is not None:
        raise FormatError(f"{name}: bounds in output codes mean nothing with block scales; use relu or relu6")
    if stage.output_scale is not None and np.ndim(stage.output_scale) != 0:
        raise FormatError(f"{name}: the vectors of an output share one gamma; output_scale has to be of shape ()")
    if stage.format.lane_bits > _MAX_VSQ_ELEMENT_BITS:
        raise FormatError(f"{name}: the PPU scales vectors of elements of up to {_MAX_VSQ_ELEMENT_BITS} bits")
    largest = stage.format.high * ((1 << stage.format.blocks.scale_bits) - 1) << ppu.vsq_guard_bits
    if rule_in_force(stage.rounding, ppu) == "half_away_17bit" and largest >= 1 << 16:
        raise FormatError(
            f"{name}: rule 'half_away_17bit' saturates to 17 bits, but vectors reach {largest} before they are scaled; "
            f"use another rounding rule, or fewer vsq_guard_bits than {ppu.vsq_guard_bits}"
        )


def rule_in_force(requested: str | None, ppu: Ppu) -> str | None:
    """Return the rule that the silicon uses for a layer that asks for `requested`; None: raw accumulators leave."""
    return requested if requested is None or ppu.rounding == "trace" else ppu.rounding


def _guard_bits(stage: OutputStage, ppu: Ppu) -> int:
    return ppu.vsq_guard_bits if stage.format.blocks is not None else 0


def _factors(stage: OutputStage, ppu: Ppu, channels: int) -> _Factors:
    """Return the rule in force, and its factors from accumulators to the integers that it rounds to."""
    rule = rule_in_force(stage.rounding, ppu)
    if rule is None:
        shift = np.full(channels, -stage.acc_shift, np.int64)
        return _Factors(None, np.ones(channels, np.int64), shift)
    left = stage.acc_shift + _guard_bits(stage, ppu)
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


def _actions(rows: int, channels: int, factors: _Factors, stage: OutputStage, ppu: Ppu, acc_bits: int) -> Actions:
    rule = factors.rule
    return output_actions(
        rows,
        channels,
        rule=rule,
        shift_only_channels=int(np.count_nonzero(is_power_of_two(factors.multiplier))),
        acc_bits=acc_bits,
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
