"""What a report is printed on: sentences, and tables that never cut a number, whatever the terminal's width."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Literal

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column as RichColumn
from rich.table import Table
from rich.text import Text

from accelsim.report.values import LayerReport, Totals

PIPED_COLUMNS = 100  # of sentences where there is no terminal, and COLUMNS does not say


def page_console(file: IO[str] | None = None) -> Console:
    """Return a console that prints names as they are on `file` (default: stdout), as wide as a terminal or COLUMNS.

    >>> page_console().print("conv[1]")
    conv[1]
    """
    console = Console(file=file or sys.stdout, highlight=False, markup=False, emoji=False)
    if not _width_is_given(console):
        console.width = PIPED_COLUMNS
    return console


def print_table(console: Console, table: Table) -> None:
    """Print a table; where the width is given, as several, each with the first column, if it is too wide: no number is
    ever cut. Elsewhere it is as wide as it needs.

    >>> table = Table("layer", "MACs", box=None, pad_edge=False)
    >>> table.add_row("conv1", "552,960")
    >>> print_table(page_console(), table)  # doctest: +NORMALIZE_WHITESPACE
    layer MACs
    conv1 552,960
    """
    if not _width_is_given(console):
        width, console.width = console.width, max(console.width, _whole_width(console, table))
        console.print(table)
        console.width = width
        return
    for page in pages_of(console, table):
        console.print(page)


def pages_of(console: Console, table: Table) -> Iterator[Table]:
    """Yield tables that are no wider than the console, each with the first column and some of the others.

    >>> table = Table("layer", "MACs", "cycles")
    >>> [len(page.columns) for page in pages_of(Console(width=20), table)]
    [2, 2]
    """
    first, *rest = table.columns
    first = replace(first, no_wrap=False, overflow="fold", max_width=max(5, console.width // 3))
    while rest:
        fitting = len(rest)
        page = _with_columns(table, [first, *rest])
        while fitting > 1 and _whole_width(console, page) > console.width:
            fitting -= 1
            page = _with_columns(table, [first, *rest[:fitting]])
        for column in page.columns:  # where the console is too narrow even for one and the first
            column.no_wrap, column.overflow = False, "fold"
        yield page
        rest = rest[fitting:]


def _with_columns(table: Table, columns: Sequence[RichColumn]) -> Table:
    """Return the table with some of its columns only."""
    page = Table(box=table.box, show_footer=table.show_footer, pad_edge=table.pad_edge, padding=table.padding)
    page.columns = [replace(column, _index=place) for place, column in enumerate(columns)]
    page.rows = table.rows
    return page


def _whole_width(console: Console, table: Table) -> int:
    """Return the columns that `table` takes with every cell whole."""
    return Measurement.get(console, console.options.update_width(10_000), table).maximum


def _width_is_given(console: Console) -> bool:
    return console.is_terminal or os.environ.get("COLUMNS", "").isdecimal()


def _plain(_: LayerReport) -> str:
    return ""


@dataclass(frozen=True)
class Column:
    """One column: its title, a layer's cell and its style, and the totals' cell."""

    title: str
    cell: Callable[[LayerReport], str]
    total: Callable[[Totals], str]
    style: Callable[[LayerReport], str] = _plain
    justify: Literal["left", "right"] = "right"


class Page:
    """A console that is never given a character it cannot print."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._encoding = console.encoding

    def line(self, text: str = "", style: str = "") -> None:
        self._console.print(self.text(text, style), soft_wrap=False)

    def text(self, text: str, style: str = "") -> Text:
        """Return `text` as it is (no markup), with what the encoding lacks spelled out."""
        try:
            text.encode(self._encoding)
        except (UnicodeEncodeError, LookupError):
            text = text.replace("µ", "u").encode("ascii", "backslashreplace").decode()
        return Text(text, style, overflow="fold")

    def table(self, title: str, columns: Sequence[Column], layers: Sequence[LayerReport], totals: Totals) -> None:
        """Print one table; several, each with the layers' names, where it is too wide: no number is ever cut."""
        self.line(title, "bold")  # not the table's own title, which would wrap at the table's width
        for page in pages_of(self._console, self._table(columns, layers, totals)):
            self._console.print(page)
            if self._console.options.ascii_only:  # the other box ends with an empty line
                self.line()

    def _table(self, columns: Sequence[Column], layers: Sequence[LayerReport], totals: Totals) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("layer", "total", min_width=5)
        for column in columns:
            footer = self.text(column.total(totals))
            table.add_column(self.text(column.title), footer, justify=column.justify, overflow="fold")
        for layer in layers:
            cells = [column.cell(layer) for column in columns]
            styles = [column.style(layer) for column in columns]
            table.add_row(self.text(layer.name), *map(self.text, cells, styles))
        return table
