"""From a specification to its points: what each one runs, checked before any of them does.

An axis is a dotted field of the configuration (``array.rows``), ``config``, ``trace``, ``network``, its ``inputs``,
``formats`` (of all layers), or ``formats.LAYER`` (of one layer, or of those that a pattern matches).
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from accelsim.config.accepted import field_at, section_at, walk_keys
from accelsim.config.loader import parse_config
from accelsim.config.model import is_table_path
from accelsim.errors import AccelsimError, SweepError, did_you_mean, problem_list
from accelsim.sweeps.digests import numerics_version, text_digest
from accelsim.sweeps.sources import Sources
from accelsim.sweeps.spec import Axes, SweepSpec, Value

OWN_AXES = ("config", "trace", "network", "inputs", "formats")


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    index : its place in the sweep, from 0
    axes : {axis: value} of what varies
    job : what a worker needs to run it, plain values (accelsim.sweeps.worker); None where the configuration is wrong
    key : 16 hex digits over configuration, trace and numerics: equal keys have equal results
    problem : what is wrong with the configuration or the formats, or None
    """

    index: int
    axes: Mapping[str, Value]
    job: Mapping[str, Any] | None
    key: str
    problem: str | None = None


def expand(spec: SweepSpec, home: Path) -> list[Point]:
    """Return all points of a specification, in order; `home` is the folder that file names are relative to.

    Raises SweepError for what is wrong with the sweep as a whole: an unknown axis, too many points, a missing file, no
    trace, nothing that can run. A point whose own values make no machine is not the sweep's error: it has a `problem`.
    """
    names = _axis_names(spec)
    _check_axes(spec, names)
    count = _count(spec)
    if count > spec.max_points:
        raise SweepError(
            f"{spec.name}: {count:,} points are more than max_points={spec.max_points:,}; if they are meant, set "
            f"max_points to {count} or more, or draw some of them with random: {{count: 1000, axes: ...}}"
        )
    chosen = list(_choices(spec))
    sources = Sources(spec, home)
    problems = [*_ranges_problems(spec), *sources.problems(chosen)]
    if problems:
        raise SweepError(problem_list(spec.name, problems))
    _check_layers(spec, sources, names, chosen)
    points = [_point(spec, sources, index, axes) for index, axes in enumerate(chosen)]
    if all(point.problem is not None for point in points):
        raise SweepError(f"{spec.name}: none of its {len(points):,} points can run; the first: {points[0].problem}")
    return points


def points_digest(points: Sequence[Point]) -> str:
    """Return 16 hex digits over what all points are, in order: configurations, traces, formats and numerics."""
    return text_digest(point.key for point in points)


def axis_names(spec: SweepSpec) -> list[str]:
    """Return the axes in the order in which they appear."""
    return list(_axis_names(spec))


def _axis_names(spec: SweepSpec) -> dict[str, None]:
    if spec.grid is not None:
        return dict.fromkeys(spec.grid)
    if spec.random is not None:
        return dict.fromkeys(spec.random.axes)
    return dict.fromkeys(axis for point in spec.points or [] for axis in point)


def _check_axes(spec: SweepSpec, names: Mapping[str, None]) -> None:
    fields = [".".join(path) for path, field in walk_keys() if section_at(path) is None]
    problems = []
    for name in names:
        if name in OWN_AXES or _layer_pattern(name):
            if name.startswith("formats") and spec.network is None and "network" not in names:
                problems.append(f"axis {name!r} chooses formats, but no network is named whose layers would have them")
            continue
        path = tuple(name.split("."))
        if section_at(path) is not None:
            if not all(value is None or isinstance(value, dict) for value in _values_of(spec, name)):
                inside = ", ".join(field for field in fields if field.startswith(f"{name}."))
                problems.append(
                    f"axis {name!r} is a section; vary its fields: {inside}; or give whole sections, {{key: value}}"
                )
        elif field_at(path) is None:
            own, near = (*OWN_AXES, "formats.LAYER"), did_you_mean(name, fields)
            problems.append(
                f"axis {name!r} is no field of a configuration{near}{' U' if near else '; u'}se a dotted field such as "
                f"array.rows ('accelsim show CONFIG' lists them), or one of {', '.join(own)}"
            )
    if problems:
        raise SweepError(problem_list(spec.name, problems))


def _layer_pattern(axis: str) -> str:
    """Return LAYER of an axis formats.LAYER, or an empty string."""
    return axis.removeprefix("formats.") if axis.startswith("formats.") else ""


def _values_of(spec: SweepSpec, axis: str) -> list[Value]:
    axes = spec.grid or (spec.random.axes if spec.random is not None else {})
    return axes.get(axis, []) or [point[axis] for point in spec.points or [] if axis in point]


def _ranges_problems(spec: SweepSpec) -> Iterator[str]:
    from accelsim.quantize.ranges import RangeRule

    try:
        RangeRule.parse(spec.ranges)
    except AccelsimError as error:
        yield str(error)


