"""Write a configuration out: YAML with every default filled in, and the JSON Schema that editors complete from."""

from __future__ import annotations

import json
import re

import yaml

from accelsim.config.model import HardwareConfig, Section

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_RESERVED = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}  # YAML 1.1's too, for other readers


def dump_config(config: HardwareConfig) -> str:
    r"""Return `config` as YAML, fully resolved, in the order of the fields, each value with its description.

    Reading it back gives an equal configuration. Ends with a newline.

    >>> from accelsim.config.loader import dump_config, parse_config
    >>> config = parse_config("{name: tiny, clock_mhz: 100, array: {rows: 2, cols: 2, dataflow: ws}}")
    >>> text = dump_config(config)
    >>> print(*(line.split("#")[0].rstrip() for line in text.splitlines()[:5]), sep="\n")
    name: tiny
    clock_mhz: 100
    array:
      rows: 2
      cols: 2
    >>> parse_config(text) == config
    True
    """
    lines = _section_lines(config, indent=0)
    width = max(len(text) for text, _ in lines if len(text) <= 60)
    return "".join(f"{text:<{width}}  # {comment}\n" for text, comment in lines)


def config_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of configuration files, as JSON text.

    >>> json.loads(config_schema())["required"]
    ['name', 'clock_mhz', 'array']
    """
    schema = HardwareConfig.model_json_schema()
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "accelsim hardware configuration",
        "description": schema.pop("description"),
    }
    schema.pop("title")
    return json.dumps(head | schema, indent=2, ensure_ascii=False)


def _section_lines(section: Section, indent: int) -> list[tuple[str, str]]:
    lines = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        comment = str(field.description)
        key = "  " * indent + f"{name}:"
        if isinstance(value, Section):
            lines.append((key, comment))
            lines += _section_lines(value, indent + 1)
        else:
            lines.append((f"{key} {_scalar(value)}", comment))
    return lines


def _scalar(value: str | float | bool | tuple[Section, ...] | None) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int):
        return str(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    quoted: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=float("inf"))
    return quoted.rstrip("\n")


def _flow(section: Section) -> str:
    """Return an item of a list on one line."""
    given = {name: getattr(section, name) for name in type(section).model_fields}
    return "{" + ", ".join(f"{name}: {_scalar(value)}" for name, value in given.items()) + "}"


def _float(value: float) -> str:
    if value.is_integer():
        return str(int(value))
    mantissa, exponent, power = repr(value).partition("e")
    # "1e-07" is text to YAML 1.1 readers: a dot makes it a number to everyone.
    return (mantissa if "." in mantissa or not exponent else mantissa + ".0") + exponent + power
