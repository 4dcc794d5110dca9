"""A run as a partial order of operations: tiles on the arrays, and the transfers that feed and empty the buffers.

What waits for what follows from the tilings and the buffers alone, and so do the orders in which transfers can be
served: those in which a memory that takes no time would be asked for them. They are fixed before anything is timed.
Every start is then the latest of some ends, whatever the bandwidth: a faster part can never make anything later.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from accelsim.mapping.contract import Int64
from accelsim.memory.contract import LayerTiling, Operand
from accelsim.memory.machine import Ports, Surroundings

Prefetch = Literal["eager", "next tile"]
"""When a load is asked for: as soon as its buffer has room, however far ahead; or while the tile before it computes."""
Kind = Literal["weight", "activation", "refill", "tile", "store", "spill"]
"""What an operation is: a load, a tile's computation (and post-processing), or a store."""

LOADS: tuple[Kind, ...] = ("weight", "activation", "refill")
TARGET: dict[Kind, Operand] = {
    "weight": "weight",
    "activation": "activation",
    "refill": "accumulator",
    "store": "output",
    "spill": "accumulator",
}
"""The buffer that a transfer fills or empties."""
MOVED: tuple[Literal["weight", "activation"], ...] = ("weight", "activation")
"""Operands that are loaded tile by tile."""
PARTS = ("load", "fill", "compute", "drain", "ppu", "vector")
"""The array's own causes, in the order in which a tile spends them."""


@dataclass(frozen=True)
class Stage:
    """One layer's tiles on one core. A core runs its stages in the order of the list.

    layer : index of the layer in the run
    weight_after, activation_after : stages (indices in the list, earlier ones) that make what is loaded as weights, and
        as activations: through DRAM, after their last store; what stays on chip, after their last tile
    compute_after : stages that must have computed before this one does, though nothing is loaded
    supposed_ppu_cycles : in place of its own waits for the PPU, where the order of transfers is found
    array_bits : what the array itself reads and writes in each buffer, one entry a tile; absent: it needs no port
    """

    core: int
    layer: int
    tiling: LayerTiling
    weight_after: tuple[int, ...] = ()
    activation_after: tuple[int, ...] = ()
    compute_after: tuple[int, ...] = ()
    supposed_ppu_cycles: int = 0
    array_bits: Mapping[Operand, Int64] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """Operations, numbered so that each waits only for ones of lower numbers. All lists have one entry an operation.

    kinds, cores, stages : what it is, whose, and of which stage (index)
    tiles : the tile in its stage
    bits : of a transfer
    waits : operations that must have ended
    spans : cycles: of a tile, on the array; of a transfer, of its data: of DRAM's and the buffer's pace the slower one
    dram_paced : the transfer's pace is DRAM's
    buffer_stalls : cycles by which a tile takes longer because the buffers' ports are busy
    ends_use : per load, the last tile that uses what it brought (an operation)
    orders : all operations, by what a controller may do; transfers are served in this order
    core_count : cores, those that have nothing to do included
    """

    stage_list: tuple[Stage, ...]
    surroundings: Surroundings
    core_count: int
    kinds: list[Kind]
    cores: list[int]
    stages: list[int]
    tiles: list[int]
    bits: list[int]
    waits: list[tuple[int, ...]]
    spans: list[int]
    dram_paced: list[bool]
    buffer_stalls: list[int]
    ends_use: dict[int, int]
    orders: dict[Prefetch, list[int]]

    def __len__(self) -> int:
        return len(self.kinds)


def make_program(stages: Sequence[Stage], surroundings: Surroundings, core_count: int = 1) -> Program:
    """Return the operations of `stages`, what each waits for, and the order in which transfers are served.

    The stages' order must let each be finished before the next one of its core begins, and name only earlier ones.
    """
    builder = _Builder(surroundings, core_count)
    for stage in stages:
        builder.add(stage)
    return builder.program(tuple(stages))


