"""Pictures show the numbers of their reports: every bar's length, every point, the labels and units."""

import json
import math
import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from typer.testing import CliRunner

import accelsim
from accelsim import cli, estimate, load_trace, plots, simulate
from accelsim.actions import Action
from accelsim.config.loader import parse_config
from accelsim.errors import ReportError
from accelsim.estimation import network_shapes
from accelsim.plots.roofline import bandwidth_bytes_per_s, dram_bytes
from accelsim.report.files import save_report

mpl.use("Agg")


@pytest.fixture(scope="module")
def runs(project_root):
    def run(config, trace):
        return accelsim.simulate(
            accelsim.load_config(project_root / "configs" / f"{config}.yaml"),
            accelsim.load_trace(project_root / "traces" / f"{trace}.npz").head(2),
        )

    return [
        run("int8_ws", "digits_cnn_int8"),
        run("int8_os", "digits_cnn_int8"),
        run("int4_vsq", "digits_cnn_int4_vsq"),
    ]


@pytest.fixture
def axes():
    return plots.new_figure((8, 4))[1]


def stacked(axes, horizontal=True):
    """{label: lengths of its bars}, and that each bar starts where the one before it ended."""
    ends, sizes = {}, {}
    for container in axes.containers:
        lengths = []
        for place, bar in enumerate(container.patches):
            start, length = (bar.get_x(), bar.get_width()) if horizontal else (bar.get_y(), bar.get_height())
            assert start == pytest.approx(ends.get(place, 0.0))
            ends[place] = start + length
            lengths.append(length)
        sizes[container.get_label()] = lengths
    return sizes


UNITS = {"pJ": 1.0, "nJ": 1e3, "µJ": 1e6, "mJ": 1e9}


def unit_in(label):
    """pJ in the unit that an axis label names."""
    return next(UNITS[word] for word in label.replace(",", " ").split() if word in UNITS)


def test_energy_of_layers_is_drawn_as_it_is_in_the_report(runs, axes):
    plots.energy_breakdown(runs[0], axes)
    scale = unit_in(axes.get_xlabel())
    drawn = stacked(axes)
    for component, energies in drawn.items():
        assert [energy * scale for energy in energies] == pytest.approx(
            [layer.energy_pj[component] for layer in runs[0].layers]
        )
    total = sum(sum(energies) for energies in drawn.values()) * scale
    assert total == pytest.approx(runs[0].totals.total_energy_pj)
    assert [text.get_text() for text in axes.get_yticklabels()] == [layer.name for layer in runs[0].layers]
    assert "int8_ws" in axes.get_title()
    assert "horowitz45" in axes.get_xlabel()


def test_energy_of_several_runs_is_that_of_an_inference(runs, axes):
    plots.energy_breakdown(runs, axes)
    scale = unit_in(axes.get_xlabel())
    drawn = stacked(axes)
    sums = np.sum(list(drawn.values()), axis=0) * scale
    assert sums == pytest.approx([report.totals.energy_per_inference_pj for report in runs])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["int8_ws", "int8_os", "int4_vsq"]


def test_cycles_are_drawn_by_cause(runs, axes):
    plots.cycle_breakdown(runs[1], axes)
    drawn = stacked(axes)
    assert "compute" in drawn
    assert "drain" in drawn
    for cause, cycles in drawn.items():
        assert cycles == [layer.cycles[cause] for layer in runs[1].layers]
    assert sum(map(sum, drawn.values())) == runs[1].totals.total_cycles


def test_runs_that_share_configuration_and_trace_are_still_told_apart(runs, axes):
    plots.cycle_breakdown([runs[0], runs[0]], axes)
    same = "int8_ws\ndigits_cnn_int8"
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"{same}\nrun 1", f"{same}\nrun 2"]


def test_runs_that_differ_in_prices_only_are_told_apart_by_them(runs, axes):
    plots.energy_breakdown([runs[0], replace(runs[0], energy_table="mine")], axes)
    same = "int8_ws\ndigits_cnn_int8"
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"{same}\nhorowitz45", f"{same}\nmine"]


