"""The account: what was counted, times what it costs, by component.

Energies are multiples of 2**-10 pJ (about a femtojoule): each row of the account is rounded to that grid once. Sums of
such numbers are exact in float64 up to 2**43 pJ (8.8 J), so rows add up to components, components to layers and layers
to the run, exactly and in any order. Larger totals are still correct to the last bit of a float (``math.fsum``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from accelsim.actions import Actions
from accelsim.energy.operations import OPERATIONS
from accelsim.energy.table import EnergyTable
from accelsim.errors import EnergyTableError, problem_list

COMPONENTS = MappingProxyType(
    {
        "mac": "multipliers and adder trees of the PEs",
        "register": "operand and psum registers of the PE array",
        "accumulator": "additions below the array",
        "scale_unit": "products, exponents and shifts of block scales and of sums of floats",
        "decoder": "look-ups of codebook weights",
        "ppu": "requantization, activation, clamp, output format",
        "vector": "operators of the vector unit",
        "buffer": "on-chip SRAM, read and written",
        "dram": "off-chip memory, read and written",
        "control": "sequencing of the array",
        "leakage": "static power of PEs, buffers, PPU and vector unit, idle ones included",
    }
)
GRID_PJ = 2.0**-10


def on_grid(energy_pj: float) -> float:
    """Return `energy_pj` rounded to the nearest multiple of 2**-10 pJ."""
    return round(energy_pj / GRID_PJ) * GRID_PJ


class ComponentEnergy(Mapping[str, float]):
    """Energy in pJ of every component, in the order of `COMPONENTS`; frozen, hashable, and it can be added up.

    Raises ValueError where a component is unknown, or an energy is negative or not finite.
    """

    __slots__ = ("_energies",)

    def __init__(self, energies: Mapping[str, float] | None = None) -> None:
        given = dict(energies or {})
        unknown = [name for name in given if name not in COMPONENTS]
        if unknown:
            raise ValueError(f"unknown component {unknown[0]!r}; use one of {', '.join(COMPONENTS)}")
        wrong = [name for name, value in given.items() if not (math.isfinite(value) and value >= 0)]
        if wrong:
            raise ValueError(f"energy of {wrong[0]} is {given[wrong[0]]!r} pJ; it must be finite and not negative")
        self._energies = tuple(float(given.get(name, 0.0)) for name in COMPONENTS)

    def __getitem__(self, component: str) -> float:
        for name, energy in zip(COMPONENTS, self._energies, strict=True):
            if name == component:
                return energy
        raise KeyError(component)

    def __iter__(self) -> Iterator[str]:
        return iter(COMPONENTS)

    def __len__(self) -> int:
        return len(COMPONENTS)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ComponentEnergy):
            return self._energies == other._energies
        return Mapping.__eq__(self, other)

    def __hash__(self) -> int:
        return hash(self._energies)

    def __repr__(self) -> str:
        return f"ComponentEnergy({dict(self)!r})"

    @property
    def total_pj(self) -> float:
        return math.fsum(self._energies)

    @staticmethod
    def sum(parts: Iterable[ComponentEnergy]) -> ComponentEnergy:
        """Return the sum by component."""
        listed = list(parts)
        return ComponentEnergy({name: math.fsum(part[name] for part in listed) for name in COMPONENTS})


@dataclass(frozen=True)
class EnergyRow:
    """One line of the account: `count` events (or bits) at `price_pj` each come to `energy_pj`."""

    component: str
    operation: str
    params: tuple[int, ...]
    count: int
    price_pj: float
    energy_pj: float


@dataclass(frozen=True)
class EnergyBreakdown:
    """The account of some work: its rows, and their sums."""

    rows: tuple[EnergyRow, ...]

    @property
    def by_component(self) -> ComponentEnergy:
        return ComponentEnergy(
            {name: math.fsum(row.energy_pj for row in self.rows if row.component == name) for name in COMPONENTS}
        )

    @property
    def total_pj(self) -> float:
        return math.fsum(row.energy_pj for row in self.rows)


def energy_account(actions: Actions, table: EnergyTable) -> EnergyBreakdown:
    """Price every action that was counted.

    Raises EnergyTableError where the table has no price for an action, all such actions at once; ValueError where an
    action belongs to no component.

    >>> from accelsim.actions import Action
    >>> from accelsim.energy.table import load_table
    >>> work = Actions({Action("mac", "mult", (8, 8)): 10, Action("mac", "add", (32,)): 10})
    >>> round(energy_account(work, load_table("horowitz45")).by_component["mac"], 3)  # 10 x (0.2 + 0.1) pJ
    3.0
    """
    unknown = [action for action, _ in actions.items() if action.component not in COMPONENTS]
    if unknown:
        raise ValueError(f"{unknown[0]} belongs to no component; use one of {', '.join(COMPONENTS)}")
    _every_action_has_a_price(actions, table)
    rows = []
    for component in COMPONENTS:
        for action, count in actions.items():
            if action.component == component:
                price = table.price_pj(action.operation, action.params)
                rows.append(EnergyRow(*action, count, price, on_grid(count * price)))
    return EnergyBreakdown(tuple(rows))


def _every_action_has_a_price(actions: Actions, table: EnergyTable) -> None:
    missing: dict[str, int] = {}
    for action, count in actions.items():
        if action.operation not in table:
            missing[action.operation] = missing.get(action.operation, 0) + count
    problems = []
    for name, count in missing.items():
        happened = OPERATIONS[name].happened if name in OPERATIONS else "of them were counted"
        problems.append(f"no price for {name}; {count:,} {happened}")
    if problems:
        raise EnergyTableError(problem_list(f"energy table {table.name!r}", problems))
