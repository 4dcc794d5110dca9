"""Matrix products of ONNX: convolutions and matrix multiplications as layers of the array."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.formats import QTensor, make_qtensor
from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_graph import Node
from accelsim.importers.onnx_values import CHANNELS_FIRST, CHANNELS_LAST, Array, Codes, Move, Shape, View
from accelsim.importers.onnx_walk import Walk
from accelsim.trace.shapes import same_padding

Pads = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Weight:
    """A constant weight.

    codes : OIHW (OIW) for convolutions, [K, N] for matrix products
    scale, zero_point : (), or one an output channel
    """

    codes: Array
    scale: Array
    zero_point: Array
    format: str

    def tensor(self, codes: Array) -> QTensor:
        """Return a QTensor of the codes in the trace's arrangement, output channels first."""
        per_channel = self.scale.size > 1 or self.zero_point.size > 1
        channels = codes.shape[0]
        scale, zero = self.scale.astype(np.float64), self.zero_point.astype(np.int64)
        if per_channel:
            return make_qtensor(
                codes.astype(np.int32),
                formats.get(self.format),
                np.broadcast_to(scale.reshape(-1), (channels,)),
                np.broadcast_to(zero.reshape(-1), (channels,)),
                channel_axis=0,
                subject="weight",
            )
        return make_qtensor(
            codes.astype(np.int32), formats.get(self.format), scale.reshape(()), zero.reshape(()), subject="weight"
        )


@dataclass(frozen=True)
class Geometry:
    """A convolution's strides, padding and dilation, in two dimensions."""

    stride: tuple[int, int]
    padding: Pads
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, node: Node, sizes: Shape, kernel: Shape) -> Geometry:
        """Read a node's attributes; one-dimensional ones get a height of 1.

        sizes, kernel : height and width
        """
        stride, dilation = _two(node, "strides"), _two(node, "dilations")
        auto = node.attributes.get("auto_pad", "NOTSET")
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            pairs = [
                same_padding(size, taps, step, spread)
                for size, taps, step, spread in zip(sizes, kernel, stride, dilation, strict=True)
            ]
            if auto == "SAME_LOWER":
                pairs = [(after, before) for before, after in pairs]
            padding = (pairs[0], pairs[1])
        elif auto in ("NOTSET", "VALID"):
            pads = list(node.attributes.get("pads", [0, 0, 0, 0])) if auto == "NOTSET" else [0, 0, 0, 0]
            if len(pads) == 2:
                pads = [0, pads[0], 0, pads[1]]
            if len(pads) != 4 or min(pads) < 0:
                raise NotSupported(f"pads {pads}: four numbers, none negative, are supported")
            padding = ((pads[0], pads[2]), (pads[1], pads[3]))
        else:
            raise NotSupported(f"auto_pad {auto!r} is unknown")
        return cls(stride, padding, dilation, int(node.attributes.get("group", 1)))


def _two(node: Node, name: str) -> tuple[int, int]:
    values = [int(each) for each in node.attributes.get(name, [1, 1])]
    if len(values) == 1:
        values = [1, *values]
    if len(values) != 2:
        raise NotSupported(f"{name} {values}: one- and two-dimensional windows are supported")
    return values[0], values[1]


