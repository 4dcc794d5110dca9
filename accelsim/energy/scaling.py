"""Energy and area from one technology node to another, by the law of Stillmaker and Baas; only where it is asked for.

A. Stillmaker and B. Baas, "Scaling equations for the accurate prediction of CMOS device performance from 180 nm to
7 nm", Integration 58 (2017), 74-81, doi 10.1016/j.vlsi.2017.02.002: the energy of a gate at a node goes with
a V^2 + b V + c. It scales gates, not wires and periphery: against Google's figures of 45 and 7 nm it is four to eight
times too low for arithmetic and more for SRAM (docs/energy.md).
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType

from accelsim.config.model import HardwareConfig
from accelsim.energy.table import EnergyTable, load_table
from accelsim.errors import EnergyTableError

ENERGY_COEFFICIENTS = MappingProxyType(
    {
        130: (7.171, -6.709, 2.904),
        90: (4.762, -4.781, 2.092),
        65: (3.755, -4.398, 1.975),
        45: (1.103, -0.362, 0.2767),
        32: (0.9559, -0.7823, 0.471),
        20: (0.373, -0.1582, 0.04104),
        16: (0.2958, -0.1241, 0.03024),
        14: (0.2363, -0.09675, 0.02239),
        10: (0.2068, -0.09311, 0.02375),
        7: (0.1776, -0.09097, 0.02447),
    }
)
"""{node in nm: (a, b, c)}, as two published tools have them."""
AREA_FROM_45 = MappingProxyType(
    {130: 6.4, 90: 2.8, 65: 1.5, 45: 1.0, 32: 0.46, 20: 0.21, 16: 0.19, 14: 0.17, 10: 0.1, 7: 0.059}
)
"""{node in nm: area of a gate in areas at 45 nm}."""
HIGHEST_VOLTAGE = 1.4


def configured_table(config: HardwareConfig) -> EnergyTable:
    """Return the energy table that a configuration asks for, scaled if it says so. Raises EnergyTableError."""
    table, to = load_table(config.energy.table), config.energy.scale_to
    return table if to is None else scaled(table, to.node_nm, to.voltage)


def table_notes(config: HardwareConfig) -> tuple[str, ...]:
    """Return what a report must say of the configured table: that it was scaled and how, or that it is relative."""
    table, to = load_table(config.energy.table), config.energy.scale_to
    if to is not None:
        return (scaling_note(table, to.node_nm, to.voltage),)
    if table.unit == "relative":
        return (f"energy: prices of {table.name} are relative: no number of energy here is in picojoules",)
    return ()


def energy_factor(node_nm: int, voltage: float, to_node_nm: int, to_voltage: float) -> float:
    """Return by what the energy of a gate is multiplied from one node and supply to another.

    Raises EnergyTableError for a node without coefficients (nothing is interpolated between nodes: two fits do not meet
    half-way), and for a voltage at which a node's fit falls as the voltage rises, or above 1.4 V.

    >>> round(energy_factor(45, 0.9, 16, 0.8), 3)
    0.142
    """
    return _relative_energy(to_node_nm, to_voltage) / _relative_energy(node_nm, voltage)


def area_factor(node_nm: int, to_node_nm: int) -> float:
    """Return by what the area of a gate is multiplied from one node to another. Raises EnergyTableError as above."""
    _known(node_nm)
    _known(to_node_nm)
    return AREA_FROM_45[to_node_nm] / AREA_FROM_45[node_nm]


def scaled(table: EnergyTable, to_node_nm: int, to_voltage: float) -> EnergyTable:
    """Return the table at another node: every price but DRAM's is multiplied by `energy_factor`.

    Leakage is multiplied too, though the law is one of switching. The name tells: "horowitz45 scaled to 7 nm, 0.75 V".

    Raises EnergyTableError where the table names no node and voltage, or is relative, or as `energy_factor` does.
    """
    if table.unit == "relative":
        raise EnergyTableError(
            f"energy table {table.name!r} has relative prices, which belong to no node; leave out energy.scale_to"
        )
    missing = [name for name, value in (("node_nm", table.node_nm), ("voltage", table.voltage)) if value is None]
    if missing:
        raise EnergyTableError(
            f"energy table {table.name!r} does not say its {' and '.join(missing)}, from which to scale; write "
            f"{' and '.join(f'{name}:' for name in missing)} into it, or leave out energy.scale_to"
        )
    assert table.node_nm is not None
    assert table.voltage is not None
    factor = energy_factor(table.node_nm, table.voltage, to_node_nm, to_voltage)
    place = f"{to_node_nm} nm, {to_voltage:g} V"
    return replace(
        table,
        name=f"{table.name} scaled to {place}",
        technology=f"{place}, scaled from {table.technology}",
        node_nm=to_node_nm,
        voltage=to_voltage,
        factor=table.factor * factor,
    )


def scaling_note(table: EnergyTable, to_node_nm: int, to_voltage: float) -> str:
    """Return what a report says about a table that was scaled: the law, the factor, and what it leaves alone."""
    assert table.node_nm is not None
    assert table.voltage is not None
    factor = energy_factor(table.node_nm, table.voltage, to_node_nm, to_voltage)
    return (
        f"energy: prices of {table.name} ({table.node_nm} nm, {table.voltage:g} V) times {factor:.4g} for "
        f"{to_node_nm} nm, {to_voltage:g} V, by the law of Stillmaker and Baas (2017), which scales gates, not wires "
        f"and SRAM periphery; leakage by the same factor, DRAM by none"
    )


def _known(node_nm: int) -> tuple[float, float, float]:
    if node_nm not in ENERGY_COEFFICIENTS:
        nodes = ", ".join(str(node) for node in sorted(ENERGY_COEFFICIENTS))
        raise EnergyTableError(f"{node_nm} nm has no scaling coefficients; use one of {nodes} nm")
    return ENERGY_COEFFICIENTS[node_nm]


def _relative_energy(node_nm: int, voltage: float) -> float:
    a, b, c = _known(node_nm)
    lowest = max(-b / (2 * a), 0.0)
    if not lowest < voltage <= HIGHEST_VOLTAGE:
        least = math.ceil(lowest * 100 + 1e-9) / 100
        raise EnergyTableError(
            f"{voltage:g} V is outside the scaling law at {node_nm} nm; use {least:.2f} to {HIGHEST_VOLTAGE:g} V"
        )
    return a * voltage**2 + b * voltage + c
