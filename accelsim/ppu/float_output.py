"""Outputs whose codes are not integers: minifloats, OCP MX, microexponents, NVFP4, powers of two.

The accumulator becomes a float32 number in units of the output's scale; the activation acts on that number; then the
format encodes it, with block scales from the block alone. The coarse scale is the trace's: hardware that emits one
output after another cannot look at the whole tensor first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import Ppu
from accelsim.formats.minifloat import ElementRounding
from accelsim.formats.spec import Codes, Format, QTensor
from accelsim.formats.tensor import block_count, make_qtensor
from accelsim.ppu.float_encoders import float_encoder
from accelsim.ppu.stage import OutputStage

LARGEST = np.finfo(np.float32).max


class EncodedFloats(NamedTuple):
    """codes : int32 [R, N];  block_scales : int32 [R, blocks] or None;  saturated : how many outputs were limited."""

    codes: Codes
    block_scales: NDArray[np.int32] | None
    saturated: int


def encode_floats(
    acc: NDArray[np.int64] | NDArray[np.float32], scale: NDArray[np.float32], stage: OutputStage, ppu: Ppu
) -> EncodedFloats:
    """Scale, activate and encode accumulators; every step is one float32 operation, rounded to nearest even::

        v = f32(f32(acc) * scale)               beyond the largest finite float32: that
        v = v where v > 0, else +0              relu, relu6
        v = min(v, f32(f32(6) / f32(output scale)))                   relu6
        codes, block scales = format.quantize(v, scale=1)             blocks along the last axis (channels)

    An output is saturated if the product exceeded float32 (and the activation left it so), or if the element was
    limited: if its exact quotient by the block's scale, rounded as elements are on the grid of the largest binade, is
    above the format's largest number (powers of two: if its exponent is above the largest one).

    acc : [R, N];  scale : float32 [N], accumulator scale / output scale
    """
    values, overflowed = scaled_and_activated(acc, scale, stage)
    output_format = stage.format
    if values.size == 0:  # a tensor has elements; an output need not
        blocks = output_format.blocks
        shape = (values.shape[0], 0 if blocks is None else block_count(values.shape[1], blocks.size))
        scales = None if blocks is None else np.empty(shape, np.int32)
        return EncodedFloats(np.empty(values.shape, np.int32), scales, 0)
    encoder = float_encoder(output_format)
    assert encoder is not None  # check_stage saw to it
    tensor = output_format.quantize(values, None if output_format.blocks is None else -1, **encoder.options(ppu))
    limited = _limited(np.abs(values.astype(np.float64)), tensor, encoder.rounding(ppu))
    return EncodedFloats(tensor.codes, tensor.block_scales, int(np.count_nonzero(limited | overflowed)))


def scaled_and_activated(
    acc: NDArray[Any], scale: NDArray[np.float32], stage: OutputStage
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the float32 numbers to encode, and where the product exceeded float32 and still does."""
    with np.errstate(over="ignore", under="ignore"):
        products = acc.astype(np.float32) * scale
    values = np.clip(products, -LARGEST, LARGEST)
    if stage.activation in ("relu", "relu6"):
        values = np.where(values > 0, values, np.float32(0))
    if stage.activation == "relu6":
        assert stage.output_scale is not None  # check_stage saw to it
        with np.errstate(divide="ignore", over="ignore"):  # a tiny scale puts 6 beyond every bound
            six = np.float32(6) / stage.output_scale.astype(np.float32)
        values = np.minimum(values, six)
    return values, np.isinf(products) & (np.abs(values) == LARGEST)


def _limited(magnitudes: NDArray[np.float64], tensor: QTensor, rounding: ElementRounding) -> NDArray[np.bool_]:
    """Return where a magnitude rounds to more than its block can hold. All of it is exact in float64."""
    codes = _two_largest_codes(tensor.format)
    top, next_to_top = (replace(tensor, codes=np.full_like(tensor.codes, code)).dequantize() for code in codes)
    if tensor.format.datapath == "shift":  # the exponent is rounded: halfway is a factor of sqrt 2, which is no tie
        return np.asarray(magnitudes > top * np.sqrt(2.0))
    step = top - next_to_top
    if rounding == "toward_zero":
        return np.asarray(magnitudes >= top + step)
    halfway = top + step / 2
    tie_goes_up = (rounding == "half_away") | ((top / step) % 2 == 1)
    return np.asarray((magnitudes > halfway) | ((magnitudes == halfway) & tie_goes_up))


def _two_largest_codes(output_format: Format) -> tuple[int, int]:
    """Return the codes of the largest number and of the one below, whatever the block scale."""
    every = np.arange(output_format.code_low, output_format.code_high + 1)
    codes = every[~np.isin(every, output_format.reserved_codes)][:, None]
    blocks = output_format.blocks
    scales = None if blocks is None else np.full(codes.shape, blocks.scale_high // 2)
    order = np.argsort(make_qtensor(codes, output_format, block_scales=scales).dequantize()[:, 0])
    return int(codes[order[-1], 0]), int(codes[order[-2], 0])
