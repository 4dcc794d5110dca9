"""The integer program finds what trying everything finds; and the published case of HAWQ-V3."""

import ctypes
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.errors import SearchError
from accelsim.search.pareto import front
from accelsim.search.program import Program, Tie, smallest, solve

numbers = st.floats(0, 1e6, allow_subnormal=False).map(lambda x: round(x, 3))


@st.composite
def programs(draw):
    layers, rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shape = layers, rows, columns

    def table():
        size = math.prod(shape)
        return np.array(draw(st.lists(numbers, min_size=size, max_size=size))).reshape(shape)

    costs = {name: table() for name in ("energy", "size")[: draw(st.integers(1, 2))]}
    ties = []
    if layers > 1 and draw(st.booleans()):
        members = draw(st.lists(st.integers(0, layers - 1), min_size=2, max_size=3, unique=True))
        ties = [Tie(tuple(members), draw(st.booleans()), draw(st.booleans()))]
    constant = {name: draw(numbers) for name in costs}
    return Program(table(), costs, constant, tuple(ties))


def everything(program):
    layers, rows, columns = program.losses.shape
    for picks in itertools.product(itertools.product(range(rows), range(columns)), repeat=layers):
        pick = np.array(picks)
        if all(
            not (tie.weights and len({pick[i, 0] for i in tie.layers}) > 1)
            and not (tie.activations and len({pick[i, 1] for i in tie.layers}) > 1)
            for tie in program.ties
        ):
            yield pick


def plain_total(program, name, pick):
    return math.fsum([*(program.costs[name][i, w, a] for i, (w, a) in enumerate(pick)), program.constant[name]])


@settings(max_examples=60)
@given(programs(), st.data())
def test_the_program_is_as_good_as_trying_everything(program, data):
    picks = list(everything(program))
    limits = {}
    for name in program.costs:
        totals = sorted(plain_total(program, name, pick) for pick in picks)
        limits[name] = totals[data.draw(st.integers(0, len(totals) - 1))]  # exactly what some pick costs
    within = [
        pick for pick in picks
        if all(plain_total(program, name, pick) <= limit * (1 + 1e-9) for name, limit in limits.items())
    ]  # fmt: skip
    if not within:
        with pytest.raises(SearchError, match="together"):
            solve(program, limits)
        return
    found = solve(program, limits)
    assert any((found == pick).all() for pick in within), "it keeps limits and ties"
    best = min(program.loss(pick) for pick in within)
    assert program.loss(found) == pytest.approx(best, rel=1e-6, abs=1e-6)


@settings(max_examples=30)
@given(programs(), st.floats(0, 1), st.floats(0, 1))
def test_a_wider_limit_never_does_worse(program, one, other):
    least = program.total("energy", smallest(program, "energy"))
    most = program.constant["energy"] + float(program.costs["energy"].max(axis=(1, 2)).sum())
    losses = [
        program.loss(solve(program, {"energy": least + share * (most - least)})) for share in sorted((one, other))
    ]
    assert losses[1] <= losses[0] * (1 + 1e-6) + 1e-6


@settings(max_examples=30)
@given(programs())
def test_what_cannot_be_reached_says_what_can(program):
    least = min(plain_total(program, "energy", pick) for pick in everything(program))
    assert program.total("energy", smallest(program, "energy")) == pytest.approx(least, rel=1e-6, abs=1e-6)
    if least > 1:
        with pytest.raises(SearchError, match=r"energy of at most .* cannot be reached; the smallest .* is ") as caught:
            solve(program, {"energy": least * 0.99})
        assert float(str(caught.value).rsplit(" ", 1)[1]) == pytest.approx(least, rel=1e-4)


# Published in the notebook of HAWQ-V3 for ResNet-18, the 19 layers between the first and the last one.
TRACE = [0.06857826, 0.03162379, 0.03298575, 0.01205663, 0.02222431, 0.00596336, 0.06931772, 0.00807129, 0.00372905,
         0.00530698, 0.00209011, 0.00737569, 0.00210454, 0.00151197, 0.00158041, 0.00078146, 0.00451841, 0.00098745,
         0.00072944]  # fmt: skip
DELTA8 = [0.0235, 0.0125, 0.0102, 0.0082, 0.0145, 0.0344, 0.0023, 0.0287, 0.0148, 0.0333, 0.0682, 0.0027, 0.0448,
          0.0336, 0.0576, 0.1130, 0.0102, 0.0947, 0.0532]  # fmt: skip
DELTA4 = [6.7430, 3.9691, 3.3281, 2.6796, 4.7277, 10.5966, 0.6827, 9.0942, 4.8857, 10.7599, 21.7546, 0.8603, 14.5324,
          10.9651, 18.7706, 36.4044, 3.1572, 29.6994, 17.4016]  # fmt: skip
