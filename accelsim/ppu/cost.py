"""What the PPU's work is counted as. A function of shapes and parameters only, never of values.

Operations (component "ppu") and their parameters; `w` is the width behind the shift, max(16, element bits + 1):

===================  ==========================================================================================
mult(acc, m)         requantization by an integer rule, one an output; none in channels whose multiplier is a
                     power of two. `acc` accumulator bits, `m` multiplier bits that the rule uses
add(acc + m)         the rounding addend of an integer rule, one an output (add(acc) where nothing multiplies);
                     every integer rule, truncation included, is one addition and one shift
fp32_from_int()      float32 rule, one an output: the accumulator becomes a float (float32 accumulators are one)
fp32_mult()          float32 rule, one an output
fp64_mult()          float64 rule, one an output (the conversion is part of it)
shift_clamp()        one an output: the shift (or the conversion of a float back to an integer) and the final clamp
compare(32)          in its place, 2 an output: float32 rule, three codes without a zero point (ternary)
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

Float outputs, all behind fp32_from_int and fp32_mult as above, with compare(32) for the activation (a comparison of
floats is one of integers), and one shift_clamp an output: the element's rounding, shift and clamp. Each kind of format
adds what accelsim.ppu.float_encoders says.

Comparators need nothing of all this: compare(acc) T times an output for T thresholds (parallel comparators, whose
results are added up by a population count that is not counted apart), once an output for a sign.

Zero-point correction (accelsim.ppu.zero_point) is mult(acc, z) and add(acc), with `z` the zero point's bits.
"""

from __future__ import annotations

from collections import Counter

from accelsim.actions import Action, Actions
from accelsim.config.model import Ppu
from accelsim.formats.spec import Format
from accelsim.formats.tensor import block_count
from accelsim.ppu.float_encoders import float_encoder
from accelsim.ppu.stage import OutputStage
from accelsim.rounding import RULES

COMPARES = {"none": 0, "relu": 1, "relu6": 2, "clamp": 2}


class _Tally:
    def __init__(self) -> None:
        self.counts: Counter[Action] = Counter()

    def count(self, operation: str, times: int, *params: int) -> None:
        self.counts[Action("ppu", operation, params)] += times

    def actions(self) -> Actions:
        return Actions(self.counts)


def integer_actions(
    rows: int,
    channels: int,
    *,
    rule: str | None,
    shift_only_channels: int,
    acc_bits: int,
    float_acc: bool,
    multiplier_bits: int,
    output_format: Format,
    has_zero_point: bool,
    activation: str,
    guard_bits: int,
) -> Actions:
    """Count what rounds rows x channels accumulators to integers (the first two tables above).

    rule : None where raw accumulators leave
    shift_only_channels : how many channels have a power of two for multiplier
    float_acc : the accumulators are float32 already
    """
    outputs = rows * channels
    tally = _Tally()
    kind = None if rule is None else RULES[rule].multiplier
    if kind == "integer":
        shifted = rows * shift_only_channels
        tally.count("mult", outputs - shifted, acc_bits, multiplier_bits)
        tally.count("add", outputs - shifted, acc_bits + multiplier_bits)
        tally.count("add", shifted, acc_bits)
    elif kind == "float32":
        _count_scaling(tally, outputs, float_acc=float_acc)
    elif kind == "float64":
        tally.count("fp64_mult", outputs)
    blocks = output_format.blocks
    element_bits = output_format.lane_bits
    three_codes = blocks is None and output_format.high - output_format.low == 2 and not has_zero_point
    if kind == "float32" and three_codes:
        tally.count("compare", 2 * outputs, 32)
    else:
        tally.count("shift_clamp", outputs)
    width = max(16, element_bits + 1)
    if blocks is not None:
        width = element_bits + blocks.scale_bits + guard_bits + 1
        vectors = rows * block_count(channels, blocks.size)
        tally.count("compare", outputs - vectors, width)
        tally.count("divide", vectors, width, element_bits + guard_bits)
        tally.count("divide", outputs, width, blocks.scale_bits + guard_bits)
        tally.count("shift_clamp", outputs + vectors)
    if has_zero_point:
        tally.count("add", outputs, width)
    tally.count("compare", outputs * COMPARES[activation], width)
    return tally.actions()


def float_actions(rows: int, channels: int, stage: OutputStage, ppu: Ppu, *, float_acc: bool) -> Actions:
    """Count what encodes rows x channels accumulators as floats (see the text above)."""
    outputs, output_format = rows * channels, stage.format
    tally = _Tally()
    _count_scaling(tally, outputs, float_acc=float_acc)
    tally.count("compare", outputs * COMPARES[stage.activation], 32)
    tally.count("shift_clamp", outputs)
    blocks = 0 if output_format.blocks is None else rows * block_count(channels, output_format.blocks.size)
    encoder = float_encoder(output_format)
    assert encoder is not None  # check_stage saw to it
    for operation, times, *params in encoder.work(rows, channels, blocks, ppu):
        tally.count(operation, times, *params)
    return tally.actions()


def comparator_actions(rows: int, channels: int, stage: OutputStage, acc_bits: int) -> Actions:
    """Count the comparisons of rows x channels accumulators with thresholds, or with 0."""
    thresholds = 1 if stage.thresholds is None else stage.thresholds.shape[-1]
    tally = _Tally()
    tally.count("compare", rows * channels * thresholds, acc_bits)
    return tally.actions()


def _count_scaling(tally: _Tally, outputs: int, *, float_acc: bool) -> None:
    tally.count("fp32_from_int", 0 if float_acc else outputs)
    tally.count("fp32_mult", outputs)
