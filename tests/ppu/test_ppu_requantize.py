"""Requantization: every rule against the oracle, at the extremes, and the laws that bind the rules to each other."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from accelsim.errors import FormatError, ShapeError
from accelsim.ppu.requantize import requantize
from accelsim.ppu.requantize_oracle import INT64_MAX, INT64_MIN, requantize_one
from accelsim.rounding import RULES

INTEGER_RULES = [name for name, rule in RULES.items() if rule.multiplier == "integer"]
FLOAT_RULES = [name for name, rule in RULES.items() if rule.multiplier != "integer"]
GOLDEN = yaml.safe_load((Path(__file__).parents[1] / "golden" / "requantize.yaml").read_text())
DOUBLE, DOUBLE_UP, SINGLE = "double_half_up_then_away", "double_half_up", "half_up"


def edges(*bits):
    """Integers near the ends of two's-complement registers."""
    ends = [end + step for b in bits for end in (-(1 << (b - 1)), (1 << (b - 1))) for step in (-1, 0, 1)]
    return st.sampled_from([end for end in ends if INT64_MIN <= end <= INT64_MAX])


ACCUMULATORS = st.one_of(
    st.integers(-600, 600),
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.integers(-(1 << 47), (1 << 47) - 1),
    st.integers(INT64_MIN, INT64_MAX),
    edges(8, 16, 32, 48, 63, 64),
)


def multipliers(rule):
    high = (1 << 15) - 1 if rule in ("half_up_int16_multiplier", "half_away_17bit") else (1 << 31) - 1
    low = -high - 1 if rule == "half_away_17bit" else 0
    powers = st.integers(0, high.bit_length() - 1).map(lambda power: 1 << power)
    return st.one_of(st.integers(low, high), powers, st.sampled_from([low, 0, 1, high - 1, high]))


SHIFTS = st.one_of(st.integers(28, 40), st.integers(-31, 94), st.sampled_from([-31, -1, 0, 1, 31, 32, 33, 61, 62, 63]))
ZERO_POINTS = st.one_of(st.integers(-128, 255), edges(32).filter(lambda z: -(1 << 31) <= z < 1 << 31))
BOUNDS = st.sampled_from([(None, None), (-128, 127), (0, 255), (-32768, 32767), (-(1 << 31), (1 << 31) - 1), (3, 3)])


@st.composite
def near_ties(draw, rule):
    """(acc, multiplier, shift) whose exact result lies on a half, or one step beside it."""
    shift = draw(st.integers(2, 50) | st.sampled_from([31, 32, 33]))
    multiplier = 1 << draw(st.integers(0, min(shift - 1, 30 if "16" not in rule and "17" not in rule else 14)))
    step = 1 << (shift - multiplier.bit_length() + 1)  # accumulators a unit of the result
    reach = min(1 << 40, (1 << 62) // step)  # far beyond int32 too, where the product needs two limbs
    half = draw(st.integers(-300, 300) | st.integers(-reach, reach)) * step + step // 2
    return min(max(half + draw(st.integers(-1, 1)), INT64_MIN), INT64_MAX), multiplier, shift


@st.composite
def near_crossings(draw):
    """Multiplier 1: products next to where a first rounding at bit 31 carries into the second."""
    shift = draw(st.integers(32, 61))
    crossing = draw(st.integers(-2, 2)) * (1 << shift) - (1 << (shift - 1))
    return crossing + draw(st.sampled_from([-(1 << 30), 0, 1 << 30])) + draw(st.integers(-2, 2)), 1, shift


def cases(rule):
    free = st.tuples(ACCUMULATORS, multipliers(rule), SHIFTS)
    return st.one_of(free, near_ties(rule), near_crossings())


def oracle(acc, multiplier, shift, rule, zero_point, bounds, offset=0):
    low, high = (default if b is None else b for b, default in zip(bounds, (INT64_MIN, INT64_MAX), strict=True))
    return requantize_one(acc, multiplier, shift, rule, zero_point=zero_point, qmin=low, qmax=high, offset=offset)


@pytest.mark.parametrize("rule", INTEGER_RULES)
@given(data=st.data())
def test_integer_rules_equal_the_oracle(rule, data):
    triples = data.draw(st.lists(cases(rule), min_size=1, max_size=30))
    zero_points = data.draw(st.lists(ZERO_POINTS, min_size=len(triples), max_size=len(triples)))
    bounds = data.draw(BOUNDS)
    offset = data.draw(st.sampled_from([0, 1, -77, -(1 << 31), (1 << 31) - 1])) if rule == "half_away_17bit" else 0
    acc, multiplier, shift = (np.array(column, np.int64) for column in zip(*triples, strict=True))
    got = requantize(
        acc, multiplier, shift, rule, zero_point=zero_points, qmin=bounds[0], qmax=bounds[1], offset=offset
    )
    assert got.dtype == np.int64
    expected = [oracle(*t, rule, z, bounds, offset) for t, z in zip(triples, zero_points, strict=True)]
    assert got.tolist() == expected


@pytest.mark.parametrize("rule", INTEGER_RULES)
def test_the_edges_of_one_and_two_limbs_equal_the_oracle(rule):
    """A grid over every shift: products next to the powers of two at which the arithmetic changes its way."""
    powers = [1 << k for k in (30, 31, 32, 46, 47, 48, 49, 61, 62, 63)]
    accs = [sign * power + step for power in powers for sign in (-1, 1) for step in (-1, 0, 1)]
    accs = [acc for acc in accs if INT64_MIN <= acc <= INT64_MAX]
    narrow = rule in ("half_up_int16_multiplier", "half_away_17bit")
    for multiplier in (1, (1 << 15) - 1) if narrow else (1, 1 << 15, 1 << 30, (1 << 31) - 1):
        for shift in range(-31, 95):
            expected = [requantize_one(acc, multiplier, shift, rule) for acc in accs]
            assert requantize(accs, multiplier, shift, rule).tolist() == expected, (multiplier, shift)


SCALES = st.one_of(
    st.floats(0, 4, allow_subnormal=True),
    st.floats(0, 1e38),
    st.integers(-40, 40).map(lambda power: 2.0**power),
    st.sampled_from([0.0, 1e-45, 0.5, 1.0, float(np.finfo(np.float32).max)]),
)


@pytest.mark.parametrize("rule", FLOAT_RULES)
@given(pairs=st.lists(st.tuples(ACCUMULATORS, SCALES), min_size=1, max_size=30), zero_point=ZERO_POINTS, bounds=BOUNDS)
def test_float_rules_equal_the_oracle(rule, pairs, zero_point, bounds):
    acc, scale = (np.array(column) for column in zip(*pairs, strict=True))
    got = requantize(acc, scale, 0, rule, zero_point=zero_point, qmin=bounds[0], qmax=bounds[1])
    assert got.tolist() == [oracle(a, s, 0, rule, zero_point, bounds) for a, s in pairs]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['rule']}: {case['why']}"[:110])
