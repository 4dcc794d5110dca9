"""Where a sweep writes: a Parquet file, which says whose it is, the same table as CSV, and meanwhile a journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.errors import SweepError
from accelsim.sweeps.digests import numerics_version
from accelsim.sweeps.journal import Journal
from accelsim.sweeps.points import Point, axis_names, points_digest
from accelsim.sweeps.spec import SweepSpec
from accelsim.sweeps.table import SUFFIXES, is_table, read_meta, table, write_csv, write_table

if TYPE_CHECKING:
    import pandas as pd


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


class Target:
    """The files of one sweep.

    The Parquet file is written last: where it is there, of the same points, and no point is to be tried again, the
    sweep is complete. Nothing that is not this sweep's is ever overwritten.

    out : of the table, as :func:`check_target` returns it; spec, points : of the sweep
    """

    def __init__(self, out: Path, spec: SweepSpec, points: Sequence[Point]) -> None:
        self.parquet, self.csv = (out.with_suffix(suffix) for suffix in SUFFIXES)
        self._axes, self._points = axis_names(spec), points
        self._identity = {"spec": spec.digest, "numerics": numerics_version(), "points": points_digest(points)}
        self.journal = Journal(out.with_suffix(".journal.jsonl"), spec.digest, numerics_version())

    def check_free(self) -> None:
        """Raise SweepError where a file that is there already is not this sweep's."""
        meta = read_meta(self.parquet)
        if meta is not None and meta.get("spec") != self._identity["spec"]:
            raise SweepError(
                f"{self.parquet}: these are results of another sweep (specification {meta.get('spec')}, this one is "
                f"{self._identity['spec']}); name another results file, or delete it"
            )
        if not self.csv.exists():
            return
        # A sweep that was killed while it wrote leaves the CSV file with its journal.
        if not is_table(self.csv) or (meta is None and not self.journal.is_ours()):
            raise SweepError(
                f"{self.csv}: there is a file already, and nothing says that it is this sweep's; name another results "
                f"file, or delete it"
            )

    def is_complete(self) -> bool:
        """Return whether nothing is left to do: neither to run, nor to write, nor to clear away."""
        return self.is_computed() and self.csv.exists() and not self.journal.path.exists()

    def is_computed(self) -> bool:
        """Return whether the Parquet file holds the results of these points, and none is to be tried again."""
        meta = read_meta(self.parquet)
        if meta is None or meta.get("again") != "0":
            return False
        return all(meta.get(name) == value for name, value in self._identity.items())

    def read(self) -> pd.DataFrame:
        """Return the table that is there."""
        import pandas as pd

        return pd.read_parquet(self.parquet)

    def write(self, results: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
        """Write the table and return it. The journal goes, unless some points are to be tried again."""
        frame = table(self._axes, self._points, results)
        again = sum(bool(result.get("again")) for result in results.values())
        write_table(frame, self.parquet, {**self._identity, "again": str(again)})
        if not again:
            self.journal.remove()
        return frame

    def mend(self) -> pd.DataFrame:
        """Do what a sweep that was killed at its very end had left, and return the table."""
        frame = self.read()
        write_csv(frame, self.csv)
        self.journal.remove()
        return frame
