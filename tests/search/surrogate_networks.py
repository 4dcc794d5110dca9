"""Networks for the tests of the search environment, with tables of costs and accuracies that take no time."""

import numpy as np

from accelsim.quantize.layers import Conv2d
from accelsim.quantize.network import FloatLayer, FloatNetwork


def chain(layers, seed=0):
    """`layers` convolutions 3x3 on 4x4 pixels, of 2 to 11 channels."""
    rng = np.random.default_rng(seed)
    channels = [3, *(int(count) for count in rng.integers(2, 12, layers))]
    made = [
        FloatLayer(
            Conv2d(name=f"conv{i}", padding=((1, 1), (1, 1))), rng.normal(size=(channels[i + 1], 3, 3, channels[i]))
        )
        for i in range(layers)
    ]
    return FloatNetwork("chain", rng.normal(size=(1, 4, 4, 3)), made)


def bit_products(network):
    """Costs [layers, 8, 8]: weights times weight bits times activation bits."""
    bits = np.arange(1, 9)
    size = np.array([layer.weight.size for layer in network.array_layers])
    return size[:, None, None] * bits[:, None] * bits[None, :]


def noise_accuracy(network, seed=0):
    """Return an accuracy that falls with each operand's quantization noise, 4^-bits, in some layers more."""
    weight = np.random.default_rng(seed).lognormal(0, 1.5, (len(network.array_layers), 2))

    def accuracy(assignment):
        bits = np.array([[int(name.removeprefix("int")) for name in pair] for pair in assignment.values()])
        return 1 - 0.02 * float((weight * 4.0 ** (2 - bits)).sum())

    return accuracy
