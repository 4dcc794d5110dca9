"""What a trace contains, for the terminal: one row per layer."""

from __future__ import annotations

from typing import IO

from rich.box import SIMPLE_HEAD
from rich.table import Table

from accelsim.report.page import page_console, print_table
from accelsim.trace.reader import Trace


def print_trace(trace: Trace, file: IO[str] | None = None) -> None:
    """Print a trace's layers, shapes, formats and sizes to `file` (default: standard output)."""
    console = page_console(file)
    rows = trace.describe()
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("layer", "op", "input", "weight", "output"):
        table.add_column(heading, no_wrap=True)
    for heading in ("MACs", "parameters"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            row["op"],
            *(f"{_sizes(row[f'{part}_shape'])}\n{row[f'{part}_format']}" for part in ("input", "weight", "output")),
            f"{row['macs']:,}",
            f"{row['parameters']:,}",
        )
    macs, parameters = sum(row["macs"] for row in rows), sum(row["parameters"] for row in rows)
    table.add_section()
    table.add_row("total", "", "", "", "", f"{macs:,}", f"{parameters:,}")
    labels = trace.labels
    roundings = dict.fromkeys(str(row["rounding"] or "none (raw accumulators leave)") for row in rows)
    console.print(f"trace {trace.name}, digest {trace.digest}")
    console.print(f"{len(rows)} layers, {trace.weight_bytes:,} bytes of weights")
    if trace.description:
        console.print(trace.description)
    print_table(console, table)
    console.print(f"rounding: {', '.join(roundings)}")
    console.print("labels: none" if labels is None else f"labels: of {labels.size} inputs")
    console.print("every array was read and is sound")


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
