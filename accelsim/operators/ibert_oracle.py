"""I-BERT's integers, one value at a time, in Python integers and fractions, in the order of its own program."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from accelsim.operators.fixed_point_oracle import clamp, half_away, half_even

f32 = np.float32


def requantized(value: int, ratio: float) -> int:
    """Return value * ratio, the ratio as m / 2**e with m of 31 bits; ties to even."""
    if ratio == 0:
        return 0
    exponent = 0
    while abs(Fraction(ratio)) >= Fraction(2) ** exponent:
        exponent += 1
    while abs(Fraction(ratio)) < Fraction(2) ** (exponent - 1):
        exponent -= 1
    multiplier = half_away(Fraction(ratio) * Fraction(2) ** (31 - exponent))
    return half_even(Fraction(value * multiplier) * Fraction(2) ** (exponent - 31))


def exponential(difference: int, scale: float, exp_scale: float) -> int:
    """Return exp(difference * scale) in steps of exp_scale, a 16-bit code."""
    s = f32(scale)
    x0 = math.floor(f32(-0.6931) / s)
    b = math.floor(f32(0.96963238 / 0.35815147) / s)
    c = math.floor(f32(1.0 / 0.35815147) / (s * s))
    x = max(difference, 30 * x0)
    q = math.floor(Fraction(x, x0))
    r = x - x0 * q
    value = max((r * (r + b) + c) * 2 ** (30 - q), 0)
    unit = f32(0.35815147) * (s * s) / f32(2.0**30)
    return clamp(requantized(value, float(unit) / float(f32(exp_scale))), -(1 << 15), (1 << 15) - 1)


def softmax(row: list[int], scale: float, exp_scale: float, bits: int) -> list[int]:
    """Return the row's shares in steps of 2**-bits; row : differences to its maximum."""
    exps = [exponential(difference, scale, exp_scale) for difference in row]
    factor = math.floor(Fraction(2**32, sum(exps)))
    return [math.floor(Fraction(exp * factor, 2 ** (32 - bits))) for exp in exps]


def gelu(x: int, scale: float, output_scale: float) -> int:
    """Return GELU of x * scale, in steps of output_scale."""
    s = f32(scale) / f32(1.4142)
    b = math.floor(f32(-1.769) / s)
    c = math.floor(f32(1 / -0.2888) / (s * s))
    sign = (x > 0) - (x < 0)
    y = sign * ((min(abs(x), -b) + b) ** 2 + c)
    erf = math.floor(Fraction(y, 2**14))
    unit = (s * s) * f32(-0.2888) * f32(2.0**14)
    product = x * (erf + math.floor(f32(1.0) / unit))
    return requantized(product, float(f32(scale) * unit / f32(2)) / float(f32(output_scale)))


def layer_norm(
    row: list[int], gamma: list[np.float32], beta: list[np.float32], output_scale: float, shift: int
) -> list[int]:
    """Return a normalized row in steps of output_scale; gamma, beta : one a channel, float32."""
    count = len(row)
    mean = half_even(Fraction(sum(row), count))
    differences = [code - mean for code in row]
    variance = sum(math.floor(Fraction(y, 2**shift)) ** 2 for y in differences)
    factor = math.floor(Fraction(2**31, max(math.isqrt(variance) * 2**shift, 1)))
    unit = np.sqrt(f32(count)) / f32(2.0**30)
    found = []
    for y, weight, bias in zip(differences, gamma, beta, strict=True):
        normal = math.floor(Fraction(y * factor, 2)) + math.floor(bias / weight / unit)
        found.append(requantized(normal, float(unit * weight) / float(f32(output_scale))))
    return found
