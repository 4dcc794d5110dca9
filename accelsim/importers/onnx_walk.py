"""One walk over an ONNX graph, node after node, which builds a trace: what every node's importer works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from accelsim import formats
from accelsim.errors import AccelsimError
from accelsim.formats import QTensor, make_qtensor
from accelsim.importers.graph import Names, NotSupported, Row
from accelsim.importers.onnx_constants import INTEGERS, ConstantReader, fold
from accelsim.importers.onnx_graph import Node, OnnxGraph, Port
from accelsim.importers.onnx_inputs import OnnxInput, image_inputs, meaning_of_input
from accelsim.importers.onnx_values import (
    Array,
    Codes,
    Constant,
    FloatInput,
    Lost,
    Move,
    Output,
    Shape,
    View,
    inverse,
    output_of,
)
from accelsim.operators.registry import OPERATORS
from accelsim.trace.builder import TraceBuilder

Importer = Callable[["Walk", Node], None]


@dataclass(frozen=True)
class HostImporter:
    """What leaves floats behind the network's last codes to the trace's reader."""

    operators: frozenset[str]
    run: Callable[[Walk, Node, str], None]


@dataclass
class Walk(ConstantReader):
    """The state of a walk.

    batches : how many of the file's batches the data holds
    given : the inputs' codes, or None for a walk that only looks: then inputs are zeros
    expected : codes that another program computed, in ONNX's shapes, by tensor
    last : stop after the row of this name
    """

    graph: OnnxGraph
    importers: Mapping[tuple[str, str], Importer]
    batches: int = 1
    given: Mapping[str, QTensor] | None = None
    expected: Mapping[str, Array] = field(default_factory=dict)
    last: str | None = None
    host: HostImporter | None = None
    description: str = ""
    rows: list[Row] = field(default_factory=list)
    inputs: dict[str, OnnxInput] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    views: dict[str, Codes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stopped: bool = False

    def __post_init__(self) -> None:
        self.names = Names()
        self.builder = TraceBuilder(Names().new(self.graph.path.stem), self.description, semantics="onnxruntime")
        self.outputs: list[str] = []
        self.formats: dict[str, str] = {}  # of the trace's tensors
        self.input_tensors: set[str] = set()
        self.image_names = image_inputs(self.graph)

    # --- walking -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Walk the whole graph; what cannot be imported becomes a row with a problem."""
        for name, array in self.graph.constants.items():
            self.values[name] = Constant(array)
        for port in self.graph.inputs:
            self._enter_port(port)
        for node in self.graph.nodes:
            if self.stopped:
                return
            self._visit(node)

    def _visit(self, node: Node) -> None:
        importer = self.importers.get((node.domain, node.op))
        lost = any(isinstance(self.values.get(name), Lost) for name in node.inputs if name)
        try:
            if self._folded(node):
                return
            if importer is None:
                where = f" of {node.domain}" if node.domain else ""
                raise NotSupported(f"operator {node.op}{where} has no importer")
            if lost:
                self._lose(node, "")
            else:
                importer(self, node)
        except NotSupported as reason:
            if not self._left_to_host(node, str(reason)):
                self._lose(node, str(reason))
        except AccelsimError as error:
            if self.given is not None:
                raise
            self._lose(node, str(error))

    def _folded(self, node: Node) -> bool:
        """Compute a node whose inputs are all constants; return whether it was one."""
        values = {name: self.values.get(name) for name in node.inputs if name}
        results = fold(node, values, self.shape_of(node.input(0)), self.graph.opset)
        for index, array in enumerate(results or ()):
            self.set(node, Constant(array), index)
        return results is not None

    def _left_to_host(self, node: Node, reason: str) -> bool:
        """Leave a float operator behind the last codes to the trace's reader; return whether that is possible."""
        if self.host is None or node.domain or node.op not in self.host.operators:
            return False
        try:
            self.host.run(self, node, reason)
        except NotSupported:
            return False
        return True

    def _lose(self, node: Node, why: str) -> None:
        for name in node.outputs:
            self.values[name] = Lost(why)
        if why:
            shape = self.shape_of(node.input(0))
            after = self.shape_of(node.outputs[0])
            name = Names().new(node.name)  # the name that the layer would have had
            name = self.names.new(node.name) if any(row.name == name for row in self.rows) else name
            self.rows.append(Row(name, node.op, "vector unit", shape, (), after, "-", "-", "-", 0, 0, why))

    def shape_of(self, name: str) -> Shape:
        """Return a tensor's shape as ONNX sees it, with the file's batch; () where nobody knows."""
        value = self.values.get(name)
        shape = getattr(value, "shape", None)
        if shape is not None:
            return tuple(shape)
        return tuple(1 if size is None else size for size in self.graph.shapes.get(name, ()))

    # --- inputs ------------------------------------------------------------------------------------------------------

    def _enter_port(self, port: Port) -> None:
        shape = tuple(1 if size is None and axis == 0 else size for axis, size in enumerate(port.shape))
        if port.dtype not in INTEGERS and port.dtype not in ("float32", "float16", "float64"):
            self.refuse_input(port, f"its element type {port.dtype or 'is no tensor'} cannot be read")
        elif any(size is None or size < 1 for size in shape) or not shape:
            self.refuse_input(port, f"its declared shape {list(port.shape)} leaves sizes open; fix all but the batch")
        else:
            view = View(port.name, tuple(int(size) for size in shape if size is not None))
            if port.dtype in INTEGERS:
                scale, zero_point, known = meaning_of_input(self.graph, port.name)
                known_input = OnnxInput(port.name, view.shape, port.dtype, scale, zero_point, "half_even")
                self.values[port.name] = self._enter(known_input, view, known=known)
            else:
                self.values[port.name] = FloatInput(port.name, view)

    def refuse_input(self, port: Port, why: str) -> None:
        """List an input that cannot be read."""
        self.values[port.name] = Lost(why)
        name = self.names.new(port.name)
        shape = tuple(size or 0 for size in port.shape)
        self.rows.append(Row(name, "input", "input", shape, (), shape, port.dtype, "-", "-", 0, 0, why))

    def enter(self, node: Node, value: FloatInput, output: Output, quantize: Callable[[Array], Array]) -> Codes:
        """Quantize a float input at the edge of the network, on the host; return its codes."""
        if value.name in self.inputs:
            raise NotSupported(f"input {value.name!r} is quantized twice; quantize it once")
        shape = self.values[value.name].shape
        known = OnnxInput(
            value.name, shape, output.format, output.scale, output.zero_point, "half_even", value.steps, quantize
        )
        self.rows.append(
            Row(self.names.new(node.name), node.op, "input", value.shape, (), value.shape, "float32", "-",
                output.format, 0, 0)
        )  # fmt: skip
        return self._enter(known, value.view, known=True)

    def _enter(self, entering: OnnxInput, view: View, *, known: bool) -> Codes:
        """Add a network input to the trace, channels last where convolutions read it."""
        self.inputs[entering.name] = entering
        tensor = self.names.new(entering.name)
        self.input_tensors.add(tensor)
        self.formats[tensor] = entering.format
        inner = entering.stored(tensor, self.image_names)
        if self.given is None:
            codes = entering.some_codes(inner.stored)
        else:
            codes = inner.to_trace(self.given[entering.name].codes)
        stored = make_qtensor(codes, formats.get(entering.format), entering.scale, entering.zero_point)
        self.builder.input(tensor, stored, ("batch", "height", "width", "channel") if inner.moves else None)
        for move in view.moves:
            inner = inner.moved(move)
        return Codes(inner, entering.format, entering.scale, entering.zero_point, real=False, known=known)

    # --- what importers ask for --------------------------------------------------------------------------------------

    def codes(self, node: Node, index: int, what: str = "input", *, real: bool = False) -> Codes:
        """Return an input that has to be computed codes; `real`: seen as real numbers."""
        value = self.values.get(node.input(index))
        if isinstance(value, Constant):
            raise NotSupported(f"{what} {node.input(index)!r} is a constant, which this operator may not have there")
        if isinstance(value, Codes) and value.real == real:
            return value
        found = "codes" if isinstance(value, Codes) and not value.real else "floats that are never quantized"
        wanted = "quantized reals" if real else "codes"
        raise NotSupported(f"{what} {node.input(index)!r} holds {found}; {wanted} are needed")

    def check_meaning(self, codes: Codes, zero_point: int, what: str = "input") -> None:
        """Refuse a node that reads codes with another zero point than they were written with."""
        if codes.known and codes.zero_point != zero_point:
            raise NotSupported(
                f"the {what} was written with zero point {codes.zero_point} and is read with {zero_point}; "
                f"requantize it in between"
            )

    def arranged(self, node: Node, codes: Codes, order: Shape) -> Codes:
        """Return the same codes, stored so that ONNX's view is ``transpose(order)`` of the trace's tensor; moves data
        where it has to.
        """
        wanted = codes.view.moved(Move("transpose", inverse(order)))
        moves: tuple[Move, ...] = (Move("transpose", order),) if order != tuple(range(len(order))) else ()
        if wanted.shape == codes.view.stored and not wanted.moves:
            return codes
        steps = wanted.moves
        if _in_order(wanted):
            if wanted.shape == codes.view.stored:
                return Codes(View(codes.view.tensor, wanted.shape, moves), codes.format, codes.scale,
                             codes.zero_point, codes.real, codes.known)  # fmt: skip
            steps = (Move("reshape", wanted.shape),)
        tensor, shape = codes.view.tensor, codes.view.stored
        for step in steps:
            tensor, shape = self._move(node, tensor, shape, step, codes), step.shape(shape)
        return Codes(View(tensor, shape, moves), codes.format, codes.scale, codes.zero_point, codes.real, codes.known)

    def _move(self, node: Node, tensor: str, shape: Shape, step: Move, codes: Codes) -> str:
        if step.kind == "transpose" and step.to[0] != 0 and self.batches > 1:
            raise NotSupported(
                f"the transpose to {step.to} moves the batch; import one batch of the file at a time (batch=1)"
            )
        attributes = {"axes": step.to} if step.kind == "transpose" else {"shape": self.sizes(step.to)}
        return self.vector_layer(node, step.kind, [tensor], output_of(codes), attributes, after=step.shape(shape))

    def sizes(self, shape: Shape) -> Shape:
        """Return a shape of the file with the batch of the data."""
        return (shape[0] * self.batches, *shape[1:])

    # --- layers ------------------------------------------------------------------------------------------------------

    def vector_layer(
        self,
        node: Node,
        operator: str,
        inputs: Sequence[str | QTensor],
        output: Output,
        attributes: Mapping[str, Any],
        *,
        after: Shape,
        names: str = "",
        view: View | None = None,
    ) -> str:
        """Add an operator of the vector unit; return the name of its output.

        after : its shape in the file
        names : the ONNX tensor that it makes, "" for one in between
        view : how ONNX will see the output
        """
        if operator not in OPERATORS:
            raise NotSupported(f"the vector unit has no operator {operator!r} yet")
        layer = self.names.new(node.name if names else f"{node.name}.{operator}")
        output_name = self.names.new(names or f"{layer}.out")
        made = self.builder.vector(
            layer, operator, inputs, output=output.format, scale=output.scale, zero_point=output.zero_point,
            attributes=attributes, output_name=output_name, expected=self.expected_of(names, view),
        )  # fmt: skip
        reads = self.formats[next(each for each in inputs if isinstance(each, str))]
        self.formats[made] = output.format
        before = self.shape_of(node.input(0))
        op = node.op if names else operator
        self._add_row(Row(layer, op, "vector unit", before, (), after, reads, "-", output.format, 0, 0))
        return made

    def list_layer(
        self, layer: str, node: Node, x: Codes, weight_shape: Shape, weight_format: str, after: Shape, out: str,
        macs: int, weights: int,
    ) -> None:  # fmt: skip
        """List a layer of the array."""
        self._add_row(
            Row(layer, node.op, "array", x.shape, weight_shape, after, x.format, weight_format, out, macs, weights)
        )

    def host_row(self, node: Node, source: Codes, shape: Shape) -> None:
        """List floats after the network's last codes."""
        self._add_row(
            Row(self.names.new(node.name), node.op, "host", source.shape, (), shape, source.format, "-", "float32", 0,
                0)
        )  # fmt: skip

    def _add_row(self, row: Row) -> None:
        self.rows.append(row)
        self.stopped = row.name == self.last

    def expected_of(self, name: str, view: View | None) -> Array | None:
        """Return the codes expected of an ONNX tensor, as the trace stores them."""
        if name not in self.expected or view is None:
            return None
        codes = np.asarray(self.expected[name])
        return view.to_trace(codes) if codes.dtype.kind != "f" else None

    def finish(self, name: str, value: Any, leave: Callable[[Walk, Node, Any, str], Any]) -> None:
        """Say what becomes of a network output that no node quantizes."""
        try:
            self.values[name] = leave(self, value.node, value, name)
        except NotSupported as reason:
            self._lose(value.node, str(reason))
        if isinstance(self.values[name], Codes):
            self.views[name] = self.values[name]

    def name_output(self, codes: Codes) -> None:
        """Make codes an output of the network, unless they are an input."""
        tensor = codes.view.tensor
        if tensor not in self.outputs and tensor not in self.input_tensors:
            self.outputs.append(tensor)
            self.builder.output(tensor)

    def note(self, text: str) -> None:
        """Keep a remark on something that is not exact, or not as the file has it."""
        if text not in self.notes:
            self.notes.append(text)

    def set(self, node: Node, value: Any, index: int = 0) -> None:
        """Say what a node's output is."""
        name = node.outputs[index]
        self.values[name] = value
        if isinstance(value, Codes):
            self.views[name] = value


def _in_order(view: View) -> bool:
    """Return whether ONNX sees the elements in the order in which the trace stores them."""
    order = view.order().ravel()
    return bool(np.array_equal(order, np.arange(order.size)))
