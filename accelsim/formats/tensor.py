"""The checked way to build a QTensor, and the small array helpers that the formats share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError, ShapeError
from accelsim.formats.spec import Blocks, Format, QTensor, Scalar

SMALLEST_SCALE = float(np.finfo(np.float64).tiny)
"""A scale computed from data is never smaller: 2**-1022, the smallest normal double. Below it a scale would lose its
precision, and finally be zero."""


def make_qtensor(
    codes: ArrayLike,
    number_format: Format,
    scale: ArrayLike = 1.0,
    zero_point: ArrayLike = 0,
    *,
    channel_axis: int | None = None,
    block_axis: int | None = None,
    block_scales: ArrayLike | None = None,
    codebook: ArrayLike | None = None,
    subject: str = "tensor",
) -> QTensor:
    """Build a QTensor from codes and scales that come from outside; check all of it.

    codes : integers, any shape with at least one element, in [number_format.code_low, number_format.code_high] and
        none of number_format.reserved_codes
    number_format : the number format (``formats.get(name)``)
    scale : positive finite numbers, shape () or, with `channel_axis`, () or (C,); VSQ: the coarse scale gamma
    zero_point : integers in number_format.zero_points, shape as `scale`
    channel_axis : axis of per-channel scales and zero points, negative allowed; None: per tensor
    block_axis : axis that blocks run along, negative allowed; None: the last axis where the format has blocks
    block_scales : integers in [0, number_format.blocks.scale_high], the shape of `codes` with the block axis divided by
        the block size, rounded up; needed by formats with blocks and refused by others
    codebook : integers in [number_format.low, number_format.high], one for each code; needed by formats that decode by
        a table and refused by others
    subject : what the messages call the tensor

    Returns a QTensor with the dtypes of its docstring; `scale` and `zero_point` have shape () or, per channel, (C,).

    Raises:
    FormatError : a value that the format cannot hold, with its index and what would fit
    ShapeError : shapes or axes that do not fit together

    >>> from accelsim import formats
    >>> tensor = formats.make_qtensor([[1, -2], [7, 0]], formats.get("int4"), [0.5, 2.0], channel_axis=0)
    >>> tensor.dequantize().tolist()
    [[0.5, -1.0], [14.0, 0.0]]
    >>> formats.make_qtensor([9], formats.get("int4"))
    Traceback (most recent call last):
        ...
    accelsim.errors.FormatError: tensor: code 9 at index (0) is outside int4's range [-8, 7]
    """
    code_array = _integers(codes, f"{subject}: codes")
    if code_array.size == 0:
        raise ShapeError(f"{subject}: codes of shape {code_array.shape} hold no elements; at least one is needed")
    _check_range(code_array, number_format.code_low, number_format.code_high, f"{subject}: code", number_format.name)
    _check_reserved(code_array, number_format, subject)
    channel = normalize_axis(channel_axis, code_array.ndim, f"{subject}: channel_axis")
    scale_array = check_scale(scale, code_array.shape, channel, subject)
    zero_array = check_zero_point(zero_point, number_format, code_array.shape, channel, subject)
    block, blocks_array = _check_blocks(block_scales, block_axis, number_format, code_array.shape, channel, subject)
    table = _check_codebook(codebook, number_format, subject)
    dtype = np.int32 if number_format.code_high <= np.iinfo(np.int32).max else np.int64
    return QTensor(
        code_array.astype(dtype), number_format, scale_array, zero_array, channel, block, blocks_array, table
    )


def as_reals(array: ArrayLike) -> NDArray[np.float64]:
    """Return `array` as float64.

    Raises FormatError for what is not real numbers and for NaN or infinity, ShapeError for an empty array.
    """
    given = np.asarray(array)
    if given.dtype.kind not in "biuf":
        raise FormatError(f"cannot quantize an array of dtype {given.dtype}; pass real numbers (float or integer)")
    if given.size == 0:
        raise ShapeError(f"cannot quantize an array of shape {given.shape}: it has no elements")
    reals = given.astype(np.float64)
    wrong = ~np.isfinite(reals)
    if wrong.any():
        index = _first(wrong)
        raise FormatError(
            f"cannot quantize: {int(wrong.sum())} of {reals.size} values are NaN or infinite, the first is "
            f"{reals[index]} at index {_show(index)}; replace or clip them first"
        )
    return reals


def quotient(reals: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return reals / scale in float64; a quotient beyond float64 becomes the largest double (and saturates later)."""
    limit = np.finfo(np.float64).max
    with np.errstate(over="ignore"):
        return np.clip(reals / scale, -limit, limit)


