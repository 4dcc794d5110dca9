"""The direct reference for operands with exponents: worked cases, and the engines' oracle on linear layers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_cases import machine
from numpy.testing import assert_array_equal

from accelsim import formats
from accelsim.config.model import FloatUnit
from accelsim.engine import oracle
from accelsim.formats.minifloat import BF16, E2M1, E2M3, E3M2, E4M3, E5M2, FP16, MinifloatFormat
from accelsim.formats.ocp_mx import INT8, OcpMxFormat
from accelsim.mapping.contract import BlockScaling, GemmOperands, Summation
from accelsim.mapping.direct import direct_accumulators
from accelsim.mapping.direct_float import LARGEST_FLOAT32, add_float32, add_product_sum, fixed_point
from accelsim.mapping.plan import plan_operands
from accelsim.trace.schema import Conv2dMeta, LinearMeta, MatmulMeta

FC = LinearMeta(name="fc", input="x", output="y", weight="w")


def float_machine(accumulate="float32", *, psum=None, acc=None, lanes=4, dataflow="os", rows=2, **unit):
    registers = {"psum": (32, "saturate"), "acc": (32, "saturate")} if accumulate == "float32" else {}
    if accumulate == "fixed":
        registers = {"psum": psum or (48, "wrap"), "acc": acc or (48, "wrap")}
    else:
        unit = {name: value for name, value in unit.items() if name == "align_bits"}  # the others are of fixed point
    return machine(
        dataflow, rows=rows, cols=2, lanes=lanes, float_unit=FloatUnit(accumulate=accumulate, **unit), **registers
    )


def plain(form, values):
    """Values, which the format holds exactly, as a tensor of scale 1."""
    tensor = formats.get(form).quantize(np.array(values, float), scale=1.0)
    assert_array_equal(tensor.dequantize(), values)
    return tensor


def dot(x, w, bias=None, **options):
    """The accumulator of one output, of bf16 vectors (or of others: `form`)."""
    form = options.pop("form", "bf16")
    config = float_machine(**options)
    real = None if bias is None else np.array([bias], np.float32)
    return direct_accumulators(FC, plain(form, [x]), plain(form, [w]), real, config)


# -- worked cases -----------------------------------------------------------------------------------------------------


def test_float32_rounds_once_an_addition():
    """1 + 2^-24 is a tie and goes to the even 1, twice; in one group 1 + 2^-24 + 2^-24 = 1 + 2^-23 is a float32."""
    x, w = [1.0, 2.0**-12, 2.0**-12], [1.0, 2.0**-12, 2.0**-12]
    one_by_one, at_once = dot(x, w, lanes=1), dot(x, w, lanes=4)
    assert one_by_one.dtype == np.float32
    assert one_by_one.tolist() == [[1.0]]
    assert at_once.tolist() == [[1.0 + 2.0**-23]]


def test_float32_folds_are_summed_by_themselves():
    """ws, 2 rows of 1 lane: (1 + 2^-24 -> 1) + (2^-24 + 2^-24 = 2^-23) = 1 + 2^-23; os adds one by one and keeps 1."""
    x, w = [1.0, 2.0**-12, 2.0**-12, 2.0**-12], [1.0, 2.0**-12, 2.0**-12, 2.0**-12]
    assert dot(x, w, lanes=1, dataflow="os").item() == 1.0
    assert dot(x, w, lanes=1, dataflow="ws", rows=2).item() == 1.0 + 2.0**-23


def test_float32_bias_comes_first():
    """The fold's psum, 2^-24, meets the bias 1: a tie, to even. With 1 + 2^-23 the even neighbour is 1 + 2^-22."""
    assert dot([2.0**-12], [2.0**-12], bias=1.0).item() == 1.0
    assert dot([2.0**-12], [2.0**-12], bias=1.0 + 2.0**-23).item() == 1.0 + 2.0**-22


