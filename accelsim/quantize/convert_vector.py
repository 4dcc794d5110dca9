"""A layer of the vector unit in a trace: its operator, attributes and constants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.errors import AccelsimError, NetworkError
from accelsim.formats import Format, QTensor, make_qtensor
from accelsim.operators import registry as operators
from accelsim.operators.spec import TensorSpec
from accelsim.operators.tables import table
from accelsim.quantize.encodings import Encoding, naming
from accelsim.quantize.evaluate import Float64
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.vector_layers import VECTOR_LAYERS, Add, Function, LayerNorm, Mean, Softmax, geometry
from accelsim.quantize.vector_rules import VectorRules
from accelsim.trace.builder import TraceBuilder

NORM_PARAMETERS = formats.get("int16")
"""Of gamma and beta, which are few."""
_SUM_BITS = 32  # what I-BERT adds squares in


def add_vector_layer(
    builder: TraceBuilder,
    network: FloatNetwork,
    layer: FloatLayer,
    handles: Mapping[str, str],
    encodings: Mapping[str, Encoding],
    rules: VectorRules,
    calibration: Mapping[str, Float64],
    reference: NDArray[np.floating[Any]] | None,
) -> str:
    """Add a layer to the trace; return the name of its output.

    Raises NetworkError or TraceError, naming the layer, where the operator cannot take what it is given.
    """
    meta, sources = layer.meta, network.sources(layer)
    assert isinstance(meta, VECTOR_LAYERS)
    output = encodings[layer.name]
    x = encodings[sources[0]]
    operator, attributes = geometry(meta, network.shapes[sources[0]][0])
    inputs: list[str | QTensor] = [handles[name] for name in sources]
    with naming(f"layer {layer.name!r}"):
        if isinstance(meta, Add):
            attributes["rule"] = rules.residual
            if layer.weight is not None:
                inputs.append(formats.get(rules.wide).quantize(layer.weight))
        elif isinstance(meta, Softmax):
            attributes["rule"] = rules.softmax
        elif isinstance(meta, LayerNorm):
            inputs += _norm_parameters(layer)
            attributes |= {"rule": "ibert", "shift": _square_shift(calibration[sources[0]], float(x.scale))}
        elif isinstance(meta, Function) and meta.function == "gelu" and rules.gelu == "ibert":
            operator, attributes = "gelu", {"rule": "ibert"}
        elif isinstance(meta, Function):
            inputs.append(_table(meta.function, x, output))
        elif isinstance(meta, Mean):
            attributes["rule"] = "tflite"
    _check(layer, operator, attributes, [encodings[name] for name in sources], inputs, network, output)
    return builder.vector(
        layer.name,
        operator,
        inputs,
        output=output.format,
        scale=float(output.scale),
        zero_point=int(output.zero_point),
        attributes=attributes,
        reference=reference,
    )


def _check(
    layer: FloatLayer,
    operator: str,
    attributes: dict[str, Any],
    encodings: list[Encoding],
    inputs: list[str | QTensor],
    network: FloatNetwork,
    output: Encoding,
) -> None:
    """Ask the operator now whether it takes these codes, rather than when the trace runs."""
    specs = [
        _spec(encoding.format, encoding.scale, encoding.zero_point, network.shapes[name])
        for encoding, name in zip(encodings, network.sources(layer), strict=True)
    ]
    specs += [
        _spec(each.format, each.scale, each.zero_point, each.shape) for each in inputs if isinstance(each, QTensor)
    ]
    made = _spec(output.format, output.scale, output.zero_point, network.shapes[layer.name])
    try:
        operators.get(operator).check(specs, made, operators.attributes_of(operator, attributes))
    except AccelsimError as error:
        raise NetworkError(f"layer {layer.name!r}: {error}") from None


def _spec(form: Format, scale: NDArray[Any], zero_point: NDArray[Any], shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(shape, form, float(scale), int(zero_point))


def _norm_parameters(layer: FloatLayer) -> list[QTensor]:
    """Return gamma and beta as integers; a gamma of 0, by which I-BERT would divide, as the smallest code."""
    assert layer.weight is not None
    gamma = NORM_PARAMETERS.quantize(layer.weight)
    codes = np.where(gamma.codes == 0, np.where(layer.weight < 0, -1, 1), gamma.codes)
    beta = np.zeros(len(codes)) if layer.bias is None else layer.bias
    return [make_qtensor(codes, NORM_PARAMETERS, float(gamma.scale)), NORM_PARAMETERS.quantize(beta)]


def _square_shift(x: Float64, scale: float) -> int:
    """Return the bits that differences lose so that the sum of their squares has 32: I-BERT's, from its own overflow
    check on the calibration inputs.
    """
    centred = (x - x.mean(axis=-1, keepdims=True)) / scale
    largest = float((centred * centred).sum(axis=-1).max())
    return max(0, math.ceil((math.log2(max(largest, 1.0)) - _SUM_BITS) / 2))


def _table(function: str, x: Encoding, output: Encoding) -> QTensor:
    entries = table(
        function,
        _spec(x.format, x.scale, x.zero_point, (1,)),
        _spec(output.format, output.scale, output.zero_point, (1,)),
    )
    return make_qtensor(entries, output.format, float(output.scale), int(output.zero_point))
