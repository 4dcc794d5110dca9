"""docs/accumulators.md says what the visual-wake-words model does with narrow accumulators."""

import sys

import numpy as np
import pytest
from shared_data import PROJECT, shared

import accelsim

sys.path.insert(0, str(PROJECT / "tests"))
import make_accumulator_page as page

TEXT = (PROJECT / "docs" / "accumulators.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def trace():
    shared("models", "vww01_mobilenetv1_int8.tflite")
    return page.model_trace()


def line(cells):
    return f"| {' | '.join(cells)} |"


def test_dead_channels_are_those_of_the_file(trace):
    """971 of 2,738, as a look at the flatbuffer says, with biases near 2**30."""
    layers = page.layers_of(trace)
    assert sum(int(layer.dead.sum()) for layer in layers) == 971
    assert sum(len(layer.dead) for layer in layers) == 2738
    assert "Of 2,738 output channels 971 are dead" in TEXT
    assert max(int(np.abs(layer.bias).max()) for layer in layers) == 2**30 + 128


def test_the_tables_are_what_comes_out(trace):
    """The rows of 32 and 20 bits, and the columns that follow from 32."""
    layers = page.layers_of(trace)
    exact, alive = page.run(trace, 32, "wrap"), page.run(page.without_dead_biases(trace), 32, "wrap")
    narrow = page.run(trace, 20, "saturate")
    for report in (exact, narrow):
        assert line(page.run_cells(report, exact, layers)) in TEXT, "run tests/make_accumulator_page.py"
    rows = page.layer_rows(layers, exact, alive, dict.fromkeys(page.WIDTHS, narrow))
    for row in rows:
        assert f"| {' | '.join(row[:7])} | " in TEXT, "run tests/make_accumulator_page.py"
        (stated,) = [each for each in TEXT.splitlines() if each.startswith(f"| {row[0]} |")]
        assert stated.split(" | ")[-2] == row[8]
    assert page.bits_of(exact)["10_conv_2d"] == 32
    assert page.bits_of(alive)["10_conv_2d"] == 19


def test_a_dead_channel_is_the_code_of_its_bias_alone(trace):
    """Worked from the file: code = zero point + bias * factor, the same at every place of every image."""
    two = page.model_trace(batch=2)
    report = page.run(two, 32, "wrap")
    layer = next(each for each in page.layers_of(two) if each.name == "20_conv_2d")
    meta = next(each for each in two.layers if each.name == layer.name)
    factors = two.requantization(meta)
    real = layer.bias[layer.dead] * (factors.multiplier / 2.0**factors.shift)[layer.dead]
    codes = next(each for each in report.layers if each.name == layer.name).output_codes[..., layer.dead]
    assert (codes == codes[0, 0, 0]).all()
    np.testing.assert_allclose(codes[0, 0, 0] + 128, np.maximum(real, 0), atol=0.51)
    assert codes.max() + 128 == 30


def test_the_repair_is_the_smallest_living_scale():
    """accelsim's quantizer: a dead channel's bias is counted in units that the others have, and needs few bits."""
    from accelsim.quantize.layers import Linear
    from accelsim.quantize.network import FloatLayer, FloatNetwork
    from accelsim.quantize.requantizer import requantized

    weight = np.array([[0.5, -0.25], [0.0, 0.0]])
    network = FloatNetwork("dead", np.ones((1, 2)), [FloatLayer(Linear(name="fc"), weight, np.array([0.1, 0.1]))])
    made = requantized(network, {"fc": ("int8", "int8")})
    assert isinstance(made, accelsim.Trace)
    assert int(np.abs(made.bias(made.layers[0])).max()) < 2**16
