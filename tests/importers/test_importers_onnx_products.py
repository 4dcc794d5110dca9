"""QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger, QGemm: the same codes as ONNX Runtime, called in the test."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_tools import assert_bit_exact, model, node

EXAMPLES = settings(max_examples=25)
TYPES = (np.int8, np.uint8)


def codes(rng, dtype, shape, *, bits=8):
    info = np.iinfo(dtype)
    low, high = info.min >> (8 - bits), info.max >> (8 - bits)
    return rng.integers(low, high + 1, shape).astype(dtype)


def zero_point(rng, dtype):
    return codes(rng, dtype, ())


def scales(rng, shape, low=-4.0, high=-1.5):
    return (10.0 ** rng.uniform(low, high, shape)).astype(np.float32)


@st.composite
def convolutions(draw):
    rank = draw(st.sampled_from([1, 2, 2, 2]))
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    per_group = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
    dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
    return {
        "seed": draw(st.integers(0, 2**32 - 1)),
        "groups": groups,
        "per_group": per_group,
        "out": groups * draw(st.integers(1, 3)),
        "kernel": kernel,
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
        "dilations": dilations,
        "pads": [draw(st.integers(0, 3)) for _ in range(2 * rank)],
        "sizes": [draw(st.integers(0, 6)) + (k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)],
        "x_type": draw(st.sampled_from(TYPES)),
        "per_channel": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "batches": draw(st.integers(1, 3)),
    }


def convolution(case):
    rng = np.random.default_rng(case["seed"])
    x_type = case["x_type"]
    # ONNX Runtime takes int8 weights with int8 activations, and both kinds with uint8 ones.
    w_type = np.int8 if x_type is np.int8 else TYPES[int(rng.integers(2))]
    channels = case["groups"] * case["per_group"]
    # CPUs without VNNI saturate pairs of uint8 times int8 products; weights of 7 bits are exact everywhere.
    bits = 7 if x_type is np.uint8 and w_type is np.int8 else 8
    weight = codes(rng, w_type, (case["out"], case["per_group"], *case["kernel"]), bits=bits)
    # Per-channel zero points must be equal; int8 ones may be anything too.
    scale_shape = (case["out"],) if case["per_channel"] else ()
    zero = np.full(scale_shape, zero_point(rng, w_type), w_type)
    constants = {
        "xs": scales(rng, ()),
        "xz": zero_point(rng, x_type),
        "w": weight,
        "ws": scales(rng, scale_shape),
        "wz": zero,
        "ys": scales(rng, (), -3.0, -1.0),
        "yz": zero_point(rng, x_type),
    }
    reads = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    if case["bias"]:
        constants["b"] = rng.integers(-3000, 3000, case["out"]).astype(np.int32)
        reads.append("b")
    attributes = {key: case[key] for key in ("strides", "dilations", "pads")}
    rank = len(case["kernel"])
    made = model(
        [node("QLinearConv", reads, ["y"], group=case["groups"], kernel_shape=case["kernel"], **attributes)],
        {"x": (x_type, [1, channels, *case["sizes"]])},
        {"y": (x_type, 2 + rank)},
        constants,
    )
    # Scale the output so that a good part of its codes lies inside the range.
    reach = float(np.sqrt(weight.size / case["out"])) * 60 * 60
    constants["ys"] = np.float32(constants["xs"] * np.mean(constants["ws"]) * reach / 40)
    made.graph.initializer[5].CopyFrom(_tensor(constants["ys"], "ys"))
    return made, codes(rng, x_type, (case["batches"], channels, *case["sizes"]))


def _tensor(array, name):
    import onnx

    return onnx.numpy_helper.from_array(np.asarray(array), name)


@EXAMPLES
@given(convolutions())
def test_convolutions_give_onnx_runtimes_codes(tmp_path_factory, case):
    made, x = convolution(case)
    report = assert_bit_exact(made, {"x": x}, tmp_path_factory.mktemp("conv"), batches=case["batches"])
    assert report.layers[0].op == "conv2d"


def test_the_cases_are_not_all_saturated(tmp_path):
    """A comparison of codes that are all at the ends of their range would show little."""
    case = {"seed": 5, "groups": 2, "per_group": 3, "out": 4, "kernel": [3, 3], "strides": [1, 1], "dilations": [1, 1],
            "pads": [1, 1, 1, 1], "sizes": [9, 9], "x_type": np.uint8, "per_channel": True, "bias": True,
            "batches": 2}  # fmt: skip
    made, x = convolution(case)
    report = assert_bit_exact(made, {"x": x}, tmp_path, batches=2, verify=True)
    assert len(np.unique(report.layers[0].output_codes)) > 60


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_automatic_padding(tmp_path, auto_pad, kernel):
    rng = np.random.default_rng(kernel)
    constants = {"xs": np.float32(0.02), "xz": np.uint8(100), "w": codes(rng, np.int8, (4, 3, kernel, kernel)),
                 "ws": np.float32(0.01), "wz": np.int8(0), "ys": np.float32(0.4), "yz": np.uint8(128)}  # fmt: skip
    made = model(
        [node("QLinearConv", ["x", *constants], ["y"], auto_pad=auto_pad, strides=[2, 2])],
        {"x": (np.uint8, [1, 3, 8, 7])},
        {"y": (np.uint8, 4)},
        constants,
    )
    made.graph.node[0].input[:] = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    assert_bit_exact(made, {"x": codes(rng, np.uint8, (1, 3, 8, 7))}, tmp_path)


@st.composite
def matrices(draw):
    leading = draw(st.sampled_from([(), (2,), (2, 3)]))
    return {
        "seed": draw(st.integers(0, 2**32 - 1)),
        "leading": leading,
        "m": draw(st.integers(1, 5)),
        "k": draw(st.integers(1, 40)),
        "n": draw(st.integers(1, 9)),
        "type": draw(st.sampled_from(TYPES)),
        "constant": draw(st.booleans()),
        "columns": draw(st.booleans()),
    }


@EXAMPLES
@given(matrices())
def test_matrix_products_give_onnx_runtimes_codes(tmp_path_factory, case):
    rng = np.random.default_rng(case["seed"])
    kind, k, n, leading = case["type"], case["k"], case["n"], case["leading"]
    columns = (n,) if case["columns"] and case["constant"] else ()
    b = codes(rng, kind, (k, n) if case["constant"] else (*leading, k, n))
    constants = {
        "as": scales(rng, ()),
        "az": zero_point(rng, kind),
        "bs": scales(rng, columns),
        "bz": codes(rng, kind, columns),
        "yz": zero_point(rng, kind),
    }
    constants["ys"] = np.float32(constants["as"] * np.mean(constants["bs"]) * 75 * np.sqrt(k) * 75 / 40)
    feeds = {"a": codes(rng, kind, (*leading, case["m"], k))}
    inputs = {"a": (kind, list(feeds["a"].shape))}
    if case["constant"]:
        constants["b"] = b
    else:
        feeds["b"], inputs["b"] = b, (kind, list(b.shape))
    made = model(
        [node("QLinearMatMul", ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], ["y"])],
        inputs,
        {"y": (kind, 2 + len(leading))},
        constants,
    )
    report = assert_bit_exact(made, feeds, tmp_path_factory.mktemp("matmul"))
    assert report.layers[0].op == ("linear" if case["constant"] else "matmul")
