"""The PPU again, one value at a time in Python integers and fractions: what ``accelsim run --verify`` compares with.

Written from docs/numerics.md, on the oracles of requantization, of VSQ and of float outputs; it shares no arithmetic
with the kernels and the encoders of formats, only the encoding of real scales as multipliers (accelsim.ppu.multiplier).
Slow on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from math import floor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import Ppu
from accelsim.formats.mixins import CodesAreLanes
from accelsim.formats.spec import Format
from accelsim.formats.tensor import make_qtensor
from accelsim.ppu.float_output_oracle import encode_block, scaled
from accelsim.ppu.multiplier import effective_bits, encode_multiplier
from accelsim.ppu.requantize_oracle import requantize_one
from accelsim.ppu.stage import OutputStage, rule_in_force
from accelsim.ppu.vsq_oracle import encode_vector
from accelsim.rounding import RULES

Int64 = NDArray[np.int64]
Row = tuple[list[int], list[int]]
"""The codes of one row of outputs, and its block scales (none without blocks)."""


def post_process_reference(
    acc: Int64 | NDArray[np.float32], stage: OutputStage, ppu: Ppu
) -> tuple[Int64, Int64 | None]:
    """Return (codes, block scales or None) of accumulators, int64 or float32 [..., N]; see
    accelsim.ppu.pipeline.post_process.
    """
    channels, blocks = acc.shape[-1], stage.format.blocks
    encode: Callable[[list[Any]], Row]
    if stage.thresholds is not None or stage.format.datapath == "binary":
        encode = partial(_comparator_row, stage, _codes_of_counts(stage.format))
    elif isinstance(stage.format, CodesAreLanes):
        encode = partial(_integer_row, stage, ppu, [_IntegerChannel.of(stage, ppu, n) for n in range(channels)])
    else:
        encode = partial(_float_row, stage, ppu, [_FloatChannel.of(stage, ppu, n) for n in range(channels)])
    rows = [encode(row) for row in acc.reshape(-1, channels).tolist()] if acc.size else []
    codes = np.array([codes for codes, _ in rows], np.int64).reshape(acc.shape)
    if blocks is None:
        return codes, None
    scales = np.array([scales for _, scales in rows], np.int64)
    return codes, scales.reshape(*acc.shape[:-1], -(-channels // blocks.size))


def _comparator_row(stage: OutputStage, codes: list[int], row: list[Any]) -> Row:
    """Count thresholds below each accumulator, or take its sign; codes[i] is the code of a count of i."""
    counts = []
    for n, value in enumerate(row):
        if stage.thresholds is None:
            counts.append(int(value >= 0))
        else:
            thresholds = stage.thresholds if stage.thresholds.ndim == 1 else stage.thresholds[n]
            counts.append(sum(threshold < value << stage.acc_shift for threshold in thresholds.tolist()))
    return [codes[count] for count in counts], []


def _codes_of_counts(output_format: Format) -> list[int]:
    """Return the codes in the order of what they stand for; which bit means +1 is a binary format's to say."""
    codes = list(range(output_format.code_low, output_format.code_high + 1))
    if output_format.datapath == "binary":
        codes.sort(key=lambda code: int(make_qtensor([code], output_format).lanes().values[0]))
    return codes


class _IntegerChannel(NamedTuple):
    """What one channel of an integer output is rounded by (rule None: not at all), and limited to by its activation."""

    rule: str | None
    multiplier: int | float
    shift: int
    zero_point: int
    low: int | None
    high: int | None

    @classmethod
    def of(cls, stage: OutputStage, ppu: Ppu, channel: int) -> _IntegerChannel:
        rule = rule_in_force(stage.rounding, ppu)
        guard_bits = ppu.vsq_guard_bits if stage.format.blocks is not None else 0
        factor = (1, 0) if rule is None else _factor(stage, ppu, rule, channel, guard_bits)
        zero_point = int(_of_channel(stage.zero_point, channel))
        return cls(rule, *factor, zero_point, *_activation_bounds(stage, zero_point, channel, guard_bits))


