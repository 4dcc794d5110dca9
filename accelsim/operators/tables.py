"""Tables for the operator ``lookup``: the output's code for every code of the input (docs/operators.md, Tables).

A trace stores the table, so that a run never depends on how it was made. TFLite makes most tables in float32; of
logistic, tanh and hard swish it also has integer kernels, which as functions of one 8-bit code are tables too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import FormatError, did_you_mean
from accelsim.operators.common import check_integers
from accelsim.operators.fixed_exp import LOGISTIC_BITS, input_radius, logistic, tanh
from accelsim.operators.fixed_point import divide_by_power, multiply, quantize_multiplier
from accelsim.operators.spec import Reals, TensorSpec

Float32 = np.float32
Kernel = Literal["float32", "integer", "onnxruntime"]


def _gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def _gelu_tanh(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


FUNCTIONS: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": lambda x: float(math.ceil(x)),
    "cos": math.cos,
    "elu": lambda x: x if x >= 0 else math.expm1(x),
    "erf": math.erf,
    "exp": math.exp,
    "floor": lambda x: float(math.floor(x)),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "hard_sigmoid": lambda x: min(max(x + 3, 0.0), 6.0) / 6,
    "hard_swish": lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    "log": lambda x: math.log(x) if x > 0 else -math.inf,
    "logistic": _logistic,
    "mish": lambda x: x * math.tanh(_softplus(x)),
    "negate": lambda x: -x,
    "reciprocal": lambda x: 1 / x if x else math.inf,
    "relu": lambda x: max(x, 0.0),
    "rsqrt": lambda x: 1 / math.sqrt(x) if x > 0 else math.inf,
    "sign": lambda x: float((x > 0) - (x < 0)),
    "silu": lambda x: x * _logistic(x),
    "sin": math.sin,
    "softplus": _softplus,
    "sqrt": lambda x: math.sqrt(max(x, 0.0)),
    "square": lambda x: x * x,
    "tanh": math.tanh,
}
"""The functions by name, in float64; where a function has no value, the limit from above."""


def function_named(name: str) -> Callable[[float], float]:
    """Return a function of FUNCTIONS; FormatError for unknown ones."""
    if name not in FUNCTIONS:
        raise FormatError(f"no function {name!r}{did_you_mean(name, FUNCTIONS)}; use one of {', '.join(FUNCTIONS)}")
    return FUNCTIONS[name]


def real_function(name: str, values: Reals) -> Reals:
    """Return the function of every value, float64; overflow gives infinity."""
    function = function_named(name)
    return np.array([_of(function, value) for value in values.ravel().tolist()]).reshape(values.shape)


def _of(function: Callable[[float], float], value: float) -> float:
    try:
        return function(value)
    except OverflowError:
        return math.inf


def table(function: str, x: TensorSpec, output: TensorSpec, kernel: Kernel = "float32") -> NDArray[np.int32]:
    """Return the codes of `function` of every code of `x`, smallest first: int32 [2**bits].

    function : a name in FUNCTIONS
    x, output : what codes mean; at most 8 bits of input. Shapes have no part in it
    kernel : "float32": TFLite's tables; "integer": TFLite's integer kernels. LiteRT's reference kernels are integer for
        "hard_swish" only, TFLite Micro's for "logistic" and "tanh" too; "onnxruntime": float32, rounded as
        QuantizeLinear does

    Raises FormatError : unknown functions, formats that are too wide, no integer kernel of that name

    >>> from accelsim import formats
    >>> int8 = formats.get("int8")
    >>> codes = table("tanh", TensorSpec((1,), int8, 1 / 16, 0), TensorSpec((1,), int8, 1 / 128, 0))
    >>> codes[[0, 128, 144]].tolist()  # of codes -128, 0 and 16: tanh(-8), tanh(0), tanh(1) = 0.7616, times 128
    [-128, 0, 97]
    """
    function_named(function)
    check_integers(x, bits=8)
    check_integers(output)
    differences = np.arange(x.format.code_low, x.format.code_high + 1, dtype=np.int64) - x.zero_point
    low, high = output.format.code_low, output.format.code_high
    if kernel == "integer":
        if function not in _INTEGER_KERNELS:
            raise FormatError(f"there is no integer kernel of {function!r}, only of {', '.join(_INTEGER_KERNELS)}")
        codes = _INTEGER_KERNELS[function](differences, x, output)
    else:
        codes = _float_codes(function, differences, x, output, kernel)
    return np.clip(codes, low, high).astype(np.int32)


def _float_codes(
    function: str, differences: NDArray[np.int64], x: TensorSpec, output: TensorSpec, kernel: Kernel
) -> NDArray[np.int64]:
    arguments = (Float32(x.scale) * differences.astype(np.float32)).astype(np.float64)
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and clamps
        reals = real_function(function, arguments).astype(np.float32)
        quotients = reals / Float32(output.scale)
        products = (reals * (Float32(1) / Float32(output.scale))).astype(np.float64)
    if kernel == "onnxruntime":
        steps = np.rint(quotients).astype(np.float64)
    else:
        steps = np.sign(products) * np.floor(np.abs(products) + 0.5)
    return np.asarray(np.clip(steps, -(2.0**40), 2.0**40).astype(np.int64) + output.zero_point)


def _argument(differences: NDArray[np.int64], x: TensorSpec) -> tuple[NDArray[np.int64], NDArray[np.bool], int]:
    """Return (arguments in Q4.27, which are inside its range, the smallest magnitude outside)."""
    multiplier, shift = quantize_multiplier(x.scale * (1 << (31 - LOGISTIC_BITS)))
    radius = input_radius(LOGISTIC_BITS, shift)
    inside = np.abs(differences) < radius
    return multiply(np.where(inside, differences, 0), multiplier, shift), inside, radius


def _logistic_codes(differences: NDArray[np.int64], x: TensorSpec, output: TensorSpec) -> NDArray[np.int64]:
    _need(output, 1 / 256, output.format.code_low, "logistic")
    arguments, inside, _ = _argument(differences, x)
    codes = divide_by_power(logistic(arguments), 31 - 8) + output.zero_point
    return np.where(inside, codes, np.where(differences > 0, output.format.code_high, output.format.code_low))


def _tanh_codes(differences: NDArray[np.int64], x: TensorSpec, output: TensorSpec) -> NDArray[np.int64]:
    _need(output, 1 / 128, output.format.code_low + 128, "tanh")
    arguments, inside, _ = _argument(differences, x)
    codes = divide_by_power(tanh(arguments), 31 - 7) + output.zero_point
    return np.where(inside, codes, np.where(differences > 0, output.format.code_high, output.format.code_low))


def _need(output: TensorSpec, scale: float, zero_point: int, function: str) -> None:
    if (output.format.lane_bits, output.scale, output.zero_point) != (8, scale, zero_point):
        raise FormatError(
            f"the integer kernel of {function!r} makes 8-bit codes with scale 1/{round(1 / scale)} and zero point "
            f"{zero_point}; found {output.format.name}, {output.scale!r}, {output.zero_point}"
        )


def _hard_swish_codes(differences: NDArray[np.int64], x: TensorSpec, output: TensorSpec) -> NDArray[np.int64]:
    """Return x * relu6(x + 3) / 6 in 16-bit fixed point: the factor in [0, 1) times x in output steps."""
    fine_scale = Float32(1 / 128) * Float32(x.scale)
    output_multiplier, output_shift = quantize_multiplier(float(fine_scale / Float32(output.scale)))
    factor_multiplier, factor_shift = quantize_multiplier(float(fine_scale / (Float32(3) / Float32(1 << 15))))
    if output_shift > 0:
        raise FormatError(f"output scale {output.scale:g} is too small for hard_swish of input scale {x.scale:g}")
    fine = differences << 7
    in_output_steps = _high_product16(fine, _sixteen_bits(output_multiplier))
    factor = _saturate16(fine << max(factor_shift - 1, 0))
    factor = _high_product16(factor, _sixteen_bits(factor_multiplier))
    if factor_shift > 0:
        factor = _saturate16(factor << 1)
    factor = divide_by_power(factor, max(-factor_shift, 0))
    factor = (factor + (1 << 15)) >> 1
    product = factor * in_output_steps
    truncated = np.sign(product) * (np.abs(product) >> 15)
    return divide_by_power(truncated, -output_shift) + output.zero_point


def _sixteen_bits(multiplier: int) -> int:
    return min((multiplier + (1 << 15)) >> 16, (1 << 15) - 1)


def _high_product16(a: NDArray[np.int64], b: int) -> NDArray[np.int64]:
    return _saturate16((a * b + (1 << 14)) >> 15)


def _saturate16(x: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(np.clip(x, -(1 << 15), (1 << 15) - 1))


_INTEGER_KERNELS: dict[str, Callable[[NDArray[np.int64], TensorSpec, TensorSpec], NDArray[np.int64]]] = {
    "logistic": _logistic_codes,
    "tanh": _tanh_codes,
    "hard_swish": _hard_swish_codes,
}
