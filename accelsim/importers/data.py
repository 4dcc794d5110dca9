"""The user's data: arrays of an ``.npz`` file, matched with the inputs of a model."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import ModelError, did_you_mean
from accelsim.importers.graph import ModelInput

LABELS = "labels"
Arrays = dict[str, NDArray[Any]]


def read_data(place: str, inputs: tuple[ModelInput, ...]) -> tuple[Arrays, NDArray[Any] | None]:
    """Return the arrays for a model's inputs, by input name, and the labels if the file has any.

    place : ``FILE.npz``, whose arrays are named as the inputs, or, for a model of one input, whose only array beside
        ``labels`` is taken; ``FILE.npz:ARRAY`` names that array

    Raises ModelError for a damaged file, or one where it is not clear which array is meant. OSError goes through.
    """
    file, _, chosen = place.rpartition(":") if ".npz:" in place else (place, "", "")
    try:
        with np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ModelError(f"{file}: is a single array; save it with np.savez, by the name of the input")
            return _taken(file, archive, inputs, chosen), archive.get(LABELS)
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{file}: is no .npz file of plain arrays, or is damaged: {error}") from None


def _taken(file: str, archive: Mapping[str, NDArray[Any]], inputs: tuple[ModelInput, ...], chosen: str) -> Arrays:
    names = [each.name for each in inputs]
    arrays = [name for name in archive if name != LABELS]
    if chosen:
        if len(names) != 1:
            raise ModelError(f"{file}:{chosen}: one array is named, but the model has {len(names)} inputs")
        if chosen not in archive:
            raise ModelError(f"{file}: has no array {chosen!r}{did_you_mean(chosen, arrays)}; it has {_list(arrays)}")
        return {names[0]: archive[chosen]}
    if all(name in archive for name in names):
        return {name: archive[name] for name in names}
    if len(names) == 1 and len(arrays) == 1:
        return {names[0]: archive[arrays[0]]}
    if len(names) == 1:
        way = f"name one, {file}:ARRAY, of {_list(arrays)}"
        raise ModelError(f"{file}: none of its arrays is named {names[0]!r}, as the model's input; {way}")
    missing = [name for name in names if name not in archive]
    raise ModelError(f"{file}: has no array for input {_list(missing)}; the model's inputs are {_list(names)}")


def _list(names: list[str]) -> str:
    return ", ".join(map(repr, names))
