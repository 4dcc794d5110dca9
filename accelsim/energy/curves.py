"""A table's prices as curves, over bit-width and over capacity, with the published points that they rest on."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.energy.table import EnergyTable

BITS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32)
CAPACITIES_BYTES = tuple(1 << power for power in range(7, 25))  # 128 B to 16 MB


@dataclass(frozen=True)
class Curve:
    """One operation's price along one number.

    operation, label : the table's entry, and what varies ("mult, n x n")
    axis : "bits" or "bytes", of `places`
    places, prices : the curve, in the table's unit (memories: for each bit)
    points : (place, price) as published; they need not lie on the curve
    mark : how the entry is known
    """

    operation: str
    label: str
    axis: str
    places: tuple[int, ...]
    prices: tuple[float, ...]
    points: tuple[tuple[int, float], ...]
    mark: str


# (operation, label, the operation's numbers at n)
_BY_WIDTH = (
    ("add", "add, n bits", lambda n: (n,)),
    ("mult", "mult, n x n", lambda n: (n, n)),
    ("mult", "mult, 8 x n", lambda n: (8, n)),
    ("semi_serial_mult", "semi_serial_mult, n x n", lambda n: (n, n)),
    ("fused_mult", "fused_mult, n x n", lambda n: (n, n)),
    ("serial_mult", "serial_mult, n x n", lambda n: (n, n)),
    ("register_write", "register_write, n bits", lambda n: (n,)),
)
_BY_CAPACITY = (
    ("sram_read", "sram_read, a bit of 64", lambda n: (n, 64, 1)),
    ("sram_read", "sram_read, a bit of 256", lambda n: (n, 256, 1)),
    ("sram_write", "sram_write, a bit of 64", lambda n: (n, 64, 1)),
)


def price_curves(table: EnergyTable) -> list[Curve]:
    """Return the curves of every operation of these that the table prices, over bits first.

    Raises EnergyTableError where a formula of the table has no usable price at some width.
    """
    found = []
    for axis, places, operations in (("bits", BITS, _BY_WIDTH), ("bytes", CAPACITIES_BYTES, _BY_CAPACITY)):
        for operation, label, numbers in operations:
            if operation not in table:
                continue
            entry = table[operation]
            points = {place: price for at, price in entry.points for place in at if at == numbers(place)}
            prices = tuple(table.price_pj(operation, numbers(place)) for place in places)
            found.append(Curve(operation, label, axis, places, prices, tuple(sorted(points.items())), entry.mark))
    return found
