"""A float network with the data that quantizing it needs: layers, an input batch, calibration inputs, labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from accelsim.errors import AccelsimError, NetworkError, ShapeError, did_you_mean, problem_list
from accelsim.operators.registry import attributes_of
from accelsim.operators.registry import get as get_operator
from accelsim.quantize.layers import INPUT, Conv2d, LayerMeta, Matmul, Vector, as_trace_layer, attributes_for
from accelsim.trace.shapes import Shape, output_shape

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class FloatLayer:
    """A layer and its parameters.

    meta : what it computes (accelsim.quantize.layers: Conv2d, Linear, Matmul, Vector)
    weight : floats, conv2d [out, kernel height, kernel width, in / groups], linear [out, in]; None for the others
    bias : floats [out], or None
    """

    meta: LayerMeta
    weight: Floats | None = None
    bias: Floats | None = None

    @property
    def name(self) -> str:
        return self.meta.name


class FloatNetwork:
    """A feed-forward network in floating point. Immutable.

    name, description : go into the traces made of it
    inputs : floats [batch, ...], what a trace of the network computes
    layers : in an order in which every input is known before it is used; a layer's output has the layer's name
    calibration : floats [any number, ...], inputs on which the scales of activations are chosen; None: `inputs`
    labels : integers [batch], from 0, the class of each input; or None

    Arrays are kept as they are given (float16, float32 or float64; integers become float64).

    Raises NetworkError with everything that is wrong: shapes that do not fit, unknown names, NaN or infinity.
    """

    def __init__(
        self,
        name: str,
        inputs: ArrayLike,
        layers: Sequence[FloatLayer],
        *,
        calibration: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        description: str = "",
    ) -> None:
        self.name, self.description = name, description
        problems: list[str] = []
        self.inputs = _floats(inputs, "input", problems)
        self.calibration = self.inputs if calibration is None else _floats(calibration, "calibration", problems)
        self.labels = None if labels is None else np.asarray(labels)
        self.layers = tuple(
            FloatLayer(
                layer.meta,
                None if layer.weight is None else _floats(layer.weight, f"layer {layer.name!r}: weight", problems),
                None if layer.bias is None else _floats(layer.bias, f"layer {layer.name!r}: bias", problems),
            )
            for layer in layers
        )
        self.shapes: dict[str, Shape] = {}
        """Of the input and of every layer's output, for the input batch."""
        problems += _Check(self).problems
        if problems:
            raise NetworkError(problem_list(f"float network {name!r}", problems))

    def sources(self, layer: FloatLayer) -> tuple[str, ...]:
        """Return the names of the activations that a layer takes: "input" or layers."""
        if isinstance(layer.meta, Vector):
            return layer.meta.inputs
        index = self.layers.index(layer)
        first = layer.meta.input or (self.layers[index - 1].name if index else INPUT)
        return (first, layer.meta.other) if isinstance(layer.meta, Matmul) else (first,)

    def consumers(self, tensor: str) -> list[FloatLayer]:
        """Return the layers that take an activation."""
        return [layer for layer in self.layers if tensor in self.sources(layer)]

    @property
    def array_layers(self) -> tuple[FloatLayer, ...]:
        """The layers that multiply, which are those that formats are chosen for."""
        return tuple(layer for layer in self.layers if not isinstance(layer.meta, Vector))

    def head(self, count: int) -> FloatNetwork:
        """Return the network with the first `count` inputs of its batch; the calibration inputs stay.

        Raises NetworkError unless 1 <= count <= batch.
        """
        batch = len(self.inputs)
        if not 1 <= count <= batch:
            raise NetworkError(f"float network {self.name!r} has a batch of {batch} inputs; {count} were asked for")
        return FloatNetwork(
            self.name,
            self.inputs[:count],
            self.layers,
            calibration=self.calibration,
            labels=None if self.labels is None else self.labels[:count],
            description=self.description,
        )


