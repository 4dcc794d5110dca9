"""Random layers with their operands and machines, and the plainest evaluation of each."""

import itertools

import numpy as np
from hypothesis import strategies as st

from accelsim import formats
from accelsim.config.model import Array, HardwareConfig, Port, Ppu, Register, ScaleUnit
from accelsim.trace.schema import Conv2dMeta, LinearMeta, MatmulMeta


def machine(
    dataflow="os", rows=3, cols=3, lanes=1, psum=(32, "wrap"), acc=(32, "wrap"), product_bits=None,
    ppu_lanes=16, ppu_latency=0, ports=16, **options,
):  # fmt: skip
    """A configuration; `options` are double_buffered, drain_overlap, skip_unused or anything else of `Array`."""
    options.setdefault("scale_unit", ScaleUnit(weight_scale_bits=8, activation_scale_bits=8, product_bits=product_bits))
    return HardwareConfig(
        name="test",
        clock_mhz=1,
        array=Array(
            rows=rows,
            cols=cols,
            dataflow=dataflow,
            lanes=lanes,
            weight=Port(bits=ports),
            activation=Port(bits=ports),
            psum=Register(bits=psum[0], overflow=psum[1]),
            **options,
        ),
        accumulator=Register(bits=acc[0], overflow=acc[1]),
        ppu=Ppu(lanes=ppu_lanes, latency_cycles=ppu_latency),
    )


WIDE = {"psum": (48, "wrap"), "acc": (48, "wrap")}


@st.composite
def machines(draw, block=0, wide=False):
    """Small arrays; the additions of blocks of `block` elements fit them."""
    lanes = draw(st.sampled_from([n for n in (1, 2, 3, 4, 8) if not block or block % n == 0 or n % block == 0]))
    spans = max(1, block // lanes)
    registers = st.tuples(st.sampled_from([8, 9, 12, 16, 24, 32, 48, 64]), st.sampled_from(["wrap", "saturate"]))
    widths = WIDE if wide else {"psum": draw(registers), "acc": draw(registers)}
    return machine(
        dataflow=draw(st.sampled_from(["os", "ws", "is"])),
        rows=spans * draw(st.integers(1, 3)),
        cols=draw(st.integers(1, 4)),
        lanes=lanes,
        product_bits=draw(st.sampled_from([None, 2, 4])),
        **widths,
    )


def qtensor(draw, name, shape, *, channel_axis=None, block_axis=None, zero=False):
    """Random codes (often extreme ones); zero points where `zero`, one a channel along `channel_axis`."""
    form = formats.get(name)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = rng.integers(form.low, form.high, shape, endpoint=True)
    extremes = rng.choice([form.low, form.high], shape)
    codes = np.where(rng.random(shape) < draw(st.sampled_from([0.0, 0.5])), extremes, codes)
    if form.blocks:
        scales = list(shape)
        scales[block_axis] = -(-shape[block_axis] // form.blocks.size)
        block_scales = rng.integers(0, 1 << form.blocks.scale_bits, scales)
        return formats.make_qtensor(codes, form, 1.0, block_axis=block_axis, block_scales=block_scales)
    zero_shape = (shape[channel_axis],) if channel_axis is not None else ()
    zero_point = rng.integers(form.low, form.high, zero_shape, endpoint=True) if zero else 0
    return formats.make_qtensor(codes, form, 1.0, zero_point, channel_axis=channel_axis)


def draw_bias(draw, outputs):
    if draw(st.booleans()):
        return None
    bits = draw(st.sampled_from([4, 12, 33]))
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    values = draw(st.lists(st.integers(low, high), min_size=outputs, max_size=outputs))
    return np.array(values, np.int64)


INTEGERS = ("int2", "uint2", "int4", "int8", "uint8", "int8n", "int16", "uint16")


@st.composite
def conv2d_layers(draw, vsq=False, wide=False):
    """(layer, x, weight, bias, config): strides, dilations, lopsided padding, groups, depthwise with a multiplier."""
    block = draw(st.sampled_from([2, 4, 3])) if vsq else 0
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = draw(st.sampled_from([1, 2, 3, 5]))
    if vsq and groups > 1:
        channels = block
    per_group = draw(st.integers(1, 3))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    pad = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = (draw(pad), draw(pad))
    size = []
    for axis in (0, 1):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        size.append(max(1, reach - sum(padding[axis])) + draw(st.integers(0, 2)))
    layer = Conv2dMeta(
        name="conv", input="x", output="y", weight="w", padding=padding, dilation=dilation, groups=groups,
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 2))),
    )  # fmt: skip
    names = [f"vsq_int4_v{block}_s3", f"vsq_uint3_v{block}_s4"] if vsq else INTEGERS
    x = qtensor(
        draw, draw(st.sampled_from(names)), (draw(st.integers(1, 2)), *size, groups * channels),
        block_axis=3, zero=draw(st.booleans()),
    )  # fmt: skip
    weight = qtensor(
        draw, draw(st.sampled_from(names)), (groups * per_group, *kernel, channels),
        channel_axis=draw(st.sampled_from([None, 0])), block_axis=3, zero=draw(st.booleans()),
    )  # fmt: skip
    return layer, x, weight, draw_bias(draw, groups * per_group), draw(machines(block, wide))


