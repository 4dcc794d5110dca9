"""The timeline of memory and DRAM."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.config.model import Buffer, Buffers, Cores, Dma, Dram, HardwareConfig, Memory
from accelsim.memory.needs import network_needs
from accelsim.memory.network import network_time
from benchmarks.measure import cpu_timer, in_turns
from benchmarks.networks import builder
from benchmarks.result import Goal, Row, timed_row
from benchmarks.run import Case, Run
from benchmarks.shapes import resnet18
from benchmarks.workloads import machine

KIB = 1 << 10
SIZES = {"weight": 128, "activation": 128, "output": 64, "accumulator": 64}  # KiB, as configs/int8_ws.yaml
LIMIT_S = 0.3


def surrounded(dataflow: str, cores: int = 1) -> HardwareConfig:
    """Return a 16 x 16 array with buffers that ResNet-18 does not fit, and DDR4 behind them."""
    return machine(16, 16, dataflow).model_copy(  # type: ignore[arg-type]
        update={
            "buffers": Buffers(**{name: Buffer(size_bytes=size * KIB) for name, size in SIZES.items()}),
            "dram": Dram(kind="ddr4", timing="preset"),
            "dma": Dma(engines=2, setup_cycles=16),
            "memory": Memory(passes="split"),
            "cores": Cores(count=cores, split="rows"),
        }
    )


def _timeline(run: Run) -> Iterator[Row]:
    network = builder("resnet18", resnet18()).build()
    for name, config in (
        ("os", surrounded("os")),
        ("ws", surrounded("ws")),
        ("ws, four cores", surrounded("ws", cores=4)),
    ):
        needs = network_needs(network, config)

        def work(config: HardwareConfig = config) -> None:
            network_time(network_needs(network, config), config)

        time = network_time(needs, config)
        yield timed_row(
            "timeline",
            f"ResNet-18, 16 x 16, timeline of memory and DRAM, {name}",
            in_turns({"ours": cpu_timer(work)}, run.repeats)["ours"],
            goal=None if config.cores.count > 1 else Goal("value", LIMIT_S),
            note=f"plans, tiles and timeline: {time.tiles:,} tiles, {time.timeline.transfers:,} transfers, "
            f"{time.timeline.makespan_cycles:,} cycles",
        )


CASES = (Case("timeline", "whole ResNet-18, 16 x 16: timeline of memory and DRAM", "0.3 s of CPU time", _timeline),)
