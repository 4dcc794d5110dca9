"""What a run found, as frozen values: they compare, hash, pickle, add up, and go to JSON and back without loss.

Units are in the names: cycles of the array clock, pJ, microseconds, bits. Equality ignores the output arrays and
compares their digests instead, so a report that was read back from JSON (which holds no arrays) equals the original.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from accelsim._version import __version__
from accelsim.energy.account import ComponentEnergy
from accelsim.errors import ReportError, did_you_mean
from accelsim.mapping.contract import CycleCounts
from accelsim.report.document import FrozenDocument, decode, encode, parse
from accelsim.report.findings import (
    FakeQuantDistance,
    LayerAccuracy,
    NetworkAccuracy,
    OverflowPlace,
    OverflowReport,
    RegisterReport,
)
from accelsim.report.layer_report import LayerReport, output_digest
from accelsim.report.timing import TimelineSummary
from accelsim.report.units import AREA_LAWS_NODE_NM
from accelsim.report.versions import upgrade

SCHEMA = "accelsim-report"
VERSION = 2

__all__ = [
    "FakeQuantDistance",
    "LayerAccuracy",
    "LayerReport",
    "NetworkAccuracy",
    "OverflowPlace",
    "OverflowReport",
    "RegisterReport",
    "RunReport",
    "TimelineSummary",
    "Totals",
    "output_digest",
]


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The layers added up. Energies and counts are sums; the layers run one after another.

    mismatches, verified : sums over the layers that were compared; None: none was
    average_power_mw : energy / latency; None where energies are relative
    energy_per_mac_pj : pJ for each useful multiply-accumulate, everything charged; None without any
    tops_per_watt : useful operations (two a multiply-accumulate) a pJ, which is 10**12 a second and watt; None where
        energies are relative
    energy_delay_pj_us : energy times latency of one inference, pJ us (10**-18 J s)
    data_aware_energy_pj, total_data_aware_energy_pj : with what the data did, where it was measured, else as it is;
        None: no layer was measured
    """

    macs: int
    cycles: CycleCounts
    total_cycles: int
    utilization: float
    latency_us: float
    latency_per_inference_us: float
    energy_pj: ComponentEnergy
    total_energy_pj: float
    energy_per_inference_pj: float
    average_power_mw: float | None
    energy_per_mac_pj: float | None
    tops_per_watt: float | None
    energy_delay_pj_us: float
    data_aware_energy_pj: ComponentEnergy | None
    total_data_aware_energy_pj: float | None
    psum_overflows: int
    accumulator_overflows: int
    clamped_outputs: int
    mismatches: int | None
    verified: int | None