def _check_layers(
    spec: SweepSpec, sources: Sources, names: Mapping[str, None], chosen: Sequence[Mapping[str, Value]]
) -> None:
    """Find axes formats.LAYER that name no layer of any network."""
    patterns = [name for name in names if _layer_pattern(name)]
    if not patterns:
        return
    networks = {network.digest: network for axes in chosen if (network := sources.network(axes)) is not None}
    layers = dict.fromkeys(layer.name for network in networks.values() for layer in network.content.array_layers)
    problems = []
    for axis in patterns:
        pattern = _layer_pattern(axis)
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            near = did_you_mean(pattern, layers)
            known = f"he layers are {', '.join(layers)}"
            problems.append(f"axis {axis!r} matches no layer{near}{' T' if near else '; t'}{known}")
    if problems:
        raise SweepError(problem_list(spec.name, problems))


def _count(spec: SweepSpec) -> int:
    if spec.grid is not None:
        return math.prod(len(values) for values in spec.grid.values())
    return spec.random.count if spec.random is not None else len(spec.points or [])


def _choices(spec: SweepSpec) -> Iterator[dict[str, Value]]:
    if spec.grid is not None:
        for values in itertools.product(*spec.grid.values()):
            yield dict(zip(spec.grid, values, strict=True))
    elif spec.random is not None:
        yield from _drawn(spec.name, spec.random.axes, spec.random.count, spec.random.seed)
    else:
        yield from (dict(point) for point in spec.points or [])


def _drawn(name: str, axes: Axes, count: int, seed: int) -> Iterator[dict[str, Value]]:
    possible = math.prod(len(values) for values in axes.values())
    if count > possible:
        raise SweepError(f"{name}: random.count={count:,}, but the axes have only {possible:,} combinations; use grid")
    for place in random.Random(seed).sample(range(possible), count):
        point = {}
        for axis, values in axes.items():
            place, index = divmod(place, len(values))
            point[axis] = values[index]
        yield point


def assignment_text(spec: SweepSpec, axes: Mapping[str, Value]) -> str:
    """Return a point's formats as one assignment: single layers' first, for the first pattern that matches counts.

    A single layer's null is the common format.
    """
    own = [
        f"{_layer_pattern(axis)}:{value}" for axis, value in axes.items() if _layer_pattern(axis) and value is not None
    ]
    common = axes.get("formats", spec.formats)
    return ", ".join([*own, *([str(common)] if common is not None else [])])


def _point(spec: SweepSpec, sources: Sources, index: int, axes: dict[str, Value]) -> Point:
    values = sources.values(axes)
    try:
        for axis in sorted(axes, key=lambda axis: axis.count(".")):  # a whole section before its fields
            if axis not in OWN_AXES and not _layer_pattern(axis):
                _set(values, axis, sources.table_path(axis, axes[axis]))
        config = parse_config(values, source=named(axes))
        job = {
            "config": config.model_dump(mode="json"),
            "energy_table": sources.table_digest(config),
            "batch": spec.batch,
            "engine": spec.engine,
            "watch": spec.watch,
            **_what_runs(spec, sources, axes),
        }
    except AccelsimError as error:
        key = text_digest([repr(axes), str(error), numerics_version()])
        return Point(index, axes, None, key, str(error))
    identity = {name: value for name, value in job.items() if name not in ("trace", "network", "inputs")}
    if is_table_path(config.energy.table):  # the same content under another name is the same
        identity["config"] = {**job["config"], "energy": {**job["config"]["energy"], "table": None}}
    return Point(index, axes, job, text_digest([json.dumps(identity, sort_keys=True), numerics_version()]))


def _what_runs(spec: SweepSpec, sources: Sources, axes: Mapping[str, Value]) -> dict[str, Any]:
    """Return a point's part of the job that names a trace, or a network and its formats, checked."""
    trace = sources.trace(axes)
    if trace is not None:
        return {"trace": trace[0], "source": trace[1]}
    network = sources.network(axes)
    assert network is not None, "Sources.problems"
    from accelsim.quantize.assignment import read_assignment

    text = assignment_text(spec, axes)
    read_assignment(text, network.content)
    ran = {"network": network.path, "inputs": network.inputs, "source": network.digest}
    return {**ran, "formats": text, "ranges": spec.ranges}


def named(axes: Mapping[str, Value]) -> str:
    """Return a point's values as text."""
    return ", ".join(f"{axis}={v if isinstance(v, str) else json.dumps(v)}" for axis, v in axes.items())


def _set(values: dict[str, Any], axis: str, value: Value) -> None:
    """Set a field of nested sections; an optional section that is absent is begun.

    Raises SweepError for an item that a list of sections does not have.
    """
    inside: Any = values
    keys: list[Any] = list(axis.split("."))
    for place, key in enumerate(keys):
        if isinstance(inside, list):
            if int(key) >= len(inside):
                raise SweepError(f"axis {axis!r}: the configuration has only {len(inside)} items there, from 0 on")
            key = int(key)
        if place == len(keys) - 1:
            inside[key] = copy.deepcopy(value)  # fields of a section may be set next
        elif isinstance(inside, dict) and not isinstance(inside.get(key), dict | list):
            inside[key] = {}
        inside = inside[key]
