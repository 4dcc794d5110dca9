"""Runs with relative and with scaled tables say so, in every report and picture."""

import json
import re

import pytest

from accelsim import load_config, load_trace, plots, simulate
from accelsim.config.model import Energy, ScaleTo
from accelsim.energy.scaling import energy_factor
from accelsim.errors import ReportError
from accelsim.html.tables import cards, page_tables
from accelsim.report.render import render_text
from accelsim.report.values import RunReport

PICOJOULES = re.compile(r"\b[pnuµm]?J\b|TOPS/W|\bm?W\b")


def run(**energy):
    config = load_config("configs/int8_os.yaml").model_copy(update={"energy": Energy(**energy)})
    return simulate(config, load_trace("traces/digits_cnn_int8.npz"), watch=False)


@pytest.fixture(scope="module")
def relative():
    return run(table="eyeriss65")


@pytest.fixture(scope="module")
def picojoules():
    return run()


def test_a_relative_report_never_says_picojoules(relative):
    text = render_text(relative)
    assert "Energy in 10^6 relative (eyeriss65)" in text
    assert "prices of eyeriss65 are relative: no number of energy here is in picojoules" in " ".join(text.split())
    assert PICOJOULES.findall(text) == []
    assert relative.totals.average_power_mw is None
    assert relative.totals.tops_per_watt is None
    assert relative.energy_unit == "relative"
    assert json.loads(relative.to_json())["energy_unit"] == "relative"
    assert RunReport.from_json(relative.to_json()) == relative
    for name in relative.to_rows()[0]:
        assert "pj" not in name
    assert relative.to_rows()[0]["energy_total_relative"] == relative.layers[0].total_energy_pj


def test_a_relative_page_never_says_picojoules(relative):
    words = [
        *sum(cards(relative), ()),
        *(word for t in page_tables(relative) for word in (t.title, t.note, *t.columns)),
    ]
    assert any("relative" in word for word in words)
    assert [word for word in words if PICOJOULES.search(word)] == []


def test_relative_pictures_say_so_and_are_not_mixed_with_others(relative, picojoules):
    _, axes = plots.new_figure((6, 4))
    assert "energy, relative" in plots.energy_breakdown(relative, axes).get_xlabel()
    _, axes = plots.new_figure((6, 4))
    assert "relative (modelled)" in plots.energy_by_width([relative], axes).get_ylabel()
    _, axes = plots.new_figure((6, 4))
    with pytest.raises(ReportError, match="energies in eyeriss65 and pJ cannot share a picture; draw them apart"):
        plots.energy_breakdown([relative, picojoules], axes)


def test_a_scaled_report_names_law_and_factor_and_leaves_dram_alone(picojoules):
    scaled = run(scale_to=ScaleTo(node_nm=7, voltage=0.75))
    assert scaled.energy_table == "horowitz45 scaled to 7 nm, 0.75 V"
    note = next(line for line in scaled.assumptions if "Stillmaker" in line)
    factor = energy_factor(45, 0.9, 7, 0.75)
    assert f"times {factor:.4g} for 7 nm, 0.75 V" in note
    assert scaled.totals.energy_pj["dram"] == picojoules.totals.energy_pj["dram"]
    for name in ("mac", "buffer", "leakage", "ppu"):
        assert scaled.totals.energy_pj[name] == pytest.approx(picojoules.totals.energy_pj[name] * factor, rel=1e-6)
    assert not any("Stillmaker" in line for line in picojoules.assumptions)


def test_efficiency_by_hand(picojoules):
    totals = picojoules.totals
    assert totals.energy_per_mac_pj == totals.total_energy_pj / totals.macs
    assert totals.tops_per_watt == pytest.approx(
        2 / totals.energy_per_mac_pj
    )  # two operations a MAC; 1 op/pJ = 1 TOPS/W
    joules, seconds = totals.energy_per_inference_pj * 1e-12, totals.latency_per_inference_us * 1e-6
    assert totals.energy_delay_pj_us * 1e-18 == pytest.approx(joules * seconds)
    watts = totals.average_power_mw / 1e3
    assert totals.tops_per_watt == pytest.approx(2 * totals.macs / (totals.latency_us * 1e-6) / 1e12 / watts)
