"""The rules of HAQ's search, apart from any library of agents: what an action means, and how a budget is enforced.

Source: K. Wang, Z. Liu, Y. Lin, J. Lin, S. Han, "HAQ: Hardware-Aware Automated Quantization with Mixed Precision", CVPR
2019, sections 3.1 to 3.4; details that the paper leaves open are those of its published code (mit-han-lab/haq).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import SearchError
from accelsim.quantize.layers import Conv2d, Linear
from accelsim.quantize.network import FloatNetwork

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

WEIGHT, ACTIVATION = 0, 1
"""Columns of widths [layers, 2]."""
BASE_BITS = 8
"""The width of the uniform network that budgets and rewards refer to, and of the first and the last layer."""
TABLE_BITS = 8
"""A table has a cell for each width from 1 to 8 of weights, and of activations."""
LAYER_FEATURES = (
    "depthwise",
    "input_channels",
    "output_channels",
    "stride",
    "kernel",
    "weights",
    "input_pixels",
    "index",
)


def width_of(action: float, bits: tuple[int, int]) -> int:
    """Return the width that an action in [0, 1] means: each of low..high bits has an equal share of the interval.

    ``round((high + 0.5 - (low - 0.5)) * action + low - 0.5)``, halves to even (equation 2). At the interval's ends that
    leaves low..high where low or high is odd; it is clipped, which the published code leaves out.

    >>> [width_of(action, (2, 8)) for action in (0.0, 0.5, 0.86, 1.0)]
    [2, 5, 8, 8]
    """
    low, high = bits
    position = (high + 0.5 - (low - 0.5)) * float(action) + (low - 0.5)
    return min(max(round(position), low), high)


def assignment_cost(table: Float64, widths: Int64) -> float:
    """Return the sum of a table's cells [layer, weight bits - 1, activation bits - 1] at widths [layers, 2]."""
    cells = table[np.arange(len(table)), widths[:, WEIGHT] - 1, widths[:, ACTIVATION] - 1]
    return math.fsum(cells.tolist())


def within_budget(widths: Int64, table: Float64, limit: float, *, lowest: int, free: NDArray[np.bool_]) -> Int64:
    """Return widths [layers, 2] lowered until their cost is at most the limit (section 3.4).

    One bit at a time, from the last layer to the first, in each the activations before the weights, round after round;
    it stops at the first cost within the limit, or when all that is free has the lowest width.

    table : [layers, 8, 8]
    free : [layers], whether the layer's widths may be lowered
    """
    lowered = widths.copy()
    cost = assignment_cost(table, lowered)
    while cost > limit and bool(np.any(lowered[free] > lowest)):
        for layer in reversed(np.flatnonzero(free)):
            for operand in (ACTIVATION, WEIGHT):
                if lowered[layer, operand] > lowest:
                    lowered[layer, operand] -= 1
                    cost = assignment_cost(table, lowered)
                if cost <= limit:
                    return lowered
    return lowered


def layer_features(network: FloatNetwork) -> Float64:
    """Return `LAYER_FEATURES` of each layer that multiplies, [layers, 8], every column scaled to [0, 1] (table 2).

    A column with one value only is 0. The stride of what is no convolution is 0, its kernel and pixels are 1.
    """
    rows = []
    for index, layer in enumerate(network.array_layers):
        source = network.shapes[network.sources(layer)[0]]
        output = network.shapes[layer.name]
        if isinstance(layer.meta, Conv2d):
            assert layer.weight is not None
            depthwise = layer.meta.groups == source[-1] > 1
            kernel, pixels, channels = layer.weight.shape[1], source[1] * source[2], source[-1]
            stride, weights = layer.meta.stride[0], layer.weight.size
        elif isinstance(layer.meta, Linear):
            assert layer.weight is not None
            depthwise, kernel, pixels, stride = False, 1, 1, 0
            channels, weights = layer.weight.shape[1], layer.weight.size
        else:
            depthwise, kernel, pixels, stride, channels = False, 1, 1, 0, source[-1]
            weights = math.prod(network.shapes[network.sources(layer)[1]][1:])
        rows.append((depthwise, channels, output[-1], stride, kernel, weights, pixels, index))
    features = np.array(rows, np.float64).reshape(-1, len(LAYER_FEATURES))
    low, high = features.min(axis=0), features.max(axis=0)
    scaled: Float64 = (features - low) / np.where(high > low, high - low, 1.0)
    return scaled


def checked_table(table: ArrayLike | str | Path, layers: int, bits: tuple[int, int]) -> Float64:
    """Return costs [layers, 8, 8], index [layer, weight bits - 1, activation bits - 1], given or in a `.npy` file.

    Raises SearchError: no file, another shape, costs that are no numbers, or negative, where the search may look.
    """
    given: Any = table
    what = "the cost table"
    if isinstance(table, str | Path):
        what = str(table)
        try:
            given = np.load(table, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise SearchError(f"{what}: is no .npy array of numbers ({error})") from None
    array = np.asarray(given)
    if array.dtype.kind not in "iuf":
        raise SearchError(f"{what}: has dtype {array.dtype}; costs are integers or floats")
    if array.shape != (layers, TABLE_BITS, TABLE_BITS):
        raise SearchError(
            f"{what}: has shape {array.shape}; the network has {layers} layers that multiply, so give "
            f"({layers}, {TABLE_BITS}, {TABLE_BITS}), index [layer, weight bits - 1, activation bits - 1]"
        )
    costs = array.astype(np.float64)
    for w, a in needed_cells(bits):
        wrong = ~(np.isfinite(costs[:, w - 1, a - 1]) & (costs[:, w - 1, a - 1] >= 0))
        if wrong.any():
            layer = int(np.argmax(wrong))
            raise SearchError(
                f"{what}: layer {layer} costs {costs[layer, w - 1, a - 1]} with {w}-bit weights and {a}-bit "
                f"activations; costs are finite and not negative"
            )
    if not costs[:, BASE_BITS - 1, BASE_BITS - 1].any():
        raise SearchError(f"{what}: every layer costs nothing at {BASE_BITS} bits, so no budget can be set")
    return costs


def needed_cells(bits: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the (weight bits, activation bits) that a search within bits may use; 8 x 8 among them."""
    inside = range(bits[0], bits[1] + 1)
    return list(dict.fromkeys([*((w, a) for w in inside for a in inside), (BASE_BITS, BASE_BITS)]))
