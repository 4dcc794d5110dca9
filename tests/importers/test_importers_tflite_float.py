"""TFLite models in other number formats: the float network is LiteRT's, codes of the hardware are near it."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import PROJECT, shared
from tflite_tools import FUSED, PADDING, Maker
from typer.testing import CliRunner

import accelsim
from accelsim.cli import app
from accelsim.errors import AccelsimError, ModelError
from accelsim.importers.api import float_model, open_model
from accelsim.quantize.evaluate import evaluate
from accelsim.quantize.requantizer import Requantizer

RNG = np.random.default_rng(5)


def shared_inputs(model):
    """Inputs of a float twin, as MODELS.md says, and labels."""
    file, array, change = {
        "ic01_resnet8": ("cifar10_test500.npz", "images", lambda x: x.astype(np.float32)),
        "ic01_resnet8_wide": ("cifar10_test500.npz", "images", lambda x: x.astype(np.float32)),
        "kws01_dscnn": ("kws01_mfcc_int8_500.npz", "features", lambda x: (x.astype(np.float32) - 83) * 0.5847029),
        "vww01_mobilenetv1": ("vww96_cc_by.npz", "images", lambda x: x.astype(np.float32) / 255),
        "sww01_dsconv1d": ("sww01_calibration45.npz", "specs", lambda x: x),
    }[model]
    with np.load(shared("data", file)) as data:
        return change(data[array]), data["labels"]


TWINS = {"ic01_resnet8": 8, "ic01_resnet8_wide": 2, "kws01_dscnn": 20, "vww01_mobilenetv1": 8, "sww01_dsconv1d": 45}


@pytest.mark.parametrize("model", TWINS)
def test_the_float_network_is_litert_s(model):
    """Softmax of our logits equals what LiteRT computed, up to its float32."""
    inputs, labels = shared_inputs(model)
    count = TWINS[model]
    network = float_model(str(shared("models", f"{model}_float.tflite")), inputs, batch=count, labels=labels)
    logits = evaluate(network, network.inputs)[network.layers[-1].name]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    with np.load(shared("data", "reference_outputs.npz")) as stored:
        np.testing.assert_allclose(shares, stored[f"{model}_float__litert"][:count], atol=2e-5)
    assert network.labels.tolist() == labels[:count].tolist()


def test_resnet_in_bytes_keeps_its_accuracy():
    """All of the first 100 images: float as LiteRT; int8 within 2 points; the layers are near the float ones."""
    inputs, labels = shared_inputs("ic01_resnet8")
    path = str(shared("models", "ic01_resnet8_float.tflite"))
    trace = accelsim.import_model(path, inputs, batch=100, labels=labels, formats="*:int8")
    report = accelsim.simulate(accelsim.load_config(PROJECT / "configs/int8_os.yaml"), trace, watch=False)
    with np.load(shared("data", "reference_outputs.npz")) as stored:
        litert = stored["ic01_resnet8_float__litert"][:100].argmax(axis=1)
    assert report.accuracy.float_accuracy == np.mean(litert == labels[:100])
    assert abs(report.accuracy.difference) <= 0.02
    assert report.accuracy.agreement >= 0.97
    assert min(layer.accuracy.sqnr_db for layer in report.layers if layer.accuracy) > 20


def test_a_depthwise_network_takes_blocks_in_its_other_layers():
    """A block would straddle the groups of a depthwise layer: these stay integers."""
    inputs, labels = shared_inputs("kws01_dscnn")
    path = str(shared("models", "kws01_dscnn_float.tflite"))
    network = float_model(path, inputs, batch=30, labels=labels)
    requantizer = Requantizer(network)
    pointwise = {layer.name: ("mx9", "mx9") for layer in network.array_layers}
    depthwise = {name: ("int8", "int8") for name in pointwise if "depthwise" in name}
    config = accelsim.load_config(PROJECT / "configs/mixed.yaml")
    report = accelsim.simulate(config, requantizer.trace(pointwise | depthwise), watch=False)
    assert report.accuracy.agreement >= 0.96
    with pytest.raises(accelsim.AccelsimError, match=r"1_depthwise_conv_2d.*straddle groups"):
        requantizer.trace(pointwise)


def test_an_integer_model_is_its_weights_times_their_scales():
    """vww01 int8 against its own float twin: dequantized weights compute nearly the same classes."""
    inputs, _ = shared_inputs("vww01_mobilenetv1")
    codes = np.round(inputs[:20] * 255).astype(np.int16) - 128
    network = float_model(str(shared("models", "vww01_mobilenetv1_int8.tflite")), codes.astype(np.int8))
    logits = evaluate(network, network.inputs)[network.layers[-1].name]
    with np.load(shared("data", "reference_outputs.npz")) as stored:
        twin = stored["vww01_mobilenetv1_float__litert"][:20]
    assert np.mean(logits.argmax(axis=1) == twin.argmax(axis=1)) >= 0.95


# -- small models -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_model(tmp_path):
    return small_model_in(tmp_path)


def small_model_in(tmp_path):
    """Pad, conv 3x3 stride 2 SAME ReLU6, depthwise, add, max pool, average pool, concat, fully connected, softmax."""
    maker, rng = Maker(), np.random.default_rng(5)
    weights = [rng.standard_normal(shape).astype(np.float32) / 4 for shape in ((4, 3, 3, 3), (1, 3, 3, 4), (5, 16))]
    x = maker.tensor((1, 9, 8, 3), "FLOAT32", name="x")
    padded = maker.tensor((1, 10, 8, 3), "FLOAT32")
    maker.op("PAD", [x, maker.constant(np.array([[0, 0], [1, 0], [0, 0], [0, 0]], np.int32))], [padded])
    first = maker.tensor((1, 5, 4, 4), "FLOAT32")
    bias = maker.constant(np.linspace(-1, 1, 4, dtype=np.float32))
    options = {"strideH": 2, "strideW": 2, "dilationHFactor": 1, "dilationWFactor": 1, "padding": PADDING.SAME}
    maker.op("CONV_2D", [padded, maker.constant(weights[0]), bias], [first], "Conv2DOptions",
             fusedActivationFunction=FUSED.RELU6, **options)  # fmt: skip
    second = maker.tensor((1, 5, 4, 4), "FLOAT32")
    maker.op("DEPTHWISE_CONV_2D", [first, maker.constant(weights[1]), bias], [second], "DepthwiseConv2DOptions",
             **options | {"strideH": 1, "strideW": 1, "depthMultiplier": 1})  # fmt: skip
    total = maker.tensor((1, 5, 4, 4), "FLOAT32")
    maker.op("ADD", [first, second], [total], "AddOptions", fusedActivationFunction=FUSED.RELU)
    pools = []
    for name in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        pools.append(maker.tensor((1, 2, 1, 4), "FLOAT32"))
        maker.op(name, [total], [pools[-1]], "Pool2DOptions", filterHeight=3, filterWidth=3, strideH=2, strideW=3,
                 padding=PADDING.VALID)  # fmt: skip
    joined = maker.tensor((1, 2, 1, 8), "FLOAT32")
    maker.op("CONCATENATION", pools, [joined], "ConcatenationOptions", axis=3)
    logits, shares = maker.tensor((1, 5), "FLOAT32"), maker.tensor((1, 5), "FLOAT32")
    maker.op("FULLY_CONNECTED", [joined, maker.constant(weights[2])], [logits], "FullyConnectedOptions")
    maker.op("SOFTMAX", [logits], [shares], "SoftmaxOptions", beta=1.0)
    return maker.save(tmp_path / "small.tflite", [x], [shares])


def litert(path, samples):
    """Return LiteRT's output for each sample."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    runtime = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    runtime.allocate_tensors()
    outputs = []
    for sample in samples:
        runtime.set_tensor(runtime.get_input_details()[0]["index"], sample[None])
        runtime.invoke()
        outputs.append(runtime.get_tensor(runtime.get_output_details()[0]["index"])[0])
    return np.array(outputs)


