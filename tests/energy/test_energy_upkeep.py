"""What a machine costs by being there, whatever it computes."""

import pytest

from accelsim.actions import Action
from accelsim.config.model import Array, HardwareConfig
from accelsim.energy.upkeep import upkeep_actions

MACHINE = HardwareConfig(name="m", clock_mhz=500.0, array=Array(rows=3, cols=5, dataflow="ws"))


def test_every_pe_leaks_in_every_cycle_and_the_sequencer_rests_with_the_array():
    upkeep = upkeep_actions(MACHINE, 100, 60)
    assert upkeep[Action("leakage", "leakage_per_pe_cycle")] == 1500
    assert upkeep[Action("control", "array_cycle")] == 60


def test_upkeep_of_two_spans_adds_up():
    assert upkeep_actions(MACHINE, 7, 3) + upkeep_actions(MACHINE, 5, 5) == upkeep_actions(MACHINE, 12, 8)


@pytest.mark.parametrize(("total", "busy"), [(5, 6), (5, -1)])
def test_an_array_is_busy_in_some_of_the_cycles(total, busy):
    with pytest.raises(ValueError, match=f"busy_cycles={busy} must be between 0 and total_cycles=5"):
        upkeep_actions(MACHINE, total, busy)
