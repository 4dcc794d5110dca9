"""Real scales as multiplier and shift: TFLite's encoding and its relatives."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.errors import FormatError
from accelsim.ppu.multiplier import encode_multiplier, is_power_of_two
from accelsim.ppu.requantize import requantize
from accelsim.rounding import RULES

INTEGER_RULES = [name for name, rule in RULES.items() if rule.multiplier == "integer"]
# The largest float64 below 1, 0.5 and 2**-31.
BELOW_ONE = float(np.nextafter(1.0, 0.0))


def encode(scale, rule="half_up", bits=32):
    multiplier, shift = encode_multiplier(scale, rule, bits)
    return multiplier.item(), shift.item()


@pytest.mark.parametrize(
    ("scale", "rule", "bits", "expected", "why"),
    [
        (0.25, "double_half_up_then_away", 32, (1 << 30, 32), "0.5 * 2^-1"),
        (1.0, "double_half_up_then_away", 32, (1 << 30, 30), "0.5 * 2^1"),
        (0.75, "half_up", 32, (3 << 29, 31), "0.75 * 2^0"),
        (BELOW_ONE, "half_up", 32, (1 << 30, 30), "2^31 (1 - 2^-53) rounds to 2^31: carried, so 0.5 * 2^1"),
        (2.0**-32, "half_up", 32, (1 << 30, 62), "0.5 * 2^-31, the last exponent"),
        (2.0**-33, "half_up", 32, (0, 0), "exponent -32 is flushed"),
        (2.0**-33, "dyadic_half_even", 32, (1 << 30, 63), "not flushed by this rule"),
        (2.0**-64, "dyadic_half_even", 32, (1 << 30, 94), "the last shift"),
        (2.0**-65, "dyadic_half_even", 32, (0, 0), "2^63 * 2^-65 is below a half"),
        (0.0, "half_up", 32, (0, 0), "a dead channel"),
        (0.25, "half_up_int16_multiplier", 32, (1 << 14, 16), "(2^30 + 2^15) >> 16"),
        (0.75, "half_up_int16_multiplier", 16, (3 << 13, 15), "0.75 * 2^15"),
        (1 - 2.0**-17, "half_up_int16_multiplier", 16, (32767, 15), "q31 = 2^31 - 2^14 >= 0x7FFF0000: capped"),
        (1 - 2.0**-17, "half_up", 16, (1 << 14, 14), "2^15 - 1/4 rounds to 2^15: carried"),
        (1 - 2.0**-17, "half_away_17bit", 32, (1 << 14, 14), "16 bits at most; carried"),
        # 0.5 + 2^-16 + ... : q31 = 2^30 + 2^15 - 1/2 rounds up to 2^30 + 2^15, and its half of an LSB goes up again.
        (0.5 + 2.0**-16 - 2.0**-32, "half_up_int16_multiplier", 16, ((1 << 14) + 1, 15), "rounded twice"),
        (0.5 + 2.0**-16 - 2.0**-32, "half_up", 16, (1 << 14, 15), "rounded once"),
        (3.0, "half_up", 2, (1, -2), "0.75 * 2 = 1.5 rounds to 2: carried to 0.5 * 2^3 = 4"),
        (0.6, "half_up", 4, (5, 3), "0.6 * 8 = 4.8"),
    ],
)
def test_encoding_worked_by_hand(scale, rule, bits, expected, why):
    assert encode(scale, rule, bits) == expected, why


@given(
    scale=st.floats(2.0**-30, 2.0**30),
    bits=st.integers(2, 32),
    rule=st.sampled_from([r for r in INTEGER_RULES if r != "half_up_int16_multiplier"]),
)
def test_the_encoding_is_the_nearest_with_the_top_bit_set(scale, bits, rule):
    multiplier, shift = encode(scale, rule, bits)
    bits = min(bits, 16) if rule == "half_away_17bit" else bits
    assert 1 << (bits - 2) <= multiplier < 1 << (bits - 1)
    unit = Fraction(2) ** -shift
    # Nearest: within half a unit; a carried multiplier was nearest on the finer grid below the power of two.
    assert abs(multiplier * unit - Fraction(scale)) <= unit / 2


@given(st.lists(st.floats(2.0**-30, 2.0**30), min_size=1, max_size=5), st.sampled_from(INTEGER_RULES))
def test_arrays_are_encoded_element_by_element(scales, rule):
    multiplier, shift = encode_multiplier(scales, rule)
    assert multiplier.dtype == shift.dtype == np.int64
    assert [(m, s) for m, s in zip(multiplier.tolist(), shift.tolist(), strict=True)] == [
        encode(scale, rule) for scale in scales
    ]


@given(st.floats(2.0**-30, 2.0**20), st.integers(-(1 << 24), 1 << 24), st.sampled_from(list(RULES)))
def test_an_encoded_scale_requantizes_to_about_the_real_product(scale, acc, rule):
    multiplier, shift = encode_multiplier(scale, rule)
    got = requantize(acc, multiplier, shift, rule).item()
    expected = acc * scale
    if rule == "half_away_17bit":
        expected = min(max(expected, -65536), 65535)
    relative = 2.0**-14 if rule in ("half_up_int16_multiplier", "half_away_17bit") else 2.0**-23
    assert abs(got - expected) <= 1.001 + abs(expected) * relative


def test_float_rules_get_floats_and_no_shift():
    scale, shift = encode_multiplier([0.1, 0.5], "float32_half_even")
    assert scale.dtype == np.float32
    assert scale.tolist() == [np.float32(0.1), 0.5]
    assert shift.tolist() == [0, 0]
    scale, _ = encode_multiplier(0.1, "float64_half_away")
    assert scale.dtype == np.float64
    assert scale.item() == 0.1


def test_powers_of_two_are_recognised():
    assert is_power_of_two([0.25, 1, 3, 0, 2.0**-100, BELOW_ONE]).tolist() == [True, True, False, False, True, False]
    assert is_power_of_two(np.array(1 << 30))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.5, "half_up"), "requantization scale -0.5 is not a positive finite number"),
        (([0.5, np.nan], "float32_half_even"), "requantization scale nan is not"),
        ((np.inf, "float64_half_away"), "requantization scale inf is not"),
        ((1e39, "float32_half_even"), r"requantization scale 1e\+39 does not fit float32"),
        ((2.0**31, "half_up"), "requantization scale 2147483648.0 is too large for rule 'half_up': use less than"),
        ((0.5, "half_up", 33), "multiplier of 33 bits: use 2 to 32"),
        ((0.5, "half_down"), "rounding='half_down' is not a rule; did you mean 'half_up'"),
    ],
)
def test_bad_scales_are_refused(arguments, message):
    with pytest.raises(FormatError, match=message):
        encode_multiplier(*arguments)
