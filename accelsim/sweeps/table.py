"""The tidy table: one row a point and layer, in Parquet and CSV, written whole or not at all."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.errors import SweepError
from accelsim.sweeps.points import Point

if TYPE_CHECKING:
    import pandas as pd

META = b"accelsim-sweep"
SUFFIXES = (".parquet", ".csv")


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
        head = {"point": point.index, "key": point.key, "error": result["error"]}
        own = {_axis_column(axis): point.axes.get(axis) for axis in axes}
        rows += [{**head, **own, **row} for row in result["rows"] or [{}]]
    return _typed(pd.DataFrame(rows), axes)


def _axis_column(axis: str) -> str:
    return f"axis.{axis}" if axis in ("trace", "config") else axis


def _typed(frame: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """An axis may hold numbers, words and null: such a column is text, as Parquet has one type a column."""
    for column in map(_axis_column, axes):
        kinds = {type(value) for value in frame[column] if value is not None and value == value}
        if len(kinds - {int, float}) > (0 if kinds & {int, float} else 1):
            frame[column] = [None if value is None else str(value) for value in frame[column]]
    return frame


def check_target(out: str | Path) -> Path:
    """Return the path of the table. Raises SweepError where it cannot be one."""
    path = Path(out)
    if path.suffix.lower() not in SUFFIXES:
        raise SweepError(f"{str(out)!r}: results are written as {' or '.join(SUFFIXES)}; end the name in one of these")
    if path.is_dir():
        raise SweepError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise SweepError(f"{path}: there is no folder {path.parent}")
    return path


def write_table(frame: pd.DataFrame, out: Path, meta: Mapping[str, str]) -> list[Path]:
    """Write `frame` as Parquet and as CSV, both beside one another, and return the paths.

    meta : kept in the Parquet file, for :func:`read_meta`. Raises SweepError where a file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = []
    for suffix in SUFFIXES:
        target = out.with_suffix(suffix)
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            if suffix == ".csv":
                frame.to_csv(draft, index=False)
            else:
                arrow = pa.Table.from_pandas(frame, preserve_index=False)
                known = arrow.schema.metadata or {}
                pq.write_table(arrow.replace_schema_metadata({**known, META: json.dumps(dict(meta)).encode()}), draft)
            draft.replace(target)
        except OSError as error:
            raise SweepError(f"{target}: cannot be written: {error.strerror or error}") from None
        finally:
            draft.unlink(missing_ok=True)
        written.append(target)
    return written


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
