"""Import a model: choose the importer, check what is asked, build the trace."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from accelsim.errors import ModelError, did_you_mean
from accelsim.importers.graph import SEMANTICS, Model, rows_until, take_inputs
from accelsim.quantize.assignment import read_assignment
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.requantizer import Requantizer
from accelsim.trace.builder import TraceBuilder
from accelsim.trace.reader import Trace

ENDINGS = (".tflite", ".onnx")


def import_model(
    path: str | os.PathLike[str],
    inputs: ArrayLike | Mapping[str, ArrayLike],
    semantics: str | None = None,
    *,
    until: str | None = None,
    batch: int | None = None,
    labels: ArrayLike | None = None,
    formats: str | None = None,
    ranges: str = "mse",
    output: str = "int8",
) -> Trace:
    """Return a model, with data for its inputs, as a trace: a quantized one as it is, or any in other number formats.

    path : a ``.tflite`` or ``.onnx`` file
    inputs : an array, or a dict of arrays by input name; the batch first, of any size. Floats are quantized as the
        model says; integers are taken as codes
    semantics : whose arithmetic, where the file leaves it open: "tflite-reference", "tflite-micro", "onnxruntime".
        Default: the one that the file was made for
    until : the last layer to import, by the name that ``accelsim inspect`` gives it
    batch : take only the first inputs
    labels : the class of each input
    formats : number formats of the layers, ``"conv1:int8, *:mx6"`` (docs/import.md, Other number formats); the inputs
        calibrate. Of a quantized model, the float network that its weights stand for is quantized anew
    ranges : with `formats`, how scales are chosen: "minmax", "mse", "percentile" or "percentile:P"
    output : with `formats`, the format of the network's outputs

    Raises ModelError: a damaged file, inputs that do not fit, operators that are not supported (all in one message);
    NetworkError: formats that are unknown, or that do not fit the layers.
    """
    if formats is not None:
        if semantics is not None:
            raise ModelError("semantics are those of a quantized file; with formats= there are none: leave one out")
        network = float_model(path, inputs, until=until, batch=batch, labels=labels)
        return refitted(network, formats, ranges=ranges, output=output).build()
    return model_builder(path, inputs, semantics, until=until, batch=batch, labels=labels).build()


def model_builder(
    source: str | os.PathLike[str] | Model,
    inputs: ArrayLike | Mapping[str, ArrayLike],
    semantics: str | None = None,
    *,
    until: str | None = None,
    batch: int | None = None,
    labels: ArrayLike | None = None,
) -> TraceBuilder:
    """Return the builder of :func:`import_model`'s trace, which can write it too; `source` may be an opened model."""
    model = open_model(source) if isinstance(source, str | os.PathLike) else source
    chosen = _semantics(model, semantics)
    rows = rows_until(model, until)
    if batch is not None and batch < 1:
        raise ModelError(f"batch={batch}: take at least one input")
    taken, count = take_inputs(model, inputs, batch)
    builder = model.builder(taken, chosen, rows)
    if labels is not None:
        builder.labels(np.asarray(labels)[:count])
    return builder


def float_model(
    source: str | os.PathLike[str] | Model,
    inputs: ArrayLike | Mapping[str, ArrayLike],
    *,
    until: str | None = None,
    batch: int | None = None,
    labels: ArrayLike | None = None,
) -> FloatNetwork:
    """Return a model as a float network: what can be given other number formats, by ``Requantizer(network)``
    (accelsim.quantize.requantizer) for many of them.

    Arguments as of :func:`import_model`. Float models are taken as they are; integer weights are dequantized.

    Raises ModelError: as import_model, and for a kind of file of which there is no float network.
    """
    model = open_model(source) if isinstance(source, str | os.PathLike) else source
    if isinstance(inputs, Mapping):
        names = [each.name for each in model.inputs]
        if list(inputs) != names or len(names) != 1:
            raise ModelError(f"{model.subject}: inputs are {', '.join(map(repr, inputs))}; it takes {', '.join(names)}")
        inputs = inputs[names[0]]
    if batch is not None and batch < 1:
        raise ModelError(f"batch={batch}: take at least one input")
    from accelsim.importers.tflite import TfliteModel
    from accelsim.importers.tflite_float import float_network

    if not isinstance(model, TfliteModel):
        raise ModelError(
            f"{model.subject}: other number formats are chosen for TFLite models, float or quantized; of {model.kind} "
            f"files the quantized ones are imported as they are"
        )
    return float_network(model.graph, inputs, labels=labels, batch=batch, until=until)


def refitted(network: FloatNetwork, formats: str, *, ranges: str = "mse", output: str = "int8") -> TraceBuilder:
    """Return the builder of a float network's trace in the formats that a text names."""
    assignment = read_assignment(formats, network)
    requantizer = Requantizer(network, ranges=ranges)
    text = f"{network.description}: {formats}; ranges {ranges}"
    return requantizer.builder(assignment, output=output, description=text)


def open_model(path: str | os.PathLike[str]) -> Model:
    """Read a model file, and everything in it that can be understood without data.

    Raises ModelError for a damaged file, an unknown kind of file, or a missing library.
    """
    name = os.fspath(path)
    ending = Path(name).suffix.lower()
    if ending == ".tflite":
        from accelsim.importers.tflite import read_tflite

        return read_tflite(name)
    if ending == ".onnx":
        from accelsim.importers.onnx_model import read_onnx

        return read_onnx(name)
    raise ModelError(
        f"{name}: {f'files that end in {ending}' if ending else 'a name without an ending'} cannot be imported; "
        f"importers read {', '.join(ENDINGS)}"
    )


def _semantics(model: Model, asked: str | None) -> str:
    if asked is None:
        return model.semantics[0]
    if asked not in model.semantics:
        known = asked in SEMANTICS
        what = f"is not for {model.kind} models" if known else f"is unknown{did_you_mean(asked, SEMANTICS)}"
        raise ModelError(f"{model.subject}: semantics {asked!r} {what}; use {' or '.join(model.semantics)}")
    return asked
