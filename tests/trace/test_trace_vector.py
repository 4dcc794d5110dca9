"""Operators of the vector unit in a trace: named, checked, stored, read, run."""

from pathlib import Path

import numpy as np
import pytest

from accelsim import formats, load_config, load_trace, simulate
from accelsim.errors import AccelsimError, TraceError
from accelsim.trace.builder import TraceBuilder

ROOT = Path(__file__).parents[2]
INT8 = formats.get("int8")


def tensor(*shape, scale=0.5, seed=0):
    codes = np.random.default_rng(seed).integers(-128, 128, shape)
    return formats.make_qtensor(codes, INT8, scale)


def reshaped(net, **options):
    x = net.input("x", tensor(2, 4, 3))
    options = {"attributes": {"shape": (2, 12)}, "output": "int8", "scale": 0.5, **options}
    return net.vector("flat", "reshape", [x], **options)


def test_an_operator_is_stored_and_read_again(tmp_path):
    net = TraceBuilder("v")
    flat = reshaped(net)
    net.linear("fc", flat, tensor(5, 12, seed=1), output="int8", scale=8.0)
    net.save(tmp_path / "v.npz")
    trace = load_trace(tmp_path / "v.npz")
    trace.check_arrays()
    layer = trace.layers[0]
    assert (layer.op, layer.operator, layer.inputs, layer.output) == ("vector", "reshape", ("x",), "flat.out")
    assert layer.attributes == {"shape": [2, 12]}
    assert trace.tensor_meta("flat.out").shape == (2, 12)
    assert trace.describe()[0]["op"] == "reshape"
    report = simulate(load_config(ROOT / "configs" / "int8_ws.yaml"), trace, verify=True)
    assert report.totals.verified == 0
    assert (report.layers[0].output_codes == trace.tensor("x").codes.reshape(2, 12)).all()
    assert (report.layers[0].macs, report.layers[0].total_cycles) == (0, 0)  # addresses alone


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"attributes": {"shape": (2, 13)}}, "layer 'flat': "),
        ({"attributes": {}}, "layer 'flat': attributes of reshape: shape: Field required"),
        ({"attributes": {"shape": (2, 12), "axis": 1}}, "layer 'flat': attributes of reshape: axis: Extra inputs"),
        ({"output": None}, "layer 'flat': say the output's number format and scale"),
        ({"scale": -1.0}, "the output's scale is one finite number greater than 0"),
    ],
)
def test_refused_when_it_is_built(options, sentence):
    with pytest.raises(TraceError) as raised:
        reshaped(TraceBuilder("v"), **options)
    assert sentence in str(raised.value)


def test_unknown_operators_and_tensors():
    net = TraceBuilder("v")
    x = net.input("x", tensor(2, 4))
    with pytest.raises(TraceError, match="unknown operator 'reshap'; did you mean 'reshape'"):
        net.vector("v", "reshap", [x], output="int8", scale=0.5)
    with pytest.raises(TraceError, match="unknown tensor 'y'"):
        net.vector("v", "reshape", ["y"], output="int8", scale=0.5, attributes={"shape": (8,)})


def test_a_meaning_that_changes_on_the_way_is_refused_when_it_runs():
    net = TraceBuilder("v")
    reshaped(net, scale=0.25)
    with pytest.raises(AccelsimError, match=r"layer 'flat': codes only move, but one tensor is int8 with scale 0.5"):
        simulate(load_config(ROOT / "configs" / "int8_ws.yaml"), net.build())


def test_a_result_without_dimensions_and_a_giant_one_are_refused():
    net = TraceBuilder("v")
    x = net.input("x", tensor(2, 4))
    with pytest.raises(TraceError, match="makes a single number without dimensions"):
        net.vector("m", "mean", [x], output="int8", scale=0.5, attributes={"axes": (0, 1), "keepdims": False})
    net.vector("p", "pad", [x], output="int8", scale=0.5, attributes={"padding": ((0, 1 << 20), (0, 1 << 20))})
    with pytest.raises(TraceError, match="more than the limit of"):
        net.build()


def test_whose_arithmetic_a_trace_follows_is_kept(tmp_path):
    net = TraceBuilder("v", semantics="tflite-micro")
    reshaped(net)
    net.save(tmp_path / "v.npz")
    assert load_trace(tmp_path / "v.npz").meta.semantics == "tflite-micro"


# -- the first inputs of a batch --


def moved_network(rows=4):
    """Everything that names sizes of the batch: reshapes (which join inputs' rows, too) and slices."""
    net = TraceBuilder("moves")
    x = net.input("x", tensor(rows, 4, 6))
    y = net.vector("rows", "reshape", [x], attributes={"shape": (rows * 2, 12)}, output="int8", scale=0.5)
    y = net.linear("fc", y, tensor(5, 12, seed=1), output="int8", scale=8.0)
    y = net.vector("back", "reshape", [y], attributes={"shape": (rows, 2, 5)}, output="int8", scale=8.0)
    cut = {"begin": (0, 1, 0), "size": (rows, 1, 5)}
    y = net.vector("cut", "slice", [y], attributes=cut, output="int8", scale=8.0)
    z = net.vector("turned", "transpose", [y], attributes={"axes": (0, 2, 1)}, output="int8", scale=8.0)
    net.output(net.matmul("product", z, y, output="int8", scale=50.0))
    net.labels(np.arange(rows))
    return net


def test_the_first_inputs_are_run_alone():
    machine = load_config(ROOT / "configs" / "int8_ws.yaml")
    whole, head = (simulate(machine, trace) for trace in (moved_network().build(), moved_network().build().head(3)))
    for mine, theirs in zip(head.layers, whole.layers, strict=True):
        count = len(theirs.output_codes) * 3 // 4
        np.testing.assert_array_equal(mine.output_codes, theirs.output_codes[:count], err_msg=mine.name)
    assert moved_network().build().head(3).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("operator", "attributes", "words"),
    [
        ("transpose", {"axes": (1, 0, 2)}, "transpose works along the batch"),
        ("mean", {"axes": (-3,)}, "mean works along the batch"),
        ("slice", {"begin": (1, 0, 0), "size": (3, 4, 6)}, "a slice takes some of the inputs only"),
        ("reshape", {"shape": (1, 4, 24)}, "a reshape from (4, 4, 6) to (1, 4, 24) joins inputs"),
        ("pad", {"padding": ((1, 0), (0, 0), (0, 0))}, "pad works along the batch"),
    ],
)
def test_what_mixes_inputs_cannot_be_cut(operator, attributes, words):
    net = TraceBuilder("mixed")
    x = net.input("x", tensor(4, 4, 6))
    net.vector("mix", operator, [x], attributes=attributes, output="int8", scale=0.5)
    with pytest.raises(TraceError) as raised:
        net.build().head(3)
    assert str(raised.value) == f"trace 'mixed': layer 'mix': the batch cannot be cut: {words}"
