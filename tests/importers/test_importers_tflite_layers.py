"""The array's layers of TFLite: every code that accelsim computes is that of LiteRT's reference kernels, on small
models that the tests make.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tflite_tools import FUSED, PADDING, TYPES, WIDE, Maker, check

from accelsim.importers.api import open_model

ACTIVATIONS = [FUSED.NONE, FUSED.RELU, FUSED.RELU6, FUSED.RELU_N1_TO_1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tflite")


def scales(rng, count):
    return np.exp(rng.uniform(np.log(1e-4), np.log(2e-2), count)).astype(np.float32)


def drawn(seed):
    return np.random.default_rng(seed)


def codes(rng, shape, dtype):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


convolutions = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "height": st.integers(1, 9),
        "width": st.integers(1, 9),
        "channels": st.integers(1, 5),
        "outputs": st.integers(1, 6),
        "kernel": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "padding": st.sampled_from([PADDING.SAME, PADDING.VALID]),
        "activation": st.sampled_from(ACTIVATIONS),
        "per_channel": st.booleans(),
        "batch": st.integers(1, 3),
    }
)


def sizes_out(case):
    """The output's height and width by TensorFlow's rule, or None where a kernel does not fit."""
    sizes = []
    for size, kernel, stride, dilation in zip(
        (case["height"], case["width"]), case["kernel"], case["stride"], case["dilation"], strict=True
    ):
        reach = (kernel - 1) * dilation + 1
        sizes.append(-(-size // stride) if case["padding"] == PADDING.SAME else (size - reach) // stride + 1)
    return sizes if min(sizes) > 0 else None


def window(case, **more):
    return {
        "padding": case["padding"],
        "strideH": case["stride"][0],
        "strideW": case["stride"][1],
        "dilationHFactor": case["dilation"][0],
        "dilationWFactor": case["dilation"][1],
        "fusedActivationFunction": case["activation"],
        **more,
    }


@settings(max_examples=16)
@given(convolutions, st.integers(1, 2))
def test_conv_2d(folder, case, groups):
    rng, sizes = drawn(case["seed"]), sizes_out(case)
    assume(sizes)
    channels, outputs = case["channels"] * groups, case["outputs"] * groups
    net = Maker()
    x = net.tensor(
        (1, case["height"], case["width"], channels), "INT8", rng.uniform(0.01, 0.1), rng.integers(-128, 128)
    )
    w_scale = scales(rng, outputs) if case["per_channel"] else scales(rng, 1)
    w = net.constant(
        rng.integers(-127, 128, (outputs, *case["kernel"], case["channels"])).astype(np.int8), None, w_scale
    )
    b = net.constant(rng.integers(-3000, 3000, outputs).astype(np.int32), None, w_scale)
    y = net.tensor((1, *sizes, outputs), "INT8", rng.uniform(0.01, 0.3), rng.integers(-128, 128))
    net.op("CONV_2D", [x, w, b], [y], "Conv2DOptions", version=5, **window(case))
    path = net.save(folder / "conv.tflite", [x], [y])
    check(path, codes(rng, (case["batch"], case["height"], case["width"], channels), np.int8))


@settings(max_examples=16)
@given(convolutions, st.integers(1, 3))
def test_depthwise_conv_2d(folder, case, multiplier):
    case["stride"] = (case["stride"][0],) * 2  # TFLite's kernel takes one for both
    rng, sizes = drawn(case["seed"]), sizes_out(case)
    assume(sizes)
    channels, outputs = case["channels"], case["channels"] * multiplier
    net = Maker()
    x = net.tensor(
        (1, case["height"], case["width"], channels), "INT8", rng.uniform(0.01, 0.1), rng.integers(-128, 128)
    )
    w_scale = scales(rng, outputs)
    w = net.constant(rng.integers(-127, 128, (1, *case["kernel"], outputs)).astype(np.int8), None, w_scale, axis=3)
    b = net.constant(rng.integers(-3000, 3000, outputs).astype(np.int32), None, w_scale)
    y = net.tensor((1, *sizes, outputs), "INT8", rng.uniform(0.01, 0.3), rng.integers(-128, 128))
    net.op(
        "DEPTHWISE_CONV_2D",
        [x, w, b],
        [y],
        "DepthwiseConv2DOptions",
        version=6,
        **window(case, depthMultiplier=multiplier),
    )
    path = net.save(folder / "depthwise.tflite", [x], [y])
    check(path, codes(rng, (case["batch"], case["height"], case["width"], channels), np.int8))


@settings(max_examples=10)
@given(convolutions)
def test_conv_2d_of_the_old_uint8_scheme_has_a_weight_zero_point(folder, case):
    rng, sizes = drawn(case["seed"]), sizes_out(case)
    assume(sizes)
    net = Maker()
    shape = (1, case["height"], case["width"], case["channels"])
    x_scale, w_scale = np.float32(rng.uniform(0.01, 0.1)), scales(rng, 1)
    x = net.tensor(shape, "UINT8", x_scale, rng.integers(0, 256))
    w = net.constant(
        codes(rng, (case["outputs"], *case["kernel"], case["channels"]), np.uint8), None, w_scale, rng.integers(0, 256)
    )
    b = net.constant(rng.integers(-3000, 3000, case["outputs"]).astype(np.int32), None, x_scale * w_scale)
    y = net.tensor((1, *sizes, case["outputs"]), "UINT8", rng.uniform(0.05, 0.3), rng.integers(0, 256))
    net.op("CONV_2D", [x, w, b], [y], "Conv2DOptions", version=5, **window(case))
    path = net.save(folder / "uint8.tflite", [x], [y])
    check(path, codes(rng, (case["batch"], *shape[1:]), np.uint8))


@settings(max_examples=16)
@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(1, 9),
    st.sampled_from([(), (3,), (2, 3)]),
    st.booleans(),
    st.sampled_from(["INT8", "UINT8", "INT4"]),
    st.booleans(),
    st.sampled_from(ACTIVATIONS),
)
def test_fully_connected(folder, seed, inputs, outputs, leading, keep, kind, per_channel, activation):
    rng = drawn(seed)
    dtype = "UINT8" if kind == "UINT8" else "INT8"
    net = Maker()
    low = 0 if dtype == "UINT8" else -128
    x_scale, w_scale = np.float32(rng.uniform(0.01, 0.1)), scales(rng, outputs if per_channel and kind == "INT8" else 1)
    x = net.tensor((1, *leading, inputs), dtype, x_scale, rng.integers(low, low + 256))
    reach = {"INT8": (-127, 128), "UINT8": (0, 256), "INT4": (-8, 8)}[kind]
    values = rng.integers(*reach, (outputs, inputs)).astype(np.uint8 if kind == "UINT8" else np.int8)
    w = net.constant(values, kind, w_scale, rng.integers(0, 256) if kind == "UINT8" else 0)
    b = net.constant(rng.integers(-3000, 3000, outputs).astype(np.int32), None, x_scale * w_scale)
    rows = (1, *leading) if keep else (int(np.prod(leading, dtype=int)),)
    y = net.tensor((*rows, outputs), dtype, rng.uniform(0.001, 0.3), rng.integers(low, low + 256))
    fields = {"fusedActivationFunction": activation, "keepNumDims": keep}
    net.op("FULLY_CONNECTED", [x, w, b], [y], "FullyConnectedOptions", version=12, **fields)
    path = net.save(folder / "fc.tflite", [x], [y])
    check(path, codes(rng, (3, *leading, inputs), np.uint8 if dtype == "UINT8" else np.int8))


KERNELS = {
    "CONV_2D": ("Conv2DOptions", (1, 1), {"strideH": 1, "strideW": 1}),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (1, 1), {"strideH": 1, "strideW": 1, "depthMultiplier": 200}),
    "FULLY_CONNECTED": ("FullyConnectedOptions", (), {}),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("dtype", "per_channel"), [("INT8", True), ("INT8", False), ("UINT8", False)])
def test_the_factor_of_the_scales_is_computed_as_the_kernel_does(folder, kernel, dtype, per_channel):
    """Some kernels round s_x * s_w to float32, others do not. Accumulators near 2**29 tell, where they lie between two
    codes by one and beyond by the other: here they are the biases of channels whose weights are all zero.
    """
    options, window, fields = KERNELS[kernel]
    x_scale, w_scale, y_scale = np.float32(0.0117), np.float32(0.000299), np.float32(17.3)
    rounded, exact = float(x_scale * w_scale) / float(y_scale), float(x_scale) * float(w_scale) / float(y_scale)
    bounds = np.arange(-100, 100) + 0.5
    biases = np.rint((bounds / rounded + bounds / exact) / 2).astype(np.int32)
    assert np.any(np.floor(biases * rounded + 0.5) != np.floor(biases * exact + 0.5)), "the biases tell"
    zero = 0 if dtype == "INT8" else 128
    net = Maker()
    x = net.tensor((1, *window, 1), dtype, x_scale, zero)
    shape = (1, 1, 1, 200) if kernel == "DEPTHWISE_CONV_2D" else (200, *window, 1)
    each = np.full(200, w_scale) if per_channel else w_scale
    axis = 3 if kernel == "DEPTHWISE_CONV_2D" else 0
    w = net.constant(np.full(shape, zero, dtype.lower()), None, each, zero, axis)
    b = net.constant(biases, None, x_scale * each)
    y = net.tensor((1, *window, 200), dtype, y_scale, zero)
    net.op(kernel, [x, w, b], [y], options, version=5, **fields)
    check(net.save(folder / "factor.tflite", [x], [y]), codes(drawn(0), (2, *window, 1), np.dtype(dtype.lower())))


def test_fully_connected_over_all_of_an_image(folder):
    rng, net = drawn(1), Maker()
    x = net.tensor((1, 3, 4, 5), "INT8", 0.05, -10)
    w = net.constant(rng.integers(-127, 128, (7, 60)).astype(np.int8), None, 0.01)
    y = net.tensor((1, 7), "INT8", 0.4, 3)
    net.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=4)
    check(net.save(folder / "image.tflite", [x], [y]), codes(rng, (4, 3, 4, 5), np.int8))


@pytest.mark.parametrize("bias", ["INT64", "INT32"])
def test_int16_activations(folder, bias):
    rng, net = drawn(5), Maker()
    x = net.tensor((1, 6, 6, 3), "INT16", 0.0003)
    w_scale = scales(rng, 4)
    w = net.constant(rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8), None, w_scale)
    b = net.constant(rng.integers(-(10**5), 10**5, 4).astype(bias.lower()), None, w_scale)
    y = net.tensor((1, 6, 6, 4), "INT16", 0.0004)
    net.op(
        "CONV_2D",
        [x, w, b],
        [y],
        "Conv2DOptions",
        version=8,
        padding=PADDING.SAME,
        strideH=1,
        strideW=1,
        quantizedBiasType=TYPES[bias],
    )
    fw = net.constant(rng.integers(-127, 128, (5, 144)).astype(np.int8), None, 0.004)
    fb = net.constant(rng.integers(-(10**5), 10**5, 5).astype(np.int64), None, 0.004 * 0.0004)
    z = net.tensor((1, 5), "INT16", 0.002)
    net.op("FULLY_CONNECTED", [y, fw, fb], [z], "FullyConnectedOptions", version=7)
    path = net.save(folder / "int16.tflite", [x], [z])
    check(path, codes(rng, (3, 6, 6, 3), np.int16), config=WIDE)


@pytest.mark.parametrize("kernel", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_convolutions_with_weights_of_4_bits(folder, kernel):
    """Two to a byte in the file; an odd number of them, codes from -8 on."""
    rng, net = drawn(8), Maker()
    deep = kernel == "DEPTHWISE_CONV_2D"
    outputs = 5
    x = net.tensor((1, 6, 7, 5 if deep else 3), "INT8", 0.05, -9)
    shape = (1, 3, 3, 5) if deep else (outputs, 3, 3, 3)
    w_scale = scales(rng, outputs)
    w = net.constant(rng.integers(-8, 8, shape).astype(np.int8), "INT4", w_scale, axis=3 if deep else 0)
    b = net.constant(rng.integers(-300, 300, outputs).astype(np.int32), None, w_scale)
    y = net.tensor((1, 6, 7, outputs), "INT8", 0.02, 3)
    fields = {"padding": PADDING.SAME, "strideH": 1, "strideW": 1, **({"depthMultiplier": 1} if deep else {})}
    options = "DepthwiseConv2DOptions" if deep else "Conv2DOptions"
    net.op(kernel, [x, w, b], [y], options, version=6, **fields)
    path = net.save(folder / "int4.tflite", [x], [y])
    check(path, codes(rng, (3, 6, 7, 5 if deep else 3), np.int8))
    assert open_model(path).rows[0].weight_format == "int4"


# -- transposed convolutions --


def transpose_conv(folder, rng, sizes, channels, outputs, kernel, stride, out_sizes, padding, **options):
    """Save a TRANSPOSE_CONV; return its path and the data's shape and type."""
    dtype, per_channel = options.get("dtype", "INT8"), options.get("per_channel", True)
    net = Maker()
    low, zero = {"INT8": (-128, 256), "UINT8": (0, 256), "INT16": (0, 1)}[dtype]
    x_scale = np.float32(rng.uniform(0.01, 0.1) / (100 if dtype == "INT16" else 1))
    x = net.tensor((1, *sizes, channels), dtype, x_scale, low + rng.integers(zero))
    w_scale = scales(rng, outputs if per_channel else 1)
    w_dtype, w_zero = ("UINT8", rng.integers(256)) if dtype == "UINT8" else ("INT8", 0)
    w = net.constant(codes(rng, (outputs, *kernel, channels), w_dtype.lower()), None, w_scale, w_zero)
    bias_type = np.int64 if dtype == "INT16" else np.int32
    b = net.constant(rng.integers(-3000, 3000, outputs).astype(bias_type), None, x_scale * w_scale)
    y_scale = rng.uniform(0.05, 0.3) / (100 if dtype == "INT16" else 1)
    y = net.tensor((1, *out_sizes, outputs), dtype, y_scale, low + rng.integers(zero))
    shape = net.constant(np.array((1, *out_sizes, outputs), np.int32))
    fields = {"padding": padding, "strideH": stride[0], "strideW": stride[1]}
    inputs = [shape, w, x, b] if options.get("bias", True) else [shape, w, x]
    net.op(
        "TRANSPOSE_CONV",
        inputs,
        [y],
        "TransposeConvOptions",
        version=4,
        fusedActivationFunction=options.get("activation", FUSED.NONE),
        **fields,
    )
    return net.save(folder / "transposed.tflite", [x], [y]), (*sizes, channels), dtype.lower()


