"""Codes worked by hand, and what tells the rules apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_cases import operand, spec

from accelsim.operators import mean
from accelsim.operators.fused_float import fused, fused_oracle
from accelsim.operators.registry import OPERATORS, attributes_of


def run(name, inputs, output, **attributes):
    checked = attributes_of(name, attributes)
    operator = OPERATORS[name]
    assert operator.output_shape([x.shape for x in inputs], checked) == output.shape
    operator.check(inputs, output, checked)
    codes = operator.run(inputs, output, checked)
    again = np.asarray(operator.oracle(inputs, output, checked)).reshape(codes.shape)
    assert np.array_equal(codes, again)
    return codes.tolist()


# -- arithmetic -------------------------------------------------------------------------------------------------------


def r1(x, scale):
    """Rule R1 by its one-shift form, from quantized multiplier on: not the program's own two steps."""
    fraction, exponent = np.frexp(scale)
    multiplier = int(np.floor(fraction * 2.0**31 + 0.5))
    shift = 31 - int(exponent)
    nudge = 1 << (shift - 1)
    if shift > 31:
        nudge += np.where(x >= 0, 1 << 30, -(1 << 30))
    return (x * multiplier + nudge) >> shift


@pytest.mark.parametrize("name", ["add", "sub"])
def test_all_65536_pairs(name):
    """Every pair of int8 codes, against the published formula in its other, one-shift form."""
    a, b = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128), indexing="ij")
    sa, sb, so = (float(np.float32(scale)) for scale in (0.0393936, 0.104195, 0.0509457))
    za, zb, zo = -128, 4, -128
    largest = 2 * max(sa, sb)
    first, second = r1((a - za) << 20, sa / largest), r1((b - zb) << 20, sb / largest)
    total = first + second if name == "add" else first - second
    wanted = np.clip(r1(total, largest / (so * 2**20)) + zo, -128, 127)
    checked = attributes_of(name, {"rule": "tflite"})
    inputs = [operand(a, "int8", sa, za), operand(b, "int8", sb, zb)]
    assert np.array_equal(OPERATORS[name].run(inputs, spec(a.shape, "int8", so, zo), checked), wanted)


def test_a_sum_by_hand():
    """3 * 0.5 + 5 * 0.25 = 2.75 is 5.5 steps of 0.5: TFLite rounds away from zero, ONNX Runtime to even; HAWQ rounds
    5 * 0.25 / 0.5 = 2.5 to 2 before it adds 3.
    """
    inputs = [operand([3, -3], scale=0.5), operand([5, -5], scale=0.25)]
    output = spec([2], scale=0.5)
    assert run("add", inputs, output, rule="tflite") == [6, -6]
    assert run("add", inputs, output, rule="onnxruntime") == [6, -6]
    assert run("add", inputs, output, rule="hawq") == [5, -5]
    shifted = [operand([3, -3], scale=0.5), operand([3, -3], scale=0.25)]  # 4.5 steps
    assert run("add", shifted, output, rule="tflite") == [5, -5]
    assert run("add", shifted, output, rule="onnxruntime") == [4, -4]


@pytest.mark.parametrize(
    ("scales", "zeros", "codes", "wanted"),
    [
        ((0.007994169369339943, 0.019255686551332474, 0.043732430785894394), (-128, -7, 99), (-29, 3), 121),
        ((0.4612026512622833, 0.05133571848273277, 0.6309316754341125), (-69, 110, 8), (17, -128), 51),
        ((0.014460683800280094, 0.03547089546918869, 0.015215412713587284), (116, -123, -117), (22, -45), -25),
    ],
)
def test_the_shift_before_a_sum(scales, zeros, codes, wanted):
    """Found by search: sums that a shift of 19 would round to the other side. Codes as LiteRT 2.3.0 gives them."""
    inputs = [operand([code], "int8", s, z) for code, s, z in zip(codes, scales[:2], zeros[:2], strict=True)]
    assert run("add", inputs, spec([1], "int8", scales[2], zeros[2])) == [wanted]


def test_a_wide_output_is_not_clamped_under_hawq():
    inputs = [operand([127], scale=1.0), operand([127], scale=1.0)]
    assert run("add", inputs, spec([1], "int8"), rule="hawq") == [127]
    assert run("add", inputs, spec([1], "int16"), rule="hawq") == [254]


