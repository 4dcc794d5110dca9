"""Groups under groups of scales: ``r = (q - z) * s_l0 * s_l1 * ... * scale``, with z = 0.

Every `size_l0` integers share a scale s_l0, every `size_l1` a scale s_l1, and so on; each level has a type of scale of
its own (:mod:`accelsim.formats.scale_types`). One level of unsigned integers is VSQ, E1M0 by 2 under E8M0 by 16 are the
shared microexponents. The last level, one number a tensor or channel, is the coarse scale that every format has.

The stored block scale of an l0 group holds the codes of all its levels, level 0 in the lowest bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError
from accelsim.formats.blocks import BlockedReals, blocked_reals, over_elements, stored_scales
from accelsim.formats.integer import IntegersInBlocks, usable_scale
from accelsim.formats.scale_types import SCALE_TYPES, ScaleRounding, ScaleType
from accelsim.formats.spec import Blocks, Datapath, Lanes, QTensor, ScaleLevel
from accelsim.formats.tensor import clamp_codes, spread_blocks

MAX_ELEMENT_BITS = 8
MAX_GROUP_SIZE = 4096
MAX_SCALE_BITS = 31
"""Codes of all levels together: an int32 that is not negative holds them."""
MAX_SIGNIFICAND_BITS = 16
"""Of all levels together: a block's dot product times two block scales fits int64."""


