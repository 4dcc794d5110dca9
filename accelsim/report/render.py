"""A report for the terminal: narrow tables (layers, time, energy, numbers), then what a reader should know besides."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from typing import IO

from rich.console import Console

from accelsim.energy.account import COMPONENTS
from accelsim.report.activity_table import activity_columns, is_measured
from accelsim.report.findings import OverflowPlace, RegisterReport
from accelsim.report.page import Column, Page
from accelsim.report.timing import TimelineSummary
from accelsim.report.units import UNITS_US, amount, area_node, count_or_dash, decibel, energy_units, unit_for
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
    for sentence, style in [*_summary(report, totals), *_network(report), *_warnings(report)]:
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


def _energy_delay(report: RunReport, totals: Totals) -> str:
    """Return the product of energy and latency of one inference in words."""
    if report.energy_unit == "relative":
        return f"energy-delay product {totals.energy_delay_pj_us:,.4g} relative µs"
    return f"energy-delay product {totals.energy_delay_pj_us * 1e-18:,.4g} J s"


def _fake_steps(layer: LayerReport) -> str:
    return "-" if layer.fake_quant is None else f"{layer.fake_quant.max_steps:.2f}"


def _bits(register: RegisterReport) -> str:
    if register.sufficient_bits is None:
        return "float32"
    return f"{'' if register.exact else '<='}{register.sufficient_bits}/{register.bits}"


# -- sentences --------------------------------------------------------------------------------------------------------


def _summary(report: RunReport, totals: Totals) -> Iterable[tuple[str, str]]:
    energy, latency = totals.energy_per_inference_pj, totals.latency_per_inference_us
    energy_unit, energy_size = unit_for([energy], energy_units(report.energy_unit))
    time_unit, time_size = unit_for([latency], UNITS_US)
    power = "" if totals.average_power_mw is None else f"; average power {totals.average_power_mw:,.2f} mW"
    yield (
        f"Per inference (batch of {report.batch}): {latency / time_size:,.2f} {time_unit}, "
        f"{energy / energy_size:,.2f} {energy_unit}{power}.",
        "",
    )
    if totals.energy_per_mac_pj is not None:
        rate = "" if totals.tops_per_watt is None else f"; {totals.tops_per_watt:,.3g} TOPS/W"
        unit = "relative" if report.energy_unit == "relative" else "pJ"
        yield f"Per MAC: {totals.energy_per_mac_pj:,.3g} {unit}{rate}; {_energy_delay(report, totals)}.", ""
    if leakage := totals.energy_pj["leakage"]:
        unit, size = unit_for([leakage], energy_units(report.energy_unit))
        yield (
            f"Leakage: {leakage / size:,.2f} {unit}, {100 * report.waiting_share:.1f} % of it while neither arrays nor "
            f"vector units work.",
            "",
        )
    if report.timeline is not None:
        yield _in_time(report.timeline), ""
    if report.area_um2:
        logic = {name: um2 for name, um2 in report.area_um2.items() if name != "buffer"}
        total = math.fsum(logic.values())
        largest = sorted(logic.items(), key=lambda item: -item[1])[:3]
        shares = ", ".join(f"{name} {100 * um2 / total:.0f} %" for name, um2 in largest if um2)
        sram = f"; SRAM buffers {report.area_um2['buffer'] / 1e6:,.3f} mm2" if "buffer" in report.area_um2 else ""
        yield f"Area of the logic ({area_node(report.area_node_nm)}): {total / 1e6:,.3f} mm2 ({shares}){sram}.", ""
    if report.accuracy is not None:
        accuracy = report.accuracy
        parts = [
            f"{name} {100 * value:.2f} %"
            for name, value in (("float", accuracy.float_accuracy), ("simulated", accuracy.simulated_accuracy))
            if value is not None
        ]
        if accuracy.difference is not None:
            parts.append(f"difference {100 * accuracy.difference:+.2f} points")
        if accuracy.agreement is not None:
            parts.append(f"same prediction {100 * accuracy.agreement:.2f} %")
        yield f"Accuracy on {accuracy.images} images: {', '.join(parts) or 'not known (no labels)'}.", "bold"


def _in_time(timeline: TimelineSummary) -> str:
    """Return in words what DRAM and cores did."""
    moved = (timeline.dram_read_bits + timeline.dram_write_bits) / 8
    text = (
        f"DRAM: {moved:,.0f} bytes in {timeline.transfers:,} transfers, {timeline.bytes_per_cycle:,.2f} bytes a cycle"
    )
    if timeline.peak_bytes_per_cycle is not None:
        text += f" of {timeline.peak_bytes_per_cycle:,.2f}; busy {100 * timeline.dram_utilization:.1f} % of the time"
    if timeline.saved_bits:
        text += f"; {timeline.saved_bits / 8:,.0f} bytes saved by outputs that stay on chip"
    if len(timeline.cores) > 1:
        waits = ", ".join(f"{100 * (core.dram + core.dma + core.buffer + core.sync) / core.total:.0f}" for core in
                          timeline.cores if core.total)  # fmt: skip
        text += f". {len(timeline.cores)} cores, balance {timeline.balance:.2f}, waiting {waits} % of the time"
    return text + "."


def _network(report: RunReport) -> Iterable[tuple[str, str]]:
    if report.network is not None:
        network = report.network
        yield (
            f"Network output against float: SQNR {decibel(network.sqnr_db)} dB, MSE {network.mse:.3g}, largest "
            f"error {network.max_error:.3g}, cosine {network.cosine:.6f}.",
            "",
        )


def _warnings(report: RunReport) -> Iterable[tuple[str, str]]:
    overruled = [layer for layer in report.layers if layer.rounding != layer.rounding_requested]
    if overruled:
        rules = f"{overruled[0].rounding}, the trace asks for {overruled[0].rounding_requested}"
        yield (
            f"The configuration rounds {rules}: codes that differ from the expected ones are to be expected.",
            "yellow",
        )
    for layer in report.layers:
        for name, register in (("psum", layer.overflow.psum), ("accumulator", layer.overflow.accumulator)):
            if register.first is not None:
                yield f"First overflow: {overflow_sentence(name, register, register.first)}", "red"
    for layer in report.layers:
        for count, other in ((layer.mismatches, "the trace expects"), (layer.verified, "the integer oracle gives")):
            if count:
                yield f"Layer {layer.name}: {count:,} output codes are not what {other}.", "red"


def overflow_sentence(name: str, register: RegisterReport, first: OverflowPlace) -> str:
    """Return in words where a register first overflowed: "layer conv2: psum overflow at output [3, 0], k=36 ..."."""
    where = "bias preload" if first.k < 0 else f"k={first.k}"
    place = f"layer {first.layer}: {name} overflow at output {list(first.index)}, {where}"
    earliest = "" if register.earliest_cycle is None else f"; the earliest is in cycle {register.earliest_cycle:,}"
    if register.sufficient_bits is None:
        return f"{place}: {first.value:g} is beyond float32 (saturates)"
    return (
        f"{place}: {first.value} does not fit {register.bits} bits ({register.policy}); "
        f"{register.sufficient_bits} bits would have held every value{earliest}"
    )
