"""Windows that slide over height and width: what pooling reads (docs/operators.md, Pooling)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from accelsim.errors import ShapeError
from accelsim.operators.spec import Shape

Size = Annotated[int, Field(ge=1, le=1 << 16)]
Pad = Annotated[int, Field(ge=0, le=1 << 16)]
Pair = tuple[Size, Size]
Pads = tuple[tuple[Pad, Pad], tuple[Pad, Pad]]

Scalar = TypeVar("Scalar", bound=np.generic)


class Window(Protocol):
    """The attributes that say where windows lie: kernel and stride (height, width), padding ((top, bottom), (left,
    right)).
    """

    @property
    def kernel(self) -> Pair: ...
    @property
    def stride(self) -> Pair: ...
    @property
    def padding(self) -> Pads: ...


def window_shape(shape: Shape, window: Window) -> Shape:
    """Return the output's shape [batch, height, width, channel]; ShapeError where no window fits."""
    if len(shape) != 4:
        raise ShapeError(f"input has shape {shape}, but pooling takes 4 dimensions (batch, height, width, channel)")
    sizes = []
    for axis, side in ((0, "height"), (1, "width")):
        kernel, padding = window.kernel[axis], window.padding[axis]
        if max(padding) >= kernel:
            raise ShapeError(f"padding {padding} of the {side} has to be less than the kernel's {kernel}")
        size = (shape[1 + axis] + sum(padding) - kernel) // window.stride[axis] + 1
        if size < 1:
            raise ShapeError(
                f"a window of {side} {kernel} does not fit the input's {shape[1 + axis]} with padding {padding}"
            )
        sizes.append(size)
    return (shape[0], sizes[0], sizes[1], shape[3])


def places(padded: NDArray[Scalar], window: Window, height: int, width: int) -> Iterator[NDArray[Scalar]]:
    """Yield, for each place in the kernel row by row, the padded elements under it: [batch, height, width, channel]."""
    for i in range(window.kernel[0]):
        rows = slice(i, i + (height - 1) * window.stride[0] + 1, window.stride[0])
        for j in range(window.kernel[1]):
            yield padded[:, rows, j : j + (width - 1) * window.stride[1] + 1 : window.stride[1]]


def pad(values: NDArray[Scalar], window: Window, fill: float) -> NDArray[Scalar]:
    """Return the values [batch, height, width, channel] with `fill` around them."""
    return np.pad(values, ((0, 0), *window.padding, (0, 0)), constant_values=fill)


def window_sum(values: NDArray[Scalar], window: Window) -> NDArray[Scalar]:
    """Return the sums over all windows, added row by row in the values' own type; padding counts 0."""
    _, height, width, _ = window_shape(values.shape, window)
    total = np.zeros((values.shape[0], height, width, values.shape[3]), values.dtype)
    for place in places(pad(values, window, 0), window, height, width):
        total = np.add(total, place)
    return total


def window_counts(shape: Shape, window: Window) -> NDArray[np.int64]:
    """Return how many elements of the input each window has: [1, height, width, 1]."""
    return window_sum(np.ones((1, shape[1], shape[2], 1), np.int64), window)


def window_places(shape: Shape, window: Window) -> Iterator[tuple[tuple[int, int, int, int], list[tuple[int, int]]]]:
    """Yield (output index, the input rows and columns under its window, row by row): what oracles go through."""
    batch, height, width, channels = window_shape(shape, window)
    for n, y, x, c in np.ndindex(batch, height, width, channels):
        top, left = y * window.stride[0] - window.padding[0][0], x * window.stride[1] - window.padding[1][0]
        inside = [
            (row, column)
            for row in range(top, top + window.kernel[0])
            for column in range(left, left + window.kernel[1])
            if 0 <= row < shape[1] and 0 <= column < shape[2]
        ]
        yield (n, y, x, c), inside
