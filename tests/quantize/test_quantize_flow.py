"""Networks with residual branches and layers of different formats: what is written, taken and converted where."""

import numpy as np
import pytest
from quantize_networks import attention, small

from accelsim import formats, load_config, simulate
from accelsim.errors import NetworkError, UnsupportedLayerError
from accelsim.quantize.convert import quantize_network
from accelsim.quantize.evaluate import evaluate
from accelsim.quantize.layers import Conv2d, Linear
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.network_file import load_network, save_network
from accelsim.quantize.requantizer import Requantizer, requantized
from accelsim.quantize.vector_layers import Softmax, Vector


def residual(channels=32, batch=6):
    """conv1, conv2 and back to conv1 (add, ReLU), mean, reshape, linear; and two branches joined by concat."""
    rng = np.random.default_rng(11)

    def conv(name, source, inputs, activation="none"):
        weight = rng.standard_normal((channels, 3, 3, inputs)) / np.sqrt(9 * inputs)
        meta = Conv2d(name=name, input=source, padding=((1, 1), (1, 1)), activation=activation)
        return FloatLayer(meta, weight, rng.standard_normal(channels) / 8)

    layers = [
        conv("conv1", "input", 3, "relu"),
        conv("conv2", "conv1", channels),
        FloatLayer(Vector(name="add", operator="add", inputs=("conv1", "conv2"), attributes={"activation": "relu"})),
        conv("left", "add", channels),
        conv("right", "add", channels, "relu"),
        FloatLayer(Vector(name="both", operator="concat", inputs=("left", "right", "add"), attributes={"axis": 3})),
        FloatLayer(
            Vector(name="mean", operator="mean", inputs=("both",), attributes={"axes": [1, 2], "keepdims": True})
        ),
        FloatLayer(Vector(name="flat", operator="reshape", inputs=("mean",), attributes={"shape": [1, 3 * channels]})),
        FloatLayer(Linear(name="fc", input="flat"), rng.standard_normal((5, 3 * channels)), None),
    ]
    return FloatNetwork("residual", rng.uniform(0, 1, (batch, 5, 5, 3)), layers, labels=np.arange(batch) % 5)


ARRAY = ("conv1", "conv2", "left", "right", "fc")


def every(form, **others):
    return dict.fromkeys(ARRAY, (form, form)) | others


@pytest.fixture(scope="module")
def requantizer():
    return Requantizer(residual())


@pytest.fixture(scope="module")
def mixed(request):
    return load_config(request.config.rootpath / "configs" / "mixed.yaml")


def written(trace):
    return {layer.name: trace.tensor_meta(layer.output).format for layer in trace.layers}


def test_the_graph_is_evaluated_as_it_is_drawn():
    network = residual()
    values = evaluate(network, network.inputs[:2])
    np.testing.assert_array_equal(values["add"], np.maximum(values["conv1"] + values["conv2"], 0))
    np.testing.assert_array_equal(
        values["both"], np.concatenate([values["left"], values["right"], values["add"]], axis=3)
    )
    np.testing.assert_allclose(values["flat"], values["both"].mean(axis=(1, 2)), rtol=1e-12)
    assert network.shapes["flat"] == (6, 96)


def test_a_graph_survives_its_file(tmp_path):
    network = residual()
    again = load_network(save_network(tmp_path / "n.npz", network))
    assert [layer.meta for layer in again.layers] == [layer.meta for layer in network.layers]
    assert again.head(2).shapes["flat"] == (2, 96)


def test_integers_of_eight_bits_are_written_as_they_are_taken(requantizer):
    """What concat alone takes means what its output does; the sum, which convolutions take too, is converted for it."""
    trace = requantizer.trace(every("int8"))
    assert written(trace) == {
        "conv1": "uint8",
        "conv2": "int8",
        "add": "uint8",
        "left": "int8",
        "right": "int8",
        "add.to_int8": "int8",
        "both": "int8",
        "mean": "int8",
        "flat": "int8",
        "fc": "int8",
    }
    joined = ("left", "right", "add.to_int8", "both")
    assert len({tuple(map(float, trace.output_factors(name)[1:])) for name in joined}) == 1
    assert [layer.operator for layer in trace.layers if ".to_" in layer.name] == ["requantize"]


def test_a_microexponent_layer_between_integers(requantizer):
    """conv1 is taken by conv2 (mx6) and by the addition (int16): int16 leaves it, and mx6 is made of that."""
    trace = requantizer.trace(every("int8", conv2=("mx6", "mx6")))
    found = written(trace)
    assert found["conv1"] == "int16"
    assert found["conv1.to_mx6"] == "mx6"
    assert found["conv2"] == "int16"
    assert (found["add"], found["add.to_uint8"]) == ("int16", "uint8")
    assert {layer.rounding for layer in trace.layers if layer.op != "vector"} == {"float32_half_even"}
    assert not any(trace.output_factors(layer)[2].any() for layer in trace.layers if layer.name in ("add", "conv2"))


