"""Tables on terminals of any width: no number is ever cut, and no row or column is lost."""

import io

import pytest
from rich.box import SIMPLE_HEAD
from rich.table import Table

from accelsim.report.page import page_console, print_table

ROWS = [
    ["conv2_1.expand", "1x3136x64x256", "1,022,144"],
    ["fc", "1x1x2048x1000", "2,051,000"],
    ["total", "", "3,073,144"],
]
TITLES = ("layer", "BxMxKxN", "bytes")


def printed(columns, monkeypatch):
    """Return what is printed, as lines; columns : the width that is given, or None"""
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(columns))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in TITLES:
        table.add_column(title, no_wrap=True)
    for row in ROWS:
        table.add_row(*row)
    file = io.StringIO()
    print_table(page_console(file), table)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("columns", [None, 28, 35, 45, 80, 200])
def test_every_cell_is_whole(columns, monkeypatch):
    lines = printed(columns, monkeypatch)
    words = " ".join(lines).split()
    for row in (TITLES, *ROWS):
        for cell in row[1:]:
            assert cell == "" or words.count(cell) == 1
    tables = words.count("layer")
    assert tables == {28: 2, 35: 2}.get(columns, 1)
    assert "".join(words).count("total") == tables
    assert columns is None or max(map(len, lines)) <= columns


def test_a_terminal_that_is_too_narrow_for_any_number_folds_it(monkeypatch):
    lines = printed(15, monkeypatch)
    assert max(map(len, lines)) <= 15
    letters = "".join("".join(lines).split())
    assert "…" not in letters
    for digit in "23":
        assert letters.count(digit) >= sum(cell.count(digit) for row in ROWS for cell in row[1:])


def test_a_pipe_gets_tables_as_wide_as_they_need(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    file = io.StringIO()
    console = page_console(file)
    table = Table("layer", "name")
    table.add_row("conv", "x" * 300)
    print_table(console, table)
    assert "x" * 300 in file.getvalue()
    assert console.width == 100  # of the sentences that follow
