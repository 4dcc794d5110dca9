"""Post-training quantization: a float network becomes a trace in the number formats that one asks for.

A layer's operands have the formats of that layer; its output has the format that the next layer takes. Scales are
static: those of weights follow from the weights, those of activations from the calibration inputs' largest values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.errors import NetworkError
from accelsim.formats import Format, QTensor
from accelsim.formats.spec import FLOATING
from accelsim.quantize.choice import can_have_channel_scales, check_pair, is_cast
from accelsim.quantize.convert_vector import add_vector_layer
from accelsim.quantize.encodings import Choices, Encoding, choose_encodings, naming
from accelsim.quantize.evaluate import evaluate
from accelsim.quantize.layers import INPUT
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.presets import Pair, use_one_of
from accelsim.quantize.ranges import with_living_scales, without_dead_channels
from accelsim.quantize.requantizer import FLOAT_RULE, INTEGER_RULE, Requantizer, multiply, stored
from accelsim.quantize.vector_layers import Vector
from accelsim.quantize.vector_rules import VectorRules, get_rules
from accelsim.rounding import RULES
from accelsim.trace.builder import TraceBuilder
from accelsim.trace.reader import Trace

References = Literal["all", "outputs"]


def quantize_network(
    network: FloatNetwork,
    *,
    weights: str,
    activations: str,
    first: Pair | None = None,
    last: Pair | None = None,
    output: str = "int8",
    per_channel: bool = True,
    rounding: str | None = None,
    overrides: Mapping[str, Pair] | None = None,
    rules: str | VectorRules = "ibert",
    ranges: str = "minmax",
    references: References = "all",
    name: str | None = None,
) -> Trace:
    """Quantize a float network without training, and return the trace, in memory (:func:`trace_builder` saves it).

    weights, activations : formats of the layers' operands, names of the catalog. Where an activation has a sign that
        its format lacks, or lacks the sign that its format spends a bit on (after ReLU), it takes the format's twin:
        int8 and uint8, vsq4 and uvsq4. Integers with zero points span the calibrated minimum and maximum; all other
        scales come from the largest magnitude (binary, ternary: as these formats define; 16-bit floats: scale 1)
    first, last : (weights, activations) of the first and the last layer, instead of the above
    output : format of the network's outputs
    per_channel : weights take one coarse scale per output channel, where their format allows one chosen from data (not:
        codebooks, MX, NVFP4); False: one a tensor
    rounding : requantization rule of the layers that compute integers from integers. Layers with float operands, and
        those with float or binary outputs, always have "float32_half_even"; None: where there are such layers the
        others follow them, for a PPU has one rule; else that of `rules` where there are vector layers, or "half_up"
    overrides : {layer: (weights, activations)}, before `first` and `last`
    ranges : how scales are chosen from what is seen: "minmax"; "mse", "percentile" or "percentile:P", of networks
        without softmax, layer norms and functions (docs/quantize.md, Ranges)
    rules : whose algorithms the layers of the vector unit follow: "ibert", "tflite", or VectorRules
    references : "all": each layer's float output; "outputs": the network's only, for a smaller trace
    name : of the trace; None: made of the network's name and the formats

    The trace holds the inputs, quantized weights, biases, and each layer's float output as the reference. The same
    network and formats give the same trace on every machine.

    Raises NetworkError (an unknown layer, an activation that a format cannot hold), FormatError (an unknown format) or
    TraceError (formats that do not go together), all AccelsimError, and name the layer where there is one.

    >>> from accelsim.quantize.network_file import load_network
    >>> network = load_network("traces/digits_cnn_float.npz")
    >>> trace = quantize_network(network.head(4), weights="int4", activations="int8", first=("int8", "int8"))
    >>> [(row["weight_format"], row["input_format"]) for row in trace.describe()]  # after ReLU there is no sign
    [('int8', 'int8'), ('int4', 'uint8'), ('int4', 'uint8'), ('int4', 'uint8')]
    """
    return trace_builder(
        network,
        weights=weights,
        activations=activations,
        first=first,
        last=last,
        output=output,
        per_channel=per_channel,
        rounding=rounding,
        overrides=overrides,
        rules=rules,
        ranges=ranges,
        references=references,
        name=name,
    ).build()


def trace_builder(
    network: FloatNetwork,
    *,
    weights: str,
    activations: str,
    first: Pair | None = None,
    last: Pair | None = None,
    output: str = "int8",
    per_channel: bool = True,
    rounding: str | None = None,
    overrides: Mapping[str, Pair] | None = None,
    rules: str | VectorRules = "ibert",
    ranges: str = "minmax",
    references: References = "all",
    name: str | None = None,
) -> TraceBuilder:
    """As :func:`quantize_network`, but return the builder, to save the trace: ``trace_builder(...).save(path)``."""
    if rounding is not None and rounding not in RULES:
        raise NetworkError(f"rounding {rounding!r} is not a rule{use_one_of(rounding, RULES)}")
    pairs = _pairs(network, (weights, activations), first, last, overrides or {})
    if ranges != "minmax" or any(isinstance(layer.meta, Vector) for layer in network.layers):
        kept = references == "all"
        requantizer = Requantizer(network, ranges=ranges, per_channel=per_channel, references=kept)
        named = name if name is not None else f"{network.name} {weights} {activations}"
        return requantizer.builder(pairs, output=output, rounding=rounding, name=named)
    calibration = evaluate(network, network.calibration)
    reference = calibration if network.calibration is network.inputs else evaluate(network, network.inputs)
    builder = TraceBuilder(name if name is not None else f"{network.name} {weights} {activations}", network.description)
    chosen = get_rules(rules)
    encodings = choose_encodings(Choices(network, pairs, output, chosen, calibration, reference))
    needs_floats = {layer.name: _needs_float_rule(network, layer, pairs, encodings) for layer in network.layers}
    usual = chosen.rounding if any(layer.is_vector for layer in network.layers) else INTEGER_RULE
    integer_rule = rounding or (FLOAT_RULE if any(needs_floats.values()) else usual)
    handles = {INPUT: builder.input(INPUT, encodings[INPUT].encode(reference[INPUT]))}
    for layer in network.layers:
        kept = references == "all" or not network.consumers(layer.name)
        kept_values = stored(reference[layer.name], last=not network.consumers(layer.name)) if kept else None
        encoding = encodings[layer.name]
        if layer.is_vector:
            handles[layer.name] = add_vector_layer(
                builder, network, layer, handles, encodings, chosen, calibration, kept_values
            )
            continue
        weight = (
            None if layer.weight is None else _quantize_weight(layer, formats.get(pairs[layer.name][0]), per_channel)
        )
        rule = FLOAT_RULE if needs_floats[layer.name] else integer_rule
        handles[layer.name] = _add(builder, network, layer, weight, handles, encoding, kept_values, rule)
    if network.labels is not None:
        builder.labels(network.labels)
    return builder


def _pairs(
    network: FloatNetwork, usual: Pair, first: Pair | None, last: Pair | None, overrides: Mapping[str, Pair]
) -> dict[str, Pair]:
    """Return each layer's (weights, activations)."""
    names = [layer.name for layer in network.layers if not layer.is_vector]
    if not names:
        raise NetworkError(
            f"float network {network.name!r} has no layer with multiply-accumulates; there is nothing to do"
        )
    for name in overrides:
        if any(layer.name == name and layer.is_vector for layer in network.layers):
            raise NetworkError(f"overrides: {name!r} is computed by the vector unit, in formats that its rules choose")
        if name not in names:
            raise NetworkError(f"overrides: {name!r} is not a layer of {network.name!r}{use_one_of(name, names)}")
    pairs = dict.fromkeys(names, usual)
    pairs[names[-1]] = last or usual
    pairs[names[0]] = first or pairs[names[0]]
    pairs |= overrides
    for layer in network.layers:
        if layer.name in pairs and layer.weight is not None:
            check_pair(layer.name, *(formats.get(name) for name in pairs[layer.name]))
    return pairs


