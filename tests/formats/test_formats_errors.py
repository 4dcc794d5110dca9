"""What users read when they err."""

import numpy as np
import pytest

from accelsim import formats
from accelsim.errors import FormatError, ShapeError

GRAMMAR = (
    "Accepted: int2..int16, uint2..uint16, int2n..int16n (symmetric range), int17..int64 (raw accumulators); "
    "vsq_[u]int<2..8>_v<vector size 1..256>_s<scale bits 1..12>; "
    "group_[u]int<2..8>_g<size 1..4096>_<scale type>[_g<size>_<scale type>...] "
    "(groups under groups; types uint1..uint12, e1m0..e8m0, fp8_e4m3, fp8_e5m2, fp16, bf16); "
    "[u]q<m>.<n> (fixed point, scale 2**-n, m + n = 2..16 with the sign in m); [u]dfp<2..16> (dynamic fixed point); "
    "po2_<2..5> (powers of two), po2_<2..4>r (Ristretto's, without a zero); "
    "kmeans<1..8>[_int<2..16>] (codebook indices; the codebook's integers, 8 bits); "
    "short names vsq4, vsq6, vsq8, uvsq4, uvsq6, uvsq8, fp16, bf16, fp8_e4m3, fp8_e5m2, fp6_e3m2, fp6_e2m3, fp4_e2m1, "
    "mxint8, mxfp8_e4m3, mxfp8_e5m2, mxfp6_e3m2, mxfp6_e2m3, mxfp4, mx9, mx6, mx4, nvfp4, binary, binary_inv, "
    "ternary, ttq"
)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("itn8", f"unknown number format 'itn8'; did you mean 'int8'? {GRAMMAR}"),
        ("INT8", f"unknown number format 'INT8'. {GRAMMAR}"),
        ("int08", f"unknown number format 'int08'; did you mean 'int8'? {GRAMMAR}"),
        ("vsq_int4_v16", f"unknown number format 'vsq_int4_v16'; did you mean 'vsq_int4_v16_s4'? {GRAMMAR}"),
        ("", f"unknown number format ''. {GRAMMAR}"),
        ("int1", "int1: operands have 2 to 16 bits, accumulators (int only) up to 64"),
        ("uint17", "uint17: operands have 2 to 16 bits, accumulators (int only) up to 64"),
        ("int17n", "int17n: operands have 2 to 16 bits, accumulators (int only) up to 64"),
        ("int65", "int65: operands have 2 to 16 bits, accumulators (int only) up to 64"),
        ("uint4n", "uint4n: an unsigned range has no symmetric form; use uint4"),
        ("vsq_int9_v16_s4", "vsq_int9_v16_s4: element width 9 is outside 2..8"),
        ("vsq_int4_v257_s4", "vsq_int4_v257_s4: vector size 257 is outside 1..256"),
        ("vsq_uint4_v16_s13", "vsq_uint4_v16_s13: scale width 13 is outside 1..12"),
        ("q1.0", "q1.0: fixed-point operands have 2 to 16 bits"),
        ("uq9.8", "uq9.8: fixed-point operands have 2 to 16 bits"),
        ("dfp17", "dfp17: fixed-point operands have 2 to 16 bits"),
        ("po2_6", "po2_6: powers of two have 2 to 5 bits; the lanes of more would not fit ports of 16 bits"),
        (
            "po2_5r",
            "po2_5r: powers of two without a zero have 2 to 4 bits; the lanes of more would not fit ports of 16 bits",
        ),
        ("kmeans9", "kmeans9: indices have 1 to 8 bits"),
        ("kmeans4_int17", "kmeans4_int17: the codebook's integers have 2 to 16 bits"),
        ("q01.7", f"unknown number format 'q01.7'; did you mean 'q1.7'? {GRAMMAR}"),
        (8, "a number format is named by a string, such as 'int8'; found 8"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(FormatError) as caught:
        formats.get(name)
    assert str(caught.value) == message


X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "message"),
    [
        ("int8", {"axis": 2}, ShapeError, "axis=2 is not an axis of an array with 2 dimensions; use -2..1"),
        (
            "int8",
            {"axis": 0, "channel_axis": 1},
            ShapeError,
            "axis=0 and channel_axis=1 differ; both name the axis of per-channel scales: pass one",
        ),
        (
            "int8",
            {"scale": 0.0},
            FormatError,
            "quantize: scale is 0.0; scales are finite and greater than 0",
        ),
        (
            "int8",
            {"axis": 1, "scale": [1, 2, np.inf]},
            FormatError,
            "quantize: scale is inf at index (2); scales are finite and greater than 0",
        ),
        (
            "int8",
            {"axis": 1, "scale": [1, 2]},
            ShapeError,
            "quantize: scale has shape (2,), but axis 1 of shape (2, 3) has 3 channels; pass (3,) or a single number",
        ),
        (
            "int8",
            {"scale": [1, 2]},
            ShapeError,
            "quantize: scale has shape (2,), but without channel_axis it must be a single number",
        ),
        ("int8", {"scale": "big"}, FormatError, "quantize: scale has dtype <U3; pass positive real numbers"),
        (
            "int8",
            {"scale": 1, "zero_point": 128},
            FormatError,
            "quantize: zero_point 128 is outside int8's range [-128, 127]",
        ),
        (
            "uint8",
            {"axis": 0, "scale": 1, "zero_point": [3, -1]},
            FormatError,
            "quantize: zero_point -1 at index (1) is outside uint8's range [0, 255]",
        ),
        ("int8", {"scale": 1, "zero_point": 0.5}, FormatError, "quantize: zero_point: dtype is float64; pass integers"),
        (
            "int8",
            {"zero_point": 3},
            FormatError,
            "zero_point is given without scale; give both, or asymmetric=True to choose both",
        ),
        (
            "int8",
            {"scale": 1, "asymmetric": True},
            FormatError,
            "asymmetric=True chooses the scale too; with a given scale pass zero_point instead",
        ),
        (
            "int32",
            {"asymmetric": True},
            FormatError,
            "int32 holds accumulators and has no zero points; leave out asymmetric=True",
        ),
        (
            "int32",
            {"scale": 1, "zero_point": 3},
            FormatError,
            "quantize: zero_point is 3, but int32 has no zero points; leave it 0",
        ),
        (
            "vsq4",
            {"asymmetric": True},
            FormatError,
            "vsq_int4_v16_s4 has no zero points; leave out zero_point and asymmetric",
        ),
        (
            "vsq4",
            {"scale": 1, "zero_point": 3},
            FormatError,
            "vsq_int4_v16_s4 has no zero points; leave out zero_point and asymmetric",
        ),
        (
            "vsq4",
            {"channel_axis": -1},
            ShapeError,
            "quantize: blocks and per-channel scales both run along axis 1; "
            "use another channel_axis, or None for one coarse scale",
        ),
        (
            "vsq4",
            {"axis": -3},
            ShapeError,
            "quantize: block axis=-3 is not an axis of an array with 2 dimensions; use -2..1",
        ),
        ("vsq4", {"scale_rounding": "down"}, FormatError, "scale_rounding='down' is not one of 'nearest', 'up'"),
        ("vsq4", {"element_scale": "x"}, FormatError, "element_scale='x' is not one of 'quantized', 'exact'"),
    ],
)
def test_quantize_arguments(name, arguments, kind, message):
    with pytest.raises(kind) as caught:
        formats.get(name).quantize(X, **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("array", "kind", "message"),
    [
        (["a"], FormatError, "cannot quantize an array of dtype <U1; pass real numbers (float or integer)"),
        ([1j], FormatError, "cannot quantize an array of dtype complex128; pass real numbers (float or integer)"),
        (np.zeros((0, 3)), ShapeError, "cannot quantize an array of shape (0, 3): it has no elements"),
    ],
)
@pytest.mark.parametrize("name", ["int8", "vsq4"])
def test_arrays_that_are_not_numbers(name, array, kind, message):
    with pytest.raises(kind) as caught:
        formats.get(name).quantize(array)
    assert str(caught.value) == message


