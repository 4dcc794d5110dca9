"""Formats by layer name, as one writes them: ``"conv1:int8, *dense*:int4/int8, *:mx6"`` (docs/import.md)."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from accelsim import formats
from accelsim.errors import FormatError, NetworkError, did_you_mean, problem_list
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.presets import Pair


def read_assignment(text: str, network: FloatNetwork) -> dict[str, Pair]:
    """Return (weights, activations) of every layer that multiplies.

    text : ``PATTERN:W`` or ``PATTERN:W/A``, separated by commas. A pattern is a layer's name, or a shell glob (``*``,
        ``?``, ``[...]``) for names; of several that match a layer, the first counts. W alone serves weights and
        activations. A single format, without a pattern, is that of all layers

    Raises NetworkError, one message with everything that is wrong: unknown formats, patterns that match nothing or come
    too late, layers that no pattern matches.
    """
    names = [layer.name for layer in network.array_layers]
    others = [layer.name for layer in network.layers if layer.name not in names]
    rules, problems = _rules(text)
    found: dict[str, Pair] = {}
    for pattern, pair in rules:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        for name in matching:
            found.setdefault(name, pair)
        if not matching:
            problems.append(_unmatched(pattern, names, others))
    deciding = _deciding(rules, names)
    for index, (pattern, _) in enumerate(rules):
        matched = any(fnmatchcase(name, pattern) for name in names)
        if matched and index not in deciding:
            problems.append(
                f"{pattern!r} decides nothing: patterns before it match all of its layers, and the first one counts; "
                f"write it before them"
            )
    missing = [name for name in names if name not in found]
    if missing and not problems:
        problems.append(f"no pattern matches {', '.join(missing)}; end with a format for all others, such as '*:int8'")
    if problems:
        raise NetworkError(problem_list(f"formats {text!r}", problems))
    return {name: found[name] for name in names}


def _rules(text: str) -> tuple[list[tuple[str, Pair]], list[str]]:
    rules: list[tuple[str, Pair]] = []
    problems: list[str] = []
    for part in text.split(","):
        pattern, colon, both = part.strip().rpartition(":")
        words = [word.strip() for word in both.split("/")]
        if (colon and not pattern.strip()) or not all(words) or len(words) > 2:
            problems.append(f"{part.strip()!r} is not PATTERN:W or PATTERN:W/A, such as conv1:int8 or *:int4/int8")
            continue
        for word in dict.fromkeys(words):
            try:
                formats.get(word)
            except FormatError as error:
                problems.append(str(error))
        rules.append((pattern.strip() if colon else "*", (words[0], words[-1])))
    return rules, problems


def _deciding(rules: Sequence[tuple[str, Pair]], names: Sequence[str]) -> set[int]:
    """Return the rules that are some layer's first."""
    first = (next((i for i, (pattern, _) in enumerate(rules) if fnmatchcase(name, pattern)), -1) for name in names)
    return set(first)


def _unmatched(pattern: str, names: Sequence[str], others: Sequence[str]) -> str:
    known = f"use one of {', '.join(names)}, or a pattern such as '*conv*'"
    if any(fnmatchcase(name, pattern) for name in others):
        return (
            f"{pattern!r} is an operator of the vector unit, which takes the formats of the layers beside it; {known}"
        )
    near = did_you_mean(pattern, names)
    return f"{pattern!r} matches no layer{near}{' ' if near else '; '}{known[0].upper() + known[1:] if near else known}"
