"""The command, the cases, the peers' inputs and the shapes."""

import json

import numpy as np
import pytest

import benchmarks.__main__ as command
from accelsim.mapping.plan import plan_operands
from benchmarks import networks, page, shapes, workloads
from benchmarks.cases import CASES, growth, kernels, scale_sim, stepped
from benchmarks.measure import Sample
from benchmarks.peers import NotInstalledError, scalesim, verilator
from benchmarks.result import Goal, timed_row
from benchmarks.run import Case, Run


def use(monkeypatch, *cases):
    monkeypatch.setattr(command, "CASES", cases)
    monkeypatch.setattr(page, "CASES", cases)


def good(run):
    return [timed_row("good", "n", Sample((1.0,) * run.repeats), goal=Goal("value", 2.0))]


GOOD = Case("good", "works", "2 s", good)


def test_an_unknown_case_is_the_users_mistake(monkeypatch, capsys):
    use(monkeypatch, GOOD)
    assert command.main(["god"]) == 2
    assert "case 'god' is unknown (did you mean 'good'?); use one of good" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--compare", "--from"])
def test_a_bad_file_is_told_before_any_work(monkeypatch, capsys, tmp_path, option):
    def never(run):
        raise AssertionError("it ran")

    use(monkeypatch, Case("never", "", "", never))
    path = tmp_path / "bad.json"
    path.write_text("{}")
    assert command.main([option, str(path)]) == 2
    assert "no result of a run" in capsys.readouterr().err


def test_a_folder_that_is_missing_is_told_before_any_work(monkeypatch, capsys, tmp_path):
    use(monkeypatch, GOOD)
    assert command.main(["--json", str(tmp_path / "no" / "run.json")]) == 2
    assert "its folder does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5"])
def test_repeats_are_whole_numbers(capsys, number):
    with pytest.raises(SystemExit) as error:
        command.main(["--repeats", number])
    assert error.value.code == 2
    assert f"'{number}' is not a whole number from 1" in capsys.readouterr().err


def test_results_are_written_and_compared(monkeypatch, capsys, tmp_path):
    use(monkeypatch, GOOD)
    path = tmp_path / "run.json"
    assert command.main(["good", "--json", str(path), "--repeats", "3"]) == 0
    document = json.loads(path.read_text())
    assert document["repeats"] == 3
    assert document["rows"][0]["repeats"] == 3
    assert document["versions"]["numpy"] == np.__version__
    assert "1 of 1 goals met" in capsys.readouterr().out
    assert command.main(["--compare", str(path)]) == 0
    assert "1.00x" in capsys.readouterr().out.split("compared with the earlier run")[1]


def test_the_revision_is_that_of_the_start_and_changes_during_the_run_are_told(monkeypatch, tmp_path):
    state = {"revision": "before", "sources": "a"}
    monkeypatch.setattr(command.machine, "revision", lambda: dict(state))
    monkeypatch.setattr(command.machine, "sources", lambda: state["sources"])

    def edits(run):
        state.update(revision="after", sources="b")
        return []

    path = tmp_path / "run.json"
    for case, changed in ((GOOD, False), (Case("edits", "", "", edits), True)):
        use(monkeypatch, case)
        assert command.main(["--json", str(path), "--repeats", "1"]) == 0
        git = json.loads(path.read_text())["git"]
        assert (git["revision"], git["changed_while_it_ran"]) == ("before", changed)


def test_quick_takes_fewer_repeats(monkeypatch):
    seen = []

    def case(run):
        seen.append((run.quick, run.repeats))
        return []

    use(monkeypatch, Case("c", "", "", case))
    for words in ([], ["--quick"], ["--quick", "--repeats", "4"]):
        assert command.main(words) == 0
    assert seen == [(False, 5), (True, 2), (True, 4)]


def test_a_case_that_fails_does_not_stop_the_others(monkeypatch, capsys, tmp_path):
    def bad(run):
        raise RuntimeError("the array gives other results")

    use(monkeypatch, Case("bad", "fails", "", bad), GOOD)
    path = tmp_path / "run.json"
    assert command.main(["--json", str(path)]) == 1
    out = capsys.readouterr().out
    assert "FAILED: RuntimeError: the array gives other results" in out
    assert [row["case"] for row in json.loads(path.read_text())["rows"]] == ["bad", "good"]


def test_the_page_can_be_written_from_an_earlier_run(monkeypatch, tmp_path):
    use(monkeypatch, GOOD)
    path, markdown = tmp_path / "run.json", tmp_path / "page.md"
    markdown.write_text(f"head\n{page.BEGIN}\n{page.END}\ntail\n")
    monkeypatch.setattr(page, "PAGE", markdown)
    assert command.main(["--json", str(path), "--repeats", "1"]) == 0
    assert command.main(["--from", str(path), "--write-docs"]) == 0
    text = markdown.read_text()
    assert "| n | 1.00 s |" in text
    assert text.startswith("head\n")
    assert text.endswith("tail\n")


