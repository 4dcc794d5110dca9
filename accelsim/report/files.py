"""A report on disk: ``report.json`` and ``outputs.npz``, written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from accelsim.errors import ReportError
from accelsim.report.values import LayerReport, RunReport, output_digest

REPORT, OUTPUTS = "report.json", "outputs.npz"


def prepare_folder(folder: str | Path) -> Path:
    """Create `folder` if need be, prove that a file can be written into it, and return it.

    Meant for before a long run, so that no result is lost to a name that does not work. Raises ReportError, the same as
    `save_report` would.
    """
    if not str(folder):
        raise ReportError("'' is not a folder name")
    home = Path(folder)
    try:
        home.mkdir(parents=True, exist_ok=True)
        for target in (home / REPORT, home / OUTPUTS):
            if target.is_dir():
                raise ReportError(f"{target} is a folder; remove it, or name another folder")
        probe = _draft(home / REPORT)
        probe.touch(exist_ok=False)
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        # the name itself or one of its parents
        file = next((path for path in (home, *home.parents) if path.exists() and not path.is_dir()), home)
        raise ReportError(f"{file} is a file; name a folder") from None
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise _unwritable(home, error) from None
    return home


class OutputsWriter:
    """An outputs.npz under construction: each layer's arrays are written when it is done, and need not be kept.

    Use it as a context manager: what was not given to `save_report` is gone afterwards, and the folder as it was.

    folder : as `prepare_folder` takes it; raises ReportError where it cannot be written

    >>> import accelsim
    >>> config = accelsim.load_config("configs/int8_ws.yaml")
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(2)
    >>> with OutputsWriter("results") as writer:  # no layer's codes stay in memory
    ...     report = accelsim.simulate(config, trace, keep_outputs="none", layer_done=writer.add)
    ...     save_report(report, "results", writer)
    >>> report.layers[0].output_codes is None, load_report("results").layers[0].output_codes.shape
    (True, (2, 4, 4, 16))
    """

    def __init__(self, folder: str | Path) -> None:
        self._made = [path for path in (Path(folder), *Path(folder).parents) if not path.exists()]
        self._target = prepare_folder(folder) / OUTPUTS
        self._draft = _draft(self._target)
        self._archive: ZipFile | None = None

    def __enter__(self) -> OutputsWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if self._archive is not None:
            with suppress(OSError, ValueError):  # a full disk was reported already
                self._archive.close()
        self._draft.unlink(missing_ok=True)
        with suppress(OSError):  # a folder that is not empty stays, and so do those that it is in
            for made in self._made:
                made.rmdir()

    def add(self, layer: LayerReport) -> None:
        """Write the arrays of one layer; a layer without any is nothing. Raises ReportError, naming the final file."""
        try:
            if layer.output_codes is not None:
                self._write(f"{layer.name}/codes", layer.output_codes)
            if layer.output_block_scales is not None:
                self._write(f"{layer.name}/block_scales", layer.output_block_scales)
        except OSError as error:
            raise _unwritable(self._target, error) from None

    def finish(self) -> Path | None:
        """End the file and return its draft; None where nothing was added. OSError goes through."""
        if self._archive is None:
            return None
        archive, self._archive = self._archive, None
        archive.close()
        with self._draft.open("rb") as file:
            os.fsync(file.fileno())
        return self._draft

    def _write(self, name: str, array: Any) -> None:
        if self._archive is None:
            self._archive = ZipFile(self._draft, "x", ZIP_DEFLATED)
        entry = ZipInfo(f"{name}.npy")  # of no date: equal outputs are equal files
        entry.compress_type = ZIP_DEFLATED
        with self._archive.open(entry, "w", force_zip64=True) as file:
            npy.write_array(file, np.asanyarray(array), allow_pickle=False)


def save_report(report: RunReport, folder: str | Path, outputs: OutputsWriter | None = None) -> None:
    """Write `report` into `folder`, which is created if need be; other files in it are left alone.

    report.json : `RunReport.to_json`
    outputs.npz : "<layer>/codes" and, where the format has blocks, "<layer>/block_scales" of each layer
    outputs : of the same folder, with the layers' arrays already in it; by default the report's own are written

    Both files are written in full beside the old ones and only then take their places, so a write that fails changes
    neither, and a reader never finds half a file. A report without arrays (read from JSON) removes an older
    run's outputs.npz. Raises ReportError where the folder cannot be written; it names the final file.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(2)
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), trace)
    >>> save_report(report, "results")
    >>> from pathlib import Path
    >>> sorted(path.name for path in Path("results").iterdir())
    ['outputs.npz', 'report.json']
    """
    home = prepare_folder(folder)
    if outputs is None:
        with OutputsWriter(home) as own:
            for layer in report.layers:
                own.add(layer)
            return save_report(report, home, own)
    text, draft = report.to_json(indent=2) + "\n", _draft(home / REPORT)
    target = home / REPORT
    try:
        _write(draft, lambda file: file.write(text.encode()))
        target = home / OUTPUTS
        arrays = outputs.finish()
        target = home / REPORT
        draft.replace(target)
        target = home / OUTPUTS
        if arrays is None:
            target.unlink(missing_ok=True)
        else:
            arrays.replace(target)
    except OSError as error:
        raise _unwritable(target, error) from None
    finally:
        draft.unlink(missing_ok=True)


def check_file_path(path: str | Path) -> Path:
    """Return the path of a file to be written. Raises ReportError where it cannot be one: before a run, not after."""
    target = Path(path)
    if not target.name:
        raise ReportError(f"{str(path)!r} is not a file name")
    if target.is_dir():
        raise ReportError(f"{target} is a folder; name a file")
    if not target.parent.is_dir():
        raise ReportError(f"{target}: there is no folder {target.parent}")
    return target


def save_text(text: str, path: str | Path) -> Path:
    """Write a file, whole or not at all. Raises ReportError where it cannot be written."""
    target = check_file_path(path)
    draft = _draft(target)
    try:
        _write(draft, lambda file: file.write(text.encode()))
        draft.replace(target)
    except OSError as error:
        raise _unwritable(target, error) from None
    finally:
        draft.unlink(missing_ok=True)
    return target


def _draft(target: Path) -> Path:
    """Return a new name in the same folder: only there is replacing one step."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")


