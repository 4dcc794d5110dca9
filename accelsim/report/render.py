"""A report for the terminal: narrow tables (layers, time, energy, numbers), then what a reader should know besides."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from io import StringIO
from typing import IO

from rich.console import Console

from accelsim.energy.account import COMPONENTS
from accelsim.report.activity_table import activity_columns, is_measured
from accelsim.report.findings import RegisterReport
from accelsim.report.page import Column, Page
from accelsim.report.sentences import network, summary, warnings
from accelsim.report.units import UNITS_US, amount, count_or_dash, decibel, energy_units, unit_for
from accelsim.report.values import LayerReport, RunReport, Totals

_TITLES = {
    "mac": "MAC",
    "register": "registers",
    "accumulator": "accum.",
    "scale_unit": "scales",
    "decoder": "decoders",
    "ppu": "PPU",
    "vector": "vector",
    "buffer": "buffers",
    "dram": "DRAM",
    "control": "control",
    "leakage": "leakage",
}
_CAUSES = {"ppu": "PPU", "dram": "DRAM", "dma": "DMA"}
NARROWEST = 40  # columns
SHORT_FORMATS = 24  # characters of three format names that fit beside the other columns


def print_report(report: RunReport, file: IO[str] | None = None) -> None:
    """Print `report` on `file` (default: stdout), as wide as the terminal.

    Where it is no terminal: without blanks at the ends of lines, as wide as COLUMNS says, or 100 columns.
    """
    console = Console(file=file)
    if console.is_terminal:
        render(report, console)
        return
    columns = os.environ.get("COLUMNS", "")
    console = Console(file=file, width=max(NARROWEST, int(columns)) if columns.isdecimal() else 100)
    with console.capture() as captured:
        render(report, console)
    console.file.write(_without_trailing_blanks(captured.get()))


def render_text(report: RunReport, width: int = 100, *, color: bool = False) -> str:
    """Return the tables as text of at most `width` columns; with `color`, with ANSI codes."""
    file = StringIO()
    render(report, Console(file=file, width=width, force_terminal=color, color_system="standard" if color else None))
    return _without_trailing_blanks(file.getvalue())


def _without_trailing_blanks(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def render(report: RunReport, console: Console) -> None:
    """Print `report` on a rich console; readable from 80 columns. What the console's encoding lacks is spelled out."""
    page = Page(console)
    totals = report.totals
    page.line(f"{report.config_name}: {report.trace_name}", "bold")
    page.line(
        f"engine {report.engine}, {report.clock_mhz:g} MHz, energy table {report.energy_table}, "
        f"batch {report.batch}, config {report.config_digest}, trace {report.trace_digest}"
    )
    page.line()
    _layers_table(report, totals, page)
    _time_table(report, totals, page)
    _energy_table(report, totals, page)
    if is_measured(report):
        unit, size = unit_for([totals.total_energy_pj], energy_units(report.energy_unit))
        columns = activity_columns(report, size, amount)
        page.table(
            f"Energy by data, in {unit} (zero operands gated, registers by the bits that change)",
            columns,
            report.layers,
            totals,
        )
    _numbers_table(report, totals, page)
    for sentence, style in [*summary(report, totals), *network(report), *warnings(report)]:
        page.line(sentence, style)
    for assumption in report.assumptions:
        page.line(f"Model: {assumption}", "dim")


# -- the tables -------------------------------------------------------------------------------------------------------


def _no_total(_: Totals) -> str:
    return ""


def _layers_table(report: RunReport, totals: Totals, page: Page) -> None:
    columns = [
        Column("operator", lambda layer: layer.op, _no_total, justify="left"),
        Column("BxMxKxN", _sizes, _no_total),
        Column("MACs", lambda layer: f"{layer.macs:,}", lambda t: f"{t.macs:,}"),
        Column("input, weight, output", _formats, _no_total, justify="left"),
    ]
    title = "Layers (the matrix products as they ran, B of [M, K] times [K, N]; formats)"
    page.table(title, columns, report.layers, totals)


def _sizes(layer: LayerReport) -> str:
    shape = layer.shape
    return "x".join(str(size) for size in (shape.batch, shape.m, shape.k, shape.n))


def _formats(layer: LayerReport) -> str:
    """Return the three formats side by side; below one another where their names are long."""
    names = (layer.input_format, layer.weight_format, layer.output_format)
    return (" " if sum(map(len, names)) <= SHORT_FORMATS else "\n").join(names)


