"""The float network of a TFLite file, for other number formats than the file's (``accelsim import --formats``).

Float files as they are; of integer ones, weights and biases are dequantized and the activations' scales forgotten: what
is left is the float network that their codes stand for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import ModelError, NetworkError, problem_list
from accelsim.importers.graph import Names, NotSupported
from accelsim.importers.tflite_file import FileGraph, FileOperator, FileTensor
from accelsim.importers.tflite_lowering import FORMATS
from accelsim.quantize.layers import INPUT, Conv2d, LayerMeta, Linear
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.vector_layers import Vector
from accelsim.trace.shapes import same_padding

Floats = NDArray[np.float32]
LARGEST_BLOCK = 32
HOST = ("SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "DEQUANTIZE", "ARG_MAX")
"""What may be left to the host at the end of a network."""
DAMAGED = (ArithmeticError, LookupError, TypeError, ValueError)
"""What the layers raise of numbers that no converter writes."""


def float_network(
    graph: FileGraph,
    inputs: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    batch: int | None = None,
    until: str | None = None,
) -> FloatNetwork:
    """Return the network, with layers named as ``accelsim inspect`` names them.

    inputs : real numbers [any number, ...]; of a file whose input is quantized, integers are codes
    until : the last layer to take

    Raises ModelError, one message with all operators that have no float network here.
    """
    return _Reading(graph).network(inputs, labels, batch, until)


class _Reading:
    """A float network under construction: which tensor of the file is which layer's."""

    def __init__(self, graph: FileGraph) -> None:
        self.graph = graph
        self.made: dict[int, str] = {}
        self.layers: list[FloatLayer] = []

    def network(
        self, inputs: ArrayLike, labels: ArrayLike | None, batch: int | None, until: str | None
    ) -> FloatNetwork:
        graph, names, problems = self.graph, Names(), []
        if len(graph.inputs) != 1:
            raise ModelError(f"{graph.path}: has {len(graph.inputs)} inputs; other formats are chosen for one input")
        self.made[graph.inputs[0]] = INPUT
        host, found = self._host(), False
        for operator in graph.operators:
            name = names.new(f"{operator.index}_{operator.op.lower()}")
            if operator.index in host:
                continue
            try:
                self._layer(operator, name)
            except NotSupported as error:
                problems.append(f"{name} ({operator.op}): {error}")
            except DAMAGED:
                problems.append(f"{name} ({operator.op}): its tensors and options do not fit together")
            if name == until:
                found = True
                break
        if until is not None and not found:
            raise ModelError(f"{graph.path}: no layer is named {until!r}; accelsim inspect lists the names")
        if problems:
            raise ModelError(problem_list(f"{graph.path}: other number formats", problems))
        values = self._inputs(inputs, batch)
        if labels is not None:
            labels = np.asarray(labels)[: len(values)]
        text = f"from {Path(graph.path).name} (TFLite), re-quantized"
        try:
            return FloatNetwork(
                Names().new(Path(graph.path).stem), values, self.layers, labels=labels, description=text
            )
        except NetworkError as error:
            raise ModelError(f"{graph.path}: {error}") from None

    def _inputs(self, inputs: ArrayLike, batch: int | None) -> Floats:
        graph = self.graph
        tensor, data = graph.tensors[graph.inputs[0]], np.asarray(inputs)
        if data.shape == tensor.shape[1:]:
            data = data[None]
        if data.ndim != len(tensor.shape) or data.shape[1:] != tensor.shape[1:] or len(data) == 0:
            rest = ", ".join(map(str, tensor.shape[1:]))
            raise ModelError(
                f"{graph.path}: input {tensor.name!r}: data has shape {data.shape}; the model takes (N, {rest})"
            )
        data = data[:batch]
        if data.dtype.kind in "iu" and tensor.dtype in FORMATS:
            reals = (data.astype(np.int64) - tensor.zero_point[0]) * tensor.scale[0]
            return np.asarray(reals, np.float32)
        if data.dtype.kind not in "iuf":
            raise ModelError(f"{graph.path}: input {tensor.name!r}: dtype is {data.dtype}; pass real numbers")
        return data.astype(np.float32)

    def _host(self) -> set[int]:
        """Return the operators at the end that the host computes."""
        host: set[int] = set()
        for operator in reversed(self.graph.operators):
            readers = [other.index for other in self.graph.operators if set(operator.outputs) & set(other.inputs)]
            if operator.op in HOST and all(reader in host for reader in readers):
                host.add(operator.index)
        return host

    def _layer(self, operator: FileOperator, name: str) -> None:
        if operator.op in ("QUANTIZE", "DEQUANTIZE"):  # the same numbers
            self.made[operator.outputs[0]] = self._source(operator, 0)
            return
        make = _MAKERS.get(operator.op)
        if make is None:
            raise NotSupported(f"there is no float network with it; known: {', '.join(sorted(_MAKERS))}")
        if len(operator.outputs) != 1:
            raise NotSupported(f"has {len(operator.outputs)} outputs; one is expected")
        for index in operator.outputs:
            self.made[index] = name  # before what may go wrong, so that what follows is judged too
        self.layers.append(make(self, operator, name))

    def _source(self, operator: FileOperator, position: int) -> str:
        index = operator.inputs[position]
        if index not in self.made:
            raise NotSupported(f"input {position} is a constant; only activations are taken here")
        return self.made[index]

    def _tensor(self, operator: FileOperator, position: int) -> FileTensor:
        if position >= len(operator.inputs) or operator.inputs[position] < 0:
            raise NotSupported(f"has no input {position}")
        return self.graph.tensors[operator.inputs[position]]

    def _output(self, operator: FileOperator) -> FileTensor:
        return self.graph.tensors[operator.outputs[0]]

    def _weight(self, operator: FileOperator) -> NDArray[np.float64]:
        tensor = self._tensor(operator, 1)
        if tensor.data is None:
            raise NotSupported(f"its weight {tensor.name!r} is computed while the model runs")
        return _reals(tensor)

    def _bias(self, operator: FileOperator) -> NDArray[np.float64] | None:
        """Return the bias; of integers, in units of the input's and the weights' scale, whatever its own says."""
        if len(operator.inputs) < 3 or operator.inputs[2] < 0:
            return None
        tensor = self._tensor(operator, 2)
        if tensor.data is None:
            raise NotSupported(f"its bias {tensor.name!r} is computed while the model runs")
        if tensor.dtype == "FLOAT32":
            return _reals(tensor).reshape(-1)
        if tensor.data.dtype.kind not in "iu" or not self._tensor(operator, 0).scale.size:
            raise NotSupported(f"its bias {tensor.name!r} is {tensor.dtype}, in units that the file does not say")
        unit = self._tensor(operator, 0).scale[0] * self._tensor(operator, 1).scale
        return np.asarray(tensor.data.reshape(-1).astype(np.float64) * unit)

    def _vector(self, operator: FileOperator, name: str, op: str, count: int = 1, **attributes: Any) -> FloatLayer:
        sources = tuple(self._source(operator, position) for position in range(count))
        return FloatLayer(Vector(name=name, operator=op, inputs=sources, attributes=attributes))


