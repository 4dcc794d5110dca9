"""Softmax of 16-bit codes by two interpolated tables, as TFLite's reference kernel (docs/operators.md, Softmax)."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from accelsim.actions import Actions
from accelsim.errors import FormatError
from accelsim.formats.spec import Codes
from accelsim.operators import fixed_point_oracle as integers
from accelsim.operators.common import add_actions, compare_actions, meaning, vector_actions
from accelsim.operators.fixed_point import Int64Array, multiply, quantize_multiplier
from accelsim.operators.interpolated import FRACTION_BITS, HIGH, LOW, interpolated, interpolated_one, points_of
from accelsim.operators.spec import TensorSpec

REACH = 10.0 / 65535
"""What a step of the exponential's argument means: 16 bits for -10 to 0."""


@cache
def tables() -> tuple[Codes, Codes]:
    """Return the points of exp over [-10, 0] and of 1 / (1 + x) over [0, 1], in steps of 2**-15."""
    exponential = points_of(math.exp, (REACH, HIGH), (2 / 65535, 0))
    reciprocal = points_of(lambda x: 1 / (1 + x), (1 / 65535, LOW), (2 / 65535, 0))
    return exponential, reciprocal


def check(x: TensorSpec, output: TensorSpec, beta: float, length: int) -> None:
    """Raise FormatError where the rule does not take these tensors."""
    if x.format.name != "int16" or output.format.name != "int16" or (output.scale, output.zero_point) != (2.0**-15, 0):
        raise FormatError(f"softmax of 16-bit codes makes int16 with scale 2**-15; found {meaning(output)}")
    if _factor(x.scale, beta)[1] > 14:
        raise FormatError(f"beta {beta:g} and the input scale {x.scale:g} leave int32; use less than 2 together")
    if length > 1 << 16:
        raise FormatError(f"a row of {length} elements may not fit the sum of 32 bits; use at most {1 << 16}")


def _factor(scale: float, beta: float) -> tuple[int, int]:
    return quantize_multiplier(float(np.float32(scale)) * float(np.float32(beta)) / REACH)


def softmax_codes(differences: Int64Array, beta: float, scale: float) -> Int64Array:
    """Return the codes of rows along the last axis, from differences to each row's largest code."""
    exponential, reciprocal = tables()
    arguments = np.clip(multiply(differences, *_factor(scale, beta)) + HIGH, LOW, HIGH)
    exps = interpolated(exponential, arguments)
    total = exps.sum(axis=-1, keepdims=True)
    bits = np.frexp(total.astype(np.float64))[1].astype(np.int64)  # total < 2**bits
    mantissa = ((total << (31 - bits)) + (1 << 13)) >> 14
    inverse = interpolated(reciprocal, np.clip(mantissa - (3 << 15), LOW, HIGH))
    shift = bits - 1
    return np.asarray(np.clip((exps * inverse + (np.int64(1) << (shift - 1))) >> shift, 0, HIGH))


def oracle_row(row: list[int], beta: float, scale: float) -> list[int]:
    """Return the codes of one row of differences, one value at a time."""
    exponential, reciprocal = (points.tolist() for points in tables())
    factor = integers.quantize_multiplier(float(np.float32(scale)) * float(np.float32(beta)) / REACH)
    exps = [
        interpolated_one(exponential, integers.clamp(integers.multiply(each, *factor) + HIGH, LOW, HIGH))
        for each in row
    ]
    total = sum(exps)
    bits = total.bit_length()
    mantissa = (total * 2 ** (31 - bits) + 2**13) // 2**14
    inverse = interpolated_one(reciprocal, integers.clamp(mantissa - 3 * 2**15, LOW, HIGH))
    return [integers.clamp((2 * exp * inverse + 2 ** (bits - 1)) // 2**bits, 0, HIGH) for exp in exps]


def actions(count: int, rows: int) -> Actions:
    """Count maxima, differences, both tables, the sum, and the product with the reciprocal."""
    lines = vector_actions({("lookup", (9, 16)): 2, ("mult", (17, FRACTION_BITS)): 1, ("add", (17,)): 2})
    total = compare_actions(2 * count - rows, 16) + add_actions(count, 17)
    total += vector_actions({("mult", (17, 32)): count, ("mult", (16, 16)): count, ("shift_clamp", ()): 2 * count})
    total += add_actions(4 * count, 32) + vector_actions({("barrel_shift", (32,)): count + rows})
    return total + lines * (count + rows)
