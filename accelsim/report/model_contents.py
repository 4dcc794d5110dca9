"""What a model file contains, for the terminal: one row per operator, and what cannot be imported."""

from __future__ import annotations

from typing import IO

from rich.box import SIMPLE_HEAD
from rich.table import Table

from accelsim.importers.graph import Model, Row, Shape, ways_out
from accelsim.report.page import page_console, print_table

PLACES = {
    "array": "on the PE array",
    "vector unit": "on the vector unit",
    "input": "done to the data while importing",
    "host": "left to the host: floats after the last codes",
}


def print_model(model: Model, file: IO[str] | None = None) -> None:
    """Print a model's inputs and operators to `file` (default: standard output)."""
    console = page_console(file)
    rows = model.rows
    console.print(f"{model.subject}: {model.kind}, {len(rows)} operators", markup=False)
    for each in model.inputs:
        means = f"{each.format}, scale {each.scale:g}, zero point {each.zero_point}"
        console.print(f"input {each.name!r}: {_sizes(each.shape)}, {means}", markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("layer", "input\noutput", "weight"):
        table.add_column(heading, no_wrap=True)
    table.add_column("MACs\nweights", justify="right", no_wrap=True)
    table.add_column("runs on", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            f"{_sizes(row.input_shape)} {row.input_format}\n{_sizes(row.output_shape)} {row.output_format}",
            f"{_sizes(row.weight_shape)}\n{row.weight_format}",
            f"{row.macs:,}\n{row.weights:,}",
            "(no)" if row.problem else row.place,
        )
    table.add_section()
    table.add_row("total", "", "", f"{sum(row.macs for row in rows):,}\n{sum(row.weights for row in rows):,}", "")
    print_table(console, table)
    for count, words in _counts(rows):
        console.print(f"{count} {words}")
    console.print(f"semantics: {', '.join(model.semantics)} (the first is the default)", markup=False)
    wrong = [row for row in rows if row.problem]
    for problem in dict.fromkeys(row.problem for row in wrong):
        alike = [row for row in wrong if row.problem == problem]
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        console.print(f"not supported: {alike[0].name} ({alike[0].op}){more}: {problem}", markup=False, soft_wrap=True)
    if wrong:
        for line in ways_out(model, rows, wrong[0]) or ["nothing before it can run"]:
            console.print(line, markup=False, soft_wrap=True)


def _counts(rows: tuple[Row, ...]) -> list[tuple[int, str]]:
    places = [row.place for row in rows if not row.problem]
    return [(places.count(place), words) for place, words in PLACES.items() if place in places]


def _sizes(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "-"
