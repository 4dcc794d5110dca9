"""QDQ files: ONNX Runtime fuses DequantizeLinear, an operator and QuantizeLinear to an operator on codes; so do we, and
the codes are the same.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_tools import assert_bit_exact, model, node, run_onnxruntime, saved, simulated

from accelsim.errors import ModelError
from accelsim.importers.onnx_model import inspect_onnx, read_onnx


class Network:
    """A QDQ file in the making: every operator between DequantizeLinear and QuantizeLinear."""

    def __init__(self, kind, seed=0):
        self.kind, self.rng = kind, np.random.default_rng(seed)
        self.nodes, self.constants, self.inputs, self.outputs = [], {}, {}, {}
        self.meaning = {}
        self.count = 0

    def name(self, stem):
        self.count += 1
        return f"{stem}{self.count}"

    def input(self, shape, scale=0.02, offset=3):
        """A float input, quantized; returns the real tensor behind it."""
        name = self.name("x")
        self.inputs[name] = (np.float32, list(shape))
        return self.quantize(name, scale, offset, rank=len(shape))

    def quantize(self, real, scale, offset, rank):
        zero = offset if self.kind is np.int8 else offset + 128
        q, d, s, z = (self.name(stem) for stem in ("q", "d", "s", "z"))
        self.constants.update({s: np.float32(scale), z: self.kind(zero)})
        self.nodes += [node("QuantizeLinear", [real, s, z], [q]), node("DequantizeLinear", [q, s, z], [d])]
        self.outputs[q] = (self.kind, rank)
        self.meaning[d] = np.float32(scale)
        return d

    def weight(self, shape, *, per_channel=False, axis=0):
        w, d, s, z = (self.name(stem) for stem in ("w", "wd", "ws", "wz"))
        low = -64 if self.kind is np.uint8 else -127
        self.constants[w] = self.rng.integers(low, -low, shape).astype(np.int8)
        size = shape[axis] if per_channel else ()
        self.constants[s] = (self.rng.random(size) * 0.01 + 0.002).astype(np.float32)
        self.constants[z] = np.zeros(size, np.int8)
        self.nodes.append(node("DequantizeLinear", [w, s, z], [d], axis=axis))
        return d, self.constants[s]

    def bias(self, size, scale):
        b, d, s, z = (self.name(stem) for stem in ("b", "bd", "bs", "bz"))
        self.constants[b] = self.rng.integers(-2000, 2000, size).astype(np.int32)
        self.constants[s] = scale
        self.constants[z] = np.zeros(np.shape(scale), np.int32)
        self.nodes.append(node("DequantizeLinear", [b, s, z], [d], axis=0))
        return d

    def add(self, op, reads, scale, offset, rank, *, relu=False, bounds=None, **attributes):
        real = self.name(op.lower())
        self.nodes.append(node(op, reads, [real], **attributes))
        if relu:
            real, before = self.name("relu"), real
            self.nodes.append(node("Relu", [before], [real]))
        if bounds:
            real, before, low, high = self.name("clip"), real, self.name("low"), self.name("high")
            self.constants.update({low: np.float32(bounds[0]), high: np.float32(bounds[1])})
            self.nodes.append(node("Clip", [before, low, high], [real]))
        return self.quantize(real, scale, offset, rank)

    def conv(self, x, shape, scale, offset, *, per_channel=True, bias=True, relu=False, bounds=None, **attributes):
        weight, weight_scale = self.weight(shape, per_channel=per_channel)
        reads = [x, weight]
        if bias:
            reads.append(self.bias(shape[0], np.float32(self.meaning[x] * weight_scale)))
        return self.add("Conv", reads, scale, offset, 4, relu=relu, bounds=bounds, kernel_shape=list(shape[2:]),
                        **attributes)  # fmt: skip

    def model(self, **keywords):
        return model(self.nodes, self.inputs, self.outputs, self.constants, **keywords)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_a_residual_network(tmp_path, kind):
    """Convolutions with biases and ReLUs, a residual sum, pooling, a fully connected layer: every tensor."""
    net = Network(kind)
    x = net.input((1, 3, 12, 12))
    low = -128
    first = net.conv(x, (8, 3, 3, 3), 0.05, low, relu=True, pads=[1, 1, 1, 1])
    second = net.conv(first, (8, 1, 3, 3), 0.08, low, bounds=(0, 6), pads=[1, 1, 1, 1], group=8)
    third = net.conv(second, (8, 8, 1, 1), 0.2, 4, per_channel=False, bias=False)
    total = net.add("Add", [first, third], 0.21, low, 4, relu=True)
    pooled = net.add("MaxPool", [total], 0.21, low, 4, kernel_shape=[2, 2], strides=[2, 2])
    mean = net.add("GlobalAveragePool", [pooled], 0.07, low, 4)
    flat = net.add("Flatten", [mean], 0.07, low, 2)
    weight, scale = net.weight((10, 8), per_channel=True)
    net.add("Gemm", [flat, weight, net.bias(10, np.float32(net.meaning[flat] * scale))], 0.02, -3, 2, transB=1)
    feeds = {"x1": net.rng.normal(size=(4, 3, 12, 12)).astype(np.float32)}
    report = assert_bit_exact_but_input(net, feeds, tmp_path, batches=4)
    assert [layer.op for layer in report.layers] == ["conv2d"] * 3 + ["add", "max_pool2d", "mean", "linear"]
    assert all(len(np.unique(layer.output_codes)) > 8 for layer in report.layers)


def assert_bit_exact_but_input(net, feeds, folder, *, batches=1, **options):
    """Compare all tensors but the quantized inputs, which are no layer's."""
    made = net.model()
    inputs = [each.output[0] for each in made.graph.node if each.op_type == "QuantizeLinear" and each.input[0] in feeds]
    kept = [output for output in made.graph.output if output.name not in inputs]
    del made.graph.output[:]
    made.graph.output.extend(kept)
    return assert_bit_exact(made, feeds, folder, batches=batches, **options)


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from([np.int8, np.uint8]), st.booleans(), st.booleans())
def test_convolutions(tmp_path_factory, seed, kind, per_channel, relu):
    net = Network(kind, seed)
    offset = int(net.rng.integers(-128, 128))
    x = net.input((1, 4, 6, 5), offset=int(net.rng.integers(-128, 128)))
    net.conv(x, (6, 2, 3, 2), 0.04, -128 if relu else offset, per_channel=per_channel, relu=relu, group=2)
    feeds = {"x1": net.rng.normal(size=(2, 4, 6, 5)).astype(np.float32)}
    assert_bit_exact_but_input(net, feeds, tmp_path_factory.mktemp("qdq"), batches=2)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("bounds", [(0.0, 6.0), (-1.0, 1.0), (0.5, 0.75)])
