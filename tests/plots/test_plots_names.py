"""Pictures stay readable: many layers, long names, dark paper."""

import sys
from dataclasses import replace
from xml.sax.saxutils import escape

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import accelsim
from accelsim import cli, plots
from accelsim.energy.table import load_table, table_yaml
from accelsim.html import html_report
from accelsim.plots.common import LONGEST_NAME, shortened
from accelsim.plots.point_names import name_points

mpl.use("Agg")


@pytest.fixture(scope="module")
def report(project_root):
    trace = accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(2)
    return accelsim.simulate(accelsim.load_config(project_root / "configs" / "int8_ws.yaml"), trace)


@pytest.fixture
def axes():
    return plots.new_figure((8, 4))[1]


def test_a_long_name_keeps_both_ends():
    name = "model.block_12." + "x" * 60 + ".BiasAdd"
    assert len(shortened(name)) == LONGEST_NAME
    assert shortened(name).startswith("model.block_12.")
    assert shortened(name).endswith(".BiasAdd")
    assert shortened("conv1") == "conv1"
    assert shortened("x" * LONGEST_NAME) == "x" * LONGEST_NAME


def log_axes():
    axes = plots.new_figure((6, 4))[1]
    axes.set(xscale="log", yscale="log", xlim=(1, 1000), ylim=(1, 1000))
    return axes


@given(
    st.lists(
        st.tuples(st.floats(1, 1000), st.floats(1, 1000), st.text("abcdefgh", min_size=1, max_size=60)), max_size=25
    )
)
def test_names_cover_neither_each_other_nor_points_and_stay_inside(points):
    axes = log_axes()
    left_out = name_points(axes, points)
    texts = list(axes.texts)
    boxes = [text.get_window_extent() for text in texts]
    frame = axes.get_window_extent()
    centres = [axes.transData.transform(point[:2]) for point in points]
    for place, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[place + 1 :])
        assert not any(box.contains(*centre) for centre in centres)
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert frame.y0 <= box.y0
        assert box.y1 <= frame.y1
    named = [text.get_text().rpartition(", +") for text in texts]
    together = sum(int(more) + 1 if plus else 1 for _, plus, more in named)
    assert together + left_out == len(points)


def test_points_at_one_place_share_a_name_and_those_apart_have_their_own():
    axes = log_axes()
    assert name_points(axes, [(10, 10, "a"), (10, 10, "b"), (100, 100, "c"), (10, 10, "d")]) == 0
    assert [text.get_text() for text in axes.texts] == ["a, +2", "c"]


def test_what_has_no_room_is_counted():
    axes = log_axes()
    crowd = [(10 * 1.05**place, 10, "a_long_name_of_a_layer") for place in range(30)]
    left_out = name_points(axes, crowd)
    assert 0 < left_out < 30
    assert axes.texts[0].get_text().startswith("a_long_name")  # the first one chose first


def test_the_roofline_says_how_many_names_are_missing_and_why_a_point_is_above(report, axes, monkeypatch):
    plots.roofline(report, axes)
    assert not any("roof:" in text.get_text() or "no room" in text.get_text() for text in axes.texts)
    lifted = [replace(point, attained=point.roof * 1.1) for point in plots.roof_points(report)]
    monkeypatch.setattr(sys.modules["accelsim.plots.roofline"], "roof_points", lambda _: lifted)
    tiny = plots.new_figure((2.2, 1.4))[1]
    plots.roofline(report, tiny)
    note = tiny.texts[-1].get_text()
    assert "above the roof: part of a layer's traffic takes the time of the layer before or after it" in note
    assert "no room for the names of" in note


def test_bars_fill_the_picture_whatever_their_number(report, axes):
    plots.energy_breakdown(report, axes)
    assert axes.get_ylim() == (3.5, -0.5)  # half a bar around four
    plots.cycle_breakdown(report, axes)
    axes.get_figure().canvas.draw()
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert any(text.endswith(" k") for text in ticks)


def visible(color, paper):
    """Whether a reader can see a colour on the paper: WCAG's contrast of 3 for graphics."""

    def luminance(one):
        parts = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in mpl.colors.to_rgb(one)
        ]
        return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))

    low, high = sorted((luminance(color), luminance(paper)))
    return (high + 0.05) / (low + 0.05) >= 3


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_lines_are_seen_on_light_paper_and_on_dark(report, style):
    with matplotlib.style.context(style):
        drawn = []
        for draw in (plots.roofline, plots.energy_by_width):
            figure, axes = plots.new_figure((8, 4))
            draw(report, axes)
            drawn += [line for each in figure.axes for line in each.lines]
            drawn += axes.texts
        paper = mpl.rcParams["axes.facecolor"]
        assert len(drawn) > 6
        assert all(visible(each.get_color(), paper) for each in drawn)
    for color in plots.common.COMPONENT_COLORS.values():
        assert visible(color, "black")


def timeline_of(layers, *, long=100.0, short=1.0):
    """A document with one core, on which every layer works in turn, the first one for long."""
    events = [{"ph": "M", "name": "thread_name", "pid": 0, "tid": 0, "args": {"name": "core 0"}}]
    now = 0.0
    for place, layer in enumerate(layers):
        size = long if place == 0 else short
        events.append(
            {
                "ph": "X",
                "name": "compute",
                "cat": "tile",
                "pid": 0,
                "tid": 0,
                "ts": now,
                "dur": size,
                "args": {"layer": layer},
            }
        )
        now += size
    return {"otherData": {"clock_mhz": 1.0, "makespan_cycles": now}, "traceEvents": events[:1] + events[:0:-1]}


