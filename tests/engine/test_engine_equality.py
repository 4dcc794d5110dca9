"""Every engine equals the oracle in values and overflows, and the plan in cycles and actions."""

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.testing import assert_array_equal
from strategies import layers

from accelsim.engine import ENGINES, oracle
from accelsim.mapping.plan import plan_operands


@pytest.mark.parametrize("name", ENGINES)
@given(layers())
@settings(max_examples=250)
def test_engine_equals_the_oracle_and_the_plan(name, layer):
    operands, config = layer
    plan = plan_operands(operands, config)
    result, expected = ENGINES[name].run(operands, plan), oracle.matmul(operands, plan)
    assert_array_equal(result.acc, expected.acc)
    assert result.acc.dtype == np.int64
    assert result.psum == expected.psum
    assert result.accumulator == expected.accumulator
    assert result.cycles == plan.cycles
    assert dict(result.actions.items()) == dict(plan.actions.items())
