"""Waveforms read back by a reader that knows only the file format, against registers worked out by hand."""

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FLOAT32, KINDS, machine, plain
from vcd_reader import read_vcd, signed

from accelsim.config.model import FloatUnit, Multiplier
from accelsim.engine import oracle, vcd
from accelsim.errors import AccelsimError
from accelsim.mapping.contract import BlockScaling, GemmOperands, Summation
from accelsim.mapping.plan import plan_operands

LOAD, FILL, COMPUTE, DRAIN, DONE = range(5)
# [1 2]   [5 6]   [19 22]
# [3 4] x [7 8] = [43 50], bias (100, -100)
OPERANDS = plain([[1, 2], [3, 4]], [[5, 6], [7, 8]], [100, -100])


def pes(array, signal):
    return [f"accelsim.{array}.pe_{i}_{j}.{signal}" for i in range(2) for j in range(2)]


def ports(array, signal):
    return [f"accelsim.{array}.accumulator_{j}.{signal}" for j in range(2)]


def dump(tmp_path, config, operands=OPERANDS):
    plan = plan_operands(operands, config)
    vcd.write_vcd(tmp_path / "w.vcd", operands, plan, config.clock_mhz)
    assert [p.name for p in tmp_path.iterdir()] == ["w.vcd"]
    return read_vcd(tmp_path / "w.vcd"), plan


def test_output_stationary_by_hand(tmp_path):
    # x of PE(i, j) in cycle t is X[i, t - i - j], y is W[t - i - j, j]. A psum shows what the cycle before made of it:
    # PE 00: 1*5 = 5, + 2*7 = 19.   PE 01: 1*6 = 6, + 2*8 = 22.   PE 10: 3*5 = 15, + 4*7 = 43.   PE 11: 18, + 32 = 50.
    # 2 fill, 2 compute, then 2 drain: row 1 leaves first, with the bias 143 and -50; then row 0, 119 and -78.
    waves, _ = dump(tmp_path, machine("os", 2, 2))
    n = None
    assert waves.table("accelsim.controller.phase") == [[FILL], [FILL], [COMPUTE], [COMPUTE], [DRAIN], [DRAIN], [DONE]]
    empty = [n, n, n, n]
    x = [[1, n, n, n], [2, 1, 3, n], [n, 2, 4, 3], [n, n, n, 4], empty, empty]
    y = [[5, n, n, n], [7, 6, 5, n], [n, 8, 7, 6], [n, n, n, 8], empty, empty]
    assert waves.table(*pes("os_2x2", "x"))[:6] == x
    assert waves.table(*pes("os_2x2", "y"))[:6] == y
    assert waves.table(*pes("os_2x2", "x_valid"))[:6] == [[int(v is not n) for v in row] for row in x]
    psum = [empty, [5, n, n, n], [19, 6, 15, n], [19, 22, 43, 18], [19, 22, 43, 50], [n, n, 19, 22], empty]
    assert waves.table(*pes("os_2x2", "psum")) == psum
    assert waves.table(*pes("os_2x2", "psum_valid")) == [[int(v is not n) for v in row] for row in psum]
    nothing = [[n, n]] * 5
    assert waves.table(*ports("os_2x2", "value"), bits=32) == [*nothing, [143, -50], [119, -78]]
    assert waves.table(*ports("os_2x2", "m")) == [*nothing, [1, 1], [0, 0]]
    assert waves.table(*ports("os_2x2", "n")) == [*nothing, [0, 1], [0, 1]]


def test_weight_stationary_by_hand(tmp_path):
    # W's bottom row enters first: cycle 0: 7 8 in row 0; cycle 1: 5 6 in row 0, 7 8 in row 1. Then x of PE(i, j) in
    # cycle 2 + t is X[t - i - j, i], and psums move down:
    # cycle 2: PE 00 1*5 = 5.   cycle 3: PE 00 3*5 = 15, PE 01 1*6 = 6, PE 10 5 + 2*7 = 19 (leaves, column 0).
    # cycle 4: PE 01 3*6 = 18, PE 10 15 + 4*7 = 43 (leaves), PE 11 6 + 2*8 = 22 (leaves, column 1).
    # cycle 5: PE 11 18 + 4*8 = 50 (leaves). Bias: 119, 143 below column 0; -78, -50 below column 1.
    waves, _ = dump(tmp_path, machine("ws", 2, 2))
    n = None
    phases = [LOAD, LOAD, FILL, FILL, COMPUTE, COMPUTE, DONE]
    assert waves.table("accelsim.controller.phase") == [[phase] for phase in phases]
    held = [5, 6, 7, 8]
    assert waves.table(*pes("ws_2x2", "y"))[:6] == [[7, 8, n, n], held, held, held, held, held]
    empty = [n, n, n, n]
    assert waves.table(*pes("ws_2x2", "x"))[:6] == [
        empty,
        empty,
        [1, n, n, n],
        [3, 1, 2, n],
        [n, 3, 4, 2],
        [n, n, n, 4],
    ]
    assert waves.table(*pes("ws_2x2", "psum")) == [
        empty, empty, empty, [5, n, n, n], [15, 6, 19, n], [n, 18, 43, 22], [n, n, n, 50],
    ]  # fmt: skip
    assert waves.table(*ports("ws_2x2", "value"), bits=32) == [*[[n, n]] * 4, [119, n], [143, -78], [n, -50]]
    assert waves.table(*ports("ws_2x2", "m")) == [*[[n, n]] * 4, [0, n], [1, 0], [n, 1]]


