"""What a sweep finds on the disk: its own files, whole or not, other people's, and inputs that have changed."""

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sweeping import sweep

import accelsim
from accelsim.errors import SweepError
from accelsim.sweeps import run as sweep_run
from accelsim.sweeps import table as sweep_table
from accelsim.sweeps.journal import Journal

CONFIG, TRACE, NETWORK = "configs/int8_ws.yaml", "traces/digits_cnn_int8.npz", "traces/digits_cnn_float.npz"
TERNARY = "traces/digits_cnn_float_ternary.npz"
GRID = {"config": CONFIG, "trace": TRACE, "batch": 1, "grid": {"array.rows": [8, 16]}}
HEAD = {"schema": "accelsim-sweep-journal", "version": 1, "spec": "x", "numerics": "y"}


pytestmark = pytest.mark.usefixtures("in_the_checkout")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -- inputs that change -----------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """A folder with one's own copies, which a test may change, and a specification of them."""
    folder = tmp_path / "own"
    folder.mkdir()
    config = accelsim.load_config(CONFIG).model_dump(mode="json")
    table = accelsim.__path__[0] + "/energy/tables/horowitz45.yaml"
    shutil.copy(table, folder / "prices.yaml")
    config["energy"]["table"] = str(folder / "prices.yaml")
    (folder / "config.yaml").write_text(json.dumps(config))
    shutil.copy(TRACE, folder / "trace.npz")
    return folder, {**GRID, "config": str(folder / "config.yaml"), "trace": str(folder / "trace.npz")}


def change_config(folder):
    values = json.loads((folder / "config.yaml").read_text())
    values["array"]["cols"] *= 2
    (folder / "config.yaml").write_text(json.dumps(values))


def change_trace(folder):
    with np.load(TRACE) as file:
        arrays = dict(file)
    arrays["tensors/fc2.weight/codes"] = arrays["tensors/fc2.weight/codes"][::-1]
    np.savez(folder / "other.npz", **arrays)
    (folder / "other.npz").replace(folder / "trace.npz")


def change_prices(folder):
    text = (folder / "prices.yaml").read_text()
    changed = text.replace("name: horowitz45", "name: mine45")
    assert changed != text
    (folder / "prices.yaml").write_text(changed)


@pytest.mark.parametrize("change", [change_config, change_trace, change_prices])
def test_a_complete_table_is_computed_anew_when_a_file_has_changed(own, tmp_path, counted, change):
    folder, spec = own
    out = tmp_path / "results.parquet"
    before = sweep(spec, out)
    assert sweep(spec, out).equals(before)
    assert len(counted) == 2
    change(folder)
    after = sweep(spec, out)
    assert len(counted) == 4
    assert set(after["key"]).isdisjoint(before["key"])
    assert after.equals(pd.read_parquet(out))
    pd.testing.assert_frame_equal(after, sweep(spec))


def test_networks_are_known_by_content_too(tmp_path, counted):
    path, out = tmp_path / "network.npz", tmp_path / "results.csv"
    shutil.copy(NETWORK, path)
    spec = {"config": CONFIG, "network": str(path), "batch": 2, "formats": "*:int8", "grid": {"array.rows": [8]}}
    before = sweep(spec, out)
    assert sweep(spec, out).equals(before)
    assert len(counted) == 1
    shutil.copy(TERNARY, tmp_path / "other.npz")
    (tmp_path / "other.npz").replace(path)
    after = sweep(spec, out)
    assert len(counted) == 2
    assert set(after["key"]).isdisjoint(before["key"])
    assert set(after["trace_digest"]).isdisjoint(before["trace_digest"])


@pytest.mark.parametrize("change", ["inputs", "calibration", "labels", "weight", "bias", "name"])
def test_all_that_a_network_is_counts(change):
    from accelsim.quantize.network_file import load_network
    from accelsim.sweeps.digests import network_digest

    network = load_network(NETWORK)
    changed = copy.copy(network)
    if change in ("weight", "bias"):
        layer = network.layers[-1]
        changed.layers = (*network.layers[:-1], replace(layer, **{change: getattr(layer, change) * 2}))
    else:
        setattr(changed, change, "another" if change == "name" else getattr(network, change)[::-1])
    assert network_digest(load_network(NETWORK)) == network_digest(network) != network_digest(changed)


def test_a_trace_that_changes_while_the_sweep_runs_costs_nothing_final(own, tmp_path, monkeypatch):
    """The points that it hits say so, are not kept, and are computed by the next call."""
    folder, spec = own
    out = tmp_path / "results.parquet"
    real = sweep_run.run_here

    def overwriting(jobs):
        (first, one), (second, two) = jobs.items()
        yield from real({first: one})
        change_trace(folder)
        sweep_worker_forgets()
        yield from real({second: two})

    monkeypatch.setattr(sweep_run, "run_here", overwriting)
    frame = sweep(spec, out)
    assert frame[frame["point"] == 0]["error"].isna().all()
    assert frame[frame["point"] == 1]["error"].str.contains("trace.npz: has changed since the sweep began").all()
    assert out.with_suffix(".journal.jsonl").read_bytes().count(b"\n") == 2
    monkeypatch.setattr(sweep_run, "run_here", real)
    frame = sweep(spec, out)
    assert frame["error"].isna().all()
    assert set(frame["trace_digest"]) == {accelsim.load_trace(folder / "trace.npz").head(1).digest}
    assert not out.with_suffix(".journal.jsonl").exists()


