"""Traffic between DRAM, buffers and the array's edges, under a layer's tiling, as priced actions (docs/memory.md)."""

from __future__ import annotations

from accelsim.actions import Action, Actions
from accelsim.config.model import HardwareConfig
from accelsim.mapping.traffic import edge_bits
from accelsim.memory.contract import LayerNeeds, LayerTiling


def tile_actions(needs: LayerNeeds, tiling: LayerTiling, config: HardwareConfig, *, vector_passes: int = 0) -> Actions:
    """Return what a layer moves, in bits, and what its stationary tiles cost where they enter the array again.

    vector_passes : of an operator of the vector unit: how often all of its inputs stream through

    What comes from DRAM is written to its buffer once each time. The array reads an operand's element for each pass
    that it enters (a convolution's overlapping windows are read again for every window, and a padding pixel counts as a
    read); the vector unit reads its inputs in every pass. Outputs go through the output buffer, and from there to DRAM
    or, where they stay on chip, to the activation buffer. Parameters come with the weights and are read once.
    """
    if tiling.tiles == 0:
        return Actions()
    kind, buffers = config.dram.kind, config.buffers
    activations, weights, output = int(tiling.activation_bits.sum()), int(tiling.weight_bits.sum()), needs.output.bits
    if needs.plan is None:
        activation_reads, weight_reads = vector_passes * sum(tensor.bits for tensor in needs.inputs), 0
    else:
        activation_reads, weight_reads = edge_bits(needs.plan, tiling.entries)
    moves = [
        ("sram_write", buffers.activation, activations + (output if tiling.output_on_chip else 0)),
        ("sram_write", buffers.weight, weights),
        ("sram_read", buffers.activation, activation_reads),
        ("sram_read", buffers.weight, weight_reads + needs.parameter_bits),
        ("sram_write", buffers.output, output),
        ("sram_read", buffers.output, output),
        ("sram_read", buffers.accumulator, int(tiling.spill_bits.sum())),
        ("sram_write", buffers.accumulator, int(tiling.refill_bits.sum())),
    ]
    counts = {
        Action("dram", f"dram_read_{kind}"): tiling.dram_read_bits,
        Action("dram", f"dram_write_{kind}"): tiling.dram_write_bits,
    }
    for operation, buffer, bits in moves:  # two buffers may have one capacity: their bits add up
        action = Action("buffer", operation, (buffer.size_bytes,))
        counts[action] = counts.get(action, 0) + bits
    again = Actions() if needs.plan is None else needs.plan.entry * (tiling.entries - 1)
    return Actions(counts) + again
