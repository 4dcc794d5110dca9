"""Limits of the whole network, kept with a table that is a little off.

The table has each layer alone; the network's layers keep tensors on chip, load behind one another and have conversions
between them, so the sum may be too high or too low. The program is solved with limits of the table's own, corrected
both ways by what the whole network of each choice costs; then single layers are widened as far as the true limits let.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from accelsim.errors import SearchError
from accelsim.progress import ProgressCallback, layer_progress
from accelsim.search.pareto import front
from accelsim.search.program import unreachable

ATTEMPTS = 12
TRIES = 200
"""Of single changes to what the program chose, each of which prices the whole network."""
SLACK = 1e-9
EXACT = 1e-6
"""Of a cost: what the table's sum and the network may differ by, and the program's choice still is the best one."""
CLOSE = 1e-3
"""Of a limit: what is left unused, and what two limits differ by, that is not worth another attempt."""
LOOSER = 1.05
Costs = Mapping[str, float]


class Candidate(Protocol):
    """What a problem chooses: its loss and costs as the tables have them, and a name that no other choice has."""

    @property
    def loss(self) -> float: ...

    @property
    def costs(self) -> Costs: ...

    @property
    def key(self) -> str: ...


C = TypeVar("C", bound=Candidate)


class Chooser(Protocol[C]):
    """A problem whose costs add up (accelsim.search.problem.Problem)."""

    @property
    def narrowest(self) -> C: ...

    def smallest(self, cost: str, limits: Costs | None = None) -> C: ...

    def solve(self, limits: Costs) -> C: ...

    def neighbours(self, choice: C) -> Iterator[C]: ...


def choose_within(problem: Chooser[C], true_costs: Callable[[C], Costs], wanted: Costs) -> C:
    """Return widths of little loss within limits of the whole network.

    true_costs : what the whole network of a choice costs, by name
    wanted : the most that it may cost, by name, in the costs' units

    Where the table's sums are the network's costs (to a millionth), no choice within the limits has less loss.
    Elsewhere the choice is within the limits, and no change of one width (of tied layers: of all of them) that lessens
    the loss keeps it there; several changes together may. At most TRIES such changes are priced.

    Raises SearchError where no choice was found within the limits: by what the cheapest ones really cost.
    """
    prices = _Prices(true_costs, wanted)
    cheapest = {name: problem.smallest(name) for name in wanted}
    # The narrowest widths (whose bit operations are fewest) may be cheaper yet than what the table calls cheapest.
    candidates = [*cheapest.values(), problem.narrowest]
    best = min((each for each in candidates if prices.within(each)), key=lambda each: each.loss, default=None)
    inner = _Inner(wanted, {name: choice.costs[name] for name, choice in cheapest.items()})
    for _ in range(ATTEMPTS):
        try:
            choice = problem.solve(inner.limits)
        except SearchError:  # by the table, not together
            if best is not None:
                break
            inner.loosen()
            continue
        if prices.within(choice) and (best is None or choice.loss < best.loss):
            best = choice
        if not inner.correct(choice, prices.of(choice)):
            break
    if best is None:
        raise SearchError(_nothing(wanted, candidates, prices))
    return best if prices.exact else _polished(problem, best, prices)


def front_within(
    problem: Chooser[C],
    true_costs: Callable[[C], Costs],
    cost: str,
    points: int,
    wanted: Costs,
    *,
    progress: ProgressCallback | bool | None = None,
) -> list[C]:
    """Return choices from the cheapest to the one of least loss within limits of the whole network, none of them worse
    in both loss and cost than another, cheapest first.

    cost : what loss is traded for; `choose_within` is asked for `points` limits of it, evenly spaced, with the others
        kept (the epsilon-constraint method)
    wanted : limits of the whole network, by name, in the costs' units; one of `cost` itself ends the front

    Raises SearchError where nothing is within the limits.
    """
    if points < 2:
        raise SearchError(f"points={points}: a front has 2 or more")
    known: dict[str, Costs] = {}

    def priced(choice: C) -> Costs:
        if choice.key not in known:
            known[choice.key] = true_costs(choice)
        return known[choice.key]

    with layer_progress(progress, "limits") as tell:
        tell(0, points, "the least loss within the limits")
        best = choose_within(problem, priced, wanted)
        high = priced(best)[cost]
        low = min(priced(choice)[cost] for choice in _cheap(problem, cost, wanted))
        found = [best]
        for done in range(1, points):
            tell(done, points, f"limits of {cost}")
            limit = low + (high - low) * (points - 1 - done) / (points - 1)
            try:
                found.append(choose_within(problem, priced, {**wanted, cost: limit}))
            except SearchError:  # the others keep it from so small a cost
                continue
        tell(points, points, "")
    chosen = list({choice.key: choice for choice in reversed(found)}.values())
    kept = front([[choice.loss, priced(choice)[cost]] for choice in chosen])
    return [choice for choice, keep in zip(chosen, kept, strict=True) if keep]


def _cheap(problem: Chooser[C], cost: str, wanted: Costs) -> list[C]:
    """Return what may be the cheapest: by the table, within its limits or, where they are off, without."""
    try:
        return [problem.smallest(cost, wanted)]
    except SearchError:
        return [problem.smallest(cost)]


def _polished(problem: Chooser[C], choice: C, prices: _Prices[C]) -> C:
    """Change one width after another as far as the limits let, the change that lessens the loss most first."""
    tries = 0
    while True:
        for other in problem.neighbours(choice):
            tries += 1
            if tries > TRIES:
                return choice
            if prices.within(other):
                choice = other
                break
        else:
            return choice


def _nothing(wanted: Costs, candidates: list[C], prices: _Prices[C]) -> str:
    least = {name: min(prices.of(choice)[name] for choice in candidates) for name in wanted}
    for name, limit in wanted.items():
        if least[name] > limit * (1 + SLACK):
            return unreachable(name, limit, least[name], exact=prices.exact)
    each = ", ".join(f"{name} {cost:.6g}" for name, cost in least.items())
    return f"no choice was found within the limits of {' and '.join(wanted)} together; each alone can be {each}"


class _Prices(Generic[C]):
    """What whole networks cost, each choice priced once. `exact`: the table has been right of all of them."""

    def __init__(self, true_costs: Callable[[C], Costs], wanted: Costs) -> None:
        self._true_costs, self._wanted = true_costs, wanted
        self._known: dict[str, Costs] = {}
        self.exact = True

    def of(self, choice: C) -> Costs:
        key = choice.key
        if key not in self._known:
            costs = self._known[key] = self._true_costs(choice)
            self.exact &= all(abs(costs[name] - choice.costs[name]) <= EXACT * costs[name] for name in self._wanted)
        return self._known[key]

    def within(self, choice: C) -> bool:
        costs = self.of(choice)
        return all(costs[name] <= limit * (1 + SLACK) for name, limit in self._wanted.items())


class _Inner:
    """The limits that the table is asked for, and between which of them the true ones lie.

    least : the smallest that the table reaches, by name
    """

    def __init__(self, wanted: Costs, least: Costs) -> None:
        self._wanted, self._least = wanted, least
        self.limits = {name: max(limit, least[name]) for name, limit in wanted.items()}
        self._low: dict[str, float] = {}
        self._high: dict[str, float] = {}

    def loosen(self) -> None:
        self.limits = {name: limit * LOOSER for name, limit in self.limits.items()}

    def correct(self, choice: Candidate, costs: Costs) -> bool:
        """Correct the limits by what a choice really costs; return whether another attempt may find better."""
        over = [name for name, limit in self._wanted.items() if costs[name] > limit * (1 + SLACK)]
        before = dict(self.limits)
        for name in self._wanted:
            if name in over:
                self._high[name] = min(self._high.get(name, float("inf")), self.limits[name])
            elif not over:
                self._low[name] = max(self._low.get(name, 0.0), self.limits[name], choice.costs[name])
        if not over and any(costs[name] >= limit * (1 - CLOSE) for name, limit in self._wanted.items()):
            return False
        for name, limit in self._wanted.items():
            if not over or name in over:
                proposal = self._next(name, choice.costs[name] * limit / costs[name] if costs[name] else limit)
                self.limits[name] = max(proposal, self._least[name])
        # What is over by next to nothing is of no use yet: lower limits leave it out.
        return bool(over) or any(abs(self.limits[name] - limit) > CLOSE * limit for name, limit in before.items())

    def _next(self, name: str, proposal: float) -> float:
        """Return a proposal, or where it is known to be no help, the middle between what is too little and too much."""
        low, high = self._low.get(name), self._high.get(name)
        if low is not None and high is not None and not low * (1 + CLOSE) < proposal < high * (1 - CLOSE):
            return (low + high) / 2
        return proposal if high is None else min(proposal, high) * (1 - EXACT)
