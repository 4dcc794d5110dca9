"""The watched engine against the oracle, and against the registers of the stepped engine in every cycle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import machine, plain

from accelsim.engine import OverflowEvent, oracle
from accelsim.engine.stepped import build_machine
from accelsim.engine.watched import TimedEvent, watch_layer, why_not_watched
from accelsim.errors import UnsupportedLayerError
from accelsim.mapping.contract import BlockScaling, GemmOperands
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
@settings(max_examples=150)
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
    psums = np.zeros((plan.rows, plan.cols), np.int64)
    accs = build.state.acc[..., 0].copy()
    before = build.log.counts.copy()
    from accelsim.engine import stepped_kernels as kernels

    number = -1
    for cycle in range(total):
        more = build.advance()
        now, counts = build.registers(), build.log.counts.copy()
        history["psum_over"][cycle] = counts[kernels.PSUM_OVERFLOW] - before[kernels.PSUM_OVERFLOW]
        history["acc_over"][cycle] = counts[kernels.ACC_OVERFLOW] - before[kernels.ACC_OVERFLOW]
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
    return history


@given(small_layers())
@settings(max_examples=80)
def test_every_cycle_equals_the_registers_of_the_stepped_engine(layer):
    operands, plan = layer
    result, expected = watch_layer(operands, plan), stepped_history(operands, plan)
    assert_array_equal(result.psum.overflows_by_cycle, expected["psum_over"])
    assert_array_equal(result.accumulator.overflows_by_cycle, expected["acc_over"])
    assert_array_equal(result.accumulator.toggles_by_cycle, expected["acc"])
    assert_array_equal(result.psum.toggles_by_cycle, expected["psum"])
    assert result.psum.toggles == expected["psum"].sum()
