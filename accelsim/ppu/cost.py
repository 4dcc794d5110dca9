"""What the PPU's work is counted as. A function of shapes and parameters only, never of values.

Operations (component "ppu") and their parameters; `w` is the width behind the shift, max(16, element bits + 1):

===================  ==========================================================================================
mult(acc, m)         requantization by an integer rule, one an output; none in channels whose multiplier is a
                     power of two. `acc` accumulator bits, `m` multiplier bits that the rule uses
add(acc + m)         the rounding addend of an integer rule, one an output (add(acc) where nothing multiplies);
                     every integer rule, truncation included, is one addition and one shift
fp32_from_int()      float32 rule, one an output: the accumulator becomes a float
fp32_mult()          float32 rule, one an output
fp64_mult()          float64 rule, one an output (the conversion is part of it)
shift_clamp()        one an output: the shift (or the conversion of a float back to an integer) and the final clamp
add(w)               zero point, one an output, if any zero point is not 0
compare(w)           fused activation: 1 an output for ReLU, 2 for ReLU6 and clamp
===================  ==========================================================================================

VSQ output adds, with `y` = element bits + scale bits + guard bits + 1 in place of `w`:

===================  ==========================================================================================
compare(y)           the largest magnitude of a vector: its elements - 1
divide(y, e + g)     a vector's scale: one a vector; `e` element bits, `g` guard bits
divide(y, s + g)     one an output: the element by its vector's scale; `s` scale bits
shift_clamp()        one an output and one a vector: the clamps of codes and scales
===================  ==========================================================================================

Zero-point correction (accelsim.ppu.zero_point) is mult(acc, z) and add(acc), with `z` the zero point's bits.
"""

from __future__ import annotations

from collections import Counter

from accelsim.actions import Action, Actions
from accelsim.formats.spec import Format
from accelsim.rounding import RULES

COMPARES = {"none": 0, "relu": 1, "relu6": 2, "clamp": 2}


def output_actions(
    rows: int,
    channels: int,
    *,
    rule: str | None,
    shift_only_channels: int,
    acc_bits: int,
    multiplier_bits: int,
    output_format: Format,
    has_zero_point: bool,
    activation: str,
    guard_bits: int,
) -> Actions:
    """Count the post-processing of rows x channels accumulators (the table above).

    rule : None where raw accumulators leave
    shift_only_channels : how many channels have a power of two for multiplier
    """
    outputs = rows * channels
    counts: Counter[Action] = Counter()

    def count(operation: str, times: int, *params: int) -> None:
        counts[Action("ppu", operation, params)] += times

    if rule is not None:
        kind = RULES[rule].multiplier
        if kind == "integer":
            shifted = rows * shift_only_channels
            count("mult", outputs - shifted, acc_bits, multiplier_bits)
            count("add", outputs - shifted, acc_bits + multiplier_bits)
            count("add", shifted, acc_bits)
        elif kind == "float32":
            count("fp32_from_int", outputs)
            count("fp32_mult", outputs)
        else:
            count("fp64_mult", outputs)
    count("shift_clamp", outputs)
    blocks = output_format.blocks
    element_bits = output_format.lane_bits
    width = max(16, element_bits + 1)
    if blocks is not None:
        width = element_bits + blocks.scale_bits + guard_bits + 1
        vectors = rows * -(-channels // blocks.size)
        count("compare", outputs - vectors, width)
        count("divide", vectors, width, element_bits + guard_bits)
        count("divide", outputs, width, blocks.scale_bits + guard_bits)
        count("shift_clamp", outputs + vectors)
    if has_zero_point:
        count("add", outputs, width)
    count("compare", outputs * COMPARES[activation], width)
    return Actions(counts)
