"""What calibration remembers of an activation, and how it chooses a scale from it (docs/quantize.md, Ranges)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import NetworkError
from accelsim.formats import Format, QTensor
from accelsim.formats.integer import IntegerFormat
from accelsim.quantize.choice import is_cast
from accelsim.quantize.evaluate import Float64

KEPT_VALUES = 1 << 20
"""A tensor of at most so many values is remembered whole; of a larger one, evenly spaced rows and the extremes."""
SEARCHED_VALUES = 1 << 15
DEAD = 2.0**-16
"""A channel whose weights are all so much smaller than the largest of the tensor does nothing but hand its bias on."""
FACTORS = tuple(0.93**step for step in range(34))  # of the largest magnitude, down to a eleventh of it


@dataclass(frozen=True)
class RangeRule:
    """How ranges are chosen.

    kind : "minmax": the smallest and largest value seen; "mse": the range whose quantized values have the least mean
        squared error; "percentile": what cuts off the values beyond `percent` at either end
    """

    kind: str
    percent: float = 99.99

    @classmethod
    def parse(cls, text: str) -> RangeRule:
        """Return the rule called "minmax", "mse", "percentile" or "percentile:P"; NetworkError for other words."""
        kind, colon, number = text.partition(":")
        try:
            percent = float(number) if colon else cls.percent
        except ValueError:
            percent = float("nan")
        if kind not in ("minmax", "mse", "percentile") or (colon and kind != "percentile") or not 50 < percent <= 100:
            raise NetworkError(
                f"ranges {text!r} are unknown; use minmax, mse, percentile (99.99), or percentile:P with P above 50 "
                f"and at most 100"
            )
        return cls(kind, percent)


MINMAX = RangeRule("minmax")


class Seen:
    """The values that an activation took, rows of its last axis, added batch by batch.

    total : rows that will be added in all
    """

    def __init__(self, total: int, width: int) -> None:
        self._step = max(1, -(-total * width // KEPT_VALUES))
        self._count = 0
        self._pieces: list[Float64] = []
        self._extremes: list[Float64] = []
        self.low, self.high = np.inf, -np.inf

    def add(self, values: Float64) -> None:
        """Look at some more values, [..., width]."""
        rows = values.reshape(-1, values.shape[-1])
        first = -self._count % self._step
        self._count += len(rows)
        self._pieces.append(rows[first :: self._step].copy())
        low, high = float(rows.min()), float(rows.max())
        if self._step > 1 and (low < self.low or high > self.high):
            places = (np.unravel_index(function(rows), rows.shape)[0] for function in (np.argmin, np.argmax))
            self._extremes.append(rows[list(places)].copy())
        self.low, self.high = min(low, self.low), max(high, self.high)

    def values(self) -> Float64:
        """Return what is remembered, [rows, width]; the smallest and the largest value are in it."""
        if len(self._pieces) > 1 or self._extremes:
            self._pieces, self._extremes = [np.concatenate([*self._pieces, *self._extremes])], []
        return self._pieces[0]


def activation_scale(form: Format, seen: Seen, rule: RangeRule, *, asymmetric: bool) -> QTensor:
    """Return values quantized with the scale and zero point that the rule chooses; these two are what counts.

    asymmetric : a zero point too, where the format has any
    """
    asymmetric = asymmetric and form.zero_points != (0, 0)
    values = seen.values()
    if is_cast(form):
        return form.quantize(values, scale=1.0)
    if rule.kind == "minmax" or not _is_searched(form):
        return form.quantize(values, asymmetric=asymmetric)
    if rule.kind == "percentile":
        low, high = np.percentile(values, [100 - rule.percent, rule.percent])
        return form.quantize(np.clip(values, min(low, 0.0), max(high, 0.0)), asymmetric=asymmetric)
    sample = values[:: max(1, values.size // SEARCHED_VALUES)]
    best, least = form.quantize(values, asymmetric=asymmetric), np.inf
    plain, buffer = _is_plain(form), np.empty(sample.shape)
    for low, high in _narrower(seen):
        if plain:  # whose scale the two ends decide
            found = form.quantize(np.array([low, high]), asymmetric=asymmetric)
            error = float(_squared_errors(form, sample, found.scale, found.zero_point, buffer).sum())
        else:
            found = (
                form.quantize(np.clip(np.append(sample.ravel(), [low, high]), low, high), asymmetric=asymmetric)
                if form.blocks is None
                else form.quantize(np.clip(sample, low, high))
            )
            again = form.quantize(sample, scale=found.scale, zero_point=found.zero_point if asymmetric else None)
            error = float(np.square(again.dequantize() - sample).sum())
        if error < least:
            best, least = found, error
    return best


def weight_of(form: Format, weight: Float64, channel: int | None, rule: RangeRule) -> QTensor:
    """Return a weight quantized: "mse" looks for each channel's best scale, other rules take the largest magnitude."""
    scale = 1.0 if is_cast(form) else None
    tensor = form.quantize(weight, channel_axis=channel, scale=scale)
    if rule.kind != "mse" or scale is not None or not _is_searched(form):
        return tensor
    axes = tuple(range(weight.ndim)) if channel is None else tuple(i for i in range(weight.ndim) if i != channel)
    largest = np.abs(weight).max(axis=axes, keepdims=True)
    scales, least = tensor.scale, np.full(tensor.scale.shape, np.inf)
    plain, buffer = _is_plain(form), np.empty(weight.shape)
    ends = np.stack([function(weight, axis=axes) for function in (np.min, np.max)], axis=-1)
    for factor in FACTORS:
        if plain:  # whose scales each channel's two ends decide
            bound = factor * largest.reshape(ends[..., :1].shape)
            found = form.quantize(np.clip(ends, -bound, bound), channel_axis=None if channel is None else 0).scale
            spread = found.reshape(largest.shape)
            error = _squared_errors(form, weight, spread, np.zeros((), np.int64), buffer).sum(axis=axes)
        else:
            limited = np.clip(weight, -factor * largest, factor * largest)
            found = form.quantize(limited, channel_axis=channel).scale
            again = form.quantize(weight, channel_axis=channel, scale=found)
            error = np.square(again.dequantize() - weight).sum(axis=axes)
        better = error < least
        scales, least = np.where(better, found, scales), np.where(better, error, least)
    return form.quantize(weight, channel_axis=channel, scale=scales)