def test_every_operator_of_a_small_model_is_litert_s(small_model):
    data = RNG.standard_normal((6, 9, 8, 3)).astype(np.float32)
    network = float_model(small_model, data)
    assert [layer.name.partition("_")[2] for layer in network.layers] == [
        *("pad", "conv_2d", "depthwise_conv_2d", "add", "max_pool_2d", "average_pool_2d", "concatenation"),
        *("fully_connected.flat", "fully_connected"),
    ]
    logits = evaluate(network, network.inputs)[network.layers[-1].name]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, litert(small_model, data), atol=1e-6)
    trace = accelsim.import_model(small_model, data, formats="*:int8")
    report = accelsim.simulate(accelsim.load_config(PROJECT / "configs/mixed.yaml"), trace, verify=True)
    assert all(layer.verified == 0 for layer in report.layers)
    assert report.network.sqnr_db > 25


def test_until_stops_where_it_says(small_model):
    data = np.ones((1, 9, 8, 3), np.float32)
    assert len(float_model(small_model, data, until="3_add").layers) == 4
    with pytest.raises(ModelError, match="no layer is named '3_sub'"):
        float_model(small_model, data, until="3_sub")


def test_operators_without_a_float_network_are_listed_together(tmp_path):
    maker = Maker()
    x, y, z = (maker.tensor((1, 4), "FLOAT32") for _ in range(3))
    maker.op("ELU", [x], [y])
    maker.op("EXP", [y], [z], "ExpOptions")
    path = maker.save(tmp_path / "elu.tflite", [x], [z])
    with pytest.raises(ModelError, match=r"(?s)0_elu \(ELU\): there is no float network.*1_exp \(EXP\)"):
        float_model(path, np.ones((1, 4), np.float32))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.ones((2, 9, 9, 3), np.float32), r"data has shape \(2, 9, 9, 3\); the model takes \(N, 9, 8, 3\)"),
        (np.ones((2, 9, 8, 3), np.complex64), "dtype is complex64; pass real numbers"),
        (np.full((2, 9, 8, 3), np.nan, np.float32), "NaN or infinite"),
    ],
)
def test_data_that_does_not_fit_is_refused(small_model, data, words):
    with pytest.raises(ModelError, match=words):
        float_model(small_model, data)


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def data_file(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=RNG.standard_normal((6, 9, 8, 3)).astype(np.float32), labels=np.arange(6) % 5)
    return path


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_import_with_formats_writes_a_trace_and_says_how_good_it_is(small_model, data_file, tmp_path):
    out, config = tmp_path / "t.npz", PROJECT / "configs/mixed.yaml"
    formats = "1_*:int8, *depthwise*:int8, *:mx6"
    result = invoke("import", small_model, "--inputs", data_file, "--formats", formats, "--config", config, "-o", out)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-2].startswith("accuracy: 6 inputs on mixed; float ")
    assert lines[-1].startswith("SQNR: ")
    report = json.loads(invoke("run", config, out, "--json").stdout)
    assert f"simulated {report['accuracy']['simulated_accuracy']:.1%} correct" in lines[-2]
    trace = accelsim.load_trace(out)
    assert formats in trace.description
    assert trace.tensor_meta(trace.layers[-1].weight).format == "mx6"


