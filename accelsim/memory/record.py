"""A schedule as pictures need it: slices of every resource, and how full the buffers and the DRAM's pins are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from accelsim.memory.causes import Spell
from accelsim.memory.contract import Slice, Timeline
from accelsim.memory.program import LOADS, TARGET, Kind
from accelsim.memory.schedule import Schedule

_MOVES: dict[Kind, str] = {
    "weight": "weights",
    "activation": "activations",
    "refill": "sums back",
    "store": "outputs",
    "spill": "sums away",
}
_ARRAY = ("load", "fill", "compute", "buffer", "drain", "ppu")
Counts = tuple[tuple[str, tuple[tuple[int, float], ...]], ...]


def record(timeline: Timeline, schedule: Schedule, spells: tuple[tuple[Spell, ...], ...]) -> Timeline:
    """Return the timeline with its slices (in order of start, by track) and counters."""
    names = tuple(layer.name for layer in timeline.layers)
    return replace(
        timeline, slices=tuple(_slices(schedule, spells, names)), counters=_occupancy(schedule) + _bandwidth(schedule)
    )


def _slices(schedule: Schedule, spells: tuple[tuple[Spell, ...], ...], names: tuple[str, ...]) -> Iterable[Slice]:
    program = schedule.program

    def layer_of(number: int) -> str:
        return names[program.stage_list[program.stages[number]].layer]

    for core, mine in enumerate(spells):
        # While a core waits, it waits for its next tile; in the end for what its last one has made.
        following = next((layer_of(spell.tile) for spell in reversed(mine) if spell.tile is not None), "")
        waits: list[Slice] = []
        for spell in reversed(mine):
            if spell.tile is not None:
                following = layer_of(spell.tile)
            else:
                waits.append(Slice(f"core {core}", f"wait: {spell.cause}", following, spell.start, spell.end))
        yield from reversed(waits)
        tiles: dict[int, list[Spell]] = {}
        for spell in mine:
            if spell.tile is not None:
                tiles.setdefault(spell.tile, []).append(spell)
        for number, parts in tiles.items():
            layer, tile = layer_of(number), program.tiles[number]
            name, which = f"{layer} tile {tile}", ("tile", tile)
            for track, causes in (("core", _ARRAY), ("vector", ("vector",))):
                own = [spell for spell in parts if spell.cause in causes]
                if own:
                    end = own[-1].end
                    args = tuple((f"{spell.cause}_cycles", spell.end - spell.start) for spell in own)
                    yield Slice(f"{track} {core}", name, layer, own[0].start, end, (which, *args))
                    post = int(program.stage_list[program.stages[number]].tiling.post[tile])
                    if post and track == "core":  # its last results are the tile's last cycles
                        yield Slice(f"ppu {core}", name, layer, end - post, end, (which,))
    for number in schedule.served:
        kind, core, tile = program.kinds[number], program.cores[number], program.tiles[number]
        name = f"{layer_of(number)} {_MOVES[kind]} {tile}"
        args = (("bytes", -(-program.bits[number] // 8)), ("tile", tile), ("core", core))
        for track, start in (
            (f"dma {core}.{schedule.engines[number]}", schedule.begins[number]),
            ("dram", schedule.moves[number]),
        ):
            if schedule.ends[number] > start:
                yield Slice(track, name, layer_of(number), start, schedule.ends[number], args)


def _occupancy(schedule: Schedule) -> Counts:
    """Return what each core's buffers hold, in bytes: from the start of a load to the end of its last use, from the
    first result of a tile to the end of its store.
    """
    program = schedule.program
    changes: dict[str, Counter[int]] = {}

    def held(core: int, operand: str, bits: int, start: int, end: int) -> None:
        if bits and end > start:
            change = changes.setdefault(f"core {core} {operand} buffer, bytes", Counter())
            change[start] += bits
            change[end] -= bits

    leaves: dict[tuple[int, int, str], int] = {}  # of a tile's results: when they are gone
    for number, kind in enumerate(program.kinds):
        if kind in ("store", "spill"):
            leaves[program.stages[number], program.tiles[number], TARGET[kind]] = schedule.ends[number]
    loaded: set[tuple[int, str]] = set()
    for number, kind in enumerate(program.kinds):
        core, stage, tile = program.cores[number], program.stages[number], program.tiles[number]
        tiling = program.stage_list[stage].tiling
        if kind in ("weight", "activation"):
            resident = getattr(tiling, f"{kind}_resident_bits")
            loaded.add((stage, kind))
            held(core, kind, int(resident[tile]), schedule.begins[number], schedule.ends[program.ends_use[number]])
        elif kind == "tile":
            begins, ends = schedule.begins[number], schedule.ends[number]
            for operand in ("weight", "activation", "output", "accumulator"):
                resident = getattr(tiling, f"{operand}_resident_bits")
                if (stage, operand) not in loaded:
                    held(core, operand, int(resident[tile]), begins, leaves.get((stage, tile, operand), ends))
    return tuple((name, _running(change, 1 / 8)) for name, change in sorted(changes.items()))


def _bandwidth(schedule: Schedule) -> Counts:
    """Return what the DRAM's pins carry, in bytes a cycle, reads and writes apart; nothing where it takes no time."""
    program = schedule.program
    found = []
    for name, kinds in (("DRAM read, bytes per cycle", LOADS), ("DRAM write, bytes per cycle", ("store", "spill"))):
        points: list[tuple[int, float]] = [(0, 0.0)]
        for number in schedule.served:
            start, end = schedule.moves[number], schedule.ends[number]
            if program.kinds[number] in kinds and end > start:
                if points[-1][0] == start:
                    points.pop()
                points += [(start, program.bits[number] / 8 / (end - start)), (end, 0.0)]
        if len(points) > 1:
            found.append((name, tuple(points)))
    return tuple(found)


def _running(changes: Counter[int], unit: float) -> tuple[tuple[int, float], ...]:
    total = 0
    points: list[tuple[int, float]] = []
    for cycle in sorted(changes):
        if changes[cycle] or not points:
            total += changes[cycle]
            points.append((cycle, total * unit))
    return tuple(points)
