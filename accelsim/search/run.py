"""A whole search: tables, sensitivities, the integer program, and a run of what it found, bit by bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from accelsim.config.model import HardwareConfig
from accelsim.errors import SearchError
from accelsim.memory.needs import NetworkShapes
from accelsim.progress import ProgressCallback, layer_progress
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.requantizer import Requantizer
from accelsim.search.candidate import FIELDS, Verified, Widths, split, true_costs, uniform, verify
from accelsim.search.costs import CostTable, cost_table
from accelsim.search.limits import choose_within, front_within
from accelsim.search.pareto import front as pareto_front
from accelsim.search.problem import ADDITIVE, Choice, Limit, Problem, check_widths, names_of, read_limit
from accelsim.search.sensitivity import Measure, Sensitivities, measure_sensitivities
from accelsim.search.ties import OPERANDS, ties_of

if TYPE_CHECKING:
    import pandas as pd

BASE = 8


@dataclass(frozen=True, kw_only=True)
class Found:
    """One point of a search, verified.

    label : what it is: "found", or the uniform widths "8/8"
    choice : as the tables see it; None for uniform widths outside them
    verified : as the machine runs it
    """

    label: str
    widths: Mapping[str, Widths]
    choice: Choice | None
    verified: Verified

    @property
    def formats(self) -> str:
        """The widths as ``accelsim import --formats`` takes them."""
        return names_of(self.widths)

    @property
    def names(self) -> list[str]:
        """The widths of each layer, as one writes them."""
        return [str(each) for each in self.widths.values()]

    def row(self) -> dict[str, Any]:
        """Return one flat row: what was verified, the predicted loss, and the widths of each layer."""
        loss = None if self.choice is None else self.choice.loss
        widths = {name: str(each) for name, each in self.widths.items()}
        return {"label": self.label, **self.verified.row(), "predicted_loss": loss, **widths}


class Search:
    """A network and a machine, and everything about them that searches share; measured once, when first asked for.

    config : the machine
    network : a float network with data, and labels if accuracy is to be told
    calibration : its first inputs, on which scales are chosen and sensitivities measured; accuracy is the others'
    weight_bits, activation_bits : widths to choose among
    sensitivities : supplied ones (accelsim.search.sensitivity); None: measured, by `measure`
    ties : "inputs" (layers that read one tensor), "residual", "depthwise" (accelsim.search.ties), "operands" (weights
        and inputs of a layer have one width). None: inputs, and operands where sensitivities that are supplied say
        nothing of activations (Hessian traces), which would get the fewest bits otherwise
    fixed : layers whose widths are given
    ranges : how scales are chosen (docs/quantize.md)
    progress : True: a bar for what takes long, on a terminal or in a notebook, elsewhere a line every ten seconds; or
        a callback

    Raises SearchError, NetworkError for what does not fit.

    >>> from accelsim import load_config
    >>> from accelsim.quantize.network_file import load_network
    >>> network = load_network("traces/digits_cnn_float.npz").head(60)
    >>> config = load_config("configs/bitfusion.yaml")
    >>> search = Search(config, network, calibration=20, weight_bits=[4, 8], activation_bits=[8])
    >>> found, widest = search.find({"energy": "80%"}), search.uniform(8)
    >>> found.verified.energy_pj < 0.8 * widest.verified.energy_pj, found.verified.inputs
    (True, 40)
    >>> found.formats  # as `accelsim import --formats` takes them
    'conv1:int8, conv2:int8, fc1:int4/int8, fc2:int8'
    """

    def __init__(
        self,
        config: HardwareConfig,
        network: FloatNetwork,
        *,
        calibration: int,
        weight_bits: Iterable[int] = range(2, 9),
        activation_bits: Iterable[int] = range(2, 9),
        sensitivities: Sensitivities | None = None,
        measure: Measure = "kl",
        ties: Iterable[str] | None = None,
        fixed: Mapping[str, tuple[int, int]] | None = None,
        ranges: str = "mse",
        progress: ProgressCallback | bool | None = None,
    ) -> None:
        self.config, self.network = config, network
        self.weight_bits, self.activation_bits = sorted(set(weight_bits)), sorted(set(activation_bits))
        self._first, others = split(network, calibration)
        self._sensitivities, self._measure, self._progress = sensitivities, measure, progress
        self._ranges, self._fixed = ranges, dict(fixed or {})
        self._problem: Problem | None = None
        self.requantizer = Requantizer(others, ranges=ranges, references=False)
        self._one = Requantizer(others.head(1), ranges=ranges, references=False)
        kinds = self._kinds(ties)
        self._together = OPERANDS in kinds
        names = [layer.name for layer in network.array_layers]
        self._ties = ties_of(kinds, network, names)
        check_widths(self._fixed, self._ties, names, self.weight_bits, self.activation_bits)

    def _kinds(self, ties: Iterable[str] | None) -> list[str]:
        supplied = self._sensitivities
        blind = supplied is not None and not supplied.of_activations and len(self.activation_bits) > 1
        if ties is None:
            return ["inputs", *([OPERANDS] if blind else [])]
        kinds = list(ties)
        if blind and OPERANDS not in kinds:
            raise SearchError(
                f"the sensitivities say nothing of activations, which would get the fewest bits; tie {OPERANDS!r} too "
                f"(inputs as wide as weights), allow one width of activations, or supply sensitivities of them"
            )
        return kinds

    @property
    def sensitivities(self) -> Sensitivities:
        """What each width does to the network, measured on the calibration inputs unless supplied."""
        if self._sensitivities is None:
            self._sensitivities = measure_sensitivities(
                Requantizer(self._first, ranges=self._ranges, references=False),
                self.config,
                self.weight_bits,
                self.activation_bits,
                measure=self._measure,
                base=BASE,
                progress=self._progress,
            )
        return self._sensitivities

    @property
    def table(self) -> CostTable:
        """What widths cost on the machine, for one inference."""
        return self.problem.table

    @property
    def problem(self) -> Problem:
        """The integer program's data."""
        if self._problem is None:
            pairs = {layer.name: (f"int{BASE}", f"int{BASE}") for layer in self.network.array_layers}
            shapes = NetworkShapes.of(self._one.trace(pairs))
            table = cost_table(self.config, shapes, self.weight_bits, self.activation_bits, progress=self._progress)
            self._problem = Problem(
                table, self.sensitivities, ties=self._ties, fixed=self._fixed, together=self._together
            )
        return self._problem

    def find(self, limits: Mapping[str, Limit]) -> Found:
        """Return the widths of least loss within the limits, verified by a run of the network.

        limits : as of :meth:`choose`

        Raises SearchError where they cannot be reached.
        """
        choice = self.choose(limits)
        return self._found("found", choice.widths, choice)

    def choose(self, limits: Mapping[str, Limit]) -> Choice:
        """Return widths of little loss within the limits; the network is not run with them.

        limits : by cost, "latency" (µs), "energy" (pJ), "size" (bytes), "bops": a number, or a text like "70%", of the
            network with the widest widths. They hold for the whole network as the machine runs it: where the sum over
            the table is off, the program is solved again with corrected limits

        No choice within the limits has less loss where the table's sums are the network's costs; elsewhere none that
        differs in one width has, see accelsim.search.limits.choose_within.

        Raises SearchError where they cannot be reached.
        """
        if not limits:
            raise SearchError(f"no limit: without one, the widest widths are best; limit {' or '.join(ADDITIVE)}")
        wanted = self._absolute(limits)
        return choose_within(self.problem, lambda choice: self.costs(choice.widths), wanted)

    def front(self, cost: str, points: int = 12, limits: Mapping[str, Limit] | None = None) -> list[Found]:
        """Return choices between the cheapest and the widest, each verified; some may turn out worse than others.

        limits : as of :meth:`choose`, kept by all of them; the one of `cost` itself is where the front ends. Without
            any, the front is that of the table's sums, else that of what whole networks cost

        Raises SearchError where limits cannot be reached.
        """
        found = []
        if limits:
            wanted = self._absolute(limits)
            choices = front_within(
                self.problem, lambda each: self.costs(each.widths), cost, points, wanted, progress=self._progress
            )
        else:
            choices = self.problem.front(cost, points)
        with layer_progress(self._progress, "points") as tell:
            for done, choice in enumerate(choices):
                tell(done, len(choices), "runs that verify")
                found.append(self._found("found", choice.widths, choice))
            tell(len(choices), len(choices), "")
        return found

    def blackbox(
        self, trials: int, cost: str, limits: Mapping[str, Limit], storage: str | Path | None = None, *, seed: int = 0
    ) -> list[Found]:
        """Return the front of accuracy and a cost by runs of the whole network (accelsim.search.blackbox), which begins
        with the integer program's front. Accuracy is that of the calibration inputs in the search, and of the others in
        what is returned.

        Raises SearchError as it does, and where no trial is within the limits.
        """
        from accelsim.search.blackbox import search_blackbox

        first = Requantizer(self._first, ranges=self._ranges, references=False)
        frame = search_blackbox(
            first,
            self.config,
            trials=trials,
            costs=[cost],
            limits=self._absolute(limits),
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            ties=self._ties,
            fixed=self._fixed,
            start=lambda: [choice.widths for choice in self.problem.front(cost, 8)],
            storage=storage,
            seed=seed,
            together=self._together,
            progress=self._progress,
        )
        best = frame[frame["on_front"]].sort_values(FIELDS[cost])
        if best.empty:
            raise SearchError(f"none of {len(frame)} trials is within the limits; try more, or wider limits")
        names = [layer.name for layer in self.network.array_layers]
        found = []
        for _, row in best.iterrows():
            widths = {name: Widths(*map(int, row[name].split("/"))) for name in names}
            found.append(self._found("found", widths, None))
        return found

    def uniform(self, weight_bits: int, activation_bits: int | None = None) -> Found:
        """Return the network with one width everywhere, verified."""
        widths = uniform(self.network, weight_bits, activation_bits)
        return self._found(str(next(iter(widths.values()))), widths, None)

    def reference(self) -> Found:
        """Return the network with its widest widths, verified: what shares of limits refer to."""
        return self.uniform(self.weight_bits[-1], self.activation_bits[-1])

    def verify(self, widths: Mapping[str, tuple[int, int]], config: HardwareConfig | None = None) -> Verified:
        """Run widths bit by bit, here or on another machine."""
        return verify(self.requantizer, config or self.config, widths)

    def costs(self, widths: Mapping[str, tuple[int, int]], config: HardwareConfig | None = None) -> dict[str, float]:
        """Return what widths cost the whole network, here or on another machine, without running it."""
        return true_costs(self._one, config or self.config, widths)

    def _absolute(self, limits: Mapping[str, Limit]) -> dict[str, float]:
        """Return limits in the costs' units; shares are of the whole network, not of the table's sum."""
        read = {name: read_limit(name, limit) for name, limit in limits.items()}  # before anything is measured
        widest = self.costs(uniform(self.network, self.weight_bits[-1], self.activation_bits[-1]))
        return {name: number * widest[name] if is_share else number for name, (number, is_share) in read.items()}

    def _found(self, label: str, widths: Mapping[str, Widths], choice: Choice | None) -> Found:
        return Found(label=label, widths=widths, choice=choice, verified=self.verify(widths))


