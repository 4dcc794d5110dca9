"""What a run found of one layer, as a frozen value; units are in the names: cycles of the array clock, pJ, us, bits.

Equality ignores the output arrays and compares their digests instead (accelsim.report.values).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Actions
from accelsim.energy.account import ComponentEnergy, EnergyBreakdown
from accelsim.engine.contract import Activity
from accelsim.mapping.contract import CycleCounts, GemmShape
from accelsim.report.findings import FakeQuantDistance, LayerAccuracy, OverflowReport

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
