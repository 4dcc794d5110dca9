"""The results so far, on disk: one line a point, written through to the disk before the next one counts.

A sweep that is killed has lost nothing that is in it; a line that was being written is left out when it is read back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import IO, Any

from accelsim.errors import SweepError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: two sweeps to one file are not kept apart
    fcntl = None

SCHEMA, VERSION = "accelsim-sweep-journal", 1


class Journal:
    """Results by key, kept in a file beside the table until the sweep is complete.

    While it is open, no other sweep can open it; the system ends that when this process ends, however it does.

    path : of the journal; spec_digest : of the sweep that it belongs to; numerics : accelsim.sweeps.digests
    """

    def __init__(self, path: Path, spec_digest: str, numerics: str) -> None:
        self.path = path
        self.results: dict[str, Mapping[str, Any]] = {}
        self._head = {"schema": SCHEMA, "version": VERSION, "spec": spec_digest, "numerics": numerics}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        """Read what is there. Raises SweepError where it is another sweep's, one writes it now, or nobody can."""
        try:
            self._file = self._locked()
            whole = self._read(self._file)
            self._file.truncate(whole)  # a line that was cut off
            self._file.seek(whole)
            if not whole:
                self._write(self._head)
        except OSError as error:
            self._close()
            raise SweepError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def is_ours(self) -> bool:
        """Return whether the file is there and begins as this sweep's does."""
        try:
            with self.path.open("rb") as file:
                return file.readline() == _line(self._head)
        except OSError:
            return False

    def add(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a result; when this returns it is on the disk. A key that is there already stays as it is.

        What may succeed at another attempt (`again`) is not written: it is computed again when the sweep goes on.
        """
        if key in self.results:
            return
        self.results[key] = result
        if not result.get("again"):
            self._write({"key": key, **result})

    def remove(self) -> None:
        """Delete the file: the table holds everything now."""
        if os.name == "nt":  # an open file cannot be deleted
            self._close()
        self.path.unlink(missing_ok=True)  # before others may lock it
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _locked(self) -> IO[bytes]:
        """Open the file, or a new one, for this sweep alone."""
        while True:
            file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")
            try:
                if fcntl is not None:
                    _lock(file)
                if fcntl is None or os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    return file
            except BlockingIOError:
                file.close()
                raise SweepError(
                    f"{self.path}: another sweep writes here now; wait until it ends, or name another results file"
                ) from None
            except FileNotFoundError:  # the sweep that held it has ended and deleted it
                pass
            except BaseException:
                file.close()
                raise
            file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(_line(line))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, file: IO[bytes]) -> int:
        """Read every whole line, and return where the last one ends."""
        end = 0
        lines = file.read().splitlines(keepends=True)
        if lines and not lines[0].endswith(b"\n") and not _line(self._head).startswith(lines[0]):
            raise self._foreign()
        for number, line in enumerate(lines):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if number == 0:
                self._check_head(entry)
            elif isinstance(entry, dict) and isinstance(entry.get("key"), str) and {"rows", "error"} <= entry.keys():
                self.results[entry.pop("key")] = entry
            else:
                raise SweepError(f"{self.path}: line {number + 1} is damaged; delete the file to begin anew")
            end += len(line)
        return end

    def _foreign(self) -> SweepError:
        return SweepError(f"{self.path}: this is not a sweep's journal; name another results file")

    def _check_head(self, head: Any) -> None:
        if not isinstance(head, dict) or head.get("schema") != SCHEMA or head.get("version") != VERSION:
            raise self._foreign()
        if head.get("spec") != self._head["spec"]:
            raise SweepError(
                f"{self.path}: these are results of another sweep (specification {head.get('spec')}, this one is "
                f"{self._head['spec']}); name another results file, or delete it"
            )
        if head.get("numerics") != self._head["numerics"]:
            raise SweepError(
                f"{self.path}: these results are of another version of accelsim's arithmetic; delete the file to "
                f"compute them anew, or name another results file"
            )


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _lock(file: IO[bytes]) -> None:
    """Lock a file, as far as its file system can. Raises BlockingIOError where another one holds it."""
    assert fcntl is not None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # some network file systems have no locks
        return