def test_a_timeline_names_what_is_wide_enough_and_lists_layers_in_time(axes):
    layers = [f"layer{place}" for place in range(20)]
    plots.timeline(timeline_of(layers), axes)  # whose events are not in time's order
    assert [text.get_text() for text in axes.texts] == ["layer0"]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == [*layers[:16], "and 4 more layers,\nin the same colours again", "waits"]


def test_layers_by_turns_on_one_core_are_not_named_across_each_other(axes):
    document = timeline_of(["a", "b", "a", "b"], short=100.0)
    plots.timeline(document, axes)
    assert [text.get_text() for text in axes.texts] == []


ODD = r"a $\frac$ [/b] :cat: <b>"


def test_names_are_drawn_as_they_are_whatever_is_in_them(report, tmp_path):
    """No formula of a dollar, on paper and on the page."""
    odd = replace(report, config_name=ODD, energy_table=ODD)
    document = timeline_of(["conv1"])
    document["otherData"]["title"] = ODD
    for place, draw in enumerate(
        (
            lambda axes: plots.energy_breakdown(odd, axes),
            lambda axes: plots.energy_breakdown([odd, replace(odd, energy_table="other")], axes),
            lambda axes: plots.cycle_breakdown(odd, axes),
            lambda axes: plots.energy_by_width(odd, axes),
            lambda axes: plots.energy_by_width([odd, odd], axes, labels=[ODD, "$5"]),
            lambda axes: plots.roofline(odd, axes),
            lambda axes: plots.utilization_map(odd, axes),
            lambda axes: plots.timeline(document, axes),
            lambda axes: plots.price_by_width(replace(load_table("horowitz45"), name=ODD), axes),
        )
    ):
        figure, axes = plots.new_figure((6, 3))
        draw(axes)
        with mpl.rc_context({"svg.fonttype": "none"}):
            text = plots.save_figure(figure, tmp_path / f"{place}.svg").read_text()
        assert escape(ODD) in text
    assert escape(ODD) in html_report(odd).split("<svg")[1]


@pytest.mark.parametrize("command", ["area", "energy", "estimate", "plan"])
def test_names_are_printed_as_they_are_whatever_is_in_them(project_root, tmp_path, command):
    """No style of a bracket, no picture of a word between colons."""
    text = (project_root / "configs" / "int8_ws.yaml").read_text()
    (tmp_path / "odd.yaml").write_text(text.replace("name: int8_ws", f"name: '{ODD}'"))
    (tmp_path / "table.yaml").write_text(table_yaml("horowitz45").replace("name: horowitz45", f"name: '{ODD}'"))
    machine, trace = tmp_path / "odd.yaml", project_root / "traces" / "digits_cnn_int8.npz"
    args = {
        "area": [machine],
        "energy": [tmp_path / "table.yaml"],
        "estimate": [machine, trace],
        "plan": [machine, trace],
    }
    done = CliRunner().invoke(cli.app, [command, *map(str, args[command])], catch_exceptions=False)
    assert done.exit_code == 0
    assert ODD in done.stdout


@pytest.mark.parametrize("network", ["sum", "move"])
def test_networks_without_products_or_without_any_work_have_pictures_too(project_root, tmp_path, monkeypatch, network):
    """Warnings are errors here: a legend of nothing, an axis from 0 to 0."""
    monkeypatch.chdir(tmp_path)
    int8, builder = accelsim.formats.get("int8"), accelsim.TraceBuilder(network)
    x = builder.input("x", int8.quantize([[1.0, -2.0]], scale=0.5))
    if network == "sum":
        builder.vector("y", "add", [x, x], output="int8", scale=0.5, attributes={"rule": "tflite"})
    else:
        builder.vector("y", "reshape", [x], output="int8", scale=0.5, attributes={"shape": [1, 2, 1]})
    builder.save("net.npz")
    machine = str(project_root / "configs" / "int8_ws.yaml")
    options = ["--out", "run", "--html", "run.html", "--timeline", "run.json"]
    assert CliRunner().invoke(cli.app, ["run", machine, "net.npz", *options], catch_exceptions=False).exit_code == 0
    page = (tmp_path / "run.html").read_text()
    assert "TOPS/W" not in page
    assert "no layer has both products and DRAM traffic" in page
    for picture in ("energy", "cycles", "roofline", "utilization", "widths", "timeline"):
        args = ["plot", picture, "run.json" if picture == "timeline" else "run", "-o", f"{picture}.png"]
        assert CliRunner().invoke(cli.app, args, catch_exceptions=False).exit_code == 0
        assert (tmp_path / f"{picture}.png").stat().st_size > 0


@pytest.mark.parametrize("shape", [(2, 16), (16, 16), (16, 2)])
def test_the_scale_of_a_wide_array_lies_below_it(report, monkeypatch, shape):
    monkeypatch.setattr(sys.modules["accelsim.plots.utilization"], "pe_utilization", lambda *_: np.ones(shape))
    figure, axes = plots.new_figure((7, 5))
    plots.utilization_map(report, axes)
    array, scale = (each.get_position() for each in figure.axes)
    assert (scale.y1 < array.y0) == (shape == (2, 16))
    assert (scale.x0 > array.x1) == (shape != (2, 16))
