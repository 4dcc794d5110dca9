"""Post-training quantization: a float network becomes a trace in the number formats that one asks for.

A layer's operands have the formats of that layer; its output has the format that the next layer takes. Scales are
static: those of weights follow from the weights, those of activations from the calibration inputs' largest values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.errors import FormatError, NetworkError, ShapeError
from accelsim.formats import Format, QTensor
from accelsim.formats.spec import FLOATING
from accelsim.quantize.choice import can_have_channel_scales, fitting, is_cast
from accelsim.quantize.evaluate import Float64, evaluate
from accelsim.quantize.layers import INPUT, Conv2d, Linear, Matmul
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.presets import Pair, use_one_of
from accelsim.rounding import RULES
from accelsim.trace.builder import TraceBuilder
from accelsim.trace.reader import Trace

FLOAT_RULE = "float32_half_even"
INTEGER_RULE = "half_up"
_RELU = ("relu", "relu6")


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
    overrides: Mapping[str, Pair] | None = None,
    name: str | None = None,
) -> TraceBuilder:
    """As :func:`quantize_network`, but return the builder, to save the trace: ``trace_builder(...).save(path)``."""
    if rounding is not None and rounding not in RULES:
        raise NetworkError(f"rounding {rounding!r} is not a rule{use_one_of(rounding, RULES)}")
    pairs = _pairs(network, (weights, activations), first, last, overrides or {})
    calibration = evaluate(network, network.calibration)
    reference = calibration if network.calibration is network.inputs else evaluate(network, network.inputs)
    builder = TraceBuilder(name if name is not None else f"{network.name} {weights} {activations}", network.description)
    encodings = {
        tensor: _calibrate(network, tensor, _format_of(network, tensor, pairs, output), pairs, calibration, reference)
        for tensor in calibration
    }
    needs_floats = {layer.name: _needs_float_rule(network, layer, pairs, encodings) for layer in network.layers}
    integer_rule = rounding or (FLOAT_RULE if any(needs_floats.values()) else INTEGER_RULE)
    handles = {INPUT: builder.input(INPUT, encodings[INPUT].encode(reference[INPUT]))}
    for layer in network.layers:
        weight = (
            None if layer.weight is None else _quantize_weight(layer, formats.get(pairs[layer.name][0]), per_channel)
        )
        rule = FLOAT_RULE if needs_floats[layer.name] else integer_rule
        handles[layer.name] = _add(
            builder, network, layer, weight, handles, encodings[layer.name], reference[layer.name], rule
        )
    if network.labels is not None:
        builder.labels(network.labels)
    return builder


@dataclass(frozen=True)
class _Encoding:
    """How an activation is encoded: its format, coarse scale and zero point."""

    format: Format
    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]

    def encode(self, values: Float64) -> QTensor:
        return self.format.quantize(values, scale=self.scale, zero_point=self.zero_point)


def _pairs(
    network: FloatNetwork, usual: Pair, first: Pair | None, last: Pair | None, overrides: Mapping[str, Pair]
) -> dict[str, Pair]:
    """Return each layer's (weights, activations)."""
    names = [layer.name for layer in network.layers]
    for name in overrides:
        if name not in names:
            raise NetworkError(f"overrides: {name!r} is not a layer of {network.name!r}{use_one_of(name, names)}")
    pairs = dict.fromkeys(names, usual)
    pairs[names[-1]] = last or usual
    pairs[names[0]] = first or pairs[names[0]]
    return pairs | dict(overrides)


def _format_of(network: FloatNetwork, tensor: str, pairs: Mapping[str, Pair], output: str) -> Format:
    """Return the format that an activation has for those who take it; of the network's outputs: `output`."""
    wanted = {layer.name: pairs[layer.name][1] for layer in network.consumers(tensor)}
    if len({formats.get(name) for name in wanted.values()}) > 1:
        said = ", ".join(f"{layer!r} takes {name}" for layer, name in wanted.items())
        raise NetworkError(
            f"float network {network.name!r}: {tensor!r} is taken in several formats ({said}), but an activation has "
            f"one; give these layers the same format of activations"
        )
    return formats.get(next(iter(wanted.values()), output))


