"""Searches on a real small network: what they report is what a run gives, limits hold, and bad input is told."""

import csv
import json
import math
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import accelsim
from accelsim.cli import app
from accelsim.errors import SearchError
from accelsim.quantize.layers import Conv2d
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.network_file import load_network
from accelsim.quantize.requantizer import Requantizer
from accelsim.quantize.vector_layers import Vector
from accelsim.search.blackbox import search_blackbox
from accelsim.search.candidate import Widths, formats_of, split, uniform, verify
from accelsim.search.problem import Problem
from accelsim.search.program import Tie
from accelsim.search.run import Search, frame_of
from accelsim.search.sensitivity import hessian_sensitivities, measure_sensitivities, read_sensitivities
from accelsim.search.ties import depthwise_ties, input_ties, residual_ties

BITS = (3, 4, 8)


@pytest.fixture(scope="module")
def digits(project_root):
    return load_network(project_root / "traces" / "digits_cnn_float.npz").head(60)


@pytest.fixture(scope="module")
def serial(project_root):
    return accelsim.load_config(project_root / "configs" / "bitserial.yaml")


@pytest.fixture(scope="module")
def search(serial, digits):
    return Search(serial, digits, calibration=20, weight_bits=BITS, activation_bits=BITS)


def test_sensitivities_are_losses_of_runs(search, digits, serial):
    """One of them, by hand: only fc1's weights at 3 bits; divergence of softmaxes, less that of 8 bits everywhere."""
    first, _ = split(digits, 20)
    requantizer = Requantizer(first)

    def divergence(widths):
        trace = requantizer.trace(formats_of(widths))
        report = accelsim.simulate(serial, trace)
        last = trace.layers[-1]
        wanted = trace.reference(last.output).astype(float)
        found = trace.output_tensor(last, report.layers[-1].output_codes).dequantize()
        total = 0.0
        for one, other in zip(wanted, found, strict=True):
            p, q = (np.exp(row - row.max()) / np.exp(row - row.max()).sum() for row in (one, other))
            total += sum(float(a * math.log(a / b)) for a, b in zip(p, q, strict=True) if a > 0)
        return total / len(wanted)

    base = uniform(digits, 8)
    expected = divergence({**base, "fc1": Widths(3, 8)}) - divergence(base)
    row = next(r for r in search.sensitivities.rows if (r.layer, r.operand, r.bits) == ("fc1", "weight", 3))
    assert row.loss == pytest.approx(max(expected, 0), rel=1e-6, abs=1e-9) or row.loss > expected, "monotone"
    by_bits = [r.loss for r in search.sensitivities.rows if (r.layer, r.operand) == ("fc1", "weight")]
    assert by_bits == sorted(by_bits, reverse=True)
    assert by_bits[-1] == 0.0


def test_the_limit_holds_for_the_network_as_it_runs(search, serial):
    wide = search.uniform(8)
    for share in ("40%", "70%"):
        found = search.find({"energy": share})
        assert found.verified.energy_pj <= float(share[:-1]) / 100 * wide.verified.energy_pj * (1 + 1e-9)
        trace = search.requantizer.trace(formats_of(found.widths))
        report = accelsim.simulate(serial, trace)
        assert found.verified.accuracy == report.accuracy.simulated_accuracy
        assert found.verified.inputs == 40
        assert found.verified.energy_pj == pytest.approx(
            accelsim.simulate(serial, trace.head(1)).totals.total_energy_pj
        )
        assert found.verified.cycles == accelsim.simulate(serial, trace.head(1)).totals.total_cycles
    assert search.find({"energy": "100%"}).choice.loss <= search.find({"energy": "40%"}).choice.loss


def test_several_limits_hold_together(search):
    wide = search.uniform(8).verified
    found = search.find({"latency": 0.6 * wide.latency_us, "size": "70%", "bops": "50%"}).verified
    assert found.latency_us <= 0.6 * wide.latency_us
    assert found.size_bytes <= 0.7 * wide.size_bytes
    assert found.bops <= 0.5 * wide.bops


def test_a_front_falls_from_loss_to_cost(search):
    choices = search.problem.front("latency", 6)
    losses, costs = [c.loss for c in choices], [c.costs["latency"] for c in choices]
    assert len(choices) > 2
    assert losses == sorted(losses, reverse=True)
    assert costs == sorted(costs)
    frame = frame_of(search.front("size", 3))
    assert {"accuracy", "energy_pj", "conv1", "predicted_loss"} <= set(frame.columns)


