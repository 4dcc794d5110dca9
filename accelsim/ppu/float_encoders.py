"""How the PPU's float path emits each kind of format: what the format's quantizer is told, and what encoding takes.

One entry of `FLOAT_ENCODERS` a kind; its oracle is one of accelsim.ppu.float_output_oracle. What a kind counts beside
what all float outputs do (accelsim.ppu.cost):

===================  ==========================================================================================
OCP MX               compare(8): the largest exponent of a block, its elements - 1; add(9): one a block (emax) and one
                     an output (the element's exponent less the block's). Scale rules other than "floor" need the
                     largest number, not only its exponent: compare(31) in place of compare(8), and one compare(24) a
                     block: its significand decides whether the exponent goes up
MX9, MX6, MX4        compare(8): the largest exponent of a block, its elements - 1, and one a pair (is it below the
                     block's); add(9): one an output
NVFP4                compare(31): the largest number of a block, its elements - 1; divide(24, 3): one a block (by 6),
                     shift_clamp() one a block (its scale to E4M3), divide(24, 4): one a block (the reciprocal of the
                     scale); fp32_mult(): one an output (the element times the reciprocal)
powers of two        compare(24): one an output (the significand with the root of 2)
===================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from accelsim.config.model import Ppu
from accelsim.formats.microexponents import MicroexponentFormat
from accelsim.formats.minifloat import ElementRounding, MinifloatFormat
from accelsim.formats.nvfp4 import Nvfp4Format
from accelsim.formats.ocp_mx import OcpMxFormat
from accelsim.formats.power_of_two import PowerOfTwoFormat
from accelsim.formats.spec import Format
from accelsim.formats.tensor import block_count

Counts = Iterable[tuple[Any, ...]]
"""(operation, how many, its parameters ...)"""


def _nothing_more(rows: int, channels: int, blocks: int, ppu: Ppu) -> Counts:
    return ()


def _mx_work(rows: int, channels: int, blocks: int, ppu: Ppu) -> Counts:
    outputs, floor = rows * channels, ppu.mx_scale_rule == "floor"
    return (
        ("compare", outputs - blocks, 8 if floor else 31),
        ("compare", 0 if floor else blocks, 24),
        ("add", outputs + blocks, 9),
    )


def _microexponent_work(rows: int, channels: int, blocks: int, ppu: Ppu) -> Counts:
    outputs, pairs = rows * channels, rows * block_count(channels, 2)
    return ("compare", outputs - blocks + pairs, 8), ("add", outputs, 9)


def _nvfp4_work(rows: int, channels: int, blocks: int, ppu: Ppu) -> Counts:
    outputs = rows * channels
    return (
        ("compare", outputs - blocks, 31),
        ("divide", blocks, 24, 3),
        ("shift_clamp", blocks),
        ("divide", blocks, 24, 4),
        ("fp32_mult", outputs),
    )


def _power_of_two_work(rows: int, channels: int, blocks: int, ppu: Ppu) -> Counts:
    return (("compare", rows * channels, 24),)


@dataclass(frozen=True)
class FloatEncoder:
    """What the float path has to know of a kind of format.

    work : (rows, channels, blocks of all rows, PPU) -> what encoding counts
    rounds_as_told : elements are rounded as the silicon does (ppu.element_rounding), not by the format's definition
    scales_as_told : blocks' exponents are chosen by the silicon's rule (ppu.mx_scale_rule)
    """

    work: Callable[[int, int, int, Ppu], Counts]
    rounds_as_told: bool = False
    scales_as_told: bool = False

    def rounding(self, ppu: Ppu) -> ElementRounding:
        """Return how elements are rounded; powers of two have no ties."""
        return ppu.element_rounding if self.rounds_as_told else "half_even"

    def options(self, ppu: Ppu) -> dict[str, Any]:
        """Return what `quantize` is told: scale 1, since numbers come in units of the output's scale."""
        options: dict[str, Any] = {"scale": 1.0}
        if self.rounds_as_told:
            options["rounding"] = ppu.element_rounding
        if self.scales_as_told:
            options["scale_rule"] = ppu.mx_scale_rule
        return options


FLOAT_ENCODERS: dict[type, FloatEncoder] = {
    MinifloatFormat: FloatEncoder(_nothing_more, rounds_as_told=True),
    OcpMxFormat: FloatEncoder(_mx_work, rounds_as_told=True, scales_as_told=True),
    MicroexponentFormat: FloatEncoder(_microexponent_work, rounds_as_told=True),
    Nvfp4Format: FloatEncoder(_nvfp4_work),
    PowerOfTwoFormat: FloatEncoder(_power_of_two_work),
}
"""The kinds of formats that the PPU encodes from float32 numbers."""


def float_encoder(output_format: Format) -> FloatEncoder | None:
    """Return how a format is encoded from float32 numbers, or None where it is not."""
    return next((encoder for kind, encoder in FLOAT_ENCODERS.items() if isinstance(output_format, kind)), None)
