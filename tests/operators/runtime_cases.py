"""Random cases that LiteRT or ONNX Runtime can compute too, and the call that does.

``litert_case(name, rng)`` and ``onnxruntime_case(name, rng)`` return (operator, attributes, inputs, output, call):
inputs (codes, format, scale, zero point), output (shape, format, scale, zero point), and a function that returns the
runtime's codes.
"""

from functools import partial

import numpy as np
from one_operator import run_litert, run_onnxruntime, run_tflite_micro

from accelsim import formats
from accelsim.operators.interpolated import interpolation_table
from accelsim.operators.spec import TensorSpec
from accelsim.operators.tables import table

BYTES = ("int8", "uint8")
FUSED = {"none": 0, "relu": 1, "relu_n1_to_1": 2, "relu6": 3}


def f32(value):
    return float(np.float32(value))


def a_scale(rng, low=0.002, high=0.5):
    return f32(np.exp(rng.uniform(np.log(low), np.log(high))))


def a_zero(rng, dtype):
    if dtype == "int16":
        return 0
    limits = np.iinfo(dtype)
    return int(rng.integers(limits.min, limits.max + 1))


def codes_of(rng, shape, dtype):
    limits = np.iinfo(dtype)
    codes = rng.integers(limits.min, limits.max + 1, shape)
    codes = np.where(rng.random(shape) < 0.1, rng.choice([limits.min, limits.max]), codes)
    return codes.astype(dtype)


def tensor(rng, shape, dtype, **scale):
    return codes_of(rng, shape, dtype), dtype, a_scale(rng, **scale), a_zero(rng, dtype)


def described(x):
    return x[0].shape, x[1], x[2], x[3]


def litert(builtin, inputs, output, options=None, constants=()):
    return partial(
        run_litert, [x[0] for x in inputs], builtin, [described(x) for x in inputs], output, options, constants
    )


def _arithmetic(name, rng):
    dtype = rng.choice(["int8", "uint8", "int16"])
    shape = tuple(rng.integers(1, 5, 4).tolist())
    other = tuple(1 if rng.random() < 0.3 else size for size in shape)
    a, b = tensor(rng, shape, dtype), tensor(rng, other, dtype)
    scale = a_scale(rng, 0.02, 2.0) if name != "mul" else f32(a[2] * b[2] * np.exp(rng.uniform(1, 6)))
    output = (np.broadcast_shapes(shape, other), str(dtype), scale, a_zero(rng, dtype))
    activation = rng.choice(list(FUSED))
    fields = {"fusedActivationFunction": FUSED[activation]}
    if name in ("add", "sub"):
        fields["potScaleInt16"] = False
    kind = {"add": "AddOptions", "sub": "SubOptions", "mul": "MulOptions"}[name]
    call = litert(name.upper(), [a, b], output, (kind, fields))
    return name, {"rule": "tflite", "activation": str(activation)}, [a, b], output, call


def _sum_of_powers(name, rng):
    shape, exponent, less = tuple(rng.integers(1, 5, 4).tolist()), int(rng.integers(-15, -5)), int(rng.integers(0, 6))
    scales = (2.0**exponent, 2.0 ** (exponent - less))[:: int(rng.choice([1, -1]))]
    inputs = [(codes_of(rng, shape, "int16"), "int16", scale, 0) for scale in scales]
    output, activation = (shape, "int16", 2.0**exponent, 0), str(rng.choice(list(FUSED)))
    fields = {"fusedActivationFunction": FUSED[activation], "potScaleInt16": True}
    call = litert(name.upper(), inputs, output, (f"{name.capitalize()}Options", fields))
    return name, {"rule": "tflite_pot", "activation": activation}, inputs, output, call


def _sum(name, rng):
    return (_sum_of_powers if rng.random() < 0.25 else _arithmetic)(name, rng)


