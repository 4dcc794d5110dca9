"""Is every tensor sound in itself, and does every name in the graph lead to one, in the order of computation?"""

from __future__ import annotations

from collections import Counter

from accelsim import formats
from accelsim.errors import FormatError
from accelsim.trace.check import Check
from accelsim.trace.schema import MatmulMeta, Step, TensorMeta, VectorMeta


def check_tensors(check: Check) -> None:
    """Check the axes and the format of each tensor; note the formats of those that are sound."""
    for name, tensor in check.meta.tensors.items():
        _tensor(check, f"tensor {name!r}", name, tensor)


def _tensor(check: Check, where: str, name: str, tensor: TensorMeta) -> None:
    ndim = len(tensor.shape)
    if not tensor.shape:
        check.say(where, "shape is empty; a tensor has at least one dimension")
    if len(tensor.dims) != ndim:
        check.say(where, f"{len(tensor.dims)} dims {tensor.dims} name the {ndim} sizes {tensor.shape}")
    elif len(set(tensor.dims)) < ndim:
        check.say(where, f"dims {tensor.dims} name two dimensions alike")
    sound = True
    for what, axis in (("channel_axis", tensor.channel_axis), ("block_axis", tensor.block_axis)):
        if axis is not None and not 0 <= axis < ndim:
            sound = False
            check.say(where, f"{what}={axis} is not an axis of {ndim} dimensions; use 0..{ndim - 1}")
    try:
        number_format = formats.get(tensor.format)
    except FormatError as error:
        check.say(where, str(error))
        return
    if number_format.blocks is not None and tensor.block_axis is None:
        sound = False
        check.say(where, f"{tensor.format} has blocks; say along which axis (block_axis)")
    if number_format.blocks is None and tensor.block_axis is not None:
        sound = False
        check.say(where, f"block_axis={tensor.block_axis}, but {tensor.format} has no blocks")
    if tensor.block_axis is not None and tensor.block_axis == tensor.channel_axis:
        sound = False
        check.say(
            where,
            f"blocks and per-channel scales both run along axis {tensor.block_axis}; use another channel_axis",
        )
    if sound:
        check.formats[name] = number_format


def check_graph(check: Check) -> None:
    """Check names, inputs, outputs and the order of the layers; note which layer computes what."""
    tensors = check.meta.tensors
    seen: set[str] = set()
    for layer in check.meta.layers:
        where = f"layer {layer.name!r}"
        if layer.name in seen:
            check.say(where, "another layer has this name")
        seen.add(layer.name)
        if layer.output in check.producers:
            check.say(where, f"output {layer.output!r} belongs to layer {check.producers[layer.output]!r}")
        check.producers.setdefault(layer.output, layer.name)
    for what, names in (("inputs", check.meta.inputs), ("outputs", check.meta.outputs)):
        for name, count in Counter(names).items():
            if count > 1:
                check.say(what, f"{name!r} occurs {count} times")
    for name in check.meta.inputs:
        if name not in tensors:
            check.say("inputs", _unknown_tensor(check, name))
        elif name in check.producers:
            check.say("inputs", f"{name!r} is computed by layer {check.producers[name]!r}")
    if not check.meta.outputs:
        check.say("outputs", "is empty; name at least one tensor that a layer computes")
    for name in check.meta.outputs:
        if name not in check.producers:
            check.say("outputs", f"no layer computes {name!r}{check.near(name, check.producers)}")
    _order(check)


def _order(check: Check) -> None:
    """Every input is known before it is used, weights are stored, and every stored tensor has a use."""
    known, used = set(check.meta.inputs), set[str]()
    for layer in check.meta.layers:
        where = f"layer {layer.name!r}"
        roles = [*_roles(layer), ("output", layer.output)]
        for role, name in roles:
            if name not in check.meta.tensors:
                check.say(where, f"{role}: {_unknown_tensor(check, name)}")
            elif role == "weight":
                if name in check.producers:
                    check.say(where, f"weight {name!r} is computed by {check.producers[name]!r}; store it")
                elif name in check.meta.inputs:
                    check.say(where, f"weight {name!r} is listed in inputs; list activations there only")
            elif role in ("operand", "other") and name not in check.producers:
                pass  # a network input, or a constant
            elif role != "output" and name not in known:
                if name in check.producers:
                    check.say(
                        where,
                        f"{role} {name!r} is used before layer {check.producers[name]!r} computes it; "
                        f"list the layers in the order of computation",
                    )
                else:
                    check.say(where, f"{role} {name!r} is neither listed in inputs nor computed")
        used.update(name for role, name in roles if role != "output")
        known.add(layer.output)
    for name in check.meta.tensors:
        if name not in used and name not in check.producers:
            check.say(f"tensor {name!r}", "no layer uses it")


def _roles(layer: Step) -> list[tuple[str, str]]:
    """Return what a layer reads: (role, tensor name)."""
    if isinstance(layer, VectorMeta):
        return [("operand", name) for name in layer.inputs]
    second = ("other", layer.other) if isinstance(layer, MatmulMeta) else ("weight", layer.weight)
    return [("input", layer.input), second]


def _unknown_tensor(check: Check, name: str) -> str:
    return f"unknown tensor {name!r}{check.near(name, check.meta.tensors)}"
