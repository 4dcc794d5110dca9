"""The fast engine on layers large enough for its tiles, chunks and pieces: equal to additions one after another."""

from dataclasses import replace

import numpy as np
import pytest
from strategies import machine, plain

from accelsim.config.model import FloatUnit
from accelsim.engine import get_engine
from accelsim.engine.contract import OverflowEvent
from accelsim.engine.tiles import exact_product
from accelsim.mapping.contract import BlockScaling, Summation
from accelsim.mapping.plan import plan_operands

WIDE = (48, "saturate")


class Reference:
    """Registers of all outputs at once, one addition after another in NumPy integers."""

    def __init__(self, parts, bias, groups_per_fold, psum, acc):
        """parts : int64 [G, M, N], what each group adds."""
        self.counts, self.firsts = [0, 0], [None, None]
        self.psum_range, self.acc_range = [0, 0], [min(0, int(bias.min())), max(0, int(bias.max()))]
        self.acc = np.broadcast_to(bias, parts.shape[1:]).astype(np.int64)
        exact_acc = self.acc.copy()
        for start in range(0, len(parts), groups_per_fold):
            register, exact = np.zeros_like(self.acc), np.zeros_like(self.acc)
            for g in range(start, min(start + groups_per_fold, len(parts))):
                exact += parts[g]
                self.widen(self.psum_range, exact)
                register = self.limited(register + parts[g], *psum, 0, g)
            exact_acc += exact
            self.widen(self.acc_range, exact_acc)
            self.acc = self.limited(self.acc + register, *acc, 1, start)

    @staticmethod
    def widen(limits, values):
        limits[:] = min(limits[0], int(values.min())), max(limits[1], int(values.max()))

    def limited(self, exact, bits, policy, which, g):
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        misfits = np.argwhere((exact < low) | (exact > high))
        self.counts[which] += len(misfits)
        for m, n in misfits[:1].tolist():
            found = (m, n), g, int(exact[m, n])
            if self.firsts[which] is None or found[:2] < self.firsts[which][:2]:
                self.firsts[which] = found
        return np.clip(exact, low, high) if policy == "saturate" else (exact - low) % (1 << bits) + low


def check(operands, config, parts):
    """The engine's values, counts, first events and extremes are those of `parts`, added in order."""
    plan = plan_operands(operands, config)
    registers = (plan.psum_bits, plan.psum_overflow), (plan.acc_bits, plan.acc_overflow)
    expected = Reference(parts, operands.bias[0], plan.groups_per_fold, *registers)
    result = get_engine("fast").run(operands, plan)
    np.testing.assert_array_equal(result.acc[0], expected.acc)
    for which, found in enumerate((result.psum, result.accumulator)):
        first = expected.firsts[which]
        if first is not None:
            (m, n), g, value = first
            first = OverflowEvent((0, m, n), g * plan.group, value)
        assert (found.overflows, found.first) == (expected.counts[which], first)
        assert [found.low, found.high] == (expected.psum_range, expected.acc_range)[which]
    shared = get_engine("fast", threads=3).run(operands, plan)
    np.testing.assert_array_equal(shared.acc, result.acc)
    assert (shared.psum, shared.accumulator) == (result.psum, result.accumulator)
    counted = get_engine("fast").run(operands, plan, extremes=False)  # proved, or counted
    np.testing.assert_array_equal(counted.acc, result.acc)
    for found, true in ((counted.psum, result.psum), (counted.accumulator, result.accumulator)):
        assert (found.overflows, found.first) == (true.overflows, true.first)
        assert found.low <= true.low <= true.high <= found.high
        assert not found.exact or (found.low, found.high) == (true.low, true.high)
    return result


def products_of_groups(operands, group):
    """Exact sums of products of each `group` elements: int64 [G, M, N]."""
    a, w = operands.a[0].astype(np.int64), operands.w[0].astype(np.int64)
    return np.stack([a[:, k : k + group] @ w[k : k + group] for k in range(0, a.shape[1], group)])


def drawn(kind, rng, m, k, n):
    """Lanes whose psums wander, drift, stay equal in all outputs, or peak in the middle of a chunk."""
    a, w = rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (k, n))
    if kind == "drifts":
        a, w = np.abs(a), np.abs(w)
    elif kind == "is the same everywhere":
        a, w = np.broadcast_to(a[:1], a.shape), np.broadcast_to(w[:, :1], w.shape)
    elif kind == "peaks and returns":
        a = np.full((m, k), 100)
        w = np.where(np.arange(k)[:, None] % 50 < 25, 1, -1) * rng.integers(1, 100, (1, n))
    elif kind == "has few lanes":
        a = np.where(rng.random((m, k)) < 0.02, a, 0)
    return plain(a.tolist(), w.tolist(), rng.integers(-1000, 1000, n).tolist())


