"""QONNX: arbitrary widths, thresholds folded exactly; the two shared models to the last code."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_tools import model, node, saved, simulated
from shared_data import shared

from accelsim.errors import ModelError
from accelsim.importers.onnx_model import import_onnx, inspect_onnx, read_onnx

DOMAIN = "qonnx.custom_op.general"


# --- an evaluator of QONNX in float64, which knows nothing of codes or thresholds


def int_quant(x, scale, zero, bits, *, signed, narrow, rounding_mode="ROUND"):
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    rounding = {
        "ROUND": np.round,
        "FLOOR": np.floor,
        "CEIL": np.ceil,
        "DOWN": np.trunc,
        "UP": lambda v: np.sign(v) * np.ceil(np.abs(v)),
        "HALF_UP": lambda v: np.sign(v) * np.floor(np.abs(v) + 0.5),
        "HALF_DOWN": lambda v: np.sign(v) * np.ceil(np.abs(v) - 0.5),
    }[rounding_mode]
    return (rounding(np.clip(x / scale + zero, low, high)) - zero) * scale


ARITHMETIC = {
    "MatMul": np.matmul,
    "Transpose": np.transpose,
    "Relu": lambda x: np.maximum(x, 0),
    "Mul": np.multiply,
    "Add": np.add,
    "Sub": np.subtract,
    "Div": np.divide,
    "Pow": np.power,
}


def evaluate(made, feeds):
    """Return every tensor of a QONNX model of matrix products, in float64."""
    from onnx import helper, numpy_helper

    weights = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    values = {name: array.astype(np.float64) for name, array in weights.items()}
    values.update({name: np.asarray(array, np.float64) for name, array in feeds.items()})
    batch = next(iter(feeds.values())).shape[0]
    for each in made.graph.node:
        a = {attribute.name: helper.get_attribute_value(attribute) for attribute in each.attribute}
        x = [values.get(name) for name in each.input]
        op = each.op_type
        if op == "Quant":
            mode = a.get("rounding_mode", b"ROUND").decode()
            if each.input[0] in weights:  # constants have been quantized in float32, wherever the ties fell
                x[:3] = [weights[name] for name in each.input[:3]]
            y = int_quant(x[0], x[1], x[2], int(x[3]), signed=a["signed"], narrow=a["narrow"], rounding_mode=mode)
        elif op == "BipolarQuant":
            y = np.where(x[0] >= 0, 1.0, -1.0) * x[1]
        elif op == "BatchNormalization":
            y = (x[0] - x[3]) / np.sqrt(x[4] + np.float64(np.float32(a["epsilon"]))) * x[1] + x[2]
        elif op in ("Flatten", "Reshape"):
            y = x[0].reshape(batch, -1)
        elif op in ("Shape", "Gather", "Unsqueeze", "Concat"):
            continue
        else:
            y = ARITHMETIC[op](*x)
        values[each.output[0]] = y
    return values


def quantizers(made):
    """{output: (scale, zero point)} of every Quant of an activation."""
    from onnx import numpy_helper

    constants = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    return {
        each.output[0]: (float(constants[each.input[1]]), float(constants[each.input[2]]))
        for each in made.graph.node
        if each.op_type == "Quant" and each.input[0] not in constants
    }


# --- the shared models


def run_shared(name, x, labels):
    import onnx

    path = shared("models", name)
    made = onnx.load(path)
    wanted = evaluate(made, {made.graph.input[0].name: x.astype(np.float64)})
    report, codes = simulated(path, x, labels=labels)
    return made, wanted, report, codes


def assert_every_code(made, wanted, codes):
    compared = 0
    for tensor, (scale, zero) in quantizers(made).items():
        if tensor in codes:
            np.testing.assert_array_equal(codes[tensor], np.rint(wanted[tensor] / scale + zero), err_msg=tensor)
            compared += codes[tensor].size
    return compared


def test_keyword_spotting_in_3_bits():
    """416 of 500, the published prediction on 499 of 500: the figures of the shared data's own page. Every code of
    every quantized tensor is the one that float64 gives.
    """
    data = np.load(shared("data", "kws_w3a3_int8_500.npz"))
    x = data["features"].astype(np.float32) * data["input_scale"]
    made, wanted, report, codes = run_shared("kws_mlp_w3a3_qonnx.onnx", x, data["labels"])
    assert assert_every_code(made, wanted, codes) == 3 * 500 * 256
    predicted = codes["70"].argmax(axis=1)
    assert int((predicted == data["labels"]).sum()) == 416
    assert report.accuracy.simulated_accuracy == 416 / 500
    differing = np.flatnonzero(predicted != data["published_prediction"])
    assert differing.tolist() == [443]
    logits = codes["70"][443]  # an exact tie of the two classes
    assert logits[predicted[443]] == logits[data["published_prediction"][443]]
    scale = 0.15564623475074768 * 0.1428571492433548
    np.testing.assert_allclose(codes["70"] * scale, wanted["70"], rtol=0, atol=1e-6)


def test_mnist_in_2_bits():
    """966 of 1,000; batch normalization with negative factors, and a last layer's scalar one."""
    data = np.load(shared("data", "mnist_test1000.npz"))
    x = (data["images"][:, None] / np.float32(255)).astype(np.float32)
    made, wanted, report, codes = run_shared("mnist_tfc_w2a2_qonnx.onnx", x, data["labels"])
    assert assert_every_code(made, wanted, codes) == 3 * 1000 * 64
    name = made.graph.output[0].name
    assert report.layers[-1].output_codes.shape == (1000, 10)
    assert int((report.layers[-1].output_codes.argmax(axis=1) == data["labels"]).sum()) == 966
    assert (report.layers[-1].output_codes.argmax(axis=1) == wanted[name].argmax(axis=1)).all()
    assert report.accuracy.simulated_accuracy == 0.966