def _reals(tensor: FileTensor) -> NDArray[np.float64]:
    if tensor.data is None or (tensor.dtype != "FLOAT32" and (tensor.dtype not in FORMATS or tensor.scale.size == 0)):
        raise NotSupported(f"constant {tensor.name!r} is {tensor.dtype}; floats, or quantized integers, are needed")
    values = tensor.data.astype(np.float64)
    if tensor.dtype == "FLOAT32":
        return values
    shape = [1] * values.ndim
    if tensor.scale.size > 1:
        shape[tensor.axis] = tensor.scale.size
    return np.asarray((values - tensor.zero_point.reshape(shape)) * tensor.scale.reshape(shape))


def _fused(operator: FileOperator) -> Any:
    activation = operator.options.get("FusedActivationFunction", "NONE")
    if activation not in ("NONE", "RELU", "RELU6"):
        raise NotSupported(f"has the fused activation {activation}; NONE, RELU and RELU6 are known")
    return activation.lower()


def _window(operator: FileOperator, size: tuple[int, ...], kernel: tuple[int, int]) -> dict[str, Any]:
    """Return stride, dilation and padding of a window that moves over [batch, height, width, channel]."""
    options = operator.options
    stride = options["StrideH"], options["StrideW"]
    dilation = options.get("DilationHFactor", 1), options.get("DilationWFactor", 1)
    pads = ((0, 0), (0, 0))
    if options["Padding"] == "SAME":
        rows, columns = (same_padding(size[1 + i], kernel[i], stride[i], dilation[i]) for i in (0, 1))
        pads = rows, columns
    return {"stride": stride, "dilation": dilation, "padding": pads}


def _conv(reading: _Reading, operator: FileOperator, name: str) -> FloatLayer:
    x, weight = reading._tensor(operator, 0), reading._weight(operator)
    groups = 1
    if operator.op == "DEPTHWISE_CONV_2D":
        weight, groups = np.ascontiguousarray(weight.transpose(3, 1, 2, 0)), x.shape[-1]
    elif weight.ndim == 4 and x.shape[-1] % weight.shape[3] == 0:
        groups = x.shape[-1] // weight.shape[3]
    if len(x.shape) != 4 or weight.ndim != 4:
        raise NotSupported(f"input {x.shape} and weight {weight.shape} do not fit together")
    window = _window(operator, x.shape, weight.shape[1:3])
    source = reading._source(operator, 0)
    meta: LayerMeta = Conv2d(name=name, input=source, activation=_fused(operator), groups=groups, **window)
    return FloatLayer(meta, weight, reading._bias(operator))


