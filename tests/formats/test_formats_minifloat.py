"""Minifloats: every code against ml_dtypes, gfloat and the definition; encoding against exact rationals."""

import itertools
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

# name: exponent bits, fraction bits, finite magnitudes, largest, smallest normal, smallest subnormal. The figures of
# OFP8 1.0 (tables 1 and 2), OCP MX 1.0 (tables 3 to 5), IEEE 754 binary16; bfloat16 as the upper half of binary32.
TYPES = {
    "fp8_e4m3": (4, 3, 127, 448, 2**-6, 2**-9),
    "fp8_e5m2": (5, 2, 124, 57344, 2**-14, 2**-16),
    "fp6_e3m2": (3, 2, 32, 28, 0.25, 0.0625),
    "fp6_e2m3": (2, 3, 32, 7.5, 1, 0.125),
    "fp4_e2m1": (2, 1, 8, 6, 1, 0.5),
    "fp16": (5, 10, 31744, 65504, 2**-14, 2**-24),
    "bf16": (8, 7, 32640, (2 - 2**-7) * 2.0**127, 2.0**-126, 2.0**-133),
}
ML_DTYPES = {
    "fp8_e4m3": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
    "fp6_e3m2": "float6_e3m2fn",
    "fp6_e2m3": "float6_e2m3fn",
    "fp4_e2m1": "float4_e2m1fn",
    "bf16": "bfloat16",
}
GFLOAT = {
    "fp8_e4m3": "ocp_e4m3",
    "fp8_e5m2": "ocp_e5m2",
    "fp6_e3m2": "ocp_e3m2",
    "fp6_e2m3": "ocp_e2m3",
    "fp4_e2m1": "ocp_e2m1",
}
ORACLES = {name: float_oracle.minifloat(*figures[:3]) for name, figures in TYPES.items()}
ROUNDINGS = ["half_even", "half_away", "toward_zero"]
every_type = pytest.mark.parametrize("name", TYPES)


def codes_of(name):
    """Every code that means a number."""
    number_format = formats.get(name)
    codes = np.arange(number_format.code_low, number_format.code_high + 1)
    return codes[~np.isin(codes, number_format.reserved_codes)]


def values_of(name):
    return formats.make_qtensor(codes_of(name), formats.get(name)).dequantize()


def same_bits(actual, expected):
    """Equal, and zeros of equal sign."""
    assert_array_equal(actual, expected)
    assert_array_equal(np.signbit(actual), np.signbit(expected))


def interesting(name, nudge=2.0**-52):
    """Values around every code: the code, the middle to the next one, and what lies close to each; and beyond."""
    magnitudes = sorted({abs(v) for v in values_of(name).tolist()})
    magnitudes = magnitudes if len(magnitudes) < 600 else magnitudes[:200] + magnitudes[-200:]
    values = [*magnitudes, *((a + b) / 2 for a, b in itertools.pairwise(magnitudes))]
    values += [v * (1 + side * nudge) for v in values for side in (1, -0.5)]
    largest = magnitudes[-1]
    values += [largest * factor for factor in (1.01, 1.0625, 1.07, 1.15, 1.5, 2, 4, 1e10)] + [5e-324, 1e300]
    return [sign * v for v in values for sign in (1, -1)]


@every_type
def test_figures_of_the_specifications(name):
    exponent_bits, fraction_bits, finite, largest, normal, subnormal = TYPES[name]
    number_format = formats.get(name)
    assert number_format.code_bits == number_format.bits_per_element == 1 + exponent_bits + fraction_bits
    assert number_format.datapath == "float"
    codes = codes_of(name)
    assert codes.size == 2 * finite
    values = values_of(name)
    assert values.max() == largest == number_format.element.largest
    assert values.min() == -largest
    assert values[values > 0].min() == subnormal
    significands = np.abs(formats.make_qtensor(codes, number_format).lanes().values)
    assert np.abs(values[significands >= 2**fraction_bits]).min() == normal
    # Significands of as many bits as the fraction and the hidden bit, reached at both ends.
    assert (significands.max(), number_format.high, number_format.low) == (
        2 ** (fraction_bits + 1) - 1,
        2 ** (fraction_bits + 1) - 1,
        1 - 2 ** (fraction_bits + 1),
    )