def test_integers_are_codes():
    """The keyword spotter's int8 features and their real values are the same input."""
    data = np.load(shared("data", "kws_w3a3_int8_500.npz"))
    path = shared("models", "kws_mlp_w3a3_qonnx.onnx")
    traces = [import_onnx(path, x, batch=3) for x in (data["features"], data["features"] * data["input_scale"])]
    first, second = (trace.tensor(trace.inputs[0]) for trace in traces)
    np.testing.assert_array_equal(first.codes, second.codes)


# --- small models: what lies between a product and a quantizer


def layer(steps, constants, quant, *, weight, weight_scale, x_scale=0.5, features=5):
    """Quant -> MatMul -> steps -> quantizer, with integers of 4 bits for the input."""
    nodes = [
        node("Quant", ["x", "xs", "zero", "four"], ["xq"], domain=DOMAIN, signed=1, narrow=0, rounding_mode="ROUND"),
        node("Quant", ["w", "ws", "zero", "eight"], ["wq"], domain=DOMAIN, signed=1, narrow=1),
        node("MatMul", ["xq", "wq"], ["acc"]),
        *steps,
        quant,
    ]
    fixed = {
        "xs": np.float32(x_scale),
        "zero": np.float32(0),
        "four": np.float32(4),
        "eight": np.float32(8),
        "w": (weight * weight_scale).astype(np.float32),
        "ws": np.float32(weight_scale),
    }
    return model(nodes, {"x": (np.float32, [1, features])}, {"y": (np.float32, 2)}, {**fixed, **constants},
                 domains=(DOMAIN,))  # fmt: skip


FINITE = st.floats(-4, 4, width=32).filter(lambda v: abs(v) > 1e-3 or v == 0)


@st.composite
def stairs(draw):
    channels = 4

    def vector(numbers=FINITE):
        return np.array([draw(numbers) for _ in range(channels)], np.float32)

    steps, constants = [], {}
    for index in range(draw(st.integers(0, 3))):
        before = f"t{index}" if index else "acc"
        after = f"t{index + 1}"
        op = draw(st.sampled_from(["Add", "Sub", "Mul", "Div", "Relu", "RSub"]))
        if op == "Relu":
            steps.append(node("Relu", [before], [after]))
            continue
        constant = f"c{index}"
        numbers = FINITE.filter(bool) if op == "Div" else FINITE
        constants[constant] = vector(numbers) if draw(st.booleans()) else np.float32(draw(numbers))
        reads = [constant, before] if op == "RSub" else [before, constant]
        steps.append(node(op.removeprefix("R"), reads, [after]))
    last = f"t{len(steps)}" if steps else "acc"
    if draw(st.booleans()):
        constants.update(g=vector(), b=vector(), m=vector(), v=vector(st.floats(0, 9, width=32)))
        steps.append(node("BatchNormalization", [last, "g", "b", "m", "v"], ["bn"], epsilon=1e-3))
        last = "bn"
    signed, narrow = draw(st.booleans()), draw(st.booleans())
    bits = draw(st.integers(1 if not signed else 2, 6))
    scale = np.float32(draw(st.sampled_from([0.25, 0.7, 1.0, 3.0])))
    constants.update(
        ys=scale,
        yz=np.float32(draw(st.integers(-1 if signed else 0, 1))),
        bits=np.float32(bits),
    )
    mode = draw(st.sampled_from(["ROUND", "FLOOR", "CEIL", "UP", "DOWN", "HALF_UP", "HALF_DOWN"]))
    quant = node("Quant", [last, "ys", "yz", "bits"], ["y"], domain=DOMAIN, signed=int(signed), narrow=int(narrow),
                 rounding_mode=mode)  # fmt: skip
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    weight = rng.integers(-20, 21, (5, channels))
    return steps, constants, quant, weight, rng.normal(size=(40, 5)).astype(np.float32) * 2