def _is_searched(form: Format) -> bool:
    """Return whether a format has a scale that data choose freely; those of papers, and powers of two, are defined."""
    return form.datapath in ("integer", "block_integer", "float")


def _is_plain(form: Format) -> bool:
    """Return whether a format is integers with one scale, so that what quantizing does can be written in one line."""
    return isinstance(form, IntegerFormat) and form.is_operand


def _squared_errors(
    form: Format, values: Float64, scale: Float64, zero_point: NDArray[np.int64], buffer: Float64
) -> Float64:
    """Return the squared errors of values quantized by a plain format, in `buffer`: what ``form.quantize(...)`` makes,
    bit for bit, without the arrays in between; nearly all of the time that choosing scales takes goes here.

    scale, zero_point : broadcast with the values
    """
    with np.errstate(over="ignore"):
        np.divide(values, scale, out=buffer)
    np.rint(buffer, out=buffer)
    np.clip(
        buffer, form.low - zero_point, form.high - zero_point, out=buffer
    )  # of whole numbers: codes less zero point
    buffer *= scale
    buffer -= values
    return np.square(buffer, out=buffer)


def _narrower(seen: Seen) -> Iterator[tuple[float, float]]:
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    for factor in FACTORS:
        yield factor * low, factor * high


def without_dead_channels(form: Format, weight: Float64) -> Float64:
    """Return a weight [out, ...] whose dead channels are zeros, where the format has a zero and its scale is free.

    Training leaves channels that it switched off with weights of 1e-34. With a scale of its own such a channel's bias,
    counted in units of that scale, fits no accumulator; zeros take a living channel's (`with_living_scales`).
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    dead = largest <= DEAD * largest.max()
    if not _is_searched(form) or not dead.any():
        return weight
    return np.where(dead.reshape(-1, *[1] * (weight.ndim - 1)), 0.0, weight)


def with_living_scales(tensor: QTensor, weight: NDArray[np.floating]) -> QTensor:
    """Give channels of zeros the smallest scale of the living ones: any scale means zero, but the bias is counted in
    units of it, and with a scale of 1 it would be rounded away.
    """
    alive = weight.reshape(len(weight), -1).any(axis=1)
    if tensor.scale.ndim == 0 or alive.all() or not alive.any():
        return tensor
    return replace(tensor, scale=np.where(alive, tensor.scale, tensor.scale[alive].min()))
