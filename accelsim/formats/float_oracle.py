"""The slow truth of the float formats: one value, one block at a time, in exact rationals. Only tests call it.

Nothing is shared with the fast code: an element type is the list of its magnitudes, written out from the definition,
and a value is encoded by looking for its neighbours in that list.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

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
