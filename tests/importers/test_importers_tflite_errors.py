"""What is wrong with a model or its data is said in one message, before anything is written."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_tools import PADDING, Maker, reference_tensors
from typer.testing import CliRunner

from accelsim import AccelsimError, cli, import_model, load_trace
from accelsim.errors import ModelError

DATA = np.zeros((3, 6, 6, 2), np.int8)


def maker():
    """A convolution, a ReLU and a fully connected layer: (maker, input, tensors)."""
    rng, net = np.random.default_rng(0), Maker()
    x = net.tensor((1, 6, 6, 2), "INT8", 0.05, -3, name="image")
    w = net.constant(rng.integers(-127, 128, (4, 3, 3, 2)).astype(np.int8), None, [0.01, 0.02, 0.03, 0.04])
    b = net.constant(rng.integers(-99, 99, 4).astype(np.int32), None, 0.01)
    y = net.tensor((1, 3, 3, 4), "INT8", 0.2, 5, name="features")
    conv = {"padding": PADDING.SAME, "strideH": 2, "strideW": 2}
    net.op("CONV_2D", [x, w, b], [y], "Conv2DOptions", version=3, **conv)
    z = net.tensor((1, 3, 3, 4), "INT8", 0.2, 5, name="more")
    net.op("RELU", [y], [z])
    fw = net.constant(rng.integers(-127, 128, (3, 36)).astype(np.int8), None, 0.01)
    out = net.tensor((1, 3), "INT8", 0.3, 1, name="classes")
    net.op("FULLY_CONNECTED", [z, fw, -1], [out], "FullyConnectedOptions", version=4)
    return net, [x], [y, z, out]


def saved(folder, net, inputs, outputs):
    return net.save(folder / "net.tflite", inputs, outputs)


@pytest.fixture
def model(tmp_path):
    net, inputs, made = maker()
    return saved(tmp_path, net, inputs, made[-1:])


def message(path, data=DATA, **options):
    with pytest.raises(ModelError) as caught:
        import_model(path, data, **options)
    return str(caught.value)


# -- the file --


def test_the_missing_library_is_named_with_the_command_that_installs_it(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite", None)
    assert message(model) == (
        "reading TFLite files needs the package 'tflite' (tflite cannot be imported); "
        "install it with: pip install 'accelsim[import]'"
    )


def test_files_that_are_no_models(tmp_path):
    text = tmp_path / "text.tflite"
    text.write_text("no model at all")
    assert message(str(text)) == f"{text}: is not a TFLite file (bytes 4 to 7 are b'odel', not b'TFL3')"
    assert message(str(tmp_path / "none.tflite")).endswith("none.tflite: No such file or directory")
    (tmp_path / "empty.tflite").touch()
    assert "has 0 bytes" in message(str(tmp_path / "empty.tflite"))
    assert "files that end in .pb cannot be imported; importers read .tflite, .onnx" in message("net.pb")


def test_a_truncated_file_is_damaged(model):
    content = Path(model).read_bytes()
    Path(model).write_bytes(content[: len(content) // 2])
    assert message(model).startswith(f"{model}: is damaged: ")


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(8, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_damage_leads_to_anything_but_a_message(tmp_path_factory, damage):
    net, inputs, made = maker()
    path = Path(saved(tmp_path_factory.mktemp("damaged"), net, inputs, made[-1:]))
    content = bytearray(path.read_bytes())
    for place, value in damage:
        content[8 + place % (len(content) - 8)] = value
    path.write_bytes(content)
    try:
        import_model(path, DATA).describe()
    except AccelsimError as error:
        assert str(error)  # noqa: PT017 (either is right: much damage only changes numbers)


def test_a_shape_that_is_too_large_is_refused_before_anything_is_made(tmp_path):
    net, inputs, made = maker()
    net.tensors[made[0]].shape = [1, 1 << 20, 1 << 20, 4]
    assert "tensor 3 ('features'): declares shape (1, 1048576, 1048576, 4)" in message(
        saved(tmp_path, net, inputs, made[-1:])
    )


def test_a_shape_that_contradicts_the_operators(tmp_path):
    net, inputs, made = maker()
    net.tensors[made[0]].shape = [1, 4, 3, 4]
    assert "tensor 'features': declares (3, 4, 3, 4), but is (3, 3, 3, 4)" in message(
        saved(tmp_path, net, inputs, made[-1:])
    )


def test_a_constant_of_another_size_than_its_shape(tmp_path):
    net, inputs, made = maker()
    net.tensors[1].shape = [4, 3, 3, 3]
    assert "INT8 of shape (4, 3, 3, 3) takes 108 bytes, but the file has 72" in message(
        saved(tmp_path, net, inputs, made[-1:])
    )


def test_scales_that_are_no_scales(tmp_path):
    net, inputs, made = maker()
    net.tensors[1].quantization.scale = [0.01, 0.0, 0.03, 0.04]
    assert "its scales span 0.0 to 0.0" in message(saved(tmp_path, net, inputs, made[-1:]))
    net.tensors[1].quantization.scale = [0.01, 0.02, 0.03]
    assert "has 3 scales along axis 0 of shape (4, 3, 3, 2)" in message(saved(tmp_path, net, inputs, made[-1:]))


def test_a_cycle(tmp_path):
    net, inputs, (_y, z, out) = maker()
    net.op("ADD", [out, z], [net.tensor((1, 3, 3, 4), "INT8", 0.2, 5)], "AddOptions")
    net.operators[1].inputs = [net.operators[3].outputs[0]]
    assert (
        "operator 1 (RELU): reads tensor 7 ('tensor/7;x'), which operator 3 computes later: the graph has a cycle"
        in (message(saved(tmp_path, net, inputs, [out])))
    )


def test_a_tensor_that_nobody_or_two_compute(tmp_path):
    net, inputs, (_y, z, out) = maker()
    net.operators[2].inputs[0] = net.tensor((1, 36), "INT8", 0.2, 5, name="lost")
    assert "operator 2 (FULLY_CONNECTED): reads tensor 7 ('lost'), which nothing computes" in message(
        saved(tmp_path, net, inputs, [out])
    )
    net.operators[2].inputs[0], net.operators[2].outputs = z, [z]
    assert "operator 2 (FULLY_CONNECTED): computes tensor 4, which operator 1 has computed" in message(
        saved(tmp_path, net, inputs, [z])
    )


# -- what is not supported --


def test_everything_that_is_not_supported_is_in_one_message_with_the_way_out(tmp_path):
    net, inputs, (_y, _z, out) = maker()
    sine, floats = net.tensor((1, 3), "INT8", 0.3, 1), net.tensor((1, 3), "INT8", 0.3, 1)
    net.op("SIN", [out], [sine])
    net.op("LSTM", [sine], [floats])
    path = saved(tmp_path, net, inputs, [floats])
    assert message(path) == (
        f"{path}: 2 problems\n"
        "  3_sin (SIN): SIN cannot be imported\n"
        "  4_lstm (LSTM): LSTM cannot be imported\n"
        "to run the part before: --until 2_fully_connected (Python: until='2_fully_connected')"
    )
    part = import_model(path, DATA, until="2_fully_connected")
    assert part.outputs == ("classes",)
    assert import_model(path, DATA, until="0_conv_2d").outputs == ("features",)
    assert "no layer is named '0_conv'; did you mean '0_conv_2d'?" in message(path, until="0_conv")


def test_a_beginning_without_layers(tmp_path):
    net = Maker()
    x, y, z = net.tensor((1, 3), "FLOAT32"), net.tensor((1, 3), "INT8", 0.1), net.tensor((1, 3), "INT8", 0.1)
    net.op("QUANTIZE", [x], [y], "QuantizeOptions")
    net.op("RELU", [y], [z])
    path = net.save(tmp_path / "net.tflite", [x], [z])
    text = message(path, np.zeros((1, 3), np.float32), until="0_quantize")
    assert text.endswith("nothing runs on the accelerator up to '0_quantize'; the first layer is '1_relu'")


def test_float_and_hybrid_layers_are_refused_in_words(tmp_path):
    net, inputs, (_y, _z, out) = maker()
    net.tensors[inputs[0]].type, net.tensors[inputs[0]].quantization = 0, None  # FLOAT32
    text = message(saved(tmp_path, net, inputs, [out]))
    assert "0_conv_2d (CONV_2D): is hybrid: INT8 weights, FLOAT32 activations; quantize the model fully" in text


def test_a_bias_that_the_kernels_would_read_as_another_type(tmp_path):
    net = Maker()
    x, y = net.tensor((1, 4), "INT16", 0.01), net.tensor((1, 2), "INT16", 0.1)
    w, b = net.constant(np.ones((2, 4), np.int8), None, 0.1), net.constant(np.ones(2, np.int32), None, 0.001)
    net.op("FULLY_CONNECTED", [x, w, b], [y], "FullyConnectedOptions")
    text = message(net.save(tmp_path / "net.tflite", [x], [y]), np.zeros((1, 4), np.int16))
    assert text.endswith("its bias 'tensor/3;x' is INT32, but its options do not say so: kernels would read INT64")


def test_floats_between_codes_are_refused(tmp_path):
    net, inputs, (_y, _z, out) = maker()
    a, b, c = net.tensor((1, 3), "FLOAT32"), net.tensor((1, 3), "FLOAT32"), net.tensor((1, 3), "INT8", 0.3, 1)
    net.op("DEQUANTIZE", [out], [a])
    net.op("SIN", [a], [b])
    net.op("QUANTIZE", [b], [c])
    text = message(saved(tmp_path, net, inputs, [c]))
    assert [line.split(":")[0].strip() for line in text.splitlines()[1:4]] == [
        "3_dequantize (DEQUANTIZE)",
        "4_sin (SIN)",
        "5_quantize (QUANTIZE)",
    ]


def dynamic_range_model(path):
    """Weights in integers, activations in floats: what a converter makes of a network without calibration data."""
    rng, net = np.random.default_rng(1), Maker()
    x, y = net.tensor((1, 6, 6, 2), "FLOAT32", name="image"), net.tensor((1, 6, 6, 4), "FLOAT32", name="features")
    w = net.constant(rng.integers(-127, 128, (4, 3, 3, 2)).astype(np.int8), None, [0.01, 0.02, 0.03, 0.04])
    b = net.constant(rng.normal(size=4).astype(np.float32))
    conv = {"padding": PADDING.SAME, "strideH": 1, "strideW": 1}
    net.op("CONV_2D", [x, w, b], [y], "Conv2DOptions", version=2, **conv)
    fw, z = net.constant(rng.integers(-127, 128, (3, 144)).astype(np.int8), None, 0.01), net.tensor((1, 3), "FLOAT32")
    net.op("FULLY_CONNECTED", [y, fw, -1], [z], "FullyConnectedOptions", version=3)
    out = net.tensor((1, 3), "FLOAT32", name="classes")
    net.op("SOFTMAX", [z], [out], "SoftmaxOptions", beta=1.0)
    return net.save(path / "dynamic.tflite", [x], [out])


def test_dynamic_range_models_are_refused_operator_by_operator(tmp_path):
    path = dynamic_range_model(tmp_path)
    reference_tensors(path, [[DATA[:1].astype(np.float32)]], [6])  # a sound model: LiteRT runs it
    hybrid = "is hybrid: INT8 weights, FLOAT32 activations; quantize the model fully"
    assert message(path, DATA.astype(np.float32)) == (
        f"{path}: 3 problems\n"
        f"  0_conv_2d (CONV_2D): {hybrid}\n"
        f"  1_fully_connected (FULLY_CONNECTED): {hybrid}\n"
        "  2_softmax (SOFTMAX): computes in FLOAT32: floats are left to the host at the end only; "
        "quantize the model fully\n"
        f"to quantize the network anew, in formats of your choice: accelsim import {path} --inputs DATA.npz "
        "--formats '*:int8' -o TRACE.npz (Python: formats='*:int8'; docs/import.md)"
    )
    assert len(import_model(path, DATA.astype(np.float32), formats="*:int8").layers) == 3  # one flattens
    result = invoke("inspect", path)
    assert result.exit_code == 0
    assert f"not supported: 0_conv_2d (CONV_2D) and 1 more: {hybrid}" in result.stdout
    assert "--formats '*:int8'" in result.stdout


def test_weights_of_16_bit_floats_are_refused(tmp_path):
    net = Maker()
    x, w, y = net.tensor((1, 4), "FLOAT32"), net.tensor((3, 4), "FLOAT32"), net.tensor((1, 3), "FLOAT32")
    net.op("DEQUANTIZE", [net.constant(np.ones((3, 4), np.float16))], [w], "DequantizeOptions")
    net.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
    text = message(net.save(tmp_path / "half.tflite", [x], [y]), np.zeros((1, 4), np.float32))
    assert "0_dequantize (DEQUANTIZE): makes FLOAT32 of constants in the middle of the network" in text
    assert "1_fully_connected (FULLY_CONNECTED): computes in FLOAT32" in text


def test_floats_at_the_end_are_left_to_the_host_and_the_trace_says_so(tmp_path):
    """Hybrid layers among them: what follows the last codes is not the accelerator's."""
    net, inputs, (_y, _z, out) = maker()
    a, b, c = (net.tensor((1, size), "FLOAT32", name=name) for size, name in ((3, "a"), (2, "b"), (2, "c")))
    net.op("DEQUANTIZE", [out], [a])
    hybrid = net.constant(np.ones((2, 3), np.int8), None, 0.1)
    net.op("FULLY_CONNECTED", [a, hybrid, -1], [b], "FullyConnectedOptions", version=3)
    net.op("LOG_SOFTMAX", [b], [c], "LogSoftmaxOptions")
    path = saved(tmp_path, net, inputs, [c])
    trace = import_model(path, DATA)
    assert trace.outputs == ("classes",)
    assert trace.description == (
        "imported from net.tflite (TFLite), semantics tflite-reference; floats after the last codes are left to the "
        "host, at no cost here: DEQUANTIZE, FULLY_CONNECTED, LOG_SOFTMAX"
    )
    assert "host" not in import_model(path, DATA, until="1_relu").description
    rows = {line.split()[0]: line for line in invoke("inspect", path).stdout.splitlines() if line.strip()}
    assert all(rows[name].split()[-1] == "host" for name in ("3_dequantize", "4_fully_connected", "5_log_softmax"))


