"""What a machine costs by being there, whatever it computes."""

import pytest

from accelsim.actions import Action
from accelsim.config.model import Array, HardwareConfig
from accelsim.energy.account import energy_account
from accelsim.energy.table import load_table
from accelsim.energy.upkeep import upkeep_actions

MACHINE = HardwareConfig(name="m", clock_mhz=500.0, array=Array(rows=3, cols=5, dataflow="ws"))


def test_every_pe_leaks_in_every_cycle_and_the_sequencer_rests_with_the_array():
    upkeep = upkeep_actions(MACHINE, 100, 60)
    assert upkeep[Action("leakage", "leakage_per_pe_cycle", (500_000_000,))] == 1500
    assert upkeep[Action("control", "array_cycle")] == 60
    assert upkeep[Action("control", "clock_per_pe_cycle")] == 900
    assert upkeep[Action("dram", "dram_standby_cycle")] == 100


def test_every_buffer_leaks_by_its_capacity():
    upkeep = upkeep_actions(MACHINE, 100, 0)
    assert upkeep[Action("leakage", "sram_leakage_cycle", (262144, 500_000_000, 1))] == 200  # weights and activations
    assert upkeep[Action("leakage", "sram_leakage_cycle", (65536, 500_000_000, 1))] == 200  # outputs and accumulators


def test_leakage_is_a_power_the_clock_changes_nothing_of_it():
    table = load_table("horowitz45")

    def leaked(clock_mhz, cycles):
        machine = MACHINE.model_copy(update={"clock_mhz": clock_mhz})
        return energy_account(upkeep_actions(machine, cycles, 0), table).by_component["leakage"]

    # A microsecond: 15 PEs of 22.95 uW and 640 KB at 0.67 uW are 344.25 + 428.8 pJ.
    assert leaked(500.0, 500) == pytest.approx(773.05, abs=2**-9)
    assert leaked(250.0, 250) == leaked(1000.0, 1000) == leaked(500.0, 500)


def test_ppu_and_vector_unit_are_counted_and_cost_nothing_until_a_table_says_so(tmp_path, project_root):
    upkeep = upkeep_actions(MACHINE, 100, 60)
    ppu = Action("leakage", "ppu_leakage_cycle", (104581, 500_000_000))
    vector = Action("leakage", "vector_leakage_cycle", (111843, 500_000_000))
    assert upkeep[ppu] == upkeep[vector] == 100  # areas by hand: test_energy_example.py
    plain = load_table("horowitz45")
    for operation in ("ppu_leakage_cycle", "vector_leakage_cycle"):
        assert plain.price_pj(operation, (1000, 500_000_000)) == 0
        assert "0.0334 uW a um2" in plain[operation].reason
    # The price that docs/energy.md derives: 22.95 uW on 687.6 um2.
    text = (project_root / "accelsim" / "energy" / "tables" / "horowitz45.yaml").read_text()
    start, end = text.index("  ppu_leakage_cycle: &not"), text.index("  vector_leakage_cycle: *not")
    charged = """  ppu_leakage_cycle: &not_published
    form: power_per_area
    coefficients: {power_uw: 0.0334}
    unit: pJ
    mark: structural
    source: as dense as the PE
"""
    path = tmp_path / "mine.yaml"
    path.write_text(text[:start] + charged + text[end:])
    mine = load_table(path)
    assert mine.price_pj(*ppu[1:]) * 500 == pytest.approx(3493, rel=1e-4)  # uW at 500 MHz
    assert mine.price_pj("vector_leakage_cycle", (111843, 500_000_000)) * 500 == pytest.approx(3735.6, rel=1e-4)
    more = energy_account(upkeep, mine).by_component["leakage"] - energy_account(upkeep, plain).by_component["leakage"]
    assert more == pytest.approx(100 * (104581 + 111843) * 0.0334 / 500, abs=2**-9)


def test_upkeep_of_two_spans_adds_up():
    assert upkeep_actions(MACHINE, 7, 3) + upkeep_actions(MACHINE, 5, 5) == upkeep_actions(MACHINE, 12, 8)


@pytest.mark.parametrize(("total", "busy"), [(5, 6), (5, -1)])
def test_an_array_is_busy_in_some_of_the_cycles(total, busy):
    with pytest.raises(ValueError, match=f"busy_cycles={busy} must be between 0 and total_cycles=5"):
        upkeep_actions(MACHINE, total, busy)
