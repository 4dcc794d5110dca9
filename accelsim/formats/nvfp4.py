"""NVFP4: blocks of 16 E2M1 elements under an E4M3 scale, under one float32 scale g for the tensor (or channel).

``x ~ element * block scale * g``. Choosing the scales takes several float32 operations, each of which rounds; the steps
here are torchao's. (Transformer Engine's reference differs: it has no lower limit of the block scale.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError
from accelsim.formats.blocks import blocked_reals, over_elements, stored_scales
from accelsim.formats.minifloat import E2M1, E4M3, Minifloat
from accelsim.formats.mixins import CodesOfElement, NoZeroPoints
from accelsim.formats.spec import Blocks, Datapath, Lanes, QTensor

BLOCK_SIZE = 16
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
SMALLEST_TENSOR_SCALE = 2.0**-121
"""With a smaller g, the float32 number (1 / g) / 2**-6 would be infinite."""


@dataclass(frozen=True)
class Nvfp4Format(CodesOfElement, NoZeroPoints):
    """4-bit elements, an 8-bit scale for each 16 of them, a float32 scale above: 4.5 bits an element.

    >>> from accelsim import formats
    >>> tensor = formats.get("nvfp4").quantize([6.0, 3.0, -1.5, 0.5])
    >>> tensor.dequantize().round(4).tolist(), tensor.size_bits  # 4 codes, a block scale, a float32
    ([6.0, 3.0, -1.5, 0.5], 56)
    """

    name: str = "nvfp4"
    element: ClassVar[Minifloat] = E2M1

    @property
    def datapath(self) -> Datapath:
        return "block_float"

    @property
    def blocks(self) -> Blocks:
        return Blocks(
            BLOCK_SIZE,
            8,  # block scales have no sign
            E4M3.largest_code,
            E4M3.fraction_bits + 1,
            tensor_scale_bits=32,
        )

    @property
    def bits_per_element(self) -> float:
        return self.code_bits + 8 / BLOCK_SIZE

    def quantize(
        self,
        array: ArrayLike,
        axis: int | None = -1,
        *,
        channel_axis: int | None = None,
        scale: ArrayLike | None = None,
        zero_point: ArrayLike | None = None,
        asymmetric: bool = False,
    ) -> QTensor:
        """Quantize real numbers; every operation is one of float32, rounded to nearest even::

            x     = float32(x), saturating
            g     = max|x| / (448 * 6)
            s     = E4M3(clamp((max|x| of the block / 6) / g, 2**-6, 448))
            code  = E2M1(x * ((1 / g) / s)), saturating at +-6

        A block of zeros stores s = 2**-6 (code 8). Where all is zero g is 1, and it is never below 2**-121.

        array : real numbers with at least one dimension; the last block of an axis may be shorter
        axis : the axis that blocks run along (None: the last)
        channel_axis : the axis of per-channel g, another than `axis`; None: one g for the tensor, as NVIDIA defines
        scale : g, () or (C,), 2**-121 to the largest float32, rounded to float32; None: from the data
        zero_point, asymmetric : refused unless 0 and False: the format has no zero points

        Raises:
        FormatError : NaN or infinity (how many, and the first), a bad g, a zero point
        ShapeError : an axis that `array` lacks, `channel_axis` equal to `axis`, shapes that do not fit
        """
        blocked = blocked_reals(self, array, axis, channel_axis, zero_point, asymmetric)
        reals = np.clip(blocked.values, -LARGEST_FLOAT32, LARGEST_FLOAT32).astype(np.float32)
        if scale is None:
            largest = blocked.largest(np.abs(reals))
            chosen = np.maximum(largest / np.float32(E4M3.largest * E2M1.largest), np.float32(SMALLEST_TENSOR_SCALE))
            tensor_scale = np.where(largest > 0, chosen, np.float32(1)).astype(np.float32)
        else:
            tensor_scale = _as_float32(blocked.coarse(scale))
        g = blocked.per_channel(tensor_scale)
        maxima = blocked.maxima(np.abs(reals))
        with np.errstate(over="ignore"):  # a given g may be small beside the data: infinite quotients are limited
            ratio = np.clip(maxima / np.float32(E2M1.largest) / g, 2.0**E4M3.min_exponent, E4M3.largest)
            scales = E4M3.encode(ratio.astype(np.float64))
            reciprocal = np.float32(1) / g / E4M3.decode(scales).astype(np.float32)
            scaled = reals * blocked.spread(reciprocal)
        return blocked.tensor(self, E2M1.encode(scaled.astype(np.float64)), tensor_scale, scales)

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return ``element * block scale * g``, float64; exact where g is a float32 number."""
        blocks = E2M1.decode(tensor.codes) * E4M3.decode(over_elements(tensor, stored_scales(tensor)))
        return np.asarray(blocks * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return signed significands with an exponent each; block scales likewise, with significands up to 15."""
        stored = stored_scales(tensor)
        return Lanes(
            E2M1.significands(tensor.codes),
            E4M3.significands(stored),
            E2M1.exponents(tensor.codes),
            E4M3.exponents(stored),
        )


def _as_float32(scale: NDArray[np.float64]) -> NDArray[np.float32]:
    wrong = (scale < SMALLEST_TENSOR_SCALE) | (scale > LARGEST_FLOAT32)
    if wrong.any():
        raise FormatError(
            f"quantize: scale is {scale[wrong].flat[0]}; nvfp4's tensor scale is a float32 number of at least 2**-121"
        )
    return scale.astype(np.float32)
