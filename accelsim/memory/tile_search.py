"""The best of the tilings that fit, by every ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig, TilePin
from accelsim.errors import UnsupportedLayerError
from accelsim.mapping.contract import Int64
from accelsim.memory.tile_cost import Cost, Floats, Grid, cost_of
from accelsim.memory.tile_rank import SUPPOSED_PPU_CYCLES, Ranking, latency_steps, rankings
from accelsim.memory.tile_space import DIMS, MOST_TILES, ORDERS, Capacity, Layer, candidate_sizes


@dataclass(frozen=True)
class Choice:
    """One tiling: sizes by dimension, loop order, and what it costs (of class Cost)."""

    sizes: dict[str, int]
    order: str
    levels: dict[str, int]
    spills: bool
    entered: int
    pinned: bool


def choose(layer: Layer, config: HardwareConfig, capacity: Capacity) -> list[Choice]:
    """Return for each ranking (tile_rank.rankings) the tiling that it puts first; of equal ones the one with the
    largest tiles, in a fixed order. Equal choices are one object.

    Raises UnsupportedLayerError where not even the smallest tile fits, or the user's does not.
    """
    pin = config.memory.pin(layer.needs.name)
    candidates = {dim: _pinned(layer, pin, dim) for dim in DIMS}
    grid = Grid.of(layer, candidates)
    orders = _orders(pin, layer)
    found = _Fitting.of(layer, grid, [cost_of(layer, grid, order, capacity) for order in orders])
    if not found.places.size:
        raise _does_not_fit(layer, capacity, pin)
    if found.tiles.min() > MOST_TILES:
        raise UnsupportedLayerError(
            f"layer {layer.needs.name!r}: at least {found.tiles.min():,.0f} tiles fit the buffers, more than the "
            f"{MOST_TILES:,} that can be planned; use larger buffers, or cut the layer into smaller ones"
        )
    found = found.only(found.tiles <= MOST_TILES)
    least = found.only(found.traffic_bits == found.traffic_bits.min())
    hidden = config.buffers.weight.ping_pong and config.buffers.activation.ping_pong
    pinned = pin != TilePin() and pin != TilePin(layer=pin.layer)
    chosen: dict[tuple[int, int], Choice] = {}
    choices = []
    for ranking in rankings(config):
        among = least if ranking.first == "traffic" else found
        number = among.first(ranking, layer, hidden=hidden)
        place = (int(among.orders[number]), int(among.places[number]))
        if place not in chosen:
            chosen[place] = _choice(grid, orders[place[0]], found.costs[place[0]], place[1], pinned)
        choices.append(chosen[place])
    return choices


@dataclass(frozen=True)
class _Fitting:
    """The tilings that fit, of all loop orders one after another; arrays of one entry a tiling.

    orders : index of the loop order; places : in the grid, counted flat
    """

    costs: list[Cost]
    orders: Int64
    places: Int64
    traffic_bits: Floats
    extra_cycles: Int64
    transfers: Int64
    tiles: Floats

    @classmethod
    def of(cls, layer: Layer, grid: Grid, costs: list[Cost]) -> _Fitting:
        """Return all that fit; `traffic_bits` of the others are infinite."""
        places = [np.flatnonzero(np.isfinite(cost.traffic_bits)) for cost in costs]
        shape = costs[0].traffic_bits.shape if costs else (0, 0, 0, 0)
        tiles = np.broadcast_to(grid.tiles, shape).reshape(-1)

        def gathered(name: str) -> Any:
            return np.concatenate([getattr(cost, name).reshape(-1)[at] for cost, at in zip(costs, places, strict=True)])

        return cls(
            costs=costs,
            orders=np.repeat(np.arange(len(costs)), [at.size for at in places]),
            places=np.concatenate(places),
            traffic_bits=gathered("traffic_bits"),
            extra_cycles=gathered("extra_cycles"),
            transfers=gathered("transfers"),
            tiles=np.concatenate([tiles[at] for at in places]),
        )

    def only(self, kept: NDArray[np.bool_]) -> _Fitting:
        """Return those that `kept` marks."""
        at = np.flatnonzero(kept)
        values = {name: value[at] for name, value in vars(self).items() if name != "costs"}
        return _Fitting(costs=self.costs, **values)

    def first(self, ranking: Ranking, layer: Layer, *, hidden: bool) -> int:
        """Return the number of the tiling that a ranking puts first."""
        cycles = layer.plan.cycles
        computing = cycles.total - cycles.ppu + SUPPOSED_PPU_CYCLES + self.extra_cycles
        steps = latency_steps(ranking.memory, computing, self.traffic_bits, self.transfers, self.tiles, hidden=hidden)
        best = np.arange(self.places.size)
        for key in ranking.keys(self.traffic_bits, steps, self.tiles):
            best = best[key[best] == key[best].min()]
        return int(best[0])


def _choice(grid: Grid, order: str, cost: Cost, flat: int, pinned: bool) -> Choice:
    place = np.unravel_index(flat, cost.traffic_bits.shape)
    return Choice(
        sizes={dim: int(grid.sizes[dim].ravel()[place[axis]]) for axis, dim in enumerate(DIMS)},
        order=order,
        levels={operand: int(level[place]) for operand, level in cost.levels.items()},
        spills=bool(cost.spills[place]),
        entered=int(cost.entered[place]),
        pinned=pinned,
    )


def _orders(pin: TilePin, layer: Layer) -> list[str]:
    """Return the loop orders that agree with the user's."""
    wanted = pin.order or ""
    if "b" in wanted[1:]:
        raise UnsupportedLayerError(
            f"layer {layer.needs.name!r}: memory.tiling: order {wanted!r} has the loop over matrix products inside of "
            f"another one, where it would load all the more; write b first, or leave it out"
        )
    wanted = wanted.removeprefix("b")
    return [order for order in ORDERS if "".join(dim for dim in order if dim in wanted) == wanted]