@every_type
def test_every_code_means_what_the_definition_says(name):
    magnitudes = ORACLES[name].magnitudes
    sign_bit = formats.get(name).code_high // 2 + 1
    expected = [float(m) for m in magnitudes]
    same_bits(values_of(name), expected + [-v for v in expected])
    assert codes_of(name).tolist() == [*range(len(expected)), *range(sign_bit, sign_bit + len(expected))]


@every_type
def test_every_code_comes_back(name):
    assert_array_equal(formats.get(name).quantize(values_of(name), scale=1.0).codes, codes_of(name))


@pytest.mark.parametrize("name", ML_DTYPES)
def test_every_code_against_ml_dtypes(name):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: codes are NOT checked against it")
    number_format = formats.get(name)
    every = np.arange(number_format.code_high + 1)
    bits = every.astype(np.uint16 if number_format.code_bits == 16 else np.uint8)
    with np.errstate(invalid="ignore"):  # bfloat16's signalling NaNs
        theirs = bits.view(getattr(ml_dtypes, ML_DTYPES[name])).astype(np.float64)
    reserved = np.isin(every, number_format.reserved_codes)
    assert_array_equal(reserved, ~np.isfinite(theirs))
    same_bits(values_of(name), theirs[~reserved])


def test_every_code_of_fp16_against_numpy():
    theirs = np.arange(2**16).astype(np.uint16).view(np.float16).astype(np.float64)
    assert_array_equal(~np.isfinite(theirs), np.isin(np.arange(2**16), formats.get("fp16").reserved_codes))
    same_bits(values_of("fp16"), theirs[np.isfinite(theirs)])


@pytest.mark.parametrize("name", GFLOAT)
def test_every_code_and_the_rounding_against_gfloat(name):
    gfloat = pytest.importorskip("gfloat", reason="gfloat is not installed: codes are NOT checked against it")
    info = getattr(pytest.importorskip("gfloat.formats"), f"format_info_{GFLOAT[name]}")
    same_bits(values_of(name), [gfloat.decode_float(info, int(code)).fval for code in codes_of(name)])
    # Not one double beside a tie: gfloat adds one half in float64, which lifts the double below a half up to 1.
    values = interesting(name, 1e-9)
    for rounding, mode in (
        ("half_even", gfloat.RoundMode.TiesToEven),
        ("half_away", gfloat.RoundMode.TiesToAway),
        ("toward_zero", gfloat.RoundMode.TowardZero),
    ):
        theirs = [gfloat.round_float(info, v, mode, sat=True) for v in values]
        same_bits(formats.get(name).quantize(values, scale=1.0, rounding=rounding).dequantize(), theirs)


@pytest.mark.parametrize("name", ML_DTYPES)
def test_rounding_against_ml_dtypes_where_its_casts_do_not_overflow(name):
    ml_dtypes = pytest.importorskip(
        "ml_dtypes", reason="ml_dtypes is not installed: rounding is NOT checked against it"
    )
    values = np.array([v for v in interesting(name) if abs(v) <= TYPES[name][3]])
    # Its casts go through float32; values that are float32 numbers are rounded once.
    values = values[values.astype(np.float32) == values]
    theirs = values.astype(np.float32).astype(getattr(ml_dtypes, ML_DTYPES[name])).astype(np.float64)
    same_bits(formats.get(name).quantize(values, scale=1.0).dequantize(), theirs)


@every_type
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_encoding_equals_the_oracle_around_every_code(name, rounding):
    number_format, values = formats.get(name), interesting(name)
    expected = []
    for value in values:
        index = ORACLES[name].encode(Fraction(value), rounding)
        expected.append(index + (number_format.element.sign_bit if math.copysign(1, value) < 0 else 0))
    assert number_format.quantize(values, scale=1.0, rounding=rounding).codes.tolist() == expected


