"""What a table of costs or a search is about, from whatever file a user names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.errors import SearchError
from accelsim.estimation import float_network, is_float_network, network_shapes
from accelsim.memory.needs import NetworkShapes
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.requantizer import Requantizer
from accelsim.simulation import simulate
from accelsim.trace.reader import Trace
from accelsim.trace.schema import VectorMeta
from accelsim.trace.shapes import weight_name

if TYPE_CHECKING:
    from accelsim.importers.graph import Model

EVERY_WIDTH = "int8"
Activations = Mapping[str, NDArray[np.floating]]
Floats = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network for which widths are to be chosen.

    shapes : of one inference, if the file says what an inference is (a table of shapes does not)
    values : the trace that holds weights, and perhaps activations; None where there are shapes alone
    activations : by tensor, real values that were measured; None: those that `values` has
    floats : by tensor, a float network's own weights and inputs, of which `values` has codes alone
    """

    shapes: NetworkShapes
    values: Trace | None = None
    activations: Activations | None = None
    floats: Floats | None = None


def open_subject(
    path: str | Path, inputs: str | None = None, *, config: HardwareConfig | None = None, batch: int = 16
) -> Subject:
    """Return the network of a file: a trace or a float network (``.npz``), a model (``.tflite``, ``.onnx``), or a table
    of shapes (``.csv``).

    inputs : a model's data, ``FILE.npz[:ARRAY]``, on which its activations are measured: those of a quantized model are
        what `config` computes, in the file's own codes; those of a float model are its own
    batch : so many of these inputs, the first ones

    A float network, or model, becomes its int8 trace. Raises AccelsimError for a damaged or unknown file, SearchError
    for inputs of something that is no model, and what a run raises.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if inputs is not None and suffix in (".csv", ".npz"):
        holds = "a table of shapes has no values" if suffix == ".csv" else "what is in an .npz brings its own"
        raise SearchError(f"{file}: inputs {inputs!r} are for models (.tflite, .onnx); {holds}")
    if suffix == ".csv":
        return Subject(network_shapes(file))
    if suffix == ".npz":
        if is_float_network(file):
            return _of_floats(float_network(file))
        trace = _load(file)
        return Subject(NetworkShapes.of(trace.head(1)), trace)
    from accelsim.importers.api import model_builder, open_model

    model = open_model(file)
    if model.other_formats:
        data = None if inputs is None else _data(model, inputs, batch)
        return _of_floats(float_network(model, data), has_data=inputs is not None)
    zeros = {each.name: np.zeros((1, *each.shape[1:]), np.float32) for each in model.inputs}
    once = model_builder(model, zeros).build()
    if inputs is None or config is None:
        return Subject(NetworkShapes.of(once), once)
    trace = model_builder(model, _data(model, inputs, batch)).build()
    return Subject(NetworkShapes.of(once), once, _measured(trace, config))


def _of_floats(network: FloatNetwork, *, has_data: bool = True) -> Subject:
    """Return a float network as its trace in one width, and beside it the real values that the trace encodes."""
    trace = Requantizer(network).trace({layer.name: (EVERY_WIDTH, EVERY_WIDTH) for layer in network.array_layers})
    weights = {layer.name: layer.weight for layer in network.array_layers}
    floats = {
        weight_name(layer): weight
        for layer in trace.layers
        if not isinstance(layer, VectorMeta) and (weight := weights.get(layer.name)) is not None
    }
    if has_data:
        floats |= dict.fromkeys(trace.inputs, network.inputs)
    return Subject(NetworkShapes.of(trace.head(1)), trace, None if has_data else {}, floats)


def _data(model: Model, inputs: str, batch: int) -> dict[str, NDArray[np.generic]]:
    from accelsim.importers.data import read_data

    return {name: array[:batch] for name, array in read_data(inputs, model.inputs)[0].items()}


def _measured(trace: Trace, config: HardwareConfig) -> Activations:
    """Return the real values of what layers that multiply take, from a bit-accurate run."""
    wanted = {layer.input for layer in trace.layers if not isinstance(layer, VectorMeta)}
    found: dict[str, NDArray[np.floating]] = {
        name: trace.tensor(name).dequantize() for name in trace.inputs if name in wanted
    }
    report = simulate(config, trace, watch=False, keep_outputs="all")
    for layer, result in zip(trace.layers, report.layers, strict=True):
        if layer.output in wanted and result.output_codes is not None:
            found[layer.output] = trace.output_tensor(layer, result.output_codes).dequantize()
    return found


def _load(file: Path) -> Trace:
    from accelsim.trace.reader import load_trace

    return load_trace(file)
