"""The lane step of a layer: how many elements of K a PE takes at once, and how long that lasts.

`parallel` hardware gives every layer the same step. A fusing multiplier takes more narrow elements, a bit-serial one
takes as long as its serial operands are wide, an XNOR unit takes a word of bits (docs/timing.md, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.config.model import FUSION_BITS, HardwareConfig
from accelsim.mapping.contract import Product


@dataclass(frozen=True)
class LaneStep:
    """lanes : elements of K in one step; cycles : array cycles that it lasts."""

    lanes: int
    cycles: int


def lane_step(config: HardwareConfig, product: Product, *, a_bits: int, w_bits: int) -> LaneStep:
    """Return the step of a layer whose operands have these widths at the multiplier.

    fusion : an operand occupies the next width of 2, 4, 8 or 16 bits; the PE's bricks divide by what is left over of
        the ports, and an operand wider than its port is worked off in pieces, one after another (Sharma et al., "Bit
        Fusion", ISCA 2018, section III: 8-bit PEs multiply 16 bits in four cycles)
    bit_serial : both operands serial: the product of the widths (BISMO; Umuroglu et al., FPL 2018); one: its width
        (Stripes; Judd et al., MICRO 2016)
    """
    array = config.array
    a_pieces, w_pieces = operand_pieces(config, product, a_bits=a_bits, w_bits=w_bits)
    lanes = array.lanes
    if product == "xnor":
        assert array.popcount is not None  # support.check_supported saw to it
        lanes = array.popcount.word_bits
    elif array.multiplier.kind == "fusion":
        a_gain = max(1, array.activation.bits // fused_bits(a_bits))
        lanes *= a_gain * max(1, array.weight.bits // fused_bits(w_bits))
    return LaneStep(lanes, a_pieces * w_pieces)


def operand_pieces(config: HardwareConfig, product: Product, *, a_bits: int, w_bits: int) -> tuple[int, int]:
    """Return the pieces (bits, where an operand is serial) that each activation and each weight is worked off in.

    Every piece of one meets every piece of the other, a pair a cycle; see :func:`lane_step`.
    """
    array, kind, serial = config.array, config.array.multiplier.kind, config.array.multiplier.serial
    if product != "xnor" and kind == "fusion":
        a_pieces = max(1, fused_bits(a_bits) // array.activation.bits)
        return a_pieces, max(1, fused_bits(w_bits) // array.weight.bits)
    if product != "xnor" and kind == "bit_serial":
        return (a_bits if serial != "weight" else 1), (w_bits if serial != "activation" else 1)
    return 1, 1


def fused_bits(bits: int) -> int:
    """Return the width that an operand occupies in a fusing multiplier."""
    return next(width for width in FUSION_BITS if width >= bits)
