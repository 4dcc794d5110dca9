"""What lies between an accumulator and a quantizer, folded exactly into thresholds (FINN; docs/import_onnx.md).

A quantizer is a staircase. Everything between the accumulator and it (scales, biases, batch normalization, ReLU) rises
or falls steadily with the accumulator, so each step of the staircase is one comparison of the accumulator with a
number. Numbers are exact here: fractions of the file's floats, and square roots of such fractions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.importers.graph import NotSupported

Rounding = Literal["half_even", "floor", "ceil", "half_away", "half_towards_zero", "towards_zero", "away"]
StepKind = Literal["add", "multiply", "divide_by_root", "clip"]


@dataclass(frozen=True)
class Surd:
    """The number p + q * sqrt(r), exact."""

    p: Fraction
    q: Fraction = Fraction(0)
    r: Fraction = Fraction(0)

    def plus(self, other: Fraction) -> Surd:
        return Surd(self.p + other, self.q, self.r)

    def times(self, other: Fraction) -> Surd:
        return Surd(self.p * other, self.q * other, self.r)

    def times_root(self, root: Fraction) -> Surd:
        """Return the product with sqrt(root)."""
        exact = _root(root)
        if exact is not None:
            return self.times(exact)
        if self.q and self.r != root:
            raise NotSupported("two batch normalizations follow each other; fold them into one")
        return Surd(self.q * root, self.p, root)

    def floor(self) -> int:
        """Return the largest integer that is not greater."""
        denominator = math.lcm(self.p.denominator, (self.q**2 * self.r).denominator)
        whole = int(self.p * denominator)
        radicand = int(self.q**2 * self.r * denominator**2)
        root = math.isqrt(radicand)
        if self.q < 0:
            root = -root if root * root == radicand else -root - 1
        return (whole + root) // denominator

    def ceil(self) -> int:
        """Return the smallest integer that is not less."""
        return -Surd(-self.p, -self.q, self.r).floor()

    def compare(self, other: Fraction) -> int:
        """Return the sign of self - other."""
        p, square = self.p - other, self.q**2 * self.r
        if p == 0 or square == 0:
            difference = p if square == 0 else self.q
            return (difference > 0) - (difference < 0)
        sign_p, sign_q = (1 if p > 0 else -1), (1 if self.q > 0 else -1)
        if sign_p == sign_q:
            return sign_p
        return sign_p if p**2 > square else sign_q if p**2 < square else 0


def _root(number: Fraction) -> Fraction | None:
    """Return the square root of a fraction where it is a fraction."""
    above, below = math.isqrt(number.numerator), math.isqrt(number.denominator)
    if above**2 == number.numerator and below**2 == number.denominator:
        return Fraction(above, below)
    return None


@dataclass(frozen=True, eq=False)
class Step:
    """One operation on the way from the accumulator to the quantizer.

    kind : "add" or "multiply" by `value`; "divide_by_root": by the square root of `value`; "clip" to [value, high]
    value, high : float64 [] or one a channel; infinite bounds of a clip are none
    """

    kind: StepKind
    value: NDArray[np.float64]
    high: NDArray[np.float64] | None = None

    def of(self, channel: int) -> Fraction | None:
        """Return the exact value for a channel; None for an infinite one."""
        return _exact(self.value, channel)

    def high_of(self, channel: int) -> Fraction | None:
        return None if self.high is None else _exact(self.high, channel)


def _exact(values: NDArray[np.float64], channel: int) -> Fraction | None:
    value = float(values.reshape(-1)[channel if values.size > 1 else 0])
    return Fraction(value) if math.isfinite(value) else None


@dataclass(frozen=True)
class Quantizer:
    """A staircase from real numbers to codes.

    format : of the catalog
    low, high : smallest and largest code; "binary" has 0 for -1 and 1 for +1
    scale, zero_point : a code means ``(code - zero_point) * scale``
    rounding : of ``x / scale``
    zero_first : the zero point is added before rounding (QONNX), not after (ONNX)
    inner : `x` is first rounded, half to even, to multiples of this (Trunc's input scale)
    """

    format: str
    low: int
    high: int
    scale: np.float32
    zero_point: int
    rounding: Rounding = "half_even"
    zero_first: bool = False
    inner: np.float32 | None = None

    @property
    def is_sign(self) -> bool:
        return self.format == "binary"

    def first(self, code: int) -> tuple[Fraction, bool]:
        """Return (bound, whether the bound itself belongs): from there on, codes are `code` or more."""
        if self.is_sign:
            return Fraction(0), True
        step = Fraction(float(self.scale))
        shift = self.zero_point if self.zero_first else 0
        target = code - (0 if self.zero_first else self.zero_point)  # what rounding has to reach
        edge, inclusive = _edge(target, self.rounding)
        bound = (edge - shift) * step
        if self.inner is None:
            return bound, inclusive
        # Rounded twice: the first multiple of the inner step that the outer one lets through, less half a step.
        inner = Fraction(float(self.inner))
        count = math.ceil(bound / inner) if inclusive else math.floor(bound / inner) + 1
        edge, inclusive = _edge(count, "half_even")
        return edge * inner, inclusive

    def codes(self, reals: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the codes of float32 numbers, in float32 as the file's reference does."""
        reals = np.asarray(reals, np.float32)
        if self.is_sign:
            return (reals >= 0).astype(np.int64)
        if self.inner is not None:
            reals = np.rint(reals / self.inner) * self.inner
        with np.errstate(over="ignore"):
            steps = reals / self.scale
        if self.zero_first:
            steps = steps + np.float32(self.zero_point)
        rounded = np.asarray(_ROUND[self.rounding](np.clip(steps, -(2.0**40), 2.0**40))).astype(np.int64)
        if not self.zero_first:
            rounded = rounded + self.zero_point
        return np.asarray(np.clip(rounded, self.low, self.high))


def _edge(target: int, rounding: Rounding) -> tuple[Fraction, bool]:
    """Return the smallest x that rounds to `target` or more, and whether it does so itself."""
    half = Fraction(2 * target - 1, 2)
    if rounding == "half_even":
        return half, target % 2 == 0
    if rounding == "half_away":
        return half, target > 0
    if rounding == "half_towards_zero":
        return half, target <= 0
    if rounding == "floor" or (rounding == "towards_zero" and target > 0) or (rounding == "away" and target <= 0):
        return Fraction(target), True
    return Fraction(target - 1), False


_ROUND: dict[Rounding, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "half_even": np.rint,
    "floor": np.floor,
    "ceil": np.ceil,
    "half_away": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "half_towards_zero": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
    "towards_zero": np.trunc,
    "away": lambda x: np.sign(x) * np.ceil(np.abs(x)),
}


def fold(
    steps: Sequence[Step], unit: Sequence[Fraction], quantizer: Quantizer, count: int, reach: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return thresholds [channels, count], and the channels whose accumulators have to be negated.

    steps : from the scaled accumulator to the quantizer
    unit : of each channel's accumulator, positive
    count : thresholds a channel, one fewer than the output format has codes, for the codes from `quantizer.low` on
    reach : each channel's accumulators are within +-reach; what is always or never true is put just outside

    A code is `quantizer.low` plus the thresholds that are less than the accumulator (of negated channels: than its
    negative).
    """
    thresholds = np.empty((len(unit), count), np.int64)
    negated = np.zeros(len(unit), np.bool_)
    codes = range(quantizer.low + 1, quantizer.low + count + 1)
    for channel in range(len(unit)):
        direction = _direction(steps, channel)
        negated[channel] = direction < 0
        for index, code in enumerate(codes):
            never = code > quantizer.high
            threshold = None if never else _threshold(steps, unit[channel], quantizer.first(code), channel, direction)
            limit = reach[channel]
            thresholds[channel, index] = limit if never else max(-limit - 1, min(limit, _whole(threshold, limit)))
    return thresholds, negated


def _whole(threshold: int | bool | None, limit: int) -> int:
    """Return a threshold as a number: True is always reached, False never."""
    if threshold is True:
        return -limit - 1
    return limit if threshold is False or threshold is None else threshold


def _direction(steps: Sequence[Step], channel: int) -> int:
    """Return 1 where the result rises with the accumulator, -1 where it falls, 0 where it is constant."""
    sign = 1
    for step in steps:
        if step.kind == "multiply":
            factor = step.of(channel)
            assert factor is not None
            sign *= (factor > 0) - (factor < 0)
    return sign


def _threshold(
    steps: Sequence[Step], unit: Fraction, first: tuple[Fraction, bool], channel: int, direction: int
) -> int | bool:
    """Return the largest integer that does not reach the bound, or whether all or none do.

    Going back from the quantizer: "the result reaches the bound" becomes a comparison of what went in before.
    """
    bound, inclusive = Surd(first[0]), first[1]
    rising = True
    for step in reversed(steps):
        value = step.of(channel)
        if step.kind == "clip":
            outcome = _through_clip(value, step.high_of(channel), bound, inclusive, rising)
            if outcome is not None:
                return outcome
            continue
        assert value is not None
        if step.kind == "add":
            bound = bound.plus(-value)
        elif step.kind == "divide_by_root":
            bound = bound.times_root(value)
        elif value == 0:  # the product is 0, whatever came before
            sign = bound.compare(Fraction(0)) * (1 if rising else -1)
            return sign < 0 or (sign == 0 and inclusive)
        else:
            bound = bound.times(1 / value)
            rising = rising == (value > 0)
    bound = bound.times(1 / unit)
    if direction < 0:
        bound = bound.times(Fraction(-1))
    return bound.ceil() - 1 if inclusive else bound.floor()


def _through_clip(
    low: Fraction | None, high: Fraction | None, bound: Surd, inclusive: bool, rising: bool
) -> bool | None:
    """Return whether a clipped number reaches the bound (or, falling, stays below it) always or never; None: as before
    the clip.
    """
    if not rising:
        low, high = (None if high is None else -high), (None if low is None else -low)
        bound = bound.times(Fraction(-1))
    if low is not None and (bound.compare(low) < 0 or (bound.compare(low) == 0 and inclusive)):
        return True
    if high is not None and (bound.compare(high) > 0 or (bound.compare(high) == 0 and not inclusive)):
        return False
    return None
