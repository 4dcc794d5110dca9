"""Why a layer is cut as it is, in words."""

from __future__ import annotations

from accelsim.config.model import HardwareConfig
from accelsim.memory.contract import LayerNeeds, LayerTiling

LOOPS = {"b": "matrix products", "m": "rows", "n": "columns", "k": "the reduction"}


def explain(tiling: LayerTiling, needs: LayerNeeds, config: HardwareConfig, *, spills: bool, pinned: bool) -> str:
    """Return one or more sentences: what fits, what is loaded how often, and what the limit is."""
    if tiling.tile_count == 0:
        return "only addresses move: no traffic"
    said = []
    if pinned:
        said.append("as memory.tiling asks")
    if needs.plan is None:
        strips = "one piece" if tiling.tile_count == 1 else f"{tiling.tile_count} strips"
        said.append(f"streams through the vector unit in {strips}")
    else:
        said += _of_operand(
            "weights", int(tiling.weight_bits.sum()) - needs.parameter_bits, _second_bits(needs), tiling
        )
        if not tiling.on_chip_inputs:
            said += _of_operand("activations", int(tiling.activation_bits.sum()), needs.inputs[0].bits, tiling)
    if tiling.on_chip_inputs:
        said.append(f"{', '.join(tiling.on_chip_inputs)} found on chip")
    if tiling.output_on_chip:
        said.append("output stays on chip" + (", and leaves as a result too" if needs.output_leaves else ""))
    if spills:
        said.append(
            f"unfinished sums do not fit the accumulator buffer ({config.buffers.accumulator.size_bytes:,} bytes) and "
            "travel to DRAM and back"
            + ("; memory.passes: split would keep them" if config.memory.passes == "whole" and needs.plan else "")
        )
    if tiling.entries > 1:
        said.append(f"each stationary tile enters the array {tiling.entries} times")
    if tiling.order:
        said.append("loops, outermost first: " + ", ".join(LOOPS[loop] for loop in tiling.order))
        said.append("fullest buffer: " + _fullest(tiling, config))
    return "; ".join(said)


def _fullest(tiling: LayerTiling, config: HardwareConfig) -> str:
    """Return which buffer the tiles fill most, and how far."""
    shares = {
        name: bits / (8 * getattr(config.buffers, name).size_bytes)
        for name, bits in zip(("weight", "activation", "output", "accumulator"), tiling.buffer_bits, strict=True)
    }
    name = max(shares, key=lambda each: shares[each])
    return f"{name}, {shares[name]:.0%}"


def _second_bits(needs: LayerNeeds) -> int:
    return needs.weight.bits if needs.weight is not None else needs.inputs[1].bits


def _of_operand(what: str, loaded: int, once: int, tiling: LayerTiling) -> list[str]:
    if not once:
        return []
    times = loaded / once
    if times < 1.0005:
        return [f"{what} once"]
    return [f"{what} {times:.3g} times"]
