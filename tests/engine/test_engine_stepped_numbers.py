"""The arithmetic inside a stepped PE, number by number, against fractions and Python integers."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import FLOAT32, machine, plain

from accelsim.config.model import FloatUnit, Multiplier, Popcount
from accelsim.engine import oracle
from accelsim.engine import stepped_kernels as kernels
from accelsim.engine.stepped import SteppedEngine, as_float32
from accelsim.errors import ShapeError
from accelsim.mapping.contract import BlockScaling, Summation
from accelsim.mapping.plan import plan_operands

LARGEST = 0x7F7FFFFF


def value_of(held):
    return Fraction(float(as_float32(np.array([held], np.int64))[0]))


def held_as(value):
    """The register of a float32, from NumPy's bits."""
    bits = int(np.float32(abs(value)).view(np.uint32))
    return -bits if value < 0 else bits


@st.composite
def additions(draw):
    """(held, addend, exponent): anything; or an addend near the held number, near half a unit of it, or opposite."""
    held = draw(st.integers(-LARGEST, LARGEST))
    addend = draw(st.integers(-(2**62) + 1, 2**62 - 1))
    addend >>= draw(st.integers(0, 61))
    exponent = draw(st.integers(-260, 140))
    value = value_of(held)
    if value and draw(st.booleans()):
        exponent = max(int(abs(held)) >> 23, 1) - 150 - draw(st.integers(0, 38))  # a fraction of the held unit
        units = value / Fraction(2) ** exponent
        near = [-units, -units / 2, Fraction(2) ** 37, 3 * Fraction(2) ** 23, -units - Fraction(2) ** 37]
        addend = int(draw(st.sampled_from(near))) + draw(st.integers(-2, 2))
    return held, addend, exponent


@given(additions())
@settings(max_examples=600)
@example((held_as(1.0), 1, -24))  # a tie: to 1, which is even
@example((held_as(1.0 + 2.0**-23), 1, -24))  # a tie: up
@example((held_as(1.0), 2**37 + 1, -61))  # 2^-61 more than a tie
@example((held_as(1.0), -(2**61) - 1, -62))  # 1/2 - 2^-62: nothing of the addend is lost where the two nearly cancel
@example((held_as(2.0), -(2**62) + 1, -61))  # what is left is 2^-61
@example((held_as(2.0**-20), 2**61 + 2**37, 0))  # the held number is a little more than a tie: up
@example((held_as(-(2.0**-20)), 2**61 + 3 * 2**37, 0))  # ... and a little less, of a tie that would go up: down
@example((1, -1, -150))  # half of the smallest subnormal is left: to zero
@example((0, 3, -151))  # three quarters of it: up
@example((LARGEST, 1, 102))  # less than half a unit beyond the largest
@example((LARGEST, 1, 103))  # half a unit: overflows
@example((-LARGEST, -1, 103))
@example((0, -(2**62) + 1, 500))
def test_a_float32_addition_is_rounded_once(addition):
    held, addend, exponent = addition
    register = oracle.FloatRegister()
    register.held = value_of(held)
    register.add(addend * Fraction(2) ** exponent, (0, 0, 0), 0)
    found, overflow = kernels.add_float32(held, addend, exponent)
    assert value_of(found) == register.held
    assert overflow == bool(register.overflows)


@given(st.integers(-LARGEST, LARGEST))
@example(0)
@example(-1)
@example(0x7FFFFF)
@example(0x800000)
def test_registers_hold_floats_in_order(held):
    significand, exponent = kernels.float32_parts(held)
    assert significand * Fraction(2) ** exponent == value_of(held)
    assert held_as(value_of(held)) == held
    if held < LARGEST:
        assert value_of(held) < value_of(held + 1)


@given(
    st.integers(-(2**62) + 1, 2**62 - 1), st.integers(0, 61), st.integers(-300, 300), st.sampled_from([-1, 0, 30, -200])
)
@settings(max_examples=300)
@example(-1, 0, -300, 0)
@example(2**61 + 2**60, 0, -62, 0)  # 3/4
@example(-(2**61), 0, -62, 0)  # a tie: to zero
@example(3 * 2**60, 0, -61, 0)  # 1 1/2, a tie: to 2
def test_the_shifter_rounds_and_is_limited(value, right, exponent, lsb_exponent):
    value >>= right
    for code, rounding in enumerate(("truncate", "toward_zero", "half_even")):
        expected = oracle.shifted(value * Fraction(2) ** exponent, lsb_exponent, rounding)
        assert kernels.shift_to_fixed(value, exponent, lsb_exponent, code) == expected


