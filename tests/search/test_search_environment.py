"""HAQ's rules against a second writing of them, and the environment around them."""

import doctest
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from gymnasium import make
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from surrogate_networks import bit_products, chain, noise_accuracy

import accelsim
from accelsim.errors import NetworkError, SearchError
from accelsim.quantize.layers import Conv2d, Linear, Matmul
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.network_file import load_network
from accelsim.quantize.requantizer import requantized
from accelsim.search.environment import FEATURES, QuantizationEnv
from accelsim.search.haq import LAYER_FEATURES, layer_features, width_of, within_budget

pytestmark = pytest.mark.usefixtures("in_the_checkout")


def surrogate(layers=5, **options):
    network = chain(layers)
    options = {"table": bit_products(network), "evaluate": noise_accuracy(network), "budget": 0.75} | options
    return QuantizationEnv(network, **options)


def play(env, actions):
    env.reset()
    for action in actions:
        last = env.step(action)
    return last


# -- an action's bits -------------------------------------------------------------------------------------------------


@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 64))
def test_an_action_means_the_width_of_the_equation(first, second, sixty_fourths):
    """Equation 2 of the paper in exact fractions; Python rounds fractions half to even, as NumPy does floats."""
    low, high = sorted((first, second))
    action = Fraction(sixty_fourths, 64)
    half = Fraction(1, 2)
    exact = round(low - half + action * ((high + half) - (low - half)))
    assert width_of(float(action), (low, high)) == min(max(exact, low), high)


@pytest.mark.parametrize(
    ("bits", "widths"),
    [  # positions worked by hand, actions 0, 1/4, 1/2, 3/4, 1
        ((2, 8), [2, 3, 5, 7, 8]),  # 1.5  3.25  5.0  6.75  8.5
        ((2, 5), [2, 2, 4, 4, 5]),  # 1.5  2.5  3.5  4.5  5.5: the last rounds to 6, above the range
        ((3, 6), [3, 4, 4, 6, 6]),  # 2.5  3.5  4.5  5.5  6.5: the first rounds to 2, below it
    ],
)
def test_widths_by_hand(bits, widths):
    assert [width_of(action, bits) for action in (0, 0.25, 0.5, 0.75, 1)] == widths


def test_every_width_has_the_same_share_of_the_actions():
    widths = [width_of(action, (2, 8)) for action in (np.arange(7000) + 0.5) / 7000]
    assert [widths.count(bits) for bits in range(2, 9)] == [1000] * 7


# -- the budget -------------------------------------------------------------------------------------------------------


def published_rule(widths, table, target, lowest, ends):
    """The rule of the published code, on lists and exact sums: after each cut the ends get their 8 bits back."""
    chosen = [list(pair) for pair in widths]
    last = len(chosen) - 1

    def cost():
        return sum(Fraction(int(table[layer][w - 1][a - 1])) for layer, (w, a) in enumerate(chosen))

    def restore():
        if ends:
            chosen[0], chosen[last] = [8, 8], [8, 8]

    restore()
    least = sum(Fraction(int(cells[lowest - 1][lowest - 1])) for cells in table)
    while least < cost() and target < cost():
        layer = last
        while layer >= 0 and target < cost():
            if chosen[layer][1] > lowest:
                chosen[layer][1] -= 1
            restore()
            if target < cost():
                if chosen[layer][0] > lowest:
                    chosen[layer][0] -= 1
                restore()
            layer -= 1
    return chosen


@st.composite
def budgets(draw):
    layers = draw(st.integers(3, 7))
    steps = draw(arrays(np.int64, (layers, 8, 8), elements=st.integers(0, 50)))
    table = steps.cumsum(axis=1).cumsum(axis=2) + 1  # a wider operand never costs less
    lowest = draw(st.integers(2, 5))
    widths = draw(arrays(np.int64, (layers, 2), elements=st.integers(lowest, 8)))
    ends = draw(st.booleans())
    free = np.ones(layers, bool)
    if ends:
        widths[[0, -1]] = 8
        free[[0, -1]] = False
    bottom = np.repeat(np.where(free, lowest, 8)[:, None], 2, axis=1)
    least = int(table[np.arange(layers), bottom[:, 0] - 1, bottom[:, 1] - 1].sum())
    now = int(table[np.arange(layers), widths[:, 0] - 1, widths[:, 1] - 1].sum())
    return widths, table, draw(st.integers(least, max(least, now + 3))), lowest, ends, free


