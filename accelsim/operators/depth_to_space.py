"""Channels as blocks of pixels: depth_to_space (docs/operators.md, Moves). Every code keeps its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from accelsim.errors import ShapeError
from accelsim.operators.move import Move, Size
from accelsim.operators.spec import Attributes, Shape


class DepthToSpaceAttributes(Attributes):
    """block : height and width of the block of pixels that the channels of one pixel become

    order : "dcr": the block's pixels are the slower part of the channels (TensorFlow, ONNX's DCR); "crd": the faster
    """

    block: tuple[Size, Size]
    order: Literal["dcr", "crd"] = "dcr"


class DepthToSpace(Move):
    """The channels of each pixel laid out as a block of pixels: x [batch, height, width, channel]."""

    name: ClassVar[str] = "depth_to_space"
    attributes = DepthToSpaceAttributes

    def moved_shape(self, shape: Shape, attributes: DepthToSpaceAttributes) -> Shape:
        rows, cols = attributes.block
        if len(shape) != 4 or shape[3] % (rows * cols):
            raise ShapeError(
                f"{shape} is not (batch, height, width, channel) with a multiple of {rows} x {cols} channels"
            )
        return (shape[0], shape[1] * rows, shape[2] * cols, shape[3] // (rows * cols))

    def moved(self, array: NDArray[Any], attributes: DepthToSpaceAttributes) -> NDArray[Any]:
        (images, height, width, depth), (rows, cols) = array.shape, attributes.block
        channels = depth // (rows * cols)
        if attributes.order == "dcr":
            split = array.reshape(images, height, width, rows, cols, channels)
        else:
            split = array.reshape(images, height, width, channels, rows, cols).transpose(0, 1, 2, 4, 5, 3)
        return split.transpose(0, 1, 3, 2, 4, 5).reshape(images, height * rows, width * cols, channels)

    def origin(self, place: Shape, shape: Shape, attributes: DepthToSpaceAttributes) -> Sequence[int]:
        (image, row, col, channel), (rows, cols) = place, attributes.block
        pixel, pixels = row % rows * cols + col % cols, rows * cols
        depth = pixel * (shape[3] // pixels) + channel if attributes.order == "dcr" else channel * pixels + pixel
        return image, row // rows, col // cols, depth


DEPTH_MOVES = (DepthToSpace(),)
