"""A network's inputs: what their codes mean, how data becomes codes, and which of them are images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from accelsim import formats
from accelsim.errors import ModelError
from accelsim.formats import QTensor, make_qtensor
from accelsim.importers.graph import ModelInput
from accelsim.importers.onnx_graph import Node, OnnxGraph
from accelsim.importers.onnx_values import CHANNELS_FIRST, CHANNELS_LAST, Array, Move, Shape, View

_KEEPS_CHANNELS = frozenset(
    {
        "Conv", "QLinearConv", "ConvInteger", "MaxPool", "AveragePool", "GlobalAveragePool", "QLinearAveragePool",
        "QLinearGlobalAveragePool", "Resize",
    }
)  # fmt: skip
_CHANGES_SHAPE = frozenset(
    {"Reshape", "Flatten", "MatMul", "Gemm", "QLinearMatMul", "QGemm", "MatMulInteger", "Transpose", "Shape"}
)


@dataclass(frozen=True)
class OnnxInput(ModelInput):
    """A network input; `steps` are the float32 operations between it and the node that quantizes it, `quantize` what
    that node does to a float32 array.
    """

    steps: tuple[Callable[[Array], Array], ...] = ()
    quantize: Callable[[Array], Array] | None = None

    def codes(self, data: Any, *, subject: str) -> QTensor:
        """Return the user's data as codes: integers are codes, reals take the steps and are quantized."""
        array, what = np.asarray(data), f"{subject}: input {self.name!r}"
        if array.dtype.kind != "f" or self.quantize is None:
            return super().codes(data, subject=subject)
        reals = self._batched(array, what).astype(np.float32)
        if not np.all(np.isfinite(reals)):
            raise ModelError(f"{what}: {np.count_nonzero(~np.isfinite(reals))} values are NaN or infinite in float32")
        with np.errstate(all="ignore"):  # what is no number any more is refused below
            for step in self.steps:
                reals = step(reals)
        if not np.all(np.isfinite(reals)):
            raise ModelError(f"{what}: becomes NaN or infinite before it is quantized")
        number_format = formats.get(self.format)
        return make_qtensor(self.quantize(reals), number_format, self.scale, self.zero_point, subject=what)

    def stored(self, tensor: str, image_names: frozenset[str]) -> View:
        """Return how the trace stores the input as `tensor`: channels last where convolutions read it."""
        shape = self.shape
        if self.name in image_names and len(shape) == 4:
            return View(tensor, tuple(shape[axis] for axis in CHANNELS_LAST), (Move("transpose", CHANNELS_FIRST),))
        if self.name in image_names and len(shape) == 3:
            moves = (Move("transpose", CHANNELS_FIRST), Move("reshape", shape))
            return View(tensor, (shape[0], 1, shape[2], shape[1]), moves)
        return View(tensor, shape)

    def some_codes(self, shape: Shape) -> Array:
        """Return codes that the format has, for a walk without data."""
        return np.full(shape, max(formats.get(self.format).code_low, 0), np.int32)


def image_inputs(graph: OnnxGraph) -> frozenset[str]:
    """Return the tensors that convolutions and poolings read, through what leaves the shape alone."""
    wanted: set[str] = set()
    for node in reversed(graph.nodes):
        through = node.op not in _CHANGES_SHAPE and any(name in wanted for name in node.outputs)
        if node.op in _KEEPS_CHANNELS or through:
            wanted.update(name for name in node.inputs[:1] if name)
        if through:
            wanted.update(name for name in node.inputs if name)
    return frozenset(wanted)


# Of operators that read codes with a scale and a zero point: {input: (scale, zero point)}.
_MEANINGS = {
    "QLinearConv": {0: (1, 2)},
    "QLinearMatMul": {0: (1, 2), 3: (4, 5)},
    "QGemm": {0: (1, 2), 3: (4, 5)},
    "QLinearAdd": {0: (1, 2), 3: (4, 5)},
    "QLinearMul": {0: (1, 2), 3: (4, 5)},
    "QLinearSigmoid": {0: (1, 2)},
    "QLinearLeakyRelu": {0: (1, 2)},
    "QLinearAveragePool": {0: (1, 2)},
    "QLinearGlobalAveragePool": {0: (1, 2)},
    "QLinearSoftmax": {0: (1, 2)},
    "DequantizeLinear": {0: (1, 2)},
    "MatMulInteger": {0: (-1, 2), 1: (-1, 3)},
    "ConvInteger": {0: (-1, 2)},
}
_CODES_ONLY = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Relu", "Clip", "Slice", "Split", "Pad",
     "Identity", "Resize"}
)  # fmt: skip


def _meanings(node: Node) -> dict[int, tuple[int, int]]:
    if node.op == "QLinearConcat":
        return {index: (index + 1, index + 2) for index in range(2, len(node.inputs), 3)}
    return _MEANINGS.get(node.op, {})


def meaning_of_input(graph: OnnxGraph, name: str) -> tuple[float, int, bool]:
    """Return (scale, zero point, whether the file says the scale) of a network input of codes, from its readers."""
    for node in graph.consumers.get(name, ()):
        if node.op in _CODES_ONLY and node.input(0) == name:
            return meaning_of_input(graph, node.outputs[0])
        for index, (scale_at, zero_at) in _meanings(node).items():
            if node.input(index) != name:
                continue
            zero = graph.constants.get(node.input(zero_at), np.zeros(()))
            scale = graph.constants.get(node.input(scale_at)) if scale_at >= 0 else np.ones(())
            if scale is not None and scale.size == 1 and zero.size == 1:
                return float(scale.reshape(())), int(zero.reshape(())), True
    return 1.0, 0, False
