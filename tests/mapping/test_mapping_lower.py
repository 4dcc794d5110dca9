"""Three ways to the same accumulators: pure loops, the direct reference, and lowering with the engines' oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from mapping_cases import any_layers, conv2d_layers, linear_layers, matmul_layers, unlimited
from numpy.testing import assert_array_equal

from accelsim.engine import oracle
from accelsim.mapping.direct import direct_accumulators
from accelsim.mapping.lower import lower
from accelsim.mapping.plan import plan_operands


def limit(value, register):
    """One Python integer, wrapped or saturated."""
    low, high = -(2 ** (register.bits - 1)), 2 ** (register.bits - 1) - 1
    if register.overflow == "saturate":
        return min(max(value, low), high)
    return (value - low) % 2**register.bits + low


def through_gemms(layer, x, weight, bias, config):
    """Lower, run the oracle, correct the zero points one output at a time, and put every result in its place."""
    lowered = lower(layer, x, weight, bias, config)
    operands, zero_points = lowered.operands, lowered.zero_points
    raw = oracle.matmul(operands, plan_operands(operands, config)).acc
    rows = operands.shape.m - (zero_points.a is not None)
    cols = operands.shape.n - (zero_points.w is not None)
    results = np.zeros((operands.shape.batch, rows, cols), np.int64)
    placed = np.full(lowered.output_shape, 1 << 62)
    for b, m, n in np.ndindex(results.shape):
        acc = int(raw[b, m, n])
        if zero_points.w is not None:
            acc = limit(acc - int(zero_points.w[b, n]) * int(raw[b, m, -1]), config.accumulator)
        if zero_points.a is not None:
            acc = limit(acc - zero_points.a * int(raw[b, -1, n]), config.accumulator)
        results[b, m, n] = acc
        placed[lowered.output_index(b, m, n)] = acc
    assembled = lowered.assemble(results)
    assert_array_equal(assembled, placed)  # assemble and output_index agree on every place
    return assembled


KINDS = pytest.mark.parametrize("vsq", [False, True], ids=["integer", "vsq"])


def agree_in_wide_registers(case):
    expected = unlimited(*case)
    direct = direct_accumulators(*case)
    assert direct.dtype == np.int64
    assert_array_equal(direct, expected)
    assert_array_equal(through_gemms(*case), expected)


@KINDS
def test_conv2d_three_ways(vsq):
    given(conv2d_layers(vsq=vsq, wide=True))(agree_in_wide_registers)()


@KINDS
def test_linear_three_ways(vsq):
    given(linear_layers(vsq=vsq, wide=True))(agree_in_wide_registers)()


@KINDS
def test_matmul_three_ways(vsq):
    given(matmul_layers(vsq=vsq, wide=True))(agree_in_wide_registers)()


@given(any_layers())
@settings(max_examples=300)
def test_narrow_registers_two_ways(case):
    assert_array_equal(direct_accumulators(*case), through_gemms(*case))
