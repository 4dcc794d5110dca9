"""A layer's output codes: taken from what an operator made, counted where they differ, and the steps between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.formats.spec import FLOATING, Codes, QTensor
from accelsim.operators.spec import Blocked
from accelsim.report.accuracy import count_mismatches


def codes_and_scales(
    made: list[Any] | Codes | Blocked, shape: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return what an operator made as codes and block scales."""
    if isinstance(made, Blocked):
        return made.codes, made.block_scales
    return np.asarray(made).reshape(shape), None


def differing_codes(output: QTensor, expected: QTensor) -> int:
    """Count differing codes and, where there are blocks, differing block scales."""
    count = count_mismatches(output.codes, expected.codes)
    if output.block_scales is not None and expected.block_scales is not None:
        count += count_mismatches(output.block_scales, expected.block_scales)
    return count


def quantization_steps(output: QTensor) -> NDArray[np.float64]:
    """Return the size of a quantization step around each output element: for floats, of its binade."""
    step = np.broadcast_to(output.per_channel(output.scale), output.shape)
    if output.format.datapath not in FLOATING and output.format.blocks is None:
        return np.asarray(step)
    lanes = output.lanes()
    if lanes.exponents is not None:
        step = np.ldexp(step, lanes.exponents)
    factors = lanes.block_factors()
    if factors is None or output.format.blocks is None or output.block_axis is None:
        return np.asarray(step)
    spread = np.repeat(factors, output.format.blocks.size, axis=output.block_axis)
    scales = spread.take(np.arange(output.shape[output.block_axis]), axis=output.block_axis)
    # A vector of zeros has no scale: its step is the smallest one.
    return np.asarray(np.where(scales > 0, scales, 1.0) * step)
