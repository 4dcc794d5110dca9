"""Tables of costs: equal to whole networks' estimates where layers do not touch each other, and laid out as HAQ and
HAWQ read them."""

import csv
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import accelsim
from accelsim.cli import app
from accelsim.errors import SearchError, UnsupportedLayerError
from accelsim.formats import get
from accelsim.quantize.network_file import load_network
from accelsim.quantize.requantizer import Requantizer
from accelsim.search.bops import hawq_bops, uniq_bops
from accelsim.search.costs import cost_table
from accelsim.search.exports import haq_array, hawq_columns, save_haq, save_hawq
from accelsim.search.layer_cost import Sums
from accelsim.search.sensitivity import hessian_sensitivities
from accelsim.search.subject import open_subject
from tests.shared_data import shared

MACHINES = ("bitfusion", "bitserial", "int8_ws")


def configuration(project_root, name, timing="ideal"):
    """A shipped machine, by default with a memory that takes no time: layers then do not overlap."""
    config = accelsim.load_config(project_root / "configs" / f"{name}.yaml")
    return config.model_copy(update={"dram": config.dram.model_copy(update={"timing": timing})})


@pytest.fixture(scope="module")
def digits(project_root):
    return accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz")


@pytest.fixture(scope="module")
def fusion(project_root, digits):
    return cost_table(configuration(project_root, "bitfusion"), digits, [2, 3, 4, 8], [2, 4, 8])


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("bits", [8, 4])
def test_layers_alone_add_up_to_the_network(project_root, machine, bits):
    """With ideal memory a network is the sum of its layers, so the table must give `estimate`'s numbers."""
    config = configuration(project_root, machine)
    network = load_network(project_root / "traces" / "digits_cnn_float.npz").head(1)
    form = f"int{bits}"
    pairs = {layer.name: (form, form) for layer in network.array_layers}
    trace = Requantizer(network).trace(pairs, output=form, vector="int8")
    table, whole = cost_table(config, trace, [bits], [bits]), accelsim.estimate(config, trace)
    chosen = dict.fromkeys(table.layers, (bits, bits))
    assert table.total("latency", chosen) == pytest.approx(whole.latency_us)
    assert table.total("energy", chosen) == pytest.approx(whole.total_energy_pj)
    assert table.total("edp", chosen) == pytest.approx(whole.latency_us * whole.total_energy_pj)
    assert table.total("size", chosen) == sum(layer.weight_bits for layer in whole.layers) / 8


def test_a_serial_multiplier_computes_in_proportion_to_both_widths(project_root, digits):
    table = cost_table(configuration(project_root, "bitserial"), digits, range(2, 9), range(2, 9))
    for name in table.layers:
        whole = table.cells[name, 8, 8].estimate.cycles.compute
        for w in table.weight_bits:
            for a in table.activation_bits:
                assert table.cells[name, w, a].estimate.cycles.compute * 64 == whole * w * a


def test_fused_bricks_compute_three_bits_as_four(fusion):
    for name in fusion.layers:
        assert fusion.cells[name, 3, 8].estimate.cycles == fusion.cells[name, 4, 8].estimate.cycles
        assert fusion.cells[name, 3, 8].estimate.weight_bits < fusion.cells[name, 4, 8].estimate.weight_bits


def test_narrower_is_never_dearer(fusion):
    for cost in ("latency", "energy", "size", "bops"):
        values = fusion.array(cost)
        assert values.shape == (4, 4, 3)
        assert (np.diff(values, axis=1) >= 0).all(), cost
        assert (np.diff(values, axis=2) >= 0).all(), cost


def test_stalls_are_in_the_table(project_root, digits):
    ideal = cost_table(configuration(project_root, "bitfusion"), digits, [8], [8])
    late = cost_table(configuration(project_root, "bitfusion", timing="preset"), digits, [8], [8])
    for name in ideal.layers:
        one, other = ideal.cells[name, 8, 8], late.cells[name, 8, 8]
        assert one.estimate.cycles.by_cause()["dram"] == 0 < other.estimate.cycles.by_cause()["dram"]
        assert other.value("energy") > one.value("energy"), "what waits leaks"


