"""Channels that training switched off: weights of 1e-34, which do nothing, and a bias that has to arrive."""

import numpy as np
import pytest

from accelsim import formats, load_config, simulate
from accelsim.quantize.convert import quantize_network
from accelsim.quantize.layers import Linear
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.ranges import DEAD, without_dead_channels
from accelsim.quantize.requantizer import requantized

BIAS = np.array([0.1, -0.9, 0.75])
WEIGHT = np.array([[0.5, -0.25], [3e-34, -1e-34], [0.0, 0.0]])
NETWORK = FloatNetwork("dead", np.array([[1.0, 0.5], [0.25, 1.0]]), [FloatLayer(Linear(name="fc"), WEIGHT, BIAS)])


def by_requantizer(pair):
    return requantized(NETWORK, {"fc": pair})


def by_preset(pair):
    return quantize_network(NETWORK, weights=pair[0], activations=pair[1])


@pytest.mark.parametrize("quantize", [by_requantizer, by_preset])
@pytest.mark.parametrize("pair", [("int8", "int8"), ("int4", "int8"), ("vsq4", "vsq4"), ("fp8_e4m3", "fp8_e4m3")])
def test_a_dead_channel_s_output_is_its_bias(quantize, pair, project_root):
    """Worked by hand: outputs are the bias in steps of 0.9 / 127 (the largest magnitude), but for the first channel."""
    trace = quantize(pair)
    bias = trace.bias("fc")
    assert np.abs(bias).max() < 2**20, "as many steps as the living channel's"
    report = simulate(load_config(project_root / "configs" / "mixed.yaml"), trace, verify=True)
    layer = report.layer("fc")
    assert (layer.verified, layer.overflow.accumulator.count) == (0, 0)
    number_format, scale, zero_point = trace.output_factors("fc")
    out = (layer.output_codes - zero_point) * scale
    assert number_format.name == "int8"
    np.testing.assert_allclose(out[:, 1:], [BIAS[1:], BIAS[1:]], atol=float(scale))


def test_what_is_dead():
    """From 2^-16 of the largest weight on a channel lives, and no code of it changes."""
    weight = np.array([[1.0, 0.0], [DEAD, 0.0], [2 * DEAD, -DEAD]])
    int8 = formats.get("int8")
    assert without_dead_channels(int8, weight).tolist() == [[1.0, 0.0], [0.0, 0.0], [2 * DEAD, -DEAD]]
    np.testing.assert_array_equal(without_dead_channels(int8, weight[[0, 2]]), weight[[0, 2]])
    np.testing.assert_array_equal(without_dead_channels(int8, np.zeros((2, 3))), np.zeros((2, 3)))
    kernel = weight.reshape(3, 1, 1, 2)
    assert without_dead_channels(int8, kernel).shape == (3, 1, 1, 2)


@pytest.mark.parametrize("name", ["binary", "po2_4r", "mxfp4"])
def test_formats_whose_scale_is_defined_keep_their_weights(name):
    np.testing.assert_array_equal(without_dead_channels(formats.get(name), WEIGHT), WEIGHT)