@given(stairs())
def test_thresholds_are_the_quantizer_of_everything_before_it(tmp_path_factory, case):
    """Against float64, except where that is too near a step of the staircase to tell."""
    steps, constants, quant, weight, x = case
    made = layer(steps, constants, quant, weight=weight, weight_scale=0.0625)
    path = saved(made, tmp_path_factory.mktemp("stairs"))
    wanted = evaluate(made, {"x": x})
    report, codes = simulated(path, x, verify=True)
    assert report.layers[0].verified == 0
    scale, zero = float(constants["ys"]), float(constants["yz"])
    target = np.rint(wanted["y"] / scale + zero)
    before = wanted[quant.input[0]] / scale + zero
    unsure = np.abs(before * 2 - np.rint(before * 2)) < 1e-9
    np.testing.assert_array_equal(np.where(unsure, target, codes["y"]), target)


@pytest.mark.parametrize("mode", ["ROUND", "FLOOR", "CEIL", "UP", "DOWN", "HALF_UP", "HALF_DOWN"])
@pytest.mark.parametrize("zero", [0, 1, -2])
@pytest.mark.parametrize("sign", [1, -1])
def test_ties_to_the_last_one(tmp_path, mode, zero, sign):
    """Powers of two everywhere: every second accumulator lies exactly on a step, and float64 is exact too."""
    weight = sign * np.array([[1], [2], [0], [-1], [3]])
    constants = {"ys": np.float32(0.25), "yz": np.float32(zero), "bits": np.float32(5), "half": np.float32(-0.5)}
    steps = [node("Mul", ["acc", "half"], ["t"])]
    quant = node("Quant", ["t", "ys", "yz", "bits"], ["y"], domain=DOMAIN, signed=1, narrow=0, rounding_mode=mode)
    made = layer(steps, constants, quant, weight=weight, weight_scale=0.25)
    x = (np.random.default_rng(3).integers(-8, 8, (200, 5)) * 0.5).astype(np.float32)
    wanted = evaluate(made, {"x": x})
    before = wanted["t"] / 0.25
    assert (before != np.rint(before)).mean() > 0.3, "too few ties"
    _, codes = simulated(saved(made, tmp_path), x)
    np.testing.assert_array_equal(codes["y"], np.rint(wanted["y"] / 0.25 + zero))


def test_an_irrational_step_is_placed_exactly(tmp_path):
    """Batch normalization divides by sqrt(2): acc / 8 / sqrt(2) >= 0.5 from acc = 6 on, since 4 sqrt(2) = 5.66.

    By hand: x scale 0.5, weight scale 0.25, so the accumulator's unit is 1/8. round(acc / (8 sqrt(2))) reaches 1 where
    it exceeds 1/2: acc > 4 sqrt(2) = 5.657; 2 where it exceeds (or equals) 3/2: acc > 12 sqrt(2) = 16.97.
    """
    weight = np.array([[1], [0], [0], [0], [0]]) * 3
    constants = {"g": np.float32([1]), "b": np.float32([0]), "m": np.float32([0]), "v": np.float32([2]),
                 "ys": np.float32(1), "yz": np.float32(0), "bits": np.float32(2)}  # fmt: skip
    steps = [node("BatchNormalization", ["acc", "g", "b", "m", "v"], ["bn"], epsilon=0.0)]
    quant = node("Quant", ["bn", "ys", "yz", "bits"], ["y"], domain=DOMAIN, signed=0, narrow=0)
    made = layer(steps, constants, quant, weight=weight, weight_scale=0.25)
    x = np.zeros((8, 5), np.float32)
    x[:, 0] = np.arange(8) * 0.5  # accumulators 0, 3, 6, ... 21
    _, codes = simulated(saved(made, tmp_path), x)
    assert codes["y"][:, 0].tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    trace = import_onnx(saved(made, tmp_path), x)
    assert trace.thresholds(trace.layers[0])[0, :2].tolist() == [5, 16]