def refuse_zero_points(name: str, zero_point: ArrayLike | None, asymmetric: bool) -> None:
    """Raise FormatError where a format without zero points is asked for one."""
    if asymmetric or (zero_point is not None and np.any(np.asarray(zero_point))):
        raise FormatError(f"{name} has no zero points; leave out zero_point and asymmetric")


def normalize_axis(axis: int | None, ndim: int, what: str) -> int | None:
    """Return `axis` counted from the front, or None; raise ShapeError where the array has no such axis."""
    if axis is None:
        return None
    if not -ndim <= axis < ndim:
        accepted = f"use {-ndim}..{ndim - 1}" if ndim else "a single number has no axes"
        raise ShapeError(f"{what}={axis} is not an axis of an array with {ndim} dimensions; {accepted}")
    return axis % ndim


def one_axis(axis: int | None, channel_axis: int | None, ndim: int) -> int | None:
    """Return the axis of per-channel scales, which plain formats take under either name."""
    first = normalize_axis(axis, ndim, "axis")
    second = normalize_axis(channel_axis, ndim, "channel_axis")
    if first is not None and second is not None and first != second:
        raise ShapeError(
            f"axis={axis} and channel_axis={channel_axis} differ; both name the axis of per-channel scales: pass one"
        )
    return second if first is None else first


def other_axes(ndim: int, axis: int | None) -> tuple[int, ...]:
    """Return the axes that a per-channel (or, with None, per-tensor) extremum is taken over."""
    return tuple(i for i in range(ndim) if i != axis)


def along(array: NDArray[Scalar], ndim: int, axis: int | None) -> NDArray[Scalar]:
    """Reshape a () or (C,) array so that it broadcasts along `axis` of an `ndim`-dimensional array."""
    if array.ndim == 0 or axis is None:
        return array
    return array.reshape([array.size if i == axis else 1 for i in range(ndim)])


