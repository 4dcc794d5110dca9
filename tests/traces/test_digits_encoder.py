"""The bundled transformer encoder: its files are what its script makes, and its pages state what it does."""

import importlib.util
import re
import sys

import numpy as np
import pytest

from accelsim import load_trace
from accelsim.quantize.convert import trace_builder
from accelsim.quantize.evaluate import evaluate
from accelsim.quantize.network_file import load_network


@pytest.fixture(scope="module")
def network(project_root):
    return load_network(project_root / "traces" / "digits_encoder_float.npz")


@pytest.fixture(scope="module")
def table(project_root):
    """The module traces/encoder_table.py."""
    spec = importlib.util.spec_from_file_location("encoder_table", project_root / "traces" / "encoder_table.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["encoder_table"] = module
    spec.loader.exec_module(module)
    return module


def test_the_trace_is_made_of_the_float_network(network, project_root):
    made = trace_builder(
        network, weights="int8", activations="int8", references="outputs", name="digits_encoder_int8"
    ).build()
    found = load_trace(project_root / "traces" / "digits_encoder_int8.npz")
    found.check_arrays()
    assert found.digest == made.digest, "run traces/make_digits_encoder.py"


def test_the_float_network_has_the_stored_weights_and_the_bundled_images(network, project_root):
    with np.load(project_root / "traces" / "digits" / "weights_encoder.npz", allow_pickle=False) as stored:
        weights = dict(stored)
    layers = {layer.name: layer for layer in network.layers}
    np.testing.assert_array_equal(layers["block1.ff1"].weight, weights["blocks.1.ff1.weight"])
    np.testing.assert_array_equal(layers["block0.norm2"].bias, weights["blocks.0.norm2.beta"])
    np.testing.assert_allclose(layers["block1.query"].weight, weights["blocks.1.query.weight"] / np.sqrt(8), rtol=1e-6)
    cnn = load_network(project_root / "traces" / "digits_cnn_float.npz")
    np.testing.assert_array_equal(network.inputs, cnn.inputs[..., 0])
    np.testing.assert_array_equal(network.labels, cnn.labels)
    np.testing.assert_array_equal(network.calibration, cnn.calibration[..., 0])


def test_the_readme_states_accuracy_and_size(network, project_root):
    text = (project_root / "traces" / "README.md").read_text()
    accuracy = 100 * np.mean(np.argmax(evaluate(network, network.inputs)["classifier"], 1) == network.labels)
    assert accuracy > 95
    for name in ("float", "int8"):
        file = f"digits_encoder_{name}.npz"
        stated, kilobytes = re.search(rf"^\| `{file}` \| ([\d.]+) % \| (\d+) kB \|", text, re.M).groups()
        assert stated == f"{accuracy:.2f}"
        assert float(kilobytes) == pytest.approx((project_root / "traces" / file).stat().st_size / 1000, abs=2)


def page_rows(project_root, name):
    """The cells of a table of the page."""
    page = (project_root / "docs" / "transformer.md").read_text()
    body = page.split(f"<!-- {name} table")[1].split("<!-- end")[0]
    rows = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("| ")]
    return [tuple(row) for row in rows if row[0] != "---"]


def test_the_page_states_where_the_time_goes(table, project_root):
    """Cycles to the digit; energies to 3 %, for prices of parts of the machine are refined now and then."""
    stated, found = page_rows(project_root, "layer"), table.layer_rows()
    assert [row[0] for row in stated] == [row[0] for row in found]
    assert stated[0] == found[0]
    for said, is_now in zip(stated[1:], found[1:], strict=True):
        for heading, old, new in zip(found[0], said, is_now, strict=True):
            if heading.startswith("nJ"):
                assert float(old.replace(",", "")) == pytest.approx(float(new.replace(",", "")), rel=0.03)
            else:
                assert old == new, f"{said[0]}, {heading}: run traces/encoder_table.py"


def test_the_page_states_accuracies(table, project_root):
    assert page_rows(project_root, "choice") == table.choice_rows(), "run traces/encoder_table.py"


def test_the_backward_pass_is_the_slope_of_the_loss(project_root, monkeypatch):
    """Central differences; GELU's distribution is kept in float32, which sets how fine they can be."""
    pytest.importorskip("sklearn", reason="the script that trains is for developers")
    monkeypatch.syspath_prepend(str(project_root / "traces"))
    from digits import encoder

    rng = np.random.default_rng(0)
    params = {name: array.astype(np.float64) for name, array in encoder.initial_params(rng).items()}
    images, labels = rng.normal(0, 1, (5, 8, 8)), np.arange(5)

    def loss():
        logits, _ = encoder.forward(params, images)
        shifted = logits - logits.max(1, keepdims=True)
        return -(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))[np.arange(5), labels].mean()

    slopes = encoder.gradients(params, *encoder.forward(params, images), labels)
    assert slopes.keys() == params.keys()
    for name, array in params.items():
        place, step = tuple(rng.integers(0, size) for size in array.shape), 3e-3
        middle = array[place]
        array[place] = middle + step
        above = loss()
        array[place] = middle - step
        below = loss()
        array[place] = middle
        assert slopes[name][place] == pytest.approx((above - below) / (2 * step), rel=2e-3, abs=3e-5), name
