"""Can each layer be what it says: its shapes, the formats of its operands, its output, its rounding?"""

from __future__ import annotations

import math

from pydantic import ValidationError

from accelsim.errors import AccelsimError, ShapeError, TraceError
from accelsim.formats.integer import MAX_OPERAND_BITS
from accelsim.formats.spec import FLOATING
from accelsim.operators import registry as operators
from accelsim.rounding import RULES
from accelsim.trace.check import Check
from accelsim.trace.schema import Conv2dMeta, Layer, LinearMeta, MatmulMeta, TensorMeta, VectorMeta
from accelsim.trace.shapes import Shape, channel_axis_of_weight, output_shape, reduction_axis_of_weight, weight_name

FLOAT_RULE = "float32_half_even"


def check_layer(check: Check, layer: Layer) -> None:
    """Check a layer of the array."""
    # Shapes and formats speak only where every tensor that they are about exists.
    if all(tensor in check.formats for tensor in (layer.input, weight_name(layer), layer.output)):
        _shapes(check, layer)
        _operands(check, layer)
        _output(check, layer)
    _rounding(check, layer)


def check_vector(check: Check, layer: VectorMeta) -> None:
    """An operator that exists, with attributes and shapes that it takes; formats are checked when it runs."""
    where = f"layer {layer.name!r}"
    try:
        operator = operators.get(layer.operator)
    except TraceError as error:
        check.say(where, str(error))
        return
    try:
        attributes = operator.attributes.model_validate(layer.attributes)
    except ValidationError as error:
        for problem in error.errors():
            place = ".".join(map(str, problem["loc"]))
            check.say(where, f"attributes of {layer.operator}: {place}: {problem['msg']}")
        return
    if not all(name in check.formats for name in (*layer.inputs, layer.output)):
        return
    try:
        computed = operator.output_shape([check.meta.tensors[name].shape for name in layer.inputs], attributes)
    except AccelsimError as error:
        check.say(where, str(error))
        return
    _limit(check, where, computed, layer.output)
    declared = check.meta.tensors[layer.output].shape
    if computed != declared:
        check.say(where, f"output {layer.output!r} has shape {declared}, but the operator makes {computed}")
    for name in (*layer.inputs, layer.output):
        tensor = check.meta.tensors[name]
        blocked = check.formats[name].blocks is not None
        if tensor.channel_axis is not None or (blocked and layer.operator not in operators.TAKE_BLOCKS):
            check.say(where, f"{name!r} has scales of channels or blocks; the vector unit takes one scale a tensor")
        elif blocked and tensor.block_axis != len(tensor.shape) - 1:
            check.say(where, f"{name!r} has blocks along axis {tensor.block_axis}; {layer.operator} takes the last")


def _shapes(check: Check, layer: Layer) -> None:
    tensors = check.meta.tensors
    where, declared = f"layer {layer.name!r}", tensors[layer.output].shape
    try:
        computed = output_shape(layer, tensors[layer.input].shape, tensors[weight_name(layer)].shape)
    except ShapeError as error:
        check.say(where, str(error))
        return
    if computed != declared:
        check.say(where, f"output {layer.output!r} has shape {declared}, but the layer makes {computed}")
        return
    _limit(check, where, computed, layer.output)


def _limit(check: Check, where: str, computed: Shape, output: str) -> None:
    needed = math.prod(computed) * (8 if check.formats[output].lane_bits > 32 else 4)
    if needed > check.size_limit_bytes:
        check.say(
            where,
            f"output of shape {computed} needs {needed} bytes, more than the limit of "
            f"{check.size_limit_bytes} bytes an array",
        )


def _operands(check: Check, layer: Layer) -> None:
    """Operands enter multipliers; scales and blocks run along axes that the array can serve."""
    where = f"layer {layer.name!r}"
    x, w = check.meta.tensors[layer.input], check.meta.tensors[weight_name(layer)]
    second = "other" if isinstance(layer, MatmulMeta) else "weight"
    for role, name in (("input", layer.input), (second, weight_name(layer))):
        if _is_accumulator(check, name):
            check.say(
                where,
                f"{role} {name!r} holds raw accumulators ({check.meta.tensors[name].format}), which do not "
                f"enter multipliers; requantize it (set rounding) in the layer before",
            )
    sizes = {blocks.size if (blocks := check.formats[n].blocks) else None for n in (layer.input, weight_name(layer))}
    kinds = {check.formats[name].datapath for name in (layer.input, weight_name(layer))}
    mixed = bool(kinds & FLOATING) and "block_integer" not in kinds and None in sizes  # one scaled, the other not
    if len(sizes) > 1 and not mixed:
        check.say(
            where,
            f"input {layer.input!r} is {x.format}, but {second} {weight_name(layer)!r} is {w.format}; operands "
            f"have blocks of one size both, or none",
        )
    if x.channel_axis is not None:
        check.say(
            where,
            f"input {layer.input!r} has per-channel scales (channel_axis={x.channel_axis}), which cannot "
            f"leave the sum over channels; use one scale",
        )
    channel = channel_axis_of_weight(layer, len(w.shape))
    if w.channel_axis not in (None, channel):
        check.say(
            where,
            f"{second} {weight_name(layer)!r} has scales along axis {w.channel_axis}, but only axis {channel} "
            f"(output channels) can have them",
        )
    for role, tensor, axis in (
        ("input", x, len(x.shape) - 1),
        (second, w, reduction_axis_of_weight(layer, len(w.shape))),
    ):
        if tensor.block_axis not in (None, axis):
            check.say(
                where,
                f"{role} has blocks along axis {tensor.block_axis}, but the layer sums over axis {axis}; "
                f"blocks run along the sum",
            )
    if isinstance(layer, Conv2dMeta) and layer.pad_value and check.formats[layer.input].datapath != "binary":
        check.say(
            where,
            f"pad_value={layer.pad_value} is for binary inputs, which have no 0, but input {layer.input!r} is "
            f"{x.format}; use 0",
        )
    _ragged_blocks(check, where, layer, x)


