"""By what the tilings of a layer are ranked: a short list of measures that knows nothing of the machine's DRAM.

Which tiling is the fastest depends on the memory around the array. Were it chosen by an estimate for that memory, a
faster one could come with a tiling that is slower in truth. So every ranking supposes a memory of its own, the same for
all machines; each gives one plan of the network, all plans are timed with the machine's own memory, and the shortest
run counts (accelsim.memory.network). None of the plans becomes slower where the machine becomes faster, and so neither
does the shortest of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from accelsim.config.model import HardwareConfig
from accelsim.mapping.contract import Int64
from accelsim.memory.tile_cost import Floats

Objective = Literal["traffic", "latency"]

LATENCY_STEP = 1.01
"""Estimated latencies within this factor count as equal, so that a per cent does not pay for many small tiles."""
SUPPOSED_PPU_CYCLES = 4
"""Of every layer: a PPU that keeps pace with the array is supposed, as deep as configurations have it by default."""
BURST_BYTES = 64
"""Of the supposed memories: a DDR burst."""


@dataclass(frozen=True)
class Supposed:
    """A memory as a ranking supposes it. bytes_per_cycle : of all channels; overhead_cycles : of each transfer, latency
    and set-up.
    """

    bytes_per_cycle: float
    overhead_cycles: int


IDEAL = Supposed(math.inf, 0)
SUPPOSED = (Supposed(16, 64), Supposed(2, 64), Supposed(128, 64))
"""From an LPDDR channel on a fast clock to a stack of HBM2 on a slow one."""


@dataclass(frozen=True)
class Ranking:
    """What counts first, second and third.

    first : the objective; "latency" is the estimate with the supposed memory, in steps of `LATENCY_STEP`, and the
        other objective comes second
    fewest : the number of tiles comes second (else third)
    """

    first: Objective
    memory: Supposed = IDEAL
    fewest: bool = False

    def keys(self, traffic_bits: Floats, steps: Int64 | Floats, tiles: Floats) -> list[Floats | Int64]:
        """Return what is compared, the most important one first."""
        if self.first == "latency":
            return [steps, traffic_bits, tiles]
        return [traffic_bits, tiles, steps] if self.fewest else [traffic_bits, steps, tiles]


def rankings(config: HardwareConfig) -> tuple[Ranking, ...]:
    """Return all rankings for `memory.objective`, in the order that decides between equally fast plans.

    "traffic": each begins with the least traffic, so that the memory decides about time alone. "latency": these come
    last, so that no run is slower than with "traffic".
    """
    least = (Ranking("traffic"), *(Ranking("traffic", memory) for memory in SUPPOSED), Ranking("traffic", fewest=True))
    if config.memory.objective == "traffic":
        return least
    return (Ranking("latency"), *(Ranking("latency", memory) for memory in SUPPOSED), *least)


def latency_steps(
    memory: Supposed, computing: Int64, traffic_bits: Floats, transfers: Int64, tiles: Floats, *, hidden: bool
) -> Int64 | Floats:
    """Return about how long tilings take with a supposed memory, in steps.

    Computing and moving at once, and at the ends what nothing hides: one tile's transfers. Moving takes the channels
    for whole bursts, and the engine for each transfer's overhead besides. hidden : both operands' buffers have two
    halves; otherwise computing and moving come one after the other.
    """
    bursts = transfers * np.ceil(traffic_bits / (8 * BURST_BYTES) / np.maximum(transfers, 1))
    moving = bursts * (BURST_BYTES / memory.bytes_per_cycle) + transfers * memory.overhead_cycles
    if hidden:
        estimate = np.maximum(computing, moving) + moving / tiles + 2 * memory.overhead_cycles
    else:
        estimate = computing + moving
    steps: Floats = np.ceil(np.log(np.maximum(estimate, 1)) / math.log(LATENCY_STEP))
    return steps
