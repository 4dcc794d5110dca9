"""The page's tables and sentences as plain values: what is shown, and what a column sorts by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from accelsim.report.activity_table import activity_columns, is_measured
from accelsim.report.findings import RegisterReport
from accelsim.report.sentences import overflow_sentence
from accelsim.report.units import area_node
from accelsim.report.values import LayerReport, RunReport


@dataclass(frozen=True)
class Cell:
    """What is printed, what the column sorts by, and whether a reader should worry."""

    text: str
    key: float | str
    alarm: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table that sorts by a click on a column's title. `numeric` says which columns are numbers."""

    title: str
    note: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    totals: tuple[str, ...]


def page_tables(report: RunReport) -> list[PageTable]:
    """Return the page's tables: layers, cycles, energy; and energy by what the data did, where that was measured."""
    tables = [_layers(report), _cycles(report), _energy(report)]
    return [*tables, _activity(report)] if is_measured(report) else tables


def cards(report: RunReport) -> list[tuple[str, str, str]]:
    """Return (value, what it is, remark) of the figures that come first."""
    totals = report.totals
    found = [
        (_si(totals.latency_per_inference_us * 1e-6, "s"), "latency an inference", f"{totals.total_cycles:,} cycles"),
        (_energy_of(totals.energy_per_inference_pj, report), "energy an inference", "modelled"),
        (f"{100 * totals.utilization:.1f} %", "utilization", "of the array's multipliers"),
        (f"{totals.macs / report.batch:,.0f}", "MACs an inference", f"batch of {report.batch}"),
    ]
    if totals.average_power_mw is not None:
        found.insert(2, (_si(totals.average_power_mw * 1e-3, "W"), "average power", "modelled"))
    if totals.tops_per_watt is not None and totals.energy_per_mac_pj is not None:  # a network may have no MAC
        remark = f"{totals.energy_per_mac_pj:,.3g} pJ a useful MAC, modelled"
        found.insert(3, (f"{totals.tops_per_watt:,.3g} TOPS/W", "efficiency", remark))
    accuracy = report.accuracy
    if accuracy is not None and accuracy.simulated_accuracy is not None:
        beside = "" if accuracy.float_accuracy is None else f"float {100 * accuracy.float_accuracy:.2f} %"
        found.append((f"{100 * accuracy.simulated_accuracy:.2f} %", f"accuracy, {accuracy.images} images", beside))
    overflows = totals.psum_overflows + totals.accumulator_overflows
    found.append((f"{overflows:,}", "overflows", "of psums and accumulators"))
    if totals.mismatches is not None:
        found.append((f"{totals.mismatches:,}", "mismatches", "against the codes that the trace expects"))
    if report.area_um2:
        found.append(
            (
                f"{math.fsum(report.area_um2.values()) / 1e6:,.2f} mm²",
                "area",
                f"modelled, SRAM included; {area_node(report.area_node_nm)}",
            )
        )
    return found


def overflow_story(report: RunReport) -> list[tuple[str, list[str], bool]]:
    """Return (layer, sentences, is it bad) for every layer that sums."""
    return [
        (layer.name, list(_story(layer)), bool(layer.overflow.psum.count or layer.overflow.accumulator.count))
        for layer in report.layers
        if layer.macs
    ]


def _story(layer: LayerReport) -> Iterator[str]:
    for name, register in (("psum", layer.overflow.psum), ("accumulator", layer.overflow.accumulator)):
        yield _register_sentence(name, register)
        if register.first is not None:
            yield f"First: {overflow_sentence(name, register, register.first)}."
    if layer.overflow.output_clamp:
        yield f"{layer.overflow.output_clamp:,} outputs were clamped to the range of {layer.output_format}."


def _register_sentence(name: str, register: RegisterReport) -> str:
    what = f"{name.capitalize()}s of {register.bits} bits ({register.policy})"
    if register.sufficient_bits is None:
        return f"{what}: float32, {register.count:,} sums beyond it."
    needed = f"{'' if register.exact else 'at most '}{register.sufficient_bits} bits are needed"
    if register.count:
        return f"{what}: {register.count:,} additions did not fit; {needed}."
    spare = register.bits - register.sufficient_bits
    return f"{what}: every sum fits; {needed}, {spare} to spare." if spare > 0 else f"{what}: every sum fits; {needed}."


