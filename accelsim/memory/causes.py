"""Where every cycle of every core went: computing, or waiting for what the last thing to arrive was waiting for.

While a core's array rests, the operation for which it waits is on a chain of operations each of which began the moment
the one before it ended. A waiting cycle belongs to what the chain did in that cycle: to a DMA engine that sets up
(`dma`), to DRAM (`dram`: latency, data, the data of transfers ahead in the queue), to a buffer's port where that is
what slows a transfer's data (`buffer`), or to another core's computation and what that waited for (`sync`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from accelsim.mapping.contract import CycleCounts, Int64
from accelsim.memory.contract import LayerTime, Timeline
from accelsim.memory.program import LOADS
from accelsim.memory.schedule import Schedule

CAUSES = tuple(field.name for field in fields(CycleCounts))
_PARTS = ("load", "fill", "compute", "buffer", "drain", "ppu", "vector")
"""What a tile spends its cycles on, in this order."""


@dataclass(frozen=True)
class Spell:
    """Cycles [start, end) of one core that have one cause. `tile` : the operation, or None while the core waits."""

    start: int
    end: int
    cause: str
    tile: int | None


def core_spells(schedule: Schedule) -> tuple[tuple[Spell, ...], ...]:
    """Return, for each core, its spells in order; they cover the makespan without gap or overlap."""
    return _Attribution(schedule).spells()


class _Attribution:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.program = schedule, schedule.program
        self.ahead: dict[int, int] = {}  # of a transfer: the one that the channels served before it
        self.engine_ahead: dict[int, int] = {}  # the one that the DMA engine did before it
        newest: dict[tuple[int, int], int] = {}
        previous = None
        for number in schedule.served:
            if previous is not None:
                self.ahead[number] = previous
            previous = number
            engine = (self.program.cores[number], schedule.engines[number])
            if engine in newest:
                self.engine_ahead[number] = newest[engine]
            newest[engine] = number

    def spells(self) -> tuple[tuple[Spell, ...], ...]:
        program, schedule = self.program, self.schedule
        cores: list[list[Spell]] = [[] for _ in range(program.core_count)]
        clock = [0] * program.core_count
        final: list[int | None] = [None] * program.core_count  # each core's operation that ends last
        parts = [{part: self._part(stage, part) for part in _PARTS} for stage in range(len(program.stage_list))]
        for number, (kind, core) in enumerate(zip(program.kinds, program.cores, strict=True)):
            last = final[core]
            if last is None or schedule.ends[number] >= schedule.ends[last]:
                final[core] = number
            if kind != "tile":
                continue
            start = schedule.begins[number]
            if start > clock[core]:
                cores[core] += self._waiting(core, clock[core], start, self._binding(number, start))
            lengths = parts[program.stages[number]]
            for part in _PARTS:
                length = program.buffer_stalls[number] if part == "buffer" else lengths[part][program.tiles[number]]
                if length:
                    cores[core].append(Spell(start, start + length, part, number))
                    start += length
            clock[core] = start
        for core, last in enumerate(final):
            if last is not None and schedule.ends[last] > clock[core]:
                cores[core] += self._waiting(core, clock[core], schedule.ends[last], last)
                clock[core] = schedule.ends[last]
            if schedule.makespan_cycles > clock[core]:
                cores[core].append(Spell(clock[core], schedule.makespan_cycles, "sync", None))
        return tuple(map(tuple, cores))

    def _part(self, stage: int, part: str) -> list[int]:
        tiling = self.program.stage_list[stage].tiling
        return [] if part == "buffer" else getattr(tiling, part).tolist()

    def _binding(self, number: int, when: int) -> int | None:
        """Return what an operation waited for until `when`; a transfer rather than a tile."""
        bound = [other for other in self.program.waits[number] if self.schedule.ends[other] == when]
        return next((other for other in bound if self.program.kinds[other] != "tile"), bound[0] if bound else None)

    def _waiting(self, core: int, low: int, high: int, number: int | None) -> list[Spell]:
        """Return the causes of [low, high), which ended when operation `number` did."""
        program, schedule = self.program, self.schedule
        found: list[Spell] = []

        def took(start: int, cause: str) -> None:
            nonlocal high
            start = max(start, low)
            if start < high:
                if found and found[-1].cause == cause:
                    found[-1] = Spell(start, found[-1].end, cause, None)
                else:
                    found.append(Spell(start, high, cause, None))
                high = start

        while high > low and number is not None:
            if program.kinds[number] == "tile":  # another core's: this core's tiles are over
                break
            took(schedule.moves[number], "dram" if program.dram_paced[number] else "buffer")
            requested = schedule.begins[number] + program.surroundings.setup_cycles
            if schedule.moves[number] > requested + program.surroundings.latency_cycles:
                number = self.ahead[number]
                continue
            took(requested, "dram")
            took(schedule.begins[number], "dma")
            ahead = self.engine_ahead.get(number)
            if ahead is not None and schedule.ends[ahead] == schedule.begins[number]:
                number = ahead
            else:
                number = self._binding(number, schedule.begins[number])
        took(low, "sync")
        return found[::-1]


def make_timeline(schedule: Schedule, names: tuple[str, ...], spells: tuple[tuple[Spell, ...], ...]) -> Timeline:
    """Return the run and its layers' shares of it; a layer ends with its last tile, the last layer with the run.

    names : of the layers, in order; a stage's `layer` is an index into them
    """
    program, makespan = schedule.program, schedule.makespan_cycles
    ends, last_core = [0] * len(names), [0] * len(names)
    for number, kind in enumerate(program.kinds):
        layer = program.stage_list[program.stages[number]].layer
        if kind == "tile" and schedule.ends[number] >= ends[layer]:
            ends[layer], last_core[layer] = schedule.ends[number], program.cores[number]
    bounds = np.maximum.accumulate(np.asarray([0, *ends[:-1], makespan], np.int64))
    shares = [_shares(each, bounds) for each in spells]
    spent = _core_cycles(schedule, len(names))
    layers = []
    for index, name in enumerate(names):
        cores = tuple(_counts(share[index]) for share in shares)
        layers.append(
            LayerTime(
                name=name,
                start_cycle=int(bounds[index]),
                end_cycle=int(bounds[index + 1]),
                cycles=cores[last_core[index]],
                cores=cores,
                core_cycles=spent[index],
            )
        )
    return Timeline(
        makespan_cycles=makespan,
        layers=tuple(layers),
        cores=tuple(_counts(share.sum(axis=0)) for share in shares),
        dram_read_bits=sum(program.bits[number] for number in schedule.served if program.kinds[number] in LOADS),
        dram_write_bits=sum(program.bits[number] for number in schedule.served if program.kinds[number] not in LOADS),
        dram_busy_cycles=sum(schedule.ends[number] - schedule.moves[number] for number in schedule.served),
        transfers=len(schedule.served),
    )


def _counts(cycles: Int64) -> CycleCounts:
    return CycleCounts(**dict(zip(CAUSES, cycles.tolist(), strict=True)))


def _core_cycles(schedule: Schedule, layers: int) -> list[int]:
    """Return what all cores spent on each layer: from the end of the core's tile before it to the end of its own; what
    is left at the end counts for the last layer that the core had a part in (or of the run).
    """
    program = schedule.program
    spent, clock, last = [0] * layers, [0] * program.core_count, [layers - 1] * program.core_count
    for number, (kind, core) in enumerate(zip(program.kinds, program.cores, strict=True)):
        if kind == "tile":
            last[core] = program.stage_list[program.stages[number]].layer
            spent[last[core]] += schedule.ends[number] - clock[core]
            clock[core] = schedule.ends[number]
    for core, layer in enumerate(last):
        spent[layer] += schedule.makespan_cycles - clock[core]
    return spent


def _shares(spells: tuple[Spell, ...], bounds: Int64) -> Int64:
    """Return the cycles between successive bounds by cause: [bounds - 1, causes]."""
    if not spells:
        return np.zeros((bounds.size - 1, len(CAUSES)), np.int64)
    starts = np.array([spell.start for spell in spells], np.int64)
    ends = np.array([spell.end for spell in spells], np.int64)
    causes = np.array([CAUSES.index(spell.cause) for spell in spells])
    before = np.zeros((len(spells) + 1, len(CAUSES)), np.int64)
    before[np.arange(len(spells)) + 1, causes] = ends - starts
    before = before.cumsum(axis=0)
    place = np.maximum(np.searchsorted(starts, bounds, side="right") - 1, 0)
    totals = before[place]
    totals[np.arange(bounds.size), causes[place]] += np.minimum(bounds, ends[place]) - starts[place]
    return np.diff(totals, axis=0)
