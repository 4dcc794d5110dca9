"""ONNX's operators that move codes, or pick some of them: what they hold keeps its meaning.

Reshapes and transposes are remembered, not done (accelsim.importers.onnx_values); slices, pads, concatenations, maxima
and enlargements are operators of the vector unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_graph import Node
from accelsim.importers.onnx_pending import Pending
from accelsim.importers.onnx_values import (
    CHANNELS_FIRST,
    Codes,
    Constant,
    FloatInput,
    Host,
    Move,
    Shape,
    View,
    output_of,
)
from accelsim.importers.onnx_vectors import window, window_sizes
from accelsim.importers.onnx_walk import Walk


def _move(walk: Walk, node: Node, move: Move) -> None:
    value = walk.values.get(node.input(0))
    if isinstance(value, Pending):
        walk.set(node, value.moved(move))
    elif isinstance(value, Constant):
        walk.set(node, _moved_constant(value, move))
    elif isinstance(value, Codes | FloatInput):
        walk.set(node, replace(value, view=value.view.moved(move)))
    else:
        raise NotSupported(f"moves {node.input(0)!r}, which is not quantized")


def _moved_constant(value: Constant, move: Move) -> Constant:
    axis = value.axis
    if value.scale is not None and value.scale.size > 1 and axis is not None:
        if move.kind == "reshape":
            raise NotSupported("reshapes a constant that has a scale a channel")
        axis = move.to.index(axis % value.array.ndim)
    return replace(value, array=move.of(value.array), axis=axis)


def transpose(walk: Walk, node: Node) -> None:
    """Transpose."""
    rank = len(walk.shape_of(node.input(0)))
    order = tuple(int(axis) for axis in node.attributes.get("perm", range(rank)[::-1]))
    if sorted(order) != list(range(rank)):
        raise NotSupported(f"perm {list(order)} is no permutation of {rank} axes")
    _move(walk, node, Move("transpose", order))


def reshape(walk: Walk, node: Node) -> None:
    """Reshape to a constant shape, with 0 (as before) and one -1 (the rest)."""
    before = walk.shape_of(node.input(0))
    target = walk.integers(node, 1, "the shape") if node.input(1) else np.asarray(node.attributes.get("shape", ()))
    sizes = [int(size) for size in target.reshape(-1)]
    if not node.attributes.get("allowzero", 0):
        sizes = [before[i] if size == 0 and i < len(before) else size for i, size in enumerate(sizes)]
    if sizes.count(-1) == 1:
        rest = math.prod(size for size in sizes if size != -1)
        sizes = [math.prod(before) // max(rest, 1) if size == -1 else size for size in sizes]
    if math.prod(sizes) != math.prod(before) or min(sizes, default=1) < 1:
        raise NotSupported(f"reshapes {before} to {[int(size) for size in target.reshape(-1)]}")
    _reshaped(walk, node, tuple(sizes))


def _reshaped(walk: Walk, node: Node, shape: Shape) -> None:
    before = walk.shape_of(node.input(0))
    value = walk.values.get(node.input(0))
    if not isinstance(value, Constant) and walk.batches > 1 and _splits_batch(before, shape):
        raise NotSupported(f"a reshape from {before} to {shape} mixes the images of a batch; import with batch=1")
    _move(walk, node, Move("reshape", shape))


def _splits_batch(before: Shape, after: Shape) -> bool:
    """Return whether the outermost axis is no whole number of images any more."""
    return not after or (before[0] % after[0] != 0 and after[0] % before[0] != 0)


def flatten(walk: Walk, node: Node) -> None:
    """Flatten to two dimensions."""
    shape, axis = walk.shape_of(node.input(0)), int(node.attributes.get("axis", 1))
    axis = axis % len(shape) if axis < 0 else axis
    _reshaped(walk, node, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def squeeze(walk: Walk, node: Node) -> None:
    """Squeeze: drop axes of size 1."""
    shape, axes = walk.shape_of(node.input(0)), _axes(walk, node)
    rank = len(shape)
    gone = {axis % rank for axis in axes} if axes is not None else {i for i, size in enumerate(shape) if size == 1}
    if any(shape[axis] != 1 for axis in gone):
        raise NotSupported(f"squeezes axes {sorted(gone)} of {shape}")
    _reshaped(walk, node, tuple(size for axis, size in enumerate(shape) if axis not in gone))


def unsqueeze(walk: Walk, node: Node) -> None:
    """Unsqueeze: insert axes of size 1."""
    shape, axes = list(walk.shape_of(node.input(0))), _axes(walk, node) or ()
    rank = len(shape) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        shape.insert(axis, 1)
    _reshaped(walk, node, tuple(shape))


def _axes(walk: Walk, node: Node, index: int = 1) -> tuple[int, ...] | None:
    if node.input(index):
        return tuple(int(axis) for axis in walk.integers(node, index, "the axes"))
    axes = node.attributes.get("axes")
    return None if axes is None else tuple(int(axis) for axis in axes)


def identity(walk: Walk, node: Node) -> None:
    """Identity, and Dropout in inference."""
    if isinstance(walk.values.get(node.input(0)), Host):
        raise NotSupported("follows floats")
    walk.set(node, walk.values[node.input(0)])


# --- operators of the vector unit


def _codes(walk: Walk, node: Node, index: int = 0) -> Codes:
    value = walk.values.get(node.input(index))
    return walk.codes(node, index, real=isinstance(value, Codes) and value.real)


def _add(
    walk: Walk,
    node: Node,
    operator: str,
    x: Codes,
    attributes: dict[str, Any],
    stored: Shape,
    *,
    index: int = 0,
    last: Move | None = None,
) -> None:
    """Add an operator on a tensor, arranged as it is, and say what its output is: after `last`, if given."""
    view = View("", stored, x.view.moves)
    view = view if last is None else view.moved(last)
    name = walk.vector_layer(
        node, operator, [x.view.tensor], output_of(x), attributes, after=stored, names=node.outputs[index], view=view
    )
    walk.set(node, replace(x, view=replace(view, tensor=name)), index)


def max_pool(walk: Walk, node: Node) -> None:
    """MaxPool."""
    x = _codes(walk, node)
    if len(node.outputs) > 1 and node.outputs[1]:
        raise NotSupported("the indices of the maxima are asked for")
    flat = len(x.shape) == 3
    seen = replace(x, view=x.view.moved(Move("reshape", (*x.shape[:2], 1, x.shape[2])))) if flat else x
    if len(seen.shape) != 4:
        raise NotSupported(f"pools {len(x.shape) - 2} dimensions; one or two are supported")
    images = walk.arranged(node, seen, CHANNELS_FIRST)
    batch, height, width, channels = images.view.stored
    kernel, geometry = window(node, (height, width), channels)
    sizes = window_sizes((height, width), kernel, geometry, bool(node.attributes.get("ceil_mode", 0)))
    attributes = {"kernel": kernel, "stride": geometry.stride, "padding": geometry.padding}
    last = Move("reshape", (batch, channels, sizes[1])) if flat else None
    _add(walk, node, "max_pool2d", images, attributes, (batch, *sizes, channels), last=last)


def _axis_order(walk: Walk, node: Node, x: Codes) -> tuple[Codes, Shape]:
    """Return codes arranged by one transpose at most, and the trace's axis of each of ONNX's."""
    moves, rank = x.view.moves, len(x.shape)
    order = moves[0].to if len(moves) == 1 and moves[0].kind == "transpose" else tuple(range(rank))
    return walk.arranged(node, x, order), order


def slice_(walk: Walk, node: Node) -> None:
    """Slice with constant bounds."""
    x, order = _axis_order(walk, node, _codes(walk, node))
    shape = x.shape
    if node.input(1):
        starts, ends = (walk.integers(node, i, what) for i, what in ((1, "starts"), (2, "ends")))
    else:
        starts, ends = (np.asarray(node.attributes[what]) for what in ("starts", "ends"))
    axes = _axes(walk, node, 3)
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = walk.integers(node, 4, "steps") if node.input(4) else np.ones(len(starts), np.int64)
    if not len(starts) == len(ends) == len(axes) == len(steps) or not np.all(steps):
        raise NotSupported(f"starts {starts}, ends {ends}, axes {axes} and steps {steps} do not fit together")
    picks = [range(size) for size in shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        picks[axis % len(shape)] = range(shape[axis % len(shape)])[slice(int(start), int(end), int(step))]
    _pick(walk, node, x, order, picks, 0)


def _pick(walk: Walk, node: Node, x: Codes, order: Shape, picks: list[range], index: int) -> None:
    if any(len(pick) == 0 for pick in picks):
        raise NotSupported("nothing is left of the input")
    if picks[0] != range(x.shape[0]) and walk.batches > 1:
        raise NotSupported("slices the batch; import one batch of the file at a time (batch=1)")
    stored = [picks[0]] * len(picks)
    for onnx_axis, axis in enumerate(order):
        stored[axis] = picks[onnx_axis]
    sizes = tuple(len(pick) for pick in stored)
    whole = (sizes[0] * walk.batches, *sizes[1:])
    attributes = {
        "begin": tuple(pick.start for pick in stored),
        "size": whole,
        "stride": tuple(pick.step for pick in stored),
    }
    _add(walk, node, "slice", x, attributes, sizes, index=index)


def split(walk: Walk, node: Node) -> None:
    """Split along an axis: a slice for each output."""
    x, order = _axis_order(walk, node, _codes(walk, node))
    axis = int(node.attributes.get("axis", 0)) % len(x.shape)
    size, count = x.shape[axis], len(node.outputs)
    if node.input(1):
        parts = [int(part) for part in walk.integers(node, 1, "the parts' sizes")]
    elif "split" in node.attributes:
        parts = [int(part) for part in node.attributes["split"]]
    else:
        part = -(-size // count)
        parts = [min(part, size - i * part) for i in range(count)]
    if sum(parts) != size or len(parts) != count:
        raise NotSupported(f"parts of {parts} do not make up {size}")
    begin = 0
    for index, part in enumerate(parts):
        picks = [range(each) for each in x.shape]
        picks[axis] = range(begin, begin + part)
        _pick(walk, node, x, order, picks, index)
        begin += part


def pad(walk: Walk, node: Node) -> None:
    """Pad with a constant."""
    x, order = _axis_order(walk, node, _codes(walk, node))
    rank = len(x.shape)
    if node.attributes.get("mode", "constant") != "constant":
        raise NotSupported(f"mode {node.attributes['mode']!r}; only constant padding is supported")
    pads = walk.integers(node, 1, "the pads") if node.input(1) else np.asarray(node.attributes.get("pads", ()))
    axes = _axes(walk, node, 3) or tuple(range(rank))
    flat = [int(each) for each in pads.reshape(-1)]
    if len(flat) != 2 * len(axes) or min(flat) < 0:
        raise NotSupported(f"pads {flat} are not (before, after) of {len(axes)} axes, none negative")
    pairs = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        pairs[order[axis % rank]] = (flat[i], flat[len(axes) + i])
    if any(pairs[0]) and walk.batches > 1:
        raise NotSupported("pads the batch")
    attributes: dict[str, Any] = {"padding": tuple(pairs), "code": _fill(walk, node, x)}
    stored = tuple(size + sum(pair) for size, pair in zip(x.view.stored, pairs, strict=True))
    _add(walk, node, "pad", x, attributes, stored)


def _fill(walk: Walk, node: Node, x: Codes) -> int:
    """Return the code to pad with; of reals the one that means the constant."""
    value = walk.number(node, 2, "the constant", np.zeros((), np.int64)) if node.input(2) else 0
    constant = walk.values.get(node.input(2))
    if not x.real:
        return int(value)
    number = float(constant.reals().reshape(())) if isinstance(constant, Constant) else 0.0
    code = number / float(x.scale) + x.zero_point
    if not float(code).is_integer():
        raise NotSupported(f"pads with {number}, which no code means")
    return int(code)


def resize(walk: Walk, node: Node) -> None:
    """Resize of images to the nearest pixel, by a whole factor."""
    x = walk.arranged(node, _codes(walk, node), CHANNELS_FIRST)
    batch, height, width, channels = x.view.stored
    mode, near = node.attributes.get("mode", "nearest"), node.attributes.get("nearest_mode", "round_prefer_floor")
    place = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    if node.input(3):
        sizes = [int(each) for each in walk.integers(node, 3, "the sizes")]
        factors = [new / old for new, old in zip(sizes, x.shape, strict=True)]
    else:
        at = 2 if node.op == "Resize" and len(node.inputs) > 2 else 1
        factors = [float(each) for each in walk.constant(node, at, "the factors").reshape(-1)]
    whole = len(factors) == 4 and factors[:2] == [1, 1] and all(each >= 1 and each.is_integer() for each in factors)
    # By whole factors every convention but align_corners copies each pixel the same number of times.
    copies = (place, near) in {
        ("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil"),
        ("pytorch_half_pixel", "round_prefer_floor"),
    }  # fmt: skip
    if mode not in ("nearest", b"nearest") or not whole or (node.op == "Resize" and not copies):
        raise NotSupported(
            f"mode {mode}, {place}, {near}, factors {factors}; images enlarged by whole factors to the nearest pixel "
            f"are supported"
        )
    new = (height * int(factors[2]), width * int(factors[3]))
    attributes = {"height": new[0], "width": new[1]}
    _add(walk, node, "resize_nearest", x, attributes, (batch, *new, channels))


def arrange_all(walk: Walk, node: Node, tensors: list[Codes]) -> tuple[list[Codes], Shape]:
    """Return tensors of one rank, arranged alike, and the trace's axis of each of ONNX's."""
    _, order = _axis_order(walk, node, tensors[0])
    return [walk.arranged(node, each, order) for each in tensors], order


MOVES: dict[tuple[str, str], Callable[[Walk, Node], None]] = {
    ("", "Transpose"): transpose,
    ("", "Reshape"): reshape,
    ("", "Flatten"): flatten,
    ("", "Squeeze"): squeeze,
    ("", "Unsqueeze"): unsqueeze,
    ("", "Identity"): identity,
    ("", "Dropout"): identity,
    ("", "MaxPool"): max_pool,
    ("", "Slice"): slice_,
    ("", "Split"): split,
    ("", "Pad"): pad,
    ("", "Resize"): resize,
    ("", "Upsample"): resize,
}
