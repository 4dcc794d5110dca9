"""ONNX files that are damaged, incomplete or ask for the impossible: one clear message; inspection and --until."""

import sys

import numpy as np
import pytest
from onnx_tools import model, node, onnx, run_onnxruntime, saved, simulated

import accelsim
from accelsim.errors import ModelError
from accelsim.importers.api import model_builder, open_model
from accelsim.importers.onnx_model import import_onnx, inspect_onnx, read_onnx

S = {"s": np.float32(0.02), "z": np.uint8(7), "ws": np.float32(0.01), "wz": np.uint8(120)}


def small(nodes=(), constants=None, *, shape=(1, 3, 4, 4), outputs=None):
    """conv -> relu-free conv -> ...: a network of two layers, and what is added."""
    rng = np.random.default_rng(0)
    fixed = {**S, "w1": rng.integers(0, 256, (4, 3, 3, 3)).astype(np.uint8),
             "w2": rng.integers(0, 256, (2, 4, 1, 1)).astype(np.uint8)}  # fmt: skip
    first = node("QLinearConv", ["x", "s", "z", "w1", "ws", "wz", "s", "z"], ["a"], name="first")
    second = node("QLinearConv", ["a", "s", "z", "w2", "ws", "wz", "s", "z"], ["b"], name="second")
    return model([first, second, *nodes], {"x": (np.uint8, list(shape))}, outputs or {"b": (np.uint8, 4)},
                 {**fixed, **(constants or {})})  # fmt: skip


X = np.random.default_rng(1).integers(0, 256, (2, 3, 4, 4)).astype(np.uint8)


def message(path, inputs=X, **options):
    with pytest.raises(ModelError) as caught:
        import_onnx(path, inputs, **options)
    return str(caught.value)


def test_through_the_package(tmp_path):
    """accelsim.import_model chooses by the file's ending; a trace that was written is the same."""
    path = saved(small(), tmp_path)
    trace = accelsim.import_model(path, X)
    written = model_builder(path, X).save(tmp_path / "trace.npz")
    assert accelsim.load_trace(written).digest == trace.digest
    assert open_model(str(path)).kind == "ONNX"
    assert "imported from model.onnx (ONNX), semantics onnxruntime" in trace.description


