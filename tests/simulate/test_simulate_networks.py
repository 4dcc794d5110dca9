"""Whole runs on random layers: the independent integer reference confirms every code, and both engines agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim import TraceBuilder, formats, load_config, simulate
from accelsim.config.model import Array, HardwareConfig, Port, Ppu, Register, ScaleUnit
from accelsim.errors import UnsupportedLayerError
from accelsim.report.render import render_text
from accelsim.rounding import RULES

INTEGER_RULES = [name for name, rule in RULES.items() if rule.multiplier == "integer"]


def machine(dataflow="ws", rows=4, cols=4, lanes=1, psum=(32, "wrap"), acc=(32, "wrap"), rounding="trace", **options):
    """A small machine that takes operands of up to 9 bits and VSQ."""
    return HardwareConfig(
        name="test",
        clock_mhz=500.0,
        array=Array(
            rows=rows,
            cols=cols,
            dataflow=dataflow,
            lanes=lanes,
            weight=Port(bits=9),
            activation=Port(bits=9),
            psum=Register(bits=psum[0], overflow=psum[1]),
            scale_unit=ScaleUnit(product_bits=options.pop("product_bits", None)),
            **options,
        ),
        accumulator=Register(bits=acc[0], overflow=acc[1]),
        ppu=Ppu(rounding=rounding, lanes=3),
    )


@st.composite
def machines(draw, lanes=(1, 2, 4)):
    dataflow = draw(st.sampled_from(["os", "ws", "is"]))
    register = st.tuples(st.sampled_from([10, 14, 18, 32, 48]), st.sampled_from(["wrap", "saturate"]))
    return machine(
        dataflow,
        rows=draw(st.sampled_from([1, 2, 4, 8])),
        cols=draw(st.integers(1, 5)),
        lanes=draw(st.sampled_from(lanes)),
        psum=draw(register),
        acc=draw(register),
        rounding=draw(st.sampled_from(["trace", "trace", "half_up", "truncate", "float32_half_even"])),
        product_bits=draw(st.sampled_from([None, 3, 6])),
        skip_unused=draw(st.booleans()),
        double_buffered=dataflow != "os" and draw(st.booleans()),
        drain_overlap=dataflow == "os" and draw(st.booleans()),
    )


def integer_tensor(rng, shape, name, axis=None, asymmetric=False):
    return formats.get(name).quantize(rng.normal(0.3, 1, shape), axis, asymmetric=asymmetric)


@st.composite
def integer_networks(draw):
    """conv2d (grouped, dilated, strided, padded; weights may be asymmetric) -> linear -> raw accumulators."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups, group_in, group_out = draw(st.sampled_from([(1, 3, 2), (2, 2, 3), (3, 1, 1), (2, 1, 2)]))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    builder = TraceBuilder("random")
    x = builder.input(
        "x",
        integer_tensor(rng, (2, 6, 5, groups * group_in), draw(st.sampled_from(["uint8", "int8", "int5"])), None, True),
    )
    weight = integer_tensor(
        rng,
        (groups * group_out, *kernel, group_in),
        draw(st.sampled_from(["int8", "int4", "uint3"])),
        draw(st.sampled_from([None, 0])),
        draw(st.booleans()),
    )
    y = builder.conv2d(
        "conv",
        x,
        weight,
        bias=rng.normal(size=groups * group_out) if draw(st.booleans()) else None,
        output=draw(st.sampled_from(["uint8", "int8"])),
        scale=draw(st.sampled_from([0.02, 0.0625])),
        zero_point=draw(st.sampled_from([0, 7])),
        stride=draw(st.sampled_from([1, 2, (2, 1)])),
        padding=draw(st.sampled_from([0, 1, "same", ((0, 1), (2, 0))])),
        dilation=draw(st.sampled_from([1, (1, 2)])),
        groups=groups,
        rounding=draw(st.sampled_from(list(RULES))),
        activation=draw(st.sampled_from(["none", "relu", "relu6"])),
    )
    features = int(np.prod(builder.build().tensor_meta(y).shape[1:]))
    fc = integer_tensor(rng, (3, features), "int8", 0, draw(st.booleans()))
    builder.linear("fc", y, fc, output="int32", rounding=None, flatten=True)
    return builder.build()


def codes(report):
    return [layer.output_codes for layer in report.layers]


@given(integer_networks(), machines())
@settings(max_examples=80)
def test_integer_networks(trace, config):
    fast = simulate(config, trace, "fast", verify=True)
    assert [layer.verified for layer in fast.layers] == [0, 0]
    stepped = simulate(config, trace, "stepped", verify=True)
    for a, b in zip(fast.layers, stepped.layers, strict=True):
        assert a == b
        np.testing.assert_array_equal(a.output_codes, b.output_codes)
    for less in ({"watch": False}, {"extremes": False}):
        proved = simulate(config, trace, **less)
        for a, b in zip(fast.layers, proved.layers, strict=True):
            np.testing.assert_array_equal(a.output_codes, b.output_codes)
            for register in ("psum", "accumulator"):
                watched, bound = a.overflow[register], b.overflow[register]
                assert (watched.count, watched.first) == (bound.count, bound.first)
                assert bound.low <= watched.low <= watched.high <= bound.high