@dataclass(frozen=True)
class Product:
    """A matrix product whose output format may come later.

    kind : "conv", "linear" (constant weight [K, N]) or "matmul" (two activations)
    x : the first operand
    weight, other : the second, of which there is one
    bias : int64 [channels] in units of the accumulator, or None
    """

    kind: str
    node: Node
    x: Codes
    weight: Weight | None = None
    other: Codes | None = None
    bias: NDArray[np.int64] | None = None
    geometry: Geometry | None = None

    @property
    def shape(self) -> Shape:
        """ONNX's shape of the result. NotSupported where the operands do not fit together."""
        x = self.x.shape
        if self.kind == "conv":
            weight = self._oihw()
            sizes = (x[0], *self._sizes(), x[1])
            found = _conv_output(sizes, weight, self._window())
            if min(found) < 1:
                raise NotSupported(f"a window of {weight.shape[2:]} does not fit the input {x} with its padding")
            return (x[0], weight.shape[0], *found[1 if len(x) == 4 else 2 : 3])
        if self.weight is not None:
            return (*x[:-1], self.weight.codes.shape[-1])
        assert self.other is not None
        return (*x[:-1], self.other.shape[-1])

    def _oihw(self) -> Array:
        assert self.weight is not None
        codes, x = self.weight.codes, self.x.shape
        if codes.ndim not in (3, 4) or len(x) != codes.ndim:
            raise NotSupported(f"input {x} and weight {codes.shape}: one- and two-dimensional windows are supported")
        return codes if codes.ndim == 4 else codes[:, :, None, :]

    def _sizes(self) -> tuple[int, int]:
        """Return the input's height and width."""
        x = self.x.shape
        return (x[2], x[3]) if len(x) == 4 else (1, x[2])

    def _window(self) -> Geometry:
        return self.geometry or Geometry.of(self.node, self._sizes(), self._oihw().shape[2:])

    def add(self, walk: Walk, node: Node, output_name: str, finish: Mapping[str, Any], out_format: str) -> View:
        """Add the layer to the trace; return how ONNX sees its output.

        node : the node that it is named after
        output_name : the ONNX tensor that it makes
        finish : the keywords of TraceBuilder's layers that say what leaves
        out_format : the output's format, for the list of layers
        """
        if self.kind == "conv":
            return self._conv(walk, node, output_name, finish, out_format)
        if self.kind == "linear":
            return self._linear(walk, node, output_name, finish, out_format)
        return self._matmul(walk, node, output_name, finish, out_format)

    def _conv(self, walk: Walk, node: Node, output_name: str, finish: Mapping[str, Any], out_format: str) -> View:
        assert self.weight is not None
        codes, x, geometry = self._oihw(), self.x, self._window()
        flat = len(x.shape) == 3
        if flat:
            x = _seen(x, x.view.moved(Move("reshape", (*x.shape[:2], 1, x.shape[2]))))
        images = walk.arranged(node, x, CHANNELS_FIRST)
        name = walk.names.new(node.name)
        output = walk.names.new(output_name)
        stored = _conv_output(images.view.stored, codes, geometry)
        view = View(output, stored, (Move("transpose", CHANNELS_FIRST),))
        if flat:
            view = view.moved(Move("reshape", (stored[0], stored[3], stored[2])))
        walk.builder.conv2d(
            name,
            images.view.tensor,
            self.weight.tensor(codes.transpose(CHANNELS_LAST)),
            stride=geometry.stride,
            padding=geometry.padding,
            dilation=geometry.dilation,
            groups=geometry.groups,
            bias=self.bias,
            output_name=output,
            expected=walk.expected_of(output_name, view),
            **finish,
        )
        macs = math.prod(stored) * math.prod(codes.shape[1:])
        walk.list_layer(name, self.node, self.x, self.weight.codes.shape, self.weight.format, view.shape, out_format,
                       macs, codes.size)  # fmt: skip
        return view

    def _linear(self, walk: Walk, node: Node, output_name: str, finish: Mapping[str, Any], out_format: str) -> View:
        assert self.weight is not None
        x, weight = self.x, self.weight.codes.T  # [N, K]
        shape = x.shape
        if shape[-1] != weight.shape[1]:
            raise NotSupported(f"input {shape} and weight {self.weight.codes.shape} do not fit together")
        columns = _features(x.view) if len(shape) == 2 else None
        if columns is not None and len(x.view.stored) > 1:
            # However the trace stores an image's features: the weight's columns follow them.
            tensor, flatten = x.view.tensor, True
            arranged = np.empty_like(weight)
            arranged[:, columns] = weight
            weight = arranged
        else:
            tensor, flatten = walk.arranged(node, x, tuple(range(len(shape)))).view.tensor, False
        name = walk.names.new(node.name)
        output = walk.names.new(output_name)
        view = View(output, (*shape[:-1], weight.shape[0]))
        walk.builder.linear(
            name,
            tensor,
            self.weight.tensor(weight),
            flatten=flatten,
            bias=self.bias,
            output_name=output,
            expected=walk.expected_of(output_name, view),
            **finish,
        )
        macs = math.prod(shape) * weight.shape[0]
        walk.list_layer(name, self.node, x, self.weight.codes.shape, self.weight.format, view.shape, out_format, macs,
                       weight.size)  # fmt: skip
        return view

    def _matmul(self, walk: Walk, node: Node, output_name: str, finish: Mapping[str, Any], out_format: str) -> View:
        assert self.other is not None
        a, b = self.x, self.other
        rank = len(a.shape)
        if len(b.shape) != rank or rank < 2 or a.shape[:-2] != b.shape[:-2]:
            raise NotSupported(f"{a.shape} times {b.shape}: leading sizes must be equal, without broadcasting")
        if a.shape[-1] != b.shape[-2]:
            raise NotSupported(f"{a.shape} times {b.shape}: the inner sizes differ")
        if walk.batches > 1 and rank == 2:
            raise NotSupported("a product of two matrices has no batch; import one batch of the file (batch=1)")
        straight = tuple(range(rank))
        swapped = (*straight[:-2], rank - 1, rank - 2)
        a = walk.arranged(node, a, straight)
        transposed = bool(b.view.moves) and b.view.moves[-1] == Move("transpose", swapped)
        b = walk.arranged(node, b, swapped if transposed else straight)
        name = walk.names.new(node.name)
        output = walk.names.new(output_name)
        view = View(output, (*a.shape[:-1], b.shape[-1]))
        walk.builder.matmul(
            name,
            a.view.tensor,
            b.view.tensor,
            transpose_other=transposed,
            output_name=output,
            expected=walk.expected_of(output_name, view),
            **finish,
        )
        macs = math.prod(view.shape) * a.shape[-1]
        walk.list_layer(name, self.node, a, b.shape, b.format, view.shape, out_format, macs, 0)
        return view


def _seen(codes: Codes, view: View) -> Codes:
    return Codes(view, codes.format, codes.scale, codes.zero_point, codes.real, codes.known)


def _features(view: View) -> NDArray[np.int64] | None:
    """Return where in a stored image each of ONNX's features [batch, features] lies; None where the batch is moved."""
    order = view.order()
    size = math.prod(view.stored[1:])
    if order.shape != (view.stored[0], size):
        return None
    first = order[0]
    expected = first[None, :] + size * np.arange(order.shape[0])[:, None]
    return first if np.array_equal(order, expected) and first.max() < size else None


def _conv_output(stored: Shape, weight: Array, geometry: Geometry) -> Shape:
    sizes = []
    for axis in (0, 1):
        reach = geometry.dilation[axis] * (weight.shape[2 + axis] - 1) + 1
        sizes.append((stored[1 + axis] + sum(geometry.padding[axis]) - reach) // geometry.stride[axis] + 1)
    return (stored[0], *sizes, weight.shape[0])
