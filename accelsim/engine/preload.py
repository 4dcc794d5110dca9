"""The bias enters the accumulators: the one addition that does not depend on the array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.checks import register_limits
from accelsim.engine.contract import OverflowEvent
from accelsim.mapping.contract import GemmOperands, LayerPlan


@dataclass(frozen=True, eq=False)
class Preload:
    """held : int64 [batch, N], what the accumulators hold; overflows and the first of them, over all M rows."""

    held: NDArray[np.int64]
    overflows: int
    first: OverflowEvent | None


def preload(operands: GemmOperands, plan: LayerPlan) -> Preload:
    """Put the bias into accumulators of the plan's width; every row m has its own, so one bias overflows M times."""
    low, high = register_limits(plan.acc_bits)
    bias = operands.bias.astype(np.int64)
    outside = (bias < low) | (bias > high)
    held = np.clip(bias, low, high)
    if plan.acc_overflow == "wrap":
        unused = np.int64(64 - plan.acc_bits)
        held = (bias << unused) >> unused
    first = None
    rows = operands.shape.m
    if rows and outside.any():
        b, n = (int(i) for i in np.argwhere(outside)[0])
        first = OverflowEvent((b, 0, n), -1, int(bias[b, n]))
    return Preload(held, int(outside.sum()) * rows, first)


def earlier(one: OverflowEvent | None, other: OverflowEvent | None) -> OverflowEvent | None:
    """Return the event that comes first in the order of outputs, then of k."""
    events = [event for event in (one, other) if event is not None]
    return min(events, key=lambda event: (event.index, event.k), default=None)


def accumulator_extremes(
    bias: NDArray[np.int64], delta_low: NDArray[np.int64], delta_high: NDArray[np.int64]
) -> tuple[int, int]:
    """Return (low, high) of an unlimited accumulator that starts at `bias` and moves by [delta_low, delta_high].

    All int64 [batch, N]; the deltas include 0. Their sum may need a 65th bit, hence Python integers.
    """
    delta = max(int(delta_high.max(initial=0)), -int(delta_low.min(initial=0)))
    if max(int(bias.max(initial=0)), -int(bias.min(initial=0))) + delta < 1 << 62:
        return int((bias + delta_low).min(initial=0)), int((bias + delta_high).max(initial=0))
    low = min((b + d for b, d in zip(bias.ravel().tolist(), delta_low.ravel().tolist(), strict=True)), default=0)
    high = max((b + d for b, d in zip(bias.ravel().tolist(), delta_high.ravel().tolist(), strict=True)), default=0)
    return min(low, 0), max(high, 0)
