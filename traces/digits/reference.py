"""What integer hardware must compute, from the definitions (docs/numerics.md), in plain NumPy int64.

Nothing here comes from accelsim: the expected codes of the bundled traces are made by this file, and so are a second
opinion on the simulator. Convolutions are sums over kernel taps; no im2col, no tiles, no fast paths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

VSQ_SIZE = 16  # elements that share one integer scale
VSQ_CODE_MAX = 15  # unsigned 4-bit elements
VSQ_SCALE_MAX = 15  # unsigned 4-bit scales
VSQ_GUARD_BITS = 4  # fraction bits that the VSQ output unit keeps (configs/int4_vsq.yaml: ppu.vsq_guard_bits)


@dataclass(frozen=True)
class Operand:
    """Integers for the multipliers, zero point already subtracted, channel axis last; VSQ: with its integer scales.

    values : int64 [..., C]
    block_scales : int64 [..., ceil(C / 16)], or None for plain integers
    """

    values: Integers
    block_scales: Integers | None = None

    def reshaped(self, *leading: int) -> Operand:
        """All axes but the leading ones become one (blocks stay whole because C is a multiple of 16)."""
        scales = None if self.block_scales is None else self.block_scales.reshape(*leading, -1)
        return Operand(self.values.reshape(*leading, -1), scales)


def linear(x: Operand, w: Operand) -> Integers:
    """Multiply x [..., C] with w [O, C]: [..., O]. VSQ: each block's dot product times both its integer scales."""
    if x.block_scales is None or w.block_scales is None:
        return x.values @ w.values.T
    total = np.zeros((*x.values.shape[:-1], len(w.values)), np.int64)
    for block in range(x.block_scales.shape[-1]):
        part = slice(block * VSQ_SIZE, (block + 1) * VSQ_SIZE)
        dot = x.values[..., part] @ w.values[:, part].T
        total += dot * (x.block_scales[..., block, None] * w.block_scales[:, block])
    return total


def conv2d(x: Operand, w: Operand, stride: int) -> Integers:
    """3x3 convolution with padding 1 by its definition: for each kernel tap, the input pixels it sees, added up.

    x [N, H, W, C], w [O, 3, 3, C] -> [N, H / stride, W / stride, O]; outside the image is real zero.
    """
    n, height, width, _ = x.values.shape
    total = np.zeros((n, height // stride, width // stride, len(w.values)), np.int64)
    for i in range(3):
        for j in range(3):
            rows = [r for r in range(total.shape[1]) if 0 <= r * stride + i - 1 < height]
            cols = [c for c in range(total.shape[2]) if 0 <= c * stride + j - 1 < width]
            at = np.ix_(range(n), [r * stride + i - 1 for r in rows], [c * stride + j - 1 for c in cols])
            seen = Operand(x.values[at], None if x.block_scales is None else x.block_scales[at])
            tap = Operand(w.values[:, i, j], None if w.block_scales is None else w.block_scales[:, i, j])
            total[np.ix_(range(n), rows, cols)] += linear(seen, tap)
    return total


def fixed_point(scale: float) -> tuple[int, int]:
    """A positive real scale as (multiplier, exponent): scale ~ multiplier / 2**31 * 2**exponent, multiplier in
    [2**30, 2**31), rounded to nearest (ties away from zero; the scale is positive).
    """
    fraction, exponent = math.frexp(scale)
    multiplier = math.floor(fraction * 2.0**31 + 0.5)  # exact: the product has 22 fraction bits
    return (multiplier // 2, exponent + 1) if multiplier == 1 << 31 else (multiplier, exponent)


def fixed_points(scales: NDArray[np.float64]) -> tuple[Integers, Integers]:
    """`fixed_point` of each scale."""
    pairs = [fixed_point(float(scale)) for scale in scales]
    return np.array([q for q, _ in pairs], np.int64), np.array([e for _, e in pairs], np.int64)


def double_half_up_then_away(acc: Integers, scales: NDArray[np.float64]) -> Integers:
    """Rule R1 in its two steps: the doubling high multiply, then a division by a power of two, ties away from zero.

    acc [..., O]; scales [O], each below one.
    """
    multiplier, exponent = fixed_points(scales)
    if np.any(exponent > 0) or np.any(np.abs(acc) >= 1 << 31):
        raise ValueError("this reference is written for scales below one and 32-bit accumulators")
    high = (acc * multiplier + (1 << 30)) >> 31
    shift = -exponent
    magnitude = (np.abs(high) + np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)) >> shift
    return np.sign(high) * magnitude


def half_up(acc: Integers, scales: NDArray[np.float64]) -> Integers:
    """Rule R3: floor(acc * multiplier / 2**shift + 1/2) in one step."""
    multiplier, exponent = fixed_points(scales)
    shift = 31 - exponent
    if np.any(shift < 1) or np.any(np.abs(acc) >= 1 << 31):
        raise ValueError("this reference is written for scales below 2**30 and 32-bit accumulators")
    return (acc * multiplier + (1 << (shift - 1))) >> shift


def vsq_encode(acc: Integers, scales: NDArray[np.float64]) -> Operand:
    """Accumulators [..., O] to unsigned VSQ codes and block scales, after ReLU; scales [O] = gamma_in / gamma_out.

    The coarse scale is applied with VSQ_GUARD_BITS fraction bits; each vector of 16 output channels then takes its own
    integer scale, that of its largest value (nearest, ties up), and its elements are divided by it (nearest, ties up).
    """
    fixed = np.maximum(half_up(acc, scales * (1 << VSQ_GUARD_BITS)), 0)
    vectors = fixed.reshape(*fixed.shape[:-1], -1, VSQ_SIZE)  # the channel counts are multiples of 16
    top = vectors.max(-1)
    full = VSQ_CODE_MAX << VSQ_GUARD_BITS
    block_scales = np.minimum((2 * top + full) // (2 * full), VSQ_SCALE_MAX)
    step = np.maximum(block_scales, 1)[..., None] << VSQ_GUARD_BITS
    codes = np.minimum((2 * vectors + step) // (2 * step), VSQ_CODE_MAX)
    codes = np.where(block_scales[..., None] == 0, 0, codes)
    return Operand(codes.reshape(acc.shape), block_scales)
