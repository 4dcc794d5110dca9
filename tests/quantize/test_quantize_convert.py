"""From a float network to a trace: formats, scales, chaining, and what is refused."""

import re

import numpy as np
import pytest
from quantize_networks import attention, small

from accelsim import formats, load_config, load_trace, simulate
from accelsim.errors import AccelsimError, FormatError, NetworkError
from accelsim.quantize.convert import quantize_network, trace_builder
from accelsim.quantize.evaluate import evaluate
from accelsim.quantize.layers import Conv2d, Linear
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.options import read_options
from accelsim.quantize.presets import PRESETS, Recipe, get_preset


def quantized(network=None, **options):
    return quantize_network(network or small(), **{"weights": "int8", "activations": "int8"} | options)


def output_formats(trace):
    return [trace.tensor_meta(layer.output).format for layer in trace.layers]


def weight_formats(trace):
    return [trace.tensor_meta(layer.weight).format for layer in trace.layers]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_builds_a_valid_trace_that_is_the_same_each_time(preset, tmp_path):
    network = small("sign" if preset == "xnor" else "relu")
    if preset == "xnor":  # the second convolution's ReLU is the last layer's int8 input
        assert network.layers[1].meta.activation == "relu"
    path = trace_builder(network, **vars(PRESETS[preset])).save(tmp_path / "t.npz")
    trace = load_trace(path)
    trace.check_arrays()
    assert trace.digest == quantize_network(network, **vars(PRESETS[preset])).digest
    np.testing.assert_array_equal(trace.labels, network.labels)
    values = evaluate(network, network.inputs)
    for layer in trace.layers:
        np.testing.assert_allclose(trace.reference(layer.output), values[layer.name], rtol=2**-11, atol=1e-7)


@pytest.mark.parametrize("name", formats.catalog.names())
def test_every_format_of_the_catalog_makes_weights_of_a_trace(name):
    form = formats.get(name)
    block = None if form.blocks is None else name
    trace = quantized(weights=name, activations=block or "int8n", last=("int8", "int8"))
    weight = trace.tensor("conv2.weight")
    assert weight.format == form
    real = small().layers[1].weight
    reference = np.sum(real.astype(np.float64) ** 2)
    assert np.sum((weight.dequantize() - real) ** 2) < 0.9 * reference, "zeros would be about as good"


def test_an_output_has_the_format_that_the_next_layer_takes():
    trace = quantized(weights="int4", activations="int5", first=("int8", "int6"), last=("int7", "int3"), output="int16")
    assert trace.tensor_meta("input").format == "int6"
    assert weight_formats(trace) == ["int8", "int4", "int7"]
    assert output_formats(trace) == ["uint5", "uint3", "int16"]


def test_overrides_come_before_first_and_last():
    trace = quantized(last=("int4", "int4"), overrides={"fc": ("int6", "int7"), "conv2": ("int5", "int8")})
    assert weight_formats(trace) == ["int8", "int5", "int6"]
    assert output_formats(trace) == ["uint8", "uint7", "int8"]


def test_a_single_layer_is_first_and_last_and_first_counts():
    one = quantize_network(
        attention_part(), weights="int8", activations="int8", first=("int4", "int4"), last=("int6", "int6")
    )
    assert weight_formats(one) == ["int4"]


def attention_part():
    whole = attention()
    return FloatNetwork("one", whole.inputs, whole.layers[:1])


@pytest.mark.parametrize(
    ("activations", "signed", "unsigned"),
    [
        ("int8", "int8", "uint8"),
        ("uint8", "uint8", "uint8"),  # zero points reach below zero
        ("int8n", "int8n", "uint8"),
        ("dfp8", "dfp8", "udfp8"),
        ("udfp8", "dfp8", "udfp8"),
        ("q1.7", "q1.7", "uq1.7"),
        ("fp8_e4m3", "fp8_e4m3", "fp8_e4m3"),
        ("po2_4", "po2_4", "po2_4"),
    ],
)
def test_activations_take_the_twin_that_suits_their_sign(activations, signed, unsigned):
    trace = quantized(activations=activations)
    assert trace.tensor_meta("input").format == signed
    assert output_formats(trace)[:2] == [unsigned, unsigned]


