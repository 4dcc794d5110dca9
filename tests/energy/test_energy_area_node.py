"""Area at the energy table's node: the factors, what is said of them, and where there are none."""

import json

import pytest
from typer.testing import CliRunner

import accelsim
from accelsim.cli import app
from accelsim.config.loader import load_config, parse_config
from accelsim.energy.area import area_report
from accelsim.energy.area_laws import load_area_table
from accelsim.energy.density import density
from accelsim.energy.scaling import AREA_FROM_45
from accelsim.report.render import render_text

OWN = """\
schema: accelsim-energy-table
version: 1
name: mine
{node}
entries:
  add: {{form: constant, coefficients: {{price: 1}}, unit: pJ, mark: assumption, source: a test}}
"""


@pytest.fixture
def under(project_root):
    """int8_ws under another energy section."""
    values = load_config(project_root / "configs" / "int8_ws.yaml").model_dump(mode="json")
    return lambda **energy: parse_config({**values, "energy": energy})


@pytest.mark.parametrize(
    ("energy", "node_nm", "factor"),
    [
        ({"table": "horowitz45"}, 45, 1.0),
        ({"table": "tpuv4i_7nm"}, 7, 0.059),
        ({"table": "eyeriss65"}, 65, 1.5),
        ({"table": "horowitz45", "scale_to": {"node_nm": 16, "voltage": 0.8}}, 16, 0.19),
    ],
)
def test_area_is_at_the_tables_node(under, energy, node_nm, factor):
    native, found = area_report(under(table="horowitz45")), area_report(under(**energy))
    assert (found.node_nm, found.native_node_nm, found.factor) == (node_nm, 45, factor)
    for name, um2 in native.by_component_um2.items():
        assert found.by_component_um2[name] == pytest.approx(factor * um2)
    assert found.native_total_um2 == pytest.approx(native.total_um2)
    assert found.native_logic_um2 == pytest.approx(native.logic_um2)
    # 393,216 bytes of SRAM at 8 x 0.532 um2, by hand
    assert found.by_component_um2["buffer"] == pytest.approx(1_673_527.3 * factor, rel=1e-6)
    rate = density(under(**energy))
    assert rate.tops == pytest.approx(0.3584)  # the clock is the configuration's
    assert rate.tops_per_mm2 == pytest.approx(0.3584 / (native.total_um2 * factor * 1e-6))


def test_scaled_figures_name_their_law(under):
    found = area_report(under(table="tpuv4i_7nm"))
    assert found.technology == "7 nm, scaled from 45 nm, Nangate open cell library"
    assert found.notes[0] == (
        "area is at 7 nm, the node of energy table 'tpuv4i_7nm': 0.059 times that of 45 nm by the area factors of "
        "Stillmaker and Baas (2017), which are those of gates; SRAM and wires shrink less"
    )
    assert all("at 7 nm 0.059 times as much by the area factors" in part.source for part in found.parts)
    native = area_report(under(table="horowitz45"))
    assert not any("Stillmaker" in text for text in (*native.notes, *(part.source for part in native.parts)))


@pytest.mark.parametrize(
    ("node", "note"),
    [
        ("", "area is at 45 nm: energy table 'mine' names no node_nm"),
        (
            "node_nm: 22",
            "area is at 45 nm: no area factor is known for 22 nm, the node of energy table 'mine' (known: 7, 10, 14, "
            "16, 20, 32, 45, 65, 90, 130 nm)",
        ),
    ],
)
def test_without_a_factor_it_stays_and_says_so(under, tmp_path, node, note):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN.format(node=node))
    found = area_report(under(table=str(path)))
    assert (found.node_nm, found.factor, found.notes[0]) == (45, 1.0, note)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_the_command_gives_both_figures_law_and_factor(project_root, tmp_path):
    text = (project_root / "configs" / "int8_ws.yaml").read_text()
    path = tmp_path / "seven.yaml"
    path.write_text(text.replace("table: horowitz45", "table: tpuv4i_7nm"))
    assert "tpuv4i_7nm" in path.read_text()
    page = run("area", path).stdout
    assert "modelled; 7 nm, scaled from 45 nm" in page
    native = area_report(load_config(project_root / "configs" / "int8_ws.yaml"))
    assert f"total {native.total_um2 * 0.059e-6:,.3f} mm2 at 7 nm" in page
    assert f"total {native.total_um2 * 1e-6:,.3f} mm2 at 45 nm" in page
    assert "times 0.059, by the area factors of Stillmaker and Baas (2017)" in page
    assert "TOPS/mm2 at 7 nm" in page
    document = json.loads(run("area", path, "--json").stdout)
    assert (document["node_nm"], document["scaling"]["factor"], document["scaling"]["from_node_nm"]) == (7, 0.059, 45)
    assert document["scaling"]["total_um2"] == pytest.approx(native.total_um2)
    plain = run("area", project_root / "configs" / "int8_ws.yaml")
    assert "at 45 nm" in plain.stdout
    assert "Stillmaker" not in plain.stdout
    assert json.loads(run("area", project_root / "configs" / "int8_ws.yaml", "--json").stdout)["scaling"] is None


def test_a_run_names_the_node_of_its_area(under, project_root):
    trace = accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(1)
    report = accelsim.simulate(under(table="tpuv4i_7nm"), trace, watch=False)
    assert report.area_node_nm == 7
    assert "Area of the logic (7 nm, scaled from 45 nm): 0.023 mm2" in " ".join(render_text(report).split())
    assert any(line.startswith("area is at 7 nm") for line in report.assumptions)
    assert accelsim.RunReport.from_json(report.to_json()) == report
    old = json.loads(accelsim.simulate(under(table="horowitz45"), trace, watch=False).to_json())
    assert old.pop("area_node_nm") == 45
    assert accelsim.RunReport.from_json(json.dumps(old | {"version": 1})).area_node_nm == 45


def test_the_laws_are_of_45_nm():
    assert load_area_table().node_nm == 45
    assert AREA_FROM_45[45] == 1.0
