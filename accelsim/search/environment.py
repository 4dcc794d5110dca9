"""HAQ's search as a Gymnasium environment (docs/rl.md): a step gives one layer its widths, an episode is a network.

Needs the extra `rl`; nothing else in accelsim imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.config.model import HardwareConfig
from accelsim.errors import SearchError, did_you_mean
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.presets import Pair
from accelsim.search.evaluation import UNITS, Cost, SimulatedNetwork
from accelsim.search.haq import (
    BASE_BITS,
    LAYER_FEATURES,
    TABLE_BITS,
    Int64,
    assignment_cost,
    checked_table,
    layer_features,
    needed_cells,
    width_of,
    within_budget,
)

try:
    import gymnasium
    from gymnasium import spaces
except ImportError as error:
    raise SearchError(f"the environment needs gymnasium: pip install 'accelsim[rl]' ({error})") from None

ENVIRONMENT_ID = "accelsim/Quantization-v0"
"""What Gymnasium's registry calls it, once this module is imported."""
ActionKind = Literal["continuous", "discrete"]
Evaluate = Callable[[Mapping[str, Pair]], float]
"""From the formats (weights, activations) of each layer to the accuracy, a fraction in [0, 1]."""

FEATURES = (*LAYER_FEATURES, "previous_weight_bits", "previous_activation_bits")
"""What an observation holds, in this order; all in [0, 1]."""
REWARD_PER_POINT = 0.1