@dataclass(frozen=True, kw_only=True, repr=False)
class RunReport:
    """A whole run: what ran on what, layer by layer. Frozen; equal runs give equal reports.

    config : the resolved configuration, ``HardwareConfig.model_dump(mode="json")``; any mapping is frozen
    config_digest, trace_digest, energy_table_digest : identify exactly what was run
    energy_unit : "pJ"; or "relative": whatever is called pJ is in the unit of a table of relative prices
    engine : the engine that computed; all give the same numbers
    clock_mhz : of the array, MHz
    peak_macs_per_cycle : rows * cols * lanes of the array; each layer has its own
    area_um2 : modelled area of the machine by component, um2 (docs/energy.md); "buffer" is its SRAM. Any mapping is
        frozen
    area_node_nm : of these figures, nm: the energy table's node, where it names one that area can be brought to
    accuracy : classification by the network's output, where the trace has labels
    batch : inferences in the run
    timeline : the run in time, with the memory around the arrays; None: they never wait (docs/memory.md)
    network : distance of the network's output (the last layer's) from its float reference, or None
    assumptions : the models behind the numbers, one sentence each

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(4)
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), trace)
    >>> report.totals.macs, report.totals.mismatches, report.accuracy.images
    (437760, 0, 4)
    >>> report.totals.latency_us == report.totals.total_cycles / report.clock_mhz
    True
    >>> waiting = report.waiting_energy_pj  # of the leakage, while all is idle or stalled
    >>> waiting == report.waiting_share * report.totals.energy_pj["leakage"]
    True
    >>> report.layer("fc2").shape
    GemmShape(batch=1, m=4, k=64, n=10)
    >>> import pandas
    >>> frame = pandas.DataFrame(report.to_rows())  # a row a layer
    >>> frame.set_index("layer").macs.to_dict()
    {'conv1': 9216, 'conv2': 294912, 'fc1': 131072, 'fc2': 2560}
    >>> accelsim.RunReport.from_json(report.to_json()) == report
    True
    """

    DERIVED: ClassVar = ("totals",)

    accelsim_version: str = __version__
    config_name: str
    config_digest: str
    trace_name: str
    trace_digest: str
    engine: str
    clock_mhz: float
    peak_macs_per_cycle: int
    energy_table: str
    energy_table_digest: str
    energy_unit: str = "pJ"
    batch: int
    area_um2: Mapping[str, Any] = field(default_factory=FrozenDocument)
    area_node_nm: int = AREA_LAWS_NODE_NM
    accuracy: NetworkAccuracy | None = None
    network: LayerAccuracy | None = None
    timeline: TimelineSummary | None = None
    assumptions: tuple[str, ...] = ()
    layers: tuple[LayerReport, ...]
    config: Mapping[str, Any] = field(default_factory=FrozenDocument)

    def __post_init__(self) -> None:
        frozen = {
            "assumptions": tuple(self.assumptions),
            "layers": tuple(self.layers),
            "config": FrozenDocument(self.config),
            "area_um2": FrozenDocument(self.area_um2),
        }
        for name, value in frozen.items():
            object.__setattr__(self, name, value)

    def layer(self, name: str) -> LayerReport:
        """Return the layer of that name. Raises KeyError that lists the names."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = [layer.name for layer in self.layers]
        raise KeyError(f"no layer {name!r}{did_you_mean(name, names)}; the layers are {', '.join(names)}")

    @property
    def totals(self) -> Totals:
        """The layers added up."""
        cycles = sum((layer.cycles for layer in self.layers), CycleCounts())
        macs = sum(layer.macs for layer in self.layers)
        possible = math.fsum(layer.peak_macs_per_cycle * layer.core_cycles for layer in self.layers)
        latency_us = cycles.total / self.clock_mhz
        energy_pj = ComponentEnergy.sum(layer.energy_pj for layer in self.layers)
        total_energy_pj = math.fsum(layer.total_energy_pj for layer in self.layers)
        relative = self.energy_unit == "relative"
        data_aware = None
        if any(layer.data_aware_energy_pj is not None for layer in self.layers):
            data_aware = ComponentEnergy.sum(layer.data_aware_energy_pj or layer.energy_pj for layer in self.layers)
        return Totals(
            macs=macs,
            cycles=cycles,
            total_cycles=cycles.total,
            utilization=macs / possible if possible else 0.0,
            latency_us=latency_us,
            latency_per_inference_us=latency_us / self.batch,
            energy_pj=energy_pj,
            total_energy_pj=total_energy_pj,
            energy_per_inference_pj=total_energy_pj / self.batch,
            average_power_mw=None if relative else total_energy_pj / latency_us / 1000 if latency_us else 0.0,  # uW
            energy_per_mac_pj=total_energy_pj / macs if macs else None,
            tops_per_watt=None if relative or not total_energy_pj else 2 * macs / total_energy_pj,
            data_aware_energy_pj=data_aware,
            total_data_aware_energy_pj=None if data_aware is None else data_aware.total_pj,
            energy_delay_pj_us=total_energy_pj / self.batch * (latency_us / self.batch),
            psum_overflows=sum(layer.overflow.psum.count for layer in self.layers),
            accumulator_overflows=sum(layer.overflow.accumulator.count for layer in self.layers),
            clamped_outputs=sum(layer.overflow.output_clamp for layer in self.layers),
            mismatches=_sum_known([layer.mismatches for layer in self.layers]),
            verified=_sum_known([layer.verified for layer in self.layers]),
        )

    @property
    def waiting_share(self) -> float:
        """Share of all cores' cycles in which neither the array nor the vector unit works: stalls and idle ones."""
        cores = [self.totals.cycles] if self.timeline is None else self.timeline.cores
        total = sum(core.total for core in cores)
        return 1 - sum(core.array + core.vector for core in cores) / total if total else 0.0

    @property
    def waiting_energy_pj(self) -> float:
        """Leakage of the cycles of `waiting_share`, pJ: what stalls and idle cores cost, for all else is gated then."""
        return self.waiting_share * self.totals.energy_pj["leakage"]

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one flat row a layer for ``pandas.DataFrame(report.to_rows())``; units are in the keys."""
        from accelsim.report.rows import layer_row

        return [layer_row(self, layer) for layer in self.layers]

    def to_json(self, indent: int | None = None) -> str:
        """Return the report as one JSON document (docs/api.md); output arrays are not in it, their digests are."""
        document = {"schema": SCHEMA, "version": VERSION, **encode(self)}
        return json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RunReport:
        """Return the report that `to_json` wrote. Raises ReportError where it is damaged, or of a newer version."""
        data = parse(text)
        schema, version = data.pop("schema", None), data.pop("version", None)
        if schema != SCHEMA:
            raise ReportError(f"report: schema is {schema!r}, expected {SCHEMA!r}; this is not a report of a run")
        if type(version) is not int or version < 1:
            raise ReportError(f"report: version is {version!r}, expected a whole number from 1 to {VERSION}")
        if version > VERSION:
            writer = data.get("accelsim_version", "unknown")
            raise ReportError(
                f"report: version {version} was written by a newer accelsim ({writer}); "
                f"this one ({__version__}) reads up to version {VERSION}: upgrade accelsim"
            )
        return decode(cls, upgrade(data, version), "report")

    def __repr__(self) -> str:
        totals = self.totals
        return (
            f"RunReport({self.config_name!r} on {self.trace_name!r}: {len(self.layers)} layers, "
            f"{totals.total_cycles:,} cycles, {totals.latency_us:.6g} us, {totals.total_energy_pj / 1e6:.6g} uJ)"
        )

    def _repr_html_(self) -> str:
        """Return what Jupyter shows: a summary, and a table with a row a layer."""
        from accelsim.report.notebook import run_html

        return run_html(self)


def _sum_known(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
