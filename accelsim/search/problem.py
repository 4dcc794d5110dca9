"""A search by costs and sensitivities that add up: fed with tables, solved exactly, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import SearchError, did_you_mean
from accelsim.search.candidate import Widths
from accelsim.search.costs import Cost, CostTable
from accelsim.search.pareto import front as pareto_front
from accelsim.search.program import Program, Tie, operand_groups, smallest, solve
from accelsim.search.sensitivity import Sensitivities
from accelsim.search.ties import check_fixed, nothing_in_common

if TYPE_CHECKING:
    import pandas as pd

ADDITIVE: tuple[Cost, ...] = ("latency", "energy", "size", "bops")
UNITS = {"latency": "µs", "energy": "pJ", "size": "bytes", "bops": "BOPs"}
Limit = float | str
"""In the cost's unit; or relative to the network with the widest widths everywhere: "70%"."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Widths for every layer, as the tables see them.

    loss : sum of the layers' sensitivities
    costs : latency µs, energy pJ, size bytes, bops: sums over the layers of the table
    """

    widths: Mapping[str, Widths]
    loss: float
    costs: Mapping[str, float]

    @property
    def key(self) -> str:
        """What no other choice is called."""
        return str(self.widths)

    def row(self) -> dict[str, Any]:
        """Return one flat row: loss, costs, then ``<layer>`` as weight/activation bits."""
        return {"loss": self.loss, **self.costs, **{name: str(widths) for name, widths in self.widths.items()}}


class Problem:
    """What a search chooses among.

    table : what widths cost (accelsim.search.costs)
    sensitivities : what they do to the network (accelsim.search.sensitivity)
    ties : layers that share widths (accelsim.search.ties)
    fixed : layers whose widths are given, e.g. {"conv1": (8, 8)}
    together : weights and inputs of a layer have one width, as in HAWQ-V3; not of those that are fixed

    Raises SearchError where the table lacks a width, sensitivities a layer, or what is fixed contradicts ties.

    >>> import accelsim
    >>> from accelsim.search.costs import cost_table
    >>> from accelsim.search.sensitivity import Sensitivity
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> table = cost_table(accelsim.load_config("configs/bitfusion.yaml"), trace, [4, 8], [8])
    >>> loss = {"conv1": 0.3, "conv2": 0.2, "fc1": 0.1, "fc2": 0.3}  # with 4-bit weights
    >>> rows = [Sensitivity(name, "weight", bits, loss[name] if bits == 4 else 0.0) for name in loss for bits in (4, 8)]
    >>> problem = Problem(table, Sensitivities("supplied", tuple(rows)))
    >>> problem.widest.costs["size"]  # bytes of weights
    38160.0
    >>> choice = problem.solve({"size": "60%"})
    >>> {name: widths.weight for name, widths in choice.widths.items()}, choice.loss
    ({'conv1': 8, 'conv2': 8, 'fc1': 4, 'fc2': 8}, 0.1)
    """

    def __init__(
        self,
        table: CostTable,
        sensitivities: Sensitivities,
        *,
        ties: Iterable[Tie] = (),
        fixed: Mapping[str, tuple[int, int]] | None = None,
        together: bool = False,
    ) -> None:
        self.table = table
        ties = tuple(ties)
        check_widths(fixed or {}, ties, table.layers, table.weight_bits, table.activation_bits)
        free = [place for place, name in enumerate(table.layers) if together and name not in (fixed or {})]
        self._groups = operand_groups(len(table.layers), ties, free)
        losses = sensitivities.array(table.layers, table.weight_bits, table.activation_bits)
        self._program = Program(
            losses=losses,
            costs={cost: table.array(cost) for cost in ADDITIVE},
            constant={cost: float(sum(cell.value(cost) for cell in table.fixed)) for cost in ADDITIVE},
            ties=ties,
            allowed=self._allowed(fixed or {}, together),
        )

    @property
    def widest(self) -> Choice:
        """The greatest widths everywhere, which relative limits refer to."""
        last = [len(self.table.weight_bits) - 1, len(self.table.activation_bits) - 1]
        return self._choice(np.array([last] * len(self.table.layers)))

    @property
    def narrowest(self) -> Choice:
        """The widths with the fewest bit operations."""
        return self.smallest("bops")

    def smallest(self, cost: str, limits: Mapping[str, float] | None = None) -> Choice:
        """Return the widths that cost least, within limits in the costs' units if there are any.

        Raises SearchError for a cost that does not add up, and where nothing is within the limits.
        """
        return self._choice(smallest(self._program, _additive(cost), limits))

    def solve(self, limits: Mapping[str, Limit]) -> Choice:
        """Return the widths of least loss within all limits, exactly.

        limits : by cost ("latency" in µs, "energy" in pJ, "size" in bytes, "bops"), the most that the network may
            take: a number, or a text like "70%": of what the widest widths take; without any, nothing limits them

        Raises SearchError where that cannot be reached, and says what can.
        """
        return self._choice(solve(self._program, {_additive(name): self.limit(name, limits[name]) for name in limits}))

    def neighbours(self, choice: Choice) -> Iterator[Choice]:
        """Yield the choices of less loss that differ in one width (tied layers all change theirs), least loss first."""
        known = self.table.weight_bits, self.table.activation_bits
        pick = np.array([[known[0].index(w), known[1].index(a)] for w, a in choice.widths.values()])
        found = []
        for group in self._groups:
            for bits in set.intersection(*(set(known[operand]) for _, operand in group)):
                other = pick.copy()
                for layer, operand in group:
                    other[layer, operand] = known[operand].index(bits)
                loss = self._program.loss(other)
                if loss < choice.loss and self._program.permits(other):
                    found.append((loss, other))
        yield from (self._choice(other) for _, other in sorted(found, key=lambda each: each[0]))

    def front(self, cost: str, points: int = 20) -> list[Choice]:
        """Return choices from the cheapest to the widest, none worse in both loss and cost than another: the program
        is solved for so many limits between the two, evenly spaced.
        """
        if points < 2:
            raise SearchError(f"points={points}: a front has 2 or more")
        low, high = self.smallest(cost).costs[cost], self.widest.costs[cost]
        found = [self.solve({cost: limit}) for limit in np.linspace(low, high, points)]
        kept = pareto_front([[choice.loss, choice.costs[cost]] for choice in found])
        return [choice for choice, keep in zip(found, kept, strict=True) if keep]

    def front_frame(self, cost: str, points: int = 20) -> pd.DataFrame:
        """Return :meth:`front` as a data frame, a row a choice."""
        import pandas as pd

        return pd.DataFrame([choice.row() for choice in self.front(cost, points)])

    def limit(self, cost: str, limit: Limit) -> float:
        """Return a limit as a number in the cost's unit. Raises SearchError for what is neither number nor share."""
        number, is_share = read_limit(cost, limit)
        return number * self.widest.costs[cost] if is_share else number

    def _choice(self, pick: NDArray[np.int64]) -> Choice:
        table = self.table
        widths = {
            name: Widths(table.weight_bits[w], table.activation_bits[a])
            for name, (w, a) in zip(table.layers, pick.tolist(), strict=True)
        }
        return Choice(
            widths=widths,
            loss=self._program.loss(pick),
            costs={cost: self._program.total(cost, pick) for cost in ADDITIVE},
        )

    def _allowed(self, fixed: Mapping[str, tuple[int, int]], together: bool) -> NDArray[np.bool_]:
        table = self.table
        allowed = np.ones((len(table.layers), len(table.weight_bits), len(table.activation_bits)), bool)
        if together:
            allowed &= np.equal.outer(table.weight_bits, table.activation_bits)
            if not allowed.any():
                raise SearchError(nothing_in_common(table.weight_bits, table.activation_bits))
        for name, (w, a) in fixed.items():
            place = table.layers.index(name)
            allowed[place] = False
            allowed[place, table.weight_bits.index(w), table.activation_bits.index(a)] = True
        return allowed


