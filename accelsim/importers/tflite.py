"""The importer of TFLite models (docs/import.md): the file's operators become layers, in the file's order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from pydantic import ValidationError

from accelsim import formats
from accelsim.errors import AccelsimError, ModelError, problem_list
from accelsim.formats import QTensor
from accelsim.importers import tflite_functions as functions
from accelsim.importers import tflite_layers as layers
from accelsim.importers import tflite_operators as operators
from accelsim.importers import tflite_transpose_conv as transpose
from accelsim.importers.graph import ModelInput, Names, NotSupported, Row, Shape
from accelsim.importers.tflite_costs import Weight, macs, weight_of_calls
from accelsim.importers.tflite_edges import ON_THE_ARRAY, Edges
from accelsim.importers.tflite_file import FileGraph, FileOperator, FileTensor, read_graph
from accelsim.importers.tflite_lowering import FORMATS, MICRO, PREVIOUS, REFERENCE, Call, Context, meaning
from accelsim.operators.registry import OPERATORS, attributes_of
from accelsim.operators.spec import TensorSpec
from accelsim.quantize.network import FloatNetwork
from accelsim.trace.builder import TraceBuilder

Lowering = Callable[[FileOperator, Context], list[Call]]

LOWERINGS: dict[str, Lowering] = {
    "CONV_2D": layers.conv_2d,
    "DEPTHWISE_CONV_2D": layers.depthwise_conv_2d,
    "FULLY_CONNECTED": layers.fully_connected,
    "BATCH_MATMUL": layers.batch_matmul,
    "TRANSPOSE_CONV": transpose.transpose_conv,
    **operators.LOWERINGS,
    **functions.LOWERINGS,
}
"""Every operator that can be imported, edges apart."""

FLOATS = ("FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16")
FLOAT_EDGES = ("QUANTIZE", "DEQUANTIZE")


def read_tflite(path: str) -> TfliteModel:
    """Read a TFLite model; ModelError where the file is damaged."""
    return TfliteModel(read_graph(path))


@dataclass(frozen=True)
class TfliteModel:
    """A TFLite model that was read and understood (accelsim.importers.graph.Model)."""

    graph: FileGraph

    kind = "TFLite"
    semantics = (REFERENCE, MICRO)

    @property
    def subject(self) -> str:
        return self.graph.path

    @cached_property
    def edges(self) -> Edges:
        return Edges(self.graph)

    @cached_property
    def inputs(self) -> tuple[ModelInput, ...]:
        return tuple(self._input(self.graph.tensors[index]) for index in self.graph.inputs)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        names = Names()
        return tuple(self._row(operator, names) for operator in self.graph.operators)

    @property
    def other_formats(self) -> str:
        """How to import the model in other number formats (accelsim.importers.graph.Model)."""
        in_floats = any(row.problem and row.output_format in map(str.lower, FLOATS) for row in self.rows)
        if not in_floats or self._floats is None:
            return ""
        return (
            f"to quantize the network anew, in formats of your choice: accelsim import {quote(self.graph.path)} "
            f"--inputs DATA.npz --formats '*:int8' -o TRACE.npz (Python: formats='*:int8'; docs/import.md)"
        )

    @cached_property
    def _floats(self) -> FloatNetwork | None:
        """The float network of the file, for one input of zeros; None where there is none."""
        from accelsim.importers.tflite_float import float_network

        try:
            return float_network(
                self.graph, np.zeros((1, *self.inputs[0].shape[1:]) if self.inputs else (), np.float32)
            )
        except ModelError:
            return None

    def builder(self, inputs: Mapping[str, QTensor], semantics: str, rows: Sequence[Row]) -> TraceBuilder:
        """Return the trace of a beginning of the network (accelsim.importers.graph.Model)."""
        name = Names().new(Path(self.graph.path).stem)
        text = f"imported from {Path(self.graph.path).name} (TFLite), semantics {semantics}"
        host = [row.op for row in self.rows if row.place == "host"]
        if host and len(rows) == len(self.rows):
            text += f"; floats after the last codes are left to the host, at no cost here: {', '.join(host)}"
        return _Construction(self, inputs, Context(self.graph, semantics, self._batch(inputs))).run(
            TraceBuilder(name, text, semantics=semantics), rows
        )

    def _batch(self, inputs: Mapping[str, QTensor]) -> int:
        first = self.inputs[0]
        return inputs[first.name].shape[0] // first.shape[0]

    def _input(self, tensor: FileTensor) -> ModelInput:
        """Return an input; a float one as the QUANTIZE that reads it makes it."""
        what = f"{self.graph.path}: input {tensor.name!r}"
        if not tensor.shape:
            raise ModelError(f"{what}: is a single number; accelsim takes inputs with a batch")
        first = tensor if tensor.dtype in FORMATS else self.edges.quantized(tensor)
        if first is None:  # nothing that reads it can be imported, and the list of these operators says so
            return ModelInput(tensor.name, tensor.shape, tensor.dtype.lower(), 1.0, 0, "half_away")
        try:
            means = meaning(first)
        except NotSupported as error:
            raise ModelError(f"{what}: {error}") from None
        return ModelInput(tensor.name, tensor.shape, means["output"], means["scale"], means["zero_point"], "half_away")

    def lower(self, operator: FileOperator, context: Context) -> list[Call]:
        """Return an operator's calls, none where it is no layer; NotSupported."""
        if self.edges.place(operator) in ("input", "host"):
            return []
        lowering = LOWERINGS.get(operator.op)
        if lowering is None and operator.op not in FLOAT_EDGES:
            raise NotSupported(f"{operator.op} cannot be imported")
        self._refuse_floats(operator)
        if lowering is None:
            raise NotSupported(f"{operator.op} cannot be imported")
        return lowering(operator, context)

    def _refuse_floats(self, operator: FileOperator) -> None:
        """Raise NotSupported for an operator on floats that is no edge, and say which kind of model this is."""
        tensors = [self.graph.tensors[index] for index in operator.inputs if index >= 0]
        computed = [tensor for tensor in tensors if tensor.data is None]
        made = [self.graph.tensors[index] for index in operator.outputs if index >= 0]
        floats = next((tensor.dtype for tensor in (*computed, *made) if tensor.dtype in FLOATS), None)
        if floats is None:
            return
        weights = next((t.dtype for t in tensors if t.data is not None and t.dtype in FORMATS and t.scale.size), None)
        if operator.op == "DEQUANTIZE":
            constant = not computed
            what = f"makes {floats} of {'constants' if constant else 'codes'} in the middle of the network"
        elif operator.op == "QUANTIZE":
            what = f"quantizes {tensors[0].name!r}, a float that the network computes"
        elif weights is not None and operator.op in ON_THE_ARRAY:
            raise NotSupported(f"is hybrid: {weights} weights, {floats} activations; quantize the model fully")
        else:
            what = f"computes in {floats}"
        raise NotSupported(f"{what}: floats are left to the host at the end only; quantize the model fully")

    def _row(self, operator: FileOperator, names: Names) -> Row:
        tensors, problem = self.graph.tensors, ""
        calls: list[Call] = []
        try:
            calls = self.lower(operator, Context(self.graph, REFERENCE, 1))
            _check_operators(calls, self.graph)
        except NotSupported as error:
            problem = str(error)
        first = self._data(operator)
        output = tensors[operator.outputs[0]] if operator.outputs and operator.outputs[0] >= 0 else None
        name = names.new(f"{operator.index}_{operator.op.lower()}")
        weight = self._float_weight(operator, name) if problem else weight_of_calls(operator, calls, self.graph)
        stored = [each for call in calls for each in call.inputs if isinstance(each, QTensor)]
        return Row(
            name=name,
            op=operator.op,
            place=self.edges.place(operator),
            input_shape=_shape(first),
            weight_shape=weight.shape,
            output_shape=_shape(output),
            input_format=_format(first),
            weight_format=weight.format,
            output_format=_format(output),
            macs=0 if output is None else macs(operator, weight, first, output),
            weights=weight.elements + sum(math.prod(each.shape) for each in stored),
            problem=problem,
        )

    def _float_weight(self, operator: FileOperator, name: str) -> Weight:
        """Return the weight of a layer that other number formats can be chosen for, as the file stores it."""
        layers = () if self._floats is None else self._floats.array_layers
        found = next((layer.weight for layer in layers if layer.name == name), None)
        return Weight() if found is None else Weight(found.shape, _format(self.graph.tensors[operator.inputs[1]]))

    def _data(self, operator: FileOperator) -> FileTensor | None:
        """Return the first input that is data: computed, or an input of the model."""
        tensors = self.graph.tensors
        given = [tensors[index] for index in operator.inputs if index >= 0]
        return next((tensor for tensor in given if tensor.data is None), given[0] if given else None)


