"""A whole network on a configured machine: tiles for every core, and the timeline of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from accelsim.config.dram_timing import resolve_dram
from accelsim.config.model import Buffer, HardwareConfig, Memory
from accelsim.mapping.contract import Int64
from accelsim.mapping.traffic import edge_bits
from accelsim.memory.contract import LayerNeeds, LayerTiling, Operand, Timeline
from accelsim.memory.machine import Ports, Surroundings
from accelsim.memory.program import PARTS, Stage
from accelsim.memory.shares import balanced, share_of
from accelsim.memory.tile_build import spread
from accelsim.memory.tiling import tile_layer, tile_network
from accelsim.memory.timeline import run_timeline

OPERANDS: tuple[Operand, ...] = ("weight", "activation", "output", "accumulator")
MAX_TILES = 5_000
"""Tiles of a layer on a core that are simulated apart; of more, neighbours are taken together."""
MAX_RUN_TILES, MIN_TILES = 200_000, 200
"""The same for a whole run: networks of hundreds of layers get fewer tiles a layer, but not fewer than `MIN_TILES`."""
MAX_PIECES = 32
"""Pieces into which layer-pipelined cores cut the batch."""


@dataclass(frozen=True)
class Share:
    """What one core does of a layer (of layer-pipelined cores: of a piece of the batch)."""

    core: int
    needs: LayerNeeds
    tiling: LayerTiling

    @property
    def entries(self) -> tuple[int, int]:
        """How often activations, and weights, enter the array for each time that the plan has them enter."""
        dataflow = None if self.needs.plan is None else self.needs.plan.dataflow
        again = self.tiling.entries
        return (again if dataflow == "is" else 1, again if dataflow == "ws" else 1)


@dataclass(frozen=True)
class NetworkTime:
    """A network in time.

    shares : by layer, what each core does of it
    notes : what a reader of the numbers should know besides
    """

    timeline: Timeline
    shares: tuple[tuple[Share, ...], ...]
    peak_bytes_per_cycle: float | None
    notes: tuple[str, ...] = ()

    @property
    def tiles(self) -> int:
        return sum(share.tiling.tiles for shares in self.shares for share in shares)

    @property
    def saved_bits(self) -> int:
        return sum(share.tiling.saved_bits for shares in self.shares for share in shares)


def has_memory(config: HardwareConfig) -> bool:
    """Return whether anything of the configuration makes a difference to the arrays' own cycles, or lets several tiles
    and layers share what they load.
    """
    buffers = [getattr(config.buffers, name) for name in OPERANDS]
    ideal = resolve_dram(config).ideal and all(buffer.width_bits is None for buffer in buffers)
    return not (ideal and config.cores.count == 1 and config.memory == Memory() and not config.dma.setup_cycles)


def network_shares(layers: Sequence[LayerNeeds], config: HardwareConfig) -> tuple[tuple[Share, ...], ...]:
    """Return the tiles of layers that run one after another on one core."""
    return tuple((Share(0, *each),) for each in zip(layers, tile_network(layers, config), strict=True))


def network_time(
    layers: Sequence[LayerNeeds],
    config: HardwareConfig,
    *,
    images: int = 1,
    record: bool = False,
    processes: bool = True,
) -> NetworkTime:
    """Return when everything of a run happens on the configured machine.

    layers : what each layer needs, in order; images : inferences in the batch; record, processes : as `run_timeline`

    Raises UnsupportedLayerError where a layer's smallest tile does not fit the buffers.
    """
    work = _Deal(layers, config, images)
    timeline = run_timeline(
        work.stages,
        [needs.name for needs in layers],
        surroundings_of(config),
        config.cores.count,
        record=record,
        processes=processes,
    )
    dram = resolve_dram(config)
    return NetworkTime(
        timeline=timeline,
        shares=tuple(tuple(each) for each in work.shares),
        peak_bytes_per_cycle=None if dram.ideal else dram.bytes_per_cycle * dram.channels,
        notes=tuple(work.notes),
    )


def surroundings_of(config: HardwareConfig) -> Surroundings:
    """Return what surrounds the arrays, in array cycles."""
    dram = resolve_dram(config)
    return Surroundings(
        engines=config.dma.engines,
        setup_cycles=config.dma.setup_cycles,
        latency_cycles=dram.latency_cycles,
        bytes_per_cycle=dram.bytes_per_cycle,
        burst_bytes=dram.burst_bytes,
        channels=dram.channels,
        ports={name: _ports(getattr(config.buffers, name)) for name in OPERANDS},
    )


def _ports(buffer: Buffer) -> Ports:
    return Ports(buffer.width_bits, buffer.banks, buffer.ports, 8 * buffer.size_bytes, buffer.ping_pong)


class _Deal:
    """The layers dealt out to the cores, as stages in the order in which they run."""

    def __init__(self, layers: Sequence[LayerNeeds], config: HardwareConfig, images: int) -> None:
        self.layers, self.config, self.images = layers, config, images
        self.stages: list[Stage] = []
        self.shares: list[list[Share]] = [[] for _ in layers]
        self.notes: list[str] = []
        self.merged: set[int] = set()
        self.planned: dict[tuple[object, ...], list[LayerTiling]] = {}  # shares of equal size have equal tiles
        count, split = config.cores.count, config.cores.split
        self.limit = min(MAX_TILES, max(MIN_TILES, MAX_RUN_TILES // (len(layers) * count)))
        self.limited = any(getattr(config.buffers, name).width_bits is not None for name in OPERANDS)
        if count == 1:
            self._whole()
        elif split == "layers":
            self._pipeline(count)
        elif split == "batch":
            self._batch(count)
        else:
            self._layer_by_layer(count)
        idle = count - len({share.core for shares in self.shares for share in shares})
        if idle:
            self.notes.append(f"cores: {idle} of {count} have nothing to do (split: {split})")
        if self.merged:
            self.notes.append(
                f"time: {len(self.merged)} layers have more than {self.limit:,} tiles on a core; neighbouring tiles "
                f"are simulated as one"
            )

    def _whole(self) -> None:
        self._run([(0, index, needs) for index, needs in enumerate(self.layers)])

    def _batch(self, count: int) -> None:
        """Each core runs the whole network on inferences of its own."""
        for core in range(count):
            mine = [share_of(needs, self.config, "batch", core, count, self.images) for needs in self.layers]
            if None not in mine:
                self._run([(core, index, needs) for index, needs in enumerate(mine) if needs is not None])

    def _run(self, work: list[tuple[int, int, LayerNeeds]]) -> None:
        """Run layers one after another on one core, outputs that stay on chip included."""
        made: dict[str, list[int]] = {}
        tilings = self._tiled([needs for _, _, needs in work])
        for (core, index, needs), tiling in zip(work, tilings, strict=True):
            self._add(core, index, needs, tiling, made)
            made[needs.output.name] = [len(self.stages) - 1]

    def _layer_by_layer(self, count: int) -> None:
        """All cores share each layer; the next one begins through DRAM, where every core finds all of the output."""
        made: dict[str, list[int]] = {}
        split = self.config.cores.split
        assert split in ("output_channels", "rows")
        for index, needs in enumerate(self.layers):
            mine = []
            for core in range(count):
                share = share_of(needs, self.config, split, core, count, self.images)
                if share is not None:
                    self._add(core, index, share, self._tiled([share], fuse=False)[0], made)
                    mine.append(len(self.stages) - 1)
            made[needs.output.name] = mine

    def _tiled(self, layers: list[LayerNeeds], *, fuse: bool = True) -> list[LayerTiling]:
        key = (fuse, *map(_signature, layers))
        if key not in self.planned:
            self.planned[key] = tile_network(layers, self.config) if fuse else [tile_layer(layers[0], self.config)]
        return self.planned[key]

    def _pipeline(self, count: int) -> None:
        """Each core has consecutive layers of its own; pieces of the batch go from core to core."""
        pieces = min(self.images, MAX_PIECES)
        if pieces < self.images:
            self.notes.append(f"cores: the batch of {self.images} goes from core to core in {pieces} pieces")
        owner = balanced([_own_cycles(needs) for needs in self.layers], count)
        weight_bits = 8 * self.config.buffers.weight.size_bytes
        for piece in range(pieces):
            made: dict[str, list[int]] = {}
            mine = [share_of(needs, self.config, "batch", piece, pieces, self.images) for needs in self.layers]
            for core in range(count):
                work = [(i, needs) for i, needs in enumerate(mine) if owner[i] == core and needs is not None]
                elsewhere = {t.name for i, n in enumerate(mine) if n and owner[i] != core for t in n.inputs}
                given = [replace(n, output_leaves=n.output_leaves or n.output.name in elsewhere) for _, n in work]
                tilings = self._tiled(given)
                stays = sum(tiling.weight_bits.sum() for tiling in tilings) <= weight_bits
                for (index, _), needs, tiling in zip(work, given, tilings, strict=True):
                    if piece and stays and (needs.weight is not None or needs.plan is None):
                        tiling = replace(tiling, weight_bits=np.zeros_like(tiling.weight_bits))
                    self._add(core, index, needs, tiling, made)
                    made[needs.output.name] = [len(self.stages) - 1]

    def _add(
        self, core: int, index: int, needs: LayerNeeds, tiling: LayerTiling, made: Mapping[str, list[int]]
    ) -> None:
        self.shares[index].append(Share(core, needs, tiling))
        simulated = coarse(tiling, self.limit)
        if simulated is not tiling:
            self.merged.add(index)
        streamed = needs.inputs if needs.plan is None else needs.inputs[:1]
        by_weight_port = () if needs.plan is None else needs.inputs[1:]
        self.stages.append(
            Stage(
                core=core,
                layer=index,
                tiling=simulated,
                weight_after=tuple(stage for tensor in by_weight_port for stage in made.get(tensor.name, [])),
                activation_after=tuple(
                    stage
                    for tensor in streamed
                    if tensor.name not in tiling.on_chip_inputs
                    for stage in made.get(tensor.name, [])
                ),
                array_bits=array_bits(needs, simulated) if self.limited else {},
            )
        )


def _signature(needs: LayerNeeds) -> tuple[object, ...]:
    """Return all of a share that tells it from other shares of its layer."""
    tensors = (*needs.inputs, needs.output, needs.weight)
    return (
        needs.name,
        None if needs.plan is None else needs.plan.shape,
        needs.vector_cycles,
        needs.parameter_bits,
        needs.windows,
        needs.shared,
        needs.output_leaves,
        *(None if tensor is None else tensor.bits for tensor in tensors),
    )


def _own_cycles(needs: LayerNeeds) -> int:
    return needs.vector_cycles if needs.plan is None else needs.plan.cycles.total


def array_bits(needs: LayerNeeds, tiling: LayerTiling) -> dict[Operand, Int64]:
    """Return what the array (or the vector unit, in each of its passes) reads and writes in each buffer while a tile
    runs: the layer's bits, shared out over the tiles like their computing cycles.
    """
    working = tiling.vector if needs.plan is None else tiling.compute
    if not working.any():
        working = np.ones_like(working)
    whole = int(working.sum())
    bits: dict[Operand, int] = {"output": needs.output.bits}
    if needs.plan is None:
        bits["activation"] = sum(tensor.bits for tensor in needs.inputs)
    else:
        sums = {"sram_read", "sram_write"}
        activation, weight = edge_bits(needs.plan)
        again = Share(0, needs, tiling).entries
        bits |= {"activation": activation * again[0], "weight": weight * again[1] + needs.parameter_bits}
        bits["accumulator"] = sum(count for action, count in needs.plan.actions.items() if action.operation in sums)
    return {operand: spread(count, working, whole) for operand, count in bits.items()}


def coarse(tiling: LayerTiling, limit: int) -> LayerTiling:
    """Return a tiling of at most `limit` tiles: neighbours are taken together, what they move and take adds up."""
    size = -(-tiling.tiles // limit)
    if size <= 1:
        return tiling
    starts = np.arange(0, tiling.tiles, size)
    moves = ("weight_bits", "activation_bits", "store_bits", "spill_bits", "refill_bits")
    changes: dict[str, Any] = {name: np.add.reduceat(getattr(tiling, name), starts) for name in (*PARTS, *moves)}
    changes |= {
        field.name: np.maximum.reduceat(getattr(tiling, field.name), starts)
        for field in fields(tiling)
        if field.name.endswith("_resident_bits")
    }
    return replace(tiling, **changes)