def _floats(array: ArrayLike, what: str, problems: list[str]) -> Floats:
    given = np.asarray(array)
    if given.dtype.kind in "iu":
        given = given.astype(np.float64)
    if given.dtype.kind != "f" or given.dtype.itemsize > 8:
        problems.append(f"{what}: has dtype {given.dtype}; use float16, float32 or float64")
        return np.zeros(given.shape)
    if given.size == 0:
        problems.append(f"{what}: has shape {given.shape} and no elements")
    wrong = ~np.isfinite(given)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        problems.append(
            f"{what}: {int(wrong.sum())} of {given.size} values are NaN or infinite, the first is {given[index]} at "
            f"index {index}; a network to be quantized is finite"
        )
    return given


class _Check:
    """Everything that is wrong with a network's structure; fills in its shapes."""

    def __init__(self, network: FloatNetwork) -> None:
        self.network = network
        self.problems: list[str] = []
        self._data()
        network.shapes[INPUT] = network.inputs.shape
        for layer in network.layers:
            self._layer(layer)
        if not network.layers:
            self.problems.append("there are no layers; at least one is needed")

    def _data(self) -> None:
        network = self.network
        if network.inputs.ndim < 2:
            self.problems.append(f"input: has shape {network.inputs.shape}; the first of its axes is the batch")
        if network.calibration.shape[1:] != network.inputs.shape[1:]:
            self.problems.append(
                f"calibration: has shape {network.calibration.shape}, but the input has {network.inputs.shape}; only "
                f"the first axis may differ"
            )
        labels = network.labels
        if labels is not None and (
            labels.dtype.kind not in "iu" or labels.shape != network.inputs.shape[:1] or bool(np.any(labels < 0))
        ):
            self.problems.append(
                f"labels: are {labels.dtype} of shape {labels.shape}; use integers from 0, one for each of the "
                f"{len(network.inputs)} inputs"
            )

    def _layer(self, layer: FloatLayer) -> None:
        network, shapes, meta = self.network, self.network.shapes, layer.meta

        def say(text: str) -> None:
            self.problems.append(f"layer {layer.name!r}: {text}")

        if layer.name == INPUT or [other.name for other in network.layers].count(layer.name) > 1:
            say("another layer, or the network's input, has this name; use a new one")
            return
        sources = network.sources(layer)
        unknown = [name for name in sources if name not in shapes]
        for name in unknown:
            known = any(other.name == name for other in network.layers)
            remedy = "; layers come in the order of computation" if known else did_you_mean(name, shapes)
            say(f"takes {name!r}, which no layer before it computes{remedy}")
        if unknown:
            return
        if isinstance(meta, Matmul | Vector) == (layer.weight is not None):
            what = "a matmul takes two activations" if isinstance(meta, Matmul) else "an operator takes activations"
            say(f"{what} and no weight" if layer.weight is not None else "weight is missing")
            return
        if isinstance(meta, Vector):
            self._vector(layer, meta, say)
            return
        second = shapes[sources[1]] if layer.weight is None else layer.weight.shape
        try:
            shape = output_shape(as_trace_layer(meta), shapes[sources[0]], second)
        except ShapeError as error:
            say(str(error))
            return
        shapes[layer.name] = shape
        if layer.bias is not None and layer.bias.shape != shape[-1:]:
            say(f"bias has shape {layer.bias.shape}, but there are {shape[-1]} output channels")
        if isinstance(meta, Conv2d) and meta.pad_value and not self._is_sign(sources[0]):
            say(f"pad_value={meta.pad_value} is for inputs that are signs; use 0, or activation 'sign' before it")

    def _vector(self, layer: FloatLayer, meta: Vector, say: Callable[[str], None]) -> None:
        shapes = [self.network.shapes[name] for name in meta.inputs]
        try:
            attributes = attributes_of(meta.operator, attributes_for(meta, shapes[0][0]))
            self.network.shapes[layer.name] = get_operator(meta.operator).output_shape(shapes, attributes)
        except ValidationError as error:
            problem = error.errors()[0]
            say(f"attributes of {meta.operator}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}")
        except AccelsimError as error:
            say(str(error))
        if layer.bias is not None:
            say(f"{meta.operator} has no bias")

    def _is_sign(self, tensor: str) -> bool:
        return any(layer.name == tensor and layer.meta.activation == "sign" for layer in self.network.layers)
