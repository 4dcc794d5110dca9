"""How a network's layers are cut into tiles, for `accelsim plan`: a table, and one JSON document."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from accelsim.config.model import HardwareConfig
from accelsim.memory.contract import LayerNeeds, LayerTiling

PLAN_SCHEMA = "accelsim-plan"
BUFFERS = ("weight", "activation", "output", "accumulator")


def plan_document(
    config: HardwareConfig, network: str, layers: Sequence[LayerNeeds], tilings: Sequence[LayerTiling]
) -> dict[str, Any]:
    """Return all of a plan as plain values; sizes in bits, tiles in elements of the GEMM."""
    rows = [_document(needs, tiling) for needs, tiling in zip(layers, tilings, strict=True)]
    summed = ("tiles", "dram_read_bits", "dram_write_bits", "lower_bound_bits", "saved_bits", "spill_bits")
    return {
        "schema": PLAN_SCHEMA,
        "version": 1,
        "config": config.name,
        "config_digest": config.digest,
        "network": network,
        "objective": config.memory.objective,
        "passes": config.memory.passes,
        "fuse_layers": config.memory.fuse_layers,
        "buffer_bits": {name: 8 * getattr(config.buffers, name).size_bytes for name in BUFFERS},
        "layers": rows,
        "total": {key: sum(row[key] for row in rows) for key in summed},
    }


def _document(needs: LayerNeeds, tiling: LayerTiling) -> dict[str, Any]:
    shape = None if needs.plan is None else needs.plan.shape
    return {
        "name": tiling.name,
        "gemm": None if shape is None else {"b": shape.batch, "m": shape.m, "k": shape.k, "n": shape.n},
        "tile": None
        if shape is None
        else {"b": tiling.tile_b, "m": tiling.tile_m, "k": tiling.tile_k, "n": tiling.tile_n},
        "order": tiling.order,
        "tiles": tiling.tiles,
        "entries": tiling.entries,
        "weight_bits": int(tiling.weight_bits.sum()),
        "activation_bits": int(tiling.activation_bits.sum()),
        "store_bits": int(tiling.store_bits.sum()),
        "spill_bits": int(tiling.spill_bits.sum()),
        "refill_bits": int(tiling.refill_bits.sum()),
        "dram_read_bits": tiling.dram_read_bits,
        "dram_write_bits": tiling.dram_write_bits,
        "lower_bound_bits": tiling.lower_bound_bits,
        "saved_bits": tiling.saved_bits,
        "on_chip_inputs": list(tiling.on_chip_inputs),
        "output_on_chip": tiling.output_on_chip,
        "buffer_bits": dict(zip(BUFFERS, tiling.buffer_bits, strict=True)),
        "explanation": tiling.explanation,
    }


def print_plan(
    config: HardwareConfig,
    network: str,
    layers: Sequence[LayerNeeds],
    tilings: Sequence[LayerTiling],
    file: IO[str] | None = None,
) -> None:
    """Print a plan to `file` (default: standard output)."""
    console = Console(file=file or sys.stdout, highlight=False)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdecimal():
        console.width = 100
    memory, document = config.memory, plan_document(config, network, layers, tilings)
    fused = ", outputs stay on chip where that helps" if memory.fuse_layers else ""
    console.print(f"{config.name}: {network}", markup=False)
    console.print(f"objective {memory.objective}, passes {memory.passes}{fused}", markup=False)
    _tiles(console, document)
    _buffers(console, document)
    for row in document["layers"]:
        console.print(f"{row['name']}: {row['explanation']}.", markup=False, soft_wrap=False)
    total = document["total"]
    moved = total["dram_read_bits"] + total["dram_write_bits"]
    console.print(
        f"Total: {_bytes(moved)} bytes cross DRAM in {total['tiles']:,} tiles; each tensor once would be "
        f"{_bytes(total['lower_bound_bits'])}"
        + (f", and {_bytes(total['saved_bits'])} of these stay on chip." if total["saved_bits"] else "."),
        markup=False,
    )


def _tiles(console: Console, document: dict[str, Any]) -> None:
    console.print("\nTiles (of Y[m, n] = X[m, k] W[k, n], b of them) and DRAM traffic in bytes", markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for heading in ("BxMxKxN", "tile", "loops", "tiles", "read", "written", "once each"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in document["layers"]:
        table.add_row(
            row["name"],
            _sizes(row["gemm"]),
            _sizes(row["tile"]),
            row["order"] or "-",
            f"{row['tiles']:,}",
            _bytes(row["dram_read_bits"]),
            _bytes(row["dram_write_bits"]),
            _bytes(row["lower_bound_bits"]),
        )
    total = document["total"]
    table.add_section()
    counts = (total["dram_read_bits"], total["dram_write_bits"], total["lower_bound_bits"])
    table.add_row("total", "", "", "", f"{total['tiles']:,}", *map(_bytes, counts))
    console.print(table)


def _buffers(console: Console, document: dict[str, Any]) -> None:
    console.print("Buffers: the most that each holds at once, of its capacity")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for name in BUFFERS:
        table.add_column(f"{name}\n{_bytes(document['buffer_bits'][name])} bytes", justify="right", no_wrap=True)
    for row in document["layers"]:
        shares = (row["buffer_bits"][name] / document["buffer_bits"][name] for name in BUFFERS)
        table.add_row(row["name"], *(f"{share:.0%}" if share == 0 or share >= 0.01 else "<1%" for share in shares))
    console.print(table)


def _sizes(gemm: dict[str, int] | None) -> str:
    return "-" if gemm is None else "x".join(str(gemm[dim]) for dim in "bmkn")


def _bytes(bits: int) -> str:
    return f"{-(-bits // 8):,}"
