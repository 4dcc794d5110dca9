"""Neighbouring tiles taken together, where a layer has more than one cares to keep apart."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from accelsim.memory.contract import LayerTiling

SUMMED = ("load", "fill", "compute", "drain", "ppu", "post", "vector", "weight_bits", "activation_bits", "store_bits",
          "spill_bits", "refill_bits")  # fmt: skip


def coarse(tiling: LayerTiling, limit: int) -> LayerTiling:
    """Return a tiling of at most `limit` entries: what neighbours move and take adds up.

    >>> import accelsim
    >>> from accelsim.memory.needs import network_needs
    >>> from accelsim.memory.tiling import tile_layer
    >>> config = accelsim.load_config("configs/int8_os.yaml")
    >>> conv = network_needs(accelsim.load_trace("traces/digits_cnn_int8.npz"), config)[1]
    >>> fine = tile_layer(conv, config)
    >>> few = coarse(fine, 3)
    >>> few.tiles <= 3 < fine.tiles == few.tile_count, few.dram_read_bits == fine.dram_read_bits
    (True, True)
    """
    size = -(-tiling.tiles // limit)
    return tiling if size <= 1 else replace(tiling, **coarse_arrays(tiling, size))


def coarse_arrays(tiling: LayerTiling, size: int) -> dict[str, Any]:
    """Return the arrays of a tiling by name, with `size` neighbours to an entry."""
    starts = np.arange(0, tiling.tiles, size)
    arrays = {name: np.add.reduceat(getattr(tiling, name), starts) for name in SUMMED}
    held = [field.name for field in fields(tiling) if field.name.endswith("_resident_bits")]
    return arrays | {name: np.maximum.reduceat(getattr(tiling, name), starts) for name in held}
