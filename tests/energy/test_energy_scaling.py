"""Scaling between nodes: the published law, only where it is asked for, and never of DRAM."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.energy.scaling import (
    AREA_FROM_45,
    ENERGY_COEFFICIENTS,
    area_factor,
    energy_factor,
    scaled,
    scaling_note,
)
from accelsim.energy.table import load_table
from accelsim.errors import EnergyTableError

nodes = st.sampled_from(sorted(ENERGY_COEFFICIENTS))
voltages = st.floats(0.6, 1.3)


# By a pocket calculator from a V^2 + b V + c. 45 nm, 0.9 V: 1.103 x 0.81 - 0.362 x 0.9 + 0.2767 = 0.84433.
@pytest.mark.parametrize(
    ("source", "target", "factor"),
    [
        ((45, 0.9), (7, 0.75), 0.0561425 / 0.84433),  # 0.1776 x 0.5625 - 0.09097 x 0.75 + 0.02447
        ((45, 0.9), (32, 0.9), 0.541209 / 0.84433),
        ((45, 1.1), (45, 0.9), 0.84433 / 1.21313),
        ((65, 1.0), (45, 0.9), 0.84433 / 1.332),
        ((45, 0.9), (14, 0.8), 0.096222 / 0.84433),
    ],
)
def test_the_law_by_hand(source, target, factor):
    assert energy_factor(*source, *target) == pytest.approx(factor, rel=1e-6)


@given(nodes, voltages, nodes, voltages, nodes, voltages)
def test_two_steps_are_one(one, at_one, two, at_two, three, at_three):
    step_by_step = energy_factor(one, at_one, two, at_two) * energy_factor(two, at_two, three, at_three)
    assert step_by_step == pytest.approx(energy_factor(one, at_one, three, at_three), rel=1e-12)


@given(nodes, voltages, st.floats(0.001, 0.1))
def test_a_higher_voltage_never_costs_less(node, voltage, more):
    assert energy_factor(node, voltage, node, voltage + more) > 1


def test_smaller_nodes_cost_less_energy_and_area_at_one_voltage():
    shrinking = sorted(ENERGY_COEFFICIENTS, reverse=True)
    energies = [energy_factor(45, 0.9, node, 0.9) for node in shrinking]
    assert energies == sorted(energies, reverse=True)
    areas = [area_factor(45, node) for node in shrinking]
    assert areas == sorted(areas, reverse=True)
    assert set(AREA_FROM_45) == set(ENERGY_COEFFICIENTS)
    assert area_factor(65, 7) == pytest.approx(0.059 / 1.5)


def test_every_price_but_drams_and_shares_is_scaled():
    table = load_table("horowitz45")
    other = scaled(table, 7, 0.75)
    factor = energy_factor(45, 0.9, 7, 0.75)
    assert other.price_pj("mult", (8, 8)) == pytest.approx(0.2 * factor)
    assert other.price_pj("sram_read", (8192,)) == pytest.approx(0.15625 * factor)
    assert other.price_pj("leakage_per_pe_cycle", (500_000_000,)) == pytest.approx(0.0459 * factor)
    for operation in ("dram_read_ddr3", "dram_write_lpddr4", "mult_zero"):
        assert other.price_pj(operation) == table.price_pj(operation)
    assert other.price_pj("mult_held", (8,)) == table.price_pj("mult_held", (8,))
    assert (other.name, other.node_nm, other.voltage) == ("horowitz45 scaled to 7 nm, 0.75 V", 7, 0.75)
    assert other.digest != table.digest
    assert table.price_pj("mult", (8, 8)) == pytest.approx(0.2)  # never in place


def test_a_table_scaled_twice_is_scaled_once():
    table = load_table("horowitz45")
    assert scaled(scaled(table, 16, 0.8), 7, 0.75).price_pj("add", (32,)) == pytest.approx(
        scaled(table, 7, 0.75).price_pj("add", (32,))
    )


def test_the_note_names_law_factor_and_what_stays():
    assert scaling_note(load_table("horowitz45"), 7, 0.75) == (
        "energy: prices of horowitz45 (45 nm, 0.9 V) times 0.06649 for 7 nm, 0.75 V, by the law of Stillmaker and Baas "
        "(2017), which scales gates, not wires and SRAM periphery; leakage by the same factor, DRAM by none"
    )


@pytest.mark.parametrize(
    ("table", "node", "voltage", "message"),
    [
        (
            "horowitz45",
            22,
            0.8,
            "22 nm has no scaling coefficients; use one of 7, 10, 14, 16, 20, 32, 45, 65, 90, 130 nm",
        ),
        ("horowitz45", 65, 0.5, "0.5 V is outside the scaling law at 65 nm; use 0.59 to 1.4 V"),
        ("horowitz45", 7, 1.5, "1.5 V is outside the scaling law at 7 nm; use 0.26 to 1.4 V"),
        (
            "tpuv4i_7nm",
            16,
            0.8,
            "energy table 'tpuv4i_7nm' does not say its voltage, from which to scale; write voltage: into it, or leave "
            "out energy.scale_to",
        ),
        (
            "eyeriss65",
            7,
            0.75,
            "energy table 'eyeriss65' has relative prices, which belong to no node; leave out energy.scale_to",
        ),
    ],
)
def test_what_cannot_be_scaled_is_refused(table, node, voltage, message):
    with pytest.raises(EnergyTableError) as caught:
        scaled(load_table(table), node, voltage)
    assert str(caught.value) == message


def test_a_table_without_a_node_is_refused():
    table = replace(load_table("horowitz45"), node_nm=None, voltage=None)
    with pytest.raises(EnergyTableError, match="does not say its node_nm and voltage, from which to scale"):
        scaled(table, 7, 0.75)
