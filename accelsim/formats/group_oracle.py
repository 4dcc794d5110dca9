"""The slow truth of groups under groups of scales: one row of numbers, in exact rationals. Only tests call it.

Scales are lists of the numbers that their types hold, written out from the definitions; nothing is shared with the fast
code but the order of the float64 divisions, which is the definition (GroupFormat.quantize).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from accelsim.formats.float_oracle import floor_log2, minifloat, power
from accelsim.formats.oracle import clamp, divide, quantize_value, round_half_up, to_double

_MINIFLOATS = {"fp8_e4m3": (4, 3, 127), "fp8_e5m2": (5, 2, 124), "fp16": (5, 10, 31744), "bf16": (8, 7, 32640)}


@cache
def scale_values(kind: str) -> tuple[Fraction, ...]:
    """Return what every code of a scale type stands for."""
    if kind in _MINIFLOATS:
        return minifloat(*_MINIFLOATS[kind]).magnitudes
    if kind == "e8m0":
        return tuple(power(code - 127) for code in range(255))
    if kind.startswith("uint"):
        return tuple(Fraction(code) for code in range(2 ** int(kind[4:])))
    return tuple(power(-code) for code in range(2 ** int(kind[1:-2])))


def is_absolute(kind: str) -> bool:
    """Return whether no coarse scale is chosen above a level of this type."""
    return kind in ("e8m0", "fp16", "bf16")


def reference(kind: str) -> int:
    """Return what the levels above this one are divided by."""
    return 1 if is_absolute(kind) or kind.endswith("m0") else int(max(scale_values(kind)))


def product_of_references(levels: Sequence[tuple[int, str]]) -> int:
    """Return R of what lies above `levels`."""
    product = 1
    for _, kind in levels:
        product *= reference(kind)
    return product


def choose(kind: str, step: Fraction, peak: Fraction, high: int, rounding: str) -> int:
    """Return the code of one group's scale."""
    values = scale_values(kind)
    if kind.endswith("m0"):  # powers of two: look for the exponent
        if peak == 0:
            return values.index(min(values))
        exponent = floor_log2(peak) - floor_log2(Fraction(high))
        if rounding == "up":
            exponent -= 1
            while peak > high * power(exponent):
                exponent += 1
        inside = clamp(exponent, floor_log2(min(values)), floor_log2(max(values)))
        return values.index(power(inside))
    if rounding == "up":
        return next((code for code, value in enumerate(values) if value >= step), len(values) - 1)
    if kind.startswith("uint"):
        return clamp(round_half_up(step), 0, len(values) - 1)
    return minifloat(*_MINIFLOATS[kind]).encode(step)


@dataclass(frozen=True)
class GroupedRow:
    """A quantized row: codes, and the scale codes of each level's groups, level 0 first."""

    codes: list[int]
    scale_codes: list[list[int]]


def coarse_scale(values: Sequence[float], levels: Sequence[tuple[int, str]], high: int, *, signed: bool) -> float:
    """Return the coarse scale of a tensor that is this row."""
    largest = max(abs(x) if signed else max(x, 0.0) for x in values)
    if is_absolute(levels[-1][1]) or largest == 0:
        return 1.0
    step = float(Fraction(largest) / high)
    scale = float(Fraction(step) / product_of_references(levels))
    # What the largest codes mean must be a double: beyond halfway to 2**1024 it would be infinite.
    if Fraction(scale) * high * product_of_references(levels) >= 2**1024 - 2**970:
        scale = math.nextafter(scale, 0.0)
    return max(scale, 2.0**-1022)


def quantize_row(
    values: Sequence[float],
    levels: Sequence[tuple[int, str]],
    coarse: float,
    low: int,
    high: int,
    rounding: str = "nearest",
) -> GroupedRow:
    """Quantize a row under a coarse scale, from the top level down."""
    factors = [Fraction(1)] * len(values)  # of each element: the product of the scales above it
    scale_codes: list[list[int]] = []
    for level in reversed(range(len(levels))):
        size, kind = levels[level]
        below = product_of_references(levels[:level])
        found = []
        for start in range(0, len(values), size):
            group = values[start : start + size]
            largest = max(abs(x) if low < 0 else max(x, 0.0) for x in group)
            above = to_double(factors[start] * Fraction(coarse))
            step = peak = Fraction(0)
            if above > 0:
                step = divide(float(Fraction(float(Fraction(largest) / high)) / below), above)
                peak = divide(float(Fraction(largest) / below), above)
            code = choose(kind, step, peak, high, rounding)
            found.append(code)
            for i in range(start, start + len(group)):
                factors[i] *= scale_values(kind)[code]
        scale_codes.insert(0, found)
    codes = []
    for x, factor in zip(values, factors, strict=True):
        step_size = to_double(factor * Fraction(coarse))
        codes.append(quantize_value(x, step_size, 0, low, high) if step_size > 0 else 0)
    return GroupedRow(codes, scale_codes)