def _ragged_blocks(check: Check, where: str, layer: Layer, x: TensorMeta) -> None:
    """A block of the input must not straddle what the lowering takes apart (groups) or joins (flattening)."""
    blocks = check.formats[layer.input].blocks
    if blocks is None:
        return
    channels = x.shape[-1]
    if isinstance(layer, Conv2dMeta) and layer.groups > 1 and (channels // layer.groups) % blocks.size:
        check.say(
            where,
            f"{channels // layer.groups} channels a group are not a multiple of the input's block size "
            f"{blocks.size}: blocks would straddle groups; use a block size that divides "
            f"{channels // layer.groups}",
        )
    if isinstance(layer, LinearMeta) and layer.flatten and channels % blocks.size and math.prod(x.shape[1:-1]) > 1:
        check.say(
            where,
            f"flatten joins rows of {channels} channels, not a multiple of the input's block size "
            f"{blocks.size}: the weight's blocks would straddle them; use a block size that divides {channels}",
        )


def _output(check: Check, layer: Layer) -> None:
    where, tensor = f"layer {layer.name!r}", check.meta.tensors[layer.output]
    number_format, last = check.formats[layer.output], len(tensor.shape) - 1
    raw = _is_accumulator(check, layer.output)
    if layer.rounding is None and not raw and layer.activation != "threshold":
        check.say(
            where,
            f"rounding is null, so raw accumulators leave, but output {layer.output!r} is {tensor.format}; "
            f"use int32 (int17..int64), or name a rounding rule",
        )
    if raw and layer.activation == "threshold":
        check.say(where, f"thresholds make the codes of an operand format; output {layer.output!r} is raw")
    operands = [check.formats[layer.input], check.formats[weight_name(layer)]]
    floats = [form.name for form in operands if form.datapath in FLOATING]
    if floats and layer.rounding is None:
        what = "thresholds compare" if layer.activation == "threshold" else "raw accumulators are"
        check.say(
            where,
            f"operands in {floats[0]} are summed in floating point, but {what} integers; set rounding to "
            f"'{FLOAT_RULE}' and name the output's format",
        )
    wants = [*floats, *([tensor.format] if number_format.datapath in FLOATING | {"binary"} else [])]
    if wants and layer.rounding in RULES and layer.rounding != FLOAT_RULE:
        check.say(
            where,
            f"rounding {layer.rounding!r} makes integers of integers, but {wants[0]} needs '{FLOAT_RULE}'",
        )
    if layer.rounding is not None and raw:
        check.say(
            where,
            f"rounding={layer.rounding!r} requantizes, but output {layer.output!r} is {tensor.format}, which "
            f"holds raw accumulators; use an operand format, or rounding null",
        )
    if tensor.channel_axis is not None and (layer.rounding is not None or tensor.channel_axis != last):
        check.say(
            where,
            f"output {layer.output!r} has scales along axis {tensor.channel_axis}; only raw accumulators "
            f"(rounding null) have per-channel scales, along the last axis ({last})",
        )
    if tensor.block_axis not in (None, last):
        check.say(
            where,
            f"output {layer.output!r} has blocks along axis {tensor.block_axis}; the PPU makes them along the "
            f"last axis ({last})",
        )
    if layer.clamp is not None and number_format.blocks is None:
        low, high = number_format.low, number_format.high
        if not low <= layer.clamp.low <= layer.clamp.high <= high:
            check.say(
                where,
                f"clamp [{layer.clamp.low}, {layer.clamp.high}] is not a range inside {tensor.format}'s "
                f"[{low}, {high}]",
            )


def _rounding(check: Check, layer: Layer) -> None:
    where = f"layer {layer.name!r}"
    if layer.activation == "clamp" and layer.clamp is None:
        check.say(where, "activation 'clamp' needs its bounds (clamp: low, high)")
    if layer.activation != "clamp" and layer.clamp is not None:
        check.say(where, f"clamp is given, but activation is {layer.activation!r}; use 'clamp'")
    if layer.activation == "threshold":
        if layer.rounding is not None:
            check.say(where, f"thresholds make the codes, but rounding is {layer.rounding!r}; use null")
    elif layer.rounding is None:
        if layer.activation != "none":
            check.say(where, f"activation {layer.activation!r} needs a requantized output, but rounding is null")
    elif layer.rounding not in RULES:
        near = check.near(layer.rounding, RULES)
        rules = f"{' Use' if near else '; use'} one of {', '.join(RULES)}"
        check.say(where, f"rounding {layer.rounding!r} is not a rule{near}{rules}")


def _is_accumulator(check: Check, tensor: str) -> bool:
    return check.formats[tensor].lane_bits > MAX_OPERAND_BITS
