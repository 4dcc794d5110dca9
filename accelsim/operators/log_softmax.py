"""log_softmax: in fixed point as TFLite's reference kernel, or in floats (docs/operators.md, Softmax)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from accelsim.errors import FormatError
from accelsim.formats.spec import Codes
from accelsim.operators import fixed_exp_oracle as slow
from accelsim.operators import fixed_point_oracle as integers
from accelsim.operators.common import (
    add_actions,
    check_integers,
    compare_actions,
    limit,
    meaning,
    rounding_actions,
    vector_actions,
)
from accelsim.operators.fixed_exp import DIFFERENCE_BITS, difference_scale, log_of_sum, smallest_difference
from accelsim.operators.fixed_point import INT32_MIN, divide_by_power, multiply, quantize_multiplier
from accelsim.operators.softmax_rows import (
    Rows,
    check_difference_scale,
    common_actions,
    exponentials,
    float_exponentials,
    oracle_exponentials,
    oracle_scale,
    oracle_smallest,
    oracle_sum,
    quantized,
    quantized_one,
    sum_of,
)
from accelsim.operators.spec import Attributes, Operand, Reals, TensorSpec, Work


class LogSoftmaxAttributes(Attributes):
    """axis : whose exponentials sum to 1; rule : as for softmax."""

    axis: int = -1
    rule: Literal["tflite", "float"] = "tflite"


class LogSoftmax(Rows):
    """x - log(sum(exp(x))) along an axis."""

    name: ClassVar[str] = "log_softmax"
    attributes = LogSoftmaxAttributes

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: LogSoftmaxAttributes) -> None:
        check_integers(inputs[0], bits=8 if attributes.rule == "tflite" else 16)
        check_integers(output)
        if attributes.rule == "tflite":
            fits = output.scale == 1 / 16 and output.zero_point == output.format.code_high
            if output.format.lane_bits != 8 or not fits:
                raise FormatError(
                    f"the output has to be of 8 bits, with scale 1/16 and the largest code as zero point; found "
                    f"{meaning(output)}"
                )
            check_difference_scale(1.0, inputs[0].scale, inputs[0].shape[attributes.axis])

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: LogSoftmaxAttributes) -> Codes:
        differences = self.rows(inputs[0].codes, attributes.axis)
        low, high = output.format.code_low, output.format.code_high
        if attributes.rule == "float":
            _, total = float_exponentials(differences, inputs[0].scale)
            logs = np.array([math.log(value) for value in total.ravel().tolist()]).reshape(total.shape)
            return quantized(self.back(differences * inputs[0].scale - logs, attributes.axis), output)
        factors = difference_scale(1.0, inputs[0].scale)
        log_sum = log_of_sum(sum_of(*exponentials(differences, 1.0, inputs[0].scale)))
        back = multiply(log_sum + INT32_MIN, *_back_to_codes(*factors))
        inside = differences > np.maximum(smallest_difference(factors[1]) - 1, back)
        scaled = multiply(np.where(inside, differences, 0), *factors)
        codes = divide_by_power(scaled - log_sum, 31 - DIFFERENCE_BITS - 4) + output.zero_point
        return limit(self.back(np.where(inside, codes, low), attributes.axis), low, high)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: LogSoftmaxAttributes) -> Codes:
        x, low, high = inputs[0], output.format.code_low, output.format.code_high
        found = []
        for row in self.lists(x.codes, attributes.axis):
            if attributes.rule == "float":
                total = math.fsum(math.exp(difference * x.scale) for difference in row)
                found.append([quantized_one(difference * x.scale - math.log(total), output) for difference in row])
                continue
            multiplier, shift = oracle_scale(1.0, x.scale)
            log_sum = slow.log(oracle_sum(oracle_exponentials(row, 1.0, x.scale)), 5).raw
            reverse = integers.quantize_multiplier(2.0 ** (31 - shift) / multiplier)
            smallest = max(oracle_smallest(shift) - 1, integers.multiply(log_sum - (1 << 31), *reverse))
            codes = []
            for difference in row:
                code = low
                if difference > smallest:
                    scaled = integers.multiply(difference, multiplier, shift)
                    code = integers.divide_by_power(scaled - log_sum, 22) + output.zero_point
                codes.append(integers.clamp(code, low, high))
            found.append(codes)
        return self.unlisted(found, x.codes, attributes.axis)

    def real(self, inputs: Sequence[Reals], attributes: LogSoftmaxAttributes) -> Reals:
        reals = inputs[0] - inputs[0].max(axis=attributes.axis, keepdims=True)
        return np.asarray(reals - np.log(np.exp(reals).sum(axis=attributes.axis, keepdims=True)))

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: LogSoftmaxAttributes) -> Work:
        count = math.prod(output.shape)
        rows = count // output.shape[attributes.axis]
        actions = common_actions(inputs[0], count, rows)
        actions += rounding_actions(rows, 32) + add_actions(count, 32) + compare_actions(count, 32)
        actions += vector_actions({("mult", (32, 32)): 19 * rows, ("add", (32,)): 18 * rows})  # the logarithm
        actions += vector_actions({("barrel_shift", (32,)): 4 * rows, ("shift_clamp", ()): count})
        return Work(3, count, actions)


def _back_to_codes(multiplier: int, shift: int) -> tuple[int, int]:
    """Return multiplier and shift that undo `difference_scale`'s."""
    return quantize_multiplier(2.0 ** (31 - shift) / multiplier)


LOG_SOFTMAXES = (LogSoftmax(),)
