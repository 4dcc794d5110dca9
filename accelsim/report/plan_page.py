"""How a network's layers are cut into tiles, for `accelsim plan`: a table, and one JSON document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from accelsim.config.model import HardwareConfig
from accelsim.memory.contract import LayerNeeds
from accelsim.memory.network import Share
from accelsim.memory.tiling import lower_bound_bits
from accelsim.report.page import page_console, print_table

PLAN_SCHEMA = "accelsim-plan"
BUFFERS = ("weight", "activation", "output", "accumulator")
SUMMED = ("tiles", "weight_bits", "activation_bits", "store_bits", "spill_bits", "refill_bits", "dram_read_bits",
          "dram_write_bits", "saved_bits")  # fmt: skip


def plan_document(
    config: HardwareConfig,
    network: str,
    layers: Sequence[LayerNeeds],
    shares: Sequence[Sequence[Share]],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return all of a plan as plain values; sizes in bits, tiles in elements of the GEMM.

    shares : by layer, what each core does (layer-pipelined cores: of each piece of the batch). A layer's counts are the
        sums over its shares; its tile and loops are there where all shares have the same
    """
    rows = [_layer(needs, of_layer) for needs, of_layer in zip(layers, shares, strict=True)]
    summed = ("tiles", "dram_read_bits", "dram_write_bits", "lower_bound_bits", "saved_bits", "spill_bits")
    return {
        "schema": PLAN_SCHEMA,
        "version": 2,
        "config": config.name,
        "config_digest": config.digest,
        "network": network,
        "objective": config.memory.objective,
        "passes": config.memory.passes,
        "fuse_layers": config.memory.fuse_layers,
        "cores": {"count": config.cores.count, "split": config.cores.split},
        "buffer_bits": {name: 8 * getattr(config.buffers, name).size_bytes for name in BUFFERS},
        "layers": rows,
        "total": {key: sum(row[key] for row in rows) for key in summed},
        "notes": list(notes),
    }


def _layer(needs: LayerNeeds, shares: Sequence[Share]) -> dict[str, Any]:
    parts = [_share(share) for share in shares]
    same = {key: parts[0][key] for key in ("tile", "order", "entries", "on_chip_inputs", "output_on_chip")
            if all(part[key] == parts[0][key] for part in parts)}  # fmt: skip
    return {
        "name": needs.name,
        "gemm": _gemm(needs),
        "tile": None,
        "order": None,
        "entries": None,
        "on_chip_inputs": None,
        "output_on_chip": None,
        **same,
        **{key: sum(part[key] for part in parts) for key in SUMMED},
        "lower_bound_bits": lower_bound_bits(needs),
        "shares": parts,
    }


def _gemm(needs: LayerNeeds) -> dict[str, int] | None:
    shape = None if needs.plan is None else needs.plan.shape
    return None if shape is None else {"b": shape.batch, "m": shape.m, "k": shape.k, "n": shape.n}


