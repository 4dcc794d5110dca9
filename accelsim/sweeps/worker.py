"""One point, from plain values to plain rows: what runs in another process, or on another machine."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError, SweepError
from accelsim.sweeps.digests import network_digest, numerics_version

Row = dict[str, Any]
INTERNAL = "internal error"


class _ChangedError(SweepError):
    """What this machine reads is not what the point was made of."""


def run_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run one point; files are read on the machine that runs it, and must be those that the point was made of.

    Returns {"rows": one a layer, "error": None}; or no rows and the message of what is wrong, with {"again": True}
    where another attempt may succeed: it is the machine's fault (memory, files), not the point's.
    """
    try:
        return {"rows": _rows(job), "error": None}
    except (_ChangedError, OSError, MemoryError) as error:
        return failure(str(error) or "out of memory", again=True)
    except AccelsimError as error:
        return failure(str(error), again=_files_changed(job))
    except Exception as error:  # a mistake of ours costs its point, not the sweep
        place = traceback.extract_tb(error.__traceback__)[-1]
        return failure(f"{INTERNAL}: {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")


def failure(message: str, *, again: bool = False) -> dict[str, Any]:
    """Return the result of a point that failed."""
    return {"rows": [], "error": message, **({"again": True} if again else {})}


def _rows(job: Mapping[str, Any]) -> list[Row]:
    from accelsim.config.loader import parse_config
    from accelsim.simulation import simulate

    if job.get("numerics", numerics_version()) != numerics_version():
        raise _ChangedError("this worker has another version of accelsim than the machine that began the sweep")
    config = parse_config(job["config"], source="sweep")
    report = simulate(config, _trace(job), job["engine"], watch=job["watch"], keep_outputs="none")
    if report.energy_table_digest != job["energy_table"]:
        raise _changed(config.energy.table)
    totals = report.totals
    run = {
        "run_cycles_total": totals.total_cycles,
        "run_latency_us": totals.latency_us,
        "run_latency_per_inference_us": totals.latency_per_inference_us,
        "run_energy_pj": totals.total_energy_pj,
        "run_energy_per_inference_pj": totals.energy_per_inference_pj,
        "run_area_um2": sum(report.area_um2.values()),
        "run_area_node_nm": report.area_node_nm,
        "accuracy_float": None if report.accuracy is None else report.accuracy.float_accuracy,
        "accuracy_simulated": None if report.accuracy is None else report.accuracy.simulated_accuracy,
        "config_digest": report.config_digest,
        "trace_digest": report.trace_digest,
    }
    return [{**row, **run} for row in report.to_rows()]


def _trace(job: Mapping[str, Any]) -> Any:
    if "trace" in job:
        return _stored_trace(job["trace"], job["batch"], job["source"])
    from accelsim.quantize.assignment import read_assignment

    requantizer = _requantizer(job["network"], job["inputs"], job["batch"], job["ranges"], job["source"])
    return requantizer.trace(read_assignment(job["formats"], requantizer.network))


# A worker may live long, so what is kept is known by its content's digest, never by a name alone.


@lru_cache(maxsize=4)
def _stored_trace(path: str, batch: int | None, digest: str) -> Any:
    from accelsim.trace.reader import load_trace

    trace = load_trace(path)
    if trace.digest != digest:
        raise _changed(path)
    return trace if batch is None else trace.head(batch)


@lru_cache(maxsize=4)
def _requantizer(path: str, inputs: str | None, batch: int | None, ranges: str, digest: str) -> Any:
    """Return the network with its calibration, which all points of a worker share."""
    from accelsim.quantize.requantizer import Requantizer

    try:
        network = read_network(path, inputs, batch)
    except AccelsimError as error:  # it could be read when the sweep began
        raise _changed(str(error)) from None
    if network_digest(network) != digest:
        raise _changed(path if inputs is None else f"{path} or {inputs}")
    return Requantizer(network, ranges=ranges)


def _changed(what: str) -> _ChangedError:
    return _ChangedError(
        f"{what}: has changed since the sweep began, or is another file on the machine that ran this point"
    )


def _files_changed(job: Mapping[str, Any]) -> bool:
    """Return whether a trace or prices were overwritten meanwhile: then a point's failure says nothing about it.

    Networks are compared where they are read; traces are read while a point runs.
    """
    from accelsim.config.loader import parse_config
    from accelsim.energy.scaling import configured_table

    try:
        table = configured_table(parse_config(job["config"]))
        changed = table.digest != job["energy_table"] or (
            "trace" in job and _digest(job["trace"], *_stamp(job["trace"])) != job["source"]
        )
        return bool(changed)
    except (AccelsimError, OSError):
        return True


def _stamp(path: str) -> tuple[int, int, int]:
    status = Path(path).stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=16)
def _digest(path: str, *_: int) -> str:
    """Return a trace's digest; once for each stamp of the file, as thousands of points may fail."""
    from accelsim.trace.reader import load_trace

    return load_trace(path).digest


def read_network(path: str, inputs: str | None, batch: int | None) -> Any:
    """Return a float network: from an .npz file of its own, or from a model file with its data.

    Raises AccelsimError where a file is missing or damaged, or a model comes without data.
    """
    if path.endswith(".npz"):
        from accelsim.quantize.network_file import load_network

        network = load_network(path)
        return network if batch is None else network.head(batch)
    from accelsim.importers.api import float_model, open_model
    from accelsim.importers.data import read_data

    if inputs is None:
        raise SweepError(f"{path}: a model needs data to run on; set inputs to FILE.npz[:ARRAY]")
    model = open_model(path)
    data, labels = read_data(inputs, model.inputs)
    return float_model(model, data, batch=batch, labels=labels)
