"""Sweeps: what runs, what is kept, what a kill costs, and what is refused before anything runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sweeping import sweep
from typer.testing import CliRunner

import accelsim
from accelsim import cli
from accelsim.errors import SweepError
from accelsim.sweeps import run as sweep_run
from accelsim.sweeps.points import expand
from accelsim.sweeps.runners import run_local
from accelsim.sweeps.spec import load_spec

BASE = {"config": "configs/int8_ws.yaml", "trace": "traces/digits_cnn_int8.npz", "batch": 1}
MANY = list(range(1, 1001))
GRID = {**BASE, "grid": {"array.rows": [8, 16], "accumulator.bits": [14, 32]}}


pytestmark = pytest.mark.usefixtures("in_the_checkout")


# -- rows -------------------------------------------------------------------------------------------------------------


def test_every_row_is_what_a_run_by_hand_gives():
    frame = sweep(GRID)
    assert list(frame.columns[:5]) == ["point", "key", "error", "array.rows", "accumulator.bits"]
    assert len(frame) == 4 * 4
    trace = accelsim.load_trace(BASE["trace"]).head(1)
    config = accelsim.load_config(BASE["config"]).model_dump()
    for (rows, bits), group in frame.groupby(["array.rows", "accumulator.bits"]):
        config["array"]["rows"], config["accumulator"]["bits"] = int(rows), int(bits)
        from accelsim.config.loader import parse_config

        report = accelsim.simulate(parse_config(config), trace)
        assert list(group["layer"]) == [layer.name for layer in report.layers]
        assert list(group["cycles_total"]) == [layer.total_cycles for layer in report.layers]
        assert list(group["energy_total_pj"]) == [layer.total_energy_pj for layer in report.layers]
        assert list(group["accumulator_overflows"]) == [layer.overflow.accumulator.count for layer in report.layers]
        assert set(group["run_energy_pj"]) == {report.totals.total_energy_pj}
        assert set(group["config_digest"]) == {report.config_digest}
    assert (frame[frame["accumulator.bits"] == 14]["accumulator_overflows"] > 0).any()


def test_points_and_random_samples_are_the_points_that_they_name():
    listed = {**BASE, "points": [{"array.rows": 4}, {"array.cols": 4, "trace": "traces/digits_cnn_int8.npz"}]}
    frame = sweep(listed)
    first = frame[frame["point"] == 0].iloc[0]
    assert first["array.rows"] == 4
    assert pd.isna(first["array.cols"])
    axes = {"array.rows": [2, 4, 8, 16], "array.cols": [2, 4, 8, 16]}
    drawn = load_spec({**BASE, "random": {"count": 6, "seed": 3, "axes": axes}})
    points = [dict(point.axes) for point in expand(*drawn)]
    assert points == [dict(point.axes) for point in expand(*drawn)]
    assert len({tuple(point.values()) for point in points}) == 6
    assert all(point[axis] in values for point in points for axis, values in axes.items())
    others = load_spec({**BASE, "random": {"count": 6, "seed": 4, "axes": axes}})
    assert points != [dict(point.axes) for point in expand(*others)]


def test_a_point_that_fails_is_a_row_with_its_message_and_stops_nobody():
    spec = {**BASE, "grid": {"array.dataflow": ["ws", "os"], "array.weight.bits": [8, 4]}}
    frame = sweep(spec)
    failed = frame[frame["error"].notna()]
    # int8 weights on 4-bit ports; and double_buffered, which int8_ws sets, is nothing for os
    assert len(failed) == 3
    assert failed["error"].str.contains("4-bit weight ports").sum() == 1
    assert failed["error"].str.contains("double_buffered=true needs a stationary operand").sum() == 2
    assert frame[frame["error"].isna()]["point"].nunique() == 1


def test_identical_points_are_computed_once(counted, tmp_path):
    copy = tmp_path / "copy.npz"
    shutil.copy(BASE["trace"], copy)
    spec = {**BASE, "grid": {"array.rows": [8, 8, 16], "trace": [BASE["trace"], str(copy)]}}
    frame = sweep(spec)
    assert len(counted) == 2
    assert frame["point"].nunique() == 6
    totals = frame.groupby("point")["run_cycles_total"].first()
    assert totals.nunique() == 2
    assert totals[0] == totals[1] == totals[2] == totals[3]


def test_the_table_is_the_same_from_parquet_and_csv(tmp_path):
    out = tmp_path / "results.parquet"
    frame = sweep({**BASE, "grid": {"array.rows": [8, 16], "ppu.rounding": ["trace"]}}, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.parquet"]
    parquet, csv = pd.read_parquet(out), pd.read_csv(out.with_suffix(".csv"))
    assert list(parquet.columns) == list(csv.columns) == list(frame.columns)
    for column in ("point", "layer", "cycles_total", "energy_total_pj", "sqnr_db", "array.rows"):
        assert parquet[column].tolist() == csv[column].tolist() == frame[column].tolist()


# -- resuming ---------------------------------------------------------------------------------------------------------


KILLED = """
import ast, os, signal, sys
import accelsim
from accelsim.sweeps.journal import Journal
add, kept = Journal.add, []

