"""Area of a machine by component, at the node of its energy table (docs/energy.md).

Modelled at 45 nm, from synthesis and published figures; brought to other nodes by the factors of Stillmaker and Baas,
which the report names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

from accelsim.config.model import HardwareConfig
from accelsim.energy.area_laws import AreaTable, load_area_table
from accelsim.energy.area_parts import Circuit, circuits
from accelsim.energy.scaling import AREA_FROM_45, area_factor, configured_table

AREA_LAW = "the area factors of Stillmaker and Baas (2017)"
AREA_COMPONENTS = MappingProxyType(
    {
        "multiplier": "multipliers of the PEs' lanes, of whichever kind",
        "adder_tree": "additions of the lanes' products",
        "psum_adder": "additions to the psum registers",
        "register": "operands, block scales and psums in the PEs; second sets and shadow chains",
        "scale_unit": "block scales: multipliers, exponent adders, aligning and normalizing shifters",
        "popcount": "XNOR words and their popcount trees",
        "decoder": "codebooks: tables, decoders, sums an index",
        "accumulator": "adders below the array",
        "ppu": "requantization, activation, output formats",
        "vector": "lanes of the vector unit: multiply, add, compare, look up",
        "buffer": "SRAM: bit cells and their periphery",
    }
)


@dataclass(frozen=True)
class AreaPart:
    """`count` circuits of `um2` each; `mark` and `source` say how their area is known (as in the energy tables)."""

    component: str
    what: str
    count: int
    um2: float
    mark: str
    source: str

    @property
    def total_um2(self) -> float:
        return self.count * self.um2


@dataclass(frozen=True)
class AreaReport:
    """The modelled area of a machine's logic and buffers; control, clock trees and wires are not in it.

    technology : of the figures, in words
    parts : what the machine is made of
    notes : what to know before comparing, as sentences; which law brought the figures to this node, if one did
    node_nm : of all figures here
    factor : by which the laws' figures, which are of `native_node_nm`, were multiplied to get there
    """

    name: str
    technology: str
    parts: tuple[AreaPart, ...]
    notes: tuple[str, ...]
    node_nm: int
    native_node_nm: int
    factor: float

    @property
    def by_component_um2(self) -> dict[str, float]:
        """um2 of every component, in the order of `AREA_COMPONENTS`."""
        return {
            name: math.fsum(part.total_um2 for part in self.parts if part.component == name) for name in AREA_COMPONENTS
        }

    @property
    def total_um2(self) -> float:
        return math.fsum(part.total_um2 for part in self.parts)

    @property
    def logic_um2(self) -> float:
        """All but the SRAM buffers."""
        return math.fsum(um2 for name, um2 in self.by_component_um2.items() if name != "buffer")

    @property
    def native_total_um2(self) -> float:
        """The total at the node of the laws."""
        return self.total_um2 / self.factor

    @property
    def native_logic_um2(self) -> float:
        """The logic at the node of the laws."""
        return self.logic_um2 / self.factor

    @property
    def provenance(self) -> dict[str, tuple[str, ...]]:
        """What the area of each component that the machine has rests on: "mark: source", each once."""
        found: dict[str, dict[str, None]] = {}
        for part in self.parts:
            found.setdefault(part.component, {})[f"{part.mark}: {part.source}"] = None
        return {name: tuple(found[name]) for name in AREA_COMPONENTS if name in found}


def area_report(config: HardwareConfig, *, exponent_spans: tuple[int, int] = (0, 0)) -> AreaReport:
    """Return the area of the machine that `config` describes, in um2 at the node of its energy table.

    The laws are of 45 nm; at other nodes every circuit is multiplied by `accelsim.energy.scaling.area_factor`. A table
    that names no node, or one without a factor, leaves the area at 45 nm; the notes say so.

    A function of the hardware, and of the formats that it is built for. For comparing machines with one another:
    synthesis without a clock to meet is a lower bound for real designs, and nothing stands here for control and wires.

    exponent_spans : by how much the exponents of activations and of weights differ within the formats that a machine
        with a float_unit and ``align_bits: null`` is built for (``GemmOperands.exponent_spans``); the configuration
        does not say it. (0, 0): integers, and blocks of integers (MXINT8)

    Raises ValueError for a negative span, or spans without a float_unit; EnergyTableError for an energy table that
    cannot be read.

    >>> from accelsim.config.model import Array, HardwareConfig
    >>> one = HardwareConfig(name="one PE", clock_mhz=500.0, array=Array(rows=1, cols=1, dataflow="os"))
    >>> round(area_report(one).by_component_um2["multiplier"], 1)  # 8 x 8 bits
    292.7
    """
    if min(exponent_spans) < 0 or (any(exponent_spans) and config.array.float_unit is None):
        raise ValueError(f"exponent_spans={exponent_spans}: spans are not negative, and need an array.float_unit")
    table = load_area_table()
    node_nm, factor, scaling = _node(config, table)
    scaled = f"; at {node_nm} nm {factor:.3g} times as much by {AREA_LAW}" if factor != 1 else ""
    parts = []
    for circuit in circuits(config, exponent_spans):
        law = table[circuit.law]
        um2 = table.um2(circuit.law, *circuit.params)
        what = f"{circuit.what}, {_size(circuit)}" if circuit.params else circuit.what
        parts.append(
            AreaPart(
                circuit.component, what, circuit.count * config.cores.count, um2 * factor, law.mark, law.source + scaled
            )
        )
    technology = table.technology if factor == 1 else f"{node_nm} nm, scaled from {table.technology}"
    notes = scaling + _notes(config, table, exponent_spans)
    if config.cores.count > 1:
        notes += (f"area and peak rate are those of all {config.cores.count} cores, buffers included",)
    return AreaReport(config.name, technology, tuple(parts), notes, node_nm, table.node_nm, factor)


def logic_um2(config: HardwareConfig, component: str) -> float:
    """Return the area of one component at the node of the laws, without bringing it to the energy table's.

    >>> from accelsim.config.model import Array, HardwareConfig, Ppu
    >>> config = HardwareConfig(name="m", clock_mhz=500.0, array=Array(rows=1, cols=1, dataflow="os"), ppu=Ppu(lanes=1))
    >>> round(logic_um2(config, "ppu"), 1)  # 189.3 um2 a bit of a 32-bit multiplier, and 478.7
    6536.3
    """
    table = load_area_table()
    found = [circuit for circuit in circuits(config, (0, 0)) if circuit.component == component]
    return math.fsum(circuit.count * table.um2(circuit.law, *circuit.params) for circuit in found)


def _node(config: HardwareConfig, table: AreaTable) -> tuple[int, float, tuple[str, ...]]:
    """Return the node of the energy table, the factor that brings areas there, and what a report says about it."""
    prices, here = configured_table(config), table.node_nm
    if prices.node_nm is None:
        return here, 1.0, (f"area is at {here} nm: energy table {prices.name!r} names no node_nm",)
    if prices.node_nm not in AREA_FROM_45:
        known = ", ".join(str(node) for node in sorted(AREA_FROM_45))
        why = f"no area factor is known for {prices.node_nm} nm, the node of energy table {prices.name!r}"
        return here, 1.0, (f"area is at {here} nm: {why} (known: {known} nm)",)
    if prices.node_nm == here:
        return here, 1.0, ()
    factor = area_factor(here, prices.node_nm)
    note = (
        f"area is at {prices.node_nm} nm, the node of energy table {prices.name!r}: {factor:.3g} times that of {here} "
        f"nm by {AREA_LAW}, which are those of gates; SRAM and wires shrink less"
    )
    return prices.node_nm, factor, (note,)


def _size(circuit: Circuit) -> str:
    if circuit.law == "sram":
        bits, ports = circuit.params
        return f"{bits} bits" + (f", {ports} ports" if ports > 1 else "")
    return f"{' x '.join(map(str, circuit.params))} bits"


def _notes(config: HardwareConfig, table: AreaTable, exponent_spans: tuple[int, int]) -> tuple[str, ...]:
    array = config.array
    notes = [
        f"area is modelled: {table.technology}, synthesis without a clock to meet, a lower bound",
        "area of SRAM buffers is an assumption: a published bit cell, and cells on 65 % of a macro's area",
        "area leaves out control, clock trees and wires",
    ]
    if array.scale_unit is not None:
        notes.append("area has one scale unit a PE: blocks of fewer elements than lanes would need more")
    if any(exponent_spans):
        notes.append(
            f"area has shifters for lanes whose exponents differ by up to {exponent_spans[0]} (activations) and "
            f"{exponent_spans[1]} (weights), the widest formats of this run"
        )
    if array.float_unit is not None:
        notes.append("area of float32 adders and multipliers is published of timed designs, not a lower bound")
        notes.append("area leaves out products of block scales' significands (NVFP4)")
        if array.float_unit.align_bits is None and not any(exponent_spans):
            notes.append("area has no shifters for elements with exponents (MXFP): the configuration names no format")
    if array.multiplier.kind == "fusion":
        notes.append("area of fusing multipliers is fitted to Bit Fusion at 8 bits; 12 % low at 4, 19 % high at 16")
    if array.multiplier.kind == "bit_serial":
        notes.append("area of bit-serial multipliers is put together from gates; no published unit stands behind it")
    return tuple(notes)