def test_the_user_may_name_the_runs(runs, axes):
    plots.energy_by_width(runs, axes, labels=["tall", "wide", "narrow"])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["4.25\nnarrow", "8\ntall", "8\nwide"]
    for draw in (plots.energy_breakdown, plots.cycle_breakdown, plots.energy_by_width):
        with pytest.raises(ReportError, match="1 labels for 3 reports"):
            draw(runs, axes, labels=["tall"])


def test_utilization_of_all_pes_adds_up_to_the_products(runs, axes):
    """A PE is busy for every lane step of each of its outputs, those of zero-point sums included."""
    for report in runs:
        products, lanes, pes = 0, report.config["array"]["lanes"], plots.pe_utilization(report).size
        for layer in report.layers:
            shape = layer.shape
            own = shape.batch * shape.m * math.ceil(shape.k / lanes) * shape.n
            assert plots.pe_utilization(report, layer.name).mean() == pytest.approx(own / pes / layer.total_cycles)
            products += own
        share = plots.pe_utilization(report)
        assert share.shape == (report.config["array"]["rows"], report.config["array"]["cols"])
        assert share.mean() == pytest.approx(products / pes / report.totals.total_cycles)
        assert report.totals.utilization <= share.mean() * (1 + 1e-12)  # sums of floats, in two orders
    plots.utilization_map(runs[0], axes, "fc2")
    assert np.array_equal(axes.images[0].get_array(), 100 * plots.pe_utilization(runs[0], "fc2"))
    assert "layer fc2" in axes.get_title()


def test_a_ragged_layer_leaves_the_far_corner_idle(runs):
    """fc2 has 10 outputs on 16 columns of a weight-stationary array: six columns never work."""
    share = plots.pe_utilization(runs[0], "fc2")
    assert (share[:, 10:] == 0).all()
    assert (share[:, :10] > 0).all()


def test_roof_points_by_hand(runs):
    report = runs[0]
    bandwidth = bandwidth_bytes_per_s(report)
    assert bandwidth == pytest.approx(12.8e9)  # DDR3-1600, 64 bits
    for point, layer in zip(plots.roof_points(report), report.layers, strict=True):
        traffic = (
            layer.actions[Action("dram", "dram_read_ddr3")] + layer.actions[Action("dram", "dram_write_ddr3")]
        ) / 8
        assert dram_bytes(layer) == traffic
        assert point.intensity == pytest.approx(2 * layer.macs / traffic)
        assert point.attained == pytest.approx(2 * layer.macs * report.clock_mhz * 1e6 / layer.total_cycles)
        assert point.peak == 2 * 256 * 700e6
        assert point.roof == pytest.approx(min(point.peak, point.intensity * bandwidth))
        assert point.attained <= point.roof * (1 + 1e-9)
        assert point.bound == ("memory" if point.intensity * bandwidth < point.peak else "compute")


def test_several_cores_have_the_roof_of_all_of_them(runs, project_root):
    values = dict(runs[0].config) | {"cores": {"count": 2, "split": "layers"}}
    trace = load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(4)
    report = simulate(parse_config(values, source="a test"), trace)
    for point, layer in zip(plots.roof_points(report), report.layers, strict=True):
        assert point.peak == 2 * 2 * 256 * 700e6
        assert point.attained == pytest.approx(point.peak * layer.utilization)
        assert (plots.pe_utilization(report, layer.name) <= 1).all()


def test_the_roofline_draws_its_points(runs, axes):
    plots.roofline(runs[0], axes)
    drawn = {
        (float(x), float(y))
        for line in axes.lines
        if line.get_linestyle() == "None"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }
    points = [point for point in plots.roof_points(runs[0]) if math.isfinite(point.intensity)]
    assert drawn == {(point.intensity, point.attained / 1e9) for point in points}
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert "GOP/s" in axes.get_ylabel()