@st.composite
def vsq_networks(draw):
    """conv2d with ragged vectors -> linear, in VSQ with vectors of 4."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels = draw(st.sampled_from([1, 3, 4, 6]))
    activations, weights = formats.get("vsq_uint4_v4_s4"), formats.get("vsq_int4_v4_s3")
    builder = TraceBuilder("random_vsq")
    x = builder.input("x", activations.quantize(rng.random((2, 4, 4, channels))))
    y = builder.conv2d(
        "conv",
        x,
        weights.quantize(rng.normal(size=(8, 3, 2, channels)), channel_axis=0),
        bias=rng.normal(size=8),
        output=draw(st.sampled_from(["vsq_uint4_v4_s4", "vsq_int4_v4_s4"])),
        scale=draw(st.sampled_from([0.01, 0.03])),
        padding=draw(st.sampled_from([0, "same"])),
        rounding=draw(st.sampled_from([rule for rule in INTEGER_RULES if rule != "half_away_17bit"])),
        activation=draw(st.sampled_from(["none", "relu", "relu6"])),
    )
    shape = builder.build().tensor_meta(y).shape
    fc = weights.quantize(rng.normal(size=(5, int(np.prod(shape[1:])))), channel_axis=0)
    builder.linear("fc", y, fc, output="int8", scale=0.1, rounding="half_up", flatten=True)
    return builder.build()


@given(vsq_networks(), machines(lanes=(1, 2, 4, 8)))
@settings(max_examples=60)
def test_vsq_networks(trace, config):
    if config.array.dataflow != "os" and config.array.rows % max(1, 4 // config.array.lanes):
        with pytest.raises(UnsupportedLayerError, match="would straddle two folds"):
            simulate(config, trace)
        return
    fast = simulate(config, trace, "fast", verify=True)
    assert [layer.verified for layer in fast.layers] == [0, 0]
    stepped = simulate(config, trace, "stepped", verify=True)
    assert fast.layers == stepped.layers
    for a, b in zip(codes(fast), codes(stepped), strict=True):
        np.testing.assert_array_equal(a, b)


@given(st.integers(0, 2**32 - 1), st.booleans(), machines())
@settings(max_examples=50)
def test_products_of_two_activations(seed, transposed, config):
    rng = np.random.default_rng(seed)
    builder = TraceBuilder("attention")
    q = builder.input("q", integer_tensor(rng, (2, 3, 4, 5), "uint8", None, True), ("batch", "head", "row", "channel"))
    shape = (2, 3, 6, 5) if transposed else (2, 3, 5, 6)
    k = builder.input("k", integer_tensor(rng, shape, "int8", None, True), ("batch", "head", "row", "channel"))
    builder.matmul("scores", q, k, output="int8", scale=0.05, zero_point=-3, transpose_other=transposed)
    fast = simulate(config, builder.build(), "fast", verify=True)
    assert fast.layers[0].verified == 0
    assert fast.layers == simulate(config, builder.build(), "stepped", verify=True).layers


def test_both_zero_points_cost_a_column_and_a_row():
    rng = np.random.default_rng(0)
    x, w = rng.random((1, 4, 6)), rng.random((1, 6, 4))
    shapes = {}
    for asymmetric in (False, True):
        builder = TraceBuilder("product")
        names = ("batch", "row", "channel")
        a = builder.input("a", formats.get("uint8").quantize(x - 0.5 * asymmetric, asymmetric=asymmetric), names)
        b = builder.input("b", formats.get("uint8").quantize(w - 0.5 * asymmetric, asymmetric=asymmetric), names)
        builder.matmul("ab", a, b, output="int8", scale=0.05)
        report = simulate(machine(), builder.build(), verify=True)
        (layer,) = report.layers
        assert (layer.verified, layer.macs) == (0, 4 * 6 * 4)
        shapes[asymmetric] = (layer.shape.m, layer.shape.n, layer.cycles.total, layer.total_energy_pj)
    assert shapes[False][:2] == (4, 4)
    assert shapes[True][:2] == (5, 5)  # the sums of rows and columns are outputs of their own...
    assert shapes[True][2] > shapes[False][2]  # ... here in a second column fold
    assert shapes[True][3] > shapes[False][3]


def test_energy_adds_up_exactly_over_components_layers_and_run(project_root):
    from accelsim import load_config, load_trace

    report = simulate(
        load_config(project_root / "configs/int8_os.yaml"),
        load_trace(project_root / "traces/digits_cnn_int8.npz").head(5),
    )
    totals = report.totals
    assert sum(totals.energy_pj.values()) == totals.total_energy_pj
    assert sum(layer.total_energy_pj for layer in report.layers) == totals.total_energy_pj
    for component, energy in totals.energy_pj.items():
        assert sum(layer.energy_pj[component] for layer in report.layers) == energy
    assert totals.total_cycles == sum(totals.cycles.by_cause().values())


def test_fake_quantization_differs_by_about_a_step(project_root):
    """Yao et al. (HAWQ-V3): the distance of simulated quantization from integer hardware is O(1) output steps."""
    from accelsim import load_config, load_trace

    report = simulate(
        load_config(project_root / "configs/int8_ws.yaml"), load_trace(project_root / "traces/digits_cnn_int8.npz")
    )
    assert any(layer.fake_quant.max_steps >= 1 for layer in report.layers)
    assert all(layer.fake_quant.max_steps <= 4 for layer in report.layers)
    assert all(0 <= layer.fake_quant.differing < 0.1 for layer in report.layers)


def test_memory_keeps_only_what_is_still_needed():
    """A chain of layers: after each one only its own output is alive."""
    rng = np.random.default_rng(0)
    builder = TraceBuilder("chain")
    x = builder.input("x", integer_tensor(rng, (2, 8), "int8"))
    for index in range(4):
        x = builder.linear(f"fc{index}", x, integer_tensor(rng, (8, 8), "int8", 0), output="int8", scale=0.05)
    trace = builder.build()
    alive = []
    from accelsim import simulate as entry
    from accelsim.simulation.walk import Walk

    original, seen = Walk.layer, alive.append

    def spy(self, index, layer):
        result = original(self, index, layer)
        seen(sorted(self.tensors))
        return result

    Walk.layer = spy
    try:
        entry(machine(), trace)
    finally:
        Walk.layer = original
    assert alive == [[layer.output] for layer in trace.layers[:-1]] + [[]]


def test_the_cycle_of_the_earliest_overflow_is_the_stepped_engines(project_root):
    """Registers of 16 bits overflow: in the cycle in which the stepped machine's overflow count leaves 0."""
    from accelsim.engine import stepped_kernels
    from accelsim.engine.stepped import build_machine

    config = load_config(project_root / "configs" / "int8_os.yaml")
    narrow = config.array.psum.model_copy(update={"bits": 16})
    array = config.array.model_copy(update={"psum": narrow, "rows": 4, "cols": 4, "lanes": 1})
    config = config.model_copy(update={"array": array})
    rng = np.random.default_rng(5)
    net = TraceBuilder("narrow")
    x = net.input("x", formats.make_qtensor(rng.integers(-128, 128, (6, 40)), formats.get("int8"), 0.1))
    weight = formats.make_qtensor(rng.integers(-128, 128, (7, 40)), formats.get("int8"), 0.1)
    net.linear("fc", x, weight, output="int8", scale=20.0)
    seen = []
    report = simulate(config, net.build(), inspect=lambda name, operands, plan: seen.append((operands, plan)))
    psum = report.layers[0].overflow.psum
    assert psum.count > 0
    machine, cycle = build_machine(*seen[0]), 0
    while not machine.log.counts[stepped_kernels.PSUM_OVERFLOW]:
        machine.advance()
        cycle += 1
    assert psum.earliest_cycle == cycle - 1  # the sum latches at the end of that cycle
    assert f"the earliest is in cycle {cycle - 1}" in " ".join(render_text(report).split())


@settings(max_examples=12)
@given(
    st.sampled_from([((2, 3), (2, 3)), ((2, 3), (1, 3)), ((2, 3), (1, 1)), ((1, 3), (2, 1)), ((2,), (1,)), ((), ())]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_products_broadcast_and_take_constants(leading, transposed, constant, seed):
    """NumPy's own broadcasting of whole products is the reference; both engines and the integer oracle agree."""
    rng, (a_lead, b_lead) = np.random.default_rng(seed), leading
    a = formats.get("int8").quantize(rng.normal(size=(*a_lead, 3, 5)))
    b = formats.get("int8").quantize(rng.normal(size=(*b_lead, 4, 5) if transposed else (*b_lead, 5, 4)))
    net = TraceBuilder("products")
    other = b if constant else net.input("b", b)
    net.matmul("product", net.input("a", a), other, transpose_other=transposed, rounding=None)
    for engine in ("fast", "stepped"):
        (layer,) = simulate(machine(), net.build(), engine, verify=True).layers
        right = b.codes.swapaxes(-1, -2) if transposed else b.codes
        np.testing.assert_array_equal(layer.output_codes, a.codes.astype(np.int64) @ right)
        assert layer.verified == 0
