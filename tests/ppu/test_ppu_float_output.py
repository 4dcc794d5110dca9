"""Outputs of every format of the catalog, from integer, fixed-point and float32 accumulators, against the reference."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accelsim import formats
from accelsim.actions import Action
from accelsim.config.model import Ppu
from accelsim.errors import FormatError
from accelsim.formats.catalog import CATALOG
from accelsim.ppu.float_output_oracle import encode_block, scaled
from accelsim.ppu.pipeline import OutputStage, post_process, stage_actions
from accelsim.ppu.reference import post_process_reference
from accelsim.ppu.stage import FLOAT_FORMATS

FLOAT32 = "float32_half_even"
LARGEST = float(np.finfo(np.float32).max)
NEVER = {name for name in CATALOG if CATALOG[name].datapath == "codebook"}
EMITTED = [name for name in CATALOG if name not in NEVER]
FLOATS = [name for name in CATALOG if isinstance(CATALOG[name], FLOAT_FORMATS)]
# The families of plain integers are alike in everything that the PPU sees; one of each kind will do here.
FAMILIES = [name for name in EMITTED if "int" not in name or name in ("int4", "int8n", "uint16", "mxint8")]


def floats32(*strategies):
    return st.one_of(*strategies).map(lambda x: float(np.float32(x)))


# Ordinary numbers, everything, subnormals, zeros of both signs, and significands at which formats round and carry.
ACCUMULATORS = floats32(
    st.floats(-100, 100),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-1e-38, 1e-38),
    st.sampled_from([0.0, -0.0, LARGEST, -LARGEST, 2.0**-149, 448.0, 464.0, 465.0, 65504.0, 65520.0, 6.0, 7.0, 7.5]),
    st.builds(
        lambda significand, exponent: significand * 2.0**exponent,
        st.sampled_from([1, -1, 1.25, -1.5, 1.75, 1.8125, 1.875, -1.9375, 1.984375, 1.9921875, 1.9999]),
        st.integers(-12, 12),
    ),
)
INTEGERS = st.one_of(st.integers(-300, 300), st.integers(-(1 << 31), (1 << 31) - 1), st.just(0))
SCALES = st.one_of(st.just(1.0), st.floats(2.0**-20, 4.0), st.sampled_from([2.0**-149, 1e-46, 1e36, 0.0, 2.0**100]))


@st.composite
def problems(draw, name):
    rows, channels = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 15, 16, 17, 31, 32, 33, 50]))
    is_float = draw(st.booleans())
    shape = (rows, channels)
    size = rows * channels
    values = draw(st.lists(ACCUMULATORS if is_float else INTEGERS, min_size=size, max_size=size))
    if draw(st.booleans()):  # a block of zeros in the midst
        values[: min(size, 32)] = [0] * min(size, 32)
    number_format = formats.get(name)
    binary = number_format.datapath == "binary"
    per_channel = draw(st.booleans())
    scales = st.lists(SCALES, min_size=channels, max_size=channels) if per_channel else SCALES
    scale = np.array(draw(scales), np.float64)
    stage = OutputStage(
        rounding=FLOAT32,
        format=number_format,
        scale=np.maximum(scale, 1e-46) if binary else scale,
        output_scale=np.array(draw(st.sampled_from([1.0, 0.37, 2.0, 1e-30]))),
        activation="none" if binary else draw(st.sampled_from(["none", "none", "relu", "relu6"])),
        acc_shift=0 if np.max(scale) > 1e30 else draw(st.sampled_from([0, 0, 3, -5, -20])),
    )
    ppu = Ppu(
        mx_scale_rule=draw(st.sampled_from(["floor", "even", "tosa", "rceil"])),
        element_rounding=draw(st.sampled_from(["half_even", "half_away", "toward_zero"])),
        vsq_scale_rounding=draw(st.sampled_from(["nearest", "up"])),
    )
    return np.array(values, np.float32 if is_float else np.int64).reshape(shape), stage, ppu


def oracle_saturated(acc, stage, ppu):
    """Count what the oracle limited, for float formats."""
    count, size = 0, 1 if stage.format.blocks is None else stage.format.blocks.size
    scale = np.broadcast_to(stage.scale * 2.0**stage.acc_shift, acc.shape[-1]).astype(np.float32)
    six = None
    if stage.activation == "relu6":
        with np.errstate(over="ignore"):
            six = float(np.float32(6) / np.float32(stage.output_scale))
    for row in acc.tolist():
        pairs = [scaled(x, float(s), six, relu=stage.activation != "none") for x, s in zip(row, scale, strict=True)]
        for start in range(0, len(row), size):
            block = pairs[start : start + size]
            limited = encode_block([v for v, _ in block], stage.format, ppu).limited
            count += sum(a or beyond for a, (_, beyond) in zip(limited, block, strict=True))
    return count


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=15)
@given(data=st.data())
def test_outputs_equal_the_reference(name, data):
    acc, stage, ppu = data.draw(problems(name))
    result = post_process(acc, stage, ppu, 32)
    codes, scales = post_process_reference(acc, stage, ppu)
    assert result.codes.tolist() == codes.tolist()
    assert result.codes.dtype == np.int32
    if scales is None:
        assert result.block_scales is None
    else:
        assert result.block_scales.tolist() == scales.tolist()
        assert result.block_scales.dtype == np.int32
    if name in FLOATS:
        assert result.saturated == oracle_saturated(acc, stage, ppu)
    float_acc = acc.dtype == np.float32
    assert result.actions == stage_actions(*acc.shape, stage, ppu, 32, float_acc=float_acc)
    # What leaves is a tensor: the next layer, and the trace, take it as it is.
    block_scales = {} if scales is None else {"block_scales": result.block_scales}
    formats.make_qtensor(result.codes, stage.format, 1.0, **block_scales)


@pytest.mark.parametrize("name", EMITTED)
def test_every_format_can_leave_the_ppu(name):
    acc = np.linspace(-300, 300, 40, dtype=np.float32).reshape(2, 20)
    stage = OutputStage(rounding=FLOAT32, format=formats.get(name), scale=np.array(1.0))
    result = post_process(acc, stage, Ppu(), 32)
    codes, scales = post_process_reference(acc, stage, Ppu())
    assert result.codes.tolist() == codes.tolist()
    assert (None if scales is None else scales.tolist()) == (
        None if result.block_scales is None else result.block_scales.tolist()
    )
    assert len(set(result.codes.ravel().tolist())) > 1


def test_what_cannot_leave_is_what_needs_a_table_of_the_whole_tensor():
    assert {"kmeans4", "ttq"} <= NEVER
    for name in NEVER:
        stage = OutputStage(rounding=FLOAT32, format=formats.get(name), scale=np.array(1.0))
        with pytest.raises(
            FormatError, match=f"^the PPU cannot emit {name}: its codes stand for the values of a table"
        ):
            post_process(np.ones((1, 2), np.float32), stage, Ppu(), 32)
    levels = OutputStage(rounding=FLOAT32, format=formats.get("group_int4_g4_e1m0_g16_e8m0"), scale=np.array(1.0))
    with pytest.raises(FormatError, match="of block scales it makes one level of integers"):
        post_process(np.ones((1, 2), np.float32), levels, Ppu(), 32)


def emit(values, name, ppu=None, dtype=np.float32, acc_bits=32, **fields):
    fields = {"rounding": FLOAT32, "scale": np.array(1.0)} | fields
    return post_process(
        np.array(values, dtype), OutputStage(format=formats.get(name), **fields), ppu or Ppu(), acc_bits
    )


# -- by hand, and against another program


@given(st.lists(ACCUMULATORS, min_size=1, max_size=30), st.sampled_from(["fp16", "bf16", "fp8_e5m2", "fp8_e4m3"]))
def test_minifloats_are_casts_of_the_float32_product(values, name):
    """ml_dtypes (and NumPy) round the same product; where they overflow to infinity or NaN, the PPU saturates."""
    dtype = {
        "fp16": np.float16,
        "bf16": ml_dtypes.bfloat16,
        "fp8_e5m2": ml_dtypes.float8_e5m2,
        "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    }[name]
    with np.errstate(over="ignore", under="ignore"):
        cast = (np.array([values], np.float32) * np.float32(0.3)).astype(dtype)
    result = emit([values], name, scale=np.array(0.3))
    finite = np.isfinite(cast.astype(np.float64))
    bits = cast.view(np.uint16 if cast.itemsize == 2 else np.uint8).astype(np.int64)
    assert result.codes[finite].tolist() == bits[finite].tolist()
    assert set(result.codes[~finite] & (formats.get(name).element.sign_bit - 1)) <= {
        formats.get(name).element.largest_code
    }
    assert result.saturated == np.count_nonzero(~finite)


def test_an_integer_accumulator_is_rounded_to_float32_first():
    # 2**24 + 1 is halfway between two float32 numbers, and goes to 2**24. Times (1 + 2**-11) * 2**-24 that is a tie of
    # fp16, between 1 (0x3C00) and 1 + 2**-10; the + 1 would have decided it upwards.
    scale = np.array((1 + 2.0**-11) * 2.0**-24)
    assert emit([[(1 << 24) + 1, (1 << 24) + 2]], "fp16", dtype=np.int64, scale=scale).codes.tolist() == [
        [0x3C00, 0x3C01]
    ]


def test_the_product_is_rounded_to_float32_before_it_is_encoded():
    # (1 + 2**-12)**2 = 1 + 2**-11 + 2**-24: float32 drops the last term, and leaves a tie of fp16 that goes to 1.
    assert emit([[1 + 2.0**-12]], "fp16", scale=np.array(1 + 2.0**-12)).codes.item() == 0x3C00
    assert emit([[1 + 2.0**-12]], "fp16", scale=np.array(1 + 2.0**-12 + 2.0**-23)).codes.item() == 0x3C01


def test_fixed_point_sums_weigh_what_their_last_bit_says():
    # 96 * 2**-5 = 3 and -20 * 2**-5 = -0.625; E2M1 has 3 (code 5) and -0.5 (code 9).
    result = emit([[96, -20]], "fp4_e2m1", dtype=np.int64, acc_shift=-5)
    assert result.codes.tolist() == [[5, 9]]
    # The same in an integer format, by an integer rule: 3 and -0.625, times 10.
    integers = emit([[96, -20]], "int8", dtype=np.int64, acc_shift=-5, rounding="half_up", scale=np.array(10.0))
    assert integers.codes.tolist() == [[30, -6]]


@given(st.integers(-(1 << 47), (1 << 47) - 1), st.floats(2.0**-12, 4.0), st.integers(1, 64))
@example((1 << 47) - 1, 0.01, 40)  # 0.01 * 2**-40 would be flushed; 1.28 is not
@example(-(1 << 47), 2.0**-12, 34)
@example((1 << 47) - 1, 2.0**-12, 64)  # shift 106, beyond what the shifter has: 0
def test_fraction_bits_do_not_make_scales_vanish(acc, scale, fraction_bits):
    """TFLite flushes scales below 2**-32 to 0; the fraction bits are no part of the scale."""
    fields = {"rounding": "half_up", "format": formats.get("int16"), "scale": np.array(scale)}
    stage = OutputStage(acc_shift=-fraction_bits, **fields)
    got = post_process(np.array([[acc]]), stage, Ppu(), 48).codes.item()
    assert got == post_process_reference(np.array([[acc]]), stage, Ppu())[0].item()
    exact = acc * Fraction(scale) / (1 << fraction_bits)
    assert abs(got - min(max(exact, -32768), 32767)) <= 0.5 + abs(exact) * 2.0**-30
    multiplied = OutputStage(
        **fields | {"scale": None}, multiplier=np.array(3), shift=np.array(1), acc_shift=-fraction_bits
    )
    expected = math.floor(Fraction(3 * acc, 2 << fraction_bits) + Fraction(1, 2))
    assert post_process(np.array([[acc]]), multiplied, Ppu(), 48).codes.item() == min(max(expected, -32768), 32767)
    assert post_process_reference(np.array([[acc]]), multiplied, Ppu())[0].item() == min(max(expected, -32768), 32767)


def test_relu_and_relu6_act_on_the_float_and_leave_no_negative_zero():
    values = [[-3.0, -0.0, 2.6, 30.0]]
    plain = emit(values, "fp8_e4m3")
    assert plain.codes.tolist() == [[0xC4, 0x80, 0x42, 0x5F]]  # -3; -0; 2.5; 30
    assert emit(values, "fp8_e4m3", activation="relu").codes.tolist() == [[0, 0, 0x42, 0x5F]]
    # 6 / 0.75 = 8 in units of the output's scale.
    six = emit(values, "fp8_e4m3", activation="relu6", output_scale=np.array(0.75))
    assert six.codes.tolist() == [[0, 0, 0x42, 0x50]]
    assert six.saturated == 0


def test_what_the_activation_moved_is_not_saturated_but_the_range_and_float32_are():
    # 500 rounds to 512 > 448; 464 is a tie, and 448 is even; -1000 is cut. With ReLU only 500 is moved by the range.
    assert emit([[500.0, 464.0, -1000.0, 1.0]], "fp8_e4m3").saturated == 2
    assert emit([[500.0, 464.0, -1000.0, 1.0]], "fp8_e4m3", activation="relu").saturated == 1
    away = Ppu(element_rounding="half_away")
    assert emit([[500.0, 464.0, 479.0, 480.0]], "fp8_e4m3", away).saturated == 4
    zero = Ppu(element_rounding="toward_zero")
    assert emit([[500.0, 464.0, 479.0, 480.0]], "fp8_e4m3", zero).saturated == 2
    # Beyond float32 itself: limited to 2**128 - 2**104, which MX holds as it is with the rule that never clamps.
    beyond = emit([[2.0**127, -1.0]], "mxfp8_e4m3", Ppu(mx_scale_rule="rceil"), scale=np.array(4.0))
    assert beyond.saturated == 1
    assert emit([[-(2.0**127), -1.0]], "mxfp8_e4m3", activation="relu", scale=np.array(4.0)).saturated == 0
    # Powers of two: +-1, 2, 4 and 0 in 3 bits; the exponent of 5.6 rounds to 2, that of 5.7 to 3 (sqrt 2 * 4 = 5.657).
    powers = emit([[5.6, 5.7, -0.7, 0.8, -3.0]], "po2_3")
    assert powers.codes.tolist() == [[3, 3, 0, 1, -3]]
    assert powers.saturated == 1


def test_an_mx_block_by_hand():
    # Largest 11 = 1.375 * 2**3: X = 3 - 2 = 1. Halved: 5.5 goes to 6 (E2M1 has 4 and 6), -1.5 is one, 0.25 is a tie
    # of 0 and 0.5 that goes to 0. The next block is ragged: 0.75 = 1.5 * 2**-1, X = -1 - 2 = -3, 0.75 / 2**-3 = 6.
    values = np.zeros((1, 33))
    values[0, :3] = 11, -3, 0.5
    values[0, 32] = 0.75
    result = emit(values, "mxfp4")
    assert result.block_scales.tolist() == [[128, 124]]
    assert result.codes[0, [0, 1, 2, 32]].tolist() == [7, 8 + 3, 0, 7]
    assert result.saturated == 0
    # 15 = 1.875 * 2**3: 7.5 is cut to 6 with the floor rule; with RCEIL X = 2, and 3.75 goes to 4.
    assert emit([[15.0]], "mxfp4").saturated == 1
    rceil = emit([[15.0]], "mxfp4", Ppu(mx_scale_rule="rceil"))
    assert (rceil.codes.item(), rceil.block_scales.item(), rceil.saturated) == (6, 129, 0)


def test_nvfp4_has_its_block_scale_in_units_of_the_tensors():
    # 12 / 6 = 2 (E4M3 code 0x40); 12 / 2 = 6, -3 / 2 = -1.5. Largest 2688 = 448 * 6; above 3136 = 448 * 7 it is cut.
    result = emit([[12.0, -3.0]], "nvfp4")
    assert result.codes.tolist() == [[7, 8 + 3]]
    assert result.block_scales.tolist() == [[0x40]]
    assert [emit([[x]], "nvfp4").saturated for x in (2688.0, 3135.0, 3136.0)] == [0, 0, 1]
    assert emit([[4000.0]], "nvfp4").codes.item() == 7


def test_ternary_takes_the_nearest_level_and_ties_go_to_zero():
    values = [[0.5, -0.5, 0.51, -0.51, 1.49, 1.5, -7.0]]
    result = emit(values, "ternary")
    assert result.codes.tolist() == [[0, 0, 1, -1, 1, 1, -1]]
    assert result.saturated == 2  # 1.5 and -7 round to something beyond 1


def test_float_accumulators_make_integers_and_vectors():
    # 2.5 and 3.5 go to the even neighbour; 1e30 saturates; ReLU6 at 6 / 0.5 = 12.
    result = emit([[2.5, 3.5, -1e30, 1e30]], "int8", zero_point=np.array(-3))
    assert result.codes.tolist() == [[-1, 1, -128, 127]]
    assert result.saturated == 2
    six = emit([[2.5, 3.5, -1e30, 1e30]], "int8", activation="relu6", output_scale=np.array(0.5))
    assert six.codes.tolist() == [[2, 4, 0, 12]]
    # A vector of gamma units: largest 31, scale 31/7 -> 4; 6.5 / 4 -> 2.
    vector = emit([[31.0, -10.0, 6.5, 0.25]], "vsq_int4_v4_s4")
    assert vector.codes.tolist() == [[7, -2, 2, 0]]
    assert vector.block_scales.tolist() == [[4]]
    # float32 accumulators beyond 2**24 are what they are, not integers: 2**24 + 2 over 2**20.
    assert emit([[2.0**24 + 2]], "int16", scale=np.array(2.0**-20)).codes.item() == 16


@pytest.mark.parametrize("name", ["fp8_e4m3", "mxfp4", "nvfp4", "mx6", "int8", "vsq4", "binary", "po2_4"])
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 2, 3, 17)])
def test_any_shape_keeps_channels_last(name, shape):
    acc = np.arange(math.prod(shape)).reshape(shape)
    result = emit(acc, name, dtype=np.float32)
    flat = emit(acc.reshape(math.prod(shape[:-1]), shape[-1]), name, dtype=np.int64)
    assert result.codes.shape == shape
    assert result.codes.ravel().tolist() == flat.codes.ravel().tolist()
    blocks = formats.get(name).blocks
    if blocks is None:
        assert result.block_scales is None
    else:
        assert result.block_scales.shape == (*shape[:-1], -(-shape[-1] // blocks.size))
        assert result.block_scales.ravel().tolist() == flat.block_scales.ravel().tolist()


# -- work


def counted(name, ppu=None, float_acc=True, channels=20, **fields):
    stage = OutputStage(**{"rounding": FLOAT32, "format": formats.get(name), "scale": np.array(0.3)} | fields)
    actions = stage_actions(2, channels, stage, ppu or Ppu(), 32, float_acc=float_acc)
    return {(action.operation, *action.params): count for action, count in actions.items()}


def test_the_work_of_floats_is_counted():
    base = {("fp32_mult",): 40, ("shift_clamp",): 40}
    assert counted("fp8_e4m3") == base
    assert counted("fp8_e4m3", float_acc=False) == base | {("fp32_from_int",): 40}
    assert counted("bf16", activation="relu") == base | {("compare", 32): 40}
    assert counted("bf16", activation="relu6", output_scale=np.array(1.0)) == base | {("compare", 32): 80}
    assert counted("int8", zero_point=np.array(1)) == base | {("add", 16): 40}
    assert counted("ternary") == {("fp32_mult",): 40, ("compare", 32): 80}
    assert counted("ternary", rounding="half_up", float_acc=False) == {
        ("mult", 32, 32): 40,
        ("add", 64): 40,
        ("shift_clamp",): 40,
    }
    assert counted("po2_4") == base | {("compare", 24): 40}
    # 40 channels in blocks of 32: two blocks a row.
    mx = {("fp32_mult",): 80, ("shift_clamp",): 80, ("add", 9): 80 + 4}
    assert counted("mxfp4", channels=40) == mx | {("compare", 8): 76}
    for rule in ("even", "tosa", "rceil"):
        ppu = Ppu(mx_scale_rule=rule)
        assert counted("mxfp4", ppu, channels=40) == mx | {("compare", 31): 76, ("compare", 24): 4}
    # 20 channels in blocks of 16: two blocks and ten pairs a row.
    assert counted("mx6") == base | {("compare", 8): 36 + 20, ("add", 9): 40}
    assert counted("nvfp4") == {
        ("fp32_mult",): 80,
        ("shift_clamp",): 44,
        ("compare", 31): 36,
        ("divide", 24, 3): 4,
        ("divide", 24, 4): 4,
    }
    assert all(action.component == "ppu" for action in emit([[1.0]], "nvfp4").actions)
    assert emit([[1.0]], "fp16").actions[Action("ppu", "fp32_mult")] == 1


# -- refusals


@pytest.mark.parametrize(
    ("name", "fields", "ppu", "message"),
    [
        (
            "int8",
            {"rounding": "half_up"},
            {},
            "^float32 accumulators are scaled in float32, which needs rounding 'float32",
        ),
        ("int8", {}, {"rounding": "truncate"}, "needs rounding 'float32_half_even'; ppu.rounding is 'truncate'"),
        ("mx6", {"rounding": "half_up"}, {}, "^an output in mx6 is scaled in .*; the layer asks for 'half_up'"),
        ("int32", {"rounding": None}, {}, "cannot leave raw in int32: no output format holds float32; name rounding"),
        ("fp16", {"rounding": None}, {}, "cannot leave raw in fp16: no output format holds float32"),
        ("fp16", {"zero_point": np.array(2)}, {}, "^fp16: a float format has no zero points; found 2"),
        (
            "fp16",
            {"activation": "clamp", "clamp": (0, 1)},
            {},
            "^fp16: bounds in output codes mean nothing in a float format; use relu",
        ),
        ("fp16", {"scale": None}, {}, "either a real scale, or a multiplier and a shift"),
        ("fp16", {"activation": "relu6"}, {}, "relu6 needs the output's scale"),
        (
            "mx6",
            {"output_scale": np.ones(2)},
            {},
            r"^mx6: the blocks of an output share one coarse scale; output_scale",
        ),
        ("fp16", {"scale": np.array(1e39)}, {}, "requantization scale 1e[+]39 does not fit float32"),
        ("fp16", {"scale": np.array(-1.0)}, {}, "requantization scale -1.0 is not a positive finite number"),
    ],
)
def test_contradictory_float_stages_are_refused(name, fields, ppu, message):
    with pytest.raises(FormatError, match=message):
        emit([[1.0, 2.0]], name, Ppu(**ppu), **fields)


def test_integer_accumulators_into_floats_need_the_float_rule_too():
    with pytest.raises(FormatError, match=r"^fp16: raw accumulators are integers; name rounding 'float32"):
        emit([[1]], "fp16", dtype=np.int64, rounding=None)
    with pytest.raises(
        FormatError, match="have 5 fraction bits, which cannot leave raw in int32; name a rounding rule"
    ):
        emit([[1]], "int32", dtype=np.int64, rounding=None, scale=None, acc_shift=-5)


def test_accumulators_are_finite():
    with pytest.raises(ValueError, match="2 accumulators are NaN or infinite; float32 registers saturate"):
        emit([[1.0, np.nan, np.inf]], "fp16")


def test_a_scale_below_float32_is_a_dead_channel():
    result = emit([[5.0, -5.0]], "fp16", scale=np.array(1e-46))
    assert result.codes.tolist() == [[0, 0x8000]]
    assert result.saturated == 0