def test_float32_saturates_at_the_largest_finite_number():
    """2^127 * 2 = 2^128 does not fit; the largest float32 less 2^127 is (2 - 2^-23 - 1) 2^127."""
    assert dot([2.0**127], [2.0]).item() == LARGEST_FLOAT32
    assert dot([2.0**127, -(2.0**64)], [2.0, 2.0**63], lanes=1).item() == (1 - 2.0**-23) * 2.0**127


def test_float32_subnormals_and_the_sign_of_zero():
    """2^-150 is half the smallest subnormal: to even, which is 0, and it has no sign; 3 * 2^-150 goes up to 2^-148."""
    tiny = dot([-(2.0**-75)], [2.0**-75])
    assert tiny.item() == 0.0
    assert not np.signbit(tiny).any()
    assert dot([3 * 2.0**-75], [2.0**-75]).item() == 2.0**-148


@pytest.mark.parametrize(
    ("rounding", "expected"),
    # In units of 1/4: products 2.5/4 and -2.5/4 -> 0.625 = 2.5 units, -2.5 units; and 1.75 units, -1.75 units.
    [
        ("truncate", [2, -3, 1, -2]),
        ("toward_zero", [2, -2, 1, -1]),
        ("half_even", [2, -2, 2, -2]),
    ],
)
def test_fixed_point_drops_bits_as_the_shifter_is_told(rounding, expected):
    x = plain("bf16", [[0.625], [-0.625], [0.4375], [-0.4375]])
    config = float_machine("fixed", fraction_bits=2, rounding=rounding)
    acc = direct_accumulators(FC, x, plain("bf16", [[1.0]]), None, config)
    assert acc.dtype == np.int64
    assert acc[:, 0].tolist() == expected


def test_fixed_point_rounds_every_group_and_the_bias_by_itself():
    """Units of 1, truncation: 0.5 -> 0 each, but together 1. The bias 2.5 is a tie and goes to the even 2."""
    assert dot([0.5, 0.5], [1.0, 1.0], accumulate="fixed", fraction_bits=0, lanes=1).item() == 0
    assert dot([0.5, 0.5], [1.0, 1.0], accumulate="fixed", fraction_bits=0, lanes=2).item() == 1
    for bias, expected in [(2.5, 2), (3.5, 4), (-2.5, -2)]:
        assert dot([0.0], [1.0], bias, accumulate="fixed", fraction_bits=0).item() == expected


def test_the_shifter_saturates_at_49_bits_before_the_psum():
    """2^60 in units of 1 becomes 2^48 - 1, of which a 16-bit psum that wraps keeps the low bits: -1."""
    wide = {"accumulate": "fixed", "fraction_bits": 0, "acc": (48, "saturate")}
    assert dot([2.0**30], [2.0**30], psum=(16, "wrap"), **wide).item() == -1
    assert dot([2.0**30], [2.0**30], psum=(16, "saturate"), **wide).item() == 2**15 - 1
    assert dot([-(2.0**30)], [2.0**30], psum=(16, "wrap"), **wide).item() == 1
    assert dot([2.0**24], [2.0**23], psum=(48, "wrap"), **wide).item() == -(2**47)  # 2^47 passes the shifter and wraps
    # Two halves of a group are limited together, not each: a group is one sum.
    assert dot([2.0**30, -(2.0**30)], [2.0**30, 2.0**30], psum=(16, "wrap"), **wide).item() == 0


def test_alignment_truncates_each_product_towards_zero():
    """bf16 significands have 8 bits: 1 * 1 = (128 * 2^-7)^2 = 16384 * 2^-14, and 1 * 2^-16 = 16384 * 2^-30. With
    align_bits 1 the unit is 2^(-14 - 1): the small product is half a unit and vanishes, whatever its sign. With
    align_bits 2 it is a whole one and stays.
    """
    x, w = [1.0, 2.0**-16], [1.0, 1.0]
    assert dot(x, w, align_bits=1).item() == 1.0
    assert dot([1.0, -(2.0**-16)], w, align_bits=1).item() == 1.0  # an arithmetic shift would give 1 - 2^-15
    assert dot(x, w, align_bits=2).item() == 1.0 + 2.0**-16
    assert dot(x, w, align_bits=1, lanes=1).item() == 1.0 + 2.0**-16  # steps of one lane: nothing to align to


