"""Weights that are signed powers of two: a multiplier could be a shifter (Ristretto; Gysel et al., 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError
from accelsim.formats.discrete import channels_of, check_powers_of_two, one_a_channel
from accelsim.formats.integer import MAX_OPERAND_BITS
from accelsim.formats.mixins import IntegerLanes, NoBlocks, NoZeroPoints
from accelsim.formats.spec import Datapath, Lanes, QTensor
from accelsim.formats.tensor import along, as_reals, check_scale, make_qtensor, one_axis, refuse_zero_points

MAX_BITS = 5
_ROOT_OF_HALF = 0.7071067811865476
"""The smallest double above sqrt(1/2), which itself is no double: comparing with it decides exactly."""
_LARGEST_POWER, _SMALLEST_POWER = 1023, -1022  # of normal doubles


@dataclass(frozen=True)
class PowerOfTwoFormat(IntegerLanes, NoBlocks, NoZeroPoints):
    """A sign and an exponent in `bits` bits, 2 to 5 (4 without a zero).

    with_zero : True: codes -(2**(bits-1) - 1) .. 2**(bits-1) - 1; code 0 is 0, and code c is
        sign(c) * 2**(|c| - 1) * scale. False, Ristretto's rule: codes 0 .. 2**bits - 1, the highest bit is the sign
        (1: negative), the others are the exponent e: (-1)**sign * 2**e * scale; there is no zero, and 0 becomes the
        smallest positive power

    The scale is a power of two: the smallest magnitude. Lanes are the integers +-2**e (and 0), for the multipliers of
    an integer array.

    >>> from accelsim import formats
    >>> tensor = formats.get("po2_4").quantize([1.0, -0.3, 0.02, 0.0])
    >>> tensor.dequantize().tolist(), tensor.codes.tolist()
    ([1.0, -0.25, 0.015625, 0.0], [7, -5, 1, 0])
    """

    bits: int
    with_zero: bool = True

    def __post_init__(self) -> None:
        widest = MAX_BITS if self.with_zero else MAX_BITS - 1
        if not 2 <= self.bits <= widest:
            without = "" if self.with_zero else " without a zero"
            raise FormatError(
                f"{self.name}: powers of two{without} have 2 to {widest} bits; the lanes of more would not fit "
                f"ports of {MAX_OPERAND_BITS} bits"
            )

    @property
    def name(self) -> str:
        return f"po2_{self.bits}{'' if self.with_zero else 'r'}"

    @property
    def exponents(self) -> int:
        """How many exponents there are: 0 .. exponents - 1."""
        return (1 << (self.bits - 1)) - self.with_zero

    @property
    def low(self) -> int:
        return -self.high

    @property
    def high(self) -> int:
        return 1 << (self.exponents - 1)

    @property
    def lane_bits(self) -> int:
        return self.exponents + 1  # +2**(e - 1) needs e bits and a sign

    @property
    def code_low(self) -> int:
        return -self.exponents if self.with_zero else 0

    @property
    def code_high(self) -> int:
        return self.exponents if self.with_zero else (1 << self.bits) - 1

    @property
    def code_bits(self) -> int:
        return self.bits

    @property
    def datapath(self) -> Datapath:
        return "shift"

    def quantize(
        self,
        array: ArrayLike,
        axis: int | None = None,
        *,
        channel_axis: int | None = None,
        scale: ArrayLike | None = None,
        zero_point: ArrayLike | None = None,
        asymmetric: bool = False,
    ) -> QTensor:
        """Quantize real numbers: the exponent is log2(|x| / scale), rounded to nearest (Ristretto), and clamped.

        Rounding is exact, by comparing |x| with 2**(e - 1/2), which no double equals: there are no ties. With a zero,
        what rounds to an exponent below the smallest becomes 0; without, it becomes the smallest power (0 and -0.0
        the positive one).

        array : real numbers, any shape with at least one element
        axis, channel_axis : two names of one thing, the axis of per-channel scales; None: per tensor
        scale : () or (C,), powers of two: the smallest magnitude; None: such that max|x| gets the largest exponent (1
            where all is 0; powers of the largest doubles stay below 2**1024, and scales at least 2**-1022)
        zero_point, asymmetric : refused unless 0 and False

        Raises:
        FormatError : NaN or infinity, a scale that is no power of two, a zero point
        ShapeError : an axis that `array` lacks, or shapes that do not fit
        """
        refuse_zero_points(self.name, zero_point, asymmetric)
        reals = as_reals(array)
        channel = one_axis(axis, channel_axis, reals.ndim)
        if scale is None:
            largest = channels_of(np.abs(reals), channel).max(axis=1)
            top = np.minimum(_rounded_log2(largest), _LARGEST_POWER)
            powers = np.where(largest > 0, np.maximum(top - (self.exponents - 1), _SMALLEST_POWER), 0)
            scales = one_a_channel(np.ldexp(1.0, powers.astype(np.int32)).tolist(), channel)
        else:
            scales = check_scale(scale, reals.shape, channel, "quantize")
            check_powers_of_two(scales, self.name)
        smallest = along(np.frexp(scales)[1].astype(np.float64) - 1, reals.ndim, channel)
        rounded = np.where(reals == 0, -1, _rounded_log2(reals) - smallest)
        exponent = np.minimum(rounded, self.exponents - 1).astype(np.int64)
        negative = reals < 0
        if self.with_zero:
            codes = np.where(negative, -1, 1) * np.maximum(exponent + 1, 0)
        else:
            codes = np.maximum(exponent, 0) + negative * (1 << (self.bits - 1))
        return make_qtensor(codes, self, scales, channel_axis=channel)

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return lane * scale, float64, exact.

        Raises FormatError where the tensor's scale is not a power of two.
        """
        return np.asarray(self.lanes(tensor).values * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return +-2**e or 0. Raises FormatError where the tensor's scale is not a power of two."""
        check_powers_of_two(tensor.scale, self.name)
        if self.with_zero:
            magnitude = np.where(tensor.codes == 0, 0, 1 << np.maximum(np.abs(tensor.codes) - 1, 0))
            return Lanes((np.sign(tensor.codes) * magnitude).astype(np.int32), None)
        sign_bit = 1 << (self.bits - 1)
        magnitude = 1 << (tensor.codes & (sign_bit - 1))
        return Lanes(np.where(tensor.codes & sign_bit, -magnitude, magnitude).astype(np.int32), None)


def _rounded_log2(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log2 |x| rounded to the nearest integer, exactly; anything for 0."""
    fraction, exponent = np.frexp(np.abs(values))  # 1/2 <= fraction < 1
    return np.asarray(exponent - (fraction < _ROOT_OF_HALF), np.float64)
