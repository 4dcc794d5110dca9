"""Binary tensors: every element is +1 or -1, times a scale.

BinaryConnect and BNN (Courbariaux et al., 2015 and 2016) have no scale; XNOR-Net's (Rastegari et al., ECCV 2016) is the
mean magnitude, per tensor or per output channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError
from accelsim.formats.discrete import channels_of, mean, one_a_channel
from accelsim.formats.spec import Blocks, Datapath, Lanes, QTensor
from accelsim.formats.tensor import (
    SMALLEST_SCALE,
    along,
    as_reals,
    check_scale,
    make_qtensor,
    one_axis,
    refuse_zero_points,
)

Scaling = Literal["mean", "none"]


@dataclass(frozen=True)
class BinaryFormat:
    """One stored bit.

    one_is_minus : False: code 1 is +1 and code 0 is -1 ("binary", FINN's convention); True: the complement, code 1 is
        -1 and code 0 is +1 ("binary_inv", Larq Compute Engine's: the bit is the sign bit)

    The lane is +1 or -1: one bit to an XNOR or to a multiplier that only negates; a plain signed port needs 2.
    There is no zero: a convolution that pads with zeros feeds 0 to the port beyond the edges (the stored tensor never
    holds it).

    >>> from accelsim import formats
    >>> tensor = formats.get("binary").quantize([0.5, -0.25, 0.0, -1.25])
    >>> tensor.codes.tolist(), tensor.lanes().values.tolist(), float(tensor.scale)
    ([1, 0, 1, 0], [1, -1, 1, -1], 0.5)
    """

    one_is_minus: bool = False

    low: ClassVar[int] = -1
    high: ClassVar[int] = 1
    lane_bits: ClassVar[int] = 1
    code_low: ClassVar[int] = 0
    code_high: ClassVar[int] = 1
    code_bits: ClassVar[int] = 1
    reserved_codes: ClassVar[tuple[int, ...]] = ()
    datapath: ClassVar[Datapath] = "binary"
    exponent_range: ClassVar[tuple[int, int]] = (0, 0)
    blocks: ClassVar[Blocks | None] = None
    bits_per_element: ClassVar[float] = 1.0
    zero_points: ClassVar[tuple[int, int]] = (0, 0)

    @property
    def name(self) -> str:
        return "binary_inv" if self.one_is_minus else "binary"

    @property
    def plus_code(self) -> int:
        """The code that stands for +1; the other one stands for -1."""
        return 1 - self.one_is_minus

    def quantize(
        self,
        array: ArrayLike,
        axis: int | None = None,
        *,
        channel_axis: int | None = None,
        scale: ArrayLike | None = None,
        zero_point: ArrayLike | None = None,
        asymmetric: bool = False,
        scaling: Scaling = "mean",
        generator: np.random.Generator | None = None,
    ) -> QTensor:
        """Quantize real numbers to their signs: +1 for x >= 0 (for -0.0 too), -1 for x < 0.

        array : real numbers, any shape with at least one element
        axis, channel_axis : two names of one thing, the axis of per-channel scales; None: per tensor
        scale : () or (C,), positive; None: chosen by `scaling`
        zero_point, asymmetric : refused unless 0 and False
        scaling : "mean": mean |x| per tensor or channel (XNOR-Net); "none": 1 (BinaryConnect, BNN)
        generator : None: the sign; otherwise +1 with the probability clip((x / scale + 1) / 2, 0, 1) of BinaryConnect's
            hard sigmoid: one draw of ``generator.random`` an element, in C order, +1 where it is less than that.
            The expectation of code times scale is then x, for |x| <= scale

        Raises:
        FormatError : NaN or infinity, a bad scale, a zero point, a mean magnitude of 0, an unknown option
        ShapeError : an axis that `array` lacks, or shapes that do not fit
        """
        if scaling not in ("mean", "none"):
            raise FormatError(f"scaling={scaling!r} is not one of 'mean', 'none'")
        if generator is not None and not isinstance(generator, np.random.Generator):
            raise FormatError(f"generator is a {type(generator).__name__}; pass a numpy.random.Generator, or None")
        refuse_zero_points(self.name, zero_point, asymmetric)
        reals = as_reals(array)
        channel = one_axis(axis, channel_axis, reals.ndim)
        if scale is not None:
            scales = check_scale(scale, reals.shape, channel, "quantize")
        elif scaling == "none":
            scales = np.ones(() if channel is None else reals.shape[channel])
        else:
            scales = self._mean_magnitudes(reals, channel)
        if generator is None:
            positive = reals >= 0
        else:
            with np.errstate(over="ignore"):  # an infinite quotient is certain of its sign
                ratio = reals / along(scales, reals.ndim, channel)
            positive = generator.random(reals.shape) < np.clip((ratio + 1) / 2, 0, 1)
        return make_qtensor((positive != self.one_is_minus).astype(np.int32), self, scales, channel_axis=channel)

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return scale or -scale, float64, exact."""
        return np.asarray(self.lanes(tensor).values * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return +1 and -1."""
        return Lanes(np.where(tensor.codes == self.plus_code, 1, -1).astype(np.int32), None)

    def _mean_magnitudes(self, reals: NDArray[np.float64], channel: int | None) -> NDArray[np.float64]:
        magnitudes = channels_of(np.abs(reals), channel)
        empty = ~magnitudes.any(axis=1)
        if empty.any():
            which = "all values" if channel is None else f"all values of channel {int(np.argmax(empty))}"
            raise FormatError(
                f"{self.name}: {which} are 0, so that their mean magnitude is no scale, and +1 and -1 cannot stand for "
                f"0; pass scale, or scaling='none'"
            )
        return one_a_channel([max(mean(row), SMALLEST_SCALE) for row in magnitudes], channel)
