"""Binary tensors: signs, scales, chance, and layers that run in them."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from accelsim import TraceBuilder, formats, simulate
from accelsim.config.model import Array, HardwareConfig, Port, Ppu, Register
from accelsim.errors import FormatError, ShapeError, UnsupportedLayerError
from accelsim.formats.spec import Format

BINARY = formats.get("binary")
# The weight matrix of the lecture on binarization (MIT 6.5940, lecture 6).
W = np.array([[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12], [-0.91, 1.92, 0, -1.03], [1.87, 0, 1.53, 1.49]])
SIGNS = [[1, -1, 1, 1], [1, -1, -1, 1], [-1, 1, 1, -1], [1, 1, 1, 1]]
tensors = arrays(np.float64, array_shapes(min_dims=1, max_dims=4, max_side=5), elements=st.floats(-1e6, 1e6))


def test_the_format():
    assert isinstance(BINARY, Format)
    assert (BINARY.low, BINARY.high, BINARY.lane_bits) == (-1, 1, 1)
    assert (BINARY.code_low, BINARY.code_high, BINARY.code_bits) == (0, 1, 1)
    assert (BINARY.bits_per_element, BINARY.blocks, BINARY.zero_points) == (1.0, None, (0, 0))
    tensor = formats.make_qtensor([0, 1, 1], BINARY, 0.25)
    assert tensor.lanes().values.tolist() == [-1, 1, 1]
    assert tensor.lanes().values.dtype == np.int32
    assert tensor.dequantize().tolist() == [-0.25, 0.25, 0.25]
    assert BINARY.quantize(np.ones((3, 7))).size_bits == 21


def test_the_two_bit_conventions_mean_the_same_values():
    # FINN: 1 is +1. Larq Compute Engine: 1 is -1 (the sign bit). Same signs, complementary bits, same lanes.
    inverse = formats.get("binary_inv")
    assert (BINARY.plus_code, inverse.plus_code) == (1, 0)
    assert isinstance(inverse, Format)
    assert inverse != BINARY
    tensor = formats.make_qtensor([0, 1, 1], inverse, 0.25)
    assert tensor.lanes().values.tolist() == [1, -1, -1]
    assert tensor.dequantize().tolist() == [0.25, -0.25, -0.25]
    x = np.array([[0.5, -0.5, 0.0], [-0.0, 3.0, -1.0]])
    first, second = BINARY.quantize(x, 0), inverse.quantize(x, 0)
    assert first.codes.tolist() == [[1, 0, 1], [1, 1, 0]]
    assert second.codes.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert second.scale.tolist() == first.scale.tolist()
    assert second.dequantize().tolist() == first.dequantize().tolist()
    draws = [kind.quantize(x, scale=2.0, generator=np.random.default_rng(5)) for kind in (BINARY, inverse)]
    assert draws[0].dequantize().tolist() == draws[1].dequantize().tolist()
    # Both count equal bits: XNOR and popcount see no difference, whichever one convention both operands have.
    w, a = [1, 0, 1, 0], [1, 1, 0, 1]
    signs = [formats.make_qtensor(bits, inverse).lanes().values for bits in (w, a)]
    assert int(signs[0] @ signs[1]) == -4 + 2 * sum(i == j for i, j in zip(w, a, strict=True)) == -2


def test_errors_of_the_lecture():
    # Printed, as sums of squares: 9.28 for the signs alone, 9.24 with the scale 1.05. By hand: |W| sums to 16.78, W^2
    # to 26.8432; 26.8432 - 2 * 16.78 + 16 = 9.2832 without a scale, 26.8432 - 16.78^2 / 16 = 9.245175 with the scale
    # 16.78 / 16 = 1.04875. (The lecture cuts the last digits off; rounded, it would be 9.25.)
    alone = BINARY.quantize(W, scaling="none")
    assert alone.scale == 1.0
    assert alone.lanes().values.tolist() == SIGNS
    assert round(float(((W - alone.dequantize()) ** 2).sum()), 2) == 9.28
    scaled = BINARY.quantize(W)
    assert float(scaled.scale) == pytest.approx(1.04875, rel=1e-15)
    assert scaled.lanes().values.tolist() == SIGNS
    error = float(((W - scaled.dequantize()) ** 2).sum())
    assert error == pytest.approx(9.245175, rel=1e-12)
    assert math.floor(error * 100) == 924


def test_product_of_signs_of_the_lecture():
    # 1*1 + (-1)*1 + 1*(-1) + (-1)*1 = -2; as bits, -4 + 2 popcount(1010 xnor 1101) = -4 + 2 = -2.
    w, x = formats.make_qtensor([1, 0, 1, 0], BINARY), formats.make_qtensor([1, 1, 0, 1], BINARY)
    assert int(w.lanes().values @ x.lanes().values) == -2
    assert -4 + 2 * int((w.codes == x.codes).sum()) == -2


@pytest.mark.parametrize(
    ("x", "code"), [(0.0, 1), (-0.0, 1), (5e-324, 1), (-5e-324, 0), (1.0, 1), (-1.0, 0), (-1.7e308, 0)]
)
def test_signs(x, code):
    assert BINARY.quantize(x, scale=1.0).codes == code


@given(tensors, st.data())
def test_scales_and_signs_equal_exact_ones(x, data):
    # Each channel by itself, in rationals: the exact sum of magnitudes, rounded; divided by the count, rounded.
    axis = data.draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1)))
    rows = [x] if axis is None else [x.take(i, axis) for i in range(x.shape[axis])]
    sums = [sum(Fraction(abs(value)) for value in row.ravel().tolist()) for row in rows]
    if not all(sums):
        with pytest.raises(FormatError, match="are 0, so that their mean magnitude is no scale"):
            BINARY.quantize(x, axis)
        return
    expected = [max(float(total) / row.size, 2.0**-1022) for total, row in zip(sums, rows, strict=True)]
    tensor = BINARY.quantize(x, axis)
    assert tensor.scale.tolist() == (expected[0] if axis is None else expected)
    assert tensor.codes.ravel().tolist() == [int(value >= 0) for value in x.ravel().tolist()]
    values = tensor.dequantize()
    for row, scale in zip([values] if axis is None else np.moveaxis(values, axis, 0), expected, strict=True):
        assert set(np.abs(row).ravel().tolist()) == {scale}
    again = BINARY.quantize(values, axis, scale=tensor.scale)
    assert again.codes.tolist() == tensor.codes.tolist()
    assert BINARY.quantize(x, channel_axis=axis).scale.tolist() == tensor.scale.tolist()


def test_the_mean_depends_on_no_order_and_bears_the_largest_doubles():
    x = np.array([1e16, 1.0, 1.0, 1.0, 1e16, 1.0])  # a running sum would lose ones
    assert BINARY.quantize(x).scale == BINARY.quantize(x[::-1]).scale == (2e16 + 4) / 6
    largest = np.finfo(np.float64).max
    assert BINARY.quantize([largest, -largest]).scale == largest
    assert BINARY.quantize([5e-324, 0.0]).scale == 2.0**-1022


def test_chance_is_reproducible_and_follows_the_hard_sigmoid():
    x = np.full(20_000, 0.5)
    first = BINARY.quantize(x, scaling="none", generator=np.random.default_rng(7))
    assert first.codes.tolist() == BINARY.quantize(x, scaling="none", generator=np.random.default_rng(7)).codes.tolist()
    assert first.codes.tolist() != BINARY.quantize(x, scaling="none", generator=np.random.default_rng(8)).codes.tolist()
    # p = (0.5 + 1) / 2; 5 standard deviations of 20 000 draws are 5 sqrt(0.75 * 0.25 / 20000) = 0.0153.
    assert abs(first.codes.mean() - 0.75) < 0.0153
    # With scale 2: p = (0.25 + 1) / 2, and the mean of the values is x again.
    scaled = BINARY.quantize(x, scale=2.0, generator=np.random.default_rng(7))
    assert abs(scaled.codes.mean() - 0.625) < 0.0172
    assert abs(scaled.dequantize().mean() - 0.5) < 0.0685


def test_chance_draw_by_draw():
    x = np.random.default_rng(0).normal(size=(3, 5, 2))
    draws = np.random.default_rng(3).random(x.size)
    tensor = BINARY.quantize(x, 1, generator=np.random.default_rng(3))
    scale = np.broadcast_to(tensor.scale[None, :, None], x.shape).ravel()
    expected = [
        int(draw < min(max((value / s + 1) / 2, 0), 1)) for draw, value, s in zip(draws, x.ravel(), scale, strict=True)
    ]
    assert tensor.codes.ravel().tolist() == expected
    # Beyond +-scale nothing is left to chance.
    sure = BINARY.quantize([3.0, -3.0] * 500, scale=3.0, generator=np.random.default_rng(1))
    assert sure.codes.tolist() == [1, 0] * 500


@pytest.mark.parametrize(
    ("x", "arguments", "kind", "message"),
    [
        (
            [[1.0, np.nan], [np.inf, 0]],
            {},
            FormatError,
            "cannot quantize: 2 of 4 values are NaN or infinite, the first is nan at index (0, 1); "
            "replace or clip them first",
        ),
        ([], {}, ShapeError, "cannot quantize an array of shape (0,): it has no elements"),
        (
            [0.0, -0.0],
            {},
            FormatError,
            "binary: all values are 0, so that their mean magnitude is no scale, and +1 and -1 cannot stand for 0; "
            "pass scale, or scaling='none'",
        ),
        (
            [[1.0, 2.0], [0.0, 0.0]],
            {"axis": 0},
            FormatError,
            "binary: all values of channel 1 are 0, so that their mean magnitude is no scale, and +1 and -1 cannot "
            "stand for 0; pass scale, or scaling='none'",
        ),
        ([1.0], {"scaling": "max"}, FormatError, "scaling='max' is not one of 'mean', 'none'"),
        (
            [1.0],
            {"generator": 7},
            FormatError,
            "generator is a int; pass a numpy.random.Generator, or None",
        ),
        (
            [1.0],
            {"asymmetric": True},
            FormatError,
            "binary has no zero points; leave out zero_point and asymmetric",
        ),
        ([1.0], {"zero_point": 1}, FormatError, "binary has no zero points; leave out zero_point and asymmetric"),
        ([1.0], {"scale": 0.0}, FormatError, "quantize: scale is 0.0; scales are finite and greater than 0"),
    ],
)
def test_bad_input(x, arguments, kind, message):
    with pytest.raises(kind) as caught:
        BINARY.quantize(x, **arguments)
    assert str(caught.value) == message


def test_minus_one_is_no_code():
    with pytest.raises(FormatError) as caught:
        formats.make_qtensor([1, -1], BINARY)
    assert str(caught.value) == "tensor: code -1 at index (1) is outside binary's range [0, 1]"


# -- on the hardware of integers


def machine(dataflow="ws", weight_bits=2, activation_bits=8, sign="either"):
    return HardwareConfig(
        name="test",
        clock_mhz=500.0,
        array=Array(
            rows=4,
            cols=3,
            dataflow=dataflow,
            lanes=2,
            weight=Port(bits=weight_bits, sign=sign),
            activation=Port(bits=activation_bits),
            psum=Register(bits=32),
        ),
        accumulator=Register(bits=32),
        ppu=Ppu(rounding="half_up"),
    )


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@pytest.mark.parametrize("engine", ["fast", "stepped"])
def test_binary_weights_with_int8_activations(dataflow, engine, tmp_path):
    rng = np.random.default_rng(5)
    x = formats.get("int8").quantize(rng.normal(size=(2, 5, 5, 3)), asymmetric=True)
    conv = BINARY.quantize(rng.normal(size=(4, 3, 3, 3)), axis=0)
    fc = BINARY.quantize(rng.normal(size=(6, 5 * 5 * 4)))
    net = TraceBuilder("bwn")
    y = net.conv2d("conv", net.input("x", x), conv, bias=rng.normal(size=4), output="uint8", scale=0.05, padding="same")
    net.linear("fc", y, fc, rounding=None, flatten=True)
    from accelsim import load_trace

    report = simulate(machine(dataflow), load_trace(net.save(tmp_path / "bwn.npz")), engine, verify=True)
    assert [layer.verified for layer in report.layers] == [0, 0]
    assert [layer.weight_format for layer in report.layers] == ["binary", "binary"]
    # The second layer again, by additions and subtractions of activations: no products.
    codes = report.layers[0].output_codes.reshape(2, -1).astype(int)
    for image in range(2):
        for out in range(6):
            added = sum(int(c) if bit else -int(c) for c, bit in zip(codes[image], fc.codes[out], strict=True))
            assert report.layers[1].output_codes[image, out] == added


def test_binary_times_binary_with_zero_padding():
    # An edge that is padded with zeros adds nothing: neither +1 nor -1 is put there.
    rng = np.random.default_rng(6)
    x = BINARY.quantize(rng.normal(size=(1, 4, 3, 2)), scaling="none")
    w = BINARY.quantize(rng.normal(size=(3, 3, 3, 2)), scaling="none")
    net = TraceBuilder("xnor")
    net.conv2d("conv", net.input("x", x), w, rounding=None, padding="same")
    report = simulate(machine(activation_bits=2), net.build(), verify=True)
    assert report.layers[0].verified == 0
    padded = np.pad(x.dequantize(), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((1, 4, 3, 3))
    for i in range(3):
        for j in range(3):
            expected += np.einsum("bhwc,oc->bhwo", padded[:, i : i + 4, j : j + 3], w.dequantize()[:, i, j])
    assert report.layers[0].output_codes.tolist() == expected.tolist()
    assert math.prod(expected.shape) == 36


def test_unsigned_ports_are_refused():
    net = TraceBuilder("bwn")
    x = net.input("x", formats.get("int8").quantize(np.ones((1, 4))))
    net.linear("fc", x, BINARY.quantize(np.ones((2, 4))), rounding=None)
    with pytest.raises(UnsupportedLayerError) as caught:
        simulate(machine(sign="unsigned"), net.build())
    assert str(caught.value) == (
        "layer 'fc' needs weights in binary (-1..1), but the configuration 'test' has unsigned 2-bit weight ports; set "
        "array.weight.sign to 'either' or 'signed'"
    )


@pytest.mark.parametrize("name", ["binary", "binary_inv"])
def test_layers_chain_in_signs_of_either_convention(name):
    # The PPU emits +1 where the accumulator is not negative; which bit that is, the format says.
    kind = formats.get(name)
    rng = np.random.default_rng(8)
    net = TraceBuilder("bnn")
    x, w = formats.get("int8").quantize(rng.normal(size=(5, 9))), BINARY.quantize(rng.normal(size=(6, 9)))
    v = kind.quantize(rng.normal(size=(3, 6)))
    y = net.linear("first", net.input("x", x), w, output=name, scale=1.0, rounding="float32_half_even")
    net.linear("second", y, v, output="int8", scale=1.0, rounding="half_up")
    report = simulate(machine(), net.build(), verify=True)
    assert [layer.verified for layer in report.layers] == [0, 0]
    signs = x.codes @ w.lanes().values.T >= 0
    assert report.layers[0].output_codes.tolist() == (signs == (name == "binary")).astype(int).tolist()
    scale = float(v.scale)
    expected = np.floor((2 * signs - 1) @ v.lanes().values.T * scale + 0.5)
    assert report.layers[1].output_codes.tolist() == expected.tolist()
