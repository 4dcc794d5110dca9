"""What the watched engine reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.contract import OverflowEvent

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class TimedEvent:
    """An overflow and when it happened.

    event : what did not fit, and where
    number : the pass
    cycle : of the pass, counted from the first cycle of its array phase (docs/timing.md)
    array_cycle : of the layer, waiting for the PPU apart
    """

    event: OverflowEvent
    number: int
    cycle: int
    array_cycle: int


@dataclass(frozen=True, eq=False)
class RegisterHistory:
    """What one kind of register (psum or accumulator) did in a layer.

    overflows : additions whose exact sum did not fit (the bias preload apart)
    overflows_by_output : int32 [batch, M, N]
    first : the overflow of the earliest cycle; of several the one whose output comes first. None: there is none
    toggles : bits that changed in additions, and (psums of ws and is) as registers return to zero behind the wave
    cycles : returns (toggles_by_cycle, overflows_by_cycle). Two numbers for every cycle may take more memory than the
        layer's tensors: unless history was asked for, the layer runs once more when they are first wanted
    """

    overflows: int
    overflows_by_output: Int32
    first: TimedEvent | None
    toggles: int
    cycles: Callable[[], tuple[Int64, Int64]]

    @property
    def toggles_by_cycle(self) -> Int64:
        """int64 [array cycles + 1], bits that change at the end of each cycle; the last entry: registers that return to
        zero as the layer ends.
        """
        return self.cycles()[0]

    @property
    def overflows_by_cycle(self) -> Int64:
        """int64 [array cycles + 1], additions whose sum did not fit, in each cycle."""
        return self.cycles()[1]


@dataclass(frozen=True, eq=False)
class WatchedResult:
    """What the array did with one layer.

    acc : int64 [batch, M, N], the accumulators after the last fold
    array_cycles : load, fill, compute, and drain
    psum, accumulator : the two registers. Moves of psums while os drains are no additions, and are not in `psum`
    """

    acc: Int64
    array_cycles: int
    psum: RegisterHistory
    accumulator: RegisterHistory
