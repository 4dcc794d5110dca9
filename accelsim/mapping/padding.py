"""Zero padding of binary words: what the padding bits have added, to be taken off again (docs/numerics.md).

A word of bits holds +1 and -1 and nothing else, so the taps beyond the border enter as bits. Where padding stands for 0
they must count for nothing; what they do count for depends on the weights and the geometry alone.
"""

from __future__ import annotations

import numpy as np

from accelsim.mapping.contract import Int32, Int64
from accelsim.trace.schema import Conv2dMeta


def padding_correction(layer: Conv2dMeta, x_shape: tuple[int, ...], weight: Int32, bit: int) -> Int64 | None:
    """Return what padding added to each result, int64 [groups, M, N]; None where there is no padding.

    x_shape : [batch, height, width, channel]
    weight : lanes [out, kernel height, kernel width, in / groups]
    bit : the lane that stands beyond the border, +1 or -1
    """
    if not any(side for axis in layer.padding for side in axis):
        return None
    out_channels, kernel_h, kernel_w, _ = weight.shape
    rows = _outside(x_shape[1], kernel_h, layer, 0)  # [out height, kernel height]
    cols = _outside(x_shape[2], kernel_w, layer, 1)
    outside = rows[:, None, :, None] | cols[None, :, None, :]  # a tap is outside if its row or its column is
    taps = outside.reshape(rows.shape[0] * cols.shape[0], -1).astype(np.int64)
    sums = bit * weight.sum(axis=-1, dtype=np.int64).reshape(layer.groups, out_channels // layer.groups, -1)
    return np.ascontiguousarray(np.tile(taps @ sums.swapaxes(1, 2), (1, x_shape[0], 1)))


def _outside(size: int, kernel: int, layer: Conv2dMeta, axis: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return which kernel elements lie outside the image, for every output position along one axis."""
    before, after = layer.padding[axis]
    stride, dilation = layer.stride[axis], layer.dilation[axis]
    count = (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
    at = np.arange(count)[:, None] * stride + np.arange(kernel) * dilation - before
    return np.asarray((at < 0) | (at >= size))
