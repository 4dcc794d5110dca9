"""Named number formats for each layer, instead of widths: integers, VSQ, microexponents, OCP MX, floats side by side.

Nothing is assumed of the formats. Each layer alone gets each pair of formats, all others have the base; the network is
run bit by bit for the loss, and estimated as a whole for the cost. Both are taken to add up over layers; what is found
is within limits of the whole network, which is priced again (accelsim.search.limits), and run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.config.model import HardwareConfig
from accelsim.errors import AccelsimError, SearchError
from accelsim.estimation import check_operand_format, estimate
from accelsim.progress import ProgressCallback, layer_progress
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.presets import Pair
from accelsim.quantize.requantizer import Requantizer
from accelsim.search.candidate import split
from accelsim.search.format_problem import (
    COSTS,
    FormatChoice,
    FormatProblem,
    FormatTrial,
    check_given,
    pair_name,
)
from accelsim.search.limits import choose_within, front_within
from accelsim.search.problem import read_limit
from accelsim.search.sensitivity import Measure, RunLoss
from accelsim.search.ties import OPERANDS, ties_of
from accelsim.simulation import simulate
from accelsim.trace.reader import Trace

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class FormatFound:
    """A choice, and what a run of the network with it gives, on the inputs that were not chosen by.

    label : what it is: "found", or the formats of all layers, "int8" or "int4/int8"
    accuracy, float_accuracy, agreement, inputs : as of accelsim.search.candidate.Verified
    """

    label: str = "found"
    choice: FormatChoice
    accuracy: float | None
    float_accuracy: float | None
    agreement: float | None
    inputs: int
    latency_us: float
    energy_pj: float
    size_bytes: float
    overflows: int

    @property
    def formats(self) -> str:
        """The formats as ``accelsim import --formats`` takes them."""
        return self.choice.key

    @property
    def names(self) -> list[str]:
        """The formats of each layer, as one writes them."""
        return [pair_name(pair) for pair in self.choice.formats.values()]

    def row(self) -> dict[str, Any]:
        """Return one flat row: what was verified, the predicted loss, and the formats of each layer."""
        values = {name: value for name, value in vars(self).items() if name != "choice"}
        formats = {name: pair_name(pair) for name, pair in self.choice.formats.items()}
        return {**values, "predicted_loss": self.choice.loss, **formats}


class FormatSearch:
    """A network, a machine that computes several formats, and the formats to choose among.

    config : the machine, e.g. configs/mixed.yaml; a layer that it cannot run in a format does not get it
    network : a float network with data
    calibration : its first inputs, by which scales and formats are chosen; accuracy is the others'
    formats : names, or pairs (weights, activations)
    base : what all other layers have while one is tried; one of the formats
    measure : of the loss, as of accelsim.search.sensitivity.measure_sensitivities
    ties : what shares a format, "inputs" (layers that read one tensor), "residual", "depthwise", "operands", as of
        accelsim.search.run.Search
    fixed : layers whose formats are given, each a name or a pair among `formats`
    progress : True: a bar on a terminal or in a notebook, elsewhere a line every ten seconds; or a callback

    Raises SearchError, FormatError, NetworkError for what does not fit, and what the base raises on the machine.

    >>> from accelsim import load_config
    >>> from accelsim.quantize.network_file import load_network
    >>> network = load_network("traces/digits_cnn_float.npz").head(40)
    >>> search = FormatSearch(load_config("configs/mixed.yaml"), network, calibration=10, formats=["int8", "mx6"])
    >>> search.frame().query("layer == 'fc1'")[["weights", "size_bytes"]].values.tolist()  # of the network's weights
    [['int8', 38160.0], ['mx6', 29968.0]]
    >>> found = search.find({"size": "90%"})
    >>> found.choice.formats["fc1"], found.size_bytes <= 0.9 * 38160
    (('mx6', 'mx6'), True)
    """

    def __init__(
        self,
        config: HardwareConfig,
        network: FloatNetwork,
        *,
        calibration: int,
        formats: Iterable[str | Pair],
        base: str | Pair = "int8",
        measure: Measure = "kl",
        ties: Iterable[str] = ("inputs",),
        fixed: Mapping[str, str | Pair] | None = None,
        ranges: str = "mse",
        progress: ProgressCallback | bool | None = None,
    ) -> None:
        self.config = config
        self._base = _pair(base)
        self.pairs = tuple(dict.fromkeys([self._base, *map(_pair, formats)]))
        if len(self.pairs) < 2:
            raise SearchError(f"formats: only {pair_name(self._base)}, which is the base; name one more to choose")
        first, others = split(network, calibration)
        self.layers = tuple(layer.name for layer in network.array_layers)
        kinds = list(ties)
        self._ties, self._together = ties_of(kinds, network, self.layers), OPERANDS in kinds
        self._fixed = {name: _pair(pair) for name, pair in (fixed or {}).items()}
        check_given(self.layers, self.pairs, self._ties, self._fixed)
        self._loss, self._progress = RunLoss(first, measure), progress
        self._first, self._others, self._one = (
            Requantizer(each, ranges=ranges, references=False) for each in (first, others, others.head(1))
        )
        self._trials: tuple[FormatTrial, ...] | None = None
        self._problem: FormatProblem | None = None

    @property
    def everywhere(self) -> dict[str, Pair]:
        """The base in every layer."""
        return dict.fromkeys(self.layers, self._base)

    @property
    def trials(self) -> tuple[FormatTrial, ...]:
        """Each layer in each pair of formats, measured when first asked for."""
        if self._trials is None:
            self._trials = tuple(self._tried())
        return self._trials

    @property
    def problem(self) -> FormatProblem:
        """The integer program's data."""
        if self._problem is None:
            self._problem = FormatProblem(
                self.trials, self.pairs, ties=self._ties, fixed=self._fixed, together=self._together
            )
        return self._problem

    @property
    def nowhere(self) -> dict[Pair, str]:
        """Formats that no layer can have, and why the first one cannot."""
        lacking: dict[Pair, list[str]] = {}
        for trial in self.trials:
            if trial.lacking is not None:
                lacking.setdefault((trial.weights, trial.activations), []).append(trial.lacking)
        return {pair: why[0] for pair, why in lacking.items() if len(why) == len(self.layers)}

    def frame(self) -> pd.DataFrame:
        """Return :attr:`trials` as a data frame, a row each."""
        import pandas as pd

        return pd.DataFrame([vars(trial) for trial in self.trials])

    def costs(self, formats: Mapping[str, Pair]) -> dict[str, float]:
        """Return what the whole network costs in these formats: "latency" µs, "energy" pJ, "size" bytes of weights."""
        once = estimate(self.config, self._trace(self._one, formats))
        size = sum(layer.weight_bits for layer in once.layers) / 8
        return {"latency": once.latency_us, "energy": once.total_energy_pj, "size": size}

    def find(self, limits: Mapping[str, float | str]) -> FormatFound:
        """Return formats of little loss within limits of the whole network (accelsim.search.limits), and a run of them.

        limits : by cost, "latency", "energy", "size": a number, or a text such as "70%", of the network in the base

        Raises SearchError where they cannot be reached.
        """
        if not limits:
            raise SearchError(f"limit: found none; formats are chosen within limits of {', '.join(COSTS)}")
        wanted = self._wanted(limits)
        return self.verified(choose_within(self.problem, lambda each: self.costs(each.formats), wanted))

    def front(self, cost: str, points: int = 12, limits: Mapping[str, float | str] | None = None) -> list[FormatFound]:
        """Return choices from the cheapest to the one of least loss, each verified; some may turn out worse.

        cost : "latency", "energy" or "size", for `points` limits of which formats are found
        limits : as of :meth:`find`, kept by all of them; the one of `cost` itself is where the front ends

        Raises SearchError where limits cannot be reached.
        """
        wanted = self._wanted({cost: "100%", **(limits or {})})
        if cost not in (limits or {}):
            del wanted[cost]
        problem = self.problem
        choices = front_within(
            problem, lambda each: self.costs(each.formats), cost, points, wanted, progress=self._progress
        )
        found = []
        with layer_progress(self._progress, "points") as tell:
            for done, choice in enumerate(choices):
                tell(done, len(choices), "runs that verify")
                found.append(self.verified(choice))
            tell(len(choices), len(choices), "")
        return found

    def uniform(self, formats: str | Pair) -> FormatFound:
        """Return the network with one pair of formats, which is among those to choose, in every layer, verified."""
        pair = _pair(formats)
        if pair not in self.pairs:
            raise SearchError(f"formats: {pair_name(pair)} is not among {', '.join(map(pair_name, self.pairs))}")
        choice = self.problem.chosen(dict.fromkeys(self.layers, pair))
        return replace(self.verified(choice), label=pair_name(pair))

    def reference(self) -> FormatFound:
        """Return the network in the base, verified: what shares of limits refer to."""
        return self.uniform(self._base)

    def verified(self, choice: FormatChoice) -> FormatFound:
        """Run a choice on the inputs after the calibration ones. Raises what a run raises."""
        report = simulate(self.config, self._trace(self._others, choice.formats), watch=False, keep_outputs="none")
        costs, accuracy = self.costs(choice.formats), report.accuracy
        return FormatFound(
            choice=choice,
            accuracy=None if accuracy is None else accuracy.simulated_accuracy,
            float_accuracy=None if accuracy is None else accuracy.float_accuracy,
            agreement=None if accuracy is None else accuracy.agreement,
            inputs=report.batch,
            latency_us=costs["latency"],
            energy_pj=costs["energy"],
            size_bytes=costs["size"],
            overflows=report.totals.psum_overflows + report.totals.accumulator_overflows,
        )

    def _trace(self, requantizer: Requantizer, formats: Mapping[str, Pair]) -> Trace:
        return requantizer.trace(formats, rounding=self.config.ppu.rounding)

    def _base_costs(self) -> dict[str, float]:
        try:
            return self.costs(self.everywhere)
        except AccelsimError as error:
            raise SearchError(f"the base, {pair_name(self._base)}: {error}; or name another base") from None

    def _tried(self) -> Iterator[FormatTrial]:
        count = len(self.layers) * len(self.pairs)
        base, floor = self._base_costs(), self._loss(self._trace(self._first, self.everywhere), self.config)
        with layer_progress(self._progress, "runs") as tell:
            for done, name in enumerate(self.layers):
                for place, pair in enumerate(self.pairs):
                    tell(done * len(self.pairs) + place, count, f"{name} {'/'.join(pair)}")
                    formats = {**self.everywhere, name: pair}
                    loss, costs, lacking = 0.0, base, None
                    if pair != self._base:
                        try:
                            costs = self.costs(formats)
                            loss = max(0.0, self._loss(self._trace(self._first, formats), self.config) - floor)
                        except AccelsimError as error:
                            loss, costs, lacking = np.nan, dict.fromkeys(COSTS, np.nan), str(error)
                    yield FormatTrial(
                        layer=name, weights=pair[0], activations=pair[1], loss=loss, latency_us=costs["latency"],
                        energy_pj=costs["energy"], size_bytes=costs["size"], lacking=lacking,
                    )  # fmt: skip
            tell(count, count, "")

    def _wanted(self, limits: Mapping[str, float | str]) -> dict[str, float]:
        unknown = [name for name in limits if name not in COSTS]
        if unknown:
            raise SearchError(f"limit: found {unknown[0]!r}; formats are chosen within limits of {', '.join(COSTS)}")
        base, wanted = self._base_costs(), {}
        for name, limit in limits.items():
            number, is_share = read_limit(name, limit)
            wanted[name] = number * base[name] if is_share else number
        return wanted


def _pair(given: str | Pair) -> Pair:
    pair = (given, given) if isinstance(given, str) else tuple(given)
    if len(pair) != 2:
        raise SearchError(f"formats: {given!r} is neither a name nor a pair (weights, activations)")
    for name in pair:
        check_operand_format(name, "formats:")
    return pair
