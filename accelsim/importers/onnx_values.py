"""What an ONNX tensor is during an import: codes of the trace seen through reshapes and transposes, a constant, or an
operation whose output format a later node will say.

The trace keeps channels last (NHWC), ONNX keeps them second (NCHW). Nothing is moved for that: a value remembers how
ONNX sees the trace's tensor, and only what really needs another order of elements gets a transpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.importers.graph import NotSupported

Array = NDArray[Any]
Shape = tuple[int, ...]
CHANNELS_FIRST = (0, 3, 1, 2)
"""How ONNX sees the trace's [batch, height, width, channel]."""
CHANNELS_LAST = (0, 2, 3, 1)


@dataclass(frozen=True)
class Move:
    """A reshape to `to`, or a transpose whose axis i is axis ``to[i]`` of before."""

    kind: Literal["reshape", "transpose"]
    to: Shape

    def of(self, array: Array) -> Array:
        """Return the moved array."""
        return array.reshape(self.to) if self.kind == "reshape" else array.transpose(self.to)

    def shape(self, shape: Shape) -> Shape:
        """Return the shape of what had `shape`."""
        return self.to if self.kind == "reshape" else tuple(shape[axis] for axis in self.to)


@dataclass(frozen=True)
class View:
    """How ONNX sees a tensor of the trace.

    tensor : its name
    stored : its shape in the trace, with the file's batch
    moves : from there to ONNX's
    """

    tensor: str
    stored: Shape
    moves: tuple[Move, ...] = ()

    @property
    def shape(self) -> Shape:
        """ONNX's shape, with the file's batch."""
        shape = self.stored
        for move in self.moves:
            shape = move.shape(shape)
        return shape

    def order(self) -> NDArray[np.int64]:
        """Return, in ONNX's shape, the position in the trace of every element."""
        return self.to_onnx(np.arange(math.prod(self.stored)).reshape(self.stored))

    def to_onnx(self, array: Array) -> Array:
        """Return an array of the trace as ONNX sees it; any batch."""
        batches = array.shape[0] // self.stored[0]
        for move in self.moves:
            array = _batched(move, batches).of(array)
        return array

    def to_trace(self, array: Array) -> Array:
        """Return an array of ONNX as the trace stores it; any batch."""
        batches = array.shape[0] // self.shape[0]
        shapes = [self.stored]
        for move in self.moves:
            shapes.append(move.shape(shapes[-1]))
        for move, before in zip(reversed(self.moves), reversed(shapes[:-1]), strict=True):
            back = Move("reshape", before) if move.kind == "reshape" else Move("transpose", inverse(move.to))
            array = _batched(back, batches).of(array)
        return array

    def moved(self, move: Move) -> View:
        """Return the view of what ONNX sees after one more move."""
        moves = list(self.moves)
        before = self.shape
        if moves and moves[-1].kind == move.kind:
            last = moves.pop()
            to = move.to if move.kind == "reshape" else tuple(last.to[axis] for axis in move.to)
            move = Move(move.kind, to)
            before = View(self.tensor, self.stored, tuple(moves)).shape
        idle = before if move.kind == "reshape" else tuple(range(len(before)))
        if move.to != idle:
            moves.append(move)
        return replace(self, moves=tuple(moves))


@dataclass(frozen=True, eq=False)
class Codes:
    """Integer codes of the trace.

    view : which, and how ONNX sees them
    format : of the catalog
    scale, zero_point : what they mean; the scale of raw accumulators may be one a channel (the trace's last axis)
    real : ONNX sees ``(code - zero_point) * scale`` here, and not the codes
    known : the scale is said by the file (False: a bare integer tensor, scale 1)
    """

    view: View
    format: str
    scale: float | NDArray[np.float64]
    zero_point: int
    real: bool
    known: bool = True

    @property
    def shape(self) -> Shape:
        """ONNX's shape."""
        return self.view.shape


@dataclass(frozen=True)
class Output:
    """What a layer's output shall mean.

    format : of the catalog
    scale, zero_point : as the file says
    """

    format: str
    scale: float
    zero_point: int

    def real(self, code: int) -> float:
        """Return what a code means, in float32."""
        return float(np.float32(code - self.zero_point) * np.float32(self.scale))


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant array, as the file has it; with scale and zero point after a DequantizeLinear or Quant.

    scale, zero_point : arrays () or one a slice along `axis`, or None: the array is what it is
    """

    array: Array
    scale: Array | None = None
    zero_point: Array | None = None
    axis: int | None = None
    format: str = ""

    @property
    def shape(self) -> Shape:
        return self.array.shape

    def reals(self) -> NDArray[np.float32]:
        """Return the values, float32."""
        if self.scale is None:
            return np.asarray(self.array, np.float32)
        scale, zero = (
            spread(self.scale, self.axis, self.array.ndim),
            spread(self.zero_point, self.axis, self.array.ndim),
        )
        return np.asarray((self.array.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32))


@dataclass(frozen=True)
class Lost:
    """What a node that is not supported would have made."""

    why: str


@dataclass(frozen=True, eq=False)
class Host:
    """Floats computed behind the network's last codes, which the trace leaves to its reader.

    why : the node that computes them
    sources : the codes that they come from
    """

    shape: Shape
    why: str
    sources: tuple[Codes, ...]


@dataclass(frozen=True, eq=False)
class FloatInput:
    """A network input of floats on its way to the node that quantizes it.

    name : of the input
    view : its shape, and how it has been moved; `tensor` is its name
    steps : float32 operations in between, each an array to an array
    """

    name: str
    view: View
    steps: tuple[Callable[[Array], Array], ...] = field(default=())

    @property
    def shape(self) -> Shape:
        return self.view.shape


def output_of(codes: Codes) -> Output:
    """Return what codes mean, as a layer's output."""
    if np.ndim(codes.scale):
        raise NotSupported("accumulators with a scale a channel cannot be moved")
    return Output(codes.format, float(codes.scale), codes.zero_point)


def inverse(order: Shape) -> Shape:
    """Return the transpose that undoes a transpose."""
    return tuple(int(axis) for axis in np.argsort(order))


def spread(array: Array | None, axis: int | None, ndim: int) -> Array:
    """Reshape () or (C,) to broadcast along `axis`; None is 0."""
    values = np.asarray(0 if array is None else array)
    if values.size == 1:
        return values.reshape(())
    return values.reshape([values.size if i == axis else 1 for i in range(ndim)])


def _batched(move: Move, batches: int) -> Move:
    """Return a move on arrays with `batches` times the file's batch: it is outermost, and stays there."""
    if move.kind == "reshape" and batches != 1:
        return Move("reshape", (move.to[0] * batches, *move.to[1:]))
    return move
