"""Float outputs, one block at a time in exact fractions: the truth for accelsim.ppu.float_output.

Of the formats it takes figures only (widths, sizes); the encoding is that of accelsim.formats.float_oracle, and powers
of two are searched for. Values are Python floats that float32 holds exactly; their signs include that of zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from accelsim.config.model import Ppu
from accelsim.formats import float_oracle
from accelsim.formats.float_oracle import Element, float32, power
from accelsim.formats.microexponents import MicroexponentFormat
from accelsim.formats.minifloat import Minifloat, MinifloatFormat
from accelsim.formats.nvfp4 import Nvfp4Format
from accelsim.formats.ocp_mx import OcpMxFormat
from accelsim.formats.oracle import round_half_even
from accelsim.formats.power_of_two import PowerOfTwoFormat
from accelsim.formats.spec import Format

LARGEST_FLOAT32 = (2 - power(-23)) * power(127)
_MXINT8 = Element(tuple(Fraction(code, 64) for code in range(128)), 6)
_E2M1 = float_oracle.minifloat(2, 1, 8)
_E4M3 = float_oracle.minifloat(4, 3, 127)


class EncodedBlock(NamedTuple):
    """Codes of one block (or of one element, without blocks), its stored scale, and which elements were limited."""

    codes: list[int]
    scale: int | None
    limited: list[bool]


def scaled(acc: int | float, scale: float, six: float | None, *, relu: bool) -> tuple[float, bool]:
    """Return f32(f32(acc) * scale), activated, and whether it is the largest float32 in place of something larger.

    scale : not negative, held exactly by float32, as is `six`, the upper bound of ReLU6
    """
    product = float32(float32(Fraction(acc)) * Fraction(scale))
    beyond = abs(product) > LARGEST_FLOAT32
    magnitude = LARGEST_FLOAT32 if beyond else abs(product)
    value = math.copysign(float(magnitude), acc)
    if relu and value <= 0:
        return 0.0, False
    if six is not None and value > six:
        return six, False
    return value, beyond


def encode_block(values: Sequence[float], output_format: Format, ppu: Ppu) -> EncodedBlock:
    """Encode one block of a format with blocks, or one element of another."""
    for kind, encode in _ENCODERS.items():
        if isinstance(output_format, kind):
            return encode(values, output_format, ppu)
    raise NotImplementedError(f"{output_format.name} has no oracle: add its kind to _ENCODERS of this module")


def _round(value: Fraction, rounding: str) -> int:
    """Round a magnitude."""
    if rounding == "toward_zero":
        return math.floor(value)
    return math.floor(value + Fraction(1, 2)) if rounding == "half_away" else round_half_even(value)


def _limited(quotient: Fraction, element: Element, rounding: str) -> bool:
    """Whether a magnitude would be rounded to one above the largest, if the largest binade went on."""
    step = element.magnitudes[-1] - element.magnitudes[-2]
    return _round(quotient / step, rounding) * step > element.largest


def _signed(indices: Sequence[int], values: Sequence[float], sign_bit: int) -> list[int]:
    return [i | (sign_bit if math.copysign(1, v) < 0 else 0) for i, v in zip(indices, values, strict=True)]


def _element(minifloat: Minifloat) -> Element:
    return float_oracle.minifloat(minifloat.exponent_bits, minifloat.fraction_bits, minifloat.largest_code + 1)


def _encode_minifloat(values: Sequence[float], output_format: MinifloatFormat, ppu: Ppu) -> EncodedBlock:
    element, rounding = _element(output_format.element), ppu.element_rounding
    indices = [element.encode(Fraction(v), rounding) for v in values]
    limited = [_limited(abs(Fraction(v)), element, rounding) for v in values]
    return EncodedBlock(_signed(indices, values, output_format.element.sign_bit), None, limited)


def _encode_mx(values: Sequence[float], output_format: OcpMxFormat, ppu: Ppu) -> EncodedBlock:
    rounding, minifloat = ppu.element_rounding, output_format.element
    element = _element(minifloat) if isinstance(minifloat, Minifloat) else _MXINT8
    indices, exponent = float_oracle.quantize_mx(values, element, ppu.mx_scale_rule, rounding)
    limited = [_limited(abs(Fraction(v)) / power(exponent), element, rounding) for v in values]
    if isinstance(minifloat, Minifloat):
        codes = _signed(indices, values, minifloat.sign_bit)
    else:  # two's complement
        codes = [-i if v < 0 else i for i, v in zip(indices, values, strict=True)]
    return EncodedBlock(codes, exponent + 127, limited)


def _encode_microexponents(values: Sequence[float], output_format: MicroexponentFormat, ppu: Ppu) -> EncodedBlock:
    width = output_format.element_bits
    _, shared, tau = float_oracle.quantize_microexponents(values, width)
    high = (1 << (width - 1)) - 1
    codes, limited = [], []
    for position, v in enumerate(values):
        magnitude = abs(Fraction(v)) if abs(v) >= 2.0**-126 else Fraction(0)
        rounded = _round(magnitude / power(shared - tau[position // 2] - (width - 2)), ppu.element_rounding)
        codes.append(min(rounded, high) * (-1 if v < 0 else 1))
        limited.append(rounded > high)
    return EncodedBlock(codes, (shared + 127) * 256 + sum(bit << i for i, bit in enumerate(tau)), limited)


def _encode_nvfp4(values: Sequence[float], output_format: Nvfp4Format, ppu: Ppu) -> EncodedBlock:
    indices, scale = float_oracle.quantize_nvfp4([Fraction(v) for v in values], Fraction(1))
    limited = [_limited(abs(Fraction(v)) / _E4M3.magnitudes[scale], _E2M1, "half_even") for v in values]
    return EncodedBlock(_signed(indices, values, 8), scale, limited)


def _encode_power_of_two(values: Sequence[float], output_format: PowerOfTwoFormat, ppu: Ppu) -> EncodedBlock:
    codes, limited = [], []
    highest = output_format.exponents - 1
    for v in values:
        # The largest e with |v| >= 2**(e - 1/2), from which e is nearer than e - 1; -1: below the smallest power.
        square, e = Fraction(v) ** 2, -1
        while e < highest and square >= power(2 * (e + 1) - 1):
            e += 1
        limited.append(square >= power(2 * highest + 1))
        if output_format.with_zero:
            codes.append((e + 1) * (-1 if v < 0 else 1))
        else:
            codes.append(max(e, 0) + (1 << (output_format.bits - 1) if v < 0 else 0))
    return EncodedBlock(codes, None, limited)


_ENCODERS: dict[type, Callable[[Sequence[float], Any, Ppu], EncodedBlock]] = {
    MinifloatFormat: _encode_minifloat,
    OcpMxFormat: _encode_mx,
    MicroexponentFormat: _encode_microexponents,
    Nvfp4Format: _encode_nvfp4,
    PowerOfTwoFormat: _encode_power_of_two,
}
