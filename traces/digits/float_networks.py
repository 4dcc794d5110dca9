"""The digits networks as accelsim's float networks, with the test images and images to calibrate on."""

from __future__ import annotations

import numpy as np
from digits import network as net
from digits.quantized_training import Variant

from accelsim.quantize.layers import Conv2d, Linear
from accelsim.quantize.network import FloatLayer, FloatNetwork

CALIBRATION_IMAGES = 256
PLAIN = Variant("float")


def build(
    name: str, description: str, digits: net.Digits, params: net.Params, variant: Variant = PLAIN
) -> FloatNetwork:
    """Put a network together: the test images are its batch, the first training images its calibration inputs.

    Images are stored as float16, which holds (pixel - 5) / 8 exactly; weights as they are, float32.
    """
    layers = []
    for layer in net.LAYERS:
        sign = layer.name in variant.signs
        activation = "sign" if sign else "relu" if layer.relu else "none"
        meta: Conv2d | Linear
        if isinstance(layer, net.Conv):
            meta = Conv2d(
                name=layer.name,
                activation=activation,
                stride=(layer.stride, layer.stride),
                padding=((1, 1), (1, 1)),
                pad_value=int(variant.pad_value(layer)),
            )
        else:
            meta = Linear(name=layer.name, activation=activation, flatten=layer.name == "fc1")
        layers.append(FloatLayer(meta, params[f"{layer.name}/weight"], params[f"{layer.name}/bias"]))
    return FloatNetwork(
        name,
        digits.test_images.astype(np.float16),
        layers,
        calibration=digits.train_images[:CALIBRATION_IMAGES].astype(np.float16),
        labels=digits.test_labels.astype(np.uint8),
        description=description,
    )
