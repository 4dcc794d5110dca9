"""`accelsim plan`: what it prints, its JSON, and that a run moves what was planned."""

import json
import re

import pytest
from typer.testing import CliRunner

from accelsim import estimate, load_config, load_trace, simulate
from accelsim.actions import Action
from accelsim.cli import app


@pytest.fixture
def call(project_root, tmp_path):
    """Plan the digits network on a shipped machine, texts of its file replaced; the path is in `call.config`."""

    def run(config, *options, **replaced):
        text = (project_root / f"configs/{config}.yaml").read_text()
        for before, after in replaced.values():
            assert before in text
            text = text.replace(before, after)
        run.config = tmp_path / "config.yaml"
        run.config.write_text(text)
        return CliRunner().invoke(app, ["plan", str(run.config), str(run.trace), *options], env={"COLUMNS": "160"})

    run.trace = project_root / "traces" / "digits_cnn_int8.npz"
    return run


def test_the_table_by_hand(call):
    """fc1: 240 x 512 inputs, 512 x 64 weights, 64 biases and factors of 32 + 32 + 6 bits."""
    result = call("int8_ws", dram=("timing: preset", "timing: ideal"))  # else tiles are small, so that loads hide
    assert result.exit_code == 0
    assert "Y[m, n] = X[m, k] W[k, n]" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith(" fc1"))
    read = 240 * 512 + 512 * 64 + 64 * (32 + 32 + 6) // 8
    assert re.split(r"\s{2,}", row.strip()) == [
        "fc1", "1x240x512x64", "1x240x512x64", "-", "1", f"{read:,}", f"{240 * 64:,}", f"{read + 240 * 64:,}"
    ]  # fmt: skip
    assert "conv2: weights once; activations once; each stationary tile enters the array 4 times" in result.stdout


def test_the_json_adds_up_and_is_what_a_run_moves(call):
    document = json.loads(call("int8_os", "--json").stdout)
    assert (document["schema"], document["version"], document["config"]) == ("accelsim-plan", 2, "int8_os")
    for key, total in document["total"].items():
        assert total == sum(layer[key] for layer in document["layers"])
    report = simulate(load_config(call.config), load_trace(call.trace), watch=False)
    for layer, row in zip(report.layers, document["layers"], strict=True):
        assert layer.name == row["name"]
        assert layer.actions[Action("dram", "dram_read_lpddr4")] == row["dram_read_bits"]
        assert layer.actions[Action("dram", "dram_write_lpddr4")] == row["dram_write_bits"]
        assert row["dram_read_bits"] + row["dram_write_bits"] >= row["lower_bound_bits"]


@pytest.mark.parametrize("split", ["output_channels", "rows", "batch", "layers"])
@pytest.mark.parametrize("objective", ["traffic", "latency"])
def test_with_several_cores_it_is_what_a_run_does(call, split, objective):
    """Shares of every core, and their traffic: what the run of that machine counts, layer by layer."""
    cores = ("\nenergy:", f"\ncores: {{count: 3, split: {split}}}\nenergy:")
    memory = ("passes: split", f"passes: split, objective: {objective}")
    document = json.loads(call("int8_ws", "--json", "--inputs", "20", cores=cores, memory=memory).stdout)
    assert document["cores"] == {"count": 3, "split": split}
    report = estimate(load_config(call.config), load_trace(call.trace).head(20))
    assert sum(layer["tiles"] for layer in document["layers"]) == report.timeline.tiles
    for layer, row in zip(report.layers, document["layers"], strict=True):
        assert (layer.dram_read_bits, layer.dram_write_bits) == (row["dram_read_bits"], row["dram_write_bits"])
        for key in ("tiles", "dram_read_bits", "dram_write_bits", "saved_bits"):
            assert row[key] == sum(share[key] for share in row["shares"])
        dealt = "n" if split == "output_channels" else "m"
        assert sum(share["gemm"][dealt] for share in row["shares"]) == row["gemm"][dealt]
    owners = {share["core"] for row in document["layers"] for share in row["shares"]}
    assert owners == {0, 1, 2}
    shown = call("int8_ws", "--inputs", "20", cores=cores, memory=memory).stdout
    assert f"3 cores, split by {split}" in shown
    assert re.search(r"^   cores? 2", shown, re.MULTILINE) or re.search(r"^   cores .*2", shown, re.MULTILINE)


