"""Activations of 16 bits (TFLite's 16x8 scheme): every code is that of LiteRT's reference kernels."""

import numpy as np
import pytest
from tflite_tools import FUSED, PADDING, WIDE, Maker, check, reference_tensors, simulated_tensors

from accelsim import import_model
from accelsim.errors import ModelError
from accelsim.importers.api import open_model

ALL_CODES = np.arange(-32768, 32768, dtype=np.int16)[None]
EXTREMES = np.array([-32768, -32767, -1, 0, 1, 32766, 32767])


@pytest.fixture
def rng():
    return np.random.default_rng(16)


def random_codes(rng, *shape, spread=1.0):
    """Codes of the whole range, or of the part `spread` of it, with the ends among them."""
    codes = np.trunc(rng.integers(-32768, 32768, shape) * spread).astype(np.int16)
    codes.reshape(-1)[: len(EXTREMES)] = EXTREMES
    return codes


def one(path, name, shape, out_shape, x, y, options=None, extra=(), version=1, **fields):
    net = Maker()
    first = net.tensor((1, *shape), "INT16", x)
    rest = [net.constant(np.asarray(value, np.int32)) for value in extra]
    made = net.tensor((1, *out_shape), "INT16", y)
    net.op(name, [first, *rest], [made], options, version=version, **fields)
    return net.save(path / f"{name.lower()}.tflite", [first], [made])


def sum_model(path, name, scales, shapes=((1, 4, 60), (1, 4, 60)), pot=False, activation=FUSED.NONE):
    net = Maker()
    a, b = (net.tensor(shape, "INT16", scale) for shape, scale in zip(shapes, scales, strict=False))
    y = net.tensor(np.broadcast_shapes(*shapes), "INT16", scales[2])
    fields = {} if name == "MUL" else {"potScaleInt16": pot}
    net.op(name, [a, b], [y], f"{name.capitalize()}Options", version=4, fusedActivationFunction=activation, **fields)
    return net.save(path / "sum.tflite", [a, b], [y])


@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("activation", [FUSED.NONE, FUSED.RELU, FUSED.RELU6])
@pytest.mark.parametrize("shapes", [((1, 4, 60), (1, 4, 60)), ((1, 4, 60), (1, 1, 60))])
def test_general_scales(tmp_path, rng, name, activation, shapes):
    path = sum_model(tmp_path, name, (0.00031, 0.00017, 0.0005), shapes, activation=activation)
    check(path, *(random_codes(rng, 3, *shape[1:]) for shape in shapes), config=WIDE)


SAME, ROW = ((1, 4, 60), (1, 4, 60)), ((1, 4, 60), (1, 1, 60))


@pytest.mark.parametrize(
    ("name", "pot", "shapes"),
    [("ADD", True, SAME), ("ADD", False, SAME), ("ADD", False, ROW), ("SUB", True, SAME), ("SUB", True, ROW)],
)
@pytest.mark.parametrize("exponents", [(-12, -12, -12), (-12, -15, -12), (-13, -11, -11)])
@pytest.mark.parametrize("activation", [FUSED.NONE, FUSED.RELU6])
def test_scales_that_are_powers_of_two(tmp_path, rng, name, pot, shapes, exponents, activation):
    path = sum_model(tmp_path, name, [2.0**e for e in exponents], shapes, pot=pot, activation=activation)
    report = check(path, *(random_codes(rng, 3, *shape[1:]) for shape in shapes), config=WIDE)
    assert report.layers[0].op == name.lower()


def test_the_two_ways_to_add_differ(tmp_path, rng):
    """Else the flag would not be tested."""
    data = [random_codes(rng, 3, *shape[1:]) for shape in SAME]
    found = [
        check(sum_model(tmp_path, "ADD", (2.0**-15, 2.0**-12, 2.0**-12), pot=pot), *data, config=WIDE)
        for pot in (True, False)
    ]
    assert np.any(found[0].layers[0].output_codes != found[1].layers[0].output_codes)


@pytest.mark.parametrize(
    ("name", "shapes", "exponents", "words"),
    [
        ("ADD", ROW, (-12, -12, -12), "broadcasts with pot_scale_int16, which LiteRT's kernel does not do"),
        ("ADD", SAME, (-12, -13, -11), "one input's the output's, the other's at most as large"),
        ("SUB", SAME, (-12, -10, -11), "one input's the output's, the other's at most as large"),
    ],
)
def test_what_the_kernel_of_powers_of_two_does_not_take(tmp_path, name, shapes, exponents, words):
    path = sum_model(tmp_path, name, [2.0**e for e in exponents], shapes, pot=True)
    with pytest.raises(ModelError) as raised:
        import_model(path, dict.fromkeys("ab", np.zeros((1, 4, 60), np.int16)), until=open_model(path).rows[0].name)
    assert words in str(raised.value)