@given(budgets())
def test_the_budget_is_enforced_as_published(case):
    widths, table, target, lowest, ends, free = case
    found = within_budget(widths, table.astype(float), target, lowest=lowest, free=free)
    assert found.tolist() == published_rule(widths.tolist(), table.tolist(), target, lowest, ends)


def test_a_budget_by_hand():
    """Layers cost w x a, 64 at 8 bits. Cuts of free layers 1 and 2, from 4 x 64 = 256: the last one's activations (56),
    its weights (49), the first one's activations, its weights; then again (42, 36)."""
    table = np.multiply.outer(np.arange(1.0, 9), np.arange(1.0, 9))[None].repeat(4, axis=0)
    widths, free = np.full((4, 2), 8), np.array([False, True, True, False])
    for limit, inner in [
        (256, [[8, 8], [8, 8]]),
        (255, [[8, 8], [8, 7]]),
        (247, [[8, 8], [7, 7]]),
        (240, [[8, 7], [7, 7]]),
        (226, [[7, 7], [7, 7]]),
        (225, [[7, 7], [7, 6]]),
        (213, [[7, 7], [6, 6]]),
        (0, [[2, 2], [2, 2]]),  # no budget of these layers: all that is free goes to the bottom
    ]:
        found = within_budget(widths, table, limit, lowest=2, free=free)
        assert found.tolist() == [[8, 8], *inner, [8, 8]], limit
    assert widths.tolist() == [[8, 8]] * 4  # what was given is untouched


@given(st.data())
def test_costs_that_go_up_and_down_end_too(data):
    table = data.draw(arrays(np.float64, (3, 8, 8), elements=st.floats(0, 10)))
    widths = data.draw(arrays(np.int64, (3, 2), elements=st.integers(2, 8)))
    limit = data.draw(st.floats(0, 30))
    found = within_budget(widths, table, limit, lowest=2, free=np.ones(3, bool))
    cost = sum(table[layer, w - 1, a - 1] for layer, (w, a) in enumerate(found))
    assert (found <= widths).all()
    assert cost <= limit * (1 + 1e-12) or (found == 2).all()


# -- observations -----------------------------------------------------------------------------------------------------


def test_features_by_hand():
    rng = np.random.default_rng(0)
    network = FloatNetwork(
        "kinds",
        rng.normal(size=(2, 8, 6, 4)),
        [
            FloatLayer(Conv2d(name="point"), rng.normal(size=(4, 1, 1, 4))),
            FloatLayer(Conv2d(name="deep", groups=4, stride=(2, 2)), rng.normal(size=(4, 3, 3, 1))),
            FloatLayer(Linear(name="fc", flatten=True), rng.normal(size=(10, 24))),
        ],
    )
    # Before scaling: depthwise, channels in and out, stride, kernel, weights, input pixels, index.
    #   point  0   4   4  1  1   16  48  0
    #   deep   1   4   4  2  3   36  48  1      3 x 2 pixels of 4 channels leave it
    #   fc     0  24  10  0  1  240   1  2
    assert layer_features(network) == pytest.approx(
        np.array(
            [
                [0, 0, 0, 1 / 2, 0, 0, 1, 0],
                [1, 0, 0, 1, 1, 20 / 224, 1, 1 / 2],
                [0, 1, 1, 0, 0, 1, 0, 1],
            ]
        )
    )


