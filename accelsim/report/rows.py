"""A layer's report as one flat row: the columns of a data frame, units in their names."""

from __future__ import annotations

from typing import Any

from accelsim.report.values import LayerReport, RegisterReport, RunReport

_ACCURACY = ("mse", "max_error", "cosine")
_FAKE_QUANT = ("max_steps", "mean_steps", "differing", "relative_l2")


def layer_row(report: RunReport, layer: LayerReport) -> dict[str, Any]:
    """Return the row; every layer has the same keys, and None where something was not measured."""
    row: dict[str, Any] = {
        "config": report.config_name,
        "trace": report.trace_name,
        "engine": report.engine,
        "layer": layer.name,
        "op": layer.op,
        "batch": layer.shape.batch,
        "m": layer.shape.m,
        "k": layer.shape.k,
        "n": layer.shape.n,
        "macs": layer.macs,
        "input_format": layer.input_format,
        "weight_format": layer.weight_format,
        "output_format": layer.output_format,
        "rounding": layer.rounding,
        "rounding_requested": layer.rounding_requested,
    }
    row |= {f"cycles_{cause}": cycles for cause, cycles in layer.cycles.by_cause().items()}
    row |= {"cycles_total": layer.total_cycles, "utilization": layer.utilization, "latency_us": layer.latency_us}
    unit = "relative" if report.energy_unit == "relative" else "pj"
    row |= {f"energy_{component}_{unit}": energy for component, energy in layer.energy_pj.items()}
    row |= {f"energy_total_{unit}": layer.total_energy_pj}
    row |= {
        f"{unit}_per_mac": layer.total_energy_pj / layer.macs if layer.macs else None,
        f"data_aware_{unit}": None if layer.data_aware_energy_pj is None else layer.data_aware_energy_pj.total_pj,
        f"edp_{unit}_us": layer.total_energy_pj * layer.latency_us,
    }
    row |= _activity(layer)
    row |= _register("psum", layer.overflow.psum) | _register("accumulator", layer.overflow.accumulator)
    row |= {
        "clamped_outputs": layer.overflow.output_clamp,
        "mismatches": layer.mismatches,
        "verified": layer.verified,
        "sqnr_db": layer.sqnr_db,
    }
    row |= {name: getattr(layer.accuracy, name, None) for name in _ACCURACY}
    row |= {f"fake_quant_{name}": getattr(layer.fake_quant, name, None) for name in _FAKE_QUANT}
    return row


def _activity(layer: LayerReport) -> dict[str, Any]:
    found = layer.activity
    return {
        "zero_products": None if found is None else found.zero_products,
        "stream_toggles": None if found is None else found.stream.toggles,
        "other_toggles": None if found is None else found.other.toggles,
        "psum_toggles": None if found is None else found.psum_toggles,
        "accumulator_toggles": None if found is None else found.accumulator_toggles,
    }


def _register(name: str, register: RegisterReport) -> dict[str, Any]:
    return {
        f"{name}_overflows": register.count,
        f"{name}_bits": register.bits,
        f"{name}_sufficient_bits": register.sufficient_bits,
        f"{name}_peak": register.peak,
    }
