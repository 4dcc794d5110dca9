"""The first inputs of a batch as a trace of their own: a quick look at a large one, or a run small enough for VCD.

The batch is the first axis of the inputs and of everything that is computed from them; operators that would mix inputs
along it cannot be cut.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError, TraceError
from accelsim.operators import registry as operators
from accelsim.trace.archive import ArraySource, Header
from accelsim.trace.schema import Step, TraceMeta, VectorMeta
from accelsim.trace.shapes import Shape, output_shape, weight_name
from accelsim.trace.slots import LABELS, TensorPart, tensor_array

BATCH = "batch"
_BATCHED: tuple[TensorPart, ...] = ("codes", "block_scales", "expected", "expected_block_scales", "reference")


class HeadSource:
    """The arrays of another source, those with a batch axis cut to their first entries.

    cut : how many entries, by the array's name
    count : inputs of the batch that stay
    """

    def __init__(self, source: ArraySource, cut: Mapping[str, int], count: int) -> None:
        self._source, self._cut, self._count = source, cut, count
        self.headers: Mapping[str, Header] = {
            name: replace(header, shape=(cut[name], *header.shape[1:])) if name in cut else header
            for name, header in source.headers.items()
        }

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(f"{self._source.digest} first {self._count}".encode()).hexdigest()[:16]

    def read(self, name: str) -> NDArray[Any]:
        """Return one array, cut where it has a batch axis."""
        array = self._source.read(name)
        return array[: self._cut[name]] if name in self._cut else array


def cut_batch(meta: TraceMeta, source: ArraySource, count: int) -> tuple[TraceMeta, HeadSource]:
    """Return metadata and arrays of the first `count` inputs of the batch.

    Raises TraceError where `count` is no number of inputs that there are, an input has no first dimension named
    "batch", or, naming the layer, one mixes inputs along the batch.
    """
    _check_count(meta, count)
    shapes = {name: tensor.shape for name, tensor in meta.tensors.items()}
    sizes = {name: (count, *shapes[name][1:]) for name in meta.inputs}  # of what has a batch, the new sizes
    layers = []
    for layer in meta.layers:
        reads = layer.inputs if isinstance(layer, VectorMeta) else (layer.input, weight_name(layer))
        if not any(name in sizes for name in reads):
            layers.append(layer)
            continue
        try:
            step, made = _cut_layer(layer, shapes, {**shapes, **sizes})
        except AccelsimError as error:
            raise TraceError(f"layer {layer.name!r}: the batch cannot be cut: {error}") from None
        if made[1:] != shapes[layer.output][1:]:
            raise TraceError(f"layer {layer.name!r}: the batch cannot be cut: inputs mix")
        layers.append(step)
        sizes[layer.output] = made
    tensors = {
        name: tensor.model_copy(update={"shape": sizes[name]}) if name in sizes else tensor
        for name, tensor in meta.tensors.items()
    }
    cut = {tensor_array(name, part): shape[0] for name, shape in sizes.items() for part in _BATCHED}
    changed = meta.model_copy(update={"tensors": tensors, "layers": tuple(layers)})
    return changed, HeadSource(source, {**cut, LABELS: count}, count)


def _check_count(meta: TraceMeta, count: int) -> None:
    if not isinstance(count, int | np.integer):
        raise TraceError(f"count is {count!r}; take a whole number of inputs")
    for name in meta.inputs:
        tensor = meta.tensors[name]
        if tensor.dims[:1] != (BATCH,):
            raise TraceError(
                f"input {name!r} has dimensions {', '.join(tensor.dims)}; only a batch, a first dimension named "
                f"'batch', can be cut to its first {count} inputs"
            )
        if not 1 <= count <= tensor.shape[0]:
            raise TraceError(f"has {tensor.shape[0]} inputs, so the first {count} cannot be taken")


def _cut_layer(layer: Step, old: Mapping[str, Shape], new: Mapping[str, Shape]) -> tuple[Step, Shape]:
    """Return a layer for fewer inputs, and the shape of its output."""
    if not isinstance(layer, VectorMeta):
        return layer, output_shape(layer, new[layer.input], new[weight_name(layer)])
    first = layer.inputs[0]
    changes = _cut_attributes(layer, old[first], new[first])
    changed = layer.model_copy(update={"attributes": {**layer.attributes, **changes}})
    operator = operators.get(layer.operator)
    attributes = operator.attributes.model_validate(changed.attributes)
    return changed, operator.output_shape([new[name] for name in layer.inputs], attributes)


def _cut_attributes(layer: VectorMeta, old: Shape, new: Shape) -> dict[str, Any]:
    """Return the attributes that name sizes of the batch; TraceError where the operator works along it."""
    values, rank = layer.attributes, len(old)
    if layer.operator == "reshape":
        shape = values["shape"]
        first, rest = divmod(shape[0] * math.prod(new), math.prod(old))
        if rest:
            raise TraceError(f"a reshape from {old} to {tuple(shape)} joins inputs")
        return {"shape": (first, *shape[1:])}
    if layer.operator == "slice":
        stride = values.get("stride") or (1,)
        if (values["begin"][0], values["size"][0], stride[0]) != (0, old[0], 1):
            raise TraceError("a slice takes some of the inputs only")
        return {"size": (new[0], *values["size"][1:])}
    if layer.operator == "transpose":
        axes = () if values["axes"][0] == 0 else (0,)
    elif layer.operator == "pad":
        axes = () if tuple(values["padding"][0]) == (0, 0) else (0,)
    else:  # what has axes works along them
        attributes = operators.attributes_of(layer.operator, dict(values))
        axes = getattr(attributes, "axes", None) or ((attributes.axis,) if hasattr(attributes, "axis") else ())
    if any(axis % rank == 0 for axis in axes):
        raise TraceError(f"{layer.operator} works along the batch")
    return {}
