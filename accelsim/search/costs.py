"""What each layer of a network costs at each pair of widths, on a machine: what searches for mixed precision ask for.

Each layer is estimated alone: its inputs come from DRAM and its outputs leave for it. With fixed widths that is what it
takes within the network, if the machine does not keep tensors on chip between layers (`memory.fuse_layers`) nor loads a
layer's first tile behind the layer before; so a network costs about, not exactly, the sum. `accelsim estimate` has the
whole network's own number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.errors import AccelsimError, SearchError
from accelsim.estimation import estimate
from accelsim.formats.catalog import get as get_format
from accelsim.memory.needs import NetworkShapes
from accelsim.progress import ProgressCallback, layer_progress
from accelsim.report.estimates import LayerEstimate
from accelsim.search.bops import hawq_bops, uniq_bops
from accelsim.search.noise import ValueNoise
from accelsim.trace.reader import Trace
from accelsim.trace.schema import Conv2dMeta, Layer, MatmulMeta, Step, TensorMeta, TraceMeta, VectorMeta
from accelsim.trace.shapes import weight_name
from accelsim.trace.slots import LayerPart, layer_array

if TYPE_CHECKING:
    import pandas as pd

Cost = Literal["latency", "energy", "edp", "size", "bops"]
COSTS: tuple[Cost, ...] = ("latency", "energy", "edp", "size", "bops")
LOWEST_BITS, HIGHEST_BITS = 2, 16
NAMELESS = "layer"
_PARTS: tuple[LayerPart, ...] = ("bias", "scale", "multiplier", "shift", "thresholds")


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer at one pair of widths.

    kind : "conv2d", "depthwise", "linear", "matmul"; of the vector unit, the operator
    weight_bits, activation_bits : widths of the operands (of a matmul of two activations, weight_bits is the second
        one's); None: a layer whose widths are not chosen
    output_bits : bits of one output element
    estimate : cycles by cause, energy by component, traffic and sizes
    weight_sqnr_db, activation_sqnr_db : measured on the network's own values; None where it has none
    """

    layer: str
    kind: str
    weight_bits: int | None
    activation_bits: int | None
    output_bits: int
    estimate: LayerEstimate
    weight_sqnr_db: float | None = None
    activation_sqnr_db: float | None = None

    @property
    def bops(self) -> int:
        """Bit operations as HAWQ-V3 counts them; 0 for a layer without MACs."""
        widths = self.weight_bits or 0, self.activation_bits or 0
        return hawq_bops(self.estimate.macs, *widths)

    @property
    def uniq_bops(self) -> float:
        """Bit operations as UNIQ counts them, adders included."""
        if self.weight_bits is None or self.activation_bits is None:
            return 0.0
        reduction = max(1, self.estimate.shape.k)
        return uniq_bops(self.estimate.macs, reduction, self.weight_bits, self.activation_bits)

    def value(self, cost: Cost) -> float:
        """Return latency in µs, energy in pJ, edp in pJ x µs, size (of the weights) in bytes, or bops (HAWQ-V3's)."""
        known = self.estimate
        if cost == "latency":
            return known.latency_us
        if cost == "energy":
            return known.total_energy_pj
        if cost == "edp":
            return known.total_energy_pj * known.latency_us
        return known.weight_bits / 8 if cost == "size" else float(self.bops)

    def row(self) -> dict[str, Any]:
        """Return one flat row, units in the keys."""
        known, shape = self.estimate, self.estimate.shape
        row: dict[str, Any] = {
            "layer": self.layer,
            "kind": self.kind,
            "weight_bits": self.weight_bits,
            "activation_bits": self.activation_bits,
            "output_bits": self.output_bits,
            "batch": shape.batch,
            "m": shape.m,
            "k": shape.k,
            "n": shape.n,
            "macs": known.macs,
        }
        row |= {f"cycles_{cause}": cycles for cause, cycles in known.cycles.by_cause().items()}
        row |= {"cycles_total": known.total_cycles, "latency_us": known.latency_us}
        row |= {f"energy_{component}_pj": energy for component, energy in known.energy_pj.items()}
        return row | {
            "energy_total_pj": known.total_energy_pj,
            "edp_pj_us": self.value("edp"),
            "dram_bytes": (known.dram_read_bits + known.dram_write_bits) / 8,
            "weight_bytes": known.weight_bits / 8,
            "activation_bytes": known.activation_bits / 8,
            "output_bytes": known.output_bits / 8,
            "bops_hawq": self.bops,
            "bops_uniq": self.uniq_bops,
            "weight_sqnr_db": self.weight_sqnr_db,
            "activation_sqnr_db": self.activation_sqnr_db,
        }


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
    progress: ProgressCallback | bool | None = None,
) -> CostTable:
    """Return what every layer costs at every pair of widths, plain integers.

    network : a trace, of which one inference is taken, or shapes
    weight_bits, activation_bits : widths to try, 2 to 16
    outputs : bits of what layers put out; "same": as many as they take, so that each width is paid for where a tensor
        is read and, about, where it is written
    values : the trace whose weights and float references give the SQNR; by default `network`, if it is one
    progress : True: a bar on a terminal or in a notebook, elsewhere a line every ten seconds; or called with (pairs of
        widths done, of all layers, layer)

    A tensor without sign in the network stays without. Layers of equal shapes are estimated once.

    Raises SearchError for widths that are none; UnsupportedLayerError where the machine cannot take a width.

    >>> import accelsim
    >>> config = accelsim.load_config("configs/bitfusion.yaml")
    >>> table = cost_table(config, accelsim.load_trace("traces/digits_cnn_int8.npz").head(1), [4, 8], [4, 8])
    >>> [table.cells["conv2", bits, bits].estimate.total_cycles for bits in (4, 8)]
    [397, 944]
    """
    widths = _widths("weight_bits", weight_bits), _widths("activation_bits", activation_bits)
    if outputs != "same":
        _widths("outputs", [outputs])
    shapes = network if isinstance(network, NetworkShapes) else NetworkShapes.of(network.head(1))
    noise = ValueNoise(network if values is None and isinstance(network, Trace) else values)
    made = _Cells(config, shapes)
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


