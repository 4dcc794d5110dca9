"""NVFP4: float32 steps against exact rationals, blocks worked by hand, extremes."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from accelsim import formats
from accelsim.errors import FormatError
from accelsim.formats import float_oracle

NVFP4 = formats.get("nvfp4")
LARGEST = float(np.finfo(np.float32).max)
reals = st.one_of(
    st.floats(-10, 10, width=32),
    st.floats(-10, 10),
    st.floats(-LARGEST, LARGEST),
    st.floats(-1e-30, 1e-30),
    st.sampled_from([0.0, -0.0, 2.0**-149, 2.0**-126, 1.0, 1.25, 6.0]),
    st.builds(lambda x, e: x * 2.0**e, st.floats(1, 2, width=32), st.integers(-40, 10)),
)


def expected(values, g):
    codes, scales = [], []
    for start in range(0, len(values), 16):
        block = [float(np.float32(v)) for v in values[start : start + 16]]
        indices, scale = float_oracle.quantize_nvfp4([Fraction(v) for v in block], g)
        codes += [i | (8 if math.copysign(1, v) < 0 else 0) for i, v in zip(indices, block, strict=True)]
        scales.append(scale)
    return codes, scales


@given(values=st.lists(reals, min_size=1, max_size=40))
def test_blocks_equal_the_oracle(values):
    tensor = NVFP4.quantize(values)
    largest = max(abs(Fraction(float(np.float32(v)))) for v in values)
    g = float_oracle.nvfp4_tensor_scale(largest)
    assert Fraction(float(tensor.scale)) == g
    codes, scales = expected(values, g)
    assert tensor.codes.tolist() == codes
    assert tensor.block_scales.tolist() == scales


@given(values=st.lists(reals, min_size=1, max_size=20), g=st.floats(2.0**-121, LARGEST, width=32) | st.floats(0.01, 9))
def test_blocks_equal_the_oracle_under_a_given_scale(values, g):
    tensor = NVFP4.quantize(values, scale=g)
    assert float(tensor.scale) == float(np.float32(g))
    codes, scales = expected(values, Fraction(float(np.float32(g))))
    assert tensor.codes.tolist() == codes
    assert tensor.block_scales.tolist() == scales


def test_worked_by_hand():
    # Largest 2688: g = 1. Block 1: 2688/6 = 448 = 0x7E; 2688/448 = 6 (0111), 600/448 = 1.34 -> 1.5 (0011), -100/448 =
    # -0.22 -> -0 (1000). Block 2: 13/6 = 2.17 -> 2.25 = 1.125 * 2 (field 8, fraction 1: 0x41); 13/2.25 = 5.8 -> 6,
    # -5/2.25 = -2.2 -> -2 (1100). Block 3: 0.05/6 is below 2**-6 (0x08): 0.05 * 64 = 3.2 -> 3 (0101). Block 4: zeros.
    x = np.zeros((4, 16))
    x[0, :3] = 2688, 600, -100
    x[1, :2] = 13, -5
    x[2, 5] = 0.05
    tensor = NVFP4.quantize(x)
    assert tensor.scale == 1.0
    assert tensor.block_scales.tolist() == [[0x7E], [0x41], [0x08], [0x08]]
    assert tensor.codes[0, :3].tolist() == [0b0111, 0b0011, 0b1000]
    assert tensor.codes[1, :2].tolist() == [0b0111, 0b1100]
    assert tensor.codes[2, 5] == 0b0101
    assert not tensor.codes[3].any()
    decoded = tensor.dequantize()
    assert decoded[0, :3].tolist() == [2688, 672, 0]
    assert decoded[1, :2].tolist() == [13.5, -4.5]
    assert decoded[2, 5] == 3 / 64
    lanes = tensor.lanes()
    assert lanes.block_scales[:, 0].tolist() == [14, 9, 8, 8]  # 14 * 2**5, 9 * 2**-2, 8 * 2**-9
    assert lanes.block_exponents[:, 0].tolist() == [5, -2, -9, -9]
    # A quarter of everything: g = 1/4, and the rest stays.
    quarter = NVFP4.quantize(x / 4)
    assert quarter.scale == 0.25
    assert_array_equal(quarter.codes, tensor.codes)
    assert_array_equal(quarter.block_scales, tensor.block_scales)


def test_it_multiplies_by_the_reciprocal():
    # g = 1, s = 11.25/6 = 1.875 (field 7, fraction 7: 0x3F). 4.6875 / 1.875 = 2.5 would tie 2 and 3 and go to 2 (0100).
    # But 2**24 / 1.875 = 8947848.53, so float32(1 / 1.875) = 8947849 * 2**-24 lies above it, the product above 2.5: 3.
    tensor = NVFP4.quantize([11.25, 4.6875], scale=1.0)
    assert tensor.block_scales.tolist() == [0x3F]
    assert tensor.codes.tolist() == [0b0111, 0b0101]


def test_every_rounding_counts():
    # Elements at the float32 number nearest to each tie, under scales g of 24 bits: each float32 rounding, and their
    # order (1 / g first, then by s), moves some of them to the other side. The counts say that the cases do bite.
    random, one = np.random.default_rng(1), np.float32(1)
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    moved = {"block scale": 0, "one division": 0, "one reciprocal": 0}
    for g in random.uniform(1, 2, 300).astype(np.float32):
        s = int(random.integers(8, 16)) / 8
        block = (np.array([6.0, *ties]) * s * float(g)).astype(np.float32)
        tensor = NVFP4.quantize(block, scale=g)
        codes, scales = expected(block.tolist(), Fraction(float(g)))
        assert tensor.codes.tolist() == codes
        assert tensor.block_scales.tolist() == scales
        # The same for block scales, from maxima nearest to their ties.
        maximum = np.float32(6 * float(g) * (random.integers(8, 15) + 0.5) / 8)
        found = int(NVFP4.quantize([maximum], scale=g).block_scales[0])
        assert [found] == expected([maximum], Fraction(float(g)))[1]
        doubles = formats.get("fp8_e4m3").quantize(float(maximum) / 6 / float(g), scale=1.0)
        moved["block scale"] += int(doubles.codes != found)
        exact = formats.get("fp4_e2m1").quantize(block / (g * np.float32(s)), scale=1.0)
        moved["one division"] += int((exact.codes != tensor.codes).sum())
        exact = formats.get("fp4_e2m1").quantize(block * (one / (g * np.float32(s))), scale=1.0)
        moved["one reciprocal"] += int((exact.codes != tensor.codes).sum())
    assert min(moved.values()) > 20, moved


def test_bits():
    assert NVFP4.bits_per_element == 4.5
    assert NVFP4.quantize(np.ones(17)).size_bits == 17 * 4 + 2 * 8 + 32


def test_extremes():
    # What float32 cannot hold saturates; the smallest doubles become zeros; g is then 1.
    tensor = NVFP4.quantize([np.finfo(np.float64).max, -LARGEST, 5e-324])
    assert float(tensor.scale) == float(np.float32(LARGEST) / np.float32(2688))
    assert tensor.codes.tolist() == [7, 15, 0]
    assert NVFP4.quantize([5e-324, -1e-60]).scale == 1.0
    assert NVFP4.quantize([5e-324, 0.0]).codes.tolist() == [0, 0]
    # The smallest float32: g stays at 2**-121, where every product is finite.
    tiny = NVFP4.quantize([2.0**-149, 0.0])
    assert float(tiny.scale) == 2.0**-121
    assert tiny.codes.tolist() == [0, 0]
    assert tiny.block_scales.tolist() == [8]


def test_every_code_under_every_block_scale_comes_back():
    # Under g = 1, beside a 6, and with block scales from the smallest that is made, 2**-6.
    codes = np.arange(16)
    blocks = np.full((16, 16), 7)
    blocks[:, 3] = codes
    for scale in range(8, 127):
        tensor = formats.make_qtensor(blocks, NVFP4, block_scales=np.full((16, 1), scale))
        again = NVFP4.quantize(tensor.dequantize(), scale=1.0)
        assert_array_equal(again.block_scales, tensor.block_scales)
        assert_array_equal(again.codes, blocks)


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40))
def test_axes_channels_and_ragged_tails(values):
    x = np.stack([values, values[::-1]], axis=1)
    tensor = NVFP4.quantize(x, 0, channel_axis=1)
    for column in range(2):
        row = x[:, column].tolist()
        alone, padded = NVFP4.quantize(row), NVFP4.quantize(row + [0.0] * (-len(row) % 16))
        assert tensor.scale[column] == alone.scale == padded.scale
        assert_array_equal(tensor.codes[:, column], alone.codes)
        assert_array_equal(tensor.block_scales[:, column], alone.block_scales)
        assert_array_equal(tensor.dequantize()[:, column], alone.dequantize())
        assert_array_equal(alone.block_scales, padded.block_scales)
        assert_array_equal(alone.codes, padded.codes[: len(row)])


def test_bad_values():
    with pytest.raises(FormatError) as caught:
        formats.make_qtensor([1], NVFP4, block_scales=[127], subject="t")
    assert str(caught.value) == "t: block scale 127 at index (0) is outside nvfp4's range [0, 126]"
    for scale in (1e-40, 1e39):
        with pytest.raises(FormatError) as caught:
            NVFP4.quantize([1.0], scale=scale)
        assert str(caught.value) == (
            f"quantize: scale is {scale}; nvfp4's tensor scale is a float32 number of at least 2**-121"
        )
    with pytest.raises(FormatError, match="nvfp4 has no zero points"):
        NVFP4.quantize([1.0], asymmetric=True)
