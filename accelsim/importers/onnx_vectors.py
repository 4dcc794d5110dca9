"""Operators of the vector unit that wait for their output's format: sums, products, bounds, means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from accelsim.formats import QTensor, get, make_qtensor
from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_constants import float32
from accelsim.importers.onnx_graph import Node
from accelsim.importers.onnx_pending import Pending, VectorCall
from accelsim.importers.onnx_products import Geometry, Product, Weight
from accelsim.importers.onnx_values import CHANNELS_FIRST, Codes, Constant, FloatInput, Move, Shape, View
from accelsim.importers.onnx_walk import Walk


def clipped(codes: Codes, node: Node, low: float, high: float) -> Pending:
    """Return quantized reals within bounds, which may be requantized on the way."""
    bounds = {"minimum": low if low > -math.inf else None, "maximum": high if high < math.inf else None}
    view = replace(codes.view, tensor="")
    call = VectorCall(
        "clip", (codes.view.tensor,), {**bounds, "rule": "onnxruntime"}, replace(view, moves=()), (codes,)
    )
    return Pending(node, view.shape, vector=call, moves=view.moves)


def elementwise(walk: Walk, node: Node, operator: str, values: Sequence[Any]) -> Pending:
    """Return a sum or product of two quantized tensors, of which one may be a constant."""
    tensors = [value for value in values if isinstance(value, Codes)]
    if not tensors or not all(isinstance(value, Codes | Constant) for value in values):
        raise NotSupported(
            f"{node.op} of what is not quantized: {' and '.join(kind(value) for value in values)}; quantize both sides"
        )
    rank = max(len(value.shape) for value in values if value is not None)
    order = _common_order(tensors, rank)
    inputs: list[str | QTensor] = []
    stored: list[Shape] = []
    for value in values:
        if isinstance(value, Codes):
            arranged = walk.arranged(node, _padded(value, rank), order)
            inputs.append(arranged.view.tensor)
            stored.append(arranged.view.stored)
        else:
            assert isinstance(value, Constant)
            constant = _constant_operand(value, rank, order)
            inputs.append(constant)
            stored.append(constant.shape)
    try:
        shape = np.broadcast_shapes(*stored)
    except ValueError:
        raise NotSupported(f"{stored[0]} and {stored[1]} do not broadcast") from None
    identity = order == tuple(range(rank))
    view = View("", shape, () if identity else (Move("transpose", order),))
    call = VectorCall(operator, tuple(inputs), {"rule": "onnxruntime"}, view, tuple(tensors))
    return Pending(node, view.shape, vector=call)


def kind(value: Any) -> str:
    """Return in words what a value is."""
    if isinstance(value, Constant):
        return "a constant of floats" if value.scale is None else "a quantized constant"
    if isinstance(value, Pending):
        return f"the float result of {value.node.op}"
    if isinstance(value, Codes):
        return "quantized reals" if value.real else "codes"
    return "a float input" if isinstance(value, FloatInput) else "floats"


def _common_order(tensors: list[Codes], rank: int) -> Shape:
    """Return the arrangement that most of the tensors already have."""
    for codes in tensors:
        if len(codes.shape) == rank and len(codes.view.moves) == 1 and codes.view.moves[0].kind == "transpose":
            return codes.view.moves[0].to
    return tuple(range(rank))


def _padded(codes: Codes, rank: int) -> Codes:
    missing = rank - len(codes.shape)
    if not missing:
        return codes
    return replace(codes, view=codes.view.moved(Move("reshape", (1,) * missing + codes.shape)))


def _constant_operand(value: Constant, rank: int, order: Shape) -> QTensor:
    """Return a constant as the trace stores it, arranged as its partner."""
    if value.scale is None or value.zero_point is None:
        raise NotSupported("one operand is a constant of floats; quantize it, as the other is")
    if value.scale.size > 1:
        raise NotSupported("a constant operand has a scale a channel; one scale is supported")
    codes = value.array.astype(np.int32).reshape((1,) * (rank - value.array.ndim) + value.array.shape)
    arranged = View("", codes.shape).moved(Move("transpose", tuple(int(i) for i in np.argsort(order)))).to_onnx(codes)
    return make_qtensor(arranged, get(value.format), float(value.scale.reshape(())), int(value.zero_point.reshape(())))


def pooled(walk: Walk, node: Node, x: Codes) -> Pending:
    """AveragePool and GlobalAveragePool: an operator, or a product with ones whose result is exact."""
    rank = len(x.shape)
    if rank not in (3, 4):
        raise NotSupported(f"pools {rank - 2} dimensions; one or two are supported")
    flat = rank == 3
    seen = x if not flat else replace(x, view=x.view.moved(Move("reshape", (*x.shape[:2], 1, x.shape[2]))))
    images = walk.arranged(node, seen, CHANNELS_FIRST)
    batch, height, width, channels = images.view.stored
    if "Global" in node.op:
        kernel, geometry = (height, width), Geometry((1, 1), ((0, 0), (0, 0)), (1, 1), channels)
        call = VectorCall(
            "mean",
            (images.view.tensor,),
            {"axes": (1, 2), "keepdims": True, "rule": "onnxruntime"},
            View("", (batch, 1, 1, channels), (Move("transpose", CHANNELS_FIRST),)),
            (x,),
        )
    else:
        kernel, geometry = window(node, (height, width), channels)
        sizes = window_sizes((height, width), kernel, geometry, bool(node.attributes.get("ceil_mode", 0)))
        attributes = {
            "kernel": kernel,
            "stride": geometry.stride,
            "padding": geometry.padding,
            "rule": "onnxruntime",
            "count_include_pad": bool(node.attributes.get("count_include_pad", 0)),
        }
        view = View("", (batch, *sizes, channels), (Move("transpose", CHANNELS_FIRST),))
        call = VectorCall("average_pool2d", (images.view.tensor,), attributes, view, (x,))
    product = None
    if not any(map(any, geometry.padding)) or node.attributes.get("count_include_pad", 0):
        ones = Weight(np.ones((channels, 1, *kernel), np.int8), np.ones(()), np.zeros((), np.int64), "uint2")
        product = Product("conv", node, images, ones, geometry=geometry)
    moves: tuple[Move, ...] = ()
    shape = call.view.shape
    if flat:
        shape = (shape[0], shape[1], shape[3])
        moves = (Move("reshape", shape),)
    return Pending(node, shape, product, call, unit=float32(x.scale / math.prod(kernel)), channels_at=1,
                   factor=Fraction(1, math.prod(kernel)), moves=moves)  # fmt: skip


def window(node: Node, sizes: tuple[int, int], channels: int) -> tuple[tuple[int, int], Geometry]:
    """Return a pooling's kernel and geometry, in two dimensions."""
    taps = [int(size) for size in node.attributes.get("kernel_shape", ())]
    if len(taps) not in (1, 2):
        raise NotSupported(f"a window of {taps}; one- and two-dimensional ones are supported")
    kernel = (1, taps[0]) if len(taps) == 1 else (taps[0], taps[1])
    geometry = replace(Geometry.of(node, sizes, kernel), groups=channels)
    if geometry.dilation != (1, 1):
        raise NotSupported(f"a window with dilations {list(geometry.dilation)}; only 1 is supported")
    return kernel, geometry


def window_sizes(
    sizes: tuple[int, int], kernel: tuple[int, int], geometry: Geometry, ceil_mode: bool
) -> tuple[int, int]:
    """Return the output's height and width; refuse ceil_mode where it adds a window."""
    found = []
    for size, taps, stride, pads in zip(sizes, kernel, geometry.stride, geometry.padding, strict=True):
        room = size + sum(pads) - taps
        if ceil_mode and room % stride:
            raise NotSupported("ceil_mode adds a window that reaches beyond the padding")
        found.append(room // stride + 1)
    return found[0], found[1]
