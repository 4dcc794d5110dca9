"""`convert` between formats of every kind: equal to its oracle, near what the format makes of the numbers, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim
from accelsim import TraceBuilder, formats
from accelsim.energy.operations import OPERATIONS
from accelsim.errors import FormatError, TraceError
from accelsim.mapping.vector import operand_of
from accelsim.operators.registry import OPERATORS, attributes_of
from accelsim.operators.spec import Blocked, TensorSpec

CONVERT, NOTHING = OPERATORS["convert"], attributes_of("convert", {})
NAMES = ("int8", "uint8", "int16", "int4", "vsq4", "uvsq8", "mx9", "mx6", "mx4", "mxfp4", "mxfp8_e4m3", "mxint8")
NAMES += ("nvfp4", "fp8_e5m2", "bf16", "po2_4", "binary")


def parts(made):
    return (made.codes, made.block_scales) if isinstance(made, Blocked) else (np.asarray(made), None)


def scales(form):
    if form.datapath == "shift":
        return st.integers(-8, 2).map(lambda exponent: 2.0**exponent)
    own = form.datapath == "block_float" and form.name != "nvfp4"  # MX tensors have no scale besides the blocks'
    return st.just(1.0) if own or form.name == "bf16" else st.floats(1e-3, 4.0)


@st.composite
def conversions(draw):
    source, target = formats.get(draw(st.sampled_from(NAMES))), formats.get(draw(st.sampled_from(NAMES)))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 40)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = generator.standard_normal(shape) * 2.0 ** generator.integers(-8, 8, (shape[0], 1))
    values *= generator.random(shape) < 0.9
    if source.low >= 0:
        values = np.abs(values)
    x = source.quantize(values, scale=draw(scales(source)))
    if source.name in ("int8", "uint8"):
        x = formats.make_qtensor(x.codes, source, x.scale, draw(st.integers(source.low, source.high)))
    scale = draw(scales(target))
    zero = draw(st.integers(target.low, target.high)) if target.zero_points != (0, 0) and target.lane_bits < 16 else 0
    return x, TensorSpec(shape, target, scale, zero)


@settings(max_examples=150)
@given(conversions())
def test_run_equals_the_oracle(case):
    x, output = case
    CONVERT.check([operand_of(x)], output, NOTHING)
    codes, scales = parts(CONVERT.run([operand_of(x)], output, NOTHING))
    again, scales_again = parts(CONVERT.oracle([operand_of(x)], output, NOTHING))
    assert np.array_equal(codes, again.reshape(codes.shape))
    assert (scales is None) == (output.format.blocks is None) == (scales_again is None)
    if scales is not None:
        assert np.array_equal(scales, scales_again)
    work = CONVERT.work([operand_of(x)], output, NOTHING)
    for action, count in work.actions.items():
        assert len(action.params) == len(OPERATIONS[action.operation].params)
        assert count > 0


@settings(max_examples=100)
@given(conversions())
def test_a_conversion_keeps_what_the_output_can_hold(case):
    """Converting is quantizing the input's real numbers, up to the float32 rounding of one product."""
    x, output = case
    codes, scales = parts(CONVERT.run([operand_of(x)], output, NOTHING))
    made = formats.make_qtensor(codes, output.format, output.scale, output.zero_point, block_scales=scales)
    best = output.format.quantize(x.dequantize(), scale=output.scale, zero_point=output.zero_point or None)
    error, least = (np.abs(each.dequantize() - x.dequantize()).max() for each in (made, best))
    assert error <= least * (1 + 1e-4) + 1e-6 * np.abs(x.dequantize()).max()


def test_by_hand():
    """int8 codes 3, -5 with scale 0.5 and zero point 1 mean 1 and -3; in fp4 (E2M1: 0, .5, 1, 1.5, 2, 3, 4, 6) with
    scale 0.5 that is 2 and -6, codes 0b0100 and 0b1111; in int8 with scale 0.4 it is 2.5 -> 2 and -7.5 -> -8.
    """
    x = formats.make_qtensor([3, -5], formats.get("int8"), 0.5, 1)
    for name, scale, wanted in (("fp4_e2m1", 0.5, [0b0100, 0b1111]), ("int8", 0.4, [2, -8])):
        output = TensorSpec((2,), formats.get(name), scale, 0)
        assert CONVERT.run([operand_of(x)], output, NOTHING).tolist() == wanted


def test_it_runs_in_a_trace_with_blocks_on_both_sides(project_root):
    generator = np.random.default_rng(3)
    net = TraceBuilder("there and back")
    x = net.input("x", formats.get("int8").quantize(generator.standard_normal((2, 3, 3, 20)), asymmetric=True))
    blocked = net.vector("to_mx6", "convert", [x], output="mx6", scale=1.0)
    weight = formats.get("mx6").quantize(generator.standard_normal((5, 20)))
    net.linear("fc", blocked, weight, output="mx6", scale=1.0, rounding="float32_half_even")
    net.vector("back", "convert", ["fc.out"], output="int8", scale=0.1)
    report = accelsim.simulate(accelsim.load_config(project_root / "configs/mx6.yaml"), net.build(), verify=True)
    assert [layer.verified for layer in report.layers] == [0, 0, 0]
    first = report.layers[0]
    assert first.cycles.total > 0
    assert first.energy_pj["vector"] > 0
    # Scales of microexponents follow from the block alone, so converting is quantizing.
    wanted = formats.get("mx6").quantize(net.build().tensor("x").dequantize())
    assert np.array_equal(first.output_codes, wanted.codes)
    assert np.array_equal(first.output_block_scales, wanted.block_scales)


def test_other_operators_still_take_no_blocks():
    net = TraceBuilder("no")
    x = net.input("x", formats.get("mx6").quantize(np.ones((1, 16))))
    net.vector("r", "clip", [x], output="int8", scale=1.0, attributes={"minimum": 0.0, "maximum": 1.0})
    with pytest.raises(TraceError, match="'x' has scales of channels or blocks; the vector unit takes one scale"):
        net.build()


def test_what_needs_a_table_is_refused():
    x = operand_of(formats.get("int8").quantize(np.ones(4)))
    with pytest.raises(FormatError, match="kmeans4 is converted neither to nor from"):
        CONVERT.check([x], TensorSpec((4,), formats.get("kmeans4"), 1.0, 0), NOTHING)
