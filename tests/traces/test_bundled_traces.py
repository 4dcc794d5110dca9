"""The bundled traces hold what traces/README.md says, and their expected codes are right.

The codes are recomputed for some images in Python integers and exact fractions, straight from the definitions: nothing
is shared with traces/digits/reference.py, which made them, nor with accelsim's arithmetic.
"""

import math
import re
from fractions import Fraction

import numpy as np
import pytest

from accelsim import load_config, load_trace

TRACES = ("digits_cnn_int8", "digits_cnn_int4_vsq")
IMAGES = (0, 66, 229)  # in 66 and 229 rule R1 meets a negative tie, in 66 a vector scale is a tie
GUARD_BITS = 4  # of the unit that encodes VSQ outputs, configs/int4_vsq.yaml
HALF = Fraction(1, 2)


@pytest.fixture(scope="module", params=TRACES)
def trace(request, project_root):
    return load_trace(project_root / "traces" / f"{request.param}.npz")


@pytest.fixture(scope="module")
def stated(trace, project_root):
    """The row of the table in traces/README.md."""
    text = (project_root / "traces" / "README.md").read_text()
    row = re.search(
        rf"^\| `{trace.name}\.npz` \| (\d+) \| ([\d.]+) % \| ([\d.]+) % \| ([+-][\d.]+) points \| (\d+) kB \|$",
        text,
        re.M,
    )
    assert row is not None, f"traces/README.md has no row for {trace.name}"
    return dict(zip(("images", "float", "integer", "difference", "kilobytes"), map(float, row.groups()), strict=True))


def percent(logits, labels):
    return 100 * np.mean(np.argmax(logits, axis=1) == labels)


def logits_of(trace):
    return trace.expected(trace.layers[-1].output)


def test_every_array_is_sound(trace):
    trace.check_arrays()
    assert [layer.op for layer in trace.layers] == ["conv2d", "conv2d", "linear", "linear"]
    assert [layer.activation for layer in trace.layers] == ["relu", "relu", "relu", "none"]
    assert trace.meta.outputs == (trace.layers[-1].output,)
    for layer in trace.layers:
        assert trace.expected(layer.output) is not None
        assert trace.reference(layer.output) is not None
        assert trace.bias(layer) is not None


def test_the_description_states_the_convolutions(trace):
    """As in "conv 3x3 stride 2 1->16": kernel, stride (1 where unsaid), channels in and out, in order."""
    stated = re.findall(r"conv (\d)x(\d)(?: stride (\d))? (\d+)->(\d+)", trace.description)
    found = []
    for layer in trace.layers:
        if layer.op == "conv2d":
            outputs, height, width, inputs = trace.tensor_meta(layer.weight).shape
            assert layer.stride[0] == layer.stride[1]
            found.append((height, width, layer.stride[0], inputs, outputs))
    assert [tuple(int(number or 1) for number in row) for row in stated] == found != []


def test_the_readme_states_images_and_size(trace, stated):
    assert len(trace.labels) == stated["images"] >= 100
    assert set(trace.labels.tolist()) == set(range(10))
    size_bytes = trace.path.stat().st_size
    assert size_bytes < 500_000
    assert stated["kilobytes"] == pytest.approx(size_bytes / 1000, abs=5)  # another zlib packs a little differently


def test_the_readme_states_the_accuracies(trace, stated):
    real = percent(trace.reference(trace.layers[-1].output), trace.labels)
    integer = percent(logits_of(trace).codes, trace.labels)
    assert f"{real:.2f}" == f"{stated['float']:.2f}"
    assert f"{integer:.2f}" == f"{stated['integer']:.2f}"
    assert f"{integer - real:+.2f}" == f"{stated['difference']:+.2f}"
    assert real >= 97.5
    assert abs(integer - real) <= 2


def test_formats_of_the_int8_trace(project_root):
    trace = load_trace(project_root / "traces" / "digits_cnn_int8.npz")
    image = trace.tensor(trace.inputs[0])
    assert (image.format.name, int(image.zero_point)) == ("uint8", 80)  # 0.625 / (2 / 255) = 79.7
    outputs = [logits_of(trace) if i == 3 else trace.expected(layer.output) for i, layer in enumerate(trace.layers)]
    assert [output.format.name for output in outputs] == ["uint8", "int8", "uint8", "int8"]
    assert [int(output.zero_point) for output in outputs[:3]] == [0, -128, 0]
    assert int(outputs[3].zero_point) != 0
    for layer in trace.layers:
        weight = trace.tensor(layer.weight)
        assert (weight.format.name, weight.channel_axis, weight.scale.size) == ("int8", 0, weight.shape[0])
        assert not weight.zero_point.any()
        # Symmetric with a scale per channel: each channel's largest weight is 127 or -127, and -128 never occurs.
        assert (np.abs(weight.codes).reshape(weight.shape[0], -1).max(1) == 127).all()