def test_sums_of_wide_integers_have_no_zero_points(mixed):
    """An addition of int16 writes the int8 that the next layer takes, signed and symmetric: its rule has no others."""
    rng = np.random.default_rng(2)
    layers = [
        FloatLayer(Linear(name="a"), rng.standard_normal((16, 16)), np.full(16, 3.0)),
        FloatLayer(Linear(name="b"), rng.standard_normal((16, 16)), None),
        FloatLayer(Vector(name="add", operator="add", inputs=("a", "b"))),
        FloatLayer(Linear(name="fc", input="add"), rng.standard_normal((4, 16)), None),
    ]
    network = FloatNetwork("sums", rng.standard_normal((5, 16)), layers)
    trace = requantized(network, {"a": ("int8", "int8"), "b": ("mx6", "mx6"), "fc": ("int8", "int8")})
    assert written(trace)["add"] == "int8"
    assert int(trace.output_factors("add")[2]) == 0
    report = simulate(mixed, trace, verify=True)
    assert all(layer.verified == 0 for layer in report.layers)


def test_one_conversion_serves_all_who_want_it(requantizer):
    trace = requantizer.trace(every("mx6", conv1=("int8", "int8"), fc=("int8", "int8")))
    made = [layer for layer in trace.layers if layer.name == "add.to_mx6"]
    assert len(made) == 1
    assert [layer.name for layer in trace.layers if layer.op == "conv2d" and layer.input == made[0].output] == [
        "left",
        "right",
    ]


MIXES = [
    every("int8"),
    every("mx6"),
    every("mx9", conv1=("int8", "int8")),
    every("vsq4", conv1=("int8", "int8"), right=("mxfp4", "mxfp4")),
    every("int8", conv2=("int4", "mx9"), left=("fp8_e4m3", "fp8_e4m3"), fc=("int3", "int6")),
    every("int4", fc=("mxfp8_e4m3", "mxfp8_e4m3")),
]


@pytest.mark.parametrize("assignment", MIXES, ids=lambda each: ",".join(sorted({w for w, _ in each.values()})))
def test_mixed_networks_run_and_are_verified(requantizer, mixed, assignment):
    report = simulate(mixed, requantizer.trace(assignment), verify=True)
    assert all(layer.verified == 0 for layer in report.layers)
    worst = min(layer.accuracy.sqnr_db for layer in report.layers if layer.accuracy is not None)
    narrow = any("4" in name or "3" in name for pair in assignment.values() for name in pair)
    assert worst > (4 if narrow else 14)
    assert report.accuracy.images == 6


def test_an_assignment_after_another_gives_what_it_gives_alone(requantizer):
    assignment = every("int4", conv2=("mx6", "mx6"))
    requantizer.trace(every("int8"))
    again = requantizer.trace(assignment)
    assert again.digest == requantizer.trace(assignment).digest == requantized(residual(), assignment).digest


def test_references_may_be_left_out():
    network = residual()
    lean = Requantizer(network, references=False).trace(every("int8"))
    assert [lean.reference(layer.output) is None for layer in lean.layers][-1] is False
    assert all(lean.reference(layer.output) is None for layer in lean.layers[:-1])


def test_a_calibration_of_its_own_is_walked_apart():
    network = residual()
    other = FloatNetwork("other", network.inputs, network.layers, calibration=2 * network.inputs)
    once, twice = (Requantizer(each, ranges="minmax").trace(every("int8")) for each in (network, other))
    assert float(twice.tensor("input").scale) == 2 * float(once.tensor("input").scale)
    np.testing.assert_array_equal(once.reference("fc.out"), twice.reference("fc.out"))


def test_an_activation_that_two_layers_want_differently_is_converted():
    pairs = {"queries": ("int8", "int8"), "keys": ("int8", "int4"), "scores": ("int8", "int8")}
    trace = requantized(attention(), pairs, ranges="minmax")
    assert trace.tensor_meta("input").format == "int8"
    assert trace.layers[1].name == "input.to_int4"
    assert trace.layers[2].input == "input.to_int4.out"


def test_the_quantizer_takes_such_networks_and_other_ranges(requantizer):
    """quantize_network of a network with operators is the Requantizer's; without them, ranges alone make it so."""
    trace = quantize_network(residual(), weights="int4", activations="int6", ranges="mse", name="residual")
    assert trace.digest == requantizer.trace(dict.fromkeys(ARRAY, ("int4", "int6"))).digest
    few = [quantize_network(small(), weights="int3", activations="int3", ranges=each) for each in ("minmax", "mse")]
    assert float(few[1].output_factors("conv1")[1]) < float(few[0].output_factors("conv1")[1])


