"""Named formats for each layer: what one layer's formats do is a run's and an estimate's; the choice is the best."""

import itertools
import math

import numpy as np
import pytest

import accelsim
from accelsim.errors import AccelsimError, SearchError
from accelsim.quantize.network_file import load_network
from accelsim.quantize.requantizer import Requantizer
from accelsim.search.candidate import split
from accelsim.search.format_search import FormatSearch

FORMATS = ["mx6", "vsq4", ("int4", "int8")]


@pytest.fixture(scope="module")
def digits(project_root):
    return load_network(project_root / "traces" / "digits_cnn_float.npz").head(30)


@pytest.fixture(scope="module")
def mixed(project_root):
    return accelsim.load_config(project_root / "configs" / "mixed.yaml")


@pytest.fixture(scope="module")
def search(mixed, digits):
    return FormatSearch(mixed, digits, calibration=10, formats=FORMATS)


def test_a_trial_is_a_run_and_an_estimate(search, mixed, digits):
    first, others = split(digits, 10)
    formats = {**search.everywhere, "fc1": ("vsq4", "vsq4")}

    def divergence(pairs):
        trace = Requantizer(first).trace(pairs, rounding="float32_half_even")
        report = accelsim.simulate(mixed, trace)
        last = trace.layers[-1]
        found = trace.output_tensor(last, report.layers[-1].output_codes).dequantize()
        total = 0.0
        for one, other in zip(trace.reference(last.output).astype(float), found, strict=True):
            p, q = (np.exp(row - row.max()) / np.exp(row - row.max()).sum() for row in (one, other))
            total += sum(float(a * math.log(a / b)) for a, b in zip(p, q, strict=True))
        return total / len(found)

    (trial,) = (each for each in search.trials if (each.layer, each.weights) == ("fc1", "vsq4"))
    assert trial.loss == pytest.approx(divergence(formats) - divergence(search.everywhere), rel=1e-6)
    once = accelsim.estimate(mixed, Requantizer(others).trace(formats, rounding="float32_half_even").head(1))
    assert (trial.latency_us, trial.energy_pj) == (once.latency_us, once.total_energy_pj)
    assert trial.size_bytes == sum(layer.weight_bits for layer in once.layers) / 8
    assert [trial.layer for trial in search.trials] == [name for name in search.layers for _ in range(4)]


@pytest.mark.parametrize("share", [0.95, 0.7, 0.6])
def test_the_choice_is_the_best_of_all(search, share):
    """All 4^4 assignments: losses add up by definition; limits are of the network that is priced as a whole."""
    by_layer = {name: [t for t in search.trials if t.layer == name] for name in search.layers}
    base = search.costs(search.everywhere)["size"]
    within = []
    for trials in itertools.product(*by_layer.values()):
        size = base + sum(trial.size_bytes - base for trial in trials)
        if size <= share * base:
            within.append((sum(trial.loss for trial in trials), size))
    found = search.find({"size": f"{share:.0%}"})
    assert found.choice.loss == pytest.approx(min(within)[0], abs=1e-12)
    assert found.size_bytes <= share * base
    assert search.costs(found.choice.formats)["size"] == found.size_bytes
    assert found.choice.costs["size"] == pytest.approx(found.size_bytes), "sizes of layers add up"


def test_what_is_found_is_verified(search, mixed, digits):
    found = search.find({"energy": "70%", "latency": "90%"})
    _, others = split(digits, 10)
    trace = Requantizer(others).trace(found.choice.formats, rounding="float32_half_even")
    report = accelsim.simulate(mixed, trace)
    assert found.accuracy == report.accuracy.simulated_accuracy
    once = accelsim.simulate(mixed, trace.head(1))
    assert found.energy_pj == pytest.approx(once.totals.total_energy_pj)
    base = search.costs(search.everywhere)
    assert found.energy_pj <= 0.7 * base["energy"]
    assert found.latency_us <= 0.9 * base["latency"]
    assert found.choice.key.startswith("conv1:")


def test_what_a_machine_lacks_is_not_chosen(project_root, digits):
    """bitfusion.yaml has no shared exponents; it is told for each layer, and the choice is among the others."""
    fusion = accelsim.load_config(project_root / "configs" / "bitfusion.yaml")
    search = FormatSearch(fusion, digits, calibration=4, formats=["mx6", "int4"])
    frame = search.frame()
    assert frame.lacking.notna().tolist() == [False, True, False] * 4
    assert frame.lacking[1].startswith("layer 'conv1'")
    found = search.find({"size": "60%"})
    assert set(found.choice.formats.values()) == {("int8", "int8"), ("int4", "int4")}
    with pytest.raises(SearchError, match=r"size of at most .* cannot be reached"):
        search.find({"size": "49%"})


@pytest.mark.parametrize(
    ("options", "limits", "message"),
    [
        ({"formats": ["int8"]}, {}, "only int8/int8, which is the base; name one more"),
        ({"formats": ["mx7"]}, {}, "formats: 'mx7' is no format of operands; use int2 to int16"),
        ({"formats": [("mx6", "mx6", "int8")]}, {}, "is neither a name nor a pair"),
        (
            {"formats": ["mx6"]},
            {"bops": 1},
            "limit: found 'bops'; formats are chosen within limits of latency, energy, size",
        ),
        ({"formats": ["mx6"]}, {}, "limit: found none"),
        ({"formats": ["mx6"]}, {"size": "half"}, "size: limit 'half' is no number; give one, or a share such as 70%"),
    ],
)
def test_one_clear_message(mixed, digits, options, limits, message):
    with pytest.raises(AccelsimError, match=message):
        FormatSearch(mixed, digits.head(3), calibration=1, **options).find(limits)
