"""What a run's timeline comes to, as frozen values: the makespan, what each core did with it, and the DRAM's share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from accelsim.mapping.contract import CycleCounts

if TYPE_CHECKING:
    from accelsim.memory.network import NetworkTime


@dataclass(frozen=True, kw_only=True)
class TimelineSummary:
    """A run in time, with the memory around the arrays (docs/memory.md).

    makespan_cycles : from the first request to the end of the last store
    cores : cycles of every core by cause; each adds up to the makespan
    tiles, transfers : that were computed, and moved by DMA
    dram_read_bits, dram_write_bits : traffic of all cores
    dram_busy_cycles : in which the channels moved data
    peak_bytes_per_cycle : of all channels together; None: DRAM takes no time
    saved_bits : DRAM traffic saved by outputs that stayed on chip
    """

    DERIVED: ClassVar = ("bytes_per_cycle", "dram_utilization", "balance")

    makespan_cycles: int
    cores: tuple[CycleCounts, ...]
    tiles: int
    transfers: int
    dram_read_bits: int
    dram_write_bits: int
    dram_busy_cycles: int
    peak_bytes_per_cycle: float | None
    saved_bits: int

    @classmethod
    def of(cls, memory: NetworkTime) -> TimelineSummary:
        """Return the summary of a network in time."""
        timeline = memory.timeline
        return cls(
            makespan_cycles=timeline.makespan_cycles,
            cores=timeline.cores,
            tiles=memory.tiles,
            transfers=timeline.transfers,
            dram_read_bits=timeline.dram_read_bits,
            dram_write_bits=timeline.dram_write_bits,
            dram_busy_cycles=timeline.dram_busy_cycles,
            peak_bytes_per_cycle=memory.peak_bytes_per_cycle,
            saved_bits=memory.saved_bits,
        )

    @property
    def bytes_per_cycle(self) -> float:
        """DRAM bandwidth used, averaged over the makespan."""
        return (self.dram_read_bits + self.dram_write_bits) / 8 / self.makespan_cycles if self.makespan_cycles else 0.0

    @property
    def dram_utilization(self) -> float:
        """Share of the makespan in which the channels move data."""
        return self.dram_busy_cycles / self.makespan_cycles if self.makespan_cycles else 0.0

    @property
    def balance(self) -> float:
        """Mean work of a core over the busiest core's, in cycles that are not spent waiting; 1: evenly shared."""
        busy = [core.array + core.ppu + core.vector for core in self.cores]
        return sum(busy) / len(busy) / max(busy) if max(busy, default=0) else 1.0