def test_outputs_of_a_fixed_width(project_root, digits):
    config = configuration(project_root, "bitfusion")
    same, wide = (cost_table(config, digits, [8], [2], outputs=outputs) for outputs in ("same", 8))
    assert same.cells["conv1", 8, 2].estimate.output_bits * 4 == wide.cells["conv1", 8, 2].estimate.output_bits
    assert same.cells["conv1", 8, 2].value("energy") < wide.cells["conv1", 8, 2].value("energy")


def test_sqnr_grows_by_about_six_decibels_a_bit(project_root):
    subject = open_subject(project_root / "traces" / "digits_cnn_float.npz")
    table = cost_table(
        configuration(project_root, "int8_ws"), subject.shapes, range(4, 9), range(4, 9), values=subject.values,
        floats=subject.floats,
    )  # fmt: skip
    for name in table.layers:
        weights = [table.cells[name, bits, 8].weight_sqnr_db for bits in range(4, 9)]
        given = [table.cells[name, 8, bits].activation_sqnr_db for bits in range(4, 9)]
        for measured in (weights, given):
            assert all(3.9 < step < 9 for step in np.diff(measured)), (name, measured)
    shapes_alone = cost_table(configuration(project_root, "int8_ws"), subject.shapes, [8], [8])
    assert shapes_alone.cells["conv1", 8, 8].weight_sqnr_db is None


# -- bit operations ---------------------------------------------------------------------------------------------------

# Published: ResNet-18's 19 layers between the first and the last one, in the table of HAWQ-V3's integer program.
HAWQ_MACS = [115605504] * 4 + [57802752, 115605504, 6422528] + [115605504] * 2 + [57802752, 115605504, 6422528]
HAWQ_MACS += [115605504] * 2 + [57802752, 115605504, 6422528] + [115605504] * 2


def test_bops_of_the_published_resnet18():
    """HAWQ-V3 prints 116 G for 8 bits: the layers between, its first one (118 013 952 MACs) and its last (512 000)."""
    macs = sum(HAWQ_MACS) + 118_013_952 + 512_000
    assert hawq_bops(macs, 8, 8) / 1e9 == pytest.approx(116, abs=0.5)
    assert hawq_bops(macs, 32, 32) / 1e9 == pytest.approx(1858, abs=1)
    assert (hawq_bops(sum(HAWQ_MACS), 4, 4) + hawq_bops(118_525_952, 8, 8)) / 1e9 == pytest.approx(34, abs=1)


@pytest.mark.parametrize(("bits", "ratio"), [(8, 1.393), (4, 2.073), (2, 4.292), (1, 12.17)])
def test_two_ways_to_count_bops(bits, ratio):
    """By hand for K = 576: (b^2 + 2 b + 9.16993) / b^2."""
    assert uniq_bops(1, 576, bits, bits) / hawq_bops(1, bits, bits) == pytest.approx(ratio, abs=0.005)


# -- layouts ----------------------------------------------------------------------------------------------------------


def test_haq_layout(fusion, tmp_path):
    array = np.load(save_haq(fusion, tmp_path / "latency.npy"), allow_pickle=False)
    assert array.shape == (4, 8, 8)
    assert np.isfinite(array).all()
    assert (array > 0).all()
    for place, name in enumerate(fusion.weighted):
        assert array[place, 7, 3] == fusion.cells[name, 8, 4].value("latency")
        assert array[place, 2, 7] == fusion.cells[name, 3, 8].value("latency")
    assert (array[:, 0] == array[:, 1]).all(), "1 bit costs what 2 do"
    assert (array[:, 4:7] == array[:, 7:]).all(), "5 bits, which were not asked for, cost what 8 do"
    assert np.allclose(haq_array(fusion, "energy") * array, haq_array(fusion, "edp"), rtol=1e-12)


def test_haq_compares_with_eight_bits(project_root, digits):
    table = cost_table(configuration(project_root, "bitfusion"), digits, [4], [4])
    with pytest.raises(SearchError, match="include 8"):
        haq_array(table)


