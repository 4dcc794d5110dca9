"""a * b + c in float32 with one rounding, as a processor's fused multiply-add; and the same in fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
_SIGNIFICAND = 24
_SMALLEST_EXPONENT = -149  # of float32's last bit


def fused(a: Float32Array, b: np.float32, c: Float32Array | np.float32) -> Float32Array:
    """Return a * b + c, rounded once to nearest even.

    The product is exact in float64; the sum is made there with its last bit odd where it is not exact, which the
    second rounding then cannot mistake for a tie (Boldo and Melquiond, 2008).
    """
    product, addend = a.astype(np.float64) * np.float64(b), np.asarray(c, np.float64)
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)  # Knuth's two-sum: exact
    even = (total.view(np.int64) & 1) == 0
    odd = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    return np.where((error != 0) & even, odd, total).astype(np.float32)


def fused_oracle(a: int, b: float, c: float) -> float:
    """Return a * b + c of float32 numbers b and c, rounded once, computed in fractions."""
    exact = a * Fraction(b) + Fraction(c)
    if not exact:
        return 0.0
    exponent = _SMALLEST_EXPONENT
    while abs(exact) >= Fraction(2) ** (exponent + _SIGNIFICAND):
        exponent += 1
    return float(Fraction(round(exact / Fraction(2) ** exponent)) * Fraction(2) ** exponent)
