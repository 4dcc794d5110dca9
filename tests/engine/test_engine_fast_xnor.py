"""Binary layers of the fast engine: popcounts of packed words give what products of +1 and -1 give."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.config.model import Array, Buffer, Buffers, HardwareConfig, Popcount, Ppu, Register
from accelsim.engine import get_engine, oracle
from accelsim.engine.contract import OverflowEvent
from accelsim.engine.fast_xnor import XnorGemm, packs
from accelsim.mapping.contract import GemmOperands
from accelsim.mapping.plan import plan_operands


def machine(dataflow="os", rows=2, word_bits=64, psum=32, acc=32, overflow="wrap"):
    """A small array of XNOR-popcount PEs."""
    return HardwareConfig(
        name="test",
        clock_mhz=500.0,
        array=Array(
            rows=rows,
            cols=2,
            dataflow=dataflow,
            popcount=Popcount(word_bits=word_bits),
            psum=Register(bits=psum, overflow=overflow),
        ),
        accumulator=Register(bits=acc, overflow=overflow),
        ppu=Ppu(lanes=2, latency_cycles=3),
        buffers=Buffers(accumulator=Buffer(size_bytes=4096)),
    )


def binary(a, w, bias=0, k_valid=None):
    """One GEMM of lanes of +1 and -1."""
    a, w = np.array([a], np.int32), np.array([w], np.int32)
    valid = np.ones(a.shape[2], np.bool_) if k_valid is None else np.array(k_valid, np.bool_)
    return GemmOperands(a, w, np.full((1, w.shape[2]), bias, np.int64), valid, 1, 1, product="xnor")


def same(operands, config):
    """Run the fast engine; it must equal the oracle. Return its result, and that of a proof."""
    plan = plan_operands(operands, config)
    expected = oracle.matmul(operands, plan)
    result = get_engine("fast").run(operands, plan)
    np.testing.assert_array_equal(result.acc, expected.acc)
    assert (result.psum, result.accumulator) == (expected.psum, expected.accumulator)
    proved = get_engine("fast").run(operands, plan, watch=False)
    np.testing.assert_array_equal(proved.acc, expected.acc)
    for found, true in ((proved.psum, expected.psum), (proved.accumulator, expected.accumulator)):
        assert (found.overflows, found.first) == (true.overflows, true.first)
        assert found.low <= true.low <= true.high <= found.high
    return result, proved


@st.composite
def layers(draw, lengths):
    """(operands, machine): ragged words, K padded anywhere, registers of any width."""
    batch, m, n, k = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(lengths)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ones = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    k_valid = rng.random(k) < draw(st.sampled_from([1.0, 0.7, 0.1]))
    a = np.where(rng.random((batch, m, k)) < ones, 1, -1) * k_valid
    w = np.where(rng.random((batch, k, n)) < draw(st.sampled_from([0.0, 0.5, 1.0])), 1, -1) * k_valid[:, None]
    bias = rng.integers(-(2**7), 2**7, (batch, n))
    operands = GemmOperands(a.astype(np.int32), w.astype(np.int32), bias, k_valid, 1, 1, product="xnor")
    bits = st.sampled_from([8, 8, 9, 16, 32, 64])
    return operands, machine(
        draw(st.sampled_from(["os", "ws", "is"])),
        draw(st.integers(1, 6)),
        draw(st.sampled_from([32, 64, 128, 256])),
        draw(bits),
        draw(bits),
        draw(st.sampled_from(["wrap", "saturate"])),
    )


@given(layers(st.integers(1, 200)))
@settings(max_examples=150)
def test_popcounts_equal_the_oracle(layer):
    assert packs(layer[0])
    same(*layer)


@given(layers(st.sampled_from([255, 256, 257, 511, 512, 577, 640, 1000])))
@settings(max_examples=20)
def test_many_words_in_registers_equal_the_oracle(layer):
    same(*layer)


@pytest.mark.parametrize(
    ("dataflow", "rows", "word_bits"), [("os", 2, 64), ("ws", 3, 64), ("ws", 2, 256), ("os", 2, 32)]
)
@pytest.mark.parametrize("n", [64, 70])
def test_more_rows_and_columns_than_a_loop_works_at_once(dataflow, rows, word_bits, n):
    rng = np.random.default_rng(3)
    m, k = 37, 64 * 9 + 10
    valid = rng.random(k) < 0.9
    a = np.where(rng.random((m, k)) < rng.random((m, 1)), 1, -1) * valid  # some rows drift
    w = np.where(rng.random((k, n)) < 0.6, 1, -1) * valid[:, None]
    operands = replace(binary(a.tolist(), w.tolist(), k_valid=valid), bias=rng.integers(-99, 99, (1, n)))
    plan = plan_operands(operands, machine(dataflow, rows, word_bits))
    parts = [a[:, start : start + plan.group] @ w[start : start + plan.group] for start in range(0, k, plan.group)]
    psums, accs = [np.zeros((m, n))], [np.broadcast_to(operands.bias[0], (m, n)), np.zeros((m, n))]
    acc = accs[0]
    for fold in range(0, len(parts), plan.groups_per_fold):
        trajectory = np.cumsum(parts[fold : fold + plan.groups_per_fold], axis=0)
        acc = acc + trajectory[-1]
        psums.append(trajectory.min(axis=0))
        psums.append(trajectory.max(axis=0))
        accs.append(acc)
    for threads in (1, 3):
        result = get_engine("fast", threads=threads).run(operands, plan)
        np.testing.assert_array_equal(result.acc[0], acc)
        assert (result.psum.low, result.psum.high) == (np.min(psums), np.max(psums))
        assert (result.accumulator.low, result.accumulator.high) == (np.min(accs), np.max(accs))


def test_a_word_by_hand():
    # 1 - 1 - 1 + 1 - 1 - 1 = -2: two agreements of six, and -6 + 2 * 2 = -2.
    operands = binary([[1, -1, 1, 1, -1, 1]], [[1], [1], [-1], [1], [1], [-1]])
    result, proved = same(operands, machine())
    assert result.acc.item() == proved.acc.item() == -2
    # A word is one addition: the psum went straight to -2, though its first element alone is +1.
    assert (result.psum.low, result.psum.high) == (-2, 0)


def test_extremes_are_those_of_words():
    # 64 agreements, then 64 + 64 differences: 64, 0, -64; a bias of 7 on the accumulator, one fold (os) or three (ws).
    operands = binary([[1] * 192], [[1]] * 64 + [[-1]] * 128, bias=7)
    result, _ = same(operands, machine())
    assert (result.psum.low, result.psum.high) == (-64, 64)
    assert (result.accumulator.low, result.accumulator.high) == (-57, 7)
    result, _ = same(operands, machine("ws", rows=1))
    assert (result.psum.low, result.psum.high) == (-64, 64)
    assert (result.accumulator.low, result.accumulator.high) == (-57, 71)
    result, _ = same(operands, machine(word_bits=256))
    assert (result.psum.low, result.psum.high) == (-64, 0)


def test_padding_counts_neither_way():
    # Of five elements two are padding: -1, -1, +1 of -3 .. 3. As bits, padding would look like agreement.
    valid = [True, False, True, False, True]
    result, _ = same(binary([[1, 0, 1, 0, 1]], [[-1], [0], [-1], [0], [1]], k_valid=valid), machine())
    assert result.acc.item() == -1


def test_registers_that_overflow_are_followed_word_by_word():
    # 64 + 64 = 128 is one too many for 8 bits, in the second word.
    operands = binary([[1] * 192], [[1]] * 192)
    for overflow, held in (("wrap", -64), ("saturate", 127)):
        result, _ = same(operands, machine(psum=8, overflow=overflow))
        assert (result.psum.overflows, result.psum.first) == (
            {"wrap": 1, "saturate": 2}[overflow],
            OverflowEvent((0, 0, 0), 64, 128),
        )
        assert result.acc.item() == held


def test_a_proof_is_used_where_it_holds_and_only_there():
    # 127 elements and a bias of 0 fit 8 bits; 128 do not, nor does a bias of 1 beside 127.
    for length, bias, proved in ((127, 0, True), (128, 0, False), (127, 1, False)):
        signs = [1, -1] * 64
        operands = binary([signs[:length]], [[1]] * length, bias)
        result = get_engine("fast").run(operands, plan_operands(operands, machine(psum=8, acc=8)), watch=False)
        assert result.psum.exact is not proved


@pytest.mark.parametrize("change", ["a two", "a zero", "a zero weight", "not xnor", "a one in padding"])
def test_only_lanes_of_plus_and_minus_one_are_packed(change):
    a, w, valid = [[1, -1, 1]], [[1], [1], [-1]], [True, True, True]
    if change == "a two":
        a = [[2, -1, 1]]
    elif change == "a zero":
        a = [[0, -1, 1]]
    elif change == "a zero weight":
        w = [[1], [0], [-1]]
    elif change == "a one in padding":
        a, w, valid = [[1, -1, 1]], [[1], [1], [-1]], [True, True, False]
    operands = binary(a, w, k_valid=valid)
    if change == "not xnor":
        operands = GemmOperands(operands.a, operands.w, operands.bias, operands.k_valid, 1, 1)
    assert not packs(operands)
    same(operands, machine())  # which is right all the same


def test_popcounts_are_what_computes_them(monkeypatch):
    called = []
    monkeypatch.setattr(XnorGemm, "exact", lambda self, out: called.append("exact") or np.zeros((4, 1), np.int64))
    monkeypatch.setattr(XnorGemm, "products", lambda self, bias, out: called.append("products"))
    operands = binary([[1, 1]], [[1], [1]])
    plan = plan_operands(operands, machine())
    for watch in (True, False):
        get_engine("fast").run(operands, plan, watch=watch)
    assert called == ["exact", "products"]
