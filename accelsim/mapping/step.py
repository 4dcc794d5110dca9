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
    array, kind = config.array, config.array.multiplier.kind
    if product == "xnor":
        assert array.popcount is not None  # support.check_supported saw to it
        return LaneStep(array.popcount.word_bits, 1)
    if kind == "fusion":
        a_gain, a_pieces = _fused(a_bits, array.activation.bits)
        w_gain, w_pieces = _fused(w_bits, array.weight.bits)
        return LaneStep(array.lanes * a_gain * w_gain, a_pieces * w_pieces)
    if kind == "bit_serial":
        serial = array.multiplier.serial
        cycles = (a_bits if serial != "weight" else 1) * (w_bits if serial != "activation" else 1)
        return LaneStep(array.lanes, cycles)
    return LaneStep(array.lanes, 1)


def fused_bits(bits: int) -> int:
    """Return the width that an operand occupies in a fusing multiplier."""
    return next(width for width in FUSION_BITS if width >= bits)


def _fused(bits: int, port_bits: int) -> tuple[int, int]:
    """Return (operands that a port of this width takes at once, pieces that one operand is cut into)."""
    width = fused_bits(bits)
    return max(1, port_bits // width), max(1, width // port_bits)
