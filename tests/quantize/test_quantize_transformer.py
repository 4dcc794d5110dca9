"""Transformer encoders: the float network from its weights, the formats of a trace of it, and what is refused."""

import math
import re

import numpy as np
import pytest

from accelsim.errors import AccelsimError, NetworkError
from accelsim.quantize.convert import quantize_network
from accelsim.quantize.evaluate import evaluate
from accelsim.quantize.layers import Linear, Matmul
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.network_file import load_network, save_network
from accelsim.quantize.transformer import encoder_network, encoder_trace
from accelsim.quantize.vector_layers import Add, Function, LayerNorm, Mean, Reshape, Slice, Softmax, Transpose
from accelsim.quantize.vector_rules import VECTOR_RULES, VectorRules

WIDTH, HIDDEN, TOKENS, PIXELS, CLASSES = 8, 12, 5, 3, 4


def parameters(blocks=2, seed=5, *, final_norm=False, flatten=False):
    rng = np.random.default_rng(seed)
    shapes = {"embedding.weight": (WIDTH, PIXELS), "embedding.bias": (WIDTH,), "position": (TOKENS, WIDTH)}
    shapes |= {"embedding_norm.gamma": (WIDTH,), "embedding_norm.beta": (WIDTH,)}
    if final_norm:
        shapes |= {"norm.gamma": (WIDTH,), "norm.beta": (WIDTH,)}
    for i in range(blocks):
        for name in ("query", "key", "value", "output"):
            shapes |= {f"blocks.{i}.{name}.weight": (WIDTH, WIDTH), f"blocks.{i}.{name}.bias": (WIDTH,)}
        shapes |= {f"blocks.{i}.ff1.weight": (HIDDEN, WIDTH), f"blocks.{i}.ff1.bias": (HIDDEN,)}
        shapes |= {f"blocks.{i}.ff2.weight": (WIDTH, HIDDEN), f"blocks.{i}.ff2.bias": (WIDTH,)}
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{norm}.gamma": (WIDTH,), f"blocks.{i}.{norm}.beta": (WIDTH,)}
    shapes |= {"classifier.weight": (CLASSES, WIDTH * (TOKENS if flatten else 1)), "classifier.bias": (CLASSES,)}
    made = {name: rng.normal(0, 0.5, shape) for name, shape in shapes.items()}
    return made | {name: 1 + 0.2 * array for name, array in made.items() if name.endswith("gamma")}


def images(count=6, seed=6):
    return np.random.default_rng(seed).normal(0, 1, (count, TOKENS, PIXELS))


def by_hand(params, x, heads, norm, pooling, activation=None):
    """The encoder as a paper writes it, image by image and head by head, with matrix products of NumPy."""

    def linear(x, name):
        return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]

    def normal(x, name):
        deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return (x - x.mean(-1, keepdims=True)) / deviation * params[f"{name}.gamma"] + params[f"{name}.beta"]

    def attention(x, here):
        depth, heads_out = WIDTH // heads, []
        q, k, v = (linear(x, f"{here}.{name}") for name in ("query", "key", "value"))
        for h in range(heads):
            part = slice(h * depth, (h + 1) * depth)
            scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(depth))
            heads_out.append(scores / scores.sum(1, keepdims=True) @ v[:, part])
        return linear(np.hstack(heads_out), f"{here}.output")

    def feed_forward(x, here):
        hidden = linear(x, f"{here}.ff1")
        gelu = np.vectorize(activation or (lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2))
        return linear(gelu(hidden), f"{here}.ff2")

    logits = []
    for image in x:
        y = normal(linear(image, "embedding") + params["position"], "embedding_norm")
        for i in range(2):
            here = f"blocks.{i}"
            for body, name in ((attention, f"{here}.norm1"), (feed_forward, f"{here}.norm2")):
                y = normal(y + body(y, here), name) if norm == "post" else y + body(normal(y, name), here)
        if "norm.gamma" in params:
            y = normal(y, "norm")
        y = {"mean": y.mean(0), "first": y[0], "flatten": y.ravel(), "none": y}[pooling]
        logits.append(linear(y, "classifier"))
    return np.array(logits)


@pytest.mark.parametrize(
    ("heads", "norm", "pooling"), [(2, "post", "mean"), (4, "pre", "first"), (1, "post", "flatten"), (8, "pre", "none")]
)
def test_the_float_network_is_an_encoder(heads, norm, pooling):
    params = parameters(final_norm=norm == "pre", flatten=pooling == "flatten")
    network = encoder_network(params, images(), heads=heads, norm=norm, pooling=pooling)
    found = evaluate(network, network.inputs)["classifier"]
    np.testing.assert_allclose(found, by_hand(params, images(), heads, norm, pooling), rtol=1e-7, atol=1e-8)


