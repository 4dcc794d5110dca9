"""docs/model_formats.md: its rows are what comes out; the float network is LiteRT's on every image."""

import sys

import numpy as np
import pytest
from shared_data import PROJECT, shared

from accelsim.importers.api import float_model
from accelsim.quantize.evaluate import evaluate

sys.path.insert(0, str(PROJECT / "tests"))
import make_model_formats as page

TEXT = (PROJECT / "docs" / "model_formats.md").read_text(encoding="utf-8")
CHECKED = (0, 2, 10)  # int8, int4 and int8 with mx6


@pytest.fixture(scope="module")
def calibrated():
    return page.requantizers()


@pytest.mark.parametrize("index", CHECKED)
def test_a_row_is_what_comes_out(calibrated, index):
    assert page.line(page.cells(*page.ROWS[index], calibrated)) in TEXT, "run tests/make_model_formats.py"


def test_the_page_has_every_row():
    for text, ranges in page.ROWS:
        assert f"| `{text}` | {ranges} | " in TEXT


def test_bytes_stay_within_two_points_of_floats(calibrated):
    row = page.cells("*:int8", "mse", calibrated)
    simulated, floating = (float(row[i].rstrip("%")) for i in (4, 3))
    assert abs(simulated - floating) <= 2


def test_the_float_network_has_the_stated_accuracy():
    """445 of 500, DATA.md's figure, and LiteRT's class for each image."""
    with np.load(shared("data", "cifar10_test500.npz")) as data:
        images, labels = data["images"], data["labels"]
    network = float_model(str(shared("models", "ic01_resnet8_float.tflite")), images)
    last = network.layers[-1].name
    pieces = [evaluate(network, network.inputs[i : i + 50])[last] for i in range(0, len(images), 50)]
    classes = np.concatenate(pieces).argmax(axis=1)
    with np.load(shared("data", "reference_outputs.npz")) as stored:
        np.testing.assert_array_equal(classes, stored["ic01_resnet8_float__litert"].argmax(axis=1))
    assert int(np.count_nonzero(classes == labels)) == 445
