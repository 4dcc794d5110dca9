"""What both engines require of their input, and the widths of registers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import ShapeError, UnsupportedLayerError
from accelsim.mapping.contract import BlockScaling, GemmOperands, LayerPlan

# Kernels hold exact sums in int64; one more addend, or a register's content, must still fit beside them.
EXACT_LIMIT = 1 << 62
# The shifter in front of a fixed-point psum limits what it delivers to this, either sign (Summation).
SHIFTED_LIMIT = (1 << 48) - 1
# Six such exponents (of two lanes, two blocks, a unit and a last bit) still add up to a power of two that, times any
# exact sum, is a normal float64 number. No format's exponents reach it (bfloat16: -133 to 127).
EXPONENT_LIMIT = 160


def register_limits(bits: int) -> tuple[int, int]:
    """Return the smallest and largest value of a two's-complement register."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def _check_array(name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise ShapeError(f"{name} is {array.dtype} {list(array.shape)}; the plan needs {np.dtype(dtype)} {list(shape)}")


def check_operands(operands: GemmOperands, plan: LayerPlan) -> int:
    """Raise ShapeError where operands and plan do not fit; UnsupportedLayerError where exact sums may leave int64.

    Returns `exact_bound`.
    """
    check_shapes(operands, plan)
    bound = exact_bound(operands, plan)
    check_bound(operands, plan, bound)
    return bound


def check_shapes(operands: GemmOperands, plan: LayerPlan) -> None:
    """Raise ShapeError where operands and plan do not fit."""
    shape, summation = plan.shape, operands.summation
    if (operands.product, summation) != (plan.product, plan.summation):
        raise ShapeError(
            f"operands with product {operands.product!r} and {summation} were given to a plan of product "
            f"{plan.product!r} and {plan.summation}"
        )
    _check_array("a", operands.a, np.int32, (shape.batch, shape.m, shape.k))
    _check_array("w", operands.w, np.int32, (shape.batch, shape.k, shape.n))
    bias_type = np.float32 if summation.kind == "float32" else np.int64
    _check_array("bias", operands.bias, bias_type, (shape.batch, shape.n))
    if not np.isfinite(operands.bias).all():
        raise ShapeError("the bias has values that are not finite; float32 accumulators are preloaded with numbers")
    _check_array("k_valid", operands.k_valid, np.bool_, (shape.k,))
    if operands.blocks is not None:
        _check_blocks(operands.blocks, plan)
    _check_lane_exponents(operands, plan)
    for name in ("unit_exponent", "lsb_exponent"):
        if abs(getattr(summation, name)) > EXPONENT_LIMIT:
            raise UnsupportedLayerError(
                f"summation.{name} is {getattr(summation, name)}; the engines take -{EXPONENT_LIMIT} to "
                f"{EXPONENT_LIMIT}"
            )