def test_other_activations():
    network = encoder_network(parameters(), images(), heads=2, activation="silu")
    expected = by_hand(parameters(), images(), 2, "post", "mean", lambda z: z / (1 + math.exp(-z)))
    np.testing.assert_allclose(evaluate(network, network.inputs)["classifier"], expected, rtol=1e-7, atol=1e-8)


def test_parts_may_be_left_out():
    params = {name: array for name, array in parameters().items() if name.startswith("blocks.") and "bias" not in name}
    params = {name: array for name, array in params.items() if "beta" not in name}
    network = encoder_network(params, np.ones((2, 4, WIDTH)) * np.arange(WIDTH), heads=2, pooling="none")
    assert network.layers[0].name == "block0.query"
    assert network.layers[-1].name == "block1.norm2"
    assert network.shapes["block1.norm2"] == (2, 4, WIDTH)
    assert all(layer.bias is None for layer in network.layers)


def test_a_saved_encoder_comes_back(tmp_path):
    network = encoder_network(parameters(), images(), heads=2, norm="pre", pooling="first")
    found = load_network(save_network(tmp_path / "e.npz", network))
    assert [layer.meta for layer in found.layers] == [layer.meta for layer in network.layers]
    traces = [quantize_network(each, weights="int8", activations="int8") for each in (network, found)]
    assert traces[0].digest == traces[1].digest


def formats_of(trace):
    return {layer.name: trace.tensor_meta(layer.output).format for layer in trace.layers}


def test_ibert_formats_and_rules():
    """8-bit operands, raw scores, 16-bit inputs of GELU, sums and layer norms, everything symmetric but the edges."""
    trace = encoder_trace(parameters(), images(), heads=2).build()
    made = formats_of(trace)
    for name in ("query", "key", "value", "mix", "norm1", "gelu"):
        assert made[f"block0.{name}"] == "int8", name
    assert made["block0.scores"] == "int32"
    assert made["block0.softmax"] == "uint8"
    for name in ("output", "residual1", "ff1", "ff2", "residual2"):
        assert made[f"block0.{name}"] == "int16", name
    by_name = {layer.name: layer for layer in trace.layers}
    assert [by_name[f"block0.{name}"].attributes["rule"] for name in ("softmax", "gelu", "norm1", "residual1")] == [
        *("ibert", "ibert", "ibert", "hawq")
    ]
    rules = {layer.rounding for layer in trace.layers if layer.op in ("linear", "matmul")}
    assert rules == {"dyadic_half_even", None}
    shifted = {layer.name for layer in trace.layers if int(trace.output_factors(layer)[2])}
    assert shifted == {
        "pool",
        "classifier",
        *(f"block{i}.mix{part}" for i in (0, 1) for part in ("", ".tokens", ".join")),
    }
    _, scale, _ = trace.output_factors(by_name["block0.softmax"])
    assert float(scale) == 2.0**-8


def test_tflite_formats_and_rules():
    trace = encoder_trace(parameters(), images(), heads=2, rules="tflite").build()
    made, by_name = formats_of(trace), {layer.name: layer for layer in trace.layers}
    assert set(made.values()) == {"int8", "uint8"}
    assert by_name["block0.residual1"].attributes["rule"] == "tflite"
    assert by_name["block0.softmax"].attributes["rule"] == "tflite"
    assert by_name["block0.gelu"].operator == "lookup"
    assert by_name["block0.query"].rounding == "double_half_up_then_away"
    assert int(trace.output_factors(by_name["block0.ff1"])[2]) != 0, "what a table takes may have a zero point"


def test_the_scale_of_the_scores_is_in_the_queries():
    params = parameters()
    network = encoder_network(params, images(), heads=2)
    weight = next(layer.weight for layer in network.layers if layer.name == "block0.query")
    np.testing.assert_allclose(weight, params["blocks.0.query.weight"] / 2, rtol=1e-15)


def test_moves_keep_what_codes_mean():
    trace = encoder_trace(parameters(), images(), heads=2).build()
    by_name = {layer.name: trace.output_factors(layer)[1:] for layer in trace.layers}
    for name in ("block0.query", "block1.value"):
        assert by_name[name] == by_name[f"{name}.split"] == by_name[f"{name}.heads"]