def _pinned(layer: Layer, pin: TilePin, dim: str) -> Int64:
    size = None if dim == "b" else getattr(pin, dim)
    if size is None:
        return candidate_sizes(layer, dim)
    quantum, full = layer.quantum[dim], layer.sizes[dim]
    if size < full and size % quantum:
        what = "the array takes" if dim != layer.stream else "a group of additions has"
        near = max(quantum, round(size / quantum) * quantum)
        raise UnsupportedLayerError(
            f"layer {layer.needs.name!r}: memory.tiling: {dim}={size} is not a multiple of the {quantum} that {what}; "
            f"use {near}, or {full} for all of it"
        )
    return np.array([min(size, full)], np.int64)


def _does_not_fit(layer: Layer, capacity: Capacity, pin: TilePin) -> UnsupportedLayerError:
    """Return the message: which buffer, how much the smallest tile needs, how much there is."""
    smallest = {dim: _pinned(layer, pin, dim)[-1:] for dim in DIMS}
    grid = Grid.of(layer, smallest)
    name = f"layer {layer.needs.name!r}"
    tile = ", ".join(f"{dim}={int(smallest[dim][0])}" for dim in "mnk")
    which = "the tile that memory.tiling asks for" if any(getattr(pin, dim) for dim in "mnk") else "the smallest tile"
    unlimited = {"weight": 1 << 62, "activation": 1 << 62, "output": 1 << 62, "accumulator": 1 << 62}
    needs = tile_bits(layer, grid, capacity)
    for buffer, bits in needs.items():
        have = getattr(capacity, buffer)
        if bits > have:
            halves = ", twice for ping_pong" if getattr(capacity, f"{buffer}_halves") else ""
            return UnsupportedLayerError(
                f"{name}: {which} ({tile}) needs {-(-bits // 8):,} bytes of the {buffer} buffer{halves}, but "
                f"{max(0, have) // 8:,} are there; set buffers.{buffer}.size_bytes to {-(-bits // 8)} or more"
            )
    for order in _orders(pin, layer):
        relaxed = cost_of(layer, grid, order, Capacity(**{**vars(capacity), **unlimited}))
        if np.isfinite(relaxed.traffic_bits).any():
            break
    else:
        return UnsupportedLayerError(
            f"{name}: memory.tiling cuts {layer.stream}, which streams past the stationary operand, across passes; "
            f"leave {layer.stream} out, or set memory.passes: split"
        )
    return UnsupportedLayerError(
        f"{name}: no loop order of {which} ({tile}) keeps its unfinished sums in the {capacity.accumulator // 8:,} "
        f"bytes of the accumulator buffer; use a larger one, or another order"
    )


def tile_bits(layer: Layer, grid: Grid, capacity: Capacity) -> dict[str, int]:
    """Return what one candidate's tile needs of each buffer at least, halves counted."""
    sizes = {dim: int(grid.sizes[dim].ravel()[0]) for dim in DIMS}
    elements, cols = layer.elements, layer.config.array.cols
    largest = grid.totals["activation"].largest
    held = {
        "weight": sizes["b"] * sizes["n"] * sizes["k"],
        "activation": sizes["b"] * int(largest["m"].item()) * int(largest["k"].item()),
        "output": sizes["b"] * sizes["m"] * sizes["n"],
    }
    needs = {}
    for operand, count in held.items():
        tile = -(-layer.moved_bits(operand, 4) * count // elements[operand])
        twice = 2 * tile if getattr(capacity, f"{operand}_halves") else tile
        needs[operand] = min(twice, layer.bits[operand])
    rows = {"os": 1, "ws": sizes["m"], "is": sizes["n"]}[layer.plan.dataflow]
    stationary = sizes["m"] if layer.plan.dataflow == "is" else sizes["n"]
    needs["accumulator"] = rows * min(stationary, cols) * layer.config.accumulator.bits
    return needs
