"""The PPU again, one value at a time in Python integers and fractions: what ``accelsim run --verify`` compares with.

Written from docs/numerics.md, on the oracles of requantization, of VSQ and of float outputs; it shares no arithmetic
with the kernels and the encoders of formats, only the encoding of real scales as multipliers (accelsim.ppu.multiplier).
Slow on purpose.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import Ppu
from accelsim.formats.spec import CodesAreLanes
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
    if stage.thresholds is not None or stage.format.datapath == "binary":
        encode = _comparator_row
    elif isinstance(stage.format, CodesAreLanes):
        encode = _integer_row
    else:
        encode = _float_row
    rows = [encode(row, stage, ppu) for row in acc.reshape(-1, channels).tolist()] if acc.size else []
    codes = np.array([codes for codes, _ in rows], np.int64).reshape(acc.shape)
    if blocks is None:
        return codes, None
    scales = np.array([scales for _, scales in rows], np.int64)
    return codes, scales.reshape(*acc.shape[:-1], -(-channels // blocks.size))


def _comparator_row(row: list[Any], stage: OutputStage, ppu: Ppu) -> Row:
    """Count thresholds below each accumulator, or take its sign."""
    output_format, codes = stage.format, []
    for n, value in enumerate(row):
        if stage.thresholds is None:
            count = int(value >= 0)
        else:
            thresholds = stage.thresholds if stage.thresholds.ndim == 1 else stage.thresholds[n]
            count = sum(threshold < value << stage.acc_shift for threshold in thresholds.tolist())
        code = output_format.code_low + count
        if output_format.datapath == "binary":  # which of the two codes stands for +1 is the format's to say
            both = [output_format.code_low, output_format.code_high]
            code = next(c for c in both if int(make_qtensor([c], output_format).lanes().values[0]) == 2 * count - 1)
        codes.append(code)
    return codes, []


def _integer_row(row: list[Any], stage: OutputStage, ppu: Ppu) -> Row:
    """Round, add the zero point, activate; then limit, or make VSQ vectors."""
    output_format, blocks = stage.format, stage.format.blocks
    rule = rule_in_force(stage.rounding, ppu)
    guard_bits = ppu.vsq_guard_bits if blocks is not None else 0
    zero_points = np.broadcast_to(stage.zero_point, len(row)).tolist()
    activated = []
    for n, value in enumerate(row):
        if rule is None:
            rounded = value << stage.acc_shift
        else:
            rounded = requantize_one(value, *_factor(stage, ppu, rule, n, guard_bits), rule)
        rounded += zero_points[n]
        low, high = _activation_bounds(stage, zero_points[n], n, guard_bits)
        if low is not None:
            rounded = max(rounded, low)
        if high is not None:
            rounded = min(rounded, high)
        activated.append(rounded)
    if blocks is None:
        return [min(max(code, output_format.low), output_format.high) for code in activated], []
    vectors = [
        encode_vector(
            activated[start : start + blocks.size],
            output_format.low,
            output_format.high,
            blocks.scale_bits,
            guard_bits,
            ppu.vsq_scale_rounding == "up",
        )
        for start in range(0, len(row), blocks.size)
    ]
    return [code for vector in vectors for code in vector.codes], [vector.scale for vector in vectors]


def _float_row(row: list[Any], stage: OutputStage, ppu: Ppu) -> Row:
    """Scale in float32, activate, and encode block by block (or element by element)."""
    rule = rule_in_force(stage.rounding, ppu)
    assert rule == "float32_half_even", rule
    values = []
    for n, value in enumerate(row):
        scale, _ = _factor(stage, ppu, rule, n, 0)
        six = None
        if stage.activation == "relu6":
            with np.errstate(divide="ignore", over="ignore"):
                six = float(np.float32(6) / np.float32(_of_channel(stage.output_scale, n)))
        values.append(scaled(value, scale, six, relu=stage.activation != "none")[0])
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