def test_bounds_that_the_zero_point_does_not_make_idle(tmp_path, kind, bounds):
    """ONNX Runtime then clips floats; rounding keeps the order, so clipping codes gives the same."""
    net = Network(kind, 3)
    x = net.input((2, 4, 6, 5))
    net.conv(x, (6, 4, 3, 2), 0.06, 11, bounds=bounds, bias=False)
    feeds = {"x1": net.rng.normal(size=(2, 4, 6, 5)).astype(np.float32)}
    report = assert_bit_exact_but_input(net, feeds, tmp_path)
    assert report.layers[0].output_codes.max() < np.iinfo(kind).max


@pytest.mark.parametrize("op", ["Add", "Mul", "Sub"])
def test_sums_and_products(tmp_path, op):
    net = Network(np.uint8, 5)
    a, b = net.input((2, 3, 4), 0.02, 9), net.input((2, 3, 4), 0.031, -20)
    net.add(op, [a, b], 0.05, 4, 3)
    feeds = {name: net.rng.normal(size=(2, 3, 4)).astype(np.float32) for name in net.inputs}
    assert_bit_exact_but_input(net, feeds, tmp_path, verify=True)


@pytest.mark.parametrize(
    ("op", "scale", "offset"),
    [
        ("Sigmoid", 1 / 256, -128),
        ("Tanh", 1 / 128, 0),
        ("HardSwish", 0.0297, -99),
        ("Erf", 1 / 127, 0),
        ("Exp", 0.05, 0),
    ],
)
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_functions_of_one_number(tmp_path, op, scale, offset, kind):
    """Tables of every code. ONNX Runtime has polynomials in float32: none of these scales puts a code on a tie."""
    net = Network(kind, 5)
    x = net.input((1, 256), 0.03, 0)
    net.add(op, [x], scale, offset, 2)
    feeds = {"x1": (np.arange(-128, 128, dtype=np.float32) * np.float32(0.03)).reshape(1, 256)}
    assert_bit_exact_but_input(net, feeds, tmp_path, verify=True)


