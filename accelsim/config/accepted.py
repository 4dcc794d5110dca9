"""What each key of a configuration accepts, in words: error messages, the documentation and its test all use these."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo

from accelsim.config.model import HardwareConfig, Section

KeyPath = tuple[str, ...]


def alternatives(field: FieldInfo) -> tuple[Any, ...]:
    """Return the types that a field accepts: one, or those of its union."""
    if get_origin(field.annotation) in (Union, UnionType):
        return get_args(field.annotation)
    return (field.annotation,)


def section_of(field: FieldInfo) -> type[Section] | None:
    """Return the section that a field holds, or None for a plain value."""
    for kind in alternatives(field):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def item_section(field: FieldInfo) -> type[Section] | None:
    """Return the section that a field holds a list of, or None."""
    for kind in alternatives(field):
        if get_origin(kind) is tuple:
            item = get_args(kind)[0]
            return item if issubclass(item, Section) else None
    return None


def walk_keys(section: type[Section] = HardwareConfig, prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, FieldInfo]]:
    """Yield every key of the file, in the order of the fields, each section before the keys in it."""
    for name, field in section.model_fields.items():
        path = (*prefix, name)
        yield path, field
        inner = section_of(field)
        if inner is not None:
            yield from walk_keys(inner, path)


def section_at(path: KeyPath) -> type[Section] | None:
    """Return the section at a path (the root at the empty one), or None where the file has no such section."""
    section: type[Section] | None = HardwareConfig
    items: type[Section] | None = None  # of the list that we are at
    for name in path:
        if items is not None and name.isdecimal():
            section, items = items, None
            continue
        field = section.model_fields.get(name) if section else None
        section, items = (section_of(field), item_section(field)) if field else (None, None)
    return section


def field_at(path: KeyPath) -> FieldInfo | None:
    """Return the field at a path, or None where the file has no such key."""
    section = section_at(path[:-1]) if path else None
    return section.model_fields.get(path[-1]) if section else None


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Return the words that a field accepts, or nothing where it is not a choice of words."""
    for kind in alternatives(field):
        if get_origin(kind) is Literal:
            return tuple(str(word) for word in get_args(kind))
    extra = field.json_schema_extra
    words = extra.get("enum") if isinstance(extra, dict) else None
    return tuple(str(word) for word in words) if isinstance(words, list) else ()


def _bounds(field: FieldInfo) -> str:
    limits = {type(item): item for item in field.metadata}
    low, above, high, below = limits.get(Ge), limits.get(Gt), limits.get(Le), limits.get(Lt)
    if isinstance(low, Ge) and isinstance(high, Le):
        return f"{low.ge} to {high.le}"
    parts = []
    if isinstance(low, Ge):
        parts.append(f"{low.ge} or more")
    if isinstance(above, Gt):
        parts.append(f"more than {above.gt}")
    if isinstance(high, Le):
        parts.append(f"up to {high.le}")
    if isinstance(below, Lt):
        parts.append(f"less than {below.lt}")
    return ", ".join(parts)


def accepted(field: FieldInfo) -> str:
    """Return what a field accepts, in words: ``1 to 4096``, ``os, ws, is``, ``true or false``, ``1 to 24, or null``."""
    kinds = alternatives(field)
    words = choices(field)
    if words:
        text = ", ".join(words)
    elif section_of(field) is not None:
        text = "a section"
    elif item_section(field) is not None:
        text = "a list of sections"
    elif bool in kinds:
        text = "true or false"
    elif str in kinds:
        lengths = {type(item): item for item in field.metadata}
        shortest, longest = lengths.get(MinLen), lengths.get(MaxLen)
        least = shortest.min_length if isinstance(shortest, MinLen) else 0
        text = f"{least} to {longest.max_length} characters" if isinstance(longest, MaxLen) else "text"
    else:
        text = _bounds(field)
    return f"{text}, or null" if type(None) in kinds else text
