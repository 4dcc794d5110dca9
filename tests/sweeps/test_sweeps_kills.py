"""What is left when processes end: a killed sweep takes its workers with it; a worker's mistake stops nobody."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import accelsim
from accelsim import cli
from accelsim.sweeps.runners import run_local

pytestmark = pytest.mark.skipif(os.name == "nt", reason="ends processes by signals")

PATIENCE_S = 300


def wait_until(happens, what):
    deadline = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.02)


def says_who_it_is(job):
    """Stands for a long point: says its process, and sleeps."""
    with Path(job["told"]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(PATIENCE_S)


def is_alive(pid):
    """Return whether a process runs: one that has ended may wait for its parent to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_began_them(tmp_path, project_root, by):
    told = tmp_path / "told"
    script = (
        "from accelsim.sweeps import runners\n"
        "from test_sweeps_kills import says_who_it_is\n"
        "runners.run_job = says_who_it_is\n"
        f"list(runners.run_local({{str(place): {{'told': {str(told)!r}}} for place in range(2)}}, 2))\n"
    )
    here = str(Path(__file__).parent)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(project_root), here])}
    with subprocess.Popen([sys.executable, "-c", script], env=env, stderr=subprocess.DEVNULL) as main:
        try:
            wait_until(lambda: told.exists() and told.read_text().count("\n") == 2, "the beginning of two workers")
            workers = [int(line) for line in told.read_text().split()]
            assert len(set(workers)) == 2
            assert all(map(is_alive, workers))
            main.send_signal(by)
            assert main.wait() == -by
        finally:
            main.kill()
        wait_until(lambda: not any(map(is_alive, workers)), "the end of the workers")


