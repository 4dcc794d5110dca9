"""Where a trace's arrays lie: in a `.npz` file that nobody trusts, or in memory.

A `.npz` is a zip of `.npy` entries. Opening one reads the zip directory and the first 4 KiB of each entry, where its
`.npy` header is; what the headers declare is checked against what the entry can hold before anything is allocated.
Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from accelsim.errors import TraceError
from accelsim.trace.problems import trace_error

META = "meta"


@dataclass(frozen=True)
class FileKind:
    """How messages call a kind of `.npz`, where it is documented, and an example of an entry's name."""

    name: str = "trace"
    manual: str = "docs/trace.md"
    entry: str = "tensors/<tensor>/codes.npy"


TRACE = FileKind()
SIZE_LIMIT_BYTES = 4 << 30
"""The largest array that is read unless the caller allows more."""

_PREFIX_BYTES = 1 << 12  # NumPy writes headers of 128 bytes; zipfile reads 4 KiB at once anyway
_CHUNK_BYTES = 1 << 20
_DEFLATE_LIMIT = 1040  # deflate cannot expand a byte into more than 1032
_BOMB_BYTES, _BOMB_RATIO = 64 << 20, 500  # above this size, codes of a real network never compress so well
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,  # UnicodeDecodeError, negative seeks
    NotImplementedError,
    RuntimeError,
    OverflowError,
    LookupError,
)


@dataclass(frozen=True)
class Header:
    """What a `.npy` header declares: the array's dtype and shape, its memory order, and where its body begins."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool = False
    body_offset: int = 0

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class ArraySource(Protocol):
    """Arrays by name, read one at a time."""

    @property
    def headers(self) -> Mapping[str, Header]:
        """Every array's header, `meta` included."""
        ...

    @property
    def digest(self) -> str:
        """16 hex digits over `meta` and every entry's name, size and checksum."""
        ...

    def read(self, name: str) -> NDArray[Any]:
        """Return one array; raise TraceError, naming the entry, where it is damaged."""
        ...


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return `array` as the bytes of a `.npy` file (C order, version 1.0; object dtypes are refused)."""
    stream = io.BytesIO()
    npy.write_array(stream, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def digest_entries(meta: bytes, entries: Mapping[str, tuple[int, int]]) -> str:
    """Return the digest of a trace: `entries` maps each array's name (`meta` excluded) to its .npy size and CRC-32."""
    digest = hashlib.sha256(meta)
    for name in sorted(entries):
        size, crc = entries[name]
        digest.update(f"\n{name} {size} {crc:08x}".encode())
    return digest.hexdigest()[:16]