def test_second_registers_show_where_there_are_any(tmp_path):
    # Two K folds (passes) on one row: pass 1's weights 7 8 enter the chain while pass 0 computes with 5 6.
    waves, _ = dump(tmp_path, machine("ws", 1, 2, double_buffered=True))
    names = [f"accelsim.ws_1x2.pe_0_{j}." for j in range(2)]
    n = None
    assert waves.table("accelsim.controller.pass")[:7] == [[0], [0], [0], [0], [1], [1], [1]]
    held = waves.table(*[name + "y" for name in names])
    assert held[:7] == [[n, n], [5, 6], [5, 6], [5, 6], [7, 8], [7, 8], [7, 8]]
    coming = waves.table(*[name + "y_next" for name in names])
    assert coming[:4] == [[5, 6], [7, 8], [7, 8], [7, 8]]
    # Two column folds of one output each, drains overlapped: 1*5 + 2*7 = 19 leaves in the first cycle of pass 1.
    operands = plain([[1, 2]], [[5, 6], [7, 8]])
    waves, _ = dump(tmp_path, machine("os", 1, 1, drain_overlap=True), operands)
    pe = "accelsim.os_1x1.pe_0_0."
    assert waves.table(pe + "psum") == [[n], [5], [19], [6], [22], [n]]
    assert waves.table(pe + "psum_out") == [[n], [n], [19], [n], [22], [n]]
    assert waves.table("accelsim.os_1x1.accumulator_0.value") == [[n], [n], [n], [19], [n], [22]]


@given(st.one_of(KINDS.values()))
@settings(max_examples=50)
def test_one_period_a_cycle_and_every_accumulator_as_in_the_oracle(tmp_path_factory, layer):
    operands, config = layer
    waves, plan = dump(tmp_path_factory.mktemp("waves"), config, operands)
    cycles = plan.cycles.total - plan.cycles.ppu
    assert len(waves.falling_times) == cycles
    assert [time for time, _ in waves.edges] == [2000 * cycle for cycle in range(cycles + 1)]  # 500 MHz
    assert waves.timescale == "1 ps"
    phases = [values["accelsim.controller.phase"] for _, values in waves.edges]
    assert [phases.count(phase) for phase in range(5)] == [*list(plan.cycles.by_cause().values())[:4], 1]
    numbers = [values["accelsim.controller.pass"] for _, values in waves.edges]
    assert numbers == sorted(numbers)
    assert numbers[-1] == len(plan.passes) - 1
    if plan.shape.batch > 1:
        return
    array = f"{plan.dataflow}_{plan.rows}x{plan.cols}"
    expected = oracle.matmul(operands, plan).acc[0]
    acc = np.zeros(expected.shape, np.int64)
    for _, values in waves.edges:
        for j in range(plan.cols):
            port = f"accelsim.{array}.accumulator_{j}."
            if values[port + "write"]:
                value = signed(values[port + "value"], waves.widths[port + "value"])
                acc[values[port + "m"], values[port + "n"]] = value
    if expected.dtype == np.float32:
        acc = acc.astype(np.int32).view(np.float32)
    np.testing.assert_array_equal(acc, expected)


def test_lanes_scales_and_block_registers_have_signals(tmp_path):
    # One block of 4 over two lanes takes two steps: (1*1 + 2*1) = 3 waits in the block register; the second step, with
    # the scales 3 and 2, makes (3 + 3 + 4) * 6 = 60.
    scale = BlockScaling(4, np.array([[[3]]], np.int32), np.array([[[2]]], np.int32), 0, 4, 4)
    operands = GemmOperands(
        np.array([[[1, 2, 3, 4]]], np.int32), np.ones((1, 4, 1), np.int32), np.zeros((1, 1), np.int64),
        np.ones(4, np.bool_), 4, 4, scale,
    )  # fmt: skip
    waves, _ = dump(tmp_path, machine("os", 1, 1, lanes=2), operands)
    pe = "accelsim.os_1x1.pe_0_0."
    assert waves.table(pe + "x_0", pe + "x_1", pe + "x_scale", pe + "y_scale")[:2] == [[1, 2, None, None], [3, 4, 3, 2]]
    assert waves.table(pe + "x_valid")[:3] == [[3], [3], [0]]
    assert waves.table(pe + "block", pe + "psum")[1:3] == [[3, 0], [0, 60]]


