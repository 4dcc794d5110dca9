"""Estimates: the numbers of a run, from shapes alone; SCALE-Sim's numbers from its own files; tables of shapes."""

import json
import math
import re

import pytest
from typer.testing import CliRunner

import accelsim
from accelsim import cli
from accelsim.config.loader import load_config, parse_config
from accelsim.errors import ConfigError, ModelError
from accelsim.estimation import estimate, network_shapes
from accelsim.importers.shape_table import read_shapes
from accelsim.quantize.network_file import load_network
from accelsim.quantize.requantizer import Requantizer
from accelsim.trace.shapes import macs as macs_of
from tests.shared_data import shared

MEMORY = {"dram": {"kind": "lpddr4", "timing": "preset"}}
CORES = {"cores": {"count": 3, "split": "rows"}, "dram": {"kind": "hbm2", "timing": "preset"}}
WORDS = {
    "buffers": {
        "weight": {"size_bytes": 32768, "width_bits": 256, "banks": 2},
        "activation": {"size_bytes": 65536, "width_bits": 200, "ports": 2},
        "output": {"size_bytes": 16384, "width_bits": 72, "banks": 3},
        "accumulator": {"size_bytes": 65536, "width_bits": 1000, "ports": 2},
    },
    "memory": {"passes": "split"},
}
IDEAL = {"dram": {"timing": "ideal"}, "cores": {"count": 1}, "memory": {}, "dma": {}}
RUNS = [
    ("int8_ws", "digits_cnn_int8"),
    ("int8_os", "digits_cnn_int8"),
    ("int8_is", "digits_cnn_int8"),
    ("int4_vsq", "digits_cnn_int4_vsq"),
    ("bitserial", "digits_cnn_int8"),
    ("bitfusion", "digits_cnn_int8"),
    ("int8_ws", "digits_encoder_int8"),
]


@pytest.mark.parametrize("around", [IDEAL, MEMORY, CORES, WORDS], ids=["ideal", "memory", "cores", "words"])
@pytest.mark.parametrize(("config", "trace"), RUNS)
def test_an_estimate_is_the_run_without_its_values(project_root, config, trace, around):
    values = load_config(project_root / "configs" / f"{config}.yaml").model_dump(mode="json")
    machine = parse_config({**values, **around})
    network = accelsim.load_trace(project_root / "traces" / f"{trace}.npz").head(2)
    run, guess = accelsim.simulate(machine, network, watch=False), estimate(machine, network)
    assert guess.batch == run.batch
    assert guess.total_cycles == run.totals.total_cycles
    assert guess.total_energy_pj == run.totals.total_energy_pj
    assert guess.utilization == pytest.approx(run.totals.utilization)
    for mine, theirs in zip(guess.layers, run.layers, strict=True):
        for name in (
            *("name", "op", "shape", "macs", "input_format", "weight_format", "output_format", "cycles", "core_cycles"),
            *("peak_macs_per_cycle", "latency_us", "energy_pj", "actions"),
        ):
            assert getattr(mine, name) == getattr(theirs, name), (mine.name, name)


# -- tables of shapes -------------------------------------------------------------------------------------------------


def table(tmp_path, text):
    path = tmp_path / "shapes.csv"
    path.write_text(text)
    return path


def test_products_and_convolutions_become_layers(tmp_path):
    products = read_shapes(table(tmp_path, "Layer,M,N,K,\nfirst,5,7,11,\nsecond,2,3,4,\n"))
    assert [layer.name for layer in products.layers] == ["first", "second"]
    assert [macs_of(layer, products.tensors) for layer in products.layers] == [5 * 7 * 11, 2 * 3 * 4]
    text = (
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
        "Conv1, 224, 224, 7, 7, 3, 64, 2,\nDP2, 10, 10, 3, 3, 8, 1, 1,\n"
    )
    convs = read_shapes(table(tmp_path, text))
    # SCALE-Sim: ceil((224 - 7 + 2) / 2) = 110 outputs a side; a depthwise layer has its filter in every channel
    assert convs.tensors["Conv1.out"].shape == (1, 110, 110, 64)
    assert convs.tensors["DP2.out"].shape == (1, 8, 8, 8)
    assert convs.layers[1].groups == 8
    assert macs_of(convs.layers[1], convs.tensors) == 8 * 8 * 8 * 9


