"""Traffic between DRAM, buffers and the array edge, under a simple reuse model (docs/energy.md).

Every tensor of a layer crosses DRAM once, and every operand element is read from its buffer once for each pass that it
enters. The memory hierarchy will replace this model; the array's own accumulator traffic is in accelsim.mapping.tally.
"""

from __future__ import annotations

from accelsim.actions import Action, Actions
from accelsim.config.model import HardwareConfig
from accelsim.mapping.contract import LayerPlan


def traffic_actions(
    plan: LayerPlan,
    config: HardwareConfig,
    *,
    activation_bits: int,
    weight_bits: int,
    output_bits: int,
    parameter_bits: int = 0,
) -> Actions:
    """Return buffer and DRAM traffic of a layer, in bits.

    plan : says how often each operand enters the array
    activation_bits, weight_bits, output_bits : packed sizes of the layer's tensors, block scales included
    parameter_bits : biases and requantization factors; they come with the weights and are read once

    A convolution's overlapping windows are read again for every window (there is no line buffer), and a padding pixel
    counts as a read, as its code comes from the same port.
    """
    kind, buffers = config.dram.kind, config.buffers
    activation_reads, weight_reads = edge_bits(plan)
    counts = {
        Action("dram", f"dram_read_{kind}"): activation_bits + weight_bits + parameter_bits,
        Action("dram", f"dram_write_{kind}"): output_bits,
    }
    moves = [
        ("sram_write", buffers.activation.size_bytes, activation_bits),
        ("sram_write", buffers.weight.size_bytes, weight_bits + parameter_bits),
        ("sram_read", buffers.activation.size_bytes, activation_reads),
        ("sram_read", buffers.weight.size_bytes, weight_reads + parameter_bits),
        ("sram_write", buffers.output.size_bytes, output_bits),
        ("sram_read", buffers.output.size_bytes, output_bits),
    ]
    for operation, capacity, bits in moves:  # two buffers may have one capacity: their bits add up
        action = Action("buffer", operation, (capacity,))
        counts[action] = counts.get(action, 0) + bits
    return Actions(counts)


def lookup_actions(plan: LayerPlan) -> Actions:
    """Return the work of decoders at the array's edge: every codebook weight that enters is looked up."""
    if plan.product != "lookup":
        return Actions()
    entering = plan.edge.stream if plan.transposed else plan.edge.other
    return Actions({Action("decoder", "lookup", (plan.widths.w_code, plan.widths.w)): entering})


def edge_bits(plan: LayerPlan) -> tuple[int, int]:
    """Return the bits of activations and of weights (block scales included) that enter the array's edges in a layer."""
    widths, edge = plan.widths, plan.edge
    stream = edge.stream * (widths.w_code if plan.transposed else widths.a_code)
    stream += edge.stream_scales * (widths.w_scale if plan.transposed else widths.a_scale)
    other = edge.other * (widths.a_code if plan.transposed else widths.w_code)
    other += edge.other_scales * (widths.a_scale if plan.transposed else widths.w_scale)
    return (other, stream) if plan.transposed else (stream, other)
