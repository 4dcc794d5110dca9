"""VSQ outputs: vectors scaled in integers, against exact fractions, and what VS-Quant promises of them."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim import formats
from accelsim.config.model import Ppu
from accelsim.ppu.multiplier import encode_multiplier
from accelsim.ppu.pipeline import OutputStage, post_process
from accelsim.ppu.requantize_oracle import requantize_one
from accelsim.ppu.vsq_oracle import encode_vector

RULES_FOR_VSQ = ["half_up", "double_half_up_then_away", "float32_half_even", "dyadic_half_even", "truncate"]


@st.composite
def problems(draw):
    rows, channels = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    elements, signed = draw(st.integers(2, 8)), draw(st.booleans())
    size, bits = draw(st.integers(1, 18)), draw(st.integers(1, 12))
    reach = draw(st.sampled_from([0, 3, 300, 1 << 20, (1 << 31) - 1]))
    acc = draw(st.lists(st.integers(-reach - 1, reach), min_size=rows * channels, max_size=rows * channels))
    ppu = Ppu(vsq_guard_bits=draw(st.integers(0, 8)), vsq_scale_rounding=draw(st.sampled_from(["nearest", "up"])))
    stage = OutputStage(
        rounding=draw(st.sampled_from(RULES_FOR_VSQ)),
        format=formats.get(f"vsq_{'' if signed else 'u'}int{elements}_v{size}_s{bits}"),
        scale=np.array(draw(st.lists(st.floats(2.0**-20, 2), min_size=channels, max_size=channels))),
        output_scale=np.array(draw(st.floats(0.001, 2))),
        activation=draw(st.sampled_from(["none", "relu", "relu6"])),
        acc_shift=draw(st.integers(0, 4)),
    )
    return np.array(acc, np.int64).reshape(rows, channels), stage, ppu


def expected_row(row, stage, ppu):
    """Codes, scales and moved codes of one row, one vector after another."""
    guard, size = ppu.vsq_guard_bits, stage.format.blocks.size
    ys = []
    for x, scale in zip(row, stage.scale, strict=True):
        m, s = encode_multiplier(float(scale) * 2.0 ** (guard + stage.acc_shift), stage.rounding)
        y = requantize_one(int(x), m.item(), s.item(), stage.rounding)
        if stage.activation != "none":
            y = max(y, 0)
        if stage.activation == "relu6":
            six = float(6 * 2**guard / float(stage.output_scale))  # float64, then half up (it is positive)
            y = min(y, int(Fraction(six) + Fraction(1, 2)))
        ys.append(y)
    vectors = [
        encode_vector(
            ys[i : i + size],
            stage.format.low,
            stage.format.high,
            stage.format.blocks.scale_bits,
            guard,
            ppu.vsq_scale_rounding == "up",
        )
        for i in range(0, len(ys), size)
    ]
    codes = [code for v in vectors for code in v.codes]
    return codes, [v.scale for v in vectors], sum(v.saturated for v in vectors)


@given(problems())
def test_vsq_output_equals_the_oracle(problem):
    acc, stage, ppu = problem
    result = post_process(acc, stage, ppu, 32)
    rows = [expected_row(row, stage, ppu) for row in acc]
    assert result.codes.tolist() == [codes for codes, _, _ in rows]
    assert result.block_scales.tolist() == [scales for _, scales, _ in rows]
    assert result.saturated == sum(moved for _, _, moved in rows)
    assert result.codes.dtype == result.block_scales.dtype == np.int32


def vsq_of(values, name="vsq_int4_v4_s4", guard=4, rounding="nearest", **fields):
    """Encode integers that are already in units of gamma."""
    stage = OutputStage(rounding="half_up", format=formats.get(name), scale=np.array(1.0), **fields)
    return post_process(np.array(values, np.int64), stage, Ppu(vsq_guard_bits=guard, vsq_scale_rounding=rounding), 32)


def test_a_vector_worked_by_hand():
    # Largest 31: scale 31/7 = 4.43 -> 4. Codes: 31/4 = 7.75 -> 8, limited to 7; -10/4 = -2.5 -> -2 (half up); 6/4 = 1.5
    # -> 2; 1/4 -> 0. Second vector, ragged: largest 3, 3/7 = 0.43 -> 0, so all zeros.
    result = vsq_of([[31, -10, 6, 1, 3, -3]])
    assert result.codes.tolist() == [[7, -2, 2, 0, 0, 0]]
    assert result.block_scales.tolist() == [[4, 0]]
    assert result.saturated == 1
    # Rounded up: 5 and 1. 31/5 = 6.2; -2; 1.2; 0.2.
    result = vsq_of([[31, -10, 6, 1, 3, -3]], rounding="up")
    assert result.codes.tolist() == [[6, -2, 1, 0, 3, -3]]
    assert result.block_scales.tolist() == [[5, 1]]
    assert result.saturated == 0
    # 3.5 / 7 is exactly a half: up to 1 (7 with one guard bit is 3.5; the scale 0.5 halves each value).
    stage = OutputStage(rounding="half_up", format=formats.get("vsq_int4_v4_s4"), scale=np.array(0.5))
    assert post_process(np.array([[7]]), stage, Ppu(vsq_guard_bits=1), 32).block_scales.tolist() == [[1]]


def test_unsigned_elements_lose_negative_values_and_say_so():
    # Largest 30 of 15: scale 2. -8/2 = -4, limited to 0.
    result = vsq_of([[30, -8, 9, 0]], "vsq_uint4_v4_s4")
    assert result.codes.tolist() == [[15, 0, 5, 0]]
    assert result.saturated == 1
    relu = vsq_of([[30, -8, 9, 0]], "vsq_uint4_v4_s4", activation="relu")
    assert relu.codes.tolist() == [[15, 0, 5, 0]]
    assert relu.saturated == 0
    # Only negative values: the scale is 0, and so are the codes.
    lost = vsq_of([[-30, -8, -9, -1]], "vsq_uint4_v4_s4")
    assert lost.codes.tolist() == [[0, 0, 0, 0]]
    assert lost.block_scales.tolist() == [[0]]


def test_relu6_acts_before_the_vectors_are_scaled():
    # gamma = 0.5: 6.0 is 12 units. Without it the scale would be 100/7 -> 14.
    result = vsq_of([[100, 5, 12, 13]], activation="relu6", output_scale=np.array(0.5))
    assert result.block_scales.tolist() == [[2]]  # 12 / 7 = 1.71
    assert result.codes.tolist() == [[6, 3, 6, 6]]  # 6, 2.5 -> 3, 6, 6


def test_the_scale_saturates_at_its_width():
    result = vsq_of([[1000, 70, -1000, 0]], "vsq_int4_v4_s2")  # scales to 3
    assert result.block_scales.tolist() == [[3]]
    assert result.codes.tolist() == [[7, 7, -7, 0]]
    assert result.saturated == 3  # 1000 / 3 twice, and 70 / 3


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=16), st.integers(0, 8))
def test_a_scale_that_is_rounded_up_never_saturates(values, guard):
    result = vsq_of([values], "vsq_int4_v16_s12", guard, "up")
    assert result.saturated == 0
    decoded = result.codes[0] * result.block_scales[0]
    assert np.all(np.abs(decoded - np.array(values)) * 2 <= result.block_scales[0])


@pytest.mark.parametrize("guard", [0, 8])
def test_the_largest_accumulators_do_not_overflow(guard):
    stage = OutputStage(rounding="half_up", format=formats.get("vsq_int8_v2_s12"), scale=np.array(2.0**20))
    acc = np.array([[np.iinfo(np.int64).max, np.iinfo(np.int64).min]])
    result = post_process(acc, stage, Ppu(vsq_guard_bits=guard), 64)
    assert result.codes.tolist() == [[127, -127]]
    assert result.block_scales.tolist() == [[4095]]
    assert result.saturated == 2


def test_the_output_feeds_the_next_layer():
    """Decoded codes are the real outputs to within half a step of their vector."""
    rng = np.random.default_rng(7)
    acc = rng.integers(-100_000, 100_000, (6, 40))
    gamma, scale = 0.01, 3e-5
    stage = OutputStage(
        rounding="half_up", format=formats.get("vsq8"), scale=np.array(scale / gamma), output_scale=np.array(gamma)
    )
    result = post_process(acc, stage, Ppu(vsq_guard_bits=8, vsq_scale_rounding="up"), 32)
    tensor = formats.make_qtensor(
        result.codes, stage.format, np.array(gamma), block_axis=1, block_scales=result.block_scales
    )
    steps = np.repeat(result.block_scales, 16, axis=1)[:, :40] * gamma
    assert np.all(np.abs(tensor.dequantize() - acc * scale) <= 0.5 * steps + gamma / 256)
