"""How fast the configured DRAM is, in cycles of the array's clock."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelsim.config.model import HardwareConfig

PRESETS_PATH = Path(__file__).parent / "dram_presets.yaml"


@dataclass(frozen=True)
class DramTiming:
    """The DRAM's speed in array cycles.

    bytes_per_cycle : of each channel; infinite for ideal timing
    latency_cycles : from a request to its first byte
    burst_bytes : a transfer takes whole bursts
    channels : that work at the same time
    """

    bytes_per_cycle: float
    latency_cycles: int
    burst_bytes: int
    channels: int

    @property
    def ideal(self) -> bool:
        return math.isinf(self.bytes_per_cycle) and self.latency_cycles == 0


@functools.cache
def dram_presets() -> dict[str, dict[str, dict[str, Any]]]:
    """Return {kind: {figure: {value, mark, source}}} of ``dram_presets.yaml``."""
    import yaml

    presets: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(PRESETS_PATH.read_text(encoding="utf-8"))
    return presets


def resolve_dram(config: HardwareConfig) -> DramTiming:
    """Return the DRAM's speed at the configuration's clock; what the user wrote goes before the preset.

    GB/s are 10^9 bytes a second: 25.6 GB/s at 800 MHz are 32 bytes a cycle. Latencies are rounded up to whole cycles.
    """
    dram = config.dram
    if dram.timing == "ideal":
        return DramTiming(bytes_per_cycle=math.inf, latency_cycles=0, burst_bytes=1, channels=1)
    preset = {figure: entry["value"] for figure, entry in dram_presets()[dram.kind].items()}
    bytes_per_cycle, latency_cycles = dram.bytes_per_cycle, dram.latency_cycles
    if bytes_per_cycle is None:
        bytes_per_cycle = preset["bandwidth_gb_per_s"] * 1000 / config.clock_mhz
    if latency_cycles is None:
        latency_cycles = math.ceil(round(preset["latency_ns"] * config.clock_mhz / 1000, 9))
    return DramTiming(
        bytes_per_cycle=bytes_per_cycle,
        latency_cycles=latency_cycles,
        burst_bytes=preset["burst_bytes"] if dram.burst_bytes is None else dram.burst_bytes,
        channels=preset["channels"] if dram.channels is None else dram.channels,
    )
