"""The slow truth of the formats: one value at a time, in exact rationals. Only tests and verification call it.

A quantizer is defined on the float64 quotient x / scale (one correctly rounded division); from there on everything is
exact here, so that the fast code can be required to be equal, not close.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal


def round_half_even(value: Fraction) -> int:
    """Return the nearest integer, ties to the even one."""
    whole = math.floor(value)
    rest = value - whole
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1)
    return whole + up


def round_half_up(value: Fraction) -> int:
    """Return the nearest integer, ties towards plus infinity."""
    return math.floor(value + Fraction(1, 2))


def to_double(value: Fraction) -> float:
    """Return the nearest float64 of a non-negative number; the largest float64 for what lies beyond it."""
    try:
        return float(value)
    except OverflowError:
        return sys.float_info.max


def divide(x: float, scale: float) -> Fraction:
    """Return the float64 quotient x / scale as an exact number; one beyond float64 stays exact."""
    exact = Fraction(x) / Fraction(scale)
    return exact if abs(exact) > sys.float_info.max else Fraction(float(exact))


def clamp(value: int, low: int, high: int) -> int:
    """Return `value`, or the nearer bound."""
    return min(max(value, low), high)


def quantize_value(x: float, scale: float, zero_point: int, low: int, high: int) -> int:
    """Return ``clamp(round_half_even(x / scale) + zero_point, low, high)``."""
    return clamp(round_half_even(divide(x, scale)) + zero_point, low, high)


def dequantize_value(code: int, scale: float, zero_point: int = 0, vector_scale: int = 1) -> float:
    """Return ``(code - zero_point) * vector_scale * scale``, exact and then rounded once to float64."""
    return float((code - zero_point) * vector_scale * Fraction(scale))


def vector_scale(
    vector: Sequence[float],
    gamma: float,
    high: int,
    *,
    signed: bool,
    scale_bits: int,
    rounding: Literal["nearest", "up"],
) -> tuple[float, int]:
    """Return a VSQ vector's float scale s and its integer scale sq."""
    largest = max(abs(x) if signed else max(x, 0.0) for x in vector)
    s = float(Fraction(largest) / high)
    ratio = divide(s, gamma)
    sq = math.ceil(ratio) if rounding == "up" else round_half_up(ratio)
    return s, clamp(sq, 0, 2**scale_bits - 1)


def quantize_vector(
    vector: Sequence[float],
    gamma: float,
    low: int,
    high: int,
    *,
    scale_bits: int,
    rounding: Literal["nearest", "up"] = "nearest",
    element_scale: Literal["quantized", "exact"] = "quantized",
) -> tuple[list[int], int]:
    """Return the codes and the integer scale of one VSQ vector under the coarse scale `gamma`."""
    s, sq = vector_scale(vector, gamma, high, signed=low < 0, scale_bits=scale_bits, rounding=rounding)
    step = s if element_scale == "exact" else to_double(sq * Fraction(gamma))
    if sq == 0 or step == 0:
        return [0] * len(vector), sq
    return [quantize_value(x, step, 0, low, high) for x in vector], sq
