import dataclasses
import io
import re

import numpy as np
import pytest
from report_example import make_report, register

from accelsim.energy.account import ComponentEnergy
from accelsim.mapping.contract import CycleCounts
from accelsim.report.render import print_report, render_text
from accelsim.report.values import NetworkAccuracy, OverflowPlace


def cells(text, first):
    """Return the words of the lines that start with `first`, one list a table."""
    return [line.split() for line in text.splitlines() if line.split()[:1] == [first]]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_every_number_is_where_it_belongs(report, width):
    text = render_text(report, width)
    layers, time, energy, numbers = cells(text, "conv1")
    assert layers == ["conv1", "conv2d", "1x50x9x8", "3,600", "uint8", "int8", "uint8"]
    assert time == ["conv1", "40", "70", "180", "0", "20", "310", "72.6", "620.00"]
    assert energy == ["conv1", "1.08", "0.00", "6.25", "101.50", "0.23", "109.06"]
    assert numbers == ["conv1", "2", "17/16", "0", "11/32", "7", "0", "31.4", "1.00"]
    layers, time, energy, numbers = cells(text, "total")
    assert layers == ["total", "3,680"]
    assert time == ["total", "40", "76", "204", "8", "22", "350", "65.7", "700.00"]
    assert energy == ["total", "1.10", "<0.01", "6.25", "101.50", "0.23", "109.08"]
    assert numbers == ["total", "2", "17/16", "0", "11/32", "7", "0"]
    assert cells(text, "fc")[3] == ["fc", "0", "11/32", "0", "<=11/32", "0", "-", "inf", "-"]


def test_titles_name_the_columns_and_the_units(report):
    text = render_text(report, 100)
    assert "Time (cycles by cause; latency in ns)" in text
    assert "Energy in nJ (horowitz45)" in text
    assert re.search(r"layer +load +fill +compute +drain +PPU +cycles +util\. % +ns", text)
    assert re.search(r"layer +MAC +PPU +buffers +DRAM +leakage +total", text)
    assert "Zero in every layer: registers, accum., scales, decoders, vector, control." in text


def test_needed_bits_are_explained_where_something_overflowed(report):
    note = "Needed bits: where the registers upstream had unlimited width too."
    assert note in render_text(report, 80)
    fc = report.layers[1]
    assert "Needed bits" not in render_text(dataclasses.replace(report, layers=(fc, fc)), 80)


def test_the_numbers_fit_eighty_columns_with_every_column(report):
    layers = [dataclasses.replace(layer, verified=1_234, mismatches=1_234) for layer in report.layers]
    assert len(cells(render_text(dataclasses.replace(report, layers=layers), 80), "conv1")) == 4


def test_the_header_says_what_ran(report):
    text = render_text(report, 160)
    assert text.startswith("tiny: made up\n")
    assert (
        "engine fast, 500 MHz, energy table horowitz45, batch 2, config 00112233aabbccdd, trace ffee000011112222"
        in text
    )


def test_the_sentences_say_the_rest(report):
    text = render_text(report, 200)
    assert "Per inference (batch of 2): 350.00 ns, 54.54 nJ; average power 155.83 mW." in text
    assert (
        "Accuracy on 2 images: float 100.00 %, simulated 50.00 %, difference -50.00 points, same prediction 50.00 %."
    ) in text
    assert (
        "First overflow: layer conv1: psum overflow at output [1, 0, 2, 5], k=36: 40123 does not fit 16 bits (wrap); "
        "17 bits would have held every value"
    ) in text
    assert "Model: energy is modelled: horowitz45, 45 nm, 0.9 V." in text
    assert "output codes are not" not in text
    # 290 + 12 of 310 + 40 cycles are load, fill, compute and drain, or the vector unit's
    busy = sum(layer.cycles.array + layer.cycles.vector for layer in report.layers)
    assert f"{100 * (350 - busy) / 350:.1f} % of it while neither arrays nor vector units work." in text


def test_an_overflow_of_the_bias_preload_is_called_that(report):
    place = OverflowPlace(layer="fc", index=(0, 3), k=-1, value=-(1 << 31) - 1)
    overflow = dataclasses.replace(
        report.layers[1].overflow, accumulator=register(32, "saturate", low=place.value, count=1, first=place)
    )
    fc = dataclasses.replace(report.layers[1], overflow=overflow)
    text = render_text(dataclasses.replace(report, layers=(report.layers[0], fc)), 200)
    assert (
        "layer fc: accumulator overflow at output [0, 3], bias preload: -2147483649 does not fit 32 bits (saturate); "
        "33 bits would have held every value"
    ) in text
    assert cells(text, "total")[3] == ["total", "2", "17/16", "1", "33/32", "7", "0"]


def test_wrong_codes_are_said_aloud(report):
    wrong = dataclasses.replace(report.layers[0], mismatches=1234, verified=5)
    text = render_text(dataclasses.replace(report, layers=(wrong, report.layers[1])), 200)
    assert "Layer conv1: 1,234 output codes are not what the trace expects." in text
    assert "Layer conv1: 5 output codes are not what the integer oracle gives." in text
    assert cells(text, "conv1")[3] == ["conv1", "2", "17/16", "0", "11/32", "7", "1,234", "5", "31.4", "1.00"]
    assert cells(text, "fc")[3] == ["fc", "0", "11/32", "0", "<=11/32", "0", "-", "-", "inf", "-"]


