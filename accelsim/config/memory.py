"""The sections around the array: buffers, DMA engines, DRAM, cores, and how layers are cut into tiles."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from accelsim.config.section import Line, Section

ORDER_LETTERS = "bmnk"
WORD_BITS = 64
"""Of an SRAM whose width is not given: the published prices are of accesses of 64 bits."""


class Buffer(Section):
    """An on-chip SRAM; its banks, words and ports set the energy of a bit, its capacity how much of a tensor can wait.

    The halves of a ping-pong buffer are halves of its addresses, since a tensor that stays as a whole uses both; halves
    that are SRAMs of their own are two `banks`.
    """

    size_bytes: int = Field(ge=64, le=1 << 30, description="capacity")
    width_bits: int | None = Field(
        None, ge=1, le=1 << 20, description="bits a cycle of each port of a bank; null: as many as the array asks for"
    )
    banks: int = Field(1, ge=1, le=1024, description="parts that work at the same time")
    ports: int = Field(1, ge=1, le=8, description="accesses a cycle of each bank")
    ping_pong: bool = Field(True, description="two halves: one is filled while the other one is used")

    @property
    def sram(self) -> tuple[int, int, int]:
        """What the price of a bit depends on: bytes of a bank, bits of a word, and ports."""
        word_bits = WORD_BITS if self.width_bits is None else self.width_bits
        return -(-self.size_bytes // self.banks), word_bits, self.ports


class Buffers(Section):
    """The SRAMs around the array."""

    weight: Buffer = Field(default_factory=lambda: Buffer(size_bytes=262144), description="weights")
    activation: Buffer = Field(default_factory=lambda: Buffer(size_bytes=262144), description="input activations")
    output: Buffer = Field(default_factory=lambda: Buffer(size_bytes=65536), description="output codes")
    accumulator: Buffer = Field(default_factory=lambda: Buffer(size_bytes=65536), description="accumulators")


class Dma(Section):
    """The engines that move tiles between DRAM and buffers."""

    engines: int = Field(1, ge=1, le=64, description="transfers at the same time")
    setup_cycles: int = Field(0, ge=0, le=1_000_000, description="cycles before each transfer")


class Dram(Section):
    """Off-chip memory: what a bit costs, and how long it takes."""

    kind: Literal["ddr3", "ddr4", "lpddr4", "lpddr5", "hbm2", "hbm2_board"] = Field(
        "ddr3", description="named preset: the energy table's price of a bit, and the times below"
    )
    timing: Literal["ideal", "preset"] = Field(
        "ideal", description="ideal: infinite bandwidth and no latency; preset: the kind's, at this clock"
    )
    bytes_per_cycle: float | None = Field(
        None, gt=0, le=1e6, allow_inf_nan=False, description="of each channel, in array cycles; null: the preset's"
    )
    latency_cycles: int | None = Field(
        None, ge=0, le=1_000_000, description="from a request to its first byte; null: the preset's"
    )
    burst_bytes: int | None = Field(None, ge=1, le=65536, description="transfers are whole bursts; null: the preset's")
    channels: int | None = Field(None, ge=1, le=1024, description="independent channels; null: the preset's")

    @model_validator(mode="after")
    def _ideal_has_no_numbers(self) -> Dram:
        given = [
            name
            for name in ("bytes_per_cycle", "latency_cycles", "burst_bytes", "channels")
            if getattr(self, name) is not None
        ]
        if self.timing == "ideal" and given:
            raise ValueError(f"{given[0]}={getattr(self, given[0])} does nothing with timing ideal; use timing: preset")
        return self


class Cores(Section):
    """Copies of the array with its buffers, PPU and vector unit, that share the DRAM."""

    count: int = Field(1, ge=1, le=256, description="cores")
    split: Literal["output_channels", "rows", "batch", "layers"] = Field(
        "output_channels", description="a core's share: output channels, output rows or inputs of a layer; or layers"
    )


class TilePin(Section):
    """Tile sizes and loop order that the user chooses; what is null the planner chooses."""

    layer: Line | None = Field(None, min_length=1, max_length=200, description="which layer; null: every other one")
    m: int | None = Field(None, ge=1, le=1 << 31, description="rows of the output")
    n: int | None = Field(None, ge=1, le=1 << 31, description="columns of the output (channels)")
    k: int | None = Field(None, ge=1, le=1 << 31, description="elements of the reduction")
    order: Line | None = Field(
        None, min_length=1, max_length=4, description="loops over tiles from the outermost to the innermost, e.g. mnk"
    )

    @model_validator(mode="after")
    def _order_is_of_loops(self) -> TilePin:
        if self.order is not None and (len(set(self.order)) < len(self.order) or set(self.order) - set(ORDER_LETTERS)):
            raise ValueError(
                f"order={self.order!r}: name each loop once, of b (the matrix products of a layer), m, n and k"
            )
        return self


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _as_list(value: tuple[TilePin, ...]) -> list[dict[str, Any]]:
    return [pin.model_dump() for pin in value]


class Memory(Section):
    """How layers are cut into tiles that fit the buffers."""

    objective: Literal["traffic", "latency"] = Field(
        "traffic", description="what the planner makes small: bits to and from DRAM, or cycles"
    )
    passes: Literal["whole", "split"] = Field(
        "whole",
        description="ws, is: all that streams past a stationary tile does so at once, or a part for each tile (split)",
    )
    fuse_layers: bool = Field(
        False, description="outputs that fit the activation buffer stay there for the layers that read them"
    )
    tiling: Annotated[
        tuple[TilePin, ...],
        BeforeValidator(_as_tuple, json_schema_input_type=list[TilePin]),
        PlainSerializer(_as_list),
    ] = Field((), description="tile sizes that you choose: a list of {layer, m, n, k, order}")

    @model_validator(mode="after")
    def _a_layer_is_pinned_once(self) -> Memory:
        names = [pin.layer for pin in self.tiling]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            which = "every layer" if twice[0] is None else repr(twice[0])
            raise ValueError(f"tiling has {names.count(twice[0])} entries for {which}; use one")
        return self

    def pin(self, layer: str) -> TilePin:
        """Return what the user chose for a layer: its own entry, or the one for every layer."""
        by_name = {pin.layer: pin for pin in self.tiling}
        return by_name.get(layer, by_name.get(None, TilePin()))