def test_golden_vectors_for_kernel_and_oracle(case):
    factors = (case["multiplier"], case.get("shift", 0), case["rule"])
    options = {key: case[key] for key in ("zero_point", "qmin", "qmax", "offset") if key in case}
    assert requantize(case["acc"], *factors, **options).item() == case["out"]
    assert requantize_one(case["acc"], *factors, **options) == case["out"]


def test_every_rule_has_golden_ties_of_both_signs():
    for rule in RULES:
        signs = {case["acc"] > 0 for case in GOLDEN if case["rule"] == rule and case.get("tie")}
        assert signs == {True, False}, rule


@given(
    acc=st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=1, max_size=40),
    multiplier=st.integers(1 << 30, (1 << 31) - 1),
    shift=st.integers(32, 50),
)
def test_double_rounding_differs_from_single_only_near_a_tie(acc, multiplier, shift):
    """The first rounding moves the value by at most 2**30 / 2**shift, so only a tie that near can be decided anew."""
    double = requantize(acc, multiplier, shift, DOUBLE)
    single = requantize(acc, multiplier, shift, SINGLE)
    for x, a, b in zip(acc, double.tolist(), single.tolist(), strict=True):
        from_tie = abs((x * multiplier + (1 << (shift - 1))) % (1 << shift))
        from_tie = min(from_tie, (1 << shift) - from_tie)
        assert a == b or (abs(a - b) == 1 and from_tie <= 1 << 30)


@given(cases(SINGLE))
def test_without_a_second_shift_the_three_half_up_rules_agree(case):
    acc, multiplier, shift = case
    shift = min(shift, 31)
    results = {requantize(acc, multiplier, shift, rule).item() for rule in (DOUBLE, DOUBLE_UP, SINGLE)}
    assert len(results) == 1


@pytest.mark.parametrize("rule", [r for r in INTEGER_RULES if r not in (DOUBLE, DOUBLE_UP)])
@given(acc=st.integers(-(1 << 47), (1 << 47) - 1), right=st.integers(0, 40))
def test_a_power_of_two_scale_is_a_pure_shift(rule, acc, right):
    top = 14 if rule in ("half_up_int16_multiplier", "half_away_17bit") else 30
    assert requantize(acc, 1 << top, right + top, rule) == requantize(acc, 1, right, rule)


