"""The direct reference against lowering and the engines' oracle, where operands have exponents or are words of bits."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_cases import machine
from numpy.testing import assert_array_equal
from test_mapping_lower import limit

from accelsim import formats
from accelsim.config.model import FloatUnit, Popcount
from accelsim.engine import oracle
from accelsim.formats.minifloat import E2M1, E4M3
from accelsim.formats.ocp_mx import INT8, OcpMxFormat
from accelsim.mapping.direct import direct_accumulators
from accelsim.mapping.lower import lower
from accelsim.mapping.plan import plan_operands
from accelsim.trace.schema import Conv2dMeta, LinearMeta, MatmulMeta

SIZE = 4
BLOCKED = [OcpMxFormat(f"mx_{number}", element, SIZE) for number, element in enumerate((E2M1, E4M3, INT8))]
PLAIN = [formats.get(name) for name in ("fp8_e4m3", "fp4_e2m1", "fp6_e3m2", "int8", "ternary")]
BINARY = formats.get("binary")


def random_tensor(rng, form, shape, block_axis):
    codes = rng.integers(form.code_low, form.code_high, shape, endpoint=True)
    codes = np.where(np.isin(codes, form.reserved_codes), 0, codes)
    if form.blocks is None:
        return formats.make_qtensor(codes, form, 1.0)
    scales = list(shape)
    scales[block_axis] = -(-shape[block_axis] // SIZE)
    return formats.make_qtensor(codes, form, 1.0, block_axis=block_axis, block_scales=rng.integers(120, 134, scales))


@st.composite
def shapes(draw, blocked, binary):
    """(layer, shape of x, its K axis, shape of the other operand, its K axis)."""
    kind = draw(st.sampled_from(["conv2d", "conv2d", "linear", "matmul"]))
    channels = draw(st.integers(1, 7))
    names = {"name": "layer", "input": "x", "output": "y"}
    if kind == "conv2d":
        groups = draw(st.sampled_from([1, 1, 2]))
        channels = SIZE if blocked and groups > 1 else channels
        pad = st.tuples(st.integers(0, 2), st.integers(0, 2))
        layer = Conv2dMeta(
            **names, weight="w", groups=groups, padding=(draw(pad), draw(pad)), dilation=(1, draw(st.integers(1, 2))),
            stride=(draw(st.integers(1, 2)), 1), pad_value=draw(st.sampled_from([-1, 0, 1])) if binary else 0,
        )  # fmt: skip
        kernel = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        return layer, (2, 3, 3, groups * channels), 3, (groups * draw(st.integers(1, 2)), *kernel, channels), 3
    if kind == "linear":
        flatten = draw(st.booleans())
        channels = SIZE * draw(st.integers(1, 2)) if blocked and flatten else channels
        inputs = 3 * channels if flatten else channels
        return LinearMeta(**names, weight="w", flatten=flatten), (2, 3, channels), 2, (3, inputs), 1
    turned = draw(st.booleans())
    other = (2, 3, channels) if turned else (2, channels, 3)
    return MatmulMeta(**names, other="z", transpose_other=turned), (2, 2, channels), 2, other, 2 if turned else 1


@st.composite
def float_layers(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x_form, w_form = (
        draw(st.sampled_from(BLOCKED + PLAIN)),
        draw(st.sampled_from(BLOCKED + PLAIN[:3])),
    )  # one of them has exponents
    x_form = draw(st.sampled_from([x_form, x_form, BINARY]))
    if draw(st.booleans()):
        x_form, w_form = w_form, x_form
    blocked = x_form.blocks is not None or w_form.blocks is not None
    layer, x_shape, x_axis, w_shape, w_axis = draw(shapes(blocked, x_form is BINARY))
    x, weight = random_tensor(rng, x_form, x_shape, x_axis), random_tensor(rng, w_form, w_shape, w_axis)
    accumulate = draw(st.sampled_from(["float32", "fixed"]))
    narrow = st.tuples(st.sampled_from([8, 12, 24, 48]), st.sampled_from(["wrap", "saturate"]))
    registers = {"psum": (32, "saturate"), "acc": (32, "saturate")}
    shifter = {
        "fraction_bits": draw(st.sampled_from([0, 4, 16])),
        "rounding": draw(st.sampled_from(["truncate", "toward_zero", "half_even"])),
    }
    config = machine(
        draw(st.sampled_from(["os", "ws", "is"])),
        rows=4 * draw(st.integers(1, 2)),
        lanes=draw(st.sampled_from([4, 8])),
        float_unit=FloatUnit(
            accumulate=accumulate,
            align_bits=draw(st.sampled_from([None, 0, 3, 24])),
            **(shifter if accumulate == "fixed" else {}),
        ),
        **(registers if accumulate == "float32" else {"psum": draw(narrow), "acc": draw(narrow)}),
    )
    outputs = w_shape[-1] if isinstance(layer, MatmulMeta) and not layer.transpose_other else w_shape[-2]
    outputs = w_shape[0] if not isinstance(layer, MatmulMeta) else outputs
    bias = rng.normal(size=outputs).astype(np.float32) * 4 if draw(st.booleans()) else None
    return layer, x, weight, bias, config


@given(float_layers())
@settings(max_examples=150)
def test_floats(case):
    lowered = lower(*case)
    acc = oracle.matmul(lowered.operands, plan_operands(lowered.operands, case[-1])).acc
    direct = direct_accumulators(*case)
    assert direct.dtype == acc.dtype
    assert_array_equal(direct, lowered.assemble(acc))


@st.composite
def binary_layers(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layer, x_shape, x_axis, w_shape, w_axis = draw(shapes(False, True))
    narrow = st.tuples(st.sampled_from([8, 9]), st.sampled_from(["wrap", "saturate", "saturate"]))
    config = machine(
        draw(st.sampled_from(["os", "ws", "is"])),
        psum=draw(narrow),
        acc=draw(narrow),
        popcount=draw(st.sampled_from([Popcount(word_bits=32), None])),
    )
    outputs = w_shape[-1] if isinstance(layer, MatmulMeta) and not layer.transpose_other else w_shape[-2]
    outputs = w_shape[0] if not isinstance(layer, MatmulMeta) else outputs
    bias = rng.integers(-140, 140, outputs) if draw(st.booleans()) else None
    x, weight = random_tensor(rng, BINARY, x_shape, x_axis), random_tensor(rng, BINARY, w_shape, w_axis)
    return layer, x, weight, bias, config


@given(binary_layers())
@settings(max_examples=150)
def test_words_of_bits(case):
    """Padding that stands for 0 is corrected in the accumulators, one output at a time."""
    lowered, config = lower(*case), case[-1]
    acc = oracle.matmul(lowered.operands, plan_operands(lowered.operands, config)).acc
    if lowered.padding is not None:
        for index in np.ndindex(acc.shape):
            acc[index] = limit(int(acc[index]) - int(lowered.padding[index]), config.accumulator)
    assert_array_equal(direct_accumulators(*case), lowered.assemble(acc))