class _Construction:
    """A trace under construction: which tensor of the file is which of the trace."""

    def __init__(self, model: TfliteModel, inputs: Mapping[str, QTensor], context: Context) -> None:
        self.model, self.context = model, context
        self.graph = model.graph
        self.given = inputs
        self.names = Names()
        self.made: dict[int, str] = {}

    def run(self, net: TraceBuilder, rows: Sequence[Row]) -> TraceBuilder:
        """Add inputs, layers and outputs, and compare all shapes with those that the file declares."""
        chosen = self.graph.operators[: len(rows)]
        calls, problems = [], []
        for operator, row in zip(chosen, rows, strict=True):
            try:
                calls.append((row.name, self.model.lower(operator, self.context)))
            except NotSupported as error:
                problems.append(f"{row.name} ({row.op}): {error}")
        if problems:
            raise ModelError(problem_list(self.graph.path, problems))
        self._inputs(net, chosen)
        for name, each in calls:
            self._layer(net, each, name)
        if len(rows) == len(self.graph.operators):
            for index in dict.fromkeys(source for output in self.graph.outputs for source in self._codes_of(output)):
                net.output(self.made[index])
        self._check_shapes(net)
        return net

    def _inputs(self, net: TraceBuilder, chosen: Sequence[FileOperator]) -> None:
        read = {index for operator in chosen for index in operator.inputs}
        for index, each in zip(self.graph.inputs, self.model.inputs, strict=True):
            if index not in read:
                continue
            name = net.input(self.names.new(each.name), self.given[each.name])
            quantized = self.model.edges.quantized(self.graph.tensors[index])
            self.made[index if quantized is None else quantized.index] = name

    def _layer(self, net: TraceBuilder, calls: Sequence[Call], name: str) -> None:
        previous = ""
        for position, call in enumerate(calls):
            inputs = [self._name(each, previous) for each in call.inputs]
            last = position == len(calls) - 1
            arguments = dict(call.arguments)
            layer = name if last else f"{name}.{position}"
            if call.output is not None:
                arguments["output_name"] = self.names.new(self.graph.tensors[call.output].name)
            previous = _add(net, call.method, layer, inputs, arguments)
            if call.output is not None:
                self.made[call.output] = previous

    def _name(self, each: int | QTensor | str, previous: str) -> str | QTensor:
        if isinstance(each, int):
            return self.made[each]
        return previous if each == PREVIOUS else each

    def _codes_of(self, output: int) -> tuple[int, ...]:
        sources = (output,) if output in self.made else self.model.edges.codes_behind(output)
        inputs = {self.made.get(index) for index in self.graph.inputs}
        if not sources or any(index not in self.made or self.made[index] in inputs for index in sources):
            raise ModelError(f"{self.graph.path}: output {self.graph.tensors[output].name!r} is computed by no layer")
        return sources

    def _check_shapes(self, net: TraceBuilder) -> None:
        problems = []
        for index, name in self.made.items():
            declared, found = self.context.batched(self.graph.tensors[index].shape), net.shape(name)
            if declared != found:
                problems.append(f"tensor {self.graph.tensors[index].name!r}: declares {declared}, but is {found}")
        if problems:
            raise ModelError(problem_list(self.graph.path, problems))