@pytest.mark.parametrize(
    ("total_pj", "unit", "shown"),
    [
        (0.0, "pJ", "0.00"),
        (9_999.0, "pJ", "9,999.00"),
        (10_000.0, "nJ", "10.00"),
        (12_345_678.0, "µJ", "12.35"),
        (9.5e12, "mJ", "9,500.00"),
        (1.0e20, "J", "100,000,000.00"),
    ],
)
def test_energy_has_a_readable_unit(report, total_pj, unit, shown):
    layer = dataclasses.replace(report.layers[0], energy_pj=ComponentEnergy({"dram": total_pj}))
    text = render_text(dataclasses.replace(report, layers=(layer,)), 120)
    assert f"Energy in {unit} (horowitz45)" in text
    assert cells(text, "total")[2][-1] == shown


def test_accuracy_that_is_not_known_is_not_invented(report):
    alone = NetworkAccuracy(images=7, float_accuracy=None, simulated_accuracy=None, difference=None, agreement=None)
    assert "Accuracy on 7 images: not known (no labels)." in render_text(dataclasses.replace(report, accuracy=alone))
    assert "Accuracy" not in render_text(dataclasses.replace(report, accuracy=None))


def big(report):
    cycles = CycleCounts(load=1_234_567, fill=234_567, compute=45_678_901, drain=0, ppu=345_678)
    layer = dataclasses.replace(report.layers[0], name="conv18_3", cycles=cycles, latency_us=94_987.426)
    return dataclasses.replace(report, layers=(layer,) * 3)


def test_large_numbers_stay_whole_at_a_hundred_columns(report):
    text = render_text(big(report), 100)
    assert cells(text, "conv18_3")[3][1:7] == [
        "1,234,567",
        "234,567",
        "45,678,901",
        "0",
        "345,678",
        "47,493,713",
    ]
    assert cells(text, "total")[1][6] == "142,481,139"


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_wider_than_the_terminal(report, width):
    for each in (report, big(report), make_report(config_name="x" * 300)):
        assert max(map(len, render_text(each, width).splitlines())) <= width


def test_markup_in_names_is_text(report):
    text = render_text(dataclasses.replace(report, config_name="[red]8-bit[/red]", trace_name="[/]"), 100)
    assert text.startswith("[red]8-bit[/red]: [/]\n")


def test_colour_only_where_it_is_asked_for(report):
    assert "\x1b" not in render_text(report, 100)
    coloured = render_text(report, 100, color=True)
    assert re.search(r"\x1b\[1;31m *2\x1b\[0m", coloured)  # the overflow count


def test_a_terminal_that_is_not_utf8_gets_ascii(report):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    layer = dataclasses.replace(report.layers[0], energy_pj=ComponentEnergy({"dram": 12e6}))
    print_report(dataclasses.replace(report, config_name="größe µ", layers=(layer,)), file)
    file.flush()
    text = raw.getvalue().decode("ascii")
    assert text.startswith("gr\\xf6\\xdfe u: made up\n")
    assert "Energy in uJ (horowitz45)" in text
    assert re.search(r"^\|conv1 *\| *12\.00 *\| *12\.00 *\|$", text, re.MULTILINE)


@pytest.mark.parametrize(("columns", "width"), [(None, 100), ("60", 60), ("120", 120)])
def test_a_pipe_gets_a_hundred_columns_or_what_columns_says(columns, width, report, capsys, monkeypatch):
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    print_report(report)
    printed = capsys.readouterr().out
    assert printed == render_text(report, width)


@pytest.mark.parametrize(("columns", "width"), [("", 100), ("wide", 100), ("0", 40), ("-5", 100)])
def test_columns_that_make_no_sense_do_no_harm(columns, width, report, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    print_report(report)
    assert capsys.readouterr().out == render_text(report, width)


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_table_that_is_too_wide_is_printed_in_parts_and_no_number_is_cut(report, width):
    text = render_text(big(report), width)
    assert max(map(len, text.splitlines())) <= width
    whole = render_text(big(report), 1000)
    for row in ("conv18_3", "total"):  # all words of all parts, the name left out
        words, expected = ([word for line in cells(each, row) for word in line[1:]] for each in (text, whole))
        assert sorted(words) == sorted(expected)
        assert {"1,234,567", "47,493,713"} <= set(words) or {"3,703,701", "142,481,139"} <= set(words)


@pytest.mark.parametrize("width", [80, 100])
def test_long_format_names_stay_whole_on_a_narrow_terminal(report, width):
    name = "vsq_uint4_v16_s4"
    formats = {"input_format": name, "weight_format": "vsq_int4_v16_s4", "output_format": name}
    layers = [dataclasses.replace(layer, **formats) for layer in report.layers]
    text = render_text(dataclasses.replace(report, layers=layers), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count(name) == 2 * len(layers)
    assert "1x50x9x8" in text


def test_an_overruled_rounding_is_said_once(report):
    layers = [dataclasses.replace(layer, rounding="truncate", rounding_requested="half_up") for layer in report.layers]
    text = render_text(dataclasses.replace(report, layers=layers), 160)
    assert text.count("The configuration rounds truncate, the trace asks for half_up") == 1
    assert "The configuration rounds" not in render_text(report, 160)


def test_the_network_s_own_distance_from_float_has_a_line(report):
    network = report.layers[0].accuracy
    text = render_text(dataclasses.replace(report, network=network), 160)
    assert "Network output against float: SQNR 31.4 dB" in text


def test_a_report_without_layers_is_still_a_report(report):
    text = render_text(dataclasses.replace(report, layers=()), 80)
    assert cells(text, "total")[1] == ["total", "0", "0", "0", "0", "0", "0", "0.0", "0.00"]


def test_the_codes_do_not_matter_to_the_tables(report):
    without = dataclasses.replace(report.layers[0], output_codes=np.zeros(1, np.int32))
    assert render_text(dataclasses.replace(report, layers=(without, report.layers[1]))) == render_text(report)
