"""Operators that only move codes: reshape, transpose, slice, pad, resize_nearest. Every code keeps its meaning."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from accelsim.actions import Actions
from accelsim.errors import FormatError, ShapeError
from accelsim.formats.spec import Codes
from accelsim.operators.common import check_count, check_same_meaning, listed
from accelsim.operators.spec import Attributes, Operand, Reals, Shape, TensorSpec, Work

Size = Annotated[int, Field(ge=1, le=1 << 31)]
Index = Annotated[int, Field(ge=0, le=1 << 31)]


class Move(ABC):
    """What moving operators share: codes pass through, so input and output mean the same by the same code.

    Each says where elements go, for whole arrays and, for the oracle, one by one.
    """

    @abstractmethod
    def moved_shape(self, shape: Shape, attributes: Any) -> Shape:
        """Return the shape of what is moved; ShapeError where it cannot be."""

    @abstractmethod
    def moved(self, array: NDArray[Any], attributes: Any) -> NDArray[Any]:
        """Return an array moved."""

    @abstractmethod
    def origin(self, place: Shape, shape: Shape, attributes: Any) -> Sequence[int] | None:
        """Return where in an input of `shape` the element at an output's place comes from; None: from nowhere."""

    def fill(self, output: TensorSpec, attributes: Any) -> int:
        """Return the code of what comes from nowhere: the one that means 0."""
        return output.zero_point

    def output_shape(self, inputs: Sequence[Shape], attributes: Any) -> Shape:
        check_count(inputs, 1, "x")
        return self.moved_shape(inputs[0], attributes)

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: Any) -> None:
        for tensor in inputs:
            check_same_meaning(tensor, output, "codes only move")

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: Any) -> Codes:
        return np.asarray(self.moved(inputs[0].codes, attributes), order="C")

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: Any) -> Codes:
        codes, shape, found = listed(inputs[0]), inputs[0].shape, []
        for place in np.ndindex(*output.shape):
            origin = self.origin(place, shape, attributes)
            found.append(self.fill(output, attributes) if origin is None else codes[flat_index(origin, shape)])
        return np.array(found).reshape(output.shape)

    def real(self, inputs: Sequence[Reals], attributes: Any) -> Reals:
        return self.moved(inputs[0], attributes)

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: Any) -> Work:
        return Work(passes=1, elements=math.prod(output.shape), actions=Actions())


