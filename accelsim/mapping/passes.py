"""The passes of a layer: which tile is in the array when, how far each pass travels, and what streams past."""

from __future__ import annotations

import numpy as np

from accelsim.config.model import HardwareConfig
from accelsim.mapping.contract import GemmShape, Int64, Passes


def layer_passes(shape: GemmShape, steps: int, config: HardwareConfig) -> Passes:
    """Return all passes in order; os: m folds, then n folds; ws and is: column folds, then K folds (innermost)."""
    (outer, outer_step), (inner, inner_step) = _folded(shape, steps, config)
    starts_outer = np.arange(0, outer, outer_step, dtype=np.int64)
    starts_inner = np.arange(0, inner, inner_step, dtype=np.int64)
    first = np.tile(np.repeat(starts_outer, starts_inner.size), shape.batch)
    second = np.tile(starts_inner, starts_outer.size * shape.batch)
    batch = np.repeat(np.arange(shape.batch, dtype=np.int64), starts_outer.size * starts_inner.size)
    first_used, second_used = np.minimum(outer - first, outer_step), np.minimum(inner - second, inner_step)
    if config.array.dataflow == "os":
        return Passes(batch, first, first_used, second, second_used)
    return Passes(batch, second, second_used, first, first_used)


def pass_count(shape: GemmShape, steps: int, config: HardwareConfig) -> int:
    """Return how many passes a layer has."""
    (outer, outer_step), (inner, inner_step) = _folded(shape, steps, config)
    return shape.batch * -(-outer // outer_step) * -(-inner // inner_step)


def _folded(shape: GemmShape, steps: int, config: HardwareConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the two dimensions that are cut into folds, each with its part of the array: the outer and inner loop."""
    rows, cols, dataflow = config.array.rows, config.array.cols, config.array.dataflow
    if dataflow == "os":
        return (shape.m, rows), (shape.n, cols)
    return (shape.m if dataflow == "is" else shape.n, cols), (steps, rows)


def extents(passes: Passes, config: HardwareConfig) -> tuple[Int64, Int64]:
    """Return the rows and columns that each pass travels: the whole array, or only what it uses."""
    if config.array.skip_unused:
        return passes.rows, passes.cols
    return np.full_like(passes.rows, config.array.rows), np.full_like(passes.cols, config.array.cols)


def streamed_rows(shape: GemmShape, config: HardwareConfig) -> int:
    """Return the rows that stream past a stationary operand in one pass."""
    return shape.n if config.array.dataflow == "is" else shape.m
