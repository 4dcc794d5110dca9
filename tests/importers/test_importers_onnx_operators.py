"""ONNX Runtime's operators on codes between the products: the same codes, called in the test."""

import numpy as np
import pytest
from onnx_tools import assert_bit_exact, model, node, run_onnxruntime, saved, simulated

MS = "com.microsoft"
TYPES = (np.int8, np.uint8)


def all_codes(dtype, shape=None):
    """Every code, or random ones of a shape."""
    info = np.iinfo(dtype)
    if shape is None:
        return np.arange(info.min, info.max + 1, dtype=dtype).reshape(1, -1)
    return np.random.default_rng(len(shape)).integers(info.min, info.max + 1, shape).astype(dtype)


def middle(dtype, offset):
    return dtype(offset if dtype is np.int8 else 128 + offset)


def reference(name, kind, offset, scale):
    return {f"{name}s": np.float32(scale), f"{name}z": middle(kind, offset)}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("op", "out"), [("QLinearAdd", 0.043), ("QLinearMul", 0.0517)])
@pytest.mark.parametrize("shapes", [((2, 3, 4, 5), (2, 3, 4, 5)), ((1, 3, 4, 5), (1, 3, 1, 1)), ((4, 6), (4, 6))])
def test_sums_and_products(tmp_path, kind, op, out, shapes):
    constants = {
        **reference("a", kind, 3, 0.031),
        **reference("b", kind, -9, 0.027),
        **reference("y", kind, 5, out),
    }
    made = model(
        [node(op, ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], ["y"], domain=MS)],
        {"a": (kind, list(shapes[0])), "b": (kind, list(shapes[1]))},
        {"y": (kind, len(shapes[0]))},
        constants,
    )
    feeds = {"a": all_codes(kind, shapes[0]), "b": all_codes(kind, shapes[1])[..., ::-1].copy()}
    assert_bit_exact(made, feeds, tmp_path, verify=True)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("offset", [-128, -5, 0, 4])
@pytest.mark.parametrize(("op", "b"), [("QLinearAdd", 0.105), ("QLinearMul", 0.5)])
def test_all_pairs_with_every_second_one_a_tie(tmp_path, kind, offset, op, b):
    """Scales in ratios of 2: half of all sums and products lie between two codes; the zero point's parity decides."""
    constants = {"s": np.float32(0.21), "h": np.float32(b), "z": middle(kind, offset)}
    made = model(
        [node(op, ["a", "s", "z", "b", "h", "z", "s", "z"], ["y"], domain=MS)],
        {"a": (kind, [256, 256]), "b": (kind, [256, 256])},
        {"y": (kind, 2)},
        constants,
    )
    a = np.repeat(all_codes(kind), 256, axis=0)
    assert_bit_exact(made, {"a": a, "b": a.T.copy()}, tmp_path)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("offset", [-128, -5, 0, 4])
@pytest.mark.parametrize("op", ["QLinearAveragePool", "QLinearGlobalAveragePool"])
def test_averages_with_every_second_one_a_tie(tmp_path, kind, offset, op):
    window = {"kernel_shape": [2, 2], "strides": [2, 2]} if op == "QLinearAveragePool" else {"channels_last": 0}
    shape = (4, 64, 4, 4) if op == "QLinearAveragePool" else (4, 64, 2, 2)
    made = model(
        [node(op, ["x", "s", "z", "s", "z"], ["y"], domain=MS, **window)],
        {"x": (kind, list(shape))},
        {"y": (kind, 4)},
        {"s": np.float32(0.21), "z": middle(kind, offset)},
    )
    assert_bit_exact(made, {"x": all_codes(kind, shape)}, tmp_path)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shapes", [((1, 64, 8, 8), (1, 64, 1, 1)), ((1, 64, 1, 1), (1, 64, 8, 8)), ((4, 256), (1,))])
