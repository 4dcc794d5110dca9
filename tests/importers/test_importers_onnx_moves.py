"""What moves codes: as ONNX Runtime moves them; and what costs nothing, because only the view changes."""

import numpy as np
import pytest
from onnx_tools import assert_bit_exact, model, node, run_onnxruntime, saved, simulated

from accelsim.errors import ModelError

S = {"s": np.float32(0.02), "z": np.uint8(7)}


def conv(x="x", y="c", channels=(3, 4)):
    """A 1 x 1 convolution, after which the trace stores channels last."""
    rng = np.random.default_rng(2)
    constants = {"w": rng.integers(0, 256, (channels[1], channels[0], 1, 1)).astype(np.uint8), **S,
                 "ws": np.float32(0.05), "wz": np.uint8(120)}  # fmt: skip
    return node("QLinearConv", [x, "s", "z", "w", "ws", "wz", "s", "z"], [y]), constants


def check(nodes, constants, tmp_path, *, shape=(1, 3, 4, 6), out_rank=4, outputs=("y",), batches=2, operators=None):
    """Run nodes behind a convolution; return the report."""
    first, more = conv(channels=(shape[1], 4))
    made = model(
        [first, *nodes], {"x": (np.uint8, list(shape))}, dict.fromkeys(outputs, (np.uint8, out_rank)),
        {**more, **constants},
    )  # fmt: skip
    x = np.random.default_rng(1).integers(0, 256, (shape[0] * batches, *shape[1:])).astype(np.uint8)
    report, codes = simulated(saved(made, tmp_path), {"x": x}, verify=True)
    wanted = run_onnxruntime(made, {"x": x}, batches=batches)
    for name in outputs:
        np.testing.assert_array_equal(codes[name], wanted[name], err_msg=name)
    assert all(layer.verified == 0 for layer in report.layers)
    if operators is not None:
        assert [layer.op for layer in report.layers] == ["conv2d", *operators]
    return report


def ints(*values):
    return np.array(values, np.int64)


def test_a_transpose_to_channels_last_and_flattening_are_views(tmp_path):
    check([node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1])], {}, tmp_path, operators=[])
    check([node("Flatten", ["c"], ["y"])], {}, tmp_path, out_rank=2, operators=[])
    check([node("Reshape", ["c", "to"], ["y"])], {"to": ints(0, -1, 2)}, tmp_path, out_rank=3, operators=[])
    check([node("Unsqueeze", ["c", "axes"], ["y"])], {"axes": ints(1)}, tmp_path, out_rank=5, operators=[])


@pytest.mark.parametrize("shape", [(1, 3, 4, 6), (1, 3, 1, 1)])
def test_flattening_before_a_product_only_reorders_the_weight(tmp_path, shape):
    features = 4 * shape[2] * shape[3]
    rng = np.random.default_rng(0)
    constants = {"f": rng.integers(0, 256, (features, 5)).astype(np.uint8), "fs": np.float32(0.01),
                 "fz": np.uint8(128), "ys": np.float32(0.3)}  # fmt: skip
    nodes = [
        node("Flatten", ["c"], ["flat"]),
        node("QLinearMatMul", ["flat", "s", "z", "f", "fs", "fz", "ys", "z"], ["y"]),
    ]
    report = check(nodes, constants, tmp_path, shape=shape, out_rank=2, operators=["linear"])
    assert report.layers[1].cycles.total > 0


def test_a_product_over_the_wrong_axis_moves_data(tmp_path):
    """ONNX multiplies along the width, which the trace does not store last."""
    constants = {"f": np.arange(30, dtype=np.uint8).reshape(6, 5), "fs": np.float32(0.01), "fz": np.uint8(3),
                 "ys": np.float32(0.01)}  # fmt: skip
    nodes = [node("QLinearMatMul", ["c", "s", "z", "f", "fs", "fz", "ys", "z"], ["y"])]
    check(nodes, constants, tmp_path, operators=["transpose", "linear"])


def test_a_transpose_before_a_convolution_is_undone(tmp_path):
    """Height and width exchanged and back: nothing moves; exchanged once: the data does."""
    again = [node("QLinearConv", ["t", "s", "z", "w2", "ws", "wz", "s", "z"], ["y"])]
    constants = {"w2": np.arange(24, dtype=np.uint8).reshape(2, 4, 3, 1)}
    turn = node("Transpose", ["c"], ["u"], perm=[0, 1, 3, 2])
    back = node("Transpose", ["u"], ["t"], perm=[0, 1, 3, 2])
    check([turn, back, *again], constants, tmp_path, operators=["conv2d"])
    once = node("Transpose", ["c"], ["t"], perm=[0, 1, 3, 2])
    check([once, *again], constants, tmp_path, operators=["transpose", "conv2d"])