def test_formats_of_the_vsq_trace(project_root):
    trace = load_trace(project_root / "traces" / "digits_cnn_int4_vsq.npz")
    assert trace.tensor(trace.inputs[0]).format.name == "vsq_int4_v16_s4"
    outputs = [trace.expected(layer.output) for layer in trace.layers]
    assert [output.format.name for output in outputs] == ["vsq_uint4_v16_s4"] * 3 + ["int8"]
    for layer in trace.layers:
        weight = trace.tensor(layer.weight)
        assert (weight.format.name, weight.channel_axis) == ("vsq_int4_v16_s4", 0)
        assert weight.block_axis == len(weight.shape) - 1
        # gamma per channel: the vector with the channel's largest weight has the full scale, 15
        assert (weight.block_scales.reshape(weight.shape[0], -1).max(1) == 15).all()


def test_the_vsq_codes_are_made_for_the_shipped_configuration(project_root):
    config = load_config(project_root / "configs" / "int4_vsq.yaml")
    assert config.ppu.vsq_guard_bits == GUARD_BITS
    assert config.ppu.vsq_scale_rounding == "nearest"
    assert config.ppu.rounding == "half_up"
    assert config.array.scale_unit.product_bits is None


def test_weights_and_biases_are_those_of_the_float_network(trace, project_root):
    with np.load(project_root / "traces" / "digits" / "weights.npz", allow_pickle=False) as stored:
        floats = {name: stored[name].astype(np.float64) for name in stored.files}
    input_scale = float(trace.tensor(trace.inputs[0]).scale)
    for layer in trace.layers:
        weight = trace.tensor(layer.weight)
        noise = weight.dequantize() - floats[f"{layer.name}/weight"]
        if weight.block_scales is None:  # nothing clamps: at most half a step away
            assert (np.abs(noise) <= 0.5001 * weight.per_channel(weight.scale)).all(), layer.name
        else:  # a vector's scale is at most half a gamma away, an element half a scaled step, and 7 steps may clamp
            blocks = np.repeat(weight.block_scales, 16, axis=-1)[..., : weight.shape[-1]]
            assert (np.abs(noise) <= weight.per_channel(weight.scale) * np.maximum(3.5, 0.5 * blocks) * 1.0001).all()
        unit = input_scale * weight.scale
        assert (np.abs(trace.bias(layer) * unit - floats[f"{layer.name}/bias"]) <= 0.5001 * unit).all(), layer.name
        output = trace.expected(layer.output)
        assert np.allclose(trace.requantization(layer).scale, unit / output.scale, rtol=1e-15, atol=0)
        input_scale = float(output.scale)


def test_codes_are_close_to_the_float_network(trace):
    """8 bits give some 35 dB and 4 bits with vector scales some 18 dB; a wrong scale or order gives about 0."""
    least = 28 if trace.name == "digits_cnn_int8" else 14
    for layer in trace.layers:
        real = trace.reference(layer.output)
        noise = trace.expected(layer.output).dequantize() - real
        assert 10 * math.log10(np.sum(real**2) / np.sum(noise**2)) > least, layer.name


@pytest.mark.parametrize("image", IMAGES)
def test_expected_codes_equal_python_integers(trace, image):
    x = trace.tensor(trace.inputs[0])
    codes, scales = x.codes[image].tolist(), None if x.block_scales is None else x.block_scales[image].tolist()
    zero_point = int(x.zero_point)
    for layer in trace.layers:
        acc = accumulators(trace, layer, codes, scales, zero_point)
        expected = trace.expected(layer.output)
        zero_point = int(expected.zero_point)
        codes, scales = outputs(trace, layer, acc, expected.format, zero_point)
        assert codes == expected.codes[image].tolist(), layer.name
        if expected.block_scales is not None:
            assert scales == expected.block_scales[image].tolist(), layer.name


