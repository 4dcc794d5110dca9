"""What do a trace's arrays hold? Each is read, checked against its format, and refused by name where it is damaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim import formats
from accelsim.errors import AccelsimError, FormatError, ShapeError, TraceError
from accelsim.formats import QTensor, make_qtensor
from accelsim.formats.tensor import check_scale, check_zero_point
from accelsim.trace.archive import ArraySource
from accelsim.trace.schema import TraceMeta
from accelsim.trace.slots import LABELS, TensorPart, layer_array, tensor_array

LARGEST_SHIFT = 256  # far beyond any rule's; the PPU says what its rule takes


@dataclass(frozen=True, eq=False)
class Requantization:
    """How a layer's accumulators become output codes: a rule and its factors (docs/numerics.md, Requantization).

    rounding : the rule (accelsim.rounding)
    scale : float64 () or (N,), s_input * s_weight / s_output; or None, and then
    multiplier, shift : int64 () or (N,): the factor is multiplier / 2**shift
    """

    rounding: str
    scale: NDArray[np.float64] | None = None
    multiplier: NDArray[np.int64] | None = None
    shift: NDArray[np.int64] | None = None


class CheckedArrays:
    """The arrays of a trace, by tensor and layer; every method raises TraceError for what cannot be.

    subject : what messages call the trace
    """

    def __init__(self, meta: TraceMeta, source: ArraySource, subject: str) -> None:
        self._meta, self._source, self._subject = meta, source, subject

    def factors(self, tensor: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return a tensor's checked (scale, zero point), from the file."""
        meta = self._meta.tensors[tensor]
        scale = self._source.read(tensor_array(tensor, "scale"))
        zero_point = self._optional(tensor_array(tensor, "zero_point"))
        zeros = np.zeros((), np.int64) if zero_point is None else zero_point
        subject = f"{self._subject}: tensor {tensor!r}"
        try:
            return (
                check_scale(scale, meta.shape, meta.channel_axis, subject),
                check_zero_point(zeros, formats.get(meta.format), meta.shape, meta.channel_axis, subject),
            )
        except AccelsimError as error:
            raise TraceError(str(error)) from None

    def stored(self, tensor: str, part: TensorPart, blocks_part: TensorPart) -> QTensor:
        """Return a tensor of codes that the file holds: its own, or the expected ones."""
        blocks = None
        if self._meta.tensors[tensor].block_axis is not None:
            blocks = self._source.read(tensor_array(tensor, blocks_part))
        try:
            return self.qtensor(tensor, self._source.read(tensor_array(tensor, part)), blocks)
        except (FormatError, ShapeError) as error:
            raise TraceError(str(error)) from None

    def qtensor(self, tensor: str, codes: ArrayLike, block_scales: ArrayLike | None) -> QTensor:
        """Return codes with the factors that the file has for a tensor. FormatError or ShapeError for bad codes."""
        meta = self._meta.tensors[tensor]
        scale, zero_point = self.factors(tensor)
        return make_qtensor(
            codes,
            formats.get(meta.format),
            scale,
            zero_point,
            channel_axis=meta.channel_axis,
            block_axis=meta.block_axis,
            block_scales=block_scales,
            codebook=self._optional(tensor_array(tensor, "codebook")),
            subject=f"{self._subject}: tensor {tensor!r}",
        )

    def bias(self, layer: str) -> NDArray[np.int64] | NDArray[np.float32] | None:
        """Return a layer's bias: integers, or float32 where the file has real numbers; or None."""
        name = layer_array(layer, "bias")
        header = self._source.headers.get(name)
        if header is None or header.dtype.kind != "f":
            return self._integers(name)
        reals = self.reals(name)
        assert reals is not None
        with np.errstate(over="ignore"):
            bias = reals.astype(np.float32)
        if not np.all(np.isfinite(bias)):
            raise TraceError(f"{self._subject}: array {name!r} holds {np.abs(reals).max()}, beyond float32")
        return bias

    def thresholds(self, layer: str) -> NDArray[np.int64] | None:
        """Return a layer's thresholds, which ascend in each row, or None."""
        name = layer_array(layer, "thresholds")
        thresholds = self._integers(name)
        if thresholds is not None and np.any(np.diff(thresholds, axis=-1) < 0):
            row = int(np.argwhere(np.diff(thresholds, axis=-1) < 0)[0][0])
            raise TraceError(f"{self._subject}: array {name!r}: the thresholds of channel {row} do not ascend")
        return thresholds

    def requantization(self, layer: str, rounding: str) -> Requantization:
        """Return the factors of a layer that requantizes by a rule."""
        scale_name, shift_name = layer_array(layer, "scale"), layer_array(layer, "shift")
        scale = self.reals(scale_name)
        if scale is not None and not np.all(scale > 0):
            raise TraceError(f"{self._subject}: array {scale_name!r} holds {scale.min()}; scales are greater than 0")
        multiplier, shift = self._integers(layer_array(layer, "multiplier")), self._integers(shift_name)
        for value in () if shift is None else (shift.min(), shift.max()):
            if not -LARGEST_SHIFT <= value <= LARGEST_SHIFT:
                raise TraceError(
                    f"{self._subject}: array {shift_name!r} holds {value}; shifts lie in "
                    f"[-{LARGEST_SHIFT}, {LARGEST_SHIFT}]"
                )
        return Requantization(rounding, scale, multiplier, shift)

    def labels(self) -> NDArray[np.int64] | None:
        """Return the classes, which count from 0, or None."""
        labels = self._integers(LABELS)
        if labels is not None and np.any(labels < 0):
            raise TraceError(f"{self._subject}: array {LABELS!r} holds {labels.min()}; classes count from 0")
        return labels

    def reals(self, name: str) -> NDArray[np.float64] | None:
        """Return an array of real numbers, or None where there is none."""
        array = self._optional(name)
        if array is None:
            return None
        wrong = ~np.isfinite(array)
        if wrong.any():
            raise TraceError(
                f"{self._subject}: array {name!r} holds {int(wrong.sum())} values that are NaN or infinite; "
                f"all must be finite"
            )
        return array.astype(np.float64)

    def _optional(self, name: str) -> NDArray[Any] | None:
        return self._source.read(name) if name in self._source.headers else None

    def _integers(self, name: str) -> NDArray[np.int64] | None:
        array = self._optional(name)
        if array is None:
            return None
        if array.dtype.kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise TraceError(f"{self._subject}: array {name!r} holds {array.max()}, which does not fit int64")
        return array.astype(np.int64)
