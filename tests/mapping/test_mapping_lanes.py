"""Lowered operands mean what the tensors mean: their exact sum of products is that of the dequantized values."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from accelsim import formats
from accelsim.config.model import (
    Array,
    Codebook,
    FloatUnit,
    HardwareConfig,
    Multiplier,
    Popcount,
    Port,
    Register,
    ScaleUnit,
)
from accelsim.errors import ShapeError, UnsupportedLayerError
from accelsim.mapping.lower import lower
from accelsim.mapping.padding import padding_correction
from accelsim.ppu.padding import subtract_padding
from accelsim.trace.schema import Conv2dMeta, LinearMeta, MatmulMeta

LINEAR = LinearMeta(name="fc", input="x", output="y", weight="w")
FLOATS = [name for name in formats.names() if formats.get(name).datapath in ("float", "block_float")]
OPERANDS = [name for name in formats.names() if formats.get(name).datapath != "codebook"]


def machine(align_bits=None, accumulate="float32", kind="parallel", lanes=1, zero_padding="correct"):
    floating = kind == "parallel"
    register = Register(bits=32, overflow="saturate")
    return HardwareConfig(
        name="everything",
        clock_mhz=1.0,
        array=Array(
            rows=4,
            cols=4,
            dataflow="os",
            lanes=lanes,
            weight=Port(bits=16),
            activation=Port(bits=16),
            psum=register,
            multiplier=Multiplier(kind=kind),
            scale_unit=ScaleUnit(weight_scale_bits=12, activation_scale_bits=12) if floating else None,
            float_unit=FloatUnit(accumulate=accumulate, align_bits=align_bits) if floating else None,
            popcount=Popcount(zero_padding=zero_padding),
            codebook=Codebook(index_bits=8),
        ),
        accumulator=register,
    )


def reals(shape, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape) * 2.0 ** rng.integers(-6, 6, shape)
    values[rng.random(shape) < 0.2] = 0
    values.flat[0] = 1.5  # some quantizers need one number that is not 0
    return values


def quantized(name, shape, seed, channel_axis=None):
    form = formats.get(name)
    if form.blocks is not None:
        return form.quantize(reals(shape, seed), -1)
    if form.datapath == "codebook":
        return form.quantize(reals(shape, seed))
    return form.quantize(reals(shape, seed), channel_axis=channel_axis)


def exact(array):
    return np.vectorize(lambda value: Fraction(float(value)), otypes=[object])(array)


def product_of(operands):
    """The sum of all products of GEMM 0, exact, from the lowered operands alone."""
    a, w = operands.a[0].astype(object), operands.w[0].astype(object)
    if operands.a_exponents is not None:
        a = a * np.vectorize(lambda e: Fraction(2) ** int(e), otypes=[object])(operands.a_exponents[0])
        w = w * np.vectorize(lambda e: Fraction(2) ** int(e), otypes=[object])(operands.w_exponents[0])
    blocks = operands.blocks
    if blocks is not None:
        for side, scales, exponents, axis in (
            ("a", blocks.a_scales[0], blocks.a_exponents, 1),
            ("w", blocks.w_scales[0], blocks.w_exponents, 0),
        ):
            factor = scales.astype(object)
            if exponents is not None:
                factor = factor * np.vectorize(lambda e: Fraction(2) ** int(e), otypes=[object])(exponents[0])
            spread = np.repeat(factor, blocks.size, axis=axis)
            a, w = (a * spread, w) if side == "a" else (a, w * spread)
    return (a @ w) * Fraction(2) ** operands.summation.unit_exponent


def coarse(x, weight):
    return exact(np.broadcast_to(x.scale * weight.scale, (weight.shape[0],)))


@pytest.mark.parametrize("align_bits", [None, 24])
@pytest.mark.parametrize("name", OPERANDS)
def test_a_linear_layer_means_the_product_of_the_values(name, align_bits):
    form = formats.get(name)
    x, weight = quantized(name, (3, 37), 1), quantized(name, (2, 37), 2)
    wide = form.exponent_range[1] - form.exponent_range[0] > 20
    if wide and align_bits is None:
        with pytest.raises(UnsupportedLayerError, match=r"set array\.float_unit\.align_bits"):
            lower(LINEAR, x, weight, None, machine())
        return
    operands = lower(LINEAR, x, weight, None, machine(align_bits)).operands
    want = exact(x.dequantize()) @ exact(weight.dequantize()).T
    if form.datapath == "block_integer":  # gamma is not a power of two: dequantized values are rounded
        got = product_of(operands) * coarse(x, weight)
        np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=1e-12, atol=1e-300)
        return
    if name.startswith("q"):  # the format's own scale, a power of two
        assert (product_of(operands) * coarse(x, weight) == want).all()
        return
    lanes_x, lanes_w = (replace(tensor, scale=np.ones(())) for tensor in (x, weight))
    want = exact(lanes_x.dequantize()) @ exact(lanes_w.dequantize()).T  # coarse scales apart
    assert (product_of(operands) == want).all()


@given(st.sampled_from(FLOATS), st.sampled_from(["int8", *FLOATS]), st.integers(0, 1000), st.booleans())
def test_floats_meet_integers_and_other_floats(x_name, w_name, seed, aligned):
    x, w = formats.get(x_name), formats.get(w_name)
    assume(x.blocks is None or w.blocks is None or x.blocks.size == w.blocks.size)
    rng = np.random.default_rng(seed)
    shape = (2, int(rng.integers(1, 70)))
    x_tensor, w_tensor = (
        form.quantize(reals((n, shape[1]), seed + n), -1 if form.blocks else None, scale=1.0)
        for n, form in ((2, x), (3, w))
    )
    wide = {"fp8_e5m2", "mxfp8_e5m2", "fp16", "bf16"}
    if not aligned and {x_name, w_name} & wide:
        with pytest.raises(UnsupportedLayerError, match="align_bits"):
            lower(LINEAR, x_tensor, w_tensor, None, machine())
        return
    operands = lower(LINEAR, x_tensor, w_tensor, None, machine(20 if aligned else None)).operands
    assert (product_of(operands) == exact(x_tensor.dequantize()) @ exact(w_tensor.dequantize()).T).all()
    assert operands.k_valid.sum() == shape[1]


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "nvfp4", "mx6", "fp8_e4m3"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_is_its_taps(name, groups):
    """Every output of the lowered GEMM, against the sum over taps of dequantized pixels; ragged channels."""
    form = formats.get(name)
    channels = 32 * groups if form.blocks is not None and groups > 1 else 20 * groups
    layer = Conv2dMeta(name="c", input="x", output="y", weight="w", stride=(2, 1), padding=((1, 0), (0, 2)),
                       dilation=(1, 2), groups=groups)  # fmt: skip
    axis = {"scale": 1.0}
    x = form.quantize(reals((2, 4, 5, channels), 3), -1 if form.blocks else None, **axis)
    weight = form.quantize(reals((2 * groups, 2, 2, channels // groups), 4), -1 if form.blocks else None, **axis)
    lowered = lower(layer, x, weight, None, machine())
    pixels, taps = exact(x.dequantize()), exact(weight.dequantize())
    _, out_h, out_w, _ = lowered.output_shape
    for g in range(groups):
        single = lowered.operands
        view = type(single)(**{
            **{name: getattr(single, name) for name in single.__dataclass_fields__},
            "a": single.a[g : g + 1], "w": single.w[g : g + 1],
            "blocks": None if single.blocks is None else type(single.blocks)(**{
                **{n: getattr(single.blocks, n) for n in single.blocks.__dataclass_fields__},
                **{n: getattr(single.blocks, n)[g : g + 1]
                   for n in ("a_scales", "w_scales", "a_exponents", "w_exponents")}}),
        })  # fmt: skip
        found = product_of(view).reshape(2, out_h, out_w, 2)
        seen = slice(g * channels // groups, (g + 1) * channels // groups)
        for b, i, j, o in np.ndindex(found.shape):
            total = Fraction(0)
            for u, v in np.ndindex(2, 2):
                row, col = 2 * i + u - 1, j + 2 * v
                if 0 <= row < 4 and 0 <= col < 5:
                    total += (pixels[b, row, col, seen] * taps[2 * g + o, u, v]).sum()
            assert found[b, i, j, o] == total


def test_a_product_of_two_float_activations():
    form = formats.get("mxfp8_e4m3")
    layer = MatmulMeta(name="qk", input="x", output="y", other="z")
    x, other = form.quantize(reals((2, 3, 40), 5), -1), form.quantize(reals((2, 40, 4), 6), 1)
    operands = lower(layer, x, other, None, machine()).operands
    assert (product_of(operands) == exact(x.dequantize())[0] @ exact(other.dequantize())[0]).all()


def test_bias_in_the_units_of_the_sums():
    form = formats.get("mxint8")
    x, weight = form.quantize(np.ones((1, 32))), form.quantize(np.ones((2, 32)))
    bias = np.array([0.1, -2.5], np.float32)
    assert lower(LINEAR, x, weight, bias, machine()).operands.bias.tolist() == [bias.tolist()]
    fixed = lower(LINEAR, x, weight, bias, machine(accumulate="fixed"))
    assert fixed.operands.bias.dtype == np.int64
    assert fixed.operands.bias.tolist() == [[6554, -163840]]  # 0.1 * 65536 = 6553.6, -2.5 * 65536
    with pytest.raises(UnsupportedLayerError, match="use a smaller"):
        lower(LINEAR, x, weight, np.array([1e30, 0], np.float32), machine(accumulate="fixed"))
    with pytest.raises(ShapeError, match="must be float32"):
        lower(LINEAR, x, weight, np.array([1, 2]), machine())


@pytest.mark.parametrize(
    ("w_name", "options", "sentence"),
    [
        ("int8", {"kind": "shift"}, "which multiplies by powers of two only; quantize the weights to po2_4, ternary"),
        ("kmeans4", {"kind": "shift"}, "which multiplies by powers of two only"),
    ],
)
def test_what_a_shifter_cannot_do(w_name, options, sentence):
    x = quantized("int8", (1, 8), 1)
    with pytest.raises(UnsupportedLayerError, match=sentence):
        lower(LINEAR, x, quantized(w_name, (2, 8), 2), None, machine(**options))


def test_codebooks_are_for_weights():
    with pytest.raises(UnsupportedLayerError, match="only weights can be looked up"):
        lower(LINEAR, quantized("kmeans4", (1, 8), 1), quantized("int8", (2, 8), 2), None, machine())


@pytest.mark.parametrize("w_name", ["po2_4", "ternary", "binary"])
def test_powers_of_two_are_shifted(w_name):
    x = quantized("int8", (1, 8), 1)
    operands = lower(LINEAR, x, quantized(w_name, (2, 8), 2), None, machine(kind="shift")).operands
    assert operands.product == "shift"


def test_words_without_a_zero_can_refuse_to_pad():
    form = formats.get("binary")
    layer = Conv2dMeta(name="c", input="x", output="y", weight="w", padding=((1, 1), (1, 1)))
    x, weight = form.quantize(np.ones((1, 3, 3, 2)), scale=1.0), form.quantize(np.ones((1, 3, 3, 2)), scale=1.0)
    with pytest.raises(UnsupportedLayerError, match=r"pad with ones \(pad_value: 1 or -1\)"):
        lower(layer, x, weight, None, machine(zero_padding="refuse"))
    one = layer.model_copy(update={"pad_value": 1})
    assert lower(one, x, weight, None, machine(zero_padding="refuse")).padding is None


@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.integers(1, 2),
    st.integers(1, 2),
    st.sampled_from([1, 2]),
    st.sampled_from([1, -1]),
)
def test_padding_is_taken_off_tap_by_tap(seed, top_bottom, left_right, stride, dilation, groups, bit):
    rng = np.random.default_rng(seed)
    height, width, kernel = (int(n) for n in rng.integers(3, 6, 3))
    assume(dilation * (kernel - 1) < min(height + sum(top_bottom), width + sum(left_right)))
    layer = Conv2dMeta(name="c", input="x", output="y", weight="w", stride=(stride, stride),
                       padding=(top_bottom, left_right), dilation=(dilation, dilation), groups=groups)  # fmt: skip
    weight = rng.choice([-1, 1], (2 * groups, kernel, kernel, 3)).astype(np.int32)
    found = padding_correction(layer, (2, height, width, 3 * groups), weight, bit)
    if not any((*top_bottom, *left_right)):
        assert found is None
        return
    out_h = (height + sum(top_bottom) - dilation * (kernel - 1) - 1) // stride + 1
    out_w = (width + sum(left_right) - dilation * (kernel - 1) - 1) // stride + 1
    found = found.reshape(groups, 2, out_h, out_w, 2)
    for g, b, i, j, o in np.ndindex(found.shape):
        total = 0
        for u, v in np.ndindex(kernel, kernel):
            row, col = i * stride + u * dilation - top_bottom[0], j * stride + v * dilation - left_right[0]
            if not (0 <= row < height and 0 <= col < width):
                total += bit * int(weight[2 * g + o, u, v].sum())
        assert found[g, b, i, j, o] == total


def test_padding_is_subtracted_in_registers_of_the_accumulators_width():
    acc, padding = np.array([[[127, -128], [5, 6]]]), np.array([[[-1, 3], [0, 0]]])
    wrapped = subtract_padding(acc, padding, acc_bits=8, overflow="wrap", k=9)
    assert wrapped.acc.tolist() == [[[-128, 125], [5, 6]]]
    assert (wrapped.watch.overflows, wrapped.watch.first.value, wrapped.watch.first.k) == (2, 128, 9)
    assert (wrapped.watch.low, wrapped.watch.high) == (-131, 128)
    saturated = subtract_padding(acc, padding, acc_bits=8, overflow="saturate", k=9)
    assert saturated.acc.tolist() == [[[127, -128], [5, 6]]]
    assert [count for _, count in saturated.actions.items()] == [2]  # only the row at the border is touched