@dataclass(frozen=True)
class GroupFormat(IntegersInBlocks):
    """Integers of `element_bits` bits (signed ones symmetric) under `levels` of scales: (group size, scale type) from
    the smallest group up. Each size is a multiple of the one before.

    Raises FormatError for element widths outside 2..8, sizes that do not fit, unknown types, and scales that are too
    wide together.

    >>> from accelsim import formats
    >>> two = formats.get("group_int4_g2_e1m0_g16_e8m0")
    >>> two.bits_per_element, [level.size for level in two.blocks.levels]  # 4, a bit for 2, 8 bits for 16
    (5.0, [2, 16])
    """

    element_bits: int
    signed: bool
    levels: tuple[tuple[int, str], ...]

    def __post_init__(self) -> None:
        if not 2 <= self.element_bits <= MAX_ELEMENT_BITS:
            raise FormatError(f"{self.name}: element width {self.element_bits} is outside 2..{MAX_ELEMENT_BITS}")
        if not self.levels:
            raise FormatError(f"{self.name}: at least one level of groups is needed; without any it is an integer")
        below = 1
        for size, kind in self.levels:
            if kind not in SCALE_TYPES:
                raise FormatError(f"{self.name}: {kind!r} is no type of scale; use one of {', '.join(SCALE_TYPES)}")
            if not 1 <= size <= MAX_GROUP_SIZE or size % below:
                raise FormatError(
                    f"{self.name}: a group of {size} elements does not fit above groups of {below}; "
                    f"use a multiple of {below} up to {MAX_GROUP_SIZE}"
                )
            below = size
        for what, bits, limit in (
            ("codes", sum(kind.code_bits for kind in self.types), MAX_SCALE_BITS),
            ("significands", sum(kind.significand_bits for kind in self.types), MAX_SIGNIFICAND_BITS),
        ):
            if bits > limit:
                raise FormatError(f"{self.name}: the {what} of all scales have {bits} bits together; {limit} fit")

    @property
    def name(self) -> str:
        groups = "".join(f"_g{size}_{kind}" for size, kind in self.levels)
        return f"group_{'' if self.signed else 'u'}int{self.element_bits}{groups}"

    @cached_property
    def types(self) -> tuple[ScaleType, ...]:
        """The types of the scales, level 0 first."""
        return tuple(SCALE_TYPES[kind] for _, kind in self.levels)

    @cached_property
    def _offsets(self) -> tuple[int, ...]:
        """Where each level's code begins in the stored block scale."""
        widths = [kind.code_bits for kind in self.types]
        return tuple(sum(widths[:level]) for level in range(len(widths)))

    @property
    def datapath(self) -> Datapath:
        return "block_integer" if self._is_vsq else "block_float"

    @property
    def _is_vsq(self) -> bool:
        return len(self.levels) == 1 and self.levels[0][1].startswith("uint")

    @cached_property
    def blocks(self) -> Blocks:
        largest = sum(kind.largest_code << offset for kind, offset in zip(self.types, self._offsets, strict=True))
        return Blocks(
            self.levels[0][0],
            sum(kind.code_bits for kind in self.types),
            largest,
            sum(kind.significand_bits for kind in self.types),
            tuple(
                ScaleLevel(size, kind.code_bits, kind.largest_code)
                for (size, _), kind in zip(self.levels, self.types, strict=True)
            ),
        )

    @property
    def bits_per_element(self) -> float:
        return self.element_bits + sum(
            kind.code_bits / size for (size, _), kind in zip(self.levels, self.types, strict=True)
        )

    def quantize(
        self,
        array: ArrayLike,
        axis: int | None = -1,
        *,
        channel_axis: int | None = None,
        scale: ArrayLike | None = None,
        zero_point: ArrayLike | None = None,
        asymmetric: bool = False,
        scale_rounding: ScaleRounding = "nearest",
    ) -> QTensor:
        """Quantize real numbers from the top level down, in float64::

            m_i   = max|x| of each group of level i (unsigned elements: max(x, 0))
            ref_i = the type's largest number for uintM, fp8_e4m3 and fp8_e5m2; 1 for eKm0, fp16 and bf16
            R_i   = ref_0 * ... * ref_(i-1)
            scale = max of m_0 / high over the tensor (or channel) / (R_top * ref_top); 1 where the top level's type
                    is e8m0, fp16 or bf16, which have range enough by themselves
            S     = scale; then for each level, the top one first:
                code = the type's rounding of (m_i / high / R_i) / S; powers of two: of (m_i / R_i) / S
                S    = (product of the scales of this level and all above) * scale
            code  = clamp(rint(x / S), low, high), halves to even; 0 where S is 0

        So every level is chosen under the levels above as they were rounded, and the elements under all of them.

        array : real numbers with at least one dimension; the last group of each level may be shorter
        axis : the axis that groups run along (None: the last)
        channel_axis : the axis of per-channel coarse scales, another than `axis`; None: one for the tensor
        scale : the coarse scale, () or (C,), positive; None: as above, 1 where all is zero, never below 2**-1022
        zero_point, asymmetric : refused unless 0 and False: the format has no zero points
        scale_rounding : "nearest" : uintM halves up, floats ties to even, powers of two by OCP's floor rule; or "up",
            the next scale up, so that no element clamps unless a scale is at the end of its type's range

        A group whose scale rounds to 0 (uintM and floats have a 0), and everything in it, becomes zeros.

        Raises:
        FormatError : NaN or infinity (how many, and the first), a bad scale, a zero point, an unknown option
        ShapeError : an axis that `array` lacks, `channel_axis` equal to `axis`, shapes that do not fit
        """
        if scale_rounding not in ("nearest", "up"):
            raise FormatError(f"scale_rounding={scale_rounding!r} is not one of 'nearest', 'up'")
        blocked = blocked_reals(self, array, axis, channel_axis, zero_point, asymmetric)
        magnitudes = blocked.magnitudes(self.signed)
        coarse = self._coarse(blocked, magnitudes) if scale is None else blocked.coarse(scale)
        factors, stored = self._choose_scales(blocked, magnitudes, coarse, scale_rounding)
        steps = _times(factors, blocked.per_channel(coarse))
        with np.errstate(over="ignore"):  # a quotient too large for float64 is infinite, and clamps
            codes = np.rint(blocked.values / blocked.spread(np.where(steps > 0, steps, np.inf)))
        return blocked.tensor(self, clamp_codes(codes, self.low, self.high), coarse, stored)

    def _coarse(self, blocked: BlockedReals, magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
        largest = blocked.largest(magnitudes)
        if self.types[-1].absolute:
            return np.ones_like(largest)
        steps = self.high * math.prod(kind.reference for kind in self.types)
        return usable_scale(largest / self.high / math.prod(kind.reference for kind in self.types), largest, steps)

    def _choose_scales(
        self,
        blocked: BlockedReals,
        magnitudes: NDArray[np.float64],
        coarse: NDArray[np.float64],
        rounding: ScaleRounding,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the product of all scales of each l0 group, exact, and the stored codes."""
        axis = blocked.block_axis
        factors: NDArray[np.float64] = np.ones([1] * magnitudes.ndim)
        stored: NDArray[np.int64] = np.zeros([1] * magnitudes.ndim, np.int64)
        above = magnitudes.shape[axis]  # size of the groups above
        for level in reversed(range(len(self.levels))):
            size, kind = self.levels[level][0], self.types[level]
            maxima = blocked.maxima(magnitudes, size)
            count = maxima.shape[axis]
            if level + 1 < len(self.levels):
                factors = spread_blocks(factors, axis, above // size, count)
                stored = spread_blocks(stored, axis, above // size, count)
            scales = _times(factors, blocked.per_channel(coarse))
            scales = np.where(scales > 0, scales, np.inf)  # nothing but zeros below a zero
            below = math.prod(lower.reference for lower in self.types[:level])
            with np.errstate(over="ignore"):
                codes = kind.choose(
                    maxima / self.high / below / scales,
                    np.minimum(maxima / below / scales, np.finfo(np.float64).max),
                    self.high,
                    rounding,
                )
            factors = factors * np.ldexp(kind.significands(codes).astype(np.float64), kind.exponents(codes))
            stored = stored + (codes.astype(np.int64) << self._offsets[level])
            above = size
        return factors, stored

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return ``(code * product of scales) * coarse scale``, float64; the first product is exact: it rounds once."""
        factors = self.lanes(tensor).block_factors()
        assert factors is not None
        return np.asarray((tensor.codes * over_elements(tensor, factors)) * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return the codes; of each block the product of its scales' significands, and the sum of their exponents."""
        stored = stored_scales(tensor)
        significands, exponents = np.ones_like(stored), np.zeros_like(stored)
        for kind, offset in zip(self.types, self._offsets, strict=True):
            codes = (stored >> offset) & ((1 << kind.code_bits) - 1)
            significands = significands * kind.significands(codes)
            exponents = exponents + kind.exponents(codes)
        return Lanes(tensor.codes, significands, None, None if self._is_vsq else exponents)


def _times(factors: NDArray[np.float64], coarse: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return factors * coarse scale; the largest double where that is beyond float64."""
    with np.errstate(over="ignore"):
        return np.minimum(factors * coarse, np.finfo(np.float64).max)