PARAMETERS = [36864, 36864, 36864, 36864, 73728, 147456, 8192, 147456, 147456, 294912, 589824, 32768, 589824, 589824,
              1179648, 2359296, 131072, 2359296, 2359296]  # fmt: skip
LATENCY4 = [0.21094404, 0.21092674, 0.21104113, 0.21086851, 0.13642465, 0.19167506, 0.02532183, 0.19148203, 0.19142914,
            0.11395316, 0.20556011, 0.01917474, 0.20566918, 0.20566509, 0.13185102, 0.22287786, 0.01790088, 0.22304611,
            0.22286099]  # fmt: skip
LATENCY8 = [0.36189111, 0.36211718, 0.31141909, 0.30454471, 0.19184896, 0.38948934, 0.0334169, 0.38904905, 0.3892859,
            0.19134735, 0.34307431, 0.02802354, 0.34313329, 0.34310756, 0.21117103, 0.37376585, 0.02896843, 0.37398187,
            0.37405185]  # fmt: skip
SHARED = ((4, 6), (9, 11), (14, 16))  # its downsampling layers share the main stream's width


@pytest.mark.parametrize("cost", ["size", "latency"])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_published_resnet18(cost, share):
    """Against all 2^16 choices of 4 or 8 bits, with the limits that the paper sets between the two extremes."""
    losses = np.stack([np.multiply(TRACE, DELTA4), np.multiply(TRACE, DELTA8)], axis=1)
    published = {"size": (np.multiply(PARAMETERS, 0.5), PARAMETERS), "latency": (LATENCY4, LATENCY8)}
    narrow, wide = (np.array(column) for column in published[cost])
    costs = np.stack([narrow, wide], axis=1)
    limit = narrow.sum() + share * (wide.sum() - narrow.sum())
    choices = (np.arange(2**19)[:, None] >> np.arange(19)) & 1
    for first, second in SHARED:
        choices = choices[choices[:, first] == choices[:, second]]
    within = choices[np.where(choices, wide, narrow).sum(axis=1) <= limit]
    best = np.where(within, losses[:, 1], losses[:, 0]).sum(axis=1).min()
    ties = tuple(Tie(pair, weights=True, activations=False) for pair in SHARED)
    program = Program(losses[:, :, None], {cost: costs[:, :, None]}, {}, ties)
    found = solve(program, {cost: limit})
    assert program.loss(found) == pytest.approx(best, rel=1e-9)
    assert program.total(cost, found) <= limit


def test_what_the_solver_prints_by_mistake_is_not_seen(capfd, monkeypatch):
    """C libraries write past sys.stdout, and late; what others print meanwhile is kept, in its order."""
    import scipy.optimize

    C = ctypes.CDLL(None)
    real = scipy.optimize.milp

    def talkative(*words, **options):
        C.puts(b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();")
        C.puts(b"of another library")
        print("of another thread")
        return real(*words, **options)

    monkeypatch.setattr("scipy.optimize.milp", talkative)
    C.puts(b"before")
    program = Program(np.array([[[3.0], [0.0]]]), {"size": np.array([[[4.0], [8.0]]])}, {})
    assert solve(program, {"size": 8.0}).tolist() == [[1, 0]]
    C.puts(b"after")
    C.fflush(None)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert set(lines[1:-1]) == {"of another library", "of another thread"}


CLOSED = """
import os
import numpy as np
from accelsim.search.program import Program, solve
os.close(1)
program = Program(np.array([[[3.0], [0.0]]]), {"size": np.array([[[4.0], [8.0]]])}, {})
os.write(2, repr(solve(program, {"size": 8.0}).tolist()).encode())
"""


def test_the_solver_needs_no_standard_output(project_root):
    done = subprocess.run([sys.executable, "-c", CLOSED], cwd=project_root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "[[1, 0]]")


@pytest.mark.parametrize("limits", [{"power": 1.0}, {"edp": 2.0}])
def test_a_limit_on_something_else(limits):
    program = Program(np.ones((1, 1, 1)), {"energy": np.ones((1, 1, 1))}, {})
    with pytest.raises(SearchError, match=r"is no cost that adds up; use energy"):
        solve(program, limits)


def test_numbers_are_finite():
    with pytest.raises(SearchError, match="energy: NaN or infinity"):
        Program(np.ones((1, 1, 1)), {"energy": np.full((1, 1, 1), np.inf)}, {})


points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25)


@given(points)
def test_a_front_is_what_nothing_beats(found):
    kept = front(np.array(found, float))

    def beats(p, q):
        return all(a <= b for a, b in zip(p, q, strict=True)) and p != q

    expected = [not any(beats(q, p) for q in found) and p not in found[:i] for i, p in enumerate(found)]
    assert kept.tolist() == expected
