"""The direct reference where the multiplier decides what a lane step holds: words of bits, fused and serial lanes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_cases import machine
from numpy.testing import assert_array_equal

from accelsim import formats
from accelsim.config.model import Array, Codebook, HardwareConfig, Multiplier, Popcount, Port, Register
from accelsim.engine import oracle
from accelsim.mapping.contract import GemmOperands
from accelsim.mapping.direct import direct_accumulators
from accelsim.mapping.plan import plan_operands
from accelsim.trace.schema import Conv2dMeta, LinearMeta, MatmulMeta

FC = LinearMeta(name="fc", input="x", output="y", weight="w")
BINARY = formats.get("binary")


def signs(values):
    return formats.make_qtensor((np.array(values) > 0).astype(np.int32), BINARY, 1.0)


def popcount_machine(word_bits=32, **options):
    return machine(popcount=Popcount(word_bits=word_bits), **options)


# -- XNOR-popcount ----------------------------------------------------------------------------------------------------


def test_a_product_of_signs():
    """Four bits against four, two of them alike: -4 + 2 * 1 = -2 where one is alike, -4 + 2 * 2 = 0 where two are."""
    x = signs([[1, -1, 1, 1]])
    w = signs([[-1, 1, 1, -1], [1, -1, -1, -1]])
    for config in (popcount_machine(), machine()):
        assert direct_accumulators(FC, x, w, None, config).tolist() == [[-2, 0]]


def test_words_are_the_groups_of_a_saturating_psum():
    """160 ones, then 32 minus ones, psum of 8 bits: words of 32 stop at 127 and end at 95; words of 64 add 64, 64
    (127), 0; 256 bits at once are 128, of which 127 is kept.
    """
    x, w = signs(np.ones((1, 192))), signs(np.concatenate([np.ones(160), -np.ones(32)])[None])
    ends = {}
    for word in (32, 64, 256):
        config = popcount_machine(word, psum=(8, "saturate"))
        ends[word] = direct_accumulators(FC, x, w, None, config).item()
    assert ends == {32: 127 - 32, 64: 127, 256: 127}


def test_folds_hold_rows_of_words():
    """ws, 1 row of 32 bits: each fold's psum starts empty; accumulators of 8 bits saturate at 127 and end at 95."""
    x, w = signs(np.ones((1, 192))), signs(np.concatenate([np.ones(160), -np.ones(32)])[None])
    config = popcount_machine(32, dataflow="ws", rows=1, psum=(8, "saturate"), acc=(8, "saturate"))
    assert direct_accumulators(FC, x, w, None, config).item() == 95


PADDED = {"name": "conv", "input": "x", "output": "y", "weight": "w", "padding": ((1, 1), (1, 1))}


@pytest.mark.parametrize(
    ("pad_value", "corner"),
    # One pixel of +1 under a 3 x 3 kernel: weights -1 in the upper row, +1 below. The centre sees 8 outside taps.
    # Output (1, 1): w[1, 1] = 1, and outside: three -1 and five +1: 2 in all.
    [(0, 1), (1, 3), (-1, -1)],
)
def test_what_padding_bits_stand_for(pad_value, corner):
    x = signs(np.ones((1, 1, 1, 1)))
    w = signs(np.array([[-1, -1, -1], [1, 1, 1], [1, 1, 1]]).reshape(1, 3, 3, 1))
    layer = Conv2dMeta(**PADDED, pad_value=pad_value)
    for config in (popcount_machine(), machine()):
        assert direct_accumulators(layer, x, w, None, config).tolist() == [[[[corner]]]]