def test_hawq_layout(fusion, tmp_path):
    columns = json.loads(save_hawq(fusion, tmp_path / "columns.json").read_text())
    assert columns["layers"] == ["conv1", "conv2", "fc1", "fc2"]
    assert columns["parameters"][2] * 2**20 == 32768
    assert columns["bops"] == [cell / 1e6 for cell in (2304, 73728, 32768, 640)]
    assert columns["latency_int4"][1] == pytest.approx(fusion.cells["conv2", 4, 4].value("latency") / 1000)
    assert columns["energy_int8"][1] == pytest.approx(fusion.cells["conv2", 8, 8].value("energy") / 1e6)
    assert set(columns) >= {f"latency_int{bits}" for bits in (2, 4, 8)}
    assert "latency_int3" not in columns, "activations have no 3 bits"
    names = {}
    exec(save_hawq(fusion, tmp_path / "columns.py").read_text(), names)
    assert names["latency_int4"] == columns["latency_int4"] == hawq_columns(fusion)["latency_int4"]


def test_mobilenet_has_the_53_layers_of_haq(project_root):
    subject = open_subject(shared("models", "imagenet_mobilenetv2_100_224_int8.tflite"))
    table = cost_table(configuration(project_root, "bitfusion"), subject.shapes, [4, 8], [4, 8])
    assert haq_array(table).shape == (53, 8, 8)
    kinds = [table.cells[name, 8, 8].kind for name in table.layers]
    assert [kinds.count(kind) for kind in ("conv2d", "depthwise", "linear")] == [36, 17, 0], (
        "its classifier is a 1 x 1 convolution"
    )
    assert sum(table.cells[name, 8, 8].estimate.macs for name in table.layers) == pytest.approx(301e6, rel=0.01)


# -- values -----------------------------------------------------------------------------------------------------------


