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


def test_upkeep_of_two_spans_adds_up():
    assert upkeep_actions(MACHINE, 7, 3) + upkeep_actions(MACHINE, 5, 5) == upkeep_actions(MACHINE, 12, 8)


@pytest.mark.parametrize(("total", "busy"), [(5, 6), (5, -1)])
def test_an_array_is_busy_in_some_of_the_cycles(total, busy):
    with pytest.raises(ValueError, match=f"busy_cycles={busy} must be between 0 and total_cycles=5"):
        upkeep_actions(MACHINE, total, busy)