def test_every_case_has_a_name_of_its_own_and_a_goal():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert [case.name for case in CASES if not case.goal] == []


def test_the_stepped_engine_is_measured_on_every_datapath(monkeypatch):
    monkeypatch.setattr(stepped, "QUICK", shapes.Gemm("tiny", 1, 8, 64, 8))
    rows = list(stepped.CASES[0].run(Run(1, quick=True)))
    names = "\n".join(row.name for row in rows)
    for datapath in ("16 x 16 os", "16 x 16 ws", "16 x 16 is", "overflow", "VSQ", "MX", "XNOR", "digits network"):
        assert datapath in names
    for row in rows:
        assert row.goal.limit == row.work / 2e6
        assert row.against_value > 0


def test_the_stepped_engine_is_checked_before_it_is_timed(monkeypatch):
    monkeypatch.setattr(stepped, "QUICK", shapes.Gemm("tiny", 1, 8, 64, 8))
    right = stepped.engines.stepped

    def wrong(operands, plan):
        return right(workloads.integers(shapes.Gemm("", 1, 8, 64, 8), seed=1), plan)

    monkeypatch.setattr(stepped.engines, "stepped", wrong)
    with pytest.raises(RuntimeError, match="the engines differ"):
        next(iter(stepped.CASES[0].run(Run(1, quick=True))))


@pytest.mark.parametrize(("power", "met"), [(1.0, True), (1.05, True), (1.3, False), (-0.1, True)])
def test_growth_is_held_against_near_linear(power, met):
    x = (10.0, 100.0, 1000.0, 10000.0)
    for panel, against in (("MACs", "MACs"), ("PEs", "PEs"), ("memory", "MACs"), ("memory of PEs", "PEs")):
        row = growth._row(panel, growth.Curve("e", x, tuple(value**power for value in x)))
        assert row.met is met
        assert row.value == pytest.approx(max(power, 0.01))
        assert f"against {against}, 10 to 10,000 {against}" in row.name
        assert row.name.startswith("memory" if "memory" in panel else "time")


# -- peers ------------------------------------------------------------------------------------------------------------


def test_verilator_that_is_missing_is_reported_and_ours_is_still_measured(monkeypatch):
    def missing(*_):
        raise NotInstalledError(verilator.HOW)

    monkeypatch.setattr(verilator, "timer", missing)
    monkeypatch.setattr(kernels, "LAYER", shapes.Gemm("tiny", 1, 8, 8, 8))
    found = list(CASES[[case.name for case in CASES].index("values")].run(Run(1, quick=True)))
    assert [row.goal.limit for row in found] == [80, 80]
    for row in found:
        assert row.value > 0
        assert row.met is None
        assert "apt-get install verilator" in row.missing


def test_scale_sim_that_is_missing_is_reported_with_the_stored_number_named_as_such(monkeypatch):
    def missing():
        raise NotInstalledError(scalesim.HOW)

    monkeypatch.setattr(scalesim, "version", missing)
    found = list(scale_sim.CASES[0].run(Run(1, quick=True)))
    assert all("--install-peers" in row.missing and "stored, not of this run" in row.missing for row in found)
    assert all(row.ratio is None and row.met is None for row in found)


def skewed(lines, size):
    """What feeders let through, cycle by cycle: line i is i cycles late."""
    return np.stack(
        [np.concatenate([np.zeros(i, lines.dtype), lines[: len(lines) - i, i]]) for i in range(size)], axis=1
    )


def edges(records, size, array):
    """(control bit, valid, left, top) of every cycle, behind the feeders."""
    bytes_ = records.view(np.int8).astype(np.int64)
    control, left, top = bytes_[:, 0], bytes_[:, 1 : 1 + size], bytes_[:, 1 + size :]
    if array == "lean":
        return control, np.ones_like(left), left, top
    valid = np.repeat(control[:, None] & verilator.VALID, size, axis=1)
    return control & verilator.DRAIN, skewed(valid, size), skewed(left, size), top


def rtl_output_stationary(records, size, array):
    """The arrays of rtl/os_*.sv, edge by edge; yields what the bottom shows, and `done`."""
    control, valids, left, top = edges(records, size, array)
    top = skewed(top, size) if array == "array" else top
    a, b, valid, psum = (np.zeros((size, size), np.int64) for _ in range(4))
    for t in range(len(records)):
        below = np.vstack([np.zeros((1, size), np.int64), psum[:-1]])
        psum = below if control[t] else psum + valid * a * b
        a = np.hstack([left[t, :, None], a[:, :-1]])
        valid = np.hstack([valids[t, :, None], valid[:, :-1]])
        b = np.vstack([top[t, None], b[:-1]])
        feeder = valids[min(t + 1, len(records) - 1), -1]  # of the last row; it is combinational for an array of one PE
        yield psum[-1], valid[-1, -1] and not (valid[-1, -2] if size > 1 else feeder)


