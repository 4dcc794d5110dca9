"""What each core gets of a layer: a smaller layer of the same kind, with the operands that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from accelsim.config.model import HardwareConfig
from accelsim.mapping.contract import GemmShape, LayerPlan
from accelsim.mapping.plan import plan_layer
from accelsim.memory.contract import LayerNeeds, TensorNeed, Windows

Split = Literal["output_channels", "rows", "batch"]


def share_of(
    needs: LayerNeeds, config: HardwareConfig, split: Split, part: int, parts: int, images: int
) -> LayerNeeds | None:
    """Return part number `part` of `parts` of a layer; None where nothing is left for it.

    split : "output_channels": the part has its share of N, of the weights and of the output, and all of the input;
        products that have few channels or none of their own (groups, heads) are dealt out whole. "rows": output lines
        of a convolution, else rows of M, with the input lines that their windows touch and all of the weights.
        "batch": inferences, of `images`
    """
    if parts == 1:
        return needs
    if needs.plan is None:
        return _vector(needs, part, parts)
    shape = needs.plan.shape
    if split == "output_channels":
        if needs.weight is None or shape.n < parts:
            if shape.batch >= parts:
                return _products(needs, config, _size(shape.batch, part, parts), part, parts)
            if shape.n < parts and part >= shape.n:
                return None
        return _channels(needs, config, part, parts)
    if split == "batch":
        return _inferences(needs, config, part, parts, images)
    return _rows(needs, config, part, parts)


def _size(total: int, part: int, parts: int) -> int:
    """Return an even share; the shares add up to `total`."""
    return total * (part + 1) // parts - total * part // parts


def _tensor(tensor: TensorNeed, part: int, parts: int) -> TensorNeed:
    return TensorNeed(tensor.name, _size(tensor.bits, part, parts))


def _planned(plan: LayerPlan, shape: GemmShape, config: HardwareConfig) -> LayerPlan:
    return plan_layer(shape, config, **plan.arguments)


def _vector(needs: LayerNeeds, part: int, parts: int) -> LayerNeeds:
    return replace(
        needs,
        inputs=tuple(_tensor(tensor, part, parts) for tensor in needs.inputs),
        output=_tensor(needs.output, part, parts),
        vector_cycles=-(-needs.vector_cycles // parts),
    )


def _channels(needs: LayerNeeds, config: HardwareConfig, part: int, parts: int) -> LayerNeeds | None:
    assert needs.plan is not None
    size = _size(needs.plan.shape.n, part, parts)
    if not size:
        return None
    return replace(
        needs,
        plan=_planned(needs.plan, replace(needs.plan.shape, n=size), config),
        inputs=(needs.inputs[0], *(_tensor(tensor, part, parts) for tensor in needs.inputs[1:])),
        weight=None if needs.weight is None else _tensor(needs.weight, part, parts),
        parameter_bits=_size(needs.parameter_bits, part, parts),
        output=_tensor(needs.output, part, parts),
    )


def _products(needs: LayerNeeds, config: HardwareConfig, count: int, part: int, parts: int) -> LayerNeeds | None:
    """Return a share of a layer's matrix products: groups, heads, inferences. One that all share is needed whole."""
    assert needs.plan is not None
    if not count:
        return None
    batch = needs.plan.shape.batch
    inputs = tuple(
        tensor if shared == batch and batch > 1 else _tensor(tensor, part, parts)
        for tensor, shared in zip(needs.inputs, needs.shared, strict=False)
    )
    shared = [count if each == batch else each if count % each == 0 else 1 for each in needs.shared]
    return replace(
        needs,
        plan=_planned(needs.plan, replace(needs.plan.shape, batch=count), config),
        inputs=inputs,
        weight=None if needs.weight is None else _tensor(needs.weight, part, parts),
        parameter_bits=_size(needs.parameter_bits, part, parts),
        output=_tensor(needs.output, part, parts),
        shared=(shared[0], shared[1]),
        windows=needs.windows,
    )


def _inferences(needs: LayerNeeds, config: HardwareConfig, part: int, parts: int, images: int) -> LayerNeeds | None:
    assert needs.plan is not None
    mine, shape = _size(images, part, parts), needs.plan.shape
    if not mine:
        return None
    if needs.weight is None and shape.batch % images == 0:  # heads of each inference
        return _products(needs, config, shape.batch // images * mine, part, parts)
    windows = needs.windows
    if windows is not None:
        windows = replace(windows, images=mine)
    return _of_rows(needs, config, _size(shape.m // images * images, part, parts) if windows is None else
                    mine * windows.out_height * windows.out_width, windows, mine, images)  # fmt: skip


def _rows(needs: LayerNeeds, config: HardwareConfig, part: int, parts: int) -> LayerNeeds | None:
    assert needs.plan is not None
    windows = needs.windows
    if windows is None:
        rows = _size(needs.plan.shape.m, part, parts)
        return _of_rows(needs, config, rows, None, rows, needs.plan.shape.m)
    lines = _size(windows.out_height, part, parts)
    if not lines:
        return None
    touched = _touched_lines(windows, windows.out_height * part // parts, lines)
    mine = replace(windows, out_height=lines, height=touched)
    return _of_rows(needs, config, mine.images * lines * mine.out_width, mine, touched, windows.height)


def _touched_lines(windows: Windows, first: int, lines: int) -> int:
    """Return the input lines that output lines [first, first + lines) look at."""
    stride, reach = windows.stride[0], windows.dilation[0] * (windows.kernel[0] - 1) + 1
    begin = max(0, first * stride - windows.padding[0])
    end = min(windows.height, (first + lines - 1) * stride - windows.padding[0] + reach)
    return max(1, end - begin)


def _of_rows(
    needs: LayerNeeds, config: HardwareConfig, rows: int, windows: Windows | None, share: int, whole: int
) -> LayerNeeds | None:
    """Return a layer of `rows` of M; share / whole of the input tensor comes with them."""
    assert needs.plan is not None
    if rows <= 0:
        return None
    first, shape = needs.inputs[0], needs.plan.shape
    return replace(
        needs,
        plan=_planned(needs.plan, replace(shape, m=rows), config),
        inputs=(TensorNeed(first.name, -(-first.bits * share // whole)), *needs.inputs[1:]),
        output=TensorNeed(needs.output.name, -(-needs.output.bits * rows // shape.m)),
        windows=windows,
    )


def balanced(cycles: Sequence[int], cores: int) -> list[int]:
    """Return the core of each layer: consecutive layers together, so that the busiest core has as little as possible.

    >>> balanced([4, 4, 8, 2, 2], 3)
    [0, 0, 1, 2, 2]
    """

    def dealt(limit: int) -> list[int]:
        core, load, found = 0, 0, []
        for each in cycles:
            if load and load + each > limit:
                core, load = core + 1, 0
            load += each
            found.append(core)
        return found

    low, high = max(cycles, default=0), sum(cycles)
    while low < high:
        middle = (low + high) // 2
        if dealt(middle)[-1] < cores:
            high = middle
        else:
            low = middle + 1
    return dealt(low)