def test_a_zero_product_has_no_part_in_the_largest_exponent():
    """2^100 * 0 is zero, whatever its exponent; 2^-16 + 2^-20 then keeps all its bits."""
    x, w = [2.0**100, 2.0**-16, 2.0**-20], [0.0, 1.0, 1.0]
    assert dot(x, w, align_bits=0).item() == 2.0**-16 + 2.0**-20


def test_block_scales_are_significands_and_exponents():
    """NVFP4: elements 1.5 and -6; block scales E4M3 1.25 and 3.5: (1.5 * 1 + -6 * 2) * 1.25 * 3.5 = -45.9375."""
    form = formats.get("nvfp4")
    codes = {1.5: 3, -6.0: 15, 1.0: 2, 2.0: 4}  # E2M1: s eem
    x = formats.make_qtensor(
        [[codes[1.5], codes[-6.0]]], form, 1.0, block_scales=[[E4M3.encode(np.array(1.25)).item()]]
    )
    w = formats.make_qtensor([[codes[1.0], codes[2.0]]], form, 1.0, block_scales=[[E4M3.encode(np.array(3.5)).item()]])
    for lanes in (1, 16, 32):
        assert direct_accumulators(FC, x, w, None, float_machine(lanes=lanes)).item() == -45.9375


def test_each_block_of_a_group_is_one_float32_addition():
    """Blocks of 2 on 4 lanes: 2^24 + 1 -> 2^24 (tie to even), + 1 again the same; the exact sum would be 2^24 + 2."""
    form = OcpMxFormat("mx", E4M3, 2)
    ones = E4M3.encode(np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])).astype(np.int32)
    x = formats.make_qtensor([ones], form, 1.0, block_scales=[[127 + 24, 127, 127]])
    w = formats.make_qtensor([ones], form, 1.0, block_scales=[[127, 127, 127]])
    assert direct_accumulators(FC, x, w, None, float_machine(lanes=8)).item() == 2.0**24
    exact = direct_accumulators(FC, x, w, None, float_machine("fixed", lanes=8, fraction_bits=0))
    assert exact.item() == 2**24 + 2


def test_padding_of_float_images_adds_nothing():
    """A 1 x 1 image of 3 under a 3 x 3 kernel of ones, padded by 1: every output sees 3 once."""
    layer = Conv2dMeta(name="conv", input="x", output="y", weight="w", padding=((1, 1), (1, 1)))
    x, w = plain("fp16", np.full((1, 1, 1, 1), 3.0)), plain("fp16", np.ones((1, 3, 3, 1)))
    for align_bits in (None, 0):
        acc = direct_accumulators(layer, x, w, None, float_machine(align_bits=align_bits))
        assert acc.tolist() == [[[[3.0]]]]


# -- the registers ----------------------------------------------------------------------------------------------------

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(float32s, st.integers(-(2**60), 2**60) | st.integers(-(2**90), 2**90), st.integers(-330, 330))
@settings(max_examples=400)
def test_a_float32_addition_is_rounded_as_the_exact_sum_is(held, integer, exponent):
    register = oracle.FloatRegister()
    register.held = Fraction(held)
    register.add(Fraction(integer) * Fraction(2) ** exponent, (0, 0, 0), 0)
    dtype = np.int64 if abs(integer) < 2**61 else object
    result = add_product_sum(np.array([held]), np.array([integer], dtype), np.array([exponent]))
    assert result.item() == float(register.held)
    assert not (result.item() == 0 and np.signbit(result.item()))


