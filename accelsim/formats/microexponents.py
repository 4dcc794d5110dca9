"""Shared microexponents MX9, MX6 and MX4 (Rouhani et al., ISCA 2023). They are not the OCP MX formats.

Blocks of 16 share an 8-bit exponent E; each pair of elements has one bit tau more, which halves the pair's step::

    value = code * 2**(E - tau - (w - 2)) * scale,    code of w = 8, 5, 3 bits: a sign and w - 1 bits of magnitude

A block's stored scale is the 16-bit integer ``(E + 127) * 256 + the eight tau`` (bit i: elements 2i and 2i + 1): an
element takes w + 16/16 bits, which is 9, 6 or 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.formats.blocks import blocked_reals, over_elements, stored_scales
from accelsim.formats.minifloat import ElementRounding, round_magnitudes
from accelsim.formats.mixins import NoZeroPoints
from accelsim.formats.spec import Blocks, Datapath, Lanes, QTensor

BLOCK_SIZE = 16
PAIRS = BLOCK_SIZE // 2
BIAS = 127
SMALLEST = 2.0**-126  # what is smaller, a float32 subnormal, counts as zero


@dataclass(frozen=True)
class MicroexponentFormat(NoZeroPoints):
    """Sign-magnitude elements of `element_bits` bits under a shared exponent and one microexponent bit a pair.

    >>> from accelsim import formats
    >>> mx6 = formats.get("mx6")
    >>> mx6.bits_per_element, mx6.blocks.size
    (6.0, 16)
    >>> mx6.quantize([15.0, 7.0, 1.5, 0.5]).dequantize().tolist()  # the second pair has half the step
    [15.0, 7.0, 1.5, 0.5]
    """

    name: str
    element_bits: int

    @property
    def high(self) -> int:
        return (1 << (self.element_bits - 1)) - 1

    @property
    def low(self) -> int:
        return -self.high

    @property
    def lane_bits(self) -> int:
        return self.element_bits

    @property
    def code_low(self) -> int:
        return self.low

    @property
    def code_high(self) -> int:
        return self.high

    @property
    def code_bits(self) -> int:
        return self.element_bits

    @property
    def reserved_codes(self) -> tuple[int, ...]:
        return ()

    @property
    def datapath(self) -> Datapath:
        return "block_float"

    @property
    def exponent_range(self) -> tuple[int, int]:
        return (-1, 0)

    @property
    def blocks(self) -> Blocks:
        return Blocks(BLOCK_SIZE, 16, (2 * BIAS << PAIRS) + (1 << PAIRS) - 1)

    @property
    def bits_per_element(self) -> float:
        return self.element_bits + 16 / BLOCK_SIZE

    def quantize(
        self,
        array: ArrayLike,
        axis: int | None = -1,
        *,
        channel_axis: int | None = None,
        scale: ArrayLike | None = None,
        zero_point: ArrayLike | None = None,
        asymmetric: bool = False,
        rounding: ElementRounding = "half_even",
    ) -> QTensor:
        """Quantize real numbers; every step is exact but the rounding of the element::

            e(v)  = floor(log2 |v|), limited to [-127, 127]; -127 where |v| < 2**-126, which is flushed to zero
            E     = max of e over the block
            tau   = 1 for a pair with both e < E, else 0
            code  = clamp(round(v / 2**(E - tau - (w - 2))), -high, high)

        A block of zeros stores 0 (E = -127, no tau). A shorter last block is completed by zeros, whose pairs have
        tau = 1 unless all of the block is zero. The clamp acts where the largest values round up to a power of two.

        array : real numbers with at least one dimension; the last block of an axis may be shorter
        axis : the axis that blocks run along (None: the last)
        scale, channel_axis : a coarse scale above the blocks, () or (C,), positive: v = x / scale. None: 1
        zero_point, asymmetric : refused unless 0 and False: the format has no zero points
        rounding : of elements: "half_even", "half_away" or "toward_zero"

        Raises:
        FormatError : NaN or infinity (how many, and the first), a bad scale, a zero point, an unknown option
        ShapeError : an axis that `array` lacks, `channel_axis` equal to `axis`, shapes that do not fit
        """
        blocked = blocked_reals(self, array, axis, channel_axis, zero_point, asymmetric)
        coarse, values = blocked.scaled(scale)
        block = blocked.block_axis
        values = np.moveaxis(values, block, -1)
        length = values.shape[-1]
        padding = [(0, 0)] * (values.ndim - 1) + [(0, -length % BLOCK_SIZE)]
        pairs = np.pad(values, padding).reshape(*values.shape[:-1], -1, PAIRS, 2)
        exponents = _exponents(pairs)
        shared = exponents.max(axis=(-1, -2))
        tau = exponents.max(axis=-1) < shared[..., None]
        steps = shared[..., None, None] - tau[..., None] - (self.element_bits - 2)
        kept = np.where(np.abs(pairs) < SMALLEST, 0.0, pairs)
        magnitudes = np.minimum(round_magnitudes(np.ldexp(np.abs(kept), -steps), rounding), self.high)
        codes = np.copysign(magnitudes, kept).astype(np.int64).reshape(*values.shape[:-1], -1)[..., :length]
        bits = (tau.astype(np.int64) << np.arange(PAIRS)).sum(axis=-1)
        scales = ((shared.astype(np.int64) + BIAS) << PAIRS) + bits
        return blocked.tensor(self, np.moveaxis(codes, -1, block), coarse, np.moveaxis(scales, -1, block))

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return ``(code * 2**(E - tau - (w - 2))) * scale``, float64; the first product is exact: it rounds once."""
        lanes = self.lanes(tensor)
        assert lanes.exponents is not None
        assert lanes.block_exponents is not None
        shared = over_elements(tensor, lanes.block_exponents)
        blocks = np.ldexp(lanes.values.astype(np.float64), lanes.exponents + shared)
        return np.asarray(blocks * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return the codes, -tau for each as its exponent, and block scales of 1 times 2**(E - (w - 2))."""
        assert tensor.block_axis is not None  # make_qtensor saw to it
        stored, axis, length = stored_scales(tensor), tensor.block_axis, tensor.shape[tensor.block_axis]
        position = np.arange(length) % BLOCK_SIZE // 2
        position = position.reshape([length if i == axis else 1 for i in range(len(tensor.shape))])
        tau = (over_elements(tensor, stored) >> position) & 1
        shared = (stored >> PAIRS) - BIAS - (self.element_bits - 2)
        return Lanes(
            tensor.codes.astype(np.int32),
            np.ones_like(stored),
            (-tau).astype(np.int32),
            shared.astype(np.int32),
        )


def _exponents(values: NDArray[np.float64]) -> NDArray[np.int32]:
    magnitudes = np.abs(values)
    _, above = np.frexp(magnitudes)
    return np.where(magnitudes < SMALLEST, -BIAS, np.minimum(above - 1, BIAS)).astype(np.int32)
