"""What a layer costs around the arrays once it is cut into tiles and dealt out to cores: traffic, and what entering the
array again takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from accelsim.actions import Action, Actions
from accelsim.config.model import Buffer, HardwareConfig
from accelsim.mapping.contract import Int64
from accelsim.mapping.traffic import lookup_actions
from accelsim.memory.contract import LayerTime
from accelsim.memory.network import Share, array_bits


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

    A buffer with a ``width_bits`` moves whole words: what a tile moves lies packed, and its last word is paid for as a
    whole. (Of sums, which the arrays' own actions count, only what fills up such words is here.)
    """
    counts: Counter[Action] = Counter()
    lookups = Actions()
    buffers = config.buffers

    def moved(operation: str, buffer: Buffer, bits: Int64, times: int = 1) -> None:
        counts[Action("buffer", operation, buffer.sram)] += times * int(bits.sum() + _filling(bits, buffer))

    for share in shares:
        needs, tiling = share.needs, share.tiling
        if not tiling.tiles:
            continue
        by_array = array_bits(needs, tiling)
        counts[Action("dram", f"dram_read_{config.dram.kind}")] += tiling.dram_read_bits
        counts[Action("dram", f"dram_write_{config.dram.kind}")] += tiling.dram_write_bits
        moved("sram_write", buffers.activation, tiling.activation_bits)
        moved("sram_write", buffers.weight, tiling.weight_bits)
        moved("sram_write", buffers.accumulator, tiling.refill_bits)
        moved("sram_read", buffers.accumulator, tiling.spill_bits)
        moved("sram_write", buffers.output, by_array["output"])
        moved("sram_read", buffers.output, by_array["output"])
        if tiling.output_on_chip:
            moved("sram_write", buffers.activation, by_array["output"])
        moved("sram_read", buffers.activation, by_array["activation"], needs.vector_passes)
        if needs.plan is None:
            continue
        moved("sram_read", buffers.weight, by_array["weight"])
        for operation in ("sram_read", "sram_write"):  # half of the sums' traffic each
            filling = _filling(by_array["accumulator"] // 2, buffers.accumulator)
            counts[Action("buffer", operation, buffers.accumulator.sram)] += int(filling)
        lookups += lookup_actions(needs.plan) * share.entries[1]
    return Actions(counts) + lookups


def _filling(bits: Int64, buffer: Buffer) -> int:
    """Return by how much the last words of transfers of `bits` each exceed them; 0 where no width is given."""
    return 0 if buffer.width_bits is None else int((-bits % buffer.width_bits).sum())


def upkeep_cycles(time: LayerTime) -> tuple[int, int]:
    """Return the cycles that pass on all cores while a layer runs, and those in which their arrays' clocks run."""
    return len(time.cores) * (time.end_cycle - time.start_cycle), sum(core.array for core in time.cores)