def test_inputs_of_a_batch_never_mix(tmp_path):
    net = Maker()
    x, y = net.tensor((1, 4), "INT8", 0.1), net.tensor((4, 1), "INT8", 0.1)
    net.op("TRANSPOSE", [x, net.constant(np.array([1, 0], np.int32))], [y], "TransposeOptions")
    path = net.save(tmp_path / "t.tflite", [x], [y])
    assert "moves the first axis, so that inputs of a batch would mix" in message(path, np.zeros((2, 4), np.int8))
    assert import_model(path, np.zeros((2, 4), np.int8), batch=1).tensor_meta("tensor_1_x").shape == (4, 1)


# -- the data --


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((3, 6, 5, 2), np.int8), "input 'image': data has shape (3, 6, 5, 2); the model takes (N, 6, 6, 2)"),
        (np.zeros((0, 6, 6, 2), np.int8), "data has shape (0, 6, 6, 2)"),
        (np.full((1, 6, 6, 2), 128), "integers are taken as codes of int8, -128 to 127, but these span 128 to 128"),
        (np.full((1, 6, 6, 2), np.nan), "72 values are NaN or infinite"),
        (np.full((1, 6, 6, 2), "a"), "pass real numbers, or integer codes"),
        ({}, "input 'image' is missing; it takes 'image'"),
        ({"image": DATA, "imag": DATA}, "'imag' is no input of the model; did you mean 'image'?"),
    ],
)
def test_data_that_does_not_fit(model, data, words):
    assert words in message(model, data)