def _sigmoid(name, rng):
    function = str(rng.choice(["logistic", "tanh"]))
    scale = float(rng.choice([2.0**-12, 2.0**-11, 2.0**-13])) if rng.random() < 0.4 else a_scale(rng, 1e-5, 2e-3)
    x, output = (codes_of(rng, (200,), "int16"), "int16", scale, 0), ((200,), "int16", 2.0**-15, 0)
    return name, {"function": function}, [x], output, litert(function.upper(), [x], output)


def _interpolate(name, rng):
    x = codes_of(rng, (200,), "int16"), "int16", a_scale(rng, 1e-5, 4e-4), 0
    output = ((200,), "int16", a_scale(rng, 1e-4, 1e-2), 0)
    given, made = (TensorSpec((200,), formats.get("int16"), *means) for means in (x[2:], output[2:]))
    stored = interpolation_table("exp", given, made).astype(np.int16), *output[1:]
    return name, {"function": "exp"}, [x, stored], output, litert("EXP", [x], output)


def _requantize(name, rng):
    names = ["int8", "uint8", "int16"]
    before, after = rng.choice(names), rng.choice(names)
    if (before, after) in (("uint8", "int16"), ("int16", "uint8")):
        after = before
    x = tensor(rng, (3, 40), str(before))
    output = ((3, 40), str(after), a_scale(rng), a_zero(rng, after))
    return name, {"rule": "tflite"}, [x], output, litert("QUANTIZE", [x], output, ("QuantizeOptions", {}))


