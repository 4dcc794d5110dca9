"""I-BERT's integers (Kim et al. 2021): exponentials, erf, square roots by polynomials (docs/operators.md, I-BERT).

I-BERT's own program simulates these integers in float32, whose roundings are not repeated here. The constants depend
on scales through float32 floors, and those are: see `Constants`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from accelsim.errors import FormatError
from accelsim.operators.fixed_point import Int64Array, dyadic, half_even_product

F = np.float32

EXP_SHIFT = 30
EXP_BITS = 16  # of the exponentials that are summed
SUM_SHIFT = 32
ERF_SHIFT = 14
SMALLEST_SCALE = 2.0**-20
LARGEST_SCALE_EXP = 1.0
LARGEST_SCALE_ERF = 2.0**-8  # beyond, the integers of erf have too few steps to mean anything


class ExpConstants(NamedTuple):
    """log2 : -floor(0.6931 / scale), one halving; b, c : of the polynomial r * (r + b) + c; unit : what 1 means."""

    log2: int
    b: int
    c: int
    unit: float


class ErfConstants(NamedTuple):
    """b, c : of the polynomial (|q| + b)**2 + c; one : the code of 1 (negative); unit : what a result's 1 means."""

    b: int
    c: int
    one: int
    unit: float


def check_scale(scale: float, largest: float) -> None:
    """Raise FormatError for input scales that leave the integers no room."""
    if not SMALLEST_SCALE <= scale <= largest:
        raise FormatError(
            f"rule 'ibert' takes input scales from 2**-20 to {largest:g} here (it is made for wide codes, such as "
            f"accumulators); found {scale:g}"
        )


def exp_constants(scale: float) -> ExpConstants:
    """Return the constants of the exponential: 0.35815147 * (x**2 + ...) on [-ln 2, 0]."""
    a, b, c = 0.35815147, 0.96963238 / 0.35815147, 1.0 / 0.35815147
    s = F(scale)
    square = F(s * s)
    unit = F(F(a) * square) / F(2**EXP_SHIFT)
    return ExpConstants(math.floor(F(-0.6931) / s), math.floor(F(b) / s), math.floor(F(c) / square), float(unit))


def exponential_codes(differences: Int64Array, scale: float, exp_scale: float) -> Int64Array:
    """Return the exponentials of differences <= 0, in steps of `exp_scale`, at most 16 bits.

    The polynomial's value times 2**(30 - n), n halvings, is requantized dyadically; the two shifts are one.
    """
    constants = exp_constants(scale)
    limited = np.maximum(differences, EXP_SHIFT * constants.log2)
    halvings = limited // constants.log2
    rest = limited - constants.log2 * halvings
    polynomial = np.maximum(rest * (rest + constants.b) + constants.c, 0)
    multiplier, shift = dyadic(constants.unit / float(F(exp_scale)))
    codes = half_even_product(polynomial, multiplier, shift - EXP_SHIFT + halvings)
    return np.asarray(np.minimum(codes, (1 << (EXP_BITS - 1)) - 1))


def softmax_codes(differences: Int64Array, scale: float, exp_scale: float, bits: int) -> Int64Array:
    """Return the shares of each row (last axis) in steps of 2**-bits, rounded down twice."""
    exps = exponential_codes(differences, scale, exp_scale)
    factor = (1 << SUM_SHIFT) // exps.sum(axis=-1, keepdims=True)
    return np.asarray((exps * factor) >> (SUM_SHIFT - bits))


def erf_constants(scale: float) -> ErfConstants:
    """Return the constants of erf(x / sqrt(2)) ~ sign * (-0.2888 * (min(|x|, 1.769) - 1.769)**2 + 1)."""
    a, b, c = -0.2888, -1.769, 1 / -0.2888
    s = F(scale) / F(1.4142)
    square = F(s * s)
    unit = F(F(square * F(a)) * F(2**ERF_SHIFT))
    return ErfConstants(math.floor(F(b) / s), math.floor(F(c) / square), math.floor(F(1) / unit), float(unit))


def gelu_codes(x: Int64Array, scale: float, output_scale: float) -> Int64Array:
    """Return x / 2 * (1 + erf(x / sqrt(2))) in steps of `output_scale`, requantized dyadically."""
    constants = erf_constants(scale)
    magnitude = np.minimum(np.abs(x), -constants.b)
    erf = (np.sign(x) * ((magnitude + constants.b) ** 2 + constants.c)) >> ERF_SHIFT
    return half_even_product(x * (erf + constants.one), *dyadic(gelu_unit(scale) / float(F(output_scale))))


def gelu_unit(scale: float) -> float:
    """Return what 1 means in x * (1 + erf) / 2 (negative), before it is requantized."""
    return float(F(F(scale) * F(erf_constants(scale).unit)) / F(2))


class NormFactors(NamedTuple):
    """What a channel multiplies and adds: bias, then multiplier / 2**shift."""

    bias: Int64Array
    multiplier: Int64Array
    shift: Int64Array


def norm_factors(gamma: Int64Array, gamma_scale: float, beta: Int64Array, beta_scale: float, out: float) -> NormFactors:
    """Return the factors of all channels from the codes of gamma and beta (less zero points), which have scales."""
    count = gamma.size
    unit = np.sqrt(F(count)) / F(2**30)
    weight = gamma.astype(np.float32) * F(gamma_scale)
    bias = beta.astype(np.float32) * F(beta_scale)
    steps = np.floor(bias / weight / unit).astype(np.int64)
    pairs = [dyadic(float(factor) / float(F(out))) for factor in (unit * weight).tolist()]
    return NormFactors(steps, np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs]))


def layer_norm_codes(x: Int64Array, factors: NormFactors, shift: int) -> Int64Array:
    """Return the normalized rows (last axis), in steps of the output.

    x : codes; only their differences matter
    shift : bits that differences lose before they are squared
    """
    count = x.shape[-1]
    mean = _rounded_mean(x.sum(axis=-1, keepdims=True), count)
    y = x - mean
    deviation = _root(((y >> shift) ** 2).sum(axis=-1, keepdims=True)) << shift
    factor = (1 << 31) // np.maximum(deviation, 1)
    normal = ((y * factor) >> 1) + factors.bias
    return half_even_product(normal, factors.multiplier, factors.shift)


def _root(square: Int64Array) -> Int64Array:
    """Return the square root, rounded down."""
    root = np.sqrt(square.astype(np.float64)).astype(np.int64)  # at most one off
    root = root - (root * root > square)
    return np.asarray(root + ((root + 1) ** 2 <= square))


def _rounded_mean(total: Int64Array, count: int) -> Int64Array:
    """Return total / count, ties to even."""
    quotient, remainder = total // count, total % count
    up = (2 * remainder > count) | ((2 * remainder == count) & (quotient & 1 == 1))
    return np.asarray(quotient + up)