def test_formats_of_single_layers():
    trace = encoder_trace(
        parameters(), images(), heads=2, overrides={"block0.ff1": "mx6", "block1.ff2": ("int4", "int6")}
    ).build()
    weights = {layer.name: trace.tensor_meta(layer.weight).format for layer in trace.layers if layer.op == "linear"}
    assert (weights["block0.ff1"], weights["block1.ff2"], weights["block0.ff2"]) == ("mx6", "int4", "int8")
    assert formats_of(trace)["block1.gelu"] == "int6"
    assert formats_of(trace)["block0.norm1"] == "int8"
    roundings = {layer.rounding for layer in trace.layers if layer.op == "linear"}
    assert roundings == {"float32_half_even"}, "one PPU has one rule"


def test_references_of_all_layers_or_of_the_outputs():
    every = encoder_trace(parameters(), images(), heads=2).build()
    network = encoder_network(parameters(), images(), heads=2)
    values = evaluate(network, network.inputs)
    for layer in every.layers:
        np.testing.assert_allclose(every.reference(layer.output), values[layer.name], rtol=2**-10, atol=1e-6)
    few = encoder_trace(parameters(), images(), heads=2, references="outputs").build()
    assert [layer.name for layer in few.layers if few.reference(layer.output) is not None] == ["classifier"]


def test_the_head_of_a_batch_is_that_of_its_reshapes_and_slices():
    trace = encoder_trace(parameters(), images(6), heads=2, pooling="first", norm="pre").build()
    head = trace.head(2)
    assert {layer.attributes["shape"][0] for layer in head.layers if getattr(layer, "operator", "") == "reshape"} == {2}
    assert next(layer.attributes["size"] for layer in head.layers if layer.name == "first") == (2, 1, WIDTH)
    assert {trace.tensor_meta(layer.output).shape[0] for layer in head.layers} == {6}
    assert {head.tensor_meta(layer.output).shape[0] for layer in head.layers} == {2}


# -- what is refused --------------------------------------------------------------------------------------------------


def edited(**changes):
    params = parameters() | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in params.items() if value is not None}


@pytest.mark.parametrize(
    ("params", "options", "words"),
    [
        (edited(blocks__1__key__weight=None), {}, ["parameter 'blocks.1.key.weight' is missing"]),
        (edited(blocks__0__qeury__weight=np.ones((8, 8))), {}, ["'blocks.0.qeury.weight' is unknown; did you mean"]),
        (edited(embedding__weight=None), {}, ["'embedding.weight' is missing"]),
        (edited(position=np.ones((4, 8))), {}, ["layer 'position'", "(6, 5, 8) and (4, 8) do not broadcast"]),
        (edited(position=np.array(["a"])), {}, ["parameter 'position' has dtype <U1"]),
        (edited(blocks__0__norm1__gamma=np.ones(7)), {}, ["layer 'block0.norm1': gamma has shape (7,)"]),
        (edited(blocks__0__norm1__beta=np.ones(7)), {}, ["layer 'block0.norm1': beta has shape (7,)"]),
        ({}, {}, ["there are no blocks"]),
        (parameters(), {"heads": 3}, ["heads=3 does not divide the width 8"]),
        (parameters(), {"norm": "middle"}, ["norm='middle' is unknown; use 'post' or 'pre'"]),
        (parameters(), {"pooling": "max"}, ["pooling='max' is unknown"]),
        (parameters(), {"activation": "geluu"}, ["no function 'geluu'; did you mean 'gelu'"]),
        (parameters(), {"rules": "tfltie"}, ["unknown rules 'tfltie'; did you mean 'tflite'"]),
        (parameters(), {"overrides": {"block0.ff3": "int4"}}, ["'block0.ff3' is not a layer", "did you mean"]),
        (parameters(), {"overrides": {"block0.softmax": "int4"}}, ["'block0.softmax' is computed by the vector unit"]),
        (parameters(), {"overrides": {"block0.ff1": ("mx6", "mx6")}}, ["'block0.ff1' takes mx6", "plain integers"]),
        (parameters(), {"activations": "fp8_e4m3"}, ["takes fp8_e4m3, but the vector unit", "plain integers"]),
        (parameters(), {"output": "kmeans4"}, ["'classifier'", "a table of weights"]),
    ],
)
def test_mistakes_are_named(params, options, words):
    with pytest.raises(AccelsimError) as caught:
        encoder_trace(params, images(), **{"heads": 2} | options)
    for word in words:
        assert word in str(caught.value)


def test_inputs_of_another_shape():
    with pytest.raises(NetworkError, match=re.escape("inputs have shape (6, 15); use [batch, tokens, numbers]")):
        encoder_network(parameters(), images().reshape(6, -1), heads=2)