def strides_of(shape: Shape) -> list[int]:
    """Return how many elements a step along each axis passes, last axis fastest."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def flat_index(place: Sequence[int], shape: Shape) -> int:
    """Return the position of an index in row-major order."""
    return sum(position * stride for position, stride in zip(place, strides_of(shape), strict=True))


class ReshapeAttributes(Attributes):
    """shape : the new sizes, as many elements as before."""

    shape: tuple[Size, ...]


class Reshape(Move):
    """The same codes in the same order, in another shape; only addresses change, so it takes no time."""

    name: ClassVar[str] = "reshape"
    attributes = ReshapeAttributes

    def moved_shape(self, shape: Shape, attributes: ReshapeAttributes) -> Shape:
        if math.prod(shape) != math.prod(attributes.shape):
            raise ShapeError(f"{shape} has {math.prod(shape)} elements, {attributes.shape} another number")
        return attributes.shape

    def moved(self, array: NDArray[Any], attributes: ReshapeAttributes) -> NDArray[Any]:
        return array.reshape(attributes.shape)

    def origin(self, place: Shape, shape: Shape, attributes: ReshapeAttributes) -> Sequence[int]:
        number = flat_index(place, attributes.shape)
        return [number // stride % size for stride, size in zip(strides_of(shape), shape, strict=True)]

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: ReshapeAttributes) -> Work:
        return Work(passes=0, elements=math.prod(output.shape), actions=Actions())


class TransposeAttributes(Attributes):
    """axes : output axis i is input axis ``axes[i]``."""

    axes: tuple[Index, ...]


class Transpose(Move):
    """The axes in another order."""

    name: ClassVar[str] = "transpose"
    attributes = TransposeAttributes

    def moved_shape(self, shape: Shape, attributes: TransposeAttributes) -> Shape:
        if sorted(attributes.axes) != list(range(len(shape))):
            raise ShapeError(f"axes {attributes.axes} are no permutation of the {len(shape)} axes of {shape}")
        return tuple(shape[axis] for axis in attributes.axes)

    def moved(self, array: NDArray[Any], attributes: TransposeAttributes) -> NDArray[Any]:
        return array.transpose(attributes.axes)

    def origin(self, place: Shape, shape: Shape, attributes: TransposeAttributes) -> Sequence[int]:
        origin = [0] * len(place)
        for axis, position in zip(attributes.axes, place, strict=True):
            origin[axis] = position
        return origin


class SliceAttributes(Attributes):
    """begin, size, stride : one number an axis: elements begin, begin + stride, ... of which there are `size`.

    A split is one slice for each of its outputs. stride : () for steps of 1; negative ones go backwards
    """

    begin: tuple[Index, ...]
    size: tuple[Size, ...]
    stride: tuple[int, ...] = ()


class Slice(Move):
    """Some of the elements, at equal distances along each axis."""

    name: ClassVar[str] = "slice"
    attributes = SliceAttributes

    def moved_shape(self, shape: Shape, attributes: SliceAttributes) -> Shape:
        strides = _strides(attributes)
        if not len(shape) == len(attributes.begin) == len(attributes.size) == len(strides):
            raise ShapeError(
                f"begin {attributes.begin}, size {attributes.size} and stride {strides} need one number for each "
                f"of the {len(shape)} axes of {shape}"
            )
        for axis, (begin, size, stride) in enumerate(zip(attributes.begin, attributes.size, strides, strict=True)):
            last = begin + (size - 1) * stride
            if stride == 0 or not (begin < shape[axis] and 0 <= last < shape[axis]):
                raise ShapeError(
                    f"axis {axis}: {size} element(s) from {begin} in steps of {stride} leave 0..{shape[axis] - 1}"
                )
        return attributes.size

    def moved(self, array: NDArray[Any], attributes: SliceAttributes) -> NDArray[Any]:
        steps = zip(attributes.begin, attributes.size, _strides(attributes), strict=True)
        for axis, (begin, size, stride) in enumerate(steps):
            array = array.take(begin + np.arange(size) * stride, axis=axis)
        return array

    def origin(self, place: Shape, shape: Shape, attributes: SliceAttributes) -> Sequence[int]:
        steps = zip(attributes.begin, place, _strides(attributes), strict=True)
        return [begin + i * stride for begin, i, stride in steps]


def _strides(attributes: SliceAttributes) -> tuple[int, ...]:
    return attributes.stride or (1,) * len(attributes.begin)


class PadAttributes(Attributes):
    """padding : (before, after) for each axis

    code : the new elements' code; None: the zero point, which means 0
    """

    padding: tuple[tuple[Index, Index], ...]
    code: int | None = None


class Pad(Move):
    """The tensor with elements around it: zero points, which mean 0, or a given code."""

    name: ClassVar[str] = "pad"
    attributes = PadAttributes

    def moved_shape(self, shape: Shape, attributes: PadAttributes) -> Shape:
        if len(attributes.padding) != len(shape):
            raise ShapeError(
                f"padding of {len(attributes.padding)} axes for {shape}; give (before, after) for each axis"
            )
        return tuple(size + before + after for size, (before, after) in zip(shape, attributes.padding, strict=True))

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: PadAttributes) -> None:
        super().check(inputs, output, attributes)
        low, high = output.format.code_low, output.format.code_high
        if attributes.code is not None and not low <= attributes.code <= high:
            raise FormatError(f"code {attributes.code} is none of {output.format.name}: use {low}..{high}")

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: PadAttributes) -> Codes:
        return np.pad(inputs[0].codes, attributes.padding, constant_values=self.fill(output, attributes))

    def moved(self, array: NDArray[Any], attributes: PadAttributes) -> NDArray[Any]:
        return np.pad(array, attributes.padding)  # of real numbers; `run` fills with codes

    def origin(self, place: Shape, shape: Shape, attributes: PadAttributes) -> Sequence[int] | None:
        origin = [position - before for position, (before, _) in zip(place, attributes.padding, strict=True)]
        inside = all(0 <= position < size for position, size in zip(origin, shape, strict=True))
        return origin if inside else None

    def fill(self, output: TensorSpec, attributes: PadAttributes) -> int:
        return output.zero_point if attributes.code is None else attributes.code


class ResizeNearestAttributes(Attributes):
    """height, width : of the output

    align_corners : the corner elements of input and output lie on each other
    half_pixel_centers : elements are squares whose centers lie at halves; not together with `align_corners`
    """

    height: Size
    width: Size
    align_corners: bool = False
    half_pixel_centers: bool = False


class ResizeNearest(Move):
    """Each output element is the nearest one of the input; TFLite's RESIZE_NEAREST_NEIGHBOR, in float32."""

    name: ClassVar[str] = "resize_nearest"
    attributes = ResizeNearestAttributes

    def moved_shape(self, shape: Shape, attributes: ResizeNearestAttributes) -> Shape:
        if len(shape) != 4:
            raise ShapeError(
                f"input has shape {shape}, but a resize takes 4 dimensions (batch, height, width, channel)"
            )
        if attributes.align_corners and attributes.half_pixel_centers:
            raise ShapeError("align_corners and half_pixel_centers exclude each other")
        return (shape[0], attributes.height, attributes.width, shape[3])

    def moved(self, array: NDArray[Any], attributes: ResizeNearestAttributes) -> NDArray[Any]:
        for axis, size in ((1, attributes.height), (2, attributes.width)):
            array = array.take(_nearest(array.shape[axis], size, attributes), axis=axis)
        return array

    def origin(self, place: Shape, shape: Shape, attributes: ResizeNearestAttributes) -> Sequence[int]:
        image, y, x, channel = place
        row = _nearest_one(y, shape[1], attributes.height, attributes)
        return image, row, _nearest_one(x, shape[2], attributes.width, attributes), channel


def _nearest(size: int, wanted: int, attributes: ResizeNearestAttributes) -> Any:
    """Return which of `size` elements is nearest to each of `wanted`."""
    aligned = attributes.align_corners and wanted > 1
    step = np.float32(size - 1) / np.float32(wanted - 1) if aligned else np.float32(size) / np.float32(wanted)
    half = np.float32(0.5 if attributes.half_pixel_centers else 0)
    places = (np.arange(wanted).astype(np.float32) + half) * step
    nearest = np.floor(places + np.float32(0.5)) if attributes.align_corners else np.floor(places)
    return np.minimum(nearest.astype(np.int64), size - 1)


def _nearest_one(index: int, size: int, wanted: int, attributes: ResizeNearestAttributes) -> int:
    if attributes.align_corners:
        step = np.float32(size - 1) / np.float32(wanted - 1) if wanted > 1 else np.float32(size) / np.float32(wanted)
        place = np.float32(index) * step
        fraction, whole = math.modf(float(place))
        return min(int(whole) + (fraction >= 0.5), size - 1)
    offset = np.float32(0.5) if attributes.half_pixel_centers else np.float32(0)
    return min(math.floor((np.float32(index) + offset) * (np.float32(size) / np.float32(wanted))), size - 1)


MOVES = (Reshape(), Transpose(), Slice(), Pad(), ResizeNearest())
