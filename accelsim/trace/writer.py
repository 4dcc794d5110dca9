"""Writing a trace: whole or not at all, and always the same bytes for the same content."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import TraceError
from accelsim.trace import metadata
from accelsim.trace.archive import META, TRACE, FileKind, npy_bytes
from accelsim.trace.problems import file_path
from accelsim.trace.schema import TraceMeta

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can say
_FILE_MODE = 0o644


def meta_array(meta: TraceMeta) -> NDArray[np.uint8]:
    """Return the metadata as the trace stores it: UTF-8 JSON in a row of bytes."""
    return np.frombuffer(metadata.encode(meta), np.uint8)


def save(path: str | os.PathLike[str], meta: TraceMeta, arrays: Mapping[str, NDArray[Any]]) -> Path:
    """Write a trace and return its path. The file appears whole, under its name, or not at all.

    arrays : every array by its name in the schema, without `meta`; they are written as they are. Nothing is checked:
        that is TraceBuilder's part, and load_trace's

    Raises TraceError where the name does not end in .npz, or the folder is missing or may not be written to.
    """
    return save_arrays(path, {**arrays, META: meta_array(meta)})


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], kind: FileKind = TRACE) -> Path:
    """Write named arrays as a `.npz` and return its path; :func:`save` says how, and what it raises."""
    file = file_path(path)
    if not file.parent.is_dir():
        raise TraceError(f"{file}: the folder {str(file.parent)!r} does not exist; create it first")
    if file.is_dir():
        raise TraceError(f"{file}: is a folder; name a .npz file in it")
    if file.suffix.lower() != ".npz":
        raise TraceError(f"{file}: names of {kind.name}s end in .npz")
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{file.name[:100]}.", suffix=".tmp", dir=file.parent)
    except OSError as error:
        raise TraceError(f"{file}: cannot write in {str(file.parent)!r}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            _write_zip(stream, arrays)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(_FILE_MODE)  # mkstemp's are private
        Path(temporary).replace(file)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise TraceError(f"{file}: cannot be written: {error.strerror}") from error
        raise
    return file


def _write_zip(stream: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # the same bytes on every system
            info.external_attr = _FILE_MODE << 16
            archive.writestr(info, npy_bytes(arrays[name]))
