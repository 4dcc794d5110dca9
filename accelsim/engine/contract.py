"""What an engine takes and gives. Both engines give equal results; one test suite runs over the list of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Actions
from accelsim.mapping.contract import CycleCounts, GemmOperands, LayerPlan


@dataclass(frozen=True)
class OverflowEvent:
    """The first addition whose exact result did not fit, in the order of the outputs, then of K.

    index : (batch, m, n) of the GEMM output
    k : first element of K in the addend (a lane group for the psum, or, in float32, a block; a fold for the
        accumulator); -1: the bias preload
    value : the exact sum that did not fit (register content + addend); of float32 registers, that sum as a float64
    """

    index: tuple[int, int, int]
    k: int
    value: int | float


@dataclass(frozen=True)
class RegisterWatch:
    """What one kind of register (psum or accumulator) went through in a layer.

    overflows : additions whose exact result did not fit the register
    first : the first of them, or None
    low, high : smallest and largest value that a register of unlimited width would have held after any addition (0
        included: registers start empty; for the accumulator the bias preload counts). Of float32 registers: what they
        did hold, as floats
    exact : False where `low` and `high` are only proved bounds (the fast engine with ``watch=False``, where nothing
        overflows, or with ``extremes=False``)
    """

    overflows: int
    first: OverflowEvent | None
    low: int | float
    high: int | float
    exact: bool = True

    def followed_by(self, later: RegisterWatch | None) -> RegisterWatch:
        """Return the watch of the same register through this work and then through `later`."""
        if later is None:
            return self
        events = [event for event in (self.first, later.first) if event is not None]
        return RegisterWatch(
            overflows=self.overflows + later.overflows,
            first=min(events, key=lambda event: (event.index, event.k), default=None),
            low=min(self.low, later.low),
            high=max(self.high, later.high),
            exact=self.exact and later.exact,
        )

    @property
    def peak(self) -> int | float:
        """Largest magnitude seen (or bounded)."""
        return max(-self.low, self.high)

    @property
    def sufficient_bits(self) -> int | None:
        """Width of the two's-complement register that would have held every value; None: the register is float32."""
        if isinstance(self.low, float) or isinstance(self.high, float):
            return None
        return 1 + max(max(self.high, 0).bit_length(), (-min(self.low, 0) - 1).bit_length() if self.low < 0 else 0)


@dataclass(frozen=True)
class OperandActivity:
    """What the registers of one operand went through in a layer, in all PEs (docs/timing.md, section "Activity").

    bits : of one element's register: its code as it moves (accelsim.engine.lane_codes)
    latches : elements latched
    toggles : bits that changed, from one content to the next; a register without data holds zeros
    changes : of these changes of content, those that are not from zero to zero (repeated elements included)
    """

    bits: int
    latches: int
    toggles: int
    changes: int

    @property
    def rate(self) -> float:
        """Bits that toggle, of those in changes that are not from zero to zero; 0.5 for random data."""
        return self.toggles / (self.changes * self.bits) if self.changes else 0.0


@dataclass(frozen=True)
class Activity:
    """What the data did in a layer.

    products, zero_products : multiplications, and those with a zero operand
    stream, other : registers of the operand that moves right, and of the one that moves down (os), or loads and stays
        (ws, is: with double_buffered the registers of the load chain and the ones that hold)
    psum_bits : bits of psum registers latched: os: in additions; ws, is: whenever a psum moves
    psum_toggles : bits that changed in psum registers: os: in additions; ws, is: from each content to the next. None:
        not measured
    accumulator_toggles : bits that changed in additions to accumulators; None: not measured
    """

    products: int
    zero_products: int
    stream: OperandActivity
    other: OperandActivity
    psum_bits: int
    psum_toggles: int | None
    accumulator_toggles: int | None


@dataclass(frozen=True, eq=False)
class ComputeResult:
    """What the array did with one layer.

    acc : [batch, M, N], the accumulators after the last fold: int64, or float32 with float32 summation
    cycles : by cause; `ppu` is what the plan says (the PPU is outside the array)
    actions : counted in the array and its accumulators
    psum, accumulator : overflow watch of the two registers
    activity : what the data did; None: not asked for
    """

    acc: NDArray[np.int64] | NDArray[np.float32]
    cycles: CycleCounts
    actions: Actions
    psum: RegisterWatch
    accumulator: RegisterWatch
    activity: Activity | None = None


class Engine(Protocol):
    """An engine computes a layer's GEMMs as the plan orders them."""

    @property
    def name(self) -> str: ...

    def run(
        self,
        operands: GemmOperands,
        plan: LayerPlan,
        *,
        watch: bool = True,
        extremes: bool = True,
        activity: bool = False,
    ) -> ComputeResult:
        """Compute; with ``watch=False`` an engine may prove overflow impossible instead of watching every addition.

        With ``extremes=False`` it may do so too, and where registers overflow it counts that, but may give bounds of
        what registers of unlimited width would have held.

        activity : also count what the data do to registers and multipliers
        """
        ...
