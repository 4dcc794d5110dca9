"""Shapes and work of layers, from shapes alone: what a layer's output must measure, and its multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Mapping

from numpy import broadcast_shapes

from accelsim.errors import ShapeError
from accelsim.trace.schema import Conv2dMeta, Layer, LinearMeta, MatmulMeta, TensorMeta

Shape = tuple[int, ...]
Pads = tuple[tuple[int, int], tuple[int, int]]


def conv_output_size(size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int) -> int:
    """Return the number of output rows (or columns) of a convolution; 0 or less where the kernel does not fit."""
    reach = dilation * (kernel - 1) + 1
    return (size + padding[0] + padding[1] - reach) // stride + 1


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return (before, after) by TensorFlow's rule: ceil(size / stride) outputs, the odd element after."""
    reach = dilation * (kernel - 1) + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def weight_name(layer: Layer) -> str:
    """Return the name of the layer's second operand: its weight, or the other activation of a matrix product."""
    return layer.other if isinstance(layer, MatmulMeta) else layer.weight


def output_shape(layer: Layer, input_shape: Shape, weight_shape: Shape) -> Shape:
    """Return the shape of the layer's output.

    input_shape, weight_shape : of `layer.input` and of :func:`weight_name`

    Raises ShapeError, without the layer's name, where the operands do not fit together.
    """
    if isinstance(layer, Conv2dMeta):
        return _conv2d(layer, input_shape, weight_shape)
    if isinstance(layer, LinearMeta):
        return _linear(layer, input_shape, weight_shape)
    return _matmul(layer, input_shape, weight_shape)


def _conv2d(layer: Conv2dMeta, x: Shape, w: Shape) -> Shape:
    if len(x) != 4:
        raise ShapeError(f"input has shape {x}, but a conv2d takes 4 dimensions (batch, height, width, channel)")
    if len(w) != 4:
        raise ShapeError(
            f"weight has shape {w}, but a conv2d's has 4 dimensions (out channel, kernel height, kernel width, "
            f"in channel / groups)"
        )
    if x[3] % layer.groups:
        raise ShapeError(f"groups={layer.groups} does not divide the input's {x[3]} channels")
    if w[0] % layer.groups:
        raise ShapeError(f"groups={layer.groups} does not divide the weight's {w[0]} output channels")
    if w[3] != x[3] // layer.groups:
        raise ShapeError(
            f"weight has {w[3]} input channels, but the input's {x[3]} channels in {layer.groups} group(s) need "
            f"{x[3] // layer.groups}"
        )
    sizes = []
    for axis, side in ((0, "height"), (1, "width")):
        padding, dilation = layer.padding[axis], layer.dilation[axis]
        size = conv_output_size(x[1 + axis], w[1 + axis], layer.stride[axis], padding, dilation)
        if size < 1:
            raise ShapeError(
                f"a kernel of {side} {w[1 + axis]} with dilation {dilation} does not fit the input's {x[1 + axis]} "
                f"with padding {padding}"
            )
        sizes.append(size)
    return (x[0], *sizes, w[0])


def _linear(layer: LinearMeta, x: Shape, w: Shape) -> Shape:
    if len(w) != 2:
        raise ShapeError(f"weight has shape {w}, but a linear layer's has 2 dimensions (out, in)")
    if len(x) < 2:
        raise ShapeError(f"input has shape {x}, but a linear layer takes at least 2 dimensions (batch, ..., channel)")
    features = math.prod(x[1:]) if layer.flatten else x[-1]
    if w[1] != features:
        reduced = "all but the first axis, flattened" if layer.flatten else "the last axis"
        hint = ""
        if not layer.flatten and w[1] == math.prod(x[1:]):
            hint = "; flatten=true would reduce all axes but the first"
        raise ShapeError(f"weight takes {w[1]} inputs, but the input {x} has {features} ({reduced}){hint}")
    return (x[0], w[0]) if layer.flatten else (*x[:-1], w[0])


def _matmul(layer: MatmulMeta, a: Shape, b: Shape) -> Shape:
    if len(a) < 2 or len(a) != len(b):
        raise ShapeError(f"input {a} and other {b} must have the same number of dimensions, 2 or more")
    try:
        leading = broadcast_shapes(a[:-2], b[:-2])
    except ValueError:
        raise ShapeError(f"leading dimensions differ: input {a}, other {b}; they must be equal, or 1") from None
    k, n = (b[-1], b[-2]) if layer.transpose_other else (b[-2], b[-1])
    if a[-1] != k:
        other = "[..., N, K] (transpose_other)" if layer.transpose_other else "[..., K, N]"
        raise ShapeError(f"input {a} ends in K={a[-1]}, but other {b}, which is {other}, has K={k}")
    return (*leading, a[-2], n)


def reduction_axis_of_weight(layer: Layer, weight_ndim: int) -> int:
    """Return the axis of the weight that the layer sums over (with the input's last one): the one that may have
    blocks.
    """
    if isinstance(layer, MatmulMeta) and not layer.transpose_other:
        return weight_ndim - 2
    return weight_ndim - 1


def channel_axis_of_weight(layer: Layer, weight_ndim: int) -> int:
    """Return the axis of the weight that becomes the output's last axis: the one that may have per-channel scales."""
    if isinstance(layer, MatmulMeta):
        return weight_ndim - 2 if layer.transpose_other else weight_ndim - 1
    return 0


def macs(layer: Layer, tensors: Mapping[str, TensorMeta]) -> int:
    """Return the multiply-accumulates of a layer (all images of the batch, products with padding included)."""
    output, weight = tensors[layer.output].shape, tensors[weight_name(layer)].shape
    if isinstance(layer, MatmulMeta):
        return math.prod(output) * tensors[layer.input].shape[-1]
    return math.prod(output) * math.prod(weight[1:])
