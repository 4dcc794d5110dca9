"""A search that asks the simulator itself: each trial is a bit-accurate run of the whole network, by Optuna's NSGA-II.

It needs no additivity, and finds a front of accuracy against costs; it takes hundreds of runs, where the integer
program takes one for each layer, operand and width. Trials are kept in an SQLite file: a killed search goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.config.model import HardwareConfig
from accelsim.errors import SearchError, did_you_mean
from accelsim.progress import ProgressCallback, layer_progress
from accelsim.quantize.requantizer import Requantizer
from accelsim.search.candidate import FIELDS, Widths, formats_of, uniform, verify
from accelsim.search.problem import ADDITIVE
from accelsim.search.program import Tie
from accelsim.search.ties import check_fixed, nothing_in_common

if TYPE_CHECKING:
    import pandas as pd

Starts = Sequence[Mapping[str, tuple[int, int]]]
IDENTITY = "accelsim"
STUDY = "accelsim"
SQLITE = b"SQLite format 3\0"  # how such a file begins


def search_blackbox(
    requantizer: Requantizer,
    config: HardwareConfig,
    *,
    trials: int,
    costs: Sequence[str] = ("energy",),
    limits: Mapping[str, float] | None = None,
    weight_bits: Sequence[int] = tuple(range(2, 9)),
    activation_bits: Sequence[int] = tuple(range(2, 9)),
    ties: Sequence[Tie] = (),
    fixed: Mapping[str, tuple[int, int]] | None = None,
    start: Starts | Callable[[], Starts] = (),
    storage: str | Path | None = None,
    seed: int = 0,
    population: int = 20,
    together: bool = False,
    progress: ProgressCallback | bool | None = None,
) -> pd.DataFrame:
    """Return all trials: columns trial, on_front, within_limits, accuracy, the costs, and each layer's widths "w/a".

    requantizer : the network with its calibration; accuracy is that of its inputs, which the search sees: report that
        of others
    trials : in all, those of earlier calls with the same storage included
    costs : to be small beside 1 - accuracy: "latency", "energy", "size", "bops", of one inference
    limits : the most that a network may take, by cost, in its unit; others are kept only to learn from
    ties : layers that share widths, by their places among the layers that multiply
    fixed : layers whose widths are given
    start : assignments to try first, e.g. those of the integer program, or what returns them, which is asked only where
        a search begins; the widest widths are always tried
    storage : an SQLite file; None: memory. A search that was killed, at any moment, goes on with the same call
    seed : the same call finds the same, if it is not interrupted
    together : weights and inputs of a layer have one width; not of those that are fixed
    progress : True: a bar on a terminal or in a notebook, elsewhere a line every ten seconds; or a callback

    Raises SearchError (optuna is not installed, unknown costs, a storage of another search, inputs without labels).

    >>> from accelsim import load_config
    >>> from accelsim.quantize.network_file import load_network
    >>> requantizer = Requantizer(load_network("traces/digits_cnn_float.npz").head(10))
    >>> trials = search_blackbox(requantizer, load_config("configs/bitfusion.yaml"), trials=3, costs=["size"],
    ...                          weight_bits=[4, 8], activation_bits=[8])
    >>> len(trials), trials.conv1[0], float(trials.size_bytes[0])  # the widest widths come first
    (3, '8/8', 38160.0)
    """
    optuna = _optuna()
    unknown = [name for name in (*costs, *(limits or {})) if name not in ADDITIVE]
    if unknown or not costs:
        raise SearchError(f"cost {(unknown or ['none'])[0]!r} is unknown; use {', '.join(ADDITIVE)}")
    if requantizer.network.labels is None:
        raise SearchError(f"network {requantizer.network.name!r} has no labels, so there is no accuracy to search by")
    if trials < 1 or population < 2:
        raise SearchError(f"trials={trials}, population={population}: use 1 or more trials, 2 or more of a population")
    space = _Space(
        [layer.name for layer in requantizer.network.array_layers],
        weight_bits,
        activation_bits,
        ties,
        fixed or {},
        together,
    )
    identity = _identity(requantizer, config, costs, limits, space)
    study = _study(optuna, storage, identity, len(costs), bool(limits), seed, population)
    known = {_key(trial.params): trial for trial in _complete(optuna, study)}
    if not study.trials:
        widest = {owner: max(choices) for owner, choices in space.choices.items()}
        first = start() if callable(start) else start
        for parameters in (widest, *map(space.parameters, first)):
            study.enqueue_trial(parameters)

    def objective(trial: Any) -> tuple[float, ...]:
        widths = space.suggest(trial)
        twin = known.get(_key(trial.params))
        # What was run before is not run again: the same network is the same result.
        row = verify(requantizer, config, widths).row() if twin is None else dict(twin.user_attrs["row"])
        trial.set_user_attr("row", row)
        over = {name: row[FIELDS[name]] / limit - 1 for name, limit in (limits or {}).items()}
        trial.set_user_attr("over", list(over.values()))
        if hasattr(trial, "set_constraint"):  # since Optuna 5; before, the sampler asks a function
            for name, excess in over.items():
                trial.set_constraint(name, excess)
        return (1 - row["accuracy"], *(float(row[FIELDS[name]]) for name in costs))

    left = trials - len(_complete(optuna, study))
    with layer_progress(progress, "trials") as tell:

        def done(study: Any, trial: Any) -> None:
            known[_key(trial.params)] = trial
            tell(len(_complete(optuna, study)), trials, f"trial {trial.number}")

        if left > 0:
            study.optimize(objective, n_trials=left, callbacks=[done])
    return _frame(optuna, study, space, limits)


class _Space:
    """What Optuna varies: one parameter for each layer and operand, or group of tied ones."""

    def __init__(
        self,
        layers: Sequence[str],
        weight_bits: Sequence[int],
        activation_bits: Sequence[int],
        ties: Sequence[Tie],
        fixed: Mapping[str, tuple[int, int]],
        together: bool,
    ) -> None:
        self.layers = tuple(layers)
        self.bits = {"w": sorted(set(weight_bits)), "a": sorted(set(activation_bits))}
        self.owner = {(name, operand): f"{name}.{operand}" for name in layers for operand in "wa"}
        for tie in ties:
            for operand, tied in (("w", tie.weights), ("a", tie.activations)):
                owners = {self.owner[layers[place], operand] for place in tie.layers} if tied else set()
                for key, owner in self.owner.items():
                    if owner in owners:
                        self.owner[key] = min(owners)
        for name in layers if together else ():
            if name not in fixed:
                owners = {self.owner[name, "w"], self.owner[name, "a"]}
                self.owner.update({key: min(owners) for key, owner in self.owner.items() if owner in owners})
        self.choices = {owner: self._known(owner) for owner in self.owner.values()}
        if not all(self.choices.values()):
            raise SearchError(nothing_in_common(self.bits["w"], self.bits["a"]))
        for name in fixed:
            if name not in self.layers:
                raise SearchError(f"fixed: {name!r} is no layer with widths{did_you_mean(name, self.layers)}")
        check_fixed(fixed, ties, self.layers)
        for name, given in fixed.items():
            for operand, bits in zip("wa", given, strict=True):
                self.choices[self.owner[name, operand]] = [bits]

    def _known(self, owner: str) -> list[int]:
        """Return the widths that all operands of an owner can have."""
        known = [set(self.bits[operand]) for (_, operand), other in self.owner.items() if other == owner]
        return sorted(set.intersection(*known))

    def suggest(self, trial: Any) -> dict[str, Widths]:
        for owner, choices in self.choices.items():
            trial.suggest_categorical(owner, choices)
        return self.widths(trial.params)

    def widths(self, parameters: Mapping[str, int]) -> dict[str, Widths]:
        return {
            name: Widths(parameters[self.owner[name, "w"]], parameters[self.owner[name, "a"]]) for name in self.layers
        }

    def parameters(self, widths: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        return {owner: widths[name]["wa".index(operand)] for (name, operand), owner in self.owner.items()}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise SearchError(f"this search needs optuna: pip install 'accelsim[search]' ({error})") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(
    optuna: Any, storage: str | Path | None, identity: str, costs: int, limited: bool, seed: int, population: int
) -> Any:
    """Return the study, begun or continued. Raises SearchError where the storage holds another one."""
    url = None
    if storage is not None:
        path = Path(storage)
        if path.is_dir() or not path.parent.is_dir():
            raise SearchError(f"{path}: is no place for a file of trials; name a file in a folder that exists")
        if path.exists() and not _may_be_sqlite(path):  # Optuna would find out, too, and leave the file open
            raise SearchError(f"{storage}: cannot be used as a file of trials: it is no SQLite database")
        url = f"sqlite:///{path}"
    try:
        study = optuna.create_study(
            study_name=STUDY, storage=url, load_if_exists=True, directions=["minimize"] * (1 + costs)
        )
    except Exception as error:  # the driver's own errors, whatever it is: the file is no SQLite, or is locked
        raise SearchError(f"{storage}: cannot be used as a file of trials: {str(error).splitlines()[0]}") from None
    owner = study.user_attrs.get(IDENTITY)
    if owner is None and not study.trials:
        study.set_user_attr(IDENTITY, identity)
    elif owner != identity:
        raise SearchError(
            f"{storage}: holds trials of another search (another network, machine, widths or objectives); name another "
            f"file, or delete it"
        )
    # A sampler begins its random numbers anew: continued, they must not be those that were drawn before.
    study.sampler = optuna.samplers.NSGAIISampler(
        population_size=population,
        seed=seed + 7919 * len(study.trials),
        **{"constraints_func": _over} if limited and not hasattr(optuna.Trial, "set_constraint") else {},
    )
    return study


def _may_be_sqlite(path: Path) -> bool:
    """Return whether a file begins as an SQLite database does, or is empty, or cannot be read, which Optuna tells."""
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE)) in (SQLITE, b"")
    except OSError:
        return True


def _over(trial: Any) -> list[float]:
    over: list[float] = trial.user_attrs.get("over", [1.0])
    return over


def _complete(optuna: Any, study: Any) -> list[Any]:
    trials: list[Any] = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return trials


def _key(parameters: Mapping[str, int]) -> str:
    return json.dumps(dict(sorted(parameters.items())))


def _identity(
    requantizer: Requantizer,
    config: HardwareConfig,
    costs: Sequence[str],
    limits: Mapping[str, float] | None,
    space: _Space,
) -> str:
    """Return a digest of all that decides a trial's result."""
    everything = uniform(requantizer.network, space.bits["w"][-1], space.bits["a"][-1])
    trace = requantizer.trace(formats_of(everything))
    facts = [config.digest, trace.digest, list(costs), dict(limits or {}), space.choices, sorted(space.owner.items())]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _frame(optuna: Any, study: Any, space: _Space, limits: Mapping[str, float] | None) -> pd.DataFrame:
    import pandas as pd

    from accelsim.search.pareto import front

    trials = _complete(optuna, study)
    within = [all(over <= 1e-9 for over in trial.user_attrs["over"]) for trial in trials]
    places = [index for index, good in enumerate(within) if good]
    kept = set()
    if places:
        flags = front([trials[index].values for index in places])
        kept = {index for index, flag in zip(places, flags, strict=True) if flag}
    rows = [
        {
            "trial": trial.number,
            "on_front": index in kept,
            "within_limits": within[index],
            **trial.user_attrs["row"],
            **{name: str(each) for name, each in space.widths(trial.params).items()},
        }
        for index, trial in enumerate(trials)
    ]
    return pd.DataFrame(rows)
