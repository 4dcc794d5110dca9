"""Named number formats for each layer, instead of widths: integers, VSQ, microexponents, OCP MX, floats side by side.

Nothing is assumed of the formats. Each layer alone gets each pair of formats, all others have the base; the network is
run bit by bit for the loss, and estimated as a whole for the cost. Both are taken to add up over layers; what is found
is within limits of the whole network, which is priced again (accelsim.search.limits), and run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.errors import AccelsimError, SearchError
from accelsim.estimation import check_operand_format, estimate
from accelsim.progress import ProgressCallback, layer_progress
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.presets import Pair
from accelsim.quantize.requantizer import Requantizer
from accelsim.search.candidate import split
from accelsim.search.limits import choose_within
from accelsim.search.program import Program, smallest, solve
from accelsim.search.sensitivity import Measure, RunLoss
from accelsim.simulation import simulate
from accelsim.trace.reader import Trace

if TYPE_CHECKING:
    import pandas as pd

COSTS = ("latency", "energy", "size")


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
        return ", ".join(f"{name}:{w}" if w == a else f"{name}:{w}/{a}" for name, (w, a) in self.formats.items())


@dataclass(frozen=True, kw_only=True)
class FormatFound:
    """A choice, and what a run of the network with it gives, on the inputs that were not chosen by.

    accuracy, agreement : as of accelsim.search.candidate.Verified
    """

    choice: FormatChoice
    accuracy: float | None
    agreement: float | None
    latency_us: float
    energy_pj: float
    size_bytes: float
    overflows: int


class FormatSearch:
    """A network, a machine that computes several formats, and the formats to choose among.

    config : the machine, e.g. configs/mixed.yaml; a layer that it cannot run in a format does not get it
    network : a float network with data
    calibration : its first inputs, by which scales and formats are chosen; accuracy is the others'
    formats : names, or pairs (weights, activations)
    base : what all other layers have while one is tried; one of the formats
    measure : of the loss, as of accelsim.search.sensitivity.measure_sensitivities
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
        ranges: str = "mse",
        progress: ProgressCallback | bool | None = None,
    ) -> None:
        self.config = config
        self._base = _pair(base)
        self.pairs = tuple(dict.fromkeys([self._base, *map(_pair, formats)]))
        if len(self.pairs) < 2:
            raise SearchError(f"formats: only {'/'.join(self._base)}, which is the base; name one more to choose")
        first, others = split(network, calibration)
        self.layers = tuple(layer.name for layer in network.array_layers)
        self._loss, self._progress = RunLoss(first, measure), progress
        self._first, self._others, self._one = (
            Requantizer(each, ranges=ranges, references=False) for each in (first, others, others.head(1))
        )
        self._trials: tuple[FormatTrial, ...] | None = None

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
        wanted = self._wanted(limits)
        problem = _FormatProblem(self)
        choice = choose_within(problem, lambda each: self.costs(each.formats), wanted)
        return self.verified(choice)

    def verified(self, choice: FormatChoice) -> FormatFound:
        """Run a choice on the inputs after the calibration ones. Raises what a run raises."""
        report = simulate(self.config, self._trace(self._others, choice.formats), watch=False, keep_outputs="none")
        costs, accuracy = self.costs(choice.formats), report.accuracy
        return FormatFound(
            choice=choice,
            accuracy=None if accuracy is None else accuracy.simulated_accuracy,
            agreement=None if accuracy is None else accuracy.agreement,
            latency_us=costs["latency"],
            energy_pj=costs["energy"],
            size_bytes=costs["size"],
            overflows=report.totals.psum_overflows + report.totals.accumulator_overflows,
        )

    def _trace(self, requantizer: Requantizer, formats: Mapping[str, Pair]) -> Trace:
        return requantizer.trace(formats, rounding=self.config.ppu.rounding)

    def _tried(self) -> Iterator[FormatTrial]:
        count = len(self.layers) * len(self.pairs)
        floor, base = self._loss(self._trace(self._first, self.everywhere), self.config), self.costs(self.everywhere)
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
        if unknown or not limits:
            what = repr(unknown[0]) if unknown else "none"
            raise SearchError(f"limit: found {what}; formats are chosen within limits of {', '.join(COSTS)}")
        base, wanted = self.costs(self.everywhere), {}
        for name, limit in limits.items():
            text = str(limit).strip()
            try:
                value = float(text.removesuffix("%")) * (base[name] / 100 if text.endswith("%") else 1)
            except ValueError:
                value = np.nan
            if not 0 <= value < np.inf:
                raise SearchError(f"{name}: limit {limit!r} is no number; give one, or a share such as 70%")
            wanted[name] = value
        return wanted


class _FormatProblem:
    """Formats as an integer program: [layers, pairs, 1]; costs beyond the base's add up."""

    def __init__(self, search: FormatSearch) -> None:
        self._search = search
        shape = len(search.layers), len(search.pairs), 1
        columns: dict[str, NDArray[Any]] = {
            name: np.array([getattr(trial, name) for trial in search.trials]).reshape(shape)
            for name in ("loss", "latency_us", "energy_pj", "size_bytes")
        }
        self._allowed = np.isfinite(columns["loss"])
        base = {name: float(columns[name][0, 0, 0]) for name in columns}
        costs = {
            cost: np.where(self._allowed, columns[name] - base[name], 0.0)
            for cost, name in zip(COSTS, ("latency_us", "energy_pj", "size_bytes"), strict=True)
        }
        # Costs of a program are positive; what a layer saves is taken off the rest of the network.
        lowest = {cost: values.min(axis=(1, 2), keepdims=True) for cost, values in costs.items()}
        names = dict(zip(COSTS, ("latency_us", "energy_pj", "size_bytes"), strict=True))
        self._program = Program(
            np.where(self._allowed, columns["loss"], 0.0),
            {cost: values - lowest[cost] for cost, values in costs.items()},
            {cost: base[names[cost]] + float(lowest[cost].sum()) for cost in COSTS},
            allowed=self._allowed,
        )

    @property
    def narrowest(self) -> FormatChoice:
        return self.smallest("size")

    def smallest(self, cost: str) -> FormatChoice:
        return self._choice(smallest(self._program, cost))

    def solve(self, limits: Mapping[str, float]) -> FormatChoice:
        return self._choice(solve(self._program, limits))

    def neighbours(self, choice: FormatChoice) -> Iterator[FormatChoice]:
        pairs = self._search.pairs
        pick = np.array([[pairs.index(pair), 0] for pair in choice.formats.values()])
        found = []
        for layer, place in np.argwhere(self._allowed[:, :, 0]):
            other = pick.copy()
            other[layer, 0] = place
            loss = self._program.loss(other)
            if loss < choice.loss:
                found.append((loss, other))
        yield from (self._choice(other) for _, other in sorted(found, key=lambda each: each[0]))

    def _choice(self, pick: NDArray[np.int64]) -> FormatChoice:
        return FormatChoice(
            formats={name: self._search.pairs[p] for name, (p, _) in zip(self._search.layers, pick, strict=True)},
            loss=self._program.loss(pick),
            costs={cost: self._program.total(cost, pick) for cost in COSTS},
        )


def _pair(given: str | Pair) -> Pair:
    pair = (given, given) if isinstance(given, str) else tuple(given)
    if len(pair) != 2:
        raise SearchError(f"formats: {given!r} is neither a name nor a pair (weights, activations)")
    for name in pair:
        check_operand_format(name, "formats:")
    return pair
