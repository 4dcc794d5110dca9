"""Ternary tensors: -1, 0 or +1 times a scale (TWN), or two learned scales (TTQ)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError
from accelsim.formats.codebook import look_up
from accelsim.formats.discrete import channels_of, mean, one_a_channel, refuse_axis
from accelsim.formats.integer import IntegerFormat
from accelsim.formats.mixins import CodesAreLanes
from accelsim.formats.spec import Blocks, Datapath, Lanes, QTensor
from accelsim.formats.tensor import (
    SMALLEST_SCALE,
    along,
    as_reals,
    check_scale,
    check_threshold,
    make_qtensor,
    one_axis,
    refuse_zero_points,
)

_TABLE = IntegerFormat(8, narrow=True)
_NEAREST = IntegerFormat(2, narrow=True)
TWN_FACTOR = 0.7
TTQ_FACTOR = 0.05


@dataclass(frozen=True)
class TernaryFormat(CodesAreLanes):
    """Codes -1, 0 and +1, two stored bits each; the code is the lane.

    Ternary weight networks, Li et al. 2016 (TWN): threshold and scale follow from the mean magnitude.

    >>> from accelsim import formats
    >>> tensor = formats.get("ternary").quantize([1.0, -0.75, 0.25, 0.0])  # threshold 0.7 x 0.5
    >>> tensor.codes.tolist(), float(tensor.scale)  # the mean of 1 and 0.75
    ([1, -1, 0, 0], 0.875)
    """

    name: ClassVar[str] = "ternary"
    low: ClassVar[int] = -1
    high: ClassVar[int] = 1
    lane_bits: ClassVar[int] = 2
    blocks: ClassVar[Blocks | None] = None
    bits_per_element: ClassVar[float] = 2.0
    zero_points: ClassVar[tuple[int, int]] = (0, 0)

    def quantize(
        self,
        array: ArrayLike,
        axis: int | None = None,
        *,
        channel_axis: int | None = None,
        scale: ArrayLike | None = None,
        zero_point: ArrayLike | None = None,
        asymmetric: bool = False,
        threshold: ArrayLike | None = None,
    ) -> QTensor:
        """Quantize real numbers: +1 for x > threshold, -1 for x < -threshold, 0 between and at the threshold.

        array : real numbers, any shape with at least one element
        axis, channel_axis : two names of one thing, the axis of per-channel scales and thresholds; None: per tensor
        scale : () or (C,), positive; None: the mean of |x| above the threshold (1 where none is)
        zero_point, asymmetric : refused unless 0 and False
        threshold : () or (C,), not negative; None: 0.7 mean|x|, or, where a scale is given, the nearest of the three
            values: clamp(rint(x / scale), -1, 1)

        Raises:
        FormatError : NaN or infinity, a bad scale or threshold, a zero point
        ShapeError : an axis that `array` lacks, or shapes that do not fit
        """
        refuse_zero_points(self.name, zero_point, asymmetric)
        reals = as_reals(array)
        channel = one_axis(axis, channel_axis, reals.ndim)
        if scale is not None and threshold is None:
            nearest = _NEAREST.quantize(reals, channel, scale=scale)
            return make_qtensor(nearest.codes, self, nearest.scale, channel_axis=channel)
        rows = channels_of(np.abs(reals), channel)
        if threshold is None:
            thresholds = one_a_channel([TWN_FACTOR * mean(row) for row in rows], channel)
        else:
            thresholds = check_threshold(threshold, reals.shape, channel, "quantize")
        if scale is None:
            above = [row[row > limit] for row, limit in zip(rows, np.atleast_1d(thresholds), strict=True)]
            scales = one_a_channel([max(mean(row), SMALLEST_SCALE) if row.size else 1.0 for row in above], channel)
        else:
            scales = check_scale(scale, reals.shape, channel, "quantize")
        limits = along(thresholds, reals.ndim, channel)
        codes = (reals > limits).astype(np.int32) - (reals < -limits)
        return make_qtensor(codes, self, scales, channel_axis=channel)

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return scale, 0 or -scale, float64, exact."""
        return np.asarray(tensor.codes * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return the codes."""
        return Lanes(tensor.codes.astype(np.int32), None)


@dataclass(frozen=True)
class TrainedTernaryFormat:
    """Codes -1, 0 and +1 for -w_n, 0 and w_p: trained ternary quantization, Zhu et al., ICLR 2017 (TTQ).

    Two scales cannot leave the sum over a layer's products, so they cannot be one lane times one scale: the codes are
    decoded by a table of three integers of 8 bits (the larger scale is 127), and need a decoder like codebooks do.

    >>> from accelsim import formats
    >>> tensor = formats.get("ttq").quantize([1.0, 0.5, -0.25, 0.0])
    >>> tensor.codes.tolist(), tensor.dequantize().round(3).tolist()
    ([1, 1, -1, 0], [0.75, 0.75, -0.248, 0.0])
    """

    name: ClassVar[str] = "ttq"
    low: ClassVar[int] = -127
    high: ClassVar[int] = 127
    lane_bits: ClassVar[int] = 8
    code_low: ClassVar[int] = -1
    code_high: ClassVar[int] = 1
    code_bits: ClassVar[int] = 2
    reserved_codes: ClassVar[tuple[int, ...]] = ()
    datapath: ClassVar[Datapath] = "codebook"
    exponent_range: ClassVar[tuple[int, int]] = (0, 0)
    blocks: ClassVar[Blocks | None] = None
    bits_per_element: ClassVar[float] = 2.0
    zero_points: ClassVar[tuple[int, int]] = (0, 0)

    def quantize(
        self,
        array: ArrayLike,
        axis: int | None = None,
        *,
        channel_axis: int | None = None,
        scale: ArrayLike | None = None,
        zero_point: ArrayLike | None = None,
        asymmetric: bool = False,
        threshold: ArrayLike | None = None,
        positive: float | None = None,
        negative: float | None = None,
    ) -> QTensor:
        """Quantize real numbers: +1 for x > threshold, -1 for x < -threshold, 0 between and at the threshold.

        array : real numbers, any shape with at least one element
        axis, channel_axis, zero_point, asymmetric : refused: there is one table a tensor, without zero points
        scale : positive; of the table's integers, clamp(rint(w / scale)); None: max(w_p, w_n) / 127
        threshold : not negative; None: 0.05 max|x|, the paper's choice
        positive, negative : w_p and w_n, not negative, as training found them; None: the mean of the values above the
            threshold, and of the magnitudes of those below its negative (0 where there are none)

        Raises:
        FormatError : NaN or infinity, a bad scale or threshold, an axis, a zero point, a negative w_p or w_n
        ShapeError : no elements
        """
        refuse_axis(self.name, axis, channel_axis)
        refuse_zero_points(self.name, zero_point, asymmetric)
        reals = as_reals(array)
        limit = TTQ_FACTOR * float(np.abs(reals).max())
        if threshold is not None:
            limit = float(check_threshold(threshold, reals.shape, None, "quantize"))
        above, below = reals > limit, reals < -limit
        weights = []
        for what, given, chosen in (("negative", negative, -reals[below]), ("positive", positive, reals[above])):
            weight = given if given is not None else (mean(chosen) if chosen.size else 0.0)
            if not 0 <= weight < np.inf:
                raise FormatError(f"ttq: {what} is {weight}; the two scales are finite and not negative")
            weights.append(weight)
        table = _TABLE.quantize([-weights[0], 0.0, weights[1]], scale=scale)
        return make_qtensor(above.astype(np.int32) - below, self, table.scale, codebook=table.codes)

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return the table's integer times scale, float64, rounded once."""
        return np.asarray(self.lanes(tensor).values * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return the table's integer of each code."""
        return look_up(tensor)