def _check_operators(calls: Sequence[Call], graph: FileGraph) -> None:
    """Ask the operators of the vector unit whether they take what the file gives them; NotSupported if not."""
    specs: dict[int | str, TensorSpec] = {}
    for call in calls:
        if call.method != "vector":
            return  # what a layer of the array makes is checked by the builder
        name = call.arguments["operator"]
        if name not in OPERATORS:
            raise NotSupported(f"needs the operator {name!r}, which accelsim does not have")
        try:
            inputs = [specs[each] if each in specs else _spec(each, graph) for each in call.inputs]
            operator, attributes = OPERATORS[name], attributes_of(name, call.arguments["attributes"])
            shape = operator.output_shape([each.shape for each in inputs], attributes)
            factors = float(call.arguments["scale"]), int(call.arguments["zero_point"])
            made = TensorSpec(shape, formats.get(call.arguments["output"]), *factors)
            operator.check(inputs, made, attributes)
        except ValidationError as error:
            problem = error.errors()[0]
            raise NotSupported(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
        except AccelsimError as error:
            raise NotSupported(str(error)) from None
        specs[PREVIOUS] = made


def _spec(each: int | QTensor | str, graph: FileGraph) -> TensorSpec:
    if isinstance(each, QTensor):
        return TensorSpec(each.shape, each.format, float(each.scale), int(each.zero_point))
    tensor = graph.tensors[int(each)]
    means = meaning(tensor)
    return TensorSpec(tensor.shape, formats.get(means["output"]), means["scale"], means["zero_point"])


def _add(net: TraceBuilder, method: str, name: str, inputs: list[str | QTensor], arguments: dict[str, Any]) -> str:
    if method == "vector":
        return net.vector(name, arguments.pop("operator"), inputs, **arguments)
    if method == "matmul":
        return net.matmul(name, *inputs, **arguments)  # type: ignore[arg-type]
    made: str = getattr(net, method)(name, inputs[0], arguments.pop("weight"), **arguments)
    return made


def _shape(tensor: FileTensor | None) -> Shape:
    return () if tensor is None else tensor.shape


def _format(tensor: FileTensor | None) -> str:
    return "-" if tensor is None else FORMATS.get(tensor.dtype, tensor.dtype.lower())
