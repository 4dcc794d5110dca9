"""What was found in a layer or in a network, apart from time and energy: overflow, and distances from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from accelsim.engine.contract import RegisterWatch


@dataclass(frozen=True, kw_only=True)
class OverflowPlace:
    """Where a register first overflowed.

    layer : its name
    index : of the output element, in the layer's output tensor
    k : first element of the lowered K axis in the addend; -1: the bias preload
    value : the exact sum that did not fit (of float32 registers, as a float64)
    """

    layer: str
    index: tuple[int, ...]
    k: int
    value: int | float


@dataclass(frozen=True, kw_only=True)
class RegisterReport:
    """One kind of register (psum or accumulator) in one layer.

    count : additions whose exact result did not fit
    bits, policy : the register's width, and "wrap" or "saturate"
    first : the first overflow in the order of the outputs, then of K; or None
    earliest_cycle : cycle of the layer, on the array's clock, of the overflow that happened first (waiting for the PPU
        and the bias preload apart); None: there is none, or the watched engine does not know the layer
    low, high : smallest and largest value that a register of unlimited width would have held; floats: that a float32
        register did hold
    exact : False where `low` and `high` are proved bounds, not values seen
    """

    DERIVED: ClassVar = ("peak", "sufficient_bits")

    count: int
    bits: int
    policy: str
    first: OverflowPlace | None
    low: int | float
    high: int | float
    exact: bool = True
    earliest_cycle: int | None = None

    @classmethod
    def from_watch(
        cls,
        watch: RegisterWatch,
        *,
        bits: int,
        policy: str,
        first: OverflowPlace | None,
        earliest_cycle: int | None = None,
    ) -> RegisterReport:
        """Return the report of what an engine watched; `first` is its event, placed in the output tensor."""
        if (first is None) != (watch.overflows == 0):
            raise ValueError(f"{watch.overflows} overflows, but the first is {first}")
        return cls(
            count=watch.overflows,
            bits=bits,
            policy=policy,
            first=first,
            low=watch.low,
            high=watch.high,
            exact=watch.exact,
            earliest_cycle=earliest_cycle,
        )

    def _watch(self) -> RegisterWatch:
        return RegisterWatch(self.count, None, self.low, self.high, self.exact)

    @property
    def peak(self) -> int | float:
        """Largest magnitude seen (or bounded)."""
        return self._watch().peak

    @property
    def sufficient_bits(self) -> int | None:
        """Width of the two's-complement register that would have held every value; None: the register is float32."""
        return self._watch().sufficient_bits


@dataclass(frozen=True, kw_only=True)
class OverflowReport:
    """Three causes, three counters: the registers' overflows are a defect, clamped outputs are expected.

    ``overflow["psum"]`` is the same as ``overflow.psum``.
    """

    psum: RegisterReport
    accumulator: RegisterReport
    output_clamp: int

    def __getitem__(self, cause: Literal["psum", "accumulator", "output_clamp"]) -> Any:
        if cause not in self.__dataclass_fields__:
            raise KeyError(f"{cause!r}; use one of {', '.join(self.__dataclass_fields__)}")
        return getattr(self, cause)


@dataclass(frozen=True, kw_only=True)
class LayerAccuracy:
    """The distance of a layer's (dequantized) output from the float reference; see accelsim.report.accuracy.

    sqnr_db : 10 log10(sum ref^2 / sum (ref - out)^2); inf without error; -inf where only the reference is zero
    mse, max_error : of ref - out, in real units
    cosine : cosine of the angle between the two, as vectors
    """

    sqnr_db: float
    mse: float
    max_error: float
    cosine: float


@dataclass(frozen=True, kw_only=True)
class FakeQuantDistance:
    """The distance between simulated quantization in float and the integer hardware.

    max_steps, mean_steps : of the output's quantization step
    differing : fraction of the outputs that are at least half a step apart
    relative_l2 : ||fake - integer|| / ||integer||
    """

    max_steps: float
    mean_steps: float
    differing: float
    relative_l2: float


@dataclass(frozen=True, kw_only=True)
class NetworkAccuracy:
    """Classification by the last layer: top-1 fractions in [0, 1]; None where labels or float outputs are absent.

    difference : simulated minus float
    agreement : images for which both predict the same class
    """

    images: int
    float_accuracy: float | None
    simulated_accuracy: float | None
    difference: float | None
    agreement: float | None
