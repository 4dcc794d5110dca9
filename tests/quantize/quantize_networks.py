"""Small float networks for the tests of the quantizer."""

import numpy as np

from accelsim.quantize.layers import Conv2d, Linear, Matmul
from accelsim.quantize.network import FloatLayer, FloatNetwork


def small(activation="relu", channels=32, **changes):
    """conv 3x3 (1 -> channels), conv 3x3 stride 2, linear: as the digits network, but with 4x4 images."""
    rng = np.random.default_rng(7)
    sign = activation == "sign"
    layers = [
        FloatLayer(
            Conv2d(name="conv1", padding=((1, 1), (1, 1)), activation=activation),
            rng.standard_normal((channels, 3, 3, 1)).astype(np.float32) / 3,
            rng.standard_normal(channels).astype(np.float32) / 4,
        ),
        FloatLayer(
            Conv2d(
                name="conv2", stride=(2, 2), padding=((1, 0), (1, 0)), activation="relu", pad_value=1 if sign else 0
            ),
            rng.standard_normal((channels, 3, 3, channels)).astype(np.float32) / 12,
            rng.standard_normal(channels).astype(np.float32) / 4,
        ),
        FloatLayer(
            Linear(name="fc", flatten=True), rng.standard_normal((5, 4 * channels)).astype(np.float32) / 8, None
        ),
    ]
    arguments = {
        "inputs": rng.uniform(-1, 1, (6, 4, 4, 1)).astype(np.float32),
        "layers": layers,
        "calibration": rng.uniform(-1, 1, (9, 4, 4, 1)).astype(np.float32),
        "labels": np.arange(6) % 5,
    }
    return FloatNetwork("small", **arguments | changes)


def attention():
    """Scores of a tiny attention: two projections of one input, and their product."""
    rng = np.random.default_rng(8)
    layers = [
        FloatLayer(Linear(name="queries"), rng.standard_normal((8, 6)), rng.standard_normal(8)),
        FloatLayer(Linear(name="keys", input="input"), rng.standard_normal((8, 6)), None),
        FloatLayer(Matmul(name="scores", input="queries", other="keys", transpose_other=True)),
    ]
    return FloatNetwork("attention", rng.standard_normal((2, 3, 6)), layers)