@settings(max_examples=25)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 4),
    st.integers(1, 3),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 4), st.integers(1, 3)),
    st.sampled_from([PADDING.SAME, PADDING.VALID]),
    st.sampled_from(ACTIVATIONS),
    st.booleans(),
    st.data(),
)
def test_transpose_conv(folder, seed, sizes, channels, outputs, kernel, stride, padding, activation, per_channel, data):
    rng, out_sizes = drawn(seed), []
    for size, taps, step in zip(sizes, kernel, stride, strict=True):
        if padding == PADDING.SAME:  # all that an ordinary convolution would shrink to the input's size
            out_sizes.append(data.draw(st.integers(max(1, (size - 1) * step + 1), size * step)))
        else:
            out_sizes.append(data.draw(st.integers(0, step - 1)) + (size - 1) * step + taps)
    path, shape, dtype = transpose_conv(
        folder,
        rng,
        sizes,
        channels,
        outputs,
        kernel,
        stride,
        out_sizes,
        padding,
        per_channel=per_channel,
        activation=activation,
        bias=data.draw(st.booleans()),
    )
    check(path, codes(rng, (2, *shape), dtype))


@pytest.mark.parametrize("dtype", ["UINT8", "INT16"])
@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), (2, 2)), ((2, 4), (2, 1)), ((2, 2), (2, 2)), ((1, 1), (3, 2))])
def test_transpose_conv_of_other_types(folder, dtype, kernel, stride):
    rng = drawn(3)
    sizes = (3 * stride[0], 4 * stride[1])
    path, shape, kind = transpose_conv(
        folder, rng, (3, 4), 5, 4, kernel, stride, sizes, PADDING.SAME, dtype=dtype, per_channel=dtype == "INT16"
    )
    check(path, codes(rng, (2, *shape), kind), config=WIDE if dtype == "INT16" else None)


