"""Read a configuration: from a file, from YAML text, or from a dictionary, with every problem reported at once.

What writes one out again (`dump_config`, `config_schema`) can be imported from here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError

from accelsim.config.accepted import KeyPath
from accelsim.config.dump import config_schema, dump_config
from accelsim.config.model import HardwareConfig, is_table_path
from accelsim.config.problems import Problem, explain, found, message
from accelsim.config.yaml_text import MAX_DEPTH, read_yaml
from accelsim.errors import ConfigError, did_you_mean

__all__ = ["config_schema", "dump_config", "load_config", "parse_config"]

MAX_BYTES = 1 << 20


def load_config(path: str | Path) -> HardwareConfig:
    """Read the accelerator that a YAML file describes (docs/configuration.md), or SCALE-Sim's ``.cfg``.

    Raises ConfigError where the file cannot be read, is not YAML, or does not describe an accelerator; the message
    lists every problem with its line, its key, what was found and what would be accepted.

    >>> import accelsim
    >>> accelsim.load_config("configs/int8_ws.yaml").array.dataflow
    'ws'
    """
    try:
        path = Path(path)
    except TypeError:
        raise ConfigError(f"path is {type(path).__name__}; pass a file name") from None
    text = _read_text(path)
    if path.suffix.lower() == ".cfg":
        from accelsim.config.scale_sim import read_scale_sim

        return parse_config(read_scale_sim(text, str(path)), source=str(path))
    return _table_beside(path, parse_config(text, source=str(path)))


def _table_beside(path: Path, config: HardwareConfig) -> HardwareConfig:
    """Take the path of the user's own energy table as relative to the configuration file that names it."""
    table = config.energy.table
    if not is_table_path(table):
        return config
    there = path.parent / table
    if not there.is_file():
        raise ConfigError(f"{path}: energy.table: {table!r}: there is no file {there}")
    return config.model_copy(update={"energy": config.energy.model_copy(update={"table": str(there)})})


def parse_config(config: str | Mapping[str, object], source: str = "<string>") -> HardwareConfig:
    """Make a configuration from YAML text, or from a dictionary of the same shape (for notebooks and sweeps).

    `source` names it in messages. A changed copy of a configuration ``c`` is made from ``c.model_dump()``: unlike
    ``c.model_copy(update=...)`` this checks the change. Raises ConfigError as :func:`load_config` does; problems of a
    dictionary have no lines.

    >>> parse_config("{name: tiny, clock_mhz: 100, array: {rows: 2, cols: 2, dataflow: ws}}").array.psum.bits
    32
    """
    lines: dict[KeyPath, int] | None
    if isinstance(config, str):
        document = read_yaml(config, source)
        values, problems, lines = document.values, document.problems, document.lines
        if values is None:
            needed = [name for name, field in HardwareConfig.model_fields.items() if field.is_required()]
            raise ConfigError(f"{source}: it is empty; a configuration needs at least {', '.join(needed)}")
    else:
        problems, lines = [], None
        values = _plain(config, (), problems)
    if not isinstance(values, dict):
        known = ", ".join(HardwareConfig.model_fields)
        raise ConfigError(f"{source}: it holds {found(values)}, not keys and values; the keys are {known}")
    try:
        validated = HardwareConfig.model_validate(values)
    except ValidationError as error:
        problems = problems + explain(error, lines)
    if problems:
        raise ConfigError(message(source, problems))
    return validated


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file{_near_files(path)}") from None
    except IsADirectoryError:
        inside = sorted(entry.name for entry in path.iterdir() if entry.suffix in (".yaml", ".yml"))
        files = f": {', '.join(inside)}" if inside else ""
        raise ConfigError(f"{path}: this is a folder; name one of the YAML files in it{files}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{str(path)!r}: the file cannot be read: {reason}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than 1 MiB; a configuration is a page of YAML")
    try:
        return data.decode("utf-8")  # the YAML reader takes care of a byte order mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line}: not UTF-8 text (byte 0x{data[error.start]:02x})") from None


def _near_files(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix in (".yaml", ".yml")]
    except OSError:
        return ""
    return did_you_mean(path.name, names)


def _plain(value: object, path: KeyPath, problems: list[Problem]) -> object:
    """Reduce what notebooks hold (NumPy scalars, sections, mappings) to what YAML would give."""
    if len(path) > MAX_DEPTH:
        problems.append(Problem(path[:3], f"nested deeper than {MAX_DEPTH} levels"))
        return None
    if isinstance(value, BaseModel):  # checked again: model_copy(update=...) does not check
        value = value.model_dump()
    if isinstance(value, Mapping):
        plain = {}
        for key, item in value.items():
            if isinstance(key, str):
                plain[key] = _plain(item, (*path, key), problems)
            else:
                problems.append(Problem(path, f"the key {found(key)} is not text"))
        return plain
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()  # type: ignore[attr-defined]
    return value
