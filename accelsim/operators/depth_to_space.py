"""Channels as blocks of pixels: depth_to_space (docs/operators.md, Moves). Every code keeps its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from accelsim.errors import ShapeError
from accelsim.formats.spec import Codes
from accelsim.operators.common import check_count, listed
from accelsim.operators.move import Move, Size, flat_index
from accelsim.operators.spec import Attributes, Operand, Reals, Shape, TensorSpec


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

    def output_shape(self, inputs: Sequence[Shape], attributes: DepthToSpaceAttributes) -> Shape:
        check_count(inputs, 1, "x")
        (shape,), (rows, cols) = inputs, attributes.block
        if len(shape) != 4 or shape[3] % (rows * cols):
            raise ShapeError(
                f"{shape} is not (batch, height, width, channel) with a multiple of {rows} x {cols} channels"
            )
        return (shape[0], shape[1] * rows, shape[2] * cols, shape[3] // (rows * cols))

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: DepthToSpaceAttributes) -> Codes:
        return np.ascontiguousarray(_blocks_laid_out(inputs[0].codes, attributes))

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: DepthToSpaceAttributes) -> Codes:
        codes, (rows, cols), found = listed(inputs[0]), attributes.block, []
        for image, row, col, channel in np.ndindex(*output.shape):
            pixel = row % rows * cols + col % cols
            depth = pixel * output.shape[3] + channel if attributes.order == "dcr" else channel * rows * cols + pixel
            found.append(codes[flat_index((image, row // rows, col // cols, depth), inputs[0].shape)])
        return np.array(found).reshape(output.shape)

    def real(self, inputs: Sequence[Reals], attributes: DepthToSpaceAttributes) -> Reals:
        return np.asarray(_blocks_laid_out(inputs[0], attributes))


def _blocks_laid_out(array: Any, attributes: DepthToSpaceAttributes) -> Any:
    (images, height, width, depth), (rows, cols) = array.shape, attributes.block
    channels = depth // (rows * cols)
    if attributes.order == "dcr":
        split = array.reshape(images, height, width, rows, cols, channels)
    else:
        split = array.reshape(images, height, width, channels, rows, cols).transpose(0, 1, 2, 4, 5, 3)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(images, height * rows, width * cols, channels)


DEPTH_MOVES = (DepthToSpace(),)
