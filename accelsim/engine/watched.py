"""The watched engine: every overflow with its place and its cycle, every toggled bit, at a fraction of stepping's cost.

It walks elements of K (os) or streamed rows (ws, is) over all columns at once instead of cycles; see watched_kernels.
For one lane a PE, without block scales.
"""

from __future__ import annotations

from accelsim.engine.checks import check_operands, largest_magnitude
from accelsim.engine.watched_report import RegisterHistory, TimedEvent, WatchedResult
from accelsim.engine.watched_schedules import OutputStationary, Stationary
from accelsim.errors import UnsupportedLayerError
from accelsim.mapping.contract import GemmOperands, LayerPlan

__all__ = ["RegisterHistory", "TimedEvent", "WatchedResult", "watch_layer", "why_not_watched"]

ACCUMULATOR_BITS = 62  # with a psum of 32 bits on top, sums stay in int64


def why_not_watched(operands: GemmOperands, plan: LayerPlan, product: int | None = None) -> str | None:
    """Return why this engine cannot take a layer, or None if it can.

    product : the largest |a| times the largest |w|, where that is known
    """
    if operands.summation.kind != "integer" or operands.blocks is not None:
        return "it has block scales or sums that are no plain integers"
    if plan.lanes != 1 or plan.step_cycles != 1 or not operands.k_valid.all():
        return f"its PEs take {plan.lanes} lanes in {plan.step_cycles} cycles, and the watched engine knows 1 and 1"
    if plan.psum_bits > 32 or plan.acc_bits > ACCUMULATOR_BITS:
        return (
            f"psums of {plan.psum_bits} and accumulators of {plan.acc_bits} bits are wider than 32 and "
            f"{ACCUMULATOR_BITS}"
        )
    if product is None:
        product = largest_magnitude(operands.a) * largest_magnitude(operands.w)
    held = min(1 << (plan.psum_bits - 1), product * plan.shape.k)
    if held + product >= 1 << 31:
        return f"a psum of {plan.psum_bits} bits and a product may reach {held + product}, beyond int32"
    if plan.rows > 1 << 12:
        return f"{plan.rows} rows of PEs are more than {1 << 12}"
    return None


def watch_layer(operands: GemmOperands, plan: LayerPlan, *, threads: int = 1, history: bool = False) -> WatchedResult:
    """Compute a layer and watch every addition to psums and accumulators.

    threads : how many to use; the result does not depend on it
    history : compute what happened in every cycle (RegisterHistory.cycles) at once, instead of when it is wanted

    Raises ShapeError where operands and plan do not fit, UnsupportedLayerError where `why_not_watched` says so.
    """
    product = _product(operands, check_operands(operands, plan))
    reason = why_not_watched(operands, plan, product)
    if reason is not None:
        raise UnsupportedLayerError(f"the watched engine cannot take this layer: {reason}; use the stepped engine")
    schedule = OutputStationary if plan.dataflow == "os" else Stationary
    return schedule(operands, plan, max(1, threads), product).run(history=history)


def _product(operands: GemmOperands, bound: int) -> int:
    """Return the largest |a| times the largest |w|; bound : of `check_operands`, which has looked for it already."""
    plain = operands.summation.kind == "integer" and operands.blocks is None and operands.shape.k > 0
    return bound // operands.shape.k if plain else 0  # an operand the engine does not take is refused for that
