"""The registers engine: values of the oracle, measured cycles of the plan; what it leaves to the stepped engine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import machine, plain

from accelsim.engine import oracle
from accelsim.engine.registers import move_registers
from accelsim.engine.stepped import SteppedEngine
from accelsim.errors import UnsupportedLayerError
from accelsim.mapping.contract import GemmOperands
from accelsim.mapping.plan import plan_operands


@st.composite
def plain_layers(draw):
    """(operands, plan): one lane a PE, ragged, of any dataflow and with any option."""
    batch, m, k, n = (draw(st.integers(1, most)) for most in (2, 13, 21, 13))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = draw(st.sampled_from([2, 8, 14]))
    limits = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    a = rng.integers(*limits, (batch, m, k), endpoint=True).astype(np.int32)
    w = rng.integers(*limits, (batch, k, n), endpoint=True).astype(np.int32)
    if draw(st.booleans()):
        a[...], w[...] = limits[0], limits[0]
    dataflow = draw(st.sampled_from(["os", "ws", "is"]))
    config = machine(
        dataflow,
        draw(st.integers(1, 9)),
        draw(st.integers(1, 9)),
        psum=(32, "wrap"),
        acc=(draw(st.sampled_from([33, 40, 64])), "wrap"),
        double_buffered=dataflow != "os" and draw(st.booleans()),
        drain_overlap=dataflow == "os" and draw(st.booleans()),
        skip_unused=draw(st.booleans()),
    )
    operands = GemmOperands(a, w, rng.integers(-1000, 1000, (batch, n)), np.ones(k, np.bool_), bits, bits)
    return operands, plan_operands(operands, config)


@given(plain_layers())
@settings(max_examples=200)
def test_values_equal_the_oracle_and_cycles_the_plan(layer):
    operands, plan = layer
    result = move_registers(operands, plan)
    assert_array_equal(result.acc, oracle.matmul(operands, plan).acc)
    assert result.acc.dtype == np.int64
    assert result.cycles == plan.cycles


@given(plain_layers())
@settings(max_examples=20)
def test_bounds_contain_what_the_stepped_engine_saw(layer):
    operands, plan = layer
    result, stepped = move_registers(operands, plan), SteppedEngine().run(operands, plan)
    for bound, seen in ((result.psum, stepped.psum), (result.accumulator, stepped.accumulator)):
        assert seen.overflows == bound.overflows == 0
        assert not bound.exact
        assert bound.low <= seen.low
        assert seen.high <= bound.high
    assert result.cycles == stepped.cycles


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_an_array_wider_than_simd_registers(dataflow):
    rng = np.random.default_rng(0)
    a, w = rng.integers(-128, 128, (70, 90)), rng.integers(-128, 128, (90, 100))
    operands = plain(a, w)
    plan = plan_operands(operands, machine(dataflow, 32, 64))
    result = move_registers(operands, plan)
    assert_array_equal(result.acc[0], a @ w)
    assert result.cycles == plan.cycles


@pytest.mark.parametrize(
    ("config", "operands", "message"),
    [
        (machine(lanes=2), plain([[1, 1]], [[1], [1]]), "take 2 lanes in 1 cycles"),
        (machine(psum=(8, "wrap")), plain([[64, 64]], [[1], [1]]), "may reach 128, which psums of 8 bits"),
        (machine(acc=(8, "wrap")), plain([[1]], [[1]], [127]), "exceed accumulators of 8 bits"),
        (machine(), plain([[1 << 15]], [[1]], bits=16), "wider than 16 bits"),
    ],
)
def test_what_it_cannot_take(config, operands, message):
    with pytest.raises(UnsupportedLayerError, match=message):
        move_registers(operands, plan_operands(operands, config))
