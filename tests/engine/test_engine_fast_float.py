"""Fixed-point and float32 sums of the fast engine: bit for bit what fractions give, in values and in registers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.config.model import Array, Buffer, Buffers, FloatUnit, HardwareConfig, Port, Ppu, Register
from accelsim.engine import get_engine, oracle
from accelsim.engine.contract import OverflowEvent
from accelsim.engine.fast_float import ROUNDINGS
from accelsim.errors import ShapeError, UnsupportedLayerError
from accelsim.mapping.contract import BlockScaling, GemmOperands, Summation
from accelsim.mapping.plan import plan_operands

SATURATING = Register(bits=32, overflow="saturate")
LARGEST = float(np.finfo(np.float32).max)


def machine(dataflow="os", rows=2, lanes=1, accumulate="float32", psum=SATURATING, acc=SATURATING):
    """A small array whose PEs add numbers with exponents."""
    return HardwareConfig(
        name="test",
        clock_mhz=500.0,
        array=Array(
            rows=rows,
            cols=2,
            dataflow=dataflow,
            lanes=lanes,
            weight=Port(bits=16),
            activation=Port(bits=16),
            psum=psum,
            float_unit=FloatUnit(accumulate=accumulate),
        ),
        accumulator=acc,
        ppu=Ppu(lanes=2, latency_cycles=3),
        buffers=Buffers(accumulator=Buffer(size_bytes=4096)),
    )


def same(operands, config):
    """Run the fast engine; it must equal the oracle, bit for bit. Return its result."""
    plan = plan_operands(operands, config)
    expected = oracle.matmul(operands, plan)
    for watch in (True, False):
        result = get_engine("fast").run(operands, plan, watch=watch)
        assert result.acc.dtype == expected.acc.dtype
        assert result.acc.tobytes() == expected.acc.tobytes(), (result.acc, expected.acc)
        assert result.psum == expected.psum
        assert result.accumulator == expected.accumulator
        assert type(result.psum.low) is type(result.accumulator.high) is type(expected.psum.low)
    assert result.cycles == plan.cycles
    assert result.actions == plan.actions
    return result


def gemm(a, w, bias=0.0, **more):
    """One GEMM of lists a [M, K], w [K, N], for float32 sums unless `summation` says otherwise."""
    a, w = np.array([a], np.int32), np.array([w], np.int32)
    more.setdefault("summation", Summation("float32"))
    dtype = np.float32 if more["summation"].kind == "float32" else np.int64
    bias = np.broadcast_to(np.array(bias, dtype), (1, w.shape[2])).copy()
    return GemmOperands(a, w, bias, np.ones(a.shape[2], np.bool_), 8, 8, **more)


def exponents(size, of_a, of_w, a_scales=None, w_scales=None):
    """Blocks with exponents (lists [M, blocks], [blocks, N]) and, unless given, significands of 1."""
    of_a, of_w = np.array([of_a], np.int32), np.array([of_w], np.int32)
    a_scales = np.ones_like(of_a) if a_scales is None else np.array([a_scales], np.int32)
    w_scales = np.ones_like(of_w) if w_scales is None else np.array([w_scales], np.int32)
    return BlockScaling(size, a_scales, w_scales, 0, 8, 8, of_a, of_w)


@st.composite
def layers(draw, kinds=("float32", "fixed"), aligned=(False, True)):
    """(operands, machine): blocks of 1 to 32 or none, lanes fewer or more than a block, exponents near and far."""
    kind, align = draw(st.sampled_from(kinds)), draw(st.sampled_from(aligned))
    size = draw(st.sampled_from([0, 0, 1, 2, 3, 4, 8, 9, 16, 32]))
    lanes = [n for n in (1, 2, 3, 4, 8, 9, 16, 32, 64) if not size or size % n == 0 or n % size == 0]
    lanes = draw(st.sampled_from([n for n in lanes if not (align and n < size)]))
    k = draw(st.integers(1, 40))
    k += -k % size if size else 0
    batch, m, n = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dense = draw(st.sampled_from([0.2, 0.9, 1.0]))

    def lanes_of(shape, bits):
        values = rng.integers(-(1 << bits), 1 << bits, shape, endpoint=True)
        values = np.where(rng.random(shape) < 0.3, rng.choice([-1, 1], shape) << bits, values)
        return np.where(rng.random(shape) < dense, values, 0).astype(np.int32)

    def exponents_of(shape, spread):
        around = draw(st.sampled_from([0, 0, 0, -70, 60, -120, 110]))
        return (around + rng.integers(-spread, spread, shape, endpoint=True)).clip(-160, 160).astype(np.int32)

    bits = draw(st.sampled_from([0, 1, 4, 7, 11, 15, 20, 24]))
    a, w = lanes_of((batch, m, k), bits), lanes_of((batch, k, n), draw(st.integers(0, bits)))
    if draw(st.booleans()) and k > 1:  # cancellation: the second half of K takes the first half back, nearly
        half = k // 2
        a[:, :, half : 2 * half], w[:, half : 2 * half] = -a[:, :, :half], w[:, :half]
        a[:, :, -1] += 1
    align_bits = draw(st.sampled_from([0, 1, 3, 8, 20])) if align else None
    blocks = None
    unit = 0 if align else draw(st.sampled_from([0, 0, -18, 7, -140]))
    spread = draw(st.sampled_from([0, 1, 12, 30]))
    if size:
        of_a, of_w = (batch, m, k // size), (batch, k // size, n)
        significand = draw(st.sampled_from([1, 1, 15]))
        blocks = BlockScaling(
            size,
            rng.integers(0 if significand > 1 else 1, significand, of_a, endpoint=True).astype(np.int32),
            rng.integers(1, significand, of_w, endpoint=True).astype(np.int32),
            0, 8, 8,
            exponents_of(of_a, spread), exponents_of(of_w, spread), 4 if significand > 1 else 0,
        )  # fmt: skip
    rows = draw(st.integers(1, 3)) * max(1, size // lanes)
    if kind == "float32":
        bias = (rng.normal(size=(batch, n)) * 2.0 ** draw(st.integers(-149, 126))).astype(np.float32)
        bias[rng.random(bias.shape) < 0.3] = draw(st.sampled_from([0.0, -0.0, LARGEST, -LARGEST, 1e-45]))
        config = machine(draw(st.sampled_from(["os", "ws", "is"])), rows, lanes)
    else:
        bias = rng.integers(-(2**20), 2**20, (batch, n))
        registers = st.builds(
            Register, bits=st.sampled_from([8, 12, 20, 32, 48]), overflow=st.sampled_from(["wrap", "saturate"])
        )
        dataflow = draw(st.sampled_from(["os", "ws", "is"]))
        config = machine(dataflow, rows, lanes, "fixed", draw(registers), draw(registers))
    lsb = draw(st.sampled_from([0, -16, 3, 40, -64, -150, 150]))
    summation = Summation(
        kind,
        lsb if kind == "fixed" else 0,
        draw(st.sampled_from(ROUNDINGS)) if kind == "fixed" else "truncate",
        unit,
        align_bits,
    )
    operands = GemmOperands(
        a, w, bias, np.ones(k, np.bool_), 16, 16, blocks, summation=summation,
        a_exponents=exponents_of(a.shape, spread) if align else None,
        w_exponents=exponents_of(w.shape, spread) if align else None,
        exponent_spans=(60, 60) if align else (0, 0),
    )  # fmt: skip
    return operands, config


def test_every_kernel_equals_the_oracle():
    seen = set()

    @given(layers())
    @settings(max_examples=400)
    def check(layer):
        operands, config = layer
        try:
            result = same(operands, config)
        except UnsupportedLayerError:
            seen.add("refused")
        else:
            kind = operands.summation.kind
            seen.update({(kind, "psum")} if result.psum.overflows else ())
            seen.update({(kind, "accumulator")} if result.accumulator.overflows else ())

    check()
    assert {("fixed", "psum"), ("fixed", "accumulator"), ("float32", "psum"), ("float32", "accumulator")} <= seen


# A float64 sum and then the float32 of it: the first rounding lands on a tie of the second, which then goes wrong.
UP, DOWN = (4097, 16_773_121), (2**18 - 1, 2**18 + 1)  # 2^36 + 1 = (2^12 + 1)(2^24 - 2^12 + 1), and 2^36 - 1
TWICE_ROUNDED = [
    # 1 + 2^-24 + 2^-60 lies above the middle of 1 and 1 + 2^-23; in float64 it is that middle, then 1.
    ((1, 0), UP, 1.0, 1 + 2.0**-23),
    # 1 + 2^-23 + 2^-24 - 2^-60 lies below the middle of 1 + 2^-23 and 1 + 2^-22, the upper of which is even.
    ((2**23 + 1, -23), DOWN, 1 + 2.0**-23, 1 + 2.0**-23),
]


@pytest.mark.parametrize(("start", "factors", "before", "after"), TWICE_ROUNDED)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("largest", [1, 2**30])  # a row beyond 2^53 makes the engine take its kernel for any block sum
def test_a_sum_is_rounded_once(start, factors, before, after, sign, largest):
    x, y = factors
    assert np.float32(before + x * y * 2.0**-60) != np.float32(after)  # what rounding twice gives
    blocks = exponents(1, [[start[1], -60], [0, 0]], [[0], [0]])
    result = same(gemm([[sign * start[0], sign * x], [0, largest]], [[1], [y]], blocks=blocks), machine())
    assert result.acc[0, 0, 0] == sign * after


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("largest", [1, 2**30])
def test_bits_far_below_the_rounding_decide_it(sign, largest):
    # 1 + 2^-24 + 2^-74 is no tie, though 51 bits lie between its ends; nor is 1 + 2^-23 + 2^-24 - 2^-74.
    for start, tail, after in (((2**23, 0), 1, 1 + 2.0**-23), ((2**23, 1), -1, 1 + 2.0**-23)):
        row = [start[0], start[1], 2**25, tail]
        blocks = exponents(2, [[-23, -74], [0, 0]], [[0], [0]])
        operands = gemm([[sign * x for x in row], [largest] * 4], [[1], [1], [2**25], [1]], blocks=blocks)
        assert same(operands, machine()).acc[0, 0, 0] == sign * after


@pytest.mark.parametrize("largest", [1, 2**30])
def test_a_subnormal_is_rounded_once(largest):
    # 2^-150 + 2^-200 is more than half of the smallest float32; rounded to 24 bits first, it would be a tie, and 0.
    blocks = exponents(2, [[-160], [0]], [[-40, 0]])
    operands = gemm([[2**25, 1], [0, largest]], [[2**25, 0], [1, largest]], blocks=blocks)
    assert same(operands, machine()).acc[0, 0, 0] == 2.0**-149


@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_that_just_leaves_float64_is_rounded_once(sign):
    # 1 + 2^-24 + 2^-54: all are below 2^54 units of 2^-54, one bit more than a float64 has; in float64 it is a tie.
    x, y = 812_825, 1321
    assert x * y == 2**30 + 1
    blocks = exponents(1, [[0, -54]], [[0], [0]])
    assert same(gemm([[sign, sign * x]], [[1], [y]], blocks=blocks), machine()).acc.item() == sign * (1 + 2.0**-23)


def test_a_subnormal_beyond_float64_is_rounded_once():
    # In units of 2^-149: 2 + (1/2 + 2^-52) is more than the middle of 2 and 3; a float64 has no room for the 2^-52, and
    # the bits that it has do not look like a tie of normal numbers.
    blocks = exponents(2, [[-148, -160]], [[0], [-41]])
    operands = gemm([[1, 0, 2**25, 1]], [[1], [0], [2**26], [1]], blocks=blocks)
    assert same(operands, machine()).acc.item() == 3 * 2.0**-149


def test_a_sum_of_62_bits_may_cancel_to_its_last():
    # 2^62 - 1 = 3 * 715,827,883 * (2^31 - 1), in units of 2^-62: 1 - (1 - 2^-62).
    x, y = 715_827_883, 2**31 - 1
    blocks = exponents(3, [[0, -62]], [[0], [0]])
    for sign in (1, -1):
        row = [sign, 0, 0, -sign * x, -sign * x, -sign * x]
        result = same(gemm([row], [[1], [0], [0], [y], [y], [y]], blocks=blocks), machine())
        assert result.acc.item() == sign * 2.0**-62


@pytest.mark.parametrize("largest", [1, 2**30])
def test_a_rounded_sum_may_be_subnormal_or_cancel(largest):
    # In units of 2^-149, the smallest float32: 5 1/2 is a tie, and 6 even; so is 4 1/2, and 4 even. Of a negative sum
    # that is rounded to nothing, no sign is left.
    blocks = blocks_of(exponents(1, [[-149, -150, -160]], [[0, 0], [0, 0], [0, 0]]), 6)
    rows = [[5, 1, -1], [4, 1, 1], [-4, -1, -1], [0, 1, 0], [0, -1, 0], [0, 0, largest]]
    result = same(gemm(rows, [[1, largest]] * 3, blocks=blocks), machine())
    assert (result.acc[0, :5, 0] / np.float64(2.0**-149)).tolist() == [6, 4, -4, 0, 0]
    assert not np.signbit(result.acc[0, 3:5, 0]).any()


def blocks_of(blocks, rows):
    """The same scales for every one of `rows` rows."""
    repeated = [np.repeat(array, rows, axis=1) for array in (blocks.a_scales, blocks.a_exponents)]
    return replace(blocks, a_scales=repeated[0], a_exponents=repeated[1])


def test_the_order_of_additions_is_the_plan_s():
    # 2^24 + 1 is a tie that goes to 2^24: blocks added one after another never leave it; in folds of two, 1 + 1 does.
    row, blocks = [[2**24, 1, 1, 1]], exponents(1, [[0] * 4], [[0]] * 4)
    operands = gemm(row, [[1]] * 4, blocks=blocks)
    assert same(operands, machine("os")).acc.item() == 2**24
    assert same(operands, machine("ws", rows=1)).acc.item() == 2**24
    assert same(operands, machine("ws", rows=2)).acc.item() == 2**24 + 2
    assert same(operands, machine("os", lanes=4)).acc.item() == 2**24  # blocks of one step: one after another, too
    # Without blocks the lanes of a step are added exactly first.
    assert same(gemm(row, [[1]] * 4), machine("os", lanes=2)).acc.item() == 2**24 + 2


def test_a_sum_beyond_the_largest_float32_saturates_and_is_counted():
    # 2^127 * 1.5, twice: 2^127 * 3 > the largest, held as that; then - 2^127, from what is held.
    blocks = exponents(1, [[126, 126, 127]], [[0], [0], [0]])
    result = same(gemm([[3, 3, -1]], [[1]] * 3, blocks=blocks), machine())
    assert result.psum.overflows == 1
    assert result.psum.first == OverflowEvent((0, 0, 0), 1, 3 * 2.0**127)
    assert (result.psum.low, result.psum.high, result.psum.sufficient_bits) == (0.0, LARGEST, None)
    assert result.acc.item() == np.float32(LARGEST - 2.0**127)
    # The largest is (2^24 - 1) 2^104. Less than half a unit more is rounded back to it; half of one is too much.
    for extra, overflows in ((2**20 - 1, 0), (2**20, 1)):
        blocks = exponents(1, [[104, 83]], [[0], [0]])
        result = same(gemm([[2**24 - 1, extra]], [[1], [1]], blocks=blocks), machine())
        assert (result.psum.overflows, result.acc.item()) == (overflows, LARGEST)
    # And the accumulator: folds of 1.5 * 2^127 on a bias of the largest.
    blocks = exponents(1, [[126]], [[0]])
    result = same(gemm([[3]], [[1]], bias=LARGEST, blocks=blocks), machine())
    assert (result.psum.overflows, result.accumulator.overflows, result.acc.item()) == (0, 1, LARGEST)
    assert result.accumulator.first == OverflowEvent((0, 0, 0), 0, LARGEST + 3 * 2.0**126)


def fixed(value, exponent, rounding, lsb=0, largest=1):
    """What one block sum value * 2**exponent is in a fixed-point psum; another row holds `largest`, times 2^30."""
    blocks = exponents(1, [[exponent], [0]], [[0, 0]])
    summation = Summation("fixed", lsb, rounding)
    operands = gemm([[value], [largest]], [[1, 2**30]], summation=summation, blocks=blocks)
    wide = Register(bits=64, overflow="wrap")
    config = machine(accumulate="fixed", psum=Register(bits=48), acc=Register(bits=48))
    array = config.array.model_copy(update={"psum": wide})
    return same(operands, config.model_copy(update={"array": array, "accumulator": wide})).acc[0, 0, 0]


@pytest.mark.parametrize(
    ("value", "exponent", "truncate", "toward_zero", "half_even"),
    [
        (5, -1, 2, 2, 2),  # 2.5
        (7, -1, 3, 3, 4),  # 3.5
        (-5, -1, -3, -2, -2),
        (-7, -1, -4, -3, -4),
        (-1, -2, -1, 0, 0),
        (3, -2, 0, 0, 1),
        (-3, -2, -1, 0, -1),
        (1, -1, 0, 0, 0),
        (3, 0, 3, 3, 3),
        (3, 40, 3 << 40, 3 << 40, 3 << 40),
        (1, 48, 2**48 - 1, 2**48 - 1, 2**48 - 1),
        (-1, 48, 1 - 2**48, 1 - 2**48, 1 - 2**48),
        (1, 47, 2**47, 2**47, 2**47),
        (-(2**30), 150, 1 - 2**48, 1 - 2**48, 1 - 2**48),
        (-1, -150, -1, 0, 0),
        (2**30, -150, 0, 0, 0),
        (0, 150, 0, 0, 0),
        (-(2**30), -30, -1, -1, -1),
        (-(2**30), -31, -1, 0, 0),
        (2**30 + 1, -31, 0, 0, 1),
    ],
)
def test_shifts_round_and_are_limited(value, exponent, truncate, toward_zero, half_even):
    for largest in (1, 2**30):  # beyond 2^53 the engine shifts integers
        found = [fixed(value, exponent, rounding, largest=largest) for rounding in ROUNDINGS]
        assert found == [truncate, toward_zero, half_even]
    for moved in (-20, 13):  # only the exponent above the psum's last bit counts
        if abs(exponent + moved) <= 160:
            assert fixed(value, exponent + moved, "half_even", lsb=moved) == half_even


def test_wide_values_are_shifted_exactly():
    # 62 bits less one, shifted by about as many: nothing of it is lost before it is rounded.
    @given(st.integers(-(2**30), 2**30), st.integers(-(2**30), 2**30), st.integers(-66, 50), st.sampled_from(ROUNDINGS))
    @settings(max_examples=150)
    def check(x, y, exponent, rounding):
        blocks = exponents(2, [[exponent]], [[0]])
        operands = gemm([[x, 1]], [[y], [1]], summation=Summation("fixed", 0, rounding), blocks=blocks)
        same(operands, machine(accumulate="fixed", psum=Register(bits=40), acc=Register(bits=48)))

    check()


def test_sums_beyond_a_float64_are_shifted_exactly():
    # -(2^54 + 1) / 2^54 lies below -1; as a float64 the sum would be 2^54.
    blocks, wide = exponents(2, [[-54]], [[0]]), Register(bits=48)
    for rounding, expected in (("truncate", -2), ("toward_zero", -1), ("half_even", -1)):
        operands = gemm([[-(2**27), -1]], [[2**27], [1]], summation=Summation("fixed", 0, rounding), blocks=blocks)
        result = same(operands, machine(accumulate="fixed", psum=wide, acc=wide))
        assert result.acc.item() == expected


def test_sums_shifted_by_their_whole_width():
    # (2^31 - 1)^2 is nearly 2^62: nearly a half of 2^63, and nearly 1 of 2^62.
    x = 2**31 - 1
    for exponent, expected in ((-63, 0), (-62, 1)):
        blocks, wide = exponents(1, [[exponent]], [[0]]), Register(bits=48)
        operands = gemm([[x]], [[x]], summation=Summation("fixed", 0, "half_even"), blocks=blocks)
        assert same(operands, machine(accumulate="fixed", psum=wide, acc=wide)).acc.item() == expected


def aligned(lanes, lane_exponents, bits, largest=1):
    """Lanes of one step times 1, aligned to the largest exponent; another row and column hold `largest`."""
    a, w = [lanes, [largest] * len(lanes)], [[1, largest]] * len(lanes)
    a_exponents = np.array([[lane_exponents, [0] * len(lanes)]], np.int32)
    w_exponents = np.zeros((1, len(lanes), 2), np.int32)
    summation = Summation("float32", align_bits=bits)
    operands = gemm(a, w, summation=summation, a_exponents=a_exponents, w_exponents=w_exponents)
    return same(operands, machine(lanes=4)).acc[0, 0, 0]


@pytest.mark.parametrize("largest", [1, 2**25])  # beyond 2^53 the engine aligns integers
def test_products_are_aligned_to_the_largest_of_their_step(largest):
    # Products 1 * 2^10 and 3 * 2^3 = 24, or -24. With 5 bits below 2^10 kept, the unit is 2^5, and 24 is gone, whatever
    # its sign; with 6 it is 2^4, and 24 counts as 16; with 7 nothing is lost.
    for bits, kept in ((4, 0), (5, 0), (6, 16), (7, 24)):
        for sign in (1, -1):
            assert aligned([1, 3 * sign, 0], [10, 3, 3], bits, largest) == 1024 + sign * kept
    # A product of zero does not count as the largest, whatever its exponent.
    assert aligned([1, -3, 0], [10, 3, 90], 7, largest) == 1024 - 24


def refusal(operands, config=None, **changes):
    plan = plan_operands(operands, config or machine())
    with pytest.raises((ShapeError, UnsupportedLayerError)) as error:
        get_engine("fast").run(replace(operands, **changes), plan)
    return str(error.value)


def test_mistakes_are_named():
    layer = gemm([[1, 1]], [[1], [1]], blocks=exponents(1, [[0, 0]], [[0], [0]]))
    blocks = layer.blocks
    assert refusal(layer, bias=np.zeros((1, 1), np.int64)) == "bias is int64 [1, 1]; the plan needs float32 [1, 1]"
    assert "the bias has values that are not finite" in refusal(layer, bias=np.full((1, 1), np.inf, np.float32))
    short = np.zeros((1, 1, 1), np.int32)
    assert refusal(layer, blocks=replace(blocks, a_exponents=short)) == (
        "block a_exponents is int32 [1, 1, 1]; the plan needs int32 [1, 1, 2]"
    )
    assert "scales of one operand have exponents" in refusal(layer, blocks=replace(blocks, w_exponents=None))
    assert "product_shift is 0 with float32 summation; found 2" in refusal(
        layer, blocks=replace(blocks, product_shift=2)
    )
    assert "reach from 0 to 161; the engines take exponents from -160 to 160" in refusal(
        layer, blocks=replace(blocks, a_exponents=np.array([[[0, 161]]], np.int32))
    )
    assert "were given to a plan of product 'multiply'" in refusal(layer, product="shift")
    assert "all three, or none of them" in refusal(layer, a_exponents=layer.a)
    integers = gemm([[1, 1]], [[1], [1]], summation=Summation())
    assert "need float32 or fixed summation" in refusal(replace(integers, blocks=blocks))


def test_sums_that_could_leave_int64_are_refused():
    ends = 2**31 - 1  # 2^62 - 2^32 + 1 is the square
    same(gemm([[ends]], [[ends]]), machine())
    layer = gemm([[ends, ends]], [[ends], [ends]])
    same(layer, machine())  # two block sums, each of which fits
    message = refusal(layer, machine(lanes=2))
    assert message.startswith("exact sums of a block of this layer may reach 9,223,372,028,264,841,218 (about 2^63)")
    # A psum of 2^14 blocks, each at the shifter's limit of 2^48 - 1, stays below 2^62; one more does not.
    for count in (2**14, 2**14 + 1):
        blocks = exponents(1, [[48] * count], [[0]] * count)
        layer = gemm([[1] * count], [[1]] * count, summation=Summation("fixed"), blocks=blocks)
        config = machine(accumulate="fixed", psum=Register(bits=48), acc=Register(bits=48))
        if count > 2**14:
            assert refusal(layer, config).startswith("fixed-point sums of this layer may reach 2^63")
        else:
            result = get_engine("fast").run(layer, plan_operands(layer, config))
            assert result.psum.high == 2**14 * (2**48 - 1)
