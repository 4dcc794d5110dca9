"""What the hardware did, counted: the currency between mapping, engines, PPU and the energy account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Action(NamedTuple):
    """One kind of event, priced by the energy table.

    component : where it happened, and where its energy is reported: "mac", "register", "accumulator", "scale_unit",
        "decoder", "ppu", "vector", "buffer", "dram", "control", "leakage"
    operation : the entry of the energy table: "mult", "add", "register_write", "sram_read" ...
    params : the numbers that the entry's formula takes, in its order (bit-widths, or bytes of capacity)
    """

    component: str
    operation: str
    params: tuple[int, ...] = ()


class Actions:
    """An immutable multiset of actions; zero counts are dropped, so equal work compares equal.

    Raises ValueError where a count is negative.
    """

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[Action, int] | None = None) -> None:
        items = {action: int(count) for action, count in (counts or {}).items() if count}
        negative = [action for action, count in items.items() if count < 0]
        if negative:
            raise ValueError(f"negative count of {negative[0]}")
        self._counts = dict(sorted(items.items()))

    def __getitem__(self, action: Action) -> int:
        return self._counts.get(action, 0)

    def __iter__(self) -> Iterator[Action]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def items(self) -> Iterator[tuple[Action, int]]:
        """Yield (action, count) in the order of the actions."""
        return iter(self._counts.items())

    def __add__(self, other: Actions) -> Actions:
        merged = dict(self._counts)
        for action, count in other.items():
            merged[action] = merged.get(action, 0) + count
        return Actions(merged)

    def __mul__(self, factor: int) -> Actions:
        return Actions({action: count * factor for action, count in self._counts.items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Actions) and self._counts == other._counts

    def __hash__(self) -> int:
        return hash(tuple(self._counts.items()))

    def __repr__(self) -> str:
        return f"Actions({self._counts!r})"
