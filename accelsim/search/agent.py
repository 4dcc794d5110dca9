"""A small agent for the environment of widths, and one that acts at random (docs/rl.md).

The agent is an example to start from, not a contribution to reinforcement learning: a linear policy whose parameters
the cross-entropy method chooses (R. Y. Rubinstein, D. P. Kroese, "The Cross-Entropy Method", 2004). HAQ's own agent is
DDPG, an actor and a critic, which libraries for PyTorch have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import SearchError
from accelsim.quantize.presets import Pair

if TYPE_CHECKING:
    from accelsim.search.environment import QuantizationEnv

Float64 = NDArray[np.float64]
Policy = Callable[[NDArray[np.float32]], Float64]
"""From an observation to two numbers in [0, 1]."""

ELITE_SHARE = 0.25
INITIAL_SPREAD, SMALLEST_SPREAD = 2.0, 0.1
"""Standard deviations of the policy's parameters: at the start, and what exploring never goes below."""


@dataclass(frozen=True, kw_only=True)
class AgentResult:
    """What an agent found.

    assignment : (weights, activations) of each layer in the best episode
    reward, cost, accuracy : of that episode
    rewards : of every episode, in order
    """

    assignment: Mapping[str, Pair]
    reward: float
    cost: float
    accuracy: float
    rewards: tuple[float, ...]


def cross_entropy_agent(env: QuantizationEnv, *, episodes: int, seed: int = 0, population: int = 16) -> AgentResult:
    """Learn a linear policy over observations: of each population of parameters, the best quarter makes the next one.

    env : an environment with continuous actions
    episodes : episodes in all; the last population may be smaller
    population : episodes between two updates, at least 4

    Raises SearchError for numbers or actions that do not fit.

    >>> import numpy as np
    >>> from accelsim.quantize.network_file import load_network
    >>> from accelsim.search.environment import QuantizationEnv
    >>> network = load_network("traces/digits_cnn_float.npz").head(1)
    >>> bits = np.arange(1, 9)
    >>> table = np.broadcast_to(np.outer(bits, bits), (4, 8, 8))  # costs: products of widths
    >>> accuracy = lambda formats: sum(int(weights[3:]) for weights, _ in formats.values()) / 100  # more bits, better
    >>> env = QuantizationEnv(network, table=table, evaluate=accuracy, budget=0.6)
    >>> found = cross_entropy_agent(env, episodes=40, population=8)
    >>> found.cost <= env.limit, len(found.rewards), found.accuracy >= random_agent(env, episodes=8).accuracy
    (True, 40, True)
    """
    if population < 4:
        raise SearchError(f"population={population}: use 4 or more, of which the best quarter counts")
    random = np.random.default_rng(seed)
    size = _action_size(env) * (_observation_size(env) + 1)
    mean, spread = np.zeros(size), np.full(size, INITIAL_SPREAD)
    best = _Best()
    while len(best.rewards) < _positive(episodes):
        count = min(population, episodes - len(best.rewards))
        parameters = random.normal(mean, spread, (count, size))
        rewards = np.array([best.play(env, _linear_policy(each)) for each in parameters])
        elite = parameters[np.argsort(-rewards, kind="stable")[: max(2, round(ELITE_SHARE * count))]]
        mean, spread = elite.mean(axis=0), np.maximum(elite.std(axis=0), SMALLEST_SPREAD)
    return best.result()


def random_agent(env: QuantizationEnv, *, episodes: int, seed: int = 0) -> AgentResult:
    """Take every action at random, equally distributed: what an agent has to be better than.

    Raises SearchError for numbers or actions that do not fit.

    >>> import numpy as np
    >>> from accelsim.quantize.network_file import load_network
    >>> from accelsim.search.environment import QuantizationEnv
    >>> network = load_network("traces/digits_cnn_float.npz").head(1)
    >>> bits = np.arange(1, 9)
    >>> table = np.broadcast_to(np.outer(bits, bits), (4, 8, 8))  # costs: products of widths
    >>> accuracy = lambda formats: sum(int(weights[3:]) for weights, _ in formats.values()) / 100  # more bits, better
    >>> env = QuantizationEnv(network, table=table, evaluate=accuracy, budget=0.6)
    >>> found = random_agent(env, episodes=10)
    >>> found.cost <= env.limit, found.reward == max(found.rewards)
    (True, True)
    """
    random = np.random.default_rng(seed)
    size, best = _action_size(env), _Best()
    for _ in range(_positive(episodes)):
        best.play(env, lambda observation: random.random(size))
    return best.result()


class _Best:
    """Plays episodes, and keeps what the best one found."""

    def __init__(self) -> None:
        self.rewards: list[float] = []
        self._found: dict[str, Any] = {}

    def play(self, env: QuantizationEnv, policy: Policy) -> float:
        observation, info = env.reset()
        total, done = 0.0, False
        while not done:
            observation, reward, done, _, info = env.step(policy(observation))
            total += reward
        if not self.rewards or total > max(self.rewards):
            self._found = info
        self.rewards.append(total)
        return total

    def result(self) -> AgentResult:
        return AgentResult(
            assignment=self._found["assignment"],
            reward=max(self.rewards),
            cost=self._found["cost"],
            accuracy=self._found["accuracy"],
            rewards=tuple(self.rewards),
        )


def _linear_policy(parameters: Float64) -> Policy:
    """Return observation -> sigmoid(A observation + b); parameters: A row after row, each with its b at the end."""

    def policy(observation: NDArray[np.float32]) -> Float64:
        rows = parameters.reshape(-1, len(observation) + 1)
        logits = rows[:, :-1] @ observation.astype(np.float64) + rows[:, -1]
        # The sigmoid by way of tanh, which does not overflow.
        return np.asarray(0.5 * (1 + np.tanh(logits / 2)))

    return policy


def _action_size(env: QuantizationEnv) -> int:
    if env.action_space.dtype is None or env.action_space.dtype.kind != "f":
        raise SearchError("this agent gives numbers in [0, 1]; make the environment with actions='continuous'")
    return int(np.prod(env.action_space.shape or ()))


def _observation_size(env: QuantizationEnv) -> int:
    return int(np.prod(env.observation_space.shape or ()))


def _positive(episodes: int) -> int:
    if episodes < 1:
        raise SearchError(f"episodes={episodes}: use 1 or more")
    return episodes
