"""Whether a trace's metadata and array headers agree: every problem, found without reading an array."""

from __future__ import annotations

from collections.abc import Mapping

from accelsim.rounding import RULES
from accelsim.trace.archive import META, SIZE_LIMIT_BYTES, Header
from accelsim.trace.check import Check
from accelsim.trace.check_graph import check_graph, check_tensors
from accelsim.trace.check_layers import check_layer, check_vector
from accelsim.trace.schema import Layer, TraceMeta, VectorMeta
from accelsim.trace.slots import array_slots, layer_array, tensor_array


def find_problems(
    meta: TraceMeta, headers: Mapping[str, Header], *, size_limit_bytes: int = SIZE_LIMIT_BYTES
) -> list[str]:
    """Return everything that is inconsistent in a trace, one sentence each; empty where all is well.

    headers : of every array (`meta` may be among them)
    size_limit_bytes : the largest computed tensor that is accepted, at 4 bytes a code (8 beyond 32 bits)
    """
    check = Check(meta, size_limit_bytes)
    check_tensors(check)
    check_graph(check)
    for layer in meta.layers:
        if isinstance(layer, VectorMeta):
            check_vector(check, layer)
        else:
            check_layer(check, layer)
    _arrays(check, headers)
    return check.problems


def _arrays(check: Check, headers: Mapping[str, Header]) -> None:
    slots = array_slots(check.meta, check.formats, check.producers)
    for name, slot in slots.items():
        if name in headers:
            check.problems.extend(f"array {name!r} {problem}" for problem in slot.problems(headers[name]))
        elif slot.required:
            check.problems.append(f"array {name!r} is missing: {slot.purpose}")
    for name in sorted(headers.keys() - slots.keys() - {META}):
        check.problems.append(f"array {name!r} is unknown{check.near(name, slots)}")
    for layer in check.meta.layers:
        if not isinstance(layer, VectorMeta):
            _factors(check, layer, headers)
        _expected(check, layer, headers)


def _expected(check: Check, layer: Layer | VectorMeta, headers: Mapping[str, Header]) -> None:
    number_format = check.formats.get(layer.output)
    if number_format is None or number_format.blocks is None:
        return
    names = [tensor_array(layer.output, "expected"), tensor_array(layer.output, "expected_block_scales")]
    missing = [name for name in names if name not in headers]
    if len(missing) == 1:
        check.problems.append(f"array {missing[0]!r} is missing: expected codes and block scales go together")


def _factors(check: Check, layer: Layer, headers: Mapping[str, Header]) -> None:
    """A requantized layer has a scale, or multiplier and shift where its rule multiplies integers."""
    rule = RULES.get(layer.rounding or "")
    if rule is None:
        return
    scale = layer_array(layer.name, "scale") in headers
    multiplier = layer_array(layer.name, "multiplier") in headers
    shift = layer_array(layer.name, "shift") in headers
    where = f"layer {layer.name!r}"
    if multiplier != shift:
        check.say(where, f"multiplier and shift go together; {'shift' if multiplier else 'multiplier'} is missing")
    elif multiplier and scale:
        check.say(where, "has a scale as well as multiplier and shift; store one of the two")
    elif not multiplier and not scale:
        also = f", or layers/{layer.name}/multiplier and shift" if rule.multiplier == "integer" else ""
        check.say(where, f"rounding {rule.name!r} needs requantization factors: layers/{layer.name}/scale{also}")
    if multiplier and rule.multiplier != "integer":
        check.say(
            where,
            f"rounding {rule.name!r} multiplies by a {rule.multiplier}; store scale, not multiplier and shift",
        )