class Point(Protocol):
    """One verified point of a search: of widths (Found), or of formats (accelsim.search.format_search)."""

    @property
    def label(self) -> str: ...

    @property
    def formats(self) -> str: ...

    @property
    def names(self) -> list[str]: ...

    def row(self) -> dict[str, Any]: ...


def on_front(found: Sequence[Point], costs: Sequence[str] = ("energy",)) -> list[bool]:
    """Return which verified points nothing else among them beats: in accuracy (agreement with the float network where
    there are no labels) and costs, as verified.
    """
    rows = [each.row() for each in found]
    values = [
        [
            -float((row["agreement"] if row["accuracy"] is None else row["accuracy"]) or 0.0),
            *(float(row[FIELDS[cost]]) for cost in costs),
        ]
        for row in rows
    ]
    kept: list[bool] = pareto_front(values).tolist()
    return kept


def frame_of(found: Iterable[Point], costs: Sequence[str] = ("energy",)) -> pd.DataFrame:
    """Return verified points as a data frame, a row each; `on_front`: of these points, none is as good in accuracy and
    costs, and better in one of them.
    """
    import pandas as pd

    points = list(found)
    flags = on_front(points, costs) if points else []
    rows = [{"on_front": flag, **each.row()} for each, flag in zip(points, flags, strict=True)]
    return pd.DataFrame([{"label": row.pop("label"), **row} for row in rows])
