"""The watched engine against the oracle, and against the registers of the stepped engine in every cycle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import machine, plain

from accelsim.engine import OverflowEvent, oracle
from accelsim.engine import stepped_kernels as kernels
from accelsim.engine.stepped import _event, build_machine
from accelsim.engine.watched import TimedEvent, watch_layer, why_not_watched
from accelsim.errors import UnsupportedLayerError
from accelsim.mapping.contract import GemmOperands
from accelsim.mapping.plan import plan_operands

POLICIES = ("wrap", "saturate")


@st.composite
def small_layers(draw):
    """(operands, plan): one lane a PE, any dataflow, ragged sizes, registers that overflow often or never."""
    batch, m, k, n = (draw(st.integers(1, most)) for most in (2, 13, 21, 13))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    peak = draw(st.sampled_from([3, 12, 128]))
    a = rng.integers(-peak, peak, (batch, m, k)).astype(np.int32)
    w = rng.integers(-peak, peak, (batch, k, n)).astype(np.int32)
    bias = rng.integers(-200, 200, (batch, n))
    dataflow = draw(st.sampled_from(["os", "ws", "is"]))
    config = machine(
        dataflow,
        draw(st.sampled_from([1, 2, 3, 5, 8, 9, 17])),
        draw(st.sampled_from([1, 2, 3, 4, 6, 8])),
        psum=(draw(st.sampled_from([8, 9, 12, 16, 31, 32])), draw(st.sampled_from(POLICIES))),
        acc=(draw(st.sampled_from([8, 10, 16, 32, 40, 62])), draw(st.sampled_from(POLICIES))),
        double_buffered=dataflow != "os" and draw(st.booleans()),
        drain_overlap=dataflow == "os" and draw(st.booleans()),
        skip_unused=draw(st.booleans()),
    )
    operands = GemmOperands(a, w, bias, np.ones(k, np.bool_), 8, 8)
    return operands, plan_operands(operands, config)


@given(small_layers(), st.sampled_from([1, 2, 3]))
@settings(max_examples=100)
def test_values_and_overflows_equal_the_oracle(layer, threads):
    operands, plan = layer
    result, expected = watch_layer(operands, plan, threads=threads), oracle.matmul(operands, plan)
    assert_array_equal(result.acc, expected.acc)
    assert result.acc.dtype == np.int64
    assert result.array_cycles == plan.cycles.total - plan.cycles.ppu
    assert result.psum.overflows == result.psum.overflows_by_output.sum() == expected.psum.overflows
    low, high = -(1 << (plan.acc_bits - 1)), (1 << (plan.acc_bits - 1)) - 1
    preloads = int(((operands.bias < low) | (operands.bias > high)).sum()) * plan.shape.m
    assert result.accumulator.overflows == expected.accumulator.overflows - preloads
    assert result.accumulator.overflows == result.accumulator.overflows_by_output.sum()


def ones(values, bits):
    return np.bitwise_count(np.asarray(values) & np.int64((1 << bits) - 1)).astype(int)


def stepped_history(operands, plan):
    """Follow every register through every cycle: toggles and overflows of psums and accumulators at its end."""
    build, total = build_machine(operands, plan), plan.cycles.total - plan.cycles.ppu
    history = {name: np.zeros(total + 1, np.int64) for name in ("psum", "acc", "psum_over", "acc_over")}
    firsts = {}
    psums = np.zeros((plan.rows, plan.cols), np.int64)
    accs = build.state.acc[..., 0].copy()
    before = build.log.counts.copy()
    number = -1
    for cycle in range(total):
        more = build.advance()
        now, counts = build.registers(), build.log.counts.copy()
        history["psum_over"][cycle] = counts[kernels.PSUM_OVERFLOW] - before[kernels.PSUM_OVERFLOW]
        history["acc_over"][cycle] = counts[kernels.ACC_OVERFLOW] - before[kernels.ACC_OVERFLOW]
        # Until the first overflow's cycle ends the log holds no other than that cycle's.
        for name, first in (("psum_over", build.log.psum_first), ("acc_over", build.log.acc_first)):
            if history[name][cycle] and name not in firsts:
                firsts[name] = cycle, now.number, _event(first, plan)
        before = counts
        held = build.state.acc[..., 0].copy()
        history["acc"][cycle] = ones(held ^ accs, min(plan.acc_bits, 62)).sum()
        accs = held
        if plan.dataflow == "os":
            # Additions only: a new pass begins with empty registers, and drains move psums without adding.
            working = now.cause in ("fill", "compute")
            if working and now.number != number:
                psums, number = np.zeros_like(psums), now.number
            if working:
                history["psum"][cycle] = ones(now.psum ^ psums, plan.psum_bits).sum()
                psums = now.psum
        else:
            if now.cause != "load" and now.number != number:  # between passes registers return to zero
                history["psum"][cycle] = ones(psums, plan.psum_bits).sum()
                psums, number = np.zeros_like(psums), now.number
            history["psum"][cycle] += ones(now.psum ^ psums, plan.psum_bits).sum()
            psums = now.psum
        assert more == (cycle < total - 1)
    if plan.dataflow != "os":
        history["psum"][total] = ones(psums, plan.psum_bits).sum()
    return history, firsts


@given(small_layers())
@settings(max_examples=60)
def test_every_cycle_equals_the_registers_of_the_stepped_engine(layer):
    operands, plan = layer
    result, (expected, firsts) = watch_layer(operands, plan), stepped_history(operands, plan)
    assert_array_equal(result.psum.overflows_by_cycle, expected["psum_over"])
    assert_array_equal(result.accumulator.overflows_by_cycle, expected["acc_over"])
    assert_array_equal(result.accumulator.toggles_by_cycle, expected["acc"])
    assert_array_equal(result.psum.toggles_by_cycle, expected["psum"])
    assert result.psum.toggles == expected["psum"].sum()
    assert result.accumulator.toggles == expected["acc"].sum()
    for name, first in (("psum_over", result.psum.first), ("acc_over", result.accumulator.first)):
        cycle, number, event = firsts.get(name, (None, None, None))
        assert (first is None) == (event is None)
        if first is not None:
            assert (first.array_cycle, first.event) == (cycle, event)
            if name == "psum_over":  # while psums drain the array may be in another pass
                assert first.number == number


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_every_cycle_of_a_layer_of_several_pieces(dataflow):
    rng = np.random.default_rng(2)
    sizes = {"os": (5, 530, 6), "ws": (530, 9, 6), "is": (6, 9, 530)}[dataflow]
    operands = plain(rng.integers(-12, 12, sizes[:2]), rng.integers(-12, 12, sizes[1:]))
    plan = plan_operands(operands, machine(dataflow, 4, 4, psum=(8, "saturate"), acc=(9, "wrap")))
    expected, _ = stepped_history(operands, plan)
    for threads in (1, 3):
        result = watch_layer(operands, plan, threads=threads)
        assert_array_equal(result.psum.overflows_by_cycle, expected["psum_over"])
        assert_array_equal(result.accumulator.overflows_by_cycle, expected["acc_over"])
        assert_array_equal(result.accumulator.toggles_by_cycle, expected["acc"])
        assert_array_equal(result.psum.toggles_by_cycle, expected["psum"])


def test_of_one_cycle_the_first_output_comes_first():
    # 2 x 2, ws, one row of weights: (m, n) is in row 0 in cycle m + n. (0, 1) = 200 and (1, 0) = 200 in cycle 1.
    operands = plain([[1], [100]], [[2, 200]])
    result = watch_layer(operands, plan_operands(operands, machine("ws", 2, 2, psum=(8, "wrap"))))
    assert result.psum.first == TimedEvent(OverflowEvent((0, 0, 1), 0, 200), 0, 1, 2 + 1)
    assert result.psum.overflows_by_cycle[3] == 2


def test_a_pass_that_waits_for_the_drain_chain():
    # Passes of 4, 4 and 1 used rows: the last one takes a cycle, and waits for the chain of the one before.
    operands = plain([[100]] * 9, [[1, 1]], [100, 0])
    config = machine("os", 4, 1, acc=(8, "wrap"), drain_overlap=True, skip_unused=True)
    plan = plan_operands(operands, config)
    result, (expected, _) = watch_layer(operands, plan), stepped_history(operands, plan)
    assert result.array_cycles == plan.cycles.total - plan.cycles.ppu
    assert_array_equal(result.accumulator.overflows_by_cycle, expected["acc_over"])
    assert_array_equal(result.psum.toggles_by_cycle, expected["psum"])


def test_first_is_the_earliest_cycle_not_the_first_output():
    # 2 x 2, os. (0, 0): 1 + 1 + 0. (0, 1): 1 + 0 + 2 * 100 = 201 > 127 at k = 2, in cycle 2 + 0 + 1.
    # (1, 0): 100 + 100 = 200 at k = 1, in cycle 1 + 1 + 0, a cycle sooner. (1, 1): 100 + 0 + 2.
    operands = plain([[1, 1, 100], [100, 100, 1]], [[1, 1], [1, 0], [0, 2]])
    result = watch_layer(operands, plan_operands(operands, machine("os", 2, 2, psum=(8, "saturate"))))
    assert result.psum.first == TimedEvent(OverflowEvent((0, 1, 0), 1, 200), 0, 2, 2)
    assert result.psum.overflows_by_output.tolist() == [[[0, 1], [1, 0]]]
    assert np.flatnonzero(result.psum.overflows_by_cycle).tolist() == [2, 3]


def test_a_drain_overflows_accumulators_from_the_bottom_row_up():
    # 2 x 1, os, K = 1: cycles 0 and 1 compute (phase of 2), then row 1 leaves in cycle 2 and row 0 in cycle 3.
    # Both sums are 100 + 100 = 200 > 127.
    operands = plain([[100], [100]], [[1]], [100])
    result = watch_layer(operands, plan_operands(operands, machine("os", 2, 1, acc=(8, "wrap"))))
    assert result.accumulator.first == TimedEvent(OverflowEvent((0, 1, 0), 0, 200), 0, 2, 2)
    assert result.accumulator.overflows_by_cycle.tolist() == [0, 0, 1, 1, 0]
    assert result.acc.tolist() == [[[200 - 256], [200 - 256]]]


def test_toggles_by_hand():
    # 1 x 1, ws, K = 1, streamed 1, 3, 0 on weight 1: psums 0 -> 1 -> 3 -> 0: 1 + 1 + 2 bits, and nothing to return.
    # Accumulators, 8 bits, from 0: each its own, 0 -> 1 (1 bit), 0 -> 3 (2 bits), 0 -> 0.
    operands = plain([[1], [3], [0]], [[1]])
    plan = plan_operands(operands, machine("ws", 1, 1, psum=(8, "wrap"), acc=(8, "wrap")))
    result = watch_layer(operands, plan)
    assert result.psum.toggles_by_cycle.tolist() == [0, 1, 1, 2, 0]  # the first cycle loads
    assert result.accumulator.toggles_by_cycle.tolist() == [0, 1, 2, 0, 0]
    # -1 is all ones: 8 bits of 8, and 8 again as the register returns to zero after the last cycle.
    operands = plain([[-1]], [[1]])
    result = watch_layer(operands, plan_operands(operands, machine("ws", 1, 1, psum=(8, "wrap"))))
    assert result.psum.toggles_by_cycle.tolist() == [0, 8, 8]


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@pytest.mark.parametrize("cols", [4, 12, 16, 64, 100])
def test_long_layers_settle_in_pieces_and_do_not_depend_on_threads(dataflow, cols):
    rng = np.random.default_rng(1)
    a, w = rng.integers(-128, 128, (300, 600)), rng.integers(-128, 128, (600, 290))
    operands = plain(a, w)
    plan = plan_operands(operands, machine(dataflow, 16, cols, psum=(16, "saturate"), acc=(15, "wrap")))
    one, two = watch_layer(operands, plan), watch_layer(operands, plan, threads=2)
    assert_array_equal(one.acc, two.acc)
    for mine, other in ((one.psum, two.psum), (one.accumulator, two.accumulator)):
        assert_array_equal(mine.overflows_by_output, other.overflows_by_output)
        assert_array_equal(mine.overflows_by_cycle, other.overflows_by_cycle)
        assert_array_equal(mine.toggles_by_cycle, other.toggles_by_cycle)
        assert mine.first == other.first
        assert mine.overflows == mine.overflows_by_output.sum() > 0
    # The same outputs in any order of columns: array shape moves events in time, but loses none.
    if dataflow == "os":
        wide = watch_layer(operands, plan_operands(operands, machine("os", 16, 1, psum=(16, "saturate"))))
        assert one.psum.toggles == wide.psum.toggles
        assert one.psum.overflows == wide.psum.overflows


@pytest.mark.parametrize(
    ("config", "operands", "message"),
    [
        (machine(lanes=2), plain([[1, 1]], [[1], [1]]), "take 2 lanes in 1 cycles"),
        (machine(psum=(33, "wrap")), plain([[1]], [[1]]), "psums of 33 and accumulators of 32 bits are wider"),
        (machine(acc=(63, "wrap")), plain([[1]], [[1]]), "psums of 32 and accumulators of 63 bits are wider"),
        (machine(), plain([[1 << 15]], [[1 << 15]], bits=16), "may reach 2147483648, beyond int32"),
    ],
)
def test_what_it_cannot_take(config, operands, message):
    plan = plan_operands(operands, config)
    assert message in why_not_watched(operands, plan)
    with pytest.raises(UnsupportedLayerError, match=f"{message}.*use the stepped engine"):
        watch_layer(operands, plan)


@given(small_layers(), st.sampled_from([1, 2]))
@settings(max_examples=40)
def test_history_at_once_is_the_history_when_it_is_wanted(layer, threads):
    operands, plan = layer
    later, at_once = watch_layer(operands, plan), watch_layer(operands, plan, threads=threads, history=True)
    assert_array_equal(later.acc, at_once.acc)
    for mine, other in ((later.psum, at_once.psum), (later.accumulator, at_once.accumulator)):
        assert (mine.overflows, mine.toggles, mine.first) == (other.overflows, other.toggles, other.first)
        assert_array_equal(mine.overflows_by_output, other.overflows_by_output)
        assert_array_equal(mine.toggles_by_cycle, other.toggles_by_cycle)
        assert_array_equal(mine.overflows_by_cycle, other.overflows_by_cycle)
        assert (mine.toggles, mine.overflows) == (mine.toggles_by_cycle.sum(), mine.overflows_by_cycle.sum())


@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_the_one_overflow_of_a_layer_is_found_among_many_tiles(dataflow):
    # All sums stay below 127 but for one: 100 + 100 where m = 37, n = 70, k = 21 meets what k = 16 has left.
    a, w = np.zeros((50, 40), np.int32), np.zeros((40, 90), np.int32)
    a[37, [16, 21]], w[[16, 21], 70] = 100, 1
    operands = plain(a, w)
    plan = plan_operands(operands, machine(dataflow, 16, 16, psum=(8, "saturate")))
    result = watch_layer(operands, plan)
    # os: pass of rows 32 to 47, columns 64 to 79: PE (5, 6). ws: pass of K 16 to 31: PE (5, 6), streamed row 37.
    cycle = 21 + 5 + 6 if dataflow == "os" else 37 + 5 + 6
    assert result.psum.overflows == result.psum.overflows_by_output[0, 37, 70] == 1
    assert (result.psum.first.event, result.psum.first.cycle) == (OverflowEvent((0, 37, 70), 21, 200), cycle)
    assert result.acc[0, 37, 70] == 127
    assert result.psum.overflows_by_cycle[result.psum.first.array_cycle] == 1
    expected, _ = stepped_history(operands, plan)
    assert_array_equal(result.psum.toggles_by_cycle, expected["psum"])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("dataflow", "bits"), [("ws", 31), ("ws", 32), ("ws", 33), ("is", 32), ("os", 32)])
def test_accumulators_as_wide_as_a_machine_word(dataflow, bits, policy):
    # Folds of one element (ws), 2^28 each, on 2^30 - 1: the fifth of ten no longer fits 32 bits, nor the first 31 bits.
    a = np.full((1, 10), 1 << 14)
    operands = plain(a, a.T, [(1 << 30) - 1], bits=16)
    plan = plan_operands(operands, machine(dataflow, 1, 1, psum=(30, "saturate"), acc=(bits, policy)))
    result, expected = watch_layer(operands, plan), oracle.matmul(operands, plan)
    assert_array_equal(result.acc, expected.acc)
    assert result.accumulator.overflows == expected.accumulator.overflows
    assert (result.accumulator.first is None) == (expected.accumulator.overflows == 0)
    if dataflow != "os" and bits < 33:
        assert result.accumulator.overflows > 0
        assert result.accumulator.first.event == expected.accumulator.first
