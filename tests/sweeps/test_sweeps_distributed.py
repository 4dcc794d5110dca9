"""A sweep on a real Dask cluster of separate processes, one of whose workers is killed while it works."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

import accelsim
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
    """(address, its three worker processes)."""
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
    yield address, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()
    log.close()


def wait_for_workers(address, count):
    from accelsim.errors import SweepError
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


def test_a_killed_worker_loses_nothing_and_doubles_nothing(cluster, project_root, tmp_path):
    address, workers = cluster
    wait_for_workers(address, 3)
    spec = {
        "config": str(project_root / "configs" / "int8_ws.yaml"),
        "trace": str(project_root / "traces" / "digits_cnn_int8.npz"),
        "batch": 2,
        "grid": {"array.rows": [2, 3, 4, 5, 6, 7], "array.cols": [2, 3, 4, 5], "array.weight.bits": [8, 4]},
    }
    out = tmp_path / "results.parquet"
    journal = out.with_suffix(".journal.jsonl")
    killed = []

    def kill_one_in_the_middle():
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if journal.exists() and journal.read_bytes().count(b"\n") >= 5:
                workers[0].send_signal(signal.SIGKILL)
                killed.append(journal.read_bytes().count(b"\n") - 1)
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one_in_the_middle, daemon=True)
    killer.start()
    frame = sweep(spec, out, scheduler=address, progress=False)
    killer.join()
    assert killed
    assert killed[0] < 48, "the worker was killed when everything was done already"
    assert workers[0].wait() == -signal.SIGKILL
    assert frame["point"].tolist() == sorted(frame["point"].tolist())
    ran, failed = frame[frame["error"].isna()], frame[frame["error"].notna()]
    assert ran["point"].nunique() == 24
    assert failed["error"].str.contains("4-bit weight ports").all()
    assert len(failed) == 24
    assert not frame.duplicated(["point", "layer"]).any()
    assert frame.equals(pd.read_parquet(out))
    pd.testing.assert_frame_equal(frame, sweep(spec, jobs=1, progress=False))


def test_a_scheduler_without_workers_is_one_message(cluster, project_root):
    address, workers = cluster
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