@st.composite
def linear_layers(draw, vsq=False, wide=False):
    """(layer, x, weight, bias, config): on the last axis, or flattened."""
    block = draw(st.sampled_from([2, 4, 3])) if vsq else 0
    flatten = draw(st.booleans())
    lead = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    features = draw(st.integers(1, 9))
    if vsq and flatten and len(lead) > 1:
        features = block * draw(st.integers(1, 2))
    inputs = int(np.prod(lead[1:])) * features if flatten else features
    outputs = draw(st.integers(1, 5))
    names = [f"vsq_int4_v{block}_s3", f"vsq_uint3_v{block}_s4"] if vsq else INTEGERS
    x = qtensor(draw, draw(st.sampled_from(names)), (*lead, features), block_axis=len(lead), zero=draw(st.booleans()))
    weight = qtensor(
        draw, draw(st.sampled_from(names)), (outputs, inputs),
        channel_axis=draw(st.sampled_from([None, 0])), block_axis=1, zero=draw(st.booleans()),
    )  # fmt: skip
    layer = LinearMeta(name="fc", input="x", output="y", weight="w", flatten=flatten)
    return layer, x, weight, draw_bias(draw, outputs), draw(machines(block, wide))


@st.composite
def matmul_layers(draw, vsq=False, wide=False):
    """(layer, x, other, bias, config): both ways round, zero points on either side."""
    block = draw(st.sampled_from([2, 4, 3])) if vsq else 0
    lead = draw(st.lists(st.integers(1, 3), max_size=2))
    m, k, n = draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    turned = draw(st.booleans())
    names = [f"vsq_int4_v{block}_s3", f"vsq_uint3_v{block}_s4"] if vsq else INTEGERS
    zero_x, dims = draw(st.booleans()), len(lead) + 2
    x = qtensor(draw, draw(st.sampled_from(names)), (*lead, m, k), block_axis=dims - 1, zero=zero_x)
    other = qtensor(
        draw, draw(st.sampled_from(names)), (*lead, n, k) if turned else (*lead, k, n), zero=draw(st.booleans()),
        channel_axis=draw(st.sampled_from([None, dims - 2 if turned else dims - 1])),
        block_axis=dims - 1 if turned else dims - 2,
    )  # fmt: skip
    layer = MatmulMeta(name="scores", input="x", output="y", other="z", transpose_other=turned)
    bias = None if x.zero_point.any() else draw_bias(draw, n)
    return layer, x, other, bias, draw(machines(block, wide))


@st.composite
def any_layers(draw, wide=False):
    kind = draw(st.sampled_from([conv2d_layers, linear_layers, matmul_layers]))
    return draw(kind(vsq=draw(st.booleans()), wide=wide))


# -- the plainest evaluation: Python integers, one output and one tap at a time ---------------------------------------


def unlimited(layer, x, weight, bias, config):
    """The layer's accumulators in registers of unlimited width: sum (x - zx)(w - zw) + bias, block by block."""
    xs, ws = _Reader(x), _Reader(weight)
    unit = config.array.scale_unit
    full = (x.format.blocks.scale_bits + weight.format.blocks.scale_bits) if x.format.blocks else 0
    shift = max(0, full - unit.product_bits) if full and unit.product_bits is not None else 0
    if isinstance(layer, Conv2dMeta):
        shape, taps = _conv2d(layer, x.shape, weight.shape)
    elif isinstance(layer, LinearMeta):
        shape, taps = _linear(layer, x.shape, weight.shape)
    else:
        shape, taps = _matmul(layer, x.shape, weight.shape)
    result = np.zeros(shape, object)
    for index in itertools.product(*map(range, shape)):
        total = 0 if bias is None else int(bias[index[-1]])
        if shift:
            total = int(np.floor((total + 2 ** (shift - 1)) / 2**shift))
        for x_at, w_at in taps(index):
            scale = xs.scale(x_at) * ws.scale(w_at)
            if shift:
                scale = (2 * scale + 2**shift) // 2 ** (shift + 1)
            total += xs.value(x_at) * ws.value(w_at) * scale
        result[index] = total
    return result


class _Reader:
    """Looks up single elements of a quantized tensor."""

    def __init__(self, tensor):
        self.tensor = tensor

    def value(self, at):
        zero, axis = self.tensor.zero_point, self.tensor.channel_axis
        return int(self.tensor.codes[at]) - int(zero[at[axis]] if zero.ndim else zero)

    def scale(self, at):
        if self.tensor.block_scales is None:
            return 1
        at = list(at)
        at[self.tensor.block_axis] //= self.tensor.format.blocks.size
        return int(self.tensor.block_scales[tuple(at)])


def _conv2d(layer, x, w):
    out = []
    for axis in (0, 1):
        reach = layer.dilation[axis] * (w[1 + axis] - 1) + 1
        last = x[1 + axis] + sum(layer.padding[axis]) - reach  # where the last window could begin
        out.append(len(range(0, last + 1, layer.stride[axis])))

    def taps(index):
        b, oh, ow, o = index
        group = o // (w[0] // layer.groups)
        for i, j, c in itertools.product(range(w[1]), range(w[2]), range(w[3])):
            h = oh * layer.stride[0] + i * layer.dilation[0] - layer.padding[0][0]
            v = ow * layer.stride[1] + j * layer.dilation[1] - layer.padding[1][0]
            if 0 <= h < x[1] and 0 <= v < x[2]:
                yield (b, h, v, group * w[3] + c), (o, i, j, c)

    return (x[0], *out, w[0]), taps


def _linear(layer, x, w):
    def taps(index):
        inputs = itertools.product(*map(range, x[1:])) if layer.flatten else ((k,) for k in range(x[-1]))
        lead = index[:1] if layer.flatten else index[:-1]
        for k, at in enumerate(inputs):
            yield (*lead, *at), (index[-1], k)

    return ((x[0], w[0]) if layer.flatten else (*x[:-1], w[0])), taps


def _matmul(layer, x, z):
    n = z[-2] if layer.transpose_other else z[-1]

    def taps(index):
        lead, m, col = index[:-2], index[-2], index[-1]
        for k in range(x[-1]):
            yield (*lead, m, k), ((*lead, col, k) if layer.transpose_other else (*lead, k, col))

    return (*x[:-1], n), taps