def test_one_image_needs_no_batch(model):
    assert import_model(model, DATA[0]).tensor_meta("image").shape == (1, 6, 6, 2)


def test_inputs_with_different_batches(tmp_path):
    net = Maker()
    a, b, y = (net.tensor((1, 3), "INT8", 0.1, name=name) for name in "aby")
    net.op("ADD", [a, b], [y], "AddOptions")
    path = net.save(tmp_path / "add.tflite", [a, b], [y])
    text = message(path, {"a": np.zeros((2, 3), np.int8), "b": np.zeros((4, 3), np.int8)})
    assert "the inputs must have one batch, but have 'a': 2, 'b': 4" in text
    assert "has 2 inputs: pass a dict of 'a', 'b'" in message(path, np.zeros((2, 3), np.int8))


def test_semantics_of_other_sources(model):
    assert message(model, semantics="onnxruntime").endswith(
        "semantics 'onnxruntime' is not for TFLite models; use tflite-reference or tflite-micro"
    )
    assert "semantics 'tflite-mico' is unknown; did you mean 'tflite-micro'?" in message(model, semantics="tflite-mico")


def test_the_trace_says_where_it_comes_from(model):
    trace = import_model(model, DATA, "tflite-micro", labels=[0, 1, 2], batch=2)
    assert trace.description == "imported from net.tflite (TFLite), semantics tflite-micro"
    assert trace.labels.tolist() == [0, 1]
    assert [layer.rounding for layer in trace.layers if layer.op != "vector"] == ["double_half_up_then_away"] * 2