@pytest.mark.parametrize(("zero_point", "code"), [(0, 2), (1, 2), (2, 4), (3, 4), (-1, 0)])
def test_a_zero_point_moves_ties_of_onnxruntimes_sum(zero_point, code):
    """QLinearAdd rounds 1 + 0.5 + zo to even: 1.5 -> 2, 2.5 -> 2, 3.5 -> 4, 4.5 -> 4, 0.5 -> 0."""
    inputs = [operand([2], scale=0.5), operand([1], scale=0.5)]
    assert run("add", inputs, spec([1], zero_point=zero_point), rule="onnxruntime") == [code]


@pytest.mark.parametrize(("zero_point", "code"), [(0, 2), (1, 2), (-1, 0)])
def test_a_zero_point_moves_ties_of_onnxruntimes_average(zero_point, code):
    """QLinearAveragePool rounds (2 + 1) / 2 + zo to even."""
    window = {"kernel": (1, 2), "rule": "onnxruntime"}
    x = operand([[[[2], [1]]]])
    assert run("average_pool2d", [x], spec([1, 1, 1, 1], zero_point=zero_point), **window) == [[[[code]]]]


def test_fused_multiply_adds_round_once():
    """4097 * (1 + 2**-23) needs more than 24 bits; less 4096 it is 1 + 4097 * 2**-23, which they hold. Rounded twice it
    would be 1.
    """
    factor = np.float32(1 + 2.0**-23)
    found = fused(np.array([4097], np.float32), factor, np.array([-4096], np.float32))
    assert found.tolist() == [1 + 4097 * 2.0**-23] == [fused_oracle(4097, float(factor), -4096.0)]
    assert np.float32(4097) * factor - np.float32(4096) != found[0]


@given(st.integers(-(2**15), 2**16), st.floats(2**-20, 2**20, width=32), st.floats(-(2**40), 2**40, width=32))
def test_fused_multiply_adds_are_those_of_fractions(a, b, c):
    found = fused(np.array([a], np.float32), np.float32(b), np.array([c], np.float32))
    assert float(found[0]) == fused_oracle(a, b, c)


def test_a_fused_sum_just_above_a_tie_goes_up():
    """4097**2 = 2**24 + 2**13 + 1 is halfway between two float32, and 2**-30 more decides; float64's 53 bits do not
    hold both, so rounding there to nearest would make it a tie again, and even would be down.
    """
    found = fused(np.array([4097], np.float32), np.float32(4097), np.array([2.0**-30], np.float32))
    assert float(found[0]) == fused_oracle(4097, 4097.0, 2.0**-30) == 2.0**24 + 2**13 + 2


def test_a_zero_point_moves_ties_of_onnxruntimes_product():
    """1 * 1 * 0.5 = 0.5: rounded after the zero point is added, so 7.5 becomes 8 and 8.5 becomes 8."""
    inputs = [operand([1], scale=0.5), operand([1])]
    assert run("mul", inputs, spec([1], zero_point=7), rule="onnxruntime") == [8]
    assert run("mul", inputs, spec([1], zero_point=8), rule="onnxruntime") == [8]


def test_products_of_the_two_tflites_differ_by_their_multiplier_only():
    """float32(0.1) * float32(0.1) / float32(0.001) is 10 in float32, and a bit less or more in float64."""
    scales = [float(np.float32(value)) for value in (0.1, 0.1)]
    inputs = [operand(np.arange(-127, 127), scale=scales[0]), operand(np.full(254, 113), scale=scales[1])]
    output = spec([254], "int16", float(np.float32(0.00001)))
    micro, lite = (run("mul", inputs, output, rule=rule) for rule in ("tflite_micro", "tflite"))
    assert max(abs(a - b) for a, b in zip(micro, lite, strict=True)) <= 1


def test_activations_clamp_codes():
    """Output scale 0.1, zero point 10: 0 is code 10, 6 is code 70, -1 and 1 are codes 0 and 20."""
    inputs = [operand([-100, 0, 100], scale=0.1), operand([0, 0, 0], scale=0.1)]
    output = spec([3], scale=0.1, zero_point=10)
    assert run("add", inputs, output, activation="relu") == [10, 10, 110]
    assert run("add", inputs, output, activation="relu6") == [10, 10, 70]
    assert run("add", inputs, output, activation="relu_n1_to_1") == [0, 10, 20]


# -- pooling and means ------------------------------------------------------------------------------------------------


