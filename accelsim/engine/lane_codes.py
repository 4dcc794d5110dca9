"""The bits that a lane's register holds: what an operand element looks like as it moves from PE to PE.

A register holds zeros where there is no data. Else, by the kind of operand:

integers : two's complement (or plain binary) of the format's width
+1 and -1 : one bit, 1 for +1
floats : significand (two's complement), above it the exponent as it is left when the significand is normalized; 0: all
    zeros
powers of two, where the PE shifts : as stored, sign above exponent + 1; 0: all zeros
codebook weights, where the PE adds up by index : as stored, an index; which index a value has is taken to be its rank
    among the layer's values
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.mapping.contract import GemmOperands, Int32, LayerPlan

PLAIN, SIGN, FLOAT, EXPONENT, POWER, RANK = 0, 1, 2, 3, 4, 5
MOST_BITS = 32


class LaneCode(NamedTuple):
    """How an operand's values become codes.

    kind : PLAIN, SIGN, FLOAT (exponents in the values), EXPONENT (exponents beside them), POWER or RANK
    bits, exponent_bits : of the significand (or of all), and of the exponent above it
    levels : int32, sorted values of a codebook; empty otherwise
    """

    kind: int
    bits: int
    exponent_bits: int
    levels: Int32

    @property
    def total_bits(self) -> int:
        return min(MOST_BITS, self.bits + self.exponent_bits)


def operand_codes(operands: GemmOperands, plan: LayerPlan) -> tuple[LaneCode, LaneCode]:
    """Return how activations, and how weights, become codes."""
    widths, empty = plan.widths, np.zeros(0, np.int32)
    aligned = operands.a_exponents is not None

    def of(bits: int, exponent_bits: int) -> LaneCode:
        if exponent_bits or aligned:
            return LaneCode(EXPONENT if aligned else FLOAT, bits, exponent_bits, empty)
        return LaneCode(SIGN if bits == 1 else PLAIN, bits, 0, empty)

    activation = of(widths.a, widths.a_exponent)
    if plan.product == "shift":
        return activation, LaneCode(POWER, widths.w_code, 0, empty)
    if plan.product == "accumulate":
        levels = np.unique(operands.w[:, operands.k_valid]).astype(np.int32)
        return activation, LaneCode(RANK, widths.w_code, 0, levels)
    return activation, of(widths.w, widths.w_exponent)


def lane_codes(code: LaneCode, values: Int32, exponents: Int32 | None) -> NDArray[np.uint32]:
    """Return the codes of operand elements, uint32 in their shape.

    values : lanes (significands, where exponents are beside them); exponents : or None
    """
    wide = values.astype(np.int64)
    if code.kind == SIGN:
        return (wide > 0).astype(np.uint32)
    if code.kind == RANK:
        return np.searchsorted(code.levels, values).astype(np.uint32)
    mask = (1 << code.bits) - 1
    if code.kind == PLAIN:
        return (wide & mask).astype(np.uint32)
    if code.kind == POWER:
        power = np.frexp(np.abs(wide))[1] | (wide < 0).astype(np.int64) << (code.bits - 1)
        return (np.where(wide == 0, 0, power) & mask).astype(np.uint32)
    if code.kind == FLOAT:
        exponent = np.maximum(np.frexp(np.abs(wide))[1] - (code.bits - 1), 0).astype(np.int64)
        significand = wide >> exponent
    else:
        exponent = np.zeros_like(wide) if exponents is None else exponents.astype(np.int64)
        significand = wide
    high = (exponent & ((1 << code.exponent_bits) - 1)) << code.bits
    packed = ((significand & mask) | high) & ((1 << MOST_BITS) - 1)
    return np.where(wide == 0, 0, packed).astype(np.uint32)