def runs_one_point(job):
    """Stands for a sweep whose second point is long."""
    from accelsim.sweeps import worker

    return worker.run_job(job) if job["config"]["array"]["rows"] == 8 else says_who_it_is({"told": os.environ["TOLD"]})


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("by", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_sweep_that_is_asked_to_end_says_what_is_kept(tmp_path, project_root, jobs, by, code, word):
    """As job schedulers ask, and Ctrl-C does: at once, whatever runs, with one line and a code of its own."""
    told, out = tmp_path / "told", tmp_path / "results.parquet"
    spec = tmp_path / "sweep.yaml"
    spec.write_text(
        f"config: {project_root}/configs/int8_ws.yaml\ntrace: {project_root}/traces/digits_cnn_int8.npz\nbatch: 1\n"
        "grid: {array.rows: [8, 16]}\n"
    )
    script = (
        "import sys\nfrom accelsim import cli\nfrom accelsim.sweeps import runners\n"
        "from test_sweeps_kills import runs_one_point\n"
        f"runners.run_job = runs_one_point\n"
        f"sys.argv[1:] = ['sweep', {str(spec)!r}, '-o', {str(out)!r}, '--jobs', '{jobs}']\n"
        "cli.main()\n"
    )
    here = str(Path(__file__).parent)
    path = os.pathsep.join([str(project_root), here])
    env = {**os.environ, "PYTHONPATH": path, "TOLD": str(told)}
    journal = out.with_suffix(".journal.jsonl")
    with subprocess.Popen([sys.executable, "-c", script], env=env, stderr=subprocess.PIPE, text=True) as main:
        try:
            wait_until(
                lambda: (
                    main.poll() is not None
                    or (told.exists() and told.read_text().endswith("\n") and journal.read_text().count("\n") == 2)
                ),
                "the first point, and the beginning of the second",
            )
            (worker,) = map(int, told.read_text().split())
            main.send_signal(by)
            said = main.communicate(timeout=PATIENCE_S / 2)[1]
            assert main.returncode == code
        finally:
            main.kill()
    lines = [line for line in said.splitlines() if "/2 points" not in line]
    assert lines == [f"{word}; what is done is kept, and the same command goes on from there"]
    wait_until(lambda: not is_alive(worker), "the end of the worker")
    frame = accelsim.sweep(spec, out, jobs=1, progress=False)
    assert frame["error"].isna().all()
    assert sorted(frame["array.rows"].unique()) == [8, 16]


LONG_RUN = """
import os, sys, time
from pathlib import Path
import accelsim.simulation
from accelsim import cli

def tell(text):
    with Path(os.environ["TOLD"]).open("a") as file:
        file.write(text)

def long(*_, **__):
    try:
        tell("began\\n")
        time.sleep(300)
    finally:
        tell("ends\\n")
        time.sleep(float(os.environ["LAST_SECONDS"]))

accelsim.simulation.simulate = long
cli.main()
"""


@pytest.mark.parametrize("times", [1, 2])
def test_any_command_ends_in_order(tmp_path, project_root, times):
    """One SIGTERM is answered; one that comes while the command still ends is final."""
    told = tmp_path / "told"
    last = "0" if times == 1 else str(PATIENCE_S)
    env = {**os.environ, "PYTHONPATH": str(project_root), "TOLD": str(told), "LAST_SECONDS": last}
    words = ["run", project_root / "configs/int8_ws.yaml", project_root / "traces/digits_cnn_int8.npz"]
    command = [sys.executable, "-c", LONG_RUN, *map(str, words)]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as main:
        try:
            for text in ["began\n", "began\nends\n"][:times]:
                wait_until(
                    lambda text=text: main.poll() is not None or (told.exists() and told.read_text() == text), text
                )
                main.send_signal(signal.SIGTERM)
            said = main.communicate(timeout=PATIENCE_S / 2)[1]
        finally:
            main.kill()
    assert (main.returncode, said) == ((143, "terminated\n") if times == 1 else (-signal.SIGTERM, ""))


def boom(*_, **__):
    raise ZeroDivisionError("a mistake of ours")


def raises_in_one(job):
    """Stands for a mistake of ours that one point finds, in the process that runs it."""
    import accelsim.simulation
    from accelsim.sweeps import worker

    real = accelsim.simulation.simulate
    if job["config"]["array"]["rows"] == 3:
        accelsim.simulation.simulate = boom
    try:
        return worker.run_job(job)
    finally:
        accelsim.simulation.simulate = real


def test_a_mistake_of_ours_costs_its_point_alone(tmp_path, project_root, monkeypatch):
    monkeypatch.chdir(project_root)
    monkeypatch.setattr("accelsim.sweeps.runners.run_job", raises_in_one)
    spec = {
        "config": "configs/int8_ws.yaml",
        "trace": "traces/digits_cnn_int8.npz",
        "batch": 1,
        "grid": {"array.rows": [2, 3, 4]},
    }
    frame = accelsim.sweep(spec, tmp_path / "results.parquet", jobs=2, progress=False)
    failed = frame[frame["error"].notna()]
    assert failed["array.rows"].tolist() == [3]
    assert (
        failed["error"]
        .str.fullmatch(r"internal error: ZeroDivisionError: a mistake of ours \(test_sweeps_kills.py:\d+\)")
        .all()
    )
    assert frame[frame["error"].isna()]["point"].nunique() == 2


def test_the_command_says_that_a_mistake_was_ours(tmp_path, project_root, monkeypatch):
    monkeypatch.setattr("accelsim.simulation.simulate", boom)
    spec = tmp_path / "sweep.yaml"
    spec.write_text(
        f"config: {project_root}/configs/int8_ws.yaml\ntrace: {project_root}/traces/digits_cnn_int8.npz\nbatch: 1\n"
        "grid: {array.rows: [8]}\n"
    )
    args = ["sweep", str(spec), "-o", str(tmp_path / "r.parquet"), "--jobs", "1"]
    result = CliRunner().invoke(cli.app, args, catch_exceptions=False)
    assert result.exit_code == 1
    assert "point 0: internal error: ZeroDivisionError: a mistake of ours" in result.stdout


def short_of_memory(job):
    raise MemoryError


def test_what_the_machine_could_not_do_is_tried_again(tmp_path, project_root, monkeypatch):
    monkeypatch.chdir(project_root)
    spec = {
        "config": "configs/int8_ws.yaml",
        "trace": "traces/digits_cnn_int8.npz",
        "batch": 1,
        "grid": {"array.rows": [8]},
    }
    out = tmp_path / "results.parquet"
    with monkeypatch.context() as patch:
        patch.setattr("accelsim.sweeps.worker._rows", short_of_memory)
        frame = accelsim.sweep(spec, out, jobs=1, progress=False)
    assert frame["error"].tolist() == ["out of memory"]
    assert out.with_suffix(".journal.jsonl").exists()
    frame = accelsim.sweep(spec, out, jobs=1, progress=False)
    assert frame["error"].isna().all()
    assert not out.with_suffix(".journal.jsonl").exists()


def test_a_runner_that_is_closed_leaves_no_process(tmp_path, project_root, monkeypatch):
    monkeypatch.setattr("accelsim.sweeps.runners.run_job", at_once)
    runner = run_local({str(place): {} for place in range(4)}, 2)
    _, result = next(runner)
    runner.close()
    pid = result["rows"][0]["pid"]
    wait_until(lambda: not is_alive(pid), "the end of the worker")


def at_once(job):
    return {"rows": [{"pid": os.getpid()}], "error": None}
