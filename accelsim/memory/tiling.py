"""The planner: a layer cut into tiles that fit the buffers.

Model and worked example: docs/memory.md.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from accelsim.config.model import HardwareConfig
from accelsim.errors import UnsupportedLayerError
from accelsim.mapping.contract import Int64
from accelsim.memory.coarse import coarse
from accelsim.memory.contract import LayerNeeds, LayerTiling
from accelsim.memory.explain import explain
from accelsim.memory.tile_build import Tiles, spread
from accelsim.memory.tile_rank import rankings
from accelsim.memory.tile_search import Choice, choose
from accelsim.memory.tile_space import MOST_TILES, Capacity, Layer, layer_of

KEPT_TILES = 1 << 17
"""Entries of a tiling's arrays; of more tiles, neighbours have one together."""


def tile_layer(
    needs: LayerNeeds,
    config: HardwareConfig,
    *,
    on_chip: frozenset[str] = frozenset(),
    keep_output: bool = False,
    reserved_bits: int = 0,
) -> LayerTiling:
    """Return the first of :func:`tile_layer_variants`: the one for a memory that takes no time."""
    return tile_layer_variants(needs, config, on_chip=on_chip, keep_output=keep_output, reserved_bits=reserved_bits)[0]


def tile_layer_variants(
    needs: LayerNeeds,
    config: HardwareConfig,
    *,
    on_chip: frozenset[str] = frozenset(),
    keep_output: bool = False,
    reserved_bits: int = 0,
) -> list[LayerTiling]:
    """Return how a layer is cut into tiles, one tiling for each ranking (tile_rank.rankings); equal ones are one
    object.

    on_chip : names of input tensors that an earlier layer left in the activation buffer
    keep_output : the output stays there too, for later layers
    reserved_bits : of the activation buffer, by all tensors that stay there while this layer runs

    Raises UnsupportedLayerError where not even the smallest tile fits, or not the user's; the message names the buffer,
    what is needed and what is there.
    """
    if needs.plan is None:
        return [_vector(needs, config, on_chip, keep_output, reserved_bits)] * len(rankings(config))
    layer = layer_of(needs, config, on_chip=on_chip)
    built: dict[int, LayerTiling] = {}
    choices = choose(layer, config, Capacity.of(config, reserved_bits))
    for choice in choices:
        if id(choice) not in built:
            built[id(choice)] = _tiling(layer, choice, config, on_chip, keep_output, reserved_bits)
    return [built[id(choice)] for choice in choices]


def _tiling(
    layer: Layer,
    choice: Choice,
    config: HardwareConfig,
    on_chip: frozenset[str],
    keep_output: bool,
    reserved_bits: int,
) -> LayerTiling:
    needs, tiles = layer.needs, Tiles.of(layer, choice)
    stored = 0 if keep_output and not needs.output_leaves else needs.output.bits
    spills, refills = tiles.unfinished()
    weights, cycles = tiles.loads("weight"), tiles.cycles()
    weights[0] += needs.parameter_bits
    held = {operand: tiles.buffered(operand) for operand in ("weight", "activation")}
    results = np.ceil(tiles.outputs() * (needs.output.bits / layer.outputs)).astype(np.int64) * tiles.finishes
    depth = _output_depth(needs.output.bits, tiles.trips["b"] * tiles.trips["m"] * tiles.trips["n"], config)
    here = tuple(tensor.name for tensor in needs.inputs[:1] if tensor.name in on_chip)
    accumulators = tiles.accumulators()
    tiling = LayerTiling(
        name=needs.name,
        order="".join(dim for dim in "b" + choice.order if tiles.trips[dim] > 1),
        tile_m=choice.sizes["m"],
        tile_n=choice.sizes["n"],
        tile_k=choice.sizes["k"],
        weight_bits=weights,
        activation_bits=tiles.loads("activation"),
        store_bits=tiles.stores(stored),
        spill_bits=spills,
        refill_bits=refills,
        load=cycles["load"],
        fill=cycles["fill"],
        compute=cycles["compute"],
        drain=cycles["drain"],
        ppu=cycles["ppu"],
        post=cycles["post"],
        vector=np.zeros(tiles.count, np.int64),
        weight_depth=held["weight"][0],
        activation_depth=held["activation"][0],
        output_depth=depth,
        weight_resident_bits=tiles.resident("weight"),
        activation_resident_bits=tiles.resident("activation"),
        output_resident_bits=results,
        accumulator_resident_bits=accumulators,
        on_chip_inputs=here,
        output_on_chip=keep_output,
        saved_bits=_saved(needs, here, stored),
        tile_b=choice.sizes["b"],
        entries=choice.entered,
        buffer_bits=(
            held["weight"][1],
            held["activation"][1] + reserved_bits,
            min(depth * int(results.max()), needs.output.bits),
            int(accumulators.max()),
        ),
        lower_bound_bits=lower_bound_bits(needs),
        tile_count=tiles.count,
    )
    return coarse(_explained(tiling, needs, choice.spills, choice.pinned, config), KEPT_TILES)


