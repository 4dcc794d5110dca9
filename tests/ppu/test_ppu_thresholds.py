"""Outputs that only compare: thresholds as FINN counts them, signs, and both conventions of a binary code."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim import formats
from accelsim.actions import Action, Actions
from accelsim.config.model import Ppu
from accelsim.errors import FormatError, ShapeError
from accelsim.formats.binary import BinaryFormat
from accelsim.formats.spec import Lanes
from accelsim.ppu.pipeline import OutputStage, post_process, stage_actions
from accelsim.ppu.reference import post_process_reference

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True)
class InvertedBinary(BinaryFormat):
    """Larq Compute Engine's convention: bit 1 is -1."""

    def lanes(self, tensor):
        return Lanes((1 - 2 * tensor.codes).astype(np.int32), None)


def stage(name, thresholds=None, **fields):
    number_format = formats.get(name) if isinstance(name, str) else name
    if thresholds is not None:
        fields = {"activation": "threshold", "thresholds": np.array(thresholds, np.int64)} | fields
    return OutputStage(**{"rounding": None, "format": number_format} | fields)


def run(acc, *args, dtype=np.int64, ppu=None, acc_bits=64, **fields):
    return post_process(np.array(acc, dtype), stage(*args, **fields), ppu or Ppu(), acc_bits)


def test_a_threshold_is_passed_by_what_is_greater_than_it():
    # finn-hlslib counts the thresholds that are strictly less than the accumulator.
    result = run([[-10, -9, 0, 1, 5, 6]], "uint2", [-10, 0, 5])
    assert result.codes.tolist() == [[0, 1, 1, 2, 2, 3]]
    assert result.codes.dtype == np.int32
    assert (result.saturated, result.block_scales) == (0, None)
    # Signed codes begin at the lowest one: FINN's ActVal.
    assert run([[-10, -9, 0, 1, 5, 6]], "int4", [-10, 0, 5]).codes.tolist() == [[-8, -7, -7, -6, -6, -5]]
    # One row of thresholds a channel; equal thresholds are passed together.
    each = run([[3, 3], [4, 4]], "uint4", [[3, 3, 3], [0, 4, 9]])
    assert each.codes.tolist() == [[0, 1], [3, 1]]


def test_one_threshold_makes_a_binary_output_in_either_convention():
    acc, thresholds = [[-1, 4, 5]], [4]
    assert run(acc, "binary", thresholds).codes.tolist() == [[0, 0, 1]]
    assert run(acc, InvertedBinary(), thresholds).codes.tolist() == [[1, 1, 0]]
    for number_format in (formats.get("binary"), InvertedBinary()):
        codes = run(acc, number_format, thresholds).codes
        assert formats.make_qtensor(codes, number_format).dequantize().tolist() == [[-1, -1, 1]]


@st.composite
def problems(draw):
    rows, channels = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    name = draw(st.sampled_from(["uint2", "uint4", "int4", "int3n", "int16", "ternary", "dfp4", "binary", "inverted"]))
    number_format = InvertedBinary() if name == "inverted" else formats.get(name)
    count = draw(st.integers(1, min(15, number_format.code_high - number_format.code_low)))
    edges = st.sampled_from([INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT64_MAX - 1, INT64_MAX])
    number = st.one_of(st.integers(-9, 9), st.integers(INT64_MIN, INT64_MAX), edges)
    each = st.lists(number, min_size=count, max_size=count).map(sorted)
    thresholds = draw(each if draw(st.booleans()) else st.lists(each, min_size=channels, max_size=channels))
    acc = draw(st.lists(number, min_size=rows * channels, max_size=rows * channels))
    asked = stage(number_format, thresholds, acc_shift=draw(st.sampled_from([0, 0, 1, 5, 64])))
    return np.array(acc, np.int64).reshape(rows, channels), asked


@given(problems())
def test_thresholds_equal_the_reference(problem):
    acc, asked = problem
    result = post_process(acc, asked, Ppu(), 64)
    assert result.codes.tolist() == post_process_reference(acc, asked, Ppu())[0].tolist()
    # And by the definition, without the reference.
    each = np.broadcast_to(asked.thresholds, (acc.shape[1], asked.thresholds.shape[-1])).tolist()
    below = np.array(
        [[sum(t < x << asked.acc_shift for t in each[n]) for n, x in enumerate(row)] for row in acc.tolist()]
    )
    low, high = asked.format.code_low, asked.format.code_high
    inverted = isinstance(asked.format, InvertedBinary)
    assert result.codes.tolist() == (high - below if inverted else low + below).tolist()


@pytest.mark.parametrize("inverted", [False, True])
def test_a_binary_output_is_the_sign(inverted):
    number_format = InvertedBinary() if inverted else formats.get("binary")
    expected = [[1, 1, 0]] if inverted else [[0, 0, 1]]
    floats = np.array([[-1e-45, -3.0, -0.0]], np.float32)
    integers = np.array([[-1, INT64_MIN, 0]])
    for ppu in (Ppu(), Ppu(rounding="truncate")):
        for rounding in (None, "float32_half_even", "half_up"):
            for scale in (None, np.array(0.3), np.array([1e-300, 1.0, 5.0])):
                asked = stage(number_format, rounding=rounding, scale=scale)
                for acc in (floats, integers):
                    result = post_process(acc, asked, ppu, 64)
                    assert result.codes.tolist() == expected
                    assert post_process_reference(acc, asked, ppu)[0].tolist() == expected
                    assert result.codes.dtype == np.int32
                    assert result.saturated == 0


