"""The first inputs of a batch as a trace of their own: a quick look at a large one, or a run small enough for VCD."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from accelsim.trace.archive import ArraySource, Header
from accelsim.trace.schema import Step, TraceMeta, VectorMeta
from accelsim.trace.slots import LABELS, TensorPart, tensor_array

BATCH = "batch"
_BATCHED: tuple[TensorPart, ...] = ("codes", "block_scales", "expected", "expected_block_scales", "reference")


class HeadSource:
    """The arrays of another source, those with a batch axis cut to their first `count` entries."""

    def __init__(self, source: ArraySource, cut: frozenset[str], count: int) -> None:
        self._source, self._cut, self._count = source, cut, count
        self.headers: Mapping[str, Header] = {
            name: replace(header, shape=(count, *header.shape[1:])) if name in cut else header
            for name, header in source.headers.items()
        }

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(f"{self._source.digest} first {self._count}".encode()).hexdigest()[:16]

    def read(self, name: str) -> NDArray[Any]:
        """Return one array, cut where it has a batch axis."""
        array = self._source.read(name)
        return array[: self._count] if name in self._cut else array


def cut_batch(meta: TraceMeta, source: ArraySource, count: int) -> tuple[TraceMeta, HeadSource]:
    """Return metadata and arrays of the first `count` inputs; the first axis of batched tensors is named "batch"."""
    tensors = {
        name: tensor.model_copy(update={"shape": (count, *tensor.shape[1:])}) if tensor.dims[:1] == (BATCH,) else tensor
        for name, tensor in meta.tensors.items()
    }
    batched = {name for name, tensor in meta.tensors.items() if tensor.dims[:1] == (BATCH,)}
    cut = frozenset({tensor_array(name, part) for name in batched for part in _BATCHED} | {LABELS})
    layers = tuple(_cut_layer(layer, batched, count) for layer in meta.layers)
    return meta.model_copy(update={"tensors": tensors, "layers": layers}), HeadSource(source, cut, count)


def _cut_layer(layer: Step, batched: set[str], count: int) -> Step:
    """Return a layer for `count` inputs: a reshape and a slice say how many they make."""
    if not isinstance(layer, VectorMeta) or layer.output not in batched:
        return layer
    key = {"reshape": "shape", "slice": "size"}.get(layer.operator)
    if key is None:
        return layer
    attributes = {**layer.attributes, key: (count, *layer.attributes[key][1:])}
    return layer.model_copy(update={"attributes": attributes})