def test_the_correction_is_an_addition_of_its_own_after_all_folds():
    """A column of 9 taps on a single pixel, bias 122, accumulators of 8 bits that saturate: the words see nine +1 at
    weights of +1, 131 -> 127; the border takes 8 of them back: 119. The honest sum is 123. Wrapping loses nothing.
    """
    x, w = signs(np.ones((1, 1, 1, 1))), signs(np.ones((1, 9, 1, 1)))
    layer = Conv2dMeta(name="conv", input="x", output="y", weight="w", padding=((4, 4), (0, 0)))
    bias = np.array([122])
    assert direct_accumulators(layer, x, w, bias, popcount_machine(acc=(8, "saturate"))).item() == 119
    assert direct_accumulators(layer, x, w, bias, popcount_machine(acc=(8, "wrap"))).item() == 123
    assert direct_accumulators(layer, x, w, bias, machine(acc=(8, "saturate"), lanes=16)).item() == 123


@st.composite
def binary_convolutions(draw):
    groups, channels, per_group = (
        draw(st.sampled_from([1, 2])),
        draw(st.sampled_from([1, 3, 17])),
        draw(st.integers(1, 2)),
    )
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    dilation = (draw(st.integers(1, 2)), 1)
    pad = st.tuples(st.integers(0, 2), st.integers(0, 2))
    layer = Conv2dMeta(
        name="conv", input="x", output="y", weight="w", groups=groups, dilation=dilation,
        stride=(draw(st.integers(1, 2)), 1), padding=(draw(pad), draw(pad)),
        pad_value=draw(st.sampled_from([-1, 0, 1])),
    )  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = signs(rng.choice([-1, 1], (2, 5, 3, groups * channels)))
    return layer, x, signs(rng.choice([-1, 1], (groups * per_group, *kernel, channels)))


@given(binary_convolutions(), st.sampled_from([32, 64]), st.sampled_from(["os", "ws", "is"]))
@settings(max_examples=60)
def test_words_give_what_multipliers_give(case, word, dataflow):
    """In wide registers; and multipliers, what the definition gives, output by output."""
    layer, x, w = case
    words = direct_accumulators(layer, x, w, None, popcount_machine(word, dataflow=dataflow))
    assert_array_equal(words, direct_accumulators(layer, x, w, None, machine(dataflow=dataflow)))
    images = np.pad(x.lanes().values, ((0, 0), *layer.padding, (0, 0)), constant_values=layer.pad_value)
    weights, channels = w.lanes().values, w.shape[3]
    expected = np.zeros_like(words)
    for b, oh, ow, n in np.ndindex(expected.shape):
        group = n // (w.shape[0] // layer.groups)
        top = oh * layer.stride[0]
        rows = slice(top, top + layer.dilation[0] * (w.shape[1] - 1) + 1, layer.dilation[0])
        seen = images[b, rows, ow : ow + w.shape[2], group * channels : (group + 1) * channels]
        expected[b, oh, ow, n] = (seen * weights[n]).sum()
    assert_array_equal(words, expected)


# -- the oracle on linear layers --------------------------------------------------------------------------------------

MULTIPLIERS = [
    Multiplier(kind="parallel"),
    Multiplier(kind="fusion"),
    Multiplier(kind="bit_serial"),
    Multiplier(kind="bit_serial", serial="weight"),
    Multiplier(kind="shift"),
]
OPERANDS = ["binary", "ternary", "int2", "uint3", "int4", "uint4", "int8", "int16", "po2_3", "po2_4", "kmeans3"]


def random_codes(rng, name, shape):
    form = formats.get(name)
    codes = rng.integers(form.code_low, form.code_high, shape, endpoint=True)
    if form.datapath == "codebook":
        table = rng.integers(form.low, form.high, form.code_high + 1, endpoint=True)
        return formats.make_qtensor(codes, form, 1.0, codebook=table)
    return formats.make_qtensor(codes, form, 1.0)


