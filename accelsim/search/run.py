"""A whole search: tables, sensitivities, the integer program, and a run of what it found, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.config.model import HardwareConfig
from accelsim.errors import SearchError, did_you_mean
from accelsim.memory.needs import NetworkShapes
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.requantizer import Requantizer
from accelsim.search.candidate import Verified, Widths, split, true_costs, uniform, verify
from accelsim.search.costs import CostTable, cost_table
from accelsim.search.problem import Choice, Limit, Problem, names_of
from accelsim.search.program import Tie
from accelsim.search.sensitivity import Measure, Sensitivities, measure_sensitivities
from accelsim.search.ties import KINDS

if TYPE_CHECKING:
    import pandas as pd

ATTEMPTS = 8
BASE = 8
Progress = Callable[[int, int, str], None]


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
    ties : "inputs" (layers that read one tensor), "residual", "depthwise" (accelsim.search.ties), or none
    fixed : layers whose widths are given
    ranges : how scales are chosen (docs/quantize.md)

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
        ties: Iterable[str] = ("inputs",),
        fixed: Mapping[str, tuple[int, int]] | None = None,
        ranges: str = "mse",
        progress: Progress | None = None,
    ) -> None:
        self.config, self.network = config, network
        self.weight_bits, self.activation_bits = sorted(set(weight_bits)), sorted(set(activation_bits))
        self._first, others = split(network, calibration)
        self._sensitivities, self._measure, self._progress = sensitivities, measure, progress
        self._ranges, self._fixed = ranges, dict(fixed or {})
        self._problem: Problem | None = None
        self.requantizer = Requantizer(others, ranges=ranges, references=False)
        self._one = Requantizer(others.head(1), ranges=ranges, references=False)
        names = [layer.name for layer in network.array_layers]
        self._ties: list[Tie] = []
        for kind in ties:
            if kind not in KINDS:
                raise SearchError(f"ties {kind!r} are unknown{did_you_mean(kind, KINDS)}; use {', '.join(KINDS)}")
            self._ties += KINDS[kind](network, names)

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
            table = cost_table(self.config, shapes, self.weight_bits, self.activation_bits)
            self._problem = Problem(table, self.sensitivities, ties=self._ties, fixed=self._fixed)
        return self._problem

    def find(self, limits: Mapping[str, Limit]) -> Found:
        """Return the widths of least loss within the limits, verified by a run of the network.

        limits : as of :meth:`choose`

        Raises SearchError where they cannot be reached.
        """
        choice = self.choose(limits)
        return self._found("found", choice.widths, choice)

    def choose(self, limits: Mapping[str, Limit]) -> Choice:
        """Return the widths of least loss within the limits; the network is not run with them.

        limits : by cost, "latency" (µs), "energy" (pJ), "size" (bytes), "bops": a number, or a text like "70%", of the
            network with the widest widths. They hold for the whole network as the machine runs it: where the sum over
            the table is off, the program is solved again with corrected limits

        Raises SearchError where they cannot be reached.
        """
        problem = self.problem
        wanted = self._absolute(limits)
        inner = dict(wanted)
        for _ in range(ATTEMPTS):
            choice = problem.solve(inner)
            real = self.costs(choice.widths)
            over = {name: real[name] / limit for name, limit in wanted.items() if real[name] > limit * (1 + 1e-9)}
            if not over:
                return choice
            for name in over:  # what the table said of this choice, less what is too much
                inner[name] = min(inner[name], choice.costs[name]) * (1 - 1e-6) / over[name]
        raise SearchError(f"after {ATTEMPTS} attempts the network still takes more than {', '.join(over)} allows")

    def front(self, cost: str, points: int = 12) -> list[Found]:
        """Return choices between the cheapest and the widest, each verified; some may turn out worse than others."""
        return [
            self._found("found", choice.widths, choice)
            for choice in self.problem.front(cost, points)  # type: ignore[arg-type]
        ]

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
        start = [choice.widths for choice in self.problem.front(cost, 8)]  # type: ignore[arg-type]
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
            start=start,
            storage=storage,
            seed=seed,
            progress=self._progress,
        )
        best = frame[frame["on_front"]].sort_values("energy_pj")
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

    def verify(self, widths: Mapping[str, tuple[int, int]], config: HardwareConfig | None = None) -> Verified:
        """Run widths bit by bit, here or on another machine."""
        return verify(self.requantizer, config or self.config, widths)

    def costs(self, widths: Mapping[str, tuple[int, int]], config: HardwareConfig | None = None) -> dict[str, float]:
        """Return what widths cost the whole network, here or on another machine, without running it."""
        return true_costs(self._one, config or self.config, widths)

    def _absolute(self, limits: Mapping[str, Limit]) -> dict[str, float]:
        """Return limits in the costs' units; shares are of the whole network, not of the table's sum."""
        problem, wanted = self.problem, {}
        widest = self.costs(problem.widest.widths)
        for name, limit in limits.items():
            wanted[name] = problem.limit(name, limit)
            if isinstance(limit, str) and "%" in limit:
                wanted[name] *= widest[name] / problem.widest.costs[name]
        return wanted

    def _found(self, label: str, widths: Mapping[str, Widths], choice: Choice | None) -> Found:
        return Found(label=label, widths=widths, choice=choice, verified=self.verify(widths))


def frame_of(found: Iterable[Found]) -> pd.DataFrame:
    """Return verified points as a data frame, a row each."""
    import pandas as pd

    return pd.DataFrame([each.row() for each in found])
