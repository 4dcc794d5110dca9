"""Zero-point correction: the data-dependent terms of asymmetric operands (white paper, equation 13).

With zero points, sum (a - za)(w - zw) = sum a w - zw sum a - za sum w + K za zw. Whatever is constant is in the
preloaded bias. The rest needs sums of data, which the array measures itself: a last column of ones in W gives the row
sums (sum a), a last row of ones in A the column sums (sum w, where W is an activation too). Here they are multiplied
by the zero points and subtracted, in registers as wide as the accumulators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Action, Actions
from accelsim.engine.contract import OverflowEvent, RegisterWatch
from accelsim.errors import ShapeError
from accelsim.mapping.contract import Overflow

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Corrected:
    """Accumulators after the correction.

    acc : int64 [batch, M', N'], without the rows and columns of ones; float32 accumulators as they came
    watch : additions that did not fit. Its low and high are of a register of unlimited width that starts with the
        accumulators as they came (0 included)
    actions : component "ppu": mult(acc bits, zero point bits) and add(acc bits)
    """

    acc: Int64Array | NDArray[np.float32]
    watch: RegisterWatch
    actions: Actions


def apply_zero_points(
    acc: Int64Array | NDArray[np.float32],
    *,
    w_zero_point: Int64Array | None,
    a_zero_point: int | None,
    acc_bits: int,
    overflow: Overflow,
    k: int,
    w_bits: int,
    a_bits: int,
) -> Corrected:
    """Subtract zw * row sum, then za * column sum, from every accumulator; each result is limited to the register::

        acc[b, m, n] = limit(acc[b, m, n] - w_zero_point[n] * rowsum[b, m])
        acc[b, m, n] = limit(acc[b, m, n] - a_zero_point * colsum[b, n])

    acc : int64 [batch, M, N]. If `w_zero_point` is given, its last column holds the row sums; if `a_zero_point` is
        given, its last row holds the column sums (their common corner is not used). float32 passes through: float
        operands have no zero points
    w_zero_point : int64 (), (N',) or (batch, N'), or None: no row sums. Of shape (), one product a row serves
        all columns
    a_zero_point : int, or None: no column sums
    acc_bits, overflow : the accumulators' width (up to 64), and "wrap" or "saturate"
    k : length of the reduction; an overflow here is reported at this k, behind all of K's own
    w_bits, a_bits : widths of the zero points, for pricing

    The order of the watch's first event is that of the outputs (batch, m, n); within one, row sums come first.

    Raises:
    ShapeError : `acc` is not int64 [batch, M, N] (nor float32 without zero points), lacks the sums, or `w_zero_point`
        does not have N' entries
    ValueError : an unknown overflow policy
    """
    if acc.dtype == np.float32 and acc.ndim == 3 and w_zero_point is None and a_zero_point is None:
        return Corrected(acc, RegisterWatch(0, None, 0.0, 0.0), Actions())
    if acc.dtype != np.int64 or acc.ndim != 3:
        raise ShapeError(f"acc is {acc.dtype} of shape {acc.shape}; zero-point correction takes int64 [batch, M, N]")
    if overflow not in ("wrap", "saturate"):
        raise ValueError(f"overflow={overflow!r}; use 'wrap' or 'saturate'")
    rows = acc.shape[1] - (a_zero_point is not None)
    columns = acc.shape[2] - (w_zero_point is not None)
    if rows < 0 or columns < 0:
        raise ShapeError(f"acc of shape {acc.shape} has no row or column of sums")
    terms: list[NDArray[Any]] = []
    counts: dict[Action, int] = {}
    outputs = acc.shape[0] * rows * columns
    integers = acc.astype(np.int64, copy=False)
    exact = _exact_enough(integers, w_zero_point, a_zero_point)
    if w_zero_point is not None:
        zw = np.asarray(w_zero_point, np.int64)
        if zw.shape not in ((), (columns,), (acc.shape[0], columns)):
            raise ShapeError(
                f"w_zero_point has shape {zw.shape}; the layer has {acc.shape[0]} GEMMs of {columns} columns: use (), "
                f"one a column, or one a GEMM and column"
            )
        per_gemm = zw[:, None, :] if zw.ndim == 2 else zw
        terms.append(-per_gemm.astype(exact) * acc[:, :rows, -1:].astype(exact))
        products = outputs if zw.ndim else acc.shape[0] * rows
        counts[Action("ppu", "mult", (acc_bits, w_bits))] = products
    if a_zero_point is not None:
        terms.append(-int(a_zero_point) * acc[:, -1:, :columns].astype(exact))
        action = Action("ppu", "mult", (acc_bits, a_bits))
        counts[action] = counts.get(action, 0) + acc.shape[0] * columns
    if terms:
        counts[Action("ppu", "add", (acc_bits,))] = outputs * len(terms)
    limited, watch = _accumulate(acc[:, :rows, :columns].astype(exact), terms, acc_bits, overflow, k)
    return Corrected(limited, watch, Actions(counts))


def _exact_enough(acc: Int64Array, w_zero_point: Int64Array | None, a_zero_point: int | None) -> type:
    """Return np.int64 where no exact sum can reach 2**62; else object: Python's integers, slow and exact."""
    if acc.size == 0:
        return np.int64
    peak = max(-int(acc.min()), int(acc.max()))
    factor = 1
    if w_zero_point is not None and np.size(w_zero_point):
        factor += max(-int(np.min(w_zero_point)), int(np.max(w_zero_point)))
    factor += abs(a_zero_point or 0)
    return np.int64 if peak * factor < 1 << 62 else object


def _accumulate(
    register: NDArray[Any], terms: list[NDArray[Any]], bits: int, overflow: Overflow, k: int
) -> tuple[Int64Array, RegisterWatch]:
    """Add the terms one after another; watch every addition."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    unlimited = register
    count, seen_low, seen_high = 0, 0, 0
    first: OverflowEvent | None = None
    for term in terms:
        exact = register + term
        unlimited = unlimited + term
        if exact.size:
            seen_low, seen_high = min(seen_low, int(unlimited.min())), max(seen_high, int(unlimited.max()))
        beyond = np.asarray((exact < low) | (exact > high), bool)
        register = exact
        if beyond.any():
            count += int(np.count_nonzero(beyond))
            index = _index_of_first(beyond)
            if first is None or index < first.index:
                first = OverflowEvent(index, k, int(exact[index]))
            # Where something overflows in int64, bits <= 62 (the sums are below 2**62), so `exact - low` fits too.
            register = ((exact - low) & (high - low)) + low if overflow == "wrap" else np.clip(exact, low, high)
    return register.astype(np.int64), RegisterWatch(count, first, seen_low, seen_high)


def _index_of_first(beyond: NDArray[np.bool_]) -> tuple[int, int, int]:
    batch, m, n = np.unravel_index(int(beyond.argmax()), beyond.shape)
    return int(batch), int(m), int(n)