def test_transpose_conv_costs_what_the_array_does(folder):
    """2x2 at stride 2: every product is one of the definition's, 3 * 4 pixels x 4 taps x 5 x 6 channels; the
    convolution has 4 * 6 output channels of one tap, which one depth_to_space lays out.
    """
    rng = drawn(4)
    path, shape, kind = transpose_conv(folder, rng, (3, 4), 5, 6, (2, 2), (2, 2), (6, 8), PADDING.VALID)
    report = check(path, codes(rng, (1, *shape), kind))
    assert [(layer.name, layer.op) for layer in report.layers] == [
        ("0_transpose_conv.0", "conv2d"),
        ("0_transpose_conv", "depth_to_space"),
    ]
    conv, blocks = report.layers
    assert (conv.shape.m, conv.shape.k, conv.shape.n) == (12, 5, 24)
    assert conv.macs == 3 * 4 * 4 * 5 * 6
    assert blocks.cycles.total > 0
    (row,) = open_model(path).rows
    assert (row.macs, row.place, row.input_shape, row.weight_shape) == (1440, "array", (1, 3, 4, 5), (6, 2, 2, 5))
    path, _, _ = transpose_conv(folder, rng, (3, 4), 5, 6, (3, 3), (2, 2), (6, 8), PADDING.SAME)
    (row,) = open_model(path).rows
    assert row.macs == 3 * 4 * 9 * 5 * 6