def check_widths(
    fixed: Mapping[str, tuple[int, int]],
    ties: Iterable[Tie],
    layers: Sequence[str],
    weight_bits: Sequence[int],
    activation_bits: Sequence[int],
) -> None:
    """Raise SearchError where widths that layers are fixed to are not among those to choose, or contradict ties.

    >>> check_widths({"conv1": (8, 8)}, [], ["conv1", "fc1"], [4, 8], [8])
    """
    for name, (w, a) in fixed.items():
        if name not in layers:
            raise SearchError(f"fixed: {name!r} is no layer with widths{did_you_mean(name, layers)}")
        if w not in weight_bits or a not in activation_bits:
            known = (", ".join(map(str, bits)) for bits in (weight_bits, activation_bits))
            raise SearchError(f"fixed: {name} has {w}/{a} bits; to choose are {' / '.join(known)}")
    check_fixed(fixed, ties, layers)


def read_limit(cost: str, limit: Limit) -> tuple[float, bool]:
    """Return a limit as a number, and whether it is a share. Raises SearchError for what is neither, and for no cost.

    >>> read_limit("size", "70%"), read_limit("latency", 250)
    ((0.7, True), (250.0, False))
    """
    _additive(cost)
    text = str(limit).strip()
    is_share = text.endswith("%")
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = float("nan")
    if not 0 <= number < float("inf"):
        raise SearchError(f"{cost}: limit {limit!r} is no number; give {UNITS[cost]}, or a share such as 70%")
    return (number / 100 if is_share else number), is_share


def _additive(cost: str) -> Cost:
    if cost not in ADDITIVE:
        why = " (the product of two sums is no sum: limit both)" if cost == "edp" else ""
        raise SearchError(f"{cost!r} is no cost that adds up over layers{why}; use {', '.join(ADDITIVE)}")
    return cost


def names_of(widths: Mapping[str, Sequence[int]]) -> str:
    """Return widths as `--formats` takes them: ``conv1:int8, conv2:int4/int6``."""
    words = {name: f"int{w}" if w == a else f"int{w}/int{a}" for name, (w, a) in widths.items()}
    return ", ".join(f"{name}:{form}" for name, form in words.items())
