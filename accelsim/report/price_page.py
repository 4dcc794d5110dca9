"""An energy table for the terminal and as JSON: curves over bit-width and capacity, then what has no width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from accelsim.energy.curves import Curve, price_curves
from accelsim.energy.operations import OPERATIONS
from accelsim.energy.table import EnergyTable
from accelsim.report.page import page_console, pages_of

SHOWN_BITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
SHOWN_BYTES = (128, 1024, 8192, 32768, 131072, 1048576, 16777216)


def print_prices(table: EnergyTable, file: IO[str] | None = None) -> None:
    """Print a table's prices; published points stand in parentheses behind the law's value."""
    console = page_console(file)
    curves = price_curves(table)
    console.print(f"{table.name}: {table.technology or 'no technology named'}; prices in {table.unit}")
    if table.description:
        console.print(table.description, style="dim")
    console.print()
    _print_curves(console, "by bit-width n", [curve for curve in curves if curve.axis == "bits"], SHOWN_BITS, str)
    _print_curves(
        console, "by capacity, a bit", [curve for curve in curves if curve.axis == "bytes"], SHOWN_BYTES, _bytes
    )
    if any(curve.points for curve in curves):
        console.print("(in parentheses: the published value, where there is one)")
        console.print()
    _print_entries(console, table, curves)
    missing = [name for name in OPERATIONS if name not in table]
    if missing:
        console.print(f"not priced: {', '.join(missing)}; a run that counts one of them stops and says so")
    console.print(
        "sources and notes of each price: --json; the table itself, to make your own of it: --yaml", style="dim"
    )


def _print_curves(console: Console, title: str, curves: Sequence[Curve], shown: Sequence[int], name: Any = str) -> None:
    """Print a column a curve; several tables where they are too wide for the terminal: no number is ever cut."""
    for page in pages_of(console, _curve_table(title, curves, shown, name)) if curves else ():
        console.print(page)


def _curve_table(title: str, curves: Sequence[Curve], shown: Sequence[int], name: Any) -> Table:
    page = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    page.add_column(title, no_wrap=True)
    for curve in curves:
        page.add_column(curve.label.replace(", ", "\n"), justify="right")
    for place in shown:
        cells = []
        for curve in curves:
            price = f"{curve.prices[curve.places.index(place)]:.4g}"
            published = dict(curve.points).get(place)
            cells.append(price if published is None else f"{price} ({published:.4g})")
        page.add_row(name(place), *cells)
    page.add_section()
    page.add_row("known by", *(curve.mark for curve in curves))
    return page


# Of operations without a curve: numbers at which to show the price, and how to say them.
_SHOWN_AT: dict[str, tuple[tuple[int, ...], str]] = {
    "barrel_shift": ((32,), "32 bits"),
    "lookup": ((4, 8), "8 bits of 16 entries"),
    "compare": ((32,), "32 bits"),
    "divide": ((16, 16), "16 by 16 bits"),
    "leakage_per_pe_cycle": ((500_000_000,), "at 500 MHz"),
    "ppu_leakage_cycle": ((100_000, 500_000_000), "0.1 mm2 at 500 MHz"),
    "vector_leakage_cycle": ((100_000, 500_000_000), "0.1 mm2 at 500 MHz"),
    "sram_leakage_cycle": ((8192, 500_000_000), "8 KB at 500 MHz"),
    "mult_held": ((8,), "8 bits"),
}


def _print_entries(console: Console, table: EnergyTable, curves: Sequence[Curve]) -> None:
    """Print a row for every operation that is not among the curves, and under them why some cost nothing."""
    page = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("operation", "at", "price", "unit", "known by"):
        page.add_column(column, justify="right" if column == "price" else "left", no_wrap=column != "at")
    drawn = {curve.operation for curve in curves}
    for entry in table.entries:
        if entry.operation not in drawn:
            numbers, said = _SHOWN_AT.get(entry.operation, ((), ""))
            price = table.price_pj(entry.operation, numbers)
            page.add_row(entry.operation, said, f"{price:.4g}", entry.unit, entry.mark)
    if page.row_count:
        console.print(page)
    free = {entry.operation for entry in table.entries if _costs_nothing(table, entry.operation, curves)}
    reasons: dict[str, list[str]] = {}
    for entry in table.entries:
        if entry.operation in free:
            reasons.setdefault(entry.reason, []).append(entry.operation)
    for reason, operations in reasons.items():
        console.print(f"zero, {', '.join(operations)}: {reason}")
    if reasons:
        console.print()


def _costs_nothing(table: EnergyTable, operation: str, curves: Sequence[Curve]) -> bool:
    drawn = [price for curve in curves if curve.operation == operation for price in curve.prices]
    return not any(drawn or [table.price_pj(operation, _SHOWN_AT.get(operation, ((), ""))[0])])


def _bytes(size: int) -> str:
    for unit, name in ((1 << 20, "MB"), (1 << 10, "KB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def price_document(table: EnergyTable) -> dict[str, Any]:
    """Return everything that the table says, and its curves, as plain data for JSON."""
    return {
        "name": table.name,
        "technology": table.technology,
        "description": table.description,
        "unit": table.unit,
        "node_nm": table.node_nm,
        "voltage": table.voltage,
        "digest": table.digest,
        "entries": [
            {
                "operation": entry.operation,
                "params": list(OPERATIONS[entry.operation].params),
                "form": entry.form,
                "coefficients": dict(entry.coefficients),
                "unit": entry.unit,
                "mark": entry.mark,
                "source": entry.source,
                "notes": entry.notes,
                "reason": entry.reason,
                "points": [[*at, price] for at, price in entry.points],
            }
            for entry in table.entries
        ],
        "curves": [
            {
                "operation": curve.operation,
                "label": curve.label,
                "axis": curve.axis,
                "places": list(curve.places),
                "prices": list(curve.prices),
                "points": [list(point) for point in curve.points],
                "mark": curve.mark,
            }
            for curve in price_curves(table)
        ],
    }
