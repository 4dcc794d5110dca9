"""Operators in traces: built, run, verified against their oracles, priced by the default table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import cases

import accelsim
from accelsim import TraceBuilder
from accelsim.formats import make_qtensor
from accelsim.operators.registry import OPERATORS

CONFIG = "configs/int8_ws.yaml"


def in_traces(case):
    """Tensors of traces have at least one dimension."""
    return all(tensor.shape for tensor in (*case.inputs, case.output))


@pytest.mark.parametrize("name", sorted(OPERATORS))
@settings(max_examples=3)
@given(data=st.data())
def test_every_operator_runs_in_a_trace(project_root, name, data):
    case = data.draw(cases(name).filter(in_traces))
    tensors = [make_qtensor(x.codes, x.format, x.scale, x.zero_point) for x in case.inputs]
    net = TraceBuilder("one")
    first = net.input("x", tensors[0], dims=tuple(f"dim{i}" for i in range(len(tensors[0].shape))))
    net.vector(
        "step",
        name,
        [first, *tensors[1:]],
        output=case.output.format,
        scale=case.output.scale,
        zero_point=case.output.zero_point,
        attributes=case.attributes.model_dump(),
    )
    report = accelsim.simulate(accelsim.load_config(project_root / CONFIG), net.build(), verify=True)
    (layer,) = report.layers
    assert layer.verified == 0
    codes = OPERATORS[name].run(case.inputs, case.output, case.attributes)
    assert np.array_equal(layer.output_codes, codes)
    work = OPERATORS[name].work(case.inputs, case.output, case.attributes)
    assert (layer.cycles.total > 0) == (work.passes > 0)
