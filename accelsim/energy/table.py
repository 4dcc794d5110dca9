"""Energy tables: a price for each operation, with its source, read from YAML and checked as a whole."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from accelsim.energy.forms import FORMS
from accelsim.energy.operations import OPERATIONS
from accelsim.errors import EnergyTableError, did_you_mean

SHIPPED = Path(__file__).with_name("tables")

TableUnit = Literal["pJ", "relative"]

MARKS = {
    "published": "printed in a primary source that was read for the table",
    "secondary": "printed in a primary source, read in a publication that quotes it",
    "recalled": "known to be published, but not looked up",
    "fit": "a law drawn through published points",
    "synthesis": "from gate-level netlists synthesized and simulated for this project",
    "structural": "composed of other entries, the way such a unit is built",
    "assumption": "chosen by the table's author; nothing published stands behind it",
}


@dataclass(frozen=True)
class Entry:
    """The price of one operation.

    form, coefficients : the formula (accelsim.energy.forms), and its coefficients as (name, value)
    unit : "pJ" an event, "pJ/bit", or "share"; in a relative table "relative" or "relative/bit"
    mark : how the number is known, one of `MARKS`
    source : who says so
    notes : where it holds
    reason : why it is zero, if it is
    points : ((numbers of the operation), price) as published, which the formula need not meet
    """

    operation: str
    form: str
    coefficients: tuple[tuple[str, float], ...]
    unit: str
    mark: str
    source: str
    notes: str = ""
    reason: str = ""
    points: tuple[tuple[tuple[int, ...], float], ...] = ()

    def price_pj(self, params: tuple[int, ...] = ()) -> float:
        """Return the price of one event (or bit); nan where the formula has none.

        Raises ValueError where `params` are not the operation's.
        """
        numbers = OPERATIONS[self.operation].complete(params)
        form = FORMS[self.form]
        try:
            return form.function(*numbers[: form.takes], **dict(self.coefficients))
        except (ArithmeticError, ValueError):  # a user's coefficients: no logarithm, no power
            return math.nan


@dataclass(frozen=True)
class EnergyTable:
    """A whole table. Find prices with `price_pj`; `entries` has the provenance, in the file's order.

    unit : "pJ"; or "relative": prices are multiples of some operation's (the description says whose), and whatever is
        called pJ, in names too, is in that unit
    node_nm, voltage : of the technology, for scaling (accelsim.energy.scaling); None: not said
    factor : by which prices of everything but DRAM are multiplied (`scaled`)
    """

    name: str
    technology: str
    description: str
    entries: tuple[Entry, ...]
    unit: TableUnit = "pJ"
    node_nm: int | None = None
    voltage: float | None = None
    factor: float = 1.0

    def __contains__(self, operation: str) -> bool:
        return any(entry.operation == operation for entry in self.entries)

    def __getitem__(self, operation: str) -> Entry:
        """Return the entry of an operation. Raises EnergyTableError where the table has none."""
        for entry in self.entries:
            if entry.operation == operation:
                return entry
        hint = did_you_mean(operation, OPERATIONS) if operation not in OPERATIONS else ""
        raise EnergyTableError(f"energy table {self.name!r}: no price for {operation}{hint}")

    def price_pj(self, operation: str, params: tuple[int, ...] = ()) -> float:
        """Return the price in pJ of one event, or of one bit where the operation counts bits; of relative tables, in
        their unit.

        params : the operation's numbers, in the order of ``OPERATIONS[operation].params``; those that have defaults may
            be left out (of an SRAM word_bits, 64, and ports, 1)

        Raises EnergyTableError where the table has no such entry, or where its formula gives no usable price for
        these numbers (negative, or not finite); ValueError where `params` are not the operation's.
        """
        price = self[operation].price_pj(params)
        if self.factor != 1.0 and scales(operation):
            price *= self.factor
        if not (math.isfinite(price) and price >= 0):
            arguments = ", ".join(str(value) for value in params)
            raise EnergyTableError(
                f"energy table {self.name!r}: {operation}({arguments}) comes to {price!r} pJ; a price must be a finite "
                f"number that is not negative: change the entry's coefficients"
            )
        return price

    @property
    def digest(self) -> str:
        """Hex digest (16 digits) of everything that the table says."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def scales(operation: str) -> bool:
    """Return whether another node changes an operation's price: DRAM is another chip, and shares are no prices."""
    return not operation.startswith("dram_") and OPERATIONS[operation].unit != "share"


def shipped_tables() -> list[str]:
    """Return the names of the tables that come with accelsim."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_table(name_or_path: str | Path) -> EnergyTable:
    """Return a shipped table by its name, or the user's own by the path of its YAML file (docs/energy.md).

    Anything with a folder or a ``.yaml`` / ``.yml`` ending is a path. Raises EnergyTableError with every problem of the
    file at once, or where there is no such table.

    >>> table = load_table("horowitz45")
    >>> table.name, table.price_pj("mult", (8, 8)), table.unit  # an 8-bit product, as published
    ('horowitz45', 0.2, 'pJ')
    """
    content, name = _table_text(name_or_path)
    return _read_once(content, name)


def table_yaml(name_or_path: str | Path) -> str:
    """Return the YAML of a shipped table or of the user's own, comments included: a table to start from.

    Raises EnergyTableError as `load_table` does.

    >>> Path("mine.yaml").write_text(table_yaml("horowitz45").replace("name: horowitz45", "name: mine")) > 0
    True
    >>> load_table("mine.yaml").price_pj("mult", (8, 8))
    0.2
    """
    load_table(name_or_path)  # its problems, if it has any
    return _table_text(name_or_path)[0]


def _table_text(name_or_path: str | Path) -> tuple[str, str]:
    """Return a table's text, and what messages call it."""
    text = str(name_or_path)
    is_path = isinstance(name_or_path, Path) or Path(text).name != text or text.endswith((".yaml", ".yml"))
    if not is_path and text not in shipped_tables():
        raise EnergyTableError(
            f"energy table {text!r} is not shipped{did_you_mean(text, shipped_tables())}; "
            f"use one of {', '.join(shipped_tables())}, or the path of a YAML file"
        )
    path = Path(text) if is_path else SHIPPED / f"{text}.yaml"
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EnergyTableError(
            f"energy table {path}: no such file; the shipped tables are {', '.join(shipped_tables())}"
        ) from None
    except OSError as error:
        raise EnergyTableError(f"energy table {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise EnergyTableError(f"energy table {path}: not UTF-8 text (byte {error.start})") from None
    return content, str(path) if is_path else path.name


@lru_cache(maxsize=16)
def _read_once(content: str, name: str) -> EnergyTable:
    """Read a table's text; a sweep asks for the same one again and again."""
    from accelsim.energy.table_file import read_table  # pydantic and yaml are loaded only when a table is read

    return read_table(content, name)
