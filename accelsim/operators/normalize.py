"""layer_norm and gelu (docs/operators.md, I-BERT)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from accelsim.errors import FormatError, ShapeError
from accelsim.formats.spec import Codes
from accelsim.operators import fixed_point_oracle as integers
from accelsim.operators import ibert, ibert_oracle
from accelsim.operators.common import (
    SameShape,
    add_actions,
    centred,
    check_count,
    check_integers,
    check_symmetric,
    compare_actions,
    limit,
    listed,
    rounded,
    rounding_actions,
    vector_actions,
)
from accelsim.operators.spec import Attributes, Operand, Reals, Shape, TensorSpec, Work
from accelsim.operators.tables import real_function


class GeluAttributes(Attributes):
    """rule : "ibert"; GELU by a table is the operator ``lookup``."""

    rule: Literal["ibert"] = "ibert"


class LayerNormAttributes(Attributes):
    """rule : "ibert": integers; "float": float64, for islands that a runtime computes in floats

    epsilon : added to the variance; rule "ibert" has none
    shift : bits that differences to the mean lose before they are squared, rule "ibert" only
    """

    rule: Literal["ibert", "float"] = "ibert"
    epsilon: float = Field(default=1e-5, ge=0, le=1, allow_inf_nan=False)
    shift: int = Field(default=0, ge=0, le=31)


class Gelu(SameShape):
    """x * P(normal <= x), with I-BERT's polynomial for erf."""

    name: ClassVar[str] = "gelu"
    attributes = GeluAttributes

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: GeluAttributes) -> None:
        check_integers(inputs[0], output, bits=32)
        check_symmetric(inputs[0], output, why="I-BERT's arithmetic")
        ibert.check_scale(inputs[0].scale, ibert.LARGEST_SCALE_ERF)
        unit = abs(ibert.gelu_unit(inputs[0].scale))
        if output.scale < 2.1 * unit:
            raise FormatError(f"output scale {output.scale:g} is too fine: I-BERT's result has steps of {unit:g}")

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: GeluAttributes) -> Codes:
        codes = ibert.gelu_codes(centred(inputs[0]), inputs[0].scale, output.scale)
        return limit(codes, output.format.code_low, output.format.code_high)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: GeluAttributes) -> Codes:
        codes = [ibert_oracle.gelu(code, inputs[0].scale, output.scale) for code in listed(inputs[0])]
        low, high = output.format.code_low, output.format.code_high
        return np.array([integers.clamp(code, low, high) for code in codes]).reshape(output.shape)

    def real(self, inputs: Sequence[Reals], attributes: GeluAttributes) -> Reals:
        return real_function("gelu", inputs[0])

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: GeluAttributes) -> Work:
        count, bits = math.prod(output.shape), inputs[0].format.lane_bits
        actions = compare_actions(count, bits) + add_actions(3 * count, 32) + rounding_actions(count, 32)
        actions += vector_actions({("mult", (bits, bits)): count, ("mult", (bits, 32)): count})
        return Work(1, count, actions)