@pytest.mark.parametrize("name", ["LOGISTIC", "TANH"])
@pytest.mark.parametrize("scale", [2.0**-12, 2.0**-11, 2.0**-13, 0.00031, 0.0011, 0.00001])
def test_sigmoids(tmp_path, name, scale):
    check(one(tmp_path, name, (65536,), (65536,), scale, 2.0**-15), ALL_CODES)


@pytest.mark.parametrize(("x", "y"), [(0.0002, 0.03), (0.0001, 0.001), (0.00003, 0.0001)])
def test_exp(tmp_path, x, y):
    check(one(tmp_path, "EXP", (65536,), (65536,), x, y, version=2), ALL_CODES)


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize(("x", "y"), [(0.0002, 0.0003), (0.00007, 0.0001)])
def test_gelu(tmp_path, approximate, x, y):
    """LiteRT's points come from its C library's erfcf and tanhf, which do not always round to nearest: a point in many
    thousands is one off, and with it the codes on the two lines that end there.
    """
    path = one(tmp_path, "GELU", (65536,), (65536,), x, y, "GeluOptions", approximate=approximate)
    made, _ = simulated_tensors(path, ALL_CODES)
    off = np.abs(made[1].astype(int) - reference_tensors(path, [[ALL_CODES]], [1])[1])
    assert off.max() <= 1
    assert np.count_nonzero(off) < 2 * 256


@pytest.mark.parametrize("name", ["ELU", "HARD_SWISH"])
def test_curves_that_the_runtime_does_not_have(tmp_path, name):
    with pytest.raises(ModelError, match=f"LiteRT's reference kernels have no {name} of INT16"):
        import_model(one(tmp_path, name, (9,), (9,), 0.0002, 0.001), np.zeros((1, 9), np.int16))


def test_logarithm(tmp_path):
    check(one(tmp_path, "LOG", (32640,), (32640,), 0.0003, 0.0005), ALL_CODES[:, 32768 + 128 :])


@pytest.mark.parametrize("scale", [0.0003, 0.001, 0.00002])
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_softmax(tmp_path, rng, scale, beta):
    path = one(tmp_path, "SOFTMAX", (3, 300), (3, 300), scale, 2.0**-15, "SoftmaxOptions", version=3, beta=beta)
    check(path, np.concatenate([random_codes(rng, 2, 3, 300), random_codes(rng, 2, 3, 300, spread=0.01)]))


@pytest.mark.parametrize("name", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_pooling(tmp_path, rng, name):
    fields = {"padding": PADDING.SAME, "strideH": 2, "strideW": 1, "filterHeight": 3, "filterWidth": 2}
    path = one(tmp_path, name, (7, 8, 3), (4, 8, 3), 0.0003, 0.0003, "Pool2DOptions", version=3, **fields)
    check(path, random_codes(rng, 3, 7, 8, 3))


def test_mean(tmp_path, rng):
    path = one(tmp_path, "MEAN", (7, 8, 3), (3,), 0.0003, 0.0002, "ReducerOptions", [[1, 2]], version=3)
    check(path, random_codes(rng, 3, 7, 8, 3))


def test_leaky_relu(tmp_path, rng):
    path = one(tmp_path, "LEAKY_RELU", (500,), (500,), 0.0003, 0.0002, "LeakyReluOptions", version=2, alpha=0.3)
    check(path, random_codes(rng, 3, 500))


def test_quantize(tmp_path, rng):
    check(
        one(tmp_path, "QUANTIZE", (500,), (500,), 0.0003, 0.0004, "QuantizeOptions", version=2),
        random_codes(rng, 3, 500),
    )


@pytest.mark.parametrize("name", ["RELU", "RELU6"])
def test_bounds(tmp_path, rng, name):
    check(one(tmp_path, name, (500,), (500,), 0.0003, 0.0004, version=3), random_codes(rng, 3, 500))


def test_depthwise_conv(tmp_path, rng):
    net = Maker()
    x = net.tensor((1, 6, 6, 3), "INT16", 0.0003)
    w_scale = rng.uniform(0.001, 0.02, 3).astype(np.float32)
    w = net.constant(rng.integers(-127, 128, (1, 3, 3, 3)).astype(np.int8), None, w_scale, axis=3)
    b = net.constant(rng.integers(-(10**5), 10**5, 3).astype(np.int64), None, w_scale)
    y = net.tensor((1, 6, 6, 3), "INT16", 0.0004)
    window = {"padding": PADDING.SAME, "strideH": 1, "strideW": 1, "depthMultiplier": 1}
    net.op("DEPTHWISE_CONV_2D", [x, w, b], [y], "DepthwiseConv2DOptions", version=5, **window)
    check(net.save(tmp_path / "dw.tflite", [x], [y]), random_codes(rng, 2, 6, 6, 3), config=WIDE)
