"""Limits hold for the whole network, whatever the table thinks of it: against trying everything."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim
from accelsim.errors import SearchError
from accelsim.memory.needs import NetworkShapes
from accelsim.quantize.network_file import load_network
from accelsim.quantize.requantizer import Requantizer
from accelsim.search.candidate import Widths, true_costs
from accelsim.search.costs import cost_table
from accelsim.search.limits import choose_within, front_within
from accelsim.search.problem import Problem
from accelsim.search.run import Search
from accelsim.search.sensitivity import Sensitivities, Sensitivity

LOSSES = {"conv1": 0.31, "conv2": 0.17, "fc1": 0.23, "fc2": 0.07}
BITS = (2, 4, 8)


def losses_of(names, bits):
    return Sensitivities(
        "supplied",
        tuple(
            Sensitivity(name, operand, b, (1.0 if operand == "weight" else 1.4) * LOSSES[name] * (4.0 ** (2 - b)))
            for name in names for operand in ("weight", "activation") for b in bits
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def problem(project_root):
    config = accelsim.load_config(project_root / "configs" / "bitserial.yaml")
    trace = accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(1)
    table = cost_table(config, trace, BITS, BITS)
    return Problem(table, losses_of(table.layers, BITS), fixed={"conv1": (8, 8)})


def every(problem, fixed=("conv1",)):
    """All choices of the three free layers, as the problem prices them: solved with nothing left to choose."""
    names = [name for name in problem.table.layers if name not in fixed]
    pairs = list(itertools.product(BITS, BITS))
    for picks in itertools.product(pairs, repeat=len(names)):
        given = {"conv1": Widths(8, 8), **{name: Widths(*pair) for name, pair in zip(names, picks, strict=True)}}
        yield Problem(problem.table, losses_of(problem.table.layers, BITS), fixed=given).smallest("size")


@pytest.fixture(scope="module")
def choices(problem):
    return list(every(problem))


def network(saved, at_most):
    """Return the costs of a network that keeps each input of at most so many bits on chip, which saves a share of what
    its layer costs by the table."""

    def costs(choice):
        kept = sum(widths.activation <= at_most for widths in choice.widths.values()) / len(choice.widths)
        return {name: cost * (1 - saved * kept) for name, cost in choice.costs.items()}

    return costs


@settings(max_examples=25)
@given(st.floats(-0.5, 0.9), st.sampled_from([1, 2, 4, 8]), st.floats(0, 1), st.booleans())
def test_what_is_chosen_is_within_the_limit_and_no_single_change_is_better(
    problem, choices, saved, at_most, share, with_size
):
    real = network(saved, at_most)
    true = [real(choice)["energy"] for choice in choices]
    wanted = {"energy": min(true) + share * (max(true) - min(true))}
    if with_size:
        wanted["size"] = choices[0].costs["size"] * 3  # which half of them are above; of this table it is exact
    within = [
        choice for choice in choices if all(real(choice)[name] <= limit * (1 + 1e-9) for name, limit in wanted.items())
    ]
    narrowest = [each for each in within if set(each.widths.values()) <= {Widths(2, 2), Widths(8, 8)}]
    try:
        found = choose_within(problem, real, wanted)
    except SearchError:
        assert not narrowest, "of which it knows"
        return
    assert any(found.widths == each.widths for each in within)
    for other in within:
        changed = sum(
            a != b
            for one, two in zip(found.widths.values(), other.widths.values(), strict=True)
            for a, b in zip(one, two, strict=True)
        )
        assert other.loss >= found.loss - 1e-12 or changed > 1


@pytest.mark.parametrize("factor", [0.4, 0.9, 1.0, 1.7])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.6, 0.9])
def test_a_table_that_is_off_by_a_factor_costs_nothing(problem, choices, factor, share):
    """Whatever the factor, what is found is the best: limits are corrected up as well as down."""
    low, high = (bound(choice.costs["latency"] for choice in choices) for bound in (min, max))
    limit = factor * (low + share * (high - low))
    found = choose_within(problem, lambda choice: {"latency": factor * choice.costs["latency"]}, {"latency": limit})
    best = min(choice.loss for choice in choices if factor * choice.costs["latency"] <= limit * (1 + 1e-9))
    assert found.loss == pytest.approx(best, abs=1e-12)


@pytest.fixture(scope="module")
def fine_problem(project_root):
    """All widths from 2 to 8, and layers that differ much."""
    config = accelsim.load_config(project_root / "configs" / "bitserial.yaml")
    trace = accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(1)
    table, rng = cost_table(config, trace, range(2, 9), range(2, 9)), np.random.default_rng(5)
    scales = [(name, operand, rng.lognormal(0, 2)) for name in table.layers for operand in ("weight", "activation")]
    rows = [
        Sensitivity(name, kind, bits, float(scale * 4.0**-bits))
        for name, kind, scale in scales
        for bits in table.weight_bits
    ]
    return Problem(table, Sensitivities("supplied", tuple(rows)))


@pytest.mark.parametrize("share", [0.1, 0.4, 0.55, 0.8, 0.95])
def test_what_is_over_the_limit_by_next_to_nothing_is_no_reason_to_stop(fine_problem, share):
    """What the table puts just below the limit is just above it: the best of what is cheaper yet is found."""
    low, high = (each.costs["energy"] for each in (fine_problem.smallest("energy"), fine_problem.widest))
    limit = low + share * (high - low)

    def real(choice):
        cost = choice.costs["energy"]
        return {"energy": 1.0005 * limit if 0.997 * limit < cost <= limit else cost}

    found = choose_within(fine_problem, real, {"energy": limit})
    assert real(found)["energy"] <= limit
    assert found.loss <= fine_problem.solve({"energy": 0.996 * limit}).loss + 1e-12


def test_what_cannot_be_reached_is_told_by_real_costs(problem, choices):
    least = min(choice.costs["energy"] for choice in choices)
    with pytest.raises(SearchError, match=r"the smallest that was found is ") as caught:
        choose_within(problem, lambda choice: {"energy": choice.costs["energy"] / 2}, {"energy": least * 0.49})
    assert float(str(caught.value).rsplit(" ", 1)[1]) == pytest.approx(least / 2, rel=1e-5)
    with pytest.raises(SearchError, match=r"the smallest that can be chosen is "):
        choose_within(problem, lambda choice: choice.costs, {"energy": least * 0.99})


@pytest.mark.parametrize("cost", ["energy", "latency"])
def test_layers_that_stay_on_chip(project_root, cost):
    """A machine with `memory.fuse_layers`: its networks cost less than their layers alone. All 36 can be tried."""
    config = accelsim.load_config(project_root / "configs" / "bitserial.yaml")
    config = config.model_copy(update={"memory": config.memory.model_copy(update={"fuse_layers": True})})
    floats = load_network(project_root / "traces" / "digits_cnn_float.npz").head(3)
    names = [layer.name for layer in floats.array_layers]
    fixed = {"conv1": (8, 8), "fc2": (8, 8)}
    search = Search(config, floats, calibration=1, weight_bits=BITS, activation_bits=(4, 8), fixed=fixed,
                    sensitivities=losses_of(names, BITS))  # fmt: skip
    requantizer = Requantizer(floats.head(1), references=False)
    loss = search.sensitivities.array(names, BITS, (4, 8))
    true = []
    for w2, a2, w3, a3 in itertools.product(BITS, (4, 8), BITS, (4, 8)):
        widths = {**fixed, "conv2": (w2, a2), "fc1": (w3, a3)}
        lost = sum(loss[i, BITS.index(widths[n][0]), (4, 8).index(widths[n][1])] for i, n in enumerate(names))
        true.append((true_costs(requantizer, config, widths)[cost], lost))
    cheapest = min(price for price, _ in true)
    by_table = search.problem.smallest(cost).costs[cost]
    assert cheapest < by_table, "which the table calls unreachable"
    widest = max(price for price, _ in true)
    for limit in (cheapest, (cheapest + by_table) / 2, *np.linspace(cheapest, widest, 4)[1:]):
        found = search.choose({cost: float(limit)})
        assert search.costs(found.widths)[cost] <= limit * (1 + 1e-9)
        assert found.loss == pytest.approx(min(lost for price, lost in true if price <= limit * (1 + 1e-9)), abs=1e-9)
    with pytest.raises(SearchError, match=f"{cost} of at most .* cannot be reached; the smallest that was found"):
        search.choose({cost: 0.99 * cheapest})
    shapes = NetworkShapes.of(requantizer.trace(dict.fromkeys(names, ("int8", "int8"))))
    assert any("fuse_layers" in note for note in cost_table(config, shapes, [8], [8]).notes)


# -- fronts within limits ---------------------------------------------------------------------------------------------


def best_of(choices, costs, limits):
    """Return the least loss within limits by trying everything."""
    return min(
        choice.loss
        for choice in choices
        if all(costs(choice)[name] <= limit * (1 + 1e-9) for name, limit in limits.items())
    )


@pytest.mark.parametrize("wanted", [{}, {"size": 0.6}, {"size": 0.5, "latency": 0.7}, {"energy": 0.8, "size": 0.7}])
def test_a_front_within_limits_is_that_of_everything(problem, choices, wanted):
    """Sums that are the network's costs: each point is the best for its energy, and none is beyond a limit."""
    widest = {name: max(choice.costs[name] for choice in choices) for name in ("size", "latency", "energy")}
    limits = {name: share * widest[name] for name, share in wanted.items()}
    found = front_within(problem, lambda choice: choice.costs, "energy", 9, limits)
    assert len(found) > 3
    energies, losses = [each.costs["energy"] for each in found], [each.loss for each in found]
    assert energies == sorted(set(energies))
    assert losses == sorted(set(losses), reverse=True)
    for each in found:
        assert all(each.costs[name] <= limit * (1 + 1e-9) for name, limit in limits.items())
        within = {**limits, "energy": each.costs["energy"]}
        assert each.loss == pytest.approx(best_of(choices, lambda choice: choice.costs, within), abs=1e-12)
    assert losses[-1] == pytest.approx(best_of(choices, lambda choice: choice.costs, limits), abs=1e-12)
    cheapest = min(
        choice.costs["energy"]
        for choice in choices
        if all(choice.costs[name] <= limit * (1 + 1e-9) for name, limit in limits.items())
    )
    assert energies[0] == pytest.approx(cheapest, rel=1e-9)


@pytest.mark.parametrize("saved", [-0.4, 0.6])
def test_a_front_within_limits_is_of_whole_networks(problem, choices, saved):
    """Where the sums are off, the limits still hold for the network."""
    real = network(saved, 4)
    limit = 0.5 * max(real(choice)["size"] for choice in choices)
    found = front_within(problem, real, "latency", 6, {"size": limit})
    costs = [real(each) for each in found]
    assert len(found) > 2
    assert all(cost["size"] <= limit * (1 + 1e-9) for cost in costs)
    latencies = [cost["latency"] for cost in costs]
    assert latencies == sorted(set(latencies))
    assert [each.loss for each in found] == sorted({each.loss for each in found}, reverse=True)


def test_a_front_within_limits_that_cannot_be(problem):
    with pytest.raises(SearchError, match=r"size of at most 1 cannot be reached"):
        front_within(problem, lambda choice: choice.costs, "energy", 4, {"size": 1.0})
    with pytest.raises(SearchError, match=r"points=1: a front has 2 or more"):
        front_within(problem, lambda choice: choice.costs, "energy", 1, {})
