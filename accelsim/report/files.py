"""A report on disk: ``report.json`` and ``outputs.npz``, written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np

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


def save_report(report: RunReport, folder: str | Path) -> None:
    """Write `report` into `folder`, which is created if need be; other files in it are left alone.

    report.json : `RunReport.to_json`
    outputs.npz : "<layer>/codes" and, where the format has blocks, "<layer>/block_scales" of each layer

    Both files are written in full beside the old ones and only then take their places, so a write that fails changes
    neither, and a reader never finds half a file. A report without arrays (read from JSON) removes an older
    run's outputs.npz. Raises ReportError where the folder cannot be written; it names the final file.
    """
    home = prepare_folder(folder)
    arrays = {}
    for layer in report.layers:
        if layer.output_codes is not None:
            arrays[f"{layer.name}/codes"] = layer.output_codes
        if layer.output_block_scales is not None:
            arrays[f"{layer.name}/block_scales"] = layer.output_block_scales
    text = report.to_json(indent=2) + "\n"
    contents: dict[Path, Callable[[IO[bytes]], Any]] = {home / REPORT: lambda file: file.write(text.encode())}
    if arrays:
        contents[home / OUTPUTS] = lambda file: np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    drafts = {target: _draft(target) for target in contents}
    target = home
    try:
        for target, write in contents.items():
            _write(drafts[target], write)
        for target, draft in drafts.items():
            draft.replace(target)
        if not arrays:
            target = home / OUTPUTS
            target.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(target, error) from None
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


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

    Raises ReportError where a file is missing or damaged, or where the arrays are another run's.
    """
    home = Path(folder)
    try:
        report = RunReport.from_json((home / REPORT).read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{home / REPORT}: cannot be read: {error.strerror}") from None
    except (ReportError, UnicodeDecodeError) as error:
        raise ReportError(f"{home / REPORT}: {error}") from None
    if not (home / OUTPUTS).exists():
        return report
    try:
        # Opened here, because np.load would leave a damaged file open.
        with (home / OUTPUTS).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
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
