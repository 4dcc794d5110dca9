"""The passes of a layer: which tile is in the array when, how far each pass travels, and what streams past."""

from __future__ import annotations

import numpy as np

from accelsim.config.model import HardwareConfig
from accelsim.mapping.contract import GemmShape, Int64, Passes


def layer_passes(shape: GemmShape, steps: int, config: HardwareConfig) -> Passes:
    """Return all passes in order; os: m folds, then n folds; ws and is: column folds, then K folds (innermost)."""
    array = config.array
    stationary_cols = shape.m if array.dataflow == "is" else shape.n
    outer, inner = (shape.m, shape.n) if array.dataflow == "os" else (stationary_cols, steps)
    outer_step, inner_step = (array.rows, array.cols) if array.dataflow == "os" else (array.cols, array.rows)
    starts_outer = np.arange(0, outer, outer_step, dtype=np.int64)
    starts_inner = np.arange(0, inner, inner_step, dtype=np.int64)
    first = np.tile(np.repeat(starts_outer, starts_inner.size), shape.batch)
    second = np.tile(starts_inner, starts_outer.size * shape.batch)
    batch = np.repeat(np.arange(shape.batch, dtype=np.int64), starts_outer.size * starts_inner.size)
    first_used, second_used = np.minimum(outer - first, outer_step), np.minimum(inner - second, inner_step)
    if array.dataflow == "os":
        return Passes(batch, first, first_used, second, second_used)
    return Passes(batch, second, second_used, first, first_used)


def extents(passes: Passes, config: HardwareConfig) -> tuple[Int64, Int64]:
    """Return the rows and columns that each pass travels: the whole array, or only what it uses."""
    if config.array.skip_unused:
        return passes.rows, passes.cols
    return np.full_like(passes.rows, config.array.rows), np.full_like(passes.cols, config.array.cols)


def streamed_rows(shape: GemmShape, config: HardwareConfig) -> int:
    """Return the rows that stream past a stationary operand in one pass."""
    return shape.n if config.array.dataflow == "is" else shape.m
