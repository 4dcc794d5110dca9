"""The planner: the layers of a network cut into tiles, and the tensors that stay on chip between them.

Model and worked example: docs/memory.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from accelsim.config.model import HardwareConfig
from accelsim.errors import UnsupportedLayerError, did_you_mean
from accelsim.memory.contract import LayerNeeds, LayerTiling
from accelsim.memory.tile_rank import rankings
from accelsim.memory.tiling import tile_layer_variants


def tile_network(layers: Sequence[LayerNeeds], config: HardwareConfig) -> list[LayerTiling]:
    """Return the first of :func:`tile_network_variants`: the plan for a memory that takes no time.

    >>> import accelsim
    >>> from accelsim.memory.needs import network_needs
    >>> config = accelsim.load_config("configs/int8_ws.yaml")
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> tilings = tile_network(network_needs(trace, config), config)
    >>> tilings[1].explanation
    'weights once; activations once'
    >>> [each.dram_read_bits + each.dram_write_bits == each.lower_bound_bits for each in tilings]  # all tensors, once
    [True, True, True, True]
    """
    return tile_network_variants(layers, config)[0]


def tile_network_variants(layers: Sequence[LayerNeeds], config: HardwareConfig) -> list[list[LayerTiling]]:
    """Return the tilings of layers that run one after another: a plan for each ranking (tile_rank.rankings).

    With `memory.fuse_layers` an output stays in the activation buffer until its last reader is done, where it fits
    beside what else is there, and where that saves traffic: in the order of the layers, each output that helps is
    kept. Tensors that enter through the weight port come from DRAM.

    Raises UnsupportedLayerError as :func:`accelsim.memory.tiling.tile_layer` does, and where `memory.tiling` names a
    layer that is not there.
    """
    _check_pins(layers, config)
    each = _each_once(layers, config)
    plans = [[variants[ranking] for variants in each] for ranking in range(len(rankings(config)))]
    if not config.memory.fuse_layers:
        return plans
    tried: Tried = {}
    for ranking, plan in enumerate(plans):
        fused = _Fusion(layers, config, plan, ranking, tried)
        for index in range(len(layers)):
            fused.keep_if_it_helps(index)
    return plans


def _each_once(layers: Sequence[LayerNeeds], config: HardwareConfig) -> list[list[LayerTiling]]:
    """Return every layer's tilings by itself; layers that are equal but for their names are tiled once."""
    pinned = {pin.layer for pin in config.memory.tiling}
    known: dict[tuple[object, ...], list[LayerTiling]] = {}
    tilings = []
    for needs in layers:
        sizes = tuple(tensor.bits for tensor in (*needs.inputs, needs.output))
        weight = None if needs.weight is None else needs.weight.bits
        kind: tuple[object, ...] = (id(needs.plan), sizes, weight, needs.parameter_bits, needs.vector_cycles)
        kind += (needs.windows, needs.shared, needs.output_leaves)
        if needs.plan is None or needs.name in pinned:
            tilings.append(tile_layer_variants(needs, config))
            continue
        if kind not in known:
            known[kind] = tile_layer_variants(needs, config)
        named = {id(tiling): replace(tiling, name=needs.name) for tiling in known[kind]}
        tilings.append([named[id(tiling)] for tiling in known[kind]])
    return tilings


Tried = dict[tuple[int, frozenset[str], bool, int], list[LayerTiling]]
"""By layer, inputs on chip, whether its output stays, and reserved bits: what the rankings share."""


class _Fusion:
    """Which outputs stay on chip in one ranking's plan, decided greedily; `tilings` are changed in place."""

    def __init__(
        self,
        layers: Sequence[LayerNeeds],
        config: HardwareConfig,
        tilings: list[LayerTiling],
        ranking: int,
        known: Tried,
    ) -> None:
        self.layers, self.config, self.tilings, self.ranking, self.known = layers, config, tilings, ranking, known
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
        case = (index, here, needs.output.name in kept, reserved_bits)
        if case not in self.known:
            self.known[case] = tile_layer_variants(
                needs, self.config, on_chip=here, keep_output=case[2], reserved_bits=reserved_bits
            )
        return self.known[case][self.ranking]


def _traffic(tiling: LayerTiling) -> int:
    return tiling.dram_read_bits + tiling.dram_write_bits


def _check_pins(layers: Sequence[LayerNeeds], config: HardwareConfig) -> None:
    names = [needs.name for needs in layers]
    for pin in config.memory.tiling:
        if pin.layer is not None and pin.layer not in names:
            raise UnsupportedLayerError(
                f"memory.tiling names layer {pin.layer!r}, which is not there{did_you_mean(pin.layer, names)}; use one "
                f"of {', '.join(names)}"
            )