def test_equal_cores_share_a_line(call):
    """conv1: 20 images of 16 rows, on two cores: 160 x 9 inputs' windows, 160 x 16 outputs each."""
    cores = ("\nenergy:", "\ncores: {count: 2, split: batch}\nenergy:")
    shown = call("int8_ws", "--inputs", "20", cores=cores).stdout
    lines = [re.split(r"\s{2,}", line.strip()) for line in shown.splitlines()]
    first = next(number for number, line in enumerate(lines) if line[0] == "conv1")
    read = 10 * 64 + 9 * 16 + 16 * (32 + 32 + 6) // 8  # half of the images; weights, biases and factors: on each core
    assert lines[first] == ["conv1", "1x320x9x16", lines[first][2], f"{2 * read:,}", "5,120", "6,684"]
    assert lines[first + 1][:2] == ["cores 0, 1", "1x160x9x16"]
    assert lines[first + 1][-3:] == [f"{read:,}", "2,560", f"{read + 2560:,}"]


def test_only_the_first_inputs(call):
    few = json.loads(call("int8_ws", "--json", "--inputs", "3").stdout)
    assert [layer["gemm"]["m"] for layer in few["layers"]] == [48, 48, 3, 3]


def test_what_does_not_fit_is_one_message(call):
    result = call("int8_ws", weight=("weight: {size_bytes: 131072}", "weight: {size_bytes: 128}"))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: layer 'conv1': the smallest tile (m=1, n=16, k=9) needs 144 bytes of the weight buffer, twice for "
        "ping_pong, but 128 are there; set buffers.weight.size_bytes to 144 or more\n"
    )


def test_sums_that_travel_are_explained_and_remarked(call):
    result = call("int8_ws", passes=("passes: split", "passes: whole"))
    said = " ".join(result.stdout.split())
    assert "unfinished sums do not fit the accumulator buffer (65,536 bytes) and travel to DRAM and back" in said
    report = simulate(load_config(call.config), load_trace(call.trace), watch=False)
    # conv2: 3840 x 32 sums of 4 bytes, between 9 folds of K
    assert any(f"moves {8 * 3840 * 32 * 4:,} bytes of unfinished sums to DRAM and back" in line
               for line in report.assumptions)  # fmt: skip


def test_fusion_is_totalled(call):
    result = call("int8_ws", passes=("passes: split", "passes: split, fuse_layers: true"))
    said = " ".join(result.stdout.split())
    assert "outputs stay on chip where that helps" in said
    assert "conv1.out found on chip" in said
    # conv1's and fc1's outputs: 61,440 and 15,360 bytes, neither written nor read
    assert f"{2 * (61440 + 15360):,} of these stay on chip" in said


def test_the_manuals_calculator_example_from_a_table_of_shapes(tmp_path):
    """docs/memory.md: 64 + 4 x 48 bytes of operands, and biases and factors of 32 + 32 + 6 bits for 8 channels."""
    machine, shapes = tmp_path / "calculator.yaml", tmp_path / "layer.csv"
    shapes.write_text("name,M,N,K\nlayer,24,8,8\n")
    machine.write_text(
        "{name: calculator, clock_mhz: 100, array: {rows: 4, cols: 4, dataflow: ws}, memory: {passes: split}, "
        "buffers: {weight: {size_bytes: 64}, activation: {size_bytes: 96}, output: {size_bytes: 128}, "
        "accumulator: {size_bytes: 128}}}"
    )

    def planned(*options):
        return CliRunner().invoke(app, ["plan", str(machine), str(shapes), *options])

    layer = json.loads(planned("--json").stdout)["layers"][0]
    assert (layer["tiles"], layer["tile"]["m"]) == (4, 6)
    assert layer["dram_read_bits"] == 8 * (64 + 4 * 48) + 8 * (32 + 32 + 6)
    assert layer["dram_write_bits"] == 8 * 192
    four = json.loads(planned("--json", "--weights", "int4").stdout)["layers"][0]
    assert four["dram_read_bits"] == 8 * (32 + 192) + 8 * (32 + 32 + 6)
    result = planned("--inputs", "3")
    assert result.exit_code == 2
    assert "only a trace has a batch of inputs to take the first 3 of" in result.stderr
    machine.write_text(machine.read_text().replace("split", "whole"))
    layer = json.loads(planned("--json").stdout)["layers"][0]
    assert layer["dram_read_bits"] == 8 * (64 + 384 + 768) + 8 * (32 + 32 + 6)
    assert layer["dram_write_bits"] == 8 * (192 + 768)
