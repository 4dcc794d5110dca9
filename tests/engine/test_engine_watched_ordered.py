"""Ordered sums in narrow registers: equal to the oracle in values, counts and first events."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import machine

from accelsim.engine import OverflowEvent, oracle
from accelsim.engine.ordered import Registers, fits_narrow, limited_gemm
from accelsim.engine.preload import earlier, preload
from accelsim.mapping.contract import GemmOperands
from accelsim.mapping.plan import plan_operands

POLICIES = st.sampled_from(["wrap", "saturate"])


@st.composite
def narrow_layers(draw):
    """(operands, plan) of one GEMM: groups of any size, ragged, columns over one or two blocks."""
    m, k, n = draw(st.integers(1, 7)), draw(st.integers(1, 45)), draw(st.sampled_from([1, 3, 63, 64, 65, 70]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    peak = draw(st.sampled_from([3, 20, 128, 181]))
    a = rng.integers(-peak, peak, (1, m, k), endpoint=True).astype(np.int32)
    w = rng.integers(-peak, peak, (1, k, n), endpoint=True).astype(np.int32)
    if draw(st.booleans()):
        a[...], w[...] = peak, rng.choice([-peak, peak], (1, 1, n))
    config = machine(
        draw(st.sampled_from(["os", "ws"])),
        draw(st.sampled_from([1, 3, 8, 11])),
        4,
        lanes=draw(st.sampled_from([1, 1, 1, 2, 5, 8, 16, 19])),
        psum=(draw(st.sampled_from([8, 9, 15, 16, 17, 24, 31, 32])), draw(POLICIES)),
        acc=(draw(st.sampled_from([8, 12, 16, 32, 40, 62])), draw(POLICIES)),
    )
    operands = GemmOperands(a, w, rng.integers(-100, 100, (1, n)), np.ones(k, np.bool_), 9, 9)
    return operands, plan_operands(operands, config)


def registers_of(plan):
    return Registers(
        plan.group, plan.groups_per_fold, plan.psum_bits, plan.psum_overflow, plan.acc_bits, plan.acc_overflow
    )


def event(first):
    return None if first is None else OverflowEvent((0, first.m, first.n), first.k, first.before + first.addend)


@given(narrow_layers(), st.sampled_from([1, 2, 3]))
@settings(max_examples=200)
def test_values_counts_and_first_events_equal_the_oracle(layer, threads):
    operands, plan = layer
    a, w, registers = operands.a[0], operands.w[0], registers_of(plan)
    bias_in, expected = preload(operands, plan), oracle.matmul(operands, plan)
    assert fits_narrow(a, w, registers)
    result = limited_gemm(a, w, bias_in.held[0], registers, threads=threads)
    assert_array_equal(result.acc, expected.acc[0])
    assert result.psum_overflows == expected.psum.overflows
    assert event(result.psum_first) == expected.psum.first
    assert result.acc_overflows + bias_in.overflows == expected.accumulator.overflows
    assert earlier(bias_in.first, event(result.acc_first)) == expected.accumulator.first


def test_counts_of_long_int16_sums_do_not_wrap():
    # Every addition from the second on overflows: 70,000 elements are more than an int16 count can hold.
    a, w = np.full((1, 70_001), 127, np.int32), np.full((70_001, 1), 1, np.int32)
    registers = Registers(1, 70_001, 8, "saturate", 32, "wrap")
    result = limited_gemm(a, w, np.zeros(1, np.int64), registers)
    assert result.psum_overflows == 70_000
    assert result.acc.tolist() == [[127]]


def test_what_int32_lanes_cannot_hold():
    def fits(peak, psum_bits=32, acc_bits=32, group=1, k=4):
        a = np.full((1, k), peak, np.int32)
        return fits_narrow(a, a.T, Registers(group, 1, psum_bits, "wrap", acc_bits, "wrap"))

    assert fits(1 << 14)
    assert not fits(1 << 15)  # 4 * 2^30, and one more
    assert fits(1 << 15, psum_bits=16)  # what is held is small
    assert not fits(1 << 15, psum_bits=31)
    assert not fits(1 << 15, psum_bits=16, group=2)
    assert not fits(1, psum_bits=33)
    assert not fits(1, acc_bits=63)