@given(acc=st.integers(-(1 << 31), (1 << 31) - 1), right=st.integers(2, 30))
def test_gemmlowp_with_a_power_of_two_is_two_rounding_shifts(acc, right):
    halved = (acc + 1) >> 1
    second = abs(halved) + (1 << (right - 2)) >> (right - 1)
    assert requantize(acc, 1 << 30, right + 30, DOUBLE) == (second if acc >= 0 else -second)


@given(st.data())
def test_channels_run_along_any_axis(data):
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * 3))
    axis = data.draw(st.integers(-3, 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    acc = rng.integers(-(1 << 31), 1 << 31, shape).astype(np.int32)
    multiplier, shift = rng.integers(1 << 30, 1 << 31, shape[axis]), rng.integers(32, 45, shape[axis])
    zero_point = rng.integers(-128, 128, shape[axis])
    got = requantize(acc, multiplier, shift, axis=axis, zero_point=zero_point, qmin=-128, qmax=127)
    for index in np.ndindex(shape):
        c = index[axis]
        assert got[index] == requantize_one(
            int(acc[index]),
            int(multiplier[c]),
            int(shift[c]),
            DOUBLE,
            zero_point=int(zero_point[c]),
            qmin=-128,
            qmax=127,
        )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_any_integer_dtype_and_shape(dtype):
    assert requantize(np.array(100, dtype), 1 << 30, 31).tolist() == 50
    assert requantize(np.full((2, 3, 1), 100, dtype), 1 << 30, 31).tolist() == [[[50]] * 3] * 2
    assert requantize(np.zeros((0, 3), dtype), 1 << 30, 31).shape == (0, 3)
    assert requantize(np.zeros((3, 0), dtype), 1 << 30, 31).shape == (3, 0)


@example(2.0**-7, -(1 << 31))
@given(st.floats(2.0**-20, 1), st.integers(-(1 << 31), (1 << 31) - 1))
def test_float_scales_must_name_a_float_rule(scale, acc):
    with pytest.raises(FormatError, match=r"takes integers; encode_multiplier\(scale, 'half_up'\) makes them"):
        requantize(acc, scale, 0, SINGLE)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((1, 1, 0, "half_upp"), {}, FormatError, "rounding='half_upp' is not a rule; did you mean 'half_up'"),
        ((1.5, 1), {}, FormatError, "acc is float64; it takes integers that fit int64"),
        ((True, 1), {}, FormatError, "acc is bool"),
        (([1, 2**70], 1), {}, FormatError, "acc contains 1180591620717411303424, which does not fit int64"),
        ((np.uint64(1 << 63), 1), {}, FormatError, "acc contains 9223372036854775808, which does not fit int64"),
        ((1, 1 << 31), {}, FormatError, "multiplier=2147483648 is out of range for rule 'double_half_up_then_away'"),
        ((1, -1), {}, FormatError, "multiplier=-1 is out of range .* use 0 to 2147483647"),
        ((1, 1 << 15, 0, "half_up_int16_multiplier"), {}, FormatError, "multiplier=32768 .* use 0 to 32767"),
        ((1, 1 << 15, 0, "half_away_17bit"), {}, FormatError, "multiplier=32768 .* use -32768 to 32767"),
        ((1, 1, 95), {}, FormatError, "shift=95 is out of range; use -31 to 94"),
        ((1, 1, -32), {}, FormatError, "shift=-32 is out of range; use -31 to 94"),
        ((1, 0.5, 3, "float32_half_even"), {}, FormatError, "shift=3, but rule 'float32_half_even' multiplies by a"),
        (
            (1, 1e39, 0, "float32_half_even"),
            {},
            FormatError,
            r"multiplier 1e\+39: rule 'float32_half_even' takes",
        ),
        ((1, -0.5, 0, "float64_half_away"), {}, FormatError, "multiplier -0.5: .* takes finite float64 numbers >= 0"),
        ((1, 1, 0, "half_up"), {"offset": 3}, FormatError, "offset=3 has no meaning for rule 'half_up'; only"),
        ((1, 1, 0), {"qmin": 5, "qmax": 4}, FormatError, "qmin=5, qmax=4: bounds have to be in order"),
        ((1, 1, 0), {"zero_point": 1 << 31}, FormatError, "zero_point=2147483648 is out of range"),
        (([1, 2], [1, 2, 3]), {}, ShapeError, r"multiplier has shape \(3,\), but acc has 2 channels along the axis"),
        (([1, 2], 1), {"axis": 1}, ShapeError, r"axis=1, but acc has 1 dimensions, shape \(2,\)"),
    ],
)
def test_bad_arguments_say_what_would_be_accepted(arguments, options, error, message):
    with pytest.raises(error, match=message):
        requantize(*arguments, **options)
