"""What the builder derives (shapes, padding, biases, factors) by hand-worked cases, and what it refuses."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_examples import INT8, UINT8, int8_builder, small_builder

from accelsim import formats
from accelsim.errors import TraceError
from accelsim.trace.builder import TraceBuilder
from accelsim.trace.factors import quantize_bias
from accelsim.trace.shapes import conv_output_size, same_padding


def ones(*shape, number_format=INT8, scale=1.0, **options):
    codes = np.ones(shape, int)
    blocks = number_format.blocks
    if blocks is not None:
        options["block_scales"] = np.ones((*shape[:-1], -(-shape[-1] // blocks.size)), int)
    return formats.make_qtensor(codes, number_format, scale, **options)


def conv_meta(x=(1, 7, 9, 4), w=(8, 3, 2, 4), **options):
    net = TraceBuilder("conv")
    net.conv2d("c", net.input("x", ones(*x)), ones(*w), rounding=None, **options)
    trace = net.build()
    return trace.layers[0], trace.tensor_meta("c.out").shape, trace.describe()[0]["macs"]


# -- shapes


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        # floor((size + before + after - dilation * (kernel - 1) - 1) / stride) + 1, for height 7, width 9, kernel 3x2
        ({}, (1, 5, 8, 8)),
        ({"stride": 2}, (1, 3, 4, 8)),  # (7-3)//2+1, (9-2)//2+1
        ({"stride": (3, 1)}, (1, 2, 8, 8)),
        ({"padding": 1}, (1, 7, 10, 8)),
        ({"padding": (1, 0)}, (1, 7, 8, 8)),
        ({"padding": ((0, 1), (2, 3))}, (1, 6, 13, 8)),
        ({"dilation": 2}, (1, 3, 7, 8)),  # kernel spans 5 and 3
        ({"dilation": (3, 4), "padding": ((1, 0), (0, 2)), "stride": (1, 2)}, (1, 2, 4, 8)),  # (8-7)//1+1, (11-5)//2+1
        ({"padding": "valid"}, (1, 5, 8, 8)),
        ({"padding": "same"}, (1, 7, 9, 8)),
        ({"padding": "same", "stride": 2}, (1, 4, 5, 8)),
        ({"padding": "same", "dilation": (2, 3)}, (1, 7, 9, 8)),
    ],
)
def test_conv_output_shape(options, shape):
    _, found, macs = conv_meta(**options)
    assert found == shape
    assert macs == np.prod(shape) * 3 * 2 * 4


def test_grouped_and_depthwise_shapes_and_macs():
    _, shape, macs = conv_meta(w=(6, 3, 2, 2), groups=2)
    assert (shape, macs) == ((1, 5, 8, 6), 5 * 8 * 6 * 3 * 2 * 2)
    _, shape, macs = conv_meta(w=(4, 3, 2, 1), groups=4)
    assert (shape, macs) == ((1, 5, 8, 4), 5 * 8 * 4 * 3 * 2)


def test_same_padding_puts_the_odd_element_after():
    # TensorFlow: 7 rows, kernel 2, stride 1 -> 7 outputs need 1 more row: at the bottom
    assert conv_meta(w=(8, 2, 2, 4), padding="same")[0].padding == ((0, 1), (0, 1))
    # 7 rows, kernel 3, stride 2 -> 4 outputs span 9 rows: one on each side; 9 columns, kernel 2 -> 5 span 10: right
    assert conv_meta(padding="same", stride=2)[0].padding == ((1, 1), (0, 1))
    assert same_padding(4, 1, 3, 1) == (0, 0)  # a stride beyond the kernel needs none


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 5), st.integers(1, 4))
def test_same_padding_gives_one_output_for_each_stride(size, kernel, stride, dilation):
    padding = same_padding(size, kernel, stride, dilation)
    assert conv_output_size(size, kernel, stride, padding, dilation) == -(-size // stride)
    assert 0 <= padding[1] - padding[0] <= 1


@given(
    st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 4), st.integers(0, 4)
)
def test_conv_output_size_counts_the_windows_that_fit(size, kernel, stride, dilation, before, after):
    padded = size + before + after
    windows = [start for start in range(0, padded, stride) if start + dilation * (kernel - 1) < padded]
    assert max(conv_output_size(size, kernel, stride, (before, after), dilation), 0) == len(windows)


def test_linear_shapes():
    for x, w, flatten, shape, macs in [
        ((5, 6), (3, 6), False, (5, 3), 90),
        ((5, 4, 6), (3, 6), False, (5, 4, 3), 360),
        ((5, 4, 6), (3, 24), True, (5, 3), 360),
    ]:
        net = TraceBuilder("linear")
        net.linear("fc", net.input("x", ones(*x)), ones(*w), flatten=flatten, rounding=None)
        row = net.build().describe()[0]
        assert (row["output_shape"], row["macs"], row["parameters"]) == (shape, macs, np.prod(w))


def test_matmul_shapes():
    for b, transposed in [((2, 3, 5, 7), False), ((2, 3, 7, 5), True)]:
        net = TraceBuilder("attention")
        q, k = net.input("q", ones(2, 3, 4, 5)), net.input("k", ones(*b))
        net.matmul("scores", q, k, transpose_other=transposed, rounding=None)
        trace = net.build()
        row = trace.describe()[0]
        assert (row["output_shape"], row["macs"], row["parameters"]) == ((2, 3, 4, 7), 2 * 3 * 4 * 5 * 7, 0)
        assert (trace.inputs, trace.weight_bytes) == (("q", "k"), 0)


# -- biases and factors


def test_float_bias_is_rounded_half_away_in_units_of_the_accumulator():
    net = TraceBuilder("bias")
    weight = formats.make_qtensor(np.ones((6, 2), int), INT8, [0.5, 0.5, 0.5, 0.5, 0.25, 0.25], channel_axis=0)
    x = net.input("x", ones(1, 2, scale=0.5))
    net.linear("fc", x, weight, bias=[0.125, -0.125, 0.124, 0.375, 0.375, -1.0], rounding=None)
    # units: 0.25 for the first four channels, 0.125 for the last two
    np.testing.assert_array_equal(net.build().bias("fc"), [1, -1, 0, 2, 3, -8])


@given(st.floats(-9e12, 9e12), st.floats(1e-6, 1e6))
def test_bias_rounding_is_half_away_of_the_quotient(bias, scale):
    quotient = Fraction(bias / scale)  # one float64 division, then exactly
    magnitude = int(abs(quotient) + Fraction(1, 2))
    expected = magnitude if quotient >= 0 else -magnitude
    assert quantize_bias([bias], np.float64(scale), 1, "bias")[0] == expected


def test_just_below_one_half_is_zero():
    assert quantize_bias([0.49999999999999994], np.float64(1), 1, "bias")[0] == 0


def test_integer_bias_is_taken_as_it_is():
    np.testing.assert_array_equal(int8_builder().build().bias("fc"), [1, 2, 3, 4])


def test_requantization_scale_is_input_times_weight_by_output():
    found = int8_builder().build().requantization("fc")
    s_x, s_y = 0.5, 0.25
    np.testing.assert_array_equal(found.scale, [s_x * w / s_y for w in (0.1, 0.2, 0.3, 0.4)])
    assert found.rounding == "double_half_up_then_away"
    assert (found.multiplier, found.shift) == (None, None)


def test_given_factors_are_stored_instead():
    net = TraceBuilder("factors")
    x = net.input("x", ones(1, 2))
    net.linear("a", x, ones(3, 2), output="int8", scale=1.0, multiplier=5, shift=[1, 2, 3], rounding="half_up")
    net.linear("b", x, ones(3, 2), output="int8", scale=1.0, requantization_scale=[0.1, 0.2, 0.3])
    trace = net.build()
    a, b = trace.requantization("a"), trace.requantization(trace.layers[1])
    assert (a.scale, a.multiplier, a.shift.tolist()) == (None, 5, [1, 2, 3])
    assert (b.scale.tolist(), b.multiplier) == ([0.1, 0.2, 0.3], None)
    assert trace.outputs == ("a.out", "b.out")


def test_raw_accumulators_leave_with_the_scale_of_the_products():
    net = TraceBuilder("raw")
    weight = formats.make_qtensor(np.ones((2, 3), int), INT8, [0.5, 0.25], channel_axis=0)
    net.linear("fc", net.input("x", ones(1, 3, scale=0.5)), weight, rounding=None)
    trace = net.build()
    out = trace.output_tensor("fc", [[100_000, -7]])
    assert trace.requantization("fc") is None
    assert out.format.name == "int32"
    np.testing.assert_array_equal(out.dequantize(), [[25_000.0, -0.875]])


def test_vsq_tensors_chain():
    trace = small_builder().build()
    meta = trace.tensor_meta("conv.out")
    assert (meta.format, meta.block_axis, meta.channel_axis) == ("vsq_uint4_v16_s4", 3, None)
    expected = trace.expected("conv.out")
    assert expected.block_scales.shape == (2, 5, 4, 1)
    assert expected.scale == 0.05
    out = trace.output_tensor("conv", np.full((2, 5, 4, 16), 3), np.full((2, 5, 4, 1), 2))
    np.testing.assert_allclose(out.dequantize(), 3 * 2 * 0.05)
    # 432 int8 codes; 10 rows of 320 4-bit codes and 20 4-bit scales
    assert trace.weight_bytes == 432 + (10 * (320 * 4 + 20 * 4)) // 8


def test_names_of_dimensions():
    trace = small_builder().build()
    dims = {name: meta.dims for name, meta in trace.meta.tensors.items()}
    assert dims == {
        "x": ("batch", "height", "width", "channel"),
        "conv.weight": ("out_channel", "kernel_height", "kernel_width", "in_channel"),
        "conv.out": ("batch", "height", "width", "channel"),
        "fc.weight": ("out_channel", "in_channel"),
        "fc.out": ("batch", "channel"),
    }


def test_what_a_trace_hands_out():
    trace = small_builder().build()
    assert (trace.name, trace.description, trace.path) == ("small", "two layers", None)
    assert (trace.inputs, trace.outputs) == (("x",), ("fc.out",))
    assert trace.labels.tolist() == [3, 9]
    assert trace.expected("fc.out") is None
    assert trace.reference("fc.out") is None
    assert trace.reference("conv.out").dtype == np.float64
    assert int8_builder().build().labels is None
    assert repr(trace) == f"<Trace 'small': 2 layers, digest {trace.digest}>"
    with pytest.raises(TraceError, match=r"^trace 'small': unknown tensor 'conv.ot'; did you mean 'conv.out'\?$"):
        trace.tensor("conv.ot")
    with pytest.raises(TraceError, match=r"^trace 'small': unknown layer 'cnv'; did you mean 'conv'\?$"):
        trace.bias("cnv")
    with pytest.raises(
        TraceError, match=r"^trace 'small': tensor 'conv.out' is computed by layer 'conv', not stored; "
    ):
        trace.tensor("conv.out")
    with pytest.raises(TraceError, match=r"tensor 'fc.out' has shape \(2, 10\), but \(10,\) was computed$"):
        trace.output_tensor("fc", np.zeros(10, int))


def test_a_trace_keeps_its_own_copy_of_what_it_was_given():
    bias = np.array([1, 2, 3, 4])
    net = TraceBuilder("copy")
    net.linear("fc", net.input("x", ones(1, 2)), ones(4, 2), bias=bias, rounding=None)
    trace = net.build()
    bias[:] = 9
    assert trace.bias("fc").tolist() == [1, 2, 3, 4]
    trace.bias("fc")[:] = 9
    assert trace.bias("fc").tolist() == [1, 2, 3, 4]


# -- refusals


def linear(net, **options):
    settings = {"output": "int8", "scale": 1.0, **options}
    return net.linear("fc", "x", settings.pop("weight", ones(4, 6)), **settings)


def conv(net, **options):
    return net.conv2d("c", "x4", options.pop("weight", ones(8, 3, 3, 4)), **{"rounding": None, **options})


V4 = formats.get("vsq_int4_v4_s4")
REFUSED = [
    (lambda n: n.linear("fc", "y", ones(4, 6)), "layer 'fc': unknown tensor 'y'; add it before the layer that uses it"),
    (
        lambda n: linear(n, output=None),
        "layer 'fc': say the output's number format and scale, e.g. output='int8', scale=0.05; ",
    ),
    (lambda n: linear(n, scale=0.0), "layer 'fc': scale=0.0; the output's scale is one finite number greater than 0"),
    (lambda n: linear(n, scale=[1.0, 2.0]), "layer 'fc': scale=[1.0, 2.0]; the output's scale is one finite number"),
    (lambda n: linear(n, output="in8"), "layer 'fc': unknown number format 'in8'; did you mean 'int8'?"),
    (
        lambda n: linear(n, weight=ones(4, 5)),
        "layer 'fc': weight takes 5 inputs, but the input (2, 6) has 6 (the last axis)",
    ),
    (
        lambda n: linear(n, weight=np.ones((4, 6))),
        "tensor 'fc.weight': found a ndarray, but a QTensor is needed; make one with",
    ),
    (lambda n: linear(n, bias=[1, 2]), "layer 'fc': bias: has shape (2,), but there are 4 output channels"),
    (lambda n: linear(n, bias=["a"] * 4), "layer 'fc': bias: dtype is <U1; pass integers or floats"),
    (lambda n: linear(n, bias=[1, [2]]), "layer 'fc': bias: is not an array of numbers"),
    (
        lambda n: linear(n, bias=[0, np.nan, 0, 0.0]),
        "layer 'fc': bias: bias nan of channel 1 does not fit int64 in units of its scale",
    ),
    (lambda n: linear(n, bias=[0, 0, 1e19, 0]), "layer 'fc': bias: bias 1e+19 of channel 2 does not fit int64"),
    (
        lambda n: linear(n, scale=1e308, weight=ones(4, 6, scale=1e-308)),
        "layer 'fc': s_input * s_weight / scale = 0.0 is not a positive finite number; the scales are too far apart",
    ),
    (
        lambda n: linear(n, rounding=None),
        "layer 'fc': scale is given, but rounding=None lets raw accumulators leave, in units of s_input * s_weight; "
        "leave it out, or name a rounding rule",
    ),
    (lambda n: linear(n, output_name="x"), "layer 'fc': another tensor is named 'x'; use a new name"),
    (
        lambda n: linear(n, activation="gelu"),
        "layer 'fc': activation: found 'gelu', use 'none', 'relu', 'relu6', 'clamp' or 'threshold'",
    ),
    (
        lambda n: n.linear("f c", "x", ones(4, 6), rounding=None),
        "layer 'f c': name: 'f c' is not a name; use 1 to 200 letters, digits,",
    ),
    (
        lambda n: linear(n, weight=ones(4, 6, scale=[1.0] * 6, channel_axis=1)),
        "layer 'fc': the weight's scales run along axis 1; use axis 0, that of the output channels",
    ),
    (lambda n: conv(n, stride=0), "layer 'c': stride[0]: found 0, must be at least 1"),
    (
        lambda n: conv(n, stride=(1, 2, 3)),
        "layer 'c': stride=(1, 2, 3) has 3 entries; use one number or (vertical, horizontal)",
    ),
    (lambda n: conv(n, dilation=1.5), "layer 'c': dilation=1.5 is not a whole number"),
    (
        lambda n: conv(n, padding="full"),
        "layer 'c': padding='full' is not a padding; use 'same', 'valid', a number or pairs",
    ),
    (lambda n: conv(n, padding=-1), "layer 'c': padding[0][0]: found -1, must be at least 0"),
    (
        lambda n: conv(n, padding=(1, 2, 3, 4)),
        "layer 'c': padding=(1, 2, 3, 4) has 4 entries; use ((top, bottom), (left, right))",
    ),
    (
        lambda n: conv(n, weight=ones(8, 3, 3, 3)),
        "layer 'c': weight has 3 input channels, but the input's 4 channels in 1 group(s) need 4",
    ),
    (
        lambda n: conv(n, weight=ones(8, 9, 3, 4)),
        "layer 'c': a kernel of height 9 with dilation 1 does not fit the input's 5 with",
    ),
    (lambda n: conv(n, weight=ones(8, 3, 3)), "layer 'c': weight has shape (8, 3, 3), but a conv2d's has 4 dimensions"),
    (
        lambda n: n.conv2d("c", "x", ones(8, 3, 3, 4)),
        "layer 'c': input has shape (2, 6), but a conv2d takes 4 dimensions",
    ),
    (
        lambda n: n.matmul("m", "x", "x", rounding=None),
        "layer 'm': input (2, 6) ends in K=6, but other (2, 6), which is [..., K, N], has K=2",
    ),
    (
        lambda n: n.matmul("m", "x", "x4", rounding=None),
        "layer 'm': input (2, 6) and other (2, 5, 5, 4) must have the same number of",
    ),
    (
        lambda n: n.input("x", ones(1)),
        "tensor 'x': another tensor is named 'x'; use a new name, or begin a new TraceBuilder",
    ),
    (lambda n: n.output("x"), "output 'x' is not computed by a layer"),
    # what a finished trace would refuse, said before the builder has it
    (lambda n: linear(n, rounding="hlaf_up"), "layer 'fc': rounding 'hlaf_up' is not a rule; did you mean 'half_up'?"),
    (
        lambda n: linear(n, output="uint8", zero_point=1000),
        "layer 'fc': tensor 'fc.out': zero_point 1000 is outside uint8's range [0, 255]",
    ),
    (
        lambda n: linear(n, expected=np.ones((2, 3), int)),
        "layer 'fc': array 'tensors/fc.out/expected' has shape (2, 3), but must have (2, 4) (expected codes of",
    ),
    (
        lambda n: linear(n, expected=np.full((2, 4), 128)),
        "layer 'fc': tensor 'fc.out': code 128 at index (0, 0) is outside int8's range [-128, 127]",
    ),
    (
        lambda n: linear(n, reference=np.ones((4, 2))),
        "layer 'fc': array 'tensors/fc.out/reference' has shape (4, 2), but must have (2, 4)",
    ),
    (lambda n: linear(n, reference=np.full((2, 4), np.inf)), "layer 'fc': array 'tensors/fc.out/reference' holds 8"),
    (
        lambda n: linear(n, clamp=(0, 5)),
        "layer 'fc': clamp is given, but activation is 'none'; use 'clamp'",
    ),
    (lambda n: linear(n, activation="clamp"), "layer 'fc': activation 'clamp' needs its bounds (clamp: low, high)"),
    (lambda n: linear(n, clamp=5), "layer 'fc': clamp=5 is not a pair of bounds; use (low, high)"),
    (lambda n: linear(n, multiplier=5), "layer 'fc': multiplier and shift go together; shift is missing"),
    (lambda n: linear(n, requantization_scale=-1.0), "layer 'fc': array 'layers/fc/scale' holds -1.0; scales are"),
    (
        lambda n: linear(n, weight=ones(4, 6, number_format=formats.get("vsq_int4_v4_s4"))),
        "layer 'fc': input 'x' is int8, but weight 'fc.weight' is vsq_int4_v4_s4; operands have blocks of one size "
        "both, or none",
    ),
    (lambda n: n.input("f g", ones(2, 6)), "tensor 'f g': name: 'f g' is not a name; use 1 to 200 letters"),
    (
        lambda n: n.input("y", ones(2, 6), reference=np.ones(3)),
        "tensor 'y': array 'tensors/y/reference' has shape (3,), but must have (2, 6)",
    ),
]


def test_a_bad_name_is_one_problem():
    net = TraceBuilder("names")
    with pytest.raises(TraceError) as caught:
        net.linear("f g", net.input("x", ones(2, 6)), ones(4, 6), rounding=None)
    assert str(caught.value).count("is not a name") == 1
    with pytest.raises(TraceError) as caught:
        net.linear("f g", "x", ones(4, 6), rounding=None, output_name="o p")
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == [" name", " output"]


def test_block_sizes_of_operands_agree():
    net = TraceBuilder("blocks")
    x = net.input("x", vsq(2, 8))
    for weight in (ones(4, 8), ones(4, 8, number_format=formats.get("vsq_int4_v2_s4"))):
        with pytest.raises(TraceError, match=f"input 'x' is vsq_int4_v4_s4, but weight .* is {weight.format.name}; "):
            net.linear("fc", x, weight, rounding=None)
    net.linear("fc", x, ones(4, 8, number_format=formats.get("vsq_int8_v4_s6")), rounding=None)
    assert len(net.build().layers) == 1


@pytest.mark.parametrize(("call", "expected"), REFUSED, ids=range(len(REFUSED)))
def test_refused_at_once_and_the_builder_is_as_before(call, expected):
    net = TraceBuilder("refused")
    net.input("x", ones(2, 6))
    net.input("x4", ones(2, 5, 5, 4))
    with pytest.raises(TraceError) as caught:
        call(net)
    assert str(caught.value).startswith(expected)
    net.linear("fc", "x", ones(4, 6), rounding=None)
    net.conv2d("c", "x4", ones(8, 3, 3, 4), rounding=None)
    assert [layer.name for layer in net.build().layers] == ["fc", "c"]


def vsq(*shape, block_axis=-1):
    scales = tuple(-(-n // 4) if i == block_axis % len(shape) else n for i, n in enumerate(shape))
    return formats.make_qtensor(np.ones(shape, int), V4, 1.0, block_axis=block_axis, block_scales=np.ones(scales, int))


def linear_of_2x6(net, **options):
    return net.linear("a", net.input("x", ones(2, 6)), ones(4, 6), **options)


BUILD = [
    (lambda n: n.input("x", ones(2, 6)), "layers: found a list of 0, needs at least 1"),
    (
        lambda n: n.linear("fc", n.input("x", ones(2, 6), dims=("a", "a")), ones(4, 6), rounding=None),
        "tensor 'x': dims ('a', 'a') name two dimensions alike",
    ),
    (
        lambda n: linear_of_2x6(n, output="int8", scale=1.0, rounding="half"),
        "layer 'a': rounding 'half' is not a rule",
    ),
    (
        lambda n: linear_of_2x6(n, output="int8", scale=1.0, clamp=(1, 2)),
        "layer 'a': clamp is given, but activation is 'none'; use 'clamp'",
    ),
    (
        lambda n: linear_of_2x6(n, output="int8", scale=1.0, shift=3),
        "layer 'a': multiplier and shift go together; multiplier is missing",
    ),
    (
        lambda n: linear_of_2x6(n, output="int8", scale=1.0, zero_point=200),
        "tensor 'a.out': zero_point 200 is outside int8's range [-128, 127]",
    ),
    (
        lambda n: linear_of_2x6(n, rounding=None, expected=np.ones((2, 3), int)),
        "array 'tensors/a.out/expected' has shape (2, 3), but must have (2, 4) (expected codes of layer 'a')",
    ),
    (
        lambda n: n.linear(
            "fc", n.input("x", ones(2, 5, 6, scale=[1.0] * 6, channel_axis=2)), ones(4, 6), rounding=None
        ),
        "layer 'fc': input 'x' has per-channel scales, which cannot leave the sum; use one scale",
    ),
    (
        lambda n: n.conv2d("c", n.input("x", vsq(1, 5, 5, 12)), vsq(4, 3, 3, 6), groups=2, rounding=None),
        "layer 'c': 6 channels a group are not a multiple of the input's block size 4: blocks would straddle groups; "
        "use a block size that divides 6",
    ),
    (
        lambda n: n.linear("fc", n.input("x", vsq(1, 2, 6)), vsq(4, 12), flatten=True, rounding=None),
        "layer 'fc': flatten joins rows of 6 channels, not a multiple of the input's block size 4: the weight's blocks "
        "would straddle them; use a block size that divides 6",
    ),
    (
        lambda n: n.matmul("m", n.input("a", vsq(2, 6)), n.input("b", vsq(6, 3)), rounding=None),
        "layer 'm': other has blocks along axis 1, but the layer sums over axis 0; blocks run along the sum",
    ),
    (
        lambda n: n.linear("fc", n.input("x", vsq(4, 6, block_axis=0)), vsq(4, 6), rounding=None),
        "layer 'fc': input has blocks along axis 0, but the layer sums over axis 1; blocks run along the sum",
    ),
    (
        lambda n: n.linear(
            "b", n.linear("a", n.input("x", ones(2, 6)), ones(4, 6), rounding=None), ones(3, 4), rounding=None
        ),
        "layer 'b': input 'a.out' holds raw accumulators (int32), which do not enter multipliers; "
        "requantize it (set rounding) in the layer before",
    ),
]


@pytest.mark.parametrize(("call", "expected"), BUILD, ids=range(len(BUILD)))
def test_refused_when_it_is_built(call, expected):
    net = TraceBuilder("refused")
    with pytest.raises(TraceError) as caught:
        (call(net), net.build())
    text = str(caught.value)
    assert expected in text
    assert text.startswith(("trace 'refused': ", "layer '", "tensor 'x': "))


@pytest.mark.parametrize(
    "call",
    [
        lambda n: n.conv2d("c", n.input("x", vsq(1, 5, 5, 16)), vsq(4, 3, 3, 8), groups=2, rounding=None),
        lambda n: n.linear("fc", n.input("x", vsq(1, 2, 8)), vsq(4, 16), flatten=True, rounding=None),
        lambda n: n.linear("fc", n.input("x", vsq(2, 1, 6)), vsq(4, 6), flatten=True, rounding=None),
        lambda n: n.matmul("m", n.input("a", vsq(2, 6)), n.input("b", vsq(3, 6)), transpose_other=True, rounding=None),
        lambda n: n.matmul("m", n.input("a", vsq(2, 6)), n.input("b", vsq(6, 3, block_axis=0)), rounding=None),
        lambda n: linear_of_2x6(n, output="int8", scale=1.0, activation="clamp", clamp=(-5, 5)),
        lambda n: linear_of_2x6(n, output="int40", rounding=None),
        lambda n: n.linear("fc", n.input("x", UINT8.quantize([[0.5, -1]], asymmetric=True)), ones(4, 2), rounding=None),
    ],
)
def test_accepted(call):
    net = TraceBuilder("accepted")
    call(net)
    assert len(net.build().layers) == 1


def fixed_point_output(**options):
    builder = TraceBuilder("fixed")
    x = builder.input("x", formats.get("int8").quantize(np.ones((2, 4))))
    builder.linear("fc", x, formats.get("int8").quantize(np.ones((3, 4))), **options)
    trace = builder.build()
    return trace.output_factors(trace.layers[0])


def test_a_fixed_point_output_has_its_own_scale():
    assert float(fixed_point_output(output="q1.7")[1]) == 2.0**-7
    assert float(fixed_point_output(output="q1.7", scale=2.0**-7)[1]) == 2.0**-7
    assert float(fixed_point_output(output="dfp8", scale=0.25)[1]) == 0.25


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"output": "q1.7", "scale": 0.05},
            r"output: q1.7: scale is 0.05, but the format's is 2\*\*-7 = 0.0078125; leave",
        ),
        ({"output": "dfp8", "scale": 0.05}, "output: dfp8: scale is 0.05, but has to be a power of two"),
        ({"output": "dfp8"}, "say the output's number format and scale"),
    ],
)
def test_other_scales_of_fixed_point_are_refused_at_once(options, words):
    with pytest.raises(TraceError, match=f"layer 'fc': {words}"):
        fixed_point_output(**options)
