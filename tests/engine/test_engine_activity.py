"""Toggles and zeros: both engines against registers that are followed one by one in plain Python."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import KINDS, machine, plain

from accelsim.engine import ENGINES
from accelsim.engine.lane_codes import MOST_BITS, lane_codes, operand_codes
from accelsim.engine.watched import why_not_watched
from accelsim.mapping.plan import plan_operands

# -- the oracle: what a register holds, one content after the other ---------------------------------------------------


def code_of(kind, bits, exponent_bits, levels, value, exponent):
    """The bits of one element, from the rules of the manual; kinds by their names."""
    value = int(value)
    if kind == "sign":
        return int(value > 0)
    if kind == "rank":
        return sorted(levels).index(value)
    if kind == "plain":
        return value % 2**bits
    if value == 0:
        return 0
    if kind == "power":
        return ((value < 0) * 2 ** (bits - 1) | abs(value).bit_length()) % 2**bits
    if kind == "float":
        exponent = 0
        while not -(2 ** (bits - 1)) < value < 2 ** (bits - 1):
            value, exponent = value // 2, exponent + 1
    return (value % 2**bits + exponent % 2**exponent_bits * 2**bits) % 2**MOST_BITS


NAMES = ("plain", "sign", "float", "exponent", "power", "rank")


def codes_of(operands, plan):
    """Codes [batch][row][k] of the operand that moves right, and [batch][column][k] of the other one."""
    found = []
    for kind, values, exponents in zip(
        operand_codes(operands, plan),
        (operands.a, operands.w.swapaxes(1, 2)),
        (operands.a_exponents, None if operands.w_exponents is None else operands.w_exponents.swapaxes(1, 2)),
        strict=True,
    ):
        length = -(-plan.shape.k // plan.group) * plan.group
        whole = np.zeros((*values.shape[:2], length), object)
        for place in np.ndindex(*values.shape):
            if operands.k_valid[place[2]]:
                exponent = 0 if exponents is None else int(exponents[place])
                whole[place] = code_of(
                    NAMES[kind.kind], kind.bits, kind.exponent_bits, kind.levels.tolist(), values[place], exponent
                )
        found.append(whole)
    return found[::-1] if plan.transposed else found


class Registers:
    """Registers that are empty at first; `latch` says what one holds from now on."""

    def __init__(self):
        self.held = Counter()
        self.toggles = self.changes = 0

    def latch(self, register, content, *, new=True):
        before = self.held[register]
        self.toggles += (before ^ content).bit_count()
        self.changes += (before | content) != 0 and (new or before != content)
        self.held[register] = content

    def empty(self, chosen=lambda register: True):
        for register in [key for key in self.held if chosen(key)]:
            self.latch(register, 0)


def follow(operands, plan):
    """Move every element through every register of every pass."""
    stream, other = codes_of(operands, plan)
    lanes, x, y = plan.lanes, Registers(), Registers()
    passes, rows_streamed = plan.passes, stream.shape[1]
    for p in range(len(passes)):
        b, row0, rows, col0, cols = (
            int(array[p]) for array in (passes.batch, passes.row0, passes.rows, passes.col0, passes.cols)
        )
        r, c = (rows, cols) if plan.skip_unused else (plan.rows, plan.cols)

        def element(of, index, step, lane, b=b):
            return of[b, index, step * lanes + lane]

        for lane in range(lanes):
            if plan.dataflow == "os":
                for step in range(stream.shape[2] // lanes):
                    for i in range(r):
                        for j in range(c):
                            if i < rows:
                                x.latch((i, j, lane), element(stream, row0 + i, step, lane))
                            if j < cols:
                                y.latch((i, j, lane), element(other, col0 + j, step, lane))
                continue
            y.empty(lambda register, lane=lane: register[0] == "chain" and register[3] == lane)
            for entering in reversed(range(r)):  # shifted down one row, the bottom one first
                for j in range(c):
                    for i in reversed(range(1, r)):
                        y.latch(("chain", i, j, lane), y.held["chain", i - 1, j, lane])
                    there = entering < rows and j < cols
                    y.latch(("chain", 0, j, lane), element(other, col0 + j, row0 + entering, lane) if there else 0)
            if plan.double_buffered:
                for i in range(plan.rows):
                    for j in range(plan.cols):
                        y.latch(("held", i, j, lane), y.held["chain", i, j, lane])
            for m in range(rows_streamed):
                for i in range(rows):
                    for j in range(c):
                        x.latch((i, j, lane), element(stream, m, row0 + i, lane))
        x.empty()
        if plan.dataflow == "os":
            y.empty()
    y.empty()
    return x, y


def zeros_among_products(operands):
    a, w, valid = operands.a.tolist(), operands.w.tolist(), operands.k_valid.tolist()
    return sum(
        a[b][m][k] == 0 or w[b][k][n] == 0
        for b in range(len(a))
        for m in range(len(a[0]))
        for k in range(len(valid))
        if valid[k]
        for n in range(len(w[0][0]))
    )


# -- the laws ---------------------------------------------------------------------------------------------------------

EXAMPLES = {"integers": 120}


@pytest.mark.parametrize("kind", KINDS)
def test_both_engines_count_what_happens_in_the_registers(kind):
    @given(KINDS[kind])
    @settings(max_examples=EXAMPLES.get(kind, 40))
    def check(layer):
        operands, config = layer
        plan = plan_operands(operands, config)
        stepped = ENGINES["stepped"].run(operands, plan, activity=True)
        fast = ENGINES["fast"].run(operands, plan, activity=True)
        x, y = follow(operands, plan)
        zeros = zeros_among_products(operands)
        for found in (fast.activity, stepped.activity):
            assert (found.stream.toggles, found.stream.changes) == (x.toggles, x.changes)
            assert (found.other.toggles, found.other.changes) == (y.toggles, y.changes)
            assert found.zero_products == zeros
            assert found.products == plan.tally.products
            assert (found.stream.latches, found.other.latches) == (plan.tally.stream_hops, plan.tally.other_hops)
            assert 0 <= found.stream.rate <= 1
        if why_not_watched(operands, plan) is None:
            assert fast.activity == stepped.activity  # psums and accumulators, by the watched engine
        else:
            assert fast.activity.psum_toggles is None
            assert fast.activity.accumulator_toggles is None
            assert stepped.activity.psum_toggles >= 0
        # Counting changes nothing else.
        again = ENGINES["stepped"].run(operands, plan)
        assert again.activity is None
        assert again.actions == stepped.actions
        np.testing.assert_array_equal(again.acc, stepped.acc)

    check()


@given(KINDS["integers"].filter(lambda layer: layer[1].array.lanes == 1 and layer[0].blocks is None))
@settings(max_examples=60)
def test_sums_toggle_as_the_watched_engine_says(layer):
    operands, config = layer
    plan = plan_operands(operands, config)
    if why_not_watched(operands, plan) is None:
        fast, stepped = (ENGINES[name].run(operands, plan, activity=True).activity for name in ("fast", "stepped"))
        assert fast == stepped


@pytest.mark.parametrize("kind", KINDS)
def test_codes_by_array_are_codes_one_by_one(kind):
    @given(KINDS[kind])
    @settings(max_examples=30)
    def check(layer):
        operands, config = layer
        plan = plan_operands(operands, config)
        for code, values, exponents in zip(
            operand_codes(operands, plan),
            (operands.a, operands.w),
            (operands.a_exponents, operands.w_exponents),
            strict=True,
        ):
            valid = np.broadcast_to(
                operands.k_valid[:, None] if values is operands.w else operands.k_valid, values.shape
            )
            found = lane_codes(code, values, exponents)
            for place in zip(*np.nonzero(valid), strict=True):
                exponent = 0 if exponents is None else int(exponents[place])
                expected = code_of(
                    NAMES[code.kind], code.bits, code.exponent_bits, code.levels.tolist(), values[place], exponent
                )
                assert int(found[place]) == expected
                assert expected < 2**code.total_bits

    check()


# -- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_one_row_by_hand(name):
    # One PE, os, K = 4: x sees 0 1 3 0 -1 0, of 4 bits: 1 + 1 + 2 + 4 + 4 toggles, 5 changes; y sees 0 5 5 5 0 0: 2 + 2
    # toggles, 4 changes. Products 5, 15, 0, 0: two have a zero operand. The psum holds 0 5 20 20 20: 2 + 2 toggles
    # (00101, 10100), and the accumulator takes 20: 2.
    operands = plain([[1, 3, 0, -1]], [[5], [5], [5], [0]], bits=4)
    plan = plan_operands(operands, machine("os", 1, 1))
    found = ENGINES[name].run(operands, plan, activity=True).activity
    assert (found.stream.bits, found.stream.toggles, found.stream.changes) == (4, 12, 5)
    assert (found.other.toggles, found.other.changes) == (4, 4)
    assert (found.products, found.zero_products) == (4, 2)
    assert (found.psum_toggles, found.accumulator_toggles) == (2 + 2, 2)
    assert found.stream.rate == 12 / 20


@pytest.mark.parametrize("name", ENGINES)
def test_a_held_weight_by_hand(name):
    # Two PEs above one another, ws, one column: w = 3 above 1. The chain's upper register sees 0 1 3 0, the lower one
    # 0 0 1 0: 1 + 1 + 2 and 1 + 1 toggles.
    operands = plain([[1, 0], [1, 2]], [[3], [1]], bits=4)
    plan = plan_operands(operands, machine("ws", 2, 1))
    found = ENGINES[name].run(operands, plan, activity=True).activity
    assert (found.other.toggles, found.other.latches) == (6, 3)
    # x of the upper row: 0 1 1 0, of the lower one 0 0 2 0.
    assert (found.stream.toggles, found.stream.changes) == (2 + 2, 3 + 2)
    assert found.zero_products == 1
    # Upper psum: 0 3 3 0, lower one: 0 3 5 0 (011, 101); the accumulators take 3 and 5.
    assert (found.psum_toggles, found.accumulator_toggles) == (2 + 2 + 2 + 2 + 2, 2 + 2)


@given(st.sampled_from(["os", "ws", "is"]), st.integers(1, 4), st.integers(1, 4))
def test_equal_data_never_toggle_within_a_stream(dataflow, rows, cols):
    operands = plain([[7] * 6] * 5, [[3] * 4] * 6, bits=4)
    plan = plan_operands(operands, machine(dataflow, rows, cols, skip_unused=True))
    found = ENGINES["fast"].run(operands, plan, activity=True).activity
    streams = found.stream.latches // (operands.shape.k if dataflow == "os" else 4 if dataflow == "is" else 5)
    ones = 2 if dataflow == "is" else 3
    assert found.stream.toggles == 2 * ones * streams  # it comes, and it goes
    assert found.zero_products == 0