def test_sub_cycles_have_signals(tmp_path):
    # Weights of two bits, serial: 3 * -1 is 3 in the first cycle, -3 after the sign bit's; then 2 * 1 makes -1 of it.
    serial = Multiplier(kind="bit_serial", serial="weight")
    operands = plain([[3, 2]], [[-1], [1]], bits=2)
    waves, _ = dump(tmp_path, machine("os", 1, 1, multiplier=serial), operands)
    pe = "accelsim.os_1x1.pe_0_0."
    seen = waves.table(pe + "x", pe + "y", pe + "sub_cycle", pe + "psum")[:4]
    assert seen == [[3, 3, 0, None], [3, 3, 1, 0], [2, 1, 0, 2**32 - 3], [2, 1, 1, 2**32 - 3]]
    assert waves.table(pe + "serial")[:5] == [[0], [3], [0], [2], [0]]
    assert waves.table(pe + "psum", bits=32)[4] == [-1]


def test_exponents_have_signals_and_floats_are_bits(tmp_path):
    # 3 * 2 * 2^(5 - 6) = 3 in a float32 psum: 1.5 * 2^1 is 0x40400000; with the bias 0.5 the accumulator holds 3.5.
    scales = np.ones((1, 1, 1), np.int32)
    operands = replace(
        plain([[3]], [[2]]),
        bias=np.full((1, 1), 0.5, np.float32),
        blocks=BlockScaling(1, scales, scales, 0, 8, 8, scales * 5, scales * -6),
        summation=Summation("float32"),
    )
    config = machine("os", 1, 1, psum=FLOAT32, acc=FLOAT32, float_unit=FloatUnit())
    waves, _ = dump(tmp_path, config, operands)
    pe = "accelsim.os_1x1.pe_0_0."
    assert waves.table(pe + "x", pe + "x_scale")[0] == [3, 1]
    assert waves.table(pe + "x_scale_exponent", pe + "y_scale_exponent", bits=12)[0] == [5, -6]
    assert waves.table(pe + "psum")[1] == [0x40400000]
    assert waves.table("accelsim.os_1x1.accumulator_0.value")[2] == [0x40600000]


def test_odd_clocks_keep_their_period(tmp_path):
    waves, _ = dump(tmp_path, machine("os", 2, 2, clock_mhz=300.0))
    assert [time for time, _ in waves.edges] == [0, 3333, 6667, 10000, 13333, 16667, 20000]


def test_a_big_run_is_refused_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(vcd, "build_machine", None)  # would be called if anything ran
    operands = plain(np.ones((1000, 3), int).tolist(), np.ones((3, 40), int).tolist())
    plan = plan_operands(operands, machine("ws", 4, 4))  # 10 passes of 1000 + 2 * 4 + 4 - 2 cycles
    path = tmp_path / "w.vcd"
    with pytest.raises(AccelsimError) as error:
        vcd.write_vcd(path, operands, plan, 500.0)
    assert str(error.value) == (
        f"{path}: this layer needs 10,100 cycles on 16 PEs; waveforms are for runs of up to 10,000 cycles and 1,024 "
        f"PEs: use --inputs 1, a smaller array or a smaller layer"
    )
    with pytest.raises(AccelsimError, match=r"needs 10,100 cycles on 16 PEs; .* 20,000 cycles and 15 PEs"):
        vcd.write_vcd(path, operands, plan, 500.0, max_cycles=20_000, max_pes=15)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    plan = plan_operands(OPERANDS, machine("os", 2, 2))
    missing = tmp_path / "no" / "w.vcd"
    with pytest.raises(AccelsimError) as error:
        vcd.write_vcd(missing, OPERANDS, plan, 500.0)
    assert str(error.value) == f"{missing}: there is no folder '{tmp_path / 'no'}'; create it first"
    with pytest.raises(AccelsimError, match="is a folder; name a file in it"):
        vcd.write_vcd(tmp_path, OPERANDS, plan, 500.0)


def test_a_failure_halfway_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "w.vcd"
    path.write_text("earlier")

    def full_disk(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(vcd, "_write", full_disk)
    with pytest.raises(AccelsimError, match=r"w.vcd: cannot be written: No space left on device"):
        vcd.write_vcd(path, OPERANDS, plan_operands(OPERANDS, machine("os", 2, 2)), 500.0)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]