def test_rows_have_formats_counts_and_batches(tmp_path):
    text = "name,batch,M,N,K,count,weights,activations,activations twice\nq,1,4,8,16,3,int4,mx6,\ns,2,4,4,8,1,,,1\n"
    shapes = read_shapes(table(tmp_path, text), weights="int8", activations="int8")
    assert [layer.name for layer in shapes.layers] == ["q.0", "q.1", "q.2", "s"]
    assert shapes.tensors["q.1.weight"].format == "int4"
    assert shapes.tensors["q.1.in"].format == "mx6"
    assert shapes.tensors["s.other"].shape == (2, 4, 8)
    assert shapes.layers[3].op == "matmul"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("name,M,N\na,1,2\n", "columns are missing"),
        ("Conv1,224,224,7,7,3,64,2,\n", "its first line, 'conv1,224,224,7,7,3,64,2,', names none of the columns"),
        ("\n\nname,M,N,K\n\na,1,2,x\n", r"line 5 \(a\): k is x"),
        ("name,M,N,K,colour\na,1,2,3,red\n", "unknown column 'colour'; known besides are batch, count"),
        ("name,M,N,K\na,1,2,x\n", r"line 2 \(a\): k is x; use 1 to"),
        ("name,M,N,K\na,0,2,3\n", r"line 2 \(a\): m is 0"),
        ("name,M,N,K\n", "it has 0 layers"),
        ("name,M,N,K,count\na,1,2,3,999999\n", "count is 999,999"),
        (
            "name,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,Num Filter,Strides\na,2,9,3,3,1,1,1\n",
            "the filter's height 3 is larger than the input's 2",
        ),
    ],
)
def test_bad_tables_say_the_line(tmp_path, text, message):
    with pytest.raises(ModelError, match=message):
        read_shapes(table(tmp_path, text))


def test_bundled_tables_have_the_macs_that_their_papers_say(project_root):
    """ResNet-50 (He et al., CVPR 2016, with the stride in the 3 x 3): 4.1 GMAC; a 7-billion-parameter decoder:
    2 x 6.6e9 operations a token in its products with weights, the vocabulary's included.
    """
    resnet = network_shapes(project_root / "traces/shapes/resnet50.csv").meta
    assert sum(macs_of(layer, resnet.tensors) for layer in resnet.layers) == pytest.approx(4.09e9, rel=0.002)
    assert len(resnet.layers) == 54  # 53 convolutions and the classifier
    token = network_shapes(project_root / "traces/shapes/llama7b_token2048.csv").meta
    weights = sum(math.prod(token.tensors[layer.weight].shape) for layer in token.layers if layer.op == "linear")
    assert weights == 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096
    assert weights == pytest.approx(6.6e9, rel=0.005)


# -- SCALE-Sim --------------------------------------------------------------------------------------------------------

CFG = """[general]
run_name = scale_example
[architecture_presets]
ArrayHeight: 32
ArrayWidth: 16
IfmapSramSzkB: 64
FilterSramSzkB: 32
OfmapSramSzkB: 16
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow : {dataflow}
Bandwidth : 10
[run_presets]
InterfaceBandwidth: {interface}
"""


def scale_sim_cycles(dataflow, rows, cols, m, k, n):
    """SCALE-Sim's law, written from its paper's fold counts: T + R + C - 2 a fold (os), T + 2R + C - 2 (ws, is)."""
    first, second, steps = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    folds = math.ceil(first / rows) * math.ceil(second / cols)
    return folds * (steps + rows + cols - 2 + (rows if dataflow != "os" else 0))


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_scale_sims_files_give_scale_sims_compute_cycles(tmp_path, dataflow):
    cfg = tmp_path / "scale.cfg"
    cfg.write_text(CFG.format(dataflow=dataflow, interface="CALC"))
    rows = [(100, 40, 70), (1, 1, 1), (33, 17, 65), (512, 31, 9)]  # M, N, K
    topology = table(tmp_path, "Layer,M,N,K,\n" + "".join(f"g{i},{m},{n},{k},\n" for i, (m, n, k) in enumerate(rows)))
    config = load_config(cfg)
    assert (config.name, config.array.rows, config.array.cols) == ("scale_example", 32, 16)
    assert config.buffers.weight.size_bytes == 32 * 1024
    report = estimate(config, network_shapes(topology))
    for layer, (m, n, k) in zip(report.layers, rows, strict=True):
        cycles = layer.cycles
        assert cycles.load + cycles.fill + cycles.compute == scale_sim_cycles(dataflow, 32, 16, m, k, n)


