"""The same numbers in another number format: convert (docs/operators.md, Convert)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import FormatError
from accelsim.formats.spec import FLOATING, Codes, QTensor
from accelsim.formats.tensor import block_count, make_qtensor
from accelsim.operators import fixed_point_oracle as slow
from accelsim.operators.common import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    SameShape,
    add_actions,
    vector_actions,
)
from accelsim.operators.spec import Attributes, Blocked, Operand, Reals, TensorSpec, Work

Float32 = NDArray[np.float32]
LARGEST = float(np.finfo(np.float32).max)


class ConvertAttributes(Attributes):
    """There are none: formats, scales and zero points say all."""


class Convert(SameShape):
    """Decode, scale in float32, encode: between any two formats, those with block scales included.

    The vector unit's other way to change a format, for what `requantize` does not take. It computes as a PPU of the
    rule "float32_half_even" does: ``v = f32(u * f32(s_x / s_y))``, where u is the number in units of the input's scale
    (exact in float32), and then what the output's format makes of v, blocks along the last axis.
    """

    name: ClassVar[str] = "convert"
    attributes = ConvertAttributes

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: ConvertAttributes) -> None:
        for tensor in (inputs[0], output):
            if tensor.format.datapath == "codebook" or tensor.format.lane_bits > 16:
                raise FormatError(
                    f"{tensor.format.name} is converted neither to nor from: the vector unit encodes and decodes "
                    f"formats of at most 16 bits without a table"
                )
            if not SMALLEST_SCALE <= tensor.scale <= LARGEST_SCALE:
                raise FormatError(f"scale {tensor.scale:g} is beyond 2**-40..2**40")

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: ConvertAttributes) -> Codes | Blocked:
        x = inputs[0]
        reals = _in_units(x).dequantize().astype(np.float32) + np.float32(0)  # -0 becomes 0
        with np.errstate(over="ignore", under="ignore"):
            scaled = reals * _ratio(x, output)
        encoded = _encode(np.clip(scaled, -LARGEST, LARGEST), output)
        return encoded.codes if encoded.block_scales is None else Blocked(encoded.codes, encoded.block_scales)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: ConvertAttributes) -> Codes | Blocked:
        x, ratio = inputs[0], _ratio(inputs[0], output)
        lanes = _in_units(x).lanes()
        values, size = [], 0 if x.format.blocks is None else x.format.blocks.size
        for place in np.ndindex(*x.shape):
            exact = Fraction(int(lanes.values[place]) - x.zero_point)
            if lanes.exponents is not None:
                exact *= Fraction(2) ** int(lanes.exponents[place])
            if lanes.block_scales is not None:
                block = (*place[:-1], place[-1] // size)
                exact *= int(lanes.block_scales[block])
                if lanes.block_exponents is not None:
                    exact *= Fraction(2) ** int(lanes.block_exponents[block])
            with np.errstate(over="ignore", under="ignore"):
                scaled = float(np.float32(float(exact)) * ratio)
            values.append(min(max(scaled, -LARGEST), LARGEST))
        if output.format.datapath == "integer" and output.format.blocks is None:
            low, high = output.format.code_low, output.format.code_high
            codes = [slow.clamp(slow.half_even(Fraction(value)) + output.zero_point, low, high) for value in values]
            return np.array(codes).reshape(x.shape)
        return _encode_blocks(np.array(values).reshape(-1, x.shape[-1]), output)

    def real(self, inputs: Sequence[Reals], attributes: ConvertAttributes) -> Reals:
        return inputs[0]

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: ConvertAttributes) -> Work:
        shape, source, target = output.shape, inputs[0].format, output.format
        count = math.prod(shape)
        decode = "shift_clamp" if source.datapath in FLOATING else "fp32_from_int"
        counts: dict[tuple[str, tuple[int, ...]], int] = {(decode, ()): count, ("fp32_mult", ()): count}
        counts["shift_clamp", ()] = counts.get(("shift_clamp", ()), 0) + count
        if source.datapath == "block_integer" and source.blocks is not None:
            counts["mult", (source.lane_bits, source.blocks.scale_bits)] = count
        if target.blocks is not None:  # the largest of each block, a scale from it, and an element in units of that
            blocks = math.prod(shape[:-1]) * block_count(shape[-1], target.blocks.size)
            counts["compare", (31,)] = count - blocks
            exact = target.datapath == "block_float" and target.blocks.significand_bits == 0
            if not exact:
                counts["divide", (24, target.blocks.scale_bits)] = count + blocks
        actions = vector_actions({what: times for what, times in counts.items() if times})
        if target.blocks is not None:
            actions += add_actions(count, 9)  # exponents, relative to the block's
        if inputs[0].zero_point or output.zero_point:
            actions += add_actions(count * ((inputs[0].zero_point != 0) + (output.zero_point != 0)), 17)
        return Work(1, count, actions)


def _in_units(x: Operand) -> QTensor:
    """Return the tensor with scale 1: its numbers in units of its scale."""
    blocks = None if x.format.blocks is None else x.block_scales
    return make_qtensor(x.codes, x.format, 1.0, x.zero_point, block_scales=blocks)


def _ratio(x: TensorSpec, output: TensorSpec) -> np.float32:
    return np.float32(x.scale / output.scale)


def _encode(values: Float32 | Reals, output: TensorSpec) -> QTensor:
    axis = None if output.format.blocks is None else -1
    return output.format.quantize(values, axis, scale=1.0, zero_point=output.zero_point or None)


def _encode_blocks(rows: Reals, output: TensorSpec) -> Codes | Blocked:
    """Encode one block (without blocks: one number) after the other; formats have oracles of their own."""
    size = 1 if output.format.blocks is None else output.format.blocks.size
    codes = np.zeros(rows.shape, np.int64)
    count = block_count(rows.shape[1], size)
    scales = np.zeros((len(rows), count), np.int64)
    for i in range(len(rows)):
        for j in range(count):
            piece = _encode(rows[i : i + 1, j * size : (j + 1) * size], output)
            codes[i, j * size : (j + 1) * size] = piece.codes[0]
            if piece.block_scales is not None:
                scales[i, j] = piece.block_scales[0, 0]
    if output.format.blocks is None:
        return codes.reshape(output.shape)
    return Blocked(codes.reshape(output.shape), scales.reshape(*output.shape[:-1], count))


CONVERTS = (Convert(),)
