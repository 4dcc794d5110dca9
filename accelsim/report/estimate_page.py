"""An estimate for the terminal: one row a layer, equal layers together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import IO

from rich.box import SIMPLE_HEAD
from rich.table import Table

from accelsim.report.estimates import EstimateReport, LayerEstimate
from accelsim.report.page import page_console, print_table

MAX_ROWS = 100


def print_estimate(report: EstimateReport, file: IO[str] | None = None) -> None:
    """Print an estimate; consecutive layers that are equal but for their names share a row."""
    console = page_console(file)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("layer", "B x M x K x N"):
        table.add_column(title, no_wrap=True)
    unit, size = ("relative", 1.0) if report.energy_unit == "relative" else ("mJ", 1e9)
    for title in ("times", "MACs", "cycles", "stalls", "util. %", "ms", unit, "DRAM MB"):
        table.add_column(title, justify="right", no_wrap=True)
    groups = list(_groups(report))
    for name, layers in groups[:MAX_ROWS]:
        _add(table, name, layers, size)
    table.add_section()
    _add(table, "total", list(report.layers), size, total=True)
    console.print(f"{report.config_name}: {report.network_name}, estimated; batch {report.batch}")
    print_table(console, table)
    if len(groups) > MAX_ROWS:
        console.print(f"{len(groups) - MAX_ROWS} more rows are in --json")
    for line in _sentences(report, unit, size):
        console.print(line)
    for note in report.assumptions:
        console.print(f"Model: {note}", style="dim")


def _sentences(report: EstimateReport, unit: str, size: float) -> Iterator[str]:
    seconds = report.latency_us * 1e-6
    what = f" for the batch of {report.batch}" if report.batch > 1 else ""
    power = "" if report.average_power_mw is None else f"; average power {report.average_power_mw:,.4g} mW"
    yield (
        f"{report.latency_us / 1e3:,.4g} ms and {report.total_energy_pj / size:,.4g} {unit}{what}; "
        f"{2 * report.macs / seconds / 1e9 if seconds else 0:,.4g} GOP/s{power}"
    )
    if report.energy_per_mac_pj is not None:
        rate = "" if report.tops_per_watt is None else f"; {report.tops_per_watt:,.3g} TOPS/W"
        product = (
            f"{report.energy_delay_pj_us:,.4g} relative µs"
            if report.energy_unit == "relative"
            else f"{report.energy_delay_pj_us * 1e-18:,.4g} J s"
        )
        name = "relative" if report.energy_unit == "relative" else "pJ"
        yield f"Per MAC: {report.energy_per_mac_pj:,.3g} {name}{rate}; energy-delay product {product}"
    causes: Counter[str] = Counter()
    for layer in report.layers:
        causes.update(layer.cycles.by_cause())
    yield f"Cycles: {_shares(causes, report.total_cycles)}"
    yield f"Energy: {_shares(report.energy_pj, report.total_energy_pj)}"


def _shares(parts: Mapping[str, float], total: float) -> str:
    """Return the parts as shares of their total, the largest first; none that is zero."""
    found = sorted(((name, part) for name, part in parts.items() if part), key=lambda item: -item[1])
    return ", ".join(f"{name} {100 * part / total:.1f} %" for name, part in found) or "none"


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


def _add(table: Table, name: str, layers: list[LayerEstimate], unit_pj: float, *, total: bool = False) -> None:
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
        f"{sum(layer.total_energy_pj for layer in layers) / unit_pj:,.3f}",
        f"{bits / 8e6:,.2f}",
    )