def lower_bound_bits(needs: LayerNeeds) -> int:
    """Return the traffic with each tensor once: what no tiling can be below, unless tensors stay on chip."""
    weight = needs.weight.bits if needs.weight is not None else 0
    if needs.plan is None and not needs.vector_cycles:
        return 0
    return sum(tensor.bits for tensor in needs.inputs) + weight + needs.parameter_bits + needs.output.bits


def _saved(needs: LayerNeeds, here: tuple[str, ...], stored: int) -> int:
    return needs.output.bits - stored + sum(tensor.bits for tensor in needs.inputs if tensor.name in here)


def _output_depth(bits: int, tiles: int, config: HardwareConfig) -> int:
    """Return how many tiles' outputs wait in their buffer at once."""
    if bits <= 8 * config.buffers.output.size_bytes:
        return tiles
    return 2 if config.buffers.output.ping_pong else 1


def _vector(
    needs: LayerNeeds, config: HardwareConfig, on_chip: frozenset[str], keep_output: bool, reserved_bits: int
) -> LayerTiling:
    """Return strips of an operator of the vector unit: inputs stream through it and out again."""
    loaded = [tensor.bits for tensor in needs.inputs if tensor.name not in on_chip]
    here = tuple(tensor.name for tensor in needs.inputs if tensor.name in on_chip)
    stored = 0 if keep_output and not needs.output_leaves else needs.output.bits
    buffers = config.buffers
    room = 8 * buffers.activation.size_bytes - reserved_bits
    if not needs.vector_cycles:  # only addresses move
        strips = 0
    else:
        strips = max(
            _strips(sum(loaded), room, buffers.activation.ping_pong),
            _strips(needs.output.bits, 8 * buffers.output.size_bytes, buffers.output.ping_pong),
        )
        if strips:  # so that transfers hide behind work, whatever they take
            strips = max(strips, min(8, needs.vector_cycles))
    if needs.vector_cycles and not strips:
        raise UnsupportedLayerError(
            f"layer {needs.name!r}: {reserved_bits // 8:,} bytes of other layers' tensors leave no room in the "
            f"activation buffer; set buffers.activation.size_bytes to more than that"
        )
    if strips > MOST_TILES:
        raise UnsupportedLayerError(
            f"layer {needs.name!r}: {strips:,} strips fit the buffers, more than the {MOST_TILES:,} that can be "
            f"planned; use larger buffers, or cut the layer into smaller ones"
        )
    even = np.ones(strips, np.int64)
    zeros = np.zeros(strips, np.int64)
    inputs, outputs = spread(sum(loaded), even, max(1, strips)), spread(needs.output.bits, even, max(1, strips))
    depth = 2 if buffers.activation.ping_pong and strips > 1 else 1
    out_depth = _output_depth(needs.output.bits, max(1, strips), config)
    tiling = LayerTiling(
        name=needs.name,
        order="m" if strips > 1 else "",
        tile_m=0,
        tile_n=0,
        tile_k=0,
        weight_bits=_first(zeros, needs.parameter_bits),
        activation_bits=inputs,
        store_bits=spread(stored, even, max(1, strips)),
        spill_bits=zeros,
        refill_bits=zeros,
        load=zeros,
        fill=zeros,
        compute=zeros,
        drain=zeros,
        ppu=zeros,
        post=zeros,
        vector=spread(needs.vector_cycles, even, max(1, strips)),
        weight_depth=1,
        activation_depth=depth,
        output_depth=out_depth,
        weight_resident_bits=zeros,
        activation_resident_bits=inputs,
        output_resident_bits=outputs,
        accumulator_resident_bits=zeros,
        on_chip_inputs=here,
        output_on_chip=keep_output,
        saved_bits=_saved(needs, here, stored) if strips else 0,
        buffer_bits=(
            0,
            reserved_bits + depth * int(inputs.max(initial=0)),
            min(out_depth * int(outputs.max(initial=0)), needs.output.bits),
            0,
        ),
        lower_bound_bits=lower_bound_bits(needs),
        tile_count=strips,
    )
    return _explained(tiling, needs, False, False, config)


def _strips(bits: int, room_bits: int, halves: bool) -> int:
    """Return into how many strips `bits` must be cut to fit; 0 where there is no room."""
    if bits <= room_bits:
        return 1
    room = room_bits // 2 if halves else room_bits
    return -(-bits // room) if room > 0 else 0


def _first(zeros: Int64, bits: int) -> Int64:
    values = zeros.copy()
    if values.size:
        values[0] = bits
    return values


def _explained(
    tiling: LayerTiling, needs: LayerNeeds, spills: bool, pinned: bool, config: HardwareConfig
) -> LayerTiling:
    return replace(tiling, explanation=explain(tiling, needs, config, spills=spills, pinned=pinned))
