"""What a sweep is asked to do: the YAML file, typed, and every mistake in it at once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from accelsim.config.problems import Problem, found, message
from accelsim.config.yaml_text import read_yaml
from accelsim.errors import ConfigError, SweepError, did_you_mean

MAX_POINTS = 10_000
Value = JsonValue  # of an axis: a word, a number, null; for some fields a list or a section
Values = Annotated[list[Value], Field(min_length=1)]
Axes = dict[str, Values]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Random(_Section):
    """Points drawn at random: every axis independently, each of its values equally likely; no point twice."""

    count: int = Field(ge=1, description="points to draw")
    seed: int = Field(0, ge=0, description="the same seed draws the same points")
    axes: Axes = Field(min_length=1, description="axis: its values")


class SweepSpec(_Section):
    """The root of a sweep's file. Exactly one of `grid`, `points` and `random` says what varies."""

    name: str = Field("sweep", min_length=1, max_length=100, description="for messages; of a file, its path")
    config: str | None = Field(None, description="the configuration that points change, a YAML file")
    trace: str | None = Field(None, description="the trace that points run")
    network: str | None = Field(
        None, description="in place of a trace: a float network (.npz) or model (.tflite) that each point quantizes"
    )
    inputs: str | None = Field(None, description="a model's data, FILE[:ARRAY]")
    formats: str | None = Field(None, description="formats of the network's layers, e.g. 'conv1:int8, *:mx6'")
    ranges: str = Field("mse", description="how activations' ranges are chosen (docs/quantize.md)")
    batch: int | None = Field(None, ge=1, description="only the first inputs")
    engine: Literal["auto", "fast", "stepped"] = Field(
        "auto", description="auto, fast or stepped; all give the same numbers"
    )
    watch: bool = Field(True, description="watch every addition, not only prove that none overflows where that is so")
    grid: Axes | None = Field(None, description="axis: its values; all combinations run")
    points: list[dict[str, Value]] | None = Field(None, description="the points one by one, as {axis: value}")
    random: Random | None = Field(None, description="points drawn at random")
    max_points: int = Field(MAX_POINTS, ge=1, description="refuse larger sweeps, which are seldom meant")

    @model_validator(mode="after")
    def _one_way(self) -> SweepSpec:
        ways = {"grid": self.grid, "points": self.points, "random": self.random}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"exactly one of grid, points and random says what varies; found {found}")
        if not ways[given[0]]:
            raise ValueError(f"{given[0]} is empty: there is nothing to run")
        return self

    @property
    def digest(self) -> str:
        """16 hex digits of everything that decides the rows; `max_points` and `name` do not."""
        values = self.model_dump(exclude={"max_points", "name"})
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def load_spec(spec: str | Path | Mapping[str, Any] | SweepSpec) -> tuple[SweepSpec, Path]:
    """Return a sweep's specification, and the folder that its file names are relative to.

    spec : a YAML file's path (names are relative to the file), or a mapping of the same shape (to the working folder)

    Raises SweepError with every problem, its line, and what would be accepted.
    """
    if isinstance(spec, SweepSpec):
        return spec, Path()
    if isinstance(spec, Mapping):
        return _validated({str(key): _plain(value) for key, value in spec.items()}, None, "sweep"), Path()
    if not isinstance(spec, str | os.PathLike):
        raise SweepError(f"sweep: the specification is {type(spec).__name__}; pass a YAML file's name, or a mapping")
    path = Path(spec)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        document = read_yaml(text, str(path))
    except ConfigError as error:
        raise SweepError(str(error)) from None
    if not isinstance(document.values, dict):
        raise SweepError(f"{path}: a sweep is a YAML mapping with grid, points or random; see docs/sweeps.md")
    if document.problems:
        raise SweepError(message(str(path), document.problems))
    loaded = _validated(document.values, document.lines, str(path))
    return loaded if "name" in loaded.model_fields_set else loaded.model_copy(update={"name": str(path)}), path.parent


def _plain(value: Any) -> Any:
    """Return what Python and NumPy make as a file would say it: ranges, tuples, arrays, paths, NumPy's numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _validated(values: dict[str, Any], lines: Mapping[tuple[str, ...], int] | None, source: str) -> SweepSpec:
    try:
        return SweepSpec.model_validate(values)
    except ValidationError as error:
        problems = [_problem(detail, lines) for detail in error.errors(include_url=False)]
        raise SweepError(message(source, problems)) from None


def _problem(detail: Any, lines: Mapping[tuple[str, ...], int] | None) -> Problem:
    path = tuple(str(part) for part in detail["loc"])
    at = path
    while lines is not None and at and at not in lines:
        at = at[:-1]
    line = None if lines is None else lines.get(at, 1)
    section: type[_Section] = Random if path[:1] == ("random",) and len(path) > 1 else SweepSpec
    if detail["type"] == "extra_forbidden":
        known = section.model_fields
        return Problem(path, f"unknown key{did_you_mean(path[-1], known)}; the keys are {', '.join(known)}", line)
    if detail["type"] == "missing":
        return Problem(path, "required key is missing", line)
    if detail["type"] == "value_error":
        return Problem(path, str(detail["ctx"]["error"]), line)
    if detail["type"] == "too_short":
        return Problem(path, "it is empty: there is nothing to run; give a list of values", line)
    if detail["type"] in ("list_type", "dict_type", "model_type"):
        shape = "a list, such as [8, 16, 32]" if detail["type"] == "list_type" else "keys and values"
        return Problem(path, f"{found(detail['input'])} is not {shape}", line)
    return Problem(path, f"{found(detail['input'])}: {detail['msg'][0].lower()}{detail['msg'][1:]}", line)
