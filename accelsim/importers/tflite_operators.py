"""The operators of the vector unit that TFLite has, as operators of accelsim (docs/operators.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from accelsim.formats import QTensor
from accelsim.importers.graph import NotSupported
from accelsim.importers.tflite_file import FileOperator
from accelsim.importers.tflite_lowering import MICRO, PREVIOUS, Call, Context, meaning, same_meaning
from accelsim.operators.sums import is_power_of_two
from accelsim.trace.shapes import same_padding

ACTIVATIONS = {"NONE": "none", "RELU": "relu", "RELU6": "relu6", "RELU_N1_TO_1": "relu_n1_to_1"}


def reshape(operator: FileOperator, context: Context) -> list[Call]:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the shape that the file declares for the output."""
    return _moved("reshape", operator, context, {"shape": context.batched(context.output(operator).shape)})


def add(operator: FileOperator, context: Context) -> list[Call]:
    """ADD."""
    rule = _sum_rule(operator, context)
    if rule == "tflite_pot" and context.tensor(operator, 0).shape != context.tensor(operator, 1).shape:
        raise NotSupported("broadcasts with pot_scale_int16, which LiteRT's kernel does not do")
    return _elementwise("add", operator, context, rule)


def sub(operator: FileOperator, context: Context) -> list[Call]:
    """SUB."""
    return _elementwise("sub", operator, context, _sum_rule(operator, context))


def _sum_rule(operator: FileOperator, context: Context) -> str:
    """Return how LiteRT adds int16: where all scales are powers of two and the model says so, by shifts alone."""
    tensors = [context.tensor(operator, 0), context.tensor(operator, 1), context.output(operator)]
    means = [meaning(tensor) for tensor in tensors]
    powers = all(each["output"] == "int16" and is_power_of_two(each["scale"]) for each in means)
    by_shifts = operator.options["PotScaleInt16"] and powers and context.semantics != MICRO
    return "tflite_pot" if by_shifts else "tflite"


def mul(operator: FileOperator, context: Context) -> list[Call]:
    """MUL; TFLite Micro computes the factor of its scales in another precision."""
    return _elementwise("mul", operator, context, "tflite_micro" if context.semantics == MICRO else "tflite")


def average_pool(operator: FileOperator, context: Context) -> list[Call]:
    """AVERAGE_POOL_2D."""
    return _pool("average_pool2d", operator, context, {"rule": "tflite"})


def max_pool(operator: FileOperator, context: Context) -> list[Call]:
    """MAX_POOL_2D."""
    return _pool("max_pool2d", operator, context, {})


def mean(operator: FileOperator, context: Context) -> list[Call]:
    """MEAN over constant axes."""
    rank = len(context.tensor(operator, 0).shape)
    axes = _axes(context.integers(operator, 1), rank)
    if 0 in axes:
        context.refuse_batch("averages over the first axis")
    keepdims = bool(operator.options["KeepDims"])
    return vector("mean", operator, context, {"axes": axes, "keepdims": keepdims, "rule": "tflite"})


def softmax(operator: FileOperator, context: Context) -> list[Call]:
    """SOFTMAX over the last axis."""
    if len(context.tensor(operator, 0).shape) == 1:
        context.refuse_batch("its only axis sums to 1")
    return vector("softmax", operator, context, {"axis": -1, "beta": operator.options["Beta"], "rule": "tflite"})


def log_softmax(operator: FileOperator, context: Context) -> list[Call]:
    """LOG_SOFTMAX over the last axis."""
    if len(context.tensor(operator, 0).shape) == 1:
        context.refuse_batch("its only axis sums to 1")
    return vector("log_softmax", operator, context, {"axis": -1, "rule": "tflite"})


def transpose(operator: FileOperator, context: Context) -> list[Call]:
    """TRANSPOSE by a constant permutation."""
    axes = tuple(int(axis) for axis in context.integers(operator, 1).reshape(-1))
    if axes[:1] != (0,):
        context.refuse_batch(f"its permutation {axes} moves the first axis")
    return _moved("transpose", operator, context, {"axes": axes})


def pad(operator: FileOperator, context: Context) -> list[Call]:
    """PAD with what means 0, PADV2 with a constant."""
    rank = len(context.tensor(operator, 0).shape)
    pairs = context.integers(operator, 1)
    if pairs.shape != (rank, 2) or np.any(pairs < 0):
        raise NotSupported(f"its paddings {pairs.tolist()} are not (before, after) of {rank} axes")
    if np.any(pairs[0]):
        context.refuse_batch("pads the first axis")
    attributes: dict[str, Any] = {"padding": tuple((int(before), int(after)) for before, after in pairs)}
    if len(operator.inputs) > 2:
        attributes["code"] = _code(operator, context, 2)
    return _moved("pad", operator, context, attributes)


