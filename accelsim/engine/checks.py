"""What both engines require of their input, and the widths of registers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import ShapeError, UnsupportedLayerError
from accelsim.mapping.contract import GemmOperands, LayerPlan

# Kernels hold exact sums in int64; one more addend, or a register's content, must still fit beside them.
EXACT_LIMIT = 1 << 62


def register_limits(bits: int) -> tuple[int, int]:
    """Return the smallest and largest value of a two's-complement register."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def _check_array(name: str, array: NDArray[np.generic], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise ShapeError(f"{name} is {array.dtype} {list(array.shape)}; the plan needs {np.dtype(dtype)} {list(shape)}")


def check_operands(operands: GemmOperands, plan: LayerPlan) -> None:
    """Raise ShapeError where operands and plan do not fit; UnsupportedLayerError where exact sums may leave int64."""
    shape = plan.shape
    _check_array("a", operands.a, np.int32, (shape.batch, shape.m, shape.k))
    _check_array("w", operands.w, np.int32, (shape.batch, shape.k, shape.n))
    _check_array("bias", operands.bias, np.int64, (shape.batch, shape.n))
    _check_array("k_valid", operands.k_valid, np.bool_, (shape.k,))
    blocks = operands.blocks
    if blocks is not None:
        count, ragged = divmod(shape.k, blocks.size)
        if ragged:
            raise ShapeError(f"K={shape.k} is not a multiple of the block size {blocks.size}; pad K with zeros")
        _check_array("a_scales", blocks.a_scales, np.int32, (shape.batch, shape.m, count))
        _check_array("w_scales", blocks.w_scales, np.int32, (shape.batch, count, shape.n))
        short, long = sorted((plan.lanes, blocks.size))
        if long % short:
            raise ShapeError(
                f"a block of {blocks.size} elements and {plan.lanes} lanes do not divide one another; "
                f"choose one as a multiple of the other"
            )
        if blocks.a_scales.size and min(blocks.a_scales.min(), blocks.w_scales.min(initial=0)) < 0:
            raise ShapeError("block scales are unsigned integers, but some are negative")
    bound = exact_bound(operands)
    if bound >= EXACT_LIMIT:
        raise UnsupportedLayerError(
            f"exact sums of this layer may reach {bound:,} (about 2^{bound.bit_length()}), but the engines hold exact "
            f"sums below 2^62; use narrower operands or block scales, or split K={shape.k}"
        )


def largest_magnitude(array: NDArray[np.signedinteger]) -> int:
    """Return max |array| as a Python integer; 0 of an empty one."""
    return max(int(array.max(initial=0)), -int(array.min(initial=0)))


def exact_bound(operands: GemmOperands) -> int:
    """Return what no exact sum of products (bias apart) can exceed in magnitude, nor any product on its way."""
    bound = largest_magnitude(operands.a) * largest_magnitude(operands.w) * operands.shape.k
    blocks = operands.blocks
    if blocks is not None:
        product = largest_magnitude(blocks.a_scales) * largest_magnitude(blocks.w_scales)
        if blocks.product_shift:
            product = (product + (1 << (blocks.product_shift - 1))) >> blocks.product_shift
        bound *= max(1, product)  # scales of zero do not make the dot products before them any smaller
    return bound