def _integer_row(stage: OutputStage, ppu: Ppu, channels: list[_IntegerChannel], row: list[Any]) -> Row:
    """Round, add the zero point, activate; then limit, or make VSQ vectors."""
    output_format, blocks = stage.format, stage.format.blocks
    activated = []
    for value, channel in zip(row, channels, strict=True):
        if channel.rule is None:
            rounded = value << stage.acc_shift
        else:
            rounded = requantize_one(value, channel.multiplier, channel.shift, channel.rule)
        rounded += channel.zero_point
        if channel.low is not None:
            rounded = max(rounded, channel.low)
        if channel.high is not None:
            rounded = min(rounded, channel.high)
        activated.append(rounded)
    if blocks is None:
        return [min(max(code, output_format.low), output_format.high) for code in activated], []
    vectors = [
        encode_vector(
            activated[start : start + blocks.size],
            output_format.low,
            output_format.high,
            blocks.scale_bits,
            ppu.vsq_guard_bits,
            ppu.vsq_scale_rounding == "up",
        )
        for start in range(0, len(row), blocks.size)
    ]
    return [code for vector in vectors for code in vector.codes], [vector.scale for vector in vectors]


class _FloatChannel(NamedTuple):
    """The float32 scale of one channel of a float output, and where ReLU6 ends."""

    scale: float
    six: float | None

    @classmethod
    def of(cls, stage: OutputStage, ppu: Ppu, channel: int) -> _FloatChannel:
        scale, _ = _factor(stage, ppu, "float32_half_even", channel, 0)
        if stage.activation != "relu6":
            return cls(scale, None)
        with np.errstate(divide="ignore", over="ignore"):
            return cls(scale, float(np.float32(6) / np.float32(_of_channel(stage.output_scale, channel))))


def _float_row(stage: OutputStage, ppu: Ppu, channels: list[_FloatChannel], row: list[Any]) -> Row:
    """Scale in float32, activate, and encode block by block (or element by element)."""
    relu = stage.activation != "none"
    values = [scaled(x, channel.scale, channel.six, relu=relu)[0] for x, channel in zip(row, channels, strict=True)]
    size = 1 if stage.format.blocks is None else stage.format.blocks.size
    encoded = [encode_block(values[start : start + size], stage.format, ppu) for start in range(0, len(row), size)]
    return [code for block in encoded for code in block.codes], [b.scale for b in encoded if b.scale is not None]


def _of_channel(array: Any, channel: int) -> Any:
    every = np.atleast_1d(np.asarray(array))
    return every[channel % every.size]


def _factor(stage: OutputStage, ppu: Ppu, rule: str, channel: int, guard_bits: int) -> tuple[int | float, int]:
    """Return the multiplier and shift of one channel: the layer's own where they fit the silicon, else encoded.

    Integer rules leave the fraction bits of fixed-point accumulators to the shift; they are no part of the multiplier.
    """
    integer = RULES[rule].multiplier == "integer"
    fraction_bits = -stage.acc_shift if integer and stage.acc_shift < 0 else 0
    left = stage.acc_shift + fraction_bits + guard_bits
    if stage.multiplier is not None and stage.shift is not None:
        multiplier = int(_of_channel(stage.multiplier, channel))
        shift = int(_of_channel(stage.shift, channel)) - left
        top = 1 << (effective_bits(rule, ppu.multiplier_bits) - 1)
        lowest = -top if rule == "half_away_17bit" else 0
        if integer and all(lowest <= int(m) < top for m in np.atleast_1d(stage.multiplier)):
            return multiplier, shift + fraction_bits
        real = float(multiplier) * 2.0**-shift
    else:
        real = float(_of_channel(stage.scale, channel)) * 2.0**left
    encoded, shift_array = encode_multiplier(real, rule, ppu.multiplier_bits)
    return encoded.item(), int(shift_array) + fraction_bits


def _activation_bounds(
    stage: OutputStage, zero_point: int, channel: int, guard_bits: int
) -> tuple[int | None, int | None]:
    """Return what the fused activation limits to, before the output format does; None: it does not."""
    if stage.clamp is not None:
        return stage.clamp
    if stage.activation == "none":
        return None, None
    if stage.activation == "relu":
        return zero_point, None
    scale = _of_channel(stage.output_scale, channel)
    if stage.format.blocks is None:
        quotient = Fraction(float(np.float32(6) / np.float32(scale)))
    else:
        quotient = Fraction(6.0 * 2.0**guard_bits / float(scale))
    return zero_point, zero_point + floor(quotient + Fraction(1, 2))
