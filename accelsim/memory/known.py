"""What the plans of one network share, worked out once: parts of layers, their tilings, and these made coarse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from accelsim.config.model import HardwareConfig
from accelsim.memory.coarse import coarse_arrays
from accelsim.memory.contract import LayerNeeds, LayerTiling
from accelsim.memory.network_tiling import tile_network_variants
from accelsim.memory.shares import Split, share_of
from accelsim.memory.tiling import tile_layer_variants

MAX_TILES = 5_000
"""Tiles of a layer on a core that are simulated apart; of more, neighbours are taken together."""
MAX_RUN_TILES, MIN_TILES = 200_000, 200
"""The same for a whole run: networks of hundreds of layers get fewer tiles a layer, but not fewer than `MIN_TILES`."""


class Known:
    """What the plans of one network share: the cores' parts of its layers, and the tilings of each. Layers that are
    equal but for their names, of which transformers have many, are cut once.
    """

    def __init__(self, layers: Sequence[LayerNeeds], config: HardwareConfig, images: int) -> None:
        self.layers, self.config, self.images = layers, config, images
        self.limit = min(MAX_TILES, max(MIN_TILES, MAX_RUN_TILES // (len(layers) * config.cores.count)))
        self._pinned = {pin.layer for pin in config.memory.tiling}
        self._parts: dict[tuple[object, ...], LayerNeeds | None] = {}
        self._cut: dict[tuple[object, ...], list[LayerTiling]] = {}
        self._tilings: dict[tuple[object, ...], list[list[LayerTiling]]] = {}
        self._coarse: dict[tuple[int, ...], tuple[LayerTiling, dict[str, Any]]] = {}

    def part(self, index: int, split: Split, part: int, parts: int) -> LayerNeeds | None:
        """Return part number `part` of a layer."""
        needs = self.layers[index]
        key = (*_kind(needs), split, part, parts)
        if key not in self._parts:
            self._parts[key] = share_of(needs, self.config, split, part, parts, self.images)
        return _renamed(self._parts[key], needs)

    def tilings(self, layers: list[LayerNeeds], ranking: int, *, fuse: bool) -> list[LayerTiling]:
        """Return one ranking's tilings of layers that follow one another on a core; without `fuse`, of one layer."""
        key = (fuse, *((needs.name, *_kind(needs)) for needs in layers))
        if key not in self._tilings:
            if fuse:
                self._tilings[key] = tile_network_variants(layers, self.config)
            else:
                self._tilings[key] = [[tiling] for tiling in self._alone(layers[0])]
        return self._tilings[key][ranking]

    def _alone(self, needs: LayerNeeds) -> list[LayerTiling]:
        """Return all rankings' tilings of a layer; equal ones are one object."""
        key = (needs.name if needs.name in self._pinned else None, *_kind(needs))
        if key not in self._cut:
            self._cut[key] = tile_layer_variants(needs, self.config)
        named = {id(tiling): replace(tiling, name=needs.name) for tiling in self._cut[key]}
        return [named[id(tiling)] for tiling in self._cut[key]]

    def coarse(self, tiling: LayerTiling) -> LayerTiling:
        """Return a tiling of at most `limit` entries."""
        size = -(-tiling.tiles // self.limit)
        if size <= 1:
            return tiling
        key = tuple(
            id(array) for array in (tiling.compute, tiling.weight_bits, tiling.activation_bits, tiling.store_bits)
        )
        if key not in self._coarse:
            self._coarse[key] = (tiling, coarse_arrays(tiling, size))  # with the tiling, whose arrays the key names
        return replace(tiling, **self._coarse[key][1])


def _kind(needs: LayerNeeds) -> tuple[object, ...]:
    """Return all that matters of a layer but names."""
    tensors = (*needs.inputs, needs.output, needs.weight)
    return (
        id(needs.plan),
        needs.vector_cycles,
        needs.vector_passes,
        needs.parameter_bits,
        needs.windows,
        needs.shared,
        needs.output_leaves,
        *(None if tensor is None else tensor.bits for tensor in tensors),
    )


def _renamed(share: LayerNeeds | None, needs: LayerNeeds) -> LayerNeeds | None:
    """Return a share of a layer that equals this one with the names of this one."""
    if share is None:
        return None
    return replace(
        share,
        name=needs.name,
        inputs=tuple(replace(mine, name=own.name) for mine, own in zip(share.inputs, needs.inputs, strict=True)),
        weight=None if share.weight is None or needs.weight is None else replace(share.weight, name=needs.weight.name),
        output=replace(share.output, name=needs.output.name),
    )