@given(
    st.integers(2**23, 2**24 - 1),
    st.integers(-100, 76),
    st.integers(-9, 9),
    st.sampled_from([-1, 1]),
    st.integers(26, 48),
)
def test_a_float32_addition_just_beside_a_tie(significand, exponent, steps, beside, far):
    """held + (2 steps + 1) halves of its last place + a tiny bit, which float64 may lose: rounding twice goes wrong."""
    held = float(significand) * 2.0**exponent
    addend = (2 * steps + 1 + beside * 2.0**-far) * 2.0 ** (exponent - 1)
    expected = oracle.round_float32(Fraction(held) + Fraction(addend))
    assert add_float32(np.array([held]), np.array([addend])).item() == float(expected)
    assert add_float32(np.array([-held]), np.array([-addend])).item() == -float(expected)


def test_what_rounding_twice_would_lose():
    """1 + 2^-24 + 2^-54: to 53 bits that is the tie 1 + 2^-24, which would go to 1. And an integer of 55 bits, 2^54 +
    2^30 + 1, which no double holds: beside the same tie, it rounds up to 2^54 + 2^31.
    """
    assert add_float32(np.array([1.0]), np.array([2.0**-24 + 2.0**-54])).item() == 1 + 2.0**-23
    for dtype in (np.int64, object):
        wide = np.array([2**54 + 2**30 + 1], dtype)
        assert add_product_sum(np.zeros(1), wide, np.zeros(1, np.int64)).item() == 2.0**54 + 2.0**31


@given(
    st.integers(-(2**60), 2**60) | st.integers(-(2**100), 2**100) | st.integers(-5, 5),
    st.integers(-200, 200),
    st.integers(-64, 128),
    st.sampled_from(["truncate", "toward_zero", "half_even"]),
)
@settings(max_examples=400)
def test_the_shifter_is_the_oracles(integer, exponent, fraction_bits, rounding):
    unit = FloatUnit(accumulate="fixed", fraction_bits=fraction_bits, rounding=rounding)
    expected = oracle.shifted(Fraction(integer) * Fraction(2) ** exponent, -fraction_bits, rounding)
    for dtype in (np.int64, object) if abs(integer) < 2**61 else (object,):
        assert fixed_point(np.array([integer], dtype), np.array([exponent]), unit).item() == expected


# -- linear layers against the oracle ---------------------------------------------------------------------------------

FLOATS = [MinifloatFormat(element) for element in (E2M1, E2M3, E3M2, E4M3, E5M2, FP16, BF16)]
MX = [OcpMxFormat(f"mx_{element}_{size}", element, size) for element in (INT8, E2M1, E4M3, E5M2) for size in (2, 4)]
SIXTEENS = [formats.get(name) for name in ("mx9", "mx6", "mx4", "nvfp4")]
WHOLE = [formats.get(name) for name in ("int8", "uint4", "binary", "ternary", "po2_3")]