KINDS = ("wanders", "drifts", "is the same everywhere", "peaks and returns", "has few lanes")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(33, 200, 70), (130, 129, 5), (3, 700, 40)])
@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_extremes_between_the_ends_of_chunks(kind, shape, dataflow):
    rng = np.random.default_rng(1)
    for lanes, rows in ((1, 3), (3, 5), (100, 2)):
        operands = drawn(kind, rng, *shape)
        check(operands, machine(dataflow, rows, lanes=lanes, psum=WIDE, acc=WIDE), products_of_groups(operands, lanes))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["wrap", "saturate"])
@pytest.mark.parametrize(
    ("psum", "acc"), [(12, 48), (16, 48), (16, 20), (17, 48), (18, 48), (19, 19), (20, 48), (32, 16)]
)
def test_limited_registers_in_some_rows(kind, policy, psum, acc):
    # At 18 to 20 bits only some rows overflow: the others are not followed, and must be right all the same.
    rng = np.random.default_rng(2)
    operands = drawn(kind, rng, 40, 300, 70)
    for dataflow in ("os", "ws"):
        config = machine(dataflow, 40, psum=(psum, policy), acc=(acc, policy))
        check(operands, config, products_of_groups(operands, 1))


@pytest.mark.parametrize(("bits", "policy", "followed"), [(16, "wrap", False), (18, "wrap", False), (24, "wrap", True)])
def test_extremes_are_followed_where_that_takes_no_longer(bits, policy, followed):
    # 64 products of 127 * 127 are 1,032,256: as far as bounds go they may fill 21 bits, or 25 with 1,000 of them.
    a, w = np.full((40, 1000), 127), np.full((1000, 70), 127)
    a[:, ::2] *= -1
    a[:, 1:400:2] = 0
    operands = plain(a.tolist(), w.tolist())
    plan = plan_operands(operands, machine(psum=(bits, policy), acc=WIDE))
    assert get_engine("fast").run(operands, plan, extremes=False).psum.exact is followed
    check(operands, machine(psum=(bits, policy), acc=WIDE), products_of_groups(operands, 1))


def test_a_single_row_overflows():
    # Of 64 rows one reaches 2^17 = 131072 in its last addition, and no other comes near.
    a, w = np.ones((64, 130), np.int64), np.full((130, 20), 3)
    a[37] = 336  # 336 * 3 * 130 = 131040
    w[129, 19] += 1  # and 336 more
    operands = plain(a.tolist(), w.tolist())
    result = check(operands, machine(psum=(18, "saturate"), acc=WIDE), products_of_groups(operands, 1))
    assert result.psum.first == OverflowEvent((0, 37, 19), 129, 131376)
    assert result.psum.overflows == 1


@pytest.mark.parametrize("seen", [False, True])
def test_a_single_output_overflows_within_a_chunk(seen):
    # 30 times 4400 is 132000, beyond 2^17; then as many steps down: at both ends of the chunk of 64 it is near zero.
    # seen : the first chunk brings another row to 128000 and -128000: nothing else in the second is worth a look.
    a, w = np.zeros((64, 128), np.int64), np.zeros((128, 40), np.int64)
    a[:, 64:], w[64:] = 1, 1
    a[37, 64:] = 44
    w[64:, 19] = [100] * 30 + [-100] * 30 + [1] * 4
    if seen:
        a[0], a[0, :64], w[:64, 0], w[:64, 1] = 0, 20, 100, -100
    operands = plain(a.tolist(), w.tolist())
    result = check(operands, machine(psum=(18, "saturate"), acc=WIDE), products_of_groups(operands, 1))
    assert result.psum.first == OverflowEvent((0, 37, 19), 93, 132000)