def _time_table(report: RunReport, totals: Totals, page: Page) -> None:
    unit, size = unit_for([totals.latency_us], UNITS_US)
    columns = [
        Column(
            _CAUSES.get(cause, cause),
            lambda layer, cause=cause: f"{layer.cycles[cause]:,}",  # type: ignore[misc]
            lambda t, cause=cause: f"{t.cycles[cause]:,}",  # type: ignore[misc]
        )
        for cause, cycles in totals.cycles.by_cause().items()
        if cycles or cause in ("load", "fill", "compute", "drain", "ppu")  # of the others only what occurs
    ]
    columns += [
        Column("cycles", lambda layer: f"{layer.total_cycles:,}", lambda t: f"{t.total_cycles:,}"),
        Column("util. %", lambda layer: f"{100 * layer.utilization:.1f}", lambda t: f"{100 * t.utilization:.1f}"),
        Column(unit, lambda layer: amount(layer.latency_us / size), lambda t: amount(t.latency_us / size)),
    ]
    page.table(f"Time (cycles by cause; latency in {unit})", columns, report.layers, totals)


def _energy_table(report: RunReport, totals: Totals, page: Page) -> None:
    unit, size = unit_for([totals.total_energy_pj], energy_units(report.energy_unit))
    shown = [name for name in COMPONENTS if totals.energy_pj[name]]
    columns = [
        Column(
            _TITLES[name],
            lambda layer, name=name: amount(layer.energy_pj[name] / size),  # type: ignore[misc]
            lambda t, name=name: amount(t.energy_pj[name] / size),  # type: ignore[misc]
        )
        for name in shown
    ]
    columns.append(
        Column("total", lambda layer: amount(layer.total_energy_pj / size), lambda t: amount(t.total_energy_pj / size))
    )
    page.table(f"Energy in {unit} ({report.energy_table})", columns, report.layers, totals)
    absent = [_TITLES[name] for name in COMPONENTS if name not in shown]
    if absent:
        page.line(f"Zero in every layer: {', '.join(absent)}.", "dim")
        page.line()


def _numbers_table(report: RunReport, totals: Totals, page: Page) -> None:
    layers = report.layers
    columns = [
        *_register_columns("psum", layers, lambda layer: layer.overflow.psum, lambda t: t.psum_overflows),
        *_register_columns(
            "accum.", layers, lambda layer: layer.overflow.accumulator, lambda t: t.accumulator_overflows
        ),
        Column(
            "clamped\noutputs", lambda layer: f"{layer.overflow.output_clamp:,}", lambda t: f"{t.clamped_outputs:,}"
        ),
        Column(
            "mis-\nmatches",
            lambda layer: count_or_dash(layer.mismatches),
            lambda t: count_or_dash(t.mismatches),
            _wrong_codes,
        ),
    ]
    if totals.verified is not None:
        columns.append(
            Column(
                "oracle\nmism.",
                lambda layer: count_or_dash(layer.verified),
                lambda t: count_or_dash(t.verified),
                _wrong_values,
            )
        )
    columns.append(Column("SQNR\ndB", lambda layer: decibel(layer.sqnr_db), _no_total))
    if any(layer.fake_quant is not None for layer in layers):
        columns.append(Column("fake q.\nsteps", _fake_steps, _no_total))
    page.table("Numbers (register bits: needed/there)", columns, layers, totals)
    if totals.psum_overflows or totals.accumulator_overflows:
        page.line("Needed bits: where the registers upstream had unlimited width too.", "dim")
        page.line()


def _register_columns(
    name: str,
    layers: Sequence[LayerReport],
    register: Callable[[LayerReport], RegisterReport],
    total: Callable[[Totals], int],
) -> list[Column]:
    """Return the columns of one kind of register: its overflows, and its width."""
    neediest = max(map(register, layers), key=lambda each: each.sufficient_bits or each.bits, default=None)
    return [
        Column(
            f"{name}\nover.",
            lambda layer: f"{register(layer).count:,}",
            lambda t: f"{total(t):,}",
            lambda layer: _alarm(register(layer).count),
        ),
        Column(
            f"{name}\nbits", lambda layer: _bits(register(layer)), lambda _: "" if neediest is None else _bits(neediest)
        ),
    ]


def _wrong_codes(layer: LayerReport) -> str:
    return _alarm(layer.mismatches)


def _wrong_values(layer: LayerReport) -> str:
    return _alarm(layer.verified)


def _alarm(count: int | None) -> str:
    return "bold red" if count else ""


# -- cells ------------------------------------------------------------------------------------------------------------


def _fake_steps(layer: LayerReport) -> str:
    return "-" if layer.fake_quant is None else f"{layer.fake_quant.max_steps:.2f}"


def _bits(register: RegisterReport) -> str:
    if register.sufficient_bits is None:
        return "float32"
    return f"{'' if register.exact else '<='}{register.sufficient_bits}/{register.bits}"
