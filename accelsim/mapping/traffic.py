"""What the buffers feed into the array's edges, and what is looked up there.

An operand's element is read from its buffer once for each pass that it enters. Traffic between DRAM and the buffers
follows from the tiling (accelsim.memory.costs); the array's own accumulator traffic is in accelsim.mapping.tally.
"""

from __future__ import annotations

from accelsim.actions import Action, Actions
from accelsim.mapping.contract import LayerPlan


def lookup_actions(plan: LayerPlan, entries: int = 1) -> Actions:
    """Return the work of decoders at the array's edge: every codebook weight that enters is looked up.

    entries : how often each stationary tile enters the array
    """
    if plan.product != "lookup":
        return Actions()
    entering = plan.edge.stream if plan.transposed else plan.edge.other * entries
    return Actions({Action("decoder", "lookup", (plan.widths.w_code, plan.widths.w)): entering})


def edge_bits(plan: LayerPlan, entries: int = 1) -> tuple[int, int]:
    """Return the bits of activations and of weights (block scales included) that enter the array's edges in a layer.

    entries : how often each stationary tile enters the array (what streams past it does so once in any case)
    """
    widths, edge = plan.widths, plan.edge
    stream = edge.stream * (widths.w_code if plan.transposed else widths.a_code)
    stream += edge.stream_scales * (widths.w_scale if plan.transposed else widths.a_scale)
    other = edge.other * (widths.a_code if plan.transposed else widths.w_code)
    other += edge.other_scales * (widths.a_scale if plan.transposed else widths.w_scale)
    other *= entries
    return (other, stream) if plan.transposed else (stream, other)
