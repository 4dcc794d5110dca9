"""The float values of the vector unit's layers, float64, the same on every machine.

Sums are one addition after the other. Exponentials and their like come from the C library, whose last bits differ
between machines, so results that depend on them are rounded to 32 significant bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.operators import registry as operators
from accelsim.operators.tables import real_function
from accelsim.quantize.vector_layers import (
    Add,
    Function,
    LayerNorm,
    Mean,
    Softmax,
    VectorLayerMeta,
    geometry,
)

Float64 = NDArray[np.float64]

SIGNIFICANT_BITS = 32


def evaluate_vector(
    meta: VectorLayerMeta, inputs: list[Float64], weight: Float64 | None, bias: Float64 | None
) -> Float64:
    """Return a layer's output.

    inputs : the activations
    weight, bias : gamma and beta; or the constant of a sum
    """
    x = inputs[0]
    if isinstance(meta, Add):
        second = inputs[1] if weight is None else weight
        return np.asarray(x + second)
    if isinstance(meta, Softmax):
        exponentials = real_function("exp", x - x.max(axis=-1, keepdims=True))
        return shortened(exponentials / ordered_sum(exponentials)[..., None])
    if isinstance(meta, LayerNorm):
        return _layer_norm(meta, x, weight, bias)
    if isinstance(meta, Function):
        return shortened(real_function(meta.function, x))
    if isinstance(meta, Mean):
        kept = [axis for axis in range(x.ndim) if axis not in meta.axes]
        rows = x.transpose(*kept, *meta.axes).reshape(*(x.shape[axis] for axis in kept), -1)
        return np.asarray(ordered_sum(rows) / rows.shape[-1])
    name, attributes = geometry(meta, len(x))
    return np.asarray(operators.get(name).real(inputs, operators.attributes_of(name, attributes)))


def ordered_sum(x: Float64) -> Float64:
    """Return the sum along the last axis, from the first element to the last."""
    total = np.zeros(x.shape[:-1])
    for position in range(x.shape[-1]):
        total = total + x[..., position]
    return total


def shortened(x: Float64) -> Float64:
    """Return the values rounded to 32 significant bits, ties to even."""
    fraction, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.rint(np.ldexp(fraction, SIGNIFICANT_BITS)), exponent - SIGNIFICANT_BITS))


def _layer_norm(meta: LayerNorm, x: Float64, gamma: Float64 | None, beta: Float64 | None) -> Float64:
    count = x.shape[-1]
    centred = x - (ordered_sum(x) / count)[..., None]
    deviation = np.sqrt(ordered_sum(centred * centred) / count + meta.epsilon)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):  # a row of equal numbers without epsilon: said by the caller
        y = centred / deviation
    y = y if gamma is None else y * gamma
    return np.asarray(y if beta is None else y + beta)
