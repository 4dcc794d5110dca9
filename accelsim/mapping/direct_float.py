"""Sums of numbers with exponents, for the independent reference (accelsim.mapping.direct).

Follows docs/numerics.md, section 5. A block's sum is an exact integer times a power of two; what becomes of it in a
fixed-point or a float32 register is decided here, without any rounding but the one that the register does.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import FloatUnit
from accelsim.formats.spec import QTensor
from accelsim.mapping.direct_elements import Element, Elements, Exact, Operand, runs

SHIFTED_LIMIT = (1 << 48) - 1
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
EXACT_IN_FLOAT64 = 1 << 53
INT64_SUMS = 1 << 61
"""Sums below this in magnitude are computed in int64, with room for a shift and a rounding half."""


def float_operands(x: QTensor, weight: QTensor, terms: int, unit: FloatUnit) -> tuple[Operand, Operand, int]:
    """Return x, weight and the exponent that all their products share.

    With `align_bits` values are significands with exponents of their own, and nothing is shared. Otherwise each
    tensor's values are shifted to its smallest exponent, so that products can be added as they are.

    terms : products that are added at most before a block scale is applied
    """
    operands, shared, bound = [], 0, terms << (unit.align_bits or 0)
    for tensor in (x, weight):
        lanes = tensor.lanes()
        values, exponents = lanes.values.astype(object), lanes.exponents
        if exponents is not None and unit.align_bits is None:
            lowest = int(exponents.min())
            values, exponents, shared = values << (exponents.astype(object) - lowest), None, shared + lowest
        largest_scale = 1 if lanes.block_scales is None else int(lanes.block_scales.max())
        bound *= max(1, int(np.abs(values).max())) * max(1, largest_scale)
        operands.append(
            Operand(
                values,
                None if exponents is None else exponents.astype(np.int64),
                lanes.block_scales,
                None if lanes.block_exponents is None else lanes.block_exponents.astype(np.int64),
            )
        )
    dtype = np.dtype(np.int64 if bound < INT64_SUMS else object)
    first, second = (
        Operand(
            o.values.astype(dtype),
            o.exponents,
            None if o.scales is None else o.scales.astype(dtype),
            o.block_exponents,
        )
        for o in operands
    )
    return first, second, shared


def block_value(block: Iterable[Element], shared: int, align_bits: int | None) -> tuple[Exact, Exact]:
    """Return (integer, exponent): the scaled sum of a block's products is integer * 2**exponent, exactly."""
    elements = list(block)
    dot, exponent = (
        (sum(element.product for element in elements), np.full(1, shared))
        if align_bits is None
        else _aligned(elements, align_bits)
    )
    last = elements[-1]
    return np.asarray(dot * last.scale), np.asarray(exponent + last.block_exponent)


def _aligned(elements: list[Element], align_bits: int) -> tuple[Exact, Exact]:
    """Add products in units of 2**-align_bits of the largest exponent among those that are not zero; truncate each."""
    nowhere = np.iinfo(np.int64).min // 2
    top = np.full(1, nowhere)
    for element in elements:
        top = np.maximum(top, np.where(element.product != 0, element.exponent, nowhere))
    top = np.where(top == nowhere, 0, top)
    total: Exact = np.zeros(1, elements[0].product.dtype)
    for element in elements:
        product, up = element.product, element.exponent - top + align_bits
        # Above the top there are only zeros. Shifting by 62 or more leaves nothing of a magnitude below 2^61.
        magnitude = _shifted_left(np.abs(product), np.clip(up, 0, align_bits))
        magnitude = _shifted_right(magnitude, np.maximum(-up, 0))
        total = total + np.where(product < 0, -magnitude, magnitude)
    return total, top - align_bits


def _shifted_left(values: Exact, by: Exact) -> Exact:
    return np.asarray(values << by.astype(values.dtype))


def _shifted_right(values: Exact, by: Exact) -> Exact:
    """Return floor(values / 2**by); `by` may be any size."""
    furthest = 62 if values.dtype == np.int64 else 4096
    return np.asarray(values >> np.minimum(by, furthest).astype(values.dtype))