def _quantize_weight(layer: FloatLayer, form: Format, per_channel: bool) -> QTensor:
    assert layer.weight is not None
    channel = 0 if per_channel and can_have_channel_scales(form) else None
    with naming(f"layer {layer.name!r}: weights"):
        if channel is None or is_cast(form):
            return form.quantize(layer.weight, channel_axis=channel, scale=1.0 if is_cast(form) else None)
        weight = without_dead_channels(form, layer.weight.astype(np.float64))
        return with_living_scales(form.quantize(weight, channel_axis=channel), weight)


def _needs_float_rule(
    network: FloatNetwork, layer: FloatLayer, pairs: Mapping[str, Pair], encodings: Mapping[str, Encoding]
) -> bool:
    """Return whether the PPU has to compute a layer's outputs in floating point."""
    if layer.is_vector:
        return False
    forms = [encodings[name].format for name in (*network.sources(layer), layer.name)]
    if layer.weight is not None:
        forms.append(formats.get(pairs[layer.name][0]))
    # Signs, and levels that are not evenly spaced, are chosen in floating point.
    return any(form.datapath in FLOATING for form in forms) or encodings[layer.name].format.datapath in (
        "binary",
        "shift",
    )


def _add(
    builder: TraceBuilder,
    network: FloatNetwork,
    layer: FloatLayer,
    weight: QTensor | None,
    handles: Mapping[str, str],
    encoding: Encoding,
    reference: NDArray[np.floating[Any]] | None,
    rule: str,
) -> str:
    """Add a layer to the trace; return the name of its output."""
    sources = network.sources(layer)
    common = {
        "output": encoding.format,
        "scale": None if encoding.raw else float(encoding.scale),
        "zero_point": int(encoding.zero_point),
        "rounding": None if encoding.raw else rule,
        "reference": reference,
    }
    return multiply(builder, layer, [handles[name] for name in sources], weight, common)
