"""The whole way to a layer's accumulators, as a run takes it, against the direct reference that --verify uses."""

import pytest
from hypothesis import given, settings
from mapping_cases import any_layers
from numpy.testing import assert_array_equal

from accelsim.engine import ENGINES
from accelsim.mapping.direct import direct_accumulators
from accelsim.mapping.lower import lower
from accelsim.mapping.plan import plan_operands
from accelsim.ppu.zero_point import apply_zero_points


@pytest.mark.parametrize("name", ENGINES)
@given(any_layers())
@settings(max_examples=150)
def test_lowered_computed_and_corrected(name, case):
    lowered, config = lower(*case), case[-1]
    plan = plan_operands(lowered.operands, config)
    computed = ENGINES[name].run(lowered.operands, plan)
    corrected = apply_zero_points(
        computed.acc,
        w_zero_point=lowered.zero_points.w,
        a_zero_point=lowered.zero_points.a,
        acc_bits=plan.acc_bits,
        overflow=plan.acc_overflow,
        k=plan.shape.k,
        w_bits=plan.widths.w,
        a_bits=plan.widths.a,
    )
    assert_array_equal(lowered.assemble(corrected.acc), direct_accumulators(*case))
    assert computed.cycles == plan.cycles
    assert computed.actions == plan.actions