def sweep_worker_forgets():
    from accelsim.sweeps import worker

    worker._stored_trace.cache_clear()


@pytest.mark.parametrize("change", [change_trace, change_prices, None])
def test_a_failure_counts_only_for_the_files_that_were_meant(own, tmp_path, monkeypatch, change):
    """A trace is read while its point runs: one that is overwritten then looks damaged, and is not."""
    from accelsim.errors import TraceError

    folder, spec = own

    def damaged(*_, **__):
        if change is not None:
            change(folder)
        raise TraceError("array 'x' is damaged")

    monkeypatch.setattr("accelsim.simulation.simulate", damaged)
    out = tmp_path / "results.parquet"
    frame = sweep({**spec, "grid": {"array.rows": [8]}}, out)
    assert frame["error"].tolist() == ["array 'x' is damaged"]
    assert out.with_suffix(".journal.jsonl").exists() == (change is not None)


# -- the target's own files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["results.csv", "results.parquet", "results.journal.jsonl"])
@pytest.mark.parametrize("content", [b"my own notes", b"a,b\n1,2\n", b'{"mine": 1}\n{"mine": 2}\n'])
def test_other_peoples_files_stay_as_they_are(tmp_path, monkeypatch, name, content):
    monkeypatch.setattr("accelsim.simulation.simulate", lambda *_, **__: pytest.fail("a point ran"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SweepError, match=rf"{name}: (there is a file already|this is not a sweep's journal)"):
        sweep(GRID, tmp_path / "results.parquet")
    assert contents(tmp_path) == {name: content}


def test_a_csv_of_ones_own_beside_a_sweeps_parquet_stays(own, tmp_path):
    folder, spec = own
    out = tmp_path / "results.parquet"
    sweep(spec, out)
    out.with_suffix(".csv").write_text("mine,1\n")
    change_config(folder)
    before = contents(tmp_path / "own"), out.read_bytes()
    with pytest.raises(SweepError, match=r"results.csv: there is a file already, and nothing says that it is this"):
        sweep(spec, out)
    assert out.with_suffix(".csv").read_text() == "mine,1\n"
    assert before == (contents(tmp_path / "own"), out.read_bytes())


@pytest.mark.parametrize("step", ["parquet", "journal"])
def test_a_kill_at_the_very_end_is_mended(tmp_path, counted, monkeypatch, step):
    """Killed before the Parquet file is written, or before the journal goes; the CSV file is there by then."""
    out = tmp_path / "results.parquet"

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "parquet":
            write = sweep_table._write
            patch.setattr(
                sweep_table, "_write", lambda path, how: stop() if path.suffix == ".parquet" else write(path, how)
            )
        else:
            patch.setattr(Journal, "remove", stop)
        with pytest.raises(KeyboardInterrupt):
            sweep(GRID, out)
    assert out.exists() == (step == "journal")
    assert out.with_suffix(".csv").exists()
    assert len(counted) == 2
    frame = sweep(GRID, out)
    assert len(counted) == 2
    assert sorted(contents(tmp_path)) == ["results.csv", "results.parquet"]
    assert len(frame) == len(pd.read_csv(out.with_suffix(".csv"))) == len(pd.read_parquet(out)) == 8


def test_a_csv_that_is_missing_is_written_again(tmp_path, counted):
    out = tmp_path / "results.parquet"
    sweep(GRID, out)
    text = out.with_suffix(".csv").read_bytes()
    out.with_suffix(".csv").unlink()
    sweep(GRID, out)
    assert len(counted) == 2
    assert out.with_suffix(".csv").read_bytes() == text


@pytest.mark.parametrize("line", ["[]", "null", '{"rows": [], "error": null}', '{"key": 3}', '{"key": "a"}', "{"])
def test_a_journals_entries_are_looked_at(tmp_path, line):
    path = tmp_path / "x.journal.jsonl"
    path.write_text(json.dumps(HEAD) + f'\n{{"key": "k", "rows": [], "error": "e"}}\n{line}\n')
    before = path.read_bytes()
    with pytest.raises(SweepError, match="line 3 is damaged; delete the file to begin anew"), Journal(path, "x", "y"):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_a_journal_whose_first_line_was_cut_off_begins_anew(tmp_path, cut):
    path = tmp_path / "x.journal.jsonl"
    path.write_text(json.dumps(HEAD)[:cut])
    with Journal(path, "x", "y") as journal:
        journal.add("k", {"rows": [], "error": None})
    with Journal(path, "x", "y") as journal:
        assert journal.results == {"k": {"rows": [], "error": None}}


def test_two_sweeps_do_not_write_to_one_target(tmp_path, project_root):
    """Another process holds the journal; when it has died, the target is free."""
    out = tmp_path / "results.parquet"
    script = (
        "import accelsim, time\n"
        "from accelsim.sweeps import run\n"
        "def slow(jobs):\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(600)\n"
        "    yield\n"
        "run.run_here = slow\n"
        f"accelsim.sweep({GRID!r}, {str(out)!r}, jobs=1, progress=False)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=project_root, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "begun\n"
            before = contents(tmp_path)
            for spec in (GRID, {**GRID, "batch": 2}):
                with pytest.raises(SweepError, match="another sweep writes here now; wait until it ends"):
                    sweep(spec, out)
            assert contents(tmp_path) == before
        finally:
            other.kill()
    assert sweep(GRID, out)["error"].isna().all()