class _Loads:
    """The loads of one operand into one core's buffer, in order, and when they give up their room.

    Loads come in groups that share the buffer for as long as any of them is used: tiles that are loaded once and used
    again and again, or (one load a group) strips that pass through.
    """

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self.resident: list[int] = []  # of each group
        self.last_tile: list[int | None] = []  # None while it is in use
        self.oldest = 0  # the oldest group that may still be there when the newest one comes
        self.first_of_stage = 0

    def begin_stage(self, bits: list[int], resident: list[int], depth: int) -> None:
        """A layer begins. bits, resident : one entry a tile; depth : loads that the buffer holds at once."""
        copies = 2 if self.ports.ping_pong and depth > 1 else 1
        self.copies, self.group = copies, depth // copies
        held = [size for size, load in zip(resident, bits, strict=True) if load]
        size = self.ports.size_bits
        if len(held) <= depth and (size is None or sum(held) <= size):  # all of them are there at once
            self.copies, self.group = 1, depth
        self.sizes = [sum(held[start : start + self.group]) for start in range(0, len(held), self.group)]
        self.first_of_stage, self.done = len(self.resident), 0

    def add(self, previous_tile: int | None) -> tuple[int, ...]:
        """Add a load, and return the tile that must have ended before there is room for it."""
        if self.done % self.group == 0:
            self.close(previous_tile)
            self.resident.append(self.sizes[self.done // self.group])
            self.last_tile.append(None)
            self._make_room()
        self.done += 1
        released = self.last_tile[self.oldest - 1] if self.oldest else None
        return () if released is None else (released,)

    def close(self, tile: int | None) -> None:
        """The newest group is no longer used after `tile`."""
        if self.last_tile and self.last_tile[-1] is None:
            self.last_tile[-1] = tile

    @property
    def newest(self) -> int:
        return len(self.resident) - 1

    def _make_room(self) -> None:
        newest, size = len(self.resident) - 1, self.ports.size_bits
        if newest - self.first_of_stage >= self.copies:
            self.oldest = max(self.oldest, newest - self.copies + 1)
        while size is not None and self.oldest < newest and sum(self.resident[self.oldest :]) > size:
            self.oldest += 1


class _Builder:
    def __init__(self, surroundings: Surroundings, core_count: int) -> None:
        self.surroundings, self.core_count = surroundings, core_count
        self.kinds: list[Kind] = []
        self.cores: list[int] = []
        self.stages: list[int] = []
        self.tiles: list[int] = []
        self.bits: list[int] = []
        self.waits: list[tuple[int, ...]] = []
        self.own: list[int] = []
        self.waits_ppu: dict[int, int] = {}  # of tiles: what they take longer than with the PPU that is supposed
        self.ends_use: dict[int, int] = {}
        self.written: list[list[tuple[int, ...]]] = [[] for _ in range(core_count)]  # stores of tiles that have any
        self.last_tile: list[int | None] = [None] * core_count
        self.loads = [{name: _Loads(surroundings.buffer(name)) for name in MOVED} for _ in range(core_count)]
        self.stored_by: list[tuple[int, ...]] = []  # of each stage: after these its output can be loaded
        self.computed_by: list[tuple[int, ...]] = []

    def add(self, stage: Stage) -> None:
        tiling, core, index = stage.tiling, stage.core, len(self.stored_by)
        after = {
            "weight": self._after(stage.weight_after, self.stored_by),
            "activation": self._after(stage.activation_after, self.stored_by),
        }
        began_after = self._after(stage.compute_after, self.computed_by)
        if tiling.tiles == 0:  # a view: ready when what it looks at is
            everything = tuple(sorted({*after["weight"], *after["activation"], *began_after}))
            self.stored_by.append(everything)
            self.computed_by.append(everything)
            return
        moved = {"weight": tiling.weight_bits.tolist(), "activation": tiling.activation_bits.tolist()}
        refills, stores, spills = (x.tolist() for x in (tiling.refill_bits, tiling.store_bits, tiling.spill_bits))
        own, waits_ppu = sum(getattr(tiling, part) for part in PARTS).tolist(), tiling.ppu.tolist()
        waits_ppu[-1] -= stage.supposed_ppu_cycles
        loads, written = self.loads[core], self.written[core]
        loads["weight"].begin_stage(moved["weight"], tiling.weight_resident_bits.tolist(), tiling.weight_depth)
        loads["activation"].begin_stage(
            moved["activation"], tiling.activation_resident_bits.tolist(), tiling.activation_depth
        )
        spilled: list[int] = []
        refilled = 0
        last_store: tuple[int, ...] = ()
        in_use: dict[tuple[Literal["weight", "activation"], int], list[int]] = {}
        for tile in range(tiling.tiles):
            needs = list(began_after) if tile == 0 else []
            previous = self.last_tile[core]
            if previous is not None:
                needs.append(previous)
            for name in MOVED:
                if moved[name][tile]:
                    room = loads[name].add(previous)
                    number = self._operation(name, stage, index, tile, moved[name][tile], (*after[name], *room))
                    in_use.setdefault((name, loads[name].newest), []).append(number)
                    needs.append(number)
            leaves = stores[tile] or spills[tile]
            room = written[-tiling.output_depth] if len(written) >= tiling.output_depth and leaves else ()
            needs.extend(room)
            if refills[tile]:
                # Unfinished sums come back in the order in which they left.
                source = (spilled[min(refilled, len(spilled) - 1)],) if spilled else ()
                refilled += 1
                needs.append(self._operation("refill", stage, index, tile, refills[tile], (*source, *room)))
            number = self._operation("tile", stage, index, tile, 0, tuple(needs), own[tile])
            self.last_tile[core], self.waits_ppu[number] = number, waits_ppu[tile]
            out: tuple[int, ...] = ()
            if stores[tile]:
                last_store = (self._operation("store", stage, index, tile, stores[tile], (number,)),)
                out += last_store
            if spills[tile]:
                spilled.append(self._operation("spill", stage, index, tile, spills[tile], (number,)))
                out += (spilled[-1],)
            if out:
                written.append(out)
        last = self.last_tile[core]
        assert last is not None
        for name in MOVED:
            loads[name].close(last)
        for (operand, group), numbers in in_use.items():
            ended = loads[operand].last_tile[group]
            self.ends_use |= dict.fromkeys(numbers, last if ended is None else ended)
        self.stored_by.append(last_store or (last,))
        self.computed_by.append((last,))

    def _after(self, stages: Iterable[int], operations: list[tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(sorted({operation for stage in stages for operation in operations[stage]}))

    def _operation(
        self, kind: Kind, stage: Stage, index: int, tile: int, bits: int, waits: tuple[int, ...], own: int = 0
    ) -> int:
        self.kinds.append(kind)
        self.cores.append(stage.core)
        self.stages.append(index)
        self.tiles.append(tile)
        self.bits.append(bits)
        self.waits.append(waits)
        self.own.append(own)
        return len(self.kinds) - 1

    def program(self, stages: tuple[Stage, ...]) -> Program:
        ready, orders = self._orders()
        spans, dram_paced = self._spans()
        stalls = self._buffer_stalls(stages, ready)
        return Program(
            stage_list=stages,
            surroundings=self.surroundings,
            core_count=self.core_count,
            kinds=self.kinds,
            cores=self.cores,
            stages=self.stages,
            tiles=self.tiles,
            bits=self.bits,
            waits=self.waits,
            spans=spans,
            dram_paced=dram_paced,
            buffer_stalls=stalls,
            ends_use=self.ends_use,
            orders=orders,
        )

    def _orders(self) -> tuple[list[int], dict[Prefetch, list[int]]]:
        """Return when each operation could begin if transfers took no time, and the orders that follow."""
        ready: list[int] = []
        ends: list[int] = []
        for number, (waits, cycles) in enumerate(zip(self.waits, self.own, strict=True)):
            begins = max([ends[other] for other in waits], default=0)
            ready.append(begins)
            ends.append(begins + cycles - self.waits_ppu.get(number, 0))
        late = list(ready)
        running = [0] * self.core_count  # since when each core's newest tile
        for number, (kind, core) in enumerate(zip(self.kinds, self.cores, strict=True)):
            if kind == "tile":
                running[core] = ready[number]
            elif kind in LOADS:
                late[number] = max(ready[number], running[core])
        # Numbers break ties: what an operation waits for has a lower one.
        numbers = range(len(ready))
        return ready, {
            "eager": sorted(numbers, key=ready.__getitem__),
            "next tile": sorted(numbers, key=late.__getitem__),
        }

    def _spans(self) -> tuple[list[int], list[bool]]:
        bits = np.asarray(self.bits, np.int64)
        kinds = np.asarray(self.kinds)
        dram = self.surroundings.dram_cycles(bits)
        buffer = np.zeros_like(bits)
        for kind, operand in TARGET.items():
            mine = kinds == kind
            buffer[mine] = self.surroundings.buffer(operand).write_cycles(bits[mine])
        transfers = np.maximum(dram, buffer)
        spans = np.where(kinds == "tile", np.asarray(self.own, np.int64), transfers)
        return spans.tolist(), (dram >= buffer).tolist()

    def _buffer_stalls(self, stages: tuple[Stage, ...], ready: list[int]) -> list[int]:
        """Return by how much each tile is longer because its buffers' ports are busy.

        While a tile computes the ports must serve what the array reads and writes, and what DMA moves behind it: the
        transfers that a memory that takes no time would be asked for while the tile runs.
        """
        stalls = [0] * len(self.kinds)
        limited = [name for name, ports in self.surroundings.ports.items() if ports.width_bits is not None]
        if not limited:
            return stalls
        tiles = [[i for i, kind in enumerate(self.kinds) if kind == "tile" and self.cores[i] == core]
                 for core in range(self.core_count)]  # fmt: skip
        begins = [[ready[number] for number in numbers] for numbers in tiles]
        accesses = {name: [0] * len(self.kinds) for name in limited}
        for number, kind in enumerate(self.kinds):
            core, stage, tile = self.cores[number], stages[self.stages[number]], self.tiles[number]
            if kind == "tile":
                for name in limited:
                    if name in stage.array_bits:
                        accesses[name][number] += int(stage.array_bits[name][tile])
            elif TARGET[kind] in accesses:
                place = bisect_left(begins[core], ready[number])
                behind = tiles[core][place] if place < len(tiles[core]) else None
                own = kind in LOADS and behind is not None and behind > number and not self._before(behind, number)
                if behind is not None and not own:
                    accesses[TARGET[kind]][behind] += self.bits[number]
        own_cycles = np.asarray(self.own, np.int64)
        longest = own_cycles.copy()
        for name, bits in accesses.items():
            busy = self.surroundings.buffer(name).busy_cycles(np.asarray(bits, np.int64))
            longest = np.maximum(longest, busy)
        return [
            int(cycles) if kind == "tile" else 0 for cycles, kind in zip(longest - own_cycles, self.kinds, strict=True)
        ]

    def _before(self, tile: int, load: int) -> bool:
        """Whether a tile of the load's core runs before the one that the load feeds."""
        return (self.stages[tile], self.tiles[tile]) < (self.stages[load], self.tiles[load])
