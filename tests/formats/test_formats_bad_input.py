"""What is no ordinary number or no whole block, for every format; docs/formats.md says what happens.

NaN and infinity, zeros, denormals, scales that underflow, blocks that do not fit. (Messages: test_formats_errors.py.)
"""

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from accelsim import formats
from accelsim.errors import FormatError, ShapeError

GROUPS = ["group_int4_g16_uint4", "group_int3_g2_e1m0_g16_e8m0", "group_int4_g8_uint4_g16_fp16",
          "group_uint4_g4_fp8_e4m3", "group_int8_g2_fp8_e5m2_g4_uint4_g8_bf16"]  # fmt: skip
ALL = [*formats.names(), *GROUPS]
BLOCKED = [name for name in ALL if formats.get(name).blocks is not None]
# Without a code for 0, zeros become something else; binary has no scale for a tensor of zeros either.
WITHOUT_ZERO = [name for name in ALL if name.startswith("binary") or re.fullmatch("po2_.r", name)]
WITH_ZERO = [name for name in ALL if name not in WITHOUT_ZERO]
SMALLEST = 2.0**-1022


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_not_a_number_and_infinity_are_refused(name, wrong):
    x = np.ones((2, 40))
    x[1, 3], x[1, 7] = wrong, np.nan
    with pytest.raises(FormatError) as caught:
        formats.get(name).quantize(x)
    assert str(caught.value) == (
        f"cannot quantize: 2 of 80 values are NaN or infinite, the first is {wrong} at index (1, 3); "
        "replace or clip them first"
    )


@pytest.mark.parametrize("name", ALL)
def test_codes_and_scales_that_are_not_finite_are_refused(name):
    kind = formats.get(name)
    blocks = kind.blocks
    rest = {} if blocks is None else {"block_scales": [0]}
    if kind.datapath == "codebook":
        rest = {"codebook": [0] * (kind.code_high - kind.code_low + 1)}
    for scale in (np.nan, np.inf, 0.0, -1.0):
        with pytest.raises(FormatError, match="scales are finite and greater than 0"):
            formats.make_qtensor([0], kind, scale, **rest)
    for code in kind.reserved_codes:
        with pytest.raises(FormatError, match=f"is NaN or infinity in {name}"):
            formats.make_qtensor([code], kind, **rest)
    if blocks is not None and blocks.scale_high < 2**blocks.scale_bits - 1:  # E8M0's 255, E4M3's 127
        with pytest.raises(FormatError, match=r"t: block scale \d+ at index \(0\) is outside"):
            formats.make_qtensor([0], kind, block_scales=[blocks.scale_high + 1], subject="t")


@pytest.mark.parametrize("name", WITH_ZERO)
def test_all_zeros_have_scale_one(name):
    tensor = formats.get(name).quantize(np.zeros((2, 40)))
    expected = {"q1.7": 2.0**-7, "q4.4": 2.0**-4, "q8.8": 2.0**-8}.get(name, 1.0)  # Qm.n has its scale in its name
    assert tensor.scale == expected
    assert not tensor.dequantize().any()


def test_zeros_without_a_zero():
    for name in ("binary", "binary_inv"):
        with pytest.raises(FormatError, match="all values are 0, so that their mean magnitude is no scale"):
            formats.get(name).quantize(np.zeros(3))
    assert formats.get("po2_3r").quantize(np.zeros(3)).dequantize().tolist() == [1.0] * 3