def test_average_by_hand():
    """Mean of 1, 2 is 1.5, away from zero: 2; of -1, -2: -2; the border has one element: itself."""
    x = operand(np.array([1, 2, -3, -4]).reshape(1, 1, 4, 1))
    window = {"kernel": (1, 2), "padding": ((0, 0), (0, 1))}
    assert np.ravel(run("average_pool2d", [x], spec([1, 1, 4, 1]), **window)).tolist() == [2, -1, -4, -4]


def test_padding_counts_only_if_asked():
    """The last window is -4 and padding: -4 alone, or -4 / 2."""
    x = operand(np.array([1, 2, -3, -4]).reshape(1, 1, 4, 1))
    window = {"kernel": (1, 2), "padding": ((0, 0), (0, 1)), "rule": "onnxruntime"}
    output = spec([1, 1, 4, 1])
    assert np.ravel(run("average_pool2d", [x], output, **window)).tolist() == [2, 0, -4, -4]  # -0.5 to even
    counted = run("average_pool2d", [x], output, **window, count_include_pad=True)
    assert np.ravel(counted).tolist() == [2, 0, -4, -2]


def test_padding_is_never_the_maximum():
    x = operand(np.full((1, 2, 2, 1), -128))
    window = {"kernel": (2, 2), "padding": ((1, 1), (1, 1))}
    assert set(np.ravel(run("max_pool2d", [x], spec([1, 3, 3, 1]), **window))) == {-128}


def test_mean_by_hand():
    """Sum 10 of 4 elements at equal scales: multiplier 2**30 << 2 / 4, shift 1 - 2: 10 * 2**30 / 2**32 = 2.5 -> 3."""
    x = operand(np.array([1, 2, 3, 4]).reshape(1, 2, 2, 1))
    assert run("mean", [x], spec([1, 1]), axes=(1, 2), keepdims=False, rule="tflite") == [[3]]
    assert run("mean", [x], spec([1, 1]), axes=(1, 2), keepdims=False, rule="onnxruntime") == [[2]]


def test_the_mean_of_three_is_a_truncated_multiplier():
    """1/3 as 2**30 << 1 // 3 is a bit less than a third: 3 * 715827882 / 2**31 = 0.9999999995 rounds to 1."""
    assert mean._tflite_factors(1.0, 3) == (715827882, 0)
    x = operand(np.array([1, 1, 1]).reshape(1, 3))
    assert run("mean", [x], spec([1, 1]), axes=(1,)) == [[1]]


# -- requantize, concat, moves ----------------------------------------------------------------------------------------


def test_requantize_by_hand():
    """5 steps of 0.5 are 2.5 steps of 1. TFLite: 1/2 is 2**30 * 2**0, so the high product alone rounds, upwards: 3 and
    -2; ONNX Runtime to even: 2. int8 for uint8 with zero points 128 apart keeps every code's meaning.
    """
    x = operand([5, -5, 7], scale=0.5)
    assert run("requantize", [x], spec([3]), rule="tflite") == [3, -2, 4]
    assert run("requantize", [x], spec([3]), rule="onnxruntime") == [2, -2, 4]
    bytes_ = operand([0, 128, 255], "uint8", 0.5, 128)
    assert run("requantize", [bytes_], spec([3], "int8", 0.5, 0)) == [-128, 0, 127]


def test_concat_requantizes_for_onnxruntime():
    inputs = [operand([1, 2], scale=1.0), operand([5], scale=0.5)]
    assert run("concat", inputs, spec([3], scale=1.0), axis=0, rule="onnxruntime") == [1, 2, 2]


def test_pad_holds_the_zero_point():
    x = operand([7], zero_point=-3)
    assert run("pad", [x], spec([3], zero_point=-3), padding=((1, 1),)) == [-3, 7, -3]
    assert run("pad", [x], spec([2], zero_point=-3), padding=((0, 1),), code=-128) == [7, -128]


def test_slices_go_both_ways():
    x = operand(np.arange(6))
    assert run("slice", [x], spec([3]), begin=(1,), size=(3,), stride=(2,)) == [1, 3, 5]
    assert run("slice", [x], spec([2]), begin=(4,), size=(2,), stride=(-3,)) == [4, 1]


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        ("dcr", [[[[0, 1], [2, 3], [4, 5]]]]),  # pixel by pixel
        ("crd", [[[[0, 3], [1, 4], [2, 5]]]]),  # channel by channel
    ],
)
def test_channels_as_blocks_of_pixels(order, wanted):
    x = operand(np.arange(6).reshape(1, 1, 1, 6))
    assert run("depth_to_space", [x], spec([1, 1, 3, 2]), block=(1, 3), order=order) == wanted


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ({}, [0, 0, 0, 1, 1]),  # floor(i * 2 / 5)
        ({"align_corners": True}, [0, 0, 1, 1, 1]),  # round(i / 4), halves up
        ({"half_pixel_centers": True}, [0, 0, 1, 1, 1]),  # floor((i + 1/2) * 2 / 5)
    ],
)
def test_nearest_by_hand(flags, wanted):
    x = operand(np.array([0, 1]).reshape(1, 1, 2, 1))
    codes = run("resize_nearest", [x], spec([1, 1, 5, 1]), height=1, width=5, **flags)
    assert np.ravel(codes).tolist() == wanted


