"""What is wrong with a configuration, each problem in one sentence that says what was found and what would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from accelsim.config.accepted import (
    KeyPath,
    accepted,
    alternatives,
    choices,
    field_at,
    item_section,
    section_at,
    walk_keys,
)
from accelsim.errors import did_you_mean, problem_list

MAX_SHOWN = 50


@dataclass(frozen=True)
class Problem:
    """One problem: the key's path from the root (may be empty), the sentence, and the line, where there is a file."""

    path: KeyPath
    text: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line is not None else ""
        key = ".".join(shorten(name) for name in self.path)
        return f"{place}{key}: {self.text}" if key else f"{place}{self.text}"


def message(source: str, problems: Sequence[Problem]) -> str:
    """Return the one message for all problems, in the order of the lines; a flood of them is cut, and says so."""
    ordered = sorted(problems, key=lambda problem: problem.line or 0)
    if len(ordered) <= MAX_SHOWN:
        return problem_list(source, [str(problem) for problem in ordered])
    lines = [f"  {problem}" for problem in ordered[:MAX_SHOWN]]
    return "\n".join([f"{source}: {len(ordered)} problems", *lines, f"  and {len(ordered) - MAX_SHOWN} more"])


def shorten(text: str, limit: int = 60) -> str:
    """Return `text` on one printable line, cut to `limit` characters."""
    plain = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."


def found(value: object) -> str:
    """Return how a message names a value: as one would write it in the file."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return repr(shorten(value))
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, list | tuple):
        return "a list"
    return shorten(f"a Python {type(value).__name__}")


def explain(error: ValidationError, lines: Mapping[KeyPath, int] | None) -> list[Problem]:
    """Turn every error of the model into a problem; `lines` of the file, or None where there is no file."""
    problems = []
    for detail in error.errors(include_url=False):
        path = tuple(str(part) for part in detail["loc"])
        line = None if lines is None else _nearest_line(path, lines)
        problems.append(Problem(path, _sentence(detail["type"], path, detail["input"], detail.get("ctx", {})), line))
    return problems


def _nearest_line(path: KeyPath, lines: Mapping[KeyPath, int]) -> int:
    # A missing key has no line of its own: its section's line is where it should be added.
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _sentence(kind: str, path: KeyPath, value: object, context: Mapping[str, Any]) -> str:
    if kind == "missing":
        return "required key is missing"
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "value_error":
        return str(context["error"])
    field = field_at(path)
    if field is None and kind == "model_type" and section_at(path) is not None:  # an item of a list
        return f"{found(value)} is not a section; {_sections_keys(path)}"
    if field is None:
        return f"{found(value)} is not accepted here; {_sections_keys(path)}"
    use = f"; use {accepted(field)}"
    if kind == "model_type":
        optional = "" if field.is_required() else ", or leave it out"
        what = "it has no value" if value is None else f"{found(value)} is not a section"
        return f"{what}; {_sections_keys(path)}{optional}"
    if value is None:
        return f"it has no value{use}"
    if kind in ("greater_than", "greater_than_equal"):
        return f"{found(value)} is too small{use}"
    if kind in ("less_than", "less_than_equal"):
        return f"{found(value)} is too large{use}"
    if kind == "string_too_short":
        return f"the text is too short{use}"
    if kind == "string_too_long":
        return f"the text has {len(str(value))} characters; use {accepted(field)}"
    return _wrong_type(field, value)


def _wrong_type(field: FieldInfo, value: object) -> str:
    kinds = alternatives(field)
    words = choices(field)
    if item_section(field) is not None:
        return f"{found(value)} is not a list; use {accepted(field)}"
    if words:
        hint = did_you_mean(value.lower(), words) if isinstance(value, str) else ""
        return f"{found(value)} is not one of {', '.join(words)}{hint}"
    if bool in kinds:
        return f"{found(value)} is not true or false"
    if str in kinds:
        quotable = isinstance(value, int | float)
        return f"{found(value)} is not text{'; put it in quotes' if quotable else f'; use {accepted(field)}'}"
    wanted = "a finite number" if value != value or value in (float("inf"), float("-inf")) else "a number"
    if int in kinds:
        wanted = "a whole number"
    quoted = " (without the quotes)" if isinstance(value, str) and _reads_as_number(value) else ""
    return f"{found(value)} is not {wanted}; use {accepted(field)}{quoted}"


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _sections_keys(path: KeyPath) -> str:
    section = section_at(path)
    return f"write its keys ({', '.join(section.model_fields)}) below it" if section else "remove it"


def _unknown_key(path: KeyPath) -> str:
    section = section_at(path[:-1])
    name = path[-1]
    homes = [
        f"in {'.'.join(home[:-1])}" if home[:-1] else "at the top level" for home, _ in walk_keys() if home[-1] == name
    ]
    if 1 <= len(homes) <= 3:
        return f"unknown key here; {name!r} belongs {' or '.join(homes)}"
    keys = list(section.model_fields) if section else []
    return f"unknown key{did_you_mean(name, keys) or '; use ' + ', '.join(keys)}"
