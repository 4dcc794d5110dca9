"""Every refusal, with its text: what was found, and what would be accepted."""

import re

import numpy as np
import pytest
from operator_cases import operand, spec
from pydantic import ValidationError

from accelsim import formats
from accelsim.errors import FormatError, ShapeError
from accelsim.operators.registry import OPERATORS, attributes_of
from accelsim.operators.tables import table


def shape_of(name, *shapes, **attributes):
    return OPERATORS[name].output_shape(shapes, attributes_of(name, attributes))


def check(name, inputs, output, **attributes):
    OPERATORS[name].check(inputs, output, attributes_of(name, attributes))


WINDOW = {"kernel": (2, 2)}
SHAPES = [
    ("add", [(2, 3)], {}, "takes 2 inputs (a, b), but has 1"),
    ("add", [(2, 3), (2,)], {}, "(2, 3) and (2,) do not broadcast: from the last axis on, sizes must be equal or 1"),
    ("requantize", [(2,), (2,)], {}, "takes 1 input (x), but has 2"),
    ("average_pool2d", [(2, 3)], WINDOW, "input has shape (2, 3), but pooling takes 4 dimensions"),
    ("max_pool2d", [(1, 1, 5, 1)], WINDOW, "a window of height 2 does not fit the input's 1 with padding (0, 0)"),
    (
        "max_pool2d",
        [(1, 5, 5, 1)],
        WINDOW | {"padding": ((0, 2), (0, 0))},
        "padding (0, 2) of the height has to be less than the kernel's 2",
    ),
    ("mean", [(2, 3)], {"axes": (2,)}, "axes (2,) do not fit 2 dimensions: use each of -2..1 at most once"),
    ("mean", [(2, 3)], {"axes": (1, -1)}, "axes (1, -1) do not fit 2 dimensions"),
    ("reshape", [(2, 3)], {"shape": (4,)}, "(2, 3) has 6 elements, (4,) another number"),
    ("transpose", [(2, 3)], {"axes": (0, 0)}, "axes (0, 0) are no permutation of the 2 axes of (2, 3)"),
    ("slice", [(4,)], {"begin": (2,), "size": (3,)}, "axis 0: 3 element(s) from 2 in steps of 1 leave 0..3"),
    ("slice", [(4,)], {"begin": (0,), "size": (1,), "stride": (0,)}, "in steps of 0 leave 0..3"),
    ("slice", [(4, 4)], {"begin": (0,), "size": (1,)}, "need one number for each of the 2 axes of (4, 4)"),
    ("pad", [(4, 4)], {"padding": ((1, 1),)}, "padding of 1 axes for (4, 4); give (before, after) for each axis"),
    ("resize_nearest", [(4, 4)], {"height": 2, "width": 2}, "but a resize takes 4 dimensions"),
    ("depth_to_space", [(1, 2, 2, 6)], {"block": (2, 2)}, "with a multiple of 2 x 2 channels"),
    (
        "resize_nearest",
        [(1, 4, 4, 1)],
        {"height": 2, "width": 2, "align_corners": True, "half_pixel_centers": True},
        "align_corners and half_pixel_centers exclude each other",
    ),
    ("concat", [(2, 3), (3, 3)], {"axis": 1}, "(2, 3) and (3, 3) differ elsewhere than along axis 1"),
    ("softmax", [(2, 3)], {"axis": 2}, "axes (2,) do not fit 2 dimensions"),
    ("prelu", [(2, 3), (2, 2, 3)], {}, "slopes of shape (2, 2, 3) do not broadcast to the input's (2, 3)"),
    ("lookup", [(2,), (16, 16)], {"function": "relu"}, "the table has shape (16, 16); it needs one axis"),
    ("layer_norm", [(2, 3), (3,), (2,)], {}, "beta has shape (2,); the input's last axis needs (3,)"),
    ("argmax", [(2, 3)], {"axis": -3}, "axes (-3,) do not fit 2 dimensions"),
]


@pytest.mark.parametrize(("name", "shapes", "attributes", "words"), SHAPES)
def test_shapes_that_do_not_fit(name, shapes, attributes, words):
    with pytest.raises(ShapeError, match=re.escape(words)):
        shape_of(name, *shapes, **attributes)


