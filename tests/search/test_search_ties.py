"""What shares a width: by residual additions, by Hessian traces that know weights alone; and contradictions."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import accelsim
import accelsim.progress
from accelsim.cli import app
from accelsim.errors import SearchError
from accelsim.quantize.layers import Conv2d
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.network_file import load_network
from accelsim.quantize.requantizer import Requantizer
from accelsim.quantize.vector_layers import Vector
from accelsim.search.blackbox import search_blackbox
from accelsim.search.candidate import Verified
from accelsim.search.costs import cost_table
from accelsim.search.problem import Problem
from accelsim.search.program import Tie
from accelsim.search.run import Found, Search, frame_of
from accelsim.search.sensitivity import (
    Sensitivities,
    Sensitivity,
    hessian_sensitivities,
    measure_sensitivities,
    read_sensitivities,
)
from accelsim.search.ties import residual_ties

BITS = (4, 8)


@pytest.fixture(scope="module")
def digits(project_root):
    return load_network(project_root / "traces" / "digits_cnn_float.npz").head(30)


@pytest.fixture(scope="module")
def serial(project_root):
    return accelsim.load_config(project_root / "configs" / "bitserial.yaml")


@pytest.fixture(scope="module")
def traces(digits):
    return hessian_sensitivities(digits, {"conv1": 8.0, "conv2": 2.0, "fc1": 0.5, "fc2": 1.0}, BITS)


@pytest.fixture(scope="module")
def table(serial, project_root):
    trace = accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(1)
    return cost_table(serial, trace, BITS, BITS)


def chained(sums, between=()):
    """Convolutions a, b, c, d, e of one shape, each of which takes the input, and vector operators."""
    rng = np.random.default_rng(1)
    made = [
        FloatLayer(Conv2d(name=name, input="input", padding=((0, 0), (0, 0))), rng.normal(size=(3, 1, 1, 3)))
        for name in "abcde"
    ]
    made += [FloatLayer(Vector(name=name, operator=operator, inputs=inputs)) for name, operator, inputs in between]
    made += [FloatLayer(Vector(name=name, operator="add", inputs=inputs)) for name, inputs in sums]
    return FloatNetwork("chain", rng.normal(size=(2, 4, 4, 3)), made)


@pytest.mark.parametrize(
    ("sums", "between", "groups"),
    [
        ([("s", ("a", "b")), ("t", ("s", "c"))], [], [(0, 1, 2)]),
        ([("s", ("a", "b")), ("t", ("c", "d")), ("u", ("s", "t"))], [], [(0, 1, 2, 3)]),
        ([("s", ("a", "b")), ("t", ("s", "c")), ("u", ("t", "d"))], [], [(0, 1, 2, 3)]),
        ([("s", ("a", "b")), ("t", ("c", "d"))], [], [(0, 1), (2, 3)]),
        ([("s", ("a", "b")), ("t", ("b", "c"))], [], [(0, 1, 2)]),
        ([("s", ("a", "input")), ("t", ("s", "b"))], [], [(0, 1)]),
        ([("s", ("p", "b"))], [("p", "clip", ("a",))], [(0, 1)]),
    ],
)
def test_layers_that_meet_in_a_chain_of_additions_are_tied(sums, between, groups):
    """By hand: a residual stream a + b, + c, + d has one width, so all that are added to it have it."""
    network = chained(sums, between)
    found = residual_ties(network, list("abcde"))
    assert found == [Tie(group, weights=True, activations=True) for group in groups]


# -- Hessian traces ---------------------------------------------------------------------------------------------------


def test_traces_give_inputs_the_width_of_weights(serial, digits, traces):
    """Which say nothing of inputs: free of each other, the inputs would all get the fewest bits."""
    options = {"calibration": 10, "weight_bits": BITS, "activation_bits": BITS, "sensitivities": traces}
    choice = Search(serial, digits, **options).choose({"bops": "60%"})
    assert {w for w, _ in choice.widths.values()} == {4, 8}
    assert all(w == a for w, a in choice.widths.values())
    with pytest.raises(
        SearchError, match="say nothing of activations, which would get the fewest bits; tie 'operands'"
    ):
        Search(serial, digits, ties=["inputs"], **options)
    both = Search(serial, digits, ties=["operands"], **options).choose({"bops": "60%"})
    assert both.widths == choice.widths
    one_width = Search(serial, digits, **{**options, "activation_bits": [8]}).choose({"bops": "60%"})
    assert {a for _, a in one_width.widths.values()} == {8}, "where there is nothing to choose, nothing is tied"
    fixed = Search(serial, digits, fixed={"conv1": (4, 8)}, **options).choose({"bops": "60%"})
    assert fixed.widths["conv1"] == (4, 8)


def test_the_best_choice_of_traces_is_what_trying_all_finds(table, traces):
    problem = Problem(table, traces, together=True)
    losses = traces.array(table.layers, BITS, BITS)
    bops = table.array("bops")
    every = []
    for number in range(16):
        picks = [(number >> place) & 1 for place in range(4)]
        every.append(
            (sum(bops[i, p, p] for i, p in enumerate(picks)), sum(losses[i, p, p] for i, p in enumerate(picks)))
        )
    for limit, _ in every:
        best = min(loss for cost, loss in every if cost <= limit)
        assert problem.solve({"bops": limit}).loss == pytest.approx(best, rel=1e-9)


def test_traces_are_not_negative(digits, tmp_path):
    (tmp_path / "t.json").write_text(json.dumps({"conv1": 1, "conv2": 0, "fc1": -0.25, "fc2": 1}))
    with pytest.raises(SearchError, match=r"layer 'fc1' has -0\.25; at a minimum of the loss no trace is negative"):
        read_sensitivities(tmp_path / "t.json", digits)


def test_traces_are_weighed_at_the_widths_that_are_asked_for(digits, tmp_path):
    (tmp_path / "t.json").write_text(json.dumps({layer.name: 1 for layer in digits.array_layers}))
    found = read_sensitivities(tmp_path / "t.json", digits, [9, 10])
    assert found.array(["fc1"], [9, 10], [8]).shape == (1, 2, 1)
    assert not found.of_activations


def test_no_width_in_common(table, traces, serial, digits):
    narrow = cost_table(
        serial, Requantizer(digits.head(1)).trace(dict.fromkeys(table.layers, ("int8", "int8"))), [4], [8]
    )
    with pytest.raises(SearchError, match="weights may have 4 bits, inputs 8; let one be in both"):
        Problem(narrow, traces, together=True)
    with pytest.raises(SearchError, match="weights may have 4 bits, inputs 8; let one be in both"):
        search_blackbox(
            Requantizer(digits.head(2)), serial, trials=1, weight_bits=[4], activation_bits=[8], together=True
        )


# -- contradictions ---------------------------------------------------------------------------------------------------

PAIR, CHAIN = [Tie((0, 1), True, True)], [Tie((0, 1), False, True), Tie((1, 2), False, True)]


@pytest.mark.parametrize(
    ("ties", "fixed", "message"),
    [
        (PAIR, {"conv1": (4, 8), "conv2": (8, 8)}, r"layers whose weights are tied .*: conv1 4 bits, conv2 8 bits"),
        (PAIR, {"conv1": (8, 4), "conv2": (8, 8)}, r"layers whose inputs are tied .*: conv1 4 bits, conv2 8 bits"),
        (
            CHAIN,
            {"conv1": (8, 4), "fc1": (8, 8)},
            r"layers whose inputs are tied .*: conv1 4 bits, fc1 8 bits; fix them",
        ),
    ],
)
def test_what_is_fixed_contradicts_a_tie(table, traces, serial, digits, ties, fixed, message):
    with pytest.raises(SearchError, match=message):
        Problem(table, traces, ties=ties, fixed=fixed)
    with pytest.raises(SearchError, match=message):
        search_blackbox(Requantizer(digits.head(2)), serial, trials=1, ties=ties, fixed=fixed)


def test_alike_is_no_contradiction(table, traces):
    fixed = {"conv1": (8, 4), "fc1": (4, 4)}
    choice = Problem(table, traces, ties=CHAIN, fixed=fixed).smallest("bops")
    assert choice.widths["conv2"] == (4, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "3"], "say what to search for"),
        (["--trials", "3", "--size", "9", "--energy", "1"], "for one cost, and 2 are limited: say for which"),
        (["--energy", "50%", "--points", "3"], "--points are those of --front COST without --trials"),
        (["--energy", "50%", "--measure", "kl", "--sensitivities", "s.csv"], "leave one out"),
        (["--energy", "50%", "--tie", "operand"], "ties 'operand' are unknown; did you mean 'operands'?"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other(project_root, tmp_path, monkeypatch, words, message):
    config, network = project_root / "configs/bitserial.yaml", project_root / "traces/digits_cnn_float.npz"
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["search", str(config), str(network), "--calibration", "20", *words])
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, []), done.output
    assert message in " ".join(done.stderr.split())


# -- fronts and trials ------------------------------------------------------------------------------------------------


def test_what_is_on_the_front_is_told(project_root, tmp_path):
    def point(label, accuracy, energy, size):
        real = Verified(accuracy=accuracy, float_accuracy=1.0, agreement=1.0, inputs=9, cycles=1, latency_us=1.0,
                        energy_pj=energy, size_bytes=size, bops=1, overflows=0)  # fmt: skip
        return Found(label=label, widths={}, choice=None, verified=real)

    points = [
        point("a", 0.9, 10.0, 4.0),
        point("b", 0.8, 11.0, 3.0),
        point("c", 0.7, 5.0, 5.0),
        point("d", 0.7, 5.0, 5.0),
    ]
    assert frame_of(points)["on_front"].tolist() == [True, False, True, False]
    assert frame_of(points, ["size"])["on_front"].tolist() == [True, True, False, False]
    rows = "layer,operand,bits,loss\n" + "".join(
        f"{name},{operand},{bits},{1 / bits}\n"
        for name in ("conv1", "conv2", "fc1", "fc2") for operand in ("weight", "activation") for bits in BITS
    )  # fmt: skip
    (tmp_path / "s.csv").write_text(rows)
    words = ["--calibration", "230", "--front", "size", "--points", "3", "--weight-bits", "4,8",
             "--activation-bits", "8", "--sensitivities", tmp_path / "s.csv"]  # fmt: skip
    words = [*map(str, words), "-o", str(tmp_path / "points.csv")]
    config, network = project_root / "configs/bitserial.yaml", project_root / "traces/digits_cnn_float.npz"
    done = CliRunner().invoke(app, ["search", str(config), str(network), *words])
    assert done.exit_code == 0, done.output
    assert "on front" in done.stdout
    found = list(csv.DictReader((tmp_path / "points.csv").read_text().splitlines()))
    for row in found:
        beaten = any(
            float(o["accuracy"]) >= float(row["accuracy"]) and float(o["size_bytes"]) <= float(row["size_bytes"])
            and (o["accuracy"], o["size_bytes"]) != (row["accuracy"], row["size_bytes"]) for o in found
        )  # fmt: skip
        assert not (beaten and row["on_front"] == "True")
    assert {row["on_front"] for row in found} >= {"True"}


def test_trials_within_limits(serial, digits, tmp_path):
    """No warning of the library, which would fail here; and w = a in each trial."""
    requantizer = Requantizer(digits.head(6), references=False)
    wide = search_blackbox(requantizer, serial, trials=1, weight_bits=BITS, activation_bits=BITS)["energy_pj"][0]
    frame = search_blackbox(
        requantizer, serial, trials=8, population=4, limits={"energy": 0.7 * wide}, weight_bits=BITS,
        activation_bits=BITS, fixed={"conv1": (4, 8)}, together=True,
        storage=tmp_path / "t.db",
    )  # fmt: skip
    assert frame["within_limits"].tolist() == [energy <= 0.7 * wide for energy in frame["energy_pj"]]
    assert not frame["within_limits"][0]
    assert set(frame["conv1"]) == {"4/8"}
    assert set(frame[["conv2", "fc1", "fc2"]].to_numpy().ravel()) == {"4/4", "8/8"}
    assert not (frame["on_front"] & ~frame["within_limits"]).any()
    import optuna

    if hasattr(optuna.Trial, "set_constraint"):
        trials = optuna.load_study(study_name="accelsim", storage=f"sqlite:///{tmp_path / 't.db'}").trials
        over = [trial.constraints["energy"] for trial in trials]
        assert over == [pytest.approx(energy / (0.7 * wide) - 1) for energy in frame["energy_pj"]], "the sampler knows"


# -- progress ---------------------------------------------------------------------------------------------------------


def test_a_bar_or_lines(monkeypatch, capsys, serial, digits, project_root):
    """Here there is no terminal: a line at a time, at once instead of after ten seconds."""
    monkeypatch.setattr(accelsim.progress, "SECONDS_BETWEEN_LINES", 0.0)
    trace = accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(1)
    cost_table(serial, trace, [4], [4, 8], progress=True)
    said = capsys.readouterr().err
    assert "3/8 pairs of widths, now conv2, " in said
    requantizer = Requantizer(digits.head(2), references=False)
    measure_sensitivities(requantizer, serial, [4], [8], progress=True)
    assert "1/8 runs, now conv1 activation 8 bits, " in capsys.readouterr().err
    search_blackbox(requantizer, serial, trials=2, progress=True, weight_bits=BITS, activation_bits=[8])
    assert "2/2 trials" in capsys.readouterr().err
    losses = Sensitivities(
        "supplied",
        tuple(Sensitivity(layer.name, "weight", bits, 1 / bits) for layer in digits.array_layers for bits in BITS),
    )
    options = {"calibration": 28, "weight_bits": BITS, "activation_bits": [8], "sensitivities": losses}
    Search(serial, digits, progress=True, **options).front("size", 2)
    said = capsys.readouterr().err
    assert "pairs of widths" in said
    assert "points, now runs that verify" in said
    Search(serial, digits, **options).front("size", 2)
    assert capsys.readouterr().err == ""
