"""The JSON of a run, its comparison with an earlier one, the terminal's table and the page."""

import json
from dataclasses import replace

import pytest

from benchmarks import page, table
from benchmarks.document import FORMAT, DocumentError, compare, read, to_document, write
from benchmarks.measure import Sample
from benchmarks.result import Goal, Row, timed_row

ABOUT = {
    "quick": False,
    "repeats": 3,
    "machine": {"processor": "p", "cores": 2, "system": "s", "load_average": [0.1, 0.2, 0.3], "blas": "b"},
    "versions": {"python": "3.11.2", "numpy": "2.4.6"},
    "git": {"revision": "0123456789abcdef", "changed_files": 2, "changed_while_it_ran": True},
}  # fmt: skip


def rows():
    timed = timed_row(
        "fast",
        "int8",
        Sample((0.9, 1.0, 1.2)),
        work=8e9,
        work_unit="MAC",
        peer=Sample((2.0, 2.0, 2.0)),
        peer_work=20e9,
        against="the limit",
        goal=Goal("ratio", 0.7),
        note="a note",
        slope=1.5,
    )
    return [timed, Row("timeline", "DRAM", goal=Goal("value", 0.3), missing="not built yet")]


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "run.json"
    write(path, to_document(rows(), ABOUT))
    document, found = read(path)
    assert found == rows()
    assert document["git"]["revision"] == "0123456789abcdef"
    assert document["machine"]["processor"] == "p"
    first, second = document["rows"]
    assert (first["rate"], first["against_rate"], first["ratio"]) == (8e9, 1e10, 0.8)
    assert (first["met"], second["met"]) == (True, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("half a {", "not JSON"),
        ("[1, 2]", "no result of a run"),
        ('{"cases": {}}', "no result of a run"),
        (json.dumps({"format": 1, "rows": []}), f"format 1; this program reads format {FORMAT}"),
        (json.dumps({"format": FORMAT, "rows": [{"case": "c"}]}), "a row is damaged"),
        (json.dumps({"format": FORMAT, "rows": [7]}), "a row is damaged"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, said):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DocumentError, match=said) as error:
        read(path)
    assert "bad.json" in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DocumentError, match=r"none\.json: No such file"):
        read(tmp_path / "none.json")


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(DocumentError, match="use a file in a folder that exists"):
        write(tmp_path / "no" / "run.json", {})


def change(before, now):
    [found] = compare([before], [now])
    return found


def test_half_the_time_is_twice_as_fast():
    old = timed_row("c", "n", Sample((2.0, 2.0, 2.1)))
    found = change(old, timed_row("c", "n", Sample((1.0, 1.0, 1.1))))
    assert found.factor == 2.0
    assert found.beyond_spread


def test_ranges_that_touch_are_no_change():
    old = timed_row("c", "n", Sample((1.0, 1.2, 1.4)))
    assert not change(old, timed_row("c", "n", Sample((0.8, 0.9, 1.0)))).beyond_spread
    assert change(old, timed_row("c", "n", Sample((0.8, 0.9, 0.99)))).beyond_spread
    assert change(old, timed_row("c", "n", Sample((1.41, 1.5, 1.6)))).beyond_spread


def test_times_are_compared_per_work():
    old = timed_row("c", "n", Sample((1.0,)), work=10.0)
    found = change(old, timed_row("c", "n", Sample((4.0,)), work=80.0))
    assert found.factor == 2.0


def test_a_goal_that_is_no_longer_met_is_told():
    old = replace(timed_row("c", "n", Sample((1.0,))), goal=Goal("value", 1.5))
    new = replace(timed_row("c", "n", Sample((2.0,))), goal=Goal("value", 1.5))
    assert change(old, new).remark == "goal no longer met"
    assert change(new, old).remark == "goal met now"
    assert change(old, old).remark == ""


def test_rows_of_one_run_only_are_named():
    old, new = timed_row("c", "gone", Sample((1.0,))), timed_row("c", "new", Sample((1.0,)))
    remarks = {found.key: found.remark for found in compare([old], [new])}
    assert remarks == {"c: new": "not in the earlier run", "c: gone": "only in the earlier run"}
    unmeasured = Row("c", "new", missing="not built yet")
    assert change(unmeasured, new).remark == "not measured in the earlier run"
    assert change(new, unmeasured).remark == "not measured now"
    assert change(new, unmeasured).factor is None


def test_the_terminal_shows_ratio_goal_and_what_is_missing():
    measured, missing = ("\n".join(table.lines(row)) for row in rows())
    for part in ("int8", "1.00 s ±15 %", "8.00 GMAC/s", "80 % of the limit (10.0 GMAC/s)", "goal >= 70 %: met (1.14"):
        assert part in measured
    for part in ("DRAM", "not measured", "goal <= 0.300 s: not measured", "not built yet"):
        assert part in missing


def test_the_page_is_replaced_between_its_markers():
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    assert page.replaced(text, "new") == f"before\n{page.BEGIN}\nnew\n{page.END}\nafter\n"


@pytest.mark.parametrize("text", ["", page.BEGIN, page.END, f"{page.END}\n{page.BEGIN}"])
def test_a_page_without_markers_is_refused(text):
    with pytest.raises(DocumentError, match="markers"):
        page.replaced(text, "new")


def test_the_page_says_what_is_not_met():
    slow = timed_row("fast", "slow one", Sample((4.0,)), peer=Sample((2.0,)), against="p", goal=Goal("ratio", 0.7))
    document = to_document([*rows(), slow], ABOUT)
    text = "\n".join(page.results(document, [*rows(), slow]))
    assert "**1 of 3 goals are met.**" in text
    assert "| 1 of 2 | 0.714 of its goal |" in text
    assert "| 0 of 1 | not measured |" in text
    assert "| slow one | 4.00 s |  | p: 2.00 s | 50 % | >= 70 % | **not met** |" in text
    assert "- DRAM: not built yet" in text
    assert "| int8 | 1.00 s ±15 % | 8.00 GMAC/s | the limit: 10.0 GMAC/s | 80 % | >= 70 % | met |" in text
    assert "revision `0123456789` with 2 changed files (more changed while it ran), 3 repeats" in text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123"), (0.0012, "0.0012")],
)  # fmt: skip
def test_three_digits(number, text):
    assert table.figure(number) == text


@pytest.mark.parametrize(("value", "text"), [(2.0, "2.00 s"), (0.0123, "12.3 ms"), (4.2e-5, "42.0 µs")])
def test_times(value, text):
    assert table.seconds(value) == text
