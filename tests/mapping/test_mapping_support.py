"""What the hardware lacks, in words; shapes that do not fit; registers of 64 bits."""

import numpy as np
import pytest
from mapping_cases import machine
from numpy.testing import assert_array_equal

from accelsim import formats
from accelsim.config.model import Port, ScaleUnit
from accelsim.errors import ShapeError, UnsupportedLayerError
from accelsim.mapping.direct import direct_accumulators
from accelsim.mapping.lower import lower
from accelsim.trace.schema import Conv2dMeta, LinearMeta, MatmulMeta

FC = LinearMeta(name="fc1", input="x", output="y", weight="w")


def zeros(name, *shape, zero_point=0, channel_axis=None, block_axis=-1):
    form = formats.get(name)
    blocks = {}
    if form.blocks:
        scales = list(shape)
        scales[block_axis] = -(-shape[block_axis] // form.blocks.size)
        blocks = {"block_axis": block_axis, "block_scales": np.ones(scales, np.int32)}
    codes = np.zeros(shape, np.int32)
    return formats.make_qtensor(codes, form, zero_point=zero_point, channel_axis=channel_axis, **blocks)


def refusal(layer, x, weight, config, bias=None, kind=UnsupportedLayerError):
    with pytest.raises(kind) as error:
        lower(layer, x, weight, bias, config)
    return str(error.value)


def ports(weight=None, activation=None, **options):
    config = machine("ws", ports=8, **options)
    update = {name: port for name, port in (("weight", weight), ("activation", activation)) if port}
    return config.model_copy(update={"array": config.array.model_copy(update=update)})


def test_operands_wider_than_the_ports():
    assert refusal(FC, zeros("int8", 2, 4), zeros("int12", 3, 4), ports()) == (
        "layer 'fc1' needs weights in int12 (-2048..2047), but the configuration 'test' has 8-bit weight ports; set "
        "array.weight.bits to 12 or more, or quantize the tensor to fewer bits"
    )
    assert refusal(FC, zeros("uint8", 2, 4), zeros("int8", 3, 4), ports(activation=Port(bits=8, sign="signed"))) == (
        "layer 'fc1' needs activations in uint8 (0..255), but the configuration 'test' has signed 8-bit activation "
        "ports; set array.activation.bits to 9 or more, or quantize the tensor to fewer bits"
    )
    assert refusal(FC, zeros("int4", 2, 4), zeros("int8", 3, 4), ports(activation=Port(bits=8, sign="unsigned"))) == (
        "layer 'fc1' needs activations in int4 (-8..7), but the configuration 'test' has unsigned 8-bit activation "
        "ports; set array.activation.sign to 'either' or 'signed'"
    )
    assert refusal(FC, zeros("int24", 2, 4), zeros("int8", 3, 4), ports()) == (
        "layer 'fc1' needs activations in int24 (-8388608..8388607), but the configuration 'test' has 8-bit activation "
        "ports; quantize the tensor to fewer bits: the widest port has 16"
    )


@pytest.mark.parametrize(
    "name", [name for name in formats.names() if formats.get(name).datapath in ("float", "block_float")]
)
def test_exponents_need_a_float_unit(name):
    # mxint8's lanes would fit the ports, and it has blocks of the same size on both sides: still no plain integers.
    for x, weight in ((name, "int8"), ("int8", name), (name, name)):
        assert refusal(FC, zeros(x, 2, 64), zeros(weight, 3, 64), ports()) == (
            f"layer 'fc1' multiplies {x} activations by {weight} weights, which have exponents, but the configuration "
            "'test' has array.float_unit: null; add a float_unit section, or quantize the layer to integers or VSQ"
        )


def test_the_remedies_for_ports_work():
    nine = ports(activation=Port(bits=9, sign="signed"))
    assert lower(FC, zeros("uint8", 2, 4), zeros("int8", 3, 4), None, nine).operands.a_bits == 8
    twelve = ports(weight=Port(bits=12))
    assert lower(FC, zeros("int8", 2, 4), zeros("int12", 3, 4), None, twelve).operands.w_bits == 12


def test_block_scales_that_the_hardware_lacks():
    x, weight = zeros("vsq_int4_v4_s6", 2, 8), zeros("vsq_int4_v4_s4", 3, 8)
    assert refusal(FC, x, weight, ports(scale_unit=None)) == (
        "layer 'fc1' needs block-scale units for vsq_int4_v4_s4 weights, but the configuration 'test' has "
        "array.scale_unit: null; add a scale_unit section"
    )
    assert refusal(FC, x, weight, ports(scale_unit=ScaleUnit())) == (
        "layer 'fc1' has 6-bit activation scales, but the configuration 'test' has 4-bit ones; set "
        "array.scale_unit.activation_scale_bits to 6 or more"
    )
    assert refusal(FC, weight, zeros("vsq_int4_v4_s6", 3, 8), ports(scale_unit=ScaleUnit())) == (
        "layer 'fc1' has 6-bit weight scales, but the configuration 'test' has 4-bit ones; set "
        "array.scale_unit.weight_scale_bits to 6 or more"
    )


def test_blocks_that_do_not_line_up():
    assert refusal(FC, zeros("int8", 2, 8), zeros("vsq_int4_v4_s4", 3, 8), ports()) == (
        "layer 'fc1' multiplies int8 activations by vsq_int4_v4_s4 weights; both must have block scales over vectors "
        "of one size"
    )
    grouped = Conv2dMeta(name="conv", input="x", output="y", weight="w", groups=2)
    assert refusal(grouped, zeros("vsq_int4_v4_s4", 1, 2, 2, 4), zeros("vsq_int4_v4_s4", 2, 1, 1, 2), ports()) == (
        "layer 'conv' has 2 input channels a group, but its scale vectors hold 4: a vector would span groups; use a "
        "vector size that divides 2, or integers for this layer"
    )
    flat = FC.model_copy(update={"flatten": True})
    assert refusal(flat, zeros("vsq_int4_v4_s4", 1, 2, 6), zeros("vsq_int4_v4_s4", 2, 12), ports()) == (
        "layer 'fc1' flattens 6 channels, but scale vectors hold 4: the vectors of input and weight would not line up; "
        "use a vector size that divides 6"
    )
    x, weight = zeros("vsq_int4_v4_s4", 2, 8, block_axis=0), zeros("vsq_int4_v4_s4", 3, 8, block_axis=0)
    assert refusal(FC, x, zeros("vsq_int4_v4_s4", 3, 8), ports()) == (
        "layer 'fc1' has blocks of activations along axis 0, but it sums over axis 1; block along that axis"
    )
    assert refusal(FC, zeros("vsq_int4_v4_s4", 2, 8), weight, ports()) == (
        "layer 'fc1' has blocks of the second operand along axis 0, but it sums over axis 1; block along that axis"
    )


def test_zero_points_that_cannot_be_factored_out():
    per_channel = zeros("uint8", 2, 4, zero_point=[0, 1, 2, 3], channel_axis=1)
    assert refusal(FC, per_channel, zeros("int8", 3, 4), ports()) == (
        "layer 'fc1': the activations have a zero point per channel, which cannot be factored out of the sum over "
        "channels; use one zero point for the tensor"
    )
    assert refusal(FC, zeros("uint8", 2, 4), zeros("int8", 4, 4, zero_point=[0, 1, 2, 3], channel_axis=1), ports()) == (
        "layer 'fc1': the second operand has zero points along axis 1, but only axis 0, the output's channels, can "
        "have its own; use that axis, or one zero point for the tensor"
    )
    matmul = MatmulMeta(name="scores", input="x", output="y", other="z")
    assert refusal(
        matmul, zeros("uint8", 2, 4, zero_point=7), zeros("int8", 4, 3), ports(), np.array([0, 5, 0], np.int64)
    ) == (
        "layer 'scores' adds a bias to a product of two activations of which the first has zero point 7; the row of "
        "ones that measures the second's sums would get the bias too; use zero point 0 for the first, or no bias"
    )


def test_shapes_that_do_not_fit():
    message = refusal(FC, zeros("int8", 2, 5), zeros("int8", 3, 4), ports(), kind=ShapeError)
    assert message == "layer 'fc1': weight takes 4 inputs, but the input (2, 5) has 5 (the last axis)"
    x, weight = zeros("int8", 2, 4), zeros("int8", 3, 4)
    message = refusal(FC, x, weight, ports(), np.zeros(4, np.int64), kind=ShapeError)
    assert message == "layer 'fc1': bias is int64 (4,), but must be int64 (3,)"
    message = refusal(FC, x, weight, ports(), np.zeros(3, np.int32), kind=ShapeError)
    assert message == "layer 'fc1': bias is int32 (3,), but must be int64 (3,)"


@pytest.mark.parametrize("zero_w", [0, 3])
@pytest.mark.parametrize("zero_x", [0, 5])
@pytest.mark.parametrize("constant", [True, False])
def test_ones_only_where_needed(zero_x, zero_w, constant):
    # Two rows of 4, three columns; a column of ones for zw, a row of ones for zx of two activations.
    x = zeros("uint8", 2, 4, zero_point=zero_x)
    if constant:
        lowered = lower(FC, x, zeros("int8", 3, 4, zero_point=zero_w), None, ports())
    else:
        matmul = MatmulMeta(name="scores", input="x", output="y", other="z")
        lowered = lower(matmul, x, zeros("int8", 4, 3, zero_point=zero_w), None, ports())
    shape = lowered.operands.shape
    assert (shape.m, shape.n) == (2 + (zero_x != 0 and not constant), 3 + (zero_w != 0))
    # What is known in advance: K zx zw = 4 * 5 * 3 on every output, or -K zx = -20 where sum x is measured.
    column = [[]] if not zero_w else [[0 if constant else -4 * zero_x]]
    known = 4 * zero_x * zero_w if constant else 0
    assert lowered.operands.bias.tolist() == [[known] * 3 + column[0]]


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
def test_accumulators_of_64_bits_at_their_end(overflow):
    # 2^63 - 1 preloaded; 3 * 5 = 15 more does not fit int64, and is exact all the same.
    x, weight = (formats.make_qtensor([[value]], formats.get("int8")) for value in (3, 5))
    config = machine("os", psum=(64, overflow), acc=(64, overflow))
    top = (1 << 63) - 1
    acc = direct_accumulators(FC, x, weight, np.array([top], np.int64), config)
    assert_array_equal(acc, [[top + 15 - (1 << 64) if overflow == "wrap" else top]])


INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)