# "Total Cycles" that SCALE-Sim v3.0.0 printed for these three layers on 32 x 32; it is one less than the cycles.
SCALE_SIM_PRINTED = {"os": [10299, 1421, 380], "ws": [8779, 2099, 524], "is": [16749, 2285, 890]}
SCALE_SIM_LAYERS = """Layer name,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,Num Filter,Strides,
A,30,30,3,3,16,40,1,
B,21,21,5,5,7,33,2,
C,9,9,1,1,65,5,1,
"""


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_scale_sims_own_output(tmp_path, dataflow):
    cfg = tmp_path / "scale.cfg"
    cfg.write_text(CFG.replace("ArrayWidth: 16", "ArrayWidth: 32").format(dataflow=dataflow, interface="CALC"))
    report = estimate(load_config(cfg), network_shapes(table(tmp_path, SCALE_SIM_LAYERS)))
    found = [layer.cycles.load + layer.cycles.fill + layer.cycles.compute - 1 for layer in report.layers]
    assert found == SCALE_SIM_PRINTED[dataflow]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("IfmapSramSzkB", "IfmapSramSzKB").replace("Dataflow", "dataflow"),
        lambda text: text.replace("scale_example", '"scale_example"') + "UseRamulatorTrace: False\nSRAM_row_size: 2\n",
        lambda text: text + "[sparsity]\nSparsitySupport : false\nOptimizedMapping : true\nBlockSize : 8\n",
    ],
    ids=["windows", "byte order mark", "case", "quotes and other keys", "sparsity section"],
)
def test_cfg_files_as_they_are_found(tmp_path, change):
    plain, cfg = tmp_path / "plain.cfg", tmp_path / "SCALE.CFG"
    text = CFG.format(dataflow="ws", interface="CALC")
    plain.write_text(text)
    cfg.write_text(change(text), newline="", encoding="utf-8")
    assert load_config(cfg) == load_config(plain)
    cfg.write_text(text.replace("scale_example", "50%(os)"))
    assert load_config(cfg).name == "50%(os)"


def test_topologies_as_they_are_found(tmp_path):
    """Blank lines, also before the titles; empty cells at the end; a remark in the last one; tabs; Windows' lines."""
    rows = "Conv1, 30, 30, 3, 3, 16, 40, 1,\n\tConv2_dw,28,28,3,3,1,1,2,#dw\n\n,,,,,,,,\nFC, 1, 1, 1, 1, 65, 5, 1\n\n"
    titles = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"
    plain = read_shapes(table(tmp_path, f"{titles}\n{rows}"))
    assert [plain.tensors[f"{name}.out"].shape[1:] for name in ("Conv1", "Conv2_dw", "FC")] == [
        (28, 28, 40), (14, 14, 1), (1, 1, 5)
    ]  # fmt: skip
    assert read_shapes(table(tmp_path, f"\n \n{titles}\n\n{rows}")) == plain
    (tmp_path / "shapes.csv").write_bytes(f"{titles}\n{rows}".replace("\n", "\r\n").encode("utf-8-sig"))
    assert read_shapes(tmp_path / "shapes.csv") == plain
    batched = read_shapes(
        table(tmp_path, f"{titles} Batch Size,\nConv1, 30, 30, 3, 3, 16, 40, 1, 4,\n".replace(",,", ","))
    )
    assert batched.tensors["Conv1.out"].shape == (4, 28, 28, 40)


