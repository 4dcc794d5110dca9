"""What several formats answer alike, said once: each mixin is a few of the properties of :class:`Format`."""

from __future__ import annotations

from typing import Protocol

from accelsim.formats.spec import Blocks, Datapath, Format


class NoZeroPoints:
    """Mixin for formats without zero points."""

    @property
    def zero_points(self) -> tuple[int, int]:
        return (0, 0)


class NoBlocks:
    """Mixin for formats without blocks: an element takes the bits of its code."""

    @property
    def blocks(self) -> Blocks | None:
        return None

    @property
    def bits_per_element(self: Format) -> float:
        return float(self.code_bits)


class IntegerLanes:
    """Mixin for formats whose lanes are plain integers, and whose codes all mean a number."""

    @property
    def reserved_codes(self) -> tuple[int, ...]:
        return ()

    @property
    def exponent_range(self) -> tuple[int, int]:
        return (0, 0)


class CodesAreLanes(IntegerLanes):
    """Mixin for formats whose stored code is the very integer that enters the multiplier."""

    @property
    def code_low(self: Format) -> int:
        return self.low

    @property
    def code_high(self: Format) -> int:
        return self.high

    @property
    def code_bits(self: Format) -> int:
        return self.lane_bits

    @property
    def datapath(self: Format) -> Datapath:
        return "integer" if self.blocks is None else "block_integer"


class ElementType(Protocol):
    """A type of element, as far as its codes and lanes go; see :class:`Format` for each."""

    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...
    @property
    def lane_bits(self) -> int: ...
    @property
    def code_low(self) -> int: ...
    @property
    def code_high(self) -> int: ...
    @property
    def code_bits(self) -> int: ...
    @property
    def reserved_codes(self) -> tuple[int, ...]: ...
    @property
    def exponent_range(self) -> tuple[int, int]: ...


class HasElement(Protocol):
    """What has a type of element."""

    @property
    def element(self) -> ElementType: ...


class CodesOfElement:
    """Mixin for formats whose codes and lanes are those of their `element`, under scales of blocks or without."""

    @property
    def low(self: HasElement) -> int:
        return self.element.low

    @property
    def high(self: HasElement) -> int:
        return self.element.high

    @property
    def lane_bits(self: HasElement) -> int:
        return self.element.lane_bits

    @property
    def code_low(self: HasElement) -> int:
        return self.element.code_low

    @property
    def code_high(self: HasElement) -> int:
        return self.element.code_high

    @property
    def code_bits(self: HasElement) -> int:
        return self.element.code_bits

    @property
    def reserved_codes(self: HasElement) -> tuple[int, ...]:
        return self.element.reserved_codes

    @property
    def exponent_range(self: HasElement) -> tuple[int, int]:
        return self.element.exponent_range