def test_without_hardware_a_machine_for_every_format_measures(small_model, data_file, tmp_path):
    words = ("import", small_model, "--inputs", data_file, "--formats", "*:kmeans4/int8", "-o", tmp_path / "t.npz")
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    assert "accuracy: 6 inputs on any_format; float" in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--ranges", "mse"), "--ranges is for --formats"),
        (("--formats", "*:int8", "--semantics", "tflite-micro"), "with --formats there is none"),
        (("--formats", "conv:int8"), "'conv' matches no layer"),
        (("--formats", "*:int8", "--ranges", "max"), "ranges 'max' are unknown"),
        (("--formats", "*:int8", "--output", "kmeans4"), "kmeans4 is a table of weights"),
        (("--formats", "1_*:int8, 2_*:int8, *:mx6", "--config", "configs/int8_ws.yaml"), "array.float_unit: null"),
    ],
)
def test_what_cannot_be_is_one_message_and_no_file(small_model, data_file, tmp_path, words, said, monkeypatch):
    monkeypatch.chdir(PROJECT)
    result = invoke("import", small_model, "--inputs", data_file, "-o", tmp_path / "t.npz", *words)
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "t.npz").exists()


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(8, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_damage_to_a_float_model_leads_to_anything_but_a_message(tmp_path_factory, damage):
    path = Path(small_model_in(tmp_path_factory.mktemp("damaged")))
    content = bytearray(path.read_bytes())
    for place, value in damage:
        content[8 + place % (len(content) - 8)] = value
    path.write_bytes(content)
    try:
        float_model(path, np.ones((2, 9, 8, 3), np.float32))
    except AccelsimError as error:
        assert str(error)  # noqa: PT017 (either is right: much damage only changes numbers)


def test_what_inspect_says_of_a_float_model_works(small_model, data_file, tmp_path, monkeypatch):
    """It counts the layers of the array, and names the command that quantizes them; import says the same."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["inspect", "small.tflite"], catch_exceptions=False)
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert rows["1_conv_2d"][1:] == ["1x10x8x3", "float32", "4x3x3x3", "2,160", "(no)"]  # 5 x 4 x 4 outputs of 27 MACs
    assert rows["2_depthwise_conv_2d"][3:5] == ["4x3x3x1", "720"]
    assert "not supported: 0_pad (PAD) and 8 more: computes in FLOAT32" in result.stdout
    assert "nothing before it can run" not in result.stdout
    (said,) = [line for line in result.stdout.splitlines() if line.startswith("to quantize the network anew")]
    command = said.split(": accelsim ")[1].split(" (Python")[0].replace("DATA.npz", str(data_file))
    refused = CliRunner().invoke(app, ["import", "small.tflite", "--inputs", str(data_file), "-o", "t.npz"])
    assert refused.exit_code == 2
    assert said in refused.stderr.splitlines()
    assert CliRunner().invoke(app, shlex.split(command), catch_exceptions=False).exit_code == 0
    assert len(accelsim.load_trace("TRACE.npz").layers) == 9


def test_no_other_formats_are_offered_where_there_is_no_float_network(tmp_path):
    maker = Maker()
    x, y = (maker.tensor((1, 4), "FLOAT32") for _ in range(2))
    maker.op("ELU", [x], [y])
    path = maker.save(tmp_path / "elu.tflite", [x], [y])
    assert open_model(path).other_formats == ""
    result = CliRunner().invoke(app, ["inspect", str(path)], catch_exceptions=False)
    assert "nothing before it can run" in result.stdout
    assert "--formats" not in result.stdout


@pytest.mark.parametrize("model", ["ic01_resnet8_wide", "vww01_mobilenetv1"])
def test_networks_with_channels_that_training_switched_off(model):
    """31 and 971 channels with weights of 1e-34: their biases fit, in steps that other channels have too."""
    inputs, _ = shared_inputs(model)
    trace = accelsim.import_model(
        str(shared("models", f"{model}_float.tflite")), inputs, batch=8, formats="*:int8", ranges="minmax"
    )
    layers = [layer for layer in trace.layers if hasattr(layer, "weight")]
    assert max(int(np.abs(trace.bias(layer)).max()) for layer in layers) < 2**31
    report = accelsim.simulate(accelsim.load_config(PROJECT / "configs/int8_os.yaml"), trace, watch=False)
    assert report.totals.accumulator_overflows == 0
    assert report.network.sqnr_db > 15
