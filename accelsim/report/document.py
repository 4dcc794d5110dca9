"""Frozen dataclasses to JSON and back, with every type checked on the way in.

A field whose metadata says ``json=False`` (arrays) stays out of the document. A class lists in ``DERIVED`` the
properties that its document also carries for other programs to read; on the way in they are compared with what the
fields give, so a document whose parts do not add up is refused. JSON has no infinities: they are the strings "inf",
"-inf" and "nan".
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from accelsim.actions import Action, Actions
from accelsim.energy.account import ComponentEnergy
from accelsim.errors import ReportError, did_you_mean

T = TypeVar("T")

_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


class FrozenDocument(Mapping[str, Any]):
    """A JSON object that cannot be changed; it compares, hashes and pickles. Reading a key returns a fresh copy."""

    __slots__ = ("_text",)

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._text = json.dumps(dict(values or {}), allow_nan=False)

    def as_dict(self) -> dict[str, Any]:
        """Return a fresh dict."""
        values: dict[str, Any] = json.loads(self._text)
        return values

    def __getitem__(self, key: str) -> Any:
        return self.as_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __len__(self) -> int:
        return len(self.as_dict())

    def __hash__(self) -> int:
        return hash(json.dumps(self.as_dict(), sort_keys=True))

    def __repr__(self) -> str:
        return f"FrozenDocument({self._text})"


# -- out --------------------------------------------------------------------------------------------------------------


def encode(value: object) -> Any:
    """Return `value` as plain JSON values (dict, list, str, int, float, bool, None)."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, FrozenDocument):
        return value.as_dict()
    if isinstance(value, Actions):
        return [[*action[:2], list(action.params), count] for action, count in value.items()]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if dataclasses.is_dataclass(value):
        names = [field.name for field in _stored(type(value))] + list(_derived(type(value)))
        return {name: encode(getattr(value, name)) for name in names}
    raise TypeError(f"a report cannot hold a {type(value).__name__}")


def _stored(kind: type) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.metadata.get("json", True)]


def _derived(kind: type) -> tuple[str, ...]:
    derived: tuple[str, ...] = getattr(kind, "DERIVED", ())
    return derived


# -- in ---------------------------------------------------------------------------------------------------------------


def parse(text: str) -> dict[str, Any]:
    """Return the JSON object in `text`. Raises ReportError where it is not one."""
    try:
        data = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise ReportError(f"report: not JSON, or cut off (line {error.lineno}: {error.msg})") from None
    except RecursionError:
        raise ReportError("report: nested too deeply to be a report") from None
    except ValueError as error:  # a number of thousands of digits
        raise ReportError(f"report: {error}") from None
    if not isinstance(data, dict):
        raise ReportError(f"report: found {_found(data)}, expected an object")
    return data


def _refuse_constant(word: str) -> None:
    raise ReportError(f"report: {word} is not JSON; a report writes it as a string")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ReportError(f"report: the key {max(keys, key=keys.count)!r} is given twice")
    return values


def decode(kind: type[T], data: Any, path: str) -> T:
    """Return the `kind` (a dataclass) that `encode` wrote as `data`. Raises ReportError that names the place."""
    value: T = _decode(kind, data, path)
    return value


def _decode(kind: Any, data: Any, path: str) -> Any:
    if get_origin(kind) in (Union, UnionType):
        inner = [option for option in get_args(kind) if option is not NoneType]
        if data is None and len(inner) < len(get_args(kind)):
            return None
        if inner == [int, float]:  # a number is what it is written as
            return _decode(int if type(data) is int else float, data, path)
        return _decode(inner[0], data, path)
    if get_origin(kind) is tuple:
        return _decode_tuple(get_args(kind), data, path)
    if kind is float:
        return _decode_float(data, path)
    if kind in (int, str, bool):
        if type(data) is not kind:
            raise _wrong(path, data, {int: "a whole number", str: "a text", bool: "true or false"}[kind])
        return data
    if kind is Actions:
        return _decode_actions(data, path)
    if not isinstance(data, dict):
        raise _wrong(path, data, "an object")
    if get_origin(kind) is Mapping:
        return FrozenDocument(data)
    if kind is ComponentEnergy:
        return _construct(lambda: ComponentEnergy({k: _decode_float(v, f"{path}.{k}") for k, v in data.items()}), path)
    return _decode_dataclass(kind, data, path)


def _decode_dataclass(kind: Any, data: dict[str, Any], path: str) -> Any:
    hints = get_type_hints(kind)
    names = [field.name for field in _stored(kind)]
    accepted = [*names, *_derived(kind)]
    for key in data:
        if key not in accepted:
            raise ReportError(f"{path}: unknown key {key!r}{did_you_mean(key, accepted)}")
    for name in accepted:
        if name not in data:
            raise ReportError(f"{path}: {name!r} is missing")
    value = _construct(
        lambda: kind(**{name: _decode(hints[name], data[name], f"{path}.{name}") for name in names}), path
    )
    for name in _derived(kind):
        given = encode(getattr(value, name))
        if given != data[name]:
            raise ReportError(f"{path}.{name}: {_found(data[name])} does not follow from the rest, which gives {given}")
    return value


def _construct(make: Any, path: str) -> Any:
    try:
        return make()
    except ValueError as error:
        raise ReportError(f"{path}: {error}") from None


def _decode_tuple(kinds: tuple[Any, ...], data: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise _wrong(path, data, "a list")
    if kinds[1:] == (Ellipsis,):
        kinds = (kinds[0],) * len(data)
    if len(kinds) != len(data):
        raise ReportError(f"{path}: found {len(data)} items, expected {len(kinds)}")
    return tuple(
        _decode(kind, item, f"{path}[{index}]") for index, (kind, item) in enumerate(zip(kinds, data, strict=True))
    )


def _decode_float(data: Any, path: str) -> float:
    if isinstance(data, str) and data in _NOT_FINITE:
        return _NOT_FINITE[data]
    if isinstance(data, bool) or not isinstance(data, int | float):
        raise _wrong(path, data, 'a number, "inf", "-inf" or "nan"')
    return float(data)


def _decode_actions(data: Any, path: str) -> Actions:
    kinds = ((tuple[str, str, tuple[int, ...], int]), ...)
    rows = _decode_tuple(kinds, data, path)
    counts = {Action(component, operation, params): count for component, operation, params, count in rows}
    if len(counts) < len(rows):
        raise ReportError(f"{path}: an action is listed twice")
    actions: Actions = _construct(lambda: Actions(counts), path)
    return actions


def _wrong(path: str, data: Any, expected: str) -> ReportError:
    return ReportError(f"{path}: found {_found(data)}, expected {expected}")


def _found(data: Any) -> str:
    if data is None:
        return "null"
    if isinstance(data, dict):
        return "an object"
    if isinstance(data, list):
        return "a list"
    text = json.dumps(data)
    return text if len(text) <= 60 else text[:57] + "..."
