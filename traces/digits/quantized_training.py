"""Training the digits network for weights (and activations) of one or two bits, in plain NumPy.

Post-training quantization to so few bits loses most of what a network knows, so training sees the quantized weights:
the forward pass uses them, the backward pass treats the quantizer as the identity (straight-through estimator;
Courbariaux et al., "BinaryConnect", 2015; Hubara et al., "Binarized Neural Networks", 2016). The first and the last
layer stay real and are quantized to 8 bits afterwards, as is usual.

    xnor       binary weights, scaled per output channel (XNOR-Net), and activations that are signs: the outputs of
               conv1 and conv2. conv2 pads with +1, because signs have no 0
    bwn        binary weights, scaled per output channel (BWN of the XNOR-Net paper); real activations, ReLU
    ternary    ternary weights with threshold 0.7 mean|w| and scale per output channel (TWN); real activations, ReLU

What is stored are the quantized weights (scale times -1, 0 or +1), whose quantization gives them back exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from digits import network as net
from digits.network import Conv, Linear
from digits.training import Adam, Array, Params, batches, cross_entropy_slope
from numpy.typing import NDArray

ByLayer = dict[str, Array]

SEED = 20240529
EPOCHS = 120
LEARNING_RATE = 2e-3
WEIGHT_DECAY = {"xnor": 0.0, "bwn": 0.02, "ternary": 0.02}
INNER = ("conv2", "fc1")  # the layers that are quantized
TWN_FACTOR = 0.7


@dataclass(frozen=True)
class Variant:
    """What distinguishes a network from the float one."""

    name: str
    ternary: bool = False
    signs: tuple[str, ...] = ()  # layers whose outputs are signs; the others keep their activation

    def pad_value(self, layer: Conv | Linear) -> float:
        """What a convolution's padding holds."""
        return 1.0 if self.signs and layer.name == "conv2" else 0.0


VARIANTS = {
    "xnor": Variant("xnor", signs=("conv1", "conv2")),
    "bwn": Variant("bwn"),
    "ternary": Variant("ternary", ternary=True),
}


def quantized(variant: Variant, weight: Array) -> Array:
    """Return scale * sign(w), or scale * (-1, 0, +1): one scale an output channel, on the grid of parameters."""
    rows = weight.reshape(len(weight), -1)
    magnitude = np.abs(rows)
    if variant.ternary:
        kept = magnitude > np.float32(TWN_FACTOR) * magnitude.mean(1, keepdims=True)
        values = np.where(kept, np.sign(rows), 0)
        scale = (magnitude * kept).sum(1) / np.maximum(kept.sum(1), 1)
    else:
        values = np.where(rows >= 0, 1, -1)
        scale = magnitude.mean(1)
    scale = np.maximum(net.on_grid(scale, net.PARAMETER_BITS), 2.0**-net.PARAMETER_BITS)
    return (values * scale[:, None]).astype(np.float32).reshape(weight.shape)


def effective(variant: Variant, params: Params) -> Params:
    """Return the parameters that the forward pass uses."""
    inner = {f"{name}/weight" for name in INNER}
    return {name: quantized(variant, array) if name in inner else array for name, array in params.items()}


def rows_of(variant: Variant, layer: Conv | Linear, x: Array) -> Array:
    """The layer's windows as rows; padding holds the variant's value."""
    if isinstance(layer, Linear) or not variant.pad_value(layer):
        return layer.rows(x)
    value = np.float32(variant.pad_value(layer))
    return layer.rows(x - value) + value  # what pads with zeros around x - value pads with value around x


def forward(
    variant: Variant, used: Params, images: Array
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Return each layer's output, its sums before the activation, and its input as rows."""
    outputs: dict[str, Array] = {}
    sums: dict[str, Array] = {}
    inputs: dict[str, Array] = {}
    x = images
    for layer in net.LAYERS:
        inputs[layer.name] = rows_of(variant, layer, x)
        kernel = used[f"{layer.name}/weight"].reshape(layer.outputs, -1)
        flat = (inputs[layer.name] @ kernel.T + used[f"{layer.name}/bias"]).reshape(layer.shape(x))
        sums[layer.name] = flat
        if layer.name in variant.signs:
            x = np.where(flat >= 0, np.float32(1), np.float32(-1))
        else:
            x = np.maximum(flat, 0) if layer.relu else flat
        outputs[layer.name] = x
    return outputs, sums, inputs


def gradients(
    variant: Variant,
    used: Params,
    outputs: ByLayer,
    sums: ByLayer,
    inputs: ByLayer,
    labels: NDArray[np.int64],
) -> Params:
    """Gradients of the mean cross entropy. A sign passes the gradient on where its argument lies in [-1, 1]."""
    delta = cross_entropy_slope(outputs["fc2"], labels)
    delta /= len(labels)
    result: Params = {}
    for layer in reversed(net.LAYERS):
        flat = sums[layer.name]
        delta = delta.reshape(flat.shape)
        if layer.name in variant.signs:
            delta = delta * (np.abs(flat) <= 1)
        elif layer.relu:
            delta = delta * (flat > 0)
        delta = delta.reshape(-1, layer.outputs)
        weight = used[f"{layer.name}/weight"]
        result[f"{layer.name}/weight"] = (delta.T @ inputs[layer.name]).reshape(weight.shape)
        result[f"{layer.name}/bias"] = delta.sum(0)
        if layer is net.LAYERS[0]:
            break
        if isinstance(layer, Linear):
            delta = delta @ weight
        else:
            delta = net.slope_of_input(layer, weight, delta.reshape(flat.shape))
    return result


def train(variant: Variant, digits: net.Digits, start: Params) -> Params:
    """Adam with a cosine schedule on shifted images, from the float network's parameters; returns what is stored."""
    rng = np.random.default_rng(SEED)
    params = {name: array.copy() for name, array in start.items()}
    decay, total = WEIGHT_DECAY[variant.name], EPOCHS * (len(digits.train_labels) // net.BATCH)
    adam = Adam(params, decay)
    for batch in batches(rng, len(digits.train_labels), EPOCHS, net.BATCH):
        images = net.shifted(digits.train_images[batch], rng)
        used = effective(variant, params)
        outputs, sums, inputs = forward(variant, used, images)
        slopes = gradients(variant, used, outputs, sums, inputs, digits.train_labels[batch])
        adam.step(slopes, LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * adam.steps / total)))
    on_grid = {name: net.on_grid(array, net.PARAMETER_BITS).astype(np.float32) for name, array in params.items()}
    return effective(variant, on_grid)