def test_squared_errors_of_weights(project_root, digits, tmp_path):
    """Those of the float network's weights, not of their codes; which Hessian traces are multiplied by."""
    subject = open_subject(project_root / "traces" / "digits_cnn_float.npz")
    config = configuration(project_root, "bitserial")
    table = cost_table(config, subject.shapes, [4, 8], [4, 8], values=subject.values, floats=subject.floats)
    network = load_network(project_root / "traces" / "digits_cnn_float.npz")
    weights = {layer.name: layer.weight.astype(float) for layer in network.array_layers}
    supplied = hessian_sensitivities(network, dict.fromkeys(weights, 1.0), [4, 8])
    columns = json.loads(save_hawq(table, tmp_path / "columns.json").read_text())
    for place, (name, bits) in enumerate(itertools.product(table.weighted, [4, 8])):
        cell = table.cells[name, bits, 8]
        signal = float(np.square(weights[name]).sum())
        assert cell.weight_squared_error == pytest.approx(signal / 10 ** (cell.weight_sqnr_db / 10), rel=1e-9)
        channels = weights[name].reshape(len(weights[name]), -1)
        top = 2 ** (bits - 1) - 1
        step = np.abs(channels).max(axis=1, keepdims=True) / top
        plain = float(np.square(np.clip(np.rint(channels / step), -top - 1, top) * step - channels).sum())
        assert 0.3 * plain < cell.weight_squared_error <= plain, (
            "the best scales are no worse than those of the largest"
        )
        assert columns[f"delta_weights_{bits}bit_square"][place // 2] == cell.weight_squared_error
        given = next(row.loss for row in supplied.rows if (row.layer, row.bits) == (name, bits))
        assert given == pytest.approx(cell.weight_squared_error, rel=1e-6)


def holding(low, high):
    return next(bits for bits in range(1, 99) if -(1 << (bits - 1)) <= low and high < 1 << (bits - 1))


@settings(max_examples=100)
@given(st.integers(1, 70_000), st.integers(1, 600), st.integers(2, 8), st.integers(2, 8), st.booleans())
def test_registers_that_hold_every_sum(k, folded, w, a, unsigned):
    """The extreme sums are all products of the extreme codes."""
    weight, given_codes = (-(1 << (w - 1)), (1 << (w - 1)) - 1), (0, (1 << a) - 1)
    if not unsigned:
        given_codes = -(1 << (a - 1)), (1 << (a - 1)) - 1
    products = [x * y for x in weight for y in given_codes]
    sums = Sums.of(k, folded, weight, given_codes, psum_bits=16, accumulator_bits=24)
    assert sums.sum_bits == holding(k * min(products), k * max(products))
    assert sums.folded_bits == holding(min(k, folded) * min(products), min(k, folded) * max(products))
    assert sums.overflow_possible == (sums.folded_bits > 16 or sums.sum_bits > 24)


def test_registers_of_a_machine(project_root, digits):
    """conv2 adds up 144 products of codes of 8 bits, 16 of them in a psum of the 16 x 16 array."""
    config = configuration(project_root, "int8_ws")
    sums = cost_table(config, digits, [8], [8]).cells["conv2", 8, 8].sums
    given_format = get(digits.tensor_meta(next(each.input for each in digits.layers if each.name == "conv2")).format)
    low, high = -128 * max(given_format.high, -given_format.low), 127 * given_format.high
    high = max(high, 128 * -given_format.low)
    assert (sums.psum_bits, sums.accumulator_bits) == (config.array.psum.bits, config.accumulator.bits)
    assert (sums.folded_bits, sums.sum_bits) == (holding(16 * low, 16 * high), holding(144 * low, 144 * high))
    psum = config.array.psum.model_copy(update={"bits": sums.folded_bits - 1})
    narrow = config.model_copy(update={"array": config.array.model_copy(update={"psum": psum})})
    (row,) = (row for row in cost_table(narrow, digits, [8], [8]).rows() if row["layer"] == "conv2")
    assert (row["psum_bits"], row["psum_bits_needed"]) == (sums.folded_bits - 1, sums.folded_bits)
    assert (row["overflow_possible"], sums.overflow_possible) == (True, False)


def minmax_db(values, bits):
    """SQNR in dB of evenly spaced levels between the extremes, 0 among them."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    step = (high - low) / ((1 << bits) - 1)
    zero = np.rint(-low / step)
    again = (np.clip(np.rint(values / step) + zero, 0, (1 << bits) - 1) - zero) * step
    return 10 * np.log10(np.square(values).sum() / np.square(again - values).sum())


@pytest.mark.parametrize("kind", ["int8", "float"])
def test_activations_of_a_model_are_measured_on_its_data(project_root, tmp_path, kind):
    """At least as good as the range from the smallest to the largest value; of the second layer too, whose inputs
    another machine computed here."""
    codes = np.load(shared("data", "kws01_mfcc_int8_500.npz"))["features"][:12]
    features = codes if kind == "int8" else (codes.astype(np.float32) - 83) * np.float32(0.5847029)
    np.savez(tmp_path / "data.npz", features=features, more=codes)
    model, config = shared("models", f"kws01_dscnn_{kind}.tflite"), configuration(project_root, "bitfusion")
    subject = open_subject(model, f"{tmp_path / 'data.npz'}:features", config=config, batch=10)
    table = cost_table(
        config, subject.shapes, [8], [4, 8], values=subject.values, activations=subject.activations,
        floats=subject.floats,
    )  # fmt: skip
    taken = [features[:10].astype(np.float64)]
    if kind == "int8":
        trace = accelsim.import_model(model, codes[:10])
        taken = [trace.tensor(trace.inputs[0]).dequantize()]
        report = accelsim.simulate(accelsim.load_config(project_root / "configs" / "int8_reference.yaml"), trace)
        taken.append(trace.output_tensor(trace.layers[0], report.layers[0].output_codes).dequantize())
    for layer, values in zip(table.layers, taken, strict=False):
        found, plain = table.cells[layer, 8, 4].activation_sqnr_db, minmax_db(values, 4)
        assert plain - 0.1 < found < plain + 9, layer
    assert all(table.cells[layer, 8, 8].activation_sqnr_db > 25 for layer in table.layers)
    without = open_subject(model)
    table = cost_table(
        config, without.shapes, [8], [8], values=without.values, activations=without.activations, floats=without.floats
    )
    assert {table.cells[layer, 8, 8].activation_sqnr_db for layer in table.layers} == {None}, "no data, no SQNR"
    assert table.cells[table.layers[0], 8, 8].weight_sqnr_db is not None


# -- the command ------------------------------------------------------------------------------------------------------


def run(*words):
    return CliRunner().invoke(app, ["costs", *map(str, words)])


def test_the_command_writes_three_files(project_root, tmp_path):
    where = tmp_path / "costs.csv"
    words = ["--haq", tmp_path / "t.npy", "--haq-cost", "energy", "--hawq", tmp_path / "t.py"]
    config, trace = project_root / "configs/bitserial.yaml", project_root / "traces/digits_cnn_int8.npz"
    done = run(config, trace, "-o", where, "--weight-bits", "4,8", "--activation-bits", "7..8", *words)
    assert done.exit_code == 0, done.output
    assert "4 layers x 2 x 2 pairs of widths" in done.stdout
    rows = list(csv.DictReader(where.read_text().splitlines()))
    assert len(rows) == 16
    assert [(row["weight_bits"], row["activation_bits"]) for row in rows[:4]] == [
        ("4", "7"), ("4", "8"), ("8", "7"), ("8", "8")]  # fmt: skip
    assert float(np.load(tmp_path / "t.npy")[0, 3, 6]) == float(rows[0]["energy_total_pj"])
    parts = [float(value) for name, value in rows[0].items() if name.startswith("energy_") and "total" not in name]
    assert sum(parts) == pytest.approx(float(rows[0]["energy_total_pj"]))
    cycles = [int(value) for name, value in rows[0].items() if name.startswith("cycles_") and "total" not in name]
    assert sum(cycles) == int(rows[0]["cycles_total"])


def test_a_table_of_shapes_has_no_sqnr(project_root, tmp_path):
    shapes = tmp_path / "two.csv"
    shapes.write_text("name,M,N,K\na,4,8,16\nb,1,10,32\n")
    done = run(project_root / "configs/bitserial.yaml", shapes, "-o", tmp_path / "c.csv", "--weight-bits", "8")
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "c.csv").read_text().splitlines()))
    assert len(rows) == 14
    assert {row["weight_sqnr_db"] for row in rows} == {""}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weight-bits", "1..8"], "weight_bits: found 1; use integers of 2 to 16 bits, such as 2..8"),
        (["--weight-bits", "8..2"], "widths '8..2': '8..2' is no width; write 2..8, or 4,8"),
        (["--activation-bits", "four"], "'four' is no width"),
        (["--activation-bits", "17"], "activation_bits: found 17"),
        (["--haq", "table.csv"], "HAQ reads .npy"),
        (["--hawq", "table.npy"], "written as .json or .py"),
        (["--haq", "t.npy", "--weight-bits", "4"], "include 8"),
        (
            ["--inputs", "data.npz"],
            "inputs 'data.npz' are for models (.tflite, .onnx); what is in an .npz brings its own",
        ),
        (["--hawq", "t.py", "--weight-bits", "4", "--activation-bits", "8"], "none in common"),
    ],
)
def test_one_clear_message_and_nothing_written(project_root, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    done = run(
        project_root / "configs/bitfusion.yaml", project_root / "traces/digits_cnn_int8.npz", "-o", "c.csv", *words
    )
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_the_command_compares_a_float_network_with_its_floats(project_root, tmp_path):
    """Not with their 8-bit codes, beside which 8 bits would have no error."""
    config, network = project_root / "configs/bitserial.yaml", project_root / "traces/digits_cnn_float.npz"
    done = run(config, network, "-o", tmp_path / "t.csv", "--weight-bits", "8", "--activation-bits", "8")
    assert done.exit_code == 0, done.output
    for row in csv.DictReader((tmp_path / "t.csv").read_text().splitlines()):
        assert 35 < float(row["weight_sqnr_db"]) < 60
        assert 35 < float(row["activation_sqnr_db"]) < 60
        assert float(row["weight_squared_error"]) > 0


def test_the_table_needs_an_ending(project_root, tmp_path):
    done = run(project_root / "configs/bitfusion.yaml", project_root / "traces/digits_cnn_int8.npz",
               "-o", tmp_path / "costs.txt")  # fmt: skip
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert ".csv or .parquet" in done.stderr


def test_a_machine_says_which_width_it_lacks(project_root, digits):
    with pytest.raises(UnsupportedLayerError, match=r"layer 'conv1' needs weights in int9 .* 8-bit weight ports"):
        cost_table(configuration(project_root, "int8_ws"), digits, [9], [8])