@pytest.mark.parametrize("activations", ["vsq4", "uvsq4"])
def test_vsq_activations_too(activations):
    trace = quantized(weights="vsq4", activations=activations)
    assert trace.tensor_meta("input").format == "vsq_int4_v16_s4"
    assert output_formats(trace) == ["vsq_uint4_v16_s4", "vsq_uint4_v16_s4", "int8"]


def test_an_input_without_negative_values_needs_no_sign():
    base = small()
    positive = small(inputs=np.abs(base.inputs), calibration=np.abs(base.calibration))
    assert quantized(positive, activations="dfp8").tensor_meta("input").format == "udfp8"
    half = small(inputs=base.inputs, calibration=np.abs(base.calibration))
    assert quantized(half, activations="dfp8").tensor_meta("input").format == "dfp8"


def test_scales_come_from_the_calibration_inputs():
    network = small()
    trace = quantized(network)
    values = evaluate(network, network.calibration)
    image = trace.tensor("input")
    low, high = values["input"].min(), values["input"].max()
    assert float(image.scale) == (high - low) / 255
    assert int(image.zero_point) == round(-128 - low / float(image.scale))
    for layer in trace.layers[:2]:
        _, scale, zero_point = trace.output_factors(layer)
        assert (float(scale), int(zero_point)) == (values[layer.name].max() / 255, 0)
    wide = small(calibration=4 * network.calibration)
    assert float(quantized(wide).tensor("input").scale) == 4 * float(image.scale)


def test_weights_have_a_scale_per_channel_where_their_format_takes_one():
    def axis(name, **options):
        return quantized(weights=name, **options).tensor_meta("conv2.weight").channel_axis

    assert [axis(name) for name in ("int8", "ternary", "binary", "po2_4")] == [0, 0, 0, 0]
    assert axis("kmeans4") is None
    assert axis("vsq4", activations="vsq4") == 0
    assert [axis(name, activations=name) for name in ("mxfp4", "nvfp4", "mx6")] == [None, None, None]
    assert axis("int8", per_channel=False) is None
    assert quantized(per_channel=False).tensor("conv2.weight").scale.shape == ()


def test_requantization_factors_and_biases_are_those_of_the_scales():
    network = small()
    trace = quantized(network)
    layer = trace.layers[1]
    unit = float(trace.output_factors(trace.layers[0])[1]) * trace.tensor(layer.weight).scale
    np.testing.assert_allclose(
        trace.requantization(layer).scale, unit / float(trace.output_factors(layer)[1]), rtol=1e-15
    )
    assert np.all(np.abs(trace.bias(layer) * unit - network.layers[1].bias) <= 0.5000001 * unit)
    floating = quantized(weights="mxfp4", activations="mxfp4")
    assert floating.bias("conv2").dtype == np.float32
    np.testing.assert_allclose(floating.bias("conv2"), network.layers[1].bias, rtol=1e-6)


def roundings(trace):
    return [layer.rounding for layer in trace.layers]


def test_the_geometry_of_a_convolution_is_kept():
    options = {"stride": (1, 2), "padding": ((1, 2), (0, 3)), "dilation": (2, 1), "groups": 2}
    rng = np.random.default_rng(3)
    layer = FloatLayer(Conv2d(name="conv", **options), rng.standard_normal((4, 2, 3, 3)))
    trace = quantized(FloatNetwork("one", rng.standard_normal((2, 6, 7, 6)), [layer]))
    assert {key: getattr(trace.layers[0], key) for key in options} == options
    assert trace.tensor_meta("conv.out").shape == trace.reference("conv.out").shape


def test_rounding_rules():
    assert roundings(quantized()) == ["half_up"] * 3
    assert roundings(quantized(rounding="truncate")) == ["truncate"] * 3
    assert roundings(quantized(weights="mx9", activations="mx9")) == ["float32_half_even"] * 3
    mixed = {"weights": "mx9", "activations": "mx9", "last": ("int8", "int8"), "first": ("int8", "int8")}
    assert roundings(quantized(**mixed)) == ["float32_half_even"] * 3  # one PPU has one rule
    assert roundings(quantized(**mixed, rounding="half_up")) == ["float32_half_even"] * 2 + ["half_up"]