def test_signs(tmp_path):
    """BipolarQuant on both sides: weights and outputs of one bit; 0 counts as +1."""
    rng = np.random.default_rng(8)
    constants = {"w1": rng.normal(size=(6, 4)).astype(np.float32), "w2": rng.normal(size=(4, 3)).astype(np.float32),
                 "one": np.float32(1), "half": np.float32(0.5), "g": np.float32([1, -2, 0.5, -1]),
                 "b": np.float32([0.5, 0, -0.25, 0]), "m": np.float32([0, 1, -1, 2]),
                 "v": np.float32([1, 4, 0.25, 1])}  # fmt: skip
    nodes = [
        node("BipolarQuant", ["x", "one"], ["xq"], domain=DOMAIN),
        node("BipolarQuant", ["w1", "half"], ["w1q"], domain=DOMAIN),
        node("MatMul", ["xq", "w1q"], ["a1"]),
        node("BatchNormalization", ["a1", "g", "b", "m", "v"], ["bn"], epsilon=0.0),
        node("BipolarQuant", ["bn", "one"], ["h"], domain=DOMAIN),
        node("BipolarQuant", ["w2", "one"], ["w2q"], domain=DOMAIN),
        node("MatMul", ["h", "w2q"], ["y"]),
    ]
    made = model(nodes, {"x": (np.float32, [1, 6])}, {"y": (np.float32, 2)}, constants, domains=(DOMAIN,))
    x = rng.normal(size=(64, 6)).astype(np.float32)
    wanted = evaluate(made, {"x": x})
    assert (wanted["bn"] == 0).any(), "no tie at 0"
    path = saved(made, tmp_path)
    trace = import_onnx(path, x)
    assert [trace.tensor_meta(layer.weight).format for layer in trace.layers] == ["binary", "binary"]
    _, codes = simulated(path, x)
    np.testing.assert_array_equal(codes["h"] * 2 - 1, wanted["h"])
    np.testing.assert_array_equal(codes["y"], wanted["y"])


def pooled_model(tail, constants, out_rank=4):
    nodes = [
        node("Quant", ["x", "xs", "zero", "bits"], ["xq"], domain=DOMAIN, signed=0, narrow=0, rounding_mode="ROUND"),
        *tail,
    ]
    fixed = {"xs": np.float32(0.5), "zero": np.float32(0), "bits": np.float32(4)}
    return model(nodes, {"x": (np.float32, [1, 3, 4, 4])}, {"y": (np.float32, out_rank)}, {**fixed, **constants},
                 domains=(DOMAIN,))  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
