"""Worked examples from outside: the lecture on quantization (MIT 6.5940, lecture 6), and numbers worked by hand."""

import numpy as np
import pytest

from accelsim import formats

# The lecture's 4x4 weight matrix.
W = np.array([[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12], [-0.91, 1.92, 0, -1.03], [1.87, 0, 1.53, 1.49]])


def test_asymmetric_two_bits_of_the_lecture():
    # S = (2.12 + 1.08) / (1 + 2) = 1.0667, printed 1.07; Z = round(-2 + 1.08 / 1.07) = -1; codes as printed.
    tensor = formats.get("int2").quantize(W, asymmetric=True)
    assert round(float(tensor.scale), 2) == 1.07
    assert tensor.zero_point == -1
    assert tensor.codes.tolist() == [[1, -2, 0, -1], [-1, -1, -2, 1], [-2, 1, -1, -2], [1, -1, 0, 0]]


def test_symmetric_two_bits_per_tensor_of_the_lecture():
    tensor = formats.get("int2").quantize(W)
    assert tensor.scale == 2.12
    assert tensor.zero_point == 0
    assert tensor.codes.tolist() == [[1, 0, 1, 0], [0, 0, -1, 1], [0, 1, 0, 0], [1, 0, 1, 1]]
    printed = [[2.12, 0, 2.12, 0], [0, 0, -2.12, 2.12], [0, 2.12, 0, 0], [2.12, 0, 2.12, 2.12]]
    assert tensor.dequantize().tolist() == printed
    assert round(float(np.linalg.norm(W - tensor.dequantize())), 2) == 2.28


def test_symmetric_two_bits_per_channel_of_the_lecture():
    # The lecture prints the four scales. By hand, the codes are those of the per-tensor example except one: in row 2,
    # -1.03 / 1.92 = -0.536 now rounds to -1. Squares of the errors, row by row:
    #   2.09: 0      0.98^2 = 0.9604   0.61^2 = 0.3721   0.09^2 = 0.0081     1.3406
    #   2.12: 0.05^2 = 0.0025   0.14^2 = 0.0196   1.04^2 = 1.0816   0        1.1037
    #   1.92: 0.91^2 = 0.8281   0   0   0.89^2 = 0.7921                      1.6202
    #   1.87: 0   0   0.34^2 = 0.1156   0.38^2 = 0.1444                      0.2600
    # Sum 4.3245, root 2.0795.
    tensor = formats.get("int2").quantize(W, axis=0)
    assert tensor.scale.tolist() == [2.09, 2.12, 1.92, 1.87]
    assert tensor.zero_point.tolist() == [0, 0, 0, 0]
    assert tensor.codes.tolist() == [[1, 0, 1, 0], [0, 0, -1, 1], [0, 1, 0, -1], [1, 0, 1, 1]]
    assert float(np.linalg.norm(W - tensor.dequantize())) ** 2 == pytest.approx(4.3245, rel=1e-12)
    assert round(float(np.linalg.norm(W - tensor.dequantize())), 2) == 2.08  # the lecture's, below 2.28 per tensor


def test_vsq_bits_of_the_lecture():
    # 4 + 4/16 = 4.25 bits; one vector of 16 elements stores 16*4 + 4 = 68 bits.
    vsq = formats.get("vsq4")
    assert vsq.bits_per_element == 4.25
    assert vsq.quantize(np.arange(16.0)).size_bits == 68
    assert vsq.quantize(np.arange(17.0)).size_bits == 17 * 4 + 2 * 4  # a ragged tail stores a whole scale


def test_vsq_worked_by_hand():
    # Vectors of 2, int4 in [-7, 7], scales of 2 bits (0..3); 7, 3 | 3.5, 1.5 | 1, 0.5 | -1.1 (ragged).
    # s = 7/7, 3.5/7, 1/7, 1.1/7 = 1, 0.5, 0.1429, 0.1571; gamma = 1/3; s/gamma = 3, 1.5, 0.43, 0.47 -> sq = 3, 2, 0, 0
    # (1.5 goes up). Steps 1, 2/3: codes 7, 3 | 5.25 -> 5, 2.25 -> 2 | 0, 0 | 0.
    vsq = formats.get("vsq_int4_v2_s2")
    x = [7, 3, 3.5, 1.5, 1, 0.5, -1.1]
    tensor = vsq.quantize(x)
    assert tensor.scale == 1 / 3
    assert tensor.block_scales.tolist() == [3, 2, 0, 0]
    assert tensor.codes.tolist() == [7, 3, 5, 2, 0, 0, 0]
    assert tensor.scales.tolist() == pytest.approx([1, 2 / 3, 0, 0])
    assert tensor.dequantize().tolist() == pytest.approx([7, 3, 10 / 3, 4 / 3, 0, 0, 0])
    # Rounding scales up: sq = 3, 2, 1, 1; the last vectors have step 1/3: 1 -> 3, 0.5 -> 1.5 -> 2 (even), -1.1 -> -3.3.
    upward = vsq.quantize(x, scale_rounding="up")
    assert upward.block_scales.tolist() == [3, 2, 1, 1]
    assert upward.codes.tolist() == [7, 3, 5, 2, 3, 2, -3]
    # The paper divides by s itself: 3.5 / 0.5 = 7, 1.5 / 0.5 = 3.
    paper = vsq.quantize(x, element_scale="exact")
    assert paper.block_scales.tolist() == [3, 2, 0, 0]
    assert paper.codes.tolist() == [7, 3, 7, 3, 0, 0, 0]


def test_ranges():
    # (low, high) by the definition of each family, written out.
    expected = {
        "int2": (-2, 1), "int4": (-8, 7), "int8": (-128, 127), "int16": (-32768, 32767),
        "uint2": (0, 3), "uint4": (0, 15), "uint8": (0, 255), "uint16": (0, 65535),
        "int2n": (-1, 1), "int4n": (-7, 7), "int8n": (-127, 127), "int16n": (-32767, 32767),
        "vsq4": (-7, 7), "uvsq4": (0, 15), "vsq6": (-31, 31), "uvsq6": (0, 63), "vsq8": (-127, 127), "uvsq8": (0, 255),
        "int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1),
    }  # fmt: skip
    assert {name: (formats.get(name).low, formats.get(name).high) for name in expected} == expected


@pytest.mark.parametrize(("x", "code"), [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2), (3.49, 3)])
def test_ties_go_to_even(x, code):
    assert formats.get("int4").quantize(x, scale=1.0).codes == code


def test_zero_point_is_added_after_rounding():
    # 0.5 -> 0 and then + 1; a rounding of 1.5 would give 2.
    assert formats.get("int8").quantize(0.5, scale=1.0, zero_point=1).codes == 1


def test_power_of_two_gamma_is_exact():
    # gamma 1/8, sq 3 and 15: every representable value comes back exactly.
    x = np.array([7, -2, 5, 0]) * 3 / 8
    y = np.array([1, 7, -7, 4]) * 15 / 8
    tensor = formats.get("vsq_int4_v4_s4").quantize(np.stack([x, y]), scale=0.125)
    assert tensor.block_scales.tolist() == [[3], [15]]
    assert tensor.dequantize().tolist() == [x.tolist(), y.tolist()]
