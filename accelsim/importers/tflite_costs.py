"""What `accelsim inspect` counts of a TFLite operator: its weight and its multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from accelsim.formats import QTensor
from accelsim.importers.graph import Shape
from accelsim.importers.tflite_file import FileGraph, FileOperator, FileTensor
from accelsim.importers.tflite_lowering import Call
from accelsim.importers.tflite_transpose_conv import WEIGHT


@dataclass(frozen=True)
class Weight:
    """The weight of a layer of the array; format "-" where there is none."""

    shape: Shape = ()
    format: str = "-"

    @property
    def elements(self) -> int:
        return 0 if self.format == "-" else math.prod(self.shape)


def weight_of_calls(operator: FileOperator, calls: Sequence[Call], graph: FileGraph) -> Weight:
    """Return the weight among an operator's calls."""
    weights: list[QTensor] = [call.arguments["weight"] for call in calls if "weight" in call.arguments]
    if not weights:
        return Weight()
    if operator.op == "TRANSPOSE_CONV":  # the file's, not that of the convolution which it becomes
        return Weight(graph.tensors[operator.inputs[WEIGHT]].shape, weights[0].format.name)
    return Weight(weights[0].shape, weights[0].format.name)


def macs(operator: FileOperator, weight: Weight, x: FileTensor | None, output: FileTensor) -> int:
    """Return the multiply-accumulates that an operator's definition has."""
    if operator.op == "BATCH_MATMUL" and x is not None:
        return math.prod(output.shape) * x.shape[-2 if operator.options["AdjX"] else -1]
    if operator.op == "TRANSPOSE_CONV" and x is not None:
        return math.prod(x.shape[:3]) * weight.elements
    return math.prod(output.shape) * math.prod(weight.shape[1:]) if weight.elements else 0
