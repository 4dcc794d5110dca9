"""Which models and bounds stand behind a run's numbers? The sentences of `RunReport.assumptions`."""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.config.model import HardwareConfig
from accelsim.memory.network import Share

ASSUMPTIONS = (
    "cycles: stall-free array and buffers, layers one after another (docs/timing.md)",
    "memory: tiles that fit the buffers, planned for little traffic (docs/memory.md); an operand is read from its "
    "buffer for every pass that uses it; a buffer's capacity sets the price of a bit",
    "energy: modelled, counted actions times the prices of the named table (docs/energy.md)",
)
MEMORY_ASSUMPTIONS = (
    "cycles: layers are cut into tiles that fit the buffers; transfers hide behind computing where they can, and what "
    "does not hide is charged to what the array waits for (docs/memory.md)",
    "memory: DRAM moves whole bursts at its pins' bandwidth, in an order fixed before the run, without refresh or row "
    "misses; an operand is read from its buffer for every pass that uses it",
    ASSUMPTIONS[2],
)


def spill_notes(shares: Sequence[Sequence[Share]], config: HardwareConfig) -> list[str]:
    """Say which layers' unfinished sums travel to DRAM and back."""
    remedy = "; memory.passes: split would keep them on chip" if config.memory.passes == "whole" else ""
    remarks = []
    for of_layer in shares:
        spilled_bits = sum(int(share.tiling.spill_bits.sum()) for share in of_layer)
        if spilled_bits:
            remarks.append(
                f"memory: layer {of_layer[0].needs.name} moves {spilled_bits // 8:,} bytes of unfinished sums to DRAM "
                "and back, which the accumulator buffer's "
                f"{config.buffers.accumulator.size_bytes:,} cannot keep{remedy}"
            )
    return remarks


def unmeasured_note(layers: list[str]) -> tuple[str, ...]:
    """Return what a data-aware report says of psums that no engine measured."""
    if not layers:
        return ()
    return (
        f"energy: psum and accumulator toggles of {', '.join(layers)} are not measured (the stepped engine does); by "
        f"data, every other bit of these psums is taken to change",
    )
