"""softmax: in fixed point as TFLite's reference kernel, as I-BERT, or in floats (docs/operators.md, Softmax)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from accelsim.errors import FormatError
from accelsim.formats.spec import Codes
from accelsim.operators import fixed_exp_oracle as slow
from accelsim.operators import fixed_point_oracle as integers
from accelsim.operators import ibert, ibert_oracle, softmax16
from accelsim.operators.common import check_integers, limit, meaning, vector_actions
from accelsim.operators.fixed_exp import SUM_BITS, reciprocal
from accelsim.operators.fixed_point import divide_by_power, high_product
from accelsim.operators.softmax_rows import (
    Rows,
    check_difference_scale,
    common_actions,
    exponentials,
    float_exponentials,
    oracle_exponentials,
    oracle_sum,
    quantized,
    quantized_one,
    sum_of,
)
from accelsim.operators.spec import Attributes, Operand, Reals, TensorSpec, Work


class SoftmaxAttributes(Attributes):
    """axis : that sums to 1

    beta : inputs are multiplied by it
    exp_scale : what a step of the 16-bit exponentials means that rule "ibert" adds up
    rule : "tflite": fixed point; "ibert": I-BERT's polynomial; "float": float64, each sum rounded once, for islands
        that a runtime computes in floats
    """

    axis: int = -1
    beta: float = Field(default=1.0, gt=0, le=1e4, allow_inf_nan=False)
    rule: Literal["tflite", "ibert", "float"] = "tflite"
    exp_scale: float = Field(default=1 / 32767, ge=2.0**-15, le=2.0**-4, allow_inf_nan=False)


class Softmax(Rows):
    """exp(beta * x) / sum(exp(beta * x)) along an axis."""

    name: ClassVar[str] = "softmax"
    attributes = SoftmaxAttributes

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: SoftmaxAttributes) -> None:
        wide = _is_wide(inputs[0], attributes)
        check_integers(inputs[0], bits=16 if wide else {"tflite": 8, "ibert": 32, "float": 16}[attributes.rule])
        check_integers(output)
        if wide:
            softmax16.check(inputs[0], output, attributes.beta, inputs[0].shape[attributes.axis])
            return
        if attributes.rule == "ibert":
            _check_ibert(inputs[0], output, attributes)
        if attributes.rule == "tflite":
            bits = output.format.lane_bits
            needed = (bits in (8, 16), output.scale == 2.0**-bits, output.zero_point == output.format.code_low)
            if not all(needed):
                raise FormatError(
                    f"the output has to be of 8 or 16 bits, and its codes have to cover [0, 1): scale 2**-bits, and "
                    f"the smallest code as zero point; found {meaning(output)}"
                )
            check_difference_scale(attributes.beta, inputs[0].scale, inputs[0].shape[attributes.axis])

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: SoftmaxAttributes) -> Codes:
        differences = self.rows(inputs[0].codes, attributes.axis)
        low, high = output.format.code_low, output.format.code_high
        if attributes.rule == "float":
            floats, total = float_exponentials(differences, inputs[0].scale * attributes.beta)
            return quantized(self.back(floats / total, attributes.axis), output)
        if attributes.rule == "ibert":
            shares = ibert.softmax_codes(differences, inputs[0].scale, attributes.exp_scale, _share_bits(output))
            return limit(self.back(shares, attributes.axis), low, high)
        if _is_wide(inputs[0], attributes):
            wide = softmax16.softmax_codes(differences, attributes.beta, inputs[0].scale)
            return limit(self.back(wide, attributes.axis), low, high)
        exps, inside = exponentials(differences, attributes.beta, inputs[0].scale)
        inverse, power = reciprocal(sum_of(exps, inside), SUM_BITS)
        shifts = power + 31 - output.format.lane_bits
        codes = divide_by_power(high_product(inverse, exps), shifts) + low
        return limit(self.back(np.where(inside, codes, low), attributes.axis), low, high)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: SoftmaxAttributes) -> Codes:
        x, low, high = inputs[0], output.format.code_low, output.format.code_high
        found = []
        for row in self.lists(x.codes, attributes.axis):
            if attributes.rule == "float":
                floats = [math.exp(difference * (x.scale * attributes.beta)) for difference in row]
                total = math.fsum(floats)
                found.append([quantized_one(value / total, output) for value in floats])
                continue
            if attributes.rule == "ibert":
                shares = ibert_oracle.softmax(row, x.scale, attributes.exp_scale, _share_bits(output))
                found.append([integers.clamp(share, low, high) for share in shares])
                continue
            if _is_wide(x, attributes):
                found.append(softmax16.oracle_row(row, attributes.beta, x.scale))
                continue
            exps = oracle_exponentials(row, attributes.beta, x.scale)
            inverse, power = slow.reciprocal(oracle_sum(exps))
            codes = []
            for exp in exps:
                code = low
                if exp is not None:
                    product = slow.times(inverse, exp).raw
                    code += integers.divide_by_power(product, power + 31 - output.format.lane_bits)
                codes.append(integers.clamp(code, low, high))
            found.append(codes)
        return self.unlisted(found, x.codes, attributes.axis)

    def real(self, inputs: Sequence[Reals], attributes: SoftmaxAttributes) -> Reals:
        scaled = inputs[0] * attributes.beta
        exps = np.exp(scaled - scaled.max(axis=attributes.axis, keepdims=True))
        return np.asarray(exps / exps.sum(axis=attributes.axis, keepdims=True))

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: SoftmaxAttributes) -> Work:
        count = math.prod(output.shape)
        rows = count // output.shape[attributes.axis]
        if _is_wide(inputs[0], attributes):
            return Work(3, count, softmax16.actions(count, rows))
        actions = common_actions(inputs[0], count, rows)
        actions += vector_actions({("mult", (32, 32)): count, ("barrel_shift", (32,)): count + rows})
        actions += vector_actions({("mult", (32, 32)): 7 * rows, ("add", (32,)): 8 * rows})  # the reciprocal
        return Work(3, count, actions + vector_actions({("shift_clamp", ()): count}))


def _is_wide(x: TensorSpec, attributes: SoftmaxAttributes) -> bool:
    """Return whether TFLite's kernel for 16-bit inputs runs."""
    return attributes.rule == "tflite" and x.format.name == "int16"


def _share_bits(output: TensorSpec) -> int:
    """Return n of an output scale 2**-n; 0 for other scales."""
    fraction, exponent = math.frexp(output.scale)
    return 1 - exponent if fraction == 0.5 else 0


def _check_ibert(x: TensorSpec, output: TensorSpec, attributes: SoftmaxAttributes) -> None:
    ibert.check_scale(x.scale, ibert.LARGEST_SCALE_EXP)
    if attributes.beta != 1:
        raise FormatError(f"rule 'ibert' has no beta; found {attributes.beta:g}: put it into the input's scale")
    if not 1 <= _share_bits(output) <= 16 or output.zero_point:
        raise FormatError(
            f"the output's scale has to be 2**-1 to 2**-16, without a zero point; found {meaning(output)}"
        )


SOFTMAXES = (Softmax(),)