def test_a_product_of_activations_has_features():
    rng = np.random.default_rng(0)
    network = FloatNetwork(
        "scores",
        rng.normal(size=(2, 3, 4)),
        [
            FloatLayer(Linear(name="q", input="input"), rng.normal(size=(4, 4))),
            FloatLayer(Linear(name="k", input="input"), rng.normal(size=(4, 4))),
            FloatLayer(Matmul(name="qk", input="q", other="k", transpose_other=True)),
        ],
    )
    features = dict(zip(LAYER_FEATURES, layer_features(network).T.tolist(), strict=True))
    assert features["weights"] == [1, 1, 0]  # 4 x 4 weights, and 3 x 4 elements of the second operand
    assert features["output_channels"] == [1, 1, 0]
    assert features["input_channels"] == features["stride"] == [0, 0, 0]


def test_an_observation_is_the_layer_at_hand_and_the_widths_before_it():
    env = surrogate(4)
    features = layer_features(chain(4))
    actions = ([0, 0], [0, 0.5], [1, 0.25], [0, 0])
    seen = [env.reset()[0], *(env.step(action)[0] for action in actions)]
    before = [[1, 1], [1, 1], [2 / 8, 5 / 8], [1, 3 / 8], [1, 3 / 8]]  # the first layer keeps 8; the last is seen twice
    for observation, layer, previous in zip(seen, [0, 1, 2, 3, 3], before, strict=True):
        assert observation.dtype == np.float32
        assert observation.tolist() == np.array([*features[layer], *previous], np.float32).tolist()
    assert len(FEATURES) == 10


# -- episodes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actions", ["continuous", "discrete"])
def test_gymnasium_accepts_the_environment(actions):
    network = chain(4)
    env = make(
        "accelsim.search.environment:accelsim/Quantization-v0",
        network=network,
        table=bit_products(network),
        evaluate=noise_accuracy(network),
        actions=actions,
    )
    check_env(env.unwrapped)


@given(arrays(np.float32, (5, 2), elements=st.floats(0, 1, width=32)), st.sampled_from([0.6, 0.8, 1.0]))
def test_costs_and_rewards_of_an_episode(actions, budget):
    network = chain(5)
    table, accuracy = bit_products(network), noise_accuracy(network)
    env = QuantizationEnv(network, table=table, evaluate=accuracy, budget=budget, cost="energy")
    env.reset()
    for layer, action in enumerate(actions):
        _, reward, done, cut, info = env.step(action)
        assert (done, cut) == (layer == 4, False)
        assert reward == 0 or done
    proposed = [[8, 8], *([width_of(a, (2, 8)) for a in action] for action in actions[1:4]), [8, 8]]
    assert info["proposed_widths"].tolist() == proposed
    full = sum(int(table[layer, 7, 7]) for layer in range(5))
    cost = 0
    for layer, (name, pair) in enumerate(info["assignment"].items()):
        w, a = (int(word.removeprefix("int")) for word in pair)
        assert name == f"conv{layer}"
        assert [w, a] == info["widths"][layer].tolist()
        cost += int(table[layer, w - 1, a - 1])
    assert info["cost"] == cost <= budget * full
    assert info["cost_ratio"] == cost / full
    assert info["accuracy"] == accuracy(info["assignment"])
    assert reward == pytest.approx(0.1 * 100 * (info["accuracy"] - info["accuracy_8bit"]))
    assert info["accuracy_8bit"] == accuracy(dict.fromkeys(info["assignment"], ("int8", "int8")))


def test_discrete_actions_count_from_the_smallest_width():
    env = surrogate(4, actions="discrete", bits=(3, 6), budget=1)
    info = play(env, np.array([[0, 0], [0, 1], [3, 2], [0, 0]]))[4]
    assert info["proposed_widths"].tolist() == [[8, 8], [3, 4], [6, 5], [8, 8]]
    assert env.action_space.nvec.tolist() == [4, 4]


def test_ends_that_are_free():
    info = play(surrogate(3, keep_ends=False, budget=1), [[0, 0], [0, 0.5], [0.5, 0]])[4]
    assert info["widths"].tolist() == [[2, 2], [2, 5], [5, 2]]


