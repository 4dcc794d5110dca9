"""How scales and zero points are chosen: per tensor, per channel, per vector; laws of the two-level scheme."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal

from accelsim import formats
from accelsim.errors import FormatError

INTEGERS = ["int2", "int4n", "int8", "uint4", "uint8", "int16"]
tensors = arrays(np.float64, array_shapes(min_dims=1, max_dims=4, max_side=5), elements=st.floats(-1e6, 1e6))
vectors = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.floats(-1e3, 1e3))


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("asymmetric", [False, True])
@given(x=tensors, data=st.data())
def test_a_channel_is_quantized_as_if_alone(name, asymmetric, x, data):
    number_format = formats.get(name)
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    whole = number_format.quantize(x, axis, asymmetric=asymmetric)
    assert whole.channel_axis == axis % x.ndim
    assert whole.scale.shape == whole.zero_point.shape == (x.shape[axis],)
    for channel in range(x.shape[axis]):
        alone = number_format.quantize(x.take(channel, axis), asymmetric=asymmetric)
        assert alone.scale.shape == alone.zero_point.shape == ()
        assert whole.scale[channel] == alone.scale
        assert whole.zero_point[channel] == alone.zero_point
        assert_array_equal(whole.codes.take(channel, axis), alone.codes)
        assert_array_equal(whole.dequantize().take(channel, axis), alone.dequantize())


@given(x=tensors)
def test_axis_and_channel_axis_are_two_names(x):
    int8 = formats.get("int8")
    first, second, both = (
        int8.quantize(x, -1),
        int8.quantize(x, channel_axis=x.ndim - 1),
        int8.quantize(x, -1, channel_axis=-1),
    )
    assert first.channel_axis == second.channel_axis == both.channel_axis == x.ndim - 1
    assert_array_equal(first.codes, second.codes)
    assert_array_equal(first.codes, both.codes)


@pytest.mark.parametrize("name", INTEGERS)
@given(x=arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e6, 1e6)))
def test_symmetric_error_is_half_a_step_and_never_clamps(name, x):
    number_format = formats.get(name)
    if not number_format.signed:
        x = np.abs(x)
    tensor = number_format.quantize(x)
    assert np.all(np.abs(tensor.dequantize() - x) <= tensor.scale * (0.5 + 1e-9))
    largest = np.argmax(np.abs(x))
    if x[largest]:
        # The largest magnitude meets the largest code (up to 1 / (1 - 2**-52): the quotient may round).
        assert abs(tensor.codes[largest]) == number_format.high or tensor.scale == 2.0**-1022


@pytest.mark.parametrize("name", INTEGERS)
@given(x=arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e6, 1e6)))
def test_asymmetric_spans_the_range_and_holds_zero_exactly(name, x):
    number_format = formats.get(name)
    tensor = number_format.quantize(x, asymmetric=True)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    if high > low and tensor.scale > 2.0**-1022:
        assert tensor.scale == (high - low) / (number_format.high - number_format.low)
    assert number_format.low <= tensor.zero_point <= number_format.high
    assert not number_format.quantize(0.0, scale=tensor.scale, zero_point=tensor.zero_point).dequantize().any()
    # Rounding Z shifts the grid by up to half a step, so a value at an end may miss by half a step and half again.
    assert np.all(np.abs(tensor.dequantize() - x) <= tensor.scale * (1 + 1e-9))


def test_asymmetric_by_hand():
    uint8 = formats.get("uint8")
    # All positive: the range still starts at 0. S = 2.55/255, Z = 0.
    tensor = uint8.quantize([1.0, 2.55], asymmetric=True)
    assert (float(tensor.scale), int(tensor.zero_point)) == (pytest.approx(0.01), 0)
    assert tensor.codes.tolist() == [100, 255]
    # All negative: the range ends at 0. Z = 0 + 2.55/0.01 = 255.
    tensor = uint8.quantize([-1.0, -2.55], asymmetric=True)
    assert int(tensor.zero_point) == 255
    assert tensor.codes.tolist() == [155, 0]
    # All zeros span nothing: S = 1, Z = low.
    tensor = formats.get("int8").quantize(np.zeros(3), asymmetric=True)
    assert (float(tensor.scale), int(tensor.zero_point), tensor.codes.tolist()) == (1.0, -128, [-128] * 3)
    # The span, 3.4e308, is beyond float64; S = 3.4e308 / 255 is not. Z = rint(127.5) = 128; -127.5 -> -128 -> 0 and
    # 127.5 -> 128 -> 256, which clamps.
    tensor = uint8.quantize([-1.7e308, 1.7e308], asymmetric=True)
    assert float(tensor.scale) == pytest.approx(1.7e308 / 255 * 2)
    assert int(tensor.zero_point) == 128
    assert tensor.codes.tolist() == [0, 255]


def test_unsigned_symmetric_clamps_negative_values():
    tensor = formats.get("uint4").quantize([-30.0, 7.5, 15.0])
    assert tensor.scale == 1.0
    assert tensor.codes.tolist() == [0, 8, 15]
    assert formats.get("uint4").quantize([-3.0, -1.0]).scale == 1.0


def test_one_given_scale_serves_every_channel():
    tensor = formats.get("int8").quantize([[1.0, 2.0], [3.0, 400.0]], 0, scale=1.0, zero_point=[0, -5])
    assert tensor.scale.tolist() == [1.0, 1.0]
    assert tensor.codes.tolist() == [[1, 2], [-2, 127]]


def test_wide_accumulators_keep_every_bit():
    int64 = formats.get("int64")
    codes = [-(2**63), 2**63 - 1, 2**53 + 1]
    tensor = formats.make_qtensor(codes, int64, 2.0)
    assert tensor.codes.dtype == np.int64
    assert tensor.codes.tolist() == codes
    assert tensor.dequantize().tolist() == [-(2.0**64), 2.0**64, 2.0**54]  # rounded to float64
    # 2**63 is what 2**63 - 1 becomes as a double: it clamps, and must not wrap around.
    clamped = int64.quantize([1e30, -1e30, 2.0**63, -(2.0**63), 2.0**62], scale=1.0)
    assert clamped.codes.tolist() == [2**63 - 1, -(2**63), 2**63 - 1, -(2**63), 2**62]
    int32 = formats.make_qtensor([-(2**31), 2**31 - 1], formats.get("int32"))
    assert int32.codes.dtype == np.int32
    assert int32.codes.tolist() == [-(2**31), 2**31 - 1]


@given(x=vectors, axis=st.sampled_from([0, 1, -1]), size=st.integers(1, 7))
def test_vsq_along_any_axis_is_vsq_along_the_last(x, axis, size):
    vsq = formats.get(f"vsq_int4_v{size}_s4")
    tensor = vsq.quantize(x, axis)
    last = vsq.quantize(np.moveaxis(x, axis, -1))
    assert tensor.block_axis == axis % 2
    assert tensor.block_scales.shape[axis] == -(-x.shape[axis] // size)
    assert_array_equal(np.moveaxis(tensor.codes, axis, -1), last.codes)
    assert_array_equal(np.moveaxis(tensor.block_scales, axis, -1), last.block_scales)
    assert_array_equal(np.moveaxis(tensor.dequantize(), axis, -1), last.dequantize())


@given(x=vectors)
def test_vsq_per_channel_gamma_is_each_channel_alone(x):
    vsq = formats.get("vsq4")
    tensor = vsq.quantize(x, channel_axis=0)
    assert tensor.scale.shape == (x.shape[0],)
    for channel, row in enumerate(x):
        alone = vsq.quantize(row)
        assert alone.scale.shape == ()
        assert tensor.scale[channel] == alone.scale
        assert_array_equal(tensor.codes[channel], alone.codes)
        assert_array_equal(tensor.block_scales[channel], alone.block_scales)
        assert_array_equal(tensor.scales[channel], alone.scales)


@given(x=vectors)
def test_vsq_ragged_tail_is_completed_by_zeros(x):
    vsq = formats.get("vsq4")
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % 16)))
    tensor, whole = vsq.quantize(x), vsq.quantize(padded)
    assert_array_equal(tensor.block_scales, whole.block_scales)
    assert_array_equal(tensor.codes, whole.codes[:, : x.shape[1]])
    assert not whole.codes[:, x.shape[1] :].any()


@given(x=arrays(np.float64, (3, 32), elements=st.floats(-1e3, 1e3).filter(lambda v: v == 0 or abs(v) > 1e-3)))
def test_vsq_wide_scales_approach_one_level_scaling(x):
    # |sq * gamma - s| <= gamma / 2, and gamma = max(s) / 4095: the decoded scales are nearly the float ones.
    tensor = formats.get("vsq_int4_v16_s12").quantize(x)
    s = np.abs(x).reshape(3, 2, 16).max(axis=-1) / 7
    if s.any():
        assert float(tensor.scale) == s.max() / 4095
        assert np.all(np.abs(tensor.scales - s) <= s.max() / 4095 / 2 * (1 + 1e-9))
        # Half a step of rounding, and at most high * gamma / 2 where the largest element clamps.
        step = np.repeat(np.maximum(s, tensor.scales), 16, axis=1).reshape(3, 32)
        assert np.all(np.abs(tensor.dequantize() - x) <= step / 2 + 7 * s.max() / 4095)


@given(x=vectors)
def test_vsq_scales_rounded_up_never_clamp(x):
    tensor = formats.get("vsq4").quantize(x, scale_rounding="up")
    step = np.repeat(tensor.scales, 16, axis=1)[:, : x.shape[1]]
    assert np.all(np.abs(tensor.dequantize() - x) <= step * (0.5 + 1e-9) + 7 * 2.0**-1022)


@given(rows=st.integers(1, 4), length=st.integers(1, 40), value=st.floats(1e-3, 1e3), sign=st.sampled_from([-1, 1]))
def test_vsq_of_equal_values_uses_the_full_scale(rows, length, value, sign):
    tensor = formats.get("vsq4").quantize(np.full((rows, length), sign * value))
    assert np.all(tensor.block_scales == 15)
    assert np.all(tensor.codes == sign * 7)
    assert tensor.dequantize() == pytest.approx(sign * value, rel=1e-15)


@pytest.mark.parametrize("bits", [2, 4, 8])
@given(x=arrays(np.float64, 20, elements=st.floats(-1e3, 1e3)), gamma=st.floats(1e-3, 1e3))
def test_vsq_with_all_scales_one_is_the_plain_integer(bits, x, gamma):
    vsq, plain = formats.get(f"vsq_int{bits}_v4_s4"), formats.get(f"int{bits}n")
    x = np.clip(x, -gamma * vsq.high, gamma * vsq.high)
    x[::4] = gamma * vsq.high  # every vector's s is gamma
    tensor = vsq.quantize(x, scale=gamma)
    assert np.all(tensor.block_scales == 1)
    assert_array_equal(tensor.codes, plain.quantize(x, scale=gamma).codes)
    assert_array_equal(tensor.dequantize(), plain.quantize(x, scale=gamma).dequantize())


def test_a_vector_beside_a_far_larger_one_vanishes():
    # gamma = 15/7/15 = 1/7; s = 0.07/7 = 0.01 is 0.07 gamma, which rounds to 0.
    tensor = formats.get("vsq_int4_v2_s4").quantize([15.0, 0.0, 0.07, -0.07])
    assert tensor.block_scales.tolist() == [15, 0]
    assert tensor.codes.tolist() == [7, 0, 0, 0]


def test_a_vsq_step_beyond_float64():
    # s / gamma = 1.5 rounds to 2, and 2 * 1.19e308 is infinite: the step becomes the largest double, the code 1, not 0.
    tensor = formats.get("vsq_int2_v1_s4").quantize([1.79e308], scale=1.19e308)
    assert tensor.block_scales.tolist() == [2]
    assert tensor.codes.tolist() == [1]


def test_half_up_is_exact_just_below_a_half():
    # s / gamma = 0.49999999999999994, the double below one half: adding 0.5 in float64 would give 1.
    below = 0.49999999999999994
    assert formats.get("vsq_int2_v1_s4").quantize([below], scale=1.0).block_scales.tolist() == [0]
    assert formats.get("vsq_int2_v1_s4").quantize([0.5], scale=1.0).block_scales.tolist() == [1]


def test_float32_and_integer_input_mean_their_exact_values():
    x = np.array([0.1, -0.7, 3.3], np.float32)
    assert_array_equal(formats.get("int8").quantize(x).codes, formats.get("int8").quantize(x.astype(np.float64)).codes)
    assert formats.get("int8").quantize([[1, -127]]).codes.tolist() == [[1, -127]]


def test_inputs_are_never_changed():
    x = np.array([[1.0, -2.0], [3.0, 4.0]])
    codes = np.array([1, 2], np.int32)
    tensor = formats.make_qtensor(codes, formats.get("int8"))
    codes[0] = 99
    assert tensor.codes.tolist() == [1, 2]
    formats.get("vsq4").quantize(x)
    formats.get("int8").quantize(x, 0, asymmetric=True)
    assert x.tolist() == [[1.0, -2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "name", ["int8", "int4", "uint8", "int16", "fp8_e4m3", "fp16", "bf16", "kmeans4", "vsq4", "dfp8"]
)
def test_the_largest_doubles_stay_finite(name):
    """max / 127 rounded up, times 127, would be infinity: the scale is rounded down there."""
    largest = float(np.finfo(np.float64).max)
    for value in (largest, np.nextafter(largest, 0), largest * (1 - 1e-12)):
        found = formats.get(name).quantize([[value, value / 2, value / 3] * 6]).dequantize()
        assert np.all(np.isfinite(found))
        assert found[0, 0] == pytest.approx(value, rel=0.01)
        if name in ("int8", "uint8", "int16"):
            found = formats.get(name).quantize([value, value / 3], asymmetric=True).dequantize()
            assert np.all(np.isfinite(found))
            assert found[0] == pytest.approx(value, rel=0.01)


def test_a_span_beyond_float64_is_refused_where_its_codes_would_be_infinite():
    largest = float(np.finfo(np.float64).max)
    with pytest.raises(FormatError, match=r"int8: values from -1.79769e\+308 to 1.79769e\+308 span too much"):
        formats.get("int8").quantize([-largest, largest], asymmetric=True)