def test_fixed_layers_stay(serial, digits, search):
    problem = Problem(search.table, search.sensitivities, fixed={"conv1": (8, 8), "fc2": (8, 4)})
    choice = problem.solve({"energy": "50%"})
    assert (choice.widths["conv1"], choice.widths["fc2"]) == ((8, 8), (8, 4))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"energy": 1.0}, "energy of at most 1 cannot be reached; the smallest that was found is"),
        ({"edp": "50%"}, "the product of two sums is no sum: limit both"),
        ({"power": "50%"}, "'power' is no cost that adds up over layers; use latency, energy, size, bops"),
        ({"energy": "half"}, "energy: limit 'half' is no number; give pJ, or a share such as 70%"),
        ({}, "no limit"),
    ],
)
def test_limits_that_cannot_be(search, limits, message):
    with pytest.raises(SearchError, match=message):
        search.find(limits)


def test_hessian_traces_weigh_the_error_of_weights(digits):
    first = digits.array_layers[0]
    traces = {layer.name: 2.0 for layer in digits.array_layers}
    found = hessian_sensitivities(digits, traces, [4, 8])
    weight = first.weight.astype(float)
    low = next(r.loss for r in found.rows if (r.layer, r.bits) == (first.name, 4))
    by_hand = 0.0
    for channel in weight:  # the best of the scales that clip, tried on a finer grid than the quantizer's
        best = math.inf
        for scale in np.abs(channel).max() / 7 * np.linspace(0.4, 1.2, 400):
            codes = np.clip(np.rint(channel / scale), -8, 7)
            best = min(best, float(((codes * scale - channel) ** 2).sum()))
        by_hand += best
    assert low == pytest.approx(2 * by_hand, rel=0.15)
    assert low >= 2 * by_hand * (1 - 1e-9)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "layer,bits\nx,4\n", "columns loss are missing"),
        ("a.csv", "layer,bits,loss\nx,four,1\n", "line 2: bits is 'four'"),
        ("a.csv", "layer,operand,bits,loss\nx,bias,4,1\n", "line 2: operand is 'bias'"),
        ("a.csv", "layer,bits,loss\n", "it has no rows"),
        ("a.json", "[1]", "a mapping of layers to finite numbers"),
        ("a.json", '{"conv1": 1, "conv3": 2}', "'conv3' is no layer with weights; did you mean 'conv"),
        ("a.json", "{", "is not JSON"),
    ],
)
def test_supplied_sensitivities_that_are_wrong(tmp_path, digits, name, text, message):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(SearchError, match=message):
        read_sensitivities(file, digits)


def test_a_missing_sensitivity_is_named(search, tmp_path):
    file = tmp_path / "some.csv"
    file.write_text("layer,bits,loss\nconv1,3,1\nconv1,4,0.5\nconv1,8,0\n")
    with pytest.raises(SearchError, match="9 are missing, the first is layer 'conv2', weights of 3 bits"):
        Problem(search.table, read_sensitivities(file))


def test_labels_are_needed_for_cross_entropy(digits, serial):
    blind = FloatNetwork("blind", digits.inputs, digits.layers)
    with pytest.raises(SearchError, match="has no labels; use measure kl or noise"):
        measure_sensitivities(Requantizer(blind), serial, measure="cross_entropy")