def test_slices_splits_pads(tmp_path):
    constants = {"begin": ints(1, 0), "end": ints(1000, 4), "axes": ints(1, 3), "steps": ints(2, 3)}
    check([node("Slice", ["c", "begin", "end", "axes", "steps"], ["y"])], constants, tmp_path, operators=["slice"])
    backwards = {"begin": ints(-1), "end": ints(-1000), "axes": ints(2), "steps": ints(-1)}
    check([node("Slice", ["c", "begin", "end", "axes", "steps"], ["y"])], backwards, tmp_path, operators=["slice"])
    split = node("Split", ["c", "parts"], ["y", "u"], axis=1)
    check([split], {"parts": ints(1, 3)}, tmp_path, outputs=("y", "u"), operators=["slice", "slice"])
    pads = {"pads": ints(0, 1, 0, 2, 0, 0, 1, 0), "seven": np.uint8(9)}
    check([node("Pad", ["c", "pads", "seven"], ["y"])], pads, tmp_path, operators=["pad"])


@pytest.mark.parametrize("place", ["asymmetric", "half_pixel"])
def test_enlarging(tmp_path, place):
    near = "floor" if place == "asymmetric" else "round_prefer_floor"
    resize = node("Resize", ["c", "", "factors"], ["y"], mode="nearest", coordinate_transformation_mode=place,
                  nearest_mode=near)  # fmt: skip
    check([resize], {"factors": np.array([1, 1, 2, 3], np.float32)}, tmp_path, operators=["resize_nearest"])


def test_a_one_dimensional_network(tmp_path):
    """Convolutions and pooling over time run with a height of 1, and nothing moves."""
    rng = np.random.default_rng(4)
    constants = {"w": rng.integers(0, 256, (6, 3, 5)).astype(np.uint8), **S, "ws": np.float32(0.01),
                 "wz": np.uint8(120), "ys": np.float32(0.1)}  # fmt: skip
    made = model(
        [
            node("QLinearConv", ["x", "s", "z", "w", "ws", "wz", "ys", "z"], ["c"], pads=[2, 1], strides=[2]),
            node("MaxPool", ["c"], ["y"], kernel_shape=[3], strides=[2]),
        ],
        {"x": (np.uint8, [1, 3, 32])},
        {"c": (np.uint8, 3), "y": (np.uint8, 3)},
        constants,
    )
    report = assert_bit_exact(made, {"x": rng.integers(0, 256, (3, 3, 32)).astype(np.uint8)}, tmp_path, batches=3)
    assert [layer.op for layer in report.layers] == ["conv2d", "max_pool2d"]


def test_a_transpose_of_the_batch_needs_single_batches(tmp_path):
    nodes = [
        node("Transpose", ["c"], ["t"], perm=[1, 0, 2, 3]),
        node("QLinearConv", ["t", "s", "z", "w1", "ws", "wz", "s", "z"], ["y"]),
    ]
    constants = {"w1": np.arange(2, dtype=np.uint8).reshape(2, 1, 1, 1)}
    check(nodes, constants, tmp_path, batches=1, operators=["transpose", "conv2d"])
    with pytest.raises(ModelError, match=r"moves the batch; import one batch of the file at a time \(batch=1\)"):
        check(nodes, constants, tmp_path, batches=2)


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([node("MaxPool", ["c"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])], {}, "a window with dilations"),
        ([node("MaxPool", ["c"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}, "ceil_mode adds a"),
        ([node("Pad", ["c", "pads"], ["y"], mode="reflect")], {"pads": ints(0, 0, 1, 1, 0, 0, 1, 1)}, "mode 'reflect'"),
        ([node("Resize", ["c", "", "f"], ["y"], mode="linear")], {"f": np.float32([1, 1, 2, 2])}, "mode linear"),
        ([node("Slice", ["c", "b", "e"], ["y"])], {"b": ints(9), "e": ints(10)}, "nothing is left"),
    ],
)
def test_what_is_not_supported_is_said(tmp_path, nodes, constants, message):
    with pytest.raises(ModelError, match=message):
        check(nodes, constants, tmp_path)
