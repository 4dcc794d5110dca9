"""What a layer needs, from shapes alone, is what its tensors and its plan turn out to be."""

import numpy as np
import pytest

from accelsim import load_config, load_trace, simulate
from accelsim.mapping.contract import LayerPlan
from accelsim.memory.needs import NetworkShapes, network_needs

RUNS = [
    ("int8_ws", "digits_cnn_int8"),
    ("int8_os", "digits_cnn_int8"),
    ("int8_is", "digits_cnn_int8"),
    ("int4_vsq", "digits_cnn_int4_vsq"),
]


def plans_of(config, trace):
    """The plans that a run makes from the operands' values, by layer."""
    plans: dict[str, LayerPlan] = {}
    report = simulate(config, trace, watch=False, inspect=lambda name, operands, plan: plans.update({name: plan}))
    return plans, report


def assert_same(mine, theirs):
    for name in vars(theirs):
        if name == "passes":
            for part in ("batch", "row0", "rows", "col0", "cols"):
                assert np.array_equal(getattr(mine.passes, part), getattr(theirs.passes, part)), part
        elif name == "arguments":  # what a share of the layer is planned with
            valid = [plan.arguments["k_valid"] for plan in (mine, theirs)]
            assert np.array_equal(*valid)
            assert mine.arguments | {"k_valid": None} == theirs.arguments | {"k_valid": None}
        else:
            assert getattr(mine, name) == getattr(theirs, name), name


@pytest.mark.parametrize(("config", "trace"), RUNS)
def test_the_plans_of_bundled_traces_need_no_values(config, trace, project_root):
    config = load_config(project_root / f"configs/{config}.yaml")
    trace = load_trace(project_root / f"traces/{trace}.npz").head(2)
    plans, report = plans_of(config, trace)
    needs = network_needs(trace, config)
    assert [need.name for need in needs] == [layer.name for layer in report.layers]
    for need in needs:
        if need.plan is not None:
            assert_same(need.plan, plans[need.name])
    assert [need.output_leaves for need in needs] == [False] * (len(needs) - 1) + [True]


def test_the_bits_of_tensors_are_theirs(project_root):
    config = load_config(project_root / "configs/int4_vsq.yaml")
    trace = load_trace(project_root / "traces/digits_cnn_int4_vsq.npz").head(3)
    report = simulate(config, trace, watch=False)
    for need, layer in zip(network_needs(trace, config), trace.layers, strict=True):
        expected = trace.expected(layer.output)
        assert expected is not None
        assert need.output.bits == expected.size_bits
        assert need.weight.bits == trace.tensor(layer.weight).size_bits
    assert len(report.layers) == len(trace.layers)


def test_a_network_without_arrays_is_taken_to_have_biases_and_factors(project_root):
    config = load_config(project_root / "configs/int8_ws.yaml")
    trace = load_trace(project_root / "traces/digits_cnn_int8.npz")
    known, bare = network_needs(trace, config), network_needs(NetworkShapes(trace.meta), config)
    assert bare[0].parameter_bits == 16 * (32 + 32 + 6)  # of 16 channels: a bias, a multiplier and a shift each
    for with_arrays, without in zip(known, bare, strict=True):
        assert with_arrays.plan.cycles == without.plan.cycles
        assert with_arrays.inputs == without.inputs
        assert with_arrays.weight == without.weight