class QuantizationEnv(gymnasium.Env[NDArray[np.float32], NDArray[Any]]):
    """Choose the widths of a network's layers, one layer a step, within a budget; the reward is the accuracy.

    network : float network; its inputs and labels measure the accuracy
    config : the machine; None where `table` and `evaluate` are both given
    cost : what is limited: "latency" (µs) or "energy" (pJ) of one inference, "size" (bytes of weights)
    budget : the limit, as a fraction of the cost of the network with 8 bits everywhere
    bits : smallest and largest width, from 2 to 8
    actions : "continuous": two numbers in [0, 1] (weights, activations), by HAQ's rule; "discrete": two integers from
        0, added to the smallest width
    keep_ends : the first and the last layer keep 8 bits, whatever the action
    evaluate : called with {layer: (weight format, activation format)}, returns the accuracy as a fraction; None: the
        network is quantized and run bit-accurately on the machine
    table : costs [layers, 8, 8], index [layer, weight bits - 1, activation bits - 1], or a `.npy` file with them; None:
        from the machine's model (cost of a layer in a network whose layers all have the same widths)

    Observation: float32 [10], see `FEATURES`. Reward: 0 until the last layer, then 0.1 for each percentage point of
    accuracy above the 8-bit network's. The last step's `info` has "assignment" (formats by layer), "widths" and
    "proposed_widths" ([layers, 2], after and before the budget was enforced), "cost" (in `unit`), "cost_ratio" (to 8
    bits), "accuracy" and "accuracy_8bit"; if the machine is known, also "network_cost": not added up from the table,
    but what the machine's model says of the whole assignment, conversions between layers included.

    Nothing is random: the seed of `reset` changes nothing. Equal assignments are evaluated once.

    Raises SearchError: arguments that make no sense, a budget that the smallest widths exceed, labels that are missing.

    >>> import numpy as np
    >>> from accelsim.quantize.network_file import load_network
    >>> network = load_network("traces/digits_cnn_float.npz").head(1)
    >>> bits = np.arange(1, 9)
    >>> table = np.broadcast_to(np.outer(bits, bits), (4, 8, 8))  # costs: products of widths
    >>> accuracy = lambda formats: sum(int(weights[3:]) for weights, _ in formats.values()) / 100  # more bits, better
    >>> env = QuantizationEnv(network, table=table, evaluate=accuracy, budget=0.6)
    >>> observation, info = env.reset()
    >>> observation.shape, info["layer"]
    ((10,), 'conv1')
    >>> for action in ([1, 1], [1, 0.5], [0, 1], [1, 1]):  # weights, activations; the first and the last layer stay
    ...     observation, reward, done, truncated, info = env.step(action)
    >>> done, info["assignment"]
    (True, {'conv1': ('int8', 'int8'), 'conv2': ('int6', 'int2'), 'fc1': ('int2', 'int5'), 'fc2': ('int8', 'int8')})
    """

    metadata = {"render_modes": []}  # noqa: RUF012  the base class declares it so

    def __init__(
        self,
        network: FloatNetwork,
        config: HardwareConfig | None = None,
        *,
        cost: Cost = "latency",
        budget: float = 0.6,
        bits: tuple[int, int] = (2, 8),
        actions: ActionKind = "continuous",
        keep_ends: bool = True,
        evaluate: Evaluate | None = None,
        table: ArrayLike | str | Path | None = None,
    ) -> None:
        _check_choice("cost", cost, get_args(Cost))
        _check_choice("actions", actions, get_args(ActionKind))
        self.bits = _checked_bits(bits)
        if not (isinstance(budget, int | float) and 0 < budget <= 1):
            raise SearchError(f"budget={budget!r}: use a fraction of the cost at 8 bits, above 0 and at most 1")
        self.names = tuple(layer.name for layer in network.array_layers)
        self._free = np.ones(len(self.names), np.bool_)
        if keep_ends:
            self._free[:1] = self._free[-1:] = False
        if not self._free.any():
            raise SearchError(
                f"network {network.name!r} has {len(self.names)} layers that multiply, of which the first and the last "
                f"keep {BASE_BITS} bits, so there is nothing to choose; use keep_ends=False, or a larger network"
            )
        if config is None and (table is None or evaluate is None):
            raise SearchError(
                "without a configuration, costs and accuracy are unknown; give config, or table and evaluate"
            )
        if evaluate is None and network.labels is None:
            raise SearchError(f"network {network.name!r} has no labels, so its accuracy is unknown; give evaluate=")
        self.cost_kind, self.unit, self._kind = cost, UNITS[cost] if table is None else "table units", actions
        self._machine = None if config is None else SimulatedNetwork(network, config)
        if table is None:
            assert self._machine is not None
            table = self._machine.table(cost, needed_cells(self.bits))
        self.table = checked_table(table, len(self.names), self.bits)
        self.base_cost = assignment_cost(self.table, self._uniform(BASE_BITS))
        self.limit = budget * self.base_cost
        self._check_budget(budget)
        self._features = layer_features(network)
        count = self.bits[1] - self.bits[0] + 1
        self.observation_space = spaces.Box(0.0, 1.0, (len(FEATURES),), np.float32)
        self.action_space = (
            spaces.Box(0.0, 1.0, (2,), np.float32) if actions == "continuous" else spaces.MultiDiscrete([count, count])
        )
        self._evaluate, self._known = self._simulated if evaluate is None else evaluate, dict[tuple[Pair, ...], float]()
        self.accuracy_8bit = self._accuracy(self._uniform(BASE_BITS))
        self._layer = len(self.names)  # until reset, no layer waits for widths
        self._proposed = self._uniform(BASE_BITS)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a network: return the observation of its first layer, and {"layer": its name}."""
        super().reset(seed=seed, options=options)
        self._layer, self._proposed = 0, self._uniform(BASE_BITS)
        return self._observation(), {"layer": self.names[0]}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Give the layer at hand its widths; return (observation of the next layer, reward, done, False, info).

        After the last layer the observation stays as it was. Raises SearchError: an action outside of the action space,
        or no layer left.
        """
        if self._layer == len(self.names):
            raise SearchError("all layers have their widths; call reset() to begin again")
        widths = self._widths(action)
        if self._free[self._layer]:
            self._proposed[self._layer] = widths
        if self._layer == len(self.names) - 1:
            observation, info = self._observation(), self._finish()
            self._layer += 1
            points = 100 * (info["accuracy"] - self.accuracy_8bit)
            return observation, REWARD_PER_POINT * points, True, False, info
        self._layer += 1
        return self._observation(), 0.0, False, False, {"layer": self.names[self._layer]}

    def assignment(self, widths: Int64) -> dict[str, Pair]:
        """Return the formats {layer: (weights, activations)} of widths [layers, 2]."""
        return {name: (f"int{w}", f"int{a}") for name, (w, a) in zip(self.names, widths.tolist(), strict=True)}

    def _finish(self) -> dict[str, Any]:
        widths = within_budget(self._proposed, self.table, self.limit, lowest=self.bits[0], free=self._free)
        assignment, cost = self.assignment(widths), assignment_cost(self.table, widths)
        info: dict[str, Any] = {
            "layer": self.names[-1],
            "assignment": assignment,
            "widths": widths,
            "proposed_widths": self._proposed.copy(),
            "cost": cost,
            "cost_ratio": cost / self.base_cost,
            "accuracy": self._accuracy(widths),
            "accuracy_8bit": self.accuracy_8bit,
        }
        if self._machine is not None:
            info["network_cost"] = self._machine.cost(assignment, self.cost_kind)
        return info

    def _observation(self) -> NDArray[np.float32]:
        before = self._proposed[self._layer - 1] if self._layer else np.array([BASE_BITS, BASE_BITS])
        return np.concatenate([self._features[self._layer], before / TABLE_BITS]).astype(np.float32)

    def _widths(self, action: Any) -> list[int]:
        given = np.asarray(action)
        if given.shape != (2,) or given.dtype.kind not in "iuf" or not self._accepts(given):
            count = self.bits[1] - self.bits[0]
            wanted = "two numbers in [0, 1]" if self._kind == "continuous" else f"two integers from 0 to {count}"
            raise SearchError(f"action {given.tolist()!r} is not {wanted}, for weights and activations")
        if self._kind == "discrete":
            return [self.bits[0] + int(value) for value in given]
        return [width_of(float(value), self.bits) for value in given]

    def _accepts(self, given: NDArray[Any]) -> bool:
        if self._kind == "discrete":
            return given.dtype.kind in "iu" and bool(np.all((given >= 0) & (given <= self.bits[1] - self.bits[0])))
        return bool(np.all((given >= 0) & (given <= 1)))

    def _accuracy(self, widths: Int64) -> float:
        assignment = self.assignment(widths)
        key = tuple(assignment.values())
        if key not in self._known:
            found = self._evaluate(assignment)
            if not (isinstance(found, int | float | np.number) and np.isfinite(found)):
                raise SearchError(f"evaluate returned {found!r}; an accuracy is a finite number, a fraction in [0, 1]")
            self._known[key] = float(found)
        return self._known[key]

    def _simulated(self, assignment: Mapping[str, Pair]) -> float:
        assert self._machine is not None
        return self._machine.accuracy(assignment)

    def _uniform(self, bits: int) -> Int64:
        return np.full((len(self.names), 2), bits, np.int64)

    def _check_budget(self, budget: float) -> None:
        least = self._uniform(BASE_BITS)
        least[self._free] = self.bits[0]
        cost = assignment_cost(self.table, least)
        if cost > self.limit:
            ends = "" if self._free.all() else f" (first and last layer at {BASE_BITS} bits)"
            raise SearchError(
                f"budget={budget}: with {self.bits[0]}-bit weights and activations{ends} the {self.cost_kind} is still "
                f"{cost / self.base_cost:.3f} of that at {BASE_BITS} bits; use a budget of at least that, or fewer bits"
            )


def _check_choice(name: str, value: Any, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        near = did_you_mean(str(value), accepted)
        raise SearchError(f"{name}={value!r}: use one of {', '.join(accepted)}{near}")


def _checked_bits(bits: tuple[int, int]) -> tuple[int, int]:
    whole = len(bits) == 2 and all(isinstance(each, int | np.integer) for each in bits)
    if not whole or not 2 <= bits[0] < bits[1] <= TABLE_BITS:
        raise SearchError(f"bits={bits!r}: use the smallest and the largest width, such as (2, 8), from 2 to 8")
    return int(bits[0]), int(bits[1])


gymnasium.register(ENVIRONMENT_ID, entry_point="accelsim.search.environment:QuantizationEnv")
