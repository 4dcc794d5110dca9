"""What results depend on, as digests: files may change while their names stay, on this machine or a worker's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

DIGITS = 16
# What may change under a sweep; all else decides a row, so a new stage does until it is named here.
_DECIDES_NO_ROW = ("plots", "html", "sweeps", "search", "cli")


@lru_cache(maxsize=1)
def numerics_version() -> str:
    """Return 16 hex digits over the sources of everything that decides a result: an edit makes another version."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        inside = path.relative_to(package)
        decides = inside.parts[0] not in _DECIDES_NO_ROW or inside.as_posix() == "sweeps/worker.py"
        if path.suffix in (".py", ".yaml") and decides:
            digest.update(str(inside).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:DIGITS]


def text_digest(lines: Iterable[str]) -> str:
    """Return 16 hex digits over some lines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:DIGITS]


def network_digest(network: Any) -> str:
    """Return 16 hex digits over a float network: layers, weights, inputs, calibration inputs and labels."""
    digest = hashlib.sha256()

    def add(name: str, array: Any) -> None:
        if array is not None:
            values = np.ascontiguousarray(array)
            digest.update(f"\n{name} {values.dtype.str} {values.shape}\n".encode())
            digest.update(values.data)

    digest.update(json.dumps([network.name, network.description]).encode())
    for layer in network.layers:
        digest.update(layer.meta.model_dump_json().encode())
        add("weight", layer.weight)
        add("bias", layer.bias)
    add("inputs", network.inputs)
    if network.calibration is not network.inputs:
        add("calibration", network.calibration)
    add("labels", network.labels)
    return digest.hexdigest()[:DIGITS]
