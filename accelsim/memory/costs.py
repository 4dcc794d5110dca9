"""What a layer costs around the arrays once it is cut into tiles and dealt out to cores: traffic, and what entering the
array again takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from accelsim.actions import Action, Actions
from accelsim.config.model import HardwareConfig
from accelsim.mapping.traffic import edge_bits, lookup_actions
from accelsim.memory.contract import LayerTime
from accelsim.memory.network import Share


def array_actions(shares: Sequence[Share]) -> Actions:
    """Return what the arrays of all cores do: each share's plan, stationary operands that enter again included."""
    total = Actions()
    for share in shares:
        if share.needs.plan is not None:
            total += share.needs.plan.actions + share.needs.plan.entry * (share.tiling.entries - 1)
    return total


def traffic_actions(shares: Sequence[Share], config: HardwareConfig) -> Actions:
    """Return buffer and DRAM traffic of a layer's tiles on all cores, in bits, and look-ups at the arrays' edges.

    What DRAM gives is written into the buffers and what it takes is read from them, unfinished sums included. The
    array reads an operand from its buffer once for each pass that uses it (overlapping windows of a convolution each
    time, and a padding pixel too: its code comes from the same port), the vector unit in each of its passes; outputs
    pass the output buffer, and those that stay on chip are written into the activation buffer.
    """
    counts: Counter[Action] = Counter()
    lookups = Actions()
    buffers = config.buffers

    def moved(operation: str, capacity: int, bits: int) -> None:
        counts[Action("buffer", operation, (capacity,))] += bits

    for share in shares:
        needs, tiling = share.needs, share.tiling
        if not tiling.tiles:
            continue
        loaded, weights = int(tiling.activation_bits.sum()), int(tiling.weight_bits.sum())
        spilled, refilled = int(tiling.spill_bits.sum()), int(tiling.refill_bits.sum())
        counts[Action("dram", f"dram_read_{config.dram.kind}")] += tiling.dram_read_bits
        counts[Action("dram", f"dram_write_{config.dram.kind}")] += tiling.dram_write_bits
        moved("sram_write", buffers.activation.size_bytes, loaded)
        moved("sram_write", buffers.weight.size_bytes, weights)
        moved("sram_write", buffers.accumulator.size_bytes, refilled)
        moved("sram_read", buffers.accumulator.size_bytes, spilled)
        moved("sram_write", buffers.output.size_bytes, needs.output.bits)
        moved("sram_read", buffers.output.size_bytes, needs.output.bits)
        if tiling.output_on_chip:
            moved("sram_write", buffers.activation.size_bytes, needs.output.bits)
        if needs.plan is None:
            inputs = sum(tensor.bits for tensor in needs.inputs)
            moved("sram_read", buffers.activation.size_bytes, inputs * needs.vector_passes)
            continue
        activation_reads, weight_reads = edge_bits(needs.plan)
        activation_entries, weight_entries = share.entries
        moved("sram_read", buffers.activation.size_bytes, activation_reads * activation_entries)
        moved("sram_read", buffers.weight.size_bytes, weight_reads * weight_entries + needs.parameter_bits)
        lookups += lookup_actions(needs.plan) * weight_entries
    return Actions(counts) + lookups


def upkeep_cycles(time: LayerTime) -> tuple[int, int]:
    """Return the cycles that pass on all cores while a layer runs, and those in which their arrays' clocks run."""
    return len(time.cores) * (time.end_cycle - time.start_cycle), sum(core.array for core in time.cores)
