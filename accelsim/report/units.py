"""How amounts are put into words: the unit that suits them, digits, and what stands for an unknown one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

UNITS_PJ: Mapping[str, float] = {"pJ": 1.0, "nJ": 1e3, "µJ": 1e6, "mJ": 1e9, "J": 1e12}
UNITS_RELATIVE: Mapping[str, float] = {"relative": 1.0, "10^6 relative": 1e6}
UNITS_US: Mapping[str, float] = {"ns": 1e-3, "µs": 1.0, "ms": 1e3, "s": 1e6}
AREA_LAWS_NODE_NM = 45
"""Where areas are not scaled (accelsim/energy/areas)."""


def energy_units(energy_unit: str) -> Mapping[str, float]:
    """Return the units that a report's energies may be shown in: name, and size in the report's own ("pJ" or other)."""
    return UNITS_RELATIVE if energy_unit == "relative" else UNITS_PJ


def unit_for(values: Iterable[float], units: Mapping[str, float]) -> tuple[str, float]:
    """Return the unit in which the largest value has up to four digits before the point, and its size.

    >>> unit_for([12.0, 34_000.0], UNITS_PJ)
    ('nJ', 1000.0)
    """
    largest = max(values, default=0.0)
    for name, size in units.items():
        if largest < 10_000 * size:
            return name, size
    return list(units.items())[-1]


def amount(value: float) -> str:
    """Return a number with two digits behind the point; a small one is never shown as 0."""
    return "<0.01" if 0 < value < 0.005 else f"{value:,.2f}"


def area_node(node_nm: int) -> str:
    """Return the node of an area in words.

    >>> area_node(45), area_node(7)
    ('45 nm', '7 nm, scaled from 45 nm')
    """
    return f"{node_nm} nm" if node_nm == AREA_LAWS_NODE_NM else f"{node_nm} nm, scaled from {AREA_LAWS_NODE_NM} nm"


def count_or_dash(number: int | None) -> str:
    """Return a count, "-" where it is not known."""
    return "-" if number is None else f"{number:,}"


def decibel(sqnr_db: float | None) -> str:
    """Return an SQNR in dB, "-" where it is not known."""
    if sqnr_db is None:
        return "-"
    return f"{sqnr_db:.1f}" if math.isfinite(sqnr_db) else str(sqnr_db)