def _layers(report: RunReport) -> PageTable:
    columns = (
        "layer",
        "operator",
        "B x M x K x N",
        "formats",
        "MACs",
        "cycles",
        "util. %",
        "latency, µs",
        f"energy, {_energy_unit(report)[1]}",
        "SQNR dB",
        "mism.",
    )
    rows = []
    for layer in report.layers:
        shape = layer.shape
        sizes = f"{shape.batch} x {shape.m:,} x {shape.k:,} x {shape.n:,}"
        sqnr = layer.sqnr_db
        rows.append(
            (
                Cell(layer.name, layer.name),
                Cell(layer.op, layer.op),
                Cell(sizes, float(shape.batch * shape.m * shape.k * shape.n)),
                Cell(f"{layer.input_format} · {layer.weight_format} → {layer.output_format}", layer.weight_format),
                Cell(f"{layer.macs:,}", layer.macs),
                Cell(f"{layer.total_cycles:,}", layer.total_cycles),
                Cell(f"{100 * layer.utilization:.1f}", layer.utilization),
                Cell(_number(layer.latency_us), layer.latency_us),
                Cell(_number(layer.total_energy_pj / _energy_unit(report)[0]), layer.total_energy_pj),
                Cell("-" if sqnr is None else f"{sqnr:.1f}", -math.inf if sqnr is None else sqnr),
                Cell(
                    "-" if layer.mismatches is None else f"{layer.mismatches:,}",
                    layer.mismatches or 0,
                    bool(layer.mismatches),
                ),
            )
        )
    totals = report.totals
    sums = (
        "total",
        "",
        "",
        "",
        f"{totals.macs:,}",
        f"{totals.total_cycles:,}",
        f"{100 * totals.utilization:.1f}",
        _number(totals.latency_us),
        _number(totals.total_energy_pj / _energy_unit(report)[0]),
        "",
        "-" if totals.mismatches is None else f"{totals.mismatches:,}",
    )
    numeric = (False, False, True, False, *(True,) * 7)
    note = f"The whole batch of {report.batch}; formats: input · weight → output."
    return PageTable("Layers", note, columns, numeric, tuple(rows), sums)


def _cycles(report: RunReport) -> PageTable:
    totals = report.totals.cycles.by_cause()
    causes = [cause for cause, cycles in totals.items() if cycles]
    rows = tuple(
        (
            Cell(layer.name, layer.name),
            *(Cell(f"{layer.cycles[cause]:,}", layer.cycles[cause]) for cause in causes),
            Cell(f"{layer.total_cycles:,}", layer.total_cycles),
        )
        for layer in report.layers
    )
    sums = ("total", *(f"{totals[cause]:,}" for cause in causes), f"{report.totals.total_cycles:,}")
    return PageTable(
        "Cycles by cause",
        "Cycles of the array clock; every cycle has one cause.",
        ("layer", *causes, "total"),
        (False, *(True,) * (len(causes) + 1)),
        rows,
        sums,
    )


def _energy(report: RunReport) -> PageTable:
    size, unit = _energy_unit(report)
    totals = report.totals.energy_pj
    components = [name for name, energy in totals.items() if energy]
    rows = tuple(
        (
            Cell(layer.name, layer.name),
            *(Cell(_number(layer.energy_pj[name] / size), layer.energy_pj[name]) for name in components),
            Cell(_number(layer.total_energy_pj / size), layer.total_energy_pj),
        )
        for layer in report.layers
    )
    sums = (
        "total",
        *(_number(totals[name] / size) for name in components),
        _number(report.totals.total_energy_pj / size),
    )
    return PageTable(
        "Energy by component",
        f"{unit}, modelled with the prices of {report.energy_table}.",
        ("layer", *components, "total"),
        (False, *(True,) * (len(components) + 1)),
        rows,
        sums,
    )


def _activity(report: RunReport) -> PageTable:
    size, unit = _energy_unit(report)
    columns = activity_columns(report, size, _number)

    def cell(text: str) -> Cell:
        number = text.replace(",", "")
        return Cell(text, float(number) if number not in ("", "-") else -math.inf)

    return PageTable(
        "Energy by what the data did",
        f"{unit}, modelled: priced by operation, and by the zeros and toggles that were measured in this run.",
        ("layer", *(column.title.replace("\n", " ") for column in columns)),
        (False, *(True,) * len(columns)),
        tuple(
            (Cell(layer.name, layer.name), *(cell(column.cell(layer)) for column in columns)) for layer in report.layers
        ),
        ("total", *(column.total(report.totals) for column in columns)),
    )


def _number(value: float) -> str:
    """Return a number with three significant digits or more."""
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}"


def _energy_unit(report: RunReport) -> tuple[float, str]:
    """Return (how many of the report's units the page's unit has, its name)."""
    return (1.0, "relative") if report.energy_unit == "relative" else (1e3, "nJ")


def _energy_of(energy_pj: float, report: RunReport) -> str:
    """Return an energy in words; relative ones have no unit but that word."""
    return f"{energy_pj:,.4g} relative" if report.energy_unit == "relative" else _si(energy_pj * 1e-12, "J")


def _si(value: float, unit: str) -> str:
    """Return an amount with the prefix that suits it, e.g. 0.00123 s as "1.23 ms"."""
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")):
        if value >= factor:
            return f"{value / factor:,.3g} {prefix}{unit}" if value < 1000 * factor else f"{value / factor:,.0f} {unit}"
    return f"{value / 1e-12:,.3g} p{unit}"