class LayerNorm:
    """Inputs x, gamma, beta (one a channel of the last axis): (x - mean) / deviation * gamma + beta."""

    name: ClassVar[str] = "layer_norm"
    attributes = LayerNormAttributes

    def output_shape(self, inputs: Sequence[Shape], attributes: LayerNormAttributes) -> Shape:
        check_count(inputs, 3, "x, gamma, beta")
        for shape, name in zip(inputs[1:], ("gamma", "beta"), strict=True):
            if shape != inputs[0][-1:]:
                raise ShapeError(f"{name} has shape {shape}; the input's last axis needs {inputs[0][-1:]}")
        return inputs[0]

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: LayerNormAttributes) -> None:
        check_integers(*inputs, output, bits=32)
        length, bits = inputs[0].shape[-1], inputs[0].format.lane_bits
        if attributes.rule == "ibert":
            check_symmetric(inputs[0], output, why="I-BERT's arithmetic")
        # Differences have one bit more than codes; both rules add squares, the float one times the length.
        ibert_bits = 2 * (bits + 1 - attributes.shift) + length.bit_length()
        if (ibert_bits if attributes.rule == "ibert" else 2 * (bits + 1 + length.bit_length())) > 62:
            remedy = "a larger shift" if attributes.rule == "ibert" else "an input of fewer bits"
            raise FormatError(f"the squares of {length} elements of {bits} bits do not fit 62 bits; use {remedy}")

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: LayerNormAttributes) -> Codes:
        x, gamma, beta = inputs
        low, high = output.format.code_low, output.format.code_high
        if attributes.rule == "ibert":
            _check_weights(gamma, beta, output)
            factors = ibert.norm_factors(centred(gamma), gamma.scale, centred(beta), beta.scale, output.scale)
            return limit(ibert.layer_norm_codes(centred(x), factors, attributes.shift), low, high)
        codes, count = centred(x), x.shape[-1]
        total, squares = (values.sum(axis=-1, keepdims=True) for values in (codes, codes**2))
        variance = (count * squares - total**2).astype(np.float64) / float(count * count) * (x.scale * x.scale)
        deviation = np.sqrt(variance + attributes.epsilon)
        reals = (count * codes - total).astype(np.float64) / float(count) * x.scale / deviation
        return limit(rounded((reals * _real(gamma) + _real(beta)) / output.scale) + output.zero_point, low, high)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: LayerNormAttributes) -> Codes:
        x, gamma, beta = inputs
        count, found = x.shape[-1], []
        for start in range(0, x.codes.size, count):
            row = [code - x.zero_point for code in listed(x)[start : start + count]]
            if attributes.rule == "ibert":
                weights = [np.float32(code - gamma.zero_point) * np.float32(gamma.scale) for code in listed(gamma)]
                biases = [np.float32(code - beta.zero_point) * np.float32(beta.scale) for code in listed(beta)]
                codes = ibert_oracle.layer_norm(row, weights, biases, output.scale, attributes.shift)
            else:
                codes = [_float_one(i, row, inputs, output, attributes) for i in range(count)]
            found += [integers.clamp(code, output.format.code_low, output.format.code_high) for code in codes]
        return np.array(found).reshape(output.shape)

    def real(self, inputs: Sequence[Reals], attributes: LayerNormAttributes) -> Reals:
        x, gamma, beta = inputs
        centre = x - x.mean(axis=-1, keepdims=True)
        variance = (centre**2).mean(axis=-1, keepdims=True)
        return np.asarray(centre / np.sqrt(variance + attributes.epsilon) * gamma + beta)

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: LayerNormAttributes) -> Work:
        count, bits = math.prod(output.shape), inputs[0].format.lane_bits + 1
        rows = count // output.shape[-1]
        actions = add_actions(4 * count, 32) + rounding_actions(count, 48)
        actions += vector_actions({("mult", (bits, bits)): count, ("mult", (bits, 32)): count})
        actions += vector_actions({("divide", (32, 16)): 3 * rows})  # the mean, the root (as long), the factor
        return Work(3, count, actions)


def _check_weights(gamma: Operand, beta: Operand, output: TensorSpec) -> None:
    if np.any(centred(gamma) == 0):
        raise FormatError("a gamma of 0 has no I-BERT form, which divides beta by it; use the smallest code instead")
    largest = np.max(np.abs(centred(beta)) * beta.scale / (np.abs(centred(gamma)) * gamma.scale))
    if largest >= 1 << 15:
        raise FormatError(f"beta / gamma = {largest:g} is too large for I-BERT's form; use less than 2**15")
    steps = np.max(np.abs(centred(gamma))) * gamma.scale / output.scale
    if steps >= 2.0**31:
        raise FormatError(f"gamma is {steps:g} output steps; use a larger output scale")


def _real(operand: Operand) -> NDArray[np.float64]:
    return centred(operand).astype(np.float64) * operand.scale


def _float_one(
    i: int, row: list[int], inputs: Sequence[Operand], output: TensorSpec, attributes: LayerNormAttributes
) -> int:
    x, gamma, beta = inputs
    count, total = len(row), sum(row)
    variance = float(count * sum(code * code for code in row) - total * total) / float(count * count)
    deviation = math.sqrt(variance * (x.scale * x.scale) + attributes.epsilon)
    real = float(count * row[i] - total) / float(count) * x.scale / deviation
    weight = (listed(gamma)[i] - gamma.zero_point) * gamma.scale
    bias = (listed(beta)[i] - beta.zero_point) * beta.scale
    return round((real * weight + bias) / output.scale) + output.zero_point


NORMALIZERS = (Gelu(), LayerNorm())