def fixed_point(integer: Exact, exponent: Exact, unit: FloatUnit) -> Exact:
    """Return integer * 2**exponent in units of 2**-fraction_bits: rounded, and limited to 49 bits."""
    up = exponent + unit.fraction_bits
    fits = np.abs(integer) <= _shifted_right(np.full(1, SHIFTED_LIMIT), np.maximum(up, 0))
    left = np.where(fits, integer, 0)
    left = _shifted_left(left, np.clip(up, 0, 48))
    left = np.where(fits, left, np.where(integer < 0, -SHIFTED_LIMIT, SHIFTED_LIMIT))
    right = _rounded_right(integer, np.maximum(-up, 0), unit.rounding)
    shifted = np.where(up >= 0, left, right)
    return np.asarray(np.minimum(np.maximum(shifted, -SHIFTED_LIMIT), SHIFTED_LIMIT).astype(np.int64))


def _rounded_right(integer: Exact, by: Exact, rounding: str) -> Exact:
    floor = _shifted_right(integer, by)
    if rounding == "truncate":
        return floor
    furthest = 62 if integer.dtype == np.int64 else 4096
    rest = integer - _shifted_left(floor, np.minimum(by, furthest))
    if rounding == "toward_zero":
        return np.asarray(floor + ((integer < 0) & (rest != 0)))
    whole = _shifted_left(np.ones(1, integer.dtype), np.minimum(by, furthest))
    return np.asarray(floor + ((2 * rest > whole) | ((2 * rest == whole) & (floor % 2 != 0))))


def fixed_bias(bias: NDArray[np.float32] | NDArray[np.int64], unit: FloatUnit) -> Exact:
    """Return real numbers in units of 2**-fraction_bits, rounded half to even, as Python integers."""
    steps = [round(Fraction(number.item()) * Fraction(2) ** unit.fraction_bits) for number in bias]
    return np.array(steps, object)


def float32_accumulators(
    elements: Elements, bias: NDArray[np.float32], sizes: tuple[int, int, int], shared: int, align_bits: int | None
) -> NDArray[np.float32]:
    """Add blocks to a float32 psum and the psums of folds to a float32 accumulator, one rounding an addition.

    sizes : elements of K in a fold (0: all), in a group, and in a block
    """
    fold_size, group_size, block_size = sizes
    acc = add_float32(np.zeros(1), bias.astype(np.float64))
    for fold in runs(elements(), fold_size):
        psum = np.zeros(1)
        for group in runs(fold, group_size):
            for block in runs(group, block_size):
                integer, exponent = block_value(block, shared, align_bits)
                psum = add_product_sum(psum, integer, exponent)
        acc = add_float32(acc, psum)
    return np.ascontiguousarray(acc.astype(np.float32))


def add_product_sum(held: NDArray[np.float64], integer: Exact, exponent: Exact) -> NDArray[np.float64]:
    """Return held + integer * 2**exponent as a float32 register holds it. Exponents are those of formats: below 600."""
    if integer.dtype == np.int64 and int(np.abs(integer).max()) <= EXACT_IN_FLOAT64:
        return add_float32(held, np.ldexp(integer.astype(np.float64), exponent.astype(np.int32)))
    return np.asarray(np.frompyfunc(_add_fractions, 3, 1)(held, integer, exponent), np.float64)


def add_float32(held: NDArray[np.float64], addend: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return held + addend rounded once to float32 (nearest, ties to even; saturating; zero has no sign).

    held, addend, result : float64; `held` holds float32 numbers. Knuth's TwoSum gives the float64 sum and its exact
    error. Where there is one, the neighbour with an odd last bit stands for the exact sum: 53 bits "rounded to odd"
    round to 24 bits as the exact sum does (Boldo and Melquiond, 2008).
    """
    total = np.asarray(held + addend)
    back = total - held
    error = (held - (total - back)) + (addend - back)
    even = total.view(np.int64) & 1 == 0
    odd = np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total)
    with np.errstate(over="ignore"):
        rounded = odd.astype(np.float32).astype(np.float64)
    return np.asarray(np.clip(rounded, -LARGEST_FLOAT32, LARGEST_FLOAT32) + 0.0)


def _add_fractions(held: float, integer: int, exponent: int) -> float:
    total = Fraction(held) + Fraction(int(integer)) * Fraction(2) ** int(exponent)
    if total == 0:
        return 0.0
    # Denominators are powers of two, so the difference of the lengths is floor(log2 |total|).
    binade = abs(total.numerator).bit_length() - total.denominator.bit_length()
    step = Fraction(2) ** max(binade - 23, -149)
    rounded = round(total / step) * step
    return float(min(max(rounded, -Fraction(LARGEST_FLOAT32)), Fraction(LARGEST_FLOAT32)))
