"""Pixels that tiles of a convolution touch, against sets of pixels."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from accelsim.memory.contract import Windows
from accelsim.memory.windows import tile_pixels


@st.composite
def geometries(draw):
    kernel, stride, dilation = (tuple(draw(st.tuples(*[st.integers(1, 3)] * 2))) for _ in range(3))
    before, after = (tuple(draw(st.tuples(*[st.integers(0, 2)] * 2))) for _ in range(2))
    sizes, outputs = [], []
    for axis in (0, 1):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        size = max(1, reach - before[axis] - after[axis]) + draw(st.integers(0, 4))
        sizes.append(size)
        outputs.append((size + before[axis] + after[axis] - reach) // stride[axis] + 1)
    return Windows(
        images=draw(st.integers(1, 3)),
        height=sizes[0],
        width=sizes[1],
        out_height=outputs[0],
        out_width=outputs[1],
        kernel=kernel,
        stride=stride,
        padding=before,
        dilation=dilation,
    )


def span_of(output, last, size, windows, axis):
    """Lines that an output line's windows reach over, with those that no window looks at beside them."""
    stride, before = windows.stride[axis], windows.padding[axis]
    reach = max(windows.dilation[axis] * (windows.kernel[axis] - 1) + 1, stride)
    lines = set(range(output * stride - before, output * stride - before + reach))
    if output == 0:
        lines |= set(range(min(lines)))
    if output == last:
        lines |= set(range(max(lines), size))
    return {line for line in lines if 0 <= line < size}


def touched(windows, start, end):
    """The pixels of rows [start, end): whole lines, unless all rows lie in one line of the output."""
    per_image = windows.out_height * windows.out_width
    rows = [divmod(row, windows.out_width) for row in range(start, min(end, windows.images * per_image))]
    pixels = set()
    for line, column in rows:
        image, line_in_image = divmod(line, windows.out_height)
        columns = set(range(windows.width))
        if len({line for line, _ in rows}) == 1:
            columns = span_of(column, windows.out_width - 1, windows.width, windows, 1)
        for y in span_of(line_in_image, windows.out_height - 1, windows.height, windows, 0):
            pixels |= {(image, y, x) for x in columns}
    return pixels


@given(geometries(), st.data())
def test_a_tile_touches_the_pixels_of_its_windows(windows, data):
    rows = windows.images * windows.out_height * windows.out_width
    start = data.draw(st.integers(0, rows - 1))
    end = data.draw(st.integers(start + 1, rows + 1))
    found = tile_pixels(windows, np.array([start]), np.array([end]))
    span = {line for line, _ in [divmod(row, windows.out_width) for row in range(start, min(end, rows))]}
    pixels = touched(windows, start, end)
    if len(span) > 1:
        first, last = min(y for y in span), max(y for y in span)
        # Between the first and the last line of an image everything is counted, gaps of the stride included.
        assert len(pixels) <= found[0]
        assert found[0] <= windows.images * windows.height * windows.width
        assert first < last
    assert found[0] >= len(pixels)
    if max(windows.stride) == 1 or len(span) == 1:
        assert found[0] == len(pixels)


@given(geometries())
def test_all_rows_touch_all_pixels(windows):
    rows = windows.images * windows.out_height * windows.out_width
    assert tile_pixels(windows, np.array([0]), np.array([rows]))[0] == windows.pixels
    starts = np.arange(rows)
    each = tile_pixels(windows, starts, starts + 1)
    assert each.sum() >= windows.pixels


def test_a_3_by_3_window_by_hand():
    """8 x 8 pixels, 3 x 3 windows with padding 1: two output lines touch 3 input lines at the border, 4 inside; one
    output pixel in the corner touches 2 x 2.
    """
    windows = Windows(1, 8, 8, 8, 8, kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
    starts, ends = np.array([0, 16, 48, 0, 9]), np.array([16, 32, 64, 1, 10])
    assert tile_pixels(windows, starts, ends).tolist() == [3 * 8, 4 * 8, 3 * 8, 4, 9]


def test_rows_of_a_matrix_are_their_own_pixels():
    assert tile_pixels(None, np.array([0, 5]), np.array([5, 7])).tolist() == [5, 2]


def test_rows_that_measure_zero_points_touch_nothing():
    windows = Windows(1, 2, 2, 2, 2, kernel=(1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
    assert tile_pixels(windows, np.array([4, 2]), np.array([5, 5])).tolist() == [0, 2]
