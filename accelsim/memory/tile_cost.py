"""What tilings cost: DRAM traffic, and cycles of the array for entering more than once; all candidates at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.mapping.contract import Int64
from accelsim.memory.tile_space import DIMS, RELEVANT, Capacity, Layer, edges, tile_channels
from accelsim.memory.windows import tile_pixels

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OperandTotals:
    """What one dimension's tiles of an operand hold, by candidate, shaped to broadcast.

    largest, summed : elements along m (pixels) and k (channels) of the largest tile, and of all tiles one after another
    """

    largest: dict[str, Int64]
    summed: dict[str, Int64]
    whole: dict[str, int]


@dataclass(frozen=True)
class Grid:
    """Candidates, by dimension, shaped to broadcast to [b, m, n, k].

    sizes, trips, folds : of a full tile; tiles along the dimension; folds of the array in a full tile
    totals : by operand, see OperandTotals
    entry_cycles : shaped as the stream: cycles that entering anew for each piece adds
    """

    sizes: dict[str, Int64]
    trips: dict[str, Int64]
    folds: dict[str, Int64]
    totals: dict[str, OperandTotals]
    entry_cycles: Int64

    @classmethod
    def of(cls, layer: Layer, candidates: dict[str, Int64]) -> Grid:
        """Return the grid of all combinations of the candidates."""
        sizes, trips, folds = {}, {}, {}
        for axis, dim in enumerate(DIMS):
            shape = [1, 1, 1, 1]
            shape[axis] = -1
            sizes[dim] = candidates[dim].reshape(shape)
            trips[dim] = -(-layer.sizes[dim] // sizes[dim])
            folds[dim] = -(-sizes[dim] // layer.quantum[dim])
        totals = {"weight": _plain_totals(layer, sizes, "nk"), "activation": _activation_totals(layer, sizes)}
        entry = np.zeros_like(sizes[layer.stream])
        if layer.may_split:
            entry = layer.entry_cycles(sizes[layer.stream].ravel()).reshape(entry.shape)
        return cls(sizes, trips, folds, totals, entry)

    @property
    def tiles(self) -> Floats:
        trips = [self.trips[dim].astype(np.float64) for dim in DIMS]
        return trips[0] * trips[1] * trips[2] * trips[3]


def _activation_totals(layer: Layer, sizes: dict[str, Int64]) -> OperandTotals:
    """Return pixels along m and channels along k: windows overlap, and so do taps."""
    largest, summed = {}, {}
    if layer.needs.windows is None:  # rows and columns of a matrix: tiles do not overlap
        return _plain_totals(layer, sizes, "mk")
    for dim in "mk":
        largest[dim], summed[dim] = np.empty_like(sizes[dim]), np.empty_like(sizes[dim])
        for place, size in enumerate(sizes[dim].ravel()):
            starts, ends = edges(layer.sizes[dim], int(size))
            held = tile_pixels(layer.needs.windows, starts, ends) if dim == "m" else tile_channels(layer, starts, ends)
            largest[dim].flat[place], summed[dim].flat[place] = held.max(), held.sum()
    return OperandTotals(largest, summed, whole={"m": layer.pixels, "k": layer.channels})


def _plain_totals(layer: Layer, sizes: dict[str, Int64], dims: str) -> OperandTotals:
    """Return the same for a matrix, whose tiles do not overlap."""
    whole = {dim: layer.sizes[dim] for dim in dims}
    return OperandTotals(
        largest={dim: sizes[dim] for dim in dims},
        summed={dim: np.full_like(sizes[dim], whole[dim]) for dim in dims},
        whole=whole,
    )


@dataclass(frozen=True)
class Cost:
    """What the candidates of one loop order cost; arrays of the grid's shape. Infeasible: infinite traffic.

    traffic_bits : loads, stores, spills and refills
    levels : by operand, how many of the loops (b, then the order) lie outside of what its buffer keeps
    spills : accumulators travel to DRAM and back
    entered : pieces of the stream that enter anew (1: every pass enters once)
    extra_cycles : of the array, for entering more than once
    transfers : DMA transfers: each tile's loads, stores, spills and refills
    """

    traffic_bits: Floats
    levels: dict[str, Int64]
    spills: NDArray[np.bool_]
    entered: Int64
    extra_cycles: Int64
    transfers: Int64


def cost_of(layer: Layer, grid: Grid, order: str, capacity: Capacity) -> Cost:
    """Return the cost of every candidate of the grid under one loop order."""
    shape = np.broadcast_shapes(*(grid.sizes[dim].shape for dim in DIMS))
    traffic = np.full(shape, float(layer.bits["output"]))
    levels = {}
    finished = grid.trips["b"] * grid.trips["m"] * grid.trips["n"]
    transfers = finished
    for operand, room, halves in (
        ("weight", capacity.weight, capacity.weight_halves),
        ("activation", capacity.activation, capacity.activation_halves),
    ):
        loaded, levels[operand], loads = _kept(layer, grid, order, operand, room, halves)
        traffic, transfers = traffic + loaded, transfers + loads
    spilled, fits = _accumulators(layer, grid, order, capacity)
    traffic = traffic + spilled
    transfers = transfers + np.where(spilled > 0, 2 * finished * (grid.trips["k"] - 1), 0)
    per_output = layer.bits["output"] / max(1, layer.outputs)
    out = grid.sizes["b"].astype(float) * grid.sizes["m"] * grid.sizes["n"] * per_output
    several = finished > 1
    copies = 2 if capacity.output_halves else 1
    fits = fits & ((layer.bits["output"] <= capacity.output) | (out * np.where(several, copies, 1) <= capacity.output))
    cut = grid.trips[layer.stream] > 1
    one_pass = np.asarray(order[-1] == layer.stream)  # tile after tile: the stream goes on where it stopped
    for dim in DIMS:
        if dim != layer.stream:
            one_pass = one_pass & (grid.folds[dim] == 1)
    entered = np.where(cut & ~one_pass, grid.trips[layer.stream], 1)
    fits = fits & (layer.may_split | (entered == 1))
    extra = np.where(entered > 1, grid.entry_cycles, 0)
    return Cost(
        traffic_bits=np.where(fits, traffic, np.inf),
        levels=levels,
        spills=np.broadcast_to(spilled > 0, shape),
        entered=np.broadcast_to(entered, shape),
        extra_cycles=np.broadcast_to(extra, shape),
        transfers=np.broadcast_to(transfers, shape),
    )


def _kept(
    layer: Layer, grid: Grid, order: str, operand: str, room_bits: int, halves: bool
) -> tuple[Floats, Int64, Int64]:
    """Return the bits that an operand loads, outside of how many loops its buffer's contents stay, and the transfers.

    With `level` loops fixed the buffer holds everything that the loops inside visit: the fewer are fixed, the more it
    must hold, and the less often it is loaded again. The lowest level that fits is taken; none: infinite.
    """
    relevant, totals = RELEVANT[operand], grid.totals[operand]
    shape = np.broadcast_shapes(*(grid.sizes[dim].shape for dim in DIMS))
    loaded, level_of, loads = np.full(shape, np.inf), np.full(shape, 4, np.int64), np.zeros(shape, np.int64)
    if not layer.bits[operand]:
        return np.zeros(shape), level_of * 0, loads
    elements = layer.elements[operand]
    for level in range(4, -1, -1):
        fixed, bits = ("b" + order)[:level], layer.moved_bits(operand, level)
        held: Floats = grid.sizes["b"].astype(float) if "b" in fixed else np.full((1, 1, 1, 1), float(layer.sizes["b"]))
        swept: Floats = np.full((1, 1, 1, 1), float(layer.sizes["b"]))
        scopes: Int64 = np.ones((1, 1, 1, 1), np.int64)
        for dim in fixed:
            scopes = scopes * grid.trips[dim]
            if dim not in relevant and dim != "b":
                swept = swept * grid.trips[dim]
        transfers: Int64 = grid.trips["b"]
        for dim in {*relevant, *fixed} - {"b"}:
            transfers = transfers * grid.trips[dim]
        for dim in relevant:
            held = held * (totals.largest[dim] if dim in fixed else totals.whole[dim])
            swept = swept * (totals.summed[dim] if dim in fixed else totals.whole[dim])
        fits = held * (bits / elements) * np.where((scopes > 1) & halves, 2, 1) <= room_bits
        loaded = np.where(fits, np.rint(bits * (swept / elements)), loaded)
        level_of = np.where(fits, level, level_of)
        loads = np.where(fits, transfers, loads)
    return loaded, level_of, loads


def _accumulators(layer: Layer, grid: Grid, order: str, capacity: Capacity) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the bits that unfinished sums travel to DRAM and back, and where at least a tile's sums fit."""
    bits, trips = layer.config.accumulator.bits, grid.trips
    sizes = {dim: size.astype(float) for dim, size in grid.sizes.items()}  # of large layers, products exceed integers
    cols = layer.config.array.cols
    if layer.stream == "k":  # sums stay in the PEs; the buffer holds the row of them that drains
        return np.zeros((1, 1, 1, 1)), np.asarray(np.minimum(sizes["n"], cols) * bits <= capacity.accumulator)
    stationary = "n" if layer.stream == "m" else "m"
    finished = sizes[layer.stream] * np.minimum(sizes[stationary], cols)
    tile = sizes["b"] * sizes["m"] * sizes["n"]
    held = tile
    for dim in order[order.index("k") + 1 :]:  # every iteration over k comes back to all of these
        held = held // sizes[dim] * layer.sizes[dim]
    whole_k = trips["k"] == 1
    inside = order[-1] != "k"
    halves = 2 if capacity.accumulator_halves else 1
    stays = np.where(whole_k, finished, held) * bits <= capacity.accumulator
    may_spill = ~whole_k & inside & (tile * bits * halves <= capacity.accumulator)
    spilled = np.where(stays, 0.0, 2.0 * layer.outputs * bits * (trips["k"] - 1))
    return spilled, stays | may_spill