def test_a_single_number_has_no_vectors():
    with pytest.raises(ShapeError) as caught:
        formats.get("vsq4").quantize(1.0)
    assert str(caught.value) == (
        "quantize: block axis=-1 is not an axis of an array with 0 dimensions; a single number has no axes"
    )


@pytest.mark.parametrize(
    ("name", "codes", "arguments", "kind", "message"),
    [
        ("int8", [1.0], {}, FormatError, "t: codes: dtype is float64; pass integers"),
        ("int8", [True], {}, FormatError, "t: codes: dtype is bool; pass integers"),
        (
            "int8",
            np.zeros((0,), int),
            {},
            ShapeError,
            "t: codes of shape (0,) hold no elements; at least one is needed",
        ),
        (
            "int4n",
            [[0, 7], [-8, 9]],
            {},
            FormatError,
            "t: code -8 at index (1, 0) is outside int4n's range [-7, 7] (2 such values)",
        ),
        (
            "uint16",
            np.array([2**64 - 1], np.uint64),
            {},
            FormatError,
            "t: codes: 18446744073709551615 does not fit int64",
        ),
        ("int8", [1], {"scale": -1.0}, FormatError, "t: scale is -1.0; scales are finite and greater than 0"),
        (
            "int8",
            [1],
            {"zero_point": [1, 2], "channel_axis": 0},
            ShapeError,
            "t: zero_point has shape (2,), but axis 0 of shape (1,) has 1 channels; pass (1,) or a single number",
        ),
        (
            "int8",
            [1],
            {"channel_axis": 1},
            ShapeError,
            "t: channel_axis=1 is not an axis of an array with 1 dimensions; use -1..0",
        ),
        (
            "int8",
            [1],
            {"block_scales": [1]},
            FormatError,
            "t: block_scales is given, but int8 has no blocks; leave it out",
        ),
        ("int8", [1], {"block_axis": 0}, FormatError, "t: block_axis is given, but int8 has no blocks; leave it out"),
        ("vsq4", [1], {}, FormatError, "t: vsq_int4_v16_s4 needs block_scales, one for each 16 elements"),
        (
            "vsq4",
            [1] * 17,
            {"block_scales": [1]},
            ShapeError,
            "t: block_scales has shape (1,), but codes of shape (17,) in blocks of 16 along axis 0 need (2,)",
        ),
        (
            "vsq4",
            [1],
            {"block_scales": [16]},
            FormatError,
            "t: block scale 16 at index (0) is outside vsq_int4_v16_s4's range [0, 15]",
        ),
        (
            "vsq4",
            [1],
            {"block_scales": [-1]},
            FormatError,
            "t: block scale -1 at index (0) is outside vsq_int4_v16_s4's range [0, 15]",
        ),
        (
            "vsq4",
            [1],
            {"block_scales": [1], "zero_point": 1},
            FormatError,
            "t: zero_point is 1, but vsq_int4_v16_s4 has no zero points; leave it 0",
        ),
    ],
)
def test_make_qtensor(name, codes, arguments, kind, message):
    with pytest.raises(kind) as caught:
        formats.make_qtensor(codes, formats.get(name), subject="t", **arguments)
    assert str(caught.value) == message


def test_accumulators_do_not_enter_multipliers():
    tensor = formats.make_qtensor([70000], formats.get("int32"))
    with pytest.raises(FormatError) as caught:
        tensor.lanes()
    assert str(caught.value) == (
        "int32 holds raw accumulators and cannot enter a multiplier; requantize to at most 16 bits first"
    )
