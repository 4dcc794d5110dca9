"""Reading an energy table's YAML: every problem at once, each with its line, its entry and what would be accepted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from accelsim.config.problems import Problem, found, message
from accelsim.config.yaml_text import Document, read_yaml
from accelsim.energy.forms import FORMS
from accelsim.energy.operations import OPERATIONS
from accelsim.energy.table import MARKS, EnergyTable, Entry
from accelsim.errors import ConfigError, EnergyTableError, did_you_mean

SCHEMA = "accelsim-energy-table"
VERSION = 1
MODIFIERS = ("row_bits", "per_port")  # of a price, which they multiply
LARGEST = 1e12  # pJ: a joule for one event; keeps every product of a count and a price finite

_TOP_REQUIRED = ("schema", "version", "name", "entries")
_TOP_OPTIONAL = ("technology", "description", "unit", "node_nm", "voltage")
_ENTRY_REQUIRED = ("form", "coefficients", "unit", "mark", "source")
_ENTRY_OPTIONAL = ("notes", "reason", "points")


def read_table(text: str, source: str) -> EnergyTable:
    """Return the table that the YAML `text` describes; `source` names it in messages. Raises EnergyTableError."""
    try:
        document = read_yaml(text, source)
    except ConfigError as error:
        raise EnergyTableError(str(error)) from None
    checker = _Checker(document)
    table = checker.table()
    if table is None:
        raise EnergyTableError(message(source, checker.problems))
    return table


class _Checker:
    """Collects problems while it builds the table."""

    def __init__(self, document: Document) -> None:
        self.values = document.values
        self.lines = document.lines
        self.problems = list(document.problems)
        self.relative = False

    def table(self) -> EnergyTable | None:
        """Return the table, or None where there are problems."""
        top = self._section(self.values, (), _TOP_REQUIRED, _TOP_OPTIONAL)
        if "schema" in top and top["schema"] != SCHEMA:
            self._problem(("schema",), f"{found(top['schema'])} is not the schema of an energy table; use {SCHEMA}")
        if "version" in top and (top["version"] != VERSION or isinstance(top["version"], bool)):
            self._problem(("version",), f"{found(top['version'])} is not a version that this program reads; use 1")
        table_unit = self._choice(top, ("unit",), ("pJ", "relative")) if "unit" in top else "pJ"
        self.relative = table_unit == "relative"
        node_nm, voltage = self._positive(top, "node_nm"), self._positive(top, "voltage")
        name, technology, description = (self._text(top, (key,)) for key in ("name", "technology", "description"))
        listed = self._section(top["entries"], ("entries",), (), tuple(OPERATIONS)) if "entries" in top else {}
        if "entries" in top and isinstance(top["entries"], dict) and not top["entries"]:
            self._problem(("entries",), f"no entry; price at least one of {', '.join(OPERATIONS)}")
        entries = tuple(self._entry(operation, value) for operation, value in listed.items())
        complete = tuple(entry for entry in entries if entry is not None)
        if self.problems:
            return None
        return EnergyTable(
            name,
            technology,
            description,
            complete,
            unit="relative" if self.relative else "pJ",
            node_nm=None if node_nm is None else int(node_nm),
            voltage=voltage,
        )

    def _positive(self, top: dict[str, object], key: str) -> float | None:
        """Return a number above zero (whole, of nanometres), or None where the key is left out."""
        value = top.get(key)
        if key not in top:
            return None
        whole = key == "node_nm"
        fits = isinstance(value, int) if whole else isinstance(value, int | float)
        if isinstance(value, bool) or not fits or not 0 < value < math.inf:  # type: ignore[operator]
            self._problem((key,), f"{found(value)} is not a {'whole ' if whole else ''}number above 0")
            return None
        return float(value)  # type: ignore[arg-type]

    def _entry(self, operation: str, value: object) -> Entry | None:
        path = ("entries", operation)
        before = len(self.problems)
        fields = self._section(value, path, _ENTRY_REQUIRED, _ENTRY_OPTIONAL)
        source, notes, reason = (self._text(fields, (*path, key)) for key in ("source", "notes", "reason"))
        expected = OPERATIONS[operation].unit.replace("pJ", "relative" if self.relative else "pJ")
        unit = self._choice(fields, (*path, "unit"), (expected,))
        mark = self._choice(fields, (*path, "mark"), MARKS)
        form = self._choice(fields, (*path, "form"), FORMS)
        if form and FORMS[form].takes > len(OPERATIONS[operation].params):
            self._problem((*path, "form"), _takes_too_many(form, operation))
        coefficients = self._coefficients(fields, path, form) if form else ()
        points = self._points(fields, path, operation)
        if len(self.problems) > before:
            return None
        if not any(value for key, value in coefficients if not (_is_place(key) or key in MODIFIERS)) and not reason:
            self._problem(path, "its price is zero without a reason; add 'reason:' and say why it costs nothing")
            return None
        return Entry(operation, form, coefficients, unit, mark, source, notes, reason, points)

    def _coefficients(
        self, fields: dict[str, object], path: tuple[str, ...], form: str
    ) -> tuple[tuple[str, float], ...]:
        path = (*path, "coefficients")
        if "coefficients" not in fields:
            return ()
        given = self._section(fields["coefficients"], path, FORMS[form].required, FORMS[form].optional)
        numbers = []
        for key, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                self._problem((*path, key), f"{found(value)} is not a finite number")
            elif abs(value) > LARGEST:
                self._problem((*path, key), f"{found(value)} is too large; prices are in pJ, at most {LARGEST:g}")
            elif _is_place(key) and value <= 0:
                what = "the capacity in bytes" if key.startswith("at_bytes") else "the product of the widths"
                self._problem((*path, key), f"{found(value)} is too small; use {what}, above 0")
            else:
                numbers.append((key, float(value)))
        return tuple(numbers)

    def _points(
        self, fields: dict[str, object], path: tuple[str, ...], operation: str
    ) -> tuple[tuple[tuple[int, ...], float], ...]:
        """Return published points: lists of the operation's numbers, then the price there."""
        known, defaults = len(OPERATIONS[operation].params), len(OPERATIONS[operation].defaults)
        numbers = known - defaults
        given = fields.get("points", [])
        listed = given if isinstance(given, list) else [given]
        found_points = []
        for point in listed:
            values: list[Any] = point if isinstance(point, list) else [point]
            usable = numbers + 1 <= len(values) <= known + 1 and all(
                isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST
                for value in values
            )
            if not usable or not all(isinstance(value, int) and value > 0 for value in values[:-1]):
                what = f"{numbers} whole number(s) above 0 and the price there" if numbers else "the price"
                self._problem((*path, "points"), f"{found(point)} is not a published point; write [{what}]")
                return ()
            found_points.append((OPERATIONS[operation].complete(tuple(values[:-1])), float(values[-1])))
        return tuple(found_points)

    def _section(
        self, value: object, path: tuple[str, ...], required: tuple[str, ...], optional: tuple[str, ...]
    ) -> dict[str, object]:
        """Return the known keys of a mapping; unknown and missing ones become problems."""
        known = (*required, *optional)
        if not isinstance(value, dict):
            self._problem(path, f"{found(value)} is not accepted here; write its keys ({', '.join(known)}) below it")
            return {}
        for key in value:
            if key not in known:
                what = "operation" if path == ("entries",) else "key"
                self._problem((*path, key), f"unknown {what}{did_you_mean(key, known) or '; use ' + ', '.join(known)}")
        for key in required:
            if key not in value:
                self._problem((*path, key), "required key is missing")
        return {key: value[key] for key in value if key in known}

    def _text(self, fields: dict[str, object], path: tuple[str, ...]) -> str:
        value = fields.get(path[-1], "")
        required = path[-1] in _ENTRY_REQUIRED + _TOP_REQUIRED
        if not isinstance(value, str) or (required and path[-1] in fields and not value.strip()):
            self._problem(path, f"{found(value)} is not text; write a word or a sentence")
            return ""
        return value.strip()

    def _choice(self, fields: dict[str, object], path: tuple[str, ...], accepted: Iterable[str]) -> str:
        value = fields.get(path[-1])
        words = list(accepted)
        if path[-1] not in fields:
            return ""  # reported as missing
        if not isinstance(value, str) or value not in words:
            hint = did_you_mean(value, words) if isinstance(value, str) else ""
            listed = f"is not one of {', '.join(words)}" if len(words) > 1 else f"is not accepted; use {words[0]}"
            self._problem(path, f"{found(value)} {listed}{hint if len(words) > 1 else ''}")
            return ""
        return value

    def _problem(self, path: tuple[str, ...], text: str) -> None:
        nearest = path
        while nearest and nearest not in self.lines:
            nearest = nearest[:-1]
        self.problems.append(Problem(path, text, self.lines.get(nearest, 1)))


def _is_place(coefficient: str) -> bool:
    """Return whether a coefficient says where a price holds, not how high it is."""
    return coefficient.startswith("at_")


def _takes_too_many(form: str, operation: str) -> str:
    params = OPERATIONS[operation].params
    has = f"has {len(params)} ({', '.join(params)})" if params else "has none"
    usable = [name for name, other in FORMS.items() if other.takes <= len(params)]
    return f"{form!r} takes {FORMS[form].takes} number(s), but {operation} {has}; use {' or '.join(usable)}"