def test_gelu_of_large_numbers_is_refused_with_the_way_out():
    params = edited(blocks__0__ff1__bias=np.full(HIDDEN, 200.0))
    with pytest.raises(
        NetworkError, match=r"'block0.ff1': reaches 20\d.*, but I-BERT's GELU takes int16 up to 127.996"
    ):
        encoder_trace(params, images(), heads=2)
    encoder_trace(params, images(), heads=2, rules=VectorRules(gelu="lookup")).build()


def test_a_gamma_of_zero_becomes_the_smallest_code():
    """I-BERT divides beta by gamma; a channel that the float network ignores keeps its beta, nearly."""
    gamma, beta = np.array([1.0, 0.0, -1e-9, 0.5]), np.array([0.1, 0.25, 0.0, -0.2])
    layers = [
        FloatLayer(Linear(name="fc"), np.eye(4)),
        FloatLayer(LayerNorm(name="norm"), gamma, beta),
    ]
    network = FloatNetwork("dead", np.random.default_rng(2).normal(size=(5, 4)), layers)
    trace = quantize_network(network, weights="int8", activations="int8", output="int16")
    assert trace.tensor("norm.1").codes.tolist() == [32767, 1, -1, 16384]


def test_layers_of_the_vector_unit_in_any_network():
    """Not only encoders: tanh after a linear layer, a scaled sum, a mean over two axes, a slice."""
    rng = np.random.default_rng(1)
    layers = [
        FloatLayer(Linear(name="fc"), rng.standard_normal((6, 4)), None),
        FloatLayer(Function(name="tanh", function="tanh")),
        FloatLayer(Add(name="sum", other="fc")),
        FloatLayer(Slice(name="part", begin=(1, 2), size=(2, 4))),
        FloatLayer(Transpose(name="turned", axes=(2, 1))),
        FloatLayer(LayerNorm(name="norm"), np.ones(2), None),
        FloatLayer(Reshape(name="pairs", shape=(2, 2, 2))),
        FloatLayer(Mean(name="mean", axes=(1, 2))),
        FloatLayer(Softmax(name="softmax")),
    ]
    network = FloatNetwork("mixed", rng.standard_normal((3, 3, 4)), layers)
    x = network.inputs @ layers[0].weight.T
    x = (np.tanh(x) + x)[:, 1:3, 2:6].transpose(0, 2, 1)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = np.exp(x.reshape(3, 2, 2, 2).mean((1, 2)))
    expected = x / x.sum(-1, keepdims=True)
    np.testing.assert_allclose(evaluate(network, network.inputs)["softmax"], expected, rtol=1e-8)
    for rules in VECTOR_RULES:
        trace = quantize_network(network, weights="int8", activations="int8", rules=rules)
        assert formats_of(trace)["softmax"] == "uint8"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (FloatLayer(Softmax(name="s"), np.ones(3)), "a softmax takes one activation and no weight"),
        (FloatLayer(Softmax(name="s"), None, np.ones(6)), "a softmax takes no bias"),
        (FloatLayer(LayerNorm(name="s")), "weight is missing"),
        (FloatLayer(Add(name="s", other="fc"), np.ones(3)), "a add takes two activations and no weight"),
        (FloatLayer(Add(name="s"), np.ones((2, 3, 3, 6))), "makes (2, 3, 3, 6); the sum must have the shape"),
        (FloatLayer(Slice(name="s", begin=(0,), size=(2, 2))), "begin has 1 numbers, size 2"),
        (FloatLayer(Slice(name="s", begin=(2, 0), size=(2, 2))), "2 element(s) from 2"),
        (FloatLayer(Reshape(name="s", shape=(5,))), "another number"),
        (FloatLayer(Transpose(name="s", axes=(1, 1))), "no permutation"),
        (FloatLayer(Mean(name="s", axes=(3,))), "axes (3,) do not fit"),
        (FloatLayer(Matmul(name="s", other="fc"), np.ones(3)), "a matmul takes two activations and no weight"),
    ],
)
def test_vector_layers_that_do_not_fit(layer, words):
    fc = FloatLayer(Linear(name="fc"), np.ones((6, 4)), None)
    with pytest.raises(NetworkError, match=re.escape(words)):
        FloatNetwork("wrong", np.ones((3, 3, 4)), [fc, layer])


def test_a_network_without_products_is_refused():
    network = FloatNetwork("none", np.arange(6.0).reshape(2, 3), [FloatLayer(Softmax(name="s"))])
    with pytest.raises(NetworkError, match="has no layer with multiply-accumulates"):
        quantize_network(network, weights="int8", activations="int8")
