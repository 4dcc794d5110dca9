"""Matrix products as layers of the array, in the trace's arrangement: channels last, output channels first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_graph import Node
from accelsim.importers.onnx_products import Product, conv_output
from accelsim.importers.onnx_values import CHANNELS_FIRST, CHANNELS_LAST, Move, View
from accelsim.importers.onnx_walk import Walk


@dataclass(frozen=True, eq=False)
class _Site:
    """Where a layer is added.

    node : what it is named after
    name, output : of the layer and of its output, in the trace
    tensor : the ONNX tensor that it makes
    finish : the keywords of TraceBuilder's layers that say what leaves
    moves : what follows before ONNX's tensor
    """

    walk: Walk
    node: Node
    name: str
    output: str
    tensor: str
    finish: Mapping[str, Any]
    moves: tuple[Move, ...]

    def keywords(self, view: View) -> dict[str, Any]:
        """Return the keywords that all layers share."""
        return {
            **self.finish,
            "output_name": self.output,
            "expected": self.walk.expected_of(self.tensor, self.seen(view)),
        }

    def seen(self, view: View) -> View:
        """Return how ONNX sees the layer's output."""
        for move in self.moves:
            view = view.moved(move)
        return view


def add_product(
    walk: Walk,
    node: Node,
    product: Product,
    tensor: str,
    finish: Mapping[str, Any],
    out_format: str,
    moves: tuple[Move, ...] = (),
) -> View:
    """Add a product to the trace; return how ONNX sees its output, `moves` after the product.

    node : what the layer is named after
    tensor : the ONNX tensor that it makes
    finish : the keywords of TraceBuilder's layers that say what leaves
    out_format : the output's format, for the list of layers
    """
    site = _Site(walk, node, walk.names.new(node.name), walk.names.new(tensor), tensor, finish, moves)
    add: Callable[[_Site, Product], tuple[View, int]] = {"conv": _conv, "linear": _linear, "matmul": _matmul}[
        product.kind
    ]
    view, macs = add(site, product)
    walk.formats[site.output] = out_format
    second = product.weight if product.weight is not None else product.other
    assert second is not None
    shape = product.weight.codes.shape if product.weight is not None else product.other.shape  # type: ignore[union-attr]
    weights = math.prod(shape) if product.weight is not None else 0
    walk.list_layer(
        site.name, product.node, product.x, shape, second.format, site.seen(view).shape, out_format, macs, weights
    )
    return site.seen(view)


def _conv(site: _Site, product: Product) -> tuple[View, int]:
    weight, codes, geometry, x = product.weight, product.oihw(), product.window(), product.x
    assert weight is not None
    flat = len(x.shape) == 3
    if flat:
        x = replace(x, view=x.view.moved(Move("reshape", (*x.shape[:2], 1, x.shape[2]))))
    images = site.walk.arranged(site.node, x, CHANNELS_FIRST)
    stored = conv_output(images.view.stored, codes, geometry)
    view = View(site.output, stored, (Move("transpose", CHANNELS_FIRST),))
    if flat:
        view = view.moved(Move("reshape", (stored[0], stored[3], stored[2])))
    site.walk.builder.conv2d(
        site.name,
        images.view.tensor,
        weight.tensor(codes.transpose(CHANNELS_LAST)),
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
        bias=product.bias,
        **site.keywords(view),
    )
    return view, math.prod(stored) * math.prod(codes.shape[1:])


def _linear(site: _Site, product: Product) -> tuple[View, int]:
    assert product.weight is not None
    x, weight = product.x, product.weight.codes.T  # [N, K]
    shape = x.shape
    if shape[-1] != weight.shape[1]:
        raise NotSupported(f"input {shape} and weight {product.weight.codes.shape} do not fit together")
    columns = _features(x.view) if len(shape) == 2 else None
    if columns is None:
        tensor, flatten = site.walk.arranged(site.node, x, tuple(range(len(shape)))).view.tensor, False
    else:  # however the trace stores an image's features, the weight's columns follow them
        tensor, flatten = x.view.tensor, True
        arranged = np.empty_like(weight)
        arranged[:, columns] = weight
        weight = arranged
    view = View(site.output, (*shape[:-1], weight.shape[0]))
    site.walk.builder.linear(
        site.name,
        tensor,
        product.weight.tensor(weight),
        flatten=flatten,
        bias=product.bias,
        **site.keywords(view),
    )
    return view, math.prod(shape) * weight.shape[0]


def _matmul(site: _Site, product: Product) -> tuple[View, int]:
    a, b = product.x, product.other
    assert b is not None
    rank = len(a.shape)
    if len(b.shape) != rank or rank < 2 or a.shape[:-2] != b.shape[:-2]:
        raise NotSupported(f"{a.shape} times {b.shape}: leading sizes must be equal, without broadcasting")
    if a.shape[-1] != b.shape[-2]:
        raise NotSupported(f"{a.shape} times {b.shape}: the inner sizes differ")
    if site.walk.batches > 1 and rank == 2:
        raise NotSupported("a product of two matrices has no batch; import one batch of the file (batch=1)")
    straight = tuple(range(rank))
    swapped = (*straight[:-2], rank - 1, rank - 2)
    a = site.walk.arranged(site.node, a, straight)
    transposed = bool(b.view.moves) and b.view.moves[-1] == Move("transpose", swapped)
    b = site.walk.arranged(site.node, b, swapped if transposed else straight)
    view = View(site.output, (*a.shape[:-1], b.shape[-1]))
    site.walk.builder.matmul(
        site.name, a.view.tensor, b.view.tensor, transpose_other=transposed, bias=product.bias, **site.keywords(view)
    )
    return view, math.prod(view.shape) * a.shape[-1]


def _features(view: View) -> NDArray[np.int64] | None:
    """Return where in a stored image each of ONNX's features [batch, features] lies; None where the batch is moved."""
    order = view.order()
    size = math.prod(view.stored[1:])
    if order.shape != (view.stored[0], size):
        return None
    first = order[0]
    expected = first[None, :] + size * np.arange(order.shape[0])[:, None]
    return first if np.array_equal(order, expected) and first.max() < size else None
