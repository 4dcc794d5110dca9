"""The digits float networks, and every configuration on the trace that `accelsim quantize` makes for it."""

import importlib.util
import re

import numpy as np
import pytest

from accelsim import load_config, load_trace, simulate
from accelsim.quantize.convert import quantize_network
from accelsim.quantize.evaluate import evaluate
from accelsim.quantize.network_file import load_network
from accelsim.quantize.presets import PRESETS

TRAINED = ("xnor", "bwn", "ternary")


@pytest.fixture(scope="module")
def table(project_root):
    """The module traces/format_table.py."""
    spec = importlib.util.spec_from_file_location("format_table", project_root / "traces" / "format_table.py")
    module = importlib.util.module_from_spec(spec)
    importlib.sys.modules["format_table"] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["", *(f"_{name}" for name in TRAINED)], ids=["float", *TRAINED])
def files(request, project_root):
    """A float network and the weights that it is made of."""
    network = load_network(project_root / "traces" / f"digits_cnn_float{request.param}.npz")
    with np.load(project_root / "traces" / "digits" / f"weights{request.param}.npz", allow_pickle=False) as stored:
        return request.param.lstrip("_"), network, dict(stored)


def test_a_float_network_has_the_stored_weights_and_the_bundled_images(files, project_root):
    _, network, weights = files
    for layer in network.layers:
        np.testing.assert_array_equal(layer.weight, weights[f"{layer.name}/weight"])
        np.testing.assert_array_equal(layer.bias, weights[f"{layer.name}/bias"])
    trace = load_trace(project_root / "traces" / "digits_cnn_int8.npz")
    image = trace.tensor(trace.inputs[0])
    assert np.abs(image.dequantize() - network.inputs).max() <= 0.51 * float(image.scale)
    np.testing.assert_array_equal(network.labels, trace.labels)
    assert len(network.calibration) == 256
    seen = {image.tobytes() for image in network.calibration}
    assert not any(image.tobytes() in seen for image in network.inputs), "calibrated on a test image"


def test_the_readme_states_its_accuracy_and_size(files, project_root):
    name, network, _ = files
    text = (project_root / "traces" / "README.md").read_text()
    file = f"digits_cnn_float{'_' * bool(name)}{name}.npz"
    stated, kilobytes = re.search(rf"^\| `{file}` \| ([\d.]+) % \| (\d+) kB \|", text, re.M).groups()
    logits = evaluate(network, network.inputs)["fc2"]
    accuracy = 100 * np.mean(np.argmax(logits, axis=1) == network.labels)
    assert f"{accuracy:.2f}" == stated
    assert accuracy >= 95
    size = (project_root / "traces" / file).stat().st_size
    assert float(kilobytes) == pytest.approx(size / 1000, abs=5)


def test_the_float_network_is_the_one_of_the_bundled_traces(project_root):
    network = load_network(project_root / "traces" / "digits_cnn_float.npz")
    trace = load_trace(project_root / "traces" / "digits_cnn_int8.npz")
    values = evaluate(network, network.inputs)
    for layer in trace.layers:
        np.testing.assert_allclose(values[layer.name], trace.reference(layer.output), rtol=2**-10, atol=1e-4)


@pytest.mark.parametrize("name", TRAINED)
def test_quantization_gives_trained_weights_back_exactly(name, project_root):
    network = load_network(project_root / "traces" / f"digits_cnn_float_{name}.npz")
    trace = quantize_network(network, **vars(PRESETS[name]))
    expected = {"xnor": {-1, 1}, "bwn": {-1, 1}, "ternary": {-1, 0, 1}}[name]
    for layer in network.layers[1:3]:
        weight = trace.tensor(f"{layer.name}.weight")
        np.testing.assert_array_equal(weight.dequantize(), layer.weight)
        assert set(np.unique(weight.lanes().values)) == expected
        assert weight.channel_axis == 0
    signs = [layer.meta.activation == "sign" for layer in network.layers]
    assert signs == [name == "xnor", name == "xnor", False, False]
    outputs = [trace.tensor_meta(layer.output).format for layer in trace.layers]
    assert outputs == (["binary", "binary"] if name == "xnor" else ["uint8", "uint8"]) + ["uint8", "int8"]


@pytest.mark.parametrize("configuration", [name for name in PRESETS if name != "int8"])
def test_a_configuration_runs_its_format(configuration, table, project_root):
    """All 240 images by the fast engine, as the page says; and a few that the independent reference confirms."""
    row = table.run(configuration)
    for layer in row.report.layers:
        assert layer.rounding == layer.rounding_requested, "the preset asks for what this silicon does"
        assert layer.overflow.psum.count == layer.overflow.accumulator.count == 0, layer.name
    assert row.report.accuracy.images == 240
    assert abs(row.report.accuracy.difference) <= 0.02
    assert row.report.network.sqnr_db > 7
    stated = (project_root / "docs" / "format_table.md").read_text()
    assert f"| {' | '.join(row.cells())} |" in stated, "run traces/format_table.py"
    config = load_config(project_root / "configs" / f"{configuration}.yaml")
    few = simulate(config, table.digits_trace(configuration, inputs=2), verify=True)
    assert [layer.verified for layer in few.layers] == [0, 0, 0, 0]
    for layer, whole in zip(few.layers, row.report.layers, strict=True):
        np.testing.assert_array_equal(layer.output_codes, whole.output_codes[:2])


def test_the_engines_agree_on_every_format(table, project_root):
    for configuration in table.CONFIGURATIONS[1:]:  # the first is int8_ws, which every other test runs
        config = load_config(project_root / "configs" / f"{configuration}.yaml")
        trace = table.digits_trace(configuration, inputs=1)
        fast, stepped = (simulate(config, trace, engine).to_json() for engine in ("fast", "stepped"))
        assert fast.replace('"fast"', '"stepped"', 1) == stepped, configuration
