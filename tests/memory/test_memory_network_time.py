"""Whole networks in time: shares of cores, traffic, and what the report says of it."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from trace_format import problems
from typer.testing import CliRunner

from accelsim import RunReport, cli, load_config, load_trace, simulate
from accelsim.actions import Action
from accelsim.config.loader import parse_config
from accelsim.mapping.contract import CycleCounts
from accelsim.memory.coarse import coarse
from accelsim.memory.needs import network_needs
from accelsim.memory.network import has_memory, network_time
from accelsim.memory.program import PARTS
from accelsim.memory.shares import balanced, share_of

SPLITS = ("output_channels", "rows", "batch", "layers")
BATCH = 12


@pytest.fixture(scope="module")
def trace():
    from shared_data import PROJECT

    return load_trace(PROJECT / "traces" / "digits_cnn_int8.npz").head(BATCH)


@pytest.fixture(scope="module")
def machine():
    """A function of changes: int8_ws without a memory section, changed."""
    from shared_data import PROJECT

    values = load_config(PROJECT / "configs" / "int8_ws.yaml").model_dump()
    for section in ("dram", "dma", "cores", "memory"):
        values.pop(section)

    def make(**changes):
        return parse_config(values | changes, source="a test")

    return make


SLOW = {"kind": "ddr3", "timing": "preset"}
IDEAL = {"kind": "ddr3", "timing": "ideal"}


def timed(config, trace, **options):
    return network_time(network_needs(trace, config), config, images=BATCH, **options)


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_a_memory_that_takes_no_time_leaves_the_arrays_own_cycles(machine, trace, dataflow):
    array = machine().array.model_dump() | {
        "dataflow": dataflow,
        "double_buffered": dataflow != "os",
        "psum": {"bits": 32},
    }
    plain = simulate(machine(array=array), trace)
    assert plain.timeline is None
    other = machine(array=array, dram=IDEAL, memory={"objective": "latency"})  # planned, though nothing takes time
    assert has_memory(other)
    assert not has_memory(machine(array=array, dram=IDEAL))
    report = simulate(other, trace)
    assert [layer.cycles for layer in report.layers] == [layer.cycles for layer in plain.layers]
    assert report.timeline.makespan_cycles == plain.totals.total_cycles
    assert report.timeline.peak_bytes_per_cycle is None
    assert [layer.output_digest for layer in report.layers] == [layer.output_digest for layer in plain.layers]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("count", [2, 3])
def test_cores_share_the_work_and_lose_none(machine, trace, split, count):
    config = machine(dram=SLOW, memory={"passes": "split"}, cores={"count": count, "split": split})
    found = timed(config, trace)
    timeline = found.timeline
    assert len(timeline.cores) == count
    assert {core.total for core in timeline.cores} == {timeline.makespan_cycles}
    for index, needs in enumerate(network_needs(trace, config)):
        shares = found.shares[index]
        assert sum(share.needs.output.bits for share in shares) == pytest.approx(needs.output.bits, abs=8 * len(shares))
        for axis in ("batch", "m", "n", "k"):
            whole = getattr(needs.plan.shape, axis)
            parts = [getattr(share.needs.plan.shape, axis) for share in shares]
            split_axis = {"output_channels": "n"}.get(split, "m")
            assert sum(parts) == whole if axis == split_axis else set(parts) == {whole}
    for core, cycles in enumerate(timeline.cores):
        mine = [share.tiling for shares in found.shares for share in shares if share.core == core]
        for part in PARTS:
            assert cycles[part] == sum(int(getattr(tiling, part).sum()) for tiling in mine)
    tilings = [share.tiling for shares in found.shares for share in shares]
    assert timeline.dram_read_bits == sum(tiling.dram_read_bits for tiling in tilings)
    assert timeline.dram_write_bits == sum(tiling.dram_write_bits for tiling in tilings)
    assert sum(layer.core_cycles for layer in timeline.layers) == count * timeline.makespan_cycles


@pytest.mark.parametrize("split", SPLITS)
def test_a_report_of_cores_adds_up(machine, trace, split):
    config = machine(dram=SLOW, memory={"passes": "split"}, cores={"count": 2, "split": split})
    report, alone = simulate(config, trace), simulate(machine(), trace)
    assert [layer.output_digest for layer in report.layers] == [layer.output_digest for layer in alone.layers]
    assert RunReport.from_json(report.to_json()) == report
    timeline = report.timeline
    assert report.totals.total_cycles == timeline.makespan_cycles
    assert sum(layer.core_cycles for layer in report.layers) == 2 * timeline.makespan_cycles
    assert all(0 < layer.utilization <= 1 for layer in report.layers)
    read, written, leaks, clocks, standby = (
        sum(layer.actions[Action(*action)] for layer in report.layers)
        for action in (
            ("dram", "dram_read_ddr3"),
            ("dram", "dram_write_ddr3"),
            ("leakage", "leakage_per_pe_cycle", (700_000_000,)),
            ("control", "array_cycle"),
            ("dram", "dram_standby_cycle"),
        )
    )
    assert (read, written) == (timeline.dram_read_bits, timeline.dram_write_bits)
    assert leaks == 2 * timeline.makespan_cycles * 16 * 16  # both cores leak, whatever they wait for
    assert standby == timeline.makespan_cycles  # one DRAM for both
    assert clocks == sum(core.array for core in timeline.cores)
    products = [sum(count for action, count in layer.actions.items() if action.operation == "mult")
                for layer in (*report.layers, *alone.layers)]  # fmt: skip
    assert products[:4] == products[4:]


@pytest.mark.parametrize("split", SPLITS)
def test_a_faster_dram_moves_the_same_and_never_costs_time(machine, trace, split):
    found = [
        timed(
            machine(
                dram=SLOW | {"bytes_per_cycle": float(speed)},
                cores={"count": 2, "split": split},
                memory={"passes": "split", "fuse_layers": True},
            ),
            trace,
        ).timeline
        for speed in (1, 2, 5, 16, 100)
    ]
    assert len({(each.dram_read_bits, each.dram_write_bits) for each in found}) == 1
    makespans = [each.makespan_cycles for each in found]
    assert makespans == sorted(makespans, reverse=True)
    assert makespans[0] > makespans[-1]


def test_two_cores_are_faster_than_one(machine, trace):
    alone = timed(machine(dram=IDEAL, memory={"objective": "latency"}), trace).timeline.makespan_cycles
    for split in ("output_channels", "rows", "batch"):
        together = timed(machine(dram=IDEAL, cores={"count": 2, "split": split}), trace).timeline.makespan_cycles
        assert alone / 2 <= together < 0.8 * alone


def test_a_core_without_a_share_is_named(machine, trace):
    config = machine(dram=SLOW, cores={"count": 14, "split": "batch"}, memory={"passes": "split"})
    found = timed(config, trace)
    assert found.notes == ("cores: 2 of 14 have nothing to do (split: batch)",)
    assert found.timeline.cores.count(CycleCounts(sync=found.timeline.makespan_cycles)) == 2


def test_that_layers_overlap_is_said(machine, trace):
    config = machine(cores={"count": 2, "split": "layers"})
    found = network_time(network_needs(trace, config), config, images=BATCH)
    assert any(
        note.startswith("cores: layers overlap; a layer's cycles are those from the end") for note in found.notes
    )
    one = machine(cores={"count": 2, "split": "rows"})
    assert not any("overlap" in note for note in network_time(network_needs(trace, one), one, images=BATCH).notes)


def test_fused_layers_wait_less_and_say_what_they_save(machine, trace):
    apart, fused = (
        simulate(machine(dram=SLOW, memory={"passes": "split", "fuse_layers": fuse}), trace) for fuse in (False, True)
    )
    assert fused.timeline.saved_bits > 0 == apart.timeline.saved_bits
    moved = [r.timeline.dram_read_bits + r.timeline.dram_write_bits for r in (apart, fused)]
    assert moved[0] - moved[1] == fused.timeline.saved_bits
    assert fused.totals.total_cycles < apart.totals.total_cycles


def test_ports_can_be_the_bottleneck(machine, trace):
    buffers = machine().buffers.model_dump()
    buffers["activation"] |= {"width_bits": 64, "banks": 1, "ports": 1}  # 16 rows of 8 bits ask for 128
    report = simulate(machine(buffers=buffers), trace)
    cycles = report.totals.cycles
    assert cycles.buffer > 0
    assert cycles.total >= 2 * cycles.compute
    buffers["activation"] |= {"banks": 8}
    assert simulate(machine(buffers=buffers), trace).totals.cycles.buffer < cycles.buffer / 4


def test_shares_of_a_convolution_by_rows_overlap_in_the_input(machine, trace):
    config = machine()
    conv = next(needs for needs in network_needs(trace, config) if needs.windows and needs.windows.kernel[0] > 1)
    shares = [share_of(conv, config, "rows", part, 2, BATCH) for part in range(2)]
    assert sum(share.windows.out_height for share in shares) == conv.windows.out_height
    assert sum(share.inputs[0].bits for share in shares) > conv.inputs[0].bits
    assert all(share.weight == conv.weight for share in shares)


def test_layers_are_dealt_out_evenly():
    assert balanced([5, 5, 5, 5], 2) == [0, 0, 1, 1]
    assert balanced([1, 9, 1], 2) == [0, 0, 1]
    assert balanced([3], 4) == [0]


def test_coarse_tiles_move_and_take_the_same(machine, trace):
    tiling = timed(machine(dram=SLOW), trace).shares[1][0].tiling
    assert tiling.tiles > 7
    few = coarse(tiling, 7)
    assert few.tiles <= 7
    for name in (*PARTS, "weight_bits", "activation_bits", "store_bits", "spill_bits", "refill_bits"):
        assert getattr(few, name).sum() == getattr(tiling, name).sum()
    assert coarse(tiling, tiling.tiles) is tiling


# -- the command ------------------------------------------------------------------------------------------------------

FILES = ["configs/int8_ws.yaml", "traces/digits_cnn_int8.npz", "--inputs", "4"]


def run(*arguments):
    return CliRunner().invoke(cli.app, ["run", *FILES, *map(str, arguments)])


def test_the_timeline_file_is_a_valid_trace(in_the_checkout, tmp_path):
    target = tmp_path / "run.json"
    result = run("--timeline", target, "--json")
    assert result.exit_code == 0
    document = json.loads(target.read_text())
    assert problems(document) == []
    report = json.loads(result.stdout)
    assert document["otherData"]["makespan_cycles"] == report["totals"]["total_cycles"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_timeline_that_cannot_be_written_is_refused_before_the_run(in_the_checkout, tmp_path):
    for target, message in (
        (tmp_path, f"error: {tmp_path} is a folder; name a file"),
        (tmp_path / "none" / "x.json", f"there is no folder {tmp_path / 'none'}"),
    ):
        result = run("--timeline", target)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stdout == ""


def test_a_summary_can_be_replaced_in_a_report(machine, trace):
    report = simulate(machine(dram=SLOW), trace)
    assert replace(report, timeline=None) != report


@pytest.mark.parametrize(("count", "split"), [(1, "rows"), (2, "rows"), (2, "output_channels"), (2, "layers")])
def test_a_layer_is_loaded_after_all_cores_have_stored_it(machine, trace, count, split):
    config = machine(dram=SLOW, memory={"passes": "split"}, cores={"count": count, "split": split})
    found = timed(config, trace, record=True)
    pieces = 1 if split != "layers" else BATCH  # piece by piece there is no such moment
    names = [layer.name for layer in found.timeline.layers]
    moves = [each for each in found.timeline.slices if each.track == "dram"]
    for before, after in pairwise(names):
        stores = [each.end_cycle for each in moves if each.name.startswith(f"{before} outputs")]
        loads = [each.start_cycle for each in moves if each.name.startswith(f"{after} activations")]
        if pieces == 1:
            assert max(stores) <= min(loads)
        else:
            assert min(stores) <= min(loads)
            assert max(stores) <= max(loads)