# -- activations, tables, argmax --------------------------------------------------------------------------------------


def test_slopes_by_hand():
    """Negative codes times 1/2: -1.5 goes up to -1, for the high product alone rounds; times 1/4, of -6: high product
    -3, halved -1.5, away from zero -2.
    """
    x = operand([-3, 3])
    assert run("leaky_relu", [x], spec([2]), alpha=0.5) == [-1, 3]
    assert run("prelu", [x, operand([1], scale=0.5)], spec([2])) == [-1, 3]
    assert run("leaky_relu", [operand([-6, 6])], spec([2]), alpha=0.25) == [-2, 6]
    assert run("leaky_relu", [x], spec([2]), alpha=-1.0) == [3, 3]


def test_clip_by_hand():
    x = operand([-128, 0, 127], scale=0.1)
    output = spec([3], scale=0.05, zero_point=-128)
    assert run("clip", [x], output, minimum=0.0, maximum=6.0) == [-128, -128, -8]  # 6 / 0.05 = 120 steps
    assert run("clip", [x], output, minimum=0.0, maximum=6.0, rule="onnxruntime") == [-128, -128, -8]


def test_lookup_starts_at_the_smallest_code():
    table = operand(np.arange(16), "int8")
    x = operand([-8, 0, 7], "int4")
    assert run("lookup", [x, table], spec([3]), function="relu") == [0, 8, 15]


def test_argmax_of_equal_codes():
    x = operand([[3, 7, 7], [1, 1, 0]])
    output = spec([2], "int32")
    assert run("argmax", [x], output) == [1, 0]
    assert run("argmax", [x], output, last=True) == [2, 1]


# -- softmax ----------------------------------------------------------------------------------------------------------


def test_softmax_of_equal_inputs():
    """Four equal inputs: 1/4 = 64 steps of 1/256, code -64. Of one input the share is 1, and saturates at 127.

    I-BERT rounds down: at scale 1/2, exp(0) is 11 * 0.35815147 / 4 = 0.98492, code 32273 of 1/32767;
    2**32 // 129092 = 33270; 32273 * 33270 / 2**24 = 63.99, so 63.
    """
    assert run("softmax", [operand([[5, 5, 5, 5]])], spec([1, 4], "int8", 1 / 256, -128)) == [[-64] * 4]
    assert run("softmax", [operand([[5]])], spec([1, 1], "int8", 1 / 256, -128)) == [[127]]
    assert run("softmax", [operand([[5, 5, 5, 5]], scale=0.5)], spec([1, 4], "uint8", 1 / 256), rule="ibert") == [
        [63] * 4
    ]


def test_softmax_cuts_off():
    """A difference beyond 31 (the range of Q5.26) gives the smallest code, as does one of e**-30."""
    x = operand([[0, -1, -30, -31, -32, -100]])
    (codes,) = run("softmax", [x], spec([1, 6], "int16", 2.0**-16, -(2**15)))
    assert codes[2:] == [-(2**15)] * 4
    assert codes[0] == round(2**16 / (1 + np.exp(-1))) - 2**15


def test_softmax_in_floats():
    """1/3 is 333.33 steps of 1/1000; log(1/3) = -1.0986 is -1098.6 steps."""
    x = operand([[9, 9, 9]], scale=0.7)
    assert run("softmax", [x], spec([1, 3], "int16", 1 / 1000, 5), rule="float") == [[338] * 3]
    assert run("log_softmax", [x], spec([1, 3], "int16", 1 / 1000, 5), rule="float") == [[-1094] * 3]


def test_log_softmax_of_equal_inputs():
    """log(1/4) = -1.386 is -22.2 steps of 1/16: code 127 - 22."""
    assert run("log_softmax", [operand([[9, 9, 9, 9]])], spec([1, 4], "int8", 1 / 16, 127)) == [[105] * 4]
