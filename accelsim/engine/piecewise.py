"""What the data do where a layer does not pass one array at once: measured piece by piece, and added up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from accelsim.config.model import HardwareConfig
from accelsim.engine.contract import Activity, Engine, OperandActivity
from accelsim.mapping.contract import GemmOperands
from accelsim.mapping.plan import plan_operands
from accelsim.memory.pieces import Piece


def piecewise_activity(
    operands: GemmOperands, pieces: Sequence[Piece], config: HardwareConfig, engine: Engine
) -> Activity:
    """Return what the data of a layer do on all cores, each piece being a layer of its own for its array.

    Registers are empty between pieces. (Of those that hold a stationary tile behind its load chain, which keep it until
    the next tile comes, that is a simplification.)
    """
    found = []
    for piece in pieces:
        own = piece.of(operands)
        activity = engine.run(own, plan_operands(own, config), watch=False, extremes=False, activity=True).activity
        assert activity is not None
        found.append(activity)
    return added(found)


def added(parts: Iterable[Activity]) -> Activity:
    """Return the sum of what several arrays, or one after the other, did; unknown where one of them is.

    Raises ValueError where there is nothing to add, or where elements of the parts have different widths.
    """
    listed = list(parts)
    if not listed:
        raise ValueError("no activity to add up")

    def known(counts: list[int | None]) -> int | None:
        numbers = [count for count in counts if count is not None]
        return sum(numbers) if len(numbers) == len(counts) else None

    return Activity(
        products=sum(part.products for part in listed),
        zero_products=sum(part.zero_products for part in listed),
        stream=_operand([part.stream for part in listed]),
        other=_operand([part.other for part in listed]),
        psum_bits=sum(part.psum_bits for part in listed),
        psum_toggles=known([part.psum_toggles for part in listed]),
        accumulator_toggles=known([part.accumulator_toggles for part in listed]),
    )


def _operand(parts: list[OperandActivity]) -> OperandActivity:
    widths = {part.bits for part in parts}
    if len(widths) > 1:
        raise ValueError(f"operands of {sorted(widths)} bits do not add up")
    return OperandActivity(
        bits=widths.pop(),
        latches=sum(part.latches for part in parts),
        toggles=sum(part.toggles for part in parts),
        changes=sum(part.changes for part in parts),
    )
