"""OCP Microscaling formats (MX v1.0): blocks of 32 elements under one power-of-two scale, E8M0.

``x ~ element * 2**X * scale``; the stored block scale is X + 127, 0 to 254 (255 would be NaN and is refused).
Libraries differ in how they choose X, so the rule has a name (:data:`SCALE_RULES`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError
from accelsim.formats.blocks import blocked_reals, over_elements, stored_scales
from accelsim.formats.minifloat import ElementRounding, round_magnitudes
from accelsim.formats.mixins import CodesOfElement, ElementType, NoZeroPoints
from accelsim.formats.spec import Blocks, Datapath, Lanes, QTensor

ScaleRule = Literal["floor", "even", "tosa", "rceil"]
SCALE_RULES = ("floor", "even", "tosa", "rceil")
"""How X follows from the largest magnitude M of a block, with emax and `largest` those of the element type:

floor : floor(log2 M) - emax, the rule of OCP MX v1.0 (section 6.3); a maximum above `largest` saturates
even : one more where rounding M to the element's fraction width, halves to even, carries into the next power of two
    (torchao's EVEN)
tosa : one more where M / 2**X, rounded in its own binade, halves to even, is above `largest` (TOSA 1.1). Differs from
    `even` for E4M3 only, whose codes end at 448 and not at 480
rceil : the smallest X for which M <= largest * 2**X (NVIDIA's and torchao's RCEIL); nothing saturates
"""

E8M0_BIAS = 127
E8M0_LARGEST = 254  # 255 is NaN


class BlockElement(ElementType, Protocol):
    """What a block needs of its element type: codes, and lanes as integers times powers of two."""

    @property
    def fraction_bits(self) -> int: ...
    @property
    def max_exponent(self) -> int: ...
    @property
    def largest(self) -> float: ...
    def significands(self, codes: NDArray[np.int32]) -> NDArray[np.int32]: ...
    def exponents(self, codes: NDArray[np.int32]) -> NDArray[np.int32]: ...
    def decode(self, codes: NDArray[np.int32]) -> NDArray[np.float64]: ...
    def encode(self, values: NDArray[np.float64], rounding: ElementRounding) -> NDArray[np.int32]: ...


@dataclass(frozen=True)
class Int8Element:
    """MXINT8's element: an 8-bit two's complement code with an implied 2**-6, -2 to 1 63/64.

    Encoding saturates symmetrically, at +-127/64, as libraries do; -128 is decoded but never made.
    """

    code_bits: int = 8
    code_low: int = -128
    code_high: int = 127
    reserved_codes: tuple[int, ...] = ()
    low: int = -128
    high: int = 127
    lane_bits: int = 8
    fraction_bits: int = 6
    max_exponent: int = 0
    largest: float = 127 / 64
    exponent_range: tuple[int, int] = (-6, -6)

    def significands(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the codes: they are the integers."""
        return codes.astype(np.int32)

    def exponents(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return -6 for each code."""
        return np.full(codes.shape, -self.fraction_bits, np.int32)

    def decode(self, codes: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return code / 64, exact."""
        return np.ldexp(codes.astype(np.float64), -self.fraction_bits)

    def encode(self, values: NDArray[np.float64], rounding: ElementRounding) -> NDArray[np.int32]:
        """Return values * 64 rounded, saturated at +-127."""
        steps = np.ldexp(np.abs(values), self.fraction_bits)
        magnitudes = np.minimum(round_magnitudes(steps, rounding), self.high)
        return np.copysign(magnitudes, values).astype(np.int32)


INT8 = Int8Element()


@dataclass(frozen=True)
class OcpMxFormat(CodesOfElement, NoZeroPoints):
    """Elements of one type in blocks that share an E8M0 scale: `element.code_bits` + 8 / `block_size` bits each.

    >>> from accelsim import formats
    >>> tensor = formats.get("mxfp4").quantize([0.5, -48.0, 3.0])
    >>> tensor.block_scales.tolist(), tensor.dequantize().tolist()  # E8M0: 2**(130 - 127)
    ([130], [0.0, -48.0, 4.0])
    """

    name: str
    element: BlockElement
    block_size: int = 32

    @property
    def datapath(self) -> Datapath:
        return "block_float"

    @property
    def blocks(self) -> Blocks:
        return Blocks(self.block_size, 8, E8M0_LARGEST)

    @property
    def bits_per_element(self) -> float:
        return self.code_bits + 8 / self.block_size

    def quantize(
        self,
        array: ArrayLike,
        axis: int | None = -1,
        *,
        channel_axis: int | None = None,
        scale: ArrayLike | None = None,
        zero_point: ArrayLike | None = None,
        asymmetric: bool = False,
        scale_rule: ScaleRule = "floor",
        rounding: ElementRounding = "half_even",
    ) -> QTensor:
        """Quantize real numbers: X of each block by `scale_rule`, then ``code = encode(x / 2**X)``, saturating.

        Every step is exact but the rounding of the element. X is limited to [-127, 127]. A block of zeros stores 0
        (X = -127) and zero codes; in general, blocks too small for X = -127 go down to subnormal elements and then to
        zeros, and blocks too large for X = 127 saturate.

        array : real numbers with at least one dimension; the last block of an axis may be shorter
        axis : the axis that blocks run along (None: the last)
        scale, channel_axis : a coarse scale above the blocks, () or (C,), positive: x / scale is quantized. None: 1, as
            OCP defines; it is never chosen from the data. Its axis is another than `axis`
        zero_point, asymmetric : refused unless 0 and False: the format has no zero points
        scale_rule : "floor" (OCP), "even", "tosa" or "rceil" (:data:`SCALE_RULES`)
        rounding : of elements: "half_even", "half_away" or "toward_zero"

        Raises:
        FormatError : NaN or infinity (how many, and the first), a bad scale, a zero point, an unknown option
        ShapeError : an axis that `array` lacks, `channel_axis` equal to `axis`, shapes that do not fit
        """
        if scale_rule not in SCALE_RULES:
            raise FormatError(f"scale_rule={scale_rule!r} is not one of {', '.join(map(repr, SCALE_RULES))}")
        blocked = blocked_reals(self, array, axis, channel_axis, zero_point, asymmetric)
        coarse, values = blocked.scaled(scale)
        exponents = self._exponents(blocked.maxima(np.abs(values)), scale_rule)
        with np.errstate(under="ignore", over="ignore"):  # far below the smallest element, or far above the largest
            codes = self.element.encode(np.ldexp(values, -blocked.spread(exponents)), rounding)
        return blocked.tensor(self, codes, coarse, exponents + E8M0_BIAS)

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return ``(decode(code) * 2**X) * scale``, float64; the first product is exact, so it rounds once."""
        exponents = over_elements(tensor, stored_scales(tensor)) - E8M0_BIAS
        blocks = np.ldexp(self.element.decode(tensor.codes), exponents)
        return np.asarray(blocks * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return signed significands with an exponent each, and block scales of 1 times a power of two."""
        stored = stored_scales(tensor)
        return Lanes(
            self.element.significands(tensor.codes),
            np.ones_like(stored),
            self.element.exponents(tensor.codes),
            stored - E8M0_BIAS,
        )

    def _exponents(self, maxima: NDArray[np.float64], rule: ScaleRule) -> NDArray[np.int32]:
        halves, exponents = np.frexp(maxima)
        significands = 2 * halves  # in [1, 2), times 2**(exponent - 1); or 0
        steps = np.rint(np.ldexp(significands, self.element.fraction_bits))  # in steps of the largest element's binade
        top = np.ldexp(self.element.largest, -self.element.max_exponent)
        if rule == "even":
            bump = steps == 2 << self.element.fraction_bits
        elif rule == "tosa":
            bump = np.ldexp(steps, -self.element.fraction_bits) > top
        elif rule == "rceil":
            bump = significands > top
        else:
            bump = np.zeros(maxima.shape, bool)
        chosen = np.clip(exponents - 1 - self.element.max_exponent + bump, -E8M0_BIAS, E8M0_BIAS)
        return np.where(maxima > 0, chosen, -E8M0_BIAS).astype(np.int32)
