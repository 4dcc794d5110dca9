"""The slow truth of the float formats: one value, one block at a time, in exact rationals. Only tests call it.

Nothing is shared with the fast code: an element type is the list of its magnitudes, written out from the definition,
and a value is encoded by looking for its neighbours in that list.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from accelsim.formats.oracle import clamp, round_half_even


def power(exponent: int) -> Fraction:
    """Return 2**exponent, exact."""
    return Fraction(2) ** exponent


def floor_log2(value: Fraction) -> int:
    """Return the exponent of a positive number, found by comparing."""
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return exponent if power(exponent) <= value else exponent - 1


@dataclass(frozen=True)
class Element:
    """An element type: magnitudes[i] belongs to the code whose magnitude bits are i."""

    magnitudes: tuple[Fraction, ...]
    fraction_bits: int

    @property
    def largest(self) -> Fraction:
        return self.magnitudes[-1]

    def encode(self, value: Fraction, rounding: str = "half_even") -> int:
        """Return the index of the magnitude that |value| rounds to; beyond the last one, the last."""
        size = abs(value)
        below = bisect_right(self.magnitudes, size) - 1
        if below == len(self.magnitudes) - 1 or rounding == "toward_zero":
            return below
        middle = (self.magnitudes[below] + self.magnitudes[below + 1]) / 2
        tie_goes_up = rounding == "half_away" or below % 2 == 1
        return below + (size > middle or (size == middle and tie_goes_up))


@cache
def minifloat(exponent_bits: int, fraction_bits: int, finite_codes: int) -> Element:
    """Write out the first `finite_codes` magnitudes of a minifloat."""
    bias = 2 ** (exponent_bits - 1) - 1
    magnitudes = []
    for code in range(finite_codes):
        field, fraction = divmod(code, 2**fraction_bits)
        if field == 0:
            magnitudes.append(Fraction(fraction, 2**fraction_bits) * power(1 - bias))
        else:
            magnitudes.append((1 + Fraction(fraction, 2**fraction_bits)) * power(field - bias))
    return Element(tuple(magnitudes), fraction_bits)


def mx_exponent(largest: Fraction, element: Element, rule: str) -> int:
    """Return X of an OCP MX block whose largest magnitude is `largest`."""
    if largest == 0:
        return -127
    emax = floor_log2(element.largest)
    chosen = floor_log2(largest) - emax
    if rule == "even":
        step = power(floor_log2(largest) - element.fraction_bits)
        chosen = floor_log2(round_half_even(largest / step) * step) - emax
    elif rule == "tosa":
        step = power(emax - element.fraction_bits)
        chosen += round_half_even(largest / power(chosen) / step) * step > element.largest
    elif rule == "rceil":
        while largest > element.largest * power(chosen):
            chosen += 1
        while largest <= element.largest * power(chosen - 1):
            chosen -= 1
    return clamp(chosen, -127, 127)


def quantize_mx(
    block: Sequence[float], element: Element, rule: str = "floor", rounding: str = "half_even"
) -> tuple[list[int], int]:
    """Return the signless codes (indices of magnitudes) and X of one block."""
    values = [Fraction(x) for x in block]
    exponent = mx_exponent(max(abs(v) for v in values), element, rule)
    return [element.encode(v / power(exponent), rounding) for v in values], exponent


def quantize_microexponents(block: Sequence[float], element_bits: int) -> tuple[list[int], int, list[int]]:
    """Return the codes, E and the eight tau of one block of up to 16 values."""
    values = [Fraction(x) if abs(x) >= 2.0**-126 else Fraction(0) for x in block]
    values += [Fraction(0)] * (16 - len(block))
    exponents = [min(floor_log2(abs(v)), 127) if v else -127 for v in values]
    shared = max(exponents)
    tau = [int(exponents[i] < shared and exponents[i + 1] < shared) for i in range(0, 16, 2)]
    high = 2 ** (element_bits - 1) - 1
    codes = []
    for i in range(len(block)):
        step = power(shared - tau[i // 2] - (element_bits - 2))
        codes.append(clamp(round_half_even(values[i] / step), -high, high))
    return codes, shared, tau


def float32(value: Fraction) -> Fraction:
    """Return the nearest float32 number, ties to even; beyond its range the exponent goes on."""
    if value == 0:
        return value
    step = power(max(floor_log2(abs(value)), -126) - 23)
    return round_half_even(value / step) * step


def nvfp4_tensor_scale(largest: Fraction) -> Fraction:
    """Return g of a tensor whose largest magnitude, a float32 number, is `largest`."""
    return max(float32(largest / 2688), power(-121)) if largest else Fraction(1)


def quantize_nvfp4(block: Sequence[Fraction], g: Fraction) -> tuple[list[int], int]:
    """Return the signless codes of one block of float32 numbers and the E4M3 code of its scale."""
    ratio = float32(float32(max(abs(v) for v in block) / 6) / g)
    e4m3 = minifloat(4, 3, 127)
    scale = e4m3.encode(max(ratio, power(-6)))
    reciprocal = float32(float32(1 / g) / e4m3.magnitudes[scale])
    return [minifloat(2, 1, 8).encode(float32(v * reciprocal)) for v in block], scale
