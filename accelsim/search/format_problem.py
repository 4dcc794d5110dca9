"""Named formats as an integer program: what each layer's formats do, measured, is taken to add up over layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import SearchError, did_you_mean
from accelsim.quantize.presets import Pair
from accelsim.search.program import Program, Tie, operand_groups, smallest, solve
from accelsim.search.ties import check_fixed

COSTS = {"latency": "latency_us", "energy": "energy_pj", "size": "size_bytes"}
"""Of each cost, the field of what has it."""


@dataclass(frozen=True, kw_only=True)
class FormatTrial:
    """One layer in one pair of formats, all others in the base.

    loss : increase over the base, in the unit of the measure; 0 where it came out smaller, which is chance
    latency_us, energy_pj, size_bytes : the whole network's, of one inference
    lacking : why the machine or the network cannot have it there (the other fields are NaN); None: it can
    """

    layer: str
    weights: str
    activations: str
    loss: float
    latency_us: float
    energy_pj: float
    size_bytes: float
    lacking: str | None = None


@dataclass(frozen=True, kw_only=True)
class FormatChoice:
    """(weights, activations) of every layer; loss and costs (µs, pJ, bytes of weights) as the sums have them."""

    formats: Mapping[str, Pair]
    loss: float
    costs: Mapping[str, float]

    @property
    def key(self) -> str:
        """What no other choice is called; `accelsim import --formats` takes it."""
        return ", ".join(f"{name}:{pair_name(pair)}" for name, pair in self.formats.items())


def pair_name(pair: Pair) -> str:
    """Return a pair of formats as one writes it.

    >>> pair_name(("int4", "int8")), pair_name(("mx6", "mx6"))
    ('int4/int8', 'mx6')
    """
    return pair[0] if pair[0] == pair[1] else "/".join(pair)


class FormatProblem:
    """Trials as an integer program [layers, formats of weights, formats of activations]; costs add up.

    trials : of each layer, in the order of `pairs`, the first of which is the base
    ties : layers that share formats; fixed : layers whose formats are given; together : weights and activations of a
        layer have one format, not of those that are fixed

    Raises SearchError for what is fixed and cannot be.

    >>> rows = [("a", "int8", 0.0, 8.0), ("a", "int4", 0.3, 6.0), ("b", "int8", 0.0, 8.0), ("b", "int4", 0.1, 6.0)]
    >>> trials = [FormatTrial(layer=layer, weights=form, activations=form, loss=loss, latency_us=1.0, energy_pj=1.0,
    ...                       size_bytes=size) for layer, form, loss, size in rows]
    >>> problem = FormatProblem(trials, [("int8", "int8"), ("int4", "int4")])
    >>> problem.solve({"size": 7.0}).key
    'a:int8, b:int4'
    """

    def __init__(
        self,
        trials: Sequence[FormatTrial],
        pairs: Sequence[Pair],
        *,
        ties: Iterable[Tie] = (),
        fixed: Mapping[str, Pair] | None = None,
        together: bool = False,
    ) -> None:
        self._layers = list(dict.fromkeys(trial.layer for trial in trials))
        self._names = tuple(list(dict.fromkeys(pair[operand] for pair in pairs)) for operand in (0, 1))
        ties = tuple(ties)
        check_given(self._layers, pairs, ties, fixed or {})
        groups = operand_groups(len(self._layers), ties)
        self._tied = {key: group for group in groups for key in group}
        shape = (len(self._layers), *map(len, self._names))
        allowed, losses = np.zeros(shape, bool), np.zeros(shape)
        costs = {cost: np.zeros(shape) for cost in COSTS}
        base = {cost: getattr(trials[0], field) for cost, field in COSTS.items()}
        for trial in trials:
            at = self._layers.index(trial.layer), *self._place((trial.weights, trial.activations))
            if trial.lacking is None:
                allowed[at], losses[at] = True, trial.loss
                for cost, field in COSTS.items():
                    costs[cost][at] = getattr(trial, field) - base[cost]
        self._allowed = allowed & self._given(fixed or {}, together)
        # Costs of a program are positive; what a layer saves is taken off the rest of the network.
        lowest = {cost: values.min(axis=(1, 2), keepdims=True) for cost, values in costs.items()}
        self._program = Program(
            losses,
            {cost: np.where(allowed, values - lowest[cost], 0.0) for cost, values in costs.items()},
            {cost: base[cost] + float(lowest[cost].sum()) for cost in COSTS},
            ties=ties,
            allowed=self._allowed,
        )

    @property
    def narrowest(self) -> FormatChoice:
        """The formats whose weights take least room."""
        return self.smallest("size")

    def smallest(self, cost: str, limits: Mapping[str, float] | None = None) -> FormatChoice:
        """Return the formats that cost least, within limits if there are any."""
        return self._choice(smallest(self._program, cost, limits))

    def solve(self, limits: Mapping[str, float]) -> FormatChoice:
        """Return the formats of least loss within limits."""
        return self._choice(solve(self._program, limits))

    def chosen(self, formats: Mapping[str, Pair]) -> FormatChoice:
        """Return what the sums say of formats, each of which is among those to choose."""
        return self._choice(np.array([self._place(formats[name]) for name in self._layers]))

    def neighbours(self, choice: FormatChoice) -> Iterator[FormatChoice]:
        """Yield the choices of less loss that differ in one layer and what is tied to it, least loss first."""
        pick = np.array([self._place(pair) for pair in choice.formats.values()])
        found: dict[bytes, tuple[float, NDArray[np.int64]]] = {}
        for layer, weights, activations in np.argwhere(self._allowed).tolist():
            other = self._changed(pick, layer, (weights, activations))
            if other is not None and (loss := self._program.loss(other)) < choice.loss:
                found[other.tobytes()] = loss, other
        yield from (self._choice(other) for _, other in sorted(found.values(), key=lambda each: each[0]))

    def _changed(self, pick: NDArray[np.int64], layer: int, place: tuple[int, int]) -> NDArray[np.int64] | None:
        """Return a pick with one layer changed, and what is tied to it; None where that cannot be.

        A layer of which only one operand is tied gets, where what it had for the other does not go with it, what does
        with least loss.
        """
        other = pick.copy()
        for operand in (0, 1):
            for each, tied in self._tied[layer, operand]:
                other[each, tied] = place[operand]
        for each in range(len(pick)):
            if self._allowed[each, other[each, 0], other[each, 1]]:
                continue
            free = [operand for operand in (0, 1) if len(self._tied[each, operand]) == 1]
            if len(free) != 1:
                return None
            at: list[Any] = [each, *other[each]]
            at[1 + free[0]] = slice(None)
            possible = np.where(self._allowed[tuple(at)], self._program.losses[tuple(at)], np.inf)
            if np.isinf(possible.min()):
                return None
            other[each, free[0]] = possible.argmin()
        return other

    def _place(self, pair: Pair) -> tuple[int, int]:
        return self._names[0].index(pair[0]), self._names[1].index(pair[1])

    def _given(self, fixed: Mapping[str, Pair], together: bool) -> NDArray[np.bool_]:
        """Return which formats may be chosen for what is fixed, and for operands that are alike."""
        weights, activations = self._names
        alike = np.equal.outer(weights, activations) if together else np.ones((len(weights), len(activations)), bool)
        if not alike.any():
            raise SearchError("weights and inputs of a layer share a format (operands), and none serves both; name one")
        given = np.repeat(alike[None], len(self._layers), axis=0)
        for name, pair in fixed.items():
            given[self._layers.index(name)] = False
            given[(self._layers.index(name), *self._place(pair))] = True
        return given

    def _choice(self, pick: NDArray[np.int64]) -> FormatChoice:
        return FormatChoice(
            formats={
                name: (self._names[0][w], self._names[1][a])
                for name, (w, a) in zip(self._layers, pick.tolist(), strict=True)
            },
            loss=self._program.loss(pick),
            costs={cost: self._program.total(cost, pick) for cost in COSTS},
        )


def check_given(layers: Sequence[str], pairs: Sequence[Pair], ties: Iterable[Tie], fixed: Mapping[str, Pair]) -> None:
    """Raise SearchError where the formats that layers are fixed to are not among `pairs`, or contradict ties.

    >>> check_given(["a", "b"], [("int8", "int8"), ("mx6", "mx6")], [], {"a": ("mx6", "mx6")})
    """
    for name, pair in fixed.items():
        if name not in layers:
            raise SearchError(f"fixed: {name!r} is no layer with formats{did_you_mean(name, layers)}")
        if pair not in pairs:
            raise SearchError(
                f"fixed: {name} has {pair_name(pair)}, which is not among the formats to choose: "
                f"{', '.join(map(pair_name, pairs))}"
            )
    check_fixed(fixed, ties, layers)
