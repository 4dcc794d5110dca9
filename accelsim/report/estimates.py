"""What a network would take on a machine, without running it: frozen values, named as in the report of a run."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from accelsim._version import __version__
from accelsim.actions import Actions
from accelsim.energy.account import ComponentEnergy
from accelsim.mapping.contract import CycleCounts, GemmShape
from accelsim.report.timing import TimelineSummary


@dataclass(frozen=True, kw_only=True)
class LayerEstimate:
    """One layer. Names and units are those of `LayerReport`; nothing here depends on values.

    dram_read_bits, dram_write_bits : traffic between DRAM and chip
    weight_bits, activation_bits, output_bits : packed sizes of its tensors; weight_bits is 0 without constant weights
    """

    name: str
    op: str
    shape: GemmShape
    macs: int
    input_format: str
    weight_format: str
    output_format: str
    cycles: CycleCounts
    core_cycles: int
    peak_macs_per_cycle: float
    latency_us: float
    energy_pj: ComponentEnergy
    actions: Actions
    dram_read_bits: int
    dram_write_bits: int
    weight_bits: int
    activation_bits: int
    output_bits: int

    @property
    def total_cycles(self) -> int:
        return self.cycles.total

    @property
    def total_energy_pj(self) -> float:
        return self.energy_pj.total_pj

    @property
    def utilization(self) -> float:
        """Useful MACs over what the array could do in the layer's cycles."""
        return self.macs / (self.peak_macs_per_cycle * self.core_cycles) if self.core_cycles else 0.0


@dataclass(frozen=True, kw_only=True)
class EstimateReport:
    """A whole network, layer by layer; `batch` inferences together.

    energy_unit : "pJ"; or "relative": whatever is called pJ is in the unit of a table of relative prices
    timeline : None where memory never makes the arrays wait
    assumptions : the models behind the numbers, one sentence each
    """

    config_name: str
    config_digest: str
    network_name: str
    clock_mhz: float
    energy_table: str
    batch: int
    layers: tuple[LayerEstimate, ...]
    timeline: TimelineSummary | None
    assumptions: tuple[str, ...]
    energy_unit: str = "pJ"

    @property
    def total_cycles(self) -> int:
        return sum(layer.total_cycles for layer in self.layers)

    @property
    def latency_us(self) -> float:
        return self.total_cycles / self.clock_mhz

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def energy_pj(self) -> ComponentEnergy:
        return ComponentEnergy.sum(layer.energy_pj for layer in self.layers)

    @property
    def total_energy_pj(self) -> float:
        return math.fsum(layer.total_energy_pj for layer in self.layers)

    @property
    def energy_per_mac_pj(self) -> float | None:
        """Energy of everything over useful MACs; None without any."""
        return self.total_energy_pj / self.macs if self.macs else None

    @property
    def tops_per_watt(self) -> float | None:
        """Useful operations (two a MAC) for each picojoule, which is TOPS/W; None for a table of relative prices."""
        if self.energy_unit == "relative" or not self.total_energy_pj:
            return None
        return 2 * self.macs / self.total_energy_pj

    @property
    def average_power_mw(self) -> float | None:
        """Energy over latency (pJ/us is a microwatt); None for a table of relative prices."""
        if self.energy_unit == "relative" or not self.latency_us:
            return None
        return self.total_energy_pj / self.latency_us / 1e3

    @property
    def energy_delay_pj_us(self) -> float:
        """Energy times latency of one inference, pJ us (10**-18 J s), as in the report of a run."""
        return self.total_energy_pj / self.batch * (self.latency_us / self.batch)

    @property
    def dram_bits(self) -> int:
        return sum(layer.dram_read_bits + layer.dram_write_bits for layer in self.layers)

    @property
    def utilization(self) -> float:
        """Useful MACs over what the arrays could do in all cycles."""
        possible = math.fsum(layer.peak_macs_per_cycle * layer.core_cycles for layer in self.layers)
        return self.macs / possible if possible else 0.0

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one flat row a layer for ``pandas.DataFrame(estimate.to_rows())``; units are in the keys."""
        return [_row(layer) for layer in self.layers]

    def _repr_html_(self) -> str:
        """Return what Jupyter shows: a summary, and a table with a row a layer."""
        from accelsim.report.notebook import estimate_html

        return estimate_html(self)

    def to_json(self, indent: int | None = None) -> str:
        """Return the estimate as one JSON document."""
        document = {
            "schema": "accelsim-estimate",
            "version": 1,
            "accelsim_version": __version__,
            "config_name": self.config_name,
            "config_digest": self.config_digest,
            "network_name": self.network_name,
            "clock_mhz": self.clock_mhz,
            "energy_table": self.energy_table,
            "energy_unit": self.energy_unit,
            "batch": self.batch,
            "total_cycles": self.total_cycles,
            "latency_us": self.latency_us,
            "macs": self.macs,
            "utilization": self.utilization,
            "energy_pj": dict(self.energy_pj),
            "total_energy_pj": self.total_energy_pj,
            "energy_per_mac_pj": self.energy_per_mac_pj,
            "tops_per_watt": self.tops_per_watt,
            "average_power_mw": self.average_power_mw,
            "energy_delay_pj_us": self.energy_delay_pj_us,
            "dram_bits": self.dram_bits,
            "timeline": None if self.timeline is None else asdict(self.timeline),
            "layers": self.to_rows(),
            "assumptions": list(self.assumptions),
        }
        return json.dumps(document, indent=indent, allow_nan=False)


def _row(layer: LayerEstimate) -> dict[str, Any]:
    shape = layer.shape
    row: dict[str, Any] = {
        "layer": layer.name,
        "op": layer.op,
        "batch": shape.batch,
        "m": shape.m,
        "k": shape.k,
        "n": shape.n,
        "macs": layer.macs,
        "input_format": layer.input_format,
        "weight_format": layer.weight_format,
        "output_format": layer.output_format,
    }
    row |= {f"cycles_{cause}": cycles for cause, cycles in layer.cycles.by_cause().items()}
    row |= {"cycles_total": layer.total_cycles, "utilization": layer.utilization, "latency_us": layer.latency_us}
    row |= {f"energy_{component}_pj": energy for component, energy in layer.energy_pj.items()}
    row |= {"energy_total_pj": layer.total_energy_pj}
    sizes = ("dram_read_bits", "dram_write_bits", "weight_bits", "activation_bits", "output_bits")
    return row | {name: getattr(layer, name) for name in sizes}