def test_broadcast_sums_with_any_scales(tmp_path, kind, shapes):
    rng = np.random.default_rng(5)
    for _ in range(6):
        scales = (rng.random(3) * 0.1 + 0.01).astype(np.float32)
        constants = {f"{name}s": scale for name, scale in zip("aby", scales, strict=True)}
        constants.update({f"{name}z": kind(middle(kind, int(rng.integers(-128, 128)))) for name in "aby"})
        made = model(
            [node("QLinearAdd", ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], ["y"], domain=MS)],
            {"a": (kind, list(shapes[0])), "b": (kind, list(shapes[1]))},
            {"y": (kind, len(shapes[0]))},
            constants,
        )
        feeds = {"a": all_codes(kind, shapes[0]), "b": all_codes(kind, shapes[1])[..., ::-1].copy()}
        assert_bit_exact(made, feeds, tmp_path)


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_a_constant_operand(tmp_path, op):
    constants = {
        **reference("a", np.uint8, 3, 0.031),
        **reference("b", np.uint8, -9, 0.027),
        **reference("y", np.uint8, 5, 0.06),
        "b": all_codes(np.uint8, (3, 1, 1)),
    }
    made = model(
        [
            node("QLinearConv", ["x", "as", "az", "w", "ws", "wz", "as", "az"], ["a"], kernel_shape=[1, 1]),
            node(op, ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], ["y"], domain=MS),
        ],
        {"x": (np.uint8, [1, 2, 3, 4])},
        {"y": (np.uint8, 4)},
        {**constants, "w": all_codes(np.uint8, (3, 2, 1, 1)), "ws": np.float32(0.01), "wz": np.uint8(120)},
    )
    report = assert_bit_exact(made, {"x": all_codes(np.uint8, (2, 2, 3, 4))}, tmp_path, batches=2)
    assert [layer.op for layer in report.layers] == ["conv2d", op[7:].lower()]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("scale", [0.01, 0.0571, 0.11])
def test_sigmoid_of_every_code(tmp_path, kind, scale):
    constants = {**reference("x", kind, 3, scale), "ys": np.float32(1 / 256), "yz": np.array(np.iinfo(kind).min, kind)}
    made = model(
        [node("QLinearSigmoid", ["x", "xs", "xz", "ys", "yz"], ["y"], domain=MS)],
        {"x": (kind, [1, 256])},
        {"y": (kind, 2)},
        constants,
    )
    assert_bit_exact(made, {"x": all_codes(kind)}, tmp_path, verify=True)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.3])
def test_leaky_relu_of_every_code(tmp_path, kind, alpha):
    constants = {**reference("x", kind, 3, 0.0571), **reference("y", kind, -11, 0.043)}
    made = model(
        [node("QLinearLeakyRelu", ["x", "xs", "xz", "ys", "yz"], ["y"], domain=MS, alpha=alpha)],
        {"x": (kind, [1, 256])},
        {"y": (kind, 2)},
        constants,
    )
    assert_bit_exact(made, {"x": all_codes(kind)}, tmp_path, verify=True)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", [(2, 3, 7, 5), (1, 5, 8, 8)])
def test_global_average_pool(tmp_path, kind, shape):
    constants = {**reference("x", kind, 3, 0.031), **reference("y", kind, -4, 0.0123)}
    made = model(
        [node("QLinearGlobalAveragePool", ["x", "xs", "xz", "ys", "yz"], ["y"], domain=MS, channels_last=0)],
        {"x": (kind, list(shape))},
        {"y": (kind, 4)},
        constants,
    )
    assert_bit_exact(made, {"x": all_codes(kind, shape)}, tmp_path, verify=True)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [1, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ],
)
def test_average_pool(tmp_path, kind, window):
    constants = {**reference("x", kind, 3, 0.031), **reference("y", kind, -4, 0.0223)}
    made = model(
        [node("QLinearAveragePool", ["x", "xs", "xz", "ys", "yz"], ["y"], domain=MS, **window)],
        {"x": (kind, [2, 3, 6, 8])},
        {"y": (kind, 4)},
        constants,
    )
    assert_bit_exact(made, {"x": all_codes(kind, (2, 3, 6, 8))}, tmp_path, verify=True)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    ],
)
def test_max_pool(tmp_path, kind, window):
    made = model([node("MaxPool", ["x"], ["y"], **window)], {"x": (kind, [2, 3, 6, 8])}, {"y": (kind, 4)}, {})
    assert_bit_exact(made, {"x": all_codes(kind, (2, 3, 6, 8))}, tmp_path, verify=True)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("axis", [1, -1])
def test_concat(tmp_path, kind, axis):
    constants = {
        **reference("y", kind, 5, 0.041),
        **reference("a", kind, 3, 0.031),
        **reference("b", kind, -7, 0.0533),
    }
    shapes = {"a": [2, 3, 4, 4], "b": [2, 5, 4, 4] if axis == 1 else [2, 3, 4, 2]}
    made = model(
        [node("QLinearConcat", ["ys", "yz", "a", "as", "az", "b", "bs", "bz"], ["y"], domain=MS, axis=axis)],
        {name: (kind, shape) for name, shape in shapes.items()},
        {"y": (kind, 4)},
        constants,
    )
    feeds = {name: all_codes(kind, tuple(shape)) for name, shape in shapes.items()}
    assert_bit_exact(made, feeds, tmp_path, verify=True)


