"""A chosen tiling, tile by tile: what each loads and stores, and which cycles of the array are its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelsim.mapping.contract import Int64
from accelsim.mapping.cycles import PASS_CAUSES, pass_cycles
from accelsim.memory.tile_search import Choice
from accelsim.memory.tile_space import DIMS, RELEVANT, Layer, edges, tile_channels
from accelsim.memory.windows import tile_pixels


@dataclass(frozen=True)
class Tiles:
    """The tiles in order; int64, one entry a tile.

    index : by dimension, which tile along it
    """

    layer: Layer
    choice: Choice
    index: dict[str, Int64]
    trips: dict[str, int]

    @classmethod
    def of(cls, layer: Layer, choice: Choice) -> Tiles:
        """Return all tiles in the order of the loops."""
        trips = {dim: -(-layer.sizes[dim] // choice.sizes[dim]) for dim in DIMS}
        loops = "b" + choice.order
        places = np.indices([trips[dim] for dim in loops], np.int64).reshape(4, -1)
        return cls(layer, choice, dict(zip(loops, places, strict=True)), trips)

    @property
    def count(self) -> int:
        return int(self.index["b"].size)

    def sizes(self, dim: str) -> Int64:
        """Return each tile's elements along a dimension."""
        starts, ends = edges(self.layer.sizes[dim], self.choice.sizes[dim])
        sizes: Int64 = (ends - starts)[self.index[dim]]
        return sizes

    def loads(self, operand: str) -> Int64:
        """Return the bits that each tile loads of an operand; 0 where its buffer has them already."""
        layer, bits = self.layer, self._bits(operand)
        if not bits:
            return np.zeros(self.count, np.int64)
        outside = ("b" + self.choice.order)[: self.choice.levels[operand]]
        new = np.ones(self.count, np.bool_)  # the first visit since the buffer's contents changed
        for dim in "mnk":
            if dim not in RELEVANT[operand] and dim not in outside:
                new &= self.index[dim] == 0
        held = self._held(operand, outside) * new
        return spread(bits, held, layer.elements[operand])

    def resident(self, operand: str) -> Int64:
        """Return the bits that each tile's part of an operand takes in its buffer."""
        whole, bits = self.layer.elements[operand], self._bits(operand)
        held = self._held(operand, ("b" + self.choice.order)[: self.choice.levels[operand]])
        if whole * bits >= 1 << 62:
            return np.array([-(-int(count) * bits // whole) for count in held], np.int64)
        each: Int64 = -(-held * bits // whole)
        return each

    def _bits(self, operand: str) -> int:
        return self.layer.moved_bits(operand, self.choice.levels[operand])

    def _held(self, operand: str, outside: str) -> Int64:
        """Return the elements that each tile adds to what the buffer keeps while the loops `outside` stand still."""
        held = self.sizes("b")
        for dim in RELEVANT[operand]:
            held = held * (self._overlapping(dim, dim not in outside) if operand == "activation" else self.sizes(dim))
        return held

    def _overlapping(self, dim: str, fresh: bool) -> Int64:
        """Return the pixels (m) or channels (k) of each tile; `fresh`: those that no earlier tile along it had."""
        layer = self.layer
        starts, ends = edges(layer.sizes[dim], self.choice.sizes[dim])
        zero = np.zeros_like(starts)
        if dim == "m":
            windows = layer.needs.windows
            own = tile_pixels(windows, zero if fresh else starts, ends)
        else:
            own = tile_channels(layer, zero if fresh else starts, ends)
        if fresh:
            own = np.diff(own, prepend=0)
        picked: Int64 = own[self.index[dim]]
        return picked

    def buffered(self, operand: str) -> tuple[int, int]:
        """Return (the tiles, the bits) that an operand's buffer holds at once: those inside of the loops that stand
        still, twice with two halves.
        """
        layer, choice = self.layer, self.choice
        outside = ("b" + choice.order)[: choice.levels[operand]]
        inside = [dim for dim in ("b" + choice.order) if dim not in outside and dim in "b" + RELEVANT[operand]]
        tiles = int(np.prod([self.trips[dim] for dim in inside], dtype=np.int64))
        scopes = int(np.prod([self.trips[dim] for dim in outside], dtype=np.int64))
        scope = np.zeros(self.count, np.int64)
        for dim in outside:
            scope = scope * self.trips[dim] + self.index[dim]
        new = np.ones(self.count, np.bool_)
        for dim in "mnk":
            if dim not in RELEVANT[operand] and dim not in outside:
                new &= self.index[dim] == 0
        held = np.zeros(scopes, np.int64)
        np.add.at(held, scope, self.resident(operand) * new)
        halves = getattr(layer.config.buffers, operand).ping_pong
        copies = 2 if halves and scopes > 1 else 1
        return tiles * copies, int(held.max()) * copies

    @property
    def finishes(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which tiles complete their outputs."""
        last: np.ndarray[tuple[int], np.dtype[np.bool_]] = self.index["k"] == self.trips["k"] - 1
        return last

    def outputs(self) -> Int64:
        """Return the outputs of each tile, finished or not."""
        count: Int64 = self.sizes("b") * self.sizes("m") * self.sizes("n")
        return count

    def stores(self, bits: int) -> Int64:
        """Return the bits of output codes that each tile stores; together `bits`."""
        return spread(bits, self.outputs() * self.finishes, self.layer.outputs)

    def unfinished(self) -> tuple[Int64, Int64]:
        """Return the bits of sums that each tile writes to DRAM and reads back, where they do not fit."""
        if not self.choice.spills:
            return np.zeros(self.count, np.int64), np.zeros(self.count, np.int64)
        bits = self.outputs() * self.layer.config.accumulator.bits
        return bits * ~self.finishes, bits * (self.index["k"] > 0)

    def accumulators(self) -> Int64:
        """Return the bits of sums that each tile keeps below the array."""
        layer, bits, cols = self.layer, self.layer.config.accumulator.bits, self.layer.config.array.cols
        if layer.stream == "k":
            live = np.minimum(self.sizes("n"), cols)
        elif self.trips["k"] > 1:
            live = self.outputs()
        else:
            live = self.sizes(layer.stream) * np.minimum(self.sizes("n" if layer.stream == "m" else "m"), cols)
        return live * bits

    def cycles(self) -> dict[str, Int64]:
        """Return each tile's array cycles by cause, together the plan's and what entering again costs; and `post`, in
        which the PPU takes its results.
        """
        layer, choice, plan = self.layer, self.choice, self.layer.plan
        whole, cut = self._pass_place(), self.trips[layer.stream]
        position = np.empty(self.count, np.int64)  # of tiles by b, the folded two and the stream
        position[self._linear()] = np.arange(self.count)
        place = position.reshape(-1, cut)
        starts, ends = edges(layer.sizes[layer.stream], choice.sizes[layer.stream])
        latency = layer.config.ppu.latency_cycles
        totals = {name: np.zeros(self.count, np.int64) for name in (*PASS_CAUSES, "post")}
        if cut == 1 or choice.entered > 1:
            pieces = ends - starts
            for size in sorted(set(pieces.tolist())):
                each, at = layer.pieces_cycles(size), place[:, pieces == size]
                for name in totals:
                    totals[name][at] = _sums(getattr(each, name), whole, len(place))[:, None]
                for name in ("ppu", "post"):
                    totals[name][at[whole[-1]]] -= latency
        else:  # each pass is one tile, cut along its stream without interruption
            each = pass_cycles(plan.shape, plan.passes, plan.steps, plan.step_cycles, layer.config)
            total = plan.steps if layer.stream == "k" else layer.sizes[layer.stream]
            assert np.all(each.compute == total * plan.step_cycles)
            of_pass, steps = place[whole], _steps(layer, starts, ends)
            totals["compute"][of_pass] = steps * plan.step_cycles
            for name in ("ppu", "post"):
                cycles = getattr(each, name)
                cycles[-1] -= latency
                if layer.stream == "k":
                    totals[name][of_pass[:, -1]] = cycles
                else:
                    totals[name][of_pass] = (cycles // total)[:, None] * steps
            totals["load"][of_pass[:, 0]], totals["fill"][of_pass[:, 0]] = each.load, each.fill
            totals["drain"][of_pass[:, -1]] = each.drain
        for name in ("ppu", "post"):
            totals[name][-1] += latency
        # With `drain_overlap` the PPU may still be at a tile's results while the next tile runs: drawn as its own time.
        totals["post"] = np.minimum(totals["post"], sum(totals[cause] for cause in PASS_CAUSES))
        return totals

    def _linear(self) -> Int64:
        """Return each tile's number, counted along b, the two folded dimensions and, fastest, the stream."""
        number = self.index["b"]
        for dim in (*self._folded(), self.layer.stream):
            number = number * self.trips[dim] + self.index[dim]
        return number

    def _folded(self) -> tuple[str, str]:
        first, second = (dim for dim in "mnk" if dim != self.layer.stream)
        return first, second

    def _pass_place(self) -> Int64:
        """Return for each pass the number, without the stream, of the tile that it belongs to."""
        layer, passes, plan = self.layer, self.layer.plan.passes, self.layer.plan
        if layer.stream == "k":
            along = {"m": passes.row0, "n": passes.col0}
        else:
            along = {"k": passes.row0 * plan.lanes, ("n" if layer.stream == "m" else "m"): passes.col0}
        number = passes.batch // self.choice.sizes["b"]
        for dim in self._folded():
            number = number * self.trips[dim] + along[dim] // self.choice.sizes[dim]
        return number


def spread(bits: int, elements: Int64, whole: int) -> Int64:
    """Return `bits` shared out over parts of `elements` each, of `whole` in all, so that the sum of the parts is exact:
    each part is what the running total, rounded down, gains by it.
    """
    running = np.cumsum(elements, dtype=np.int64)
    if running.size and int(running[-1]) * bits >= 1 << 62:
        totals = np.array([int(count) * bits // whole for count in running], np.int64)
    else:
        totals = running * bits // whole
    return np.diff(totals, prepend=0)


def _sums(values: Int64, places: Int64, count: int) -> Int64:
    """Return the sums of the values at each of `count` places."""
    sums = np.zeros(count, np.int64)
    np.add.at(sums, places, values)
    return sums


def _steps(layer: Layer, starts: Int64, ends: Int64) -> Int64:
    """Return the lane steps (k) or rows (m, n) of pieces of the stream."""
    if layer.stream != "k":
        return ends - starts
    group, per_group = layer.plan.group, layer.plan.steps_per_group
    return (-(-ends // group) - starts // group) * per_group
