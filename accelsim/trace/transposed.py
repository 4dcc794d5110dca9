"""A transposed convolution as an ordinary one: every input position makes a block of output pixels at once.

Output row o (counted from the first row that any product reaches) is the sum of x[i] * w[o - i * stride]. With
o = j * stride + p that is the sum over t of x[j - t] * w[p + t * stride]: for each phase p an ordinary convolution of
stride 1 over ceil(kernel / stride) taps, backwards. All phases together are one convolution with stride^2 times as many
output channels; these become blocks of pixels (the operator ``depth_to_space``), and what the padding cuts off is cut
off (``slice``). Nothing is multiplied by inserted zeros; only kernels whose size is no multiple of the stride are
completed by taps of zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import ShapeError
from accelsim.formats import QTensor, make_qtensor
from accelsim.trace.shapes import Pads

Two = tuple[int, int]


@dataclass(frozen=True)
class Transposed:
    """The geometry of the ordinary convolution.

    taps : kernel height and width
    padding : of its input
    block : height and width of the block of pixels that its channels become
    begin, size : the output's rows and columns among those pixels
    whole : whether these are all of them
    """

    taps: Two
    padding: Pads
    block: Two
    begin: Two
    size: Two
    whole: bool


def transposed(sizes: Two, kernel: Two, stride: Two, before: Two, outputs: Two) -> Transposed:
    """Return the geometry of a transposed convolution.

    sizes : the input's height and width
    before : rows and columns that are cut off at the top and at the left
    outputs : the output's height and width; pixels that no product reaches hold the bias alone
    """
    axes = [_axis(*each) for each in zip(sizes, kernel, stride, before, outputs, strict=True)]
    (vertical, top, tall), (horizontal, left, wide) = axes
    taps = -(-kernel[0] // stride[0]), -(-kernel[1] // stride[1])
    whole = (top, left) == (0, 0) and (tall, wide) == outputs
    return Transposed(taps, (vertical, horizontal), stride, (top, left), outputs, whole)


def _axis(size: int, kernel: int, stride: int, before: int, output: int) -> tuple[Two, int, int]:
    """Return (padding, first pixel of the output, pixels in all) of one axis."""
    taps = -(-kernel // stride)
    leading = max(0, taps - 1 - before // stride)
    first = taps - 1 - leading  # the block of the first position
    needed = -(-(before + output) // stride) - first
    trailing = max(0, needed - (size + leading - taps + 1))
    return (leading, trailing), before - first * stride, (size + leading + trailing - taps + 1) * stride


def same_transposed_padding(kernel: Two, stride: Two, outputs: Two) -> Two:
    """Return the rows and columns that TensorFlow's rule SAME cuts off at the top and at the left: those that an
    ordinary convolution of an image of the output's size would pad.
    """
    top, left = (
        max((-(-size // step) - 1) * step + taps - size, 0) // 2
        for size, taps, step in zip(outputs, kernel, stride, strict=True)
    )
    return top, left


def phase_weight(weight: QTensor, stride: Two) -> QTensor:
    """Return the weight of the ordinary convolution, [phases * out, taps, taps, in]; scales of channels are repeated.

    weight : [out, kernel height, kernel width, in]; output pixel i * stride + tap sees input pixel i through `tap`

    Raises ShapeError for another number of dimensions, and for scales along another axis than the output channels.
    """
    if len(weight.shape) != 4 or weight.channel_axis not in (None, 0) or weight.block_axis is not None:
        raise ShapeError(
            f"weight has shape {weight.shape}, but a transposed convolution's has 4 dimensions (out channel, kernel "
            f"height, kernel width, in channel), and scales of output channels or of the tensor"
        )
    outputs, height, width, inputs = weight.shape
    rows, cols = -(-height // stride[0]), -(-width // stride[1])
    zeros = weight.zero_point.reshape(-1, 1, 1, 1)  # what means 0
    shape = (outputs, rows * stride[0], cols * stride[1], inputs)
    completed = np.broadcast_to(zeros, shape).astype(weight.codes.dtype)
    completed[:, :height, :width] = weight.codes
    split = completed.reshape(outputs, rows, stride[0], cols, stride[1], inputs)[:, ::-1, :, ::-1]
    codes = split.transpose(2, 4, 0, 1, 3, 5).reshape(-1, rows, cols, inputs)
    return make_qtensor(
        np.ascontiguousarray(codes),
        weight.format,
        per_phase(weight.scale, stride),
        per_phase(weight.zero_point, stride),
        channel_axis=weight.channel_axis,
        codebook=weight.codebook,
    )


def per_phase(values: NDArray[np.generic], stride: Two) -> NDArray[np.generic]:
    """Return what each output channel has for the channels of all phases; one value for all stays as it is."""
    return np.tile(values, (stride[0] * stride[1], *[1] * (values.ndim - 1))) if values.ndim else values
