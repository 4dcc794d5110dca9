"""What each layer of a network costs at each pair of widths, on a machine: what searches for mixed precision ask for.

Each layer is estimated alone: its inputs come from DRAM and its outputs leave for it. With fixed widths that is what it
takes within the network, if the machine does not keep tensors on chip between layers (`memory.fuse_layers`) nor loads a
layer's first tile behind the layer before; so a network costs about, not exactly, the sum. `accelsim estimate` has the
whole network's own number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.errors import SearchError
from accelsim.memory.needs import NetworkShapes
from accelsim.progress import ProgressCallback, layer_progress
from accelsim.search.cells import Cells
from accelsim.search.layer_cost import COSTS, Cost, LayerCost
from accelsim.search.noise import ValueNoise
from accelsim.trace.reader import Trace
from accelsim.trace.schema import MatmulMeta, VectorMeta

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COSTS", "Cost", "CostTable", "LayerCost", "cost_table"]

LOWEST_BITS, HIGHEST_BITS = 2, 16


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """All layers at all pairs of widths.

    layers : names of the layers whose widths vary, in the network's order; `weighted`: those that have weights
    weight_bits, activation_bits : the widths, ascending
    cells : by (layer, weight bits, activation bits)
    fixed : operators of the vector unit, at the widths that they have
    notes : what was assumed

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> table = cost_table(accelsim.load_config("configs/bitfusion.yaml"), trace, [4, 8], [4, 8])
    >>> table.array("energy").shape, len(table.frame())  # [layers, weight widths, activation widths]
    ((4, 2, 2), 16)
    >>> widths = {"conv1": (8, 8), "conv2": (4, 8), "fc1": (4, 8), "fc2": (8, 8)}
    >>> table.total("size", widths), table.total("bops", widths)  # bytes of weights; b_w b_a MACs
    (19472.0, 3596288.0)
    """

    config_name: str
    network_name: str
    layers: tuple[str, ...]
    weighted: tuple[str, ...]
    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    cells: Mapping[tuple[str, int, int], LayerCost]
    fixed: tuple[LayerCost, ...]
    notes: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each layer and pair of widths, then the fixed layers."""
        return [cell.row() for cell in (*self.cells.values(), *self.fixed)]

    def frame(self) -> pd.DataFrame:
        """Return the rows as a pandas data frame."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def array(self, cost: Cost) -> NDArray[np.float64]:
        """Return one cost, [layers, weight widths, activation widths]; units as of :meth:`LayerCost.value`."""
        return np.array(
            [
                [[self.cells[name, w, a].value(cost) for a in self.activation_bits] for w in self.weight_bits]
                for name in self.layers
            ]
        )

    def total(self, cost: Cost, assignment: Mapping[str, tuple[int, int]]) -> float:
        """Return the network's cost with given widths (edp: energy times latency of the whole network)."""
        if cost == "edp":
            return self.total("energy", assignment) * self.total("latency", assignment)
        cells = [self.cells[name, *assignment[name]] for name in self.layers]
        return float(sum(cell.value(cost) for cell in (*cells, *self.fixed)))


def cost_table(
    config: HardwareConfig,
    network: Trace | NetworkShapes,
    weight_bits: Sequence[int] = range(2, 9),
    activation_bits: Sequence[int] = range(2, 9),
    *,
    outputs: int | Literal["same"] = "same",
    values: Trace | None = None,
    activations: Mapping[str, NDArray[np.floating]] | None = None,
    floats: Mapping[str, NDArray[np.floating]] | None = None,
    progress: ProgressCallback | bool | None = None,
) -> CostTable:
    """Return what every layer costs at every pair of widths, plain integers.

    network : a trace, of which one inference is taken, or shapes
    weight_bits, activation_bits : widths to try, 2 to 16
    outputs : bits of what layers put out; "same": as many as they take, so that each width is paid for where a tensor
        is read and, about, where it is written
    values : the trace whose weights and float references give the SQNR; by default `network`, if it is one
    activations : by tensor, the values that its SQNR is measured on; None: the trace's references
    floats : by tensor of `values`, weights and inputs before they were encoded; None: what the codes mean
    progress : True: a bar on a terminal or in a notebook, elsewhere a line every ten seconds; or called with (pairs of
        widths done, of all layers, layer)

    A tensor without sign in the network stays without. Layers of equal shapes are estimated once.

    Raises SearchError for widths that are none; UnsupportedLayerError where the machine cannot take a width.

    >>> import accelsim
    >>> config = accelsim.load_config("configs/bitfusion.yaml")
    >>> table = cost_table(config, accelsim.load_trace("traces/digits_cnn_int8.npz").head(1), [4, 8], [4, 8])
    >>> [table.cells["conv2", bits, bits].estimate.total_cycles for bits in (4, 8)]
    [424, 971]
    """
    widths = _widths("weight_bits", weight_bits), _widths("activation_bits", activation_bits)
    if outputs != "same":
        _widths("outputs", [outputs])
    shapes = network if isinstance(network, NetworkShapes) else NetworkShapes.of(network.head(1))
    noise = ValueNoise(network if values is None and isinstance(network, Trace) else values, activations, floats)
    made = Cells(config, shapes)
    steps = shapes.meta.layers
    chosen = [layer for layer in steps if not isinstance(layer, VectorMeta)]
    if not chosen:
        raise SearchError(f"{shapes.meta.name!r} has no layer that multiplies; there is no width to choose")
    cells: dict[tuple[str, int, int], LayerCost] = {}
    done, count = 0, len(chosen) * len(widths[0]) * len(widths[1])
    with layer_progress(progress, "pairs of widths") as tell:
        for layer in chosen:
            for w in widths[0]:
                for a in widths[1]:
                    tell(done, count, layer.name)
                    cells[layer.name, w, a] = made.cell(layer, w, a, a if outputs == "same" else outputs, noise)
                    done += 1
        tell(count, count, "")
    output_note = "as wide as its inputs" if outputs == "same" else f"{outputs} bits wide"
    notes = [f"costs: each layer alone, its outputs {output_note}; integers, signed where the network's are"]
    if config.memory.fuse_layers:
        notes.append("costs: nothing stays on chip between layers, although the configuration says fuse_layers")
    return CostTable(
        config_name=config.name,
        network_name=shapes.meta.name,
        layers=tuple(layer.name for layer in chosen),
        weighted=tuple(layer.name for layer in chosen if not isinstance(layer, MatmulMeta)),
        weight_bits=widths[0],
        activation_bits=widths[1],
        cells=cells,
        fixed=tuple(made.fixed(layer) for layer in steps if isinstance(layer, VectorMeta)),
        notes=tuple(notes),
    )


def _widths(what: str, bits: Sequence[int]) -> tuple[int, ...]:
    wrong = [each for each in bits if not LOWEST_BITS <= each <= HIGHEST_BITS]
    if wrong or not bits:
        found = ", ".join(map(str, wrong)) or "none"
        raise SearchError(f"{what}: found {found}; use integers of {LOWEST_BITS} to {HIGHEST_BITS} bits, such as 2..8")
    return tuple(sorted(set(bits)))
