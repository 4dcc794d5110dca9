"""The command line as a user meets it: what goes to stdout and stderr, exit codes, and files."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import accelsim
from accelsim import RunReport, cli
from accelsim.cli.progress import Progress
from accelsim.config.loader import parse_config

runner = CliRunner()


pytestmark = pytest.mark.usefixtures("in_the_checkout")


def invoke(*args):
    return runner.invoke(cli.app, [str(arg) for arg in args], catch_exceptions=False)


def only_progress(stderr):
    """A machine that takes its time, compiling for instance, says how far it is."""
    return all(line.startswith("[") for line in stderr.splitlines())


INT8 = ("configs/int8_ws.yaml", "traces/digits_cnn_int8.npz")
VSQ = ("configs/int4_vsq.yaml", "traces/digits_cnn_int4_vsq.npz")


def edited(tmp_path, config, **edits):
    """Write a copy of a shipped configuration with lines replaced, and return its path."""
    text = Path(config).read_text()
    for old, new in edits.values():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "edited.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("pair", [INT8, VSQ], ids=["int8", "int4_vsq"])
def test_the_main_job_gives_the_expected_codes(pair):
    result = invoke("run", *pair, "--json")
    assert result.exit_code == 0
    assert only_progress(result.stderr)
    report = RunReport.from_json(result.stdout)  # one document and nothing else
    assert [layer.mismatches for layer in report.layers] == [0] * len(report.layers)
    assert report.batch >= 100
    assert report.accuracy.float_accuracy > 0.95
    assert report.accuracy.simulated_accuracy > 0.93
    assert report.accuracy.difference == pytest.approx(
        report.accuracy.simulated_accuracy - report.accuracy.float_accuracy
    )


def test_the_table_names_every_layer_and_the_totals():
    result = invoke("run", *INT8)
    assert result.exit_code == 0
    for word in ("conv1", "conv2", "fc1", "fc2", "total", "accuracy", "SQNR", "drain", "fill", "load"):
        assert word.lower() in result.stdout.lower()


@pytest.mark.parametrize("config", ["int8_ws", "int8_os", "int8_is"])
def test_dataflows_agree_and_the_independent_reference_confirms(config):
    result = invoke("run", f"configs/{config}.yaml", INT8[1], "--inputs", 7, "--verify", "--strict", "--json")
    assert result.exit_code == 0
    report = RunReport.from_json(result.stdout)
    assert report.batch == 7
    assert [layer.verified for layer in report.layers] == [0] * len(report.layers)
    assert [layer.mismatches for layer in report.layers] == [0] * len(report.layers)


def test_the_reference_confirms_vsq():
    report = RunReport.from_json(invoke("run", *VSQ, "--inputs", 5, "--verify", "--json").stdout)
    assert [layer.verified for layer in report.layers] == [0] * len(report.layers)


def test_both_engines_report_the_same():
    fast, stepped = (
        json.loads(invoke("run", *INT8, "--inputs", 2, "--engine", engine, "--json").stdout)
        for engine in ("fast", "stepped")
    )
    assert (fast.pop("engine"), stepped.pop("engine")) == ("fast", "stepped")
    assert fast == stepped


def test_out_writes_report_and_codes(tmp_path):
    result = invoke("run", *INT8, "--inputs", 3, "--out", tmp_path / "results")
    assert result.exit_code == 0
    report = RunReport.from_json((tmp_path / "results" / "report.json").read_text())
    trace = accelsim.load_trace(INT8[1])
    with np.load(tmp_path / "results" / "outputs.npz") as outputs:
        for layer in report.layers:
            codes = next(outputs[key] for key in outputs.files if layer.name in key and "scale" not in key)
            expected = trace.expected(next(meta.output for meta in trace.layers if meta.name == layer.name))
            np.testing.assert_array_equal(codes, expected.codes[:3])


def test_strict_turns_overflow_into_exit_3_and_the_report_says_where(tmp_path):
    config = parse_config(Path(INT8[0]).read_text())
    narrow = config.model_copy(update={"accumulator": config.accumulator.model_copy(update={"bits": 12})})
    path = tmp_path / "narrow.yaml"
    from accelsim.config.loader import dump_config

    path.write_text(dump_config(narrow))
    relaxed = invoke("run", path, INT8[1], "--inputs", 2)
    assert relaxed.exit_code == 0
    assert "does not fit 12 bits" in relaxed.stdout.replace("\n", " ")
    strict = invoke("run", path, INT8[1], "--inputs", 2, "--strict", "--json")
    assert strict.exit_code == 3
    assert strict.stderr.startswith("strict: ")
    assert "accumulator overflows" in strict.stderr
    report = RunReport.from_json(strict.stdout)
    assert report.totals.accumulator_overflows > 0
    overflowing = next(layer for layer in report.layers if layer.overflow["accumulator"].count)
    assert not -(2**11) <= overflowing.overflow["accumulator"].first.value < 2**11
    assert overflowing.overflow["accumulator"].sufficient_bits > 12


def test_vcd_of_one_input(tmp_path):
    file = tmp_path / "conv1.vcd"
    result = invoke("run", *INT8, "--inputs", 1, "--vcd", file)
    assert result.exit_code == 0
    text = file.read_text()
    assert text.count("$var") > 256  # 16 x 16 PEs
    assert "$enddefinitions" in text


def test_vcd_refuses_a_big_run_and_writes_nothing(tmp_path):
    file = tmp_path / "conv1.vcd"
    result = invoke("run", *INT8, "--vcd", file, "--vcd-layer", "conv2")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "10,000" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_show_prints_a_configuration_that_loads_to_the_same():
    result = invoke("show", "configs/int4_vsq.yaml")
    assert result.exit_code == 0
    assert parse_config(result.stdout) == accelsim.load_config("configs/int4_vsq.yaml")


def test_schema_is_json_schema():
    schema = json.loads(invoke("schema").stdout)
    assert "2020-12" in schema["$schema"]
    assert "array" in schema["properties"]


def test_check_lists_the_layers():
    result = invoke("check", INT8[1])
    assert result.exit_code == 0
    for word in ("conv1", "fc2", "uint8", "int8", "MACs"):
        assert word in result.stdout


def test_version():
    assert invoke("--version").stdout == f"accelsim {accelsim.__version__}\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("run", "configs/nowhere.yaml", INT8[1]), ["configs/nowhere.yaml", "no such file"]),
        (("run", INT8[0], "nowhere.npz"), ["nowhere.npz", "no such file"]),
        (("run", INT8[0], VSQ[1]), ["layer 'conv1'", "'int8_ws'", "scale_unit"]),
        (("run", VSQ[0], INT8[1]), ["layer 'conv1'", "uint8", "4-bit", "'int4_vsq'"]),
        (("run", *INT8, "--vcd-layer", "conv1"), ["--vcd"]),
        (("run", *INT8, "--vcd", "x.vcd", "--vcd-layer", "con1"), ["'con1'", "did you mean 'conv1'?"]),
        (("run", *INT8, "--inputs", "100000"), ["100000", "inputs"]),
        (("check", "configs/int8_ws.yaml"), ["configs/int8_ws.yaml", "zip"]),
        (("show", INT8[1]), [INT8[1]]),
    ],
)
def test_mistakes_get_one_message_and_exit_2(args, words):
    result = invoke(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word.lower() in result.stderr.lower()


def test_all_problems_of_a_configuration_at_once(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text("name: demo\nclock_mhz: 1000\narray:\n  rows: 16\n  colums: 16\n  dataflow: wz\n")
    result = invoke("run", path, INT8[1])
    assert result.exit_code == 2
    assert "3 problems" in result.stderr
    assert "line 5: array.colums: unknown key; did you mean 'cols'?" in result.stderr


def test_a_damaged_trace_leaves_earlier_results_alone(tmp_path):
    results = tmp_path / "results"
    assert invoke("run", *INT8, "--inputs", 1, "--out", results).exit_code == 0
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(Path(INT8[1]).read_bytes()[:-2000])
    result = invoke("run", INT8[0], damaged, "--out", results)
    assert result.exit_code == 2
    assert str(damaged) in result.stderr
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before


def test_a_bug_of_ours_is_exit_1_with_a_traceback(tmp_path):
    script = (
        "import sys, accelsim.config.loader as loader\n"
        "def broken(path): raise ZeroDivisionError('ours')\n"
        "loader.load_config = broken\n"
        "from accelsim.cli import main\n"
        f"sys.argv = ['accelsim', 'show', {INT8[0]!r}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError: ours" in done.stderr


def test_the_installed_command_speaks():
    command = shutil.which("accelsim", path=str(Path(sys.executable).parent))
    assert command is not None
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    for word in ("run", "show", "schema", "check"):
        assert word in done.stdout
    module = subprocess.run([sys.executable, "-m", "accelsim", "--version"], capture_output=True, text=True, check=True)
    assert module.stdout.startswith("accelsim ")


def test_progress_goes_to_stderr_in_plain_lines_where_there_is_no_terminal(capfd):
    with Progress(seconds_between_lines=0.05) as progress:
        progress(1, 3, "conv2")
        time.sleep(0.4)
    captured = capfd.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines
    assert all(re.fullmatch(r"\[1/3\] conv2, \d+ s", line) for line in lines)


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m accelsim run {INT8[0]} {INT8[1]} --inputs 1 | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert only_progress(done.stderr)
    assert done.stdout.startswith("int8_ws")


@pytest.mark.parametrize("option", ["--out", "--vcd"])
def test_an_empty_path_is_not_the_current_folder(option):
    result = invoke("run", *INT8, option, "")
    assert result.exit_code == 2
    assert "the path is empty; name one" in result.stderr


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(tmp_path, monkeypatch):
    occupied = tmp_path / "file"
    occupied.write_text("mine")
    monkeypatch.setattr("accelsim.simulation.simulate", lambda *_, **__: pytest.fail("the run began"))
    result = invoke("run", *INT8, "--out", occupied)
    assert result.exit_code == 2
    assert str(occupied) in result.stderr
    assert occupied.read_text() == "mine"


def test_a_run_that_fails_leaves_nothing_behind(tmp_path):
    """Prices are looked up layer by layer: an energy table without one stops a run that has begun."""
    prices = yaml.safe_load(Path("accelsim/energy/tables/horowitz45.yaml").read_text())
    del prices["entries"]["sram_write"]
    table = tmp_path / "mine.yaml"
    table.write_text(yaml.safe_dump(prices))
    config = edited(tmp_path, INT8[0], table=("table: horowitz45", f"table: {table}"))
    before = sorted(path.name for path in tmp_path.iterdir())
    names = {"--out": tmp_path / "deep" / "out", "--html": tmp_path / "r.html", "--timeline": tmp_path / "t.json"}
    options = [part for pair in names.items() for part in pair]
    result = invoke("run", config, INT8[1], *options)
    assert result.exit_code == 2
    assert "no price for sram_write" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_two_options_cannot_name_one_file(tmp_path):
    file = tmp_path / "same.html"
    result = invoke("run", *INT8, "--html", file, "--timeline", tmp_path / "." / "same.html")
    assert result.exit_code == 2
    assert "--html names the same file" in result.stderr
    assert not file.exists()