@every_type
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8),
    scale=st.floats(1e-300, 1e300),
    rounding=st.sampled_from(ROUNDINGS),
)
def test_encoding_equals_the_oracle_anywhere(name, values, scale, rounding):
    number_format = formats.get(name)
    tensor = number_format.quantize(values, scale=scale, rounding=rounding)
    with np.errstate(over="ignore"):
        quotients = np.clip(np.array(values) / scale, -1.7976931348623157e308, 1.7976931348623157e308)
    expected = [ORACLES[name].encode(Fraction(q), rounding) for q in quotients.tolist()]
    assert (tensor.codes & (number_format.element.sign_bit - 1)).tolist() == expected
    assert_array_equal(tensor.codes >= number_format.element.sign_bit, np.signbit(quotients))


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2", "fp4_e2m1"])
def test_the_scale_from_the_data_maps_the_maximum_to_the_largest_number(name):
    number_format = formats.get(name)
    largest = TYPES[name][3]
    tensor = number_format.quantize([[3.0, -1.5], [0.0, 0.0], [-12.0, 6.0]], 0)
    assert tensor.scale.tolist() == [3.0 / largest, 1.0, 12.0 / largest]
    assert tensor.codes[:, 0].tolist() == [
        number_format.element.largest_code,
        0,
        number_format.element.largest_code | number_format.element.sign_bit,
    ]
    assert float(number_format.quantize([3.0, -12.0]).scale) == 12.0 / largest


def test_e4m3_worked_by_hand():
    # 0.1 = 1.6 * 2**-4: field -4 + 7 = 3, fraction 0.6 * 8 = 4.8 -> 5: 0 0011 101 = 0x1D = 1.625/16 = 0.1015625.
    # 464 lies between 448 (S.1111.110) and 480, which is NaN: saturates to 448 = 0x7E. 17 = 1.0625 * 16 ties
    # 16 (fraction 0) and 18 (fraction 1): even, 16 = 0 1011 000 = 0x58; 19 ties 18 and 20 (fraction 2): 20 = 0x5A.
    # -2**-10 is half the smallest subnormal: -0.
    tensor = formats.get("fp8_e4m3").quantize([0.1, 464.0, 1e9, 17.0, 19.0, -(2.0**-10), 2.0**-9], scale=1.0)
    assert tensor.codes.tolist() == [0x1D, 0x7E, 0x7E, 0x58, 0x5A, 0x80, 0x01]
    assert tensor.dequantize().tolist() == [0.1015625, 448, 448, 16, 20, 0, 2.0**-9]
    lanes = tensor.lanes()
    assert lanes.values.tolist() == [13, 14, 14, 8, 10, 0, 1]
    assert lanes.exponents.tolist() == [-7, 5, 5, 1, 1, -9, -9]


def test_reserved_codes_are_refused():
    with pytest.raises(FormatError) as caught:
        formats.make_qtensor([[1, 2], [0xFF, 0x7F]], formats.get("fp8_e4m3"), subject="weight")
    assert str(caught.value) == (
        "weight: code 0xff at index (1, 0) is NaN or infinity in fp8_e4m3 (2 such values); "
        "tensors hold finite numbers only"
    )
    for code in (0x7C, 0x7F, 0xFC, 0xFD):
        with pytest.raises(FormatError, match="is NaN or infinity in fp8_e5m2; tensors"):
            formats.make_qtensor(code, formats.get("fp8_e5m2"))
    with pytest.raises(FormatError, match=r"code 16 at index \(0\) is outside fp4_e2m1's range \[0, 15\]"):
        formats.make_qtensor([16], formats.get("fp4_e2m1"))
    assert formats.get("fp4_e2m1").reserved_codes == formats.get("fp6_e3m2").reserved_codes == ()


@every_type
def test_bad_options(name):
    number_format = formats.get(name)
    with pytest.raises(FormatError) as caught:
        number_format.quantize([1.0], rounding="up")
    assert str(caught.value) == "rounding='up' is not one of 'half_even', 'half_away', 'toward_zero'"
    with pytest.raises(FormatError) as caught:
        number_format.quantize([1.0], asymmetric=True)
    assert str(caught.value) == f"{name} has no zero points; leave out zero_point and asymmetric"
    with pytest.raises(FormatError, match=f"zero_point is 3, but {name} has no zero points; leave it 0"):
        formats.make_qtensor([1], number_format, 1.0, 3)
