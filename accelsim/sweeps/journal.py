"""The results so far, on disk: one line a point, written through to the disk before the next one counts.

A sweep that is killed has lost nothing that is in it; a line that was being written is left out when it is read back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from accelsim.errors import SweepError

SCHEMA, VERSION = "accelsim-sweep-journal", 1


class Journal:
    """Results by key, kept in a file beside the table until the sweep is complete.

    path : of the journal; spec_digest : of the sweep that it belongs to; numerics : accelsim.sweeps.points
    """

    def __init__(self, path: Path, spec_digest: str, numerics: str) -> None:
        self.path = path
        self.results: dict[str, Mapping[str, Any]] = {}
        self._head = {"schema": SCHEMA, "version": VERSION, "spec": spec_digest, "numerics": numerics}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        """Read what is there. Raises SweepError where it is another sweep's, or cannot be written."""
        try:
            whole = self._read() if self.path.exists() else 0
            self._file = self.path.open("r+b" if self.path.exists() else "xb")
            self._file.truncate(whole)  # a line that was cut off
            self._file.seek(whole)
            if not whole:
                self._write(self._head)
        except OSError as error:
            raise SweepError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a result; when this returns it is on the disk. A key that is there already stays as it is."""
        if key in self.results:
            return
        self.results[key] = result
        self._write({"key": key, **result})

    def remove(self) -> None:
        """Delete the file: the table holds everything now."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self.path.unlink(missing_ok=True)

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> int:
        """Read every whole line, and return where the last one ends."""
        end = 0
        data = self.path.read_bytes()
        for number, line in enumerate(data.splitlines(keepends=True)):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
            except ValueError:
                raise SweepError(f"{self.path}: line {number + 1} is damaged; delete the file to begin anew") from None
            if number == 0:
                self._check_head(entry)
            else:
                self.results[entry.pop("key")] = entry
            end += len(line)
        return end

    def _check_head(self, head: Any) -> None:
        if not isinstance(head, dict) or head.get("schema") != SCHEMA or head.get("version") != VERSION:
            raise SweepError(f"{self.path}: this is not a sweep's journal; name another results file")
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
