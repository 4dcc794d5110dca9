"""softmax and log_softmax in integers, as TFLite's reference kernels (docs/operators.md, Softmax)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Actions
from accelsim.errors import FormatError
from accelsim.formats.spec import Codes
from accelsim.operators import fixed_exp_oracle as slow
from accelsim.operators import fixed_point_oracle as integers
from accelsim.operators.common import (
    add_actions,
    axis_of,
    check_count,
    check_integers,
    compare_actions,
    limit,
    meaning,
    rounding_actions,
    vector_actions,
)
from accelsim.operators.fixed_exp import (
    DIFFERENCE_BITS,
    SUM_BITS,
    difference_scale,
    exp_of_negative,
    log_of_sum,
    reciprocal,
    smallest_difference,
)
from accelsim.operators.fixed_point import (
    INT32_MIN,
    Int64Array,
    divide_by_power,
    high_product,
    multiply,
    quantize_multiplier,
)
from accelsim.operators.spec import Attributes, Operand, Reals, Shape, TensorSpec, Work

EXP_MULTIPLICATIONS = 12  # 5 of the polynomial, 7 of the bits


Scalar = TypeVar("Scalar", bound=np.generic)


class SoftmaxAttributes(Attributes):
    """axis : that sums to 1

    beta : inputs are multiplied by it
    rule : "tflite": fixed point; "float": float64, each sum rounded once, for islands that a runtime computes in floats
    """

    axis: int = -1
    beta: float = 1.0
    rule: Literal["tflite", "float"] = "tflite"


class LogSoftmaxAttributes(Attributes):
    """axis : whose exponentials sum to 1; rule : as for softmax."""

    axis: int = -1
    rule: Literal["tflite", "float"] = "tflite"


class _Rows:
    """What works on rows along one axis; the maximum of each row is 0 after a subtraction."""

    def _rows(self, codes: Codes, axis: int) -> Int64Array:
        rows = np.moveaxis(codes.astype(np.int64), axis_of(axis, codes.shape), -1)
        return np.asarray(rows - rows.max(axis=-1, keepdims=True))

    def _back(self, rows: NDArray[Scalar], axis: int) -> NDArray[Scalar]:
        return np.moveaxis(rows, -1, axis_of(axis, rows.shape))

    def _lists(self, codes: Codes, axis: int) -> Iterator[list[int]]:
        moved = np.moveaxis(codes, axis_of(axis, codes.shape), -1)
        for row in moved.reshape(-1, moved.shape[-1]).tolist():
            yield [code - max(row) for code in row]

    def _unlisted(self, found: list[list[int]], codes: Codes, axis: int) -> Codes:
        shape = np.moveaxis(codes, axis_of(axis, codes.shape), -1).shape
        return np.moveaxis(np.array(found).reshape(shape), -1, axis_of(axis, codes.shape))


class Softmax(_Rows):
    """exp(beta * x) / sum(exp(beta * x)) along an axis."""

    name: ClassVar[str] = "softmax"
    attributes = SoftmaxAttributes

    def output_shape(self, inputs: Sequence[Shape], attributes: SoftmaxAttributes) -> Shape:
        check_count(inputs, 1, "x")
        axis_of(attributes.axis, inputs[0])
        return inputs[0]

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: SoftmaxAttributes) -> None:
        check_integers(inputs[0], bits=8 if attributes.rule == "tflite" else 16)
        check_integers(output)
        if attributes.rule == "tflite":
            bits = output.format.lane_bits
            needed = (bits in (8, 16), output.scale == 2.0**-bits, output.zero_point == output.format.code_low)
            if not all(needed):
                raise FormatError(
                    f"the output has to be of 8 or 16 bits, and its codes have to cover [0, 1): scale 2**-bits, and "
                    f"the smallest code as zero point; found {meaning(output)}"
                )
            _check_difference_scale(attributes.beta, inputs[0].scale, inputs[0].shape[attributes.axis])

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: SoftmaxAttributes) -> Codes:
        differences = self._rows(inputs[0].codes, attributes.axis)
        low, high = output.format.code_low, output.format.code_high
        if attributes.rule == "float":
            floats, total = _float_exponentials(differences, inputs[0].scale * attributes.beta)
            return _quantized(self._back(floats / total, attributes.axis), output)
        exps, inside = _exponentials(differences, attributes.beta, inputs[0].scale)
        inverse, power = reciprocal(_sum_of(exps, inside), SUM_BITS)
        shifts = power + 31 - output.format.lane_bits
        codes = divide_by_power(high_product(inverse, exps), shifts) + low
        return limit(self._back(np.where(inside, codes, low), attributes.axis), low, high)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: SoftmaxAttributes) -> Codes:
        x, low, high = inputs[0], output.format.code_low, output.format.code_high
        found = []
        for row in self._lists(x.codes, attributes.axis):
            if attributes.rule == "float":
                floats = [math.exp(difference * (x.scale * attributes.beta)) for difference in row]
                total = math.fsum(floats)
                found.append([_quantized_one(value / total, output) for value in floats])
                continue
            exps = _oracle_exponentials(row, attributes.beta, x.scale)
            inverse, power = slow.reciprocal(_oracle_sum(exps))
            codes = []
            for exp in exps:
                code = low
                if exp is not None:
                    product = slow.times(inverse, exp).raw
                    code += integers.divide_by_power(product, power + 31 - output.format.lane_bits)
                codes.append(integers.clamp(code, low, high))
            found.append(codes)
        return self._unlisted(found, x.codes, attributes.axis)

    def real(self, inputs: Sequence[Reals], attributes: SoftmaxAttributes) -> Reals:
        scaled = inputs[0] * attributes.beta
        exps = np.exp(scaled - scaled.max(axis=attributes.axis, keepdims=True))
        return np.asarray(exps / exps.sum(axis=attributes.axis, keepdims=True))

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: SoftmaxAttributes) -> Work:
        count = math.prod(output.shape)
        rows = count // output.shape[attributes.axis]
        actions = _common_actions(inputs[0], count, rows)
        actions += vector_actions({("mult", (32, 32)): count, ("barrel_shift", (32,)): count + rows})
        actions += vector_actions({("mult", (32, 32)): 7 * rows, ("add", (32,)): 8 * rows})  # the reciprocal
        return Work(3, count, actions + vector_actions({("shift_clamp", ()): count}))


class LogSoftmax(_Rows):
    """x - log(sum(exp(x))) along an axis."""

    name: ClassVar[str] = "log_softmax"
    attributes = LogSoftmaxAttributes

    def output_shape(self, inputs: Sequence[Shape], attributes: LogSoftmaxAttributes) -> Shape:
        check_count(inputs, 1, "x")
        axis_of(attributes.axis, inputs[0])
        return inputs[0]

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
            _check_difference_scale(1.0, inputs[0].scale, inputs[0].shape[attributes.axis])

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: LogSoftmaxAttributes) -> Codes:
        differences = self._rows(inputs[0].codes, attributes.axis)
        low, high = output.format.code_low, output.format.code_high
        if attributes.rule == "float":
            _, total = _float_exponentials(differences, inputs[0].scale)
            logs = np.array([math.log(value) for value in total.ravel().tolist()]).reshape(total.shape)
            return _quantized(self._back(differences * inputs[0].scale - logs, attributes.axis), output)
        factors = difference_scale(1.0, inputs[0].scale)
        log_sum = log_of_sum(_sum_of(*_exponentials(differences, 1.0, inputs[0].scale)))
        back = multiply(log_sum + INT32_MIN, *_back_to_codes(*factors))
        inside = differences > np.maximum(smallest_difference(factors[1]) - 1, back)
        scaled = multiply(np.where(inside, differences, 0), *factors)
        codes = divide_by_power(scaled - log_sum, 31 - DIFFERENCE_BITS - 4) + output.zero_point
        return limit(self._back(np.where(inside, codes, low), attributes.axis), low, high)

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: LogSoftmaxAttributes) -> Codes:
        x, low, high = inputs[0], output.format.code_low, output.format.code_high
        found = []
        for row in self._lists(x.codes, attributes.axis):
            if attributes.rule == "float":
                total = math.fsum(math.exp(difference * x.scale) for difference in row)
                found.append([_quantized_one(difference * x.scale - math.log(total), output) for difference in row])
                continue
            multiplier, shift = _oracle_scale(1.0, x.scale)
            log_sum = slow.log(_oracle_sum(_oracle_exponentials(row, 1.0, x.scale)), 5).raw
            reverse = integers.quantize_multiplier(2.0 ** (31 - shift) / multiplier)
            smallest = max(_oracle_smallest(shift) - 1, integers.multiply(log_sum - (1 << 31), *reverse))
            codes = []
            for difference in row:
                code = low
                if difference > smallest:
                    scaled = integers.multiply(difference, multiplier, shift)
                    code = integers.divide_by_power(scaled - log_sum, 22) + output.zero_point
                codes.append(integers.clamp(code, low, high))
            found.append(codes)
        return self._unlisted(found, x.codes, attributes.axis)

    def real(self, inputs: Sequence[Reals], attributes: LogSoftmaxAttributes) -> Reals:
        reals = inputs[0] - inputs[0].max(axis=attributes.axis, keepdims=True)
        return np.asarray(reals - np.log(np.exp(reals).sum(axis=attributes.axis, keepdims=True)))

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: LogSoftmaxAttributes) -> Work:
        count = math.prod(output.shape)
        rows = count // output.shape[attributes.axis]
        actions = _common_actions(inputs[0], count, rows)
        actions += rounding_actions(rows, 32) + add_actions(count, 32) + compare_actions(count, 32)
        actions += vector_actions({("mult", (32, 32)): 19 * rows, ("add", (32,)): 18 * rows})  # the logarithm
        actions += vector_actions({("barrel_shift", (32,)): 4 * rows, ("shift_clamp", ()): count})
        return Work(3, count, actions)


def _common_actions(x: TensorSpec, count: int, rows: int) -> Actions:
    """Count the maxima, the differences in Q5.26, the exponentials and their sums."""
    bits = x.format.lane_bits
    return (
        compare_actions(2 * count - rows, bits)
        + add_actions(count, bits + 1)
        + vector_actions({("mult", (bits + 1, 32)): count, ("mult", (32, 32)): EXP_MULTIPLICATIONS * count})
        + add_actions((EXP_MULTIPLICATIONS + 1) * count, 32)
        + vector_actions({("shift_clamp", ()): count})
    )


def _check_difference_scale(beta: float, scale: float, length: int) -> None:
    _, shift = difference_scale(beta, scale)
    if beta <= 0 or shift < 0:
        raise FormatError(f"beta {beta:g} and the input scale {scale:g} are too small for Q5.26; use more than 2**-27")
    if length >= 1 << SUM_BITS:
        raise FormatError(
            f"a row of {length} elements may not fit the sum in Q12.19; use at most {(1 << SUM_BITS) - 1}"
        )


def _exponentials(differences: Int64Array, beta: float, scale: float) -> tuple[Int64Array, NDArray[np.bool]]:
    """Return (exponentials in Q0.31, which differences are large enough for Q5.26)."""
    multiplier, shift = difference_scale(beta, scale)
    inside = differences >= smallest_difference(shift)
    scaled = high_product(np.where(inside, differences, 0) << shift, multiplier)
    return exp_of_negative(scaled), inside


def _sum_of(exps: Int64Array, inside: NDArray[np.bool]) -> Int64Array:
    return np.asarray(np.where(inside, divide_by_power(exps, SUM_BITS), 0).sum(axis=-1, keepdims=True))


def _back_to_codes(multiplier: int, shift: int) -> tuple[int, int]:
    """Return multiplier and shift that undo `difference_scale`'s."""
    return quantize_multiplier(2.0 ** (31 - shift) / multiplier)