def test_without_ranges_of_its_own_it_is_the_plain_quantizer():
    """Both ways from a float network to a trace are one for a chain of layers with minmax."""
    network = small()
    pairs = {layer.name: ("int5", "int6") for layer in network.layers}
    one = quantize_network(network, weights="int5", activations="int6", name="one")
    assert requantized(network, pairs, ranges="minmax", name="one").digest == one.digest


def test_layers_of_transformers_are_left_to_the_quantizer():
    network = attention()
    soft = FloatLayer(Softmax(name="shares", input="scores"))
    whole = FloatNetwork("attention", network.inputs, [*network.layers, soft])
    with pytest.raises(NetworkError, match="layer 'shares': softmax has one format"):
        requantized(whole, dict.fromkeys(("queries", "keys", "scores"), ("int8", "int8")))


def test_ranges_of_least_error_lose_less_at_four_bits():
    network = residual(batch=16)
    outputs = {}
    for ranges in ("minmax", "mse", "percentile:99"):
        trace = Requantizer(network, ranges=ranges).trace(every("int4"))
        outputs[ranges] = {name: float(trace.output_factors(name)[1]) for name in ("conv1.to_uint4", "add.to_uint4")}
        weight, real = trace.tensor("conv2.weight"), network.layers[1].weight
        outputs[ranges]["error"] = float(np.square(weight.dequantize() - real).sum())
    for name in ("conv1.to_uint4", "add.to_uint4"):
        assert outputs["mse"][name] < outputs["minmax"][name]
        assert outputs["percentile:99"][name] < outputs["minmax"][name]
    assert outputs["mse"]["error"] < outputs["minmax"]["error"] == outputs["percentile:99"]["error"]


def test_mse_finds_the_best_scale_of_a_grid_by_hand():
    """Values 0, 1, ... 1, 8 in int2n (-1, 0, 1): with the largest as range 1 rounds to 0; clipped to about 1 it stays.
    The error of range r is 7 ones off by |1 - r| and one 8 off by 8 - r: least near r = (7 + 8) / 8.
    """
    weight = np.array([[1.0] * 7 + [8.0]])
    layer = FloatLayer(Linear(name="fc"), weight, None)
    network = FloatNetwork("one", np.ones((2, 8)), [layer])
    by_hand = min(
        (8 * 0.93**i for i in range(34)), key=lambda r: 7 * min(1, abs(1 - r) if r < 2 else 1) ** 2 + (8 - r) ** 2
    )
    found = float(Requantizer(network).trace({"fc": ("int2n", "int8")}).tensor("fc.weight").scale[0])
    errors = {
        r: np.square(formats.get("int2n").quantize(weight, scale=r).dequantize() - weight).sum() for r in (8.0, found)
    }
    assert errors[found] <= errors[8.0]
    assert found == pytest.approx(by_hand)


@pytest.mark.parametrize("ranges", ["max", "percentile:40", "percentile:x", "mse:3", "percentile:101"])
def test_unknown_ranges_are_refused(ranges):
    with pytest.raises(NetworkError, match="use minmax, mse, percentile"):
        Requantizer(residual(), ranges=ranges)


@pytest.mark.parametrize(
    ("assignment", "options", "words"),
    [
        ({"conv1": ("int8", "int8")}, {}, "no formats for conv2, left, right, fc"),
        (every("int8", conv3=("int8", "int8")), {}, "'conv3' is not a layer of 'residual' that multiplies"),
        (every("int8", add=("int8", "int8")), {}, "'add' is not a layer of 'residual' that multiplies"),
        (every("int8", fc="int8"), {}, "'fc' has 'int8'; give"),
        (every("int8"), {"vector": "mx6"}, "operators of the vector unit take signed integers"),
        (every("int8", left=("int8", "kmeans4")), {}, "activation 'add': kmeans4"),
    ],
)
def test_what_cannot_be_is_refused_by_name(requantizer, assignment, options, words):
    with pytest.raises(NetworkError, match=words):
        requantizer.trace(assignment, **options)


def test_a_machine_without_float_adders_names_layer_and_both_sides(requantizer, request):
    config = load_config(request.config.rootpath / "configs" / "int8_ws.yaml")
    with pytest.raises(UnsupportedLayerError, match=r"'conv2' multiplies mx6 .* 'int8_ws' has array.float_unit: null"):
        simulate(config, requantizer.trace(every("int8", conv2=("mx6", "mx6"))))


def test_bad_operators_of_a_network_are_named():
    layers = small().layers[:1]
    wrong = FloatLayer(Vector(name="p", operator="mean", inputs=("conv1",), attributes={"axes": (1, 9)}))
    with pytest.raises(NetworkError, match="layer 'p': axes"):
        FloatNetwork("n", small().inputs, [*layers, wrong])
    wrong = FloatLayer(Vector(name="p", operator="add", inputs=("conv1", "conv9")))
    with pytest.raises(NetworkError, match="takes 'conv9', which no layer before it computes"):
        FloatNetwork("n", small().inputs, [*layers, wrong])