def _write(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    with path.open("xb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _unwritable(path: Path, error: OSError | ValueError) -> ReportError:
    return ReportError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}")


def load_report(folder: str | Path) -> RunReport:
    """Return the report that `save_report` wrote into `folder`, with its output arrays where outputs.npz is there.

    folder : or a report alone: the file report.json, or what ``accelsim run --json`` printed

    Raises ReportError where a file is missing or damaged, or where the arrays are another run's.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(2)
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), trace)
    >>> save_report(report, "results")
    >>> again = load_report("results")
    >>> again == report, again.layers[0].output_codes.shape
    (True, (2, 4, 4, 16))
    """
    given = Path(folder)
    file = given / REPORT if given.is_dir() else given
    try:
        report = RunReport.from_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing = f"{given} has no {REPORT}" if given.is_dir() else f"{given}: there is no such folder or file"
        raise ReportError(f"{missing}; 'accelsim run CONFIG TRACE --out DIR' writes a report") from None
    except OSError as error:
        raise ReportError(f"{file}: cannot be read: {error.strerror}") from None
    except (ReportError, UnicodeDecodeError) as error:
        raise ReportError(f"{file}: {error}") from None
    home = file.parent
    if file.name != REPORT or not (home / OUTPUTS).exists():
        return report
    try:
        # Opened here, because np.load would leave a damaged file open.
        with (home / OUTPUTS).open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            layers = tuple(_with_outputs(layer, arrays, home / OUTPUTS) for layer in report.layers)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ReportError(f"{home / OUTPUTS}: damaged, or not an .npz file ({error})") from None
    return replace(report, layers=layers)


def _with_outputs(layer: LayerReport, arrays: Any, path: Path) -> LayerReport:
    codes, scales = arrays.get(f"{layer.name}/codes"), arrays.get(f"{layer.name}/block_scales")
    if codes is None:
        return layer
    if output_digest(codes, scales) != layer.output_digest:
        raise ReportError(f"{path}: the codes of layer {layer.name!r} are not those of {REPORT}; another run's file?")
    return replace(layer, output_codes=codes, output_block_scales=scales)
