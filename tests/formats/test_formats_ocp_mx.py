"""OCP MX: scale rules and rounding against exact rationals, blocks worked by hand, extremes."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from accelsim import formats
from accelsim.errors import FormatError, ShapeError
from accelsim.formats import float_oracle

ELEMENTS = {
    "mxint8": float_oracle.Element(tuple(Fraction(i, 64) for i in range(128)), 6),
    "mxfp8_e4m3": float_oracle.minifloat(4, 3, 127),
    "mxfp8_e5m2": float_oracle.minifloat(5, 2, 124),
    "mxfp6_e3m2": float_oracle.minifloat(3, 2, 32),
    "mxfp6_e2m3": float_oracle.minifloat(2, 3, 32),
    "mxfp4": float_oracle.minifloat(2, 1, 8),
}
RULES = ["floor", "even", "tosa", "rceil"]
ROUNDINGS = ["half_even", "half_away", "toward_zero"]
every_mx = pytest.mark.parametrize("name", ELEMENTS)

# Ordinary numbers, every double, and powers of two with the significands where the rules part.
edges = st.builds(
    lambda significand, exponent, sign, nudge: sign * significand * (1 + nudge * 2.0**-52) * 2.0**exponent,
    st.sampled_from([1, 1.25, 1.5, 1.75, 1.8125, 1.875, 1.9375, 1.984375, 1.9921875]),
    st.integers(-20, 20) | st.integers(-160, 160),
    st.sampled_from([1, -1]),
    st.sampled_from([0, 0, 1, -1]),
)
reals = st.one_of(st.floats(-100, 100), st.floats(allow_nan=False, allow_infinity=False), edges, st.just(0.0))


def expected_codes(name, values, indices):
    """Put the signs on the oracle's indices: two's complement for MXINT8, a sign bit for the others."""
    if name == "mxint8":
        return [-i if v < 0 else i for v, i in zip(values, indices, strict=True)]
    sign_bit = formats.get(name).element.sign_bit
    return [i | (sign_bit if math.copysign(1, v) < 0 else 0) for v, i in zip(values, indices, strict=True)]


@every_mx
@given(
    values=st.lists(reals, min_size=1, max_size=70),
    rule=st.sampled_from(RULES),
    rounding=st.sampled_from(ROUNDINGS),
)
def test_blocks_equal_the_oracle(name, values, rule, rounding):
    tensor = formats.get(name).quantize(values, scale_rule=rule, rounding=rounding)
    codes, scales, decoded = [], [], []
    for start in range(0, len(values), 32):
        block = values[start : start + 32]
        indices, exponent = float_oracle.quantize_mx(block, ELEMENTS[name], rule, rounding)
        codes += expected_codes(name, block, indices)
        scales.append(exponent + 127)
        signs = [math.copysign(1, v) for v in block]
        decoded += [
            s * float(ELEMENTS[name].magnitudes[i] * float_oracle.power(exponent))
            for s, i in zip(signs, indices, strict=True)
        ]
    assert tensor.codes.tolist() == codes
    assert tensor.block_scales.tolist() == scales
    assert tensor.dequantize().tolist() == decoded
    assert tensor.scale == 1.0


@every_mx
@given(value=edges, rule=st.sampled_from(RULES))
def test_the_rules_where_they_part(name, value, rule):
    tensor = formats.get(name).quantize([value], scale_rule=rule)
    assert tensor.block_scales.tolist() == [127 + float_oracle.mx_exponent(abs(Fraction(value)), ELEMENTS[name], rule)]


def exponent(name, value, rule):
    return int(formats.get(name).quantize([value], scale_rule=rule).block_scales[0]) - 127


@pytest.mark.parametrize(
    ("name", "value", "floor", "even", "tosa", "rceil"),
    [
        # E4M3, emax 8: 448 fits; above it rceil bumps, tosa above 464 (the tie between 448 and 480 goes to 448, whose
        # last bit is 0), even from 496 (31/16 * 256: the tie between 480 and 512 carries).
        ("mxfp8_e4m3", 448, 0, 0, 0, 0),
        ("mxfp8_e4m3", 448.001, 0, 0, 0, 1),
        ("mxfp8_e4m3", 464, 0, 0, 0, 1),
        ("mxfp8_e4m3", 464.001, 0, 0, 1, 1),
        ("mxfp8_e4m3", 495.999, 0, 0, 1, 1),
        ("mxfp8_e4m3", 496, 0, 1, 1, 1),
        ("mxfp8_e4m3", 511.999, 0, 1, 1, 1),
        ("mxfp8_e4m3", 512, 1, 1, 1, 1),
        # E5M2, emax 15, largest 57344 = 1.75 * 2**15; 61440 = 1.875 * 2**15 is the tie with 65536.
        ("mxfp8_e5m2", 57345, 0, 0, 0, 1),
        ("mxfp8_e5m2", 61439, 0, 0, 0, 1),
        ("mxfp8_e5m2", 61440, 0, 1, 1, 1),
        # E2M1, emax 2, largest 6; 7 is the tie with 8.
        ("mxfp4", 6, 0, 0, 0, 0),
        ("mxfp4", 6.999, 0, 0, 0, 1),
        ("mxfp4", 7, 0, 1, 1, 1),
        ("mxfp4", 8, 1, 1, 1, 1),
        # INT8, emax 0, largest 127/64; 127.5/64 is the tie with 2.
        ("mxint8", 127 / 64, 0, 0, 0, 0),
        ("mxint8", 127.4 / 64, 0, 0, 0, 1),
        ("mxint8", 127.5 / 64, 0, 1, 1, 1),
    ],
)
def test_scale_rules_worked_by_hand(name, value, floor, even, tosa, rceil):
    assert [exponent(name, value, rule) for rule in RULES] == [floor, even, tosa, rceil]
    assert [exponent(name, -value / 16, rule) for rule in RULES] == [floor - 4, even - 4, tosa - 4, rceil - 4]


def test_mxfp4_worked_by_hand():
    # Largest 13: floor(log2 13) = 3, emax 2: X = 1. Halved: 6.5 -> saturates to 6 (0111); -2.5 ties 2 and 3: even is 2
    # (1100); 0.75 ties 0.5 and 1: even is 1 (0010); 0.25 ties 0 and 0.5: 0; 1.75 ties 1.5 and 2: 2 (0100);
    # -0.2 -> -0 (1000).
    mxfp4 = formats.get("mxfp4")
    x = [13, -5, 1.5, 0.5, 3.5, -0.4]
    tensor = mxfp4.quantize(x)
    assert tensor.block_scales.tolist() == [128]
    assert tensor.codes.tolist() == [0b0111, 0b1100, 0b0010, 0b0000, 0b0100, 0b1000]
    assert tensor.dequantize().tolist() == [12, -4, 2, 0, 4, 0]
    assert tensor.scales.tolist() == [2.0]
    # rceil: 13 > 6 * 2, so X = 2: 3.25 -> 3, -1.25 ties 1 and 1.5: 1; 0.375 -> 0.5; 0.125 -> 0; 0.875 -> 1; -0.1 -> -0.
    assert mxfp4.quantize(x, scale_rule="rceil").dequantize().tolist() == [12, -4, 2, 0, 4, 0]
    assert mxfp4.quantize(x, scale_rule="rceil").codes.tolist() == [0b0101, 0b1010, 0b0001, 0b0000, 0b0010, 0b1000]
    # Ties away from zero: -2.5 -> -3, 0.75 -> 1, 0.25 -> 0.5, 1.75 -> 2. Toward zero: 6, -2, 0.5, 0, 1.5, -0.
    assert mxfp4.quantize(x, rounding="half_away").dequantize().tolist() == [12, -6, 2, 1, 4, 0]
    assert mxfp4.quantize(x, rounding="toward_zero").dequantize().tolist() == [12, -4, 1, 0, 3, 0]


def test_mxint8_worked_by_hand():
    # Largest 1.999: X = 0; 1.999 * 64 = 127.9 saturates at 127; 0.1 * 64 = 6.4; -1 * 64; 0.5/64 ties 0 and 1: 0.
    tensor = formats.get("mxint8").quantize([1.999, 0.1, -1.0, 0.5 / 64, -1.999])
    assert tensor.codes.tolist() == [127, 6, -64, 0, -127]
    assert tensor.block_scales.tolist() == [127]
    # The code -128 means -2; it is accepted from outside.
    assert formats.make_qtensor([-128], formats.get("mxint8"), block_scales=[128]).dequantize().tolist() == [-4.0]


@every_mx
def test_every_code_at_every_scale_comes_back(name):
    # Beside an element of the largest binade, the floor rule finds the block's scale again.
    mx = formats.get(name)
    codes = np.setdiff1d(np.arange(mx.code_low, mx.code_high + 1), mx.reserved_codes)
    codes = codes[codes != -128]  # decoded, never made
    largest = 127 if name == "mxint8" else mx.element.largest_code
    blocks = np.full((codes.size, 32), largest)
    blocks[:, -1] = codes
    for scale in (0, 1, 2, 126, 127, 128, 253, 254):
        tensor = formats.make_qtensor(blocks, mx, block_scales=np.full((codes.size, 1), scale))
        values = tensor.dequantize()
        assert_array_equal(values[:, 0], float(ELEMENTS[name].largest) * 2.0 ** (scale - 127))
        again = mx.quantize(values)
        assert_array_equal(again.codes, blocks)
        assert_array_equal(again.block_scales, np.full((codes.size, 1), scale))


@every_mx
@pytest.mark.parametrize("rule", RULES)
def test_extremes(name, rule):
    mx = formats.get(name)
    # A block of zeros, of the smallest double and of the largest one, each beside the others.
    rows = np.zeros((3, 33))
    rows[1] = 5e-324
    rows[2] = -np.finfo(np.float64).max
    tensor = mx.quantize(rows, scale_rule=rule)
    assert tensor.block_scales.tolist() == [[0, 0], [0, 0], [254, 254]]
    assert not tensor.codes[:2].any()
    assert np.all(tensor.dequantize()[2] == -float(ELEMENTS[name].largest) * 2.0**127)


@every_mx
def test_the_smallest_subnormal_element(name):
    mx, smallest = formats.get(name), float(ELEMENTS[name].magnitudes[1])
    assert mx.quantize([smallest * 2.0**-127]).codes.tolist() == [1]
    assert mx.quantize([smallest * 2.0**-128]).codes.tolist() == [0]  # a tie with zero
    assert mx.quantize([math.nextafter(smallest * 2.0**-128, 1)]).codes.tolist() == [1]


@every_mx
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=66))
def test_rceil_never_saturates_and_a_ragged_tail_is_completed_by_zeros(name, values):
    mx = formats.get(name)
    tensor = mx.quantize(values, scale_rule="rceil", rounding="toward_zero")
    assert np.all(np.abs(tensor.dequantize()) <= np.abs(values))
    limits = np.repeat(tensor.scales, 32)[: len(values)] * float(ELEMENTS[name].largest)
    assert np.all(np.abs(values) <= limits)
    padded = mx.quantize(values + [0.0] * (-len(values) % 32), scale_rule="rceil", rounding="toward_zero")
    assert_array_equal(padded.block_scales, tensor.block_scales)
    assert_array_equal(padded.codes[: len(values)], tensor.codes)


@every_mx
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), shift=st.integers(-30, 30))
def test_a_power_of_two_moves_the_scale_only(name, values, shift):
    values = [v if abs(v) > 1e-3 else 0.0 for v in values]
    mx = formats.get(name)
    first, moved = mx.quantize(values), mx.quantize([v * 2.0**shift for v in values])
    assert_array_equal(first.codes, moved.codes)
    zero = [not any(values[i : i + 32]) for i in range(0, len(values), 32)]
    assert_array_equal(moved.block_scales, np.where(zero, 0, first.block_scales + shift))


def test_axes_and_the_coarse_scale():
    x = np.arange(-70.0, 70).reshape(35, 4)
    mx = formats.get("mxfp8_e4m3")
    tensor, last = mx.quantize(x, 0), mx.quantize(x.T)
    assert tensor.block_scales.shape == (2, 4)
    assert_array_equal(tensor.codes, last.codes.T)
    assert_array_equal(tensor.dequantize(), last.dequantize().T)
    coarse = mx.quantize(x, 0, channel_axis=1, scale=[1.0, 2.0, 3.0, 0.5])
    assert_array_equal(coarse.codes, mx.quantize(x / [1, 2, 3, 0.5], 0).codes)
    assert_array_equal(coarse.dequantize(), mx.quantize(x / [1, 2, 3, 0.5], 0).dequantize() * [1, 2, 3, 0.5])
    assert_array_equal(coarse.scales, np.ldexp(1.0, coarse.block_scales - 127) * [1, 2, 3, 0.5])


def test_stored_bits():
    assert formats.get("mxfp8_e4m3").bits_per_element == formats.get("mxint8").bits_per_element == 8.25
    assert formats.get("mxfp6_e2m3").bits_per_element == 6.25
    assert formats.get("mxfp4").bits_per_element == 4.25
    assert formats.get("mxfp6_e3m2").quantize(np.ones(33)).size_bits == 33 * 6 + 2 * 8


@every_mx
def test_bad_options_and_scales(name):
    mx = formats.get(name)
    for arguments, message in (
        ({"scale_rule": "ceil"}, "scale_rule='ceil' is not one of 'floor', 'even', 'tosa', 'rceil'"),
        ({"rounding": "up"}, "rounding='up' is not one of 'half_even', 'half_away', 'toward_zero'"),
        ({"zero_point": 1}, f"{name} has no zero points; leave out zero_point and asymmetric"),
    ):
        with pytest.raises(FormatError) as caught:
            mx.quantize([1.0], **arguments)
        assert str(caught.value) == message
    with pytest.raises(FormatError) as caught:
        formats.make_qtensor([1], mx, block_scales=[255], subject="t")
    assert str(caught.value) == f"t: block scale 255 at index (0) is outside {name}'s range [0, 254]"
    with pytest.raises(ShapeError, match="blocks and per-channel scales both run along axis 0"):
        mx.quantize([1.0], channel_axis=0)
