"""Types of the scales that groups of elements share: what each code stands for, and how one is chosen.

A scale is chosen from two numbers, both relative to the scales above it: `step`, the scale under which the group's
largest magnitude is the largest element, and `peak`, that magnitude itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from accelsim.formats.minifloat import BF16, E4M3, E5M2, FP16, Minifloat
from accelsim.formats.tensor import clamp_codes
from accelsim.formats.vsq import round_half_up

ScaleRounding = Literal["nearest", "up"]
MAX_INTEGER_BITS = 12
E8M0_BIAS = 127


class ScaleType(Protocol):
    """What a level of scales needs of its type.

    largest_code : codes are 0 .. largest_code; memory holds `code_bits` for each
    reference : what the level above is divided by, so that this level's codes reach up to their largest
    absolute : the type has range enough to hold the scale itself: nothing above it is chosen from the data
    """

    @property
    def name(self) -> str: ...
    @property
    def code_bits(self) -> int: ...
    @property
    def largest_code(self) -> int: ...
    @property
    def significand_bits(self) -> int: ...
    @property
    def reference(self) -> float: ...
    @property
    def absolute(self) -> bool: ...
    def significands(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return integers that are not negative, ``scale = significand * 2**exponent``."""
        ...

    def exponents(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return each code's power of two."""
        ...

    def choose(
        self, step: NDArray[np.float64], peak: NDArray[np.float64], largest: int, rounding: ScaleRounding
    ) -> NDArray[np.int32]:
        """Return the code of each group; `largest` is the largest element."""
        ...


@dataclass(frozen=True)
class IntegerScale:
    """Unsigned integers of 1 to 12 bits, as in VSQ; 0 makes the group zero."""

    code_bits: int

    @property
    def name(self) -> str:
        return f"uint{self.code_bits}"

    @property
    def largest_code(self) -> int:
        return (1 << self.code_bits) - 1

    @property
    def significand_bits(self) -> int:
        return self.code_bits

    @property
    def reference(self) -> float:
        return float(self.largest_code)

    @property
    def absolute(self) -> bool:
        return False

    def significands(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the codes."""
        return codes

    def exponents(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return zeros."""
        return np.zeros_like(codes)

    def choose(
        self, step: NDArray[np.float64], peak: NDArray[np.float64], largest: int, rounding: ScaleRounding
    ) -> NDArray[np.int32]:
        """Return `step` rounded, halves up ("nearest"), or rounded up; limited to the largest code."""
        rounded = np.ceil(step) if rounding == "up" else round_half_up(step)
        return clamp_codes(rounded, 0, self.largest_code).astype(np.int32)


@dataclass(frozen=True)
class PowerScale:
    """Powers of two. 8 bits are OCP's E8M0: 2**(code - 127), code 255 is refused. Fewer bits only lower the scale above
    them, as a microexponent does: 2**-code.
    """

    code_bits: int

    @property
    def name(self) -> str:
        return f"e{self.code_bits}m0"

    @property
    def largest_code(self) -> int:
        return (1 << self.code_bits) - 1 - self.absolute

    @property
    def significand_bits(self) -> int:
        return 0

    @property
    def reference(self) -> float:
        return 1.0

    @property
    def absolute(self) -> bool:
        return self.code_bits == 8

    def significands(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return ones."""
        return np.ones_like(codes)

    def exponents(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return code - 127 for E8M0, -code for fewer bits."""
        return np.asarray(codes - E8M0_BIAS if self.absolute else -codes, np.int32)

    def choose(
        self, step: NDArray[np.float64], peak: NDArray[np.float64], largest: int, rounding: ScaleRounding
    ) -> NDArray[np.int32]:
        """Return the code of 2**X, limited to the codes there are; of the smallest for a group of zeros.

        "nearest" : X = floor(log2 peak) - floor(log2 largest), OCP's rule, under which the largest may saturate
        "up" : the smallest X for which peak <= largest * 2**X
        """
        halves, above = np.frexp(peak)  # peak = halves * 2**above, halves in [1/2, 1)
        top = largest.bit_length()
        powers = above - top + ((halves > np.ldexp(float(largest), -top)) if rounding == "up" else 0)
        codes = powers + E8M0_BIAS if self.absolute else -powers
        smallest = 0 if self.absolute else self.largest_code
        return np.where(peak > 0, np.clip(codes, 0, self.largest_code), smallest).astype(np.int32)


@dataclass(frozen=True)
class FloatScale:
    """A minifloat without its negative half (the sign bit is stored, and 0); a zero makes the group zero."""

    element: Minifloat
    absolute: bool

    @property
    def name(self) -> str:
        return self.element.name

    @property
    def code_bits(self) -> int:
        return self.element.code_bits

    @property
    def largest_code(self) -> int:
        return self.element.largest_code

    @property
    def significand_bits(self) -> int:
        return self.element.fraction_bits + 1

    @property
    def reference(self) -> float:
        return 1.0 if self.absolute else self.element.largest

    def significands(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the significands as integers."""
        return self.element.significands(codes)

    def exponents(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the exponents that belong to the significands."""
        return self.element.exponents(codes)

    def choose(
        self, step: NDArray[np.float64], peak: NDArray[np.float64], largest: int, rounding: ScaleRounding
    ) -> NDArray[np.int32]:
        """Return `step` rounded, ties to even ("nearest"), or to the next number up; beyond the largest, that one."""
        if rounding == "nearest":
            return self.element.encode(step)
        below = self.element.encode(step, "toward_zero")
        return np.minimum(below + (self.element.decode(below) < step), self.largest_code).astype(np.int32)


_FLOATS = (FloatScale(E4M3, False), FloatScale(E5M2, False), FloatScale(FP16, True), FloatScale(BF16, True))
SCALE_TYPES: dict[str, ScaleType] = {
    **{f"uint{bits}": IntegerScale(bits) for bits in range(1, MAX_INTEGER_BITS + 1)},
    **{f"e{bits}m0": PowerScale(bits) for bits in range(1, 9)},
    **{scale.name: scale for scale in _FLOATS},
}
"""Every type that a level of scales can have."""
