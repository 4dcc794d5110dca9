"""Matrix products of ONNX: what a convolution or matrix multiplication is, before it becomes a layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.formats import QTensor, make_qtensor
from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_graph import Node
from accelsim.importers.onnx_values import Array, Codes, Shape
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
    if len(values) != 2 or min(values) < 1:
        raise NotSupported(f"{name} {values}: positive ones of one- and two-dimensional windows are supported")
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
            weight = self.oihw()
            sizes = (x[0], *self._sizes(), x[1])
            found = conv_output(sizes, weight, self.window())
            if min(found) < 1:
                raise NotSupported(f"a window of {weight.shape[2:]} does not fit the input {x} with its padding")
            return (x[0], weight.shape[0], *found[1 if len(x) == 4 else 2 : 3])
        if self.weight is not None:
            return (*x[:-1], self.weight.codes.shape[-1])
        assert self.other is not None
        return (*x[:-1], self.other.shape[-1])

    def oihw(self) -> Array:
        """Return a convolution's weight in two dimensions."""
        assert self.weight is not None
        codes, x = self.weight.codes, self.x.shape
        if codes.ndim not in (3, 4) or len(x) != codes.ndim:
            raise NotSupported(f"input {x} and weight {codes.shape}: one- and two-dimensional windows are supported")
        return codes if codes.ndim == 4 else codes[:, :, None, :]

    def window(self) -> Geometry:
        """Return a convolution's geometry."""
        return self.geometry or Geometry.of(self.node, self._sizes(), self.oihw().shape[2:])

    def _sizes(self) -> tuple[int, int]:
        """Return the input's height and width."""
        x = self.x.shape
        return (x[2], x[3]) if len(x) == 4 else (1, x[2])


def conv_output(stored: Shape, weight: Array, geometry: Geometry) -> Shape:
    """Return the shape of a convolution's output: (batch, height, width, channels).

    stored : the input's (batch, height, width, channels);  weight : OIHW
    """
    sizes = []
    for axis in (0, 1):
        reach = geometry.dilation[axis] * (weight.shape[2 + axis] - 1) + 1
        sizes.append((stored[1 + axis] + sum(geometry.padding[axis]) - reach) // geometry.stride[axis] + 1)
    return (stored[0], *sizes, weight.shape[0])
