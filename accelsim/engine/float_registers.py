"""Float32 psums and accumulators, as the stepped kernels keep them in integers that compare as the floats do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.mapping.contract import LayerPlan


def sums_are_floats(plan: LayerPlan) -> bool:
    """Whether psums and accumulators are float32, and not integers."""
    return plan.summation.kind == "float32"


def as_float32(registers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what float32 psum and accumulator registers hold, given as the kernels keep them: the bits of the
    magnitude, negative where the float is.
    """
    sign = np.where(registers < 0, 1 << 31, 0)
    return (np.abs(registers) | sign).astype(np.uint32).view(np.float32)


def from_float32(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return registers that hold float32 numbers; :func:`as_float32` reads them back."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)
    magnitude = bits & 0x7FFFFFFF
    return np.where(bits >> 31, -magnitude, magnitude)
