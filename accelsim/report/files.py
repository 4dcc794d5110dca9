"""A report on disk: ``report.json`` and ``outputs.npz``, each written whole or not at all."""

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


def save_report(report: RunReport, folder: str | Path) -> None:
    """Write `report` into `folder`, which is created if need be; other files in it are left alone.

    report.json : `RunReport.to_json`
    outputs.npz : "<layer>/codes" and, where the format has blocks, "<layer>/block_scales" of each layer

    A file is replaced in one step, so a reader finds the old or the new one, never half of it. A report without output
    arrays (read from JSON) removes an older run's outputs.npz. Raises ReportError where the folder cannot be written.
    """
    home = Path(folder)
    arrays = {}
    for layer in report.layers:
        if layer.output_codes is not None:
            arrays[f"{layer.name}/codes"] = layer.output_codes
        if layer.output_block_scales is not None:
            arrays[f"{layer.name}/block_scales"] = layer.output_block_scales
    text = report.to_json(indent=2) + "\n"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if arrays:
            _write_whole(home / OUTPUTS, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
        else:
            (home / OUTPUTS).unlink(missing_ok=True)
        _write_whole(home / REPORT, lambda file: file.write(text.encode()))
    except OSError as error:
        raise ReportError(f"{error.filename or home}: cannot be written: {error.strerror or error}") from None


def _write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # same folder: replacing is one step there only
    try:
        with draft.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


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