def _calibrate(
    network: FloatNetwork,
    tensor: str,
    chosen: Format,
    pairs: Mapping[str, Pair],
    calibration: Mapping[str, Float64],
    reference: Mapping[str, Float64],
) -> _Encoding:
    """Choose the scale of an activation from its values on the calibration inputs."""
    what = f"activation {tensor!r}"
    activation = next((layer.meta.activation for layer in network.layers if layer.name == tensor), "none")
    values = calibration[tensor]
    binary = chosen.datapath == "binary"
    if chosen.datapath == "codebook":
        raise NetworkError(
            f"{what}: {chosen.name} is a table of weights; activations take another format, such as int8"
        )
    if activation == "sign" and not binary:
        raise NetworkError(f"{what}: is a sign, +1 or -1, but the next layer takes {chosen.name}; use binary for it")
    if binary and activation in _RELU:
        raise NetworkError(
            f"{what}: leaves {activation}, so that its signs are all +1 and binary would keep nothing of it; train the "
            f"network with activation 'sign', or use another format"
        )
    of_input = tensor == INPUT and bool(values.min() >= 0 and reference[INPUT].min() >= 0)
    non_negative = of_input or activation in _RELU
    # The zero points of two activations would cost a product more, and sums of floats cannot be corrected for one.
    shifted = not any(
        isinstance(layer.meta, Matmul) or formats.get(pairs[layer.name][0]).datapath in FLOATING
        for layer in network.consumers(tensor)
    )
    form = fitting(chosen, non_negative=non_negative, zero_points=shifted)
    with _naming(what):
        if is_cast(form):
            found = form.quantize(values, scale=1.0)
        else:
            found = form.quantize(values, asymmetric=shifted and form.zero_points != (0, 0))
    return _Encoding(form, found.scale, found.zero_point)


def _quantize_weight(layer: FloatLayer, form: Format, per_channel: bool) -> QTensor:
    assert layer.weight is not None
    channel = 0 if per_channel and can_have_channel_scales(form) else None
    with _naming(f"layer {layer.name!r}: weights"):
        tensor = form.quantize(layer.weight, channel_axis=channel, scale=1.0 if is_cast(form) else None)
    return tensor if channel is None or is_cast(form) else _with_scales_of_dead_channels(tensor, layer.weight)


def _with_scales_of_dead_channels(tensor: QTensor, weight: NDArray[np.floating[Any]]) -> QTensor:
    """Give channels of zeros the smallest scale of the living ones: any scale means zero, but the bias is counted in
    units of it, and with a scale of 1 it would be rounded away.
    """
    alive = weight.reshape(len(weight), -1).any(axis=1)
    if tensor.scale.ndim == 0 or alive.all() or not alive.any():
        return tensor
    return replace(tensor, scale=np.where(alive, tensor.scale, tensor.scale[alive].min()))


def _needs_float_rule(
    network: FloatNetwork, layer: FloatLayer, pairs: Mapping[str, Pair], encodings: Mapping[str, _Encoding]
) -> bool:
    """Return whether the PPU has to compute a layer's outputs in floating point."""
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
    encoding: _Encoding,
    reference: Float64,
    rule: str,
) -> str:
    """Add a layer to the trace; return the name of its output."""
    meta, sources = layer.meta, network.sources(layer)
    common = {
        "bias": layer.bias,
        "output": encoding.format,
        "scale": float(encoding.scale),
        "zero_point": int(encoding.zero_point),
        "rounding": rule,
        "activation": "none" if meta.activation == "sign" else meta.activation,  # the binary format takes the sign
        "reference": _stored(reference, last=not network.consumers(layer.name)),
    }
    first = handles[sources[0]]
    if isinstance(meta, Matmul):
        return builder.matmul(layer.name, first, handles[sources[1]], transpose_other=meta.transpose_other, **common)  # type: ignore[arg-type]
    assert weight is not None
    if isinstance(meta, Linear):
        return builder.linear(layer.name, first, weight, flatten=meta.flatten, **common)  # type: ignore[arg-type]
    assert isinstance(meta, Conv2d)
    return builder.conv2d(
        layer.name,
        first,
        weight,
        stride=meta.stride,
        padding=meta.padding,
        dilation=meta.dilation,
        groups=meta.groups,
        pad_value=meta.pad_value,
        **common,  # type: ignore[arg-type]
    )


def _stored(reference: Float64, *, last: bool) -> NDArray[np.float32] | NDArray[np.float16] | Float64:
    """Return a reference in few bits: float32 for the network's outputs, where ties would change classes; float16 in
    between, if its range suffices.
    """
    largest = float(np.abs(reference).max())
    if not last and largest <= float(np.finfo(np.float16).max):
        return reference.astype(np.float16)
    return reference.astype(np.float32) if largest <= float(np.finfo(np.float32).max) else reference


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Put what is quantized before the message of an error."""
    try:
        yield
    except (FormatError, ShapeError) as error:
        raise NetworkError(f"{what}: {error}") from None
