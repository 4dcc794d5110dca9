"""Which input pixels the windows of a run of output rows touch: what a tile of a convolution has to load."""

from __future__ import annotations

import numpy as np

from accelsim.mapping.contract import Int64
from accelsim.memory.contract import Windows


def tile_pixels(windows: Windows | None, starts: Int64, ends: Int64) -> Int64:
    """Return the pixels that rows [start, end) of the GEMM touch, int64.

    windows : None: rows are rows of a matrix, and each is its own pixel

    Whole lines of the image are counted, unless all rows lie in one line of the output; lines and columns that no
    window touches come with their neighbours, so that all tiles together touch every pixel. Rows beyond the last output
    (sums for zero points) touch none.
    """
    if windows is None:
        return ends - starts
    per_image = windows.out_height * windows.out_width
    last = np.minimum(ends, windows.images * per_image) - 1
    starts = np.minimum(starts, last + 1)
    first_image, first_rest = np.divmod(starts, per_image)
    last_image, last_rest = np.divmod(last, per_image)
    first_line, first_column = np.divmod(first_rest, windows.out_width)
    last_line, last_column = np.divmod(last_rest, windows.out_width)
    one_image, height, width = first_image == last_image, windows.height, windows.width
    lines = _touched(first_line, last_line, windows, 0)
    columns = np.where(one_image & (first_line == last_line), _touched(first_column, last_column, windows, 1), width)
    top, bottom = np.zeros_like(last_line), np.full_like(last_line, windows.out_height - 1)
    over_images = _touched(first_line, bottom, windows, 0) + _touched(top, last_line, windows, 0)
    over_images = (over_images + (last_image - first_image - 1) * height) * width
    touched = np.where(one_image, lines * columns, over_images)
    return np.where(starts > last, 0, touched)


def _touched(first: Int64, last: Int64, windows: Windows, axis: int) -> Int64:
    """Return the lines (axis 0) or columns (1) of an image that output lines (columns) first to last touch."""
    size = (windows.height, windows.width)[axis]
    outputs = (windows.out_height, windows.out_width)[axis]
    stride, before = windows.stride[axis], windows.padding[axis]
    reach = max(windows.dilation[axis] * (windows.kernel[axis] - 1) + 1, stride)
    begin = np.minimum(np.maximum(first * stride - before, 0), size)
    end = np.where(last == outputs - 1, size, np.minimum(np.maximum(last * stride - before + reach, 0), size))
    touched: Int64 = np.maximum(end - begin, 0)
    return touched
