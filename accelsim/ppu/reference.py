"""The PPU again, one value at a time in Python integers: what ``accelsim run --verify`` compares with.

Written from docs/numerics.md, section 3, on the requantization oracle; it shares no arithmetic with the
kernels, only the encoding of real scales as integers (accelsim.ppu.multiplier). Slow on purpose.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import Ppu
from accelsim.ppu.multiplier import effective_bits, encode_multiplier
from accelsim.ppu.pipeline import OutputStage
from accelsim.ppu.requantize_oracle import requantize_one
from accelsim.ppu.vsq_oracle import encode_vector
from accelsim.rounding import RULES

Int64 = NDArray[np.int64]


def post_process_reference(acc: Int64, stage: OutputStage, ppu: Ppu) -> tuple[Int64, Int64 | None]:
    """Return (codes, block scales or None) of accumulators, int64 [..., N]; see accelsim.ppu.pipeline.post_process."""
    channels, blocks = acc.shape[-1], stage.format.blocks
    rule = stage.rounding if stage.rounding is None or ppu.rounding == "trace" else ppu.rounding
    guard_bits = ppu.vsq_guard_bits if blocks is not None else 0
    factors = [_factor(stage, ppu, rule, n, guard_bits) for n in range(channels)]
    zero_points = np.broadcast_to(stage.zero_point, channels).tolist()
    bounds = [_activation_bounds(stage, zero_points[n], n, guard_bits) for n in range(channels)]
    codes, scales = [], []
    for row in acc.reshape(-1, channels).tolist():
        activated = []
        for n, value in enumerate(row):
            rounded = value << stage.acc_shift if rule is None else requantize_one(value, *factors[n], rule)
            rounded += zero_points[n]
            low, high = bounds[n]
            if low is not None:
                rounded = max(rounded, low)
            if high is not None:
                rounded = min(rounded, high)
            activated.append(rounded)
        if blocks is None:
            codes.append([min(max(code, stage.format.low), stage.format.high) for code in activated])
            continue
        vectors = [
            encode_vector(
                activated[start : start + blocks.size],
                stage.format.low,
                stage.format.high,
                blocks.scale_bits,
                guard_bits,
                ppu.vsq_scale_rounding == "up",
            )
            for start in range(0, channels, blocks.size)
        ]
        codes.append([code for vector in vectors for code in vector.codes])
        scales.append([vector.scale for vector in vectors])
    shaped = np.array(codes, np.int64).reshape(acc.shape)
    if blocks is None:
        return shaped, None
    return shaped, np.array(scales, np.int64).reshape(*acc.shape[:-1], -1)


def _factor(stage: OutputStage, ppu: Ppu, rule: str | None, channel: int, guard_bits: int) -> tuple[int | float, int]:
    """Return the multiplier and shift of one channel: the layer's own where they fit the silicon, else encoded."""
    if rule is None:
        return 1, 0
    left = stage.acc_shift + guard_bits
    if stage.multiplier is not None and stage.shift is not None:
        multipliers = np.atleast_1d(stage.multiplier)
        multiplier = int(multipliers[channel % multipliers.size])
        shifts = np.atleast_1d(stage.shift)
        shift = int(shifts[channel % shifts.size]) - left
        top = 1 << (effective_bits(rule, ppu.multiplier_bits) - 1)
        lowest = -top if rule == "half_away_17bit" else 0
        if RULES[rule].multiplier == "integer" and all(lowest <= int(m) < top for m in multipliers):
            return multiplier, shift
        real = float(multiplier) * 2.0**-shift
    else:
        scales = np.atleast_1d(np.asarray(stage.scale, np.float64))
        real = float(scales[channel % scales.size]) * 2.0**left
    encoded, shift_array = encode_multiplier(real, rule, ppu.multiplier_bits)
    return encoded.item(), int(shift_array)


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
    scales = np.atleast_1d(np.asarray(stage.output_scale))
    scale = scales[channel % scales.size]
    if stage.format.blocks is None:
        quotient = Fraction(float(np.float32(6) / np.float32(scale)))
    else:
        quotient = Fraction(6.0 * 2.0**guard_bits / float(scale))
    return zero_point, zero_point + floor(quotient + Fraction(1, 2))
