"""The elements of K of a layer, one after another, straight from the layer's definition.

For the independent reference (accelsim.mapping.direct): every element comes for all outputs at once, in the shape that
the layer's output has; there are no GEMMs and no patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.trace.schema import Conv2dMeta, Layer, LinearMeta

Exact = NDArray[Any]
"""Exact integers: int64 where no sum can leave it, Python's own (dtype object) otherwise."""


@dataclass(frozen=True, eq=False)
class Operand:
    """What a port of the array sees of a tensor, or of one element of K: arrays that broadcast to the output's shape.

    values : what enters the multipliers
    exponents : the power of two that each value is multiplied by; None: 0
    scales : of the blocks, integers or significands, the block axis divided by the block size; None: 1
    block_exponents : the power of two of each block; None: 0
    """

    values: Exact
    exponents: Exact | None = None
    scales: Exact | None = None
    block_exponents: Exact | None = None

    def changed(self, elements: Callable[[Exact], Exact], blocks: Callable[[Exact], Exact]) -> Operand:
        """Apply a function to the arrays that have a place for every element, and one to those for every block."""
        return Operand(
            elements(self.values),
            None if self.exponents is None else elements(self.exponents),
            None if self.scales is None else blocks(self.scales),
            None if self.block_exponents is None else blocks(self.block_exponents),
        )


@dataclass(frozen=True, eq=False)
class Element:
    """One element of K, for every output at once.

    position : its place on the lanes; blocks start at multiples of the block size, so ragged ones leave gaps
    """

    position: int
    x: Operand
    w: Operand

    @property
    def product(self) -> Exact:
        """Product of the two values."""
        return np.asarray(self.x.values * self.w.values)

    @property
    def exponent(self) -> Exact:
        """Power of two of the product."""
        return _both(self.x.exponents, self.w.exponents)

    @property
    def scale(self) -> Exact:
        """Product of the two block scales: one for a whole block."""
        one = np.ones(1, self.x.values.dtype)
        scale = one if self.x.scales is None else self.x.scales
        return np.asarray(scale * (one if self.w.scales is None else self.w.scales))

    @property
    def block_exponent(self) -> Exact:
        """Power of two of that product."""
        return _both(self.x.block_exponents, self.w.block_exponents)


def _both(first: Exact | None, second: Exact | None) -> Exact:
    zero = np.zeros(1, np.int64)
    return np.asarray((zero if first is None else first) + (zero if second is None else second))


Elements = Callable[[], Iterator[Element]]


def runs(elements: Iterable[Element], size: int) -> Iterator[Iterator[Element]]:
    """Cut elements where their positions pass multiples of `size`; 0: not at all."""
    for _, run in groupby(elements, lambda element: element.position // size if size else 0):
        yield run


def layer_elements(layer: Layer, x: Operand, w: Operand, block_size: int, padding: int) -> Elements:
    """Return a function that yields all elements of K in order: kernel row, kernel column, channel.

    block_size : elements that share a scale; 0 without block scales
    padding : the value of x beyond the edges of an image
    """
    if isinstance(layer, Conv2dMeta):
        return partial(_conv2d_elements, layer, x, w, block_size, padding)
    if isinstance(layer, LinearMeta):
        return partial(_linear_elements, layer.flatten, x, w, block_size)
    return partial(_matmul_elements, layer.transpose_other, x, w, block_size)


def _conv2d_elements(layer: Conv2dMeta, x: Operand, w: Operand, size: int, padding: int) -> Iterator[Element]:
    """Arrays are [batch, out height, out width, channel] or [channel], channel: out, or 1 for all of them."""
    outputs, kernel_h, kernel_w, channels = w.values.shape
    first = np.arange(outputs) // (outputs // layer.groups) * channels  # of the input channels that an output sees
    position = 0
    for i in range(kernel_h):
        for j in range(kernel_w):
            tap = partial(_tap, layer, (i, j), (kernel_h, kernel_w))
            pixels = x.changed(partial(tap, padding), partial(tap, 0))
            for c in range(channels):
                seen = np.array([c]) if layer.groups == 1 else first + c
                yield Element(
                    position + c,
                    pixels.changed(itemgetter((..., seen)), itemgetter((..., seen // max(size, 1)))),
                    w.changed(itemgetter((slice(None), i, j, c)), itemgetter((slice(None), i, j, c // max(size, 1)))),
                )
            position += -(-channels // size) * size if size else channels


def _tap(layer: Conv2dMeta, at: tuple[int, int], kernel: tuple[int, int], padding: int, x: Exact) -> Exact:
    """Return what lies under kernel element `at` for every output pixel: [batch, out height, out width, channel]."""
    axes = []
    for axis in (0, 1):
        before, after = layer.padding[axis]
        size, stride, dilation = x.shape[1 + axis], layer.stride[axis], layer.dilation[axis]
        count = (size + before + after - dilation * (kernel[axis] - 1) - 1) // stride + 1
        axes.append(np.arange(count) * stride + at[axis] * dilation - before)
    rows, cols = axes
    inside = ((rows >= 0) & (rows < x.shape[1]))[:, None] & ((cols >= 0) & (cols < x.shape[2]))
    there = x[:, np.clip(rows, 0, x.shape[1] - 1)][:, :, np.clip(cols, 0, x.shape[2] - 1)]
    return np.where(inside[..., None], there, padding)


def _linear_elements(flatten: bool, x: Operand, w: Operand, size: int) -> Iterator[Element]:
    """Arrays are x [..., 1] and w [out]."""
    lead = x.values.shape[:1] if flatten else x.values.shape[:-1]
    flat = partial(_last_axes_joined, lead)
    rows = x.changed(flat, flat)
    for k in range(w.values.shape[1]):
        block = k // max(size, 1)
        yield Element(
            k,
            rows.changed(itemgetter((..., slice(k, k + 1))), itemgetter((..., slice(block, block + 1)))),
            w.changed(itemgetter((slice(None), k)), itemgetter((slice(None), block))),
        )


def _last_axes_joined(lead: tuple[int, ...], array: Exact) -> Exact:
    return array.reshape(*lead, -1)


def _matmul_elements(transpose_other: bool, x: Operand, other: Operand, size: int) -> Iterator[Element]:
    """Arrays are x [..., M, 1] and w [..., 1, N]."""
    w = other if transpose_other else other.changed(_last_axes_swapped, _last_axes_swapped)
    for k in range(x.values.shape[-1]):
        block = k // max(size, 1)
        yield Element(
            k,
            x.changed(itemgetter((..., slice(k, k + 1))), itemgetter((..., slice(block, block + 1)))),
            w.changed(itemgetter((..., None, slice(None), k)), itemgetter((..., None, slice(None), block))),
        )


def _last_axes_swapped(array: Exact) -> Exact:
    return array.swapaxes(-1, -2)
