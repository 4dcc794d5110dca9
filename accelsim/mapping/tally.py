"""Events in the array, counted, and what they are called in the energy account.

The plan fills a :class:`Tally` by closed forms, the stepped engine by counting what it sees in the registers; both turn
it into actions here, so that they speak of the same things.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.actions import Action, Actions
from accelsim.mapping.contract import GemmShape, Widths


@dataclass(frozen=True)
class Tally:
    """Events of valid data; padding, bubbles and unused PEs are gated and do not count.

    products, tree_adds : multiplications, and additions within a step (of one block's lanes, or of all lanes)
    block_adds : additions to a block register (a block over several steps)
    block_sum_adds : additions of scaled blocks of one step to one another
    scaled_blocks : blocks that a scale unit multiplied
    psum_adds, acc_adds : additions to psum registers, and to accumulators
    stream_hops, other_hops : operand elements latched, of the operand that moves right and of the other
    stream_scale_hops, other_scale_hops : block scales latched
    psum_latches, block_latches : psums latched (additions and moves), block registers latched
    """

    products: int
    tree_adds: int
    block_adds: int
    block_sum_adds: int
    scaled_blocks: int
    psum_adds: int
    stream_hops: int
    other_hops: int
    stream_scale_hops: int
    other_scale_hops: int
    psum_latches: int
    block_latches: int
    acc_adds: int


def array_actions(tally: Tally, widths: Widths, shape: GemmShape, *, transposed: bool) -> Actions:
    """Return the priced actions of the array and its accumulators.

    Accumulators live in an SRAM: the bias is written, each addition reads and writes, the PPU reads at the end; SRAM
    traffic is counted in bits.
    """
    stream, other = (widths.w, widths.a) if transposed else (widths.a, widths.w)
    stream_scale, other_scale = (widths.w_scale, widths.a_scale) if transposed else (widths.a_scale, widths.w_scale)
    outputs = shape.batch * shape.m * shape.n
    sram = (widths.accumulator_bytes,)
    events = [
        (Action("mac", "mult", (widths.w, widths.a)), tally.products),
        (Action("mac", "add", (widths.dot,)), tally.tree_adds + tally.block_adds),
        (Action("mac", "add", (widths.psum,)), tally.psum_adds + tally.block_sum_adds),
        (Action("scale_unit", "mult", (widths.w_scale, widths.a_scale)), tally.scaled_blocks),
        (Action("scale_unit", "mult", (widths.dot, widths.scale_product)), tally.scaled_blocks),
        (Action("register", "register_write", (stream,)), tally.stream_hops),
        (Action("register", "register_write", (other,)), tally.other_hops),
        (Action("register", "register_write", (stream_scale,)), tally.stream_scale_hops),
        (Action("register", "register_write", (other_scale,)), tally.other_scale_hops),
        (Action("register", "register_write", (widths.psum,)), tally.psum_latches),
        (Action("register", "register_write", (widths.dot,)), tally.block_latches),
        (Action("accumulator", "add", (widths.acc,)), tally.acc_adds),
        (Action("buffer", "sram_write", sram), (outputs + tally.acc_adds) * widths.acc),
        (Action("buffer", "sram_read", sram), (outputs + tally.acc_adds) * widths.acc),
    ]
    counts: dict[Action, int] = {}
    for action, count in events:  # two registers may have the same width: their counts add up
        counts[action] = counts.get(action, 0) + count
    return Actions(counts)
