"""Laws that hold between ways to multiply and to scale, on every engine: no oracle, one machine against another."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import KINDS, gemm_operands, machine, machines, plain, xnor_layers

from accelsim.config.model import FloatUnit, Multiplier, Register
from accelsim.engine import ENGINES
from accelsim.mapping.contract import BlockScaling, Summation
from accelsim.mapping.plan import plan_operands

every_engine = pytest.mark.parametrize("engine", ENGINES)
WIDE = st.just((63, "wrap"))


def run(engine, operands, config):
    return ENGINES[engine].run(operands, plan_operands(operands, config))


def with_array(config, **changes):
    return config.model_copy(update={"array": config.array.model_copy(update=changes)})


def same_sums(one, other):
    """Values, and what all registers went through."""
    assert_array_equal(one.acc, other.acc)
    assert one.psum == other.psum
    assert one.accumulator == other.accumulator


def scales_of_ones(operands, size, exponents=(None, None)):
    batch, m, k, n = (getattr(operands.shape, name) for name in ("batch", "m", "k", "n"))
    shapes = (batch, m, k // size), (batch, k // size, n)
    scales = [np.ones(shape, np.int32) for shape in shapes]
    exponents = [None if e is None else np.full(shape, e, np.int32) for shape, e in zip(shapes, exponents, strict=True)]
    return BlockScaling(size, *scales, 0, 4, 4, *exponents)


@every_engine
@given(data=st.data())
@settings(max_examples=60)
def test_vsq_scales_of_one_are_plain_integers(engine, data):
    block = data.draw(st.sampled_from([1, 2, 3, 4, 8]))
    scaled = data.draw(gemm_operands(block))
    scaled = replace(scaled, blocks=scales_of_ones(scaled, block))
    config = data.draw(machines(block))
    if block <= config.array.lanes:  # then groups are the same too
        same_sums(run(engine, scaled, config), run(engine, replace(scaled, blocks=None), config))
    config = with_array(config, psum=config.array.psum.model_copy(update={"bits": 63}))
    one, other = run(engine, scaled, config), run(engine, replace(scaled, blocks=None), config)
    assert_array_equal(one.acc, other.acc)
    assert one.accumulator == other.accumulator


@every_engine
@given(data=st.data())
@settings(max_examples=60)
def test_equal_mx_exponents_are_a_shift(engine, data):
    block = data.draw(st.sampled_from([1, 2, 4]))
    scaled = data.draw(gemm_operands(block, st.integers(2, 8), st.integers(2, 8)))
    of_a, of_w = data.draw(st.integers(-20, 20)), data.draw(st.integers(-20, 20))
    shift = data.draw(st.integers(0, 10))
    summation = Summation("fixed", lsb_exponent=of_a + of_w - shift)
    scaled = replace(
        scaled, blocks=scales_of_ones(scaled, block, (of_a, of_w)), bias=scaled.bias % 1000, summation=summation
    )
    shifted_bias = replace(scaled, bias=scaled.bias << shift)
    wide = st.just((48, "wrap"))
    config = data.draw(machines(block, wide, float_unit=FloatUnit(accumulate="fixed")))
    one = run(engine, shifted_bias, config)
    other = run(engine, replace(scaled, blocks=None, summation=Summation()), with_array(config, float_unit=None))
    assert_array_equal(one.acc, other.acc << shift)
    assert (one.accumulator.low, one.accumulator.high) == (
        other.accumulator.low << shift,
        other.accumulator.high << shift,
    )
    assert one.cycles == other.cycles


@every_engine
@given(layer=xnor_layers())
@settings(max_examples=40)
def test_xnor_is_the_product_of_signs(engine, layer):
    operands, config = layer
    one = run(engine, operands, config)
    multiplying = with_array(config, lanes=config.array.popcount.word_bits, popcount=None)
    other = run(engine, replace(operands, product="multiply"), multiplying)
    same_sums(one, other)
    assert one.cycles == other.cycles


@every_engine
@given(data=st.data())
@settings(max_examples=60)
def test_bit_serial_equals_parallel(engine, data):
    operands = data.draw(gemm_operands(0, st.integers(1, 6), st.integers(1, 6)))
    config = data.draw(machines(lanes=(1, 2, 3)))
    other = run(engine, operands, config)
    for serial in ("both", "activation", "weight"):
        slow = with_array(config, multiplier=Multiplier(kind="bit_serial", serial=serial))
        one = run(engine, operands, slow)
        same_sums(one, other)
        widths = {"both": operands.a_bits * operands.w_bits, "activation": operands.a_bits, "weight": operands.w_bits}
        assert one.cycles.compute == other.cycles.compute * widths[serial]
        assert one.cycles.fill == other.cycles.fill
        assert one.cycles.load <= other.cycles.load  # more of it may hide
        assert one.cycles.drain <= other.cycles.drain


@every_engine
@given(data=st.data())
@settings(max_examples=60)
def test_fused_equals_parallel(engine, data):
    operands = data.draw(gemm_operands(0, st.integers(1, 8), st.integers(1, 8)))
    config = data.draw(machines(lanes=(1, 2), ports=(8, 8), registers=WIDE))
    other = run(engine, operands, config)
    fusing = with_array(config, multiplier=Multiplier(kind="fusion"))
    one = run(engine, operands, fusing)
    assert_array_equal(one.acc, other.acc)  # lanes are more, so psums are others: they are wide enough here
    lanes = plan_operands(operands, fusing).lanes
    same_sums(one, run(engine, operands, with_array(config, lanes=lanes)))


@every_engine
def test_fusion_gains_what_bit_fusion_says(engine):
    # 8-bit ports: 8 x 8 bits one product a cycle, 4 x 4 four, 2 x 2 sixteen, 4 x 8 two; 16 x 16 bits take four cycles.
    rng = np.random.default_rng(1)
    config = machine("os", 1, 1, ports=(8, 8), multiplier=Multiplier(kind="fusion"))
    for a_bits, w_bits, compute in ((8, 8, 64), (4, 4, 16), (2, 2, 4), (4, 8, 32), (16, 16, 256), (8, 16, 128)):
        a = rng.integers(-(2 ** (a_bits - 1)), 2 ** (a_bits - 1), (1, 64))
        w = rng.integers(-(2 ** (w_bits - 1)), 2 ** (w_bits - 1), (64, 1))
        operands = replace(plain(a.tolist(), w.tolist()), a_bits=a_bits, w_bits=w_bits)
        result = run(engine, operands, with_array(config, psum=Register(bits=48)))
        assert result.cycles.compute == compute
        assert result.psum.low <= (a @ w).item() <= result.psum.high
        assert result.acc.item() == ((a @ w).item() + 2**31) % 2**32 - 2**31


def padded(operands):
    """Complete K by a block (else by three elements) of zeros; binary ones are gated, there is no zero."""
    blocks = operands.blocks
    more = 3 if blocks is None else blocks.size

    def pad(array, axis, count, value=0):
        widths = [(0, 0)] * array.ndim
        widths[axis] = (0, count)
        return np.pad(array, widths, constant_values=value)

    if blocks is not None:
        exponents = [
            None if e is None else pad(e, axis, 1, 9) for e, axis in ((blocks.a_exponents, 2), (blocks.w_exponents, 1))
        ]
        scales = pad(blocks.a_scales, 2, 1, 3), pad(blocks.w_scales, 1, 1, 1)
        blocks = replace(
            blocks, a_scales=scales[0], w_scales=scales[1], a_exponents=exponents[0], w_exponents=exponents[1]
        )
    lanes = {}
    if operands.a_exponents is not None:
        lanes = {"a_exponents": pad(operands.a_exponents, 2, more), "w_exponents": pad(operands.w_exponents, 1, more)}
    valid = np.full(more, operands.product != "xnor")
    return replace(
        operands,
        a=pad(operands.a, 2, more),
        w=pad(operands.w, 1, more),
        k_valid=np.append(operands.k_valid, valid),
        blocks=blocks,
        **lanes,
    )


@every_engine
@pytest.mark.parametrize("kind", KINDS)
def test_zeros_at_the_end_of_k_change_nothing(engine, kind):
    @given(KINDS[kind])
    @settings(max_examples=25)
    def check(layer):
        operands, config = layer
        one, other = run(engine, operands, config), run(engine, padded(operands), config)
        assert_array_equal(one.acc, other.acc)
        assert (one.psum, one.accumulator.overflows) == (other.psum, other.accumulator.overflows)
        assert (one.accumulator.low, one.accumulator.high) == (other.accumulator.low, other.accumulator.high)

    check()
