"""The choice of widths as an integer program (HAWQ-V3, Yao et al., ICML 2021), solved exactly by HiGHS through SciPy.

One 0/1 variable for each layer and pair of widths; one of each layer's is 1; losses and costs add up over layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import SearchError
from accelsim.search.solver_output import without_debug_line

Losses = NDArray[np.float64]
SLACK = 1e-9
"""Of a limit: what float sums may be above it and still count as equal."""
MAX_CUTS = 200
LARGEST_OBJECTIVE = 1e4


@dataclass(frozen=True)
class Tie:
    """Layers that share the width of their weights, of their inputs, or both; `layers` are indices."""

    layers: tuple[int, ...]
    weights: bool
    activations: bool


@dataclass(frozen=True, eq=False)
class Program:
    """What to choose among.

    losses : [layers, weight widths, activation widths], to be made small in sum
    costs : by name, the same shape; `constant`: by name, what the rest of the network costs
    ties : layers that share widths
    allowed : bool, the same shape; None: everything is

    >>> program = Program(losses=np.array([[[3.0], [0.0]], [[1.0], [0.0]]]),  # two layers, each of 4 or 8 bits
    ...                   costs={"size": np.array([[[4.0], [8.0]], [[4.0], [8.0]]])}, constant={})
    >>> program.total("size", np.array([[1, 0], [0, 0]])), program.loss(np.array([[1, 0], [0, 0]]))
    (12.0, 1.0)
    """

    losses: Losses
    costs: Mapping[str, Losses]
    constant: Mapping[str, float]
    ties: tuple[Tie, ...] = ()
    allowed: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        shapes = {self.losses.shape, *(cost.shape for cost in self.costs.values())}
        if len(shapes) > 1 or self.losses.ndim != 3:
            raise SearchError(f"losses and costs have shapes {sorted(shapes)}; use one, [layers, widths, widths]")
        for name, values in (("losses", self.losses), *self.costs.items()):
            if not np.isfinite(values).all():
                raise SearchError(f"{name}: NaN or infinity; an integer program takes finite numbers")

    def total(self, cost: str, pick: NDArray[np.int64]) -> float:
        """Return the network's cost of a pick, [layers, 2] indices of widths."""
        return math.fsum(self.costs[cost][np.arange(len(pick)), pick[:, 0], pick[:, 1]]) + self.constant.get(cost, 0.0)

    def loss(self, pick: NDArray[np.int64]) -> float:
        """Return the sum of losses of a pick."""
        return math.fsum(self.losses[np.arange(len(pick)), pick[:, 0], pick[:, 1]])

    def permits(self, pick: NDArray[np.int64]) -> bool:
        """Return whether each layer's widths are allowed; of ties it says nothing."""
        return self.allowed is None or bool(self.allowed[np.arange(len(pick)), pick[:, 0], pick[:, 1]].all())


def solve(program: Program, limits: Mapping[str, float]) -> NDArray[np.int64]:
    """Return the pick of least loss within the limits, int64 [layers, 2]: indices of weight and activation widths.

    limits : by name of a cost, the most that the whole network may cost; of picks of equal loss, one that costs little

    Raises SearchError, which names the smallest value that can be reached, where nothing is within the limits.

    >>> program = Program(losses=np.array([[[3.0], [0.0]], [[1.0], [0.0]]]),  # two layers, each of 4 or 8 bits
    ...                   costs={"size": np.array([[[4.0], [8.0]], [[4.0], [8.0]]])}, constant={})
    >>> solve(program, {"size": 12.0}).tolist()  # the second layer suffers less from 4 bits
    [[1, 0], [0, 0]]
    >>> solve(program, {"size": 7.0})
    Traceback (most recent call last):
        ...
    accelsim.errors.SearchError: size of at most 7 cannot be reached; the smallest that can be chosen is 8
    """
    unknown = [name for name in limits if name not in program.costs]
    if unknown:
        raise SearchError(f"limit {unknown[0]!r} is no cost that adds up; use {', '.join(program.costs)}")
    for name, limit in limits.items():
        least = program.total(name, smallest(program, name))
        if least > limit * (1 + SLACK):
            raise SearchError(unreachable(name, limit, least))
    found = _minimise(program, program.losses, limits)
    if found is None:
        raise SearchError(_not_together(program, limits))
    return found


def smallest(program: Program, cost: str, limits: Mapping[str, float] | None = None) -> NDArray[np.int64]:
    """Return the pick that costs least, within limits if there are any.

    Raises SearchError where ties, allowed widths and limits leave nothing.
    """
    found = _minimise(program, program.costs[cost], limits or {})
    if found is None and limits:
        raise SearchError(_not_together(program, limits))
    if found is None:
        raise SearchError("nothing can be chosen: layers that are tied have nothing in common that is allowed")
    return found


def _not_together(program: Program, limits: Mapping[str, float]) -> str:
    each = ", ".join(f"{name} {program.total(name, smallest(program, name)):.6g}" for name in limits)
    return f"no choice is within the limits of {' and '.join(limits)} together; each alone can be as small as {each}"


