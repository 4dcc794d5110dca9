"""Signed powers of two: every code, exponents by hand and in rationals."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from accelsim import formats
from accelsim.errors import FormatError, ShapeError
from accelsim.formats.spec import Format

NAMES = ["po2_2", "po2_3", "po2_4", "po2_5", "po2_2r", "po2_3r", "po2_4r"]
finite = st.floats(allow_nan=False, allow_infinity=False)
near_boundaries = st.builds(
    lambda power, step: float(np.ldexp(0.7071067811865476, power)) * (1 + step * 2.0**-52),
    st.integers(-20, 20),
    st.integers(-3, 3),
)


def nearest_exponent(x):
    """round(log2 |x|), by comparing squares: 2**(e - 1/2) < |x| < 2**(e + 1/2)."""
    exponent, square = 0, Fraction(abs(x)) ** 2
    while square > Fraction(2) ** (2 * exponent + 1):
        exponent += 1
    while square < Fraction(2) ** (2 * exponent - 1):
        exponent -= 1
    return exponent


def value_of(x, scale, count, with_zero):
    """The format's value for x, in rationals."""
    if x == 0:
        return Fraction(0) if with_zero else Fraction(scale)
    exponent = nearest_exponent(Fraction(x) / Fraction(scale))
    if exponent < 0 and with_zero:
        return Fraction(0)
    return (1 if x > 0 else -1) * Fraction(scale) * 2 ** min(max(exponent, 0), count - 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_format(name):
    po2 = formats.get(name)
    assert isinstance(po2, Format)
    assert po2.name == name
    assert (po2.bits_per_element, po2.code_bits, po2.zero_points) == (po2.bits, po2.bits, (0, 0))
    assert 2 ** (po2.lane_bits - 1) > po2.high >= 2 ** (po2.lane_bits - 2)
    # Every code means another value, and comes back.
    codes = np.arange(po2.code_low, po2.code_high + 1)
    assert codes.size == 2**po2.bits - po2.with_zero
    for scale in (1.0, 2.0**-9, 2.0**900):
        tensor = formats.make_qtensor(codes, po2, scale)
        values = tensor.dequantize()
        assert np.unique(values).size == codes.size
        assert values.tolist() == [float(int(lane) * Fraction(scale)) for lane in tensor.lanes().values]
        assert po2.quantize(values, scale=scale).codes.tolist() == codes.tolist()
        assert po2.quantize(values).codes.tolist() == codes.tolist()  # the largest value finds the scale


def test_values_by_hand():
    # 3 bits with a zero: 0, +-1, +-2, +-4; Ristretto's: +-1, +-2, +-4, +-8.
    three, ristretto = formats.get("po2_3"), formats.get("po2_3r")
    assert formats.make_qtensor(np.arange(-3, 4), three).lanes().values.tolist() == [-4, -2, -1, 0, 1, 2, 4]
    assert formats.make_qtensor(np.arange(8), ristretto).lanes().values.tolist() == [1, 2, 4, 8, -1, -2, -4, -8]
    assert (three.low, three.high, three.lane_bits) == (-4, 4, 4)
    assert (ristretto.low, ristretto.high, ristretto.lane_bits) == (-8, 8, 5)
    # log2 of 5 is 2.32 -> 4; of 3, 1.58 -> 4; of 1.5, 0.585 -> 2; of 1.4, 0.485 -> 1; of 0.72, -0.47 -> 1;
    # of 0.7, -0.51 -> 1/2, below the smallest; 100 clamps.
    x = [5, -3, 1.5, 1.4, 0.72, 0.7, 0.0, -0.0, 100, -0.01]
    assert three.quantize(x, scale=1.0).dequantize().tolist() == [4, -4, 2, 1, 1, 0, 0, 0, 4, 0]
    assert ristretto.quantize(x, scale=1.0).dequantize().tolist() == [4, -4, 2, 1, 1, 1, 1, 1, 8, -1]


def test_scales_by_hand():
    # max|x| = 6 rounds to 8 = 2**3 (log2 6 = 2.58): 4 bits with a zero have 7 exponents: 2**-3 .. 2**3.
    tensor = formats.get("po2_4").quantize([6.0, -0.1, 0.08])
    assert tensor.scale == 2.0**-3
    assert tensor.codes.tolist() == [7, -1, 0]  # 0.1 = 2**-3.32 -> 2**-3; 0.08 = 2**-3.64 -> 2**-4, below the smallest
    per_channel = formats.get("po2_4r").quantize([[6.0, 0.0], [0.0, 0.0], [0.7, -0.7]], 0)
    assert per_channel.scale.tolist() == [2.0**-4, 1.0, 2.0**-8]
    assert per_channel.codes.tolist() == [[7, 0], [0, 0], [7, 15]]


@pytest.mark.parametrize("name", NAMES)
@given(
    x=st.lists(st.one_of(st.floats(-300, 300), near_boundaries, st.sampled_from([0.0, -0.0])), min_size=1),
    power=st.integers(-8, 8),
)
def test_values_equal_the_oracle(name, x, power):
    po2 = formats.get(name)
    tensor = po2.quantize(x, scale=2.0**power)
    expected = [value_of(value, 2.0**power, po2.exponents, po2.with_zero) for value in x]
    assert tensor.dequantize().tolist() == [float(value) for value in expected]


@pytest.mark.parametrize("name", ["po2_4", "po2_3r"])
@given(x=arrays(np.float64, array_shapes(min_dims=1, max_dims=3, max_side=4), elements=finite), data=st.data())
def test_a_channel_is_quantized_as_if_alone(name, x, data):
    po2 = formats.get(name)
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    whole = po2.quantize(x, axis)
    for channel in range(x.shape[axis]):
        alone = po2.quantize(x.take(channel, axis))
        assert whole.scale[channel] == alone.scale
        assert whole.codes.take(channel, axis).tolist() == alone.codes.tolist()
        largest = float(np.abs(x.take(channel, axis)).max())
        if largest >= 2.0**-1000:
            assert np.log2(alone.scale) == min(nearest_exponent(largest), 1023) - (po2.exponents - 1)


@pytest.mark.parametrize("name", NAMES)
def test_extremes(name):
    po2 = formats.get(name)
    zeros = po2.quantize(np.zeros(3))
    assert zeros.scale == 1.0
    assert zeros.dequantize().tolist() == [0.0 if po2.with_zero else 1.0] * 3
    assert po2.quantize([5e-324]).scale == 2.0**-1022
    # log2 of the largest double rounds to 1024, which no double reaches: the largest power is 2**1023.
    tensor = po2.quantize([np.finfo(np.float64).max, -1.0])
    assert tensor.scale == 2.0 ** (1023 - (po2.exponents - 1))
    assert tensor.dequantize()[0] == 2.0**1023


@pytest.mark.parametrize(
    ("x", "arguments", "kind", "message"),
    [
        (
            [1.0],
            {"scale": 0.3},
            FormatError,
            "po2_4: scale is 0.3, but has to be a power of two, such as 0.25",
        ),
        ([1.0], {"asymmetric": True}, FormatError, "po2_4 has no zero points; leave out zero_point and asymmetric"),
        ([], {}, ShapeError, "cannot quantize an array of shape (0,): it has no elements"),
        (
            [np.inf],
            {},
            FormatError,
            "cannot quantize: 1 of 1 values are NaN or infinite, the first is inf at index (0); "
            "replace or clip them first",
        ),
    ],
)
def test_bad_input(x, arguments, kind, message):
    with pytest.raises(kind) as caught:
        formats.get("po2_4").quantize(x, **arguments)
    assert str(caught.value) == message


def test_another_scale_does_not_pass():
    tensor = formats.make_qtensor([1, 2], formats.get("po2_4"), 0.3)
    for use in (tensor.lanes, tensor.dequantize):
        with pytest.raises(FormatError, match=r"po2_4: scale is 0\.3, but has to be a power of two, such as 0\.25"):
            use()
