"""Registers that overflow, worked by hand, on every engine; and products so large that exactness is at stake."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import layers, machine, plain

from accelsim.engine import ENGINES, OverflowEvent, get_engine, oracle
from accelsim.engine.fast import exact_matmul
from accelsim.errors import AccelsimError, ShapeError, UnsupportedLayerError
from accelsim.mapping.contract import BlockScaling, GemmOperands
from accelsim.mapping.plan import plan_operands

every_engine = pytest.mark.parametrize("engine", ENGINES)


def run(engine, operands, config, **options):
    return ENGINES[engine].run(operands, plan_operands(operands, config), **options)


@every_engine
@pytest.mark.parametrize(("policy", "held"), [("wrap", 200 - 256 + 50), ("saturate", 127 + 50)])
def test_a_psum_overflows(engine, policy, held):
    # 100, then 100 + 100 = 200 > 127: one overflow, at k = 1. Then - 50 from what is held, which fits; bias 100.
    result = run(engine, plain([[100, 100, -50]], [[1], [1], [1]], [100]), machine(psum=(8, policy)))
    assert result.psum.overflows == 1
    assert result.psum.first == OverflowEvent((0, 0, 0), 1, 200)
    assert (result.psum.low, result.psum.high, result.psum.sufficient_bits) == (0, 200, 9)
    assert result.accumulator.overflows == 0
    assert result.acc.tolist() == [[[held - 100 + 100]]]


@every_engine
@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_the_first_overflow_is_the_first_output_s_not_the_first_in_time(engine, dataflow):
    # (0, 0): 1 + 1 + 0.  (0, 1): 1 + 0 + 2 * 100 = 201, at k = 2.  (1, 0): 100 + 100 = 200, at k = 1, a cycle sooner.
    # (1, 1): 100 + 0 + 2.
    operands = plain([[1, 1, 100], [100, 100, 1]], [[1, 1], [1, 0], [0, 2]])
    result = run(engine, operands, machine(dataflow, 3, 3, psum=(8, "wrap")))
    assert result.psum.overflows == 2
    assert result.psum.first == OverflowEvent((0, 0, 1), 2, 201)


@every_engine
def test_an_accumulator_overflows_in_the_fold_that_does_not_fit(engine):
    # 1 x 2 lanes: folds of 2 elements. Fold sums 50 50 50 -> 50, 100, 150 > 127 at k = 4.
    operands = plain([[25] * 6], [[1]] * 6)
    result = run(engine, operands, machine("ws", 1, 1, lanes=2, acc=(8, "wrap")))
    assert result.accumulator.overflows == 1
    assert result.accumulator.first == OverflowEvent((0, 0, 0), 4, 150)
    assert result.acc.tolist() == [[[150 - 256]]]
    # Output-stationary there is one fold: 150 in one addition, at k = 0.
    result = run(engine, operands, machine("os", 1, 1, lanes=2, acc=(8, "wrap")))
    assert result.accumulator.first == OverflowEvent((0, 0, 0), 0, 150)


@every_engine
@pytest.mark.parametrize(
    # wrap: 300 holds 44; 44 + 50 = 94; 94 + 50 = 144 overflows, holds -112.  saturate: 127, 127, 127: three overflows.
    ("policy", "overflows", "held"),
    [("wrap", 2, -112), ("saturate", 3, 127)],
)
def test_a_bias_that_does_not_fit_is_the_first_overflow(engine, policy, overflows, held):
    operands = plain([[25] * 4], [[1]] * 4, [300])
    result = run(engine, operands, machine("ws", 1, 1, lanes=2, acc=(8, policy)))
    assert result.accumulator.overflows == overflows
    assert result.accumulator.first == OverflowEvent((0, 0, 0), -1, 300)
    assert (result.accumulator.low, result.accumulator.high) == (0, 400)
    assert result.acc.tolist() == [[[held]]]


@every_engine
@pytest.mark.parametrize(("policy", "held"), [("wrap", -(2**63)), ("saturate", 2**63 - 1)])
def test_a_register_of_64_bits(engine, policy, held):
    operands = plain([[1], [0]], [[1]], [2**63 - 1])
    result = run(engine, operands, machine(acc=(64, policy)))
    assert result.acc.ravel().tolist() == [held, 2**63 - 1]
    assert result.accumulator.overflows == 1
    assert result.accumulator.first == OverflowEvent((0, 0, 0), 0, 2**63)
    assert (result.accumulator.high, result.accumulator.sufficient_bits) == (2**63, 65)
    operands = plain([[1]], [[-1]], [-(2**63)])
    result = run(engine, operands, machine(acc=(64, policy)))
    assert result.acc.ravel().tolist() == [2**63 - 1 if policy == "wrap" else -(2**63)]
    assert result.accumulator.first.value == -(2**63) - 1


@every_engine
def test_the_limits_themselves_fit(engine):
    # 127 and -128 are the ends of 8 bits.
    result = run(engine, plain([[127, 0], [-128, 0]], [[1], [1]]), machine(psum=(8, "saturate"), acc=(8, "saturate")))
    assert result.psum.overflows == result.accumulator.overflows == 0
    assert result.acc.ravel().tolist() == [127, -128]
    assert result.psum.sufficient_bits == 8


@every_engine
def test_operands_of_16_bits_and_scales_of_12_at_their_extremes(engine):
    # One block: 4 * 32768 * 65535 * 4095 * 4095, far beyond 2^53.
    low, high = -(2**15), 2**16 - 1
    scales = np.full((1, 1, 1), 4095, np.int32)
    operands = GemmOperands(
        np.full((1, 1, 4), low, np.int32),
        np.full((1, 4, 1), high, np.int32),
        np.zeros((1, 1), np.int64),
        np.ones(4, np.bool_),
        16,
        16,
        BlockScaling(4, scales, scales, 0, 12, 12),
    )
    exact = 4 * low * high * 4095 * 4095
    for watch in (True, False):
        result = run(engine, operands, machine(psum=(64, "wrap"), acc=(64, "wrap")), watch=watch)
        assert result.acc.tolist() == [[[exact]]]
        assert result.psum.low <= exact
    result = run(engine, operands, machine(psum=(32, "wrap"), acc=(64, "wrap")))
    assert result.psum.first.value == exact
    assert result.acc.tolist() == [[[(exact + 2**31) % 2**32 - 2**31]]]


@every_engine
@pytest.mark.parametrize(
    # Scale products 3 * 5 = 15 and 3 * 6 = 18, rounded half up by 2 bits: 3.75 -> 4, 4.5 -> 5. Dots 1 * 1 and 1 * -1.
    ("shift", "expected"),
    [(0, 15 - 18), (2, 4 - 5)],
)
def test_rounded_scale_products(engine, shift, expected):
    blocks = BlockScaling(1, np.full((1, 1, 2), 3, np.int32), np.array([[[5], [6]]], np.int32), shift, 3, 3)
    ones = np.ones((1, 1, 2), np.int32)
    weights = np.array([[[1], [-1]]], np.int32)
    operands = GemmOperands(ones, weights, np.zeros((1, 1), np.int64), np.ones(2, np.bool_), 4, 4, blocks)
    for watch in (True, False):
        assert run(engine, operands, machine(), watch=watch).acc.tolist() == [[[expected]]]


@given(layers())
@settings(max_examples=150)
def test_a_proof_gives_the_same_values_and_bounds_that_hold(layer):
    operands, config = layer
    plan = plan_operands(operands, config)
    expected = oracle.matmul(operands, plan)
    result = ENGINES["fast"].run(operands, plan, watch=False)
    assert_array_equal(result.acc, expected.acc)
    assert result.cycles == plan.cycles
    assert result.actions == plan.actions
    for found, true in ((result.psum, expected.psum), (result.accumulator, expected.accumulator)):
        assert (found.overflows, found.first) == (true.overflows, true.first)
        assert found.exact is result.psum.exact
        if found.exact:
            assert found == true
        else:
            assert found.overflows == 0
            assert found.low <= true.low <= true.high <= found.high


def test_a_proof_is_used_where_it_holds_and_only_there():
    # |psum| <= 2 * 127 * 127 = 32,258 < 2^15: 16 bits are proved enough, 15 are not.
    operands = plain([[127, 127]], [[127], [-127]])
    for bits, proved in ((16, True), (15, False)):
        result = run("fast", operands, machine(psum=(bits, "wrap")), watch=False)
        assert result.psum.exact is not proved
        assert result.acc.tolist() == [[[0]]]
    assert run("fast", operands, machine(psum=(16, "wrap")), watch=True).psum.exact
    # Accumulators: bias 32,767 - 32,258 = 509 is the largest that is proved; both signs count.
    for bias, proved in ((509, True), (510, False), (-510, True), (-511, False)):
        operands = plain([[127, 127]], [[127], [-127]], [bias])
        result = run("fast", operands, machine(acc=(16, "wrap")), watch=False)
        assert result.accumulator.exact is not proved


# Largest products near a float's exact integers: 1025 * 1023 = 2^20 - 1 leaves float32 pieces of 16, and is the largest
# that float32 takes; 94,906,265^2 = 2^53 - 118,490,767 leaves float64 pieces of one element.
@pytest.mark.parametrize(
    ("x", "y", "lengths"),
    [
        (1025, 1023, (15, 16, 17, 31, 32, 33)),
        (1025, 1025, (15, 16, 17, 100)),
        (127, -127, (1039, 1040, 1041, 1042)),  # 2^24 / 127^2 = 1040.2
        (94_906_265, 94_906_265, (1, 2, 3, 5)),
        (94_906_265, -47_453_131, (2, 3, 4)),
    ],
)
def test_exact_matmul_at_the_limits_of_floats(x, y, lengths):
    for length in lengths:
        a = np.full((1, 2, length), x, np.int32)
        w = np.full((1, length, 1), y, np.int32)
        a[0, 1, ::2] -= 1  # a second row, of other parity
        expected = [[sum(int(v) * y for v in row)] for row in a[0]]
        assert exact_matmul(a, w)[0].tolist() == expected


def test_exact_matmul_declines_products_beyond_2_53():
    assert exact_matmul(np.full((1, 1, 1), 94_906_266, np.int32), np.full((1, 1, 1), 94_906_266, np.int32)) is None


@given(st.integers(1, 20), st.integers(1, 31), st.integers(1, 21), st.integers(0, 2**32 - 1))
def test_exact_matmul_equals_python_integers(a_bits, w_bits, length, seed):
    rng = np.random.default_rng(seed)
    a = rng.integers(-(1 << a_bits), 1 << a_bits, (2, 2, length)).astype(np.int32)
    w = rng.integers(-(1 << w_bits), 1 << w_bits, (2, length, 3)).astype(np.int32)
    found = exact_matmul(a, w)
    expected = [[[sum(int(x) * int(y) for x, y in zip(row, col, strict=True)) for col in q.T] for row in p]
                for p, q in zip(a, w, strict=True)]  # fmt: skip
    assert found.tolist() == expected


def test_mistakes_are_named():
    operands = plain([[1, 2]], [[3], [4]])
    other = plain([[1, 2, 3]], [[3], [4], [5]])
    plan = plan_operands(other, machine())
    for engine in ENGINES.values():
        with pytest.raises(ShapeError) as error:
            engine.run(operands, plan)
        assert str(error.value) == "a is int32 [1, 1, 2]; the plan needs int32 [1, 1, 3]"
    wide = GemmOperands(operands.a.astype(np.int64), operands.w, operands.bias, operands.k_valid, 8, 8)
    with pytest.raises(ShapeError, match=r"a is int64 \[1, 1, 2\]; the plan needs int32 \[1, 1, 2\]"):
        run("fast", wide, machine())
    with pytest.raises(AccelsimError) as error:
        get_engine("steped")
    assert str(error.value) == "engine 'steped' is unknown; did you mean 'stepped'?; use one of auto, fast, stepped"
    assert get_engine("auto") is get_engine("fast")


@every_engine
def test_sums_that_could_leave_int64_are_refused(engine):
    # 65535 * 65535 * 4095 * 4095 is just below 2^56, so 64 of them stay just below 2^62, and 128 do not.
    def layer(k, scale):
        scales = np.full((1, 1, 1), scale, np.int32)
        return GemmOperands(
            np.full((1, 1, k), 65535, np.int32), np.full((1, k, 1), 65535, np.int32), np.zeros((1, 1), np.int64),
            np.ones(k, np.bool_), 16, 16, BlockScaling(k, scales, scales, 0, 12, 12),
        )  # fmt: skip

    fits = layer(64, 4095)
    result = run(engine, fits, machine(psum=(64, "wrap"), acc=(64, "wrap")))
    assert result.acc.tolist() == [[[64 * 65535**2 * 4095**2]]]
    with pytest.raises(UnsupportedLayerError) as error:
        run(engine, layer(128, 4095), machine())
    assert "exact sums of this layer may reach 9,218,587" in str(error.value)
    assert "(about 2^63), but the engines hold exact sums below 2^62" in str(error.value)
    assert "use narrower operands or block scales, or split K=128" in str(error.value)


@every_engine
def test_negative_scales_and_ragged_blocks_are_refused(engine):
    ones = np.ones((1, 1, 4), np.int32)
    blocks = BlockScaling(4, np.full((1, 1, 1), -1, np.int32), np.ones((1, 1, 1), np.int32), 0, 4, 4)
    operands = GemmOperands(ones, ones.swapaxes(1, 2), np.zeros((1, 1), np.int64), np.ones(4, np.bool_), 4, 4, blocks)
    with pytest.raises(ShapeError, match="block scales are unsigned integers, but some are negative"):
        run(engine, operands, machine())
