"""An ONNX file as a model that accelsim can list and import (docs/import_onnx.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from accelsim.errors import ModelError, problem_list
from accelsim.formats import QTensor
from accelsim.importers.graph import ModelInput, Row, rows_until, take_inputs
from accelsim.importers.onnx_edges import EDGES, HOST_OPERATORS, host, leave
from accelsim.importers.onnx_floats import FLOATS, clip
from accelsim.importers.onnx_functions import ONE_NUMBER
from accelsim.importers.onnx_graph import Node, OnnxGraph, load_graph
from accelsim.importers.onnx_moves import MOVES
from accelsim.importers.onnx_pending import Pending
from accelsim.importers.onnx_qoperator import QOPERATORS, clip_codes
from accelsim.importers.onnx_values import Array, Codes, Constant, Host
from accelsim.importers.onnx_walk import HostImporter, Walk
from accelsim.importers.qonnx import QUANTIZERS
from accelsim.trace.builder import TraceBuilder
from accelsim.trace.reader import Trace


def clip_any(walk: Walk, node: Node) -> None:
    """Relu and Clip, on codes or on reals."""
    value = walk.values.get(node.input(0))
    on_codes = isinstance(value, Codes) and not value.real
    (clip_codes if on_codes else clip)(walk, node)


IMPORTERS = {
    **QOPERATORS,
    **FLOATS,
    **ONE_NUMBER,
    **MOVES,
    **EDGES,
    **QUANTIZERS,
    ("", "Relu"): clip_any,
    ("", "Clip"): clip_any,
}
HOST = HostImporter(HOST_OPERATORS, host)


class OnnxModel:
    """A model file, read and understood before anything runs. See :class:`accelsim.importers.graph.Model`."""

    kind = "ONNX"
    semantics = ("onnxruntime",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._graph = load_graph(path)

    @property
    def subject(self) -> str:
        """The file, for messages."""
        return str(self._graph.path)

    @property
    def other_formats(self) -> str:
        """Nothing: other formats are chosen for TFLite files."""
        return ""

    @property
    def graph(self) -> OnnxGraph:
        """The nodes."""
        return self._graph

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """The inputs that the trace will have, as ONNX shapes them."""
        return tuple(self._look.inputs[port.name] for port in self._graph.inputs if port.name in self._look.inputs)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every layer, in order."""
        return tuple(self._look.rows)

    @cached_property
    def _look(self) -> Walk:
        return self._walked(Walk(self._graph, IMPORTERS, host=HOST))

    @property
    def views(self) -> Mapping[str, Codes]:
        """How ONNX sees the trace's tensors, by ONNX's names: ``views[name].view.to_onnx(codes)``."""
        return self._look.views

    def builder(
        self,
        inputs: Mapping[str, QTensor],
        semantics: str,
        rows: Sequence[Row],
        *,
        expected: Mapping[str, Array] | None = None,
    ) -> TraceBuilder:
        """Return a trace of the layers `rows` on the given inputs.

        expected : codes that another program computed, in ONNX's shapes, by ONNX's names of tensors
        """
        if not self.inputs:
            raise ModelError(f"{self.subject}: has no input")
        first = self.inputs[0]
        walk = Walk(
            self._graph,
            IMPORTERS,
            batches=inputs[first.name].shape[0] // first.shape[0],
            given=inputs,
            expected=expected or {},
            last=rows[-1].name if rows and len(rows) < len(self.rows) else None,
            host=HOST,
            description="; ".join((f"imported from {self._graph.path.name} ({self.kind}), semantics {semantics}",
                                   *self.notes)),
        )  # fmt: skip
        walk = self._walked(walk)
        # What is fine for one batch of the file may not be for several.
        wrong = [f"{row.name} ({row.op}): {row.problem}" for row in walk.rows if row.problem]
        if wrong:
            raise ModelError(problem_list(self.subject, wrong))
        return walk.builder

    def _walked(self, walk: Walk) -> Walk:
        """Walk, and name the network's outputs."""
        walk.run()
        for port in () if walk.stopped else self._graph.outputs:
            value = walk.values.get(port.name)
            if isinstance(value, Pending):
                walk.finish(port.name, value, leave)
                value = walk.values.get(port.name)
            sources = value.sources if isinstance(value, Host) else (value,) if isinstance(value, Codes) else ()
            for source in sources:
                walk.name_output(source)
        if not walk.stopped and not any(row.problem for row in walk.rows):
            for port in self._graph.inputs:
                if port.name not in walk.inputs:
                    walk.refuse_input(port, "no node quantizes it, so no layer can read it")
        return walk

    @property
    def constants(self) -> Mapping[str, Constant]:
        """Every constant: the file's, and what the importers compute of them, quantized ones with their meaning."""
        return {name: value for name, value in self._look.values.items() if isinstance(value, Constant)}

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the import is not exact, or not as the file has it."""
        return tuple(self._look.notes)


def read_onnx(path: str | os.PathLike[str]) -> OnnxModel:
    """Read an ONNX file.

    Raises ModelError for a damaged file, or where the ``onnx`` package is missing.
    """
    return OnnxModel(path)


def inspect_onnx(path: str | os.PathLike[str]) -> tuple[Row, ...]:
    """List the layers of an ONNX file, before anything runs."""
    return read_onnx(path).rows


def import_onnx(
    path: str | os.PathLike[str],
    inputs: ArrayLike | Mapping[str, ArrayLike],
    semantics: str = "onnxruntime",
    *,
    until: str | None = None,
    batch: int | None = None,
    labels: ArrayLike | None = None,
    expected: Mapping[str, ArrayLike] | None = None,
) -> Trace:
    """Return a quantized ONNX model, with data for its inputs, as a trace.

    inputs : an array, or a dict of arrays by input name, in ONNX's shapes (NCHW); the batch first, of any size
    semantics : "onnxruntime"
    until, batch, labels : see :func:`accelsim.importers.api.import_model`
    expected : codes that another program computed, in ONNX's shapes, by ONNX's names of tensors

    Raises ModelError: a damaged file, inputs that do not fit, operators that are not supported (all in one message).
    """
    model = read_onnx(path)
    if semantics not in model.semantics:
        raise ModelError(f"{model.subject}: semantics {semantics!r} is not for ONNX models; use onnxruntime")
    rows = rows_until(model, until)
    taken, count = take_inputs(model, inputs, batch)
    arrays = {name: np.asarray(array) for name, array in (expected or {}).items()}
    builder = model.builder(taken, semantics, rows, expected=arrays)
    if labels is not None:
        builder.labels(np.asarray(labels)[:count])
    return builder.build()
