"""What a width does to the values of a layer: SQNR of its quantized weights and inputs, each on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.quantize.ranges import RangeRule, Seen, activation_scale, weight_of
from accelsim.report.accuracy import compare
from accelsim.trace.reader import Trace
from accelsim.trace.schema import Layer, MatmulMeta, VectorMeta
from accelsim.trace.shapes import channel_axis_of_weight, weight_name

BEST = RangeRule("mse")


class WeightError(NamedTuple):
    """SQNR of quantized weights, dB, and the sum of their squared errors, ||W - Q(W)||^2."""

    sqnr_db: float
    squared: float


class ValueNoise:
    """Measures SQNR of tensors that a trace holds, once for each format.

    Weights take one scale an output channel, activations one a tensor and a zero point where they or their format have
    a sign; scales are those of least squared error (docs/quantize.md, Ranges).

    activations : by tensor, instead of the trace's own values; those that are not there are not known
    floats : by tensor, weights and inputs that the trace has codes of
    """

    def __init__(
        self,
        trace: Trace | None,
        activations: Mapping[str, NDArray[np.floating]] | None = None,
        floats: Mapping[str, NDArray[np.floating]] | None = None,
    ) -> None:
        self._trace, self._activations, self._floats = trace, activations, floats or {}
        self._computed = set() if trace is None else {layer.output for layer in trace.layers}
        layers = [] if trace is None else [each for each in trace.layers if not isinstance(each, VectorMeta)]
        self._stored = {weight_name(each) for each in layers if not isinstance(each, MatmulMeta)}
        self._values: dict[str, NDArray[np.float64] | None] = {}
        self._weights: dict[tuple[str, str], WeightError | None] = {}
        self._found: dict[tuple[str, str], float | None] = {}

    def weight(self, layer: Layer, form: str) -> WeightError | None:
        """Return what a format does to the layer's weights; None where the trace has none."""
        if self._trace is None or isinstance(layer, MatmulMeta):
            return None
        key = layer.weight, form
        if key not in self._weights:
            values = self._tensor(layer.weight)
            self._weights[key] = None
            if values is not None:
                tensor = weight_of(formats.get(form), values, channel_axis_of_weight(layer, values.ndim), BEST)
                error = compare(values, tensor.dequantize())
                self._weights[key] = WeightError(error.sqnr_db, error.mse * values.size)
        return self._weights[key]

    def activation_db(self, tensor: str, form: str) -> float | None:
        """Return the SQNR of an activation in a format, dB; None where the trace has no float values of it."""
        if self._trace is None:
            return None
        key = tensor, form
        if key not in self._found:
            values = self._tensor(tensor)
            self._found[key] = None
            if values is not None:
                rows = values.reshape(-1, values.shape[-1])
                seen = Seen(len(rows), rows.shape[-1])
                seen.add(rows)
                kept = seen.values()
                # Of a signed format half the codes would lie idle where no value is negative.
                asymmetric = bool(seen.low < 0) or formats.get(form).low < 0
                chosen = activation_scale(formats.get(form), seen, BEST, asymmetric=asymmetric)
                again = formats.get(form).quantize(
                    kept, scale=chosen.scale, zero_point=chosen.zero_point if asymmetric else None
                )
                self._found[key] = compare(kept, again.dequantize()).sqnr_db
        return self._found[key]

    def _tensor(self, name: str) -> NDArray[np.float64] | None:
        """Return a stored tensor's values, or a computed one's float reference; None for zeros, which are no data."""
        assert self._trace is not None
        if name not in self._values:
            trace = self._trace
            values: NDArray[np.floating] | None
            if name in self._floats:
                values = self._floats[name]
            elif self._activations is not None and name not in self._stored:
                values = self._activations.get(name)
            else:
                values = trace.reference(name) if name in self._computed else trace.tensor(name).dequantize()
            self._values[name] = values.astype(np.float64) if values is not None and values.any() else None
        return self._values[name]