def test_an_assignment_is_evaluated_once():
    calls = []
    network = chain(4)

    def accuracy(assignment):
        calls.append(tuple(assignment.values()))
        return 0.5

    env = QuantizationEnv(network, table=bit_products(network), evaluate=accuracy, budget=0.9)
    for actions in ([[0, 0]] * 4, [[0.01, 0.01]] * 4, [[1, 1]] * 4, [[0.5, 0.5]] * 4):
        play(env, actions)
    assert len(calls) == len(set(calls)) == 4  # 8 bits, 2 bits, 8 bits cut to the budget, 5 bits


def test_nothing_is_random():
    actions = np.random.default_rng(3).random((5, 2))
    first, second = surrogate(), surrogate()
    first.reset(seed=1)
    second.reset(seed=2)
    for action in actions:
        one, other = first.step(action), second.step(action)
        assert one[0].tolist() == other[0].tolist()
        assert one[1:4] == other[1:4]
    assert one[4]["assignment"] == other[4]["assignment"]


def test_haqs_own_file_of_integers_is_a_table(tmp_path):
    network = chain(5)
    table = bit_products(network).astype(np.int64)
    np.save(tmp_path / "latency_table.npy", table)
    env = surrogate(table=tmp_path / "latency_table.npy")
    assert env.table.tolist() == table.tolist()
    assert env.base_cost == table[:, 7, 7].sum()


# -- on the simulated machine -----------------------------------------------------------------------------------------


def test_an_episode_on_the_digits_network():
    network = load_network("traces/digits_cnn_float.npz").head(60)
    config = accelsim.load_config("configs/bitfusion.yaml")
    # A memory that takes no time: else a layer's loads hide behind the layer before, and costs do not quite add up.
    config = config.model_copy(update={"dram": config.dram.model_copy(update={"timing": "ideal"})})
    env = QuantizationEnv(network, config, cost="latency", budget=0.3)
    int8 = accelsim.simulate(config, accelsim.load_trace("traces/digits_cnn_int8.npz").head(1))
    assert env.table[:, 7, 7].tolist() == [layer.latency_us for layer in int8.layers]  # a run's, not a model's
    assert env.unit == "µs"
    info = play(env, [[0.5, 0.5], [1, 0.3], [0.3, 0.3], [0, 0]])[4]
    assert info["widths"][[0, -1]].tolist() == [[8, 8], [8, 8]]
    trace = requantized(network, info["assignment"])
    assert info["accuracy"] == accelsim.simulate(config, trace).accuracy.simulated_accuracy
    one = accelsim.simulate(config, trace.head(1))
    assert info["network_cost"] == pytest.approx(one.totals.total_cycles / config.clock_mhz)
    assert info["cost"] == pytest.approx(info["network_cost"])  # nothing lies between these layers
    assert info["cost_ratio"] <= 0.3


def test_energy_and_size_on_the_digits_network():
    network = load_network("traces/digits_cnn_float.npz").head(1)
    config = accelsim.load_config("configs/bitserial.yaml")
    energy = QuantizationEnv(network, config, cost="energy", evaluate=lambda assignment: 0.9)
    int8 = accelsim.simulate(config, requantized(network, dict.fromkeys(energy.names, ("int8", "int8"))))
    assert energy.table[:, 7, 7] == pytest.approx([layer.energy_pj.total_pj for layer in int8.layers], rel=0.01)
    size = QuantizationEnv(network, config, cost="size", evaluate=lambda assignment: 0.9, bits=(3, 5))
    weights = np.array([16 * 9, 32 * 9 * 16, 64 * 512, 10 * 64])
    for bits in (3, 4, 5):
        assert size.table[:, bits - 1, 3].tolist() == (weights * bits / 8).tolist()
    assert np.isnan(size.table[:, 1]).all()  # widths that are not searched were not computed
    info = play(size, [[1, 1]] * 4)[4]
    assert info["cost"] == info["network_cost"] <= 0.6 * weights.sum()


def test_the_page_runs(project_root):
    results = doctest.testfile(str(project_root / "docs" / "rl.md"), module_relative=False)
    assert results.attempted >= 8
    assert results.failed == 0


