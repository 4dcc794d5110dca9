"""Reports of older versions of the document, brought up to the present one.

1 -> 2 : stalls among the causes of cycles (there were none), what all cores spent on a layer, the run's timeline; the
unit of energies (it was pJ), the node of areas (it was 45 nm), and energy per MAC, TOPS/W and energy-delay product
among the totals
"""

from __future__ import annotations

from typing import Any

_STALLS = ("dram", "dma", "buffer", "sync")


def upgrade(data: dict[str, Any], version: int) -> dict[str, Any]:
    """Return the document as version 2 has it. What is damaged stays so, for the reader to find."""
    return _from_1(data) if version < 2 else data


def _from_1(data: dict[str, Any]) -> dict[str, Any]:
    data = {"timeline": None, "energy_unit": "pJ", "area_node_nm": 45} | data
    if isinstance(data.get("layers"), list):
        data["layers"] = [_layer_from_1(layer) for layer in data["layers"]]
    if isinstance(data.get("totals"), dict):
        data["totals"] = _with_stalls(_rates(data["totals"], data.get("batch")) | data["totals"])
    return data


def _rates(totals: dict[str, Any], batch: Any) -> dict[str, Any]:
    energy, macs, latency = (totals.get(name) for name in ("total_energy_pj", "macs", "latency_us"))
    if not (isinstance(energy, float) and isinstance(macs, int) and isinstance(latency, float)):
        return {}
    return {
        "energy_per_mac_pj": energy / macs if macs else None,
        "tops_per_watt": 2 * macs / energy if energy else None,
        "energy_delay_pj_us": energy / batch * (latency / batch) if isinstance(batch, int) and batch else None,
    }


def _layer_from_1(layer: Any) -> Any:
    if not isinstance(layer, dict):
        return layer
    return _with_stalls({"core_cycles": layer.get("total_cycles")} | layer)


def _with_stalls(values: dict[str, Any]) -> dict[str, Any]:
    cycles = values.get("cycles")
    if not isinstance(cycles, dict):
        return values
    return values | {"cycles": cycles | {cause: 0 for cause in _STALLS if cause not in cycles}}
