"""ONNX's operators on codes (QOperator format): each takes scales and zero points beside its codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_graph import Node
from accelsim.importers.onnx_products import Product, Weight
from accelsim.importers.onnx_values import Array, Codes, Constant
from accelsim.importers.onnx_walk import Walk, float32, format_of

RULE = "float32_half_even"
"""What ONNX Runtime does on its way out (docs/numerics.md): one float32 product, ties to even."""


def qlinear_conv(walk: Walk, node: Node) -> None:
    """QLinearConv: x, its scale and zero point, w and its, the output's, bias."""
    x = walk.codes(node, 0)
    x_scale, x_zero = walk.number(node, 1, "x_scale"), int(walk.number(node, 2, "x_zero_point"))
    walk.check_meaning(x, x_zero)
    weight = _weight(walk, node, 3, channels_at=0)
    bias = _bias(walk, node, 8)
    product = Product("conv", node, x, weight, bias=bias)
    scale = float32(float32(x_scale) * float32(weight.scale))
    _finish(walk, node, product, scale, _target(walk, node, 6, 7))


def qlinear_matmul(walk: Walk, node: Node) -> None:
    """QLinearMatMul: a, b, the output; each with scale and zero point. b may be another activation."""
    product, scale = _matmul(walk, node, (0, 1, 2), (3, 4, 5))
    _finish(walk, node, product, scale, _target(walk, node, 6, 7))


def _matmul(walk: Walk, node: Node, a_at: tuple[int, int, int], b_at: tuple[int, int, int]) -> tuple[Product, Array]:
    a = walk.codes(node, a_at[0], "a")
    a_scale, a_zero = walk.number(node, a_at[1], "a_scale"), int(walk.number(node, a_at[2], "a_zero_point", 0))
    walk.check_meaning(a, a_zero, "first operand")
    if isinstance(walk.values.get(node.input(b_at[0])), Constant):
        weight = _weight(walk, node, b_at[0], channels_at=-1)
        codes = weight.codes
        if codes.ndim > 2 and codes.size == codes.shape[-1] * codes.shape[-2]:
            codes = codes.reshape(codes.shape[-2:])
        if codes.ndim != 2:
            raise NotSupported(f"b is a constant of shape {codes.shape}; a matrix is supported")
        weight = Weight(codes, weight.scale, weight.zero_point, weight.format)
        return Product("linear", node, a, weight), float32(float32(a_scale) * float32(weight.scale))
    b = walk.codes(node, b_at[0], "b")
    b_scale, b_zero = walk.number(node, b_at[1], "b_scale"), int(walk.number(node, b_at[2], "b_zero_point", 0))
    walk.check_meaning(b, b_zero, "second operand")
    return Product("matmul", node, a, other=b), float32(float32(a_scale) * float32(b_scale))


def _weight(walk: Walk, node: Node, index: int, channels_at: int) -> Weight:
    """Return a constant weight with the scale and zero point in the inputs after it."""
    codes = walk.constant(node, index, "the weight")
    scale = walk.constant(node, index + 1, "the weight's scale")
    zero = walk.optional(node, index + 2, "the weight's zero point", 0)
    return Weight(codes, *per_channel(codes, scale, zero, channels_at), format_of(codes))


def per_channel(codes: Array, scale: Array, zero: Array, channels_at: int) -> tuple[Array, Array]:
    """Return scale and zero point as () or (channels,)."""
    channels = codes.shape[channels_at]
    flat = []
    for what, array in (("scale", scale), ("zero point", zero)):
        if array.size not in (1, channels):
            raise NotSupported(
                f"the weight's {what} has shape {array.shape}, and there are {channels} output channels; one number, "
                f"or one a channel, is supported"
            )
        flat.append(array.reshape(() if array.size == 1 else (channels,)))
    return flat[0], flat[1].astype(np.int64)


def _bias(walk: Walk, node: Node, index: int) -> Any:
    return walk.constant(node, index, "the bias").astype(np.int64).ravel() if node.input(index) else None


def _target(walk: Walk, node: Node, scale_at: int, zero_at: int) -> tuple[np.float32, int, str]:
    """Return (scale, zero point, format) of the output; its type is the zero point's."""
    zero = walk.optional(node, zero_at, "the output's zero point", np.zeros((), np.uint8))
    if zero.size != 1:
        raise NotSupported(f"the output's zero point has shape {zero.shape}; one number is supported")
    return np.float32(walk.number(node, scale_at, "the output's scale")), int(zero.reshape(())), format_of(zero)


def _finish(walk: Walk, node: Node, product: Product, scale: Array, target: tuple[np.float32, int, str]) -> None:
    """Add the layer with ONNX Runtime's requantization: one float32 factor, float32(s_x * s_w) / s_y."""
    out_scale, zero_point, out_format = target
    factor = float32(scale / out_scale)
    finish = {
        "output": out_format,
        "scale": float(out_scale),
        "zero_point": zero_point,
        "rounding": RULE,
        "requantization_scale": factor.astype(np.float64),
    }
    view = product.add(walk, node, node.outputs[0], finish, out_format)
    walk.set(node, Codes(view, out_format, float(out_scale), zero_point, real=False))


QOPERATORS = {
    ("", "QLinearConv"): qlinear_conv,
    ("", "QLinearMatMul"): qlinear_matmul,
}
