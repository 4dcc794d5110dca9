"""Named choices of number formats, one for each configuration in configs/ that runs them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from accelsim.errors import NetworkError, did_you_mean

Pair = tuple[str, str]
"""Formats of a layer's (weights, activations)."""


@dataclass(frozen=True)
class Recipe:
    """Which formats a network is quantized to; `quantize_network` says what the fields mean."""

    weights: str
    activations: str
    first: Pair | None = None
    last: Pair | None = None
    output: str = "int8"


_INT8 = ("int8", "int8")

PRESETS: dict[str, Recipe] = {
    "int8": Recipe("int8", "int8"),
    "int4_vsq": Recipe("vsq4", "vsq4"),
    "mx9": Recipe("mx9", "mx9"),
    "mx6": Recipe("mx6", "mx6"),
    "mx4": Recipe("mx4", "mx4"),
    "mxfp8": Recipe("mxfp8_e4m3", "mxfp8_e4m3"),
    "mxfp6": Recipe("mxfp6_e2m3", "mxfp6_e2m3"),
    "mxfp4": Recipe("mxfp4", "mxfp4"),
    "nvfp4": Recipe("nvfp4", "nvfp4"),
    "xnor": Recipe("binary", "binary", _INT8, _INT8),
    "ternary": Recipe("ternary", "int8", _INT8, _INT8),
    "bwn": Recipe("binary", "int8", _INT8, _INT8),
    "po2": Recipe("po2_4", "int8"),
    "kmeans4": Recipe("kmeans4", "int8"),
    "bitfusion": Recipe("int4", "int4", _INT8, _INT8),
    "bitserial": Recipe("int5", "int5", _INT8, _INT8),
}
"""By the name of the configuration, configs/<name>.yaml (int8: any of configs/int8_*.yaml)."""


def get_preset(name: str) -> Recipe:
    """Return the preset called `name`; NetworkError, which lists them, for an unknown one."""
    if name not in PRESETS:
        raise NetworkError(f"unknown preset {name!r}{use_one_of(name, PRESETS)}")
    return PRESETS[name]


def use_one_of(word: str, accepted: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: the nearest accepted one, if any, and all of them."""
    names = list(accepted)
    near = did_you_mean(word, names)
    return f"{near} Use one of {', '.join(names)}" if near else f"; use one of {', '.join(names)}"
