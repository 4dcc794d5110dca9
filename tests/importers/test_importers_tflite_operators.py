"""The vector unit's operators of TFLite: every code is that of LiteRT's reference kernels, on small models."""

import numpy as np
import pytest
from tflite_tools import FUSED, PADDING, TYPES, Maker, check, reference_tensors, simulated_tensors

from accelsim import import_model
from accelsim.errors import ModelError
from accelsim.importers.api import open_model

ALL_CODES = np.arange(-128, 128, dtype=np.int8)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def one_operator(
    path, name, shape, out_shape, out=(0.05, 3), x=(0.04, -7), extra=(), options=None, dtype="INT8", **fields
):
    """Save a model of one operator with one input that is data; `extra` are constants."""
    net = Maker()
    first = net.tensor((1, *shape), dtype, *x)
    rest = [net.constant(np.asarray(value, np.int32)) for value in extra]
    made = net.tensor((1, *out_shape), dtype, *out)
    net.op(name, [first, *rest], [made], options, **fields)
    return net.save(path / f"{name.lower()}.tflite", [first], [made])


def random_codes(rng, *shape, dtype=np.int8):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("activation", [FUSED.NONE, FUSED.RELU, FUSED.RELU6, FUSED.RELU_N1_TO_1])
@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
def test_two_activations_element_by_element(tmp_path, rng, name, activation, dtype):
    net = Maker()
    zero = 0 if dtype == "INT8" else 128
    a = net.tensor((1, 3, 4, 5), dtype, 0.031, zero - 9)
    b = net.tensor((1, 1, 4, 1), dtype, 0.017, zero + 40)
    y = net.tensor((1, 3, 4, 5), dtype, 0.025, zero - 3)
    net.op(name, [a, b], [y], f"{name.capitalize()}Options", version=2, fusedActivationFunction=activation)
    path = net.save(tmp_path / "two.tflite", [a, b], [y])
    codes = np.dtype(dtype.lower())
    check(path, random_codes(rng, 9, 3, 4, 5, dtype=codes), random_codes(rng, 9, 1, 4, 1, dtype=codes))


def test_a_constant_operand_broadcasts_over_the_batch(tmp_path, rng):
    net = Maker()
    a = net.tensor((1, 3, 4, 5), "INT8", 0.031, -9)
    b = net.constant(rng.integers(-128, 128, 5).astype(np.int8), None, 0.02, 5)
    y = net.tensor((1, 3, 4, 5), "INT8", 0.04, -3)
    net.op("MUL", [a, b], [y], "MulOptions", version=2)
    check(net.save(tmp_path / "constant.tflite", [a], [y]), random_codes(rng, 4, 3, 4, 5))


