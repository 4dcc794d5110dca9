"""Import a model: choose the importer, check what is asked, build the trace."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
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


def _read_tflite(path: str) -> Model:
    from accelsim.importers.tflite import read_tflite

    return read_tflite(path)


def _read_onnx(path: str) -> Model:
    from accelsim.importers.onnx_model import read_onnx

    return read_onnx(path)


READERS: dict[str, Callable[[str], Model]] = {".tflite": _read_tflite, ".onnx": _read_onnx}
"""The kinds of model files, by the ending of the name; each loads its importer when it is used."""


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

    >>> import tempfile, numpy, onnx
    >>> uint8 = onnx.TensorProto.UINT8
    >>> ends = [onnx.helper.make_tensor_value_info(name, uint8, ["n", size]) for name, size in (("x", 3), ("y", 2))]
    >>> scale, zero = numpy.float32(0.5), numpy.uint8(10)
    >>> arrays = {"s": scale, "z": zero, "w": numpy.array([[12, 8], [10, 11], [9, 10]], numpy.uint8)}
    >>> constants = [onnx.numpy_helper.from_array(numpy.asarray(array), name) for name, array in arrays.items()]
    >>> node = onnx.helper.make_node("QLinearMatMul", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"], name="fc")
    >>> graph = onnx.helper.make_graph([node], "tiny", ends[:1], ends[1:], constants)
    >>> model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     onnx.save(model, folder + "/tiny.onnx")
    ...     trace = import_model(folder + "/tiny.onnx", numpy.array([[14, 10, 12]], numpy.uint8))
    >>> import accelsim
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_reference.yaml"), trace)
    >>> report.layers[0].output_codes.tolist()  # 10 + (4 * 2 + 0 * 0 - 2 * 1) / 2, 10 + (-4 * 2 + 0 + 0) / 2
    [[13, 6]]
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
    model = _opened(source)
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

    >>> import numpy, flatbuffers
    >>> from ai_edge_litert import schema_py_generated as tflite  # to make a model: y = W x, W [2, 3]
    >>> tensors = {"x": [1, 3], "w": [2, 3], "y": [1, 2]}
    >>> model, graph, node, code = tflite.ModelT(), tflite.SubGraphT(), tflite.OperatorT(), tflite.OperatorCodeT()
    >>> graph.tensors, graph.operators = [tflite.TensorT() for _ in tensors], [node]
    >>> graph.inputs, graph.outputs = [0], [2]
    >>> for tensor, (tensor.name, tensor.shape) in zip(graph.tensors, tensors.items()):
    ...     tensor.type, tensor.buffer = tflite.TensorType.FLOAT32, int(tensor.name == "w")
    >>> code.builtinCode = code.deprecatedBuiltinCode = tflite.BuiltinOperator.FULLY_CONNECTED
    >>> node.inputs, node.outputs, node.builtinOptions = [0, 1, -1], [2], tflite.FullyConnectedOptionsT()
    >>> node.opcodeIndex, node.builtinOptionsType = 0, tflite.BuiltinOptions.FullyConnectedOptions
    >>> model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    >>> model.buffers = [tflite.BufferT(), tflite.BufferT()]
    >>> model.buffers[1].data = numpy.array([1, -1, 2, 0.5, 1, 0], numpy.float32).view(numpy.uint8)
    >>> builder = flatbuffers.Builder()
    >>> size_bytes = builder.Finish(model.Pack(builder), b"TFL3")
    >>> size_bytes = Path("tiny.tflite").write_bytes(builder.Output())
    >>> network = float_model("tiny.tflite", numpy.array([[1, 2, 3], [0, 1, 0]], numpy.float32))
    >>> network.shapes, network.layers[0].weight.tolist()
    ({'input': (2, 3), '0_fully_connected': (2, 2)}, [[1.0, -1.0, 2.0], [0.5, 1.0, 0.0]])
    >>> refitted(network, "*:mx6").build().tensor_meta("0_fully_connected.weight").format
    'mx6'
    """
    model = _opened(source)
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
    if ending in READERS:
        return READERS[ending](name)
    raise ModelError(
        f"{name}: {f'files that end in {ending}' if ending else 'a name without an ending'} cannot be imported; "
        f"importers read {', '.join(READERS)}"
    )


def _opened(source: str | os.PathLike[str] | Model) -> Model:
    if isinstance(source, str | os.PathLike):
        return open_model(source)
    if not hasattr(source, "semantics"):
        raise ModelError(f"path is {type(source).__name__}; pass the name of a {' or '.join(READERS)} file")
    return source


def _semantics(model: Model, asked: str | None) -> str:
    if asked is None:
        return model.semantics[0]
    if asked not in model.semantics:
        known = asked in SEMANTICS
        what = f"is not for {model.kind} models" if known else f"is unknown{did_you_mean(asked, SEMANTICS)}"
        raise ModelError(f"{model.subject}: semantics {asked!r} {what}; use {' or '.join(model.semantics)}")
    return asked