# -- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"cost": "latencies"}, "cost='latencies': use one of latency, energy, size; did you mean 'latency'?"),
        ({"actions": "both"}, "actions='both': use one of continuous, discrete"),
        ({"bits": (1, 8)}, r"bits=\(1, 8\): use the smallest and the largest width, such as \(2, 8\), from 2 to 8"),
        ({"bits": (4, 4)}, "use the smallest and the largest width"),
        ({"bits": (2, 9)}, "use the smallest and the largest width"),
        ({"bits": (2, 3, 4)}, "use the smallest and the largest width"),
        ({"bits": (2.5, 8)}, "use the smallest and the largest width"),
        ({"budget": 0}, "budget=0: use a fraction of the cost at 8 bits, above 0 and at most 1"),
        ({"budget": 60}, "above 0 and at most 1"),
        (
            {"budget": 0.02},
            r"2-bit weights and activations \(first and last layer at 8 bits\) the latency is still 0\.",
        ),
        ({"budget": 0.02, "keep_ends": False}, "2-bit weights and activations the latency is still 0.062 of that"),
        ({"table": np.ones((4, 8, 8))}, r"has shape \(4, 8, 8\); the network has 5 layers that multiply, so give \(5,"),
        ({"table": np.full((5, 8, 8), "x")}, "costs are integers or floats"),
        ({"table": np.zeros((5, 8, 8))}, "every layer costs nothing at 8 bits"),
        ({"table": np.full((5, 8, 8), np.nan)}, "layer 0 costs nan with 2-bit weights and 2-bit activations"),
        ({"table": -np.ones((5, 8, 8))}, "costs are finite and not negative"),
        ({"table": "missing.npy"}, "missing.npy: is no .npy array of numbers"),
        ({"table": "README.md"}, "README.md: is no .npy array of numbers"),
        (
            {"table": None},
            "without a configuration, costs and accuracy are unknown; give config, or table and evaluate",
        ),
        ({"evaluate": None}, "give config, or table and evaluate"),
        ({"evaluate": lambda assignment: float("nan")}, "evaluate returned nan; an accuracy is a finite number"),
        ({"evaluate": lambda assignment: None}, "evaluate returned None"),
    ],
)
def test_arguments_that_are_refused(options, text):
    with pytest.raises(SearchError, match=text):
        surrogate(**options)


def test_networks_that_are_refused():
    with pytest.raises(SearchError, match=r"has 2 layers that multiply, .* use keep_ends=False, or a larger network"):
        surrogate(2)
    config = accelsim.load_config("configs/bitfusion.yaml")
    with pytest.raises(SearchError, match="network 'chain' has no labels, so its accuracy is unknown; give evaluate="):
        QuantizationEnv(chain(4), config)
    with pytest.raises(NetworkError):
        FloatNetwork("empty", np.ones((1, 2)), [])


@pytest.mark.parametrize("action", [[0.5, 1.1], [-0.1, 0], [np.nan, 0], [0.5], 0.5, ["a", "b"], [[0, 0]]])
def test_actions_outside_of_the_space_are_refused(action):
    env = surrogate()
    env.reset()
    with pytest.raises(SearchError, match=r"is not two numbers in \[0, 1\], for weights and activations"):
        env.step(action)


@pytest.mark.parametrize("action", [[7, 0], [-1, 0], [0.5, 0.5]])
def test_discrete_actions_outside_of_the_space_are_refused(action):
    env = surrogate(actions="discrete")
    env.reset()
    with pytest.raises(SearchError, match="is not two integers from 0 to 6, for weights and activations"):
        env.step(action)


def test_a_step_needs_a_layer():
    env = surrogate(3)
    with pytest.raises(SearchError, match=r"call reset\(\)"):
        env.step([0, 0])
    play(env, [[1, 1]] * 3)
    with pytest.raises(SearchError, match=r"all layers have their widths; call reset\(\) to begin again"):
        env.step([0, 0])


def test_without_gymnasium_one_message_says_what_to_install():
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "import accelsim.cli, accelsim.search.agent, accelsim.search.haq\n"
        "from accelsim.errors import SearchError\n"
        "try:\n    import accelsim.search.environment\n"
        "except SearchError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the environment needs gymnasium: pip install 'accelsim[rl]'")
