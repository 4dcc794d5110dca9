"""ONNX files as plain Python: nodes, constants, inputs and outputs. Everything that touches the ``onnx`` package.

A damaged file, a cycle, a giant declared shape: one ModelError that names the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import ModelError
from accelsim.importers.graph import NotSupported, missing_library

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
Shape = tuple[int | None, ...]

QONNX = "qonnx.custom_op.general"
MICROSOFT = "com.microsoft"
_QUANTIZERS = ("Quant", "IntQuant", "BipolarQuant", "Trunc")
_MAX_ELEMENTS = 1 << 40  # of a declared shape, all images of a batch apart
_MAX_NODES = 100_000


@dataclass(frozen=True)
class Node:
    """One node.

    op : its type
    domain : "" for ONNX's own operators; QONNX's quantizers always have :data:`QONNX`
    name : as the file says, or made from the type and the position
    inputs : names of tensors; "" where an optional one is left out
    attributes : numbers, strings, lists and arrays
    position : in the file, from 0
    """

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    position: int

    @property
    def place(self) -> str:
        """What messages call the node."""
        kind = self.op if not self.domain else f"{self.domain}.{self.op}"
        return f"node {self.position} {self.name!r} ({kind})"

    def input(self, index: int) -> str:
        """Return the name of an input, "" where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True)
class Port:
    """An input or output of the graph.

    dtype : NumPy's name of the element type ("float32", "int8", "int4"...), or "" for other things than tensors
    shape : sizes, None where free
    """

    name: str
    dtype: str
    shape: Shape


@dataclass(frozen=True)
class OnnxGraph:
    """A model.

    path : its file
    nodes : in an order in which every input is known before it is used
    constants : initializers and Constant nodes, by name
    inputs, outputs : of the graph, constants apart
    shapes : what ONNX's shape inference found, by tensor
    opset : version of ONNX's own operators
    """

    path: Path
    name: str
    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    shapes: Mapping[str, Shape]
    opset: int
    consumers: Mapping[str, tuple[Node, ...]] = field(default_factory=dict)


def load_graph(path: str | os.PathLike[str]) -> OnnxGraph:
    """Read an ONNX file; check it with onnx.checker, infer its shapes.

    Raises ModelError: the ``onnx`` package is missing, the file is missing or damaged, or asks for the impossible.
    """
    file = Path(path)
    onnx = _package()
    try:
        model = onnx.load(str(file))
    except FileNotFoundError:
        raise ModelError(f"{file}: there is no such file") from None
    except IsADirectoryError:
        raise ModelError(f"{file}: is a folder; pass an ONNX file") from None
    except Exception as error:  # protobuf and external data raise types of their own
        raise ModelError(f"{file}: is not a readable ONNX model: {_first_line(error)}") from None
    if not model.graph.node:
        raise ModelError(f"{file}: is not a readable ONNX model, or one without a single node")
    if len(model.graph.node) > _MAX_NODES:
        raise ModelError(f"{file}: has {len(model.graph.node):,} nodes; up to {_MAX_NODES:,} are read")
    _check_names(model, file)
    _name_domains(model)
    for value in _shaped(model.graph):
        _refuse_giants(value.name, _port(value).shape, file)
    _check(model, file)
    inferred = _inferred(model)
    return _graph(model, inferred, file)


def evaluated(node: Node, values: Mapping[str, Array], opset: int) -> list[Array]:
    """Return what a node of ONNX's own makes of constants.

    Raises NotSupported where ONNX's reference evaluator cannot compute it.
    """
    onnx = _package()
    from onnx.reference import ReferenceEvaluator

    attributes = {
        name: onnx.numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in node.attributes.items()
    }
    try:
        proto = onnx.helper.make_node(node.op, node.inputs, node.outputs, **attributes)
        ports = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in (*values, *node.outputs)]
        graph = onnx.helper.make_graph([proto], "constant", ports[: len(values)], ports[len(values) :])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, dict(values))]
    except Exception as error:
        raise NotSupported(f"computes constants, and fails: {_first_line(error)}") from None


def _package() -> Any:
    try:
        import onnx
    except ModuleNotFoundError:
        raise missing_library("onnx", "onnx", "ONNX") from None
    return onnx