# -- the command line --


def invoke(*args):
    return CliRunner().invoke(cli.app, [str(arg) for arg in args], catch_exceptions=False)


def test_import_writes_a_trace(model, tmp_path):
    np.savez(tmp_path / "data.npz", image=DATA, labels=[0, 1, 2], other=[1])
    result = invoke("import", model, "--inputs", tmp_path / "data.npz", "-o", tmp_path / "trace.npz", "--batch", 2)
    assert result.exit_code == 0, result.stderr
    trace = load_trace(tmp_path / "trace.npz")
    assert result.stdout == f"{tmp_path / 'trace.npz'}: net, 3 layers, digest {trace.digest}\n"
    assert trace.labels.tolist() == [0, 1]
    assert trace.digest == import_model(model, DATA, labels=[0, 1, 2], batch=2).digest


@pytest.mark.parametrize(
    ("arrays", "inputs", "words"),
    [
        ({"image": DATA[:, 1:]}, "data.npz", "the model takes (N, 6, 6, 2)"),
        ({"a": DATA, "b": DATA}, "data.npz", "none of its arrays is named 'image', as the model's input; name one, "),
        ({"a": DATA, "b": DATA}, "data.npz:c", "has no array 'c'; it has 'a', 'b'"),
        ({"a": np.array([object()])}, "data.npz", "is no .npz file of plain arrays, or is damaged"),
        ({"a": DATA}, "none.npz", "none.npz: No such file or directory"),
    ],
)
def test_import_writes_nothing_where_the_data_is_wrong(model, tmp_path, monkeypatch, arrays, inputs, words):
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", allow_pickle=True, **arrays)
    result = invoke("import", model, "--inputs", inputs, "-o", "trace.npz")
    assert result.exit_code == 2
    assert words in result.stderr
    assert not Path("trace.npz").exists()