WIDE = spec([2], "int32")
BYTE = spec([2])
MEANINGS = [
    ("add", [WIDE, BYTE], BYTE, {}, "int32 is no plain integer of at most 16 bits; use int8, for instance"),
    ("add", [BYTE, spec([2], "mx6")], BYTE, {}, "mx6 is no plain integer of at most 16 bits"),
    ("add", [BYTE, spec([2], scale=1e-20)], BYTE, {}, "scale 1e-20 is beyond 2**-40..2**40"),
    ("add", [BYTE, BYTE], BYTE, {"rule": "hawq", "activation": "relu"}, "rule 'hawq' has no fused activation"),
    ("add", [BYTE, spec([2], zero_point=3)], BYTE, {"rule": "hawq"}, "dyadic arithmetic has no zero points"),
    ("add", [spec([2], "int16", 1.0, 3)] * 2, spec([2], "int16"), {}, "16-bit addition has no zero points"),
    ("add", [BYTE, BYTE], spec([2], scale=1e-7), {}, "output scale 1e-07 is too small for these inputs: the sum would"),
    ("add", [spec([2], scale=2.0**35)] * 2, BYTE, {"rule": "hawq"}, "the ratio of scales 3.43597e+10 is too large"),
    (
        "mul",
        [BYTE, BYTE],
        spec([2], scale=1e-6),
        {},
        "the ratio of scales 1e+06 moves values of up to 16384 out of int32",
    ),
    ("requantize", [spec([2], scale=1e9)], BYTE, {}, "moves values of up to 127 out of int32"),
    (
        "max_pool2d",
        [BYTE],
        spec([2], scale=2.0),
        WINDOW,
        "the largest code leaves as it is, but one tensor is int8 with",
    ),
    ("average_pool2d", [BYTE], spec([2], "uint8"), WINDOW, "a mean of codes is rounded to the same scale, but one"),
    ("average_pool2d", [BYTE], BYTE, WINDOW | {"count_include_pad": True}, 'rule "tflite" never counts padding'),
    (
        "average_pool2d",
        [BYTE],
        BYTE,
        WINDOW | {"rule": "onnxruntime", "activation": "relu"},
        'rule "onnxruntime" has no fused activation',
    ),
    ("mean", [spec([2, 3], scale=2.0**30)], BYTE, {"axes": (1,)}, "out of int32, in which the rule computes"),
    ("transpose", [BYTE], spec([2], zero_point=1), {"axes": (0,)}, "codes only move, but one tensor is int8"),
    ("pad", [BYTE], BYTE, {"padding": ((1, 1),), "code": 200}, "code 200 is none of int8: use -128..127"),
    ("concat", [BYTE, spec([2], scale=3.0)], BYTE, {}, "codes only move, but one tensor is int8 with scale 3.0"),
    (
        "softmax",
        [spec([2, 2])],
        spec([2, 2]),
        {},
        "scale 2**-bits, and the smallest code as zero point; found int8 with",
    ),
    (
        "softmax",
        [spec([1, 5000])],
        spec([1, 5000], "int8", 1 / 256, -128),
        {},
        "a row of 5000 elements may not fit the sum in Q12.19; use at most 4095",
    ),
    ("softmax", [spec([2, 2], scale=1e-10)], spec([2, 2], "int8", 1 / 256, -128), {}, "are too small for Q5.26"),
    (
        "softmax",
        [spec([2, 2])],
        spec([2, 2], "uint8", 1 / 256),
        {"rule": "ibert", "beta": 2},
        "rule 'ibert' has no beta",
    ),
    ("softmax", [spec([2, 2])], spec([2, 2], "uint8", 0.01), {"rule": "ibert"}, "scale has to be 2**-1 to 2**-16"),
    ("log_softmax", [spec([2, 2])], spec([2, 2]), {}, "with scale 1/16 and the largest code as zero point"),
    ("leaky_relu", [spec([2], scale=2.0**39)], BYTE, {"alpha": 0.1}, "out of int32"),
    ("lookup", [BYTE, spec([16])], BYTE, {"function": "relu"}, "the table has 16 entries, but int8 has 256 codes"),
    ("lookup", [BYTE, spec([256], "uint8")], BYTE, {"function": "relu"}, "the table's codes are the output's, but one"),
    ("gelu", [spec([2], "int32", 1e-4)], spec([2], scale=1e-9), {}, "output scale 1e-09 is too fine"),
    (
        "layer_norm",
        [spec([2, 8], "int32"), spec([8]), spec([8])],
        spec([2, 8]),
        {},
        "the squares of 8 elements of 32 bits do not fit 62 bits; use a larger shift",
    ),
    ("argmax", [spec([2, 300])], BYTE, {}, "indices up to 299 need scale 1, zero point 0 and enough bits, int32"),
]


@pytest.mark.parametrize(("name", "inputs", "output", "attributes", "words"), MEANINGS)
def test_meanings_that_do_not_fit(name, inputs, output, attributes, words):
    with pytest.raises(FormatError, match=re.escape(words)):
        check(name, inputs, output, **attributes)


@pytest.mark.parametrize(
    ("name", "attributes", "words"),
    [
        ("add", {"rule": "tflow"}, "Input should be 'tflite', 'tflite_pot', 'onnxruntime' or 'hawq'"),
        ("add", {"actvation": "relu"}, "Extra inputs are not permitted"),
        ("lookup", {"function": "logistics"}, "no function 'logistics'; did you mean 'logistic'"),
        ("clip", {"minimum": 2.0, "maximum": 1.0}, "minimum 2 is larger than maximum 1"),
        ("leaky_relu", {"alpha": float("nan")}, "Input should be a finite number"),
        ("softmax", {"beta": 0.0}, "Input should be greater than 0"),
        ("reshape", {"shape": (-1, -4)}, "Input should be greater than or equal to 1"),
    ],
)
def test_attributes_that_do_not_exist(name, attributes, words):
    with pytest.raises(ValidationError, match=re.escape(words)):
        attributes_of(name, attributes)


def test_tables_that_cannot_be():
    with pytest.raises(FormatError, match="no integer kernel of 'gelu', only of logistic, tanh, hard_swish"):
        table("gelu", BYTE, BYTE, "integer")
    with pytest.raises(FormatError, match="int16 is no plain integer of at most 8 bits"):
        table("gelu", spec([2], "int16"), BYTE)
    with pytest.raises(
        FormatError, match=re.escape("8-bit codes with scale 1/256 and zero point -128; found int8, 1.0")
    ):
        table("logistic", BYTE, BYTE, "integer")
    with pytest.raises(FormatError, match="output scale 1e-06 is too small for hard_swish"):
        table("hard_swish", BYTE, spec([2], scale=1e-6), "integer")


def test_largest_ratio_that_fits_is_exact():
    """2**30 * 1 fits int32 after the shift, so nothing is refused, and the result saturates as the oracle's."""
    x, output = operand(np.arange(-1, 1), scale=2.0**23), spec([2])
    check("requantize", [x], output)
    assert OPERATORS["requantize"].run([x], output, attributes_of("requantize", {})).tolist() == [-128, 0]


def test_formats_exist():
    assert formats.get("mx6").blocks is not None  # else a case above would test nothing