def unreachable(name: str, limit: float, least: float, *, exact: bool = True) -> str:
    """Return the message for a limit below the smallest value; exact: False where others may be smaller yet."""
    what = "smallest that can be chosen" if exact else "smallest that was found"
    return f"{name} of at most {limit:.6g} cannot be reached; the {what} is {least:.6g}"


def operand_groups(layers: int, ties: Iterable[Tie], together: Iterable[int] = ()) -> list[tuple[tuple[int, int], ...]]:
    """Return the widths that can be chosen: groups of (layer, operand) that share one, operand 0 the weights, 1 the
    inputs; of layers without ties, groups of one.

    together : layers whose weights and inputs share a width

    >>> operand_groups(3, [Tie((0, 1), weights=False, activations=True)])
    [((0, 0),), ((0, 1), (1, 1)), ((1, 0),), ((2, 0),), ((2, 1),)]
    """
    owner = {(layer, operand): (layer, operand) for layer in range(layers) for operand in (0, 1)}
    for tie in ties:
        for operand, tied in enumerate((tie.weights, tie.activations)):
            joined = {owner[layer, operand] for layer in tie.layers} if tied else set()
            owner = {key: min(joined) if first in joined else first for key, first in owner.items()}
    for layer in together:
        joined = {owner[layer, 0], owner[layer, 1]}
        owner = {key: min(joined) if first in joined else first for key, first in owner.items()}
    return [tuple(key for key in owner if owner[key] == first) for first in dict.fromkeys(owner.values())]


def _minimise(program: Program, objective: Losses, limits: Mapping[str, float]) -> NDArray[np.int64] | None:
    """Return the pick of the least objective; None where there is none.

    The solver works in floats with tolerances. A pick that is over a limit by more than rounding is cut off, and the
    program is solved again.
    """
    cuts: list[NDArray[np.float64]] = []
    for _ in range(MAX_CUTS):
        pick = _highs(program, objective, limits, cuts)
        if pick is None:
            return None
        if all(program.total(name, pick) <= limit * (1 + SLACK) + _tiny(limit) for name, limit in limits.items()):
            return pick
        cut = np.zeros(program.losses.shape)
        cut[np.arange(len(pick)), pick[:, 0], pick[:, 1]] = 1
        cuts.append(cut.ravel())
    raise SearchError(f"after {MAX_CUTS} attempts the solver still finds picks over the limits by rounding alone")


def _tiny(limit: float) -> float:
    return SLACK if limit == 0 else 0.0


def _highs(
    program: Program, objective: Losses, limits: Mapping[str, float], cuts: Sequence[NDArray[np.float64]]
) -> NDArray[np.int64] | None:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    layers, rows, columns = program.losses.shape
    size, width = program.losses.size, rows * columns
    flat = objective.reshape(layers, width)
    # Only differences within a layer matter. Scaled up, so that the solver's absolute gap (1e-6) is next to nothing.
    centred = (flat - flat.min(axis=1, keepdims=True)).ravel()
    scaled = centred * (LARGEST_OBJECTIVE / centred.max()) if centred.max() > 0 else centred
    constraints: list[Any] = [LinearConstraint(csr_array(np.kron(np.eye(layers), np.ones(width))), 1, 1)]
    tied = _tie_rows(program)
    if len(tied):
        constraints.append(LinearConstraint(csr_array(tied), 0, 0))
    for name, limit in limits.items():
        cost = program.costs[name].ravel()
        free = limit - program.constant.get(name, 0.0)
        unit = max(abs(free), float(np.abs(cost).max()), 1e-300)
        constraints.append(LinearConstraint(cost[None] / unit, -np.inf, free / unit * (1 + SLACK)))
    constraints += [LinearConstraint(cut[None], -np.inf, layers - 1) for cut in cuts]
    upper = np.ones(size) if program.allowed is None else program.allowed.ravel().astype(np.float64)
    with without_debug_line():
        done = milp(
            scaled,
            integrality=np.ones(size),
            bounds=Bounds(0, upper),
            constraints=constraints,
            options={"mip_rel_gap": 0.0, "presolve": False},
        )
    if done.status == 2:
        return None
    if done.x is None:
        raise SearchError(f"the solver gave up: {done.message}")
    chosen = np.asarray(done.x).reshape(layers, width).argmax(axis=1)
    return np.stack([chosen // columns, chosen % columns], axis=1).astype(np.int64)


def _tie_rows(program: Program) -> NDArray[np.float64]:
    """Return one row for each width of each neighbouring pair of tied layers: equal sums."""
    made = []
    layers, rows, columns = program.losses.shape
    for tie in program.ties:
        for first, second in zip(tie.layers, tie.layers[1:], strict=False):
            if tie.weights:
                for place in range(rows):
                    row = np.zeros((layers, rows, columns))
                    row[first, place, :], row[second, place, :] = 1, -1
                    made.append(row.ravel())
            if tie.activations:
                for place in range(columns):
                    row = np.zeros((layers, rows, columns))
                    row[first, :, place], row[second, :, place] = 1, -1
                    made.append(row.ravel())
    return np.array(made)
