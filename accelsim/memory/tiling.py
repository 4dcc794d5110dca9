"""The planner: each layer cut into tiles that fit the buffers, and the tensors that stay on chip between layers.

Model and worked example: docs/memory.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from accelsim.config.dram_timing import resolve_dram
from accelsim.config.model import HardwareConfig
from accelsim.errors import UnsupportedLayerError, did_you_mean
from accelsim.mapping.contract import Int64
from accelsim.memory.contract import LayerNeeds, LayerTiling
from accelsim.memory.explain import explain
from accelsim.memory.tile_build import Tiles, spread
from accelsim.memory.tile_search import choose
from accelsim.memory.tile_space import Capacity, layer_of


def tile_layer(
    needs: LayerNeeds,
    config: HardwareConfig,
    *,
    on_chip: frozenset[str] = frozenset(),
    keep_output: bool = False,
    reserved_bits: int = 0,
) -> LayerTiling:
    """Return how a layer is cut into tiles.

    on_chip : names of input tensors that an earlier layer left in the activation buffer
    keep_output : the output stays there too, for later layers
    reserved_bits : of the activation buffer, by all tensors that stay there while this layer runs

    Raises UnsupportedLayerError where not even the smallest tile fits, or not the user's; the message names the buffer,
    what is needed and what is there.
    """
    if needs.plan is None:
        return _vector(needs, config, on_chip, keep_output, reserved_bits)
    layer = layer_of(needs, config, on_chip=on_chip)
    choice = choose(layer, config, Capacity.of(config, reserved_bits))
    tiles = Tiles.of(layer, choice)
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
    )
    return _explained(tiling, needs, choice.spills, choice.pinned, config)


def tile_network(layers: Sequence[LayerNeeds], config: HardwareConfig) -> list[LayerTiling]:
    """Return the tilings of layers that run one after another.

    With `memory.fuse_layers` an output stays in the activation buffer until its last reader is done, where it fits
    beside what else is there, and where that saves traffic: in the order of the layers, each output that helps is
    kept. Tensors that enter through the weight port come from DRAM.

    Raises UnsupportedLayerError as :func:`tile_layer` does, and where `memory.tiling` names a layer that is not there.

    >>> import accelsim
    >>> from accelsim.memory.needs import network_needs
    >>> config = accelsim.load_config("configs/int8_ws.yaml")
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> tilings = tile_network(network_needs(trace, config), config)
    >>> tilings[1].explanation
    'weights once; activations once; loops, outermost first: columns, the reduction; fullest buffer: weight, 4%'
    >>> [each.dram_read_bits + each.dram_write_bits == each.lower_bound_bits for each in tilings]  # all tensors, once
    [True, True, True, True]
    """
    _check_pins(layers, config)
    tilings = _each_once(layers, config)
    if not config.memory.fuse_layers:
        return tilings
    fused = _Fusion(layers, config, tilings)
    for index in range(len(layers)):
        fused.keep_if_it_helps(index)
    return fused.tilings


def _each_once(layers: Sequence[LayerNeeds], config: HardwareConfig) -> list[LayerTiling]:
    """Return every layer's tiling by itself; layers that are equal but for their names are tiled once."""
    pinned = {pin.layer for pin in config.memory.tiling}
    known: dict[tuple[object, ...], LayerTiling] = {}
    tilings = []
    for needs in layers:
        sizes = tuple(tensor.bits for tensor in (*needs.inputs, needs.output))
        weight = None if needs.weight is None else needs.weight.bits
        kind: tuple[object, ...] = (id(needs.plan), sizes, weight, needs.parameter_bits, needs.vector_cycles)
        kind += (needs.windows, needs.shared, needs.output_leaves)
        if needs.plan is None or needs.name in pinned:
            tilings.append(tile_layer(needs, config))
            continue
        if kind not in known:
            known[kind] = tile_layer(needs, config)
        tilings.append(replace(known[kind], name=needs.name))
    return tilings


