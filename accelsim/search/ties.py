"""Which layers of a network should share a width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from accelsim.quantize.flow import MOVES, operator_of
from accelsim.quantize.layers import INPUT, Conv2d
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.search.program import Tie


def input_ties(network: FloatNetwork, layers: Sequence[str]) -> list[Tie]:
    """Return ties of the layers that read the same tensor: with two widths for it, it would be stored twice, or
    converted in between.
    """
    readers: dict[str, list[str]] = {}
    for layer in network.array_layers:
        readers.setdefault(_root(network, network.sources(layer)[0]), []).append(layer.name)
    return _ties(readers.values(), layers, weights=False)


def residual_ties(network: FloatNetwork, layers: Sequence[str]) -> list[Tie]:
    """Return ties of the layers whose outputs meet in an addition, as HAWQ-V3 has them: weights and inputs."""
    groups: list[set[str]] = []
    for layer in network.layers:
        if operator_of(layer)[0] == "add":
            makers = [_maker(network, name) for name in network.sources(layer)]
            groups = _merged(groups, {name for name in makers if name is not None})
    return _ties([[name for name in layers if name in group] for group in groups], layers, weights=True)


def depthwise_ties(network: FloatNetwork, layers: Sequence[str]) -> list[Tie]:
    """Return ties of each depthwise convolution with the layer that follows it: weights and inputs."""
    pairs = []
    for layer in network.array_layers:
        if isinstance(layer.meta, Conv2d) and layer.meta.groups > 1:
            after = [each.name for each in network.consumers(layer.name) if not each.is_vector]
            if len(after) == 1:
                pairs.append([layer.name, after[0]])
    return _ties(pairs, layers, weights=True)


KINDS = {"inputs": input_ties, "residual": residual_ties, "depthwise": depthwise_ties}


def _root(network: FloatNetwork, tensor: str) -> str:
    """Return the tensor whose codes a tensor holds, through operators that only move them."""
    by_name: Mapping[str, FloatLayer] = {layer.name: layer for layer in network.layers}
    while tensor != INPUT and operator_of(by_name[tensor])[0] in MOVES:
        tensor = network.sources(by_name[tensor])[0]
    return tensor


def _maker(network: FloatNetwork, tensor: str) -> str | None:
    """Return the layer of the array behind a tensor; None where it is a sum of others, or the input."""
    root = _root(network, tensor)
    layer = next((each for each in network.layers if each.name == root), None)
    return None if layer is None or layer.is_vector else layer.name


def _merged(groups: list[set[str]], group: set[str]) -> list[set[str]]:
    apart = [each for each in groups if not each & group]
    return [*apart, group.union(*(each for each in groups if each & group))]


def _ties(groups: Iterable[Sequence[str]], layers: Sequence[str], *, weights: bool) -> list[Tie]:
    place = {name: index for index, name in enumerate(layers)}
    found = [tuple(place[name] for name in group if name in place) for group in groups]
    return [Tie(group, weights, activations=True) for group in found if len(group) > 1]
