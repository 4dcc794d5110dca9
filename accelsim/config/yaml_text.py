"""YAML text to plain values, with the line of every key, and a clear word on everything that is not plain.

Scalars follow YAML 1.2's core schema, as editors' YAML schemas do: ``yes`` is text, ``1e3`` is a number, ``010`` is
ten. (PyYAML's own rules are YAML 1.1's: there ``yes`` is true, ``1e3`` text and ``010`` eight.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from accelsim.config.accepted import KeyPath
from accelsim.config.problems import Problem, shorten
from accelsim.errors import ConfigError

# A configuration has some fifty keys. Aliases can make a small file expand without end: these limits stop them.
MAX_VALUES = 10_000
MAX_DEPTH = 32

_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]{1,100}|[0-9]{1,100}(?:\.[0-9]{0,100})?)(?:[eE][-+]?[0-9]{1,10})?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class _CoreLoader(yaml.SafeLoader):
    """Composes nodes only; nothing is ever constructed from a tag."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own hook


for _name, _pattern, _first in _SCALARS:
    _CoreLoader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)


@dataclass
class Document:
    """A file as read: plain values, the line (from 1) of each key path, and what was wrong with the YAML itself."""

    values: object = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_yaml(text: str, source: str) -> Document:
    """Parse the one YAML document in `text`. Raises ConfigError where it is not YAML at all, or expands too far."""
    try:
        node = _CoreLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{source}: {_explain(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = error.character if isinstance(error.character, str) else chr(error.character)
        raise ConfigError(f"{source}: line {line}: the character {character!r} is not allowed in YAML text") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply; a configuration has sections in sections, no more") from None
    document = Document()
    if node is not None:
        document.values = _Reader(source, document).value(node, (), 0)
        document.lines[()] = _line(node)
    return document


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _explain(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}: " if mark else ""
    problem = error.problem or error.context or "cannot be parsed"
    hint = ""
    if "'\\t'" in problem:
        hint = "; indent with spaces, not tabs"
    elif "mapping values are not allowed" in problem:
        hint = "; check the indentation, and quote a text that has a colon in it"
    elif "but found another document" in problem:
        problem, hint = "a second document starts here (---)", "; use one document a file"
    return f"{place}not valid YAML: {problem}{hint}"


class _Reader:
    """Walks composed nodes. Aliases share nodes, so what counts is the number of visits, not of nodes."""

    def __init__(self, source: str, document: Document) -> None:
        self.source = source
        self.document = document
        self.visits = 0

    def value(self, node: yaml.Node, path: KeyPath, depth: int) -> object:
        self.visits += 1
        if self.visits > MAX_VALUES:
            raise ConfigError(f"{self.source}: more than {MAX_VALUES} values (aliases count each time they are used)")
        if depth > MAX_DEPTH:
            raise ConfigError(f"{self.source}: line {_line(node)}: nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, str(index)), depth + 1) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(line, path, "a key must be a word, not a list or a section")
                continue
            key = str(key_node.value)
            here = (*path, key)
            if key in values:
                self._problem(line, here, f"key is given twice; the first is on line {first_line[key]}")
                continue
            first_line[key] = line
            # Keys inside an aliased section carry the line of the anchor: there is the text that has to be mended.
            self.document.lines[here] = line
            values[key] = self.value(value_node, here, depth + 1)
        return values

    def _scalar(self, node: yaml.Node, path: KeyPath) -> object:
        text = str(node.value)
        kind = str(node.tag).removeprefix(_TAG)
        try:
            return _construct(kind, text)
        except (KeyError, ValueError):
            shown = f"!!{kind}" if str(node.tag).startswith(_TAG) else str(node.tag)
            line = self.document.lines.get(path, _line(node))
            self._problem(line, path, f"the tag {shorten(shown)} on {shorten(text)!r} is not accepted; leave it out")
            return text

    def _problem(self, line: int, path: KeyPath, text: str) -> None:
        self.document.problems.append(Problem(path, text, line))


def _construct(kind: str, text: str) -> Any:
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return {"true": True, "false": False}[text.lower()]
    if kind == "int":
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)
    if kind == "float":
        lowered = text.lower()
        return float(lowered.replace(".inf", "inf").replace(".nan", "nan"))
    raise KeyError(kind)
