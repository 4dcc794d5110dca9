"""Many assignments of formats to one float network: calibrated once, quantized as often as one likes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.errors import NetworkError
from accelsim.formats import Format, QTensor
from accelsim.formats.spec import FLOATING
from accelsim.quantize.choice import can_have_channel_scales, check_pair, is_cast
from accelsim.quantize.encodings import check_values, naming
from accelsim.quantize.evaluate import Float64, evaluate
from accelsim.quantize.flow import MOVES, Flow, find_flow, operator_of, signless, vector_format
from accelsim.quantize.layers import INPUT, Conv2d, Linear, Matmul
from accelsim.quantize.network import FloatLayer, FloatNetwork, Floats
from accelsim.quantize.presets import Pair, use_one_of
from accelsim.quantize.ranges import (
    RangeRule,
    Seen,
    activation_scale,
    weight_of,
    with_living_scales,
    without_dead_channels,
)
from accelsim.rounding import RULES
from accelsim.trace.builder import TraceBuilder
from accelsim.trace.reader import Trace

FLOAT_RULE = "float32_half_even"
INTEGER_RULE = "half_up"
_BYTES_AT_ONCE = 1 << 28  # of all activations of the inputs that are evaluated together


@dataclass(frozen=True)
class Encoding:
    """How an activation is encoded: its format, coarse scale and zero point."""

    format: Format
    scale: float
    zero_point: int

    def encode(self, values: Floats) -> QTensor:
        """Return values in this encoding."""
        zero_point = self.zero_point if self.format.zero_points != (0, 0) else None
        return self.format.quantize(values, scale=self.scale, zero_point=zero_point)

    @property
    def meaning(self) -> dict[str, Any]:
        """The builder's words for it."""
        return {"output": self.format, "scale": self.scale, "zero_point": self.zero_point}


