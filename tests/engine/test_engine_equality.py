"""Every engine equals the oracle in values and overflows, and the plan in cycles and actions."""

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.testing import assert_array_equal
from strategies import KINDS

from accelsim.engine import ENGINES, oracle
from accelsim.mapping.plan import plan_operands

# Integers have the most options to combine; numbers with exponents the most ways to round.
EXAMPLES = {"integers": 200, "fixed": 150, "float32": 100}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_engine_equals_the_oracle_and_the_plan(name, kind):
    @given(KINDS[kind])
    @settings(max_examples=EXAMPLES.get(kind, 80))
    def check(layer):
        operands, config = layer
        plan = plan_operands(operands, config)
        result, expected = ENGINES[name].run(operands, plan), oracle.matmul(operands, plan)
        assert_array_equal(result.acc, expected.acc)
        assert result.acc.dtype == (np.float32 if kind == "float32" else np.int64)
        assert result.psum == expected.psum
        assert result.accumulator == expected.accumulator
        assert result.cycles == plan.cycles
        assert dict(result.actions.items()) == dict(plan.actions.items())

    check()
