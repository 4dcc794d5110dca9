"""The layers of the PE array that TFLite has, and how each asks to be requantized (docs/numerics.md)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.formats import QTensor, make_qtensor
from accelsim.importers.graph import NotSupported
from accelsim.importers.tflite_file import FileOperator, FileTensor
from accelsim.importers.tflite_lowering import (
    FORMATS,
    MICRO,
    PREVIOUS,
    Call,
    Context,
    constant,
    fused,
    meaning,
)
from accelsim.operators.fixed_point import quantize_multiplier

FIXED_POINT = "double_half_up_then_away"
INT64_SUMS = "half_up_int16_multiplier"
FLOAT64 = "float64_half_away"
LARGEST_EXPONENT = 30


def conv_2d(operator: FileOperator, context: Context) -> list[Call]:
    """CONV_2D: weight [out, height, width, in / groups]; the groups follow from the channels."""
    x, weight = context.tensor(operator, 0), constant(_weight(operator, context))
    if len(x.shape) != 4 or len(weight.shape) != 4 or x.shape[3] % weight.shape[3]:
        raise NotSupported(f"input {x.shape} and weight {weight.shape} do not fit together")
    return [_convolution(operator, context, weight, x.shape[3] // weight.shape[3])]


def depthwise_conv_2d(operator: FileOperator, context: Context) -> list[Call]:
    """DEPTHWISE_CONV_2D: weight [1, height, width, channels * multiplier], output channel c * multiplier + i sees
    input channel c: a convolution in as many groups as there are channels.
    """
    x, stored = context.tensor(operator, 0), constant(_weight(operator, context))
    fits = len(x.shape) == len(stored.shape) == 4 and stored.shape[0] == 1 and stored.shape[3] % x.shape[3] == 0
    if not fits:
        raise NotSupported(f"input {x.shape} and weight {stored.shape} do not fit together")
    if stored.channel_axis not in (None, 3):
        raise NotSupported(f"its weight has scales along axis {stored.channel_axis}; the channels are axis 3")
    weight = make_qtensor(
        np.ascontiguousarray(stored.codes.transpose(3, 1, 2, 0)),
        stored.format,
        stored.scale,
        stored.zero_point,
        channel_axis=None if stored.channel_axis is None else 0,
    )
    return [_convolution(operator, context, weight, x.shape[3])]


def fully_connected(operator: FileOperator, context: Context) -> list[Call]:
    """FULLY_CONNECTED: weight [out, in]; the input is taken as rows of `in`, whatever its shape."""
    x, weight, output = context.tensor(operator, 0), constant(_weight(operator, context)), context.output(operator)
    meaning(x)
    if operator.options["WeightsFormat"]:
        raise NotSupported("its weights are shuffled, a layout of one kernel only")
    if len(weight.shape) != 2 or math.prod(x.shape) % weight.shape[1]:
        raise NotSupported(f"input {x.shape} and weight {weight.shape} do not fit together")
    inputs, calls = weight.shape[1], []
    arguments: dict[str, Any] = {"weight": weight, **_finish(operator, context, weight, full=True)}
    source: int | str = x.index
    if len(x.shape) >= 2 and math.prod(x.shape[1:]) == inputs:
        arguments["flatten"] = len(x.shape) > 2
    elif not (len(x.shape) >= 2 and x.shape[-1] == inputs and operator.options["KeepNumDims"]):
        rows = context.batch * math.prod(x.shape) // inputs
        calls.append(
            Call("vector", (source,), {"operator": "reshape", "attributes": {"shape": (rows, inputs)}, **meaning(x)})
        )
        source = PREVIOUS
    calls.append(Call("linear", (source,), arguments, output.index))
    return _in_declared_shape(calls, (*_rows(x, inputs, operator), weight.shape[0]), output, context)


def batch_matmul(operator: FileOperator, context: Context) -> list[Call]:
    """BATCH_MATMUL of two activations."""
    x, y, output = context.tensor(operator, 0), context.tensor(operator, 1), context.output(operator)
    if operator.options["AdjX"]:
        raise NotSupported("its first operand is transposed (adj_x)")
    if x.data is not None or y.data is not None:
        raise NotSupported("one of its operands is a constant; only activations are multiplied")
    if len(x.shape) != len(y.shape) or x.shape[:-2] != y.shape[:-2]:
        raise NotSupported(f"operands {x.shape} and {y.shape} would broadcast")
    if len(x.shape) < 3:
        context.refuse_batch("its operands have no batch")
    scale = float(np.float32(x.scale[0]) * np.float32(y.scale[0])) / float(output.scale[0])
    finish = {**meaning(output), **_factors(np.array(scale))}
    arguments = {"transpose_other": bool(operator.options["AdjY"]), **finish}
    return [Call("matmul", (x.index, y.index), arguments, output.index)]


def _convolution(operator: FileOperator, context: Context, weight: QTensor, groups: int) -> Call:
    options = operator.options
    arguments = {
        "weight": weight,
        "stride": (options["StrideH"], options["StrideW"]),
        "dilation": (options["DilationHFactor"], options["DilationWFactor"]),
        "padding": options["Padding"].lower(),
        "groups": groups,
        **_finish(operator, context, weight, full=False),
    }
    return Call("conv2d", (context.index(operator, 0),), arguments, context.output(operator).index)


def _weight(operator: FileOperator, context: Context) -> FileTensor:
    x, weight = context.tensor(operator, 0), context.tensor(operator, 1)
    if weight.data is None:
        raise NotSupported(f"its weight {weight.name!r} is computed while the model runs")
    if x.dtype == "FLOAT32" and weight.dtype in FORMATS:
        raise NotSupported(f"is hybrid: {weight.dtype} weights, FLOAT32 activations; quantize the model fully")
    return weight


def _finish(operator: FileOperator, context: Context, weight: QTensor, *, full: bool) -> dict[str, Any]:
    """Return what the builder has to know of a layer after its sums.

    full : fully connected, whose reference kernel multiplies in float64
    """
    x, output = context.tensor(operator, 0), context.output(operator)
    meaning(x)
    finish = {**meaning(output), **fused(operator, output)}
    bias = context.optional(operator, 2)
    if bias is not None:
        if bias.data is None or bias.dtype not in ("INT32", "INT64"):
            raise NotSupported(f"its bias {bias.name!r} is {bias.dtype}{'' if bias.data is not None else ', computed'}")
        if x.dtype == "INT16" and bias.dtype == "INT32" and operator.options.get("QuantizedBiasType") != "INT32":
            raise NotSupported(
                f"its bias {bias.name!r} is INT32, but its options do not say so: kernels would read INT64"
            )
        finish["bias"] = bias.data.astype(np.int64).reshape(-1)
    if x.dtype != output.dtype:
        raise NotSupported(f"takes {x.dtype} and makes {output.dtype}; TFLite's kernels keep the type")
    if weight.channel_axis not in (None, 0):
        raise NotSupported(f"its weight has scales along axis {weight.channel_axis}, which is not its outputs'")
    if x.dtype == "UINT8" and context.semantics == MICRO:
        raise NotSupported("is of the old uint8 scheme, for which TFLite Micro has no kernels")
    scale = _real_factor(x, weight, output, float32_product=x.dtype == "UINT8" and not full)
    if full and context.semantics != MICRO:
        return {**finish, "rounding": FLOAT64, "requantization_scale": scale}
    if x.dtype == "INT16" and (bias is None or bias.dtype == "INT64"):
        return {**finish, "rounding": INT64_SUMS, "requantization_scale": scale}
    return {**finish, **_factors(scale)}


def _real_factor(x: FileTensor, weight: QTensor, output: FileTensor, *, float32_product: bool) -> NDArray[np.float64]:
    """Return s_x * s_w / s_y in float64. `float32_product`: s_x * s_w is rounded to float32 first, as convolutions of
    uint8 do.
    """
    product = np.asarray(x.scale[0] * weight.scale)
    if float32_product:
        product = product.astype(np.float32).astype(np.float64)
    return np.asarray(product / output.scale[0])


def _factors(scale: NDArray[np.float64]) -> dict[str, Any]:
    pairs = [quantize_multiplier(float(each)) for each in scale.reshape(-1)]
    multiplier, exponent = (np.array(column).reshape(scale.shape) for column in zip(*pairs, strict=True))
    if np.any(exponent > LARGEST_EXPONENT):
        raise NotSupported(f"its scales ask for a factor of {scale.max():g}; TFLite's kernels take less than 2**30")
    return {"rounding": FIXED_POINT, "multiplier": multiplier, "shift": 31 - exponent}


def _rows(x: FileTensor, inputs: int, operator: FileOperator) -> tuple[int, ...]:
    """Return the leading dimensions of a fully connected layer's output, as the kernel has them."""
    keeps = operator.options["KeepNumDims"] and x.shape[-1] == inputs
    return x.shape[:-1] if keeps else (math.prod(x.shape) // inputs,)


def _in_declared_shape(calls: list[Call], shape: tuple[int, ...], output: FileTensor, context: Context) -> list[Call]:
    """Return the calls with a last one that reshapes, where the file declares other dimensions than the kernel's."""
    if shape == output.shape or math.prod(shape) != math.prod(output.shape):
        return calls  # a contradiction is found when the trace is whole
    *before, last = calls
    target = {"operator": "reshape", "attributes": {"shape": context.batched(output.shape)}, **meaning(output)}
    return [*before, Call(last.method, last.inputs, last.arguments), Call("vector", (PREVIOUS,), target, output.index)]