def test_signs_become_binary_with_scale_1_and_weights_keep_their_magnitude():
    network = small("sign")
    trace = quantize_network(network, **vars(PRESETS["xnor"]))
    assert output_formats(trace) == ["binary", "uint8", "int8"]
    assert weight_formats(trace) == ["int8", "binary", "int8"]
    assert float(trace.output_factors(trace.layers[0])[1]) == 1.0
    assert [layer.activation for layer in trace.layers] == ["none", "relu", "none"]
    assert trace.layers[1].pad_value == 1
    weight = trace.tensor("conv2.weight")
    magnitudes = np.abs(network.layers[1].weight.astype(np.float64)).reshape(32, -1).mean(1)
    np.testing.assert_allclose(weight.scale, magnitudes, rtol=1e-12)


def test_binary_activations_of_a_network_without_relu_have_their_mean_magnitude():
    network = small("none")
    trace = quantized(network, overrides={"conv2": ("binary", "binary")})
    assert output_formats(trace)[0] == "binary"
    mean = np.abs(evaluate(network, network.calibration)["conv1"]).mean()
    assert float(trace.output_factors(trace.layers[0])[1]) == pytest.approx(mean, rel=1e-12)


def test_products_of_two_activations_have_no_zero_points():
    trace = quantized(attention())
    assert output_formats(trace) == ["int8", "int8", "int8"]
    factors = [trace.output_factors(layer) for layer in trace.layers]
    assert [int(zero_point) != 0 for _, _, zero_point in factors] == [False, False, True]


def test_floats_take_no_zero_points():
    trace = quantized(weights="fp8_e4m3", activations="int8", output="int8")
    assert int(trace.tensor("input").zero_point) == 0
    assert [int(trace.output_factors(layer)[2]) for layer in trace.layers[:2]] == [0, 0]


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_16_bit_floats_are_cast(name):
    """Scaled to the largest number of the format, products of two activations would leave float32."""
    trace = quantized(weights=name, activations=name)
    assert float(trace.tensor("input").scale) == 1
    assert [float(trace.output_factors(layer)[1]) for layer in trace.layers[:2]] == [1, 1]
    weight = trace.tensor("conv2.weight")
    assert weight.scale.tolist() == 1
    np.testing.assert_allclose(weight.dequantize(), small().layers[1].weight, rtol=2**-8, atol=1e-7)


def test_references_of_large_values_are_not_cut():
    network = small(inputs=1e5 * small().inputs)
    trace = quantized(network)
    values = evaluate(network, network.inputs)
    assert np.abs(values["conv1"]).max() > 65504
    np.testing.assert_allclose(trace.reference("conv1.out"), values["conv1"], rtol=1e-6)
    exact = quantized().reference("fc.out")
    np.testing.assert_allclose(exact, evaluate(small(), small().inputs)["fc"], rtol=1e-7)  # logits: float32


def test_the_name_and_description_tell_what_it_is():
    assert quantized(small(description="tiny"), name="mine").description == "tiny"
    assert quantized(name="mine").name == "mine"
    assert quantized(weights="int4").name == "small int4 int8"


@pytest.mark.parametrize(
    ("network", "options", "error", "words"),
    [
        (None, {"weights": "integer"}, FormatError, "unknown number format 'integer'"),
        (None, {"activations": "itn8"}, FormatError, "did you mean 'int8'?"),
        (None, {"rounding": "half_upp"}, NetworkError, "did you mean 'half_up'? Use one of"),
        (None, {"overrides": {"conv3": ("int8", "int8")}}, NetworkError, "'conv3' is not a layer of 'small'"),
        (None, {"activations": "kmeans4"}, NetworkError, "activation 'input': kmeans4 is a table of weights"),
        (None, {"overrides": {"conv2": ("int8", "binary")}}, NetworkError, "'conv1': leaves relu"),
        ("sign", {}, NetworkError, "activation 'conv1': is a sign, +1 or -1, but the next layer takes int8"),
        (None, {"weights": "vsq4"}, AccelsimError, "layer 'conv1'"),
        (None, {"overrides": {"conv2": ("int8", "int32")}}, AccelsimError, "int32"),
    ],
)
def test_what_cannot_be_is_refused_by_name(network, options, error, words):
    with pytest.raises(error, match=re.escape(words)):
        quantized(small(network) if network else None, **options)


