"""Outputs that only compare: thresholds (FINN), and the sign of a binary output. No multiplier, no rounding.

FINN (Umuroglu et al., 2017) folds scale, batch normalization and activation into thresholds of the accumulator:
T comparators a channel, whose results are added up. A binary output is the sign: +1 for 0 and above.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import FormatError, ShapeError
from accelsim.formats.mixins import CodesAreLanes
from accelsim.formats.spec import Format
from accelsim.formats.tensor import make_qtensor

Int64Array = NDArray[np.int64]


def codes_ascend(output_format: Format) -> bool:
    """Return whether a higher code stands for a higher value (False: binary formats whose code 1 is -1)."""
    if isinstance(output_format, CodesAreLanes):
        return True
    ends = make_qtensor([output_format.code_low, output_format.code_high], output_format).lanes().values
    return bool(ends[0] < ends[1])


def check_thresholds(thresholds: Int64Array, output_format: Format) -> None:
    """Raise FormatError for thresholds that are no ascending int64 [N, T] or [T], or that need more codes."""
    name = output_format.name
    if output_format.datapath not in ("integer", "binary"):
        raise FormatError(
            f"{name}: thresholds are counted, and a count is an integer or, for one threshold, a sign; use an output "
            f"format such as uint4 or binary"
        )
    if not isinstance(thresholds, np.ndarray) or thresholds.dtype != np.int64:
        raise FormatError(f"thresholds are {getattr(thresholds, 'dtype', type(thresholds).__name__)}; use int64")
    if thresholds.ndim not in (1, 2) or thresholds.shape[-1] == 0:
        raise FormatError(
            f"thresholds have shape {thresholds.shape}; use (N, T), or (T,) for all channels, with T >= 1"
        )
    count, room = thresholds.shape[-1], output_format.code_high - output_format.code_low
    if count > room:
        raise FormatError(
            f"{count} thresholds make {count + 1} different codes, but {name} has {room + 1}; use {room} or fewer"
        )
    falls = thresholds[..., 1:] < thresholds[..., :-1]
    if falls.any():
        at = tuple(int(i) for i in np.argwhere(falls)[0])
        channel = f" of channel {at[0]}" if thresholds.ndim == 2 else ""
        first, second = thresholds[at], thresholds[(*at[:-1], at[-1] + 1)]
        raise FormatError(f"thresholds{channel} are not ascending: {second} follows {first} at index {at[-1] + 1}")


def count_thresholds(
    acc: Int64Array, thresholds: Int64Array, output_format: Format, acc_shift: int
) -> NDArray[np.int32 | np.int64]:
    """Return code_low + the number of thresholds less than ``acc * 2**acc_shift``, [R, N].

    Where the format's values fall with its codes: code_high - the number.

    acc : int64 [R, N];  thresholds : as :func:`check_thresholds` wants them;  acc_shift : not negative

    Raises ShapeError for thresholds of another number of channels.
    """
    channels = acc.shape[1]
    if thresholds.ndim == 2 and thresholds.shape[0] != channels:
        raise ShapeError(
            f"thresholds have shape {thresholds.shape}; the output has {channels} channels: use ({channels}, T) or (T,)"
        )
    # th < acc * 2**s is floor(th / 2**s) < acc for integers, and that cannot overflow.
    scaled = thresholds >> min(acc_shift, 63)
    if scaled.ndim == 1:
        counts = np.searchsorted(scaled, acc, side="left")
    else:
        counts = np.empty(acc.shape, np.int64)
        for channel in range(channels):
            counts[:, channel] = np.searchsorted(scaled[channel], acc[:, channel], side="left")
    return _codes(counts, output_format)


def signs(acc: NDArray[Any], output_format: Format) -> NDArray[np.int32 | np.int64]:
    """Return the codes of +1 where acc >= 0 (-0.0 too) and of -1 elsewhere; acc is int64 or float32."""
    return _codes((acc >= 0).astype(np.int64), output_format)


def _codes(counts: NDArray[np.int64], output_format: Format) -> NDArray[np.int32 | np.int64]:
    ascend = codes_ascend(output_format)
    codes = output_format.code_low + counts if ascend else output_format.code_high - counts
    return codes.astype(np.int32 if output_format.code_high <= np.iinfo(np.int32).max else np.int64)
