"""The example's agent: better than chance at equal episodes, the same for the same seed, and on the real machine."""

import numpy as np
import pytest
from surrogate_networks import bit_products, chain, noise_accuracy

import accelsim
from accelsim.errors import SearchError
from accelsim.quantize.network_file import load_network
from accelsim.quantize.requantizer import requantized
from accelsim.search.agent import cross_entropy_agent, random_agent
from accelsim.search.environment import QuantizationEnv


def surrogate(layers=16, **options):
    network = chain(layers)
    return QuantizationEnv(network, table=bit_products(network), evaluate=noise_accuracy(network), **options)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_agent_is_better_than_chance(seed):
    env = surrogate(budget=0.4)
    learned = cross_entropy_agent(env, episodes=160, seed=seed)
    chance = random_agent(env, episodes=160, seed=seed)
    assert len(learned.rewards) == len(chance.rewards) == 160
    assert learned.reward > chance.reward
    env.reset()
    for _ in env.names:
        cut = env.step([1, 1])
    assert learned.reward > cut[1]  # 8 bits everywhere, and what enforcing the budget makes of them
    # It learns: its last episodes together are better than its first, and than the best of chance.
    first, last = np.mean(learned.rewards[:32]), np.mean(learned.rewards[-32:])
    assert last > first
    assert last > np.quantile(chance.rewards, 0.9)


@pytest.mark.parametrize("agent", [cross_entropy_agent, random_agent])
def test_a_result_is_its_best_episode(agent):
    env = surrogate(6, budget=0.8)
    accuracy = noise_accuracy(chain(6))
    found = agent(env, episodes=21, seed=4)
    assert found.reward == max(found.rewards)
    assert found.accuracy == accuracy(found.assignment)
    assert found.reward == pytest.approx(10 * (found.accuracy - env.accuracy_8bit))
    widths = np.array([[int(name.removeprefix("int")) for name in pair] for pair in found.assignment.values()])
    assert found.cost == sum(env.table[i, w - 1, a - 1] for i, (w, a) in enumerate(widths)) <= env.limit


@pytest.mark.parametrize("agent", [cross_entropy_agent, random_agent])
def test_equal_seeds_give_equal_results(agent):
    runs = [agent(surrogate(6, budget=0.8), episodes=20, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0].rewards != runs[2].rewards


def test_a_short_search_on_the_digits_network(project_root):
    network = load_network(project_root / "traces" / "digits_cnn_float.npz").head(80)
    config = accelsim.load_config(project_root / "configs" / "bitfusion.yaml")
    env = QuantizationEnv(network, config, cost="energy", budget=0.4)
    found = cross_entropy_agent(env, episodes=12, population=4)
    assert found.cost <= 0.4 * env.base_cost
    report = accelsim.simulate(config, requantized(network, found.assignment))
    assert found.accuracy == report.accuracy.simulated_accuracy
    assert found.reward == max(found.rewards) == pytest.approx(10 * (found.accuracy - env.accuracy_8bit))
    assert len(set(found.rewards)) > 1  # widths matter


def test_what_is_refused():
    env = surrogate(4, budget=0.9)
    with pytest.raises(SearchError, match="episodes=0: use 1 or more"):
        cross_entropy_agent(env, episodes=0)
    with pytest.raises(SearchError, match="episodes=-1: use 1 or more"):
        random_agent(env, episodes=-1)
    with pytest.raises(SearchError, match="population=3: use 4 or more"):
        cross_entropy_agent(env, episodes=9, population=3)
    with pytest.raises(SearchError, match="make the environment with actions='continuous'"):
        cross_entropy_agent(surrogate(4, budget=0.9, actions="discrete"), episodes=4)
