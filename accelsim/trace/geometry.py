"""What a notebook may write for dimensions, strides and padding, in the schema's full form."""

from __future__ import annotations

import operator
from typing import Literal

from accelsim.errors import TraceError
from accelsim.trace.schema import Conv2dMeta, Layer, LinearMeta
from accelsim.trace.shapes import Pads, Shape, same_padding

Padding = int | Literal["same", "valid"] | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]

_INPUT_DIMS = {
    1: ("channel",),
    2: ("batch", "channel"),
    3: ("batch", "position", "channel"),
    4: ("batch", "height", "width", "channel"),
}


def input_dims(ndim: int) -> tuple[str, ...]:
    """Return the names of a network input's dimensions where the user gives none."""
    return _INPUT_DIMS.get(ndim) or ("batch", *(f"dim{i}" for i in range(1, ndim - 1)), "channel")


def weight_dims(op: str) -> tuple[str, ...]:
    """Return the names of a weight's dimensions."""
    if op == "conv2d":
        return ("out_channel", "kernel_height", "kernel_width", "in_channel")
    return ("out_channel", "in_channel")


def output_dims(layer: Layer, input_dims: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a layer's output dimensions: the input's, the last one made anew."""
    if isinstance(layer, Conv2dMeta):
        return ("batch", "height", "width", "channel")
    leading = input_dims[:1] if isinstance(layer, LinearMeta) and layer.flatten else input_dims[:-1]
    last = "channel" if isinstance(layer, Conv2dMeta | LinearMeta) else "column"
    while last in leading:
        last += "_out"
    return (*leading, last)


def pair(value: int | tuple[int, int], what: str) -> tuple[int, int]:
    """Return (vertical, horizontal); one number serves both."""
    if isinstance(value, tuple | list):
        if len(value) == 2:
            return _whole(value[0], what), _whole(value[1], what)
        raise TraceError(f"{what}={value!r} has {len(value)} entries; use one number or (vertical, horizontal)")
    number = _whole(value, what)
    return number, number


def padding_pairs(
    padding: Padding, sizes: Shape, kernel: Shape, stride: tuple[int, int], dilation: tuple[int, int], what: str
) -> Pads:
    """Return ((top, bottom), (left, right)).

    padding : "valid", none; "same", TensorFlow's rule: ceil(size / stride) outputs, an odd row or column of padding
        goes to the bottom or right; a number for all four sides; (vertical, horizontal); or all four
    sizes, kernel : height and width of the input and of the kernel
    """
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding == "same":
            vertical, horizontal = (
                same_padding(size, taps, step, spread)
                for size, taps, step, spread in zip(sizes, kernel, stride, dilation, strict=True)
            )
            return vertical, horizontal
        raise TraceError(f"{what}={padding!r} is not a padding; use 'same', 'valid', a number or pairs of numbers")
    if isinstance(padding, tuple | list):
        if len(padding) != 2:
            raise TraceError(f"{what}={padding!r} has {len(padding)} entries; use ((top, bottom), (left, right))")
        return pair(padding[0], what), pair(padding[1], what)
    number = _whole(padding, what)
    return (number, number), (number, number)


def _whole(value: object, what: str) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TraceError(f"{what}={value!r} is not a whole number") from None