class _Cells:
    """Estimates of single layers, each different one computed once."""

    def __init__(self, config: HardwareConfig, shapes: NetworkShapes) -> None:
        self.config, self.shapes = config, shapes
        self.pinned = {pin.layer for pin in config.memory.tiling}
        self.known: dict[str, LayerEstimate] = {}

    def cell(self, layer: Layer, w: int, a: int, output: int, noise: ValueNoise) -> LayerCost:
        tensors = self.shapes.meta.tensors
        weight, given = weight_name(layer), layer.input
        # Raw accumulators stay what they are; everything else can be requantized to any width.
        raw = layer.rounding is None and layer.activation != "threshold"
        wanted = {weight: _narrowed(tensors[weight], w), given: _narrowed(tensors[given], a)}
        wanted[layer.output] = tensors[layer.output] if raw else _narrowed(tensors[layer.output], output)
        return LayerCost(
            layer=layer.name,
            kind=_kind(layer, tensors),
            weight_bits=w,
            activation_bits=a,
            output_bits=get_format(wanted[layer.output].format).code_bits,
            estimate=self._estimate(layer, wanted),
            weight_sqnr_db=noise.weight_db(layer, wanted[weight].format),
            activation_sqnr_db=noise.activation_db(given, wanted[given].format),
        )

    def fixed(self, layer: VectorMeta) -> LayerCost:
        tensors = self.shapes.meta.tensors
        return LayerCost(
            layer=layer.name,
            kind=layer.operator,
            weight_bits=None,
            activation_bits=None,
            output_bits=get_format(tensors[layer.output].format).code_bits,
            estimate=self._estimate(layer, {name: tensors[name] for name in (*layer.inputs, layer.output)}),
        )

    def _estimate(self, layer: Step, tensors: Mapping[str, TensorMeta]) -> LayerEstimate:
        alone = _alone(layer, tensors, self.shapes, named=layer.name in self.pinned)
        key = repr((alone.meta, alone.parameters, sorted((n, z.tolist()) for n, z in alone.zero_points.items())))
        if isinstance(layer, VectorMeta):
            key += repr(sorted(alone.scales.items()))
        if key not in self.known:
            try:
                self.known[key] = estimate(self.config, alone).layers[0]
            except AccelsimError as error:
                raise type(error)(str(error).replace(f"layer {NAMELESS!r}", f"layer {layer.name!r}")) from None
        return replace(self.known[key], name=layer.name)


def _alone(
    layer: Step, tensors: Mapping[str, TensorMeta], shapes: NetworkShapes, *, named: bool = False
) -> NetworkShapes:
    """Return a network of one layer, whose names say nothing of where it comes from, so that equal ones are equal.

    tensors : what the layer takes and gives, in the formats to be tried
    named : keep the layer's name, which the configuration mentions
    """
    name = layer.name if named else NAMELESS
    renamed = {old: f"t{place}" for place, old in enumerate(tensors)}
    changes: dict[str, Any] = {"name": name, "output": renamed[layer.output]}
    if isinstance(layer, VectorMeta):
        changes["inputs"] = tuple(renamed[each] for each in layer.inputs)
    else:
        changes["input"] = renamed[layer.input]
        changes["other" if isinstance(layer, MatmulMeta) else "weight"] = renamed[weight_name(layer)]
        if layer.clamp is not None:  # its bounds are codes of the old format; ReLU6 clamps with the same hardware
            changes |= {"clamp": None, "activation": "relu6"}
    only = layer.model_copy(update=changes)
    parameters = None
    if shapes.parameters is not None and not isinstance(layer, VectorMeta):
        found = {part: shapes.parameters.get(layer_array(layer.name, part)) for part in _PARTS}
        parameters = {layer_array(name, part): shape for part, shape in found.items() if shape is not None}
    inputs = tuple(new for new in renamed.values() if new != renamed[layer.output])
    meta = TraceMeta(
        name="layer",
        tensors={renamed[old]: tensor for old, tensor in tensors.items()},
        layers=(only,),
        inputs=inputs,
        outputs=(renamed[layer.output],),
    )
    zero_points = {
        renamed[old]: np.sign(shapes.zero_points[old])  # of a narrower format it is another one; that it is, counts
        for old in tensors
        if old in shapes.zero_points and shapes.zero_points[old].any()
    }
    scales = {renamed[old]: shapes.scales[old] for old in tensors if old in shapes.scales}
    return NetworkShapes(meta, zero_points, scales, parameters)


def _narrowed(tensor: TensorMeta, bits: int) -> TensorMeta:
    """Return a tensor as plain integers of so many bits, with a sign if it had one."""
    sign = "" if get_format(tensor.format).low < 0 else "u"
    return tensor.model_copy(update={"format": f"{sign}int{bits}", "block_axis": None})


def _kind(layer: Layer, tensors: Mapping[str, TensorMeta]) -> str:
    if isinstance(layer, Conv2dMeta) and layer.groups > 1 and layer.groups == tensors[layer.input].shape[-1]:
        return "depthwise"
    return layer.op