# What a block of zeros stores, beside one that is not zero.
ZERO_BLOCK = {
    "vsq4": 0, "uvsq8": 0, "mxint8": 0, "mxfp8_e4m3": 0, "mxfp8_e5m2": 0, "mxfp6_e3m2": 0, "mxfp6_e2m3": 0, "mxfp4": 0,
    "mx9": 0, "mx6": 0, "mx4": 0,
    "nvfp4": 8,  # E4M3's 2**-6: scales have a lower limit
    "group_int4_g16_uint4": 0,
    "group_int3_g2_e1m0_g16_e8m0": 1,  # 2**-1 under 2**-127
    "group_uint4_g4_fp8_e4m3": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", ZERO_BLOCK)
def test_a_block_of_zeros(name):
    # Two rows: one of zeros. The other is quantized as if it were alone.
    kind = formats.get(name)
    x = np.zeros((2, 64))
    x[0] = np.linspace(0.1, 9, 64)
    tensor, alone = kind.quantize(x), kind.quantize(x[:1])
    assert set(tensor.block_scales[1].tolist()) == {ZERO_BLOCK[name]}
    assert not tensor.codes[1].any()
    assert not tensor.dequantize()[1].any()
    assert_array_equal(tensor.block_scales[:1], alone.block_scales)
    assert_array_equal(tensor.codes[:1], alone.codes)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("x", [5e-324, 1e-310, SMALLEST, 2.0**-149, 1e-40])
def test_denormals_of_both_widths(name, x):
    # float64's and float32's: nothing overflows, nothing is lost but what is as small itself, and the scale is normal.
    values = np.array([[x, -x, x / 2, 0.0]])
    kind = formats.get(name)
    tensor = kind.quantize(values)
    assert np.all(tensor.scale >= SMALLEST)
    decoded = tensor.dequantize()
    assert np.all(np.isfinite(decoded))
    bound = {"q1.7": 2.0**-8, "q4.4": 2.0**-5, "q8.8": 2.0**-9}.get(name, 0.0)
    assert np.all(np.abs(decoded - values) <= max(2 * x, SMALLEST, bound))


@pytest.mark.parametrize("name", WITH_ZERO)
def test_denormals_beside_ones_become_zeros(name):
    x = np.array([[1.0, 5e-324, 1e-310, 2.0**-149, -1e-45]])
    decoded = formats.get(name).quantize(x).dequantize()
    # The centroid next to 0 is the mean of a cluster; bf16 reaches as far down as 2**-260 of its maximum.
    if name != "bf16" and not name.startswith("kmeans"):
        assert not decoded[0, 1:].any()
    assert np.all(np.abs(decoded[0, 1:]) < 2.0**-20)


def test_a_scale_that_underflows():
    # Plain formats: the smallest normal double, under which a denormal rounds to 0 or 1.
    for name in ("int8", "fp8_e4m3", "ternary", "dfp8", "po2_4", "kmeans2", "binary"):
        assert formats.get(name).quantize([1e-320, -1e-320]).scale == SMALLEST, name
    # Block scales: an integer becomes 0 and its block zeros; one that is a float too, but NVFP4's has a lower limit; a
    # power of two stays at its smallest, where elements go on into their subnormals.
    x = np.zeros((2, 32))
    x[0], x[1] = 1.0, 1e-9
    vsq = formats.get("vsq4").quantize(x)
    assert vsq.block_scales.tolist() == [[15, 15], [0, 0]]
    assert not vsq.codes[1].any()
    group = formats.get("group_int4_g16_fp8_e4m3").quantize(x)
    assert group.block_scales.tolist() == [[126, 126], [0, 0]]  # 448 = 1.75 * 2**8 above all, 0 below 2**-10
    assert not group.codes[1].any()
    nvfp4 = formats.get("nvfp4").quantize(x)
    assert nvfp4.block_scales.tolist() == [[126, 126], [8, 8]]
    assert not nvfp4.codes[1].any()
    # 2**-130 under 2**-127 is an eighth: E4M3 0 0100 000 = 0x20, E5M2 0 01100 00 = 0x30, INT8 8/64; E2M1 has no eighth.
    tiny = {name: formats.get(name).quantize([2.0**-130]) for name in ("mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "mxfp4")}
    assert {int(tensor.block_scales[0]) for tensor in tiny.values()} == {0}
    assert [int(tensor.codes[0]) for tensor in tiny.values()] == [0x20, 0x30, 8, 0]
    # Microexponents flush what float32 calls denormal.
    assert formats.get("mx9").quantize([2.0**-126]).dequantize().tolist() == [2.0**-126]
    assert formats.get("mx9").quantize([np.nextafter(2.0**-126, 0)]).dequantize().tolist() == [0.0]
    # Group scales that hold the scale itself: FP16 ends at 2**-24, half of which rounds to 0.
    fp16 = formats.get("group_int4_g2_fp16")
    assert fp16.quantize([7 * 2.0**-24, 0]).dequantize().tolist() == [7 * 2.0**-24, 0]
    assert fp16.quantize([7 * 2.0**-25, 0]).block_scales.tolist() == [0]
    assert fp16.quantize([7 * 2.0**-25, 0]).dequantize().tolist() == [0, 0]


def test_a_scale_that_overflows():
    # The other end: the largest scale stays, and elements saturate.
    largest = np.finfo(np.float64).max
    assert formats.get("group_int4_g2_fp16").quantize([largest, -largest]).dequantize().tolist() == [458528, -458528]
    assert formats.get("mxfp4").quantize([largest]).dequantize().tolist() == [6 * 2.0**127]
    assert formats.get("vsq4").quantize([largest, 1.0], scale=1.0).dequantize().tolist() == [105, 0]


@pytest.mark.parametrize("name", BLOCKED)
def test_a_row_shorter_than_its_blocks_is_completed_by_zeros(name):
    kind = formats.get(name)
    size = max([kind.blocks.size, *(level.size for level in kind.blocks.levels)])
    row = np.linspace(-3, 3, size + 1)  # the last block has one element
    tensor, padded = kind.quantize(row), kind.quantize(np.pad(row, (0, size - 1)))
    count = -(-(size + 1) // kind.blocks.size)
    assert tensor.block_scales.shape == (count,)
    assert_array_equal(tensor.codes, padded.codes[: size + 1])
    assert_array_equal(tensor.block_scales, padded.block_scales[:count])
    one = kind.quantize([1.0])
    assert one.block_scales.shape == (1,)
    assert one.size_bits == kind.code_bits + kind.blocks.row_bits(1) + kind.blocks.tensor_scale_bits


@pytest.mark.parametrize("name", BLOCKED)
def test_blocks_that_do_not_fit(name):
    kind = formats.get(name)
    size = kind.blocks.size
    with pytest.raises(ShapeError) as caught:
        formats.make_qtensor(np.zeros((2, size), int), kind, block_scales=np.zeros((2, 2), int), subject="t")
    assert str(caught.value) == (
        f"t: block_scales has shape (2, 2), but codes of shape (2, {size}) in blocks of {size} along axis 1 need (2, 1)"
    )
    with pytest.raises(FormatError, match=f"t: {kind.name} needs block_scales, one for each {size} elements"):
        formats.make_qtensor(np.zeros((2, size), int), kind, subject="t")
    with pytest.raises(ShapeError, match="a single number has no axes"):
        kind.quantize(1.0)
    with pytest.raises(ShapeError, match="block axis=2 is not an axis of an array with 2 dimensions"):
        kind.quantize(np.ones((2, 3)), 2)
