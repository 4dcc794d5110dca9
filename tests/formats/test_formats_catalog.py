"""Laws that hold for every format of the catalog; a new line in the catalog is tested the moment it exists."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from accelsim import formats
from accelsim.errors import FormatError
from accelsim.formats import oracle
from accelsim.formats.spec import Format

# Formats of a handful of values have their own laws: test_formats_discrete.py and its neighbours.
DISCRETE = ["binary", "binary_inv", "ternary", "ttq", "q1.7", "q4.4", "q8.8", "dfp4", "dfp8", "udfp8", "dfp16"]
DISCRETE += ["po2_2", "po2_3", "po2_4", "po2_5", "po2_2r", "po2_3r", "po2_4r"]
DISCRETE += [f"kmeans{bits}" for bits in range(1, 9)]
ALL = [name for name in formats.names() if name not in DISCRETE]
INTEGERS = [name for name in ALL if formats.get(name).datapath in ("integer", "block_integer")]
PLAIN = [name for name in ALL if formats.get(name).datapath == "integer"]
BLOCKED = [name for name in ALL if formats.get(name).datapath == "block_integer"] + [
    "vsq_int2_v1_s1",
    "vsq_uint3_v5_s12",
    "vsq_int8_v3_s2",
    "vsq_uint8_v256_s8",
]
# Numbers of every magnitude: ordinary, tiny and subnormal, huge, and those that fall exactly between two codes.
reals = st.one_of(
    st.floats(-1e3, 1e3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-600, 600).map(lambda n: n / 2),
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]),
)
scales = st.one_of(st.floats(1e-3, 1e3), st.floats(1e-300, 1e300), st.sampled_from([5e-324, 1.0, 0.5, 2.0**-1022]))


def test_the_catalog_has_every_family():
    expected = [
        f"{kind}{bits}{narrow}" for kind, narrow in (("int", ""), ("uint", ""), ("int", "n")) for bits in range(2, 17)
    ]
    expected += [f"{sign}vsq{bits}" for sign in ("", "u") for bits in (4, 6, 8)]
    expected += ["fp16", "bf16", "fp8_e4m3", "fp8_e5m2", "fp6_e3m2", "fp6_e2m3", "fp4_e2m1"]
    expected += [
        "mxint8",
        "mxfp8_e4m3",
        "mxfp8_e5m2",
        "mxfp6_e3m2",
        "mxfp6_e2m3",
        "mxfp4",
        "mx9",
        "mx6",
        "mx4",
        "nvfp4",
    ]
    assert expected == ALL
    assert formats.names() == [*ALL, *DISCRETE]


@pytest.mark.parametrize("name", [*ALL, *BLOCKED, "int17", "int32", "int48", "int64"])
def test_a_name_means_one_format(name):
    number_format = formats.get(name)
    assert isinstance(number_format, Format)
    assert formats.get(number_format.name) == number_format
    assert hash(formats.get(number_format.name)) == hash(number_format)
    assert number_format.low <= 0 < number_format.high
    codes = number_format.high - number_format.low + 1
    assert 2 ** (number_format.lane_bits - 1) < codes <= 2**number_format.lane_bits
    assert number_format.bits_per_element >= max(number_format.code_bits, number_format.lane_bits)
    stored = number_format.code_high - number_format.code_low + 1
    assert 2 ** (number_format.code_bits - 1) < stored <= 2**number_format.code_bits
    assert all(number_format.code_low <= code <= number_format.code_high for code in number_format.reserved_codes)
    blocks = number_format.blocks
    assert blocks is None or 0 < blocks.scale_high < 2**blocks.scale_bits
    assert (blocks is None) == (number_format.datapath in ("integer", "float"))
    if number_format.datapath in ("integer", "block_integer"):
        assert (number_format.code_low, number_format.code_high) == (number_format.low, number_format.high)
        assert (number_format.code_bits, number_format.reserved_codes) == (number_format.lane_bits, ())


def test_short_names():
    for name in ("vsq4", "vsq6", "vsq8"):
        assert formats.get(name).name == f"vsq_int{name[-1]}_v16_s4"
        assert formats.get("u" + name).name == f"vsq_uint{name[-1]}_v16_s4"


def every_name_of_the_vsq_grammar():
    return st.tuples(st.booleans(), st.integers(2, 8), st.integers(1, 256), st.integers(1, 12))


@given(every_name_of_the_vsq_grammar())
def test_the_vsq_grammar(parts):
    signed, bits, size, scale_bits = parts
    name = f"vsq_{'' if signed else 'u'}int{bits}_v{size}_s{scale_bits}"
    vsq = formats.get(name)
    assert vsq.name == name
    assert (vsq.low, vsq.high) == ((1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1))
    assert (vsq.blocks.size, vsq.blocks.scale_bits) == (size, scale_bits)
    assert vsq.bits_per_element == bits + scale_bits / size


@pytest.mark.parametrize("name", [name for name in PLAIN if formats.get(name).lane_bits <= 8])
@pytest.mark.parametrize("scale", [1.0, 0.1, 1 / 3, 3e-5, 7.7e11])
def test_every_code_and_zero_point_comes_back(name, scale):
    number_format = formats.get(name)
    low, high = number_format.low, number_format.high
    codes = np.arange(low, high + 1)
    # Zero points at the ends and in the middle of the range, each beside its neighbour.
    zero_points = sorted({low, low + 1, 0, min(1, high), (low + high) // 2, high - 1, high})
    for zero_point in zero_points:
        tensor = formats.make_qtensor(codes, number_format, scale, zero_point)
        again = number_format.quantize(tensor.dequantize(), scale=scale, zero_point=zero_point)
        assert_array_equal(again.codes, codes)
        expected = [oracle.dequantize_value(int(code), scale, zero_point) for code in codes]
        assert tensor.dequantize().tolist() == expected


@pytest.mark.parametrize("name", BLOCKED)
@pytest.mark.parametrize("gamma", [1.0, 2.0**-9, 0.1, 1 / 3, 7.7e11])
def test_every_code_and_scale_comes_back_in_blocks(name, gamma):
    # A vector's scale is recognised by an element at the top of the range; each code stands beside one (alone, where
    # vectors have one element: then every vector is such an element).
    vsq = formats.get(name)
    size, top = vsq.blocks.size, 2**vsq.blocks.scale_bits - 1
    codes = np.array([vsq.high]) if size == 1 else np.arange(vsq.low, vsq.high + 1)
    vectors = np.full((codes.size, size), vsq.high)
    vectors[:, -1] = codes
    for scale in sorted({1, 2, 3, top // 2, top - 1, top} & set(range(1, top + 1))):
        sq = np.full((codes.size, 1), scale)
        tensor = formats.make_qtensor(vectors, vsq, gamma, block_axis=-1, block_scales=sq)
        again = vsq.quantize(tensor.dequantize(), scale=gamma)
        assert_array_equal(again.block_scales, sq)
        assert_array_equal(again.codes, vectors)
        expected = [oracle.dequantize_value(int(code), gamma, vector_scale=scale) for code in codes]
        assert tensor.dequantize()[:, -1].tolist() == expected


@pytest.mark.parametrize("name", PLAIN)
@given(values=st.lists(reals, min_size=1, max_size=12), scale=scales, data=st.data())
def test_integers_equal_the_oracle_under_a_given_scale(name, values, scale, data):
    number_format = formats.get(name)
    low, high = number_format.low, number_format.high
    zero_point = data.draw(st.integers(low, high))
    tensor = number_format.quantize(values, scale=scale, zero_point=zero_point)
    assert tensor.codes.tolist() == [oracle.quantize_value(x, scale, zero_point, low, high) for x in values]


@pytest.mark.parametrize("name", BLOCKED)
@given(values=st.lists(reals, min_size=1, max_size=40), gamma=scales, data=st.data())
def test_blocks_equal_the_oracle_under_a_given_gamma(name, values, gamma, data):
    vsq = formats.get(name)
    size = vsq.blocks.size
    options = {
        "scale_rounding": data.draw(st.sampled_from(["nearest", "up"])),
        "element_scale": data.draw(st.sampled_from(["quantized", "exact"])),
    }
    tensor = vsq.quantize(values, scale=gamma, **options)
    expected = [
        oracle.quantize_vector(
            values[start : start + size],
            gamma,
            vsq.low,
            vsq.high,
            scale_bits=vsq.blocks.scale_bits,
            rounding=options["scale_rounding"],
            element_scale=options["element_scale"],
        )
        for start in range(0, len(values), size)
    ]
    assert tensor.codes.tolist() == [code for codes, _ in expected for code in codes]
    assert tensor.block_scales.tolist() == [sq for _, sq in expected]


@pytest.mark.parametrize("name", ALL)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_lanes_times_scales_are_the_values(name, values):
    # What the hardware computes with: integers, block scales and the coarse scale.
    number_format = formats.get(name)
    tensor = number_format.quantize(values)
    lanes = tensor.lanes()
    assert lanes.values.dtype == np.int32
    assert lanes.values.min() >= number_format.low
    assert lanes.values.max() <= number_format.high
    assert (lanes.block_scales is None) == (number_format.blocks is None)
    columns = []  # of each element: its integer and power of two, its block's integer and power of two
    for part, neutral in (
        (lanes.values, None),
        (lanes.exponents, 0),
        (lanes.block_scales, 1),
        (lanes.block_exponents, 0),
    ):
        if part is None:
            columns.append([neutral] * len(values))
            continue
        assert part.dtype == np.int32
        shared = part is lanes.block_scales or part is lanes.block_exponents
        columns.append((np.repeat(part, number_format.blocks.size)[: len(values)] if shared else part).tolist())
    expected = [
        float(value * factor * Fraction(2) ** (power + shift) * Fraction(float(tensor.scale)))
        for value, power, factor, shift in zip(*columns, strict=True)
    ]
    assert tensor.dequantize().tolist() == expected


@pytest.mark.parametrize("name", ALL)
def test_not_a_number_and_infinity_are_refused_everywhere(name):
    x = np.zeros((2, 3))
    x[0, 2], x[1, 1] = np.nan, np.inf
    with pytest.raises(FormatError) as caught:
        formats.get(name).quantize(x)
    assert str(caught.value) == (
        "cannot quantize: 2 of 6 values are NaN or infinite, the first is nan at index (0, 2); "
        "replace or clip them first"
    )


@pytest.mark.parametrize("name", ALL)
def test_all_zeros(name):
    tensor = formats.get(name).quantize(np.zeros((3, 20)))
    assert tensor.scale == 1.0
    assert not tensor.codes.any()
    assert not tensor.dequantize().any()


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("x", [5e-324, 1e-310, 2.0**-1022])
def test_values_below_the_smallest_normal_double(name, x):
    # The scale x / high would be subnormal or 0; it becomes 2**-1022. A vector's x / high is then at most gamma / 7,
    # which rounds to 0.
    number_format = formats.get(name)
    tensor = number_format.quantize([x, 0.0])
    assert tensor.scale == 2.0**-1022
    assert tensor.codes.tolist() == [1 if number_format.blocks is None and x == 2.0**-1022 else 0, 0]
    assert abs(tensor.dequantize()[0] - x) <= 2.0**-1022


@pytest.mark.parametrize("name", INTEGERS)
def test_the_largest_double(name):
    largest = np.finfo(np.float64).max
    tensor = formats.get(name).quantize([largest, largest / 2])
    assert tensor.codes[0] == formats.get(name).high


def test_a_light_import():
    # Reading a format must not pay for the compiler, the plots or the configuration model.
    code = "import sys, accelsim.formats; print(sorted({'numba', 'matplotlib', 'pydantic', 'yaml'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
