"""Where TFLite Micro's kernels differ from LiteRT's reference kernels: golden vectors of TFLite Micro itself.

tests/golden/make_tflite_micro.py has made tests/golden/tflite_micro.json from the models below.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from tflite_tools import Maker, simulated_tensors

from accelsim import import_model
from accelsim.errors import ModelError

GOLDEN = Path(__file__).parents[1] / "golden" / "tflite_micro.json"
ALL_CODES = np.arange(-128, 128, dtype=np.int8)[None]


def near_half(per_channel):
    """A fully connected layer whose accumulators, near 2**29, lie where roundings and factors differ."""
    x_scale, w_scale, y_scale = np.float32(0.0117), np.float32(0.000299), np.float32(17.3)
    factor = float(x_scale) * float(w_scale) / float(y_scale)
    steps = np.arange(-50, 50).repeat(5) + 0.5
    biases = (np.rint(steps / factor) + np.tile([-40, -7, 0, 9, 31], 100)).astype(np.int32)
    net, each = Maker(), np.full(500, w_scale) if per_channel else w_scale
    x = net.tensor((1, 1), "INT8", x_scale)
    w = net.constant(np.zeros((500, 1), np.int8), None, each)
    b = net.constant(biases, None, x_scale * each)
    y = net.tensor((1, 500), "INT8", y_scale)
    net.op("FULLY_CONNECTED", [x, w, b], [y], "FullyConnectedOptions", version=4)
    return net, [x], y, [np.zeros((1, 1), np.int8)]


def product():
    """All pairs of 64 codes, with scales whose factor depends on its precision."""
    net = Maker()
    a, b = (
        net.tensor((1, 64, 1), "INT8", 0.03925203159451485, -9),
        net.tensor((1, 1, 64), "INT8", 0.01859104260802269, 40),
    )
    y = net.tensor((1, 64, 64), "INT8", 0.29889994859695435, -3)
    net.op("MUL", [a, b], [y], "MulOptions", version=2)
    codes = ALL_CODES[:, ::4]
    return net, [a, b], y, [codes.reshape(1, 64, 1), codes.reshape(1, 1, 64)]


def curve(name, scale, zero_point, x_scale):
    net = Maker()
    x, y = net.tensor((1, 256), "INT8", x_scale, -7), net.tensor((1, 256), "INT8", scale, zero_point)
    net.op(name, [x], [y])
    return net, [x], y, [ALL_CODES]


MODELS = {
    "fully connected, one scale": lambda: near_half(False),
    "fully connected, a scale per channel": lambda: near_half(True),
    "mul": product,
    "logistic": lambda: curve("LOGISTIC", 1 / 256, -128, 0.043),
    "logistic, wide": lambda: curve("LOGISTIC", 1 / 256, -128, 0.11),
    "tanh": lambda: curve("TANH", 1 / 128, 0, 0.021),
    "hard swish": lambda: curve("HARD_SWISH", 0.03, -100, 0.043),
}


def golden(name):
    return np.array(json.loads(GOLDEN.read_text())["outputs"][name])


def computed(name, folder, semantics):
    net, inputs, output, data = MODELS[name]()
    path = net.save(folder / "net.tflite", inputs, [output])
    given = {net.tensors[index].name.decode(): array for index, array in zip(inputs, data, strict=True)}
    made, _ = simulated_tensors(path, given, semantics=semantics)
    return made[output].reshape(-1)


@pytest.mark.parametrize("name", MODELS)
def test_codes_are_those_of_tflite_micro(name, tmp_path):
    np.testing.assert_array_equal(computed(name, tmp_path, "tflite-micro"), golden(name))


@pytest.mark.parametrize("name", ["fully connected, one scale", "fully connected, a scale per channel", "mul"])
def test_litert_gives_other_codes(name, tmp_path):
    """Else the golden vectors would not tell the two apart."""
    assert np.any(computed(name, tmp_path, "tflite-reference") != golden(name))


def test_what_micro_does_not_have_is_refused(tmp_path):
    net, inputs, output, data = curve("RELU6", 0.02, -128, 0.043)
    path = net.save(tmp_path / "relu6.tflite", inputs, [output])
    import_model(path, data[0])
    with pytest.raises(ModelError, match=r"0_relu6 \(RELU6\): TFLite Micro's kernel does not rescale"):
        import_model(path, data[0], "tflite-micro")
    net = Maker()
    x, y = net.tensor((1, 256), "INT8", 0.04, -7), net.tensor((1, 256), "INT8", 0.05, 3)
    net.op("LEAKY_RELU", [x], [y], "LeakyReluOptions", alpha=0.3)
    with pytest.raises(ModelError, match="the factor of its slope in a precision that accelsim does not have"):
        import_model(net.save(tmp_path / "leaky.tflite", [x], [y]), ALL_CODES, "tflite-micro")
    net = Maker()
    x, y = net.tensor((1, 4), "UINT8", 0.04, 7), net.tensor((1, 2), "UINT8", 0.05, 3)
    w = net.constant(np.zeros((2, 4), np.uint8), None, 0.01, 128)
    net.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
    with pytest.raises(ModelError, match="is of the old uint8 scheme, for which TFLite Micro has no kernels"):
        import_model(net.save(tmp_path / "old.tflite", [x], [y]), np.zeros((1, 4), np.uint8), "tflite-micro")
