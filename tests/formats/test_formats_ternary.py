"""Ternary tensors: thresholds and scales by hand, and against rationals."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from accelsim import formats
from accelsim.errors import FormatError, ShapeError
from accelsim.formats import oracle
from accelsim.formats.spec import Format

TERNARY = formats.get("ternary")
W = np.array([[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12], [-0.91, 1.92, 0, -1.03], [1.87, 0, 1.53, 1.49]])
tensors = arrays(np.float64, array_shapes(min_dims=1, max_dims=4, max_side=5), elements=st.floats(-1e6, 1e6))


def test_the_format():
    assert isinstance(TERNARY, Format)
    assert (TERNARY.low, TERNARY.high, TERNARY.lane_bits, TERNARY.datapath) == (-1, 1, 2, "integer")
    assert (TERNARY.code_low, TERNARY.code_high, TERNARY.code_bits) == (-1, 1, 2)
    assert (TERNARY.bits_per_element, TERNARY.blocks, TERNARY.zero_points) == (2.0, None, (0, 0))
    tensor = formats.make_qtensor([-1, 0, 1], TERNARY, 0.1)
    assert tensor.lanes().values.tolist() == [-1, 0, 1]
    assert tensor.dequantize().tolist() == [-0.1, 0, 0.1]
    assert TERNARY.quantize(tensor.dequantize(), scale=0.1).codes.tolist() == [-1, 0, 1]
    assert tensor.size_bits == 6


def test_twn_of_the_lecture():
    # |W| sums to 16.78: threshold 0.7 * 16.78 / 16 = 0.734125, printed 0.73. Above it, in magnitude:
    # 2.09 + 0.98 + 1.48 + 1.08 + 2.12 + 0.91 + 1.92 + 1.03 + 1.87 + 1.53 + 1.49 = 16.50 in 11 elements: scale 1.5.
    tensor = TERNARY.quantize(W)
    assert tensor.scale == 1.5
    assert tensor.codes.tolist() == [[1, -1, 1, 0], [0, 0, -1, 1], [-1, 1, 0, -1], [1, 0, 1, 1]]
    # The threshold lies where it should: 0.734 is below it, 0.735 above, as one more element shows each time. (A
    # magnitude v added to the 16: threshold 0.7 * (16.78 + v) / 17, which is v for v = 11.746 / 16.3 = 0.72061.)
    assert TERNARY.quantize([*W.ravel(), 0.7206]).codes[-1] == 0
    assert TERNARY.quantize([*W.ravel(), -0.7207]).codes[-1] == -1
    # The same with the printed threshold in place of the exact one.
    assert TERNARY.quantize(W, threshold=0.73).scale == 1.5


def test_the_threshold_itself_becomes_zero():
    tensor = TERNARY.quantize([0.5, -0.5, 0.75, -1.0, 0.25], threshold=0.5)
    assert tensor.codes.tolist() == [0, 0, 1, -1, 0]
    assert tensor.scale == 0.875
    assert TERNARY.quantize([0.5, 0.75], threshold=[0.5, 0.5], axis=0).codes.tolist() == [0, 1]


@given(tensors, st.data())
def test_thresholds_and_scales_equal_exact_ones(x, data):
    axis = data.draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1)))
    tensor = TERNARY.quantize(x, axis)
    rows = [x] if axis is None else [x.take(i, axis) for i in range(x.shape[axis])]
    codes = [tensor.codes] if axis is None else [tensor.codes.take(i, axis) for i in range(x.shape[axis])]
    scales = np.atleast_1d(tensor.scale).tolist()
    for row, found, scale in zip(rows, codes, scales, strict=True):
        magnitudes = [Fraction(abs(value)) for value in row.ravel().tolist()]
        threshold = Fraction(0.7 * (float(sum(magnitudes)) / row.size))
        above = [value for value in magnitudes if value > threshold]
        assert scale == (max(float(sum(above)) / len(above), 2.0**-1022) if above else 1.0)
        signs = [(value > threshold) - (value < -threshold) for value in map(Fraction, row.ravel().tolist())]
        assert found.ravel().tolist() == signs
    assert TERNARY.quantize(tensor.dequantize(), axis, scale=tensor.scale).codes.tolist() == tensor.codes.tolist()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.floats(1e-300, 1e300))
def test_a_given_scale_takes_the_nearest_value(x, scale):
    expected = [oracle.quantize_value(value, scale, 0, -1, 1) for value in x]
    assert TERNARY.quantize(x, scale=scale).codes.tolist() == expected


def test_extremes():
    zeros = TERNARY.quantize(np.zeros((2, 3)))
    assert zeros.scale == 1.0
    assert not zeros.codes.any()
    largest = np.finfo(np.float64).max
    tensor = TERNARY.quantize([largest, -largest, 0.0])
    assert tensor.scale == largest
    assert tensor.codes.tolist() == [1, -1, 0]
    assert TERNARY.quantize([5e-324, 0.0]).scale == 2.0**-1022


@pytest.mark.parametrize(
    ("x", "arguments", "kind", "message"),
    [
        ([], {}, ShapeError, "cannot quantize an array of shape (0,): it has no elements"),
        (
            [1.0, -np.inf],
            {},
            FormatError,
            "cannot quantize: 1 of 2 values are NaN or infinite, the first is -inf at index (1); "
            "replace or clip them first",
        ),
        (
            [1.0],
            {"threshold": -0.5},
            FormatError,
            "quantize: threshold is -0.5; thresholds are finite and not negative",
        ),
        (
            [1.0, 2.0],
            {"threshold": [0, np.nan], "axis": 0},
            FormatError,
            "quantize: threshold is nan at index (1); thresholds are finite and not negative",
        ),
        (
            [1.0],
            {"threshold": "0.7"},
            FormatError,
            "quantize: threshold has dtype <U3; pass real numbers that are not negative",
        ),
        (
            [1.0, 2.0],
            {"threshold": [1.0, 2.0]},
            ShapeError,
            "quantize: threshold has shape (2,), but without channel_axis it must be a single number",
        ),
        ([1.0], {"zero_point": 1}, FormatError, "ternary has no zero points; leave out zero_point and asymmetric"),
    ],
)
def test_bad_input(x, arguments, kind, message):
    with pytest.raises(kind) as caught:
        TERNARY.quantize(x, **arguments)
    assert str(caught.value) == message
