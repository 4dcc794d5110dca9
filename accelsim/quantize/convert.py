"""Post-training quantization: a float network becomes a trace in the number formats that one asks for.

A layer's operands have the formats of that layer; its output has the format that the next layer takes. Scales are
static: those of weights follow from the weights, those of activations from the calibration inputs. An activation that
is wanted in several formats leaves its layer in one, and is converted (accelsim.quantize.flow).
"""

from __future__ import annotations

from collections.abc import Mapping

from accelsim.errors import NetworkError
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.presets import Pair, use_one_of
from accelsim.quantize.requantizer import Requantizer
from accelsim.trace.builder import TraceBuilder
from accelsim.trace.reader import Trace


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
    ranges: str = "minmax",
    vector: str | None = None,
    overrides: Mapping[str, Pair] | None = None,
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
        others follow them, for a PPU has one rule, else "half_up"
    ranges : how scales are chosen from what is seen: "minmax", "mse", "percentile" or "percentile:P" (docs/quantize.md)
    vector : integers that operators of the vector unit take; None: int8 where all layers take integers of at most 8
        bits, else int16
    overrides : {layer: (weights, activations)}, before `first` and `last`
    name : of the trace; None: made of the network's name and the formats

    The trace holds the inputs, quantized weights, biases, and each layer's float output as the reference. The same
    network and formats give the same trace on every machine.

    Raises NetworkError (an unknown layer, an activation that a format cannot hold), FormatError (an unknown format) or
    TraceError (formats that do not go together), all AccelsimError, and name the layer where there is one.
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
        ranges=ranges,
        vector=vector,
        overrides=overrides,
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
    ranges: str = "minmax",
    vector: str | None = None,
    overrides: Mapping[str, Pair] | None = None,
    name: str | None = None,
) -> TraceBuilder:
    """As :func:`quantize_network`, but return the builder, to save the trace: ``trace_builder(...).save(path)``."""
    pairs = _pairs(network, (weights, activations), first, last, overrides or {})
    requantizer = Requantizer(network, ranges=ranges, per_channel=per_channel)
    named = name if name is not None else f"{network.name} {weights} {activations}"
    return requantizer.builder(pairs, output=output, vector=vector, rounding=rounding, name=named)


def _pairs(
    network: FloatNetwork, usual: Pair, first: Pair | None, last: Pair | None, overrides: Mapping[str, Pair]
) -> dict[str, Pair]:
    """Return each layer's (weights, activations)."""
    names = [layer.name for layer in network.array_layers]
    if not names:
        raise NetworkError(f"float network {network.name!r}: no layer multiplies, so there is nothing to quantize")
    for name in overrides:
        if name not in names:
            raise NetworkError(f"overrides: {name!r} is not a layer of {network.name!r}{use_one_of(name, names)}")
    pairs = dict.fromkeys(names, usual)
    pairs[names[-1]] = last or usual
    pairs[names[0]] = first or pairs[names[0]]
    return pairs | dict(overrides)
