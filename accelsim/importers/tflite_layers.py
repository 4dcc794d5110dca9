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
    x, weight = context.tensor(operator, 0), constant(weight_of(operator, context))
    if len(x.shape) != 4 or len(weight.shape) != 4 or x.shape[3] % weight.shape[3]:
        raise NotSupported(f"input {x.shape} and weight {weight.shape} do not fit together")
    return [_convolution(operator, context, weight, x.shape[3] // weight.shape[3])]


def depthwise_conv_2d(operator: FileOperator, context: Context) -> list[Call]:
    """DEPTHWISE_CONV_2D: weight [1, height, width, channels * multiplier], output channel c * multiplier + i sees
    input channel c: a convolution in as many groups as there are channels.
    """
    x, stored = context.tensor(operator, 0), constant(weight_of(operator, context))
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
    x, weight, output = context.tensor(operator, 0), constant(weight_of(operator, context)), context.output(operator)
    meaning(x)
    if operator.options["WeightsFormat"]:
        raise NotSupported("its weights are shuffled, a layout of one kernel only")
    if len(weight.shape) != 2 or math.prod(x.shape) % weight.shape[1]:
        raise NotSupported(f"input {x.shape} and weight {weight.shape} do not fit together")
    inputs, calls = weight.shape[1], []
    arguments: dict[str, Any] = {"weight": weight, **finish(operator, context, weight, full=True)}
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
    """BATCH_MATMUL: leading dimensions broadcast; one matrix of constants for all is the weight of a linear layer."""
    x, y, output = context.tensor(operator, 0), context.tensor(operator, 1), context.output(operator)
    if x.data is not None:
        raise NotSupported(f"its first operand {x.name!r} is a constant; exchange the two, transposed")
    if min(len(x.shape), len(y.shape)) < 2:
        raise NotSupported(f"multiplies {x.shape} by {y.shape}; matrices have 2 dimensions or more")
    if "INT16" in (x.dtype, y.dtype) or x.dtype != output.dtype:
        raise NotSupported(f"multiplies {x.dtype} by {y.dtype} to {output.dtype}; accelsim has TFLite's rule for INT8")
    meaning(x)
    calls, source = _transposed_first(operator, context)
    if y.scale.size != 1:
        raise NotSupported(f"its second operand {y.name!r} has {y.scale.size} scales; the kernel takes one")
    scale = float(np.float32(x.scale[0]) * np.float32(y.scale[0])) / meaning(output)["scale"]
    finish = {**meaning(output), **_factors(np.array(scale))}
    transposed = bool(operator.options["AdjY"])
    if y.data is not None and math.prod(y.shape[:-2]) == 1:
        matrix = constant(y)
        codes = matrix.codes.reshape(y.shape[-2:])
        rows = codes if transposed else codes.T
        weight = make_qtensor(np.ascontiguousarray(rows), matrix.format, matrix.scale, matrix.zero_point)
        calls.append(Call("linear", (source,), {"weight": weight, **finish}, output.index))
        return calls
    calls, first, other = _equal_ranks(operator, context, calls, source)
    return [*calls, Call("matmul", (first, other), {"transpose_other": transposed, **finish}, output.index)]


def _equal_ranks(
    operator: FileOperator, context: Context, calls: list[Call], first: int | str
) -> tuple[list[Call], int | str, int | QTensor]:
    """Return the operands of a product with equally many dimensions, and the calls before it."""
    x, y = context.tensor(operator, 0), context.tensor(operator, 1)
    rank = max(len(x.shape), len(y.shape))
    if y.data is None and len(y.shape) < rank:
        raise NotSupported(f"its second operand {y.shape} has fewer dimensions than its first, {x.shape}")
    of_constants = y.data is not None and (len(y.shape) < rank or y.shape[0] == 1)
    if len(x.shape) < rank or rank < 3 or not (of_constants or (y.data is None and x.shape[0] == y.shape[0])):
        context.refuse_batch(f"multiplies {x.shape} by {y.shape}")
    if len(x.shape) < rank:
        matrix = x.shape[-2:][::-1] if operator.options["AdjX"] else x.shape[-2:]
        wide = (*[1] * (rank - len(x.shape)), *x.shape[:-2], *matrix)
        calls = [*calls, Call("vector", (first,), {"operator": "reshape", "attributes": {"shape": wide}, **meaning(x)})]
        first = PREVIOUS
    if y.data is None:
        meaning(y)
        return calls, first, y.index
    stored = constant(y)
    codes = stored.codes.reshape(*[1] * (rank - len(y.shape)), *y.shape)
    return calls, first, make_qtensor(codes, stored.format, stored.scale, stored.zero_point)


def _transposed_first(operator: FileOperator, context: Context) -> tuple[list[Call], int | str]:
    """Return the first operand as the layer takes it, and the calls that make it so."""
    x = context.tensor(operator, 0)
    if not operator.options["AdjX"]:
        return [], x.index
    rank = len(x.shape)
    if rank == 2:
        context.refuse_batch("transposes its first operand, which has no batch")
    axes = (*range(rank - 2), rank - 1, rank - 2)
    return [Call("vector", (x.index,), {"operator": "transpose", "attributes": {"axes": axes}, **meaning(x)})], PREVIOUS


def _convolution(operator: FileOperator, context: Context, weight: QTensor, groups: int) -> Call:
    options = operator.options
    arguments = {
        "weight": weight,
        "stride": (options["StrideH"], options["StrideW"]),
        "dilation": (options["DilationHFactor"], options["DilationWFactor"]),
        "padding": options["Padding"].lower(),
        "groups": groups,
        **finish(operator, context, weight),
    }
    return Call("conv2d", (context.index(operator, 0),), arguments, context.output(operator).index)


def weight_of(operator: FileOperator, context: Context, position: int = 1) -> FileTensor:
    """Return a layer's weight: the constant input at `position`."""
    weight = context.tensor(operator, position)
    if weight.data is None:
        raise NotSupported(f"its weight {weight.name!r} is computed while the model runs")
    return weight


def finish(
    operator: FileOperator, context: Context, weight: QTensor, *, full: bool = False, data: int = 0, bias: int = 2
) -> dict[str, Any]:
    """Return what the builder has to know of a layer after its sums.

    full : fully connected, whose reference kernel multiplies in float64
    data, bias : positions of these inputs
    """
    x, output = context.tensor(operator, data), context.output(operator)
    meaning(x)
    after = {**meaning(output), **fused(operator, output)}
    added = context.optional(operator, bias)
    if added is not None:
        if added.data is None or added.dtype not in ("INT32", "INT64"):
            raise NotSupported(
                f"its bias {added.name!r} is {added.dtype}{'' if added.data is not None else ', computed'}"
            )
        if x.dtype == "INT16" and added.dtype == "INT32" and operator.options.get("QuantizedBiasType") != "INT32":
            raise NotSupported(
                f"its bias {added.name!r} is INT32, but its options do not say so: kernels would read INT64"
            )
        after["bias"] = added.data.astype(np.int64).reshape(-1)
    if x.dtype != output.dtype:
        raise NotSupported(f"takes {x.dtype} and makes {output.dtype}; TFLite's kernels keep the type")
    if weight.channel_axis not in (None, 0):
        raise NotSupported(f"its weight has scales along axis {weight.channel_axis}, which is not its outputs'")
    if x.dtype == "UINT8" and context.semantics == MICRO:
        raise NotSupported("is of the old uint8 scheme, for which TFLite Micro has no kernels")
    scale = _real_factor(x, weight, output, float32_product=x.dtype == "UINT8" and not full)
    if full and context.semantics != MICRO:
        return {**after, "rounding": FLOAT64, "requantization_scale": scale}
    if x.dtype == "INT16" and (added is None or added.dtype == "INT64"):
        return {**after, "rounding": INT64_SUMS, "requantization_scale": scale}
    return {**after, **_factors(scale)}


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
