"""The TFLite file: flatbuffers to plain values, checked. What operators mean is in `tflite`; here is what they say.

The layout is that of schema.fbs, version 3; the package ``tflite`` has the classes generated from it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import ModelError
from accelsim.importers.graph import Shape, check_size, missing_library, read_bytes

IDENTIFIER = b"TFL3"
SMALLEST_SCALE, LARGEST_SCALE = 1e-18, 1e18  # products and quotients of two stay within float32

DTYPES: dict[str, Any] = {
    "FLOAT32": np.float32,
    "FLOAT64": np.float64,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "UINT16": np.uint16,
    "INT32": np.int32,
    "UINT32": np.uint32,
    "INT64": np.int64,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
    "INT4": np.int8,  # two to a byte in the file
}

# The options that operators have, by the accessors of their tables.
_OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ADD": ("AddOptions", ("FusedActivationFunction", "PotScaleInt16")),
    "AVERAGE_POOL_2D": (
        "Pool2DOptions",
        ("Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth", "FusedActivationFunction"),
    ),
    "BATCH_MATMUL": ("BatchMatMulOptions", ("AdjX", "AdjY")),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "CONV_2D": (
        "Conv2DOptions",
        (
            *("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor"),
            *("FusedActivationFunction", "QuantizedBiasType"),
        ),
    ),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction"),
    ),
    "FULLY_CONNECTED": (
        "FullyConnectedOptions",
        ("FusedActivationFunction", "WeightsFormat", "KeepNumDims", "QuantizedBiasType"),
    ),
    "DEPTH_TO_SPACE": ("DepthToSpaceOptions", ("BlockSize",)),
    "GELU": ("GeluOptions", ("Approximate",)),
    "LEAKY_RELU": ("LeakyReluOptions", ("Alpha",)),
    "MAX_POOL_2D": (
        "Pool2DOptions",
        ("Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth", "FusedActivationFunction"),
    ),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", ("AlignCorners", "HalfPixelCenters")),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask"),
    ),
    "SUB": ("SubOptions", ("FusedActivationFunction", "PotScaleInt16")),
    "TRANSPOSE_CONV": (
        "TransposeConvOptions",
        ("Padding", "StrideH", "StrideW", "FusedActivationFunction", "QuantizedBiasType"),
    ),
}
_OPTIONAL_OPTIONS = {
    "ADD",
    "SUB",
    "MUL",
    "FULLY_CONNECTED",
    "BATCH_MATMUL",
    "GELU",
}  # the runtime takes defaults for them
PADDINGS = ("SAME", "VALID")
ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")

# What reading a damaged flatbuffer raises: offsets and lengths that lead out of the file or make no sense.
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, KeyError)


@dataclass(frozen=True, eq=False)
class FileTensor:
    """A tensor of the file.

    dtype : as the schema calls it
    scale, zero_point : float64 and int64 [1] or [size of `axis`]; empty where the tensor is not quantized
    data : a constant's values, or None
    """

    index: int
    name: str
    shape: Shape
    dtype: str
    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]
    axis: int
    data: NDArray[Any] | None


@dataclass(frozen=True)
class FileOperator:
    """An operator of the file: tensors by index (-1: an optional one that is not there), options by accessor."""

    index: int
    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class FileGraph:
    """The main graph of a file, in an order in which it can run."""

    path: str
    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_graph(path: str) -> FileGraph:
    """Read a TFLite file; ModelError where it is damaged or contradicts itself."""
    try:
        import tflite
    except ImportError as error:
        raise missing_library(str(error.name), "tflite", "TFLite") from None
    content = read_bytes(path, "TFLite")
    if content[4:8] != IDENTIFIER:
        raise ModelError(f"{path}: is not a TFLite file (bytes 4 to 7 are {content[4:8]!r}, not {IDENTIFIER!r})")
    try:
        graph = _graph(tflite, path, content)
    except _DAMAGE as error:
        kind = "" if isinstance(error, struct.error) else f"{type(error).__name__}: "
        raise ModelError(f"{path}: is damaged: {kind}{error}") from None
    _check_order(graph)
    return graph


def _graph(tflite: Any, path: str, content: bytes) -> FileGraph:
    model = tflite.Model.GetRootAsModel(content, 0)
    if model.Version() != 3:
        raise ModelError(f"{path}: is of schema version {model.Version()}; version 3 can be read")
    if model.SubgraphsLength() < 1:
        raise ModelError(f"{path}: has no graph")
    graph = model.Subgraphs(0)
    types, names = _names(tflite.TensorType), _names(tflite.BuiltinOperator)
    limit = len(content) // 4  # a vector of more elements would not fit the file
    tensors = tuple(
        _tensor(path, model, graph.Tensors(i), i, types, content) for i in _indices(graph.TensorsLength(), limit)
    )
    operators = tuple(
        _operator(tflite, path, model, graph.Operators(i), i, names, len(tensors))
        for i in _indices(graph.OperatorsLength(), limit)
    )
    if not operators:
        raise ModelError(f"{path}: has no operators")
    inputs = _tensor_indices(path, "the graph's inputs", graph.InputsAsNumpy(), len(tensors))
    outputs = _tensor_indices(path, "the graph's outputs", graph.OutputsAsNumpy(), len(tensors))
    if not inputs or not outputs or -1 in (*inputs, *outputs):
        raise ModelError(f"{path}: has {len(inputs)} inputs and {len(outputs)} outputs; it needs at least one of each")
    return FileGraph(path, tensors, operators, inputs, outputs)


def _indices(count: int, limit: int) -> Iterator[int]:
    if count > limit:
        raise ValueError(f"a list of {count} entries does not fit the file")
    return iter(range(count))


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _tensor_indices(path: str, what: str, array: Any, count: int) -> tuple[int, ...]:
    indices = tuple(int(index) for index in np.atleast_1d(array)) if not _absent(array) else ()
    wrong = [index for index in indices if not -1 <= index < count]
    if wrong:
        raise ModelError(f"{path}: {what} name tensor {wrong[0]}, but there are {count} tensors")
    return indices


def _absent(array: Any) -> bool:
    return isinstance(array, int)  # the schema classes give 0 for a vector that is not there


def _array(array: Any, dtype: Any) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):  # a damaged scale may be a signalling NaN; it is refused later
        return np.zeros(0, dtype) if _absent(array) else np.array(array, dtype)


def _tensor(path: str, model: Any, tensor: Any, index: int, types: dict[int, str], content: bytes) -> FileTensor:
    name = (tensor.Name() or b"").decode("utf-8", "replace")
    what = f"{path}: tensor {index} ({name!r})"
    dtype = types.get(tensor.Type(), f"type {tensor.Type()}")
    shape = tuple(int(size) for size in _array(tensor.ShapeAsNumpy(), np.int64))
    check_size(shape, what)
    if tensor.Sparsity() is not None:
        raise ModelError(f"{what}: is stored sparse, which accelsim does not read; store it dense")
    buffer = model.Buffers(tensor.Buffer()) if tensor.Buffer() else None
    raw = None
    if buffer is not None and buffer.DataLength():
        raw = np.array(buffer.DataAsNumpy(), np.uint8)
    data = None if raw is None else _values(what, raw, dtype, shape)
    return FileTensor(index, name, shape, dtype, *_quantization(what, tensor.Quantization(), shape), data)


def _values(what: str, raw: NDArray[np.uint8], dtype: str, shape: Shape) -> NDArray[Any]:
    """Return a constant's values; int4 values lie two to a byte, the first in the low half."""
    if dtype not in DTYPES:
        return raw  # an operator that needs it will say that it cannot
    count, item = math.prod(shape), np.dtype(DTYPES[dtype])
    expected = -(-count // 2) if dtype == "INT4" else count * item.itemsize
    if raw.size != expected:
        raise ModelError(f"{what}: {dtype} of shape {shape} takes {expected:,} bytes, but the file has {raw.size:,}")
    if dtype == "INT4":
        halves = np.stack([raw & 0xF, raw >> 4], axis=-1).reshape(-1)[:count].astype(np.int8)
        return np.where(halves > 7, halves - 16, halves).astype(np.int8).reshape(shape)
    values: NDArray[Any] = raw.view(item.newbyteorder("<")).astype(item).reshape(shape)
    return values


def _quantization(what: str, quantization: Any, shape: Shape) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    nothing = np.zeros(0), np.zeros(0, np.int64), 0
    if quantization is None:
        return nothing
    scale = _array(quantization.ScaleAsNumpy(), np.float64)
    if scale.size == 0:
        return nothing
    zero_point = _array(quantization.ZeroPointAsNumpy(), np.int64)
    axis = quantization.QuantizedDimension() if scale.size > 1 else 0
    if not np.all((scale >= SMALLEST_SCALE) & (scale <= LARGEST_SCALE)):  # NaN fails too
        raise ModelError(
            f"{what}: its scales span {scale.min()} to {scale.max()}; scales lie in {SMALLEST_SCALE} to {LARGEST_SCALE}"
        )
    if scale.size > 1 and not (0 <= axis < len(shape) and shape[axis] == scale.size):
        raise ModelError(f"{what}: has {scale.size} scales along axis {axis} of shape {shape}")
    if zero_point.size not in (0, 1, scale.size):
        raise ModelError(f"{what}: has {zero_point.size} zero points for {scale.size} scales")
    zeros = np.zeros(scale.size, np.int64)
    return scale, zeros if zero_point.size == 0 else np.broadcast_to(zero_point, scale.shape).copy(), axis


def _operator(
    tflite: Any, path: str, model: Any, operator: Any, index: int, names: dict[int, str], tensors: int
) -> FileOperator:
    code = model.OperatorCodes(operator.OpcodeIndex())
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # the old field has one byte
    op = names.get(number, f"operator {number}")
    if op == "CUSTOM":
        op = f"CUSTOM {(code.CustomCode() or b'').decode('utf-8', 'replace')}"
    what = f"{path}: operator {index} ({op})"
    inputs = _tensor_indices(path, f"{what.removeprefix(f'{path}: ')}'s inputs", operator.InputsAsNumpy(), tensors)
    outputs = _tensor_indices(path, f"{what.removeprefix(f'{path}: ')}'s outputs", operator.OutputsAsNumpy(), tensors)
    return FileOperator(index, op, inputs, outputs, _options(tflite, what, op, operator))


def _options(tflite: Any, what: str, op: str, operator: Any) -> dict[str, Any]:
    if op not in _OPTIONS:
        return {}
    kind, fields = _OPTIONS[op]
    options, table = getattr(tflite, kind)(), operator.BuiltinOptions()
    if table is None:
        if op not in _OPTIONAL_OPTIONS:
            raise ModelError(f"{what}: has no options")
        return {field: "NONE" if field == "FusedActivationFunction" else 0 for field in fields}
    found = operator.BuiltinOptionsType()
    if found != getattr(tflite.BuiltinOptions, kind):
        raise ModelError(f"{what}: has options of type {found}, not {kind}")
    options.Init(table.Bytes, table.Pos)
    values = {field: getattr(options, field)() for field in fields}
    for field, meanings in (("Padding", PADDINGS), ("FusedActivationFunction", ACTIVATIONS)):
        if field in values:
            if not 0 <= values[field] < len(meanings):
                raise ModelError(f"{what}: {field} is {values[field]}; it is one of 0 to {len(meanings) - 1}")
            values[field] = meanings[values[field]]
    if "QuantizedBiasType" in values:
        values["QuantizedBiasType"] = _names(tflite.TensorType).get(values["QuantizedBiasType"], "unknown")
    for field, value in values.items():
        if field.startswith(("Stride", "Dilation", "Filter")) and value < 1:
            raise ModelError(f"{what}: {field} is {value}; it is 1 or more")
    return values


def _check_order(graph: FileGraph) -> None:
    """Raise ModelError where a tensor is computed twice, by nobody, or after it is used."""
    makers: dict[int, int] = {}
    for operator in graph.operators:
        for index in operator.outputs:
            place = f"{graph.path}: operator {operator.index} ({operator.op})"
            if index in makers:
                raise ModelError(f"{place}: computes tensor {index}, which operator {makers[index]} has computed")
            if index in graph.inputs or (index >= 0 and graph.tensors[index].data is not None):
                raise ModelError(f"{place}: computes tensor {index}, which is an input or a constant")
            makers[index] = operator.index
    for operator in graph.operators:
        for index in operator.inputs:
            if index < 0 or index in graph.inputs or graph.tensors[index].data is not None:
                continue
            place = f"{graph.path}: operator {operator.index} ({operator.op})"
            what = f"tensor {index} ({graph.tensors[index].name!r})"
            if index not in makers:
                raise ModelError(f"{place}: reads {what}, which nothing computes")
            if makers[index] >= operator.index:
                raise ModelError(
                    f"{place}: reads {what}, which operator {makers[index]} computes later: the graph has a cycle, or "
                    f"its operators are not in order"
                )
    for index in graph.outputs:
        if index not in makers and index not in graph.inputs:
            raise ModelError(f"{graph.path}: output {graph.tensors[index].name!r} is computed by no operator")
