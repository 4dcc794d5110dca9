"""The shared fixed-point arithmetic: fast against slow, and numbers worked by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.operators import fixed_exp, fixed_exp_oracle, fixed_point, fixed_point_oracle

INT32 = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-(2**31), -(2**31) + 1, -1, 0, 1, 2**30, 2**31 - 1])
POSITIVE = st.integers(0, 2**31 - 1)


def one(function, *arguments):
    return int(function(np.array([arguments[0]], np.int64), *arguments[1:])[0])


@given(INT32, INT32)
def test_high_product(a, b):
    assert one(fixed_point.high_product, a, b) == fixed_point_oracle.high_product(a, b)


@given(INT32, st.integers(0, 40))
def test_divide_by_power(x, exponent):
    slow = fixed_point_oracle.divide_by_power(x, exponent)
    assert one(fixed_point.divide_by_power, x, exponent) == slow
    assert slow == fixed_point_oracle.half_away(Fraction(x, 2**exponent))


@given(st.integers(-(2**20), 2**20), st.integers(2**30, 2**31 - 1), st.integers(-31, 10))
def test_multiply(x, multiplier, shift):
    assert one(fixed_point.multiply, x, multiplier, shift) == fixed_point_oracle.multiply(x, multiplier, shift)


def test_two_roundings_differ_from_one():
    """-59 / 4 = -14.75 rounds to -15 both ways; -510 / 4 = -127.5: half away of the first rounding gives -128.

    By hand: 1/4 is 2**30 * 2**-1 (shift -1). -59: -59 / 2 = -29.5, up to -29; -29 / 2 = -14.5, away to -15.
    """
    assert fixed_point.quantize_multiplier(0.25) == (1 << 30, -1)
    assert one(fixed_point.multiply, -59, 1 << 30, -1) == -15
    assert one(fixed_point.multiply, -510, 1 << 30, -1) == -128
    assert one(fixed_point.multiply, -57, 1 << 30, -1) == -14  # -28.5 up to -28, / 2 = -14; -14.25 is as near
    assert one(fixed_point.multiply, -58, 1 << 30, -1) == -15  # -29, / 2 = -14.5, away


@pytest.mark.parametrize(
    ("scale", "wanted"),
    [
        (1.0, (1 << 30, 1)),
        (0.75, (3 << 29, 0)),
        (0.0, (0, 0)),
        (2.0**-32, (1 << 30, -31)),
        (2.0**-33, (0, 0)),
        (1 - 2.0**-40, (1 << 30, 1)),  # rounds up to 2**31: the carry raises the shift
        (0.5 + 2.0**-32, ((1 << 30) + 1, 0)),  # a tie goes up
    ],
)
def test_quantize_multiplier_by_hand(scale, wanted):
    assert fixed_point.quantize_multiplier(scale) == wanted


@given(st.floats(2.0**-40, 2.0**20))
def test_quantize_multiplier(scale):
    assert fixed_point.quantize_multiplier(scale) == fixed_point_oracle.quantize_multiplier(scale)


@given(st.integers(-(2**62), 2**62), st.integers(-3, 80))
def test_half_even_shift(x, shift):
    x = x >> 4 if shift < 0 else x
    assert one(fixed_point.half_even_shift, x, shift) == round(Fraction(x) / Fraction(2) ** shift)


@given(st.data(), st.integers(-(2**31), 2**31), st.integers(0, 110))
def test_half_even_product(data, multiplier, shift):
    bits = 62 if shift > 31 else 47 if shift > 16 else 31
    small = st.integers(-(2**bits) + 1, 2**bits - 1) | st.integers(-(2**20), 2**20)
    x = data.draw(small.map(lambda value: value >> max(0, bits - 31) << max(0, bits - 31)) | small)  # ties are common
    wanted = round(Fraction(x * multiplier) / Fraction(2) ** shift)
    if abs(wanted) < 2**63:
        assert one(fixed_point.half_even_product, x, multiplier, shift) == wanted


def test_half_even_product_of_ties():
    """3 * 2**40 * 2**30 / 2**71 = 1.5 goes to 2, a unit less of x to 1; 2.5 goes to 2, a unit more to 3."""
    values = np.array([3 << 40, (3 << 40) - 1, 5 << 40, (5 << 40) + 1, -(3 << 40), -(5 << 40)], np.int64)
    assert fixed_point.half_even_product(values, 1 << 30, 71).tolist() == [2, 1, 2, 3, -2, -2]


@given(st.floats(-4, 4).filter(bool))
def test_dyadic(ratio):
    multiplier, shift = fixed_point.dyadic(ratio)
    assert 2**30 <= abs(multiplier) <= 2**31
    assert abs(Fraction(multiplier) / Fraction(2) ** shift - Fraction(ratio)) <= abs(Fraction(ratio)) / 2**31


# -- exponential, reciprocal, logarithm -------------------------------------------------------------------------------


def test_constants_are_what_they_say():
    """The oracle computes each constant from its name; here they are, digit by digit, in the fast code."""
    constant = fixed_exp_oracle.constant
    for exponent, factor in fixed_exp.EXP_OF_POWERS:
        assert factor == constant(math.exp(-(2.0**exponent)), 0).raw
    assert constant(math.exp(-1 / 8), 0).raw == fixed_exp.EXP_OF_MINUS_EIGHTH
    assert constant(48 / 17, 2).raw == fixed_exp.FORTY_EIGHT_SEVENTEENTHS
    assert constant(math.log(2), 0).raw == fixed_exp.LOG_2
    fourth = 2**0.25
    alphas = (11 / 240 * fourth, fourth / 20, 2 / fourth - fourth, fourth / 4)
    names = (fixed_exp.ALPHA_N, fixed_exp.ALPHA_D, fixed_exp.ALPHA_I, fixed_exp.ALPHA_F)
    assert tuple(constant(value, 0).raw for value in alphas) == names


@given(st.integers(-(2**31), 0), st.integers(3, 5))
def test_exponential(raw, bits):
    slow = fixed_exp_oracle.exp_of_negative(fixed_exp_oracle.Fixed(raw, bits)).raw
    assert one(fixed_exp.exp_of_negative, raw, bits) == slow
    assert abs(slow / 2**31 - math.exp(raw / 2 ** (31 - bits))) < 3e-7


@given(POSITIVE)
def test_reciprocal_of_one_plus(raw):
    slow = fixed_exp_oracle.reciprocal_of_one_plus(fixed_exp_oracle.Fixed(raw, 0)).raw
    assert one(fixed_exp.reciprocal_of_one_plus, raw) == slow
    assert abs(slow / 2**31 - 1 / (1 + raw / 2**31)) < 1e-8


@given(st.integers(1, 2**31 - 1))
def test_reciprocal(raw):
    slow, power = fixed_exp_oracle.reciprocal(fixed_exp_oracle.Fixed(raw, 12))
    fast, fast_power = fixed_exp.reciprocal(np.array([raw], np.int64), 12)
    assert (int(fast[0]), int(fast_power[0])) == (slow.raw, power)
    assert slow.raw / 2**31 / 2.0**power == pytest.approx(2**19 / raw, rel=1e-8)


@given(st.integers(2**19, 2**31 - 1))
def test_logarithm(raw):
    slow = fixed_exp_oracle.log(fixed_exp_oracle.Fixed(raw, 12), 5).raw
    assert one(fixed_exp.log_of_sum, raw) == slow
    assert abs(slow / 2**26 - math.log(raw / 2**19)) < 2e-7


@given(st.integers(-(2**31) + 1, 2**31 - 1))
def test_logistic_and_tanh(raw):
    x = raw / 2**27
    assert abs(one(fixed_exp.logistic, raw) / 2**31 - 1 / (1 + math.exp(-x))) < 3e-7
    assert abs(one(fixed_exp.tanh, raw) / 2**31 - math.tanh(x)) < 3e-7
    assert one(fixed_exp.tanh, -raw) == -one(fixed_exp.tanh, raw)


def test_exponential_by_hand():
    """exp(0) is the largest number below 1; exp(-1/4) is exp(-1/8) squared, up to the roundings."""
    assert one(fixed_exp.exp_of_negative, 0) == 2**31 - 1
    assert one(fixed_exp.exp_of_negative, -(1 << 24)) == pytest.approx(math.exp(-0.25) * 2**31, abs=600)
