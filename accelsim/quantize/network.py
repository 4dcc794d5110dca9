"""A float network with the data that quantizing it needs: layers, an input batch, calibration inputs, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import NetworkError, ShapeError, did_you_mean, problem_list
from accelsim.quantize.layers import INPUT, Activation, Conv2d, LayerMeta, Linear, Matmul, as_trace_layer
from accelsim.quantize.vector_layers import VECTOR_LAYERS, Add, LayerNorm, Vector, takes_weight, vector_shape
from accelsim.trace.shapes import Shape, output_shape

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class FloatLayer:
    """A layer and its parameters.

    meta : what it computes (accelsim.quantize.layers: Conv2d, Linear, Matmul; accelsim.quantize.vector_layers: Add,
        Softmax, LayerNorm, Function, Mean, Reshape, Transpose, Slice, Vector)
    weight : floats, conv2d [out, kernel height, kernel width, in / groups], linear [out, in], layer norm's gamma [n],
        the constant of a sum; None for all others
    bias : floats [out], layer norm's beta [n], or None

    >>> from accelsim.quantize.layers import Linear
    >>> layer = FloatLayer(Linear(name="fc", activation="relu"), np.ones((2, 3)), np.zeros(2))
    >>> layer.name, layer.activation, layer.is_vector
    ('fc', 'relu', False)
    """

    meta: LayerMeta
    weight: Floats | None = None
    bias: Floats | None = None

    @property
    def name(self) -> str:
        return self.meta.name

    @property
    def activation(self) -> Activation:
        """The fused activation; "none" for layers of the vector unit, which have none."""
        return "none" if isinstance(self.meta, VECTOR_LAYERS) else self.meta.activation

    @property
    def is_vector(self) -> bool:
        """Whether the vector unit computes it, not the PE array."""
        return isinstance(self.meta, VECTOR_LAYERS)


class FloatNetwork:
    """A feed-forward network in floating point. Immutable.

    name, description : go into the traces made of it
    inputs : floats [batch, ...], what a trace of the network computes
    layers : in an order in which every input is known before it is used; a layer's output has the layer's name
    calibration : floats [any number, ...], inputs on which the scales of activations are chosen; None: `inputs`
    labels : integers [batch], from 0, the class of each input; or None

    Arrays are kept as they are given (float16, float32 or float64; integers become float64).

    Raises NetworkError with everything that is wrong: shapes that do not fit, unknown names, NaN or infinity.

    >>> from accelsim.quantize.layers import Linear
    >>> first = FloatLayer(Linear(name="fc1", activation="relu"), np.eye(3))
    >>> network = FloatNetwork("tiny", np.ones((8, 3)), [first, FloatLayer(Linear(name="fc2"), np.ones((2, 3)))])
    >>> network.shapes
    {'input': (8, 3), 'fc1': (8, 3), 'fc2': (8, 2)}
    >>> network.sources(network.layers[1]), [layer.name for layer in network.consumers("input")]
    (('fc1',), ['fc1'])
    >>> network.head(2).inputs.shape, network.head(2).calibration.shape
    ((2, 3), (8, 3))
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
        other = layer.meta.other if isinstance(layer.meta, Matmul | Add) else None
        return (first,) if other is None else (first, other)

    def consumers(self, tensor: str) -> list[FloatLayer]:
        """Return the layers that take an activation."""
        return [layer for layer in self.layers if tensor in self.sources(layer)]

    @property
    def array_layers(self) -> tuple[FloatLayer, ...]:
        """The layers that multiply, which are those that formats are chosen for."""
        return tuple(layer for layer in self.layers if not layer.is_vector)

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
        needs_weight = isinstance(meta, Conv2d | Linear) or (isinstance(meta, VECTOR_LAYERS) and takes_weight(meta))
        if needs_weight != (layer.weight is not None):
            takes = "two activations" if len(sources) == 2 else "one activation"
            say("weight is missing" if needs_weight else f"a {meta.op} takes {takes} and no weight")
            return
        inputs = [shapes[name] for name in sources]
        if layer.weight is not None:
            inputs.append(layer.weight.shape)
        if isinstance(meta, LayerNorm) and layer.bias is not None:
            inputs.append(layer.bias.shape)
        try:
            if isinstance(meta, VECTOR_LAYERS):
                shape = vector_shape(meta, inputs)
            else:
                shape = output_shape(as_trace_layer(meta), *inputs)
        except ShapeError as error:
            say(str(error))
            return
        shapes[layer.name] = shape
        if layer.is_vector and not isinstance(meta, LayerNorm) and layer.bias is not None:
            say(f"a {meta.op} takes no bias")
        if layer.bias is not None and layer.bias.shape != shape[-1:]:
            say(f"bias has shape {layer.bias.shape}, but there are {shape[-1]} output channels")
        if isinstance(meta, Conv2d) and meta.pad_value and not self._is_sign(sources[0]):
            say(f"pad_value={meta.pad_value} is for inputs that are signs; use 0, or activation 'sign' before it")

    def _is_sign(self, tensor: str) -> bool:
        return any(layer.name == tensor and layer.activation == "sign" for layer in self.network.layers)
