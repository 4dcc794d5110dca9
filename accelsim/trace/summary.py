"""What `accelsim check` lists of each layer and its tensors, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any

from accelsim import formats
from accelsim.trace.schema import Conv2dMeta, LinearMeta, MatmulMeta, Step, TensorMeta, TraceMeta, VectorMeta
from accelsim.trace.shapes import macs, weight_name
from accelsim.trace.slots import layer_array


def layer_row(layer: Step, tensors: Mapping[str, TensorMeta], arrays: Container[str]) -> dict[str, Any]:
    """Return one row of ``Trace.describe()``; `arrays` are the names of the arrays that the trace holds."""
    if isinstance(layer, VectorMeta):
        return _vector_row(layer, tensors)
    x, w, y = tensors[layer.input], tensors[weight_name(layer)], tensors[layer.output]
    weights = 0 if isinstance(layer, MatmulMeta) else math.prod(w.shape)
    biases = y.shape[-1] if layer_array(layer.name, "bias") in arrays else 0
    return {
        "name": layer.name,
        "op": layer.op,
        "input": layer.input,
        "weight": weight_name(layer),
        "output": layer.output,
        "input_shape": x.shape,
        "weight_shape": w.shape,
        "output_shape": y.shape,
        "input_format": x.format,
        "weight_format": w.format,
        "output_format": y.format,
        "rounding": layer.rounding,
        "activation": layer.activation,
        "macs": macs(layer, tensors),
        "parameters": weights + biases,
    }


def _vector_row(layer: VectorMeta, tensors: Mapping[str, TensorMeta]) -> dict[str, Any]:
    x, y = tensors[layer.inputs[0]], tensors[layer.output]
    second = tensors[layer.inputs[1]] if len(layer.inputs) > 1 else None
    return {
        "name": layer.name,
        "op": layer.operator,
        "input": layer.inputs[0],
        "weight": layer.inputs[1] if len(layer.inputs) > 1 else "",
        "output": layer.output,
        "input_shape": x.shape,
        "weight_shape": () if second is None else second.shape,
        "output_shape": y.shape,
        "input_format": x.format,
        "weight_format": "" if second is None else second.format,
        "output_format": y.format,
        "rounding": None,
        "activation": "none",
        "macs": 0,
        "parameters": 0,
    }


def size_bits(tensor: TensorMeta) -> int:
    """Return the packed size of a tensor, see :func:`accelsim.formats.packed_bits`."""
    return formats.packed_bits(formats.get(tensor.format), tensor.shape, tensor.block_axis)


def weight_bytes(meta: TraceMeta) -> int:
    """Return the packed size of all weights with their block scales, each tensor rounded up to whole bytes."""
    weights = {layer.weight for layer in meta.layers if isinstance(layer, Conv2dMeta | LinearMeta)}
    return sum(-(-size_bits(meta.tensors[name]) // 8) for name in weights)
