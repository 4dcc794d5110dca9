"""The builder's arithmetic: integer biases from real ones, the narrowest type that stores a format's codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import TraceError
from accelsim.formats import Format

_STORAGE = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64)


def plain_array(value: ArrayLike, what: str) -> NDArray[Any]:
    """Return a copy of `value`; TraceError where it is not plain numbers."""
    try:
        array = np.array(value)
    except ValueError as error:  # lists of unequal lengths
        raise TraceError(f"{what}: is not an array of numbers: {error}") from None
    if array.dtype.kind not in "iuf":
        raise TraceError(f"{what}: dtype is {array.dtype}; pass integers or floats")
    return array


def narrow_codes(codes: ArrayLike, number_format: Format, what: str) -> NDArray[Any]:
    """Return codes in the narrowest type that holds the whole format (so that equal formats are stored alike).

    Codes outside of the format's range are kept as they are: the check of the finished trace says where they lie.
    """
    array = plain_array(codes, what)
    if array.dtype.kind == "f" or array.size == 0:
        return array
    if int(array.min()) < number_format.code_low or int(array.max()) > number_format.code_high:
        return array
    fitting = (
        dtype
        for dtype in _STORAGE
        if np.iinfo(dtype).min <= number_format.code_low and number_format.code_high <= np.iinfo(dtype).max
    )
    return plain_array(array.astype(next(fitting)), what)


def real_bias(bias: ArrayLike, scale: NDArray[np.float64], channels: int, what: str) -> NDArray[np.float32]:
    """Return a bias for sums of floats, float32 [channels]: bias / scale, rounded to nearest even.

    bias : real numbers [channels]
    scale : float64 () or (channels,): s_input * s_weight
    """
    array = plain_array(bias, what)
    if array.shape != (channels,):
        raise TraceError(f"{what}: has shape {array.shape}, but there are {channels} output channels")
    with np.errstate(over="ignore"):  # what is infinite is reported below
        quotients = (array.astype(np.float64) / scale).astype(np.float32)
    if not np.all(np.isfinite(quotients)):
        index = int(np.argmin(np.isfinite(quotients)))
        raise TraceError(f"{what}: bias {array[index]} of channel {index} is beyond float32 in units of its scale")
    return quotients


def quantize_bias(bias: ArrayLike, scale: NDArray[np.float64], channels: int, what: str) -> NDArray[np.int64]:
    """Return a bias in units of the accumulator, int64 [channels].

    bias : integers [channels], taken as they are; or real numbers [channels]: bias / scale, one float64 division,
        rounded to nearest, ties away from zero
    scale : float64 () or (channels,): s_input * s_weight
    """
    array = plain_array(bias, what)
    if array.shape != (channels,):
        raise TraceError(f"{what}: has shape {array.shape}, but there are {channels} output channels")
    if array.dtype.kind == "u" and int(array.max()) > np.iinfo(np.int64).max:
        raise TraceError(f"{what}: {array.max()} does not fit int64")
    if array.dtype.kind != "f":
        return array.astype(np.int64)
    with np.errstate(over="ignore"):  # an infinite quotient is reported below
        steps = array.astype(np.float64) / scale
    if not np.all(np.abs(steps) < 2.0**63):  # NaN fails too
        index = int(np.argmin(np.abs(steps) < 2.0**63))
        raise TraceError(f"{what}: bias {array[index]} of channel {index} does not fit int64 in units of its scale")
    whole = np.trunc(steps)
    away = np.abs(steps - whole) >= 0.5  # the difference is exact
    rounded: NDArray[np.int64] = whole.astype(np.int64) + np.where(away, np.sign(steps), 0.0).astype(np.int64)
    return rounded