def test_trunc_after_a_pooling(tmp_path, version):
    """As Brevitas exports truncating averages: a mean times the window's size, of which low bits are dropped."""
    tail = [
        node("AveragePool", ["xq"], ["mean"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Mul", ["mean", "size"], ["sum"]),
        node(
            "Trunc",
            ["sum", "xs", "zero", "six", *(["two"] if version == 2 else []), "bits"],
            ["y"],
            domain=DOMAIN,
            rounding_mode="FLOOR",
            signed=0,
        ),
    ]
    constants = {"size": np.float32(4), "six": np.float32(6), "two": np.float32(2)}
    made = pooled_model(tail, constants)
    x = np.random.default_rng(1).integers(0, 16, (5, 3, 4, 4)).astype(np.float32) / 2
    wide = (x * 2).reshape(5, 3, 2, 2, 2, 2).sum(axis=(3, 5))
    _, codes = simulated(saved(made, tmp_path), x)
    np.testing.assert_array_equal(codes["y"], wide // 4)


def test_a_quantizer_of_more_than_8_bits_takes_a_factor(tmp_path):
    """Thresholds would be too many: a float32 factor and a whole bias, at most one code away."""
    rng = np.random.default_rng(0)
    constants = {"g": rng.normal(size=4).astype(np.float32), "b": rng.normal(size=4).astype(np.float32),
                 "m": rng.normal(size=4).astype(np.float32), "v": rng.random(4).astype(np.float32) + 1,
                 "ys": np.float32(0.01), "yz": np.float32(0), "bits": np.float32(12)}  # fmt: skip
    steps = [node("BatchNormalization", ["acc", "g", "b", "m", "v"], ["bn"], epsilon=1e-3)]
    quant = node("Quant", ["bn", "ys", "yz", "bits"], ["y"], domain=DOMAIN, signed=1, narrow=0)
    made = layer(steps, constants, quant, weight=rng.integers(-100, 101, (5, 4)), weight_scale=0.0078125)
    x = rng.normal(size=(50, 5)).astype(np.float32) * 2
    path = saved(made, tmp_path)
    assert "a float32 factor and a whole bias (not exact)" in " ".join(read_onnx(path).notes)
    _, codes = simulated(path, x)
    distance = np.abs(codes["y"] - np.rint(evaluate(made, {"x": x})["y"] / 0.01))
    assert 0 < distance.max() <= 1


# --- what is refused


def refused(tmp_path, quant, constants=None, steps=()):
    fixed = {"ys": np.float32(1), "yz": np.float32(0), "bits": np.float32(3)}
    made = layer(list(steps), {**fixed, **(constants or {})}, quant, weight=np.ones((5, 4)), weight_scale=1.0)
    (problem,) = [row.problem for row in inspect_onnx(saved(made, tmp_path)) if row.problem]
    return problem


def quant(*, reads=("acc", "ys", "yz", "bits"), op="Quant", **attributes):
    return node(op, list(reads), ["y"], domain=DOMAIN, **{"signed": 1, "narrow": 0, **attributes})


@pytest.mark.parametrize(
    ("attributes", "constants", "message"),
    [
        ({"rounding_mode": "STOCHASTIC"}, {}, "rounding_mode 'STOCHASTIC' is unknown; use one of ROUND, HALF_EVEN"),
        ({}, {"bits": np.float32(2.5)}, "the bit width is 2.5; a whole number is needed"),
        ({}, {"bits": np.float32(20)}, "a bit width of 20; 1 to 16 bits are supported"),
        ({}, {"yz": np.float32(0.5)}, "the zero point is 0.5; a whole number is needed"),
        ({}, {"ys": np.float32([1, 2, 3, 4])}, "activations with a scale a channel"),
        ({}, {"ys": np.float32(-1)}, "the scale holds "),
        ({}, {"ys": np.float32(np.nan)}, "the scale holds "),
    ],
)
def test_quantizers_that_cannot_be(tmp_path, attributes, constants, message):
    assert message in refused(tmp_path, quant(**attributes), constants)


def test_a_truncation_of_a_zero_point(tmp_path):
    reads = ("acc", "ys", "yz", "bits", "bits")
    found = refused(tmp_path, quant(op="Trunc", reads=reads), {"yz": np.float32(2)})
    assert found == "truncates what has a zero point; only 0 is supported"


def test_two_batch_normalizations(tmp_path):
    four = np.float32([1, 1, 1, 1])
    steps = [
        node("BatchNormalization", ["acc", "g", "g", "g", "v"], ["t"]),
        node("BatchNormalization", ["t", "g", "g", "g", "u"], ["second"]),
    ]
    found = refused(
        tmp_path, quant(reads=("second", "ys", "yz", "bits")), {"g": four, "v": four * 2, "u": four * 3}, steps
    )
    assert found == "two batch normalizations follow each other; fold them into one"


def test_an_unquantized_weight(tmp_path):
    nodes = [
        node("Quant", ["x", "s", "z", "b"], ["xq"], domain=DOMAIN, signed=1, narrow=0),
        node("MatMul", ["xq", "w"], ["y"]),
    ]
    constants = {"s": np.float32(1), "z": np.float32(0), "b": np.float32(4), "w": np.ones((3, 2), np.float32)}
    made = model(nodes, {"x": (np.float32, [1, 3])}, {"y": (np.float32, 2)}, constants, domains=(DOMAIN,))
    with pytest.raises(ModelError, match="the weight 'w' is not quantized"):
        simulated(saved(made, tmp_path), np.ones((1, 3), np.float32))
