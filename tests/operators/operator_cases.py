"""Hypothesis strategies: a whole case (inputs, output, attributes) for every operator of the registry."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from accelsim import formats
from accelsim.operators.interpolated import interpolation_table
from accelsim.operators.registry import OPERATORS
from accelsim.operators.spec import Operand, TensorSpec
from accelsim.operators.tables import table


@dataclass
class Case:
    inputs: list[Operand]
    output: TensorSpec
    attributes: Any


BYTES = ("int8", "uint8")
SCALES = st.floats(1e-3, 4.0).map(lambda scale: float(np.float32(scale)))


def spec(shape, name="int8", scale=1.0, zero_point=0):
    return TensorSpec(tuple(shape), formats.get(name), float(scale), int(zero_point))


def operand(codes, name="int8", scale=1.0, zero_point=0):
    codes = np.asarray(codes)
    return Operand(codes.shape, formats.get(name), float(scale), int(zero_point), codes.astype(np.int32))


@st.composite
def operands(draw, shape, names=BYTES, *, zero_points=True, scale=SCALES):
    """Draw a tensor whose codes are of the whole range, with many at its ends."""
    name = draw(st.sampled_from(names))
    form = formats.get(name)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = generator.integers(form.code_low, form.code_high + 1, shape)
    ends = generator.random(shape)
    codes = np.where(ends < 0.1, form.code_low, np.where(ends > 0.9, form.code_high, codes))
    if draw(st.booleans()):
        codes = np.clip(codes, form.code_low // 16, form.code_high // 16)
    zero = draw(st.integers(form.code_low, form.code_high)) if zero_points else 0
    return operand(codes, name, draw(scale), zero)


@st.composite
def outputs(draw, shape, names=BYTES, *, zero_points=True, scale=SCALES):
    name = draw(st.sampled_from(names))
    form = formats.get(name)
    zero = draw(st.integers(form.code_low, form.code_high)) if zero_points else 0
    return spec(shape, name, draw(scale), zero)


NDIMS, SIZES = st.integers(1, 4), st.integers(1, 5)


def shapes(ndim=NDIMS, size=SIZES):
    return ndim.flatmap(lambda n: st.tuples(*[size] * n))


def same_as(x, shape):
    return TensorSpec(tuple(shape), x.format, x.scale, x.zero_point)


ACTIVATIONS = st.sampled_from(["none", "relu", "relu6", "relu_n1_to_1"])


@st.composite
def broadcast_pair(draw):
    shape = draw(shapes())
    other = tuple(draw(st.sampled_from([1, size])) for size in shape)[draw(st.integers(0, len(shape))) :]
    return (shape, other) if draw(st.booleans()) else (other, shape)


@st.composite
def sums(draw, name):
    a, b = draw(broadcast_pair())
    rule = draw(st.sampled_from(["tflite", "tflite_pot", "onnxruntime", "hawq"]))
    if rule == "tflite_pot":
        exponent, less, swap = draw(st.integers(-15, 2)), draw(st.integers(0, 9)), draw(st.booleans())
        scales = (2.0**exponent, 2.0 ** (exponent - less))[:: -1 if swap else 1]
        inputs = [
            draw(operands(shape, ("int16",), zero_points=False, scale=st.just(scale)))
            for shape, scale in zip((a, b), scales, strict=True)
        ]
        return inputs, spec(np.broadcast_shapes(a, b), "int16", 2.0**exponent), {"rule": rule}
    wide = draw(st.booleans())
    zero_points = rule == "onnxruntime" or (rule == "tflite" and not wide)
    names = {"tflite": ("int16",) if wide else BYTES, "onnxruntime": BYTES, "hawq": ("int8", "int16", "int32")}[rule]
    inputs = [draw(operands(shape, names, zero_points=zero_points)) for shape in (a, b)]
    scale = SCALES
    if rule == "tflite":  # the rule takes no output scale below this
        least = 2 * max(x.scale for x in inputs) / 2 ** (15 if wide else 20)
        scale = SCALES.map(lambda s: max(s, float(np.float32(least * 1.001))))
    output = draw(outputs(np.broadcast_shapes(a, b), names, zero_points=zero_points, scale=scale))
    activation = draw(ACTIVATIONS) if rule == "tflite" else "none"
    return inputs, output, {"rule": rule, "activation": activation}


@st.composite
def products(draw, name):
    a, b = draw(broadcast_pair())
    rule = draw(st.sampled_from(["tflite", "tflite_micro", "onnxruntime"]))
    inputs = [draw(operands(shape)) for shape in (a, b)]
    output = draw(outputs(np.broadcast_shapes(a, b)))
    activation = "none" if rule == "onnxruntime" else draw(ACTIVATIONS)
    return inputs, output, {"rule": rule, "activation": activation}


@st.composite
def requantizations(draw, name):
    shape = draw(shapes())
    names = ("int8", "uint8", "int16", "int4")
    return [draw(operands(shape, names))], draw(outputs(shape, names)), {"rule": draw(rules("tflite", "onnxruntime"))}


def rules(*names):
    return st.sampled_from(names)


@st.composite
def windows(draw):
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3)))
    kernel, padding = [], []
    for size in shape[1:3]:
        kernel.append(draw(st.integers(1, 4)))
        before = draw(st.integers(0, kernel[-1] - 1))
        after = draw(st.integers(max(0, kernel[-1] - size - before), kernel[-1] - 1))
        padding.append((before, after))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    return shape, {"kernel": tuple(kernel), "stride": stride, "padding": tuple(padding)}


@st.composite
def pools(draw, name):
    shape, attributes = draw(windows())
    x = draw(operands(shape, ("int8", "uint8", "int16")))
    if name == "average_pool2d" and draw(st.booleans()):
        return (
            [x],
            draw(outputs(output_shape(name, [x], attributes))),
            attributes | {"rule": "onnxruntime", "count_include_pad": draw(st.booleans())},
        )
    return [x], same_as(x, output_shape(name, [x], attributes)), attributes | {"activation": draw(ACTIVATIONS)}


def output_shape(name, inputs, values):
    operator = OPERATORS[name]
    return operator.output_shape([x.shape for x in inputs], operator.attributes.model_validate(values))


@st.composite
def means(draw, name):
    shape = draw(shapes())
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    axes = [axis - len(shape) if draw(st.booleans()) else axis for axis in axes]
    attributes = {"axes": axes, "keepdims": draw(st.booleans()), "rule": draw(rules("tflite", "onnxruntime"))}
    x = draw(operands(shape))
    return [x], draw(outputs(output_shape(name, [x], attributes))), attributes


@st.composite
def moves(draw, name):
    shape = draw(shapes(st.just(4) if name in ("resize_nearest", "depth_to_space") else st.integers(1, 4)))
    if name == "depth_to_space":
        block = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        shape = (*shape[:3], shape[3] * block[0] * block[1])
        attributes = {"block": block, "order": draw(st.sampled_from(["dcr", "crd"]))}
    elif name == "reshape":
        attributes = {"shape": (math.prod(shape), 1)}
    elif name == "transpose":
        attributes = {"axes": draw(st.permutations(range(len(shape))))}
    elif name == "slice":
        begin = [draw(st.integers(0, size - 1)) for size in shape]
        stride = [draw(st.sampled_from([-2, -1, 1, 2, 3])) for _ in shape]
        room = [
            (size - 1 - start) // step if step > 0 else start // -step
            for size, start, step in zip(shape, begin, stride, strict=True)
        ]
        attributes = {"begin": begin, "stride": stride, "size": [draw(st.integers(1, most + 1)) for most in room]}
    elif name == "pad":
        padding = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in shape]
        attributes = {"padding": padding, "code": draw(st.none() | st.integers(0, 100))}
    else:
        align = draw(st.booleans())
        attributes = {
            "height": draw(st.integers(1, 9)),
            "width": draw(st.integers(1, 9)),
            "align_corners": align,
            "half_pixel_centers": not align and draw(st.booleans()),
        }
    x = draw(operands(shape))
    return [x], same_as(x, output_shape(name, [x], attributes)), attributes


@st.composite
def concatenations(draw, name):
    shape = draw(shapes())
    axis = draw(st.integers(0, len(shape) - 1))
    count = draw(st.integers(1, 3))
    sizes = [draw(st.integers(1, 3)) for _ in range(count)]
    rule = draw(rules("tflite", "onnxruntime"))
    inputs = [draw(operands((*shape[:axis], size, *shape[axis + 1 :]))) for size in sizes]
    if rule == "tflite":
        first = inputs[0]
        low, high = first.format.code_low, first.format.code_high
        inputs = [
            operand(np.clip(x.codes, low, high), first.format.name, first.scale, first.zero_point) for x in inputs
        ]
    attributes = {"axis": axis - len(shape) if draw(st.booleans()) else axis, "rule": rule}
    total = (*shape[:axis], sum(sizes), *shape[axis + 1 :])
    return inputs, same_as(inputs[0], total) if rule == "tflite" else draw(outputs(total)), attributes


@st.composite
def softmaxes(draw, name):
    shape = draw(shapes(st.integers(1, 3), st.integers(1, 12)))
    x = draw(operands(shape))
    attributes = {"axis": draw(st.integers(-len(shape), len(shape) - 1)), "rule": draw(rules("tflite", "float"))}
    if name == "softmax":
        attributes["beta"] = draw(st.sampled_from([1.0, 0.5, 2.0]))
    if attributes["rule"] == "float":
        return [x], draw(outputs(shape)), attributes
    if name == "softmax" and draw(st.booleans()):
        scale = st.sampled_from([0.0003, 0.001, 2.0**-15, 0.02])
        return [draw(operands(shape, ("int16",), scale=scale))], spec(shape, "int16", 2.0**-15), attributes
    form = formats.get(draw(st.sampled_from(("int8", "uint8", "int16", "uint16") if name == "softmax" else BYTES)))
    if name == "softmax":
        return [x], TensorSpec(shape, form, 2.0**-form.lane_bits, form.code_low), attributes
    return [x], TensorSpec(shape, form, 1 / 16, form.code_high), attributes


@st.composite
def ibert_softmaxes(draw):
    shape = draw(shapes(st.integers(1, 3), st.integers(1, 12)))
    scale = st.sampled_from([2**-20, 2**-15, 0.002, 0.05, 1.0])
    x = draw(operands(shape, ("int8", "int16", "int32"), zero_points=False, scale=scale))
    attributes = {"rule": "ibert", "axis": -1, "exp_scale": draw(st.sampled_from([1 / 32767, 2**-15, 1 / 1000]))}
    bits = draw(st.sampled_from([4, 8, 12]))
    return [x], spec(shape, "uint16" if bits > 8 else "uint8", 2.0**-bits), attributes


def all_softmaxes(name):
    return softmaxes(name) | ibert_softmaxes()


@st.composite
def clips(draw, name):
    shape = draw(shapes())
    x = draw(operands(shape, ("int8", "uint8", "int16")))
    bounds = sorted(draw(st.lists(st.floats(-20, 20), min_size=2, max_size=2)))
    least, most = (bound if draw(st.booleans()) else None for bound in bounds)
    attributes = {"minimum": least, "maximum": most, "rule": draw(rules("tflite", "onnxruntime"))}
    return [x], draw(outputs(shape, ("int8", "uint8", "int16"))), attributes


@st.composite
def leaky(draw, name):
    shape = draw(shapes())
    alpha = draw(st.floats(-2, 2).map(np.float32).map(float))
    return [draw(operands(shape))], draw(outputs(shape)), {"alpha": alpha, "rule": draw(rules("tflite", "onnxruntime"))}


@st.composite
def prelus(draw, name):
    shape = draw(shapes())
    slopes = tuple(draw(st.sampled_from([1, size])) for size in shape)[draw(st.integers(0, len(shape) - 1)) :]
    return [draw(operands(shape)), draw(operands(slopes))], draw(outputs(shape)), {}


@st.composite
def lookups(draw, name):
    shape = draw(shapes())
    x = draw(operands(shape, ("int4", "int8", "uint8")))
    made = draw(outputs(shape, ("int8", "uint8", "int16")))
    function = draw(st.sampled_from(["logistic", "tanh", "hard_swish", "exp", "gelu", "silu", "erf", "square"]))
    entries = table(function, x, made, draw(st.sampled_from(["float32", "onnxruntime"])))
    return [x, Operand(entries.shape, made.format, made.scale, made.zero_point, entries)], made, {"function": function}


@st.composite
def interpolations(draw, name):
    """Curves that straight lines of 1/512 of the range follow to a step or so."""
    shape = draw(shapes())
    x = draw(operands(shape, ("int16",), zero_points=False, scale=st.sampled_from([1e-5, 2.0**-14, 2e-4])))
    function = draw(st.sampled_from(["logistic", "tanh", "exp", "gelu", "sin"]))
    made = spec(shape, "int16", draw(st.sampled_from([0.001, 0.004])))
    points = interpolation_table(function, x, made)
    return [x, Operand(points.shape, made.format, made.scale, made.zero_point, points)], made, {"function": function}


@st.composite
def sigmoids(draw, name):
    shape = draw(shapes())
    scale = st.sampled_from([2.0**-12, 2.0**-11, 2.0**-13, 3e-4, 1e-3, 1e-5])
    x = draw(operands(shape, ("int16",), zero_points=False, scale=scale))
    return [x], spec(shape, "int16", 2.0**-15), {"function": draw(st.sampled_from(["logistic", "tanh"]))}


@st.composite
def gelus(draw, name):
    shape = draw(shapes())
    scale = st.sampled_from([2**-20, 2**-15, 0.0001, 0.001, 2**-8])
    x = draw(operands(shape, ("int8", "int16", "int32"), zero_points=False, scale=scale))
    return [x], draw(outputs(shape, ("int8", "int16", "int32"), zero_points=False)), {"rule": "ibert"}


@st.composite
def layer_norms(draw, name):
    shape = draw(shapes(st.integers(1, 3), st.integers(1, 16)))
    rule = draw(rules("ibert", "float"))
    plain = rule == "float"
    x = draw(operands(shape, ("int8", "int16") if plain else ("int8", "int16", "int32"), zero_points=plain))
    gamma = draw(operands(shape[-1:], ("int8", "int16"), zero_points=False))
    gamma = operand(np.where(gamma.codes == 0, 1, gamma.codes), gamma.format.name, gamma.scale)
    beta = draw(operands(shape[-1:], ("int8", "int16"), zero_points=False, scale=st.sampled_from([1e-4, 1e-3, 0.01])))
    attributes = {"rule": rule, "shift": 0 if plain else 8 if x.format.name == "int32" else draw(st.integers(0, 4))}
    return [x, gamma, beta], draw(outputs(shape, ("int8", "int16"), zero_points=plain)), attributes


@st.composite
def argmaxes(draw, name):
    shape = draw(shapes())
    x = draw(operands(shape, ("int4", "int8", "uint8")))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    attributes = {"axis": axis, "keepdims": draw(st.booleans()), "last": draw(st.booleans())}
    return [x], spec(output_shape(name, [x], attributes), "int32"), attributes


@st.composite
def conversions(draw):
    """Of plain integers; test_operators_convert.py has the other formats."""
    shape = draw(shapes())
    return [draw(operands(shape))], draw(outputs(shape)), {}


FAMILIES = {
    "add": sums,
    "sub": sums,
    "mul": products,
    "requantize": requantizations,
    "convert": lambda _: conversions(),
    "average_pool2d": pools,
    "max_pool2d": pools,
    "mean": means,
    "reshape": moves,
    "transpose": moves,
    "slice": moves,
    "pad": moves,
    "resize_nearest": moves,
    "depth_to_space": moves,
    "concat": concatenations,
    "softmax": all_softmaxes,
    "log_softmax": softmaxes,
    "clip": clips,
    "leaky_relu": leaky,
    "prelu": prelus,
    "lookup": lookups,
    "interpolate": interpolations,
    "sigmoid": sigmoids,
    "gelu": gelus,
    "layer_norm": layer_norms,
    "argmax": argmaxes,
}


def cases(name):
    """Return the strategy of whole cases for the operator called `name`."""

    def whole(drawn):
        inputs, output, values = drawn
        return Case(inputs, output, OPERATORS[name].attributes.model_validate(values))

    return FAMILIES[name](name).map(whole)
