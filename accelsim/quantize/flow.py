"""Which formats an activation has between the layers of a mixed network (docs/quantize.md, Between layers).

Layers that multiply take their activations in the format that was chosen for them; operators of the vector unit compute
integers. One format leaves the layer that computes an activation; every other one that is asked for is made from it by
a conversion of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from accelsim import formats
from accelsim.errors import NetworkError
from accelsim.formats import Format
from accelsim.formats.spec import FLOATING
from accelsim.quantize.choice import fitting
from accelsim.quantize.layers import INPUT, Matmul
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.presets import Pair
from accelsim.quantize.vector_layers import VECTOR_LAYERS, Add, Function, LayerNorm, Softmax, geometry

MOVES = ("reshape", "transpose", "slice", "pad", "resize_nearest", "max_pool2d", "average_pool2d")
"""Operators that pass codes on, so that their input and output mean the same."""
SAME_MEANING = (*MOVES, "concat")
_BYTE = 8


def operator_of(layer: FloatLayer, batch: int = 1) -> tuple[str, dict[str, Any]]:
    """Return a layer's operator of the vector unit and its attributes; ("", {}) of a layer that multiplies.

    Raises NetworkError for those that need rules of their own (accelsim.quantize.convert quantizes transformers).
    """
    meta = layer.meta
    if not isinstance(meta, VECTOR_LAYERS):
        return "", {}
    if isinstance(meta, Softmax | LayerNorm | Function) or (isinstance(meta, Add) and meta.other is None):
        raise NetworkError(
            f"layer {layer.name!r}: {meta.op} has one format and one way of choosing ranges (minmax); use "
            f"quantize_network (accelsim quantize) for networks with it"
        )
    return geometry(meta, batch)


@dataclass
class Flow:
    """The formats of a network's activations.

    written : what leaves the layer (or the network's input), by activation
    taken : by (layer, position): what that layer takes there
    shifted : by (activation, format's name): whether it may have a zero point
    """

    written: dict[str, Format] = field(default_factory=dict)
    taken: dict[tuple[str, int], Format] = field(default_factory=dict)
    shifted: dict[tuple[str, str], bool] = field(default_factory=dict)


def vector_format(pairs: Mapping[str, Pair]) -> str:
    """Return the integers that operators of the vector unit take: int8 where all layers take integers of at most 8
    bits, else int16.
    """
    forms = [formats.get(activations) for _, activations in pairs.values()]
    return "int8" if all(form.datapath not in FLOATING and form.lane_bits <= _BYTE for form in forms) else "int16"


def find_flow(
    network: FloatNetwork, pairs: Mapping[str, Pair], output: Format, vector: Format, non_negative: Mapping[str, bool]
) -> Flow:
    """Return the formats of all activations.

    pairs : each array layer's (weights, activations)
    output : of the network's outputs
    vector : the integers that operators of the vector unit take where nothing else decides
    non_negative : which activations have no sign
    """
    flow = Flow()
    for name in [layer.name for layer in reversed(network.layers)] + [INPUT]:
        maker = next((layer for layer in network.layers if layer.name == name), None)
        by_vector = maker is not None and maker.is_vector
        shifts = vector.lane_bits <= _BYTE or not by_vector  # sums of wide integers have no zero points
        wants = _wants(network, name, pairs, vector, flow) or [_Want(output, True, False, None)]
        found: dict[str, tuple[Format, bool]] = {}
        for want in wants:
            mine = [other for other in wants if (other.format, other.exact) == (want.format, want.exact)]
            shifted = shifts and all(other.shifted for other in mine)
            form = want.format
            if not want.exact:
                form = fitting(form, non_negative=non_negative[name], zero_points=shifted)
            found[form.name] = form, shifted and found.get(form.name, (form, True))[1]
            if want.place is not None:
                flow.taken[want.place] = form
        written = _written([form for form, _ in found.values()], by_vector, vector)
        found.setdefault(written.name, (written, shifts))
        flow.written[name] = written
        flow.shifted.update({(name, each): shifted for each, (_, shifted) in found.items()})
    return flow


@dataclass(frozen=True)
class _Want:
    """A format that a layer takes an activation in.

    shifted : it may have a zero point
    exact : it is taken as it is, not as its twin of the other sign
    place : (layer, position); None: the network's user
    """

    format: Format
    shifted: bool
    exact: bool
    place: tuple[str, int] | None


def _wants(network: FloatNetwork, tensor: str, pairs: Mapping[str, Pair], vector: Format, flow: Flow) -> list[_Want]:
    return [
        _want(layer, position, pairs, vector, flow)
        for layer in network.consumers(tensor)
        for position, source in enumerate(network.sources(layer))
        if source == tensor
    ]


def _want(layer: FloatLayer, position: int, pairs: Mapping[str, Pair], vector: Format, flow: Flow) -> _Want:
    place = layer.name, position
    if layer.is_vector:
        if operator_of(layer)[0] in SAME_MEANING:
            written = flow.written[layer.name]
            return _Want(written, flow.shifted[layer.name, written.name], True, place)
        wide = vector.lane_bits > _BYTE
        return _Want(vector, not wide, wide, place)
    weights, activations = pairs[layer.name]
    # The zero points of two activations would cost a product more, and sums of floats cannot be corrected for one.
    shifted = not isinstance(layer.meta, Matmul) and formats.get(weights).datapath not in FLOATING
    return _Want(formats.get(activations), shifted, False, place)


def _written(wanted: list[Format], by_vector: bool, vector: Format) -> Format:
    """Return the format that leaves a layer: the one that is wanted, or the one that keeps most of several."""
    if by_vector:
        plain = [form for form in wanted if _is_plain(form)]
        wanted = plain if len(plain) == len(wanted) else [*plain, vector]
    return max(wanted, key=lambda form: (form.bits_per_element, _is_plain(form)))


def _is_plain(form: Format) -> bool:
    return form.datapath == "integer" and form.blocks is None


def signless(network: FloatNetwork, low: Mapping[str, float]) -> dict[str, bool]:
    """Return which activations cannot be negative.

    low : the smallest value of the network's input, under INPUT
    """
    known = {INPUT: low[INPUT] >= 0}
    for layer in network.layers:
        operator, attributes = operator_of(layer)
        of_inputs = layer.is_vector and all(known[name] for name in network.sources(layer))
        if operator in MOVES:
            known[layer.name] = of_inputs  # the codes are the input's
        else:
            fused = attributes.get("activation", layer.activation)
            keeps = operator in ("add", "mul", "mean", "concat")
            known[layer.name] = fused in ("relu", "relu6") or (keeps and of_inputs)
    return known