def same_padding(size, kernel, stride):
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pool(name, rng):
    x = tensor(rng, (2, *rng.integers(3, 9, 2).tolist(), 3), str(rng.choice(["int8", "uint8", "int16"])))
    kernel, stride = rng.integers(1, 4, 2).tolist(), rng.integers(1, 4, 2).tolist()
    same = bool(rng.random() < 0.6)
    sizes = zip(x[0].shape[1:3], kernel, stride, strict=True)
    padding = [same_padding(*size) if same else (0, 0) for size in sizes]
    activation = str(rng.choice(list(FUSED)))
    attributes = {"kernel": kernel, "stride": stride, "padding": padding, "activation": activation}
    if name == "average_pool2d":
        attributes["rule"] = "tflite"
    fields = {
        "padding": 0 if same else 1,
        "strideH": stride[0],
        "strideW": stride[1],
        "filterHeight": kernel[0],
        "filterWidth": kernel[1],
        "fusedActivationFunction": FUSED[activation],
    }
    sizes = zip(x[0].shape[1:3], kernel, stride, padding, strict=True)
    spatial = [(size + sum(pads) - window) // step + 1 for size, window, step, pads in sizes]
    output = ((x[0].shape[0], *spatial, x[0].shape[3]), *x[1:])
    builtin = "AVERAGE_POOL_2D" if name == "average_pool2d" else "MAX_POOL_2D"
    return name, attributes, [x], output, litert(builtin, [x], output, ("Pool2DOptions", fields))


def _mean(name, rng):
    dtype = str(rng.choice(["int8", "uint8", "int16"]))
    shape = tuple(rng.integers(1, 8, 4).tolist())
    x = tensor(rng, shape, dtype)
    axes = [1, 2] if rng.random() < 0.5 else sorted(rng.choice(4, rng.integers(1, 4), replace=False).tolist())
    keep = bool(rng.random() < 0.5)
    made = tuple(1 if i in axes else size for i, size in enumerate(shape) if keep or i not in axes)
    output = (made, dtype, a_scale(rng), a_zero(rng, dtype))
    call = litert("MEAN", [x], output, ("ReducerOptions", {"keepDims": keep}), [np.array(axes, np.int32)])
    return name, {"axes": axes, "keepdims": keep, "rule": "tflite"}, [x], output, call


def _softmax16(name, rng):
    shape, beta = (2, int(rng.choice([2, 3, 10, 100, 257]))), float(rng.choice([1.0, 0.5, 2.0]))
    x, output = tensor(rng, shape, "int16", low=2e-5, high=2e-3), (shape, "int16", 2.0**-15, 0)
    call = litert("SOFTMAX", [x], output, ("SoftmaxOptions", {"beta": beta}))
    return name, {"beta": beta, "rule": "tflite"}, [x], output, call


def _softmax(name, rng):
    if name == "softmax" and rng.random() < 0.25:
        return _softmax16(name, rng)
    dtype = str(rng.choice(BYTES))
    shape = (2, int(rng.choice([2, 3, 10, 12, 257, 1001])))
    low = 0.001 if shape[1] < 100 else 0.02  # LiteRT aborts where a row's exponentials sum to 512 or more
    x = codes_of(rng, shape, dtype), dtype, a_scale(rng, low, 1.0), a_zero(rng, dtype)
    if name == "softmax":
        made = "int16" if dtype == "int8" and rng.random() < 0.3 else dtype
        limits = np.iinfo(made)
        beta = float(rng.choice([1.0, 0.5, 2.0]))
        output = (shape, made, 2.0**-(limits.bits), int(limits.min))
        call = litert("SOFTMAX", [x], output, ("SoftmaxOptions", {"beta": beta}))
        return name, {"beta": beta, "rule": "tflite"}, [x], output, call
    output = (shape, dtype, 1 / 16, int(np.iinfo(dtype).max))
    return name, {"rule": "tflite"}, [x], output, litert("LOG_SOFTMAX", [x], output, ("LogSoftmaxOptions", {}))


def _move(name, rng):
    shape = tuple(rng.integers(1, 6, 4).tolist())
    x = tensor(rng, shape, str(rng.choice(BYTES)))
    if name == "pad":
        padding = rng.integers(0, 3, (4, 2)).tolist()
        made = tuple(size + sum(pads) for size, pads in zip(shape, padding, strict=True))
        call = litert("PAD", [x], (made, *x[1:]), ("PadOptions", {}), [np.array(padding, np.int32)])
        return name, {"padding": padding}, [x], (made, *x[1:]), call
    if name == "transpose":
        axes = rng.permutation(4).tolist()
        made = tuple(shape[axis] for axis in axes)
        call = litert("TRANSPOSE", [x], (made, *x[1:]), ("TransposeOptions", {}), [np.array(axes, np.int32)])
        return name, {"axes": axes}, [x], (made, *x[1:]), call
    if name == "slice":
        begin = [int(rng.integers(0, size)) for size in shape]
        stride = [int(rng.choice([1, 2, 3])) for _ in shape]
        size = [1 + int(rng.integers(0, (n - 1 - b) // s + 1)) for n, b, s in zip(shape, begin, stride, strict=True)]
        end = [b + (n - 1) * s + 1 for b, n, s in zip(begin, size, stride, strict=True)]
        constants = [np.array(values, np.int32) for values in (begin, end, stride)]
        call = litert("STRIDED_SLICE", [x], (tuple(size), *x[1:]), ("StridedSliceOptions", {}), constants)
        return name, {"begin": begin, "size": size, "stride": stride}, [x], (tuple(size), *x[1:]), call
    height, width = rng.integers(1, 12, 2).tolist()
    align = bool(rng.random() < 0.4)
    half = bool(not align and rng.random() < 0.5)
    made = (shape[0], height, width, shape[3])
    options = ("ResizeNearestNeighborOptions", {"alignCorners": align, "halfPixelCenters": half})
    call = litert("RESIZE_NEAREST_NEIGHBOR", [x], (made, *x[1:]), options, [np.array([height, width], np.int32)])
    attributes = {"height": height, "width": width, "align_corners": align, "half_pixel_centers": half}
    return name, attributes, [x], (made, *x[1:]), call


def _depth_to_space(name, rng):
    size, (images, height, width, depth) = int(rng.integers(1, 4)), rng.integers(1, 5, 4).tolist()
    x = tensor(rng, (images, height, width, depth * size**2), str(rng.choice(BYTES)))
    made = ((images, height * size, width * size, depth), *x[1:])
    call = litert("DEPTH_TO_SPACE", [x], made, ("DepthToSpaceOptions", {"blockSize": size}))
    return name, {"block": (size, size)}, [x], made, call


def _concat(name, rng):
    x = tensor(rng, (2, 3, 4), "int8")
    y = codes_of(rng, (2, 5, 4), "int8"), *x[1:]
    output = ((2, 8, 4), *x[1:])
    call = litert("CONCATENATION", [x, y], output, ("ConcatenationOptions", {"axis": 1}))
    return name, {"axis": 1, "rule": "tflite"}, [x, y], output, call


def _clip(name, rng):
    dtype = str(rng.choice(["int8", "uint8"]))
    x = tensor(rng, (3, 40), dtype)
    output = ((3, 40), dtype, f32(x[2] * np.exp(rng.uniform(-1, 2))), a_zero(rng, dtype))
    builtin = str(rng.choice(["RELU", "RELU6", "RELU_N1_TO_1"]))
    least, most = {"RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}[builtin]
    return name, {"minimum": least, "maximum": most, "rule": "tflite"}, [x], output, litert(builtin, [x], output)


def _leaky_relu(name, rng):
    dtype = str(rng.choice(["int8", "uint8", "int16"]))
    x = tensor(rng, (3, 40), dtype)
    output = ((3, 40), dtype, f32(x[2] * np.exp(rng.uniform(-1, 2))), a_zero(rng, dtype))
    alpha = f32(rng.uniform(0.01, 0.9))
    return (
        name,
        {"alpha": alpha},
        [x],
        output,
        litert("LEAKY_RELU", [x], output, ("LeakyReluOptions", {"alpha": alpha})),
    )


def _prelu(name, rng):
    dtype = str(rng.choice(["int8", "uint8"]))
    x, slopes = tensor(rng, (2, 3, 4, 5), dtype), tensor(rng, (1, 1, 5), dtype)
    output = ((2, 3, 4, 5), dtype, f32(x[2] * np.exp(rng.uniform(-1, 2))), a_zero(rng, dtype))
    call = litert("PRELU", [x], output, None, [(slopes[0], slopes[2], slopes[3])])
    return name, {}, [x, slopes], output, call


def _argmax(name, rng):
    x = tensor(rng, (3, 4, 6), str(rng.choice(BYTES)))
    x = np.clip(x[0], 0, 3).astype(x[1]), *x[1:]
    axis = int(rng.integers(0, 3))
    output = (tuple(size for i, size in enumerate((3, 4, 6)) if i != axis), "int32", 1.0, 0)
    unscaled = (output[0], "int32", None, None)
    call = litert("ARG_MAX", [x], unscaled, ("ArgMaxOptions", {"outputType": 2}), [np.array(axis, np.int32)])
    return name, {"axis": axis}, [x], output, call


TABLES = {
    "logistic": ("LOGISTIC", None, "float32"),
    "tanh": ("TANH", None, "float32"),
    "hard_swish": ("HARD_SWISH", ("HardSwishOptions", {}), "integer"),
    "exp": ("EXP", ("ExpOptions", {}), "float32"),
    "gelu": ("GELU", ("GeluOptions", {"approximate": False}), "float32"),
}


def _lookup(name, rng):
    function = str(rng.choice(list(TABLES)))
    builtin, options, kernel = TABLES[function]
    dtype = "int8" if function == "exp" else str(rng.choice(BYTES))
    limits = np.iinfo(dtype)
    codes = np.arange(limits.min, limits.max + 1).astype(dtype)
    x = codes, dtype, a_scale(rng, 0.002, 0.3), a_zero(rng, dtype)
    fixed = {"logistic": (1 / 256, int(limits.min)), "tanh": (1 / 128, int(limits.min) + 128)}
    scale, zero_point = fixed.get(function, (a_scale(rng, 0.01, 0.1), a_zero(rng, dtype)))
    output = ((256,), dtype, scale, zero_point)
    made = TensorSpec((256,), formats.get(dtype), scale, zero_point)
    entries = table(function, TensorSpec((256,), formats.get(dtype), *x[2:]), made, kernel)
    stored = entries.astype(dtype), dtype, scale, zero_point
    return name, {"function": function}, [x, stored], output, litert(builtin, [x], output, options)


LITERT = {
    "clip": _clip,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "argmax": _argmax,
    "lookup": _lookup,
    **dict.fromkeys(("add", "sub"), _sum),
    "mul": _arithmetic,
    "sigmoid": _sigmoid,
    "interpolate": _interpolate,
    "requantize": _requantize,
    **dict.fromkeys(("average_pool2d", "max_pool2d"), _pool),
    "mean": _mean,
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    **dict.fromkeys(("pad", "transpose", "slice", "resize_nearest"), _move),
    "depth_to_space": _depth_to_space,
    "concat": _concat,
}


def litert_case(name, rng):
    return LITERT[name](name, rng)


# Integer tables, found by search: codes at which float32 tables, or another truncation, give something else.
MICRO_TABLES = (
    ("logistic", (0.014622757211327553, 93), (1 / 256, -128)),
    ("logistic", (0.09508106112480164, 65), (1 / 256, -128)),
    ("tanh", (0.003906188067048788, -39), (1 / 128, 0)),
    ("tanh", (0.0171036534011364, -20), (1 / 128, 0)),
    ("hard_swish", (0.010347678326070309, -57), (0.003075532615184784, -30)),
    ("hard_swish", (0.16883306205272675, 32), (0.01190994679927826, -2)),
)
# Global averages, found by search, whose codes depend on how the factor is rounded: scales, and the sums of elements.
MEANS = (
    (38, 0.003905401797965169, 0.00011834550969069824, (-57, 57)),
    (51, 0.008640056475996971, 0.005456877872347832, (-2754, -1530, -306)),
    (3, 0.2542089521884918, 1.0168358087539673, (-378, -354, -330)),
)


def micro_table(function, given, made):
    """Return TFLite Micro's codes of every int8 code."""
    builtin, options, _ = TABLES[function]
    codes = np.arange(-128, 128).astype(np.int8)
    return run_tflite_micro(codes, builtin, ((256,), "int8", *given), ((256,), "int8", *made), options)


def mean_of_sums(count, scale, output_scale, sums):
    """Return (inputs, output, call) of a global average whose elements have these sums."""
    codes = np.array([[total // count + (i < total % count) for i in range(count)] for total in sums], np.int8)
    x = codes.reshape(len(sums), 1, count, 1), "int8", scale, 0
    output = ((len(sums), 1, 1, 1), "int8", output_scale, 0)
    node = ("com.microsoft:QLinearGlobalAveragePool", ["x0", "0s", "0z", "1s", "1z"], "out", {"channels_last": 1})
    return [x], output, onnxruntime([node], [x], output)


# -- ONNX Runtime -----------------------------------------------------------------------------------------------------


def factors(tensors):
    """Return initializers "<i>s", "<i>z" for scales and zero points; the last tensor is the output."""
    constants = {}
    for i, (_, dtype, scale, zero_point) in enumerate(tensors):
        constants |= {f"{i}s": np.float32(scale), f"{i}z": np.array(zero_point, dtype)}
    return constants


def onnxruntime(nodes, inputs, output):
    arrays = {f"x{i}": x[0] for i, x in enumerate(inputs)}
    return partial(run_onnxruntime, arrays, nodes, output[1], factors([*inputs, output]))


def _ort_arithmetic(name, rng):
    dtype = str(rng.choice(BYTES))
    shape = tuple(rng.integers(1, 7, 3).tolist())
    other = shape if rng.random() < 0.6 else (1,) if rng.random() < 0.5 else shape[-1:]
    a, b = tensor(rng, shape, dtype), tensor(rng, other, dtype)
    scale = a_scale(rng, 0.02, 2.0) if name != "mul" else f32(a[2] * b[2] * np.exp(rng.uniform(1, 6)))
    output = (shape, dtype, scale, a_zero(rng, dtype))
    kind = "com.microsoft:QLinearAdd" if name == "add" else "com.microsoft:QLinearMul"
    names = ["x0", "0s", "0z", "x1", "1s", "1z", "2s", "2z"]
    call = onnxruntime([(kind, names, "out", {})], [a, b], output)
    return name, {"rule": "onnxruntime"}, [a, b], output, call


def _ort_requantize(name, rng):
    x = tensor(rng, (3, 40), str(rng.choice(BYTES)))
    made = str(rng.choice(BYTES))
    output = ((3, 40), made, a_scale(rng), a_zero(rng, made))
    nodes = [
        ("DequantizeLinear", ["x0", "0s", "0z"], "real", {}),
        ("QuantizeLinear", ["real", "1s", "1z"], "out", {}),
    ]
    return name, {"rule": "onnxruntime"}, [x], output, onnxruntime(nodes, [x], output)


def _ort_pool(name, rng):
    _, attributes, [x], output, _ = _pool("average_pool2d", rng)
    dtype = "int8" if x[1] == "int16" else x[1]
    x = tensor(rng, x[0].shape, dtype)
    output = (output[0], dtype, a_scale(rng), a_zero(rng, dtype))
    include = bool(rng.random() < 0.5)
    (top, bottom), (left, right) = attributes["padding"]
    fields = {
        "kernel_shape": attributes["kernel"],
        "strides": attributes["stride"],
        "pads": [top, left, bottom, right],
        "count_include_pad": int(include),
        "channels_last": 1,
    }
    call = onnxruntime(
        [("com.microsoft:QLinearAveragePool", ["x0", "0s", "0z", "1s", "1z"], "out", fields)], [x], output
    )
    window = {key: attributes[key] for key in ("kernel", "stride", "padding")}
    return name, window | {"rule": "onnxruntime", "count_include_pad": include}, [x], output, call


def _ort_mean(name, rng):
    dtype = str(rng.choice(BYTES))
    shape = tuple(rng.integers(1, 10, 4).tolist())
    x = tensor(rng, shape, dtype)
    output = ((shape[0], 1, 1, shape[3]), dtype, a_scale(rng), a_zero(rng, dtype))
    node = ("com.microsoft:QLinearGlobalAveragePool", ["x0", "0s", "0z", "1s", "1z"], "out", {"channels_last": 1})
    return name, {"axes": [1, 2], "rule": "onnxruntime"}, [x], output, onnxruntime([node], [x], output)


def _ort_concat(name, rng):
    dtype = str(rng.choice(BYTES))
    x, y = tensor(rng, (2, 3, 4), dtype), tensor(rng, (2, 5, 4), dtype)
    output = ((2, 8, 4), dtype, a_scale(rng), a_zero(rng, dtype))
    names = ["2s", "2z", "x0", "0s", "0z", "x1", "1s", "1z"]
    call = onnxruntime([("com.microsoft:QLinearConcat", names, "out", {"axis": 1})], [x, y], output)
    return name, {"axis": 1, "rule": "onnxruntime"}, [x, y], output, call


def _ort_leaky_relu(name, rng):
    x = tensor(rng, (3, 40), str(rng.choice(BYTES)))
    output = ((3, 40), x[1], f32(x[2] * np.exp(rng.uniform(-1, 2))), a_zero(rng, x[1]))
    alpha = f32(rng.uniform(0.01, 0.9))
    node = ("com.microsoft:QLinearLeakyRelu", ["x0", "0s", "0z", "1s", "1z"], "out", {"alpha": alpha})
    return name, {"alpha": alpha, "rule": "onnxruntime"}, [x], output, onnxruntime([node], [x], output)


ONNXRUNTIME = {
    "leaky_relu": _ort_leaky_relu,
    **dict.fromkeys(("add", "mul"), _ort_arithmetic),
    "requantize": _ort_requantize,
    "average_pool2d": _ort_pool,
    "mean": _ort_mean,
    "concat": _ort_concat,
}


def onnxruntime_case(name, rng):
    return ONNXRUNTIME[name](name, rng)