def block_count(length: int, size: int) -> int:
    """Return how many blocks of `size` cover `length` elements; the last may be shorter."""
    return -(-length // size)


def spread_blocks(block_scales: NDArray[Scalar], axis: int, size: int, length: int) -> NDArray[Scalar]:
    """Repeat each block's scale for its elements: the block axis grows to `length`."""
    spread: NDArray[Scalar] = np.repeat(block_scales, size, axis=axis).take(np.arange(length), axis=axis)
    return spread


def block_maxima(magnitudes: NDArray[Scalar], axis: int, size: int) -> NDArray[Scalar]:
    """Return the largest of each block of `size` along `axis`; the last block may be shorter."""
    starts = np.arange(block_count(magnitudes.shape[axis], size)) * size
    return np.asarray(np.maximum.reduceat(magnitudes, starts, axis=axis))


def clamp_codes(codes: NDArray[np.float64], low: int, high: int) -> NDArray[np.int64]:
    """Clamp whole numbers (infinities too) to [low, high] and return int64; exact for ranges of up to 64 bits."""
    # A bound above 2**53 rounds up as a double, so it is compared first and converted as an integer.
    over, under = codes >= high, codes <= low
    inside = np.where(over | under, 0.0, codes).astype(np.int64)
    return np.where(over, np.int64(high), np.where(under, np.int64(low), inside))


def check_scale(scale: ArrayLike, shape: tuple[int, ...], axis: int | None, subject: str) -> NDArray[np.float64]:
    """Return `scale` as float64 of shape () or (C,); raise FormatError or ShapeError."""
    given = np.asarray(scale)
    if given.dtype.kind not in "biuf":
        raise FormatError(f"{subject}: scale has dtype {given.dtype}; pass positive real numbers")
    reals = given.astype(np.float64)
    wrong = ~(np.isfinite(reals) & (reals > 0))
    if wrong.any():
        index = _first(wrong)
        at = f" at index {_show(index)}" if index else ""
        raise FormatError(f"{subject}: scale is {reals[index]}{at}; scales are finite and greater than 0")
    return np.array(_per_channel_shape(reals, shape, axis, f"{subject}: scale"), np.float64)


def check_threshold(
    threshold: ArrayLike, shape: tuple[int, ...], axis: int | None, subject: str
) -> NDArray[np.float64]:
    """Return `threshold` as float64 of shape () or (C,); raise FormatError or ShapeError."""
    given = np.asarray(threshold)
    if given.dtype.kind not in "biuf":
        raise FormatError(f"{subject}: threshold has dtype {given.dtype}; pass real numbers that are not negative")
    reals = given.astype(np.float64)
    wrong = ~(np.isfinite(reals) & (reals >= 0))
    if wrong.any():
        index = _first(wrong)
        at = f" at index {_show(index)}" if index else ""
        raise FormatError(f"{subject}: threshold is {reals[index]}{at}; thresholds are finite and not negative")
    return np.array(_per_channel_shape(reals, shape, axis, f"{subject}: threshold"), np.float64)


def check_zero_point(
    zero_point: ArrayLike, number_format: Format, shape: tuple[int, ...], axis: int | None, subject: str
) -> NDArray[np.int64]:
    """Return `zero_point` as int64 of shape () or (C,); raise FormatError or ShapeError."""
    given = _integers(zero_point, f"{subject}: zero_point")
    low, high = number_format.zero_points
    if (low, high) == (0, 0) and given.any():
        value = given[_first(given != 0)]
        raise FormatError(f"{subject}: zero_point is {value}, but {number_format.name} has no zero points; leave it 0")
    _check_range(given, low, high, f"{subject}: zero_point", number_format.name)
    return np.array(_per_channel_shape(given, shape, axis, f"{subject}: zero_point"), np.int64)


def _check_blocks(
    block_scales: ArrayLike | None,
    block_axis: int | None,
    number_format: Format,
    shape: tuple[int, ...],
    channel: int | None,
    subject: str,
) -> tuple[int | None, NDArray[np.int32] | None]:
    blocks = number_format.blocks
    if blocks is None:
        for what, value in (("block_scales", block_scales), ("block_axis", block_axis)):
            if value is not None:
                raise FormatError(f"{subject}: {what} is given, but {number_format.name} has no blocks; leave it out")
        return None, None
    if block_scales is None:
        raise FormatError(f"{subject}: {number_format.name} needs block_scales, one for each {blocks.size} elements")
    axis = check_block_axis(block_axis, shape, channel, subject)
    scales = _integers(block_scales, f"{subject}: block_scales")
    expected = tuple(block_count(n, blocks.size) if i == axis else n for i, n in enumerate(shape))
    if scales.shape != expected:
        raise ShapeError(
            f"{subject}: block_scales has shape {scales.shape}, but codes of shape {shape} in blocks of "
            f"{blocks.size} along axis {axis} need {expected}"
        )
    _check_range(scales, 0, blocks.scale_high, f"{subject}: block scale", number_format.name)
    _check_levels(scales, blocks, axis, number_format.name, subject)
    return axis, scales.astype(np.int32)


def _check_levels(scales: NDArray[Any], blocks: Blocks, axis: int, name: str, subject: str) -> None:
    """Check each level's code in the packed scales, and that the blocks of a group hold one code of its level."""
    offset = 0
    for level in blocks.levels:
        codes = (scales >> offset) & ((1 << level.bits) - 1)
        what = f"{subject}: scale code of a group of {level.size}"
        _check_range(codes, 0, level.largest_code, what, name)
        first = np.arange(scales.shape[axis]) // (level.size // blocks.size) * (level.size // blocks.size)
        wrong = codes != codes.take(first, axis=axis)
        if wrong.any():
            index = _first(wrong)
            raise FormatError(
                f"{subject}: block scale {scales[index]} at index {_show(index)} holds {codes[index]} for its group of "
                f"{level.size} elements, but the group's first block holds another code; they share one in {name}"
            )
        offset += level.bits


def _check_codebook(codebook: ArrayLike | None, number_format: Format, subject: str) -> NDArray[np.int32] | None:
    entries = number_format.code_high - number_format.code_low + 1
    if number_format.datapath != "codebook":
        if codebook is not None:
            raise FormatError(f"{subject}: codebook is given, but {number_format.name} has none; leave it out")
        return None
    if codebook is None:
        raise FormatError(f"{subject}: {number_format.name} needs a codebook of {entries} integers, one for each code")
    table = _integers(codebook, f"{subject}: codebook")
    if table.shape != (entries,):
        raise ShapeError(
            f"{subject}: codebook has shape {table.shape}, but {number_format.name} has {entries} codes: ({entries},)"
        )
    _check_range(table, number_format.low, number_format.high, f"{subject}: codebook entry", number_format.name)
    return table.astype(np.int32)


def check_block_axis(axis: int | None, shape: tuple[int, ...], channel: int | None, subject: str) -> int:
    """Return the block axis counted from the front (None: the last); it must not be the channel axis."""
    block = normalize_axis(-1 if axis is None else axis, len(shape), f"{subject}: block axis")
    assert block is not None
    if block == channel:
        raise ShapeError(
            f"{subject}: blocks and per-channel scales both run along axis {block}; "
            f"use another channel_axis, or None for one coarse scale"
        )
    return block


def _integers(array: ArrayLike, what: str) -> NDArray[Any]:
    """Return integers that fit int64, in the type that they come in: copies of large arrays cost memory."""
    given = np.asarray(array)
    if given.dtype.kind not in "iu":
        raise FormatError(f"{what}: dtype is {given.dtype}; pass integers")
    if given.dtype == np.uint64 and given.size and int(given.max()) > np.iinfo(np.int64).max:
        raise FormatError(f"{what}: {int(given.max())} does not fit int64")
    return given


def _check_range(array: NDArray[Any], low: int, high: int, what: str, name: str) -> None:
    if array.size == 0 or (low <= int(array.min()) and int(array.max()) <= high):
        return
    wrong = (array < low) | (array > high)
    if wrong.any():
        index = _first(wrong)
        at = f" at index {_show(index)}" if index else ""
        count = f" ({int(wrong.sum())} such values)" if int(wrong.sum()) > 1 else ""
        raise FormatError(f"{what} {array[index]}{at} is outside {name}'s range [{low}, {high}]{count}")


def _check_reserved(codes: NDArray[np.int64], number_format: Format, subject: str) -> None:
    wrong = np.isin(codes, number_format.reserved_codes)
    if wrong.any():
        index = _first(wrong)
        at = f" at index {_show(index)}" if index else ""
        count = f" ({int(wrong.sum())} such values)" if int(wrong.sum()) > 1 else ""
        raise FormatError(
            f"{subject}: code {codes[index]:#x}{at} is NaN or infinity in {number_format.name}{count}; "
            f"tensors hold finite numbers only"
        )


def _per_channel_shape(
    array: NDArray[np.generic], shape: tuple[int, ...], axis: int | None, what: str
) -> NDArray[np.generic]:
    """Return `array` with shape () per tensor or (C,) per channel; one number serves every channel."""
    if axis is None:
        if array.ndim:
            raise ShapeError(f"{what} has shape {array.shape}, but without channel_axis it must be a single number")
        return array
    channels = shape[axis]
    if array.ndim == 0:
        return np.broadcast_to(array, (channels,))
    if array.shape != (channels,):
        raise ShapeError(
            f"{what} has shape {array.shape}, but axis {axis} of shape {shape} has {channels} channels; "
            f"pass ({channels},) or a single number"
        )
    return array


def _first(wrong: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))


def _show(index: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, index)) + ")"
