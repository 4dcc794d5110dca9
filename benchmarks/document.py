"""The JSON of a run: written, read, and compared with an earlier one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.result import Row

FORMAT = 2


class DocumentError(Exception):
    """A file that is no result of a run; the message says why."""


def to_document(rows: Sequence[Row], about: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a run; `about` has machine, versions, git, repeats and quick."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"format": FORMAT, "created": created, **about, "rows": [row.to_json() for row in rows]}


def write(path: Path, document: dict[str, Any]) -> None:
    """Write the document; DocumentError where the file cannot be written."""
    try:
        path.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}; use a file in a folder that exists") from None


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Return a document and its rows. DocumentError: the file is missing, no JSON, or no result of a run."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}; use a file that --json wrote") from None
    except ValueError as error:
        raise DocumentError(f"{path}: not JSON ({error}); use a file that --json wrote") from None
    if not isinstance(document, dict) or "rows" not in document:
        raise DocumentError(f"{path}: JSON, but no result of a run (no 'rows'); use a file that --json wrote")
    if document.get("format") != FORMAT:
        raise DocumentError(f"{path}: format {document.get('format')!r}; this program reads format {FORMAT}")
    try:
        return document, [Row.from_json(row) for row in document["rows"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise DocumentError(f"{path}: a row is damaged ({error}); use a file that --json wrote") from None


@dataclass(frozen=True)
class Change:
    """A row now and earlier.

    factor : how much less it takes now (seconds or bytes, per unit of work): above 1 is better; None: one is missing
    beyond_spread : the ranges of the repeats do not touch
    """

    key: str
    factor: float | None
    beyond_spread: bool
    remark: str


def compare(earlier: Sequence[Row], now: Sequence[Row]) -> list[Change]:
    """Return what changed, in the order of `now`; rows that only one run has are named, not dropped."""
    old = {row.key: row for row in earlier}
    changes = []
    for row in now:
        before = old.pop(row.key, None)
        if before is None:
            changes.append(Change(row.key, None, False, "not in the earlier run"))
        elif row.value is None or before.value is None:
            which = "now" if row.value is None else "in the earlier run"
            changes.append(Change(row.key, None, False, f"not measured {which}"))
        else:
            changes.append(_change(before, row))
    changes += [Change(key, None, False, "only in the earlier run") for key in old]
    return changes


def _per_work(row: Row) -> tuple[float, float, float]:
    """Return (median, smallest, largest) value per unit of work."""
    value, work = row.value or 0.0, row.work or 1.0
    low = value if row.low is None else row.low
    high = value if row.high is None else row.high
    return value / work, low / work, high / work


def _change(before: Row, row: Row) -> Change:
    (old, old_low, old_high), (new, new_low, new_high) = _per_work(before), _per_work(row)
    if new <= 0:
        return Change(row.key, None, False, "nothing to compare: zero")
    remark = ""
    if before.met is not None and row.met is not None and before.met != row.met:
        remark = "goal met now" if row.met else "goal no longer met"
    return Change(row.key, old / new, old_low > new_high or new_low > old_high, remark)
