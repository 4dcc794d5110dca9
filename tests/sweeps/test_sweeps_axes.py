"""What may vary: networks and their data, whole sections, null; and what is refused before anything runs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shared_data import shared
from sweeping import sweep
from typer.testing import CliRunner

import accelsim
from accelsim import cli
from accelsim.errors import SweepError
from accelsim.sweeps.points import expand
from accelsim.sweeps.spec import load_spec

CONFIG, TRACE = "configs/int8_ws.yaml", "traces/digits_cnn_int8.npz"
FLOAT, TERNARY = "traces/digits_cnn_float.npz", "traces/digits_cnn_float_ternary.npz"
BASE = {"config": CONFIG, "trace": TRACE, "batch": 1}
NETWORK = {"config": CONFIG, "network": FLOAT, "batch": 2, "formats": "*:int8"}


pytestmark = pytest.mark.usefixtures("in_the_checkout")


@pytest.fixture
def nothing_runs(monkeypatch):
    monkeypatch.setattr("accelsim.simulation.simulate", lambda *_, **__: pytest.fail("a point ran"))


# -- networks ---------------------------------------------------------------------------------------------------------


def test_networks_are_an_axis(tmp_path):
    out = tmp_path / "results.parquet"
    spec = {"config": CONFIG, "batch": 2, "formats": "*:int8", "grid": {"network": [FLOAT, {"file": TERNARY}]}}
    frame = sweep(spec, out)
    assert frame.groupby("point")["network"].first().tolist() == [FLOAT, json.dumps({"file": TERNARY})]
    assert frame.groupby("point")["trace_digest"].first().nunique() == 2
    for point, path in enumerate([FLOAT, TERNARY]):
        alone = sweep({**NETWORK, "network": path, "grid": {"array.rows": [16]}})
        assert set(frame[frame["point"] == point]["trace_digest"]) == set(alone["trace_digest"])
    assert pd.read_parquet(out).equals(frame)


def test_traces_and_networks_may_take_turns():
    points = [{"trace": TRACE, "network": None}, {"network": FLOAT}]
    frame = sweep({"config": CONFIG, "batch": 2, "formats": "*:int8", "points": points})
    assert frame["error"].isna().all()
    assert frame.groupby("point")["trace_digest"].first().nunique() == 2


def test_a_models_data_is_an_axis(tmp_path):
    model = str(shared("models", "ad01_fcae_float.tflite"))
    files = []
    for seed in (0, 1):
        files.append(str(tmp_path / f"data{seed}.npz"))
        np.savez(files[-1], x=np.random.default_rng(seed).normal(size=(3, 640)).astype(np.float32))
    spec = {"config": CONFIG, "network": model, "batch": 2, "formats": "*:int8", "grid": {"inputs": [*files, files[0]]}}
    points = expand(*load_spec({**spec, "grid": {"inputs": [*files, f"{files[0]}:x"]}}))
    assert [point.problem for point in points] == [None] * 3
    assert points[0].key == points[2].key != points[1].key
    frame = sweep(spec)
    assert frame["error"].isna().all()
    assert frame.groupby("point")["trace_digest"].first().nunique() == 2
    given = expand(*load_spec({**spec, "grid": {"network": [{"file": model, "inputs": file} for file in files]}}))
    assert [point.key for point in given] == [point.key for point in points[:2]]
    with pytest.raises(SweepError, match=r"ad01_fcae_float.tflite: a model needs data to run on; set inputs"):
        expand(*load_spec({**spec, "grid": {"array.rows": [8]}}))


def test_a_single_layers_null_is_the_common_format():
    frame = sweep({**NETWORK, "grid": {"formats.conv2": [None, "int4/int8"]}})
    weights = frame[frame["layer"] == "conv2"].set_index("point")["weight_format"]
    assert weights.tolist() == ["int8", "int4"]


# -- sections and null ------------------------------------------------------------------------------------------------


def test_an_optional_section_is_there_or_not(tmp_path):
    out = tmp_path / "results.parquet"
    frame = sweep({**BASE, "grid": {"array.popcount": [None, {"word_bits": 32}], "array.rows": [8]}}, out)
    assert frame["error"].isna().all()
    assert frame.groupby("point")["config_digest"].first().nunique() == 2
    read = pd.read_parquet(out).groupby("point")["array.popcount"].first()
    assert pd.isna(read[0])
    assert json.loads(read[1]) == {"word_bits": 32}


@pytest.mark.parametrize("order", [["array", "array.rows"], ["array.rows", "array"]])
def test_a_whole_section_goes_before_its_fields(order):
    array = {"rows": 4, "cols": 4, "dataflow": "ws"}
    values = {"array": [array], "array.rows": [2, 3]}
    points = expand(*load_spec({**BASE, "grid": {axis: values[axis] for axis in order}}))
    assert [(point.job["config"]["array"]["rows"], point.job["config"]["array"]["cols"]) for point in points] == [
        (2, 4),
        (3, 4),
    ]


def test_an_item_of_a_list_is_set_or_is_not_there():
    tiling = [{"layer": "conv2", "m": 4}]
    drawn = load_spec({**BASE, "points": [{"memory.tiling.0.layer": "conv1", "memory.tiling": tiling}]})
    points = expand(*drawn)
    assert points[0].axes["memory.tiling"] == [{"layer": "conv2", "m": 4}]  # as it was given
    assert points[0].job["config"]["memory"]["tiling"][0]["layer"] == "conv1"
    with pytest.raises(SweepError, match=r"axis 'memory.tiling.1.layer': the configuration has only 0 items there"):
        expand(*load_spec({**BASE, "grid": {"memory.tiling.1.layer": ["conv1"]}}))


def test_prices_are_named_relative_to_the_sweep(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_bytes(Path(accelsim.__path__[0], "energy/tables/horowitz45.yaml").read_bytes())
    root = str(Path.cwd())
    spec = tmp_path / "sweep.yaml"
    spec.write_text(
        f"config: {root}/{CONFIG}\ntrace: {root}/{TRACE}\n"
        "points: [{energy.table: mine.yaml}, {energy: {table: mine.yaml}}, {energy.table: horowitz45}]\n"
    )
    points = expand(*load_spec(spec))
    assert [point.problem for point in points] == [None] * 3
    tables = [point.job["config"]["energy"]["table"] for point in points]
    assert tables == [str(tmp_path / "mine.yaml")] * 2 + ["horowitz45"]


def test_python_values_are_what_a_file_would_say():
    drawn = load_spec({**BASE, "config": Path(CONFIG), "grid": {"array.rows": range(2, 4), "array.cols": (4, 8)}})[0]
    assert drawn.grid == {"array.rows": [2, 3], "array.cols": [4, 8]}
    numbers = load_spec({**BASE, "grid": {"array.rows": np.arange(2, 4), "clock_mhz": [np.float64(100)]}})[0]
    assert numbers.grid == {"array.rows": [2, 3], "clock_mhz": [100.0]}
    assert numbers.digest == load_spec({**BASE, "grid": {"array.rows": [2, 3], "clock_mhz": [100.0]}})[0].digest


# -- refused before anything runs -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({**BASE, "engine": "fsat", "grid": {"array.rows": [8]}}, r"engine: 'fsat': input should be 'auto', 'fast' or"),
        (
            {**BASE, "grid": {"array.rows": [0, 5000]}},
            r"none of its 2 points can run; the first: .*too small; use 1 to",
        ),
        ({**BASE, "batch": 999, "grid": {"array.rows": [8]}}, r"int8.npz: has 240 inputs, so the first 999 cannot be"),
        ({**BASE, "grid": {"array": [8]}}, r"axis 'array' is a section; vary its fields: .*; or give whole sections"),
        (
            {**NETWORK, "grid": {"formats.conv9": ["int8"]}},
            r"axis 'formats.conv9' matches no layer; did you mean 'conv2'\? The layers are conv1, conv2, fc1",
        ),
        ({**NETWORK, "ranges": "mes", "grid": {"array.rows": [8]}}, r"^sweep: .*'mes'.* mse"),
        ({**NETWORK, "formats": "*:int99", "grid": {"array.rows": [8]}}, r"none of its 1 points can run; .*int99"),
        ({**NETWORK, "formats": "conv1:int8", "grid": {"array.rows": [8]}}, r"no pattern matches conv2, fc1, fc2"),
        ({**NETWORK, "network": None, "grid": {"network": [3]}}, r"network: 3 is not the name of a file"),
        ({**NETWORK, "grid": {"network": [{"path": FLOAT}]}}, r"give a file's name, or \{file: MODEL, inputs: DATA\}"),
        ({**NETWORK, "grid": {"network": ["traces/none.npz", FLOAT]}}, r"traces/none.npz"),
        ({**BASE, "grid": {"config": [["a"]]}}, r"config: \['a'\] is not the name of a file"),
        ({**BASE, "grid": {"array.rows": [object()]}}, r"grid.array.rows.0: "),
    ],
)
def test_mistakes_of_the_whole_sweep_are_one_message(tmp_path, spec, message):
    with pytest.raises(SweepError, match=message):
        sweep(spec, tmp_path / "results.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    "address", ["", "here", "host:port", "tcp://host", "tcp://host:70000", "http://host:8786", "://:1"]
)
def test_what_is_no_address_is_one_message(tmp_path, address):
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'accelsim[distributed]'")
    spec = tmp_path / "sweep.yaml"
    root = str(Path.cwd())
    spec.write_text(f"config: {root}/{CONFIG}\ntrace: {root}/{TRACE}\ngrid: {{array.rows: [8]}}\n")
    args = ["sweep", str(spec), "-o", str(tmp_path / "r.parquet"), "--scheduler", address]
    result = CliRunner().invoke(cli.app, args)
    assert result.exit_code == 2
    assert f"scheduler {address!r} is not an address; name one as tcp://HOST:PORT" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


@pytest.mark.usefixtures("nothing_runs")
def test_a_dry_run_checks_the_target_too(tmp_path):
    spec, out = tmp_path / "sweep.yaml", tmp_path / "r.parquet"
    root = str(Path.cwd())
    spec.write_text(f"config: {root}/{CONFIG}\ntrace: {root}/{TRACE}\ngrid: {{array.rows: [8]}}\n")
    out.write_text("mine")
    result = CliRunner().invoke(cli.app, ["sweep", str(spec), "-o", str(out), "--dry-run"])
    assert result.exit_code == 2
    assert "r.parquet: there is a file already, and it is not a sweep's" in result.stderr


def test_ten_thousand_points_read_each_file_once(monkeypatch):
    from accelsim.sweeps import sources
    from accelsim.trace import reader

    reads = []

    def counting(real):
        def count(*args, **options):
            reads.append(args[0])
            return real(*args, **options)

        return count

    monkeypatch.setattr(sources, "load_config", counting(sources.load_config))
    monkeypatch.setattr(reader, "load_trace", counting(reader.load_trace))
    points = expand(*load_spec({**BASE, "grid": {"array.rows": range(1, 101), "accumulator.bits": range(17, 25)}}))
    assert len(points) == len({point.key for point in points}) == 800
    assert [Path(path).name for path in reads] == ["int8_ws.yaml", "digits_cnn_int8.npz"]
