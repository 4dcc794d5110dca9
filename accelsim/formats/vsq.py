"""VSQ: per-vector scaled quantization (VS-Quant, Dai et al., MLSys 2021).

Each vector of V elements shares an unsigned M-bit integer scale; one float scale gamma, per tensor or per channel,
stands above all of them: ``x ~ code * vector_scale * gamma``. The array multiplies integers only; gamma waits for the
post-processing unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError
from accelsim.formats.blocks import blocked_reals, over_elements, stored_scales
from accelsim.formats.integer import IntegersInBlocks, usable_scale
from accelsim.formats.spec import Blocks, Lanes, QTensor
from accelsim.formats.tensor import clamp_codes

ScaleRounding = Literal["nearest", "up"]
ElementScale = Literal["quantized", "exact"]

MAX_ELEMENT_BITS = 8
MAX_VECTOR_SIZE = 256
MAX_SCALE_BITS = 12


@dataclass(frozen=True)
class VsqFormat(IntegersInBlocks):
    """Elements of `element_bits` bits in vectors of `vector_size`, each with an unsigned scale of `scale_bits` bits.

    Signed elements are symmetric, [-(2**(b-1) - 1), 2**(b-1) - 1]; unsigned ones [0, 2**b - 1]. There are no zero
    points. Sizes outside 2..8 element bits, 1..256 elements and 1..12 scale bits raise FormatError.

    >>> from accelsim import formats
    >>> tensor = formats.get("vsq_int4_v2_s4").quantize([[7.5, 3.0, 1.0, 0.5]])  # vectors of 2
    >>> tensor.codes.tolist(), tensor.block_scales.tolist()
    ([[7, 3, 7, 4]], [[15, 2]])
    """

    element_bits: int
    signed: bool = True
    vector_size: int = 16
    scale_bits: int = 4

    def __post_init__(self) -> None:
        for what, value, low, high in (
            ("element width", self.element_bits, 2, MAX_ELEMENT_BITS),
            ("vector size", self.vector_size, 1, MAX_VECTOR_SIZE),
            ("scale width", self.scale_bits, 1, MAX_SCALE_BITS),
        ):
            if not low <= value <= high:
                raise FormatError(f"{self.name}: {what} {value} is outside {low}..{high}")

    @property
    def name(self) -> str:
        sign = "" if self.signed else "u"
        return f"vsq_{sign}int{self.element_bits}_v{self.vector_size}_s{self.scale_bits}"

    @property
    def blocks(self) -> Blocks | None:
        return Blocks(self.vector_size, self.scale_bits, significand_bits=self.scale_bits)

    @property
    def bits_per_element(self) -> float:
        return self.element_bits + self.scale_bits / self.vector_size

    def quantize(
        self,
        array: ArrayLike,
        axis: int | None = -1,
        *,
        channel_axis: int | None = None,
        scale: ArrayLike | None = None,
        zero_point: ArrayLike | None = None,
        asymmetric: bool = False,
        scale_rounding: ScaleRounding = "nearest",
        element_scale: ElementScale = "quantized",
    ) -> QTensor:
        """Quantize real numbers in two levels, all in float64::

            s     = max|x| / high of each vector (unsigned elements: max(x, 0) / high)
            gamma = max of s over the tensor (or channel) / (2**M - 1)
            sq    = clamp(round(s / gamma), 0, 2**M - 1), halves up
            code  = clamp(rint(x / (sq * gamma)), low, high), halves to even; 0 where sq is 0

        array : real numbers with at least one dimension; the last vector of an axis may be shorter
        axis : the axis that vectors run along (None: the last)
        channel_axis : the axis of per-channel gamma, another than `axis`; None: one gamma for the tensor
        scale : gamma, () or (C,), positive; None: from the data; 1 where all is zero, and never below 2**-1022
        zero_point, asymmetric : refused unless 0 and False: the format has no zero points
        scale_rounding : "nearest", or "up": sq = ceil(s / gamma), so that no element clamps
        element_scale : "quantized": elements are divided by sq * gamma, the scale that decoding uses; "exact": by s
            as in the paper, which ignores the rounding of sq

        A vector that is small beside the largest one (s < gamma / 2) gets sq = 0 and becomes zeros.

        Raises:
        FormatError : NaN or infinity (how many, and the first), a bad gamma, a zero point, an unknown option
        ShapeError : an axis that `array` lacks, `channel_axis` equal to `axis`, shapes that do not fit
        """
        for what, option, accepted in (
            ("scale_rounding", scale_rounding, ("nearest", "up")),
            ("element_scale", element_scale, ("quantized", "exact")),
        ):
            if option not in accepted:
                raise FormatError(f"{what}={option!r} is not one of {', '.join(map(repr, accepted))}")
        blocked = blocked_reals(self, array, axis, channel_axis, zero_point, asymmetric)
        magnitudes = blocked.magnitudes(self.signed)
        exact_scales = blocked.maxima(magnitudes) / self.high
        if scale is None:
            largest = blocked.largest(magnitudes)
            gamma = usable_scale(largest / self.high / self._largest_scale, largest, self.high * self._largest_scale)
        else:
            gamma = blocked.coarse(scale)
        spread_gamma = blocked.per_channel(gamma)
        with np.errstate(over="ignore"):  # a quotient too large for float64 is infinite, and clamps
            ratio = exact_scales / spread_gamma
            rounded = np.ceil(ratio) if scale_rounding == "up" else round_half_up(ratio)
            vector_scales = clamp_codes(rounded, 0, self._largest_scale).astype(np.int32)
            decoded_scales = np.minimum(vector_scales * spread_gamma, np.finfo(np.float64).max)
            steps = exact_scales if element_scale == "exact" else decoded_scales
            # Vectors whose scale is 0 have only zero codes; any divisor but 0 will do for them.
            divisors = np.where((vector_scales > 0) & (steps > 0), steps, np.inf)
            codes = np.rint(blocked.values / blocked.spread(divisors))
        return blocked.tensor(self, clamp_codes(codes, self.low, self.high), gamma, vector_scales)

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return ``(code * vector scale) * gamma``, float64; the integer product is exact, so it rounds once."""
        products = tensor.codes * over_elements(tensor, stored_scales(tensor))
        return np.asarray(products * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return the codes and the integer vector scales."""
        return Lanes(tensor.codes.astype(np.int32), tensor.block_scales)

    @property
    def _largest_scale(self) -> int:
        return (1 << self.scale_bits) - 1


def round_half_up(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round non-negative numbers to the nearest integer, halves up; exact (adding 0.5 first would not be)."""
    whole = np.floor(values)
    with np.errstate(invalid="ignore"):  # infinity has no fraction
        return np.asarray(whole + (values - whole >= 0.5))
