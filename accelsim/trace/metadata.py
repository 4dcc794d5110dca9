"""The `meta` entry: JSON text to a typed :class:`TraceMeta` and back, with every problem said in the schema's words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from accelsim.errors import TraceError, did_you_mean
from accelsim.trace.archive import META, ArraySource
from accelsim.trace.schema import (
    SCHEMA,
    VERSION,
    Clamp,
    Conv2dMeta,
    LayerMeta,
    LinearMeta,
    MatmulMeta,
    TensorMeta,
    TraceMeta,
)

Key = str | int
T = TypeVar("T", bound=BaseModel)

_LAYERS: dict[str, type[BaseModel]] = {"conv2d": Conv2dMeta, "linear": LinearMeta, "matmul": MatmulMeta}
LARGEST_TEXT_BYTES = 64 << 20
_NAME_RULE = "use 1 to 200 letters, digits, '_', '-' or '.', the first a letter, a digit or '_'"


class MetaError(TraceError):
    """The metadata is wrong; `problems` has one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read(source: ArraySource) -> TraceMeta:
    """Return the metadata of an archive. Raises MetaError."""
    header = source.headers[META]
    if header.dtype != np.uint8 or len(header.shape) != 1:
        raise MetaError(
            [f"meta: is {header.dtype} of shape {header.shape}, but must be a row of uint8 (the bytes of UTF-8 JSON)"]
        )
    if header.size_bytes > LARGEST_TEXT_BYTES:
        raise MetaError([f"meta: has {header.size_bytes} bytes of JSON, more than the limit of {LARGEST_TEXT_BYTES}"])
    return decode(source.read(META).tobytes())


def encode(meta: TraceMeta) -> bytes:
    """Return the metadata as UTF-8 JSON, always the same bytes for the same metadata."""
    document = meta.model_dump(mode="json", by_alias=True)
    if not meta.semantics:  # traces that were not imported are the bytes that they were before the key existed
        del document["semantics"]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def decode(data: bytes) -> TraceMeta:
    """Return the metadata that UTF-8 JSON text holds.

    Raises MetaError with everything that is wrong with it.
    """
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        root = json.loads(data.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # both kinds of decoding, and integers of absurd length
        raise MetaError([f"meta: is not UTF-8 JSON: {error}"]) from None
    if not isinstance(root, dict):
        raise MetaError([f"meta: is {_found(root)}, but must be a JSON object (see docs/trace.md)"])
    if repeated:
        raise MetaError([f"meta: key {key!r} occurs twice in one object" for key in dict.fromkeys(repeated)])
    schema, version = root.get("schema"), root.get("version")
    if schema != SCHEMA:
        raise MetaError([f"meta: schema is {_found(schema)}, but must be {SCHEMA!r}: this is not an accelsim trace"])
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        raise MetaError(
            [f"meta: version {version} is newer than this accelsim reads ({VERSION}); update accelsim, or save it anew"]
        )
    return checked(lambda: TraceMeta.model_validate_json(data, strict=True), "meta")


def checked(build: Callable[[], T], subject: str, root: type[BaseModel] = TraceMeta) -> T:
    """Return what `build` builds; turn its ValidationError into MetaError with lines like
    ``meta: layers[2].stride[0]: found 0, ...``. `root` is the model that is built.
    """
    try:
        return build()
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        raise MetaError(list(dict.fromkeys(_line(detail, subject, root) for detail in details))) from None


def _line(detail: ErrorDetails, subject: str, root: type[BaseModel]) -> str:
    place, model = _walk(detail["loc"], root)
    return ": ".join(part for part in (subject, place, _sentence(detail, model)) if part)


def _walk(loc: Iterable[Key], root: type[BaseModel]) -> tuple[str, type[BaseModel]]:
    """Return a location as one would write it (without the tags of unions), and the model that its last key is of."""
    keys = [key for key in loc if key != "[key]"]
    owner = root
    if root is TraceMeta and len(keys) > 2:
        if keys[0] == "layers" and keys[2] in _LAYERS:  # the tag that chose the layer's type
            owner = _LAYERS[str(keys.pop(2))]
        elif keys[0] == "tensors":
            owner = TensorMeta
    if keys[-2:-1] == ["clamp"] and issubclass(owner, LayerMeta):
        owner = Clamp
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return place.removeprefix("."), owner


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return "required key is missing"
    if kind == "extra_forbidden":
        keys = [field.alias or name for name, field in model.model_fields.items()]
        near = did_you_mean(str(detail["loc"][-1]), keys)
        return f"unknown key{near or '; use ' + ', '.join(keys)}"
    if kind == "string_pattern_mismatch":
        return f"{_found(value)} is not a name; {_NAME_RULE}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        op = value.get("op") if isinstance(value, Mapping) else getattr(value, "op", None)
        if op is None:
            return f"op is missing; use one of {', '.join(_LAYERS)}"
        return f"op: {_found(op)} is not one of {', '.join(_LAYERS)}{did_you_mean(str(op), _LAYERS)}"
    if kind == "literal_error":
        return f"found {_found(value)}, use {context['expected']}"
    bounds = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
    if kind in bounds:
        name, words = bounds[kind]
        return f"found {_found(value)}, must be {words} {context[name]}"
    if kind == "too_short":
        return f"found {_found(value)}, needs at least {context['min_length']} of them"
    if kind == "string_too_short":
        return f"found {_found(value)}, needs at least {context['min_length']} character(s)"
    if kind == "too_long":
        return f"found {_found(value)}, takes {context['max_length']} of them"
    if kind == "string_too_long":
        return f"found {len(str(value))} characters, takes at most {context['max_length']}"
    wanted = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "string_type": "a string",
        "tuple_type": "a list",
        "dict_type": "an object",
        "model_type": "an object",
        "model_attributes_type": "an object",
        "bool_type": "true or false",
    }
    return f"found {_found(value)}, must be {wanted.get(kind) or detail['msg'].removeprefix('Input should be ')}"


def _found(value: object) -> str:
    """Return how a message names a value."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | BaseModel):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "a number of more than 40 digits"
    return text if len(text) <= 60 else text[:57] + "..."