@given(st.integers(1, 16), st.data())
def test_pieces_of_a_word_add_up_to_it(pieces, data):
    bits = data.draw(st.integers(1, 16 // pieces))
    width = pieces * bits
    signed, unsigned = st.integers(-(2 ** (width - 1)), 2 ** (width - 1) - 1), st.integers(0, 2**width - 1)
    word = data.draw(signed | unsigned)
    found = [kernels.piece_of(word, i, pieces, bits) for i in range(pieces)]
    assert sum(piece * 2 ** (bits * i) for i, piece in enumerate(found)) == word
    assert all(0 <= piece < 2**bits for piece in found[:-1])
    assert -(2 ** (bits - 1)) <= found[-1] < 2**bits


def test_words_of_bits_by_hand():
    # 5 = 101 is +1 -1 +1 and -3 as two's complement is 1 0 1: bits of weight 1, 2 and -4.
    assert [kernels.piece_of(5, i, 3, 1) for i in range(3)] == [1, 0, 1]
    assert [kernels.piece_of(-3, i, 3, 1) for i in range(3)] == [1, 0, -1]
    # A binary number is its own bit.
    assert [kernels.piece_of(value, 0, 1, 1) for value in (1, -1)] == [1, -1]


@given(st.sampled_from([2, 4, 8, 16]), st.sampled_from([2, 4, 8, 16]), st.data())
def test_bricks_multiply(x_bits, y_bits, data):
    x, y = (data.draw(st.integers(-(2 ** (b - 1)), 2**b - 1)) for b in (x_bits, y_bits))
    assert kernels.fused_product(x, y, x_bits // 2, y_bits // 2) == x * y


def test_blocks_of_one_step_are_added_one_after_another():
    # 2^24, then 1, then 1: each 1 is half a unit, and the sum goes back to 2^24, which is even. 1 + 1 first would be 2.
    ones = np.ones((1, 1, 4), np.int32)
    exponents = np.array([[[24, 0, 0, 0]]], np.int32)
    blocks = BlockScaling(1, ones, ones.swapaxes(1, 2), 0, 8, 8, exponents, 0 * ones.swapaxes(1, 2))
    operands = replace(
        plain([[1, 1, 1, 0]], [[1], [1], [1], [1]]),
        bias=np.zeros((1, 1), np.float32),
        blocks=blocks,
        summation=Summation("float32"),
    )
    config = machine(lanes=4, psum=FLOAT32, acc=FLOAT32, float_unit=FloatUnit())
    result = SteppedEngine().run(operands, plan_operands(operands, config))
    assert result.acc.tolist() == [[[2.0**24]]]
    assert (result.psum.low, result.psum.high) == (0.0, 2.0**24)


@pytest.mark.parametrize(
    ("operands", "config", "message"),
    [
        (
            plain([[1, 2]], [[4], [-6]], product="shift"),
            {"multiplier": Multiplier(kind="shift")},
            "w has lanes that are neither zero nor a power of two; product 'shift' needs such",
        ),
        (
            plain([[1, 0]], [[1], [-1]], product="xnor"),
            {"popcount": Popcount(word_bits=32)},
            "a has lanes from 0 to 1; product 'xnor' needs +1 and -1",
        ),
        (
            plain([[1, 2]], [[4], [-5]], bits=3),
            {"multiplier": Multiplier(kind="bit_serial")},
            "w has lanes from -5 to 4, but a bit_serial multiplier takes the 3 bits of its format: -4 to 3",
        ),
        (
            plain([[1, 16]], [[4], [5]], bits=4),
            {"multiplier": Multiplier(kind="fusion")},
            "a has lanes from 0 to 16, but a fusion multiplier takes the 4 bits of its format: 0 to 15",
        ),
    ],
)
def test_lanes_that_the_multiplier_cannot_take_are_refused(operands, config, message):
    with pytest.raises(ShapeError) as error:
        SteppedEngine().run(operands, plan_operands(operands, machine(**config)))
    assert str(error.value) == message