def test_comparisons_are_all_the_work():
    def compares(count):
        return Actions({Action("ppu", "compare", (20,)): count})

    assert stage_actions(4, 3, stage("uint4", [1, 2, 3, 4, 5]), Ppu(), 20) == compares(60)
    assert run(np.zeros((4, 3)), "uint4", np.zeros((3, 15)), acc_bits=20).actions == compares(180)
    # A scale that the sign does not need costs nothing.
    assert run(np.zeros((4, 3)), "binary", acc_bits=20, scale=np.array(0.3), rounding="half_up").actions == compares(12)
    assert stage_actions(4, 3, stage("binary"), Ppu(), 20, float_acc=True) == compares(12)


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 1, 3, 4)])
def test_any_shape_keeps_channels_last(shape):
    acc = np.arange(int(np.prod(shape))).reshape(shape)
    thresholds = [[0, 5], [1, 2], [3, 9], [-1, 100]]
    assert run(acc, "uint2", thresholds).codes.shape == shape
    rows = acc.reshape(-1, 4)
    expected = [[sum(t < x for t in row) for x, row in zip(values, thresholds, strict=True)] for values in rows]
    assert run(acc, "uint2", thresholds).codes.reshape(-1, 4).tolist() == expected
    assert run(acc, "binary").codes.shape == shape


@pytest.mark.parametrize(
    ("name", "thresholds", "fields", "message"),
    [
        ("uint2", [1, 2, 3, 4], {}, "4 thresholds make 5 different codes, but uint2 has 4; use 3 or fewer"),
        ("binary", [1, 2], {}, "2 thresholds make 3 different codes, but binary has 2; use 1 or fewer"),
        ("uint4", [3, 1], {}, "^thresholds are not ascending: 1 follows 3 at index 1"),
        ("uint4", [[1, 2, 3], [1, 3, 2]], {}, "thresholds of channel 1 are not ascending: 2 follows 3 at index 2"),
        ("uint4", [INT64_MAX, INT64_MIN], {}, "are not ascending: -9223372036854775808 follows"),
        ("uint4", [[[1]]], {}, r"thresholds have shape \(1, 1, 1\); use \(N, T\), or \(T,\)"),
        ("uint4", [], {}, r"thresholds have shape \(0,\); use .* with T >= 1"),
        ("uint4", [1], {"rounding": "half_up"}, "compared with the accumulator itself; leave out rounding"),
        ("uint4", [1], {"scale": np.array(1.0)}, "compared with the accumulator itself; leave out scale"),
        ("uint4", [1], {"zero_point": np.array(1)}, "compared with the accumulator itself; leave out the zero point"),
        ("uint4", [1], {"acc_shift": -3}, "integer accumulators; these are fixed-point numbers of 3 fraction bits"),
        ("vsq4", [1], {}, "^vsq_int4_v16_s4: thresholds are counted, and a count is an integer or, for one"),
        ("fp16", [1], {}, "^fp16: thresholds are counted"),
        ("po2_3", [1], {}, "^po2_3: thresholds are counted"),
        ("uint4", [1], {"activation": "relu"}, "activation='relu' with thresholds: 'threshold', and only it, has"),
        ("uint4", None, {"activation": "threshold"}, "activation='threshold' with no thresholds"),
        ("uint4", [1], {"activation": "treshold"}, "is unknown; did you mean 'threshold'"),
        (
            "binary",
            None,
            {"activation": "relu"},
            "^binary: the output is the accumulator's sign, and activation 'relu'",
        ),
        ("binary", None, {"activation": "clamp", "clamp": (0, 1)}, "and activation 'clamp' would leave nothing"),
        ("binary", None, {"zero_point": np.array(1)}, "^binary: a format of signs has no zero points; found 1"),
        ("binary", None, {"scale": np.array([1.0, 0.0])}, "which needs a positive scale; found 0.0"),
        ("binary", None, {"multiplier": np.array(-2), "shift": np.array(1)}, "needs a positive multiplier; found -2"),
    ],
)
def test_contradictory_comparisons_are_refused(name, thresholds, fields, message):
    with pytest.raises(FormatError, match=message):
        run([[1, 2]], name, thresholds, **fields)


def test_thresholds_have_the_outputs_channels_and_integer_accumulators():
    wrong = OutputStage(rounding=None, format=formats.get("uint4"), activation="threshold", thresholds=np.array([1.5]))
    with pytest.raises(FormatError, match="thresholds are float64; use int64"):
        post_process(np.array([[1, 2]]), wrong, Ppu(), 32)
    with pytest.raises(ShapeError, match=r"thresholds have shape \(3, 1\); the output has 2 channels: use \(2, T\)"):
        run([[1, 2]], "uint4", [[1], [2], [3]])
    with pytest.raises(FormatError, match="compared with integer accumulators; these are float32"):
        run([[1.0, 2.0]], "uint4", [1], dtype=np.float32)
