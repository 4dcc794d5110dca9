"""What surrounds the arrays, as the timeline sees it: how long a transfer takes, what a buffer's ports can serve."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from accelsim.mapping.contract import Int64
from accelsim.memory.contract import Operand


@dataclass(frozen=True)
class Ports:
    """The ports of an on-chip buffer; each bank serves `ports` accesses of `width_bits` a cycle.

    width_bits : of one access to one bank; None: as many bits as are asked for
    size_bits : capacity; None: unlimited
    ping_pong : two halves, one of which is filled while the other one is used
    """

    width_bits: int | None = None
    banks: int = 1
    ports: int = 2
    size_bits: int | None = None
    ping_pong: bool = True

    def write_cycles(self, bits: Int64) -> Int64:
        """Return the cycles that a transfer keeps one port of every bank busy."""
        if self.width_bits is None:
            return np.zeros_like(bits)
        return -(-bits // (self.width_bits * self.banks))

    def busy_cycles(self, bits: Int64) -> Int64:
        """Return the cycles in which all ports together serve so many bits."""
        if self.width_bits is None:
            return np.zeros_like(bits)
        return -(-bits // (self.width_bits * self.banks * self.ports))


UNLIMITED = Ports()


@dataclass(frozen=True)
class Surroundings:
    """DRAM, DMA engines and buffers of a machine, in cycles of the array's clock. The default is ideal: takes no time.

    engines : DMA engines a core has; each works on one transfer at a time
    setup_cycles : of an engine, before each transfer
    latency_cycles : from a request to its first beat; an engine waits that long, the channels do not
    bytes_per_cycle : of one channel; infinite: ideal
    burst_bytes : a transfer moves whole bursts; they go to the channels in turn
    channels : of the DRAM, which all cores share
    ports : of the buffers, by what they hold; each core has its own
    """

    engines: int = 1
    setup_cycles: int = 0
    latency_cycles: int = 0
    bytes_per_cycle: float = math.inf
    burst_bytes: int = 1
    channels: int = 1
    ports: dict[Operand, Ports] = field(default_factory=dict)

    def buffer(self, operand: Operand) -> Ports:
        return self.ports.get(operand, UNLIMITED)

    def dram_cycles(self, bits: Int64) -> Int64:
        """Return the cycles that transfers keep the channels busy: whole bursts, the busiest channel's share."""
        bursts = -(-bits // (8 * self.burst_bytes))
        share_bytes = -(-bursts // self.channels) * self.burst_bytes
        if math.isinf(self.bytes_per_cycle):
            return np.zeros_like(bits)
        return np.ceil(share_bytes / self.bytes_per_cycle).astype(np.int64)
