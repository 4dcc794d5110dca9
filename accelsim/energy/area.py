"""Area of a machine by component: modelled at 45 nm, from synthesis and published figures (docs/energy.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

from accelsim.config.model import HardwareConfig
from accelsim.energy.area_laws import AreaTable, load_area_table
from accelsim.energy.area_parts import Circuit, circuits

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

    parts : what the machine is made of
    notes : what to know before comparing, as sentences
    """

    name: str
    technology: str
    parts: tuple[AreaPart, ...]
    notes: tuple[str, ...]

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
    def provenance(self) -> dict[str, tuple[str, ...]]:
        """What the area of each component that the machine has rests on: "mark: source", each once."""
        found: dict[str, dict[str, None]] = {}
        for part in self.parts:
            found.setdefault(part.component, {})[f"{part.mark}: {part.source}"] = None
        return {name: tuple(found[name]) for name in AREA_COMPONENTS if name in found}


def area_report(config: HardwareConfig, *, exponent_spans: tuple[int, int] = (0, 0)) -> AreaReport:
    """Return the area of the machine that `config` describes, in um2 at 45 nm.

    A function of the hardware, and of the formats that it is built for. For comparing machines with one another:
    synthesis without a clock to meet is a lower bound for real designs, and nothing stands here for control and wires.

    exponent_spans : by how much the exponents of activations and of weights differ within the formats that a machine
        with a float_unit and ``align_bits: null`` is built for (``GemmOperands.exponent_spans``); the configuration
        does not say it. (0, 0): integers, and blocks of integers (MXINT8)

    Raises ValueError for a negative span, or spans without a float_unit.

    >>> from accelsim.config.model import Array, HardwareConfig
    >>> one = HardwareConfig(name="one PE", clock_mhz=500.0, array=Array(rows=1, cols=1, dataflow="os"))
    >>> round(area_report(one).by_component_um2["multiplier"], 1)  # 8 x 8 bits
    292.7
    """
    if min(exponent_spans) < 0 or (any(exponent_spans) and config.array.float_unit is None):
        raise ValueError(f"exponent_spans={exponent_spans}: spans are not negative, and need an array.float_unit")
    table = load_area_table()
    parts = []
    for circuit in circuits(config, exponent_spans):
        law = table[circuit.law]
        um2 = table.um2(circuit.law, *circuit.params)
        what = f"{circuit.what}, {_size(circuit)}" if circuit.params else circuit.what
        parts.append(AreaPart(circuit.component, what, circuit.count, um2, law.mark, law.source))
    return AreaReport(config.name, table.technology, tuple(parts), _notes(config, table, exponent_spans))


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
