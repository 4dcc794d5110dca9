"""Many products of few columns at once (depthwise convolutions): equal to the oracle, and to one product at a time."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import machines

from accelsim.engine import fast_batch, get_engine, oracle
from accelsim.mapping.contract import GemmOperands
from accelsim.mapping.plan import plan_operands

ROWS = st.sampled_from([1, 3, 63, 64, 65, 130])  # the kernel takes 64 at once


@st.composite
def batches(draw):
    """(operands, machine): 4 to 6 products of 1 to 8 columns, each of a size of its own, so that few overflow."""
    batch, m, k, n = draw(st.integers(4, 6)), draw(ROWS), draw(st.integers(1, 11)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    high = rng.choice([1, 10, 127], (batch, 1, 1))
    a = rng.integers(-high, high + 1, (batch, m, k)).astype(np.int32)
    w = rng.integers(-high, high + 1, (batch, k, n)).astype(np.int32)
    bias = rng.integers(-1000, 1000, (batch, n)) * draw(st.sampled_from([0, 1, 100]))
    return GemmOperands(a, w, bias, np.ones(k, np.bool_), 8, 8), draw(machines())


@settings(max_examples=150)
@given(batches())
def test_batches_equal_the_oracle(layer):
    operands, config = layer
    plan = plan_operands(operands, config)
    assert fast_batch.few_columns(operands, 127 * 127 * 11)
    expected = oracle.matmul(operands, plan)
    for threads in (1, 3):
        result = get_engine("fast", threads=threads).run(operands, plan)
        np.testing.assert_array_equal(result.acc, expected.acc)
        assert (result.psum, result.accumulator) == (expected.psum, expected.accumulator)


@settings(max_examples=60)
@given(layer=batches())
def test_batches_equal_one_product_at_a_time(layer):
    operands, config = layer
    plan = plan_operands(operands, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_batch, "FEW", 0)
        one_by_one = [get_engine("fast").run(operands, plan, extremes=extremes) for extremes in (True, False)]
    at_once = [get_engine("fast").run(operands, plan, extremes=extremes) for extremes in (True, False)]
    for single, whole in zip(one_by_one, at_once, strict=True):
        np.testing.assert_array_equal(whole.acc, single.acc)
        for found, other in ((whole.psum, single.psum), (whole.accumulator, single.accumulator)):
            assert (found.overflows, found.first) == (other.overflows, other.first)
    assert (at_once[0].psum, at_once[0].accumulator) == (one_by_one[0].psum, one_by_one[0].accumulator)


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({"a": np.zeros((3, 5, 2), np.int32), "w": np.zeros((3, 2, 1), np.int32)}, 1),
        ({"w": np.zeros((4, 2, 9), np.int32)}, 1),
        ({"w": np.zeros((4, 2, 0), np.int32)}, 1),
        ({"a": np.zeros((4, 0, 2), np.int32)}, 1),
        ({}, 1 << 31),
    ],
    ids=["few products", "many columns", "no columns", "no rows", "sums beyond int32"],
)
def test_other_layers_are_computed_one_product_at_a_time(changes, bound):
    taken = GemmOperands(
        np.zeros((4, 5, 2), np.int32), np.zeros((4, 2, 1), np.int32), np.zeros((4, 1), np.int64),
        np.ones(2, np.bool_), 8, 8,
    )  # fmt: skip
    assert fast_batch.few_columns(taken, (1 << 31) - 1)
    assert not fast_batch.few_columns(replace(taken, **changes), bound)


def test_only_products_that_overflow_are_followed(monkeypatch):
    """The second product of four: its 20 products of 100 x 100 leave psums of 16 bits."""
    a, w = np.ones((4, 70, 20), np.int32), np.ones((4, 20, 1), np.int32)
    a[1], w[1] = 100, 100
    operands = GemmOperands(a, w, np.zeros((4, 1), np.int64), np.ones(20, np.bool_), 8, 8)
    from strategies import machine

    plan = plan_operands(operands, machine(psum=(16, "saturate")))
    followed = []
    limited_gemm = fast_batch.IntegerGemm.limited.__globals__["limited_gemm"]

    def counted(rows, *given, **options):
        followed.append(len(rows))
        return limited_gemm(rows, *given, **options)

    monkeypatch.setitem(fast_batch.IntegerGemm.limited.__globals__, "limited_gemm", counted)
    result = get_engine("fast").run(operands, plan)
    assert followed == [70]
    assert result.psum.overflows == 70 * (20 - 3)  # 30,000 fits, every addition from the fourth on does not
    assert (result.acc[1] == 32767).all()
    assert (result.acc[[0, 2, 3]] == 20).all()
