"""Events in the array, counted, and what they are called in the energy account.

The plan fills a Tally (accelsim.mapping.contract) by closed forms, the stepped engine by counting what it sees in the
registers; both turn it into actions here, so that they speak of the same things.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.actions import Action, Actions
from accelsim.config.model import Multiplier
from accelsim.mapping.contract import GemmShape, Product, Summation, Tally, Widths
from accelsim.mapping.step import fused_bits


@dataclass(frozen=True)
class Datapath:
    """What the array multiplies and adds with in a layer; the fields are those of the plan."""

    widths: Widths
    multiplier: Multiplier
    product: Product
    summation: Summation


def array_actions(tally: Tally, datapath: Datapath, shape: GemmShape, *, transposed: bool) -> Actions:
    """Return the priced actions of the array and its accumulators.

    Accumulators live in an SRAM: the bias is written, each addition reads and writes, the PPU reads at the end; SRAM
    traffic is counted in bits.
    """
    widths = datapath.widths
    (stream, stream_scale), (other, other_scale) = _moved_bits(datapath, transposed)
    outputs = shape.batch * shape.m * shape.n
    sram = widths.accumulator_sram
    floats = datapath.summation.kind == "float32"
    psum_add = ("fp32_add", ()) if floats else ("add", (widths.psum,))
    acc_add = ("fp32_add", ()) if floats else ("add", (widths.acc,))
    events = [
        *_products(tally, datapath),
        *_scalings(tally, datapath),
        (Action("mac", *psum_add), tally.psum_adds + tally.block_sum_adds),
        (Action("register", "register_write", (stream,)), tally.stream_hops),
        (Action("register", "register_write", (other,)), tally.other_hops),
        # Where only one operand has blocks, the other's scales are 1, and there is nothing to latch.
        (Action("register", "register_write", (stream_scale,)), tally.stream_scale_hops if stream_scale else 0),
        (Action("register", "register_write", (other_scale,)), tally.other_scale_hops if other_scale else 0),
        (Action("register", "register_write", (widths.psum,)), tally.psum_latches),
        (Action("register", "register_write", (widths.dot,)), tally.block_latches),
        (Action("accumulator", *acc_add), tally.acc_adds),
        (Action("buffer", "sram_write", sram), (outputs + tally.acc_adds) * widths.acc),
        (Action("buffer", "sram_read", sram), (outputs + tally.acc_adds) * widths.acc),
    ]
    return _added_up(events)


def entry_actions(tally: Tally, datapath: Datapath, *, transposed: bool) -> Actions:
    """Return the part of :func:`array_actions` that a stationary operand's way into the array costs."""
    _, (other, other_scale) = _moved_bits(datapath, transposed)
    return _added_up(
        [
            (Action("register", "register_write", (other,)), tally.other_hops),
            (Action("register", "register_write", (other_scale,)), tally.other_scale_hops if other_scale else 0),
        ]
    )


def _moved_bits(datapath: Datapath, transposed: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the widths (of a lane, of a block scale) of the operand that moves right, and of the other one."""
    widths = datapath.widths
    # A lane moves with its exponent; what is never looked up moves as it is stored: an index, or a shift.
    w_moved = (widths.w_code if datapath.product in ("accumulate", "shift") else widths.w) + widths.w_exponent
    a, w = (widths.a + widths.a_exponent, widths.a_scale), (w_moved, widths.w_scale)
    return (w, a) if transposed else (a, w)


Events = list[tuple[Action, int]]


def _added_up(events: Events) -> Actions:
    counts: dict[Action, int] = {}
    for action, count in events:  # two registers may have the same width: their counts add up
        counts[action] = counts.get(action, 0) + count
    return Actions(counts)


def _products(tally: Tally, datapath: Datapath) -> Events:
    """Return the work of making and adding the products of lane steps."""
    widths, multiplier = datapath.widths, datapath.multiplier
    adds = tally.tree_adds + tally.block_adds
    if datapath.product == "xnor":  # the popcount is the adder tree
        return [(Action("mac", "xnor_popcount"), tally.products)]
    if datapath.product == "accumulate":
        # One addition an element to its index's sum; then, a step, one product an index and their sum.
        steps, indices = tally.products - tally.tree_adds, 1 << widths.w_code
        bin_bits = max(widths.a, widths.dot - widths.w)
        return [
            (Action("mac", "add", (bin_bits,)), tally.products),
            (Action("mac", "mult", (widths.w, bin_bits)), steps * indices),
            (Action("mac", "add", (widths.dot,)), steps * (indices - 1) + tally.block_adds),
        ]
    serial = multiplier.kind == "bit_serial"
    # The price of a bit-serial product holds the tree of every cycle.
    events: Events = [(Action("mac", "add", (widths.dot,)), 0 if serial else adds)]
    if datapath.product == "shift":
        # The shifted activation is as wide as the product; the sign is one addition more, of its two's complement.
        events.append((Action("mac", "barrel_shift", (widths.a + widths.w - 1,)), tally.products))
        events.append((Action("mac", "add", (widths.a,)), tally.products))
    elif multiplier.kind == "fusion":
        events.append((Action("mac", "fused_mult", (fused_bits(widths.w), fused_bits(widths.a))), tally.products))
    elif serial:
        operation = "serial_mult" if multiplier.serial == "both" else "semi_serial_mult"
        # Of one serial operand: (parallel bits, serial bits).
        order = (widths.a, widths.w) if multiplier.serial == "weight" else (widths.w, widths.a)
        events.append((Action("mac", operation, order), tally.products))
    else:
        events.append((Action("mac", "mult", (widths.w, widths.a)), tally.products))
    exponents = max(widths.a_exponent, widths.w_exponent)
    if exponents:  # lanes with exponents: each product's are added, and the product is shifted to its place
        events.append((Action("mac", "add", (exponents + 1,)), tally.products))
        events.append((Action("mac", "barrel_shift", (widths.dot,)), tally.products))
    return events


def _scalings(tally: Tally, datapath: Datapath) -> Events:
    """Return the work of applying block scales, and of bringing a sum to the psum's units."""
    widths, summation = datapath.widths, datapath.summation
    events: Events = []
    if summation.kind == "integer":
        return [
            (Action("scale_unit", "mult", (widths.w_scale, widths.a_scale)), tally.scaled_blocks),
            (Action("scale_unit", "mult", (widths.dot, widths.scale_product)), tally.scaled_blocks),
        ]
    if widths.scale_product:  # scales that are floats: their significands multiply too
        significand = widths.scale_product // 2
        events.append((Action("scale_unit", "mult", (significand, significand)), tally.scaled_blocks))
        events.append((Action("scale_unit", "mult", (widths.dot, widths.scale_product)), tally.scaled_blocks))
    sums = tally.scaled_blocks or tally.psum_adds
    events.append((Action("scale_unit", "add", (EXPONENT_BITS,)), sums))
    if summation.kind == "fixed":
        events.append((Action("scale_unit", "barrel_shift", (SHIFTER_BITS,)), sums))
    return events


EXPONENT_BITS = 9  # of the sum of two 8-bit exponents
SHIFTER_BITS = 49  # what the shifter in front of a fixed-point psum delivers (Summation)