def test_an_activation_has_one_format():
    with pytest.raises(NetworkError, match=r"'input' is taken in several formats \('queries' takes int8, 'keys' takes"):
        quantized(attention(), overrides={"keys": ("int8", "int4")})


def test_a_channel_of_zeros_has_no_binary_scale():
    network = small()
    network.layers[1].weight[3] = 0
    with pytest.raises(NetworkError, match="layer 'conv2': weights: binary: all values of channel 3 are 0"):
        quantized(network, weights="binary")
    assert quantized(network, weights="int8").tensor("conv2.weight").codes[3].any() == 0


# -- presets and the words of the command line ------------------------------------------------------------------------


def test_presets_by_name():
    assert get_preset("mxfp4") == Recipe("mxfp4", "mxfp4")
    with pytest.raises(NetworkError, match=r"unknown preset 'mxpf4'; did you mean 'mxfp4'\? Use one of int8, int4_vsq"):
        get_preset("mxpf4")
    with pytest.raises(NetworkError, match="unknown preset 'zzzz'; use one of int8"):
        get_preset("zzzz")


def options(preset=None, weights=None, activations=None, first=None, last=None, output=None, layers=()):
    return read_options(preset, weights, activations, first, last, output, layers)


def test_options_make_a_recipe():
    assert options(weights="int4", activations="int8") == (Recipe("int4", "int8"), {})
    recipe, overrides = options(
        "bitfusion", activations="int5", last="int6/int7", layers=["conv2=int2", "fc=int3/int4"]
    )
    assert recipe == Recipe("int4", "int5", ("int8", "int8"), ("int6", "int7"))
    assert overrides == {"conv2": ("int2", "int2"), "fc": ("int3", "int4")}
    assert options("int8", output="int16")[0].output == "int16"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "--weights and --activations missing"),
        ({"weights": "int8"}, "--activations missing"),
        ({"preset": "int8", "first": "a/b/c"}, "--first 'a/b/c': write W/A"),
        ({"preset": "int8", "last": "/int8"}, "--last '/int8'"),
        ({"preset": "int8", "layers": ["conv1"]}, "--layer 'conv1': write NAME=W/A"),
        ({"preset": "int8", "layers": ["=int8"]}, "--layer '=int8'"),
        ({"preset": "int8", "layers": ["a=int8", "a=int4"]}, "'a' is named twice"),
    ],
)
def test_wrong_options_are_named(given, words):
    with pytest.raises(NetworkError, match=re.escape(words)):
        options(**given)


@pytest.mark.parametrize("weights", ["int8", "ternary", "po2_4", "fp8_e4m3"])
def test_a_dead_channel_keeps_its_bias(weights):
    """All weights of a channel are 0: its scale must not be so large that the bias is nothing in units of it."""
    weight = np.array([[0.0, 0.0], [0.02, -0.01]])
    network = FloatNetwork(
        "dead",
        np.array([[1.0, 2.0], [0.5, -1.0]]),
        [FloatLayer(Linear(name="fc", activation="none"), weight, np.array([0.4, 0.1]))],
    )
    trace = quantize_network(network, weights=weights, activations="int8")
    layer = trace.layers[0]
    bias = trace.bias(layer) * (trace.tensor(layer.input).scale * trace.tensor(layer.weight).scale)
    np.testing.assert_allclose(bias, [0.4, 0.1], rtol=0.02)


def test_powers_of_two_between_layers_run(project_root):
    rng = np.random.default_rng(2)
    network = FloatNetwork(
        "two",
        rng.normal(size=(3, 6)),
        [
            FloatLayer(Linear(name="a", activation="relu"), rng.normal(size=(5, 6)), np.zeros(5)),
            FloatLayer(Linear(name="b", activation="none"), rng.normal(size=(4, 5)), np.zeros(4)),
        ],
    )
    trace = quantize_network(network, weights="int8", activations="po2_4")
    config = load_config(project_root / "configs" / "int8_reference.yaml")
    assert simulate(config, trace, verify=True).totals.verified == 0
