"""The PPU's pipeline: order of its steps, what is counted, and which multiplier is used; against a plain oracle."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim import formats
from accelsim.actions import Action
from accelsim.config.model import Ppu
from accelsim.errors import FormatError, ShapeError
from accelsim.ppu.multiplier import encode_multiplier
from accelsim.ppu.pipeline import OutputStage, post_process, stage_actions
from accelsim.ppu.requantize_oracle import requantize_one
from accelsim.rounding import RULES

DOUBLE = "double_half_up_then_away"
INT8, UINT8, INT16 = formats.get("int8"), formats.get("uint8"), formats.get("int16")


def stage(**fields):
    defaults = {"rounding": "half_up", "format": INT8, "scale": np.array(0.5)}
    if "multiplier" in fields:
        defaults["scale"] = None
    return OutputStage(**(defaults | fields))


def run(acc, acc_bits=32, ppu=None, **fields):
    return post_process(np.array(acc, np.int64), stage(**fields), ppu or Ppu(), acc_bits)


def six_in_codes(scale):
    """6 / scale in float32, half away from zero."""
    return math.floor(Fraction(float(np.float32(6) / np.float32(scale))) + Fraction(1, 2))


@st.composite
def problems(draw):
    rows, channels = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    signed = st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(-3000, 3000)
    acc = draw(st.lists(signed, min_size=rows * channels, max_size=rows * channels))

    def per_channel(strategy):
        if draw(st.booleans()):
            return np.array(draw(strategy))
        return np.array(draw(st.lists(strategy, min_size=channels, max_size=channels)))

    return {
        "acc": np.array(acc, np.int64).reshape(rows, channels),
        "rounding": draw(st.sampled_from(list(RULES))),
        "format": draw(st.sampled_from([INT8, UINT8, INT16, formats.get("int4")])),
        "scale": per_channel(st.floats(2.0**-20, 4.0)),
        "zero_point": per_channel(st.integers(-128, 255)),
        "output_scale": per_channel(st.floats(0.001, 2.0)),
        "activation": draw(st.sampled_from(["none", "relu", "relu6", "clamp"])),
        "clamp": draw(st.tuples(st.integers(-200, 0), st.integers(0, 300))),
        "acc_shift": draw(st.integers(0, 4)),
    }


def code_of(problem, r, c):
    """One output by the definition: round, zero point, activation; then the clamp. Returns (code, whether it moved)."""

    def at(name):
        return np.broadcast_to(problem[name], problem["acc"].shape[1:])[c].item()

    zero_point = at("zero_point")
    m, s = encode_multiplier(at("scale") * 2.0 ** problem["acc_shift"], problem["rounding"])
    y = requantize_one(int(problem["acc"][r, c]), m.item(), s.item(), problem["rounding"], zero_point=zero_point)
    if problem["activation"] in ("relu", "relu6"):
        y = max(y, zero_point)
    if problem["activation"] == "relu6":
        y = min(y, zero_point + six_in_codes(at("output_scale")))
    if problem["activation"] == "clamp":
        y = min(max(y, problem["clamp"][0]), problem["clamp"][1])
    code = min(max(y, problem["format"].low), problem["format"].high)
    return code, code != y


@given(problems())
def test_the_pipeline_equals_its_definition(problem):
    fields = {key: value for key, value in problem.items() if key != "acc"}
    if fields["activation"] != "clamp":
        fields["clamp"] = None
    result = post_process(problem["acc"], OutputStage(**fields), Ppu(), 32)
    expected = [[code_of(problem, r, c) for c in range(problem["acc"].shape[1])] for r in range(len(problem["acc"]))]
    assert result.codes.tolist() == [[code for code, _ in row] for row in expected]
    assert result.saturated == sum(moved for row in expected for _, moved in row)
    assert result.codes.dtype == np.int32
    assert result.block_scales is None


def test_relu_is_not_saturation_but_the_range_is():
    # Halves: -300, -3, 5, 150 after scaling; zero point -1.
    acc = [[-600, -6, 10, 300]]
    plain = run(acc, zero_point=np.array(-1))
    assert plain.codes.tolist() == [[-128, -4, 4, 127]]
    assert plain.saturated == 2
    relu = run(acc, zero_point=np.array(-1), activation="relu")
    assert relu.codes.tolist() == [[-1, -1, 4, 127]]
    assert relu.saturated == 1
    # 6 / 0.1 = 60 in float32 after rounding; the code of 6.0 is -1 + 60.
    relu6 = run(acc, zero_point=np.array(-1), activation="relu6", output_scale=np.array(0.1))
    assert relu6.codes.tolist() == [[-1, -1, 4, 59]]
    assert relu6.saturated == 0
    clamp = run(acc, zero_point=np.array(-1), activation="clamp", clamp=(-3, 130))
    assert clamp.codes.tolist() == [[-3, -3, 4, 127]]
    assert clamp.saturated == 1


def test_relu6_whose_six_lies_beyond_the_format_saturates_as_any_output():
    # 6 / 0.04 = 150: the code of 6.0 is out of int8, so the range limits first.
    result = run([[280, 400]], activation="relu6", output_scale=np.array(0.04))
    assert result.codes.tolist() == [[127, 127]]
    assert result.saturated == 2


def test_relu6_divides_in_float32():
    # 6 / 0.0591133013... = 101.49999855; float32's neighbours are 2^-17 apart there, so its quotient is 101.5: 102.
    result = run([[100000]], format=INT16, activation="relu6", output_scale=np.array(0.05911330133676529))
    assert result.codes.item() == 102


def test_raw_accumulators_leave_unrounded():
    wide = formats.get("int32")
    result = run([[-7, 2_000_000_000]], rounding=None, scale=None, format=wide)
    assert result.codes.tolist() == [[-7, 2_000_000_000]]
    shifted = run([[-7, 2_000_000_000]], rounding=None, scale=None, format=wide, acc_shift=3)
    assert shifted.codes.tolist() == [[-56, (1 << 31) - 1]]
    assert shifted.saturated == 1
    # The silicon's rule has no say over raw accumulators.
    again = run([[-7, 9]], ppu=Ppu(rounding="truncate"), rounding=None, scale=None, format=wide, activation="relu")
    assert again.codes.tolist() == [[0, 9]]
    huge = run([[-(1 << 40)]], 48, rounding=None, scale=None, format=formats.get("int48"))
    assert huge.codes.dtype == np.int64
    assert huge.codes.item() == -(1 << 40)


def test_the_rule_of_the_silicon_overrides_the_layers():
    acc = [[-59, -510]]
    quarter = {"scale": np.array(0.25), "rounding": DOUBLE}
    assert run(acc, **quarter).codes.tolist() == [[-15, -128]]
    assert run(acc, ppu=Ppu(rounding="double_half_up"), **quarter).codes.tolist() == [[-14, -127]]
    assert run(acc, ppu=Ppu(rounding="truncate"), **quarter).codes.tolist() == [[-14, -127]]
    assert run(acc, ppu=Ppu(rounding="float32_half_even"), **quarter).codes.tolist() == [[-15, -128]]


def test_integer_multipliers_are_used_as_they_are_where_they_fit():
    # 3 / 2^1: the multiplier is not normalised, so re-encoding would show in R1's second rounding at shift 32.
    exact = {"multiplier": np.array(3), "shift": np.array(32), "rounding": DOUBLE}
    acc = [[(1 << 31) - 1, -(1 << 31)]]
    expected = [requantize_one(x, 3, 32, DOUBLE) for x in acc[0]]
    assert run(acc, **exact).codes.tolist() == [expected]


def test_a_multiplier_too_wide_for_the_silicon_is_encoded_anew():
    # 0x60000001 / 2^31 is 0.75 + 2^-31; at 8 bits it becomes 96 / 2^7.
    wide = {"multiplier": np.array(0x60000001), "shift": np.array(31), "format": formats.get("int32")}
    acc = 1_000_000_000
    assert run([[acc]], **wide).codes.item() == math.floor(Fraction(acc * 0x60000001, 1 << 31) + Fraction(1, 2))
    narrow = run([[acc]], ppu=Ppu(multiplier_bits=8), **wide)
    assert narrow.codes.item() == 750_000_000
    assert narrow.actions[Action("ppu", "mult", (32, 8))] == 1


def test_a_multiplier_one_bit_too_wide_is_encoded_anew():
    # 129 needs 9 bits with its sign; at 8 bits 129 = 0.50390625 * 2^8 becomes 64.5 -> 65, times 2.
    fields = {"multiplier": np.array(129), "shift": np.array(0), "format": formats.get("int32")}
    assert run([[1000]], ppu=Ppu(multiplier_bits=9), **fields).codes.item() == 129_000
    assert run([[1000]], ppu=Ppu(multiplier_bits=8), **fields).codes.item() == 130_000


def test_float_rules_divide_the_multiplier_by_its_shift():
    fields = {"multiplier": np.array([3, 5]), "shift": np.array([2, 1]), "rounding": "float64_half_away"}
    assert run([[10, 3]], **fields).codes.tolist() == [[8, 8]]  # 7.5 and 7.5, away from zero


@given(st.integers(0, 6), st.integers(-(1 << 25), (1 << 25) - 1))
def test_acc_shift_scales_the_accumulators(shift, acc):
    for fields in ({"scale": np.array(2.0**-20)}, {"multiplier": np.array(1), "shift": np.array(20)}):
        shifted = run([[acc]], acc_shift=shift, **fields)
        plain = run([[acc << shift]], acc_bits=48, **fields)
        assert shifted.codes == plain.codes


@pytest.mark.parametrize("shape", [(5,), (2, 3, 5), (1, 2, 3, 4, 5), (0, 5), (3, 0)])
def test_any_shape_keeps_channels_last(shape):
    acc = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    scale = 2.0 ** -np.arange(shape[-1])
    result = post_process(acc, stage(scale=scale, format=INT16), Ppu(), 32)
    assert result.codes.shape == shape
    assert result.codes.tolist() == np.floor(acc * scale + 0.5).astype(int).tolist()


def counted(**fields):
    return dict(run(np.zeros((2, 3)), **fields).actions.items())


def test_the_work_is_counted_operation_by_operation():
    def ppu(operation, *params):
        return Action("ppu", operation, params)

    third = np.array(1 / 3)
    assert counted(scale=third) == {ppu("mult", 32, 32): 6, ppu("add", 64): 6, ppu("shift_clamp"): 6}
    # One of three channels has a power of two.
    mixed = counted(scale=np.array([0.3, 0.25, 0.7]))
    assert mixed == {ppu("mult", 32, 32): 4, ppu("add", 64): 4, ppu("add", 32): 2, ppu("shift_clamp"): 6}
    assert counted() == {ppu("add", 32): 6, ppu("shift_clamp"): 6}
    assert counted(multiplier=np.array(4), shift=np.array(9)) == counted()
    assert counted(multiplier=np.array(5), shift=np.array(9)) == counted(scale=third)
    short = counted(scale=third, rounding="half_up_int16_multiplier")
    assert short == {ppu("mult", 32, 16): 6, ppu("add", 48): 6, ppu("shift_clamp"): 6}
    single = counted(rounding="float32_half_even")
    assert single == {ppu("fp32_from_int"): 6, ppu("fp32_mult"): 6, ppu("shift_clamp"): 6}
    assert counted(rounding="float64_half_away") == {ppu("fp64_mult"): 6, ppu("shift_clamp"): 6}
    assert counted(rounding=None, scale=None) == {ppu("shift_clamp"): 6}
    extra = counted(zero_point=np.array([0, 3, 0]), activation="relu6", output_scale=np.array(1.0))
    assert extra == counted() | {ppu("add", 16): 6, ppu("compare", 16): 12}
    relu = counted(activation="relu", format=INT16)
    assert relu == counted() | {ppu("compare", 17): 6}


def test_vsq_work_is_counted():
    vsq = formats.get("vsq_uint4_v2_s6")  # y = 4 + 6 + 4 + 1 = 15 bits; vectors of 2, 1 and 2, 1
    assert dict(run(np.zeros((2, 3)), format=vsq).actions.items()) == {
        Action("ppu", "add", (32,)): 6,
        Action("ppu", "shift_clamp", ()): 6 + 6 + 4,
        Action("ppu", "compare", (15,)): 2,
        Action("ppu", "divide", (15, 8)): 4,
        Action("ppu", "divide", (15, 10)): 6,
    }


@given(problems())
def test_values_never_change_the_work(problem):
    fields = {key: value for key, value in problem.items() if key != "acc"}
    if fields["activation"] != "clamp":
        fields["clamp"] = None
    result = post_process(problem["acc"], OutputStage(**fields), Ppu(), 32)
    assert result.actions == stage_actions(*problem["acc"].shape, OutputStage(**fields), Ppu(), 32)


VSQ = formats.get("vsq4")


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (
            {"activation": "rellu6"},
            FormatError,
            "activation='rellu6' is unknown; did you mean 'relu6'.; use one of none",
        ),
        ({"activation": "clamp"}, FormatError, "activation='clamp' with clamp=None: 'clamp', and only it, has bounds"),
        ({"clamp": (0, 1)}, FormatError, r"activation='none' with clamp=\(0, 1\)"),
        ({"activation": "clamp", "clamp": (2, 1)}, FormatError, "the lower bound exceeds the upper one"),
        ({"scale": None}, FormatError, "either a real scale, or a multiplier and a shift"),
        ({"multiplier": np.array(1)}, FormatError, "either a real scale, or a multiplier and a shift"),
        ({"activation": "relu6"}, FormatError, "relu6 needs the output's scale, positive and finite; found None"),
        ({"scale": np.array([1.0, 2.0])}, ShapeError, r"multiplier has shape \(2,\); the output has 3 channels"),
        ({"zero_point": np.zeros(4, np.int64)}, ShapeError, r"zero_point has shape \(4,\); the output has 3 channels"),
        ({"zero_point": np.array(1 << 40)}, FormatError, "zero_point 1099511627776 does not fit 32 bits"),
        ({"scale": np.array(-1.0)}, FormatError, "requantization scale -1.0 is not a positive finite number"),
        ({"multiplier": np.array(-3), "shift": np.array(1)}, FormatError, "requantization scale -1.5 is not"),
        ({"format": VSQ, "rounding": None, "scale": None}, FormatError, "raw accumulators cannot leave in a format"),
        (
            {"format": formats.get("mxint8")},
            FormatError,
            "^an output in mxint8 is scaled in float32, which needs rounding 'float32_half_even'; the layer asks",
        ),
        (
            {"format": formats.get("kmeans4")},
            FormatError,
            "^the PPU cannot emit kmeans4: its codes stand for the values of a table that is fitted to the whole",
        ),
        (
            {"format": VSQ, "zero_point": np.array(3)},
            FormatError,
            "a format with block scales has no zero points; found 3",
        ),
        (
            {"format": VSQ, "activation": "clamp", "clamp": (0, 1)},
            FormatError,
            "mean nothing in a format with block scales; use",
        ),
        (
            {"format": VSQ, "output_scale": np.ones(3)},
            FormatError,
            r"share one coarse scale; output_scale has to be of shape",
        ),
        (
            {"format": formats.get("vsq_int8_v16_s12"), "rounding": "half_away_17bit"},
            FormatError,
            "saturates to 17 bits, but vectors reach 8321040 before",
        ),
    ],
)
def test_contradictory_stages_are_refused(fields, error, message):
    with pytest.raises(error, match=message):
        run([[1, 2, 3]], **fields)


def test_accumulators_have_to_fit_their_width():
    with pytest.raises(ValueError, match=r"accumulators span -129\.\.127, which does not fit 8 bits"):
        run([[-129, 127]], 8)
    assert run([[-128, 127]], 8, scale=np.array(1.0)).codes.tolist() == [[-128, 127]]
    with pytest.raises(ShapeError, match=r"acc is int32 of shape \(2,\); the PPU takes int64 or float32"):
        post_process(np.zeros(2, np.int32), stage(), Ppu(), 32)
