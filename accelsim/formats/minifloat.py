"""Minifloats: sign, exponent and fraction in 4 to 16 bits, as element types and as formats of their own.

Codes are bit patterns. With bias ``2**(e-1) - 1``, sign S, exponent field E and fraction M of m bits::

    value = (-1)**S * 2**(max(E, 1) - bias - m) * (M + (2**m where E > 0))

so that E = 0 holds the subnormals and the zeros. FP8, FP6 and FP4 are those of the OCP specifications (OFP8 revision
1.0; MX v1.0, section 5.3), FP16 is IEEE 754 binary16 and BF16 the upper half of binary32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError
from accelsim.formats.integer import usable_scale
from accelsim.formats.mixins import CodesOfElement, NoBlocks, NoZeroPoints
from accelsim.formats.spec import Datapath, Lanes, QTensor
from accelsim.formats.tensor import (
    along,
    as_reals,
    check_scale,
    make_qtensor,
    one_axis,
    other_axes,
    quotient,
    refuse_zero_points,
)
from accelsim.formats.vsq import round_half_up

ElementRounding = Literal["half_even", "half_away", "toward_zero"]
ELEMENT_ROUNDINGS = ("half_even", "half_away", "toward_zero")
Specials = Literal["none", "nan", "ieee"]


def round_magnitudes(magnitudes: NDArray[np.float64], rounding: ElementRounding) -> NDArray[np.float64]:
    """Round non-negative numbers to integers; the sign is put on afterwards, so that half "up" is half away."""
    if rounding == "half_even":
        return np.asarray(np.rint(magnitudes))
    if rounding == "half_away":
        return round_half_up(magnitudes)
    if rounding == "toward_zero":
        return np.asarray(np.floor(magnitudes))
    raise FormatError(f"rounding={rounding!r} is not one of {', '.join(map(repr, ELEMENT_ROUNDINGS))}")


@dataclass(frozen=True)
class Minifloat:
    """One element type.

    specials : "none": every code is a number; "nan": the largest magnitude is NaN (S.11..1.11..1), there is no
        infinity; "ieee": the largest exponent field holds infinity and NaN
    """

    name: str
    exponent_bits: int
    fraction_bits: int
    specials: Specials

    @property
    def code_bits(self) -> int:
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def code_low(self) -> int:
        return 0

    @property
    def code_high(self) -> int:
        return (1 << self.code_bits) - 1

    @property
    def sign_bit(self) -> int:
        return 1 << (self.code_bits - 1)

    @property
    def largest_code(self) -> int:
        """The code of the largest finite number."""
        if self.specials == "ieee":
            return (((1 << self.exponent_bits) - 1) << self.fraction_bits) - 1
        return self.sign_bit - 1 - (self.specials == "nan")

    @cached_property
    def reserved_codes(self) -> tuple[int, ...]:
        """The codes of NaN and infinity, of both signs."""
        positive = range(self.largest_code + 1, self.sign_bit)
        return (*positive, *(code + self.sign_bit for code in positive))

    @property
    def bias(self) -> int:
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number; subnormals share its step, 2**(min_exponent - fraction_bits)."""
        return 1 - self.bias

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest number (OCP: emax)."""
        return (self.largest_code >> self.fraction_bits) - self.bias

    @cached_property
    def largest(self) -> float:
        return float(self.decode(np.array(self.largest_code)))

    @property
    def high(self) -> int:
        """The largest significand as an integer; the smallest is its negative."""
        return (2 << self.fraction_bits) - 1

    @property
    def low(self) -> int:
        return -self.high

    @property
    def lane_bits(self) -> int:
        return self.fraction_bits + 2  # sign, hidden bit, fraction

    @property
    def exponent_range(self) -> tuple[int, int]:
        """Exponents of the smallest and of the largest number's significand."""
        return self.min_exponent - self.fraction_bits, self.max_exponent - self.fraction_bits

    def significands(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return signed integers, ``value = significand * 2**exponent``; codes are finite ones."""
        field = (codes & (self.sign_bit - 1)) >> self.fraction_bits
        fraction = codes & ((1 << self.fraction_bits) - 1)
        magnitude = fraction + np.where(field > 0, 1 << self.fraction_bits, 0)
        return np.where(codes & self.sign_bit, -magnitude, magnitude).astype(np.int32)

    def exponents(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the power of two that each code's significand is multiplied by."""
        field = (codes & (self.sign_bit - 1)) >> self.fraction_bits
        return np.asarray(np.maximum(field, 1) - self.bias - self.fraction_bits, np.int32)

    def decode(self, codes: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the values of finite codes, exact; negative zero keeps its sign."""
        values = np.ldexp(np.abs(self.significands(codes)).astype(np.float64), self.exponents(codes))
        return np.asarray(np.where(codes & self.sign_bit, -values, values))

    def encode(self, values: NDArray[np.float64], rounding: ElementRounding = "half_even") -> NDArray[np.int32]:
        """Round to the nearest number of the type and saturate: beyond the largest number comes that number.

        Never NaN or infinity. Ties as `rounding` says (half_even: to the code whose last bit is 0); results below the
        smallest normal number are subnormal; zeros, and what rounds to zero, keep the sign of `values`.

        values : finite, or infinite, which saturates too
        """
        magnitudes = np.minimum(np.abs(values), np.finfo(np.float64).max)
        _, exponents = np.frexp(magnitudes)  # magnitude in [2**(exponent - 1), 2**exponent)
        binades = np.where(magnitudes > 0, exponents - 1, self.min_exponent)
        binades = np.clip(binades, self.min_exponent, self.max_exponent + 1)
        # Steps of the binade: 2**m to 2**(m+1) of them in a normal binade, fewer among the subnormals. One that rounds
        # up to 2**(m+1) is the first code of the next binade, which the sum below makes by its carry.
        steps = round_magnitudes(np.ldexp(magnitudes, self.fraction_bits - binades), rounding)
        steps = np.minimum(steps, 2 << self.fraction_bits).astype(np.int64)
        codes = np.minimum(
            ((binades.astype(np.int64) - self.min_exponent) << self.fraction_bits) + steps, self.largest_code
        )
        return np.where(np.signbit(values), codes | self.sign_bit, codes).astype(np.int32)


E4M3 = Minifloat("fp8_e4m3", 4, 3, "nan")
E5M2 = Minifloat("fp8_e5m2", 5, 2, "ieee")
E3M2 = Minifloat("fp6_e3m2", 3, 2, "none")
E2M3 = Minifloat("fp6_e2m3", 2, 3, "none")
E2M1 = Minifloat("fp4_e2m1", 2, 1, "none")
FP16 = Minifloat("fp16", 5, 10, "ieee")
BF16 = Minifloat("bf16", 8, 7, "ieee")


@dataclass(frozen=True)
class MinifloatFormat(CodesOfElement, NoBlocks, NoZeroPoints):
    """A minifloat as a number format without blocks: ``value = decode(code) * scale``.

    >>> from accelsim import formats
    >>> e4m3 = formats.get("fp8_e4m3")
    >>> e4m3.quantize([0.3, 1.0, 1000.0], scale=1.0).dequantize().tolist()  # 3 bits of fraction; saturates
    [0.3125, 1.0, 448.0]
    >>> [hex(code) for code in e4m3.reserved_codes]  # NaN
    ['0x7f', '0xff']
    """

    element: Minifloat

    @property
    def name(self) -> str:
        return self.element.name

    @property
    def datapath(self) -> Datapath:
        return "float"

    def quantize(
        self,
        array: ArrayLike,
        axis: int | None = None,
        *,
        channel_axis: int | None = None,
        scale: ArrayLike | None = None,
        zero_point: ArrayLike | None = None,
        asymmetric: bool = False,
        rounding: ElementRounding = "half_even",
    ) -> QTensor:
        """Quantize real numbers: ``code = encode(x / scale)``, one float64 division, then rounding that saturates.

        array : real numbers, any shape with at least one element
        axis, channel_axis : two names of one thing, the axis of per-channel scales; negative allowed; None: per tensor
        scale : () or (C,), positive. None: chosen from the data, max|x| / the largest number of the type (1 where all
            is zero, never below 2**-1022). 1.0 makes it a plain, saturating cast.
        zero_point, asymmetric : refused unless 0 and False: the format has no zero points
        rounding : "half_even", "half_away" or "toward_zero"

        Raises:
        FormatError : NaN or infinity in `array` (how many, and the first), a bad scale, a zero point, unknown rounding
        ShapeError : an axis that `array` lacks, or shapes that do not fit
        """
        refuse_zero_points(self.name, zero_point, asymmetric)
        reals = as_reals(array)
        channel = one_axis(axis, channel_axis, reals.ndim)
        if scale is None:
            largest = np.asarray(np.abs(reals).max(axis=other_axes(reals.ndim, channel)))
            scales = usable_scale(largest / self.element.largest, largest, self.element.largest)
        else:
            scales = check_scale(scale, reals.shape, channel, "quantize")
        codes = self.element.encode(quotient(reals, along(scales, reals.ndim, channel)), rounding)
        return make_qtensor(codes, self, scales, channel_axis=channel)

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return ``decode(code) * scale``, float64, rounded once; with scale 1 it is exact."""
        return np.asarray(self.element.decode(tensor.codes) * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return signed significands and an exponent for each."""
        return Lanes(self.element.significands(tensor.codes), None, self.element.exponents(tensor.codes))
