"""One choice of widths for all layers, and what it really is: a run of the whole network, bit by bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.errors import SearchError
from accelsim.estimation import estimate
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.presets import Pair
from accelsim.quantize.requantizer import Requantizer
from accelsim.simulation import simulate
from accelsim.trace.reader import Trace


class Widths(NamedTuple):
    """Bits of a layer's weights and inputs."""

    weight: int
    activation: int

    def __str__(self) -> str:
        return f"{self.weight}/{self.activation}"


Assignment = Mapping[str, Widths]


FIELDS = {"latency": "latency_us", "energy": "energy_pj", "size": "size_bytes", "bops": "bops"}
"""Of each cost, the field of Verified."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What an assignment is, by running it.

    accuracy, float_accuracy : top-1 over all inputs; None without labels. agreement : with the float network
    cycles, latency_us, energy_pj : of one inference
    size_bytes : all weights; bops : HAWQ-V3's
    overflows : sums that did not fit a register
    """

    accuracy: float | None
    float_accuracy: float | None
    agreement: float | None
    inputs: int
    cycles: int
    latency_us: float
    energy_pj: float
    size_bytes: float
    bops: int
    overflows: int

    def row(self) -> dict[str, Any]:
        """Return the fields as a flat row."""
        return dict(vars(self))


def formats_of(widths: Mapping[str, tuple[int, int]]) -> dict[str, Pair]:
    """Return the number formats of widths: plain integers."""
    return {name: (f"int{w}", f"int{a}") for name, (w, a) in widths.items()}


def uniform(network: FloatNetwork, weight_bits: int, activation_bits: int | None = None) -> dict[str, Widths]:
    """Return the assignment with one width everywhere."""
    bits = Widths(weight_bits, weight_bits if activation_bits is None else activation_bits)
    return {layer.name: bits for layer in network.array_layers}


def split(network: FloatNetwork, calibration: int) -> tuple[FloatNetwork, FloatNetwork]:
    """Return (the network on its first inputs, the network on the others, calibrated on the first ones): to choose by,
    and to report accuracy on.

    Raises SearchError unless both have an input.
    """
    count = len(network.inputs)
    if not 0 < calibration < count:
        raise SearchError(
            f"{calibration} of {count} inputs were asked for calibration; use 1 to {count - 1}, so that accuracy is "
            f"measured on others"
        )
    labels = network.labels
    first = FloatNetwork(
        network.name,
        network.inputs[:calibration],
        network.layers,
        labels=None if labels is None else labels[:calibration],
        description=network.description,
    )
    others = FloatNetwork(
        network.name,
        network.inputs[calibration:],
        network.layers,
        calibration=network.inputs[:calibration],
        labels=None if labels is None else labels[calibration:],
        description=network.description,
    )
    return first, others


def outputs_of(config: HardwareConfig, trace: Trace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (the network's outputs as the machine computes them, those of the float network), real numbers."""
    report = simulate(config, trace, watch=False, keep_outputs="last")
    last = next(layer for layer in trace.layers if layer.output == trace.outputs[-1])
    codes = next(layer.output_codes for layer in report.layers if layer.name == last.name)
    reference = trace.reference(last.output)
    assert codes is not None
    assert reference is not None
    return trace.output_tensor(last, codes).dequantize(), reference.astype(np.float64)


def true_costs(
    requantizer: Requantizer, config: HardwareConfig, widths: Mapping[str, tuple[int, int]]
) -> dict[str, float]:
    """Return what widths cost the whole network, layers and conversions between them, for one inference and without
    computing it: "latency" in µs, "energy" in pJ, "size" in bytes of weights, "bops" (HAWQ-V3's).
    """
    once = estimate(config, requantizer.trace(formats_of(widths)).head(1))
    return {
        "latency": once.latency_us,
        "energy": once.total_energy_pj,
        "size": sum(layer.weight_bits for layer in once.layers) / 8,
        "bops": sum(layer.macs * math.prod(widths[layer.name]) for layer in once.layers if layer.macs),
    }


def verify(requantizer: Requantizer, config: HardwareConfig, widths: Mapping[str, tuple[int, int]]) -> Verified:
    """Run the network of an assignment bit by bit, all inputs of the requantizer's network.

    Raises what a run raises.
    """
    trace = requantizer.trace(formats_of(widths))
    report = simulate(config, trace, watch=False, keep_outputs="none")
    once, accuracy = estimate(config, trace.head(1)), report.accuracy
    return Verified(
        accuracy=None if accuracy is None else accuracy.simulated_accuracy,
        float_accuracy=None if accuracy is None else accuracy.float_accuracy,
        agreement=None if accuracy is None else accuracy.agreement,
        inputs=report.batch,
        cycles=once.total_cycles,
        latency_us=once.latency_us,
        energy_pj=once.total_energy_pj,
        size_bytes=sum(layer.weight_bits for layer in once.layers) / 8,
        bops=sum(layer.macs * math.prod(widths[layer.name]) for layer in once.layers if layer.macs),
        overflows=report.totals.psum_overflows + report.totals.accumulator_overflows,
    )
