"""Which layers of a network should share a width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from accelsim.errors import SearchError
from accelsim.quantize.flow import MOVES, operator_of
from accelsim.quantize.layers import INPUT, Conv2d
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.presets import use_one_of
from accelsim.search.program import Tie, operand_groups

SUMS = ("add", "sub")
SAME_VALUES = ("clip", "requantize", "convert", "leaky_relu", "prelu")
"""Operators that leave each value where it is, and of its size."""


def input_ties(network: FloatNetwork, layers: Sequence[str]) -> list[Tie]:
    """Return ties of the layers that read the same tensor: with two widths for it, it would be stored twice, or
    converted in between.
    """
    readers: dict[str, list[str]] = {}
    for layer in network.array_layers:
        readers.setdefault(_root(network, network.sources(layer)[0]), []).append(layer.name)
    return _ties(readers.values(), layers, weights=False)


def residual_ties(network: FloatNetwork, layers: Sequence[str]) -> list[Tie]:
    """Return ties of the layers whose outputs meet in an addition, as HAWQ-V3 has them: weights and inputs.

    Of a chain of additions, each of which takes the sum before it, all layers are tied.
    """
    groups: list[set[str]] = []
    for layer in network.layers:
        if operator_of(layer)[0] in SUMS:
            groups = _merged(groups, {name for source in network.sources(layer) for name in _makers(network, source)})
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
OPERANDS = "operands"
"""The kind that ties no layers: weights and inputs of a layer have one width."""


def ties_of(kinds: Iterable[str], network: FloatNetwork, layers: Sequence[str]) -> list[Tie]:
    """Return the ties of all kinds but `OPERANDS`, which ties no layers. Raises SearchError for an unknown kind.

    layers : names of the layers that choose, to whose places the ties refer

    >>> from accelsim.quantize.network_file import load_network
    >>> digits = load_network("traces/digits_cnn_float.npz")
    >>> ties_of(["inputs"], digits, ["conv1", "conv2", "fc1", "fc2"])  # no two layers read one tensor
    []
    """
    found: list[Tie] = []
    for kind in kinds:
        if kind not in (known := (*KINDS, OPERANDS)):
            raise SearchError(f"ties {kind!r} are unknown{use_one_of(kind, known)}")
        if kind != OPERANDS:
            found += KINDS[kind](network, layers)
    return found


def check_fixed(fixed: Mapping[str, tuple[Any, Any]], ties: Iterable[Tie], layers: Sequence[str]) -> None:
    """Raise SearchError where layers that share a width, or a format, are fixed to different ones.

    >>> check_fixed({"a": (8, 8), "b": (8, 8)}, [Tie((0, 1), weights=True, activations=True)], ["a", "b"])
    """
    for group in operand_groups(len(layers), ties):
        given = [(layers[place], fixed[layers[place]][operand]) for place, operand in group if layers[place] in fixed]
        if len({bits for _, bits in given}) > 1:
            what = "inputs" if group[0][1] else "weights"
            each = ", ".join(f"{name} {f'{has} bits' if isinstance(has, int) else has}" for name, has in given)
            raise SearchError(
                f"fixed: layers whose {what} are tied have different ones: {each}; fix them alike, or leave out the tie"
            )


def nothing_in_common(weight_bits: Iterable[int], activation_bits: Iterable[int]) -> str:
    """Return the message for operands that share a width where there is none for both.

    >>> nothing_in_common([2, 4], [8])
    'weights and inputs of a layer share a width (operands): weights may have 2, 4 bits, inputs 8; let one be in both'
    """
    weights, inputs = (", ".join(map(str, bits)) for bits in (weight_bits, activation_bits))
    return (
        f"weights and inputs of a layer share a width (operands): weights may have {weights} bits, inputs {inputs}; "
        f"let one be in both"
    )


def _root(network: FloatNetwork, tensor: str) -> str:
    """Return the tensor whose codes a tensor holds, through operators that only move them."""
    by_name: Mapping[str, FloatLayer] = {layer.name: layer for layer in network.layers}
    while tensor != INPUT and operator_of(by_name[tensor])[0] in MOVES:
        tensor = network.sources(by_name[tensor])[0]
    return tensor


def _makers(network: FloatNetwork, tensor: str) -> set[str]:
    """Return the layers of the array that made a tensor, through additions, rectifiers, rescaling, and operators that
    only move values; none of the network's input.
    """
    by_name = {layer.name: layer for layer in network.layers}
    found: set[str] = set()
    seen, waiting = set(), [tensor]
    while waiting:
        root = _root(network, waiting.pop())
        if root == INPUT or root in seen:
            continue
        seen.add(root)
        layer = by_name[root]
        if not layer.is_vector:
            found.add(root)
        elif operator_of(layer)[0] in (*SUMS, *SAME_VALUES):
            waiting += network.sources(layer)
    return found


def _merged(groups: list[set[str]], group: set[str]) -> list[set[str]]:
    apart = [each for each in groups if not each & group]
    return [*apart, group.union(*(each for each in groups if each & group))]


def _ties(groups: Iterable[Sequence[str]], layers: Sequence[str], *, weights: bool) -> list[Tie]:
    place = {name: index for index, name in enumerate(layers)}
    found = [tuple(place[name] for name in group if name in place) for group in groups]
    return [Tie(group, weights, activations=True) for group in found if len(group) > 1]