@pytest.mark.parametrize(("weight_code", "limit"), [(-7, INT64_MAX), (7, INT64_MIN)])
def test_preload_at_the_end_of_int64(weight_code, limit):
    # K = 1, zx = 100, zw = 0: the preload is bias - 100 * w, so a weight of -7 adds 700. The last bias that fits is
    # 700 from the end; one more would wrap to the other end, and is refused.
    x = formats.make_qtensor([[0]], formats.get("uint8"), 1.0, 100)
    weight = formats.make_qtensor([[1], [weight_code]], formats.get("int8"))
    config = machine(acc=(64, "wrap"))
    terms = -100 * weight_code
    fits = np.array([0, limit - terms], np.int64)
    assert lower(FC, x, weight, fits, config).operands.bias.tolist() == [[-100, limit]]
    beyond = fits + np.array([0, 1 if limit > 0 else -1])
    assert refusal(FC, x, weight, config, beyond) == (
        f"layer 'fc1': bias {beyond[1]} of output channel 1 and its zero-point terms {terms} add up to more than 64 "
        "bits hold; use a smaller bias"
    )


@pytest.mark.parametrize(
    ("bias", "preloaded"), [(INT64_MAX, 2**59), (INT64_MIN, -(2**59)), (7, 0), (8, 1), (-8, 0), (-9, -1)]
)
def test_bias_in_the_unit_of_rounded_scale_products(bias, preloaded):
    # 4 + 4 bits of scales rounded to 4: the unit is 2^4, the bias is rounded half up; (2^63 - 1) / 16 = 2^59 - 1/16.
    x, weight = (zeros("vsq_int4_v2_s4", 1, 2) for _ in "xw")
    config = machine(product_bits=4, psum=(64, "wrap"), acc=(64, "saturate"))
    lowered = lower(FC, x, weight, np.array([bias]), config)
    assert lowered.operands.bias.tolist() == [[preloaded]]
    assert direct_accumulators(FC, x, weight, np.array([bias]), config).tolist() == [[preloaded]]