def rtl_weight_stationary(records, size, array):
    """The arrays of rtl/ws_*.sv."""
    control, valids, left, top = edges(records, size, array)
    a, w, valid, psum = (np.zeros((size, size), np.int64) for _ in range(4))
    for t in range(len(records)):
        a_in = np.hstack([left[t, :, None], a[:, :-1]])
        valid_in = np.hstack([valids[t, :, None], valid[:, :-1]])
        above = np.vstack([np.zeros((1, size), np.int64), psum[:-1]])
        psum = above + a_in * w if array == "lean" else valid * (above + a * w)
        if control[t]:
            w = np.vstack([top[t, None], w[:-1]])
        a, valid = a_in, valid_in
        feeder = valids[min(t + 1, len(records) - 1), -1]
        yield psum[-1], valid[-1, -1] and not (valid[-1, -2] if size > 1 else feeder)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 3, 8])
@pytest.mark.parametrize("array", ["array", "lean"])
@pytest.mark.parametrize(("dataflow", "rtl"), [("os", rtl_output_stationary), ("ws", rtl_weight_stationary)])
def test_what_enters_the_rtl_makes_it_multiply_matrices(dataflow, rtl, array, size, length):
    work = verilator.stimulus(array, dataflow, size, length, tiles=3)
    bottom, done = zip(*rtl(work.records, size, array), strict=True)
    bottom = np.array(bottom)
    assert np.array_equal(bottom[work.where[:, 0], work.where[:, 1]], work.expected)
    assert len(work.expected) == 3 * (size if dataflow == "os" else length) * size
    assert np.any(work.expected)
    if array == "array" and size > 1:
        assert np.flatnonzero(done).tolist() == work.done.tolist()


@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_a_tile_of_the_rtl_takes_the_cycles_of_a_pass(dataflow):
    gemm = shapes.Gemm("", 1, 5, 5, 5)
    plan = plan_operands(workloads.integers(gemm), workloads.machine(5, 5, dataflow))
    assert verilator.pass_cycles(5, 5) == plan.cycles.total - plan.cycles.ppu
    assert verilator.stimulus("array", dataflow, 5, 5, tiles=3).cycles == 3 * verilator.pass_cycles(5, 5) + 1


def test_scale_sim_is_given_the_layers_as_its_topology_file_has_them(monkeypatch):
    seen = {}

    class Child:
        stdout = ""

    def run_child(words, *, environment, folder):
        seen["topology"] = (folder / "topology.csv").read_text().splitlines()
        report = folder / "results" / "bench"
        report.mkdir(parents=True)
        (report / "COMPUTE_REPORT.csv").write_text("LayerID, Total, Total Cycles\n0, 9, 100.0, 0,\n1, 9, 23.0, 0,\n")
        return Child()

    monkeypatch.setattr(scalesim, "version", lambda: "3")
    monkeypatch.setattr(scalesim, "run_child", run_child)
    monkeypatch.setattr(scalesim, "checked", lambda child, what: child)
    layers = shapes.SCALE_SIM_RESNET18[:2]
    assert scalesim.run(layers, size=32, dataflow="ws")[1] == 123
    assert seen["topology"][1:] == ["Conv1,224,224,7,7,3,64,2,", "Conv2_1a,56,56,3,3,64,64,1,"]
    with pytest.raises(RuntimeError, match="2 layers of 3"):
        scalesim.run(shapes.SCALE_SIM_RESNET18[:3], size=32, dataflow="ws")


# -- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "count", "macs"),
    [  # published totals: 1.81 and 0.300 GMAC; SCALE-Sim's layers do not pad, hence fewer
        (shapes.resnet18(), 21, 1_814_073_344),
        (shapes.mobilenet_v2(), 53, 300_774_272),
        (shapes.SCALE_SIM_RESNET18, 21, 1_471_181_568),
        # four projections, two heads' products, two layers of the feed-forward network
        (shapes.transformer_layer(), 8, 128 * 768 * 768 * 4 + 2 * 12 * 128 * 128 * 64 + 2 * 128 * 768 * 3072),
    ],
)
def test_networks_have_their_published_size(layers, count, macs):
    assert len(layers) == count
    assert sum(layer.macs for layer in layers) == macs
    assert len({layer.name for layer in layers}) == count


@pytest.mark.parametrize(
    "network", [shapes.resnet18()[::6], shapes.mobilenet_v2()[1::17], shapes.SCALE_SIM_RESNET18[7:14:6]]
)
def test_layers_of_a_trace_have_the_shapes_output(network):
    trace = networks.builder("n", network, images=2).build()
    for conv, layer in zip(network, trace.layers, strict=True):
        assert trace.tensor_meta(layer.output).shape == (2, conv.out, conv.out, conv.filters)


def test_products_of_activations_are_matmuls():
    layers = shapes.transformer_layer(positions=4, width=12, heads=3)
    trace = networks.builder("t", layers).build()
    assert [layer.op for layer in trace.layers] == ["linear"] * 3 + ["matmul"] * 2 + ["linear"] * 3
    assert trace.tensor_meta(trace.layers[3].output).shape == (1, 3, 4, 4)