@st.composite
def stepped_layers(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x_name = draw(st.sampled_from(OPERANDS[:-1]))
    w_name = draw(st.sampled_from([*OPERANDS, x_name]))
    m, k, n = draw(st.integers(1, 2)), draw(st.sampled_from([1, 7, 33, 70])), draw(st.integers(1, 3))
    multiplier = draw(st.sampled_from(MULTIPLIERS))
    port = st.sampled_from([2, 4, 8, 16])
    narrow = st.tuples(st.sampled_from([8, 9, 12, 24]), st.sampled_from(["wrap", "saturate", "saturate"]))
    (psum_bits, psum_policy), (acc_bits, acc_policy) = draw(narrow), draw(narrow)
    config = HardwareConfig(
        name="test",
        clock_mhz=1,
        array=Array(
            rows=draw(st.integers(1, 3)),
            cols=2,
            lanes=draw(st.integers(1, 3)),
            dataflow=draw(st.sampled_from(["os", "ws", "is"])),
            activation=Port(bits=draw(port)),
            weight=Port(bits=draw(port)),
            psum=Register(bits=psum_bits, overflow=psum_policy),
            multiplier=multiplier,
            popcount=draw(st.none() | st.just(Popcount(word_bits=32))),
            codebook=Codebook(),
        ),
        accumulator=Register(bits=acc_bits, overflow=acc_policy),
    )
    bias = rng.integers(-300, 300, n) if draw(st.booleans()) else None
    return random_codes(rng, x_name, (m, k)), random_codes(rng, w_name, (n, k)), bias, config


@given(stepped_layers())
@settings(max_examples=300)
def test_linear_layers_are_the_oracles(case):
    x, weight, bias, config = case
    xnor = config.array.popcount is not None and x.format.name == weight.format.name == "binary"
    operands = GemmOperands(
        a=x.lanes().values[None],
        w=np.ascontiguousarray(weight.lanes().values.T)[None],
        bias=np.zeros((1, weight.shape[0]), np.int64) if bias is None else bias[None],
        k_valid=np.ones(x.shape[1], np.bool_),
        a_bits=x.format.lane_bits,
        w_bits=weight.format.lane_bits,
        product="xnor" if xnor else "multiply",
    )
    expected = oracle.matmul(operands, plan_operands(operands, config)).acc[0]
    assert_array_equal(direct_accumulators(FC, x, weight, bias, config), expected)


def test_fused_lanes_are_one_addition():
    """8-bit ports, 1 lane: four 2-bit operands a port fuse to 16 products. A psum of 8 bits takes 16 * 9 = 144 as one
    sum, 127, and then -16 * 9 as one, -17; one lane that multiplies alone stops at 127 and ends there less 144.
    """
    x, w = np.full((1, 32), 3), np.concatenate([np.full(16, 3), np.full(16, -3)])[None]
    x3, w3 = (formats.make_qtensor(v, formats.get("int3"), 1.0) for v in (x, w))
    x2, w2 = (formats.make_qtensor(v // 3, formats.get("int2"), 1.0) for v in (x, w))
    options = {"psum": (8, "saturate"), "ports": 8}
    fused, alone = machine(multiplier=Multiplier(kind="fusion"), scale_unit=None, **options), machine(**options)
    # int3 takes 4 bits: 2 x 2 lanes, 36 a step: 36, 72, 108, 127; then 91, 55, 19, -17.
    assert direct_accumulators(FC, x3, w3, None, fused).item() == -17
    # 9 a step: 126, 127, 127; then 16 steps down.
    assert direct_accumulators(FC, x3, w3, None, alone).item() == 127 - 144
    # int2: 16 lanes, of ones: nothing saturates.
    assert direct_accumulators(FC, x2, w2, None, fused).item() == 0


def test_products_of_two_binary_activations():
    layer = MatmulMeta(name="scores", input="x", output="y", other="z", transpose_other=True)
    rng = np.random.default_rng(1)
    x, z = rng.choice([-1, 1], (2, 3, 40)), rng.choice([-1, 1], (2, 4, 40))
    acc = direct_accumulators(layer, signs(x), signs(z), None, popcount_machine())
    assert_array_equal(acc, x @ z.swapaxes(1, 2))