def test_a_given_bandwidth_limits_and_more_of_it_never_costs(tmp_path):
    cycles = []
    for bandwidth in (1, 10, 1000):
        cfg = tmp_path / "scale.cfg"
        text = CFG.format(dataflow="ws", interface="USER")
        cfg.write_text(text.replace("Bandwidth : 10", f"Bandwidth : {bandwidth}"))
        shapes = network_shapes(table(tmp_path, "Layer,M,N,K\na,64,64,512\n"))
        cycles.append(estimate(load_config(cfg), shapes).total_cycles)
    assert cycles[0] > cycles[1] >= cycles[2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ArrayHeight: 32", "ArrayHeight: 0", r"ArrayHeight: 0; use a whole number from 1 to 4096"),
        ("Dataflow : ws", "Dataflow : rs", "Dataflow: rs; use one of os, ws, is"),
        ("[architecture_presets]", "[presets]", r"has a section \[architecture_presets\]; found general, presets"),
        ("InterfaceBandwidth: CALC", "InterfaceBandwidth: FAST", "InterfaceBandwidth: FAST; use CALC or USER"),
        ("IfmapSramSzkB: 64", "", "IfmapSramSzkB: missing"),
        (
            "[run_presets]",
            "[sparsity]\nSparsitySupport: true\nOptimizedMapping: true\n[run_presets]",
            "not modelled: use false",
        ),
    ],
)
def test_bad_cfg_files_are_one_message(tmp_path, old, new, message):
    cfg = tmp_path / "scale.cfg"
    cfg.write_text(CFG.format(dataflow="ws", interface="CALC").replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_config(cfg)


# -- the command ------------------------------------------------------------------------------------------------------


def invoke(*args):
    return CliRunner().invoke(cli.app, ["estimate", *map(str, args)], catch_exceptions=False, env={"COLUMNS": "160"})


def test_the_command_estimates_traces_and_tables(project_root):
    config = project_root / "configs/int8_ws.yaml"
    result = invoke(config, project_root / "traces/shapes/llama7b_token2048.csv", "--json")
    document = json.loads(result.stdout)
    assert len(document["layers"]) == 289
    assert document["total_cycles"] == sum(layer["cycles_total"] for layer in document["layers"])
    assert document["macs"] == sum(layer["macs"] for layer in document["layers"])
    text = invoke(config, project_root / "traces/shapes/llama7b_token2048.csv").stdout
    rows = re.findall(r"^ gate .* x [\d,]+ +(\d+) +([\d,]+) ", text, re.MULTILINE)
    assert sum(int(times) for times, _ in rows) == 32
    macs = sum(layer["macs"] for layer in document["layers"] if layer["layer"].startswith("gate"))
    assert sum(int(shown.replace(",", "")) for _, shown in rows) == macs
    assert text.count("\n") < 40  # equal layers share a row


def test_a_file_that_is_no_network_is_one_message(project_root, tmp_path):
    result = invoke(project_root / "configs/int8_ws.yaml", tmp_path / "none.csv")
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,M,N\na,1,2\n", "columns are missing: k;"),
        ("name,M,N,K,M\na,1,2,3,4\n", "the column 'm' is there 2 times; keep one"),
        ("name,M,N,K\na,1,2,3,4\n", "line 2 has 5 cells, the first line has 4 columns"),
        ("name,M,N,K,Sparsity\na,1,2,3,2:4\n", "line 2: sparsity is '2:4'; structured sparsity is not modelled"),
    ],
)
def test_a_table_is_not_read_in_part(project_root, tmp_path, text, message):
    shapes = tmp_path / "shapes.csv"
    shapes.write_text(text)
    result = invoke(project_root / "configs/int8_ws.yaml", shapes)
    assert result.exit_code == 2
    assert message in result.stderr


def test_dense_sparsity_and_empty_cells_at_the_end_are_fine(tmp_path):
    shapes = tmp_path / "shapes.csv"
    shapes.write_text("name,M,N,K,Sparsity,\na,1,2,3,4:4,,\n")
    assert [layer.name for layer in network_shapes(shapes).meta.layers] == ["a"]


def test_what_an_estimate_adds_up_to(project_root, tmp_path):
    """pJ/MAC, TOPS/W, power and energy-delay product follow from energy, MACs and latency; the command prints them."""
    shapes = tmp_path / "shapes.csv"
    shapes.write_text("name,M,N,K\na,512,64,128\n")
    config = project_root / "configs/int8_ws.yaml"
    report = estimate(load_config(config), network_shapes(shapes))
    assert report.batch == 1  # M are rows, not inferences
    energy_j, seconds = report.total_energy_pj * 1e-12, report.latency_us * 1e-6
    assert report.energy_per_mac_pj == pytest.approx(report.total_energy_pj / (512 * 64 * 128))
    assert report.tops_per_watt == pytest.approx(2 * 512 * 64 * 128 / energy_j / 1e12)
    assert report.average_power_mw == pytest.approx(energy_j / seconds * 1e3)
    assert report.energy_delay_pj_us == pytest.approx(energy_j * seconds * 1e18)
    text = invoke(config, shapes).stdout
    assert f"average power {report.average_power_mw:,.4g} mW" in text
    assert f"{report.tops_per_watt:,.3g} TOPS/W" in text
    assert f"compute {100 * report.layers[0].cycles.compute / report.total_cycles:.1f} %" in text
    assert f"dram {100 * report.energy_pj['dram'] / report.total_energy_pj:.1f} %" in text
    assert "batch of" not in text


# -- formats that are given -------------------------------------------------------------------------------------------


