"""What the lowering of TFLite operators shares: calls of the TraceBuilder, and what a tensor of the file means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.errors import AccelsimError
from accelsim.formats import QTensor, make_qtensor
from accelsim.importers.graph import NotSupported, Shape
from accelsim.importers.tflite_file import FileGraph, FileOperator, FileTensor

REFERENCE, MICRO = "tflite-reference", "tflite-micro"

FORMATS = {"INT8": "int8", "UINT8": "uint8", "INT16": "int16", "INT32": "int32", "INT4": "int4"}


@dataclass(frozen=True)
class Call:
    """One call of the TraceBuilder.

    method : of the builder
    inputs : tensors of the file by index, constants, or PREVIOUS: what the call before has made
    arguments : by name
    output : the tensor of the file that it makes; None: one between two calls
    """

    method: Literal["conv2d", "linear", "matmul", "vector"]
    inputs: tuple[int | QTensor | str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    output: int | None = None


PREVIOUS = "previous"


@dataclass(frozen=True)
class Context:
    """What a lowering needs to know.

    batch : how many of the file's batches run at once; the first dimension of every computed tensor is that much larger
    """

    graph: FileGraph
    semantics: str
    batch: int

    def tensor(self, operator: FileOperator, position: int) -> FileTensor:
        """Return the input at `position`."""
        index = self.index(operator, position)
        return self.graph.tensors[index]

    def index(self, operator: FileOperator, position: int) -> int:
        """Return the index of the input at `position`; NotSupported where it is not there."""
        if position >= len(operator.inputs) or operator.inputs[position] < 0:
            raise NotSupported(f"has no input {position}")
        return operator.inputs[position]

    def optional(self, operator: FileOperator, position: int) -> FileTensor | None:
        """Return the input at `position`, or None."""
        there = position < len(operator.inputs) and operator.inputs[position] >= 0
        return self.graph.tensors[operator.inputs[position]] if there else None

    def output(self, operator: FileOperator) -> FileTensor:
        """Return the only output."""
        if len(operator.outputs) != 1 or operator.outputs[0] < 0:
            raise NotSupported(f"has {len(operator.outputs)} outputs; one is expected")
        return self.graph.tensors[operator.outputs[0]]

    def integers(self, operator: FileOperator, position: int) -> NDArray[np.int64]:
        """Return a constant input that steers the operator: sizes, axes, paddings."""
        tensor = self.tensor(operator, position)
        if tensor.data is None:
            raise NotSupported(
                f"input {position} ({tensor.name!r}) is computed while the model runs; a constant is needed"
            )
        if tensor.data.dtype.kind not in "iu":
            raise NotSupported(f"input {position} ({tensor.name!r}) is {tensor.dtype}; integers are needed")
        return tensor.data.astype(np.int64)

    def operand(self, operator: FileOperator, position: int) -> int | QTensor:
        """Return an input that is data: a computed tensor by index, or a constant."""
        tensor = self.tensor(operator, position)
        meaning(tensor)
        return tensor.index if tensor.data is None else constant(tensor)

    def batched(self, shape: Shape) -> Shape:
        """Return a shape of the file as the trace has it."""
        return (shape[0] * self.batch, *shape[1:]) if shape else shape

    def refuse_batch(self, what: str) -> None:
        """Raise where several inputs run at once and `what` would mix them."""
        if self.batch > 1:
            raise NotSupported(f"{what}, so that inputs of a batch would mix; import one input at a time (--batch 1)")


def meaning(tensor: FileTensor) -> dict[str, Any]:
    """Return output=, scale= and zero_point= of an activation; NotSupported for floats and per-channel scales."""
    if tensor.dtype not in FORMATS:
        raise NotSupported(
            f"tensor {tensor.name!r} is {tensor.dtype}; integers with a scale are needed: quantize the model fully"
        )
    if tensor.scale.size != 1:
        found = "no scale" if tensor.scale.size == 0 else f"{tensor.scale.size} scales"
        raise NotSupported(f"tensor {tensor.name!r} ({tensor.dtype}) has {found}; activations have one")
    return {
        "output": FORMATS[tensor.dtype],
        "scale": float(tensor.scale[0]),
        "zero_point": int(tensor.zero_point[0]),
    }


def same_meaning(one: FileTensor, other: FileTensor) -> bool:
    """Return whether codes of the two mean the same."""
    return meaning(one) == meaning(other)


def constant(tensor: FileTensor) -> QTensor:
    """Return a quantized constant; NotSupported for floats and for codes that contradict their scales."""
    if tensor.dtype not in FORMATS or tensor.scale.size == 0 or tensor.data is None:
        found = tensor.dtype if tensor.dtype not in FORMATS else f"{tensor.dtype} without a scale"
        raise NotSupported(f"constant {tensor.name!r} is {found}; quantized integers are needed")
    per_channel = tensor.scale.size > 1
    try:
        return make_qtensor(
            tensor.data,
            formats.get(FORMATS[tensor.dtype]),
            tensor.scale if per_channel else tensor.scale[0],
            tensor.zero_point if per_channel else tensor.zero_point[0],
            channel_axis=tensor.axis if per_channel else None,
            subject=f"constant {tensor.name!r}",
        )
    except AccelsimError as error:
        raise NotSupported(str(error)) from None


def fused(operator: FileOperator, output: FileTensor) -> dict[str, Any]:
    """Return activation= (and clamp=) of a layer."""
    activation = operator.options["FusedActivationFunction"]
    if activation in ("NONE", "RELU", "RELU6"):
        return {"activation": activation.lower()}
    if activation != "RELU_N1_TO_1":
        raise NotSupported(f"has the fused activation {activation}")
    number_format = formats.get(FORMATS[output.dtype])
    one = float(np.float32(1) / np.float32(output.scale[0]))
    zero = int(output.zero_point[0])
    reach = int(np.floor(one + 0.5))
    clamp = max(number_format.low, zero - reach), min(number_format.high, zero + reach)
    return {"activation": "clamp", "clamp": clamp}
