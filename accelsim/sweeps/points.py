"""From a specification to its points: what each one runs, checked before any of them does.

An axis is a dotted field of the configuration (``array.rows``), ``config``, ``trace``, ``formats`` (of all layers), or
``formats.LAYER`` (of one layer, or of those that a pattern matches).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from accelsim.config.accepted import field_at, section_at, walk_keys
from accelsim.config.loader import load_config, parse_config
from accelsim.config.model import HardwareConfig
from accelsim.errors import AccelsimError, ConfigError, SweepError, did_you_mean, problem_list
from accelsim.sweeps.spec import Axes, Scalar, SweepSpec

OWN_AXES = ("config", "trace", "formats")


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    index : its place in the sweep, from 0
    axes : {axis: value} of what varies
    job : what a worker needs to run it, plain values (accelsim.sweeps.worker); None where the configuration is wrong
    key : 16 hex digits over configuration, trace and numerics: equal keys have equal results
    problem : what is wrong with the configuration, or None
    """

    index: int
    axes: Mapping[str, Scalar]
    job: Mapping[str, Any] | None
    key: str
    problem: str | None = None


def expand(spec: SweepSpec, home: Path) -> list[Point]:
    """Return all points of a specification, in order; `home` is the folder that file names are relative to.

    Raises SweepError for what is wrong with the sweep as a whole: an unknown axis, too many points, a missing file, no
    trace. A point whose own combination of values makes no machine is not an error of the sweep: it has a `problem`.
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
    _check_files(spec, home, chosen)
    numerics = numerics_version()
    return [_point(spec, home, index, axes, numerics) for index, axes in enumerate(chosen)]


def axis_names(spec: SweepSpec) -> list[str]:
    """Return the axes in the order in which they appear."""
    return list(_axis_names(spec))


@lru_cache(maxsize=1)
def numerics_version() -> str:
    """Return 16 hex digits over the sources of everything that decides a result: an edit makes another version."""
    package = Path(__file__).parents[1]
    stages = ("formats", "operators", "quantize", "importers", "mapping", "memory", "engine", "ppu", "energy", "report")
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        inside = path.relative_to(package)
        if path.suffix in (".py", ".yaml") and (inside.parts[0] in stages or len(inside.parts) == 1):
            digest.update(str(inside).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


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
        if name in OWN_AXES or (name.startswith("formats.") and len(name) > len("formats.")):
            if name.startswith("formats") and spec.network is None:
                problems.append(f"axis {name!r} chooses formats, but no network is named whose layers would have them")
            continue
        path = tuple(name.split("."))
        if section_at(path) is not None:
            inside = ", ".join(field for field in fields if field.startswith(f"{name}."))
            problems.append(f"axis {name!r} is a section; vary its fields: {inside}")
        elif field_at(path) is None:
            own = (*OWN_AXES, "formats.LAYER")
            problems.append(
                f"axis {name!r} is no field of a configuration{did_you_mean(name, fields)}; use a dotted field such as "
                f"array.rows ('accelsim show CONFIG' lists them), or one of {', '.join(own)}"
            )
    if problems:
        raise SweepError(problem_list(spec.name, problems))


def _count(spec: SweepSpec) -> int:
    if spec.grid is not None:
        return math.prod(len(values) for values in spec.grid.values())
    return spec.random.count if spec.random is not None else len(spec.points or [])


def _choices(spec: SweepSpec) -> Iterator[dict[str, Scalar]]:
    if spec.grid is not None:
        for values in itertools.product(*spec.grid.values()):
            yield dict(zip(spec.grid, values, strict=True))
    elif spec.random is not None:
        yield from _drawn(spec.name, spec.random.axes, spec.random.count, spec.random.seed)
    else:
        yield from (dict(point) for point in spec.points or [])


def _drawn(name: str, axes: Axes, count: int, seed: int) -> Iterator[dict[str, Scalar]]:
    possible = math.prod(len(values) for values in axes.values())
    if count > possible:
        raise SweepError(f"{name}: random.count={count:,}, but the axes have only {possible:,} combinations; use grid")
    for place in random.Random(seed).sample(range(possible), count):
        point = {}
        for axis, values in axes.items():
            place, index = divmod(place, len(values))
            point[axis] = values[index]
        yield point


def _check_files(spec: SweepSpec, home: Path, chosen: list[dict[str, Scalar]]) -> None:
    """Find what is missing for every point, and read every file once, before anything runs."""
    problems = []
    configs = dict.fromkeys(axes.get("config", spec.config) for axes in chosen)
    traces = dict.fromkeys(axes.get("trace", spec.trace) for axes in chosen)
    for config in configs:
        if config is None:
            problems.append("no configuration: set config to a YAML file, or make it an axis")
            continue
        try:
            _base(str(home / str(config)))
        except ConfigError as error:
            problems.append(str(error))
    if spec.network is not None and any(trace is not None for trace in traces):
        problems.append("a trace and a network are both named: points run the one, or quantize the other")
    elif spec.network is not None:
        problems += _network_problems(spec, home, chosen)
    else:
        problems += _trace_problems(home, traces)
    if problems:
        raise SweepError(problem_list(spec.name, problems))


def _trace_problems(home: Path, traces: Mapping[Scalar, None]) -> Iterator[str]:
    from accelsim.trace.reader import load_trace

    for trace in traces:
        if trace is None:
            yield "no trace: set trace to an .npz file, or make it an axis, or name a network to quantize"
            continue
        try:
            load_trace(home / str(trace))
        except (AccelsimError, OSError) as error:
            yield str(error)


def _network_problems(spec: SweepSpec, home: Path, chosen: list[dict[str, Scalar]]) -> Iterator[str]:
    from accelsim.sweeps.worker import read_network

    if any(assignment_text(spec, axes) == "" for axes in chosen):
        yield "no formats: set formats, such as '*:int8', or make it an axis"
        return
    try:
        read_network(
            str(home / str(spec.network)), None if spec.inputs is None else str(home / spec.inputs), spec.batch
        )
    except (AccelsimError, OSError) as error:
        yield str(error)


def assignment_text(spec: SweepSpec, axes: Mapping[str, Scalar]) -> str:
    """Return a point's formats as one assignment: single layers' first, for the first pattern that matches counts."""
    own = [f"{axis.removeprefix('formats.')}:{value}" for axis, value in axes.items() if axis.startswith("formats.")]
    common = axes.get("formats", spec.formats)
    return ", ".join([*own, *([str(common)] if common is not None else [])])


@lru_cache(maxsize=64)
def _base(path: str) -> HardwareConfig:
    return load_config(path)


def _point(spec: SweepSpec, home: Path, index: int, axes: dict[str, Scalar], numerics: str) -> Point:
    base = _base(str(home / str(axes.get("config", spec.config))))
    values = base.model_dump(mode="json")
    for axis, value in axes.items():
        if axis not in OWN_AXES and not axis.startswith("formats."):
            _set(values, axis.split("."), value)
    named = ", ".join(f"{axis}={value}" for axis, value in axes.items())
    try:
        config = parse_config(values, source=named)
    except ConfigError as error:
        return Point(index, axes, None, hashlib.sha256(repr(axes).encode()).hexdigest()[:16], str(error))
    job: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "batch": spec.batch,
        "engine": spec.engine,
        "watch": spec.watch,
    }
    if spec.network is None:
        from accelsim.trace.reader import load_trace

        path = str((home / str(axes.get("trace", spec.trace))).resolve())
        job["trace"], source = path, load_trace(path).digest
    else:
        job["network"] = str((home / spec.network).resolve())
        job["inputs"] = None if spec.inputs is None else str((home / spec.inputs).resolve())
        job["formats"], job["ranges"] = assignment_text(spec, axes), spec.ranges
        source = f"{_file_digest(job['network'])} {job['inputs'] and _file_digest(job['inputs'])}"
    identity = {**job, "source": source, "numerics": numerics, "config": config.digest}
    for path_key in ("trace", "network", "inputs"):
        identity.pop(path_key, None)  # the same file under another name is the same
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return Point(index, axes, job, key)


def _set(values: dict[str, Any], path: list[str], value: Scalar) -> None:
    """Set a field of nested sections; an optional section that is absent is begun."""
    for name in path[:-1]:
        if not isinstance(values.get(name), dict):
            values[name] = {}
        values = values[name]
    values[path[-1]] = value


@lru_cache(maxsize=64)
def _file_digest(path: str) -> str:
    name, _, array = path.partition(":") if not Path(path).exists() else (path, "", "")
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16] + array
