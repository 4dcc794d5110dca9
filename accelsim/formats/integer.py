"""Plain integers: two's complement, unsigned, symmetric ("narrow") range, with float scales and zero points.

``x ~ (code - zero_point) * scale``; white paper of Nagel et al. (2021), equations 4 to 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError
from accelsim.formats.mixins import CodesAreLanes, NoBlocks, NoZeroPoints
from accelsim.formats.spec import Lanes, QTensor
from accelsim.formats.tensor import (
    SMALLEST_SCALE,
    along,
    as_reals,
    check_scale,
    check_zero_point,
    clamp_codes,
    make_qtensor,
    one_axis,
    other_axes,
)

MAX_OPERAND_BITS = 16
MAX_ACCUMULATOR_BITS = 64


@dataclass(frozen=True)
class IntegerFormat(CodesAreLanes, NoBlocks):
    """Integers of `bits` bits.

    signed, full range : two's complement, [-2**(bits-1), 2**(bits-1) - 1]
    signed, narrow : symmetric, [-(2**(bits-1) - 1), 2**(bits-1) - 1]
    unsigned : [0, 2**bits - 1]

    2 to 16 bits are operands. Signed formats of 17 to 64 bits hold raw accumulators: they have no zero point and do
    not enter multipliers. Other combinations raise FormatError.

    >>> from accelsim import formats
    >>> int4 = formats.get("int4")  # IntegerFormat(4)
    >>> int4.low, int4.high, formats.get("int4n").low, formats.get("uint4").high
    (-8, 7, -7, 15)
    >>> tensor = formats.get("uint8").quantize([-1.0, 0.0, 4.1], asymmetric=True)
    >>> tensor.codes.tolist(), int(tensor.zero_point), round(float(tensor.scale), 6)
    ([0, 50, 255], 50, 0.02)
    """

    bits: int
    signed: bool = True
    narrow: bool = False

    def __post_init__(self) -> None:
        wide = self.signed and not self.narrow
        limit = MAX_ACCUMULATOR_BITS if wide else MAX_OPERAND_BITS
        if self.narrow and not self.signed:
            raise FormatError(f"{self.name}: an unsigned range has no symmetric form; use uint{self.bits}")
        if not 2 <= self.bits <= limit:
            raise FormatError(
                f"{self.name}: operands have 2 to {MAX_OPERAND_BITS} bits, "
                f"accumulators (int only) up to {MAX_ACCUMULATOR_BITS}"
            )

    @property
    def name(self) -> str:
        return f"{'' if self.signed else 'u'}int{self.bits}{'n' if self.narrow else ''}"

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) + self.narrow if self.signed else 0

    @property
    def high(self) -> int:
        return (1 << (self.bits - self.signed)) - 1

    @property
    def lane_bits(self) -> int:
        return self.bits

    @property
    def is_operand(self) -> bool:
        """Whether the format enters multipliers (True) or only holds accumulators (False)."""
        return self.bits <= MAX_OPERAND_BITS

    @property
    def zero_points(self) -> tuple[int, int]:
        return (self.low, self.high) if self.is_operand else (0, 0)

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
        """Quantize real numbers: ``code = clamp(rint(x / scale) + zero_point, low, high)``, all in float64.

        The quotient is one true division, and ``rint`` rounds ties to even, as ONNX Runtime and PyTorch do.
        Values beyond the range clamp: with a symmetric unsigned format every negative value becomes 0.

        array : real numbers, any shape with at least one element
        axis, channel_axis : two names of one thing, the axis of per-channel scales; negative allowed; None: per tensor
        scale : () or (C,), positive; None: chosen from the data (below)
        zero_point : () or (C,), integers in [low, high]; only with `scale`
        asymmetric : choose scale and zero point from the data so that the codes span [min(x, 0), max(x, 0)]

        Chosen scales, per tensor or per channel::

            symmetric   scale = max|x| / high (unsigned: max(x, 0) / high); zero point 0
            asymmetric  scale = (rmax - rmin) / (high - low), zero_point = rint(low - rmin / scale),
                        rmin = min(x, 0), rmax = max(x, 0): zero is always exactly a code

        Where nothing spans a range (all zeros, or nothing positive in an unsigned format) the scale is 1. A computed
        scale below the smallest normal double, 2**-1022, becomes that.

        Raises:
        FormatError : NaN or infinity in `array` (how many, and the first), `scale` or `zero_point` out of range
        ShapeError : an axis that `array` lacks, or shapes that do not fit
        """
        reals = as_reals(array)
        channel = one_axis(axis, channel_axis, reals.ndim)
        if asymmetric and not self.is_operand:
            raise FormatError(f"{self.name} holds accumulators and has no zero points; leave out asymmetric=True")
        if scale is None:
            if zero_point is not None:
                raise FormatError("zero_point is given without scale; give both, or asymmetric=True to choose both")
            scales, zeros = self._asymmetric(reals, channel) if asymmetric else self._symmetric(reals, channel)
        else:
            if asymmetric and zero_point is None:
                raise FormatError("asymmetric=True chooses the scale too; with a given scale pass zero_point instead")
            scales = check_scale(scale, reals.shape, channel, "quantize")
            given = 0 if zero_point is None else zero_point
            zeros = check_zero_point(given, self, reals.shape, channel, "quantize")
        with np.errstate(over="ignore"):  # a quotient too large for float64 is infinite, and clamps
            codes = np.rint(reals / along(scales, reals.ndim, channel))
        codes += along(zeros.astype(np.float64), reals.ndim, channel)
        return make_qtensor(clamp_codes(codes, self.low, self.high), self, scales, zeros, channel_axis=channel)

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return ``(code - zero_point) * scale``, float64, rounded once (codes of up to 53 bits are exact)."""
        shifted = (tensor.codes.astype(np.int64) - tensor.per_channel(tensor.zero_point)).astype(np.float64)
        return np.asarray(shifted * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return the raw codes; zero points stay with the layer's correction terms.

        Raises FormatError for accumulator formats.
        """
        if not self.is_operand:
            raise FormatError(
                f"{self.name} holds raw accumulators and cannot enter a multiplier; "
                f"requantize to at most {MAX_OPERAND_BITS} bits first"
            )
        return Lanes(tensor.codes.astype(np.int32), None)

    def _symmetric(self, reals: NDArray[np.float64], axis: int | None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        magnitude = np.abs(reals) if self.signed else np.maximum(reals, 0.0)
        largest = np.asarray(magnitude.max(axis=other_axes(reals.ndim, axis)))
        scale = usable_scale(largest / self.high, largest, self.high)
        return scale, np.zeros(scale.shape, np.int64)

    def _asymmetric(
        self, reals: NDArray[np.float64], axis: int | None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        over = other_axes(reals.ndim, axis)
        rmin = np.minimum(np.asarray(reals.min(axis=over)), 0.0)
        rmax = np.maximum(np.asarray(reals.max(axis=over)), 0.0)
        steps = self.high - self.low
        with np.errstate(over="ignore"):
            span = rmax - rmin
        # Ranges of opposite signs near the largest double overflow when subtracted, but not when divided first.
        ratio = np.where(np.isfinite(span), span / steps, rmax / steps - rmin / steps)
        scale = usable_scale(ratio, np.maximum(rmax, -rmin), np.where(np.isfinite(span), steps, 1))
        zero_point = np.asarray(clamp_codes(np.rint(self.low - rmin / scale), self.low, self.high))
        with np.errstate(over="ignore"):
            ends = np.maximum(self.high - zero_point, zero_point - self.low) * scale
        if not np.all(np.isfinite(ends)):
            raise FormatError(
                f"{self.name}: values from {float(rmin.min()):g} to {float(rmax.max()):g} span too much: codes would "
                f"mean more than the largest float64; divide the values by 2 first, or quantize symmetrically"
            )
        return scale, zero_point


class IntegersInBlocks(CodesAreLanes, NoZeroPoints):
    """Mixin for integers of `element_bits` under block scales: symmetric around 0 if `signed`, else from 0."""

    element_bits: int
    signed: bool

    @cached_property
    def element(self) -> IntegerFormat:
        """The format of one element."""
        return IntegerFormat(self.element_bits, self.signed, narrow=self.signed)

    @property
    def low(self) -> int:
        return self.element.low

    @property
    def high(self) -> int:
        return self.element.high

    @property
    def lane_bits(self) -> int:
        return self.element_bits


def usable_scale(
    scale: NDArray[np.float64], largest: NDArray[np.float64], steps: float | NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return `scale`, but 1 where `largest` is 0 (nothing to scale), and never less than 2**-1022.

    steps : what the largest code means in units of the scale. Near the largest float64 a scale that was rounded up
        would make infinity of it; it is rounded down there
    """
    with np.errstate(over="ignore"):
        lower = np.where(np.isfinite(scale * steps), scale, np.nextafter(scale, 0.0))
    return np.asarray(np.where(largest > 0, np.maximum(lower, SMALLEST_SCALE), 1.0))
