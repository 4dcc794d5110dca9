"""What a width does to the values of a layer: SQNR of its quantized weights and inputs, each on its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.quantize.ranges import RangeRule, Seen, activation_scale, weight_of
from accelsim.report.accuracy import compare
from accelsim.trace.reader import Trace
from accelsim.trace.schema import Layer, MatmulMeta
from accelsim.trace.shapes import channel_axis_of_weight

BEST = RangeRule("mse")


class ValueNoise:
    """Measures SQNR of tensors that a trace holds, once for each format.

    Weights take one scale an output channel, activations one a tensor and a zero point where they have both signs;
    scales are those of least squared error (docs/quantize.md, Ranges).
    """

    def __init__(self, trace: Trace | None) -> None:
        self._trace = trace
        self._computed = set() if trace is None else {layer.output for layer in trace.layers}
        self._values: dict[str, NDArray[np.float64] | None] = {}
        self._found: dict[tuple[str, str], float | None] = {}

    def weight_db(self, layer: Layer, form: str) -> float | None:
        """Return the SQNR of the layer's weights in a format, dB; None where the trace has none."""
        if self._trace is None or isinstance(layer, MatmulMeta):
            return None
        key = layer.weight, form
        if key not in self._found:
            values = self._tensor(layer.weight)
            self._found[key] = None
            if values is not None:
                tensor = weight_of(formats.get(form), values, channel_axis_of_weight(layer, values.ndim), BEST)
                self._found[key] = compare(values, tensor.dequantize()).sqnr_db
        return self._found[key]

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
                asymmetric = bool(seen.low < 0)
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
            values = trace.reference(name) if name in self._computed else trace.tensor(name).dequantize()
            self._values[name] = values if values is not None and values.any() else None
        return self._values[name]
