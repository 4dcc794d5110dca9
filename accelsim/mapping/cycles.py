"""The cycles of a layer's passes, by cause, in closed form (docs/timing.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.mapping.contract import CycleCounts, GemmShape, Int64, Passes
from accelsim.mapping.passes import extents, streamed_rows

PASS_CAUSES = ("load", "fill", "compute", "drain", "ppu")


@dataclass(frozen=True)
class PassCycles:
    """Array cycles of every pass, by cause: int64, one entry a pass. What hides behind another pass is not in them.

    post : no cause: cycles in which the PPU takes the pass's results, whether the array waits for it or not
    """

    load: Int64
    fill: Int64
    compute: Int64
    drain: Int64
    ppu: Int64
    post: Int64

    @property
    def total(self) -> int:
        return int(sum(getattr(self, cause).sum() for cause in PASS_CAUSES))


def cycle_counts(shape: GemmShape, passes: Passes, steps: int, step_cycles: int, config: HardwareConfig) -> CycleCounts:
    """Return the array cycles of a layer. steps : lane steps that cover K, whole blocks; of `step_cycles` each."""
    each = pass_cycles(shape, passes, steps, step_cycles, config)
    return CycleCounts(**{cause: int(getattr(each, cause).sum()) for cause in PASS_CAUSES})


def pass_cycles(shape: GemmShape, passes: Passes, steps: int, step_cycles: int, config: HardwareConfig) -> PassCycles:
    """Return the array cycles of a layer's passes; the PPU's pipeline empties in the last one."""
    r, c = extents(passes, config)
    if config.array.dataflow == "os":
        each = _output_stationary(passes, r, c, steps * step_cycles, config)
    else:
        each = _operand_stationary(passes, r, c, steps, streamed_rows(shape, config), step_cycles, config)
    for cycles in (each.ppu, each.post):
        cycles[-1] += config.ppu.latency_cycles
    return each


def total_by_stream(passes: Passes, steps: int, streamed: Int64, step_cycles: int, config: HardwareConfig) -> list[int]:
    """Return the sum of a layer's array cycles (ws, is) for each of several numbers of rows that stream past; what
    :func:`pass_cycles` gives, without going over all passes for each.
    """
    r, c = extents(passes, config)
    fill = r + c - 2
    gaps, counts = np.unique(r[1:] - fill[:-1], return_counts=True)  # of a load, to what it hides behind
    stalls, fills, loads = int(_stalls(passes, steps, step_cycles, config).sum()), int(fill.sum()), int(r.sum())
    totals = []
    for rows in streamed.tolist():
        if config.array.double_buffered:
            loads = int(r[0] + (np.maximum(0, gaps - rows * step_cycles) * counts).sum())
        totals.append(loads + fills + rows * (step_cycles * len(passes) + stalls) + config.ppu.latency_cycles)
    return totals


def _output_stationary(passes: Passes, r: Int64, c: Int64, working: int, config: HardwareConfig) -> PassCycles:
    fill = r + c - 2
    extra = _extra_ppu_cycles(passes, config)
    drain, stall, post = r, passes.rows * extra, passes.rows * (1 + extra)
    if config.array.drain_overlap:  # what does not hide behind the next pass; nothing hides the last drain
        hidden = np.append(working + fill[1:], 0)
        exposed = np.maximum(0, r + stall - hidden)
        drain = np.maximum(0, r - hidden)
        stall = exposed - drain
    computing = np.full_like(r, working)
    return PassCycles(load=np.zeros_like(r), fill=fill, compute=computing, drain=drain, ppu=stall, post=post)


def _operand_stationary(
    passes: Passes, r: Int64, c: Int64, steps: int, streamed: int, step_cycles: int, config: HardwareConfig
) -> PassCycles:
    fill = r + c - 2
    working = streamed * step_cycles
    load = r
    if config.array.double_buffered:  # what does not hide behind the pass before; nothing hides the first load
        load = np.maximum(0, r - np.append(0, working + fill[:-1]))
    stall = streamed * _stalls(passes, steps, step_cycles, config)
    post = streamed * (1 + _extra_ppu_cycles(passes, config)) * _last_folds(passes, steps)
    return PassCycles(
        load=load, fill=fill, compute=np.full_like(r, working), drain=np.zeros_like(r), ppu=stall, post=post
    )


def _stalls(passes: Passes, steps: int, step_cycles: int, config: HardwareConfig) -> Int64:
    """Return the cycles for which each row of a pass waits for the PPU (ws, is)."""
    # A row of results leaves every `step_cycles`: that long the PPU may take over it.
    extra = np.maximum(0, _extra_ppu_cycles(passes, config) - (step_cycles - 1))
    stalls: Int64 = extra * _last_folds(passes, steps)
    return stalls


def _last_folds(passes: Passes, steps: int) -> NDArray[np.bool_]:
    """Return which passes' results are final and leave for the PPU (ws, is)."""
    last: NDArray[np.bool_] = passes.row0 + passes.rows == steps
    return last


def _extra_ppu_cycles(passes: Passes, config: HardwareConfig) -> Int64:
    """Return the cycles, beyond the one that the array gives it, that the PPU needs for a row of a pass's results."""
    extra: Int64 = -(-passes.cols // config.ppu.lanes) - 1
    return extra
