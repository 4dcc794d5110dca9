"""The page of a run: what is on it, and what a real browser makes of it, light and dark, wide and narrow."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

import accelsim
from accelsim import cli
from accelsim.html import html_report, save_html
from accelsim.html.pictures import joined_slices
from accelsim.html.tables import cards, overflow_story, page_tables

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def report(project_root):
    return accelsim.simulate(
        accelsim.load_config(project_root / "configs" / "int8_ws.yaml"),
        accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(2),
    )


@pytest.fixture(scope="module")
def page(report):
    return html_report(report)


# -- the document -----------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Collects attributes and identifiers, and checks that elements are closed in order."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.tags = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_no_network(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(reader.ids)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert reader.tags.count("svg") == 4
    assert page.count("<table>") == 3


def test_the_page_says_what_the_report_says(report, page):
    for layer in report.layers:
        assert page.count(f">{layer.name}</td>") == 3
        assert f"{layer.total_cycles:,}" in page
        assert layer.output_digest in page
    for text in (report.config_digest, report.trace_digest, report.energy_table_digest, *report.assumptions):
        assert text.replace("'", "&#39;") in page
    assert "rows: 16" in page
    assert "dataflow: ws" in page
    assert page == html_report(report)


def test_tables_hold_the_numbers_and_sort_by_them(report):
    layers, cycles, energy = page_tables(report)
    assert [row[0].text for row in layers.rows] == [layer.name for layer in report.layers]
    assert [row[5].key for row in layers.rows] == [layer.total_cycles for layer in report.layers]
    total = cycles.columns.index("total")
    for row in cycles.rows:
        assert sum(cell.key for cell in row[1:total]) == row[total].key
    assert energy.columns[-1] == "total"
    for row, layer in zip(energy.rows, report.layers, strict=True):
        assert sum(cell.key for cell in row[1:-1]) == pytest.approx(layer.total_energy_pj)
    assert all(
        len(row) == len(table.columns) for table in (layers, cycles, energy) for row in (*table.rows, table.totals)
    )


def test_energy_by_what_the_data_did_is_there_where_it_was_measured(project_root, report):
    assert "what the data did" not in html_report(report)
    measured = accelsim.simulate(
        accelsim.load_config(project_root / "configs" / "int8_ws.yaml"),
        accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(2),
        activity=True,
    )
    table = page_tables(measured)[3]
    assert f"<h2>{table.title}</h2>" in html_report(measured)
    plain, by_data = table.columns.index("total by operation"), table.columns.index("total by data")
    for row, layer in zip(table.rows, measured.layers, strict=True):
        assert row[plain].key == pytest.approx(layer.total_energy_pj / 1e3, rel=0.01)
        assert row[by_data].key == pytest.approx(layer.data_aware_energy_pj.total_pj / 1e3, rel=0.01)
        assert row[table.columns.index("zero prod. %")].text == (
            f"{100 * layer.activity.zero_products / layer.activity.products:.1f}"
        )
    assert all(len(row) == len(table.columns) for row in (*table.rows, table.totals))


def test_cards_are_for_one_inference(report):
    shown = {what: value for value, what, _ in cards(report)}
    micro, unit = shown["latency an inference"].split()
    factor = {"ns": 1e-3, "µs": 1.0, "ms": 1e3}[unit]
    assert float(micro) * factor == pytest.approx(report.totals.latency_per_inference_us, rel=0.01)
    amount, unit = shown["energy an inference"].split()
    factor = {"pJ": 1.0, "nJ": 1e3, "µJ": 1e6}[unit]
    assert float(amount) * factor == pytest.approx(report.totals.energy_per_inference_pj, rel=0.01)
    assert shown["overflows"] == "0"
    remark = next(remark for _, what, remark in cards(report) if what == "efficiency")
    assert remark == f"{report.totals.energy_per_mac_pj:,.3g} pJ a useful MAC, modelled"


def test_the_overflow_story_tells_where_it_began(project_root):
    config = accelsim.load_config(project_root / "configs" / "int8_ws.yaml")
    narrow = config.model_copy(update={"accumulator": config.accumulator.model_copy(update={"bits": 14})})
    trace = accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(1)
    report = accelsim.simulate(narrow, trace)
    story = overflow_story(report)
    bad = [sentences for _, sentences, is_bad in story if is_bad]
    assert bad
    assert any("accumulator overflow at output" in sentence for sentence in bad[0])
    assert any(re.search(r"Accumulators of 14 bits .* additions did not fit", sentence) for sentence in bad[0])
    assert 'class="bad"' in html_report(report)


def test_names_cannot_break_out_of_the_page(report):
    nasty = "<script>alert('x')</script>"
    page = html_report(replace(report, config_name=nasty, trace_name='"><b>'))
    assert nasty not in page
    assert "&lt;script&gt;alert" in page


# -- the command ------------------------------------------------------------------------------------------------------


def test_run_writes_the_page_and_the_same_report(project_root, tmp_path, monkeypatch):
    monkeypatch.chdir(project_root)
    args = ["run", "configs/int8_ws.yaml", "traces/digits_cnn_int8.npz", "--inputs", "2"]
    target = tmp_path / "run.html"
    result = CliRunner().invoke(cli.app, [*args, "--html", str(target)], catch_exceptions=False)
    assert result.exit_code == 0
    text = target.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["run.html"]
    # The command has the run in time, and draws it.
    reader = Reader()
    reader.feed(text)
    assert reader.tags.count("svg") == 5
    assert len(reader.ids) == len(set(reader.ids))
    assert ">dma 0.1</text>" in text
    assert "Timeline, int8_ws: digits_cnn_int8" in text


def test_slices_are_joined_within_a_layer_a_track_and_a_state_only():
    def event(start, length, *, layer="conv1", track=0, cat="tile"):
        place = {"ph": "X", "name": "compute", "pid": 0, "tid": track}
        return place | {"ts": start, "dur": length, "cat": cat, "args": {"layer": layer}}

    events = [
        *(event(start, 9.0) for start in (0.0, 9.0, 19.0)),  # side by side, and a gap of 1 of 1200
        event(28.0, 2.0, cat="wait"),
        event(30.0, 2.0),
        event(32.0, 2.0, layer="conv2"),
        event(34.0, 2.0),
        event(40.0, 2.0),  # 4 later: seen
        event(9.0, 5.0, track=1),
        event(10.0, 2.0, track=1),  # within the one before it
    ]
    name = {"ph": "M", "name": "thread_name", "pid": 0, "tid": 0, "args": {"name": "core 0"}}
    run = {"otherData": {"clock_mhz": 2.0, "makespan_cycles": 2400}, "traceEvents": [name, *reversed(events)]}
    found = joined_slices(run)["traceEvents"]
    assert name in found
    drawn = [(each["tid"], each["ts"], each["dur"], each["cat"]) for each in found if each["ph"] == "X"]
    assert sorted(drawn) == [
        (0, 0.0, 28.0, "tile"),
        (0, 28.0, 2.0, "wait"),
        (0, 30.0, 2.0, "tile"),
        (0, 32.0, 2.0, "tile"),
        (0, 34.0, 2.0, "tile"),
        (0, 40.0, 2.0, "tile"),
        (1, 9.0, 5.0, "tile"),
    ]
    assert run["traceEvents"][1:] == list(reversed(events))  # and the caller's document is as it was


@pytest.mark.parametrize(
    ("name", "message"), [("run.pdf", "the page is written as .html"), ("no/run.html", "there is no folder")]
)
def test_a_page_that_cannot_be_written_stops_the_run_before_it_begins(
    project_root, tmp_path, monkeypatch, name, message
):
    monkeypatch.chdir(project_root)
    monkeypatch.setattr("accelsim.simulation.simulate", lambda *_, **__: pytest.fail("the run began"))
    args = ["run", "configs/int8_ws.yaml", "traces/digits_cnn_int8.npz", "--html", str(tmp_path / name)]
    result = CliRunner().invoke(cli.app, args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_failed_write_leaves_the_old_page(report, tmp_path, monkeypatch):
    target = tmp_path / "run.html"
    target.write_text("old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(accelsim.AccelsimError, match="No space left on device"):
        save_html(report, target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["run.html"]


# -- a real browser ---------------------------------------------------------------------------------------------------

PROBE = """
<script>
addEventListener("load", () => {
  const table = document.querySelector("table");
  const column = (place) => [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
  const titles = table.tHead.rows[0].cells;
  const found = { before: column(0) };
  titles[5].querySelector("button").click(); found.descending = column(5);
  titles[5].querySelector("button").click(); found.ascending = column(5); found.state = titles[5].ariaSort;
  titles[0].querySelector("button").click(); found.names = column(0); found.other = titles[5].ariaSort;
  const style = getComputedStyle(document.body);
  const smallest = (chosen, size) => Math.min(...[...document.querySelectorAll(chosen)].map(size));
  const ink = [...document.querySelectorAll("svg text")].map((text) => getComputedStyle(text).fill);
  Object.assign(found, {
    paper: style.backgroundColor, ink: style.color, pictures: [...new Set(ink)],
    page: document.documentElement.scrollWidth, window: innerWidth,
    letters: smallest("td, p, li, .what", (e) => parseFloat(getComputedStyle(e).fontSize)),
    drawn: smallest("svg text", (e) => e.getBoundingClientRect().height),
    errors: window.problems || 0,
  });
  const cell = table.tBodies[0].rows[0].cells[0], frame = table.parentElement;
  cell.textContent = "x".repeat(150);
  frame.style.width = "20rem"; frame.scrollLeft = 1000;
  found.name = cell.getBoundingClientRect().width;
  found.moved = [frame.scrollLeft, cell.getBoundingClientRect().left - frame.getBoundingClientRect().left];
  const out = document.createElement("pre"); out.id = "probe"; out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>
"""


@pytest.fixture(scope="module")
def browse(page, tmp_path_factory):
    """Open the page in a headless Chromium without network, and return what a script in it found."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium): the page was not opened")
    home = tmp_path_factory.mktemp("browser")
    target = home / "page.html"
    count = "window.problems = (window.problems || 0) + 1"
    watch = f'<head><script>addEventListener("error", () => {{ {count}; }}, true);</script>'
    target.write_text(page.replace("<head>", watch, 1).replace("</body>", PROBE + "</body>"), encoding="utf-8")

    def open_page(*, dark=False, width=1280):
        done = subprocess.run(
            [
                *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"),
                *(f"--user-data-dir={home / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=5000"),
                *(["--blink-settings=preferredColorScheme=0"] if dark else []),
                *("--dump-dom", target.as_uri()),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        return json.loads(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)[1].replace("&amp;", "&"))

    return open_page


def test_a_click_on_a_title_sorts_and_another_one_turns_round(browse, report):
    found = browse()
    cycles = sorted((layer.total_cycles for layer in report.layers), reverse=True)
    assert found["errors"] == 0
    assert found["before"] == [layer.name for layer in report.layers]
    assert found["descending"] == [f"{count:,}" for count in cycles]
    assert found["ascending"] == [f"{count:,}" for count in reversed(cycles)]
    assert found["state"] == "ascending"
    assert found["names"] == sorted(layer.name for layer in report.layers)
    assert found["other"] == "none"


def test_a_long_name_wraps_and_stays_beside_the_numbers(browse):
    found = browse()
    assert found["name"] <= 16 * 16  # 16 rem
    scrolled, left = found["moved"]
    assert scrolled > 100
    assert 0 <= left <= 2  # the border


def luminance(color):
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", color)[:3])
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """WCAG 2.1's contrast ratio."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_are_readable_pictures_included(browse, dark):
    found = browse(dark=dark)
    assert (luminance(found["paper"]) < 0.1) == dark
    assert contrast(found["paper"], found["ink"]) > 7  # WCAG AAA
    for ink in found["pictures"]:
        assert contrast(found["paper"], ink) > 7


def test_a_phone_shows_the_page_without_scrolling_sideways(browse):
    found = browse(width=500)  # the narrowest window that Chromium opens
    assert found["page"] <= found["window"]
    assert found["letters"] >= 13
    assert found["drawn"] >= 8
