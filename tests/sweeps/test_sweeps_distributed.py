"""A sweep on a real Dask cluster of separate processes, one of whose workers is killed while it works."""

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest

import accelsim
from accelsim.errors import SweepError
from accelsim.sweeps.journal import Journal
from accelsim.sweeps.run import sweep

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'accelsim[distributed]'")
# Dask's client warns about its own sockets and threads when it is closed.
pytestmark = [
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("default::DeprecationWarning"),
]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def cluster(tmp_path, project_root):
    """(address, its three worker processes, the scheduler's)."""
    env = {**os.environ, "PYTHONPATH": str(project_root), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "10"}
    address = f"tcp://127.0.0.1:{free_port()}"
    log = (tmp_path / "dask.log").open("wb")

    def start(*args):
        command = [sys.executable, "-m", "distributed.cli." + args[0], *args[1:], "--no-dashboard"]
        return subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log)

    scheduler = start("dask_scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2])
    workers = [
        start("dask_worker", address, "--nworkers", "1", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
        for _ in range(3)
    ]
    yield address, workers, scheduler
    for process in (*workers, scheduler):
        process.kill()
        process.wait()
    log.close()


def wait_for_workers(address, count):
    from accelsim.sweeps.runners import connected

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with connected(address) as client:
                client.wait_for_workers(count, timeout=60)
                return
        except SweepError:
            time.sleep(0.5)
    pytest.fail("the cluster did not start within two minutes")


def test_a_killed_worker_loses_nothing_and_doubles_nothing(cluster, project_root, tmp_path, monkeypatch):
    address, workers, _ = cluster
    wait_for_workers(address, 3)
    spec = {
        "config": str(project_root / "configs" / "int8_ws.yaml"),
        "trace": str(project_root / "traces" / "digits_cnn_int8.npz"),
        "batch": 2,
        "grid": {"array.rows": [2, 3, 4, 5, 6, 7], "array.cols": [2, 3, 4, 5], "array.weight.bits": [8, 4]},
    }
    out = tmp_path / "results.parquet"
    kept, add = [], Journal.add

    def add_and_kill(self, key, result):
        add(self, key, result)
        kept.append(key)
        if len(kept) == 4:
            workers[0].send_signal(signal.SIGKILL)

    monkeypatch.setattr(Journal, "add", add_and_kill)
    frame = sweep(spec, out, scheduler=address, progress=False)
    assert len(kept) == len(set(kept)) == 48
    assert workers[0].wait() == -signal.SIGKILL
    assert frame["point"].tolist() == sorted(frame["point"].tolist())
    ran, failed = frame[frame["error"].isna()], frame[frame["error"].notna()]
    assert ran["point"].nunique() == 24
    assert failed["error"].str.contains("4-bit weight ports").all()
    assert len(failed) == 24
    assert not frame.duplicated(["point", "layer"]).any()
    assert frame.equals(pd.read_parquet(out))
    pd.testing.assert_frame_equal(frame, sweep(spec, jobs=1, progress=False))


LOSES_ITS_SCHEDULER = """
import os, signal, sys
from accelsim import cli
from accelsim.sweeps.journal import Journal
scheduler, add, kept = int(sys.argv.pop(1)), Journal.add, []

def add_and_kill(self, key, result):
    add(self, key, result)
    kept.append(key)
    if len(kept) == 2:
        os.kill(scheduler, signal.SIGKILL)

Journal.add = add_and_kill
cli.main()
"""


def test_a_lost_scheduler_keeps_what_is_done(cluster, project_root, tmp_path):
    """The sweep ends with one message; the points that were not done are no failures, and another call runs them."""
    address, _, scheduler = cluster
    wait_for_workers(address, 3)
    spec = tmp_path / "sweep.yaml"
    spec.write_text(
        f"config: {project_root}/configs/int8_ws.yaml\ntrace: {project_root}/traces/digits_cnn_int8.npz\nbatch: 2\n"
        "grid: {array.rows: [2, 3, 4, 5, 6, 7], array.cols: [2, 3, 4, 5, 6, 7]}\n"
    )
    out = tmp_path / "results.parquet"
    journal = out.with_suffix(".journal.jsonl")
    words = [scheduler.pid, "sweep", spec, "-o", out, "--scheduler", address]
    sweeping = subprocess.run(
        [sys.executable, "-c", LOSES_ITS_SCHEDULER, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(project_root)}, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    told = sweeping.stderr
    assert sweeping.returncode == 2
    said = [line for line in told.splitlines() if not re.match(r"\d+/36 points", line)]
    assert len(said) == 1, told
    assert said[0].startswith(f"error: the scheduler {address} was lost; what is done is kept in the journal")
    kept = [json.loads(line) for line in journal.read_bytes().splitlines()[1:]]
    assert 2 <= len(kept) < 36
    assert all(line["error"] is None for line in kept)
    assert not out.exists()
    frame = sweep(spec, out, jobs=1, progress=False)
    assert frame["error"].isna().all()
    assert frame["point"].nunique() == 36
    assert not journal.exists()


def test_no_part_of_dask_logs_while_a_sweep_is_connected(cluster):
    """Which part notices first that a scheduler is lost is a race; the levels of a caller come back afterwards."""
    from accelsim.sweeps.runners import connected

    address, _, _ = cluster
    wait_for_workers(address, 1)
    parts = (
        "distributed.batched",
        "distributed.client",
        "distributed.comm.tcp",
        "distributed.core",
        "tornado.application",
    )

    def heard():
        return [name for name in parts if logging.getLogger(name).isEnabledFor(logging.CRITICAL)]

    levels = [logging.getLogger(name).level for name in parts]
    with connected(address):
        assert heard() == []
    assert heard() == list(parts)
    assert [logging.getLogger(name).level for name in parts] == levels


def test_workers_of_another_version_are_refused(project_root, tmp_path):
    address = f"tcp://127.0.0.1:{free_port()}"
    other = tmp_path / "other"
    shutil.copytree(project_root / "accelsim", other / "accelsim", ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "accelsim" / "rounding.py").open("a") as file:
        file.write("\n# another\n")
    log = (tmp_path / "dask.log").open("wb")

    def start(*args, path=project_root):
        command = [sys.executable, "-m", "distributed.cli." + args[0], *args[1:], "--no-dashboard"]
        env = {**os.environ, "PYTHONPATH": str(path)}
        return subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log)

    worker = ("dask_worker", address, "--nworkers", "1", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
    processes = [
        start("dask_scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2]),
        start(*worker, path=other),
    ]
    try:
        deadline = time.monotonic() + 120
        spec = {
            "config": str(project_root / "configs" / "int8_ws.yaml"),
            "trace": str(project_root / "traces" / "digits_cnn_int8.npz"),
            "batch": 1,
            "grid": {"array.rows": [2]},
        }
        out = tmp_path / "results.parquet"
        while True:
            with pytest.raises(SweepError) as refused:
                sweep(spec, out, scheduler=address, progress=False)
            if not any(words in str(refused.value) for words in ("cannot be reached", "no workers")):
                break
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert re.match(r"worker tcp://\S+ has another version of accelsim \(numerics \w+, here ", str(refused.value))
        assert not out.with_suffix(".journal.jsonl").exists()
    finally:
        for process in processes:
            process.kill()
            process.wait()
        log.close()


def test_a_worker_of_another_version_that_comes_late_computes_nothing():
    """The points say which version began the sweep; what such a worker gets is tried again by another call."""
    from accelsim.sweeps.worker import run_job

    result = run_job({"numerics": "another"})
    assert result["rows"] == []
    assert result["again"]
    assert "this worker has another version of accelsim" in result["error"]


def test_a_scheduler_without_workers_is_one_message(cluster, project_root):
    address, workers, _ = cluster
    wait_for_workers(address, 3)
    for worker in workers:
        worker.kill()
        worker.wait()
    spec = {
        "config": str(project_root / "configs" / "int8_ws.yaml"),
        "trace": str(project_root / "traces" / "digits_cnn_int8.npz"),
        "grid": {"array.rows": [2]},
    }
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # the scheduler needs a moment to notice
        from accelsim.sweeps.runners import connected

        try:
            with connected(address):
                time.sleep(0.5)
        except accelsim.AccelsimError:
            break
    with pytest.raises(accelsim.AccelsimError, match=r"has no workers; start some with 'dask worker"):
        sweep(spec, scheduler=address, progress=False)
