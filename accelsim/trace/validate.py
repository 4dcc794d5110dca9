"""Whether a trace's metadata and array headers agree: every problem, found without reading an array."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from accelsim import formats
from accelsim.errors import AccelsimError, FormatError, ShapeError, TraceError, did_you_mean
from accelsim.formats.integer import MAX_OPERAND_BITS
from accelsim.formats.spec import FLOATING
from accelsim.operators import registry as operators
from accelsim.rounding import RULES
from accelsim.trace.archive import META, SIZE_LIMIT_BYTES, Header
from accelsim.trace.problems import MAX_SHOWN
from accelsim.trace.schema import (
    Conv2dMeta,
    Layer,
    LinearMeta,
    MatmulMeta,
    Step,
    TensorMeta,
    TraceMeta,
    VectorMeta,
)
from accelsim.trace.shapes import Shape, channel_axis_of_weight, output_shape, reduction_axis_of_weight, weight_name
from accelsim.trace.slots import array_slots, layer_array, tensor_array


def find_problems(
    meta: TraceMeta, headers: Mapping[str, Header], *, size_limit_bytes: int = SIZE_LIMIT_BYTES
) -> list[str]:
    """Return everything that is inconsistent in a trace, one sentence each; empty where all is well.

    headers : of every array (`meta` may be among them)
    size_limit_bytes : the largest computed tensor that is accepted, at 4 bytes a code (8 beyond 32 bits)
    """
    return _Check(meta, headers, size_limit_bytes).run()


FLOAT_RULE = "float32_half_even"


def _roles(layer: Step) -> list[tuple[str, str]]:
    """Return what a layer reads: (role, tensor name)."""
    if isinstance(layer, VectorMeta):
        return [("operand", name) for name in layer.inputs]
    second = ("other", layer.other) if isinstance(layer, MatmulMeta) else ("weight", layer.weight)
    return [("input", layer.input), second]


class _Check:
    """One pass over a trace; the steps append to `problems`."""

    def __init__(self, meta: TraceMeta, headers: Mapping[str, Header], size_limit_bytes: int) -> None:
        self.meta = meta
        self.headers = headers
        self.size_limit_bytes = size_limit_bytes
        self.problems: list[str] = []
        self.formats: dict[str, formats.Format] = {}
        self.producers: dict[str, str] = {}

    def run(self) -> list[str]:
        for name, tensor in self.meta.tensors.items():
            self._tensor(f"tensor {name!r}", name, tensor)
        self._graph()
        for layer in self.meta.layers:
            if isinstance(layer, VectorMeta):
                self._vector(layer)
                continue
            # Shapes and formats speak only where every tensor that they are about exists.
            if all(tensor in self.formats for tensor in (layer.input, weight_name(layer), layer.output)):
                self._shapes(layer)
                self._operands(layer)
                self._output(layer)
            self._rounding(layer)
        self._arrays()
        return self.problems

    def _say(self, where: str, problem: str) -> None:
        self.problems.append(f"{where}: {problem}")

    def _near(self, word: str, accepted: Iterable[str]) -> str:
        # The search is slow, and in a flood of problems nobody would see its result.
        return did_you_mean(word, accepted) if len(self.problems) < MAX_SHOWN else ""

    # -- tensors

    def _tensor(self, where: str, name: str, tensor: TensorMeta) -> None:
        ndim = len(tensor.shape)
        if not tensor.shape:
            self._say(where, "shape is empty; a tensor has at least one dimension")
        if len(tensor.dims) != ndim:
            self._say(where, f"{len(tensor.dims)} dims {tensor.dims} name the {ndim} sizes {tensor.shape}")
        elif len(set(tensor.dims)) < ndim:
            self._say(where, f"dims {tensor.dims} name two dimensions alike")
        sound = True
        for what, axis in (("channel_axis", tensor.channel_axis), ("block_axis", tensor.block_axis)):
            if axis is not None and not 0 <= axis < ndim:
                sound = False
                self._say(where, f"{what}={axis} is not an axis of {ndim} dimensions; use 0..{ndim - 1}")
        try:
            number_format = formats.get(tensor.format)
        except FormatError as error:
            self._say(where, str(error))
            return
        if number_format.blocks is not None and tensor.block_axis is None:
            sound = False
            self._say(where, f"{tensor.format} has blocks; say along which axis (block_axis)")
        if number_format.blocks is None and tensor.block_axis is not None:
            sound = False
            self._say(where, f"block_axis={tensor.block_axis}, but {tensor.format} has no blocks")
        if tensor.block_axis is not None and tensor.block_axis == tensor.channel_axis:
            sound = False
            self._say(
                where,
                f"blocks and per-channel scales both run along axis {tensor.block_axis}; use another channel_axis",
            )
        if sound:
            self.formats[name] = number_format

    # -- the graph

    def _graph(self) -> None:
        tensors = self.meta.tensors
        seen: set[str] = set()
        for layer in self.meta.layers:
            where = f"layer {layer.name!r}"
            if layer.name in seen:
                self._say(where, "another layer has this name")
            seen.add(layer.name)
            if layer.output in self.producers:
                self._say(where, f"output {layer.output!r} belongs to layer {self.producers[layer.output]!r}")
            self.producers.setdefault(layer.output, layer.name)
        for what, names in (("inputs", self.meta.inputs), ("outputs", self.meta.outputs)):
            for name, count in Counter(names).items():
                if count > 1:
                    self._say(what, f"{name!r} occurs {count} times")
        for name in self.meta.inputs:
            if name not in tensors:
                self._say("inputs", self._unknown_tensor(name))
            elif name in self.producers:
                self._say("inputs", f"{name!r} is computed by layer {self.producers[name]!r}")
        if not self.meta.outputs:
            self._say("outputs", "is empty; name at least one tensor that a layer computes")
        for name in self.meta.outputs:
            if name not in self.producers:
                self._say("outputs", f"no layer computes {name!r}{self._near(name, self.producers)}")
        self._order()

    def _order(self) -> None:
        """Every input is known before it is used, weights are stored, and every stored tensor has a use."""
        known, used = set(self.meta.inputs), set[str]()
        for layer in self.meta.layers:
            where = f"layer {layer.name!r}"
            roles = [*_roles(layer), ("output", layer.output)]
            for role, name in roles:
                if name not in self.meta.tensors:
                    self._say(where, f"{role}: {self._unknown_tensor(name)}")
                elif role == "weight":
                    if name in self.producers:
                        self._say(where, f"weight {name!r} is computed by {self.producers[name]!r}; store it")
                    elif name in self.meta.inputs:
                        self._say(where, f"weight {name!r} is listed in inputs; list activations there only")
                elif role in ("operand", "other") and name not in self.producers:
                    pass  # a network input, or a constant
                elif role != "output" and name not in known:
                    if name in self.producers:
                        self._say(
                            where,
                            f"{role} {name!r} is used before layer {self.producers[name]!r} computes it; "
                            f"list the layers in the order of computation",
                        )
                    else:
                        self._say(where, f"{role} {name!r} is neither listed in inputs nor computed")
            used.update(name for role, name in roles if role != "output")
            known.add(layer.output)
        for name in self.meta.tensors:
            if name not in used and name not in self.producers:
                self._say(f"tensor {name!r}", "no layer uses it")

    def _unknown_tensor(self, name: str) -> str:
        return f"unknown tensor {name!r}{self._near(name, self.meta.tensors)}"

    # -- layers

    def _is_accumulator(self, tensor: str) -> bool:
        return self.formats[tensor].lane_bits > MAX_OPERAND_BITS

    def _shapes(self, layer: Layer) -> None:
        tensors = self.meta.tensors
        where, declared = f"layer {layer.name!r}", tensors[layer.output].shape
        try:
            computed = output_shape(layer, tensors[layer.input].shape, tensors[weight_name(layer)].shape)
        except ShapeError as error:
            self._say(where, str(error))
            return
        if computed != declared:
            self._say(where, f"output {layer.output!r} has shape {declared}, but the layer makes {computed}")
            return
        self._limit(where, computed, layer.output)

    def _limit(self, where: str, computed: Shape, output: str) -> None:
        needed = math.prod(computed) * (8 if self.formats[output].lane_bits > 32 else 4)
        if needed > self.size_limit_bytes:
            self._say(
                where,
                f"output of shape {computed} needs {needed} bytes, more than the limit of "
                f"{self.size_limit_bytes} bytes an array",
            )

    def _vector(self, layer: VectorMeta) -> None:
        """An operator that exists, with attributes and shapes that it takes; formats are checked when it runs."""
        where = f"layer {layer.name!r}"
        try:
            operator = operators.get(layer.operator)
        except TraceError as error:
            self._say(where, str(error))
            return
        try:
            attributes = operator.attributes.model_validate(layer.attributes)
        except ValidationError as error:
            for problem in error.errors():
                place = ".".join(map(str, problem["loc"]))
                self._say(where, f"attributes of {layer.operator}: {place}: {problem['msg']}")
            return
        if not all(name in self.formats for name in (*layer.inputs, layer.output)):
            return
        try:
            computed = operator.output_shape([self.meta.tensors[name].shape for name in layer.inputs], attributes)
        except AccelsimError as error:
            self._say(where, str(error))
            return
        self._limit(where, computed, layer.output)
        declared = self.meta.tensors[layer.output].shape
        if computed != declared:
            self._say(where, f"output {layer.output!r} has shape {declared}, but the operator makes {computed}")
        for name in (*layer.inputs, layer.output):
            tensor = self.meta.tensors[name]
            blocked = self.formats[name].blocks is not None
            if tensor.channel_axis is not None or (blocked and layer.operator not in operators.TAKE_BLOCKS):
                self._say(where, f"{name!r} has scales of channels or blocks; the vector unit takes one scale a tensor")
            elif blocked and tensor.block_axis != len(tensor.shape) - 1:
                self._say(where, f"{name!r} has blocks along axis {tensor.block_axis}; {layer.operator} takes the last")

    def _operands(self, layer: Layer) -> None:
        """Operands enter multipliers; scales and blocks run along axes that the array can serve."""
        where = f"layer {layer.name!r}"
        x, w = self.meta.tensors[layer.input], self.meta.tensors[weight_name(layer)]
        second = "other" if isinstance(layer, MatmulMeta) else "weight"
        for role, name in (("input", layer.input), (second, weight_name(layer))):
            if self._is_accumulator(name):
                self._say(
                    where,
                    f"{role} {name!r} holds raw accumulators ({self.meta.tensors[name].format}), which do not "
                    f"enter multipliers; requantize it (set rounding) in the layer before",
                )
        sizes = {blocks.size if (blocks := self.formats[n].blocks) else None for n in (layer.input, weight_name(layer))}
        kinds = {self.formats[name].datapath for name in (layer.input, weight_name(layer))}
        mixed = bool(kinds & FLOATING) and "block_integer" not in kinds and None in sizes  # one scaled, the other not
        if len(sizes) > 1 and not mixed:
            self._say(
                where,
                f"input {layer.input!r} is {x.format}, but {second} {weight_name(layer)!r} is {w.format}; operands "
                f"have blocks of one size both, or none",
            )
        if x.channel_axis is not None:
            self._say(
                where,
                f"input {layer.input!r} has per-channel scales (channel_axis={x.channel_axis}), which cannot "
                f"leave the sum over channels; use one scale",
            )
        channel = channel_axis_of_weight(layer, len(w.shape))
        if w.channel_axis not in (None, channel):
            self._say(
                where,
                f"{second} {weight_name(layer)!r} has scales along axis {w.channel_axis}, but only axis {channel} "
                f"(output channels) can have them",
            )
        for role, tensor, axis in (
            ("input", x, len(x.shape) - 1),
            (second, w, reduction_axis_of_weight(layer, len(w.shape))),
        ):
            if tensor.block_axis not in (None, axis):
                self._say(
                    where,
                    f"{role} has blocks along axis {tensor.block_axis}, but the layer sums over axis {axis}; "
                    f"blocks run along the sum",
                )
        if isinstance(layer, Conv2dMeta) and layer.pad_value and self.formats[layer.input].datapath != "binary":
            self._say(
                where,
                f"pad_value={layer.pad_value} is for binary inputs, which have no 0, but input {layer.input!r} is "
                f"{x.format}; use 0",
            )
        self._ragged_blocks(where, layer, x)

    def _ragged_blocks(self, where: str, layer: Layer, x: TensorMeta) -> None:
        """A block of the input must not straddle what the lowering takes apart (groups) or joins (flattening)."""
        blocks = self.formats[layer.input].blocks
        if blocks is None:
            return
        channels = x.shape[-1]
        if isinstance(layer, Conv2dMeta) and layer.groups > 1 and (channels // layer.groups) % blocks.size:
            self._say(
                where,
                f"{channels // layer.groups} channels a group are not a multiple of the input's block size "
                f"{blocks.size}: blocks would straddle groups; use a block size that divides "
                f"{channels // layer.groups}",
            )
        if isinstance(layer, LinearMeta) and layer.flatten and channels % blocks.size and math.prod(x.shape[1:-1]) > 1:
            self._say(
                where,
                f"flatten joins rows of {channels} channels, not a multiple of the input's block size "
                f"{blocks.size}: the weight's blocks would straddle them; use a block size that divides {channels}",
            )

    def _output(self, layer: Layer) -> None:
        where, tensor = f"layer {layer.name!r}", self.meta.tensors[layer.output]
        number_format, last = self.formats[layer.output], len(tensor.shape) - 1
        raw = self._is_accumulator(layer.output)
        if layer.rounding is None and not raw and layer.activation != "threshold":
            self._say(
                where,
                f"rounding is null, so raw accumulators leave, but output {layer.output!r} is {tensor.format}; "
                f"use int32 (int17..int64), or name a rounding rule",
            )
        if raw and layer.activation == "threshold":
            self._say(where, f"thresholds make the codes of an operand format; output {layer.output!r} is raw")
        operands = [self.formats[layer.input], self.formats[weight_name(layer)]]
        floats = [form.name for form in operands if form.datapath in FLOATING]
        if floats and layer.rounding is None:
            what = "thresholds compare" if layer.activation == "threshold" else "raw accumulators are"
            self._say(
                where,
                f"operands in {floats[0]} are summed in floating point, but {what} integers; set rounding to "
                f"'{FLOAT_RULE}' and name the output's format",
            )
        wants = [*floats, *([tensor.format] if number_format.datapath in FLOATING | {"binary"} else [])]
        if wants and layer.rounding in RULES and layer.rounding != FLOAT_RULE:
            self._say(
                where,
                f"rounding {layer.rounding!r} makes integers of integers, but {wants[0]} needs '{FLOAT_RULE}'",
            )
        if layer.rounding is not None and raw:
            self._say(
                where,
                f"rounding={layer.rounding!r} requantizes, but output {layer.output!r} is {tensor.format}, which "
                f"holds raw accumulators; use an operand format, or rounding null",
            )
        if tensor.channel_axis is not None and (layer.rounding is not None or tensor.channel_axis != last):
            self._say(
                where,
                f"output {layer.output!r} has scales along axis {tensor.channel_axis}; only raw accumulators "
                f"(rounding null) have per-channel scales, along the last axis ({last})",
            )
        if tensor.block_axis not in (None, last):
            self._say(
                where,
                f"output {layer.output!r} has blocks along axis {tensor.block_axis}; the PPU makes them along the "
                f"last axis ({last})",
            )
        if layer.clamp is not None and number_format.blocks is None:
            low, high = number_format.low, number_format.high
            if not low <= layer.clamp.low <= layer.clamp.high <= high:
                self._say(
                    where,
                    f"clamp [{layer.clamp.low}, {layer.clamp.high}] is not a range inside {tensor.format}'s "
                    f"[{low}, {high}]",
                )

    def _rounding(self, layer: Layer) -> None:
        where = f"layer {layer.name!r}"
        if layer.activation == "clamp" and layer.clamp is None:
            self._say(where, "activation 'clamp' needs its bounds (clamp: low, high)")
        if layer.activation != "clamp" and layer.clamp is not None:
            self._say(where, f"clamp is given, but activation is {layer.activation!r}; use 'clamp'")
        if layer.activation == "threshold":
            if layer.rounding is not None:
                self._say(where, f"thresholds make the codes, but rounding is {layer.rounding!r}; use null")
        elif layer.rounding is None:
            if layer.activation != "none":
                self._say(where, f"activation {layer.activation!r} needs a requantized output, but rounding is null")
        elif layer.rounding not in RULES:
            near = self._near(layer.rounding, RULES)
            rules = f"{' Use' if near else '; use'} one of {', '.join(RULES)}"
            self._say(where, f"rounding {layer.rounding!r} is not a rule{near}{rules}")

    # -- arrays

    def _arrays(self) -> None:
        slots = array_slots(self.meta, self.formats, self.producers)
        for name, slot in slots.items():
            if name in self.headers:
                self.problems.extend(f"array {name!r} {problem}" for problem in slot.problems(self.headers[name]))
            elif slot.required:
                self.problems.append(f"array {name!r} is missing: {slot.purpose}")
        for name in sorted(self.headers.keys() - slots.keys() - {META}):
            self.problems.append(f"array {name!r} is unknown{self._near(name, slots)}")
        for layer in self.meta.layers:
            if not isinstance(layer, VectorMeta):
                self._factors(layer)
            self._expected(layer)

    def _expected(self, layer: Layer | VectorMeta) -> None:
        number_format = self.formats.get(layer.output)
        if number_format is None or number_format.blocks is None:
            return
        names = [tensor_array(layer.output, "expected"), tensor_array(layer.output, "expected_block_scales")]
        missing = [name for name in names if name not in self.headers]
        if len(missing) == 1:
            self.problems.append(f"array {missing[0]!r} is missing: expected codes and block scales go together")

    def _factors(self, layer: Layer) -> None:
        """A requantized layer has a scale, or multiplier and shift where its rule multiplies integers."""
        rule = RULES.get(layer.rounding or "")
        if rule is None:
            return
        scale = layer_array(layer.name, "scale") in self.headers
        multiplier = layer_array(layer.name, "multiplier") in self.headers
        shift = layer_array(layer.name, "shift") in self.headers
        where = f"layer {layer.name!r}"
        if multiplier != shift:
            self._say(where, f"multiplier and shift go together; {'shift' if multiplier else 'multiplier'} is missing")
        elif multiplier and scale:
            self._say(where, "has a scale as well as multiplier and shift; store one of the two")
        elif not multiplier and not scale:
            also = f", or layers/{layer.name}/multiplier and shift" if rule.multiplier == "integer" else ""
            self._say(where, f"rounding {rule.name!r} needs requantization factors: layers/{layer.name}/scale{also}")
        if multiplier and rule.multiplier != "integer":
            self._say(
                where,
                f"rounding {rule.name!r} multiplies by a {rule.multiplier}; store scale, not multiplier and shift",
            )