class MemorySource:
    """Arrays in memory; equal in everything to the file that they would be saved to."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = dict(arrays)
        self.headers: Mapping[str, Header] = {
            name: Header(array.dtype, array.shape) for name, array in self._arrays.items()
        }

    @cached_property
    def digest(self) -> str:
        entries = {}
        for name in self._arrays.keys() - {META}:
            data = npy_bytes(self._arrays[name])
            entries[name] = (len(data), zlib.crc32(data))
        return digest_entries(self._arrays[META].tobytes(), entries)

    def read(self, name: str) -> NDArray[Any]:
        return self._arrays[name]


class ZipSource:
    """The arrays of a `.npz` file.

    The file stays open: what is read later belongs to the file that was checked, even if another has taken its name.
    """

    def __init__(self, path: Path, *, size_limit_bytes: int = SIZE_LIMIT_BYTES, kind: FileKind = TRACE) -> None:
        self._path = path
        self._limit = size_limit_bytes
        self._kind = kind
        self._zip = _open_zip(path, kind)
        try:
            self._entries = self._checked_directory()
            self.headers: Mapping[str, Header] = self._read_headers()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; reading an array afterwards is a TraceError."""
        self._zip.close()

    @cached_property
    def digest(self) -> str:
        entries = {name: (info.file_size, info.CRC) for name, info in self._entries.items() if name != META}
        return digest_entries(self.read(META).tobytes(), entries)

    def read(self, name: str) -> NDArray[Any]:
        header = self.headers[name]
        body = np.empty(header.size_bytes, np.uint8)
        try:
            with self._zip.open(self._entries[name]) as stream:
                stream.read(header.body_offset)
                done = 0
                while done < body.size:
                    chunk = stream.read(min(_CHUNK_BYTES, body.size - done))
                    if not chunk:
                        raise EOFError(f"{body.size - done} bytes are missing")
                    body[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
                    done += len(chunk)
        except _DAMAGE as error:
            raise TraceError(f"{self._path}: array {name!r} is damaged: {_reason(error)}") from error
        order = "F" if header.fortran_order else "C"
        return body.view(header.dtype).reshape(header.shape, order=order)  # type: ignore[call-overload,no-any-return]

    def _checked_directory(self) -> dict[str, zipfile.ZipInfo]:
        """Return the entries by array name; raise one TraceError with everything that is wrong in the directory."""
        entries: dict[str, zipfile.ZipInfo] = {}
        problems = []
        for info in self._zip.infolist():
            problem = self._entry_problem(info)
            name = info.filename.removesuffix(".npy")
            if problem is None and name in entries:
                problem = f"entry {info.filename!r} occurs twice"
            if problem is not None:
                problems.append(problem)
            entries[name] = info
        packed = sum(info.compress_size for info in entries.values())
        if packed > self._path.stat().st_size:
            problems.append(f"its entries claim {packed} packed bytes, more than the file holds: they overlap")
        if META not in entries and not problems:
            problems.append(
                f"entry 'meta.npy' is missing; this .npz is not an accelsim {self._kind.name} (see {self._kind.manual})"
            )
        if problems:
            raise trace_error(str(self._path), problems)
        return entries

    def _entry_problem(self, info: zipfile.ZipInfo) -> str | None:
        """Return what makes a zip entry unacceptable before its bytes are looked at, or None."""
        what = f"entry {info.orig_filename!r}"
        if ".." in info.filename.split("/") or info.filename.startswith("/") or "\\" in info.orig_filename:
            return f"{what}: the name leaves the archive's folder; entries are named like {self._kind.entry!r}"
        if not info.filename.endswith(".npy"):
            return f"{what} is not a .npy array"
        if info.flag_bits & 0x41:
            return f"{what} is encrypted; a {self._kind.name} holds plain arrays"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"{what} has zip compression method {info.compress_type}; use 0 (stored) or 8 (deflate)"
        ratio = info.file_size / max(info.compress_size, 1)
        if ratio > _DEFLATE_LIMIT or (info.file_size > _BOMB_BYTES and ratio > _BOMB_RATIO):
            return f"{what} unpacks {info.compress_size} bytes to {info.file_size} ({ratio:.0f} times): a zip bomb?"
        return None

    def _read_headers(self) -> dict[str, Header]:
        headers, problems = {}, []
        for name, info in self._entries.items():
            try:
                with self._zip.open(info) as stream:
                    prefix = stream.read(min(_PREFIX_BYTES, info.file_size))
                headers[name] = _parse_header(prefix, info.file_size, self._limit, self._kind)
            except TraceError as error:
                problems.append(f"array {name!r} {error}")
            except _DAMAGE as error:
                problems.append(f"array {name!r} is damaged: {_reason(error)}")
        if problems:
            raise trace_error(str(self._path), problems)
        return headers


def _open_zip(path: Path, kind: FileKind) -> zipfile.ZipFile:
    """Open the zip directory, or say what the file is instead."""
    try:
        if path.is_dir():
            raise TraceError(f"{path}: is a folder; a {kind.name} is one .npz file")
        if path.exists() and not path.is_file():
            raise TraceError(f"{path}: is not a regular file; a {kind.name} is one .npz file")
        with path.open("rb") as file:
            start = file.read(8)
        if not start:
            raise TraceError(f"{path}: is empty (0 bytes)")
        if start.startswith(b"\x93NUMPY"):
            raise TraceError(f"{path}: is a single .npy array; a {kind.name} is a .npz of many (see {kind.manual})")
        if not zipfile.is_zipfile(path):
            if start.startswith(b"PK"):
                raise TraceError(f"{path}: is truncated: the zip directory, which ends the file, is missing")
            raise TraceError(f"{path}: is not a .npz (zip) file; it begins with {start!r}")
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    except PermissionError:
        raise TraceError(f"{path}: may not be read (permission denied)") from None
    except _DAMAGE as error:
        raise TraceError(f"{path}: the zip directory is damaged: {_reason(error)}") from error


def _parse_header(prefix: bytes, entry_bytes: int, limit_bytes: int, kind: FileKind) -> Header:
    """Return the header in the first bytes of a `.npy` entry; raise TraceError with what is wrong with it."""
    stream = io.BytesIO(prefix)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns where it mends headers written by Python 2
            version = npy.read_magic(stream)
            if version not in ((1, 0), (2, 0)):
                raise TraceError(f"has .npy version {version[0]}.{version[1]}; use 1.0 or 2.0")
            parse = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran_order, dtype = parse(stream)
    except (*_DAMAGE, SyntaxError, TypeError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise TraceError(f"has a malformed .npy header: {_reason(error)}") from error
    if dtype.hasobject:
        raise TraceError("has object dtype (pickled Python objects), which is never loaded; store plain numbers")
    if dtype.kind not in "iuf":
        raise TraceError(f"has dtype {dtype}; a {kind.name} holds integers and floats")
    if any(isinstance(size, bool) or size < 0 for size in shape):
        raise TraceError(f"has a malformed .npy header: shape {shape}")
    header = Header(dtype, tuple(shape), fortran_order, stream.tell())
    held = entry_bytes - header.body_offset
    if header.size_bytes > limit_bytes:
        raise TraceError(
            f"declares shape {header.shape} of {dtype}: {header.size_bytes} bytes, more than the limit of "
            f"{limit_bytes} bytes an array"
        )
    if header.size_bytes != held:
        raise TraceError(
            f"declares shape {header.shape} of {dtype}: {header.size_bytes} bytes, but its entry holds {held}"
        )
    return header


def _reason(error: BaseException) -> str:
    """Return an exception's text on one line, never empty."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."