def random_tensor(rng, form, shape, wild):
    """Codes of all kinds; block scales near the middle of their range, or anywhere."""
    codes = rng.integers(form.code_low, form.code_high, shape, endpoint=True)
    zero = 1 if form.code_high == 1 else 0  # binary has none
    codes = np.where(np.isin(codes, form.reserved_codes) | (rng.random(shape) < 0.2), zero, codes)
    if form.blocks is None:
        return formats.make_qtensor(codes, form, 1.0)
    high = form.blocks.scale_high
    scales_shape = (shape[0], -(-shape[1] // form.blocks.size))
    if wild:
        scales = rng.integers(0, high, scales_shape, endpoint=True)
    elif form.blocks.scale_bits == 16:  # microexponents: E + 127 above eight bits tau
        scales = (rng.integers(120, 134, scales_shape) << 8) + rng.integers(0, 255, scales_shape, endpoint=True)
    else:
        scales = rng.integers(max(0, high // 2 - 9), high // 2 + 9, scales_shape)
    return formats.make_qtensor(codes, form, 1.0, block_scales=scales)


def lowered_by_hand(tensor, size, align):
    """(lanes [rows, K], their exponents or None, scales, scale exponents), K completed to blocks of `size`."""
    lanes = tensor.lanes()
    rows, k = lanes.values.shape
    missing = -k % size if size else 0
    exponents = np.zeros((rows, k), int) if lanes.exponents is None else lanes.exponents
    values = lanes.values.astype(object)
    if not align:
        values = values * 2 ** (exponents - tensor.format.exponent_range[0]).astype(object)
    values = np.pad(values, ((0, 0), (0, missing)))
    exponents = np.pad(exponents, ((0, 0), (0, missing)), constant_values=99)  # of zeros: no product's affair
    blocks = (k + missing) // size if size else 0
    scales = np.ones((rows, blocks), int) if lanes.block_scales is None else lanes.block_scales
    block_exponents = np.zeros((rows, blocks), int) if lanes.block_exponents is None else lanes.block_exponents
    return values, exponents if align else None, scales, block_exponents


@st.composite
def float_layers(draw):
    """(x [M, K], weight [N, K], bias, config), and the operands as the oracle takes them."""
    kind = draw(st.sampled_from(["plain", "mx", "mx", "sixteen"]))
    forms = {"plain": FLOATS, "mx": MX, "sixteen": SIXTEENS}[kind]
    x_form = draw(st.sampled_from(forms))
    size = 0 if kind == "plain" else x_form.blocks.size
    partners = [form for form in forms if kind == "plain" or form.blocks.size == size]
    w_form = draw(st.sampled_from(partners + WHOLE + FLOATS))
    if draw(st.booleans()):
        x_form, w_form = w_form, x_form
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m, n = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    k = draw(st.integers(1, 40 if size == 16 else 13))
    wild = draw(st.sampled_from([False, False, True]))
    x, weight = random_tensor(rng, x_form, (m, k), wild), random_tensor(rng, w_form, (n, k), wild)
    align_bits = draw(st.none() | st.sampled_from([0, 1, 5, 12, 32]))
    lanes = draw(st.sampled_from([lane for lane in (1, 2, 3, 4, 8, 16, 32) if fits(lane, size, align_bits)]))
    accumulate = draw(st.sampled_from(["float32", "fixed"]))
    narrow = st.tuples(st.sampled_from([8, 12, 24, 48]), st.sampled_from(["wrap", "saturate"]))
    config = float_machine(
        accumulate,
        psum=draw(narrow),
        acc=draw(narrow),
        lanes=lanes,
        dataflow=draw(st.sampled_from(["os", "ws", "is"])),
        rows=max(1, size // lanes) * draw(st.integers(1, 3)),
        fraction_bits=draw(st.sampled_from([-20, 0, 4, 16, 40])),
        rounding=draw(st.sampled_from(["truncate", "toward_zero", "half_even"])),
        align_bits=align_bits,
    )
    bias = None
    if draw(st.booleans()):
        bias = (rng.normal(size=n) * 2.0 ** draw(st.sampled_from([-20, 0, 20]))).astype(np.float32)
    return x, weight, bias, config


def fits(lanes, size, align_bits):
    if not size:
        return True
    return lanes % size == 0 or (size % lanes == 0 and align_bits is None)


def by_the_oracle(x, weight, bias, config):
    unit, align = config.array.float_unit, config.array.float_unit.align_bits is not None
    size = max(0 if form.blocks is None else form.blocks.size for form in (x.format, weight.format))
    a, a_exponents, a_scales, a_block_exponents = lowered_by_hand(x, size, align)
    w, w_exponents, w_scales, w_block_exponents = lowered_by_hand(weight, size, align)
    blocks = None
    if size:
        blocks = BlockScaling(
            size, a_scales[None], w_scales.T[None], 0, 8, 8, a_block_exponents[None], w_block_exponents.T[None]
        )
    lsb = -unit.fraction_bits if unit.accumulate == "fixed" else 0
    preload = np.zeros((1, w.shape[0]), np.float32) if bias is None else bias[None]
    if unit.accumulate == "fixed":
        preload = np.array([[round(Fraction(float(b)) / Fraction(2) ** lsb) for b in preload[0]]], object)
    operands = GemmOperands(
        a=a[None],
        w=w.T[None],
        bias=preload,
        k_valid=np.ones(a.shape[1], np.bool_),
        a_bits=x.format.lane_bits,
        w_bits=weight.format.lane_bits,
        blocks=blocks,
        summation=Summation(
            kind=unit.accumulate,
            lsb_exponent=lsb,
            rounding=unit.rounding,
            unit_exponent=0 if align else x.format.exponent_range[0] + weight.format.exponent_range[0],
            align_bits=unit.align_bits,
        ),
        a_exponents=None if a_exponents is None else a_exponents[None],
        w_exponents=None if w_exponents is None else w_exponents.T[None],
    )
    return oracle.matmul(operands, plan_operands(operands, config)).acc[0]


@given(float_layers())
@settings(max_examples=400)
def test_linear_layers_are_the_oracles(case):
    direct = direct_accumulators(FC, *case)
    expected = by_the_oracle(*case)
    assert direct.dtype == expected.dtype
    assert_array_equal(direct, expected)


# -- what does not depend on the order --------------------------------------------------------------------------------

PAIRS = [
    ("mxfp4", "mxfp4"),
    ("mxfp6_e2m3", "mxfp4"),
    ("mxint8", "int4"),
    ("uint4", "nvfp4"),
    ("mx6", "nvfp4"),
    ("mx4", "mx4"),
    ("fp4_e2m1", "mx4"),
    ("fp6_e2m3", "fp6_e2m3"),
    ("mxfp4", "binary"),
]


def of_values(rng, name, shape, block_axis):
    form = formats.get(name)
    reals = rng.normal(size=shape)
    if form.blocks is None:
        return form.quantize(reals, scale=0.25 if form.exponent_range == (0, 0) else 1.0)
    return form.quantize(reals, block_axis, scale=1.0)


@pytest.mark.parametrize(("x_name", "w_name"), PAIRS)
def test_sums_that_lose_nothing_are_those_of_the_real_values(x_name, w_name):
    """Convolutions and products of two activations in enough bits: sum of dequantized products, tap by tap."""
    rng = np.random.default_rng(7)
    layer = Conv2dMeta(
        name="conv", input="x", output="y", weight="w", padding=((1, 0), (2, 1)), stride=(2, 1), dilation=(1, 2)
    )  # fmt: skip
    channels = 21
    x, w = of_values(rng, x_name, (2, 4, 5, channels), 3), of_values(rng, w_name, (3, 2, 2, channels), 3)
    steps = Fraction(2) ** 30
    config = float_machine("fixed", fraction_bits=30, lanes=32, dataflow="ws")
    acc = direct_accumulators(layer, x, w, None, config)
    xs = np.pad(x.dequantize(), ((0, 0), (1, 0), (2, 1), (0, 0))) / float(x.scale)
    ws = w.dequantize() / float(w.scale)
    for b, oh, ow, n in np.ndindex(acc.shape):
        seen = xs[b, oh * 2 : oh * 2 + 2, ow : ow + 3 : 2]
        exact = sum(Fraction(p) * Fraction(q) for p, q in zip(seen.ravel(), ws[n].ravel(), strict=True))
        assert acc[b, oh, ow, n] == exact * steps
    matmul = MatmulMeta(name="scores", input="x", output="y", other="z")
    x, z = of_values(rng, x_name, (2, 3, channels), 2), of_values(rng, w_name, (2, channels, 4), 1)
    acc = direct_accumulators(matmul, x, z, None, config)
    assert_array_equal(
        acc, (x.dequantize() / float(x.scale)) @ (z.dequantize() / float(z.scale)) * 2.0**30
    )  # short sums of short numbers: float64 loses nothing


def test_grouped_convolutions_see_their_own_blocks():
    """Two groups of one block each; the input's scales differ by group."""
    layer = Conv2dMeta(name="conv", input="x", output="y", weight="w", groups=2)
    form = OcpMxFormat("mx", INT8, 2)
    x = formats.make_qtensor([[[[1, 2, 3, 4]]]], form, 1.0, block_scales=[[[[127, 130]]]])
    w = formats.make_qtensor([[[[1, 1]]], [[[1, 1]]]], form, 1.0, block_scales=[[[[127]]], [[[128]]]])
    acc = direct_accumulators(layer, x, w, None, float_machine("fixed", fraction_bits=12))
    # (1 + 2) and (3 + 4) * 2^3 * 2, in units of 2^-6 * 2^-6
    assert acc[0, 0, 0].tolist() == [3, 7 * 16]


# -- docs/numerics.md, section 5 -------------------------------------------------------------------------------------


def test_exact_sums_take_the_bits_that_the_page_says(project_root):
    """32 products of the largest magnitude, on the grid of the smallest exponent, and a sign."""
    manual = (project_root / "docs/numerics.md").read_text(encoding="utf-8")
    largest = {element.name: int(element.largest / 2.0 ** element.exponent_range[0]) for element in (E2M1, E2M3, E3M2)}
    largest |= {element.name: int(element.largest / 2.0 ** element.exponent_range[0]) for element in (E4M3, E5M2)}
    bits = [(32 * number**2).bit_length() + 1 for number in (128, *largest.values())]
    assert f"| bits | {' | '.join(map(str, bits))} |" in manual
    assert (32 * 127**2).bit_length() + 1 == 20
    assert "20 without the code -128" in manual


@given(st.data())
@settings(max_examples=40)
def test_what_equals_what(data):
    """Exponents that are equal shift; scales of 1 vanish; lanes, dataflows and sizes of blocks do not matter."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    element, k = data.draw(st.sampled_from([E2M1, E2M3, INT8])), 12
    x, w = (rng.integers(element.code_low, element.code_high, (3, k), endpoint=True) for _ in "xw")
    # Units of 2^-30: the smallest products are 2^-12, and blocks are scaled by 2^-6 at least.
    wide = {"fraction_bits": 30, "accumulate": "fixed"}

    def acc(size, exponent, **options):
        form = OcpMxFormat("mx", element, size)
        scales = np.full((3, -(-x.shape[1] // size)), 127 + exponent)
        tensors = [formats.make_qtensor(codes, form, 1.0, block_scales=scales) for codes in (x, w)]
        return direct_accumulators(FC, *tensors, None, float_machine(**options, **wide))

    plain = acc(4, 0)
    values = [element.decode(codes.astype(np.int32)) for codes in (x, w)]
    assert_array_equal(plain, values[0] @ values[1].T * 2.0**30)
    exponent = data.draw(st.integers(-3, 3))
    assert_array_equal(acc(4, exponent), plain * 4.0**exponent)
    for size, lanes, dataflow in [(2, 1, "ws"), (4, 4, "is"), (4, 8, "os"), (6, 3, "ws"), (12, 12, "os")]:
        assert_array_equal(acc(size, 0, lanes=lanes, dataflow=dataflow, rows=4), plain)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["float32", "fixed"]), st.sampled_from([None, 4]))
@settings(max_examples=40)
def test_zeros_that_complete_k_change_nothing(seed, accumulate, align_bits):
    rng = np.random.default_rng(seed)
    x, w = random_tensor(rng, MX[4], (3, 7), False), random_tensor(rng, MX[4], (2, 7), False)
    config = float_machine(accumulate, lanes=4, align_bits=align_bits, fraction_bits=3)
    blank = np.zeros((3, 5), np.int32)
    completed = []
    for tensor, rows in ((x, 3), (w, 2)):
        codes = np.concatenate([tensor.codes, blank[:rows]], axis=1)
        size = tensor.format.blocks.size
        more = np.full((rows, -(-12 // size) - tensor.block_scales.shape[1]), 254)
        scales = np.concatenate([tensor.block_scales, more], axis=1)
        completed.append(formats.make_qtensor(codes, tensor.format, 1.0, block_scales=scales))
    assert_array_equal(direct_accumulators(FC, x, w, None, config), direct_accumulators(FC, *completed, None, config))
