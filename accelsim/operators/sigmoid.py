"""Logistic and tanh of 16-bit codes in integers, as TFLite's reference kernels (docs/operators.md, Sigmoid)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from accelsim.errors import FormatError
from accelsim.formats.spec import Codes
from accelsim.operators.common import (
    SameShape,
    add_actions,
    check_symmetric,
    limit,
    listed,
    meaning,
    vector_actions,
)
from accelsim.operators.spec import Attributes, Operand, Reals, TensorSpec, Work
from accelsim.operators.tables import real_function

# fmt: off
POINTS = (
    32768, 33451, 34133, 34813, 35493, 36169, 36843, 37513, 38180, 38841, 39498, 40149, 40794, 41432, 42064, 42688,
    43304, 43912, 44511, 45102, 45683, 46255, 46817, 47369, 47911, 48443, 48964, 49475, 49975, 50464, 50942, 51409,
    51865, 52311, 52745, 53169, 53581, 53983, 54374, 54755, 55125, 55485, 55834, 56174, 56503, 56823, 57133, 57433,
    57724, 58007, 58280, 58544, 58800, 59048, 59288, 59519, 59743, 59959, 60168, 60370, 60565, 60753, 60935, 61110,
    61279, 61441, 61599, 61750, 61896, 62036, 62172, 62302, 62428, 62549, 62666, 62778, 62886, 62990, 63090, 63186,
    63279, 63368, 63454, 63536, 63615, 63691, 63765, 63835, 63903, 63968, 64030, 64090, 64148, 64204, 64257, 64308,
    64357, 64405, 64450, 64494, 64536, 64576, 64614, 64652, 64687, 64721, 64754, 64786, 64816, 64845, 64873, 64900,
    64926, 64950, 64974, 64997, 65019, 65039, 65060, 65079, 65097, 65115, 65132, 65149, 65164, 65179, 65194, 65208,
    65221, 65234, 65246, 65258, 65269, 65280, 65291, 65301, 65310, 65319, 65328, 65337, 65345, 65352, 65360, 65367,
    65374, 65381, 65387, 65393, 65399, 65404, 65410, 65415, 65420, 65425, 65429, 65433, 65438, 65442, 65445, 65449,
    65453, 65456, 65459, 65462, 65465, 65468, 65471, 65474, 65476, 65479, 65481, 65483, 65485, 65488, 65489, 65491,
    65493, 65495, 65497, 65498, 65500, 65501, 65503, 65504, 65505, 65507, 65508, 65509, 65510, 65511, 65512, 65513,
    65514, 65515, 65516, 65517, 65517, 65518, 65519, 65520, 65520, 65521, 65522, 65522, 65523, 65523, 65524, 65524,
    65525, 65525, 65526, 65526, 65526, 65527, 65527, 65528, 65528, 65528, 65529, 65529, 65529, 65529, 65530, 65530,
    65530, 65530, 65531, 65531, 65531, 65531, 65531, 65532, 65532, 65532, 65532, 65532, 65532, 65533, 65533, 65533,
    65533, 65533, 65533, 65533, 65533, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65535,
)
# fmt: on
"""About 65536 / (1 + exp(-i / 24)): the values that LiteRT 2.3.0 has, up to 1.1 off the exact ones. The last serves
the line from the last but one."""

INTEGER_BITS = 3  # of codes whose scale is a power of two
FRACTION_BITS = {"logistic": 9, "tanh": 8}


class SigmoidAttributes(Attributes):
    """function : "logistic" or "tanh"."""

    function: Literal["logistic", "tanh"]


class Sigmoid(SameShape):
    """One table of half a sigmoid for both functions; straight lines between its 256 points."""

    name: ClassVar[str] = "sigmoid"
    attributes = SigmoidAttributes

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: SigmoidAttributes) -> None:
        check_symmetric(inputs[0], output, why="a sigmoid of 16-bit codes")
        if inputs[0].format.name != "int16" or output.format.name != "int16" or output.scale != 2.0**-15:
            raise FormatError(f"takes int16 and makes int16 with scale 2**-15; found {meaning(output)}")
        if not 2.0**-30 <= inputs[0].scale <= 1:
            raise FormatError(f"the input's scale {inputs[0].scale:g} is beyond 2**-30..1")

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: SigmoidAttributes) -> Codes:
        points, fraction = np.array(POINTS, np.int64), FRACTION_BITS[attributes.function]
        multiplier, shift = argument_factor(inputs[0].scale)
        argument = (inputs[0].codes.astype(np.int64) * multiplier + ((1 << shift) >> 1)) >> shift
        magnitude = np.abs(argument)
        place, offset = magnitude >> fraction, magnitude & ((1 << fraction) - 1)
        inside = np.minimum(place, len(POINTS) - 2)
        line = (points[inside] << fraction) + offset * (points[inside + 1] - points[inside])
        if attributes.function == "logistic":
            line = np.where(place >= len(POINTS) - 1, 0x7FFF << 10, line)
            return limit(np.where(argument >= 0, line + (1 << 9), (1 << 25) - line + (1 << 9) - 1) >> 10, 0, 0x7FFF)
        line = np.where(place >= len(POINTS) - 1, 0xFFFF << 8, line) - (1 << 23)
        return limit(np.where(argument >= 0, line + (1 << 7), -line + (1 << 7) - 1) >> 8, -0x8000, 0x7FFF)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: SigmoidAttributes) -> Codes:
        multiplier, shift = argument_factor(inputs[0].scale)
        codes = [
            _one((2 * code * multiplier + (1 << shift) * (shift > 0)) // (2 << shift), attributes.function)
            for code in listed(inputs[0])
        ]
        return np.array(codes).reshape(inputs[0].shape)

    def real(self, inputs: Sequence[Reals], attributes: SigmoidAttributes) -> Reals:
        return real_function(attributes.function, inputs[0])

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: SigmoidAttributes) -> Work:
        count, fraction = math.prod(output.shape), FRACTION_BITS[attributes.function]
        actions = vector_actions({("mult", (16, 16)): count, ("lookup", (8, 16)): 2 * count})
        actions += vector_actions({("mult", (fraction, 16)): count, ("shift_clamp", ()): 2 * count})
        return Work(1, count, actions + add_actions(5 * count, 32))  # two roundings, a magnitude, the line, the half


def argument_factor(scale: float) -> tuple[int, int]:
    """Return (multiplier, shift) that turn codes into table places: 3 * 4096 places a unit.

    Scales that are powers of two, which TFLite takes as such within a thousandth of an octave, take no rounding.
    """
    exponent = math.log2(np.float32(scale))
    left = 15 - INTEGER_BITS + round(exponent)
    if abs(exponent - round(exponent)) < 1e-3 and left in (0, 1):
        return 3 << left, 0
    factor, shift = float(np.float32(scale)) * 4096 * 3, 0
    while factor <= 32767 / 2 and shift <= 30:
        factor, shift = factor * 2, shift + 1
    return int(factor), shift


def _one(argument: int, function: str) -> int:
    """Return the code of one argument: the sigmoid's excess over a half, mirrored, by exact division."""
    fraction = FRACTION_BITS[function]
    place, offset = divmod(abs(argument), 1 << fraction)
    if place >= len(POINTS) - 1:
        scaled = 0x7FFF * 1024 if function == "logistic" else 0xFFFF * 256
    else:
        scaled = POINTS[place] * ((1 << fraction) - offset) + POINTS[place + 1] * offset
    if function == "logistic":
        return (scaled + 512) // 1024 if argument >= 0 else (2**25 - scaled + 511) // 1024
    excess = scaled - 2**23
    return (excess + 128) // 256 if argument >= 0 else (127 - excess) // 256


SIGMOIDS = (Sigmoid(),)