def concatenation(operator: FileOperator, context: Context) -> list[Call]:
    """CONCATENATION of tensors that mean the same."""
    axis, rank = operator.options["Axis"], len(context.output(operator).shape)
    if not -rank <= axis < rank:
        raise NotSupported(f"axis {axis} is none of {rank} dimensions")
    if axis % rank == 0 or any(context.tensor(operator, i).data is not None for i in range(len(operator.inputs))):
        context.refuse_batch("concatenates along the first axis, or constants")
    if _fused(operator) != "none":
        raise NotSupported(f"has the fused activation {operator.options['FusedActivationFunction']}")
    attributes = {"axis": axis % rank, "rule": "tflite"}
    return _moved("concat", operator, context, attributes, inputs=len(operator.inputs))


def strided_slice(operator: FileOperator, context: Context) -> list[Call]:
    """STRIDED_SLICE with constant bounds, then the reshape that drops axes of one element."""
    shape, options = context.tensor(operator, 0).shape, operator.options
    if options["EllipsisMask"] or options["NewAxisMask"]:
        raise NotSupported("has an ellipsis or a new axis")
    bounds = [context.integers(operator, position).reshape(-1) for position in (1, 2, 3)]
    if any(bound.size != len(shape) for bound in bounds):
        raise NotSupported(f"its bounds are not for {len(shape)} axes")
    picks: list[range] = []
    for axis, size in enumerate(shape):
        start, stop, step = (int(bound[axis]) for bound in bounds)
        if step == 0:
            raise NotSupported(f"its step along axis {axis} is 0")
        drop = options["ShrinkAxisMask"] >> axis & 1
        begin = None if options["BeginMask"] >> axis & 1 else start
        end = None if options["EndMask"] >> axis & 1 else stop
        if drop:
            begin = start % size
            end, step = begin + 1, 1
        picks.append(range(size)[begin:end:step])
    return _sliced(operator, context, context.output(operator).index, picks)


def slice_(operator: FileOperator, context: Context) -> list[Call]:
    """SLICE with constant bounds; a size of -1 takes the rest."""
    shape = context.tensor(operator, 0).shape
    begins, sizes = (context.integers(operator, position).reshape(-1) for position in (1, 2))
    if not begins.size == sizes.size == len(shape) or np.any(begins < 0) or np.any(begins + sizes > shape):
        raise NotSupported(f"takes {sizes.tolist()} elements from {begins.tolist()} of {shape}")
    picks = [
        range(int(begin), size if length == -1 else int(begin + length))
        for begin, length, size in zip(begins, sizes, shape, strict=True)
    ]
    return _sliced(operator, context, context.output(operator).index, picks)


def split(operator: FileOperator, context: Context) -> list[Call]:
    """SPLIT (axis first) and SPLIT_V (axis last): one slice for each output."""
    position = 0 if operator.op == "SPLIT_V" else 1
    x = context.tensor(operator, position)
    (axis,) = _axes(context.integers(operator, 2 - 2 * position), len(x.shape))
    calls: list[Call] = []
    start = 0
    for index in operator.outputs:
        stop = start + context.graph.tensors[index].shape[axis]
        picks = [range(start, stop) if i == axis else range(size) for i, size in enumerate(x.shape)]
        calls += _sliced(operator, context, index, picks, position)
        start = stop
    return calls


def depth_to_space(operator: FileOperator, context: Context) -> list[Call]:
    """DEPTH_TO_SPACE by square blocks."""
    size = int(operator.options["BlockSize"])
    if size < 1:
        raise NotSupported(f"its blocks have a size of {size}")
    return _moved("depth_to_space", operator, context, {"block": (size, size)})


def arg_max(operator: FileOperator, context: Context) -> list[Call]:
    """ARG_MAX along a constant axis; of equal codes the first. The output holds indices, integers without a scale."""
    x, output = context.tensor(operator, 0), context.output(operator)
    (axis,) = _axes(context.integers(operator, 1), len(x.shape))
    if axis == 0:
        context.refuse_batch("compares along the first axis")
    arguments = {"operator": "argmax", "attributes": {"axis": axis}, "output": "int32", "scale": 1.0, "zero_point": 0}
    return [Call("vector", (context.operand(operator, 0),), arguments, output.index)]


def resize_nearest(operator: FileOperator, context: Context) -> list[Call]:
    """RESIZE_NEAREST_NEIGHBOR to a constant size."""
    height, width = (int(size) for size in context.integers(operator, 1).reshape(-1))
    attributes = {
        "height": height,
        "width": width,
        "align_corners": bool(operator.options["AlignCorners"]),
        "half_pixel_centers": bool(operator.options["HalfPixelCenters"]),
    }
    return _moved("resize_nearest", operator, context, attributes)


def quantize(operator: FileOperator, context: Context) -> list[Call]:
    """QUANTIZE of integers: other codes for the same numbers."""
    return vector("requantize", operator, context, {"rule": "tflite"})


def _axes(axes: Any, rank: int) -> tuple[int, ...]:
    flat = [int(axis) for axis in np.asarray(axes).reshape(-1)]
    if any(not -rank <= axis < rank for axis in flat):
        raise NotSupported(f"axes {flat} are not all axes of a tensor of {rank} dimensions")
    return tuple(sorted({axis % rank for axis in flat}))


