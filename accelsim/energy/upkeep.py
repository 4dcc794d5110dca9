"""What a machine costs by being there: clocks while the array works, leakage in every cycle."""

from __future__ import annotations

from accelsim.actions import Action, Actions
from accelsim.config.model import HardwareConfig
from accelsim.energy.area import logic_um2


def upkeep_actions(config: HardwareConfig, total_cycles: int, busy_cycles: int, cores: int = 1) -> Actions:
    """Return the actions that follow from time alone.

    total_cycles : cycles that pass, stalls and idle ones included: everything leaks
    busy_cycles : those in which the array loads, fills, computes or drains: its sequencer and its clock run; in the
        others (stalls, the PPU's and the vector unit's cycles) they are gated
    cores : over which both are sums; the DRAM is one for all of them

    Raises ValueError where busy_cycles is not between 0 and total_cycles.

    >>> from accelsim.config.model import Array
    >>> machine = HardwareConfig(name="demo", clock_mhz=500.0, array=Array(rows=4, cols=4, dataflow="os"))
    >>> upkeep_actions(machine, 22, 18)[Action("leakage", "leakage_per_pe_cycle", (500_000_000,))]  # 22 x 16 PEs
    352
    """
    if not 0 <= busy_cycles <= total_cycles:
        raise ValueError(f"busy_cycles={busy_cycles} must be between 0 and total_cycles={total_cycles}")
    pes, buffers, clock_hz = config.array.rows * config.array.cols, config.buffers, round(config.clock_mhz * 1e6)
    counts = {
        Action("control", "array_cycle"): busy_cycles,
        Action("control", "clock_per_pe_cycle"): busy_cycles * pes,
        Action("leakage", "leakage_per_pe_cycle", (clock_hz,)): total_cycles * pes,
        Action("dram", "dram_standby_cycle"): total_cycles // cores,
    }
    for buffer in (buffers.weight, buffers.activation, buffers.output, buffers.accumulator):
        action = Action("leakage", "sram_leakage_cycle", (buffer.size_bytes, clock_hz, buffer.ports))
        counts[action] = counts.get(action, 0) + total_cycles  # two buffers may be alike
    for unit in ("ppu", "vector"):
        area_um2 = max(1, round(logic_um2(config, unit)))
        counts[Action("leakage", f"{unit}_leakage_cycle", (area_um2, clock_hz))] = total_cycles
    return Actions(counts)
