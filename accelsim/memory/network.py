"""A whole network on a configured machine: tiles for every core, and the timeline of all of them.

There are several plans, one for each ranking (accelsim.memory.tile_rank), and none depends on how fast DRAM, DMA and
buffers' ports are. The one whose run is the shortest counts. A faster part makes no plan's run longer, and so not the
shortest one's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from accelsim.config.dram_timing import resolve_dram
from accelsim.config.model import Buffer, HardwareConfig, Memory
from accelsim.mapping.contract import Int64
from accelsim.mapping.traffic import edge_bits
from accelsim.memory.contract import LayerNeeds, LayerTiling, Operand, Timeline
from accelsim.memory.known import Known
from accelsim.memory.machine import Ports, Surroundings
from accelsim.memory.network_tiling import tile_network
from accelsim.memory.program import Stage
from accelsim.memory.shares import balanced
from accelsim.memory.tile_build import spread
from accelsim.memory.tile_rank import SUPPOSED_PPU_CYCLES, rankings
from accelsim.memory.timeline import shortest, timeline_of

OPERANDS: tuple[Operand, ...] = ("weight", "activation", "output", "accumulator")
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
        return sum(share.tiling.tile_count for shares in self.shares for share in shares)

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


def planned_shares(
    layers: Sequence[LayerNeeds], config: HardwareConfig, *, images: int = 1
) -> tuple[tuple[tuple[Share, ...], ...], tuple[str, ...]]:
    """Return what each core does of each layer in a run, and what a reader should know besides: of the plans that may
    be run, the one that is.

    images : inferences in the batch

    >>> import accelsim
    >>> from accelsim.memory.needs import network_needs
    >>> values = accelsim.load_config("configs/int8_ws.yaml").model_dump() | {"cores": {"count": 2, "split": "rows"}}
    >>> from accelsim.config.loader import parse_config
    >>> config, trace = parse_config(values), accelsim.load_trace("traces/digits_cnn_int8.npz")
    >>> shares, notes = planned_shares(network_needs(trace, config), config, images=240)
    >>> [(share.core, share.needs.plan.shape.m) for share in shares[0]]  # conv1: 3840 rows, on two cores
    [(0, 1920), (1, 1920)]
    """
    if not has_memory(config):
        return network_shares(layers, config), ()
    time = network_time(layers, config, images=images, processes=False)
    return time.shares, time.notes


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
    deals = _deals(layers, config, images)
    number, schedule = shortest(
        [deal.stages for deal in deals], surroundings_of(config), config.cores.count, processes=processes
    )
    dram, work = resolve_dram(config), deals[number]
    return NetworkTime(
        timeline=timeline_of(schedule, [needs.name for needs in layers], record=record),
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


def _deals(layers: Sequence[LayerNeeds], config: HardwareConfig, images: int) -> list[_Deal]:
    """Return the different plans that may be run, in the order of their rankings; with `objective: traffic` those with
    the least traffic, to the bit.
    """
    known = Known(layers, config, images)
    deals: dict[tuple[int, ...], _Deal] = {}
    for ranking in range(len(rankings(config))):
        deal = _Deal(known, ranking)
        deals.setdefault(deal.picked, deal)
    different = list(deals.values())
    if config.memory.objective == "latency":
        return different
    traffic = [deal.traffic_bits for deal in different]
    return [deal for deal, bits in zip(different, traffic, strict=True) if bits == min(traffic)]


class _Deal:
    """The layers dealt out to the cores, as stages in the order in which they run, with one ranking's tilings.

    picked : identities of these, which `known` keeps: equal plans have equal ones
    """

    def __init__(self, known: Known, ranking: int) -> None:
        self.known, self.ranking = known, ranking
        self.layers, self.config, self.images = known.layers, known.config, known.images
        self.picked: tuple[int, ...] = ()
        self.stages: list[Stage] = []
        self.shares: list[list[Share]] = [[] for _ in self.layers]
        self.notes: list[str] = []
        self.merged: set[int] = set()
        count, split = self.config.cores.count, self.config.cores.split
        self.limited = any(getattr(self.config.buffers, name).width_bits is not None for name in OPERANDS)
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
                f"time: {len(self.merged)} layers have more than {known.limit:,} tiles on a core; neighbouring tiles "
                f"are simulated as one"
            )

    @property
    def traffic_bits(self) -> int:
        tilings = [share.tiling for shares in self.shares for share in shares]
        return sum(tiling.dram_read_bits + tiling.dram_write_bits for tiling in tilings)

    def _whole(self) -> None:
        self._run([(0, index, needs) for index, needs in enumerate(self.layers)])

    def _batch(self, count: int) -> None:
        """Each core runs the whole network on inferences of its own."""
        for core in range(count):
            mine = [self.known.part(index, "batch", core, count) for index in range(len(self.layers))]
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
                share = self.known.part(index, split, core, count)
                if share is not None:
                    self._add(core, index, share, self._tiled([share], fuse=False)[0], made)
                    mine.append(len(self.stages) - 1)
            made[needs.output.name] = mine

    def _tiled(self, layers: list[LayerNeeds], *, fuse: bool = True) -> list[LayerTiling]:
        tilings = self.known.tilings(layers, self.ranking, fuse=fuse)
        self.picked += tuple(map(id, tilings))
        return tilings

    def _pipeline(self, count: int) -> None:
        """Each core has consecutive layers of its own; pieces of the batch go from core to core."""
        pieces = min(self.images, MAX_PIECES)
        if pieces < self.images:
            self.notes.append(f"cores: the batch of {self.images} goes from core to core in {pieces} pieces")
        self.notes.append(
            "cores: layers overlap; a layer's cycles are those from the end of the layer before it to its own end, "
            "whatever its core did in them"
        )
        owner = balanced([_own_cycles(needs) for needs in self.layers], count)
        weight_bits = 8 * self.config.buffers.weight.size_bytes
        for piece in range(pieces):
            made: dict[str, list[int]] = {}
            mine = [self.known.part(index, "batch", piece, pieces) for index in range(len(self.layers))]
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
        simulated = self.known.coarse(tiling)
        if simulated is not tiling:
            self.merged.add(index)
        streamed = needs.inputs if needs.plan is None else needs.inputs[:1]
        by_weight_port = () if needs.plan is None else needs.inputs[1:]
        self.stages.append(
            Stage(
                core=core,
                layer=index,
                tiling=simulated,
                supposed_ppu_cycles=0 if needs.plan is None else SUPPOSED_PPU_CYCLES,
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


def _own_cycles(needs: LayerNeeds) -> int:
    """Return a layer's cycles with the PPU that is supposed, so that a faster one deals out nothing otherwise."""
    if needs.plan is None:
        return needs.vector_cycles
    return needs.plan.cycles.total - needs.plan.cycles.ppu + SUPPOSED_PPU_CYCLES


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