def test_conv1d(folder):
    """TFLite's one-dimensional convolution: a dimension of 1 is inserted, and removed after it."""
    rng, net = drawn(6), Maker()
    x = net.tensor((1, 20, 3), "INT8", 0.05, -9)
    wide = net.tensor((1, 1, 20, 3), "INT8", 0.05, -9)
    net.op("EXPAND_DIMS", [x, net.constant(np.array(1, np.int32))], [wide], "ExpandDimsOptions")
    w_scale = scales(rng, 4)
    w = net.constant(rng.integers(-127, 128, (4, 1, 5, 3)).astype(np.int8), None, w_scale)
    b = net.constant(rng.integers(-3000, 3000, 4).astype(np.int32), None, w_scale)
    made = net.tensor((1, 1, 6, 4), "INT8", 0.1, 3)
    fields = {"padding": PADDING.VALID, "strideH": 2, "strideW": 2, "dilationHFactor": 1, "dilationWFactor": 2}
    net.op("CONV_2D", [wide, w, b], [made], "Conv2DOptions", version=5, **fields)
    flat = net.tensor((1, 6, 4), "INT8", 0.1, 3)
    net.op("SQUEEZE", [made], [flat], "SqueezeOptions", squeezeDims=[1])
    path = net.save(folder / "conv1d.tflite", [x], [flat])
    report = check(path, codes(rng, (3, 20, 3), np.int8))
    assert [layer.op for layer in report.layers] == ["reshape", "conv2d", "reshape"]
