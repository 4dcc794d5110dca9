"""VSQ output of one vector, in exact fractions: the truth for the kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple


class EncodedVector(NamedTuple):
    """Codes of one vector, its integer scale, and how many codes the element's range moved."""

    codes: list[int]
    scale: int
    saturated: int


def encode_vector(
    values: Sequence[int], low: int, high: int, scale_bits: int, guard_bits: int, round_up: bool
) -> EncodedVector:
    """Encode `values`, integers in units of gamma / 2**guard_bits, as VS-Quant elements in [low, high].

    The vector's ideal scale is its largest magnitude (largest value, where elements are unsigned) over `high`, in units
    of gamma; rounded half up, or up, to `scale_bits` bits. Then each element is rounded half up by the rounded scale.
    """
    half = Fraction(1, 2)
    in_gamma = [Fraction(value, 1 << guard_bits) for value in values]
    top = max([abs(x) if low < 0 else x for x in in_gamma] + [Fraction(0)])
    scale = math.ceil(top / high) if round_up else math.floor(top / high + half)
    scale = min(scale, (1 << scale_bits) - 1)
    rounded = [math.floor(x / scale + half) if scale else 0 for x in in_gamma]
    codes = [min(max(code, low), high) for code in rounded]
    return EncodedVector(codes, scale, sum(a != b for a, b in zip(codes, rounded, strict=True)))
