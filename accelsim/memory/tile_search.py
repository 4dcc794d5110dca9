"""The best of the tilings that fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from accelsim.config.dram_timing import DramTiming, resolve_dram
from accelsim.config.model import HardwareConfig, TilePin
from accelsim.errors import UnsupportedLayerError
from accelsim.mapping.contract import Int64
from accelsim.memory.tile_cost import Cost, Floats, Grid, cost_of
from accelsim.memory.tile_space import DIMS, ORDERS, Capacity, Layer, candidate_sizes

LATENCY_STEP = 1.01
"""Estimated latencies within this factor count as equal, so that a per cent does not pay for many small tiles."""


@dataclass(frozen=True)
class Choice:
    """One tiling: sizes by dimension, loop order, and what it costs (of class Cost)."""

    sizes: dict[str, int]
    order: str
    levels: dict[str, int]
    spills: bool
    entered: int
    traffic_bits: int
    extra_cycles: int
    estimate_cycles: float
    pinned: bool


def choose(layer: Layer, config: HardwareConfig, capacity: Capacity) -> Choice:
    """Return the tiling of the least cost: `memory.objective`, then the other one, then the fewest tiles, then the
    largest ones, in a fixed order.

    Raises UnsupportedLayerError where not even the smallest tile fits, or the user's does not.
    """
    pin = config.memory.pin(layer.needs.name)
    candidates = {dim: _pinned(layer, pin, dim) for dim in DIMS}
    grid = Grid.of(layer, candidates)
    dram = resolve_dram(config)
    best: tuple[tuple[float, ...], Choice] | None = None
    for order in _orders(pin, layer):
        cost = cost_of(layer, grid, order, capacity)
        found = _best_of_order(layer, grid, order, cost, config, dram)
        if found is not None and (best is None or found[0] < best[0]):
            best = found
    if best is None:
        raise _does_not_fit(layer, capacity, pin)
    choice = best[1]
    return Choice(**{**vars(choice), "pinned": pin != TilePin() and pin != TilePin(layer=pin.layer)})


def _best_of_order(
    layer: Layer, grid: Grid, order: str, cost: Cost, config: HardwareConfig, dram: DramTiming
) -> tuple[tuple[float, ...], Choice] | None:
    alive = np.isfinite(cost.traffic_bits)
    if not alive.any():
        return None
    tiles = np.broadcast_to(grid.tiles, alive.shape)
    estimate = estimated_cycles(layer, cost, tiles, config, dram)
    steps = np.ceil(np.log(np.maximum(estimate, 1)) / math.log(LATENCY_STEP))
    keys: list[Floats | Int64] = [cost.traffic_bits, steps, tiles]
    if config.memory.objective == "latency":
        keys = [steps, cost.traffic_bits, tiles]
    for key in keys:
        least = key[alive].min()
        alive &= key == least
    place = np.unravel_index(int(np.argmax(alive)), alive.shape)
    choice = Choice(
        sizes={dim: int(grid.sizes[dim].ravel()[place[axis]]) for axis, dim in enumerate(DIMS)},
        order=order,
        levels={operand: int(level[place]) for operand, level in cost.levels.items()},
        spills=bool(cost.spills[place]),
        entered=int(cost.entered[place]),
        traffic_bits=int(cost.traffic_bits[place]) + layer.needs.parameter_bits,
        extra_cycles=int(cost.extra_cycles[place]),
        estimate_cycles=float(estimate[place]),
        pinned=False,
    )
    return tuple(float(key[place]) for key in keys), choice


def estimated_cycles(layer: Layer, cost: Cost, tiles: Int64, config: HardwareConfig, dram: DramTiming) -> Floats:
    """Return about how long the candidates take: computing and moving at once, and at the ends one tile's transfers
    that nothing hides. Without ping-pong nothing is hidden.
    """
    computing = layer.plan.cycles.total + cost.extra_cycles
    traffic = np.where(np.isfinite(cost.traffic_bits), cost.traffic_bits, 0)  # others are never chosen
    moving = traffic / 8 / (dram.bytes_per_cycle * dram.channels)
    moving = moving + 2 * tiles * config.dma.setup_cycles / config.dma.engines
    buffers = config.buffers
    if not (buffers.weight.ping_pong and buffers.activation.ping_pong):
        return np.asarray(computing + moving + dram.latency_cycles * tiles)
    return np.asarray(np.maximum(computing, moving) + moving / tiles + 2 * dram.latency_cycles)


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
