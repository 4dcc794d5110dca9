"""The laws of area: how large each circuit is, with its source, read from the shipped YAML (areas/nangate45.yaml)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from accelsim.energy.forms import array_divider, linear, mux_levels

SHIPPED = Path(__file__).with_name("areas") / "nangate45.yaml"


def constant(*, area: float) -> float:
    """Return `area`."""
    return area


def array_product(
    a_bits: int,
    b_bits: int,
    *,
    product: float,
    sum: float,  # noqa: A002 - the name of the coefficient in the file
    offset: float,
    single_bit: float | None = None,
) -> float:
    """Return ``product * a*b + sum * (a + b) + offset``; ``single_bit * max(a, b)``, if given, for one-bit operands."""
    if single_bit is not None and min(a_bits, b_bits) == 1:
        return single_bit * max(a_bits, b_bits)
    return product * (a_bits * b_bits) + sum * (a_bits + b_bits) + offset


def brick_levels(a_bits: int, b_bits: int, *, shift_add: float) -> float:
    """Return ``shift_add * k * log4(k)``, k = ceil(a/2) * ceil(b/2) bricks: shifters and adders, level by level."""
    bricks = -(-a_bits // 2) * -(-b_bits // 2)
    return shift_add * bricks * math.log(bricks, 4)


def mux_tree(index_bits: int, value_bits: int, *, per_mux: float) -> float:
    """Return ``per_mux * value_bits * (2**index_bits - 1)``."""
    return per_mux * value_bits * ((1 << index_bits) - 1)


def sram_cells(bits: int, ports: int, *, per_bit: float, per_port: float) -> float:
    """Return ``per_bit * bits * (1 + per_port * (ports - 1))**2``: each port brings lines in both directions."""
    return per_bit * bits * (1 + per_port * (ports - 1)) ** 2


def scaled_linear(width_bits: int, bits: int, *, per_bit: float, offset: float, at_bits: float) -> float:
    """Return ``(per_bit * bits + offset) * width / at_bits``."""
    return (per_bit * bits + offset) * width_bits / at_bits


AREA_FORMS: dict[str, Callable[..., float]] = {
    function.__name__: function
    for function in (
        constant,
        linear,
        array_product,
        mux_levels,
        mux_tree,
        brick_levels,
        scaled_linear,
        sram_cells,
        array_divider,
    )
}


@dataclass(frozen=True)
class AreaLaw:
    """The area of one kind of circuit.

    form, coefficients : the formula, one of `AREA_FORMS`, and its coefficients as (name, value)
    unit : "um2", or "GE" (gate equivalents)
    mark : how the number is known, one of `accelsim.energy.table.MARKS`
    source, notes : who says so; how well it holds
    """

    name: str
    form: str
    coefficients: tuple[tuple[str, float], ...]
    unit: str
    mark: str
    source: str
    notes: str = ""


@dataclass(frozen=True)
class AreaTable:
    """All laws, at `node_nm`. `gate_um2` is the area of one gate equivalent."""

    name: str
    technology: str
    node_nm: int
    gate_um2: float
    laws: tuple[AreaLaw, ...]

    def __getitem__(self, name: str) -> AreaLaw:
        """Return the law of a kind of circuit. Raises KeyError where there is none."""
        for law in self.laws:
            if law.name == name:
                return law
        raise KeyError(name)

    def um2(self, name: str, *params: int) -> float:
        """Return the area in um2 of one circuit; `params` are its widths in bits (of an SRAM: bits and ports).

        Raises KeyError for an unknown circuit; ValueError for a width below 1.
        """
        if any(value < 1 for value in params):
            raise ValueError(f"{name} has widths {params}; each must be at least 1 bit")
        law = self[name]
        area = AREA_FORMS[law.form](*params, **dict(law.coefficients))
        return area * (self.gate_um2 if law.unit == "GE" else 1.0)


@lru_cache(maxsize=1)
def load_area_table() -> AreaTable:
    """Return the shipped laws."""
    from accelsim.config.yaml_text import read_yaml  # yaml is loaded only when a table is read

    # The file is ours, and its test checks every key; a mistake in it is a bug, not bad input.
    top = cast("dict[str, Any]", read_yaml(SHIPPED.read_text(encoding="utf-8"), SHIPPED.name).values)
    laws = []
    for name, entry in top["laws"].items():
        numbers = tuple((key, float(value)) for key, value in entry["coefficients"].items())
        words = {key: str(entry.get(key, "")).strip() for key in ("form", "unit", "mark", "source", "notes")}
        laws.append(AreaLaw(name=name, coefficients=numbers, **words))
    return AreaTable(top["name"], top["technology"], top["node_nm"], float(top["gate_um2"]), tuple(laws))
