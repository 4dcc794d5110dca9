"""An estimate for the terminal: one row a layer, equal layers together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from typing import IO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from accelsim.report.estimates import EstimateReport, LayerEstimate

MAX_ROWS = 100


def print_estimate(report: EstimateReport, file: IO[str] | None = None) -> None:
    """Print an estimate; consecutive layers that are equal but for their names share a row."""
    console = Console(file=file or sys.stdout, highlight=False)
    if not console.is_terminal:
        console = Console(file=file or sys.stdout, highlight=False, width=140)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("layer", "B x M x K x N"):
        table.add_column(title, no_wrap=True)
    for title in ("times", "MACs", "cycles", "stalls", "util. %", "ms", "mJ", "DRAM MB"):
        table.add_column(title, justify="right", no_wrap=True)
    groups = list(_groups(report))
    for name, layers in groups[:MAX_ROWS]:
        _add(table, name, layers)
    table.add_section()
    _add(table, "total", list(report.layers), total=True)
    console.print(f"{report.config_name}: {report.network_name}, estimated; batch {report.batch}")
    console.print(table)
    if len(groups) > MAX_ROWS:
        console.print(f"{len(groups) - MAX_ROWS} more rows are in --json")
    seconds = report.latency_us * 1e-6
    console.print(
        f"{report.latency_us / 1e3:,.4g} ms and {report.total_energy_pj * 1e-9:,.4g} mJ for the batch of "
        f"{report.batch}; {2 * report.macs / seconds / 1e9 if seconds else 0:,.4g} GOP/s"
    )
    for note in report.assumptions:
        console.print(f"Model: {note}", style="dim")


def _groups(report: EstimateReport) -> Iterator[tuple[str, list[LayerEstimate]]]:
    """Yield (name, equal layers that belong together): "q.0" to "q.31" are one row."""

    def kind(layer: LayerEstimate) -> tuple[object, ...]:
        stem, _, number = layer.name.rpartition(".")
        return (
            stem if stem and number.isdigit() else layer.name,
            *(layer.shape, layer.cycles, layer.total_energy_pj, layer.dram_read_bits),
        )

    for found, layers in groupby(report.layers, kind):
        yield str(found[0]), list(layers)


def _add(table: Table, name: str, layers: list[LayerEstimate], *, total: bool = False) -> None:
    cycles = sum(layer.total_cycles for layer in layers)
    waiting = sum(layer.cycles[cause] for layer in layers for cause in ("dram", "dma", "buffer", "sync"))
    shape = layers[0].shape
    possible = sum(layer.peak_macs_per_cycle * layer.core_cycles for layer in layers)
    macs = sum(layer.macs for layer in layers)
    bits = sum(layer.dram_read_bits + layer.dram_write_bits for layer in layers)
    table.add_row(
        name,
        "" if total else f"{shape.batch:,} x {shape.m:,} x {shape.k:,} x {shape.n:,}",
        f"{len(layers):,}",
        f"{macs:,}",
        f"{cycles:,}",
        f"{waiting:,}",
        f"{100 * macs / possible if possible else 0:.1f}",
        f"{sum(layer.latency_us for layer in layers) / 1e3:,.3f}",
        f"{sum(layer.total_energy_pj for layer in layers) * 1e-9:,.3f}",
        f"{bits / 8e6:,.2f}",
    )
