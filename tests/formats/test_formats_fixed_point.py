"""Fixed point: powers of two as scales, fixed and dynamic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from accelsim import formats
from accelsim.errors import FormatError, ShapeError
from accelsim.formats import oracle
from accelsim.formats.spec import Format

NAMES = ["q1.7", "q4.4", "q8.8", "dfp4", "dfp8", "udfp8", "dfp16", "uq0.8", "q0.4", "q3.0", "dfp2", "udfp2"]
finite = st.floats(allow_nan=False, allow_infinity=False)
exponents = st.integers(-1000, 1000)


def ristretto(x, fraction_bits, low, high):
    """Saturate first, then round: in rationals."""
    step = Fraction(2) ** -fraction_bits
    saturated = min(max(Fraction(x), low * step), high * step)
    return oracle.round_half_even(saturated / step)


@pytest.mark.parametrize("name", NAMES)
def test_the_format(name):
    fixed = formats.get(name)
    assert isinstance(fixed, Format)
    assert fixed.name == name
    assert (fixed.low, fixed.high) == (
        (0, 2**fixed.bits - 1) if name[0] == "u" else (-(2 ** (fixed.bits - 1)), 2 ** (fixed.bits - 1) - 1)
    )
    assert (fixed.code_low, fixed.code_high, fixed.code_bits) == (fixed.low, fixed.high, fixed.bits)
    assert (fixed.datapath, fixed.bits_per_element, fixed.lane_bits) == ("integer", fixed.bits, fixed.bits)
    assert fixed.zero_points == (0, 0)


def test_ranges_by_hand():
    # Q1.7: -1 to 127/128 in steps of 1/128. Q4.4: -8 to 7.9375. UQ0.8: 0 to 255/256.
    q17, q44, u08 = formats.get("q1.7"), formats.get("q4.4"), formats.get("uq0.8")
    assert q17.quantize([-2.0, -1.0, 0.5, 0.0078125, 1.0]).dequantize().tolist() == [-1, -1, 0.5, 0.0078125, 0.9921875]
    assert q44.quantize([-9.0, 9.0, 0.03125, 0.09375]).codes.tolist() == [-128, 127, 0, 2]  # ties: 0.5 -> 0, 1.5 -> 2
    assert u08.quantize([-1.0, 1.0, 0.5]).dequantize().tolist() == [0, 255 / 256, 0.5]


@pytest.mark.parametrize(
    ("name", "largest", "rule", "power"),
    [
        # 8 bits: ceil(log2 3) = 2 integer bits and the sign leave 5 fraction bits.
        ("dfp8", 3.0, "ristretto", -5),
        ("dfp8", -3.0, "ristretto", -5),
        ("dfp8", 3.99, "ristretto", -5),  # 3.99 * 32 = 127.7 saturates to 127
        ("dfp8", 3.99, "cover", -4),
        ("dfp8", 4.0, "ristretto", -5),  # 4 * 32 = 128 saturates
        ("dfp8", 4.0, "cover", -4),
        ("dfp8", 127 / 32, "cover", -5),  # 127 exactly
        ("dfp8", 4.01, "ristretto", -4),
        ("dfp8", 1.0, "ristretto", -7),
        ("dfp8", 0.3, "ristretto", -8),  # ceil(log2 0.3) = -1
        ("dfp8", 300.0, "ristretto", 2),
        ("dfp4", 3.0, "ristretto", -1),
        ("udfp8", 3.0, "ristretto", -6),
        ("udfp8", 4.0, "ristretto", -6),
        ("udfp8", 4.0, "cover", -5),
        ("dfp8", math.nextafter(2.0, 3), "ristretto", -5),  # log2 in floating point says 1 exactly
    ],
)
def test_dynamic_scales_by_hand(name, largest, rule, power):
    fixed = formats.get(name)
    tensor = fixed.quantize([largest, 0.0], scale_rule=rule)
    assert float(tensor.scale) == 2.0**power
    if rule == "cover":
        assert abs(float(tensor.dequantize()[0]) - largest) <= 2.0**power / 2


@pytest.mark.parametrize("name", NAMES)
@given(x=st.lists(st.one_of(finite, st.floats(-20, 20)), min_size=1, max_size=10), power=exponents)
def test_codes_equal_saturate_then_round(name, x, power):
    fixed = formats.get(name)
    if fixed.fraction_bits is not None:
        power = -fixed.fraction_bits
        tensor = fixed.quantize(x)
        assert tensor.scale == 2.0**power
    else:
        tensor = fixed.quantize(x, scale=2.0**power)
    expected = []
    for value in x:
        quotient = oracle.divide(value, 2.0**power)  # of numbers near 5e-324 it may round; all of them become 0
        expected.append(ristretto(quotient, 0, fixed.low, fixed.high))
        if abs(value) > 1e-100 or power > -500:
            assert expected[-1] == ristretto(value, -power, fixed.low, fixed.high)
    assert tensor.codes.tolist() == expected


@pytest.mark.parametrize("name", [name for name in NAMES if formats.get(name).bits <= 8])
def test_every_code_comes_back(name):
    fixed = formats.get(name)
    codes = np.arange(fixed.low, fixed.high + 1)
    for power in (-fixed.fraction_bits,) if fixed.fraction_bits is not None else (-1000, -7, 0, 3, 1000):
        tensor = formats.make_qtensor(codes, fixed, 2.0**power)
        assert tensor.lanes().values.tolist() == codes.tolist()
        assert tensor.dequantize().tolist() == [float(int(code) * Fraction(2) ** power) for code in codes]
        assert fixed.quantize(tensor.dequantize(), scale=2.0**power).codes.tolist() == codes.tolist()


@given(x=arrays(np.float64, array_shapes(min_dims=1, max_dims=3, max_side=5), elements=finite), data=st.data())
@pytest.mark.parametrize("rule", ["ristretto", "cover"])
@pytest.mark.parametrize("name", ["dfp8", "udfp8", "dfp4"])
def test_dynamic_scales_in_rationals(name, rule, x, data):
    fixed = formats.get(name)
    axis = data.draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1)))
    tensor = fixed.quantize(x, axis, scale_rule=rule)
    rows = [x] if axis is None else [x.take(i, axis) for i in range(x.shape[axis])]
    for row, scale in zip(rows, np.atleast_1d(tensor.scale).tolist(), strict=True):
        largest = max(Fraction(abs(v) if fixed.signed else max(v, 0)) for v in row.ravel().tolist())
        top = Fraction(2) ** (fixed.bits - fixed.signed) if rule == "ristretto" else Fraction(fixed.high)
        if not largest:
            assert scale == 1.0
        elif scale > 2.0**-1022:  # the smallest power of two whose range reaches the largest value
            assert largest <= top * Fraction(scale)
            assert largest > top * Fraction(scale) / 2
        else:
            assert largest <= top * Fraction(scale)


@pytest.mark.parametrize(
    ("name", "x", "arguments", "kind", "message"),
    [
        (
            "dfp8",
            [1.0],
            {"scale": 0.3},
            FormatError,
            "dfp8: scale is 0.3, but has to be a power of two, such as 0.25",
        ),
        (
            "dfp8",
            [1.0, 2.0],
            {"scale": [1, 3], "axis": 0},
            FormatError,
            "dfp8: scale is 3.0 at index (1), but has to be a power of two, such as 4.0",
        ),
        (
            "q1.7",
            [1.0],
            {"scale": 0.5},
            FormatError,
            "q1.7: scale is 0.5, but the format's is 2**-7 = 0.0078125; leave it out, or use dfp8",
        ),
        (
            "dfp8",
            [1.0],
            {"scale_rule": "floor"},
            FormatError,
            "scale_rule='floor' is not one of 'ristretto', 'cover'",
        ),
        ("q1.7", [1.0], {"zero_point": 1}, FormatError, "q1.7 has no zero points; leave out zero_point and asymmetric"),
        ("dfp8", [], {}, ShapeError, "cannot quantize an array of shape (0,): it has no elements"),
        (
            "q1.7",
            [np.nan],
            {},
            FormatError,
            "cannot quantize: 1 of 1 values are NaN or infinite, the first is nan at index (0); "
            "replace or clip them first",
        ),
    ],
)
def test_bad_input(name, x, arguments, kind, message):
    with pytest.raises(kind) as caught:
        formats.get(name).quantize(x, **arguments)
    assert str(caught.value) == message


def test_a_tensor_with_another_scale_does_not_pass_for_fixed_point():
    tensor = formats.make_qtensor([1, 2], formats.get("dfp8"), 0.3)
    for use in (tensor.lanes, tensor.dequantize):
        with pytest.raises(FormatError, match=r"dfp8: scale is 0\.3, but has to be a power of two, such as 0\.25"):
            use()


def test_all_zero():
    tensor = formats.get("dfp8").quantize(np.zeros(3))
    assert tensor.scale == 1.0
    assert not tensor.codes.any()
    assert formats.get("udfp8").quantize([-3.0]).scale == 1.0
