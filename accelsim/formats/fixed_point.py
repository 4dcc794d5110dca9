"""Fixed point: integers whose scale is a power of two, so that rescaling is a shift.

Qm.n has the scale 2**-n for every tensor. Dynamic fixed point (Ristretto; Gysel et al., 2016) chooses the scale of each
tensor, or of each channel, among the powers of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError
from accelsim.formats.discrete import channels_of, check_powers_of_two, one_a_channel
from accelsim.formats.integer import MAX_OPERAND_BITS, IntegerFormat
from accelsim.formats.mixins import CodesAreLanes, NoBlocks, NoZeroPoints
from accelsim.formats.spec import Format, Lanes, QTensor
from accelsim.formats.tensor import SMALLEST_SCALE, as_reals, check_scale, make_qtensor, one_axis, refuse_zero_points

ScaleRule = Literal["ristretto", "cover"]


@dataclass(frozen=True)
class FixedPointFormat(CodesAreLanes, NoBlocks, NoZeroPoints):
    """Integers of `bits` bits times a power of two, without zero points.

    fraction_bits : n of Qm.n, the scale is 2**-n and m = bits - n counts the sign; None: dynamic fixed point

    Two's complement over the full range, or unsigned. Widths outside 2..16 and n outside 0..bits raise FormatError.

    >>> from accelsim import formats
    >>> formats.get("q4.4").quantize([1.03, -8.0, 100.0]).dequantize().tolist()  # steps of 1/16; saturates
    [1.0, -8.0, 7.9375]
    >>> float(formats.get("dfp8").quantize([1.03, -8.0]).scale)  # the power of two that fits
    0.0625
    """

    bits: int
    fraction_bits: int | None = None
    signed: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= MAX_OPERAND_BITS:
            raise FormatError(f"{self.name}: fixed-point operands have 2 to {MAX_OPERAND_BITS} bits")
        if self.fraction_bits is not None and not 0 <= self.fraction_bits <= self.bits:
            raise FormatError(f"{self.name}: {self.fraction_bits} fraction bits are not within the {self.bits} bits")

    @property
    def name(self) -> str:
        sign = "" if self.signed else "u"
        if self.fraction_bits is None:
            return f"{sign}dfp{self.bits}"
        return f"{sign}q{self.bits - self.fraction_bits}.{self.fraction_bits}"

    @cached_property
    def _integer(self) -> IntegerFormat:
        return IntegerFormat(self.bits, self.signed)

    @property
    def low(self) -> int:
        return self._integer.low

    @property
    def high(self) -> int:
        return self._integer.high

    @property
    def lane_bits(self) -> int:
        return self.bits

    def quantize(
        self,
        array: ArrayLike,
        axis: int | None = None,
        *,
        channel_axis: int | None = None,
        scale: ArrayLike | None = None,
        zero_point: ArrayLike | None = None,
        asymmetric: bool = False,
        scale_rule: ScaleRule = "ristretto",
    ) -> QTensor:
        """Quantize real numbers: saturate to [low, high] * scale, divide by scale, round ties to even (Ristretto).

        array : real numbers, any shape with at least one element
        axis, channel_axis : two names of one thing, the axis of per-channel scales; None: per tensor
        scale : () or (C,), powers of two (Qm.n: 2**-n); None: 2**-n, or for dynamic fixed point by `scale_rule`
        zero_point, asymmetric : refused unless 0 and False
        scale_rule : of dynamic fixed point, with M = max|x| (unsigned: max(x, 0)):
            "ristretto": integer bits ceil(log2 M), and one for the sign; the scale is 2**(integer bits - bits).
                Where M is 2**k exactly, or rounds up to it, the largest values saturate
            "cover": the smallest power of two under which nothing saturates, 2**ceil(log2(M / high))

        The scale is 1 where nothing spans a range, and never below 2**-1022.

        Raises:
        FormatError : NaN or infinity, a scale that is no power of two or not the format's, a zero point
        ShapeError : an axis that `array` lacks, or shapes that do not fit
        """
        if scale_rule not in ("ristretto", "cover"):
            raise FormatError(f"scale_rule={scale_rule!r} is not one of 'ristretto', 'cover'")
        refuse_zero_points(self.name, zero_point, asymmetric)
        reals = as_reals(array)
        channel = one_axis(axis, channel_axis, reals.ndim)
        if scale is not None:
            scales = check_scale(scale, reals.shape, channel, "quantize")
            self.check_scale(scales)
        elif self.fraction_bits is not None:
            scales = np.full(() if channel is None else reals.shape[channel], 2.0**-self.fraction_bits)
        else:
            magnitudes = np.abs(reals) if self.signed else np.maximum(reals, 0.0)
            largest = channels_of(magnitudes, channel).max(axis=1).tolist()
            scales = one_a_channel([self._scale_for(value, scale_rule) for value in largest], channel)
        # The bounds are whole multiples of the scale: to saturate before or after rounding is the same.
        codes = self._integer.quantize(reals, channel, scale=scales).codes
        return make_qtensor(codes, self, scales, channel_axis=channel)

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return code * scale, float64, exact (but for results below 2**-1022).

        Raises FormatError where the tensor's scale is not one of the format's.
        """
        return np.asarray(self.lanes(tensor).values * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return the codes. Raises FormatError where the tensor's scale is not one of the format's."""
        self.check_scale(tensor.scale)
        return Lanes(tensor.codes.astype(np.int32), None)

    @property
    def own_scale(self) -> float | None:
        """2**-n of Qm.n; None: a scale has to be chosen."""
        return None if self.fraction_bits is None else 2.0**-self.fraction_bits

    def check_scale(self, scale: NDArray[np.float64]) -> None:
        """Raise FormatError unless all scales are powers of two, and those of Qm.n 2**-n."""
        if self.fraction_bits is None:
            check_powers_of_two(scale, self.name)
        elif np.any(scale != 2.0**-self.fraction_bits):
            found = float(scale.flat[int(np.argmax(scale != 2.0**-self.fraction_bits))])
            raise FormatError(
                f"{self.name}: scale is {found}, but the format's is 2**-{self.fraction_bits} = "
                f"{2.0**-self.fraction_bits}; leave it out, or use {'' if self.signed else 'u'}dfp{self.bits}"
            )

    def _scale_for(self, largest: float, rule: ScaleRule) -> float:
        if largest == 0:
            return 1.0
        # largest = fraction * 2**exponent with 1/2 <= fraction < 1; its logarithm rounded up is exponent, or one less
        # for powers of two. Exact, where log2 is not.
        fraction, exponent = np.frexp(largest)
        power = int(exponent) - int(fraction == 0.5) + int(self.signed) - self.bits
        if rule == "cover" and float(np.ldexp(largest, -power)) > self.high:
            power += 1
        return max(float(np.ldexp(1.0, power)), SMALLEST_SCALE)


def scale_of_output(form: Format, scale: float | None) -> float | None:
    """Return the scale of an output in a format: the given one, or 2**-n where fixed point leaves no choice.

    Raises FormatError for one that fixed point cannot have.
    """
    if not isinstance(form, FixedPointFormat):
        return scale
    if scale is None:
        return form.own_scale
    form.check_scale(np.asarray(scale, np.float64))
    return scale