def add_and_die(self, key, result):
    add(self, key, result)
    kept.append(key)
    if len(kept) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.add = add_and_die
accelsim.sweep(ast.literal_eval(sys.argv[1]), sys.argv[2], jobs=1, progress=False)
"""


def test_a_sweep_that_is_killed_goes_on_where_it_was(tmp_path, counted):
    """Killed with SIGKILL: what the journal holds is not computed again."""
    out = tmp_path / "results.parquet"
    spec = {**BASE, "batch": 2, "grid": {"array.rows": [2, 3, 4, 5, 6, 7, 8, 9], "array.cols": [2, 3, 4, 5, 6]}}
    process = subprocess.run([sys.executable, "-c", KILLED, repr(spec), str(out)], check=False)
    assert process.returncode == -signal.SIGKILL
    journal = out.with_suffix(".journal.jsonl")
    assert not out.exists()
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = [json.loads(line)["key"] for line in lines[1:] if line.endswith(b"\n")]
    assert len(kept) == 3
    frame = sweep(spec, out)
    assert not set(counted) & set(kept)
    assert len(counted) + len(kept) == 40
    assert not journal.exists()
    assert frame["point"].nunique() == 40
    assert frame.equals(pd.read_parquet(out))
    untouched = sweep(spec)
    pd.testing.assert_frame_equal(frame, untouched)


def test_a_line_that_was_cut_off_is_computed_again(tmp_path, counted, monkeypatch):
    out = tmp_path / "results.parquet"
    stopping = sweep_run.run_here

    def two_points(jobs):
        for place, found in enumerate(stopping(jobs)):
            if place == 2:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(sweep_run, "run_here", two_points)
    with pytest.raises(KeyboardInterrupt):
        sweep(GRID, out)
    journal = out.with_suffix(".journal.jsonl")
    whole = journal.read_bytes()
    assert whole.count(b"\n") == 3
    journal.write_bytes(whole[:-10])
    monkeypatch.setattr(sweep_run, "run_here", stopping)
    counted.clear()
    frame = sweep(GRID, out)
    assert len(counted) == 3
    assert frame["point"].nunique() == 4
    assert not journal.exists()


def test_a_complete_sweep_is_read_not_run(tmp_path, counted):
    out = tmp_path / "results.csv"
    frame = sweep(GRID, out)
    assert len(counted) == 4
    again = sweep(GRID, out)
    assert len(counted) == 4
    pd.testing.assert_frame_equal(frame, again)


def test_other_arithmetic_makes_all_points_new(tmp_path, counted, monkeypatch):
    out = tmp_path / "results.parquet"
    sweep(GRID, out)
    for module in ("points", "target"):
        monkeypatch.setattr(f"accelsim.sweeps.{module}.numerics_version", lambda: "another")
    sweep(GRID, out)
    assert len(counted) == 8


def test_a_row_is_on_the_disk_before_the_next_point_begins(tmp_path, monkeypatch):
    out = tmp_path / "results.parquet"
    seen = []

    def watching(jobs):
        for found in real(jobs):
            yield found
            seen.append(out.with_suffix(".journal.jsonl").read_bytes().count(b"\n"))

    real = sweep_run.run_here
    monkeypatch.setattr(sweep_run, "run_here", watching)
    sweep(GRID, out)
    assert seen == [2, 3, 4, 5]


# -- processes --------------------------------------------------------------------------------------------------------


def test_several_processes_give_the_same_table():
    pd.testing.assert_frame_equal(sweep(GRID), sweep(GRID, jobs=2))


def die_once(job):
    """Stands for a point whose process is killed (by the system, for its memory)."""
    flag = job["flag"]
    if job["dies"] and (job["dies"] == "always" or not Path(flag).exists()):
        open(flag, "w").close()  # noqa: PTH123
        os.kill(os.getpid(), signal.SIGKILL)
    return {"rows": [{"name": job["name"]}], "error": None}


@pytest.mark.parametrize("dies", ["once", "always"])
def test_a_process_that_dies_loses_nothing_and_doubles_nothing(tmp_path, monkeypatch, dies):
    monkeypatch.setattr("accelsim.sweeps.runners.run_job", die_once)
    jobs = {
        str(place): {"name": str(place), "flag": str(tmp_path / "flag"), "dies": dies if place == 3 else ""}
        for place in range(8)
    }
    found = list(run_local(jobs, 2))
    assert sorted(key for key, _ in found) == sorted(jobs)
    failed = {key for key, result in found if result["error"]}
    assert failed == ({"3"} if dies == "always" else set())
    if dies == "always":
        assert "died, twice" in dict(found)["3"]["error"]


# -- what is refused before anything runs -----------------------------------------------------------------------------


@pytest.fixture
def nothing_runs(monkeypatch):
    monkeypatch.setattr("accelsim.simulation.simulate", lambda *_, **__: pytest.fail("a point ran"))


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {"array.row": [8]}}, r"axis 'array.row' is no field of a configuration; did you mean 'array.rows'"),
        ({"grid": {"array": [8]}}, r"axis 'array' is a section; vary its fields: array.rows, array.cols"),
        ({"grid": {}}, "grid is empty: there is nothing to run"),
        ({"grid": {"array.rows": []}}, r"grid.array.rows: it is empty: there is nothing to run"),
        ({"grid": {"array.rows": 8}}, r"grid.array.rows: 8 is not a list, such as"),
        ({}, "exactly one of grid, points and random says what varies; found none of them"),
        ({"grid": {"array.rows": [8]}, "points": [{}]}, "found grid and points"),
        (
            {"grid": {"array.rows": list(range(1, 1001)), "array.cols": list(range(1, 1001))}},
            r"1,000,000 points are more",
        ),
        ({"grid": {"array.rows": [8]}, "trace": None}, "no trace: set trace to an .npz file"),
        ({"grid": {"array.rows": [8]}, "trace": "traces/none.npz"}, "traces/none.npz"),
        ({"grid": {"array.rows": [8]}, "config": "configs/int9.yaml"}, "configs/int9.yaml: there is no such file"),
        ({"grid": {"array.rows": [8]}, "config": None}, "no configuration"),
        ({"grid": {"formats": ["int8"]}}, "axis 'formats' chooses formats, but no network is named"),
        ({"gird": {"array.rows": [8]}}, "gird: unknown key; did you mean 'grid'"),
        (
            {"random": {"count": 9, "axes": {"array.rows": [8]}}},
            "random.count=9, but the axes have only 1",
        ),
        ({"random": {"axes": {"array.rows": [8]}}}, "random.count: required key is missing"),
        ({"grid": {"array.rows": [8]}, "batch": 0}, "batch: 0"),
    ],
)
def test_bad_specs_are_one_message_before_any_work(tmp_path, changes, message):
    with pytest.raises(SweepError, match=message):
        sweep({**BASE, **changes}, tmp_path / "results.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_runs")
def test_a_file_says_the_line(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("config: c.yaml\ntrace: t.npz\ngrid:\n  array.rows: 8\n")
    with pytest.raises(SweepError, match=r"sweep.yaml: line 4: grid.array.rows: 8 is not a list"):
        sweep(path)
    path.write_text("[1, 2]")
    with pytest.raises(SweepError, match="a sweep is a YAML mapping"):
        sweep(path)
    with pytest.raises(SweepError, match="cannot be read"):
        sweep(tmp_path / "none.yaml")


def test_results_of_another_sweep_stay_as_they_are(tmp_path, monkeypatch):
    out = tmp_path / "results.parquet"
    sweep(GRID, out)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("accelsim.simulation.simulate", lambda *_, **__: pytest.fail("a point ran"))
    with pytest.raises(SweepError, match="these are results of another sweep"):
        sweep({**GRID, "batch": 2}, out)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    foreign = tmp_path / "foreign.parquet"
    pd.DataFrame({"x": [1]}).to_parquet(foreign)
    with pytest.raises(SweepError, match="it is not a sweep's"):
        sweep(GRID, foreign)
    journal = tmp_path / "other.journal.jsonl"
    journal.write_text(
        json.dumps({"schema": "accelsim-sweep-journal", "version": 1, "spec": "x", "numerics": "y"}) + "\n"
    )
    with pytest.raises(SweepError, match="these are results of another sweep"):
        sweep(GRID, tmp_path / "other.parquet")


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("name", ["results.xlsx", "nowhere/results.parquet", "."])
def test_a_target_that_cannot_be_written_is_refused(tmp_path, name):
    with pytest.raises(SweepError, match=r"results are written as|there is no folder|is a folder"):
        sweep(GRID, tmp_path / name)


@pytest.mark.usefixtures("nothing_runs")
def test_an_unreachable_scheduler_is_one_message(monkeypatch):
    from accelsim.sweeps import runners

    monkeypatch.setattr(runners.connected.__wrapped__, "__defaults__", (0.5,))
    with pytest.raises(SweepError, match=r"scheduler 'tcp://127.0.0.1:1' cannot be reached"):
        sweep(GRID, scheduler="tcp://127.0.0.1:1")


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_and_says_what_failed(tmp_path):
    spec = tmp_path / "sweep.yaml"
    root = Path.cwd()
    spec.write_text(
        f"config: {root}/configs/int8_ws.yaml\ntrace: {root}/traces/digits_cnn_int8.npz\nbatch: 1\n"
        "grid: {array.weight.bits: [8, 4]}\n"
    )
    out = tmp_path / "results.parquet"
    result = CliRunner().invoke(cli.app, ["sweep", str(spec), "-o", str(out), "--jobs", "1"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "5 rows of 2 points, 1 failed" in result.stdout
    assert "point 1: layer 'conv1' needs weights in int8" in result.stdout
    assert "2/2 points, 1 failed" in result.stderr
    assert np.isin(["point", "layer", "cycles_total"], pd.read_parquet(out).columns).all()


def test_the_command_says_once_why_points_failed_alike(tmp_path):
    spec = tmp_path / "sweep.yaml"
    root = Path.cwd()
    spec.write_text(
        f"config: {root}/configs/int8_ws.yaml\nnetwork: {root}/traces/digits_cnn_float.npz\nbatch: 1\n"
        "grid: {formats: ['*:int8', '*:int99', '*:int98'], clock_mhz: [1, 2, 3, 4, 5, 6]}\n"
    )
    args = ["sweep", str(spec), "-o", str(tmp_path / "r.csv"), "--jobs", "1"]
    result = CliRunner().invoke(cli.app, args, catch_exceptions=False)
    first, *others = result.stdout.splitlines()
    assert "18 points, 12 failed" in first
    assert len(others) == 2
    assert others[0].startswith("  points 6, 7, 8, 9, 10 and 1 more: formats '*:int99': int99: operands have")
    assert others[1].startswith("  points 12, 13, 14, 15, 16 and 1 more: formats '*:int98'")


@pytest.mark.usefixtures("nothing_runs")
def test_a_dry_run_lists_the_points(tmp_path):
    spec = tmp_path / "sweep.yaml"
    root = Path.cwd()
    spec.write_text(
        f"config: {root}/configs/int8_ws.yaml\ntrace: {root}/traces/digits_cnn_int8.npz\n"
        "grid: {array.rows: [8, 0, 8]}\n"
    )
    args = ["sweep", str(spec), "-o", str(tmp_path / "r.parquet"), "--dry-run"]
    result = CliRunner().invoke(cli.app, args, catch_exceptions=False)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "0: array.rows=8"
    assert "too small; use 1 to 4096" in lines[1]
    assert lines[-1] == "3 points, 2 of them different"


def test_a_bad_spec_is_exit_2(tmp_path):
    spec = tmp_path / "sweep.yaml"
    spec.write_text("grid: {array.rows: [8]}\n")
    result = CliRunner().invoke(cli.app, ["sweep", str(spec), "-o", str(tmp_path / "r.parquet")])
    assert result.exit_code == 2
    assert f"error: {spec}: 2 problems\n  no configuration: set config" in result.stderr
    assert "Traceback" not in result.stderr


# -- formats ----------------------------------------------------------------------------------------------------------

NETWORK = {"config": "configs/int8_ws.yaml", "network": "traces/digits_cnn_float.npz", "batch": 4, "formats": "*:int8"}


def test_formats_of_all_layers_and_of_single_ones_are_axes():
    from accelsim.quantize.assignment import read_assignment
    from accelsim.quantize.network_file import load_network
    from accelsim.quantize.requantizer import Requantizer

    frame = sweep({**NETWORK, "grid": {"formats": ["*:int8", "*:int4/int8"], "formats.conv2": ["int6", "int3/int8"]}})
    requantizer = Requantizer(load_network(NETWORK["network"]).head(4))
    config = accelsim.load_config(NETWORK["config"])
    for (common, own), group in frame.groupby(["formats", "formats.conv2"]):
        trace = requantizer.trace(read_assignment(f"conv2:{own}, {common}", requantizer.network))
        report = accelsim.simulate(config, trace)
        assert set(group["trace_digest"]) == {report.trace_digest}
        assert list(group["weight_format"]) == [layer.weight_format for layer in report.layers]
        assert list(group["sqnr_db"]) == [layer.sqnr_db for layer in report.layers]
    assert frame["point"].nunique() == 4
    assert frame["trace_digest"].nunique() == 4


def test_a_format_that_does_not_exist_is_that_points_error():
    frame = sweep({**NETWORK, "grid": {"formats": ["*:int8", "*:int99"]}})
    assert frame[frame["error"].notna()]["error"].str.contains("int99: operands have 2 to 1").all()
    assert frame["error"].notna().sum() == 1


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trace": "traces/digits_cnn_int8.npz"}, "a trace and a network are both named"),
        ({"formats": None}, "no formats: set formats"),
        ({"network": "traces/none.npz"}, "traces/none.npz"),
    ],
)
def test_a_network_that_cannot_run_is_one_message(changes, message):
    with pytest.raises(SweepError, match=message):
        sweep({**NETWORK, **changes, "grid": {"array.rows": [8]}})


def test_a_script_without_a_main_guard_can_sweep_in_processes(tmp_path):
    """Spawned processes run the script that began them, unless they are kept from it; each would begin the sweep."""
    script, out = tmp_path / "study.py", tmp_path / "results.parquet"
    spec = {**BASE, "batch": 1, "grid": {"array.rows": [2, 3, 4]}}
    script.write_text(
        f"import accelsim\nprint('begun')\nframe = accelsim.sweep({spec!r}, {str(out)!r}, jobs=2, progress=False)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n", "")
    frame = pd.read_parquet(out)
    assert frame["point"].nunique() == 3
    assert frame["error"].isna().all()
