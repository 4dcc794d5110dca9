"""Requantization: integer accumulators to output integers by a named rounding rule (docs/numerics.md)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError, ShapeError
from accelsim.ppu.multiplier import LARGEST_SHIFT, SIXTEEN_BIT_RULES, rule_named

Int64Array = NDArray[np.int64]

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
SMALLEST_SHIFT = -31
# Names to the kernels' codes; the 16-bit path rounds as half_up does, only its multiplier is narrower.
_KERNEL_RULES = {
    "double_half_up_then_away": 1,
    "double_half_up": 2,
    "half_up": 3,
    "half_up_int16_multiplier": 3,
    "dyadic_half_even": 7,
    "half_away_17bit": 8,
    "truncate": 9,
}


class Limits(NamedTuple):
    """What follows the rounding, in this order. The arrays are int64 [C]; every bound is inclusive.

    zero_point : added
    active_low, active_high : bounds of the fused activation
    low, high : the output's range
    """

    zero_point: Int64Array
    active_low: Int64Array
    active_high: Int64Array
    low: int
    high: int


def requantize(
    acc: ArrayLike,
    multiplier: ArrayLike,
    shift: ArrayLike = 0,
    rounding: str = "double_half_up_then_away",
    *,
    axis: int = -1,
    zero_point: ArrayLike = 0,
    qmin: int | None = None,
    qmax: int | None = None,
    offset: int = 0,
) -> Int64Array:
    """Return clamp(round(acc * multiplier / 2**shift) + zero_point), int64 of `acc`'s shape.

    The arithmetic is exact: nothing wraps on the way, whatever the accumulator (up to 64 bits), and the rounded value
    and its sum with the zero point are held in 64 bits, saturated. So a scale >= 1 never overflows int32 inside, where
    C implementations leave the result undefined.

    acc : integers of any width that fit int64, any shape
    multiplier : a scalar, or one for each index of `axis`. Integers 0..2**31-1 for the integer rules (0..2**15-1 for
        "half_up_int16_multiplier", -2**15..2**15-1 for "half_away_17bit"); real, finite and >= 0 for the float rules
    shift : integers -31..94, a scalar or one for each index of `axis`: the total right shift (TFLite's exponent e is
        shift = 31 - e); 0 for the float rules
    rounding : a name in accelsim.rounding.RULES
    zero_point : int32 range, a scalar or one for each index of `axis`; added after rounding
    qmin, qmax : inclusive bounds of the result; None: those of int64
    offset : int32 range, subtracted from `acc` before the multiply; rule "half_away_17bit" only

    Raises:
    FormatError : unknown rule; non-integer accumulators; multiplier, shift, zero point, offset or bounds out of range
    ShapeError : an axis that `acc` has not, or parameters that do not fit it

    >>> requantize([-510, 510, 3], 1 << 30, 32).tolist()  # times 0.25: gemmlowp's two roundings
    [-128, 128, 1]
    >>> requantize([-510, 510, 3], 1 << 30, 32, "half_up").tolist()
    [-127, 128, 1]
    """
    kind = rule_named(rounding).multiplier
    array = _integers("acc", acc)
    channels, shape, order = _channels_last(array, axis)
    if offset and rounding != "half_away_17bit":
        raise FormatError(f"offset={offset} has no meaning for rule {rounding!r}; only 'half_away_17bit' subtracts one")
    _check_range("offset", np.asarray(offset), -(1 << 31), (1 << 31) - 1)
    low = INT64_MIN if qmin is None else _bound("qmin", qmin)
    high = INT64_MAX if qmax is None else _bound("qmax", qmax)
    if not INT64_MIN <= low <= high <= INT64_MAX:
        raise FormatError(f"qmin={qmin}, qmax={qmax}: bounds have to be in order, and fit int64")
    zero_points = _one_a_channel("zero_point", _integers("zero_point", zero_point), channels)
    _check_range("zero_point", zero_points, -(1 << 31), (1 << 31) - 1)
    limits = Limits(zero_points, np.full(channels, INT64_MIN), np.full(channels, INT64_MAX), low, high)
    factors = np.asarray(multiplier)
    if kind == "integer" and not np.issubdtype(factors.dtype, np.integer):
        raise FormatError(
            f"multiplier is {factors.dtype}, but rule {rounding!r} takes integers; "
            f"encode_multiplier(scale, {rounding!r}) makes them"
        )
    factors = _one_a_channel("multiplier", factors, channels)
    shifts = _one_a_channel("shift", _integers("shift", shift), channels)
    rows = np.ascontiguousarray(order, dtype=np.int64).reshape(math.prod(shape[:-1]), channels)
    out, _ = round_and_limit(rows, factors, shifts, rounding, limits, offset)
    return np.ascontiguousarray(np.moveaxis(out.reshape(shape), -1, axis)) if array.ndim else out.reshape(())


def round_and_limit(
    acc: Int64Array | NDArray[np.float32],
    multiplier: NDArray[Any],
    shift: Int64Array,
    rounding: str,
    limits: Limits,
    offset: int = 0,
) -> tuple[Int64Array, int]:
    """Return (int64 [R, C], how many values the output's range moved); for the PPU's own use.

    acc : int64 [R, C], or float32 for rule "float32_half_even", contiguous
    multiplier, shift : [C], as in :func:`requantize`, whose errors it raises
    """
    from accelsim.ppu import requantize_kernels as kernels

    _check_factors(multiplier, shift, rounding)
    out = np.empty(acc.shape, np.int64)
    zero_point, active_low, active_high = (np.ascontiguousarray(array, np.int64) for array in limits[:3])
    tail = (zero_point, active_low, active_high, limits.low, limits.high, out)
    kind = rule_named(rounding).multiplier
    if kind == "float32":
        # Numba and NumPy both round an integer to the nearest float32, ties to even; one kernel serves both kinds.
        floats = np.ascontiguousarray(acc, np.float32)
        saturated = kernels.requantize_float32(floats, np.ascontiguousarray(multiplier, np.float32), *tail)
        return out, int(saturated)
    if acc.dtype != np.int64:
        raise FormatError(f"acc is {acc.dtype}, but rule {rounding!r} takes int64")
    integers = np.ascontiguousarray(acc, np.int64)
    if kind == "float64":
        saturated = kernels.requantize_float64(integers, np.ascontiguousarray(multiplier, np.float64), *tail)
    else:
        factors, shifts = np.ascontiguousarray(multiplier, np.int64), np.ascontiguousarray(shift, np.int64)
        saturated = kernels.requantize_integer(integers, factors, shifts, int(offset), _KERNEL_RULES[rounding], *tail)
    return out, int(saturated)


def _check_factors(multiplier: NDArray[Any], shift: Int64Array, rounding: str) -> None:
    kind = rule_named(rounding).multiplier
    if kind != "integer":
        real = np.asarray(multiplier, np.float64)
        usable = np.isfinite(real) & (real >= 0) & ((kind == "float64") | (real <= np.finfo(np.float32).max))
        if not usable.all():
            raise FormatError(f"multiplier {real[~usable][0]}: rule {rounding!r} takes finite {kind} numbers >= 0")
        if np.any(shift):
            raise FormatError(f"shift={shift[shift != 0][0]}, but rule {rounding!r} multiplies by a {kind}: use 0")
        return
    bits = 16 if rounding in SIXTEEN_BIT_RULES else 32
    lowest = -(1 << (bits - 1)) if rounding == "half_away_17bit" else 0
    _check_range("multiplier", multiplier, lowest, (1 << (bits - 1)) - 1, f" for rule {rounding!r}")
    _check_range("shift", shift, SMALLEST_SHIFT, LARGEST_SHIFT)


def _bound(name: str, value: object) -> int:
    if not isinstance(value, int | np.integer):
        raise FormatError(f"{name}={value!r}: bounds are whole numbers that fit int64, or None")
    return int(value)


def _integers(name: str, values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    if array.size == 0 and not isinstance(values, np.ndarray):
        return array.astype(np.int64)
    if array.dtype == object and all(isinstance(value, int) for value in array.flat):
        value = next((value for value in array.flat if not INT64_MIN <= value <= INT64_MAX), None)
        if value is None:
            return array.astype(np.int64)
        raise FormatError(f"{name} contains {value}, which does not fit int64")
    if not np.issubdtype(array.dtype, np.integer):
        raise FormatError(f"{name} is {array.dtype}; it takes integers that fit int64")
    if array.dtype == np.uint64 and array.size and int(array.max()) > INT64_MAX:
        raise FormatError(f"{name} contains {int(array.max())}, which does not fit int64")
    return array


def _check_range(name: str, array: NDArray[Any], low: int, high: int, note: str = "") -> None:
    if array.size and (int(array.min()) < low or int(array.max()) > high):
        found = int(array.min()) if int(array.min()) < low else int(array.max())
        raise FormatError(f"{name}={found} is out of range{note}; use {low} to {high}")


def _channels_last(array: NDArray[Any], axis: int) -> tuple[int, tuple[int, ...], NDArray[Any]]:
    """Return (size of `axis`, shape with it last, the array so ordered)."""
    if array.ndim == 0:
        return 1, (1,), array.reshape(1)
    if not -array.ndim <= axis < array.ndim:
        raise ShapeError(f"axis={axis}, but acc has {array.ndim} dimensions, shape {array.shape}")
    order = np.moveaxis(array, axis, -1)
    return order.shape[-1], order.shape, order


def _one_a_channel(name: str, array: NDArray[Any], channels: int) -> NDArray[Any]:
    if array.ndim > 1 or (array.ndim == 1 and array.size != channels):
        raise ShapeError(
            f"{name} has shape {array.shape}, but acc has {channels} channels along the axis; "
            f"pass a scalar, or one for each channel"
        )
    return np.broadcast_to(array, (channels,))