def _fused(operator: FileOperator) -> str:
    activation = operator.options["FusedActivationFunction"]
    if activation not in ACTIVATIONS:
        raise NotSupported(f"has the fused activation {activation}")
    return ACTIVATIONS[activation]


def _elementwise(name: str, operator: FileOperator, context: Context, rule: str) -> list[Call]:
    """Two operands that broadcast; constants have no batch of their own."""
    shapes = [context.tensor(operator, position).shape for position in (0, 1)]
    constants = [context.tensor(operator, position).data is not None for position in (0, 1)]
    if all(constants):
        raise NotSupported("both operands are constants")
    rank = len(context.output(operator).shape)
    for shape, fixed in zip(shapes, constants, strict=True):
        if len(shape) < rank and not fixed:
            context.refuse_batch(f"an operand of shape {shape} broadcasts to {rank} dimensions")
        if fixed and len(shape) == rank and shape[0] != 1:
            context.refuse_batch(f"a constant of shape {shape} has a batch")
    return vector(name, operator, context, {"rule": rule, "activation": _fused(operator)}, inputs=2)


def _sliced(
    operator: FileOperator, context: Context, output: int, picks: Sequence[range], position: int = 0
) -> list[Call]:
    x, made = context.tensor(operator, position), context.graph.tensors[output]
    if not all(picks):
        raise NotSupported("takes no elements at all")
    if picks[0] != range(x.shape[0]):
        context.refuse_batch("slices the first axis")
    if not same_meaning(x, made):
        raise NotSupported("only moves codes, but its input and output have different types, scales or zero points")
    size = context.batched(tuple(len(pick) for pick in picks))
    attributes = {"begin": tuple(p.start for p in picks), "size": size, "stride": tuple(p.step for p in picks)}
    arguments = {"operator": "slice", "attributes": attributes, **meaning(made)}
    if tuple(len(pick) for pick in picks) == made.shape:
        return [Call("vector", (x.index,), arguments, output)]
    shape = {"operator": "reshape", "attributes": {"shape": context.batched(made.shape)}, **meaning(made)}
    return [Call("vector", (x.index,), arguments), Call("vector", (PREVIOUS,), shape, output)]


def _code(operator: FileOperator, context: Context, position: int) -> int:
    """Return a constant that is one code of the first input's meaning."""
    value, x = context.tensor(operator, position), context.tensor(operator, 0)
    if value.data is None or value.data.size != 1 or value.dtype != x.dtype:
        raise NotSupported(f"input {position} ({value.name!r}) is not one constant of type {x.dtype}")
    return int(value.data.reshape(-1)[0])


def _pool(name: str, operator: FileOperator, context: Context, attributes: Mapping[str, Any]) -> list[Call]:
    shape, options = context.tensor(operator, 0).shape, operator.options
    kernel, stride = (options["FilterHeight"], options["FilterWidth"]), (options["StrideH"], options["StrideW"])
    if len(shape) != 4:
        raise NotSupported(f"pools a tensor of shape {shape}; it needs 4 dimensions")
    padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
    if options["Padding"] == "SAME":
        padding = tuple(same_padding(shape[1 + axis], kernel[axis], stride[axis], 1) for axis in (0, 1))
    window = {"kernel": kernel, "stride": stride, "padding": padding, "activation": _fused(operator)}
    return vector(name, operator, context, {**window, **attributes})


def _moved(
    name: str, operator: FileOperator, context: Context, attributes: Mapping[str, Any], inputs: int = 1
) -> list[Call]:
    """Codes that only move. A file may give the output another meaning than the input: the kernels move the codes all
    the same.
    """
    for position in range(inputs):
        if not same_meaning(context.tensor(operator, position), context.output(operator)):
            raise NotSupported("only moves codes, but its input and output have different types, scales or zero points")
    return vector(name, operator, context, attributes, inputs)


def vector(
    name: str, operator: FileOperator, context: Context, attributes: Mapping[str, Any], inputs: int = 1
) -> list[Call]:
    """Return the call of an operator on the first `inputs` inputs."""
    output = context.output(operator)
    operands: tuple[int | QTensor, ...] = tuple(context.operand(operator, position) for position in range(inputs))
    return [Call("vector", operands, {"operator": name, "attributes": attributes, **meaning(output)}, output.index)]


LOWERINGS: dict[str, Callable[[FileOperator, Context], list[Call]]] = {
    "ADD": add,
    "ARG_MAX": arg_max,
    "AVERAGE_POOL_2D": average_pool,
    "CONCATENATION": concatenation,
    "DEPTH_TO_SPACE": depth_to_space,
    "EXPAND_DIMS": reshape,
    "LOG_SOFTMAX": log_softmax,
    "MAX_POOL_2D": max_pool,
    "MEAN": mean,
    "MUL": mul,
    "PAD": pad,
    "PADV2": pad,
    "QUANTIZE": quantize,
    "RESHAPE": reshape,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "SLICE": slice_,
    "SOFTMAX": softmax,
    "SPLIT": split,
    "SPLIT_V": split,
    "SQUEEZE": reshape,
    "STRIDED_SLICE": strided_slice,
    "SUB": sub,
    "TRANSPOSE": transpose,
}