@pytest.mark.parametrize("name", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize("padding", [PADDING.SAME, PADDING.VALID])
@pytest.mark.parametrize("activation", [FUSED.NONE, FUSED.RELU6])
def test_pooling(tmp_path, rng, name, padding, activation):
    sizes = (4, 3) if padding == PADDING.SAME else (3, 2)
    fields = {
        "padding": padding,
        "strideH": 2,
        "strideW": 3,
        "filterHeight": 3,
        "filterWidth": 4,
        "fusedActivationFunction": activation,
    }
    path = one_operator(
        tmp_path, name, (7, 8, 3), (*sizes, 3), (0.05, -100), (0.05, -100), options="Pool2DOptions", **fields
    )
    check(path, random_codes(rng, 5, 7, 8, 3))


@pytest.mark.parametrize(
    ("axes", "keep", "out"),
    [([1, 2], False, (5,)), ([2, 1], True, (1, 1, 5)), ([-1], False, (7, 3)), ([2], True, (7, 1, 5))],
)
@pytest.mark.parametrize("same", [True, False])
def test_mean(tmp_path, rng, axes, keep, out, same):
    path = one_operator(
        tmp_path,
        "MEAN",
        (7, 3, 5),
        out,
        (0.04, -7) if same else (0.02, 11),
        extra=[axes],
        options="ReducerOptions",
        keepDims=keep,
    )
    check(path, random_codes(rng, 6, 7, 3, 5))


@pytest.mark.parametrize("scale", [0.17, 0.03, 1.5])
@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
def test_softmax(tmp_path, rng, scale, dtype):
    low, start = (-128, 24) if dtype == "INT8" else (0, 150)
    path = one_operator(
        tmp_path,
        "SOFTMAX",
        (1001,),
        (1001,),
        (1 / 256, low),
        (scale, start),
        options="SoftmaxOptions",
        dtype=dtype,
        beta=1.0,
    )
    check(path, random_codes(rng, 4, 1001, dtype=np.dtype(dtype.lower())))


def test_log_softmax(tmp_path, rng):
    path = one_operator(tmp_path, "LOG_SOFTMAX", (11,), (11,), (16 / 256, 127), (0.1, 5), options="LogSoftmaxOptions")
    check(path, random_codes(rng, 4, 11))


def test_moves_of_codes(tmp_path, rng):
    """Reshape, pad, transpose, strided slice, slice, split, concatenation, resize in one network."""
    net, means = Maker(), (0.05, -13)

    def made(*shape):
        return net.tensor((1, *shape), "INT8", *means)

    def ints(values):
        return net.constant(np.array(values, np.int32))

    x, padded, turned, picked, part = made(4, 6, 4), made(5, 9, 4), made(9, 5, 4), made(4, 4), made(2, 4)
    net.op("PAD", [x, ints([[0, 0], [1, 0], [2, 1], [0, 0]])], [padded], "PadOptions")
    net.op("TRANSPOSE", [padded, ints([0, 2, 1, 3])], [turned], "TransposeOptions")
    bounds = [ints([0, -1, 1, 0]), ints([1, 0, 9, 4]), ints([1, -2, 1, 1])]
    net.op("STRIDED_SLICE", [turned, *bounds], [made(4, 4, 4)], "StridedSliceOptions")
    one = [ints([0, -1, 1, 0]), ints([1, 0, 5, 4]), ints([1, 1, 1, 1])]
    net.op("STRIDED_SLICE", [turned, *one], [picked], "StridedSliceOptions", shrinkAxisMask=2)
    net.op("SLICE", [picked, ints([0, 1, 0]), ints([1, 2, -1])], [part], "SliceOptions")
    halves = [made(2, 2), made(2, 2)]
    net.op("SPLIT", [ints(2), part], halves, "SplitOptions", numSplits=2)
    joined, flat, image, bigger = made(4, 2), made(8), made(2, 2, 2), made(5, 3, 2)
    net.op("CONCATENATION", halves[::-1], [joined], "ConcatenationOptions", axis=1)
    net.op("RESHAPE", [joined, ints([1, 8])], [flat])
    net.op("RESHAPE", [flat, ints([-1, 2, 2, 2])], [image])
    net.op("RESIZE_NEAREST_NEIGHBOR", [image, ints([5, 3])], [bigger], "ResizeNearestNeighborOptions")
    path = net.save(tmp_path / "moves.tflite", [x], [bigger])
    report = check(path, random_codes(rng, 3, 4, 6, 4))
    assert report.layers[-1].output_codes.shape == (3, 5, 3, 2)


def test_more_moves_of_codes(tmp_path, rng):
    """Padding with a constant, split by sizes, masks of a strided slice, dimensions of size 1."""
    net, means = Maker(), (0.05, -13)

    def made(*shape):
        return net.tensor((1, *shape), "INT8", *means)

    def ints(values):
        return net.constant(np.array(values, np.int32))

    x, padded, picked, parts = made(4, 5), made(6, 6), made(3, 5), [made(1, 5), made(2, 5)]
    filler = net.constant(np.array([77], np.int8), None, *means)
    net.op("PADV2", [x, ints([[0, 0], [2, 0], [0, 1]]), filler], [padded], "PadV2Options")
    bounds = [ints([0, 9, 1]), ints([0, 9, 9]), ints([1, 2, 1])]
    net.op("STRIDED_SLICE", [padded, *bounds], [picked], "StridedSliceOptions", beginMask=3, endMask=7)
    net.op("SPLIT_V", [picked, ints([1, 2]), ints(1)], parts, "SplitVOptions", numSplits=2)
    wide, narrow = made(1, 2, 5), made(2, 5)
    net.op("EXPAND_DIMS", [parts[1], ints(1)], [wide], "ExpandDimsOptions")
    net.op("SQUEEZE", [wide], [narrow], "SqueezeOptions", squeezeDims=[1])
    check(net.save(tmp_path / "more.tflite", [x], [narrow]), random_codes(rng, 3, 4, 5))


def test_requantizing_between_networks_parts(tmp_path):
    net = Maker()
    x, y, z = (
        net.tensor((1, 256), "UINT8", 0.05, 128),
        net.tensor((1, 256), "INT8", 0.07, 3),
        net.tensor((1, 256), "UINT8", 0.07, 131),
    )
    net.op("QUANTIZE", [x], [y], "QuantizeOptions")
    net.op("QUANTIZE", [y], [z], "QuantizeOptions")
    check(net.save(tmp_path / "q.tflite", [x], [z]), np.arange(256, dtype=np.uint8)[None])


CURVES = {
    "LOGISTIC": (1 / 256, -128),
    "TANH": (1 / 128, 0),
    "HARD_SWISH": (0.03, -100),
    "EXP": (0.3, -128),
    "GELU": (0.03, -90),
    "ELU": (0.03, -90),
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("x", [(0.04, -7), (0.11, 90)])
def test_curves(tmp_path, name, x):
    options = {"GELU": "GeluOptions"}.get(name)
    path = one_operator(tmp_path, name, (256,), (256,), CURVES[name], x, options=options)
    kernels = "BUILTIN_WITHOUT_DEFAULT_DELEGATES" if name == "ELU" else "BUILTIN_REF"  # which has no ELU
    check(path, ALL_CODES[None], resolver=kernels)


@pytest.mark.parametrize(("x", "y"), [((0.04, -128), (0.05, 20)), ((0.0003, -128), (0.1, 127))])
def test_log(tmp_path, x, y):
    """Of numbers from 0 on; LiteRT refuses inputs whose codes can mean less."""
    check(one_operator(tmp_path, "LOG", (256,), (256,), y, x), ALL_CODES[None])


@pytest.mark.parametrize("name", ["RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"])
def test_bounds_as_operators(tmp_path, name):
    check(one_operator(tmp_path, name, (256,), (256,), (0.027, -30), (0.04, -7)), ALL_CODES[None])


def test_leaky_relu(tmp_path):
    path = one_operator(
        tmp_path, "LEAKY_RELU", (256,), (256,), (0.05, -30), (0.04, -7), options="LeakyReluOptions", alpha=0.3
    )
    check(path, ALL_CODES[None])


def test_prelu(tmp_path):
    net = Maker()
    x = net.tensor((1, 64, 4), "INT8", 0.04, -7)
    slopes = net.constant(np.array([[-100, -5, 30, 127]], np.int8), None, 0.005, 10)
    y = net.tensor((1, 64, 4), "INT8", 0.05, -30)
    net.op("PRELU", [x, slopes], [y])
    check(net.save(tmp_path / "prelu.tflite", [x], [y]), ALL_CODES.reshape(1, 64, 4))


PRODUCTS = [
    ((1, 2, 5, 7), (1, 2, 7, 4)),
    ((1, 2, 5, 7), (1, 1, 7, 4)),  # one second operand for all
    ((1, 1, 5, 7), (1, 3, 7, 4)),
    ((1, 1, 2, 5, 7), (1, 3, 1, 7, 4)),  # both broadcast
]


@pytest.mark.parametrize(("a_shape", "b_shape"), PRODUCTS)
@pytest.mark.parametrize("adjoint", [(False, False), (True, False), (False, True), (True, True)])
def test_batch_matmul(tmp_path, rng, a_shape, b_shape, adjoint):
    net = Maker()
    leading = np.broadcast_shapes(a_shape[:-2], b_shape[:-2])
    y_shape = (*leading, a_shape[-2], b_shape[-1])
    a_shape, b_shape = (
        (*shape[:-2], *shape[:-3:-1]) if swap else shape
        for shape, swap in zip((a_shape, b_shape), adjoint, strict=True)
    )
    a, b, y = (
        net.tensor(a_shape, "INT8", 0.03, -9),
        net.tensor(b_shape, "INT8", 0.02, 11),
        net.tensor(y_shape, "INT8", 0.2, 4),
    )
    net.op("BATCH_MATMUL", [a, b], [y], "BatchMatMulOptions", adjX=adjoint[0], adjY=adjoint[1])
    path = net.save(tmp_path / "bmm.tflite", [a, b], [y])
    check(path, random_codes(rng, 3, *a_shape[1:]), random_codes(rng, 3, *b_shape[1:]))
    assert open_model(path).rows[0].macs == np.prod(y_shape) * 7


@pytest.mark.parametrize("b_shape", [(7, 4), (1, 7, 4), (1, 1, 7, 4), (3, 7, 4), (1, 3, 7, 4)])
@pytest.mark.parametrize("transposed", [False, True])
def test_batch_matmul_by_constants(tmp_path, rng, b_shape, transposed):
    net = Maker()
    stored = (*b_shape[:-2], 4, 7) if transposed else b_shape
    a, y = net.tensor((1, 3, 5, 7), "INT8", 0.03, -9), net.tensor((1, 3, 5, 4), "INT8", 0.2, 4)
    b = net.constant(random_codes(rng, *stored), None, 0.02, 11)
    net.op("BATCH_MATMUL", [a, b], [y], "BatchMatMulOptions", adjY=transposed)
    path = net.save(tmp_path / "bmm.tflite", [a], [y])
    report = check(path, random_codes(rng, 2, 3, 5, 7))
    assert [layer.op for layer in report.layers] == ["matmul" if 3 in b_shape else "linear"]
    assert open_model(path).rows[0].weights == np.prod(stored)


def test_batch_matmul_of_unequal_ranks(tmp_path, rng):
    net = Maker()
    a, y = net.tensor((5, 7), "INT8", 0.03, -9), net.tensor((3, 5, 4), "INT8", 0.2, 4)
    b = net.constant(random_codes(rng, 3, 7, 4), None, 0.02, 11)
    net.op("BATCH_MATMUL", [a, b], [y], "BatchMatMulOptions")
    path = net.save(tmp_path / "bmm.tflite", [a], [y])
    data = random_codes(rng, 5, 7)
    made, _ = simulated_tensors(path, {open_model(path).inputs[0].name: data})
    np.testing.assert_array_equal(made[y], reference_tensors(path, [[data]], made)[y])
    with pytest.raises(ModelError, match=r"multiplies \(5, 7\) by \(3, 7, 4\), so that inputs of a batch would mix"):
        import_model(path, random_codes(rng, 10, 7))


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("kind", ["INT32", "INT64"])
@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
def test_arg_max(tmp_path, rng, axis, kind, dtype):
    """Of equal codes the first: eight codes in rows of 20 are often equal."""
    net = Maker()
    x = net.tensor((1, 20, 6), dtype, 0.03, 9)
    shape = (1, 6) if axis == 1 else (1, 20)
    y = net.tensor(shape, kind)
    options = {"outputType": TYPES[kind]}
    net.op("ARG_MAX", [x, net.constant(np.array(axis, np.int32))], [y], "ArgMaxOptions", version=2, **options)
    path = net.save(tmp_path / "argmax.tflite", [x], [y])
    check(path, rng.integers(100, 108, (5, 20, 6)).astype(dtype.lower()))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_depth_to_space(tmp_path, rng, size):
    shape = (2, 5, 2 * size**2)
    made = (2 * size, 5 * size, 2)
    means = {"out": (0.05, 3), "x": (0.05, 3)}
    path = one_operator(tmp_path, "DEPTH_TO_SPACE", shape, made, **means, options="DepthToSpaceOptions", blockSize=size)
    check(path, random_codes(rng, 3, *shape))


def edge_model(path, size, scale):
    """QUANTIZE, a layer that passes its codes on, DEQUANTIZE."""
    net = Maker()
    x, y, z = (
        net.tensor((1, size), "FLOAT32"),
        net.tensor((1, size), "INT8", scale, 3),
        net.tensor((1, size), "FLOAT32"),
    )
    made = net.tensor((1, size), "INT8", scale, 3)
    net.op("QUANTIZE", [x], [y], "QuantizeOptions")
    net.op("RELU_N1_TO_1" if scale * 128 < 1 else "RELU", [y], [made])
    net.op("DEQUANTIZE", [made], [z], "DequantizeOptions")
    return net.save(path / "edge.tflite", [x], [z])


def test_floats_at_the_edge_are_rounded_half_away_from_zero(tmp_path):
    path = edge_model(tmp_path, 8, 0.005)
    ties = np.array([[0.5, -0.5, 1.5, -1.5, 1000, -1000, 0.49999997, 2.5]], np.float32) * np.float32(0.005)
    check(path, ties)
    assert [row.place for row in open_model(path).rows] == ["input", "vector unit", "host"]


def test_floats_at_the_edge_are_divided_in_float32(tmp_path):
    scale = np.float32(0.3)
    near = (np.arange(1, 100, dtype=np.float32) + np.float32(0.5)) * scale
    x = np.stack([near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(99))])
    exact = np.floor(x.astype(np.float64) / float(scale) + 0.5)
    assert np.any(exact != np.floor((x / scale).astype(np.float64) + 0.5)), "the data tells the two apart"
    check(edge_model(tmp_path, 99, scale), x)