def _linear(reading: _Reading, operator: FileOperator, name: str) -> FloatLayer:
    x, weight = reading._tensor(operator, 0), reading._weight(operator)
    inputs = weight.shape[-1]
    flatten = len(x.shape) > 2 and math.prod(x.shape[1:]) == inputs
    if not flatten and (x.shape[-1] != inputs or (len(x.shape) > 2 and not operator.options["KeepNumDims"])):
        raise NotSupported(f"input {x.shape} and weight {weight.shape} do not fit together")
    source = reading._source(operator, 0)
    if flatten and x.shape[-1] % LARGEST_BLOCK:  # blocks that share a scale would not line up with the weight's
        shape = (x.shape[0], inputs)
        flat = Vector(name=f"{name}.flat", operator="reshape", inputs=(source,), attributes={"shape": shape})
        reading.layers.append(FloatLayer(flat))
        source, flatten = flat.name, False
    meta = Linear(name=name, input=source, activation=_fused(operator), flatten=flatten)
    return FloatLayer(meta, weight, reading._bias(operator))


def _sum(reading: _Reading, operator: FileOperator, name: str) -> FloatLayer:
    return reading._vector(operator, name, operator.op.lower(), 2, activation=_fused(operator))


def _pool(reading: _Reading, operator: FileOperator, name: str) -> FloatLayer:
    x, options = reading._tensor(operator, 0), operator.options
    kernel = options["FilterHeight"], options["FilterWidth"]
    whole = kernel == tuple(x.shape[1:3]) and reading._output(operator).shape[1:3] == (1, 1)
    if operator.op == "AVERAGE_POOL_2D" and whole and _fused(operator) == "none":
        return reading._vector(operator, name, "mean", axes=(1, 2), keepdims=True)
    window = _window(operator, x.shape, kernel)
    del window["dilation"]
    known = {"AVERAGE_POOL_2D": "average_pool2d", "MAX_POOL_2D": "max_pool2d"}
    return reading._vector(operator, name, known[operator.op], kernel=kernel, activation=_fused(operator), **window)


def _mean(reading: _Reading, operator: FileOperator, name: str) -> FloatLayer:
    rank = len(reading._tensor(operator, 0).shape)
    axes = tuple(sorted(int(axis) % rank for axis in _integers(reading, operator, 1).reshape(-1)))
    if 0 in axes:
        raise NotSupported("averages over the batch")
    return reading._vector(operator, name, "mean", axes=axes, keepdims=bool(operator.options["KeepDims"]))


def _reshape(reading: _Reading, operator: FileOperator, name: str) -> FloatLayer:
    x, y = reading._tensor(operator, 0).shape, reading._output(operator).shape
    if x[:1] != y[:1]:
        raise NotSupported(f"makes {y} of {x}, so that inputs of a batch would mix")
    return reading._vector(operator, name, "reshape", shape=y)


def _transpose(reading: _Reading, operator: FileOperator, name: str) -> FloatLayer:
    axes = tuple(int(axis) for axis in _integers(reading, operator, 1).reshape(-1))
    if axes[:1] != (0,):
        raise NotSupported(f"its permutation {axes} moves the batch")
    return reading._vector(operator, name, "transpose", axes=axes)


def _pad(reading: _Reading, operator: FileOperator, name: str) -> FloatLayer:
    pairs = _integers(reading, operator, 1)
    if pairs.shape != (len(reading._tensor(operator, 0).shape), 2) or np.any(pairs < 0) or np.any(pairs[0]):
        raise NotSupported(f"its paddings {pairs.tolist()} are not (before, after) of each axis, 0 of the batch")
    padding = tuple((int(before), int(after)) for before, after in pairs)
    return reading._vector(operator, name, "pad", padding=padding)


def _concat(reading: _Reading, operator: FileOperator, name: str) -> FloatLayer:
    axis = operator.options["Axis"] % len(reading._output(operator).shape)
    if axis == 0 or _fused(operator) != "none":
        raise NotSupported("concatenates along the batch, or with a fused activation")
    return reading._vector(operator, name, "concat", len(operator.inputs), axis=axis)


def _clip(reading: _Reading, operator: FileOperator, name: str) -> FloatLayer:
    highest = 6.0 if operator.op == "RELU6" else None
    return reading._vector(operator, name, "clip", minimum=0.0, maximum=highest)


def _integers(reading: _Reading, operator: FileOperator, position: int) -> NDArray[np.int64]:
    tensor = reading._tensor(operator, position)
    if tensor.data is None or tensor.data.dtype.kind not in "iu":
        raise NotSupported(f"input {position} ({tensor.name!r}) is no constant of integers")
    return tensor.data.astype(np.int64)


_MAKERS: dict[str, Callable[[_Reading, FileOperator, str], FloatLayer]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "FULLY_CONNECTED": _linear,
    "ADD": _sum,
    "SUB": _sum,
    "MUL": _sum,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
    "TRANSPOSE": _transpose,
    "PAD": _pad,
    "CONCATENATION": _concat,
    "RELU": _clip,
    "RELU6": _clip,
}
