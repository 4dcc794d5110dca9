"""What all trainings of the digits networks share: batches, the loss's slope, and Adam; plain NumPy, float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Params = dict[str, Array]


def batches(rng: np.random.Generator, count: int, epochs: int, size: int) -> Iterator[NDArray[np.int64]]:
    """Indices of whole batches, in a new order every epoch."""
    for _ in range(epochs):
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def cross_entropy_slope(logits: Array, labels: NDArray[np.int64]) -> Array:
    """Each image's slope of the cross entropy along its logits [N, classes]: softmax less 1 at the label."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    slope = exponentials / exponentials.sum(1, keepdims=True)
    slope[np.arange(len(labels)), labels] -= 1
    return slope


class Adam:
    """Adam with decoupled weight decay, on parameters that it changes in place.

    weight_decay : of those whose names end with "weight"
    """

    def __init__(self, params: Params, weight_decay: float) -> None:
        self.params, self.weight_decay, self.steps = params, weight_decay, 0
        self.mean = {name: np.zeros_like(array) for name, array in params.items()}
        self.square = {name: np.zeros_like(array) for name, array in params.items()}

    def step(self, slopes: Params, rate: float) -> None:
        """Take one step down the slopes."""
        self.steps += 1
        for name, slope in slopes.items():
            self.mean[name] += 0.1 * (slope - self.mean[name])
            self.square[name] += 0.001 * (slope * slope - self.square[name])
            mean, square = self.mean[name] / (1 - 0.9**self.steps), self.square[name] / (1 - 0.999**self.steps)
            update = mean / (np.sqrt(square) + 1e-8)
            decay = self.weight_decay if name.endswith("weight") else 0.0
            self.params[name] -= np.float32(rate) * (update + np.float32(decay) * self.params[name])