def damaged(net, _inputs, made):
    path = Path("net.tflite")
    path.write_bytes(path.read_bytes()[:900])


def cyclic(net, inputs, made):
    net.operators[0].inputs[0], net.operators[0].outputs = made[1], [made[0]]
    net.save(Path("net.tflite"), inputs, made[-1:])


def giant(net, inputs, made):
    net.tensors[made[0]].shape = [1, 1 << 20, 1 << 20, 4]
    net.save(Path("net.tflite"), inputs, made[-1:])


def unsupported(net, inputs, made):
    net.op("SIN", [made[2]], [net.tensor((1, 3), "INT8", 0.3, 1)])
    net.op("LSTM", [7], [net.tensor((1, 3), "INT8", 0.3, 1)])
    net.save(Path("net.tflite"), inputs, [8])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (damaged, "net.tflite: is damaged: "),
        (cyclic, "the graph has a cycle, or its operators are not in order"),
        (giant, "declares shape (1, 1048576, 1048576, 4); sizes are 1 or more, and 2**31 elements at most"),
        (unsupported, "net.tflite: 2 problems"),
    ],
)
@pytest.mark.parametrize("command", ["import", "inspect"])
def test_commands_end_with_2_one_message_and_nothing_written(tmp_path, monkeypatch, command, change, words):
    monkeypatch.chdir(tmp_path)
    net, inputs, made = maker()
    net.save(Path("net.tflite"), inputs, made[-1:])
    change(net, inputs, made)
    np.savez("data.npz", image=DATA)
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    options = ("--inputs", "data.npz", "-o", "trace.npz") if command == "import" else ()
    result = invoke(command, "net.tflite", *options)
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before
    if command == "inspect" and change is unsupported:
        assert result.exit_code == 0, "inspect is there to show what is not supported"
        return
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in result.stderr.replace("\n", " ").replace("  ", " ")
    assert result.stderr.lower().count("error") == 1
    assert "Traceback" not in result.stderr


def test_import_takes_the_array_that_is_named(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", a=DATA, b=DATA[:1])
    assert invoke("import", model, "--inputs", "data.npz:b", "-o", "trace.npz").exit_code == 0
    assert load_trace("trace.npz").tensor_meta("image").shape[0] == 1


def test_inspect_lists_layers_and_what_is_not_supported(tmp_path):
    net, inputs, (_y, _z, out) = maker()
    net.op("SIN", [out], [net.tensor((1, 3), "INT8", 0.3, 1)])
    path = saved(tmp_path, net, inputs, [7])
    result = invoke("inspect", path)
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert rows["0_conv_2d"][1:] == ["1x6x6x2", "int8", "4x3x3x2", "648", "array"]
    assert rows["2_fully_connected"][1:] == ["1x3x3x4", "int8", "3x36", "108", "array"]
    assert rows["1_relu"][-2:] == ["vector", "unit"]
    assert rows["3_sin"][-1] == "(no)"
    assert rows["total"][1] == "756"
    assert "not supported: 3_sin (SIN): SIN cannot be imported" in result.stdout
    assert "to run the part before: --until 2_fully_connected" in result.stdout


# -- the page --


def test_the_page_lists_the_operators_that_can_be_imported(project_root):
    import re

    from accelsim.importers.tflite import LOWERINGS

    section = (project_root / "docs" / "import.md").read_text().split("## TFLite")[1].split("###")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(LOWERINGS)
