"""The `.npz` of a float network (docs/quantize.md): one JSON entry, `meta`, and plain float arrays, never pickled::

input                                     floats [batch, ...]
calibration                               floats [any number, ...], optional
labels                                    integers [batch], optional
layers/<layer>/weight, layers/<layer>/bias    floats
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import NetworkError, TraceError, did_you_mean, problem_list
from accelsim.quantize.layers import KINDS, LayerMeta, NetworkMeta
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.trace.archive import META, FileKind, ZipSource
from accelsim.trace.metadata import MetaError, checked
from accelsim.trace.problems import file_path
from accelsim.trace.writer import save_arrays

SCHEMA, VERSION = "accelsim-float-network", 1
_KIND = FileKind("float network", "docs/quantize.md", "layers/<layer>/weight.npy")
_INPUT, _CALIBRATION, _LABELS = "input", "calibration", "labels"


def save_network(path: str | os.PathLike[str], network: FloatNetwork) -> Path:
    """Write a float network and return its path. The file appears whole, under its name, or not at all; equal networks
    give equal bytes.

    Raises NetworkError where the name does not end in .npz, or the folder is missing or may not be written to.

    >>> from accelsim.quantize.network_file import load_network
    >>> network = load_network("traces/digits_cnn_float.npz")
    >>> path = save_network("few.npz", network.head(10))
    >>> load_network(path).inputs.shape
    (10, 8, 8, 1)
    """
    meta = {
        "schema": SCHEMA,
        "version": VERSION,
        "name": network.name,
        "description": network.description,
        "layers": [layer.meta.model_dump(mode="json") for layer in network.layers],
    }
    text = json.dumps(meta, ensure_ascii=False, separators=(",", ":"))
    arrays: dict[str, NDArray[Any]] = {META: np.frombuffer(text.encode(), np.uint8), _INPUT: network.inputs}
    if network.calibration is not network.inputs:
        arrays[_CALIBRATION] = network.calibration
    if network.labels is not None:
        arrays[_LABELS] = network.labels
    for layer in network.layers:
        for part, array in (("weight", layer.weight), ("bias", layer.bias)):
            if array is not None:
                arrays[f"layers/{layer.name}/{part}"] = array
    try:
        return save_arrays(path, arrays, _KIND)
    except TraceError as error:
        raise NetworkError(str(error)) from None


def load_network(path: str | os.PathLike[str]) -> FloatNetwork:
    """Read a float network, all of it.

    Raises NetworkError, one clear message, where the file is missing, damaged, truncated, pickled or no float network,
    or where anything in it is wrong.

    >>> network = load_network("traces/digits_cnn_float.npz")
    >>> [(layer.name, layer.weight.shape) for layer in network.layers]
    [('conv1', (16, 3, 3, 1)), ('conv2', (32, 3, 3, 16)), ('fc1', (64, 512)), ('fc2', (10, 64))]
    """
    try:
        file = file_path(path)
        source = ZipSource(file, kind=_KIND)
        try:
            arrays = {name: source.read(name) for name in source.headers}
        finally:
            source.close()
    except TraceError as error:
        raise NetworkError(str(error)) from None
    meta, layers = _decode(file, arrays.pop(META).tobytes())
    wanted = {
        _INPUT,
        _CALIBRATION,
        _LABELS,
        *(f"layers/{layer.name}/{part}" for layer in layers for part in ("weight", "bias")),
    }
    problems = [f"array {name!r} is unknown{did_you_mean(name, wanted)}" for name in sorted(arrays.keys() - wanted)]
    if _INPUT not in arrays:
        problems.append(f"array {_INPUT!r} is missing: the batch of inputs")
    if problems:
        raise NetworkError(problem_list(str(file), problems))
    try:
        return FloatNetwork(
            meta.name,
            arrays[_INPUT],
            [_layer(layer, arrays) for layer in layers],
            calibration=arrays.get(_CALIBRATION),
            labels=arrays.get(_LABELS),
            description=meta.description,
        )
    except NetworkError as error:
        raise NetworkError(f"{file}: {error}") from None


def _layer(meta: LayerMeta, arrays: Mapping[str, NDArray[Any]]) -> FloatLayer:
    return FloatLayer(meta, arrays.get(f"layers/{meta.name}/weight"), arrays.get(f"layers/{meta.name}/bias"))


def _decode(file: Path, data: bytes) -> tuple[NetworkMeta, list[LayerMeta]]:
    """Return the metadata and its layers; raise NetworkError with everything that is wrong with it."""
    try:
        root = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise NetworkError(f"{file}: meta: is not UTF-8 JSON: {error}") from None
    schema = root.get("schema") if isinstance(root, dict) else None
    if schema != SCHEMA:
        raise NetworkError(
            f"{file}: meta: schema is {schema!r}, but must be {SCHEMA!r}: this is not a float network (see "
            f"docs/quantize.md)"
        )
    if root.get("version") != VERSION:
        raise NetworkError(f"{file}: meta: version is {root.get('version')!r}; this accelsim reads {VERSION}")
    try:
        meta = checked(lambda: NetworkMeta.model_validate(root), "meta", NetworkMeta)
    except MetaError as error:
        raise NetworkError(problem_list(str(file), error.problems)) from None
    layers: list[LayerMeta] = []
    problems: list[str] = []
    for index, fields in enumerate(meta.layers):
        where, op = f"meta: layers[{index}]", fields.get("op")
        kind = KINDS.get(op) if isinstance(op, str) else None
        if kind is None:
            problems.append(f"{where}: op is {op!r}, not one of {', '.join(KINDS)}{did_you_mean(str(op), KINDS)}")
            continue
        try:
            layers.append(_checked_layer(kind, fields, where))
        except MetaError as error:
            problems += error.problems
    if problems:
        raise NetworkError(problem_list(str(file), problems))
    return meta, layers


def _checked_layer(kind: type[LayerMeta], fields: dict[str, object], where: str) -> LayerMeta:
    text = json.dumps(fields)  # strict JSON: lists for tuples, and no number for a text
    return checked(lambda: kind.model_validate_json(text, strict=True), where, kind)
