"""One point, from plain values to plain rows: what runs in another process, or on another machine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from accelsim.errors import AccelsimError, SweepError

Row = dict[str, Any]


def run_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run one point, and return {"rows": one a layer, "error": None}, or no rows and the message of what is wrong.

    Files are read on the machine that runs it. A mistake of ours is not caught.
    """
    try:
        return {"rows": _rows(job), "error": None}
    except (AccelsimError, OSError, MemoryError) as error:
        return {"rows": [], "error": str(error) or type(error).__name__}


def _rows(job: Mapping[str, Any]) -> list[Row]:
    from accelsim.config.loader import parse_config
    from accelsim.simulation import simulate

    config = parse_config(job["config"], source="sweep")
    report = simulate(config, _trace(job), job["engine"], watch=job["watch"], keep_outputs="none")
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
        return _stored_trace(job["trace"], job["batch"])
    from accelsim.quantize.assignment import read_assignment

    requantizer = _requantizer(job["network"], job["inputs"], job["batch"], job["ranges"])
    return requantizer.trace(read_assignment(job["formats"], requantizer.network))


@lru_cache(maxsize=4)
def _stored_trace(path: str, batch: int | None) -> Any:
    from accelsim.trace.reader import load_trace

    trace = load_trace(path)
    return trace if batch is None else trace.head(batch)


@lru_cache(maxsize=2)
def _requantizer(path: str, inputs: str | None, batch: int | None, ranges: str) -> Any:
    """Return the network with its calibration, which all points of a worker share."""
    from accelsim.quantize.requantizer import Requantizer

    return Requantizer(read_network(path, inputs, batch), ranges=ranges)


@lru_cache(maxsize=2)
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
