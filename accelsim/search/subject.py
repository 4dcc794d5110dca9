"""What a table of costs or a search is about, from whatever file a user names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accelsim.estimation import network_shapes
from accelsim.memory.needs import NetworkShapes
from accelsim.trace.reader import Trace


@dataclass(frozen=True, eq=False)
class Subject:
    """A network for which widths are to be chosen.

    shapes : of one inference, if the file says what an inference is (a table of shapes does not)
    values : the trace that holds weights, and perhaps activations; None where there are shapes alone
    """

    shapes: NetworkShapes
    values: Trace | None = None


def open_subject(path: str | Path) -> Subject:
    """Return the network of a file: a trace or a float network (``.npz``), a model (``.tflite``, ``.onnx``), or a table
    of shapes (``.csv``).

    A float network becomes its int8 trace. Raises AccelsimError for a damaged or unknown file.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == ".csv":
        return Subject(network_shapes(file))
    if suffix == ".npz":
        trace = _float_trace(file) if _is_float_network(file) else _load(file)
        return Subject(NetworkShapes.of(trace.head(1)), trace)
    from accelsim.importers.api import model_builder, open_model

    model = open_model(file)
    zeros = {each.name: np.zeros((1, *each.shape[1:]), np.float32) for each in model.inputs}
    trace = model_builder(model, zeros).build()
    return Subject(NetworkShapes.of(trace), trace)


def _load(file: Path) -> Trace:
    from accelsim.trace.reader import load_trace

    return load_trace(file)


def _is_float_network(file: Path) -> bool:
    """Return whether an archive has a network's calibration or float input; a damaged one is the trace reader's."""
    import zipfile

    try:
        with zipfile.ZipFile(file) as archive:
            return "input.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _float_trace(file: Path) -> Trace:
    from accelsim.quantize.network_file import load_network
    from accelsim.quantize.requantizer import Requantizer

    network = load_network(file)
    return Requantizer(network).trace({layer.name: ("int8", "int8") for layer in network.array_layers})
