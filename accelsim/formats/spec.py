"""The data types that describe a number format, and the tensor of codes that every stage exchanges.

A format is data (DESIGN: "formats are data"): its description, what it costs to store, and the names of the pieces of
arithmetic that encode and decode it. Nothing outside this package asks which format it has; everything else works on
*lanes*: integers, and block scales where there are blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Codes = NDArray[Any]
"""Integer codes: int32, or int64 for the accumulator formats wider than 32 bits."""

Scalar = TypeVar("Scalar", bound=np.generic)


Datapath = Literal["integer", "block_integer", "float", "block_float", "codebook", "binary", "shift"]
"""The arithmetic that a format needs of the array:

integer : products of plain integers
block_integer : an integer dot product for each block, times unsigned integer block scales (VSQ)
float : significands with an exponent each (minifloats)
block_float : the same, or plain integers, under block scales that have exponents (MX, microexponents, NVFP4)
codebook : products of plain integers, which a table gives for the stored codes
binary : plain integers too, +1 and -1: two of them need no multiplier but an XNOR
shift : plain integers too, powers of two and zero: a shifter will do in place of a multiplier
"""


FLOATING: frozenset[Datapath] = frozenset({"float", "block_float"})
"""The datapaths whose sums have exponents: such a layer accumulates real numbers, not integers."""


@dataclass(frozen=True)
class ScaleLevel:
    """One level of shared scales: a code of `bits` bits, 0 to `largest_code`, for each `size` elements."""

    size: int
    bits: int
    largest_code: int


@dataclass(frozen=True)
class Blocks:
    """How a format shares scales: one stored scale of `scale_bits` bits for each `size` elements along the block axis.

    largest_scale : the largest stored scale that means a number; None: all of 2**scale_bits do. What a stored scale
        stands for (VSQ: that integer; E8M0: a power of two) is the format's to say, in `lanes`.
    significand_bits : width of the integers that `lanes` gives for block scales; 0: all of them are 1
    levels : of a format with scales above scales, from the smallest group up; () for one level. A block's stored scale
        then holds the code of every level above its elements, the lowest level in the lowest bits: the blocks of a
        larger group repeat its code. Memory holds that code once (`row_bits`)
    tensor_scale_bits : width of a scale of the whole tensor that is stored with it (NVFP4: float32); 0: none

    >>> from accelsim import formats
    >>> blocks = formats.get("vsq4").blocks
    >>> blocks.size, blocks.scale_bits, blocks.scale_high
    (16, 4, 15)
    >>> blocks.row_bits(40)  # three scales
    12
    """

    size: int
    scale_bits: int
    largest_scale: int | None = None
    significand_bits: int = 0
    levels: tuple[ScaleLevel, ...] = ()
    tensor_scale_bits: int = 0

    @property
    def scale_high(self) -> int:
        return (1 << self.scale_bits) - 1 if self.largest_scale is None else self.largest_scale

    def row_bits(self, length: int) -> int:
        """Return the bits of all scales of `length` elements in a row; shorter last groups have whole scales."""
        if not self.levels:
            return -(-length // self.size) * self.scale_bits
        return sum(-(-length // level.size) * level.bits for level in self.levels)


@dataclass(frozen=True)
class Lanes:
    """A tensor decoded for the array: what the multipliers and the scale units see.

    ``value = values * 2**exponents * (block_scales * 2**block_exponents) * scale``; what is None has no part in it.
    (Zero points stay with the layer's correction terms.)

    values : int32, the tensor's shape; what enters a multiplier port, in [low, high] of the format
    block_scales : int32, the tensor's shape with the block axis divided by the block size (rounded up), or None
    exponents : int32, the tensor's shape; each lane's power of two, for formats whose lanes are significands; or None
    block_exponents : int32, the shape of `block_scales`; each block scale's power of two, or None

    >>> from accelsim import formats
    >>> lanes = formats.get("mxfp4").quantize([6.0, -3.0, 0.5, 1.0]).lanes()  # significands of 2 bits: 3, 2, 1, 0
    >>> lanes.values.tolist(), lanes.exponents.tolist()
    ([3, -3, 1, 2], [1, 0, -1, -1])
    >>> lanes.block_factors().tolist()
    [1.0]
    """

    values: NDArray[np.int32]
    block_scales: NDArray[np.int32] | None
    exponents: NDArray[np.int32] | None = None
    block_exponents: NDArray[np.int32] | None = None

    def block_factors(self) -> NDArray[np.float64] | None:
        """Return what each block is multiplied by, float64 and exact, the shape of `block_scales`; or None."""
        if self.block_scales is None:
            return None
        significands = self.block_scales.astype(np.float64)
        return significands if self.block_exponents is None else np.ldexp(significands, self.block_exponents)


@runtime_checkable
class Format(Protocol):
    """What every number format offers.

    `low` and `high` bound the integers that enter a multiplier port (lanes); `code_low` and `code_high` bound the
    stored codes. The two are one for integers; a float's code is a bit pattern and its lane a significand.

    >>> from accelsim import formats
    >>> mx6 = formats.get("mx6")
    >>> isinstance(mx6, formats.Format), mx6.name, mx6.datapath, mx6.bits_per_element
    (True, 'mx6', 'block_float', 6.0)
    """

    @property
    def name(self) -> str: ...
    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...
    @property
    def lane_bits(self) -> int:
        """Bits of one element at a multiplier port (an int4 lane has 4, signed or not)."""
        ...

    @property
    def code_low(self) -> int: ...
    @property
    def code_high(self) -> int: ...
    @property
    def code_bits(self) -> int:
        """Bits of one stored code; what blocks share is not part of it."""
        ...

    @property
    def reserved_codes(self) -> tuple[int, ...]:
        """The codes in [code_low, code_high] that mean no finite number (NaN, infinity); no tensor holds them."""
        ...

    @property
    def datapath(self) -> Datapath:
        """The arithmetic that the format needs of the array."""
        ...

    @property
    def exponent_range(self) -> tuple[int, int]:
        """Smallest and largest exponent of a lane; (0, 0) where lanes are plain integers."""
        ...

    @property
    def blocks(self) -> Blocks | None: ...
    @property
    def bits_per_element(self) -> float:
        """Stored bits an element, shared scales included (coarse float scales, a few a tensor, are not)."""
        ...

    @property
    def zero_points(self) -> tuple[int, int]:
        """Smallest and largest zero point; (0, 0) for a format without zero points."""
        ...

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
        """Quantize real numbers; `scale` and `zero_point` are chosen from the data where they are not given.

        axis : plain formats: the axis of per-channel scales (None: per tensor); formats with blocks: the block axis
            (None: the last axis)
        channel_axis : the axis of per-channel scales
        asymmetric : choose a zero point too, so that the codes span [min(x, 0), max(x, 0)]
        """
        ...

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return the real values, float64, the shape of the codes."""
        ...

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return what the multiplier ports and scale units see. Zero points stay with the layer's correction terms."""
        ...


@dataclass(frozen=True, eq=False)
class QTensor:
    """A quantized tensor: integer codes and what they mean. For integers ``value = (code - zero_point) * scale``, times
    the block's integer scale where the format has blocks; float formats: see :class:`Lanes`.

    Build one with :func:`accelsim.formats.make_qtensor`, which checks all of the following.

    codes : int32 (int64 for accumulator formats wider than 32 bits), any shape; every code lies in the format's range
    format : the number format
    scale : float64, shape () per tensor or (C,) per channel along `channel_axis`; the coarse scale (VSQ: gamma, NVFP4:
        the tensor scale; 1 where a format has none)
    zero_point : int64, shape () or (C,); zeros for formats without zero points
    channel_axis : the axis that per-channel scales and zero points run along, or None
    block_axis : the axis that blocks run along, or None
    block_scales : int32, `codes`' shape with the block axis divided by the block size (rounded up), or None; each as it
        is stored (VSQ: an integer, MX: an E8M0 code)
    codebook : int32 [code_high - code_low + 1], the lane of each code from code_low on, for formats that decode by a
        table ("codebook" datapath); None for others

    >>> from accelsim import formats
    >>> tensor = formats.get("int4").quantize([[3.5, -1.0, 1.75], [14.0, 0.0, -13.0]], axis=0)  # a scale a row
    >>> tensor.codes.tolist(), tensor.scales.tolist()  # largest magnitudes over 7; ties go to the even code
    ([[7, -2, 4], [7, 0, -6]], [0.5, 2.0])
    >>> tensor.dequantize().tolist()
    [[3.5, -1.0, 2.0], [14.0, 0.0, -12.0]]
    >>> tensor.shape, tensor.size_bits, tensor.lanes().values.dtype.name  # 6 codes of 4 bits
    ((2, 3), 24, 'int32')
    >>> tensor.per_channel(tensor.scale).shape  # broadcasts over the codes
    (2, 1)
    """

    codes: Codes
    format: Format
    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]
    channel_axis: int | None = None
    block_axis: int | None = None
    block_scales: NDArray[np.int32] | None = None
    codebook: NDArray[np.int32] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def scales(self) -> NDArray[np.float64]:
        """The effective scale: () per tensor, (C,) per channel; with blocks, one a block (shape of `block_scales`)."""
        factors = None if self.block_scales is None else self.lanes().block_factors()
        return self.scale if factors is None else factors * self.per_channel(self.scale)

    def per_channel(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Reshape a () or (C,) array so that it broadcasts along the channel axis of the codes."""
        if array.ndim == 0 or self.channel_axis is None:
            return array
        shape = [1] * self.codes.ndim
        shape[self.channel_axis] = array.size
        return array.reshape(shape)

    def dequantize(self) -> NDArray[np.float64]:
        """Return the real values, float64, the shape of the codes."""
        return self.format.dequantize(self)

    def lanes(self) -> Lanes:
        """Return what the multiplier ports and scale units see."""
        return self.format.lanes(self)

    @property
    def size_bits(self) -> int:
        """Packed size in bits; see :func:`packed_bits`."""
        return packed_bits(self.format, self.codes.shape, self.block_axis)


def packed_bits(number_format: Format, shape: Sequence[int], block_axis: int | None = None) -> int:
    """Return the packed size of a tensor in bits, from its shape alone.

    Codes at their width; block scales, all levels, where a shorter last block has a whole scale; the tensor's own scale
    where the format stores one; the table of a format that decodes by one.

    block_axis : the axis that blocks run along (formats without blocks: any)

    >>> from accelsim import formats
    >>> packed_bits(formats.get("mxfp4"), (2, 40), block_axis=1)  # 80 elements of 4 bits; 2 scales of 8 bits a row
    352
    >>> packed_bits(formats.get("kmeans2"), (10,))  # 10 indices of 2 bits, a table of 4 bytes
    52
    """
    elements, blocks = math.prod(shape), number_format.blocks
    bits = elements * number_format.code_bits
    if blocks is not None and block_axis is not None:
        length = shape[block_axis]
        bits += elements // length * blocks.row_bits(length) + blocks.tensor_scale_bits
    if number_format.datapath == "codebook":
        bits += (number_format.code_high - number_format.code_low + 1) * number_format.lane_bits
    return bits
