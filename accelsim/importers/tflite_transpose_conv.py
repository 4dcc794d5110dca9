"""TRANSPOSE_CONV of TFLite, as a convolution whose channels become blocks of pixels (accelsim.trace.transposed)."""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.importers.graph import NotSupported
from accelsim.importers.tflite_file import FileOperator
from accelsim.importers.tflite_layers import finish, weight_of
from accelsim.importers.tflite_lowering import PREVIOUS, Call, Context, constant, meaning
from accelsim.trace.transposed import per_phase, phase_weight, same_transposed_padding, transposed

OUTPUT_SHAPE, WEIGHT, INPUT, BIAS = range(4)
"""TFLite's order of inputs."""


def transpose_conv(operator: FileOperator, context: Context) -> list[Call]:
    """TRANSPOSE_CONV: weight [out, height, width, in], the output's size from a constant."""
    x, output = context.tensor(operator, INPUT), context.output(operator)
    weight = constant(weight_of(operator, context, WEIGHT))
    declared = tuple(int(size) for size in context.integers(operator, OUTPUT_SHAPE).reshape(-1))
    if len(x.shape) != 4 or len(weight.shape) != 4 or len(declared) != 4 or x.shape[3] != weight.shape[3]:
        raise NotSupported(f"input {x.shape}, weight {weight.shape} and output {declared} do not fit together")
    if declared != output.shape:
        raise NotSupported(f"its output shape is {declared}, but its output declares {output.shape}")
    kernel, size = (weight.shape[1], weight.shape[2]), (declared[1], declared[2])
    stride = operator.options["StrideH"], operator.options["StrideW"]
    before = (0, 0)
    if operator.options["Padding"] == "SAME":
        before = same_transposed_padding(kernel, stride, size)
    geometry = transposed((x.shape[1], x.shape[2]), kernel, stride, before, size)
    after = finish(operator, context, weight, data=INPUT, bias=BIAS)
    for name in ("bias", "requantization_scale", "multiplier", "shift"):
        if name in after and np.ndim(after[name]) == 1:
            after[name] = per_phase(after[name], stride)
    arguments = {**after, "weight": phase_weight(weight, stride), "padding": geometry.padding}
    steps: list[tuple[str, dict[str, Any]]] = []
    if stride != (1, 1):
        steps.append(("depth_to_space", {"block": stride}))
    if not geometry.whole:
        begin, length = (0, *geometry.begin, 0), context.batched(output.shape)
        steps.append(("slice", {"begin": begin, "size": length}))
    calls = [Call("conv2d", (x.index,), arguments, None if steps else output.index)]
    for position, (name, attributes) in enumerate(steps):
        made = output.index if position == len(steps) - 1 else None
        moved = {"operator": name, "attributes": attributes, **meaning(output)}
        calls.append(Call("vector", (PREVIOUS,), moved, made))
    return calls