def check_bound(operands: GemmOperands, plan: LayerPlan, bound: int) -> None:
    """Raise UnsupportedLayerError where exact sums, which `bound` bounds, may leave int64."""
    shape, summation = plan.shape, operands.summation
    if bound >= EXACT_LIMIT:
        what = "exact sums of this layer" if summation.kind == "integer" else "exact sums of a block of this layer"
        aligned = "" if summation.align_bits is None else f", fewer align_bits than {summation.align_bits}"
        raise UnsupportedLayerError(
            f"{what} may reach {bound:,} (about 2^{bound.bit_length()}), but the engines hold exact "
            f"sums below 2^62; use narrower operands or block scales{aligned}, or split K={shape.k}"
        )
    if summation.kind == "fixed":
        total = shifted_bound(operands, plan) * -(-shape.k // addend_size(operands, plan))
        if total >= EXACT_LIMIT:
            raise UnsupportedLayerError(
                f"fixed-point sums of this layer may reach 2^{total.bit_length()}, but the engines hold exact sums "
                f"below 2^62; use fewer fraction bits, or split K={shape.k}"
            )


def _check_blocks(blocks: BlockScaling, plan: LayerPlan) -> None:
    shape = plan.shape
    count, ragged = divmod(shape.k, blocks.size)
    if ragged:
        raise ShapeError(f"K={shape.k} is not a multiple of the block size {blocks.size}; pad K with zeros")
    of_a, of_w = (shape.batch, shape.m, count), (shape.batch, count, shape.n)
    _check_array("a_scales", blocks.a_scales, np.int32, of_a)
    _check_array("w_scales", blocks.w_scales, np.int32, of_w)
    short, long = sorted((plan.lanes, blocks.size))
    if long % short:
        raise ShapeError(
            f"a block of {blocks.size} elements and {plan.lanes} lanes do not divide one another; "
            f"choose one as a multiple of the other"
        )
    if blocks.a_scales.size and min(blocks.a_scales.min(), blocks.w_scales.min(initial=0)) < 0:
        raise ShapeError("block scales are unsigned integers, but some are negative")
    if blocks.product_shift and plan.summation.kind != "integer":
        raise ShapeError(
            f"product_shift is 0 with {plan.summation.kind} summation; found {blocks.product_shift}: only integer "
            f"scale products drop low bits"
        )
    if (blocks.a_exponents is None) != (blocks.w_exponents is None):
        raise ShapeError("block scales of one operand have exponents, those of the other have none")
    if blocks.a_exponents is None or blocks.w_exponents is None:
        return
    _check_exponents("block a_exponents", blocks.a_exponents, of_a)
    _check_exponents("block w_exponents", blocks.w_exponents, of_w)
    if plan.summation.kind == "integer":
        raise ShapeError("block scales with exponents need float32 or fixed summation, not integer")


def _check_exponents(name: str, exponents: NDArray[np.int32], shape: tuple[int, ...]) -> None:
    _check_array(name, exponents, np.int32, shape)
    low, high = int(exponents.min(initial=0)), int(exponents.max(initial=0))
    if low < -EXPONENT_LIMIT or high > EXPONENT_LIMIT:
        raise UnsupportedLayerError(
            f"{name} reach from {low} to {high}; the engines take exponents from -{EXPONENT_LIMIT} to {EXPONENT_LIMIT}"
        )


def _check_lane_exponents(operands: GemmOperands, plan: LayerPlan) -> None:
    summation, shape = plan.summation, plan.shape
    given = operands.a_exponents is not None, operands.w_exponents is not None
    if given != (summation.align_bits is not None,) * 2:
        raise ShapeError(
            f"lane exponents of a and w are given: {given[0]}, {given[1]}, and summation.align_bits is "
            f"{summation.align_bits}; all three, or none of them"
        )
    if summation.align_bits is None or operands.a_exponents is None or operands.w_exponents is None:
        return
    _check_exponents("a_exponents", operands.a_exponents, (shape.batch, shape.m, shape.k))
    _check_exponents("w_exponents", operands.w_exponents, (shape.batch, shape.k, shape.n))
    if summation.kind == "integer" or summation.unit_exponent:
        raise ShapeError(
            f"lanes with exponents need float32 or fixed summation and unit_exponent 0; found {summation.kind} and "
            f"{summation.unit_exponent}"
        )
    if plan.steps_per_group > 1:
        raise ShapeError("a block of lanes with exponents lies within one lane step; this plan spreads it over several")


def largest_magnitude(array: NDArray[np.signedinteger]) -> int:
    """Return max |array| as a Python integer; 0 of an empty one."""
    return max(int(array.max(initial=0)), -int(array.min(initial=0)))


def addend_size(operands: GemmOperands, plan: LayerPlan) -> int:
    """Return the elements whose products reach the psum as one number: a block, or else the lanes of a step."""
    return operands.blocks.size if operands.blocks is not None else plan.group


def exact_bound(operands: GemmOperands, plan: LayerPlan) -> int:
    """Return what no exact sum of products (bias apart) can exceed in magnitude, nor any product on its way.

    Integer summation: of all K; with exponents: of what reaches the psum as one number, in its own units.
    """
    bound = largest_magnitude(operands.a) * largest_magnitude(operands.w)
    blocks, summation = operands.blocks, operands.summation
    elements = operands.shape.k
    if summation.kind != "integer":
        elements = min(elements, addend_size(operands, plan))
    bound *= elements << (summation.align_bits or 0)
    if blocks is not None:
        product = largest_magnitude(blocks.a_scales) * largest_magnitude(blocks.w_scales)
        if blocks.product_shift:
            product = (product + (1 << (blocks.product_shift - 1))) >> blocks.product_shift
        bound *= max(1, product)  # scales of zero do not make the dot products before them any smaller
    return bound


def largest_exponent(operands: GemmOperands) -> int:
    """Return what the exponent of no block's exact sum can exceed."""
    blocks, total = operands.blocks, operands.summation.unit_exponent
    arrays = [operands.a_exponents, operands.w_exponents]
    if blocks is not None:
        arrays += [blocks.a_exponents, blocks.w_exponents]
    return total + sum(int(array.max()) for array in arrays if array is not None and array.size)


def shifted_bound(operands: GemmOperands, plan: LayerPlan) -> int:
    """Return what no block sum can exceed behind the shifter of fixed-point psums."""
    left = largest_exponent(operands) - operands.summation.lsb_exponent
    bound = exact_bound(operands, plan)
    shifted = bound << min(left, 48) if left >= 0 else (bound >> min(-left, 63)) + 1
    return min(shifted, SHIFTED_LIMIT)
