"""What the formats with a handful of values share: refusals, means per channel, powers of two. All exact.

Means are sums without rounding (``math.fsum``) divided once: they depend neither on the order of the elements nor on
the machine, and a channel alone has the scale that it has inside its tensor.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import FormatError

_FSUM_SAFE = 2.0**960
"""Sums of up to 2**63 numbers below this stay finite."""


def refuse_axis(name: str, axis: int | None, channel_axis: int | None) -> None:
    """Raise FormatError where channels are asked of a format that decodes by one table a tensor."""
    if axis is not None or channel_axis is not None:
        raise FormatError(f"{name} has one codebook a tensor; leave out axis and channel_axis")


def channels_of(array: NDArray[np.float64], axis: int | None) -> NDArray[np.float64]:
    """Return [C, elements] (per tensor: [1, elements])."""
    return array.reshape(1, -1) if axis is None else np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def one_a_channel(values: list[float], axis: int | None) -> NDArray[np.float64]:
    """Return one value a channel as (C,), or the only one as ()."""
    return np.array(values[0] if axis is None else values, np.float64)


def mean(values: NDArray[np.float64]) -> float:
    """Return the mean of at least one number: the exact sum, rounded once, divided by the count, rounded again."""
    if float(np.max(np.abs(values))) > _FSUM_SAFE:
        return mean(values * 2.0**-100) * 2.0**100
    return math.fsum(values.tolist()) / values.size


def is_power_of_two(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which of some positive numbers are 2**e for a whole e."""
    return np.asarray(np.frexp(values)[0] == 0.5)


def check_powers_of_two(scale: NDArray[np.float64], name: str) -> None:
    """Raise FormatError where a scale is not a power of two."""
    wrong = ~is_power_of_two(scale)
    if wrong.any():
        found = scale if scale.ndim == 0 else scale[int(np.argmax(wrong))]
        at = "" if scale.ndim == 0 else f" at index ({int(np.argmax(wrong))})"
        near = 2.0 ** round(math.log2(float(found)))
        raise FormatError(f"{name}: scale is {found}{at}, but has to be a power of two, such as {near}")