def _share(share: Share) -> dict[str, Any]:
    needs, tiling = share.needs, share.tiling
    sizes = {"b": tiling.tile_b, "m": tiling.tile_m, "k": tiling.tile_k, "n": tiling.tile_n}
    return {
        "core": share.core,
        "gemm": _gemm(needs),
        "tile": None if needs.plan is None else sizes,
        "order": tiling.order,
        "tiles": tiling.tile_count,
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


def print_plan(document: dict[str, Any], file: IO[str] | None = None) -> None:
    """Print a plan (:func:`plan_document`) to `file` (default: standard output)."""
    console = page_console(file)
    fused = ", outputs stay on chip where that helps" if document["fuse_layers"] else ""
    cores = document["cores"]
    split = f", {cores['count']} cores, split by {cores['split']}" if cores["count"] > 1 else ""
    console.print(f"{document['config']}: {document['network']}", markup=False)
    console.print(f"objective {document['objective']}, passes {document['passes']}{fused}{split}", markup=False)
    _tiles(console, document)
    _buffers(console, document)
    for row in document["layers"]:
        for name, share in _groups(document, row):
            console.print(f"{row['name']}{name and f', {name}'}: {share['explanation']}.", markup=False)
    for note in document["notes"]:
        console.print(f"{note}.", markup=False)
    total = document["total"]
    moved = total["dram_read_bits"] + total["dram_write_bits"]
    console.print(
        f"Total: {_bytes(moved)} bytes cross DRAM in {total['tiles']:,} tiles; each tensor once would be "
        f"{_bytes(total['lower_bound_bits'])}"
        + (f", and {_bytes(total['saved_bits'])} of these stay on chip." if total["saved_bits"] else "."),
        markup=False,
    )


def _groups(document: dict[str, Any], row: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return a layer's different shares, each once, with the cores that have such a one; one core needs no name."""
    if document["cores"]["count"] == 1:
        yield "", row["shares"][0]
        return
    cores: list[list[int]] = []
    kinds: list[dict[str, Any]] = []
    for share in row["shares"]:
        kind = {key: value for key, value in share.items() if key != "core"}
        if kind not in kinds:
            kinds.append(kind)
            cores.append([])
        cores[kinds.index(kind)].append(share["core"])
    for mine, kind in zip(cores, kinds, strict=True):
        different = sorted(set(mine))
        pieces = "" if len(mine) == len(different) else f", {len(mine) // len(different)} pieces"
        name = f"core{'s' if len(different) > 1 else ''} {', '.join(map(str, different))}{pieces}"
        yield name, kind


def _tiles(console: Console, document: dict[str, Any]) -> None:
    console.print("\nTiles (of Y[m, n] = X[m, k] W[k, n], b of them) and DRAM traffic in bytes", markup=False)
    several = document["cores"]["count"] > 1
    if several:
        console.print("Of a layer the sums over its cores; below it what each of the named cores does", markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for heading in ("BxMxKxN", "tile", "loops", "tiles", "read", "written", "once each"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in document["layers"]:
        table.add_row(row["name"], *_cells(row, several))
        for name, share in _groups(document, row) if several else ():
            table.add_row(f"  {name}", *_cells(share, False))
    total = document["total"]
    table.add_section()
    counts = (total["dram_read_bits"], total["dram_write_bits"], total["lower_bound_bits"])
    table.add_row("total", "", "", "", f"{total['tiles']:,}", *map(_bytes, counts))
    print_table(console, table)


def _cells(row: dict[str, Any], several: bool) -> tuple[str, ...]:
    """Return a line of the table of tiles. several : cores share the layer, so that its tiles are below"""
    return (
        _sizes(row["gemm"]),
        "" if several else _sizes(row["tile"]),
        "" if several else row["order"] or "-",
        f"{row['tiles']:,}",
        _bytes(row["dram_read_bits"]),
        _bytes(row["dram_write_bits"]),
        _bytes(row["lower_bound_bits"]),
    )


def _buffers(console: Console, document: dict[str, Any]) -> None:
    each = " of a core's" if document["cores"]["count"] > 1 else ""
    console.print(f"Buffers: the most that each{each} holds at once, of its capacity")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for name in BUFFERS:
        table.add_column(f"{name}\n{_bytes(document['buffer_bits'][name])} bytes", justify="right", no_wrap=True)
    for row in document["layers"]:
        most = {name: max(share["buffer_bits"][name] for share in row["shares"]) for name in BUFFERS}
        shares = (most[name] / document["buffer_bits"][name] for name in BUFFERS)
        table.add_row(row["name"], *(f"{share:.0%}" if share == 0 or share >= 0.01 else "<1%" for share in shares))
    print_table(console, table)


def _sizes(gemm: dict[str, int] | None) -> str:
    return "-" if gemm is None else "x".join(str(gemm[dim]) for dim in "bmkn")


def _bytes(bits: int) -> str:
    return f"{-(-bits // 8):,}"