def lower_bound_bits(needs: LayerNeeds) -> int:
    """Return the traffic with each tensor once: what no tiling can be below, unless tensors stay on chip."""
    weight = needs.weight.bits if needs.weight is not None else 0
    if needs.plan is None and not needs.vector_cycles:
        return 0
    return sum(tensor.bits for tensor in needs.inputs) + weight + needs.parameter_bits + needs.output.bits


class _Fusion:
    """Which outputs stay on chip, decided greedily."""

    def __init__(self, layers: Sequence[LayerNeeds], config: HardwareConfig, tilings: list[LayerTiling]) -> None:
        self.layers, self.config, self.tilings = layers, config, tilings
        self.kept: set[str] = set()
        self.reserved = [0] * len(layers)
        self.readers: dict[str, list[int]] = {}
        self.not_kept: set[str] = set()
        self.same: dict[str, str] = {}  # what only moves addresses gives a tensor another name
        for index, needs in enumerate(layers):
            names = [self._stored(tensor.name) for tensor in needs.inputs]
            if needs.plan is None and not needs.vector_cycles:
                self.same[needs.output.name] = names[0]
                self.not_kept |= {names[0]} if needs.output_leaves else set()
            else:
                for name in names:
                    self.readers.setdefault(name, []).append(index)
            if needs.plan is not None:
                self.not_kept |= set(names[1:])  # enters by the weight port

    def keep_if_it_helps(self, index: int) -> None:
        output = self.layers[index].output
        readers = [reader for reader in self.readers.get(output.name, []) if reader > index]
        if not readers or output.name in self.not_kept or not self.tilings[index].tiles:
            return
        alive = range(index, readers[-1] + 1)
        room = 8 * self.config.buffers.activation.size_bytes
        if any(self.reserved[layer] + output.bits > room for layer in alive):
            return
        kept, reserved = self.kept | {output.name}, list(self.reserved)
        for layer in alive:
            reserved[layer] += output.bits
        try:
            tried = {layer: self._tiled(layer, kept, reserved[layer]) for layer in alive}
        except UnsupportedLayerError:  # beside this tensor not even the smallest tile fits
            return
        before = sum(_traffic(self.tilings[layer]) for layer in alive)
        if sum(_traffic(tiling) for tiling in tried.values()) >= before:
            return
        self.kept, self.reserved = kept, reserved
        for layer, tiling in tried.items():
            self.tilings[layer] = tiling

    def _stored(self, name: str) -> str:
        """Return the name under which a tensor's codes were written."""
        return self.same.get(name, name)

    def _tiled(self, index: int, kept: set[str], reserved_bits: int) -> LayerTiling:
        needs = self.layers[index]
        here = frozenset(tensor.name for tensor in needs.inputs if self._stored(tensor.name) in kept)
        return tile_layer(
            needs,
            self.config,
            on_chip=here,
            keep_output=needs.output.name in kept,
            reserved_bits=reserved_bits,
        )


def _traffic(tiling: LayerTiling) -> int:
    return tiling.dram_read_bits + tiling.dram_write_bits


def _saved(needs: LayerNeeds, here: tuple[str, ...], stored: int) -> int:
    return needs.output.bits - stored + sum(tensor.bits for tensor in needs.inputs if tensor.name in here)


def _check_pins(layers: Sequence[LayerNeeds], config: HardwareConfig) -> None:
    names = [needs.name for needs in layers]
    for pin in config.memory.tiling:
        if pin.layer is not None and pin.layer not in names:
            raise UnsupportedLayerError(
                f"memory.tiling names layer {pin.layer!r}, which is not there{did_you_mean(pin.layer, names)}; use one "
                f"of {', '.join(names)}"
            )


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
        if resolve_dram(config).ideal is False and strips:  # so that transfers hide behind work
            strips = max(strips, min(8, needs.vector_cycles))
    if needs.vector_cycles and not strips:
        raise UnsupportedLayerError(
            f"layer {needs.name!r}: {reserved_bits // 8:,} bytes of other layers' tensors leave no room in the "
            f"activation buffer; set buffers.activation.size_bytes to more than that"
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
