"""A float network at any widths on a machine: its accuracy, computed bit-accurately, and its cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.errors import SearchError
from accelsim.estimation import estimate
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.presets import Pair
from accelsim.quantize.requantizer import Requantizer
from accelsim.report.estimates import LayerEstimate
from accelsim.simulation import simulate
from accelsim.trace.reader import Trace

Cost = Literal["latency", "energy", "size"]
UNITS: dict[str, str] = {"latency": "µs", "energy": "pJ", "size": "bytes"}
"""What each cost is counted in; size is that of the weights."""


class SimulatedNetwork:
    """A float network with its calibration, and the machine that is to run it.

    Costs are of one inference (a batch of 1); accuracies of all the network's inputs. Raises NetworkError where the
    network cannot be quantized.
    """

    def __init__(self, network: FloatNetwork, config: HardwareConfig) -> None:
        self.network, self.config = network, config
        self._requantizer = Requantizer(network, references=False)

    def accuracy(self, assignment: Mapping[str, Pair]) -> float:
        """Return the fraction of the inputs that the simulated machine classifies as their labels say."""
        if self.network.labels is None:
            raise SearchError(f"network {self.network.name!r} has no labels, so its accuracy is unknown")
        report = simulate(self.config, self._requantizer.trace(assignment), watch=False, keep_outputs="none")
        assert report.accuracy is not None
        assert report.accuracy.simulated_accuracy is not None
        return report.accuracy.simulated_accuracy

    def cost(self, assignment: Mapping[str, Pair], kind: Cost) -> float:
        """Return what one inference costs, what lies between the layers (conversions, pooling, ...) included."""
        return sum(_cost(layer, kind) for layer in estimate(self.config, self._one(assignment)).layers)

    def table(self, kind: Cost, cells: Iterable[tuple[int, int]]) -> NDArray[np.float64]:
        """Return costs [layers, 8, 8] of the layers that multiply, index [layer, weight bits - 1, activation bits - 1].

        cells : the (weight bits, activation bits) to fill; the others are NaN

        A layer's costs are those it has where all layers have the same widths.
        """
        names = [layer.name for layer in self.network.array_layers]
        costs = np.full((len(names), 8, 8), np.nan)
        for w, a in cells:
            layers = estimate(self.config, self._one(dict.fromkeys(names, (f"int{w}", f"int{a}")))).layers
            found = {layer.name: _cost(layer, kind) for layer in layers}
            costs[:, w - 1, a - 1] = [found[name] for name in names]
        return costs

    def _one(self, assignment: Mapping[str, Pair]) -> Trace:
        return self._requantizer.trace(assignment).head(1)


def _cost(layer: LayerEstimate, kind: Cost) -> float:
    if kind == "latency":
        return layer.latency_us
    return layer.total_energy_pj if kind == "energy" else layer.weight_bits / 8