def test_matmul_of_two_activations_and_a_transpose(tmp_path):
    """As in attention: the transpose of the second operand moves nothing."""
    net = Network(np.int8, 7)
    a, b = net.input((2, 5, 6), 0.02, 9), net.input((2, 4, 6), 0.031, 0)
    turned = net.add("Transpose", [b], 0.031, 0, 3, perm=[0, 2, 1])  # no layer
    net.add("MatMul", [a, turned], 0.1, 4, 3)
    feeds = {"x1": net.rng.normal(size=(2, 5, 6)), "x6": net.rng.normal(size=(2, 4, 6))}
    feeds = {name: feeds[key].astype(np.float32) for name, key in zip(net.inputs, feeds, strict=True)}
    made = net.model()
    kept = [output for output in made.graph.output if output.name == list(net.outputs)[-1]]
    del made.graph.output[:]
    made.graph.output.extend(kept)
    report = assert_bit_exact(made, feeds, tmp_path)
    assert [layer.op for layer in report.layers] == ["matmul"]


def test_floats_that_nobody_quantizes_are_named(tmp_path):
    net = Network(np.int8, 7)
    x = net.input((1, 6), 0.02, 9)
    net.nodes += [node("ReduceL2", [x], ["l2"], name="length", keepdims=1), node("Pow", ["l2", "two"], ["p"])]
    net.constants["two"] = np.float32(2)
    net.quantize("p", 0.1, 0, rank=2)
    path = saved(net.model(), tmp_path)
    problems = [(row.name, row.problem) for row in inspect_onnx(path) if row.problem]
    assert problems[0] == ("length", "operator ReduceL2 has no importer")
    with pytest.raises(ModelError, match=r"length \(ReduceL2\): operator ReduceL2 has no importer"):
        simulated(path, {"x1": np.zeros((1, 6), np.float32)})


def test_float_weights_are_refused_with_what_to_do(tmp_path):
    net = Network(np.int8, 7)
    x = net.input((1, 6), 0.02, 9)
    net.constants["w"] = np.ones((6, 4), np.float32)
    net.add("MatMul", [x, "w"], 0.1, 0, 2)
    with pytest.raises(ModelError, match="the weight 'w' is not quantized; quantize the model's weights"):
        simulated(saved(net.model(), tmp_path), {"x1": np.zeros((1, 6), np.float32)})


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_softmax_and_layer_normalization(tmp_path, kind):
    """Attention's other parts: computed in floats, as ONNX Runtime does, and rounded to the same codes."""
    net = Network(kind, 9)
    x = net.input((3, 7, 12), 0.07, 5)
    net.constants.update(
        gamma=net.rng.normal(size=12).astype(np.float32), beta=net.rng.normal(size=12).astype(np.float32)
    )
    weights = net.add("Softmax", [x], 1 / 256, -128, 3, axis=-1)
    net.add("LayerNormalization", [weights, "gamma", "beta"], 0.04, 0, 3, axis=-1, epsilon=1e-5)
    feeds = {"x1": (net.rng.normal(size=(3, 7, 12)) * 3).astype(np.float32)}
    path = saved(net.model(), tmp_path)
    report, codes = simulated(path, feeds, verify=True)
    wanted = run_onnxruntime(net.model(), feeds)
    first, second = list(net.outputs)[1:]
    np.testing.assert_array_equal(codes[first], wanted[first])
    far = np.abs(codes[second].astype(int) - wanted[second].astype(int))
    assert far.max() <= 1  # gamma and beta are rounded to 16 bits
    assert (far > 0).mean() < 0.02
    assert [layer.verified for layer in report.layers] == [0, 0]
    assert "gamma is rounded to 16 bits" in " ".join(read_onnx(path).notes)