@pytest.mark.parametrize(("dataflow", "rows", "lanes"), [("os", 2, 16), ("ws", 4, 16), ("ws", 3, 32), ("ws", 8, 4)])
def test_rounded_scales_in_tiles(dataflow, rows, lanes):
    rng = np.random.default_rng(3)
    m, k, n, size, shift = 70, 16 * 13, 300, 16, 2
    operands = plain(rng.integers(-128, 128, (m, k)).tolist(), rng.integers(-128, 128, (k, n)).tolist())
    scales = rng.integers(0, 16, (1, m, k // size), np.int32), rng.integers(0, 16, (1, k // size, n), np.int32)
    operands = replace(operands, blocks=BlockScaling(size, *scales, shift, 4, 4))
    factors = (scales[0][0].T[:, :, None].astype(np.int64) * scales[1][0][:, None, :] + 2) >> shift
    blocks = products_of_groups(operands, size) * factors
    config = machine(dataflow, rows, lanes=lanes, psum=WIDE, acc=WIDE)
    group = plan_operands(operands, config).group // size
    check(operands, config, np.add.reduceat(blocks, np.arange(0, len(blocks), group)))


@pytest.mark.parametrize(("rounding", "spread"), [("truncate", 3), ("toward_zero", 9), ("half_even", 9)])
@pytest.mark.parametrize(("dataflow", "rows", "lanes"), [("os", 2, 16), ("ws", 3, 32)])
@pytest.mark.parametrize("peak", [127, 200_000])
def test_fixed_point_in_tiles(rounding, spread, dataflow, rows, lanes, peak):
    rng = np.random.default_rng(4)
    m, k, n, size = 150, 16 * 7, 400, 16
    operands = plain(rng.integers(-peak, peak, (m, k)).tolist(), rng.integers(-127, 128, (k, n)).tolist())
    a_exponents = rng.integers(-spread, spread, (1, m, k // size), np.int32)
    w_exponents = rng.integers(-spread, 1, (1, k // size, n), np.int32)
    ones = np.ones_like(a_exponents), np.ones_like(w_exponents)
    blocks = BlockScaling(size, *ones, 0, 8, 8, a_exponents, w_exponents)
    operands = replace(operands, blocks=blocks, summation=Summation("fixed", -4, rounding))
    shifts = a_exponents[0].T[:, :, None] + w_exponents[0][:, None, :] + 4
    exact = products_of_groups(operands, size).astype(np.float64) * 2.0**shifts  # below 2^53, and so exact
    rounded = {"truncate": np.floor, "toward_zero": np.trunc, "half_even": np.rint}[rounding](exact).astype(np.int64)
    config = machine(dataflow, rows, lanes=lanes, psum=WIDE, acc=WIDE, float_unit=FloatUnit(accumulate="fixed"))
    group = plan_operands(operands, config).group // size
    check(operands, config, np.add.reduceat(rounded, np.arange(0, len(rounded), group)))


@pytest.mark.parametrize("policy", ["wrap", "saturate"])
@pytest.mark.parametrize(("psum", "acc"), [(18, 20), (24, 24), (20, 48), (32, 22)])
@pytest.mark.parametrize(("dataflow", "rows"), [("os", 2), ("ws", 1), ("ws", 3)])
def test_fixed_point_registers_of_limited_width(policy, psum, acc, dataflow, rows):
    rng = np.random.default_rng(7)
    m, k, n, size = 35, 16 * 9, 150, 16
    for peak, rounding in ((127, "truncate"), (200_000, "half_even"), (3, "toward_zero")):
        bias = rng.integers(-1000, 1000, n).tolist()
        operands = plain(rng.integers(-peak, peak, (m, k)).tolist(), rng.integers(-127, 128, (k, n)).tolist(), bias)
        a_exponents = rng.integers(-4, 3, (1, m, k // size), np.int32)
        w_exponents = rng.integers(-4, 1, (1, k // size, n), np.int32)
        blocks = BlockScaling(
            size, np.ones_like(a_exponents), np.ones_like(w_exponents), 0, 8, 8, a_exponents, w_exponents
        )
        operands = replace(operands, blocks=blocks, summation=Summation("fixed", -3, rounding))
        shifts = a_exponents[0].T[:, :, None] + w_exponents[0][:, None, :] + 3
        exact = products_of_groups(operands, size).astype(np.float64) * 2.0**shifts
        whole = {"truncate": np.floor, "toward_zero": np.trunc, "half_even": np.rint}[rounding](exact).astype(np.int64)
        config = machine(
            dataflow, rows, lanes=size, psum=(psum, policy), acc=(acc, policy), float_unit=FloatUnit(accumulate="fixed")
        )
        check(operands, config, whole)


@pytest.mark.parametrize("peak", [12, 127, 200_000])
@pytest.mark.parametrize(("dataflow", "rows"), [("os", 2), ("ws", 1), ("ws", 3), ("ws", 7)])
def test_float32_in_tiles(peak, dataflow, rows):
    rng = np.random.default_rng(5)
    m, k, n, size = 150, 16 * 23, 400, 16
    operands = plain(rng.integers(-peak, peak, (m, k)).tolist(), rng.integers(-peak, peak, (k, n)).tolist())
    a_exponents = rng.integers(-4, 5, (1, m, k // size), np.int32)
    w_exponents = rng.integers(-4, 5, (1, k // size, n), np.int32)
    blocks = BlockScaling(size, np.ones_like(a_exponents), np.ones_like(w_exponents), 0, 8, 8, a_exponents, w_exponents)
    bias = rng.standard_normal((1, n)).astype(np.float32)
    operands = replace(operands, blocks=blocks, bias=bias, summation=Summation("float32"))
    plan = plan_operands(operands, machine(
        dataflow, rows, lanes=size, psum=(32, "saturate"), acc=(32, "saturate"), float_unit=FloatUnit()
    ))  # fmt: skip
    shifts = a_exponents[0].T[:, :, None] + w_exponents[0][:, None, :]
    check_float32(operands, plan, products_of_groups(operands, size), shifts)


def check_float32(operands, plan, sums, exponents):
    """The engine's float32 registers are those that take sums * 2**exponents, [G, M, N], one after another."""
    result = get_engine("fast").run(operands, plan)
    shared = get_engine("fast", threads=2).run(operands, plan)
    np.testing.assert_array_equal(shared.acc, result.acc)
    assert (shared.psum, shared.accumulator) == (result.psum, result.accumulator)
    # One rounding: longdouble has 64 bits, which hold every sum of a float32 and a block sum here.
    sums = sums.astype(np.longdouble) * np.exp2(exponents.astype(np.longdouble))
    acc = np.broadcast_to(operands.bias[0], sums.shape[1:]).astype(np.float32)
    low = high = np.float32(0)
    for start in range(0, len(sums), plan.groups_per_fold):
        psum = np.zeros_like(acc)
        for part in sums[start : start + plan.groups_per_fold]:
            exact = psum.astype(np.longdouble) + part
            np.testing.assert_array_equal(exact - part, psum)  # nothing was lost
            psum = exact.astype(np.float32)
            low, high = min(low, psum.min()), max(high, psum.max())
        acc = acc + psum
    np.testing.assert_array_equal(result.acc[0], acc)
    assert (result.psum.low, result.psum.high) == (low, high)


@pytest.mark.parametrize("align_bits", [3, 9, 22])
@pytest.mark.parametrize(("dataflow", "rows", "blocked"), [("os", 2, False), ("ws", 1, True), ("ws", 3, True)])
def test_aligned_floats_in_tiles(align_bits, dataflow, rows, blocked):
    # Some blocks of rows and columns have exponents so near one another that nothing is truncated, others have not.
    rng = np.random.default_rng(7)
    m, k, n, size = 33, 8 * 9, 70, 8
    a, w = rng.integers(-31, 32, (m, k)), rng.integers(-15, 16, (k, n))
    a[rng.random(a.shape) < 0.2] = 0
    a[:, :size][a[:, :size] != 0] = 5  # zeros have exponents far above, which count for nothing
    a[:3, size : 2 * size] = 0  # nothing but zeros
    near_a = rng.integers(0, 12, (9, k // size)).repeat(4, axis=0)[:m].repeat(size, axis=1)
    near_w = rng.integers(0, 12, (k // size, 3)).repeat(32, axis=1)[:, :n].repeat(size, axis=0)
    a_exponents = np.where(a == 0, 90, rng.integers(-6, 7, a.shape) * near_a // 11).astype(np.int32)
    w_exponents = np.where(w == 0, 60, rng.integers(-7, 5, w.shape) * near_w // 11).astype(np.int32)
    operands = plain(a.tolist(), w.tolist())
    blocks, shifts = None, np.zeros((k // size, m, n), np.int64)
    if blocked:
        of_a, of_w = rng.integers(-2, 3, (1, m, k // size)), rng.integers(-2, 2, (1, k // size, n))
        of_a, of_w = of_a.astype(np.int32), of_w.astype(np.int32)
        blocks = BlockScaling(size, np.ones_like(of_a), np.ones_like(of_w), 0, 8, 8, of_a, of_w)
        shifts = shifts + of_a[0].T[:, :, None] + of_w[0][:, None, :]
    operands = replace(
        operands, blocks=blocks, bias=rng.standard_normal((1, n)).astype(np.float32), a_exponents=a_exponents[None],
        w_exponents=w_exponents[None], summation=Summation("float32", align_bits=align_bits),
    )  # fmt: skip
    unit = FloatUnit(align_bits=align_bits)
    plan = plan_operands(operands, machine(
        dataflow, rows, lanes=size, psum=(32, "saturate"), acc=(32, "saturate"), float_unit=unit
    ))  # fmt: skip
    products = (a[:, :, None] * w).reshape(m, k // size, size, n).astype(np.int64)
    exponents = (a_exponents[:, :, None] + w_exponents).reshape(products.shape)
    largest = np.where(products == 0, -1000, exponents).max(axis=2)
    behind = np.clip(largest[:, :, None] - exponents, 0, 62)
    kept = np.sign(products) * ((np.abs(products) << align_bits) >> behind)
    truncated = (kept << behind != products << align_bits).any(axis=2)
    assert align_bits == 22 or 0 < truncated.sum() < truncated.size
    check_float32(operands, plan, kept.sum(axis=2).swapaxes(0, 1), largest.swapaxes(0, 1) - align_bits + shifts)


@pytest.mark.parametrize("bits", [4, 8, 11, 16])
@pytest.mark.parametrize("shape", [(20, 2500, 9), (300, 40, 200), (1, 1100, 1), (17, 1040, 33)])
@pytest.mark.parametrize(("dataflow", "rows"), [("os", 4), ("ws", 16), ("ws", 5), ("ws", 48)])
def test_proved_products_and_their_bounds(bits, shape, dataflow, rows):
    rng = np.random.default_rng(6)
    m, k, n = shape
    half = 1 << (bits - 1)
    operands = plain(
        rng.integers(-half, half, (m, k)).tolist(), rng.integers(-half, half, (k, n)).tolist(), list(range(n)), bits
    )
    plan = plan_operands(operands, machine(dataflow, rows, psum=WIDE, acc=WIDE))
    result = get_engine("fast").run(operands, plan, watch=False)
    np.testing.assert_array_equal(result.acc[0], operands.a[0].astype(np.int64) @ operands.w[0] + np.arange(n))
    fold = plan.groups_per_fold
    bounds = [
        int(np.abs(operands.a[0][:, f : f + fold]).sum(axis=1).max()) * int(np.abs(operands.w[0][f : f + fold]).max())
        for f in range(0, k, fold)
    ]
    assert (result.psum.low, result.psum.high) == (-max(bounds), max(bounds))
    assert (result.accumulator.low, result.accumulator.high) == (-sum(bounds), sum(bounds) + n - 1)
    assert not result.psum.exact


def test_pieces_are_no_longer_than_float32_is_exact():
    # The sums of 127 * 127 are odd and pass 2^24 = 16777216 after 1040 products; of 2047 * 2047 after 4.
    for peak, length in ((127, 2049), (127, 1041), (1023, 51), (2047, 1021)):
        operands = plain([[peak] * length] * 3, [[peak, -peak, 1]] * length)
        result = get_engine("fast").run(operands, plan_operands(operands, machine(psum=WIDE, acc=WIDE)), watch=False)
        assert result.acc[0].tolist() == [[peak * peak * length, -peak * peak * length, peak * length]] * 3


def test_lanes_at_the_ends_of_int32():
    low = -(2**31)
    operands = plain([[low, 1], [1, 1]], [[1], [0]], bits=32)
    plan = plan_operands(replace(operands, a_bits=16, w_bits=16), machine(psum=WIDE, acc=WIDE))
    result = get_engine("fast").run(replace(operands, a_bits=16, w_bits=16), plan, watch=False)
    assert result.acc[0].tolist() == [[low], [1]]


def test_a_flag_that_a_matrix_product_leaves_behind_is_no_warning():
    # OpenBLAS raises it at random; an infinite number times zero does so always.
    found = exact_product(np.array([[np.inf]]), np.array([[0.0]]))
    assert np.isnan(found).all()
    assert exact_product(np.array([[3.0]]), np.array([[5.0]]), found) is found
    assert found.tolist() == [[15]]