def test_missing_files_and_folders(tmp_path):
    assert message(tmp_path / "no.onnx").endswith("no.onnx: there is no such file")
    assert "is a folder; pass an ONNX file" in message(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04 not a model", bytes(range(256)) * 4])
def test_files_that_are_no_models(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert "is not a readable ONNX model" in message(path)


def test_every_truncation_is_refused_or_complete(tmp_path):
    """Cut anywhere: an error of ours, never another; the whole file works."""
    whole = small().SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert str(path) in message(path), length


def test_flipped_bytes_are_an_error_of_ours_or_a_trace(tmp_path):
    whole = bytearray(small().SerializeToString())
    path, rng = tmp_path / "model.onnx", np.random.default_rng(5)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            import_onnx(path, X)
        except accelsim.AccelsimError:
            refused += 1
    assert refused > 20


def test_a_cycle_and_a_tensor_from_nowhere(tmp_path):
    made = small()
    made.graph.node[0].input[0] = "b"
    found = message(saved(made, tmp_path))
    assert "node 0 'first' reads 'b', which only a later node makes ('second'): a cycle, or nodes out of order" in found
    made.graph.node[0].input[0] = "nowhere"
    found = message(saved(made, tmp_path))
    assert "node 0 'first' reads 'nowhere', which is no input, no initializer and no node's output" in found


def test_giant_and_open_shapes(tmp_path):
    found = message(saved(small(shape=(1, 3, 1 << 30, 1 << 30)), tmp_path))
    assert "tensor 'x' is declared as [1, 3, 1073741824, 1073741824]; sizes are positive, and up to" in found
    made = small()
    made.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    found = message(saved(made, tmp_path))
    assert "its declared shape [1, 3, None, 4] leaves sizes open; fix all but the batch" in found


def test_a_free_batch_is_any_batch(tmp_path):
    made = small()
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    _, codes = simulated(saved(made, tmp_path), X)
    np.testing.assert_array_equal(codes["b"], run_onnxruntime(made, {"x": X})["b"])


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = saved(small(), tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = message(path)
    assert "needs the package 'onnx'" in found
    assert "pip install 'accelsim[import]'" in found


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (X[:, :2], "data has shape (2, 2, 4, 4); the model takes (N, 3, 4, 4)"),
        (X.transpose(0, 2, 3, 1), "data has shape (2, 4, 4, 3); the model takes (N, 3, 4, 4)"),
        ({"y": X}, "input 'x' is missing"),
        ({"x": X, "y": X}, "'y' is no input of the model"),
        (X.astype(np.int64) + 200, "integers are taken as codes of uint8, 0 to 255"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path, inputs, text):
    assert text in message(saved(small(), tmp_path), inputs)


def test_floats_for_an_input_of_codes_are_quantized(tmp_path):
    """By the scale and zero point of the layer that reads them: round(x / 0.02) + 7, to even."""
    reals = np.linspace(-0.5, 5.2, X.size).reshape(X.shape).astype(np.float32)
    trace = import_onnx(saved(small(), tmp_path), reals)
    codes = np.clip(np.rint(reals / np.float32(0.02)) + 7, 0, 255)
    np.testing.assert_array_equal(trace.tensor("x").codes, codes.transpose(0, 2, 3, 1))


def test_all_that_is_not_supported_in_one_message(tmp_path):
    nodes = [
        node("GridSample", ["b", "grid"], ["c"], name="sample"),
        node("MaxPool", ["b"], ["d"], name="pool", kernel_shape=[2, 2], dilations=[2, 2]),
        node("Frobnicate", ["c"], ["e"], name="frob", domain="com.example"),
    ]
    made = small(nodes, {"grid": np.zeros((1, 2, 2, 2), np.float32)})
    made.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    found = message(saved(made, tmp_path))
    for text in (
        "sample (GridSample): operator GridSample has no importer",
        "pool (MaxPool): a window with dilations [2, 2]; only 1 is supported",
        "frob (Frobnicate): operator Frobnicate of com.example has no importer",
        "to run the part before: --until second (Python: until='second')",
    ):
        assert text in found


def test_until(tmp_path):
    nodes = [node("MaxPool", ["b"], ["d"], name="pool", kernel_shape=[2, 2], dilations=[2, 2])]
    path = saved(small(nodes), tmp_path)
    trace = import_onnx(path, X, until="second")
    assert [layer.name for layer in trace.layers] == ["first", "second"]
    trace = import_onnx(path, X, until="first")
    assert [layer.name for layer in trace.layers] == ["first"]
    assert trace.outputs == ("a",)
    assert "no layer is named 'frist'; did you mean 'first'?" in message(path, until="frist")


def test_semantics(tmp_path):
    assert "semantics 'tflite-micro' is not for ONNX models; use onnxruntime" in message(
        saved(small(), tmp_path), semantics="tflite-micro"
    )


def test_inspection(tmp_path):
    """Shapes are ONNX's; multiply-accumulates by hand: 4 channels of 2 x 2 outputs, each 3 x 3 x 3 products."""
    first, second = inspect_onnx(saved(small(), tmp_path))
    assert (first.name, first.op, first.place) == ("first", "QLinearConv", "array")
    assert (first.input_shape, first.weight_shape, first.output_shape) == ((1, 3, 4, 4), (4, 3, 3, 3), (1, 4, 2, 2))
    assert (first.macs, first.weights) == (4 * 4 * 27, 108)
    assert (second.input_format, second.weight_format, second.output_format) == ("uint8", "uint8", "uint8")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"z2": np.uint8(9)}, "the input was written with zero point 7 and is read with 9; requantize it in between"),
        ({"ws": np.ones(3, np.float32)}, "the weight's scale has shape (3,), and there are 4 output channels"),
        ({"s": np.ones(2, np.float32)}, "has shape (2,); one number for the whole tensor is supported"),
    ],
)
def test_scales_and_zero_points_that_do_not_fit(tmp_path, change, text):
    made = small(constants={"z2": np.uint8(7), **change})
    made.graph.node[1].input[2] = "z2"
    assert text in message(saved(made, tmp_path))


def test_a_weight_that_is_computed_is_refused(tmp_path):
    made = small()
    made.graph.node[1].input[3] = "x"
    assert "second (QLinearConv): the weight (x) is not a constant" in message(saved(made, tmp_path))


def test_external_data_that_is_missing(tmp_path):
    made = small()
    path = tmp_path / "model.onnx"
    onnx.save(made, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert len(import_onnx(path, X).layers) == 2
    (tmp_path / "weights.bin").unlink()
    assert "is not a readable ONNX model" in message(path)


def test_views_name_every_tensor(tmp_path):
    views = read_onnx(saved(small(), tmp_path)).views
    array = np.arange(2 * 2 * 2 * 4).reshape(2, 2, 2, 4)  # two batches of the file, channels last
    seen = views["a"].view.to_onnx(array)
    np.testing.assert_array_equal(seen, array.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(views["a"].view.to_trace(seen), array)