class Requantizer:
    """A float network with its calibration, which gives a trace for each assignment of number formats::

        requantizer = Requantizer(network, ranges="mse")
        trace = requantizer.trace({"conv1": ("int8", "int8"), "conv2": ("mx6", "mx6"), "fc": ("int4", "int8")})

    network : the layers, inputs, calibration inputs and labels
    ranges : how scales are chosen: "minmax", "mse", "percentile" or "percentile:P" (docs/quantize.md)
    per_channel : weights take one coarse scale per output channel, where their format allows one chosen from data (not:
        codebooks, MX, NVFP4); False: one a tensor
    references : store each layer's float output in the traces, for the SQNR; False: those of the outputs only

    The float network is evaluated once, here. Weights, scales and encoded inputs are kept for further assignments.

    >>> from accelsim import load_config, simulate
    >>> from accelsim.quantize.network_file import load_network
    >>> requantizer = Requantizer(load_network("traces/digits_cnn_float.npz").head(40))
    >>> sqnr = {}
    >>> for pair in (("int8", "int8"), ("int4", "int8"), ("int4", "int4")):
    ...     trace = requantizer.trace(dict.fromkeys(("conv1", "conv2", "fc1", "fc2"), pair))
    ...     sqnr[pair] = simulate(load_config("configs/bitfusion.yaml"), trace).network.sqnr_db
    >>> sqnr["int8", "int8"] > sqnr["int4", "int8"] + 6 > sqnr["int4", "int4"] + 6
    True
    """

    def __init__(
        self, network: FloatNetwork, *, ranges: str = "mse", per_channel: bool = True, references: bool = True
    ) -> None:
        self.network = network
        self._rule, self._per_channel = RangeRule.parse(ranges), per_channel
        self._seen: dict[str, Seen] = {}
        self._references: dict[str, NDArray[Any]] = {}
        self._weights: dict[tuple[str, str], QTensor] = {}
        self._chosen: dict[tuple[str, str, bool], Encoding] = {}
        self._inputs: dict[Encoding, QTensor] = {}
        self._outputs = [layer.name for layer in network.layers if not network.consumers(layer.name)]
        self._kept = {layer.name for layer in network.layers} if references else set(self._outputs)
        shared = network.calibration is network.inputs
        self._walk(network.inputs, calibrate=shared, keep=True)
        if not shared:
            self._walk(network.calibration, calibrate=True, keep=False)
        low = min(self._seen[INPUT].low, float(network.inputs.min()))
        self._signless = signless(network, {INPUT: low})

    def trace(self, assignment: Mapping[str, Pair], **options: Any) -> Trace:
        """Return the trace of an assignment, in memory; arguments as of :meth:`builder`."""
        return self.builder(assignment, **options).build()

    def builder(
        self,
        assignment: Mapping[str, Pair],
        *,
        output: str = "int8",
        vector: str | None = None,
        rounding: str | None = None,
        name: str | None = None,
        description: str | None = None,
    ) -> TraceBuilder:
        """Return the builder of a trace, which can save it too.

        assignment : (weights, activations) of every layer that multiplies, names of the catalog. An activation takes
            its format's twin where that suits its sign better: int8 and uint8, vsq4 and uvsq4
        output : format of the network's outputs
        vector : integers that operators of the vector unit take; None: int8 where all layers take integers of at most 8
            bits, else int16
        rounding : requantization rule of the layers that compute integers from integers; None: "float32_half_even"
            where a layer needs it (one PPU has one rule), else "half_up"

        Raises NetworkError (an unknown or missing layer, an activation that a format cannot hold), FormatError (an
        unknown format) or TraceError (formats that do not go together), and names the layer where there is one.
        """
        network = self.network
        for layer in network.layers:
            operator_of(layer)
        _check_assignment(network, assignment)
        if rounding is not None and rounding not in RULES:
            raise NetworkError(f"rounding {rounding!r} is not a rule{use_one_of(rounding, RULES)}")
        integers = formats.get(vector or vector_format(assignment))
        if integers.datapath != "integer" or integers.blocks is not None or not integers.low < 0:
            raise NetworkError(f"vector={vector!r}: operators of the vector unit take signed integers, int8 or int16")
        flow = find_flow(network, assignment, formats.get(output), integers, self._signless)
        written = self._encodings(flow)
        floating = {layer.name: _needs_float_rule(network, layer, assignment, flow) for layer in network.array_layers}
        rule = rounding or (FLOAT_RULE if any(floating.values()) else INTEGER_RULE)
        text = network.description if description is None else description
        builder = TraceBuilder(name or network.name, text)
        made = _Made(builder, network, flow, written)
        made.names[INPUT] = builder.input(INPUT, self._encoded_input(written[INPUT]))
        for layer in network.layers:
            common = {**written[layer.name].meaning, "reference": self._references.get(layer.name)}
            sources = [self._source(made, layer, position) for position in range(len(network.sources(layer)))]
            if layer.is_vector:
                operator, attributes = operator_of(layer, len(network.inputs))
                made.names[layer.name] = builder.vector(layer.name, operator, sources, attributes=attributes, **common)
                continue
            weight = None if layer.weight is None else self._weight(layer, assignment[layer.name][0])
            common["rounding"] = FLOAT_RULE if floating[layer.name] else rule
            made.names[layer.name] = multiply(builder, layer, sources, weight, common)
        if network.labels is not None:
            builder.labels(network.labels)
        return builder

    def _walk(self, inputs: Floats, *, calibrate: bool, keep: bool) -> None:
        """Evaluate the network on some inputs at a time."""
        network = self.network
        batch = len(network.inputs)
        sizes = {name: int(np.prod(shape)) // batch for name, shape in network.shapes.items()}
        if calibrate:
            widths = {name: shape[-1] for name, shape in network.shapes.items()}
            self._seen = {name: Seen(len(inputs) * sizes[name] // widths[name], widths[name]) for name in sizes}
        step = max(1, _BYTES_AT_ONCE // (8 * sum(sizes.values())))
        pieces: dict[str, list[Float64]] = {name: [] for name in self._kept}
        for start in range(0, len(inputs), step):
            for name, values in evaluate(network, inputs[start : start + step]).items():
                if calibrate:
                    self._seen[name].add(values)
                if keep and name in pieces:
                    last = name in self._outputs
                    pieces[name].append(values if last else stored(values, last=False))
        if keep:
            joined = {name: np.concatenate(parts) for name, parts in pieces.items()}
            self._references = {name: stored(whole, last=name in self._outputs) for name, whole in joined.items()}

    def _encodings(self, flow: Flow) -> dict[str, Encoding]:
        """Return how each activation leaves its layer; a move's output means what its input does."""
        written = {INPUT: self._encoding(flow, INPUT, flow.written[INPUT])}
        for layer in self.network.layers:
            if operator_of(layer)[0] in MOVES:
                source, taken = self.network.sources(layer)[0], flow.taken[layer.name, 0]
                same = written[source].format.name == taken.name
                written[layer.name] = written[source] if same else self._encoding(flow, source, taken)
            else:
                root = self._joined(layer.name)
                written[layer.name] = self._encoding(flow, root, flow.written[root])
        return written

    def _joined(self, tensor: str) -> str:
        """Return the concatenation that a tensor is for alone, or the tensor: its layer can write what that needs."""
        consumers = self.network.consumers(tensor)
        if len(consumers) == 1 and operator_of(consumers[0])[0] == "concat":
            return self._joined(consumers[0].name)
        return tensor

    def _encoding(self, flow: Flow, tensor: str, form: Format) -> Encoding:
        shifted = flow.shifted[tensor, form.name]
        key = tensor, form.name, shifted
        if key not in self._chosen:
            what = f"activation {tensor!r}"
            maker = next((layer for layer in self.network.layers if layer.name == tensor), None)
            check_values(what, form, "none" if maker is None else maker.activation)
            with naming(what):
                found = activation_scale(form, self._seen[tensor], self._rule, asymmetric=shifted)
            self._chosen[key] = Encoding(form, float(found.scale), int(found.zero_point))
        return self._chosen[key]

    def _encoded_input(self, encoding: Encoding) -> QTensor:
        if encoding not in self._inputs:
            with naming(f"activation {INPUT!r}"):
                self._inputs[encoding] = encoding.encode(self.network.inputs.astype(np.float64))
        return self._inputs[encoding]

    def _weight(self, layer: FloatLayer, format_name: str) -> QTensor:
        key = layer.name, format_name
        if key not in self._weights:
            assert layer.weight is not None
            form, weight = formats.get(format_name), layer.weight.astype(np.float64)
            channel = 0 if self._per_channel and can_have_channel_scales(form) else None
            with naming(f"layer {layer.name!r}: weights"):
                if channel is None or is_cast(form):
                    self._weights[key] = weight_of(form, weight, channel, self._rule)
                else:
                    weight = without_dead_channels(form, weight)
                    self._weights[key] = with_living_scales(weight_of(form, weight, channel, self._rule), weight)
        return self._weights[key]

    def _source(self, made: _Made, layer: FloatLayer, position: int) -> str:
        """Return the tensor that a layer takes at a position, converted where it left its layer in another encoding."""
        tensor = made.network.sources(layer)[position]
        written, wanted = made.written[tensor], made.flow.taken[layer.name, position]
        if operator_of(layer)[0] == "concat":
            encoding = made.written[layer.name]  # codes only move, so all of them mean the same
        elif wanted.name == written.format.name:
            encoding = written
        else:
            encoding = self._encoding(made.flow, tensor, wanted)
        return made.names[tensor] if encoding == written else made.converted(tensor, encoding)


@dataclass
class _Made:
    """A trace under construction: which tensor of the network is which of the trace, and what was converted."""

    builder: TraceBuilder
    network: FloatNetwork
    flow: Flow
    written: dict[str, Encoding]

    def __post_init__(self) -> None:
        self.names: dict[str, str] = {}
        self._conversions: dict[tuple[str, Encoding], str] = {}

    def converted(self, tensor: str, encoding: Encoding) -> str:
        """Return the tensor in another encoding, which a layer of its own makes once."""
        key = tensor, encoding
        if key not in self._conversions:
            plain = all(
                form.datapath == "integer" and form.blocks is None
                for form in (self.written[tensor].format, encoding.format)
            )
            taken = {layer.name for layer in self.network.layers} | set(self._conversions.values())
            name = f"{tensor}.to_{encoding.format.name}"
            while name in taken or f"{name}.out" in taken:
                name += "_"
            operator = "requantize" if plain else "convert"
            self._conversions[key] = self.builder.vector(name, operator, [self.names[tensor]], **encoding.meaning)
        return self._conversions[key]


def requantized(network: FloatNetwork, assignment: Mapping[str, Pair], *, ranges: str = "mse", **options: Any) -> Trace:
    """Return a float network in the formats of an assignment, in memory; see :class:`Requantizer` for many of them."""
    return Requantizer(network, ranges=ranges).trace(assignment, **options)


def _check_assignment(network: FloatNetwork, assignment: Mapping[str, Pair]) -> None:
    names = [layer.name for layer in network.array_layers]
    for name, pair in assignment.items():
        if name not in names:
            raise NetworkError(
                f"assignment: {name!r} is not a layer of {network.name!r} that multiplies{use_one_of(name, names)}"
            )
        if len(pair) != 2 or isinstance(pair, str):
            raise NetworkError(f"assignment: {name!r} has {pair!r}; give (weights, activations), names of formats")
    for layer in network.array_layers:
        if layer.weight is not None and layer.name in assignment:
            check_pair(layer.name, *(formats.get(name) for name in assignment[layer.name]))
    missing = [name for name in names if name not in assignment]
    if missing:
        raise NetworkError(f"assignment: no formats for {', '.join(missing)}")


def _needs_float_rule(network: FloatNetwork, layer: FloatLayer, pairs: Mapping[str, Pair], flow: Flow) -> bool:
    """Return whether the PPU has to compute a layer's outputs in floating point."""
    forms = [flow.taken[layer.name, position] for position in range(len(network.sources(layer)))]
    forms.append(flow.written[layer.name])
    if layer.weight is not None:
        forms.append(formats.get(pairs[layer.name][0]))
    # Signs, and levels that are not evenly spaced, are chosen in floating point.
    return any(form.datapath in FLOATING for form in forms) or flow.written[layer.name].datapath in ("binary", "shift")


def multiply(
    builder: TraceBuilder, layer: FloatLayer, sources: list[str], weight: QTensor | None, common: dict[str, Any]
) -> str:
    """Add a layer of the array to the trace; return the name of its output."""
    meta = layer.meta
    activation = "none" if layer.activation == "sign" else layer.activation  # the binary format takes the sign
    common = {**common, "bias": layer.bias, "activation": activation}
    if isinstance(meta, Matmul):
        return builder.matmul(layer.name, *sources, transpose_other=meta.transpose_other, **common)
    assert weight is not None
    if isinstance(meta, Linear):
        return builder.linear(layer.name, sources[0], weight, flatten=meta.flatten, **common)
    assert isinstance(meta, Conv2d)
    return builder.conv2d(
        layer.name,
        sources[0],
        weight,
        stride=meta.stride,
        padding=meta.padding,
        dilation=meta.dilation,
        groups=meta.groups,
        pad_value=meta.pad_value,
        **common,
    )


def stored(reference: Float64, *, last: bool) -> NDArray[Any]:
    """Return a reference in few bits: float32 for the network's outputs, where ties would change classes; float16 in
    between, if its range suffices.
    """
    largest = float(np.abs(reference).max())
    if not last and largest <= float(np.finfo(np.float16).max):
        return reference.astype(np.float16)
    return reference.astype(np.float32) if largest <= float(np.finfo(np.float32).max) else reference
