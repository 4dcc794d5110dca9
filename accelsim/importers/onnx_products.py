"""Matrix products of ONNX: what a convolution or matrix multiplication is, before it becomes a layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

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


def exact_units(product: Product, channels: int, factor: Fraction) -> list[Fraction]:
    """Return the exact scale of each channel's accumulators."""
    second = product.weight.scale if product.weight is not None else np.asarray(product.other.scale)  # type: ignore[union-attr]
    first = Fraction(float(product.x.scale)) * factor
    return [first * Fraction(float(each)) for each in np.broadcast_to(second.astype(np.float64).reshape(-1), channels)]


def reach_of(product: Product, channels: int) -> list[int]:
    """Return what no channel's accumulator can exceed in magnitude."""
    x_format = formats.get(product.x.format)
    x_largest = _largest(x_format, product.x.zero_point)
    bias = [0] * channels if product.bias is None else [abs(int(each)) for each in product.bias]
    if product.weight is None:
        assert product.other is not None
        other = _largest(formats.get(product.other.format), product.other.zero_point)
        return [product.x.shape[-1] * x_largest * other] * channels
    codes = product.weight.codes.astype(np.int64)
    rows = codes.reshape(codes.shape[0], -1) if product.kind == "conv" else codes.T
    values = 2 * rows - 1 if product.weight.format == "binary" else rows - product.weight.zero_point.reshape(-1, 1)
    return [int(row) * x_largest + each for row, each in zip(np.abs(values).sum(axis=1), bias, strict=True)]


def _largest(number_format: formats.Format, zero_point: int) -> int:
    if number_format.datapath == "binary":
        return 1
    return max(number_format.code_high - zero_point, zero_point - number_format.code_low)


def negated_channels(product: Product, negated: NDArray[np.bool_]) -> Product:
    """Return the product with some of its output channels negated: batch normalization with a negative factor falls
    where its accumulator rises, and thresholds only count upwards.
    """
    if not negated.any():
        return product
    if product.weight is None:
        if not negated.all():
            raise NotSupported("some channels of a product of two activations have a negative factor")
        raise NotSupported("a product of two activations has a negative factor")
    weight = product.weight
    codes = weight.codes.astype(np.int64)
    shape = [negated.size if axis == (0 if product.kind == "conv" else codes.ndim - 1) else 1 for axis in
             range(codes.ndim)]  # fmt: skip
    chosen = negated.reshape(shape)
    if weight.format == "binary":
        flipped, name, zero = 1 - codes, "binary", weight.zero_point
    else:
        flipped, zero = -codes, weight.zero_point
        if zero.any():
            zero = np.where(negated, -zero, np.broadcast_to(zero, negated.shape))
        values = np.where(chosen, flipped, codes)
        name = _holding(weight.format, values)
    bias = None if product.bias is None else np.where(negated, -product.bias, product.bias)
    return replace(product, weight=Weight(np.where(chosen, flipped, codes), weight.scale, zero, name), bias=bias)


def _holding(name: str, values: NDArray[np.int64]) -> str:
    """Return the format, or the narrowest signed one that holds negated codes too."""
    number_format = formats.get(name)
    low, high = int(values.min()), int(values.max())
    if number_format.code_low <= low and high <= number_format.code_high:
        return name
    bits = max(number_format.lane_bits, high.bit_length() + 1, (-low - 1).bit_length() + 1 if low < 0 else 0)
    return f"int{bits}"
