"""Real scales as integers: the fixed-point multiplier and shift of a requantization unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError, did_you_mean
from accelsim.rounding import RULES, RoundingRule

# Rules whose published multiplier has 16 bits, whatever the unit could hold.
SIXTEEN_BIT_RULES = frozenset({"half_up_int16_multiplier", "half_away_17bit"})
SMALLEST_TFLITE_EXPONENT = -31
LARGEST_SHIFT = 94  # beyond it every int64 accumulator rounds to 0
LARGEST_EXPONENT = 31


def rule_named(name: str) -> RoundingRule:
    """Return the rule `name`; FormatError (with the nearest name) where there is none."""
    if name not in RULES:
        raise FormatError(f"rounding={name!r} is not a rule{did_you_mean(name, RULES)}; use one of {', '.join(RULES)}")
    return RULES[name]


def effective_bits(rule: str, bits: int) -> int:
    """Return the multiplier width that `rule` uses on hardware whose multiplier has `bits` (sign included)."""
    return min(bits, 16) if rule in SIXTEEN_BIT_RULES else bits


def is_power_of_two(scale: ArrayLike) -> NDArray[np.bool_]:
    """Return where `scale` (positive, real or integer) is an exact power of two: a shift without a multiply."""
    mantissa, _ = np.frexp(np.asarray(scale, np.float64))
    return np.asarray(mantissa == 0.5)


def encode_multiplier(
    scale: ArrayLike, rule: str, bits: int = 32
) -> tuple[NDArray[np.int64] | NDArray[np.float32] | NDArray[np.float64], NDArray[np.int64]]:
    """Return (multiplier, shift), each of `scale`'s shape, such that scale ~ multiplier / 2**shift.

    Integer rules: scale = f * 2**e with 0.5 <= f < 1; multiplier = f * 2**(bits-1) rounded half away from zero (a carry
    to 2**(bits-1) halves it and raises e), shift = bits - 1 - e. So the multiplier has its top bit set:
    [2**(bits-2), 2**(bits-1)). As TFLite's QuantizeMultiplier: e < -31 gives (0, 0).

    - "half_up_int16_multiplier": at most 16 bits; the 16-bit multiplier is the 32-bit one reduced by TFLite's rule,
      min((q31 + 2**15) >> 16, 2**15 - 1): rounded twice, and capped where others carry.
    - "half_away_17bit": at most 16 bits.
    - "dyadic_half_even": small scales are kept down to shift 94, below which no int64 accumulator rounds to anything
      but 0; then (0, 0).

    Float rules: (scale rounded to float32 or float64, zeros); `bits` has no meaning.

    scale : real, any shape, finite, >= 0 and < 2**31. Zero (a dead channel) gives (0, 0).
    bits : 2..32, sign included

    Raises FormatError for other scales or widths and for unknown rules.
    """
    kind = rule_named(rule).multiplier
    real = np.asarray(scale, np.float64)
    if not np.all(np.isfinite(real) & (real >= 0)):
        bad = real[~(np.isfinite(real) & (real >= 0))].flat[0]
        raise FormatError(f"requantization scale {bad} is not a positive finite number")
    no_shift = np.zeros(real.shape, np.int64)
    if kind == "float64":
        return real.copy(), no_shift
    if kind == "float32":
        if np.any(real > np.finfo(np.float32).max):
            raise FormatError(f"requantization scale {real.max()} does not fit float32, which rule {rule!r} uses")
        return np.asarray(real.astype(np.float32)), no_shift
    if not 2 <= bits <= 32:
        raise FormatError(f"multiplier of {bits} bits: use 2 to 32, sign included")
    if np.any(real >= 2.0**LARGEST_EXPONENT):
        raise FormatError(f"requantization scale {real.max()} is too large for rule {rule!r}: use less than 2**31")
    return _encode(real, rule, effective_bits(rule, bits))


def _encode(real: NDArray[np.float64], rule: str, bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    reduced = rule == "half_up_int16_multiplier" and bits == 16
    first_bits = 32 if reduced else bits
    fraction, exponent = np.frexp(real)
    exponent = exponent.astype(np.int64)
    # Exact in float64: at most 31 integer bits and 53 - 31 fraction bits.
    multiplier = np.floor(fraction * 2.0 ** (first_bits - 1) + 0.5).astype(np.int64)
    carried = multiplier == 1 << (first_bits - 1)
    multiplier = np.where(carried, multiplier >> 1, multiplier)
    exponent = exponent + carried
    if reduced:
        multiplier = np.minimum((multiplier + (1 << 15)) >> 16, (1 << 15) - 1)
    smallest = bits - 1 - LARGEST_SHIFT if rule == "dyadic_half_even" else SMALLEST_TFLITE_EXPONENT
    gone = (exponent < smallest) | (multiplier == 0)
    zero = np.int64(0)
    return np.where(gone, zero, multiplier), np.where(gone, zero, bits - 1 - exponent)
