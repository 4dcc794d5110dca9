"""MX9, MX6 and MX4 of Rouhani et al.: exact rationals, blocks worked by hand, the lecture's bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from accelsim import formats
from accelsim.errors import FormatError
from accelsim.formats import float_oracle

WIDTHS = {"mx9": 8, "mx6": 5, "mx4": 3}
every_one = pytest.mark.parametrize("name", WIDTHS)
powers = st.builds(
    lambda significand, exponent: significand * 2.0**exponent,
    st.sampled_from([1, -1, 1.5, -1.75, 1.875, 1.99609375, -1.9999]),
    st.integers(-6, 2) | st.integers(-140, 140),
)
reals = st.one_of(st.floats(-4, 4), powers, st.just(0.0), st.floats(allow_nan=False, allow_infinity=False))


@every_one
@given(values=st.lists(reals, min_size=1, max_size=40))
def test_blocks_equal_the_oracle(name, values):
    tensor = formats.get(name).quantize(values)
    codes, scales, decoded = [], [], []
    for start in range(0, len(values), 16):
        block, shared, tau = float_oracle.quantize_microexponents(values[start : start + 16], WIDTHS[name])
        codes += block
        scales.append((shared + 127) * 256 + sum(bit << i for i, bit in enumerate(tau)))
        steps = [float_oracle.power(shared - tau[i // 2] - WIDTHS[name] + 2) for i in range(len(block))]
        decoded += [float(code * step) for code, step in zip(block, steps, strict=True)]
    assert tensor.codes.tolist() == codes
    assert tensor.block_scales.tolist() == scales
    assert tensor.dequantize().tolist() == decoded


def test_mx6_worked_by_hand():
    # w = 5. Largest 5.5: E = 2. Pair (5.5, 1) has it: tau 0, step 2**(2 - 3) = 0.5: 11, 2. Pair (0.8, -0.7): tau 1,
    # step 0.25: 3.2 -> 3, -2.8 -> -3. Pair (0.1, 4): tau 0: 0.2 -> 0, 8. The missing five pairs are zeros: tau 1.
    tensor = formats.get("mx6").quantize([5.5, 1, 0.8, -0.7, 0.1, 4])
    assert tensor.codes.tolist() == [11, 2, 3, -3, 0, 8]
    assert tensor.block_scales.tolist() == [129 * 256 + 0b11111010]
    assert tensor.dequantize().tolist() == [5.5, 1, 0.75, -0.75, 0, 4]
    lanes = tensor.lanes()
    assert lanes.exponents.tolist() == [0, 0, -1, -1, 0, 0]
    assert (lanes.block_scales.tolist(), lanes.block_exponents.tolist()) == ([1], [-1])
    assert tensor.scales.tolist() == [0.5]


def test_mx4_worked_by_hand():
    # w = 3, codes of -3 to 3. E = 0. (1.9, -0.25): step 0.5: 3.8 -> 4, clamped to 3; -0.5 ties 0 and -1: 0.
    # (0.99, 0.375): tau 1, step 0.25: 3.96 -> 4 -> 3; 1.5 ties 1 and 2: 2.
    tensor = formats.get("mx4").quantize([1.9, -0.25, 0.99, 0.375])
    assert tensor.codes.tolist() == [3, 0, 3, 2]
    assert tensor.dequantize().tolist() == [1.5, 0, 0.75, 0.5]
    away = formats.get("mx4").quantize([1.9, -0.25, 0.99, 0.375], rounding="half_away")
    assert away.codes.tolist() == [3, -1, 3, 2]
    assert formats.get("mx4").quantize([1.9, -0.25, 0.99, 0.375], rounding="toward_zero").codes.tolist() == [3, 0, 3, 1]


def test_bits_of_the_lecture():
    # MX4: 3 + 1/2 + 8/16 = 4, MX6: 5 + 1/2 + 8/16 = 6, MX9: 8 + 1/2 + 8/16 = 9, beside VSQ's 4 + 4/16 = 4.25.
    assert [formats.get(name).bits_per_element for name in ("mx4", "mx6", "mx9", "vsq4")] == [4, 6, 9, 4.25]
    assert formats.get("mx9").quantize(np.ones(32)).size_bits == 32 * 9
    assert formats.get("mx9").quantize(np.ones(17)).size_bits == 17 * 8 + 2 * 16  # a ragged tail stores a whole scale


@every_one
def test_every_code_at_every_exponent_comes_back(name):
    # Beside the largest code (whose leading bit says E), with the pair's tau 0; and in a pair of its own with tau 1,
    # where the largest code is the pair's other element, half as large.
    mx = formats.get(name)
    codes = np.arange(mx.code_low, mx.code_high + 1)
    blocks = np.full((codes.size, 16), mx.high)
    blocks[:, 1] = blocks[:, 2] = codes
    for exponent in (1, 2, 127, 253, 254):
        stored = np.full((codes.size, 1), exponent * 256 + 0b11111110)
        tensor = formats.make_qtensor(blocks, mx, block_scales=stored)
        values = tensor.dequantize()
        assert_array_equal(values[:, 1], 2 * values[:, 2])
        assert_array_equal(values[:, 1], codes * 2.0 ** (exponent - 127 - (WIDTHS[name] - 2)))
        again = mx.quantize(values)
        if exponent > 10:  # below, small codes are float32 subnormals, which count as zero
            assert_array_equal(again.codes, blocks)
            assert_array_equal(again.block_scales, stored)


@every_one
def test_extremes(name):
    mx = formats.get(name)
    rows = np.zeros((4, 16))
    rows[1] = 2.0**-126 * (1 - 2.0**-53)  # just too small
    rows[2, 3] = 2.0**-126
    rows[3] = -np.finfo(np.float64).max
    tensor = mx.quantize(rows)
    one = 2 ** (WIDTHS[name] - 2)
    assert tensor.block_scales[:, 0].tolist() == [0, 0, 256 + 0b11111101, 254 * 256]
    assert not tensor.codes[:2].any()
    assert tensor.codes[2].tolist() == [0, 0, 0, one, *[0] * 12]
    assert np.all(tensor.codes[3] == -mx.high)
    # A subnormal beside a normal number is flushed too.
    assert mx.quantize([2.0**-126, 2.0**-127]).codes.tolist() == [one, 0]


@every_one
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
def test_axes_and_ragged_tails(name, values):
    mx = formats.get(name)
    tensor = mx.quantize(np.stack([values, values[::-1]], axis=1), 0)
    for column, row in enumerate((values, values[::-1])):
        alone, padded = mx.quantize(row), mx.quantize(row + [0.0] * (-len(row) % 16))
        assert_array_equal(tensor.codes[:, column], alone.codes)
        assert_array_equal(tensor.block_scales[:, column], alone.block_scales)
        assert_array_equal(tensor.dequantize()[:, column], alone.dequantize())
        assert_array_equal(alone.block_scales, padded.block_scales)
        assert_array_equal(alone.codes, padded.codes[: len(row)])


@every_one
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=16, max_size=16))
def test_error_is_at_most_a_step(name, values):
    # Half a step of rounding; a whole one only where the largest magnitudes clamp.
    tensor = formats.get(name).quantize(values)
    lanes = tensor.lanes()
    steps = np.ldexp(1.0, lanes.exponents + lanes.block_exponents[0])
    errors = np.abs(tensor.dequantize() - values)
    assert np.all(errors <= np.where(np.abs(tensor.codes) == formats.get(name).high, steps, steps / 2))


def test_bad_values():
    with pytest.raises(FormatError) as caught:
        formats.make_qtensor([1], formats.get("mx9"), block_scales=[255 * 256], subject="t")
    assert str(caught.value) == "t: block scale 65280 at index (0) is outside mx9's range [0, 65279]"
    with pytest.raises(FormatError, match=r"code -4 at index \(0\) is outside mx4's range \[-3, 3\]"):
        formats.make_qtensor([-4], formats.get("mx4"), block_scales=[0])
    with pytest.raises(FormatError, match="mx9 has no zero points"):
        formats.get("mx9").quantize([1.0], zero_point=1)
    with pytest.raises(FormatError, match="rounding='up' is not one of"):
        formats.get("mx9").quantize([1.0], rounding="up")
