"""The float network of the bundled digits traces: data, forward and backward pass, training; plain NumPy.

Activations are NHWC, convolution weights OHWI, linear weights [out, in]; parameters are called "<layer>/weight" and
"<layer>/bias".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from digits.training import Adam, Array, Params, batches, cross_entropy_slope
from numpy.typing import NDArray
from sklearn.datasets import load_digits

SEED = 20240529
TEST_IMAGES = 240
# Epochs, rate and decay were chosen by 4-fold cross-validation on the training images; the test images had no say.
EPOCHS = 150
BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.1
BACKGROUND = -0.625

PARAMETER_BITS = 16  # trained parameters are multiples of 2**-16, so that `evaluate` is exact
ACTIVATION_BITS = 20  # evaluated activations are rounded to multiples of 2**-20


@dataclass(frozen=True)
class Conv:
    """3x3 convolution, padding 1 on every side (real zeros), then ReLU."""

    name: str
    inputs: int
    outputs: int
    stride: int
    relu: bool = True

    def rows(self, x: Array) -> Array:
        """The windows of x [N, H, W, C] as rows [N * Ho * Wo, 9 * C]: (kernel height, kernel width, channel)."""
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        windows = windows[:, :: self.stride, :: self.stride].transpose(0, 1, 2, 4, 5, 3)
        return np.ascontiguousarray(windows).reshape(-1, 9 * self.inputs)

    def shape(self, x: Array) -> tuple[int, ...]:
        """The output's shape."""
        return (len(x), x.shape[1] // self.stride, x.shape[2] // self.stride, self.outputs)


@dataclass(frozen=True)
class Linear:
    """Fully connected; input flattened in the order (height, width, channel)."""

    name: str
    inputs: int
    outputs: int
    relu: bool

    def rows(self, x: Array) -> Array:
        """The input [N, ...] as rows [N, inputs]."""
        return x.reshape(len(x), self.inputs)

    def shape(self, x: Array) -> tuple[int, ...]:
        """The output's shape."""
        return (len(x), self.outputs)


CONVS = (Conv("conv1", 1, 16, stride=2), Conv("conv2", 16, 32, stride=1))
LINEARS = (Linear("fc1", 512, 64, relu=True), Linear("fc2", 64, 10, relu=False))
LAYERS = (*CONVS, *LINEARS)


@dataclass(frozen=True)
class Digits:
    """Images [N, 8, 8, 1], normalised, and their classes [N]; the split is a seeded permutation."""

    train_images: Array
    train_labels: NDArray[np.int64]
    test_images: Array
    test_labels: NDArray[np.int64]


def load() -> Digits:
    """The 1797 digits that scikit-learn ships, pixels 0..16 mapped to (pixel - 5) / 8, which is exact in binary.

    5 is the rounded mean pixel: the background becomes -0.625, so an unsigned encoding needs a zero point.
    """
    bunch = load_digits()
    images = ((bunch.images - 5) / 8).astype(np.float32)[..., None]
    order = np.random.default_rng(SEED).permutation(len(images))
    train, test = order[TEST_IMAGES:], order[:TEST_IMAGES]
    return Digits(images[train], bunch.target[train], images[test], bunch.target[test])


def forward(params: Params, images: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return each layer's output (after its ReLU), and each layer's input as the rows that `gradients` needs."""
    outputs: dict[str, Array] = {}
    inputs: dict[str, Array] = {}
    x = images
    for layer in LAYERS:
        inputs[layer.name] = layer.rows(x)
        kernel = params[f"{layer.name}/weight"].reshape(layer.outputs, -1)
        flat = inputs[layer.name] @ kernel.T + params[f"{layer.name}/bias"]
        x = (np.maximum(flat, 0) if layer.relu else flat).reshape(layer.shape(x))
        outputs[layer.name] = x
    return outputs, inputs


def evaluate(params: Params, images: Array) -> dict[str, NDArray[np.float64]]:
    """Return each layer's output, float64, the same on every machine.

    Parameters are multiples of 2**-16 and activations of 2**-20, so products are multiples of 2**-36, and sums below
    2**17 are exact in float64: neither their order nor fused multiply-adds can change them.
    """
    outputs: dict[str, NDArray[np.float64]] = {}
    x = images.astype(np.float64)
    for layer in LAYERS:
        kernel = params[f"{layer.name}/weight"].reshape(layer.outputs, -1).astype(np.float64)
        bias = params[f"{layer.name}/bias"].astype(np.float64)
        largest = np.max(np.abs(kernel).sum(1) * np.abs(x).max() + np.abs(bias))
        if largest >= 2.0 ** (53 - PARAMETER_BITS - ACTIVATION_BITS):
            raise ValueError(f"{layer.name}: sums may reach {largest:.0f}, too much for exact evaluation")
        flat = layer.rows(x) @ kernel.T + bias
        x = (np.maximum(flat, 0) if layer.relu else flat).reshape(layer.shape(x))
        x = on_grid(x, ACTIVATION_BITS)
        outputs[layer.name] = x
    return outputs


def on_grid(array: NDArray[np.floating], bits: int) -> NDArray[np.floating]:
    """Round to the nearest multiples of 2**-bits."""
    return np.rint(array * 2.0**bits) / 2.0**bits


def gradients(params: Params, outputs: dict[str, Array], inputs: dict[str, Array], labels: NDArray[np.int64]) -> Params:
    """Gradients of the mean cross entropy; `outputs` and `inputs` are what `forward` returned."""
    delta = cross_entropy_slope(outputs["fc2"], labels)
    delta /= len(labels)
    result: Params = {}
    for linear in reversed(LINEARS):
        if linear.relu:
            delta = delta * (outputs[linear.name] > 0)
        result[f"{linear.name}/weight"] = delta.T @ inputs[linear.name]
        result[f"{linear.name}/bias"] = delta.sum(0)
        delta = delta @ params[f"{linear.name}/weight"]
    for conv in reversed(CONVS):
        out = outputs[conv.name]
        delta = delta.reshape(out.shape) * (out > 0)
        flat = delta.reshape(-1, conv.outputs)
        result[f"{conv.name}/weight"] = (flat.T @ inputs[conv.name]).reshape(conv.outputs, 3, 3, conv.inputs)
        result[f"{conv.name}/bias"] = flat.sum(0)
        if conv is CONVS[0]:
            break
        kernel = params[f"{conv.name}/weight"]
        delta = slope_of_input(conv, kernel, delta)
    return result


def slope_of_input(conv: Conv, kernel: Array, delta: Array) -> Array:
    """The slope along a convolution's input; `delta` is that along its output, [N, height, width, outputs]."""
    images, size = delta.shape[:2]
    reach = size * conv.stride
    padded = np.zeros((images, reach + 2, reach + 2, conv.inputs), delta.dtype)
    for i in range(3):
        for j in range(3):
            padded[:, i : i + reach : conv.stride, j : j + reach : conv.stride] += delta @ kernel[:, i, j]
    return padded[:, 1:-1, 1:-1]


def initial_params(rng: np.random.Generator) -> Params:
    """He initialisation; biases zero."""
    params: Params = {}
    for layer in LAYERS:
        kernel = (3, 3) if isinstance(layer, Conv) else ()
        shape = (layer.outputs, *kernel, layer.inputs)
        deviation = np.sqrt(2 * layer.outputs / np.prod(shape))
        params[f"{layer.name}/weight"] = (rng.standard_normal(shape) * deviation).astype(np.float32)
        params[f"{layer.name}/bias"] = np.zeros(layer.outputs, np.float32)
    return params


def shifted(images: Array, rng: np.random.Generator) -> Array:
    """Move each image by -1, 0 or 1 pixel in each direction; what enters is background."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=BACKGROUND)
    down, right = rng.integers(0, 3, (2, len(images)))
    return np.stack([image[i : i + 8, j : j + 8] for image, i, j in zip(padded, down, right, strict=True)])


def train(digits: Digits) -> Params:
    """Adam with decoupled weight decay and a cosine schedule, on shifted images; parameters end on their grid."""
    rng = np.random.default_rng(SEED)
    params = initial_params(rng)
    adam, total = Adam(params, WEIGHT_DECAY), EPOCHS * (len(digits.train_labels) // BATCH)
    for batch in batches(rng, len(digits.train_labels), EPOCHS, BATCH):
        images = shifted(digits.train_images[batch], rng)
        outputs, inputs = forward(params, images)
        slopes = gradients(params, outputs, inputs, digits.train_labels[batch])
        adam.step(slopes, LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * adam.steps / total)))
    return {name: on_grid(array, PARAMETER_BITS).astype(np.float32) for name, array in params.items()}


def accuracy(logits: NDArray[np.generic], labels: NDArray[np.int64]) -> float:
    """Share of images whose largest logit is the label's; the first of equal logits counts."""
    return float(np.mean(np.argmax(logits, axis=1) == labels))
