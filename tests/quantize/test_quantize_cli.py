"""`accelsim quantize` as a user meets it."""

import numpy as np
import pytest
from quantize_networks import small
from typer.testing import CliRunner

from accelsim import cli, load_trace
from accelsim.quantize.network_file import save_network

runner = CliRunner()


@pytest.fixture
def network(tmp_path):
    return save_network(tmp_path / "net.npz", small())


def invoke(*args):
    return runner.invoke(cli.app, ["quantize", *map(str, args)], catch_exceptions=False)


def test_formats_and_presets_write_a_trace(network, tmp_path):
    path = tmp_path / "out.npz"
    result = invoke(
        network, "--weights", "mxfp4", "--activations", "mxfp4", "--first", "int8", "--batch", 2, "-o", path
    )
    assert result.exit_code == 0
    trace = load_trace(path)
    assert trace.digest in result.stdout
    assert trace.tensor_meta("input").shape[0] == 2
    assert [trace.tensor_meta(layer.weight).format for layer in trace.layers] == ["int8", "mxfp4", "mxfp4"]
    result = invoke(network, "--preset", "bitfusion", "--layer", "conv2=int2/int3", "--out", path)
    assert result.exit_code == 0
    trace = load_trace(path)
    assert trace.name == "small_bitfusion"
    assert [trace.tensor_meta(layer.output).format for layer in trace.layers] == ["uint3", "uint8", "int8"]
    assert trace.tensor("conv2.weight").scale.size == 32
    assert invoke(network, "--preset", "int8", "--per-tensor", "--rounding", "truncate", "-o", path).exit_code == 0
    assert load_trace(path).tensor("conv2.weight").scale.shape == ()
    assert load_trace(path).layers[0].rounding == "truncate"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--preset", "mxpf4"], "did you mean 'mxfp4'?"),
        (["--weights", "int8"], "--activations missing"),
        (["--preset", "int8", "--batch", "7"], "batch of 6 inputs; 7 were asked for"),
        (["--preset", "xnor"], "activation 'conv1': leaves relu"),
        (["--preset", "int8", "--output", "itn8"], "unknown number format 'itn8'"),
    ],
)
def test_a_mistake_gets_one_message_and_no_file(network, tmp_path, args, words):
    result = invoke(network, *args, "-o", tmp_path / "out.npz")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["net.npz"]


def test_a_file_that_is_no_network_is_refused(tmp_path):
    path = tmp_path / "net.npz"
    np.savez(path, a=np.ones(3))
    result = invoke(path, "--preset", "int8", "-o", tmp_path / "out.npz")
    assert result.exit_code == 2
    assert "not an accelsim float network" in result.stderr
    assert invoke(tmp_path / "none.npz", "--preset", "int8", "-o", tmp_path / "out.npz").exit_code == 2


def test_a_trace_that_cannot_be_written_leaves_nothing(network, tmp_path):
    for out, words in ((tmp_path / "out.trace", "end in .npz"), (tmp_path / "none" / "t.npz", "does not exist")):
        result = invoke(network, "--preset", "int8", "-o", out)
        assert result.exit_code == 2
        assert words in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["net.npz"]


def test_an_encoder_by_rules(project_root, tmp_path):
    """The bundled encoder: its trace as shipped, other rules, one layer's weights in another format."""
    float_file, path = project_root / "traces" / "digits_encoder_float.npz", tmp_path / "out.npz"
    assert invoke(float_file, "--preset", "int8", "--references", "outputs", "-o", path).exit_code == 0
    shipped = load_trace(project_root / "traces" / "digits_encoder_int8.npz")
    assert load_trace(path).digest == shipped.digest
    options = ["--preset", "int8", "--rules", "tflite", "--layer", "block0.ff1=mx6/int8", "--batch", 2]
    assert invoke(float_file, *options, "-o", path).exit_code == 0
    trace = load_trace(path)
    assert trace.tensor_meta("block0.ff1.weight").format == "mx6"
    assert {layer.attributes["rule"] for layer in trace.layers if getattr(layer, "operator", "") == "softmax"} == {
        "tflite"
    }
    assert all(trace.reference(layer.output) is not None for layer in trace.layers)
    result = invoke(float_file, "--preset", "mx6", "-o", tmp_path / "none.npz")
    assert result.exit_code == 2
    assert "takes mx6, but the vector unit, which computes 'position', makes and takes plain integers" in result.stderr
    assert not (tmp_path / "none.npz").exists()