def test_ties_of_a_residual_block():
    """conv a feeds b and the shortcut s; b and s meet; d is depthwise, followed by p."""
    rng = np.random.default_rng(5)

    def conv(name, given, out, groups=1, kernel=1):
        meta = Conv2d(name=name, input=given, groups=groups, padding=((kernel // 2,) * 2,) * 2)
        return FloatLayer(meta, rng.normal(size=(out, kernel, kernel, 4 // groups)))

    layers = [
        conv("a", "input", 4), conv("b", "a", 4), conv("s", "a", 4),
        FloatLayer(Vector(name="sum", operator="add", inputs=("b", "s"))),
        conv("d", "sum", 4, groups=4, kernel=3), conv("p", "d", 4),
    ]  # fmt: skip
    network = FloatNetwork("block", rng.normal(size=(2, 5, 5, 4)), layers)
    names = [layer.name for layer in network.array_layers]
    assert names == ["a", "b", "s", "d", "p"]
    assert input_ties(network, names) == [Tie((1, 2), weights=False, activations=True)]
    assert residual_ties(network, names) == [Tie((1, 2), weights=True, activations=True)]
    assert depthwise_ties(network, names) == [Tie((3, 4), weights=True, activations=True)]


# -- black box --------------------------------------------------------------------------------------------------------


def small(digits):
    return Requantizer(digits.head(8), references=False)


def test_the_black_box_finds_what_enumeration_finds(serial, digits):
    """Only fc1's widths vary: 2 x 2 networks, all of which can be run."""
    fixed = dict.fromkeys(("conv1", "conv2", "fc2"), (8, 8))
    options = {"weight_bits": (2, 8), "activation_bits": (2, 8), "fixed": fixed}
    frame = search_blackbox(small(digits), serial, trials=40, population=4, **options)
    every = {f"{w}/{a}": verify(small(digits), serial, {**fixed, "fc1": (w, a)}) for w in (2, 8) for a in (2, 8)}
    assert set(frame["fc1"]) == set(every)
    for _, row in frame.iterrows():
        truth = every[row["fc1"]]
        assert (row["accuracy"], row["energy_pj"]) == (truth.accuracy, truth.energy_pj)
        beaten = any(
            v.accuracy >= truth.accuracy and v.energy_pj <= truth.energy_pj and v != truth for v in every.values()
        )
        assert not (row["on_front"] and beaten)
    assert frame["on_front"].any()


KILLED = """
import os, sys
import accelsim
from accelsim.quantize.network_file import load_network
from accelsim.quantize.requantizer import Requantizer
from accelsim.search.blackbox import search_blackbox
digits = load_network("traces/digits_cnn_float.npz").head(60)
def kill(done, count, name):
    if done == 3:
        os.kill(os.getpid(), 9)
search_blackbox(Requantizer(digits.head(8), references=False), accelsim.load_config("configs/bitserial.yaml"),
                trials=6, population=4, storage=sys.argv[1], progress=kill)
"""


def test_a_killed_search_goes_on(serial, digits, tmp_path, project_root):
    storage = tmp_path / "trials.db"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(storage)], cwd=project_root, check=False)
    assert killed.returncode == -9
    with sqlite3.connect(storage) as database:
        before = database.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()[0]
    database.close()
    assert before == 3
    ran = []
    options = {"trials": 6, "population": 4, "storage": storage}
    frame = search_blackbox(small(digits), serial, progress=lambda done, *_: ran.append(done), **options)
    assert len(frame) == 6
    assert ran == [4, 5, 6], "the first three are not run again"
    search_blackbox(small(digits), serial, progress=lambda done, *_: ran.append(done), **options)
    assert ran == [4, 5, 6], "nor is anything, when all is done"
    with pytest.raises(SearchError, match="holds trials of another search"):
        search_blackbox(small(digits), serial, weight_bits=(4, 8), **options)


def test_a_search_that_goes_on_measures_no_sensitivities(serial, digits, tmp_path, monkeypatch):
    """They are for what a search begins with: of a large network, they take longer than a trial by far."""
    options = {"calibration": 8, "weight_bits": [4, 8], "activation_bits": [8]}
    storage = tmp_path / "trials.db"
    begun = Search(serial, digits, **options).blackbox(2, "energy", {"energy": "95%"}, storage)

    def measured(*_, **__):
        pytest.fail("measures")

    monkeypatch.setattr("accelsim.search.run.measure_sensitivities", measured)
    gone_on = Search(serial, digits, **options).blackbox(3, "energy", {"energy": "95%"}, storage)
    assert len(begun) >= 1
    assert len(gone_on) >= 1
    blind = FloatNetwork("blind", digits.inputs, digits.layers)
    with pytest.raises(SearchError, match="has no labels, so there is no accuracy to search by"):
        Search(serial, blind, **options).blackbox(2, "energy", {})


def test_a_file_that_is_no_storage(serial, digits, tmp_path):
    (tmp_path / "text.db").write_text("no database\n" * 100)
    with pytest.raises(SearchError, match=r"text\.db: cannot be used as a file of trials: it is no SQLite database"):
        search_blackbox(small(digits), serial, trials=1, storage=tmp_path / "text.db")
    assert (tmp_path / "text.db").read_text() == "no database\n" * 100
    with pytest.raises(SearchError, match="in a folder that exists"):
        search_blackbox(small(digits), serial, trials=1, storage=tmp_path / "none" / "trials.db")


# -- the command ------------------------------------------------------------------------------------------------------


def run(project_root, *words):
    places = [project_root / "configs/bitserial.yaml", project_root / "traces/digits_cnn_float.npz"]
    return CliRunner().invoke(app, ["search", *map(str, places), *map(str, words)])


def test_the_command_reports_a_choice(project_root, tmp_path, search):
    search.sensitivities.frame().to_csv(tmp_path / "s.csv", index=False)
    done = run(
        project_root, "--calibration", "200", "--energy", "60%", "--weight-bits", "3,4,8", "--activation-bits", "3,4,8",
        "--sensitivities", tmp_path / "s.csv", "--fix", "fc2=8", "-o", tmp_path / "points.csv",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    formats = done.stdout.split("formats: ")[1].strip()
    assert formats.endswith("fc2:int8")
    found, wide = csv.DictReader((tmp_path / "points.csv").read_text().splitlines())
    assert (found["label"], wide["label"], found["fc2"], found["inputs"]) == ("found", "8/8", "8/8", "40")
    assert float(found["energy_pj"]) <= 0.6 * float(wide["energy_pj"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to search for"),
        (["--base", "int8", "--size", "50%"], "--base is the base of --formats LIST; leave it out"),
        (["--formats", "mx6", "--size", "50%", "--bops", "50%"], "named formats, and --bops is of integers' widths"),
        (["--formats", "mx6", "--front", "bops"], "named formats, and --front bops is of integers' widths"),
        (["--formats", "mx6", "--size", "50%", "--trials", "9"], "named formats, and --trials is of integers' widths"),
        (["--formats", "mx6", "--size", "50%", "--weight-bits", "4"], "and --weight-bits is of integers' widths"),
        (
            ["--formats", "mx6", "--size", "50%", "--sensitivities", "s.csv"],
            "and --sensitivities is of integers' widths",
        ),
        (["--formats", "mx6,,int4", "--size", "50%"], "--formats: '' is not FORMAT or W/A, such as mx6 or int4/int8"),
        (["--formats", "mx6/", "--size", "50%"], "--formats: 'mx6/' is not FORMAT or W/A"),
        (
            ["--formats", "mx7", "--size", "50%"],
            "formats: 'mx7' is no format of operands: unknown number format 'mx7'",
        ),
        (["--formats", "int8", "--size", "50%"], "only int8, which is the base; name one more to choose"),
        (["--formats", "mx6", "--size", "50%", "--fix", "mx6"], "--fix 'mx6' is not LAYER=FORMAT or LAYER=W/A"),
        (
            ["--formats", "mx6", "--size", "50%", "--fix", "conv3=mx6"],
            "'conv3' is no layer with formats; did you mean 'conv",
        ),
        (
            ["--formats", "mx6", "--size", "50%", "--fix", "fc1=mx9"],
            "fc1 has mx9, which is not among the formats to choose: int8, mx6",
        ),
        (["--formats", "mx6", "--size", "50%", "--tie", "input"], "ties 'input' are unknown; did you mean 'inputs'?"),
        (
            ["--front", "energy", "--size", "half"],
            "size: limit 'half' is no number; give bytes, or a share such as 70%",
        ),
        (["--front", "energy", "--size", "1"], "size of at most 1 cannot be reached; the smallest that"),
        (["--energy", "50%", "--storage", "t.db"], "--storage keeps the trials"),
        (["--energy", "50%", "--fix", "conv1"], "--fix 'conv1' is not LAYER=BITS"),
        (["--energy", "50%", "--tie", "input"], "ties 'input' are unknown; did you mean 'inputs'?"),
        (["--energy", "50%", "-o", "points.txt"], "is written as .csv"),
        (["--energy", "50%", "--sensitivities", "none.csv"], "none.csv: cannot be read: No such file"),
    ],
)
def test_one_clear_message(project_root, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    done = run(project_root, "--calibration", "20", *words)
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, []), done.output
    assert message in " ".join(done.stderr.split())


def test_the_command_traces_a_front_within_limits(project_root, tmp_path, search):
    search.sensitivities.frame().to_csv(tmp_path / "s.csv", index=False)
    done = run(
        project_root, "--calibration", "200", "--front", "energy", "--points", "4", "--size", "60%", "--latency", "80%",
        "--weight-bits", "3,4,8", "--activation-bits", "3,4,8", "--sensitivities", tmp_path / "s.csv",
        "-o", tmp_path / "points.csv",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    *found, wide = csv.DictReader((tmp_path / "points.csv").read_text().splitlines())
    assert len(found) > 2
    for each in found:
        assert float(each["size_bytes"]) <= 0.6 * float(wide["size_bytes"])
        assert float(each["latency_us"]) <= 0.8 * float(wide["latency_us"])
    losses = [float(each["predicted_loss"]) for each in found]
    assert losses == sorted(set(losses), reverse=True)


def test_all_inputs_for_calibration_leave_none(project_root):
    done = run(project_root, "--calibration", "240", "--energy", "50%")
    assert done.exit_code == 2
    assert "240 of 240 inputs were asked for calibration; use 1 to 239" in " ".join(done.stderr.split())


def test_json_of_traces_by_the_command(project_root, tmp_path, digits):
    (tmp_path / "t.json").write_text(json.dumps({layer.name: 1.0 for layer in digits.array_layers}))
    done = run(
        project_root, "--calibration", "230", "--size", "60%", "--weight-bits", "4,8", "--activation-bits", "8",
        "--sensitivities", tmp_path / "t.json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "uniform 8/8" in done.stdout
