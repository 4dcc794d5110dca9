"""The packed size of every format, by naming each thing that is stored and adding up its bits."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim import formats
from accelsim.formats import packed_bits

MORE = ["vsq_int4_v1_s1", "vsq_uint3_v5_s12", "vsq_int8_v3_s2"]
# Written from the definitions: (bits of an element, {block size: bits of its scale}, bits once a tensor).
BY_HAND = {
    "int4": (4, {}, 0),
    "uint16": (16, {}, 0),
    "vsq4": (4, {16: 4}, 0),
    "fp8_e4m3": (8, {}, 0),
    "mxfp8_e5m2": (8, {32: 8}, 0),
    "mxfp6_e2m3": (6, {32: 8}, 0),
    "mxfp4": (4, {32: 8}, 0),
    "mxint8": (8, {32: 8}, 0),
    "mx9": (8, {16: 8 + 8}, 0),  # a block's exponent and its eight microexponents are one word, of short blocks too
    "mx6": (5, {16: 8 + 8}, 0),
    "mx4": (3, {16: 8 + 8}, 0),
    "nvfp4": (4, {16: 8}, 32),
    "binary": (1, {}, 0),
    "ternary": (2, {}, 0),
    "po2_3": (3, {}, 0),
    "kmeans4": (4, {}, 16 * 8),
    "kmeans1": (1, {}, 2 * 8),
}
shapes = st.lists(st.integers(1, 37), min_size=1, max_size=3).filter(lambda shape: np.prod(shape) <= 3000)


def stored(shape, axis, element_bits, scales, once):
    """Every element, every scale that any element has, and what there is once."""
    elements = list(itertools.product(*map(range, shape)))
    groups = {
        (size, *index[:axis], index[axis] // size, *index[axis + 1 :]): bits
        for index in elements
        for size, bits in scales.items()
    }
    return len(elements) * element_bits + sum(groups.values()) + once


@pytest.mark.parametrize("name", BY_HAND)
@given(shape=shapes, data=st.data())
def test_the_size_is_that_of_everything_that_is_stored(name, shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    form = formats.get(name)
    assert packed_bits(form, shape, axis if form.blocks else None) == stored(shape, axis, *BY_HAND[name])


@pytest.mark.parametrize("name", [*formats.names(), *MORE])
def test_a_shape_alone_gives_what_the_tensor_has(name):
    form = formats.get(name)
    tensor = form.quantize(np.linspace(-2, 2, 3 * 21).reshape(3, 21))
    assert tensor.size_bits == packed_bits(form, (3, 21), tensor.block_axis)
    if tensor.codebook is not None:
        assert tensor.size_bits == 63 * form.code_bits + tensor.codebook.size * form.lane_bits
    if form.blocks is not None and not form.blocks.levels:
        once = form.blocks.tensor_scale_bits
        assert tensor.size_bits == 63 * form.code_bits + tensor.block_scales.size * form.blocks.scale_bits + once


@pytest.mark.parametrize("name", [*formats.names(), *MORE])
def test_large_tensors_take_the_bits_an_element_that_the_format_states(name):
    form = formats.get(name)
    each = packed_bits(form, (1 << 20, 480), 1 if form.blocks else None) / (480 << 20)
    assert each == pytest.approx(form.bits_per_element, rel=1e-6)
