"""What Jupyter shows of a report: well-formed, escaped, with the report's own numbers."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from report_example import make_report

import accelsim
from accelsim.report.estimate_page import print_estimate
from accelsim.report.notebook import MAX_ROWS


class Reader(HTMLParser):
    """Collects the cells of each table row, and checks that elements are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.rows, self.tags = [], [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def read(text):
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_the_table_has_a_row_a_layer_and_the_reports_numbers():
    report = make_report()
    reader = read(report._repr_html_())
    titles, *rows, totals = reader.rows
    assert [row[0] for row in rows] == [layer.name for layer in report.layers]
    by_title = [dict(zip(titles, row, strict=True)) for row in (*rows, totals)]
    for shown, layer in zip(by_title, report.layers, strict=False):
        assert shown["cycles"] == f"{layer.total_cycles:,}"
        assert shown["MACs"] == f"{layer.macs:,}"
        assert (
            shown["input · weight → output"] == f"{layer.input_format} · {layer.weight_format} → {layer.output_format}"
        )
        assert shown["overflows"] == f"{layer.overflow.psum.count + layer.overflow.accumulator.count:,}"
    assert by_title[0]["overflows"] == "2"
    assert by_title[0]["SQNR dB"] == "31.4"
    assert by_title[-1]["cycles"] == f"{report.totals.total_cycles:,}"
    assert float(by_title[-1]["nJ"]) == pytest.approx(report.totals.total_energy_pj / 1000, abs=0.005)
    assert reader.tags <= {"div", "p", "b", "br", "table", "thead", "tbody", "tfoot", "tr", "td", "th"}


def test_the_summary_names_run_accuracy_and_units():
    report = make_report()
    text = unescape(re.sub("<[^>]+>", "", report._repr_html_()))
    assert f"{report.config_name}: {report.trace_name}" in text
    assert f"batch of {report.batch}" in text
    assert f"{report.clock_mhz:g} MHz" in text
    assert f"Accuracy on {report.accuracy.images} images: {100 * report.accuracy.simulated_accuracy:.2f} %" in text


def test_names_are_escaped():
    bad = "<script>alert('1')</script>&"
    report = make_report()
    first = replace(report.layers[0], name=bad)
    shown = replace(report, config_name=bad, trace_name=bad, layers=(first, *report.layers[1:]))._repr_html_()
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&amp;") == 3
    assert read(shown).rows[1][0] == bad


def test_relative_energies_are_not_called_joules():
    shown = replace(make_report(), energy_unit="relative")._repr_html_()
    titles = read(shown).rows[0]
    assert [title for title in titles if "relative" in title]
    assert not re.search(r"\b[nµmp]?J\b", shown)


def test_a_long_table_is_cut_and_says_so():
    report = make_report()
    many = tuple(replace(report.layers[0], name=f"layer{i}") for i in range(MAX_ROWS + 5))
    rows = read(replace(report, layers=many)._repr_html_()).rows
    assert len(rows) == MAX_ROWS + 3  # titles, the sentence, totals
    assert rows[-2] == ["5 more layers are in to_rows()"]
    assert rows[-1][0] == "total"


def test_what_was_not_measured_is_a_dash():
    report = make_report()
    bare = replace(report.layers[0], mismatches=None, accuracy=None)
    row = read(replace(report, layers=(bare,), accuracy=None)._repr_html_()).rows[1]
    assert row[-2:] == ["-", "-"]


@pytest.mark.parametrize("unit", ["pJ", "relative"])
def test_an_estimate_has_the_same_table_with_its_traffic(project_root, unit):
    config = accelsim.load_config(project_root / "configs" / "int8_ws.yaml")
    found = accelsim.estimate(config, accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(2))
    found = replace(found, energy_unit=unit, network_name="<b>digits")
    shown = found._repr_html_()
    titles, *rows, totals = read(shown).rows
    by_title = [dict(zip(titles, row, strict=True)) for row in (*rows, totals)]
    assert [row["layer"] for row in by_title] == [*(layer.name for layer in found.layers), "total"]
    assert [row["cycles"] for row in by_title[:-1]] == [f"{layer.total_cycles:,}" for layer in found.layers]
    assert by_title[-1]["DRAM kB"] == f"{found.dram_bits / 8000:,.2f}"
    assert "&lt;b&gt;digits" in shown
    assert (unit == "relative") == ("relative" in shown)
    assert (unit == "relative") != bool({"pJ", "nJ", "µJ"} & set(titles))


def test_relative_estimates_are_not_called_joules_on_a_terminal_either(project_root, capsys):
    config = accelsim.load_config(project_root / "configs" / "int8_ws.yaml")
    config = config.model_copy(update={"energy": config.energy.model_copy(update={"table": "eyeriss65"})})
    found = accelsim.estimate(config, accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(1))
    assert found.energy_unit == "relative"
    print_estimate(found)
    text = capsys.readouterr().out
    assert "relative" in text
    assert "mJ" not in text
