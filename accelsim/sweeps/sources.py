"""The files that a sweep's points are made of: found, read once, and known by their content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from accelsim.config.loader import load_config
from accelsim.config.model import HardwareConfig, is_table_path
from accelsim.errors import AccelsimError, SweepError
from accelsim.sweeps.digests import network_digest
from accelsim.sweeps.spec import SweepSpec, Value

T = TypeVar("T")


@dataclass(frozen=True)
class Network:
    """A float network that points quantize: its files, its content's digest, and what formats are assigned to."""

    path: str
    inputs: str | None
    digest: str
    content: Any


class Sources:
    """The files of one sweep; every one is read once, however many points name it.

    home : the folder that names are relative to
    """

    def __init__(self, spec: SweepSpec, home: Path) -> None:
        self._spec, self._home = spec, home
        self._read: dict[tuple[object, ...], Any] = {}

    def config(self, axes: Mapping[str, Value]) -> HardwareConfig:
        """Return the configuration that a point changes."""
        name = axes.get("config", self._spec.config)
        if name is None:
            raise SweepError("no configuration: set config to a YAML file, or make it an axis")
        file = _name("config", name)
        return self._once(("config", file), lambda: load_config(self._home / file))

    def values(self, axes: Mapping[str, Value]) -> dict[str, Any]:
        """Return the configuration that a point changes as plain values, the caller's own."""
        config = self.config(axes)
        values: dict[str, Any] = config.model_dump(mode="json")
        if is_table_path(config.energy.table):  # a worker's folder may be another one
            values["energy"]["table"] = str(Path(config.energy.table).absolute())
        return values

    def table_path(self, axis: str, value: Value) -> Value:
        """Return an axis' value with the path of an energy table, if it has one, relative to the sweep's folder."""
        if axis == "energy" and isinstance(value, dict) and "table" in value:
            return {**value, "table": self.table_path("energy.table", value["table"])}
        if axis == "energy.table" and isinstance(value, str) and is_table_path(value):
            return str((self._home / value).absolute())
        return value

    def table_digest(self, config: HardwareConfig) -> str:
        """Return the digest of the prices that a configuration asks for. Raises EnergyTableError."""
        from accelsim.energy.scaling import configured_table

        key = ("table", config.energy.model_dump_json())
        return self._once(key, lambda: configured_table(config).digest)

    def trace(self, axes: Mapping[str, Value]) -> tuple[str, str] | None:
        """Return the trace that a point runs, (path, digest), checked for the batch; None where it names none."""
        name = axes.get("trace", self._spec.trace)
        if name is None:
            return None
        file = _name("trace", name)
        return self._once(("trace", file), lambda: self._trace(file))

    def network(self, axes: Mapping[str, Value]) -> Network | None:
        """Return the network that a point quantizes; None where it names none."""
        name: Value = axes.get("network", self._spec.network)
        inputs: Value = axes.get("inputs", self._spec.inputs)
        if isinstance(name, dict):
            if not {"file"} <= name.keys() <= {"file", "inputs"}:
                raise SweepError(f"network {name}: give a file's name, or {{file: MODEL, inputs: DATA}}")
            inputs = name.get("inputs", inputs)
            name = name["file"]
        if name is None:
            return None
        file, data = _name("network", name), None if inputs is None else _name("inputs", inputs)
        return self._once(("network", file, data), lambda: self._network(file, data))

    def problems(self, chosen: Iterable[Mapping[str, Value]]) -> list[str]:
        """Return, without repetition, what is wrong with the files that the points name, or missing."""
        found: dict[str, None] = {}
        for axes in chosen:
            readers: list[Callable[[Mapping[str, Value]], object]] = [self.config, self._what_runs]
            for reader in readers:
                try:
                    reader(axes)
                except (AccelsimError, OSError) as error:
                    found[str(error)] = None
        return list(found)

    def _what_runs(self, axes: Mapping[str, Value]) -> None:
        network, trace = axes.get("network", self._spec.network), axes.get("trace", self._spec.trace)
        if network is not None and trace is not None:
            raise SweepError("a trace and a network are both named: points run the one, or quantize the other")
        if network is None and trace is None:
            raise SweepError("no trace: set trace to an .npz file, or make it an axis, or name a network to quantize")
        self.trace(axes)
        if network is not None:
            self.network(axes)
            if axes.get("formats", self._spec.formats) is None and not any(
                axis.startswith("formats.") for axis in axes
            ):
                raise SweepError("no formats: set formats, such as '*:int8', or make it an axis")

    def _trace(self, name: str) -> tuple[str, str]:
        from accelsim.trace.reader import load_trace

        path = (self._home / name).resolve()
        trace = load_trace(self._home / name)
        if self._spec.batch is not None:
            trace.head(self._spec.batch)
        return str(path), trace.digest

    def _network(self, name: str, data: str | None) -> Network:
        from accelsim.sweeps.worker import read_network

        inputs = None if data is None else str(self._home / data)
        content = read_network(str(self._home / name), inputs, self._spec.batch)
        path = str((self._home / name).resolve())
        return Network(
            path, None if data is None else str((self._home / data).resolve()), network_digest(content), content
        )

    def _once(self, key: tuple[object, ...], read: Callable[[], T]) -> T:
        """Return what was read, or raise what was raised, the first time."""
        if key not in self._read:
            try:
                self._read[key] = read()
            except (AccelsimError, OSError) as error:
                self._read[key] = error
        found = self._read[key]
        if isinstance(found, Exception):
            raise found
        result: T = found
        return result


def _name(what: str, value: Value) -> str:
    if not isinstance(value, str):
        raise SweepError(f"{what}: {value!r} is not the name of a file")
    return value