def test_names_of_many_layers_do_not_lie_on_one_another(project_root, axes):
    dram = {"kind": "lpddr4", "timing": "preset"}
    array = {"rows": 32, "cols": 32, "dataflow": "ws", "double_buffered": True}
    config = parse_config({"name": "edge", "clock_mhz": 1000, "array": array, "dram": dram}, source="a test")
    report = estimate(config, network_shapes(project_root / "traces" / "shapes" / "resnet50.csv"))
    plots.roofline(report, axes)
    known = {layer.name for layer in report.layers}
    names = [text for text in axes.texts if text.get_text().split(", +")[0] in known]
    assert 3 <= len(names) < len(report.layers) == 54
    axes.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in names]
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    low, high = axes.get_ylim()
    assert low < next(text.xy[1] for text in axes.texts if text.get_text().startswith("DRAM")) < high


def test_energy_against_width_is_sorted_and_adds_up(runs, axes):
    plots.energy_by_width(runs, axes)
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels == ["4.25\nint4_vsq", "8\nint8_ws", "8\nint8_os"]
    sums = np.sum(list(stacked(axes, horizontal=False).values()), axis=0) * unit_in(
        "energy, " + axes.get_ylabel().split(", ")[1]
    )
    order = [runs[2], runs[0], runs[1]]
    assert sums == pytest.approx([report.totals.energy_per_inference_pj for report in order])
    second = axes.get_figure().axes[-1]
    assert list(second.lines[0].get_ydata()) == [100 * report.accuracy.simulated_accuracy for report in order]


def test_no_report_is_an_error(axes):
    with pytest.raises(ReportError, match="needs at least one report"):
        plots.energy_breakdown([], axes)


@pytest.fixture(scope="module")
def timeline_file(project_root, tmp_path_factory):
    home = tmp_path_factory.mktemp("timeline")
    text = (project_root / "configs" / "int8_ws.yaml").read_text()
    (home / "machine.yaml").write_text(re.sub(r"dram: \{.*\}", "dram: {kind: lpddr4, timing: preset}", text))
    target = home / "timeline.json"
    trace = project_root / "traces" / "digits_cnn_int8.npz"
    args = ["run", str(home / "machine.yaml"), str(trace), "--inputs", "1", "--timeline", str(target)]
    assert CliRunner().invoke(cli.app, args, catch_exceptions=False).exit_code == 0
    return target


def test_a_timeline_draws_every_slice_in_its_row(timeline_file, axes):
    document = plots.load_timeline(timeline_file)
    plots.timeline(document, axes)
    slices = [event for event in document["traceEvents"] if event["ph"] == "X"]
    names = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in document["traceEvents"]
        if event["name"] == "thread_name"
    }
    rows = [text.get_text() for text in axes.get_yticklabels()]
    assert sorted(rows) == sorted(names.values())
    drawn = {rows[place]: collection for place, collection in enumerate(axes.collections)}
    for track, name in names.items():
        own = [event for event in slices if (event["pid"], event["tid"]) == track]
        boxes = [path.get_extents() for path in drawn[name].get_paths()]
        assert [box.x0 for box in boxes] == pytest.approx([event["ts"] for event in own])
        assert [box.width for box in boxes] == pytest.approx([event["dur"] for event in own])
    meta = document["otherData"]
    assert axes.get_xlim()[1] == pytest.approx(meta["makespan_cycles"] / meta["clock_mhz"])
    assert "µs" in axes.get_xlabel()


def test_the_command_draws_a_timeline_and_refuses_what_is_none(timeline_file, tmp_path):
    target = tmp_path / "timeline.png"
    assert invoke("timeline", timeline_file, "-o", target).exit_code == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    for text, message in (("{", "not JSON"), ("{}", "not a timeline")):
        (tmp_path / "other.json").write_text(text)
        result = invoke("timeline", tmp_path / "other.json", "-o", target)
        assert result.exit_code == 2
        assert message in result.stderr


