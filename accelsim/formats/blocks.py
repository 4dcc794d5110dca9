"""What the formats with block scales share: checking what is to be quantized, and laying block scales over elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.formats.spec import Format, QTensor, Scalar
from accelsim.formats.tensor import (
    along,
    as_reals,
    block_maxima,
    check_block_axis,
    check_scale,
    make_qtensor,
    normalize_axis,
    other_axes,
    quotient,
    refuse_zero_points,
    spread_blocks,
)


@dataclass(frozen=True)
class BlockedReals:
    """Finite numbers that blocks of `size` run over, along `block_axis`; and the axis of per-channel coarse scales."""

    values: NDArray[np.float64]
    size: int
    block_axis: int
    channel_axis: int | None

    def coarse(self, scale: ArrayLike) -> NDArray[np.float64]:
        """Return a given coarse scale, () or (C,); raise FormatError or ShapeError where it does not fit."""
        return check_scale(scale, self.values.shape, self.channel_axis, "quantize")

    def per_channel(self, scale: NDArray[Scalar]) -> NDArray[Scalar]:
        """Reshape a () or (C,) array so that it broadcasts over elements and over blocks."""
        return along(scale, self.values.ndim, self.channel_axis)

    def scaled(self, scale: ArrayLike | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (coarse scale, values / coarse scale), one float64 division; a scale of None is 1."""
        coarse = self.coarse(1.0 if scale is None else scale)
        return coarse, quotient(self.values, self.per_channel(coarse))

    def magnitudes(self, signed: bool) -> NDArray[np.float64]:
        """Return |x|, or max(x, 0) where elements have no sign."""
        return np.abs(self.values) if signed else np.maximum(self.values, 0.0)

    def largest(self, magnitudes: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return the largest of all, or, with a channel axis, of each channel: () or (C,)."""
        return np.asarray(magnitudes.max(axis=other_axes(magnitudes.ndim, self.channel_axis)))

    def maxima(self, magnitudes: NDArray[Scalar], size: int | None = None) -> NDArray[Scalar]:
        """Return the largest of each block (or group of `size`)."""
        return block_maxima(magnitudes, self.block_axis, size or self.size)

    def spread(self, per_block: NDArray[Scalar]) -> NDArray[Scalar]:
        """Repeat what belongs to a block for its elements."""
        return spread_blocks(per_block, self.block_axis, self.size, self.values.shape[self.block_axis])

    def tensor(
        self, number_format: Format, codes: ArrayLike, coarse: NDArray[np.generic], block_scales: ArrayLike
    ) -> QTensor:
        """Build the quantized tensor."""
        return make_qtensor(
            codes,
            number_format,
            coarse,
            channel_axis=self.channel_axis,
            block_axis=self.block_axis,
            block_scales=block_scales,
        )


def blocked_reals(
    number_format: Format,
    array: ArrayLike,
    axis: int | None,
    channel_axis: int | None,
    zero_point: ArrayLike | None,
    asymmetric: bool,
) -> BlockedReals:
    """Check the arguments that every quantizer of a format with blocks takes.

    array : real numbers with at least one dimension; the last block of an axis may be shorter
    axis : the axis that blocks run along (None: the last)
    channel_axis : the axis of per-channel coarse scales, another than `axis`; None: one for the tensor
    zero_point, asymmetric : refused unless 0 and False

    Raises:
    FormatError : NaN or infinity (how many, and the first), a zero point
    ShapeError : an axis that `array` lacks, `channel_axis` equal to `axis`
    """
    assert number_format.blocks is not None
    refuse_zero_points(number_format.name, zero_point, asymmetric)
    reals = as_reals(array)
    channel = normalize_axis(channel_axis, reals.ndim, "channel_axis")
    block = check_block_axis(axis, reals.shape, channel, "quantize")
    return BlockedReals(reals, number_format.blocks.size, block, channel)


def over_elements(tensor: QTensor, per_block: NDArray[Scalar]) -> NDArray[Scalar]:
    """Repeat what belongs to a block of a tensor for its elements."""
    assert tensor.block_axis is not None  # make_qtensor saw to both
    assert tensor.format.blocks is not None
    return spread_blocks(per_block, tensor.block_axis, tensor.format.blocks.size, tensor.shape[tensor.block_axis])


def stored_scales(tensor: QTensor) -> NDArray[np.int32]:
    """Return the block scales of a tensor that has them."""
    assert tensor.block_scales is not None  # make_qtensor saw to it
    return tensor.block_scales
