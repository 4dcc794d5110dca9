"""Groups under groups of scales: the lecture's table, exact rationals, the formats that are special cases of them."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from accelsim import formats
from accelsim.errors import FormatError, ShapeError
from accelsim.formats import group_oracle
from accelsim.formats.scale_types import SCALE_TYPES
from accelsim.formats.spec import Format
from accelsim.trace.schema import TensorMeta
from accelsim.trace.summary import size_bits

NAMES = [
    "group_int4_g16_uint4",
    "group_uint4_g3_uint6",
    "group_int3_g2_e1m0_g16_e8m0",
    "group_int8_g4_e2m0_g8_e3m0",
    "group_int4_g8_uint4_g16_fp16",
    "group_int6_g4_uint3_g8_uint5_g16_bf16",
    "group_int4_g4_fp8_e4m3",
    "group_uint8_g2_fp8_e5m2_g6_uint4",
    "group_int2_g5_e8m0",
    "group_int5_g1_uint1_g7_e8m0_g14_fp8_e4m3",
]
every_one = pytest.mark.parametrize("name", NAMES)
reals = st.one_of(
    st.floats(-4, 4),
    st.integers(-600, 600).map(lambda n: n / 2),
    st.floats(allow_nan=False, allow_infinity=False),
    st.builds(lambda s, e: s * 2.0**e, st.sampled_from([1, -1.75, 1.875, 7, -127 / 64]), st.integers(-140, 140)),
    st.just(0.0),
)


def unpack(tensor):
    """The scale codes of each level, once a group."""
    found, offset = [], 0
    for level in tensor.format.blocks.levels:
        codes = (tensor.block_scales >> offset) & (2**level.bits - 1)
        found.append(codes[..., :: level.size // tensor.format.blocks.size].tolist())
        offset += level.bits
    return found


# -- what they cost


def test_the_table_of_the_lecture():
    # Approach, element, L0 group and type, L1 group and type, bits: INT4 per channel 4 (its one scale a channel is not
    # counted), VSQ 4 + 4/16 = 4.25, MX4 3 + 1/2 + 8/16, MX6 5 + 1/2 + 8/16, MX9 8 + 1/2 + 8/16. S1M2 is a sign and two
    # bits of magnitude: int3 in the symmetric range -3..3.
    table = {
        "int4": 4,
        "group_int4_g16_uint4": 4.25,
        "group_int3_g2_e1m0_g16_e8m0": 4,
        "group_int5_g2_e1m0_g16_e8m0": 6,
        "group_int8_g2_e1m0_g16_e8m0": 9,
    }
    assert {name: formats.get(name).bits_per_element for name in table} == table
    for short, name in (("vsq4", "group_int4_g16_uint4"), *((f"mx{b}", f"group_int{e}_g2_e1m0_g16_e8m0") for b, e in
                        ((4, 3), (6, 5), (9, 8)))):  # fmt: skip
        first, second = formats.get(short), formats.get(name)
        assert (first.low, first.high, first.bits_per_element) == (second.low, second.high, second.bits_per_element)
        # One whole group of everything: 16 elements take 16 times that.
        assert second.quantize(np.arange(16.0)).size_bits == 16 * first.bits_per_element


@every_one
def test_every_level_is_stored_once_for_its_group(name):
    kind = formats.get(name)
    widest = kind.levels[-1][0]
    x = np.random.default_rng(1).normal(size=(3, 2 * widest))
    tensor = kind.quantize(x)
    assert tensor.size_bits == pytest.approx(x.size * kind.bits_per_element, rel=1e-15)
    # Two elements more begin one more group of every level (of as many as they fill: groups of 1 two).
    longer = kind.quantize(np.ones((3, 2 * widest + 2)))
    more = sum(SCALE_TYPES[scale].code_bits * -(-2 // size) for size, scale in kind.levels)
    assert longer.size_bits - tensor.size_bits == 3 * (2 * kind.element_bits + more)
    meta = TensorMeta(shape=longer.shape, dims=("batch", "channel"), format=name, block_axis=1)
    assert size_bits(meta) == longer.size_bits


@every_one
def test_the_format(name):
    kind = formats.get(name)
    assert isinstance(kind, Format)
    assert kind.name == name
    assert hash(kind) == hash(formats.get(kind.name))
    plain_vsq = len(kind.levels) == 1 and "uint" in kind.levels[0][1]
    assert kind.datapath == ("block_integer" if plain_vsq else "block_float")
    assert (kind.code_low, kind.code_high, kind.code_bits) == (kind.low, kind.high, kind.lane_bits)
    assert kind.blocks.scale_bits <= 31
    assert kind.blocks.scale_high < 2**kind.blocks.scale_bits
    lanes = kind.quantize(np.random.default_rng(1).normal(size=(4, 50))).lanes()
    assert lanes.block_scales.max() < 2 ** max(1, kind.blocks.significand_bits)


# -- against exact rationals


@every_one
@given(values=st.lists(reals, min_size=1, max_size=40), rounding=st.sampled_from(["nearest", "up"]))
def test_rows_equal_the_oracle(name, values, rounding):
    kind = formats.get(name)
    tensor = kind.quantize(values, scale_rounding=rounding)
    coarse = group_oracle.coarse_scale(values, kind.levels, kind.high, signed=kind.signed)
    assert tensor.scale == coarse
    expected = group_oracle.quantize_row(values, kind.levels, coarse, kind.low, kind.high, rounding)
    assert tensor.codes.tolist() == expected.codes
    assert unpack(tensor) == expected.scale_codes


@every_one
@given(
    values=st.lists(reals, min_size=1, max_size=20),
    coarse=st.floats(1e-3, 1e3) | st.floats(1e-300, 1e300),
    rounding=st.sampled_from(["nearest", "up"]),
)
@example(values=[5e-324], coarse=1.7e308, rounding="up")
@example(values=[1.7e308, -1.0], coarse=5e-324, rounding="nearest")
def test_rows_equal_the_oracle_under_a_given_scale(name, values, coarse, rounding):
    kind = formats.get(name)
    tensor = kind.quantize(values, scale=coarse, scale_rounding=rounding)
    expected = group_oracle.quantize_row(values, kind.levels, coarse, kind.low, kind.high, rounding)
    assert tensor.codes.tolist() == expected.codes
    assert unpack(tensor) == expected.scale_codes


@every_one
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_values_are_the_product_of_all_levels(name, values):
    # r = q * s_l0 * s_l1 * ... * scale, in rationals, rounded once; and the lanes say the same.
    kind = formats.get(name)
    tensor = kind.quantize(values)
    scales = unpack(tensor)
    lanes = tensor.lanes()
    for i, value in enumerate(tensor.dequantize().tolist()):
        product = Fraction(int(tensor.codes[i]))
        for (size, scale), codes in zip(kind.levels, scales, strict=True):
            product *= group_oracle.scale_values(scale)[codes[i // size]]
        block = i // kind.levels[0][0]
        power = 0 if lanes.block_exponents is None else int(lanes.block_exponents[block])
        assert int(lanes.values[i]) * int(lanes.block_scales[block]) * Fraction(2) ** power == product
        assert value == float(product * Fraction(float(tensor.scale)))


@pytest.mark.parametrize("kind", SCALE_TYPES)
def test_every_scale_code_comes_back(kind):
    # One level of groups of 2 int4, scale 1, an element 7 in each group: the scale is recognised by it.
    group = formats.get(f"group_int4_g2_{kind}")
    values = group_oracle.scale_values(kind)
    assert SCALE_TYPES[kind].largest_code == len(values) - 1
    codes = np.array([code for code in range(len(values)) if len(values) < 5000 or code % 7 == 0])
    elements = np.tile([7, -3], (codes.size, 1))
    tensor = formats.make_qtensor(elements, group, 1.0, block_scales=codes[:, None])
    decoded = tensor.dequantize()
    assert decoded[:, 0].tolist() == [float(7 * values[code]) for code in codes]
    again = group.quantize(decoded, scale=1.0)
    assert_array_equal(again.block_scales[:, 0], codes)
    is_zero = np.array([values[code] == 0 for code in codes])  # such a scale makes zeros of all codes
    assert_array_equal(again.codes, np.where(is_zero[:, None], 0, elements))


# -- special cases


@pytest.mark.parametrize(
    ("bits", "signed", "size", "scale_bits"), [(4, True, 16, 4), (8, False, 3, 6), (2, True, 1, 1)]
)
@given(x=st.lists(reals, min_size=1, max_size=40), rounding=st.sampled_from(["nearest", "up"]), data=st.data())
def test_one_level_of_integers_is_vsq(bits, signed, size, scale_bits, x, rounding, data):
    sign = "" if signed else "u"
    vsq = formats.get(f"vsq_{sign}int{bits}_v{size}_s{scale_bits}")
    group = formats.get(f"group_{sign}int{bits}_g{size}_uint{scale_bits}")
    scale = data.draw(st.none() | st.floats(1e-300, 1e300))
    first = vsq.quantize(x, scale=scale, scale_rounding=rounding)
    second = group.quantize(x, scale=scale, scale_rounding=rounding)
    assert (vsq.datapath, vsq.bits_per_element, vsq.blocks.scale_high, vsq.blocks.significand_bits) == (
        group.datapath,
        group.bits_per_element,
        group.blocks.scale_high,
        group.blocks.significand_bits,
    )
    assert first.scale == second.scale
    assert_array_equal(first.codes, second.codes)
    assert_array_equal(first.block_scales, second.block_scales)
    assert_array_equal(first.dequantize(), second.dequantize())
    assert second.lanes().block_exponents is None
    assert first.size_bits == second.size_bits


moderate = st.floats(-1e9, 1e9).map(lambda x: x if abs(x) > 1e-9 else 0.0)


@pytest.mark.parametrize(("short", "bits"), [("mx4", 3), ("mx6", 5), ("mx9", 8)])
@given(x=st.lists(moderate, min_size=1, max_size=40))
def test_a_bit_by_two_under_a_byte_by_sixteen_is_shared_microexponents(short, bits, x):
    # The floor rule takes E and tau as Rouhani et al. do; far from the ends of the ranges of the two, that is the same.
    mx, group = formats.get(short), formats.get(f"group_int{bits}_g2_e1m0_g16_e8m0")
    assert_array_equal(mx.quantize(x).codes, group.quantize(x).codes)
    assert_array_equal(mx.quantize(x).dequantize(), group.quantize(x).dequantize())


@pytest.mark.parametrize(("rule", "rounding"), [("floor", "nearest"), ("rceil", "up")])
@given(x=st.lists(moderate, min_size=1, max_size=70))
def test_e8m0_by_32_is_mxint8(rule, rounding, x):
    # MXINT8's codes count in 1/64.
    mx, group = formats.get("mxint8"), formats.get("group_int8_g32_e8m0")
    first, second = mx.quantize(x, scale_rule=rule), group.quantize(x, scale_rounding=rounding)
    assert_array_equal(first.codes, second.codes)
    assert_array_equal(first.dequantize(), second.dequantize())


@every_one
@given(values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_axes_channels_and_ragged_tails(name, values):
    kind = formats.get(name)
    x = np.stack([values, values[::-1]], axis=1)
    tensor = kind.quantize(x, 0, channel_axis=1)
    for column in range(2):
        row = x[:, column].tolist()
        alone, padded = kind.quantize(row), kind.quantize(row + [0.0] * (-len(row) % kind.levels[-1][0]))
        assert tensor.scale[column] == alone.scale == padded.scale
        assert_array_equal(tensor.codes[:, column], alone.codes)
        assert_array_equal(tensor.block_scales[:, column], alone.block_scales)
        assert_array_equal(tensor.dequantize()[:, column], alone.dequantize())
        assert_array_equal(padded.codes[: len(row)], alone.codes)


@pytest.mark.parametrize("name", ["group_int4_g8_uint8", "group_int4_g4_uint4_g8_fp16", "group_int4_g4_fp8_e4m3",
                                  "group_int4_g2_e2m0_g8_e8m0"])  # fmt: skip
@given(values=st.lists(st.floats(-1e3, 1e3), min_size=8, max_size=8))
def test_scales_rounded_up_never_clamp(name, values):
    tensor = formats.get(name).quantize(values, scale_rounding="up")
    steps = np.repeat(tensor.scales, tensor.format.blocks.size)
    assert np.all(np.abs(tensor.dequantize() - values) <= steps * 0.5000001)


# -- by hand


def test_worked_by_hand():
    # int4 (-7..7) in groups of 2 with 2-bit scales (0..3), two such groups under an E8M0. Nothing above: scale 1.
    # Row: 42, -6 | 10, 0 || 0.5, 1 | 0, 0.
    # E8M0 of the first four: peak 42 / ref 3 = 14; floor(log2 14) = 3, floor(log2 7) = 2: X = 1, S = 2.
    #   42/7 = 6, over 2 is 3: s = 3, S = 6: 42/6 = 7, -6/6 = -1. 10/7/2 = 0.714: s = 1, S = 2: 10/2 = 5, 0.
    # Of the last four: 1/3: floor(log2) = -2, X = -4, S = 1/16. 1/7 * 16 = 2.29: s = 2, S = 1/8: 4, 8 -> clamps to 7.
    #   The zeros: s = 0.
    kind = formats.get("group_int4_g2_uint2_g4_e8m0")
    tensor = kind.quantize([42, -6, 10, 0, 0.5, 1, 0, 0])
    assert tensor.scale == 1.0
    assert tensor.codes.tolist() == [7, -1, 5, 0, 4, 7, 0, 0]
    assert unpack(tensor) == [[3, 1, 2, 0], [128, 123]]
    assert tensor.block_scales.tolist() == [3 + 4 * 128, 1 + 4 * 128, 2 + 4 * 123, 0 + 4 * 123]
    assert tensor.dequantize().tolist() == [42, -6, 10, 0, 0.5, 0.875, 0, 0]
    lanes = tensor.lanes()
    assert (lanes.block_scales.tolist(), lanes.block_exponents.tolist()) == ([3, 1, 2, 0], [1, 1, -4, -4])
    # Rounded up: 14 <= 7 * 2: X = 1 again; 10: s = 1. 1/3 <= 7/16 (and not 7/32): X = -4, S = 1/16; 2.29 -> 3,
    # S = 3/16: 0.5 * 16/3 = 2.67 -> 3, 5.33 -> 5.
    upward = kind.quantize([42, -6, 10, 0, 0.5, 1, 0, 0], scale_rounding="up")
    assert upward.codes.tolist() == [7, -1, 5, 0, 3, 5, 0, 0]
    assert unpack(upward) == [[3, 1, 3, 0], [128, 123]]


def test_ties_between_scales():
    # Integers go up: 17.5 / 7 = 2.5 -> 3, 10.5 / 7 = 1.5 -> 2. Floats go to the even code: 1.0625 lies between 1 and
    # 1.125 in E4M3 (codes 56 and 57), 1.1875 between 1.125 and 1.25 (58).
    integers = formats.get("group_int4_g1_uint4").quantize([17.5, 10.5], scale=1.0)
    assert integers.block_scales.tolist() == [3, 2]
    floats = formats.get("group_int4_g1_fp8_e4m3").quantize([1.0625 * 7, 1.1875 * 7], scale=1.0)
    assert floats.block_scales.tolist() == [56, 58]
    # Elements to even: 2.5 and 3.5 steps.
    assert formats.get("group_int4_g4_uint4").quantize([7, 2.5, 3.5, -2.5], scale=1.0).codes.tolist() == [7, 2, 4, -2]


def test_three_levels_choose_the_coarse_scale_from_the_data():
    # uint2 by 1 under uint1 by 2: references 3 and 1. Largest 21: scale 21 / 7 / 3 = 1. Groups of 2: 21/7/3 = 1: s1 =
    # 1; 7/7/3 = 1/3: 0, everything below is zero. In the first: 21/7/1 = 3, 14/7 = 2.
    kind = formats.get("group_int4_g1_uint2_g2_uint1")
    tensor = kind.quantize([21.0, -14.0, 7.0, 3.0])
    assert tensor.scale == 1.0
    assert unpack(tensor) == [[3, 2, 0, 0], [1, 0]]
    assert tensor.codes.tolist() == [7, -7, 0, 0]


# -- what is wrong


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("group_int9_g16_uint4", "group_int9_g16_uint4: element width 9 is outside 2..8"),
        (
            "group_int4_g16_uint13",
            "group_int4_g16_uint13: 'uint13' is no type of scale; use one of " + ", ".join(SCALE_TYPES),
        ),
        (
            "group_int4_g16_uint4_g24_fp16",
            "group_int4_g16_uint4_g24_fp16: a group of 24 elements does not fit above groups of 16; "
            "use a multiple of 16 up to 4096",
        ),
        (
            "group_int4_g4097_fp16",
            "group_int4_g4097_fp16: a group of 4097 elements does not fit above groups of 1; "
            "use a multiple of 1 up to 4096",
        ),
        (
            "group_int4_g1_fp16_g2_bf16",
            "group_int4_g1_fp16_g2_bf16: the codes of all scales have 32 bits together; 31 fit",
        ),
        (
            "group_int4_g1_uint12_g2_uint8",
            "group_int4_g1_uint12_g2_uint8: the significands of all scales have 20 bits together; 16 fit",
        ),
    ],
)
def test_formats_that_do_not_fit(name, message):
    with pytest.raises(FormatError) as caught:
        formats.get(name)
    assert str(caught.value) == message


def test_a_group_without_levels_is_an_integer():
    from accelsim.formats.group import GroupFormat

    with pytest.raises(FormatError, match="group_int4: at least one level of groups is needed"):
        GroupFormat(4, True, ())


@pytest.mark.parametrize(
    ("scales", "kind", "message"),
    [
        (
            [3 + 4 * 128, 1 + 4 * 128, 5 + 4 * 129],
            ShapeError,
            "t: block_scales has shape (3,), but codes of shape (8,) in blocks of 2 along axis 0 need (4,)",
        ),
        (
            [3, 1, 2 + 4 * 7, 0 + 4 * 8],
            FormatError,
            "t: block scale 32 at index (3) holds 8 for its group of 4 elements, but the group's first block holds "
            "another code; they share one in group_int4_g2_uint2_g4_e8m0",
        ),
        (
            [0, 0, 4 * 255, 4 * 255],
            FormatError,
            "t: block scale 1020 at index (2) is outside group_int4_g2_uint2_g4_e8m0's range [0, 1019] (2 such values)",
        ),
    ],
)
def test_scales_that_do_not_fit(scales, kind, message):
    with pytest.raises(kind) as caught:
        formats.make_qtensor([0] * 8, formats.get("group_int4_g2_uint2_g4_e8m0"), block_scales=scales, subject="t")
    assert str(caught.value) == message


def test_a_reserved_code_below_another_level_is_refused():
    # 127 is NaN in E4M3; within the packed scale only its own bits can tell.
    kind = formats.get("group_int4_g2_fp8_e4m3_g4_uint2")
    with pytest.raises(FormatError) as caught:
        formats.make_qtensor([0] * 4, kind, block_scales=[127, 0], subject="t")
    assert (
        str(caught.value) == f"t: scale code of a group of 2 127 at index (0) is outside {kind.name}'s range [0, 126]"
    )


@every_one
def test_bad_options(name):
    kind = formats.get(name)
    for arguments, message in (
        ({"scale_rounding": "down"}, "scale_rounding='down' is not one of 'nearest', 'up'"),
        ({"asymmetric": True}, f"{name} has no zero points; leave out zero_point and asymmetric"),
    ):
        with pytest.raises(FormatError) as caught:
            kind.quantize([1.0], **arguments)
        assert str(caught.value) == message
    with pytest.raises(ShapeError, match="blocks and per-channel scales both run along axis 0"):
        kind.quantize([1.0], channel_axis=0)
