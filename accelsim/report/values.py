"""What a run found, as frozen values: they compare, hash, pickle, add up, and go to JSON and back without loss.

Units are in the names: cycles of the array clock, pJ, microseconds, bits. Equality ignores the output arrays and
compares their digests instead, so a report that was read back from JSON (which holds no arrays) equals the original.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from accelsim._version import __version__
from accelsim.actions import Actions
from accelsim.energy.account import ComponentEnergy, EnergyBreakdown
from accelsim.engine.contract import Activity
from accelsim.errors import ReportError, did_you_mean
from accelsim.mapping.contract import CycleCounts, GemmShape
from accelsim.report.document import FrozenDocument, decode, encode, parse
from accelsim.report.findings import (
    FakeQuantDistance,
    LayerAccuracy,
    NetworkAccuracy,
    OverflowPlace,
    OverflowReport,
    RegisterReport,
)
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

IntArray = NDArray[np.integer[Any]]


def output_digest(codes: IntArray, block_scales: IntArray | None = None) -> str:
    """Return a hex digest (16 digits) of shape and values of output codes (and block scales), whatever their dtype."""
    digest = hashlib.sha256()
    for array in (codes,) if block_scales is None else (codes, block_scales):
        digest.update(repr(tuple(array.shape)).encode())
        digest.update(np.ascontiguousarray(array, "<i8").tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, repr=False)
class LayerReport:
    """One layer of a run. `build` computes what follows from the rest.

    op : "conv2d", "linear", "matmul"; of the vector unit, the operator (docs/operators.md)
    shape : sizes of the layer's GEMMs as they ran; of an operator of the vector unit, outputs as [m, n], and k = 0
    macs : useful multiply-accumulates (padding and zero-point sums left out)
    input_format, weight_format, output_format : names of number formats; "-": there is no second operand
    cycles : ints, cycles of the array clock by cause, stalls included; `total_cycles` is their sum
    core_cycles : cycles that all cores together spent on the layer (one core: `total_cycles`)
    peak_macs_per_cycle : of one core's array in the layer's formats: PEs * lanes / cycles of a lane step (a fusing
        multiplier has more lanes for narrow operands, a bit-serial one more cycles for wide ones)
    utilization : float from 0 to 1, macs / (peak_macs_per_cycle * core_cycles)
    mismatches : output codes that differ from the trace's expected ones; None: it has none
    verified : output codes that differ from the independent integer oracle; None: not asked
    rounding, rounding_requested : the requantization rule of the silicon, and the one that the trace asks for
        (accelsim.rounding); None: raw accumulators leave
    latency_us : float, cycles at the clock, microseconds, of the whole batch
    energy_pj : float, pJ by component, of the whole batch; `total_energy_pj` is their sum
    activity : toggles and zero operands; None: not asked for, or an operator of the vector unit
    data_aware_energy_pj : float, pJ by component, of the same work, priced by its activity; None as above
    overflow : ints, additions that did not fit (psum, accumulator), and outputs that were clamped
    accuracy : distance from the float reference, `sqnr_db` (float, dB) among it; None: the trace has none
    fake_quant : distance from simulated quantization in float, in output steps
    actions : what the hardware did, counted (accelsim.actions)
    output_digest : 16 hex digits over the shape and the values of the output codes, and of their block scales
    output_codes : integers, the output tensor, read-only; None in a report read from JSON, and where the run kept none
    output_block_scales : integers, one a block of the last axis, where the output's format has blocks; else None

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> layer = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), trace).layer("conv1")
    >>> layer.op, layer.macs, layer.output_codes.shape  # 4 x 4 outputs in 16 channels, 9 products each
    ('conv2d', 2304, (1, 4, 4, 16))
    >>> layer.total_cycles == layer.cycles["load"] + layer.cycles["fill"] + layer.cycles["compute"] + sum(
    ...     layer.cycles[cause] for cause in ("drain", "ppu", "vector", "dram", "dma", "buffer", "sync"))
    True
    >>> round(layer.energy_pj["mac"] / layer.macs, 3)  # pJ: 8-bit products, and their sums
    0.266
    >>> sum(layer.energy_pj.values()) == layer.total_energy_pj
    True
    >>> layer.overflow["accumulator"].count, layer.overflow["accumulator"].sufficient_bits
    (0, 17)
    >>> layer.sqnr_db > 40  # dB, against the float network
    True
    """

    DERIVED: ClassVar = ("total_cycles", "total_energy_pj", "sqnr_db")

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
    utilization: float
    latency_us: float
    energy_pj: ComponentEnergy
    overflow: OverflowReport
    mismatches: int | None = None
    verified: int | None = None
    accuracy: LayerAccuracy | None = None
    fake_quant: FakeQuantDistance | None = None
    rounding: str | None = None
    rounding_requested: str | None = None
    activity: Activity | None = None
    data_aware_energy_pj: ComponentEnergy | None = None
    actions: Actions
    output_digest: str
    output_codes: IntArray | None = field(default=None, compare=False, metadata={"json": False})
    output_block_scales: IntArray | None = field(default=None, compare=False, metadata={"json": False})

    @classmethod
    def build(
        cls,
        *,
        name: str,
        op: str,
        shape: GemmShape,
        macs: int,
        input_format: str,
        weight_format: str,
        output_format: str,
        cycles: CycleCounts,
        peak_macs_per_cycle: float,
        clock_mhz: float,
        actions: Actions,
        energy: EnergyBreakdown,
        overflow: OverflowReport,
        output_codes: IntArray,
        output_block_scales: IntArray | None = None,
        mismatches: int | None = None,
        verified: int | None = None,
        accuracy: LayerAccuracy | None = None,
        fake_quant: FakeQuantDistance | None = None,
        rounding: str | None = None,
        rounding_requested: str | None = None,
        activity: Activity | None = None,
        data_aware_energy: EnergyBreakdown | None = None,
        core_cycles: int | None = None,
    ) -> LayerReport:
        """Return the report of one layer; utilization, latency and digest follow from the arguments.

        core_cycles : None: one core, `cycles.total`
        """
        spent = cycles.total if core_cycles is None else core_cycles
        return cls(
            name=name,
            op=op,
            shape=shape,
            macs=macs,
            input_format=input_format,
            weight_format=weight_format,
            output_format=output_format,
            cycles=cycles,
            core_cycles=spent,
            peak_macs_per_cycle=float(peak_macs_per_cycle),
            utilization=macs / (peak_macs_per_cycle * spent) if spent else 0.0,
            latency_us=cycles.total / clock_mhz,
            energy_pj=energy.by_component,
            overflow=overflow,
            mismatches=mismatches,
            verified=verified,
            accuracy=accuracy,
            fake_quant=fake_quant,
            rounding=rounding,
            rounding_requested=rounding_requested,
            activity=activity,
            data_aware_energy_pj=None if data_aware_energy is None else data_aware_energy.by_component,
            actions=actions,
            output_digest=output_digest(output_codes, output_block_scales),
            output_codes=_read_only(output_codes),
            output_block_scales=None if output_block_scales is None else _read_only(output_block_scales),
        )

    @property
    def total_cycles(self) -> int:
        return self.cycles.total

    @property
    def total_energy_pj(self) -> float:
        return self.energy_pj.total_pj

    @property
    def sqnr_db(self) -> float | None:
        """SQNR against the float reference, or None where the trace has none."""
        return None if self.accuracy is None else self.accuracy.sqnr_db

    def __repr__(self) -> str:
        return f"LayerReport({self.name!r}, {self.op}, {self.total_cycles:,} cycles, {self.total_energy_pj:.6g} pJ)"


def _read_only(array: IntArray) -> IntArray:
    view = array.view()
    view.flags.writeable = False
    return view


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