def _float_exponentials(differences: Int64Array, scale: float) -> tuple[Reals, Reals]:
    """Return exponentials by the C library, and the sums of rows, rounded once: no order of additions matters."""
    distinct, places = np.unique(differences, return_inverse=True)
    values = np.array([math.exp(difference * scale) for difference in distinct.tolist()])
    exps = values[places.reshape(differences.shape)]
    sums = [math.fsum(row) for row in exps.reshape(-1, exps.shape[-1]).tolist()]
    return exps, np.array(sums).reshape((*exps.shape[:-1], 1))


def _quantized(reals: Reals, output: TensorSpec) -> Codes:
    steps = np.rint(reals / output.scale)
    far = 2.0**40
    codes = np.clip(steps, -far, far).astype(np.int64) + output.zero_point
    return limit(codes, output.format.code_low, output.format.code_high)


# -- the oracle's pieces ----------------------------------------------------------------------------------------------


def _oracle_scale(beta: float, scale: float) -> tuple[int, int]:
    return integers.quantize_multiplier(min(beta * scale * 2.0**26, 2.0**31 - 1))


def _oracle_smallest(shift: int) -> int:
    return -((31 << 26) >> shift)


def _oracle_exponentials(row: list[int], beta: float, scale: float) -> list[slow.Fixed | None]:
    multiplier, shift = _oracle_scale(beta, scale)
    return [
        slow.exp_of_negative(slow.Fixed(integers.high_product(difference << shift, multiplier), 5))
        if difference >= _oracle_smallest(shift)
        else None
        for difference in row
    ]


def _oracle_sum(exps: list[slow.Fixed | None]) -> slow.Fixed:
    total = slow.Fixed(0, 12)
    for exp in exps:
        if exp is not None:
            total = slow.plus(total, slow.rescale(exp, 12))
    return total


def _quantized_one(real: float, output: TensorSpec) -> int:
    return integers.clamp(
        round(real / output.scale) + output.zero_point, output.format.code_low, output.format.code_high
    )


SOFTMAXES = (Softmax(), LogSoftmax())