def _check_names(model: onnx.ModelProto, file: Path) -> None:
    """Refuse names that are no text: protobuf hands them over as bytes."""
    graph = model.graph
    names = [value.name for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    for name in (graph.name, *names, *(entry.domain for entry in model.opset_import)):
        if not isinstance(name, str):
            raise ModelError(f"{file}: is damaged: the name {name!r} is not UTF-8")


def _name_domains(model: onnx.ModelProto) -> None:
    """Give QONNX's quantizers their domain, whatever the exporter called it, and import every domain that is used."""
    for node in model.graph.node:
        if node.op_type in _QUANTIZERS and node.domain in ("", "onnx.brevitas", "finn.custom_op.general", QONNX):
            node.domain = QONNX
        if node.domain == "ai.onnx":
            node.domain = ""
    imported = {entry.domain if entry.domain != "ai.onnx" else "" for entry in model.opset_import}
    for domain in sorted({node.domain for node in model.graph.node} - imported):
        entry = model.opset_import.add()
        entry.domain, entry.version = domain, 1


def _check(model: onnx.ModelProto, file: Path) -> None:
    onnx = _package()
    cycle = _unordered(model)
    if cycle:
        raise ModelError(f"{file}: {cycle}")
    try:
        onnx.checker.check_model(model, full_check=False)
    except Exception as error:  # ValidationError, and what protobuf throws
        raise ModelError(f"{file}: is not a valid ONNX model: {_first_line(error)}") from None


def _unordered(model: onnx.ModelProto) -> str:
    """Return what is wrong where a node reads a tensor that no node before it makes; "" where all is well."""
    graph = model.graph
    made_by = {name: node.name or node.op_type for node in graph.node for name in node.output if name}
    known = {value.name for value in graph.input} | {value.name for value in graph.initializer}
    known |= {value.values.name for value in graph.sparse_initializer}
    for position, node in enumerate(graph.node):
        for name in node.input:
            if name and name not in known:
                who = f"node {position} {node.name or node.op_type!r} reads {name!r}"
                if name in made_by:
                    return f"{who}, which only a later node makes ({made_by[name]!r}): a cycle, or nodes out of order"
                return f"{who}, which is no input, no initializer and no node's output"
        known.update(node.output)
    return ""


def _inferred(model: onnx.ModelProto) -> dict[str, Shape]:
    """Return the shapes that ONNX's inference finds; what it cannot infer is left out."""
    onnx = _package()
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # shapes are a help for inspection, and the import computes its own
        graph = model.graph
    shapes = {value.name: _port(value).shape for value in _shaped(graph)}
    return {name: shape for name, shape in shapes.items() if all(size is None or size > 0 for size in shape)}


def _shaped(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
            yield value


def _graph(model: onnx.ModelProto, shapes: dict[str, Shape], file: Path) -> OnnxGraph:
    constants: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        _refuse_giants(tensor.name, tuple(tensor.dims), file)
        constants[tensor.name] = _array(tensor, file)
    nodes = []
    for position, proto in enumerate(model.graph.node):
        try:
            attributes = {each.name: _attribute(each) for each in proto.attribute}
        except Exception as error:
            what = proto.name or proto.op_type
            raise ModelError(f"{file}: node {position} {what!r} has an unreadable attribute: {error}") from None
        node = Node(
            proto.op_type,
            proto.domain,
            proto.name or f"{proto.op_type}_{position}",
            tuple(proto.input),
            tuple(proto.output),
            attributes,
            position,
        )
        if node.op == "Constant" and not node.domain:
            constants[node.outputs[0]] = _constant_node(node, file)
            continue
        nodes.append(node)
    consumers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            consumers.setdefault(name, []).append(node)
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    return OnnxGraph(
        path=file,
        name=model.graph.name or file.stem,
        nodes=tuple(nodes),
        constants=constants,
        inputs=tuple(_port(value) for value in model.graph.input if value.name not in constants),
        outputs=tuple(_port(value) for value in model.graph.output),
        shapes=shapes,
        opset=opset,
        consumers={name: tuple(readers) for name, readers in consumers.items()},
    )


def _array(tensor: onnx.TensorProto, file: Path) -> Array:
    onnx = _package()
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except Exception as error:
        raise ModelError(f"{file}: initializer {tensor.name!r} is damaged: {_first_line(error)}") from None


def _attribute(attribute: onnx.AttributeProto) -> Any:
    onnx = _package()
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return np.asarray(onnx.numpy_helper.to_array(value))
    return list(value) if isinstance(value, list | tuple) else value


def _constant_node(node: Node, file: Path) -> Array:
    for name, dtype in (
        ("value", None),
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in node.attributes:
            return np.asarray(node.attributes[name], dtype)
    raise ModelError(f"{file}: {node.place} holds {', '.join(node.attributes)}; only numbers are read")


def _port(value: onnx.ValueInfoProto) -> Port:
    onnx = _package()
    tensor = value.type.tensor_type
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except KeyError:
        dtype = ""
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return Port(value.name, dtype, sizes)


def _refuse_giants(name: str, shape: Shape, file: Path) -> None:
    sizes = [size for size in shape if size is not None]
    if any(size < 0 for size in sizes) or math.prod(sizes) > _MAX_ELEMENTS:
        raise ModelError(
            f"{file}: tensor {name!r} is declared as {list(shape)}; sizes are positive, and up to {_MAX_ELEMENTS:,} "
            f"elements are accepted"
        )


def _first_line(error: BaseException) -> str:
    lines: Iterator[str] = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