def test_a_float_network_in_formats_that_are_given(project_root):
    config = load_config(project_root / "configs" / "bitserial.yaml")
    place = project_root / "traces" / "digits_cnn_float.npz"
    floats = load_network(place)
    pairs = {layer.name: ("int4", "int6") for layer in floats.array_layers}
    known = estimate(config, Requantizer(floats).trace(pairs).head(1))
    found = estimate(config, network_shapes(place, weights="int4", activations="int6"))
    assert [layer.actions for layer in found.layers] == [layer.actions for layer in known.layers]
    assert found.total_cycles == known.total_cycles
    assert found.layers[0].weight_format == "int4"


def test_a_float_model_in_formats_that_are_given(project_root):
    """The float twin of a quantized model has its MACs and sizes; by default both operands are int8."""
    config = load_config(project_root / "configs" / "bitserial.yaml")
    twin, quantized = (
        estimate(config, network_shapes(shared("models", f"kws01_dscnn_{kind}.tflite"))) for kind in ("float", "int8")
    )
    for one, other in zip(twin.layers, quantized.layers, strict=False):
        assert (one.name, one.macs, one.weight_bits, one.shape) == (
            other.name,
            other.macs,
            other.weight_bits,
            other.shape,
        )
    for kind in ("float", "int8"):
        narrow = estimate(config, network_shapes(shared("models", f"kws01_dscnn_{kind}.tflite"), weights="int4"))
        assert narrow.total_cycles < 0.8 * twin.total_cycles
        assert {layer.weight_format for layer in narrow.layers if layer.macs} == {"int4"}


@pytest.mark.parametrize(
    ("network", "words", "message"),
    [
        (
            "shapes/resnet50.csv",
            ["--weights", "int99"],
            "--weights 'int99' is no format of operands: int99: operands have 2 to 16 bits",
        ),
        ("shapes/resnet50.csv", ["--activations", "int32"], "--activations 'int32' is no format of operands; use int2"),
        ("digits_cnn_int8.npz", ["--weights", "mx7"], "fp16, bf16, fp8_e4m3, fp8_e5m2, fp6_e3m2"),
        (
            "digits_cnn_int8.npz",
            ["--weights", "int4"],
            "weights 'int4': a trace has formats of its own; leave them out",
        ),
    ],
)
def test_formats_that_cannot_be_given(project_root, network, words, message):
    places = [project_root / "configs/int8_ws.yaml", project_root / "traces" / network]
    done = CliRunner().invoke(cli.app, ["estimate", *map(str, places), *words])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_a_table_in_time_and_under_the_roof(project_root, tmp_path):
    """The timeline's slices and the picture come from shapes alone; each track's slices follow one another."""
    shapes, slow = table(tmp_path, "name,M,N,K\na,64,64,512\nb,512,64,128\n"), tmp_path / "slow.yaml"
    slow.write_text("{name: slow, clock_mhz: 100, array: {rows: 8, cols: 8, dataflow: ws}, dram: {timing: preset}}")
    time, roof = tmp_path / "time.json", tmp_path / "roof.svg"
    result = invoke(slow, shapes, "--json", "--timeline", time, "--roofline", roof)
    assert result.exit_code == 0, result.stderr
    report, document = json.loads(result.stdout), json.loads(time.read_text())
    assert document["otherData"]["makespan_cycles"] == report["total_cycles"]
    slices = [event for event in document["traceEvents"] if event["ph"] == "X"]
    moved = sum(event["args"]["cycles"] for event in slices if event["cat"] == "dram")
    assert moved == report["timeline"]["dram_busy_cycles"] > 0
    assert {event["args"]["layer"] for event in slices} == {"a", "b"}
    assert "Roofline, slow on shapes" in roof.read_text()


def test_the_roofline_of_an_estimate_is_the_runs(project_root):
    from accelsim import plots

    config = load_config(project_root / "configs/int8_ws.yaml")
    trace = accelsim.load_trace(project_root / "traces/digits_cnn_int8.npz").head(2)
    assert plots.roof_points(estimate(config, trace)) == plots.roof_points(accelsim.simulate(config, trace))
    ideal = parse_config({**config.model_dump(mode="json"), **IDEAL})
    assert {point.bound for point in plots.roof_points(estimate(ideal, trace))} == {"compute"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--timeline", "none/time.json"), "there is no folder none"),
        (("--roofline", "roof.gif"), "pictures are written as .png, .svg, .pdf"),
        (("--timeline", "one.svg", "--roofline", "one.svg"), "--timeline names the same file"),
    ],
)
def test_files_that_cannot_be_written_are_told_before_anything_else(project_root, tmp_path, options, message):
    shapes = table(tmp_path, "name,M,N,K\na,1,2,3\n")
    result = invoke(project_root / "configs/int8_ws.yaml", shapes, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["shapes.csv"]
