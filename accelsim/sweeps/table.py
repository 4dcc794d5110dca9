"""The tidy table: one row a point and layer, in Parquet and CSV, written whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.errors import SweepError
from accelsim.sweeps.points import Point

if TYPE_CHECKING:
    import pandas as pd

META = b"accelsim-sweep"
SUFFIXES = (".parquet", ".csv")
FIRST_COLUMNS = ("point", "key", "error")


def need_pandas() -> None:
    """Raise SweepError, which says what to install, where pandas or pyarrow is missing."""
    try:
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise SweepError(f"sweeps need pandas and pyarrow: pip install 'accelsim[sweep]' ({error})") from None


def table(axes: Sequence[str], points: Sequence[Point], results: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows of all points in their order; a point that failed has one row, with its `error`.

    Columns: point, key, error, then the axes by their names, then those of a layer's row (docs/api.md) and the run's
    (``run_*``, ``accuracy_*``). An axis named like a column of a layer's row (``trace``, ``config``) gets ``axis.``
    before it.
    """
    import pandas as pd

    rows = []
    for point in points:
        result = results.get(point.key, {"rows": [], "error": point.problem})
        head = dict(zip(FIRST_COLUMNS, (point.index, point.key, result["error"]), strict=True))
        own = {_axis_column(axis): point.axes.get(axis) for axis in axes}
        rows += [{**head, **own, **row} for row in result["rows"] or [{}]]
    return _typed(pd.DataFrame(rows), axes)


def _axis_column(axis: str) -> str:
    return f"axis.{axis}" if axis in ("trace", "config") else axis


def _typed(frame: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """An axis may hold numbers, words and null: such a column is text, as Parquet has one type a column.

    So is one of lists or sections, as JSON.
    """
    for column in map(_axis_column, axes):
        values = [json.dumps(value) if isinstance(value, list | dict) else value for value in frame[column]]
        if values != list(frame[column]):
            frame[column] = values
        kinds = {type(value) for value in frame[column] if value is not None and value == value}
        if len(kinds - {int, float}) > (0 if kinds & {int, float} else 1):
            frame[column] = [None if value is None else str(value) for value in frame[column]]
    return frame


def write_table(frame: pd.DataFrame, out: Path, meta: Mapping[str, str]) -> None:
    """Write `frame` as CSV and as Parquet, beside one another; the Parquet file, which says what it is, comes last.

    meta : kept in the Parquet file, for :func:`read_meta`. Raises SweepError where a file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_csv(frame, out)
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    whole = {**(arrow.schema.metadata or {}), META: json.dumps(dict(meta)).encode()}
    _write(out.with_suffix(".parquet"), lambda draft: pq.write_table(arrow.replace_schema_metadata(whole), draft))


def write_csv(frame: pd.DataFrame, out: Path) -> None:
    """Write `frame` as CSV, under the name of `out` with that ending. Raises SweepError where it cannot be written."""
    _write(out.with_suffix(".csv"), lambda draft: frame.to_csv(draft, index=False))


def is_table(path: Path) -> bool:
    """Return whether a CSV file begins as `write_csv` begins one."""
    start = ",".join(FIRST_COLUMNS).encode()
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def _write(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all: it is on the disk before it takes its name."""
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(draft)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        raise SweepError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)


def read_meta(path: Path) -> dict[str, str] | None:
    """Return what `write_table` kept in a Parquet file; None where there is no file.

    Raises SweepError where the file is something else.
    """
    if not path.exists():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        meta = (pq.read_schema(path).metadata or {}).get(META)
    except (pa.ArrowException, OSError):
        meta = None
    if meta is None:
        raise SweepError(f"{path}: there is a file already, and it is not a sweep's; name another results file")
    values: dict[str, str] = json.loads(meta)
    return values
