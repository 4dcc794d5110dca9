"""The command line on ONNX files: what is wrong ends with exit code 2, one message, and nothing written."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from onnx_tools import machine, model, node, onnx, runtime
from typer.testing import CliRunner

import accelsim
from accelsim import cli
from accelsim.importers.api import open_model

CODES = np.zeros((2, 3, 5, 5), np.uint8)


def network(inputs=(("uint8", (1, 3, 5, 5)),), weight_shape=(4, 3, 3, 3), reads="x"):
    constants = {
        "s": np.float32(0.1),
        "z": np.uint8(3),
        "ws": np.float32(0.01),
        "wz": np.int8(0),
        "w": np.ones(weight_shape, np.int8),
    }
    nodes = [node("QLinearConv", [reads, "s", "z", "w", "ws", "wz", "s", "z"], ["y"], pads=[1, 1, 1, 1], name="conv")]
    if reads != "x":
        nodes.append(node("MaxPool", ["y"], [reads], kernel_shape=[1, 1], name="pool"))
    return model(nodes, {"x": inputs[0]}, {"y": ("uint8", 4)}, constants)


def invoke(*args):
    return CliRunner().invoke(cli.app, [str(arg) for arg in args], catch_exceptions=False)


CASES = {
    "sound": (lambda: network().SerializeToString(), {"x": CODES}, ""),
    "cut off": (lambda: network().SerializeToString()[:-40], {"x": CODES}, "model.onnx"),
    "cycle": (lambda: network(reads="back").SerializeToString(), {"x": CODES}, "a cycle, or nodes out of order"),
    "giant": (
        lambda: network((("uint8", (1, 3, 1 << 20, 1 << 20)),)).SerializeToString(),
        {"x": CODES},
        "sizes are positive, and up to",
    ),
    "weight that does not fit": (lambda: network(weight_shape=(4, 2, 3, 3)).SerializeToString(), {"x": CODES}, "conv"),
    "shape of the data": (lambda: network().SerializeToString(), {"x": CODES[:, :2]}, "the model takes (N, 3, 5, 5)"),
    "missing input": (
        lambda: network().SerializeToString(),
        {"a": CODES, "b": CODES},
        "none of its arrays is named 'x'",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_import(tmp_path, monkeypatch, name):
    make, arrays, words = CASES[name]
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(make())
    np.savez("data.npz", **arrays)
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    result = invoke("import", "model.onnx", "--inputs", "data.npz", "-o", "trace.npz")
    if name == "sound":
        assert result.exit_code == 0, result.stderr
        assert Path("trace.npz").exists()
        return
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in " ".join(result.stderr.split())
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def float_network(rng):
    """What torch.onnx.export writes of a small convolutional network, batch normalization and all."""
    weights = {
        "w1": rng.normal(0, 0.3, (6, 1, 3, 3)),
        "b1": rng.normal(0, 0.1, 6),
        "gain": rng.uniform(0.5, 1.5, 6),
        "offset": rng.normal(0, 0.1, 6),
        "mean": rng.normal(0, 0.1, 6),
        "variance": rng.uniform(0.5, 1.5, 6),
        "w2": rng.normal(0, 0.2, (4, 6, 3, 3)),
        "b2": rng.normal(0, 0.1, 4),
        "w3": rng.normal(0, 0.2, (5, 64)),
        "b3": rng.normal(0, 0.1, 5),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], name="conv1"),
        node("BatchNormalization", ["c1", "gain", "offset", "mean", "variance"], ["n1"], name="norm1"),
        node("Relu", ["n1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], strides=[2, 2], name="conv2"),
        node("Relu", ["c2"], ["r2"], name="relu2"),
        node("Flatten", ["r2"], ["f"], name="flatten"),
        node("Gemm", ["f", "w3", "b3"], ["y"], transB=1, name="fc"),
    ]
    floats = {name: array.astype(np.float32) for name, array in weights.items()}
    return model(nodes, {"x": ("float32", ("batch", 1, 8, 8))}, {"y": ("float32", 2)}, floats, domains=())


def test_the_recipe_of_the_page_for_a_float_model(tmp_path, project_root):
    """docs/import_onnx.md, word for word: prepare, quantize with calibration data, import, run; every code that ONNX
    Runtime makes of the quantized file is the one that the trace gives.
    """
    session_maker = runtime()
    rng = np.random.default_rng(9)
    images = rng.normal(size=(64, 1, 8, 8)).astype(np.float32)
    onnx.save(float_network(rng), tmp_path / "float.onnx")
    page = (project_root / "docs" / "import_onnx.md").read_text(encoding="utf-8")
    recipe = page.split("<!-- recipe -->")[1].split("```python\n")[1].split("```")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the packages that quantize
            exec(compile(recipe, "docs/import_onnx.md", "exec"), {"images": images})
    path = tmp_path / "quantized.onnx"
    assert [row.place for row in open_model(path).rows if row.op in ("Conv", "Gemm")] == ["array"] * 3
    trace = accelsim.import_model(path, images[:16])
    report = accelsim.simulate(machine(), trace, watch=False)
    scale, zero_point = (float(factor) for factor in trace.output_factors(trace.layers[-1])[1:])
    made = (report.layers[-1].output_codes - zero_point) * scale
    wanted = session_maker.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": images[:16]})[0]
    np.testing.assert_array_equal(np.rint(made / scale), np.rint(wanted / scale))
    assert len(np.unique(report.layers[-1].output_codes)) > 20
