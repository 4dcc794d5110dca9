"""What float operands, thresholds and binary padding add to a trace."""

import numpy as np
import pytest

from accelsim import formats, load_trace
from accelsim.errors import TraceError
from accelsim.trace.builder import TraceBuilder

MX, BINARY, INT8, UINT2 = (formats.get(name) for name in ("mxfp8_e4m3", "binary", "int8", "uint2"))
FLOAT = "float32_half_even"


def mx_linear(net, **options):
    rng = np.random.default_rng(3)
    x = net.input("x", MX.quantize(rng.normal(size=(2, 40))))
    weight = MX.quantize(rng.normal(size=(3, 40)))
    return net.linear("fc", x, weight, **{"output": "mxfp8_e4m3", "scale": 1.0, "rounding": FLOAT, **options})


def binary_linear(net, **options):
    signs = np.array([[1.0, -1, 1], [-1, -1, 1]])
    x = net.input("x", BINARY.quantize(signs, scale=1.0))
    return net.linear("fc", x, BINARY.quantize(signs, scale=1.0), **options)


def binary_conv(net, x_format=BINARY, **options):
    signs = np.where(np.arange(32).reshape(1, 4, 4, 2) % 3, 1.0, -1.0)
    x = net.input("x", x_format.quantize(signs, scale=1.0))
    weight = BINARY.quantize(signs[:, :3, :3], scale=1.0)
    return net.conv2d("conv", x, weight, padding=1, rounding=None, **options)


def test_bias_of_floats_is_kept_as_float32_in_units_of_the_coarse_scales(tmp_path):
    net = TraceBuilder("mx")
    mx_linear(net, bias=[0.1, -3.0, 1e-30])
    net.save(tmp_path / "mx.npz")
    trace = load_trace(tmp_path / "mx.npz")
    trace.check_arrays()
    bias = trace.bias("fc")
    assert bias.dtype == np.float32
    assert bias.tolist() == [float(np.float32(0.1)), -3.0, float(np.float32(1e-30))]
    e4m3 = formats.get("fp8_e4m3")
    net = TraceBuilder("fp8")
    x = net.input("x", e4m3.quantize([[1.0, 2.0]], scale=0.5))
    net.linear("fc", x, e4m3.quantize([[1.0, 2.0]], scale=0.25), bias=[3.0], output="fp16", scale=1.0, rounding=FLOAT)
    assert net.build().bias("fc").tolist() == [24.0]  # 3 / (0.5 * 0.25)


def test_thresholds_make_codes_without_a_rounding_rule():
    net = TraceBuilder("bnn")
    binary_linear(net, output="uint2", scale=1.0, rounding=None, activation="threshold",
                  thresholds=[[-1, 0, 1], [-3, -3, 2]])  # fmt: skip
    trace = net.build()
    trace.check_arrays()
    assert trace.thresholds("fc").tolist() == [[-1, 0, 1], [-3, -3, 2]]
    assert trace.requantization("fc") is None
    assert trace.output_factors("fc")[0] is UINT2


def test_padding_of_binary_inputs_may_stand_for_one():
    net = TraceBuilder("bnn")
    binary_conv(net, pad_value=1)
    assert net.build().layers[0].pad_value == 1


@pytest.mark.parametrize(
    ("add", "sentence"),
    [
        (
            lambda net: binary_conv(net, INT8, pad_value=-1),
            "pad_value=-1 is for binary inputs, which have no 0, but input 'x' is int8; use 0",
        ),
        (
            lambda net: mx_linear(net, rounding=None, output=None, scale=None),
            "operands in mxfp8_e4m3 are summed in floating point, but raw accumulators are integers; set rounding to "
            "'float32_half_even' and name the output's format",
        ),
        (
            lambda net: mx_linear(net, rounding="half_up"),
            "rounding 'half_up' makes integers of integers, but mxfp8_e4m3 needs 'float32_half_even'",
        ),
        (
            lambda net: binary_linear(net, output="binary", scale=1.0, rounding="half_up"),
            "rounding 'half_up' makes integers of integers, but binary needs 'float32_half_even'",
        ),
        (
            lambda net: binary_linear(net, output="uint2", scale=1.0, rounding=None, activation="threshold"),
            "activation 'threshold' needs thresholds, integers [channels, codes - 1]",
        ),
        (
            lambda net: binary_linear(
                net, output="uint2", scale=1.0, activation="threshold", thresholds=[[1, 2, 3]] * 2
            ),
            "thresholds make the codes; use rounding=None",
        ),
        (
            lambda net: binary_linear(net, output="uint2", scale=1.0, thresholds=[[1, 2, 3]] * 2),
            "thresholds are given, but activation is 'none'; use 'threshold'",
        ),
        (
            lambda net: binary_linear(
                net, output="uint2", scale=1.0, rounding=None, activation="threshold", thresholds=[[1, 2]] * 2
            ),
            "array 'layers/fc/thresholds' has shape (2, 2), but must have (2, 3) (3 ascending thresholds a channel of "
            "layer 'fc', one fewer than its output has codes)",
        ),
        (
            lambda net: mx_linear(net, bias=[1e39, 0, 0]),
            "layer 'fc': bias: bias 1e+39 of channel 0 is beyond float32 in units of its scale",
        ),
    ],
)
def test_refused_with_one_sentence(add, sentence):
    with pytest.raises(TraceError) as raised:
        add(TraceBuilder("bad"))
    assert sentence in str(raised.value)


def test_descending_thresholds_are_refused():
    net = TraceBuilder("bnn")
    with pytest.raises(TraceError, match="the thresholds of channel 1 do not ascend"):
        binary_linear(net, output="uint2", scale=1.0, rounding=None, activation="threshold",
                      thresholds=[[-1, 0, 1], [3, 2, 2]])  # fmt: skip


def test_a_plain_float_operand_may_meet_blocks_but_vsq_may_not():
    net = TraceBuilder("mixed")
    x = net.input("x", formats.get("bf16").quantize(np.ones((2, 32)), scale=1.0))
    net.linear("fc", x, formats.get("mxfp4").quantize(np.ones((3, 32))), output="bf16", scale=1.0, rounding=FLOAT)
    net = TraceBuilder("mixed")
    x = net.input("x", formats.get("bf16").quantize(np.ones((2, 32)), scale=1.0))
    with pytest.raises(TraceError, match="operands have blocks of one size both, or none"):
        net.linear("fc", x, formats.get("vsq4").quantize(np.ones((3, 32))), output="bf16", scale=1.0, rounding=FLOAT)