def accumulators(trace, layer, codes, scales, zero_point):
    """One image through a layer's products: nested lists [height][width][out] or [out]."""
    weight, bias = trace.tensor(layer.weight), trace.bias(layer).tolist()
    w, ws = weight.codes.tolist(), None if weight.block_scales is None else weight.block_scales.tolist()
    if layer.op == "linear":
        if layer.flatten:
            codes, scales = flat(codes), None if scales is None else flat(scales)
        return [bias[o] + dot(codes, scales, zero_point, w[o], None if ws is None else ws[o]) for o in range(len(w))]
    (top, bottom), (left, right) = layer.padding
    height = (len(codes) + top + bottom - 3) // layer.stride[0] + 1
    width = (len(codes[0]) + left + right - 3) // layer.stride[1] + 1
    acc = [[list(bias) for _ in range(width)] for _ in range(height)]
    for row in range(height):
        for column in range(width):
            for o in range(len(w)):
                for i in range(3):
                    for j in range(3):
                        y, x = row * layer.stride[0] + i - top, column * layer.stride[1] + j - left
                        if 0 <= y < len(codes) and 0 <= x < len(codes[0]):
                            acc[row][column][o] += dot(
                                codes[y][x],
                                None if scales is None else scales[y][x],
                                zero_point,
                                w[o][i][j],
                                None if ws is None else ws[o][i][j],
                            )
    return acc


def flat(nested):
    return [value for row in nested for pixel in row for value in pixel]


def dot(codes, scales, zero_point, weights, weight_scales):
    if scales is None:
        return sum((a - zero_point) * b for a, b in zip(codes, weights, strict=True))
    return sum(
        a * scales[k // 16] * b * weight_scales[k // 16] for k, (a, b) in enumerate(zip(codes, weights, strict=True))
    )


def outputs(trace, layer, acc, number_format, zero_point):
    """Accumulators to (codes, vector scales or None), innermost lists are output channels."""
    if layer.op == "conv2d":
        pairs = [[channel_vector(trace, layer, pixel, number_format, zero_point) for pixel in row] for row in acc]
        codes = [[pair[0] for pair in row] for row in pairs]
        return codes, None if number_format.blocks is None else [[pair[1] for pair in row] for row in pairs]
    return channel_vector(trace, layer, acc, number_format, zero_point)


def channel_vector(trace, layer, acc, number_format, zero_point):
    factors = trace.requantization(layer)
    extra_bits = 0 if number_format.blocks is None else GUARD_BITS
    real = []
    for o, value in enumerate(acc):
        multiplier, shift = fixed_point(float(factors.scale[o]), extra_bits)
        if layer.rounding == "double_half_up_then_away":
            real.append(rounding_divide(saturating_doubling_high(value, multiplier), shift - 31))
        else:
            assert layer.rounding == "half_up"
            real.append(math.floor(Fraction(value * multiplier, 2**shift) + HALF))
    if number_format.blocks is None:
        low = zero_point if layer.activation == "relu" else number_format.low
        return [min(max(value + zero_point, low), number_format.high) for value in real], None
    codes, scales = [], []
    for start in range(0, len(real), 16):
        vector = [Fraction(max(value, 0), 2**GUARD_BITS) for value in real[start : start + 16]]
        scale = min(math.floor(max(vector) / 15 + HALF), 15)
        scales.append(scale)
        codes += [0 if scale == 0 else min(math.floor(value / scale + HALF), 15) for value in vector]
    return codes, scales


def fixed_point(scale, extra_bits):
    """scale * 2**extra_bits as multiplier / 2**shift, multiplier of 31 bits, halves up."""
    value, shift = Fraction(scale) * 2**extra_bits, 0
    while value < 2**30:
        value, shift = value * 2, shift + 1
    multiplier = math.floor(value + HALF)
    return (multiplier // 2, shift - 1) if multiplier == 2**31 else (multiplier, shift)


def saturating_doubling_high(a, b):
    """gemmlowp's high multiply: (a * b + nudge) / 2**31, truncated, nudge 2**30 or 1 - 2**30 by sign."""
    product = a * b
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    return nudged // 2**31 if nudged >= 0 else -(-nudged // 2**31)


def rounding_divide(x, exponent):
    """gemmlowp's rounding division by a power of two: ties away from zero, by mask and threshold."""
    mask = 2**exponent - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))