def test_relu_and_clip_on_codes(tmp_path):
    """On codes, bounds are codes: Relu keeps codes above 0, whatever 0 means."""
    constants = {**reference("x", np.int8, 3, 0.5), "low": np.int8(-20), "high": np.int8(33), "six": np.float32(1)}
    made = model(
        [
            node("Relu", ["x"], ["r"]),
            node("Clip", ["x", "low", "high"], ["c"]),
            node("DequantizeLinear", ["r", "xs", "xz"], ["rf"]),
            node("DequantizeLinear", ["c", "xs", "xz"], ["cf"]),
        ],
        {"x": (np.int8, [1, 256])},
        {"r": (np.int8, 2), "c": (np.int8, 2)},
        constants,
    )
    del made.graph.node[2:]
    made.graph.node.extend([node("DequantizeLinear", ["x", "xs", "xz"], ["unused"])])
    assert_bit_exact(made, {"x": all_codes(np.int8)}, tmp_path, verify=True)


def qgemm(kind, *, trans_b, alpha, columns, output):
    rng = np.random.default_rng(3)
    n, k = 6, 20
    codes = all_codes(kind, (n, k) if trans_b else (k, n))
    constants = {
        **reference("a", kind, 3, 0.013),
        "b": codes,
        "bs": (rng.random(n if columns else ()) * 0.01 + 0.004).astype(np.float32),
        "bz": np.full(n if columns else (), middle(kind, 2), kind),
        "c": rng.integers(-900, 900, n).astype(np.int32),
    }
    reads = ["a", "as", "az", "b", "bs", "bz", "c"]
    if output:
        constants.update(reference("y", kind, 4, 0.1))
        reads += ["ys", "yz"]
    made = model(
        [node("QGemm", reads, ["y"], domain=MS, transB=int(trans_b), alpha=alpha)],
        {"a": (kind, [1, k])},
        {"y": (kind if output else np.float32, 2)},
        constants,
    )
    return made, all_codes(kind, (4, k))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize(("alpha", "columns"), [(1.0, True), (0.37, False)])
def test_qgemm(tmp_path, kind, trans_b, alpha, columns):
    made, a = qgemm(kind, trans_b=trans_b, alpha=alpha, columns=columns, output=True)
    report = assert_bit_exact(made, {"a": a}, tmp_path, batches=4)
    assert len(np.unique(report.layers[0].output_codes)) > 8


def test_qgemm_without_an_output_scale_leaves_raw(tmp_path):
    """ONNX Runtime multiplies the accumulators to floats; here they leave as they are, and mean the same."""
    made, a = qgemm(np.int8, trans_b=False, alpha=1.0, columns=True, output=False)
    floats = run_onnxruntime(made, {"a": a}, batches=4)["y"]
    report, _ = simulated(saved(made, tmp_path), {"a": a})
    assert report.layers[0].output_format == "int32"
    constants = {each.name: each for each in made.graph.initializer}
    from onnx import numpy_helper

    scale = np.float32(0.013) * numpy_helper.to_array(constants["bs"])
    np.testing.assert_array_equal(report.layers[0].output_codes.astype(np.float32) * scale, floats)


@pytest.mark.parametrize("kind", TYPES)
def test_convolution_and_product_of_integers_leave_accumulators(tmp_path, kind):
    weight = all_codes(kind, (4, 3, 2, 2))
    made = model(
        [node("ConvInteger", ["x", "w", "xz", "wz"], ["y"], pads=[1, 1, 0, 0])],
        {"x": (kind, [1, 3, 5, 5])},
        {"y": (np.int32, 4)},
        {"w": weight, "xz": middle(kind, 7), "wz": middle(kind, 0)},
    )
    if kind is np.uint8:  # ONNX Runtime has no ConvInteger of int8 activations
        assert_bit_exact(made, {"x": all_codes(kind, (2, 3, 5, 5))}, tmp_path, batches=2)
    for constant in (True, False):
        b = all_codes(kind, (5, 6))
        zeros = all_codes(kind, (6,)) if constant else middle(kind, -3)
        constants = {"az": middle(kind, 7), "bz": zeros, **({"b": b} if constant else {})}
        made = model(
            [node("MatMulInteger", ["a", "b", "az", "bz"], ["y"])],
            {"a": (kind, [3, 5]), **({} if constant else {"b": (kind, [5, 6])})},
            {"y": (np.int32, 2)},
            constants,
        )
        feeds = {"a": all_codes(kind, (3, 5)), **({} if constant else {"b": b})}
        assert_bit_exact(made, feeds, tmp_path)
