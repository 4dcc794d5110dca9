"""The words of the command line (``accelsim quantize``) as a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from accelsim.errors import NetworkError
from accelsim.quantize.presets import PRESETS, Pair, Recipe, get_preset


def read_options(
    preset: str | None,
    weights: str | None,
    activations: str | None,
    first: str | None,
    last: str | None,
    output: str | None,
    layers: Sequence[str],
) -> tuple[Recipe, dict[str, Pair]]:
    """Return the recipe and the layers' overrides that options ask for; given ones replace the preset's.

    first, last : "W/A", formats of weights and activations, or one format for both
    layers : "NAME=W/A" each

    Raises NetworkError, which names the option.
    """
    formats = {"weights": weights, "activations": activations, "output": output}
    pairs = {"first": first, "last": last}
    given: dict[str, str | Pair] = {key: value for key, value in formats.items() if value is not None}
    given.update({key: _pair(value, f"--{key}") for key, value in pairs.items() if value is not None})
    overrides: dict[str, Pair] = {}
    for text in layers:
        name, equals, both = text.partition("=")
        if not name or not equals:
            raise NetworkError(f"--layer {text!r}: write NAME=W/A, such as conv1=int8/uint8")
        if name in overrides:
            raise NetworkError(f"--layer: {name!r} is named twice")
        overrides[name] = _pair(both, f"--layer {name}")
    if preset is not None:
        return dataclasses.replace(get_preset(preset), **given), overrides  # type: ignore[arg-type]
    missing = [f"--{key}" for key in ("weights", "activations") if key not in given]
    if missing:
        raise NetworkError(
            f"{' and '.join(missing)} missing: name formats, such as --weights int4 --activations int8, or --preset "
            f"with one of {', '.join(PRESETS)}"
        )
    return Recipe(**given), overrides  # type: ignore[arg-type]


def _pair(text: str, option: str) -> Pair:
    """Return (weights, activations) from "W/A" or "F"."""
    parts = text.split("/")
    if len(parts) > 2 or not all(parts):
        raise NetworkError(f"{option} {text!r}: write W/A, formats of weights and activations, or one format for both")
    return parts[0], parts[-1]