def damaged(document, how):
    events = document["traceEvents"]
    first = next(event for event in events if event["ph"] == "X")
    if how == "a time that is text":
        first["ts"] = "a"
    elif how == "an event without a length":
        del first["dur"]
    elif how == "a nameless track":
        next(event for event in events if event["name"] == "thread_name")["args"] = {}
    elif how == "no events":
        del document["traceEvents"]
    else:
        document["otherData"]["makespan_cycles"] = None
    return document


@pytest.mark.parametrize(
    "how", ["a time that is text", "an event without a length", "a nameless track", "no events", "no makespan"]
)
def test_a_damaged_timeline_is_one_message(timeline_file, tmp_path, how):
    file = tmp_path / "damaged.json"
    file.write_text(json.dumps(damaged(json.loads(timeline_file.read_text()), how)))
    result = invoke("timeline", file, "-o", tmp_path / "x.png")
    assert result.exit_code == 2
    assert "a damaged timeline" in result.stderr
    assert not (tmp_path / "x.png").exists()


# -- the command ------------------------------------------------------------------------------------------------------


def invoke(*args):
    return CliRunner().invoke(cli.app, ["plot", *map(str, args)], catch_exceptions=False)


@pytest.fixture(scope="module")
def folders(runs, tmp_path_factory):
    home = tmp_path_factory.mktemp("reports")
    for place, report in enumerate(runs):
        save_report(report, home / str(place))
    return [home / str(place) for place in range(len(runs))]


@pytest.mark.parametrize("picture", ["energy", "cycles", "roofline", "utilization", "widths"])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_every_picture_is_written(folders, tmp_path, picture, suffix):
    target = tmp_path / f"picture.{suffix}"
    chosen = folders[:1] if picture in ("roofline", "utilization") else folders
    result = invoke(picture, *chosen, "-o", target)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(target)
    head = target.read_bytes()[:200]
    assert head.startswith(b"\x89PNG") if suffix == "png" else b"<svg" in target.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["energy", "0", "-o", "x.gif"], "pictures are written as .png, .svg, .pdf"),
        (["energy", "0", "-o", "nowhere/x.png"], "there is no folder"),
        (["roofline", "0", "1", "-o", "x.png"], "'roofline' is of one report; found 2"),
        (["cycles", "0", "-o", "x.png", "--layer", "fc2"], "--layer is for the picture 'utilization'"),
        (["utilization", "0", "-o", "x.png", "--layer", "fc3"], "no layer 'fc3'"),
        (["energy", "missing", "-o", "x.png"], "missing: there is no such folder or file; 'accelsim run"),
        (["energy", ".", "-o", "x.png"], ". has no report.json; 'accelsim run CONFIG TRACE --out DIR' writes"),
        (["timeline", "0", "-o", "x.png"], "a folder; a timeline is the file of"),
    ],
)
def test_mistakes_are_one_message_and_no_file(folders, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    result = invoke(*(str(folders[int(arg)]) if arg.isdigit() else arg for arg in args))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_runs_by_their_folders_where_their_names_are_the_same(folders, tmp_path):
    for chosen, words in (
        ([folders[0], folders[0]], ["int8_ws", str(folders[0])]),
        (folders[:2], ["int8_ws", "int8_os"]),
    ):
        target = tmp_path / "picture.svg"
        assert invoke("cycles", *chosen, "-o", target).exit_code == 0
        drawn = re.findall(
            r"<!-- (.*) -->", target.read_text()
        )  # matplotlib writes texts as outlines, and what they say
        assert words[1] in drawn or plots.common.shortened(words[1]) in drawn
        assert ("int8_ws" in drawn) == (len(set(chosen)) > 1)


@pytest.mark.parametrize("picture", ["energy", "roofline"])
def test_the_report_alone_is_enough(runs, folders, tmp_path, picture):
    """What `run --json` prints, or report.json itself."""
    (tmp_path / "run.json").write_text(runs[0].to_json())
    for given in (tmp_path / "run.json", folders[0] / "report.json"):
        assert invoke(picture, given, "-o", tmp_path / "x.svg").exit_code == 0
