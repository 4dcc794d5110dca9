"""Cycles, traffic and energy of a network from its shapes alone: no tensor is read, and nothing is computed.

Values never change timing, so these are the numbers of a run; one thing a run knows besides is which requantization
factors are powers of two, which cost an addition and no multiplication.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from accelsim import formats
from accelsim.actions import Action, Actions
from accelsim.config.model import HardwareConfig
from accelsim.energy.account import energy_account
from accelsim.energy.scaling import configured_table, table_notes
from accelsim.energy.table import EnergyTable
from accelsim.energy.upkeep import upkeep_actions
from accelsim.errors import AccelsimError, FormatError
from accelsim.formats.catalog import CATALOG
from accelsim.formats.integer import IntegerFormat
from accelsim.mapping.contract import CycleCounts, GemmShape, LayerPlan
from accelsim.memory.contract import LayerNeeds, LayerTime, Timeline
from accelsim.memory.costs import array_actions, traffic_actions, upkeep_cycles
from accelsim.memory.needs import NetworkShapes, network_needs, vector_work
from accelsim.memory.network import Share, has_memory, network_shares, network_time
from accelsim.ppu.pipeline import OutputStage, stage_actions
from accelsim.report.estimates import EstimateReport, LayerEstimate
from accelsim.report.timing import TimelineSummary
from accelsim.trace.reader import Trace
from accelsim.trace.schema import Layer, MatmulMeta, VectorMeta
from accelsim.trace.shapes import macs, weight_name

if TYPE_CHECKING:
    from accelsim.importers.graph import Model
    from accelsim.quantize.network import FloatNetwork

ANY_FACTOR = 0.37
"""Stands for a requantization factor of which only the shape is known: no power of two."""
NOTES = (
    "estimate: shapes and formats alone; nothing was computed, so overflow and accuracy are not known",
    "energy: modelled, counted actions times the prices of the named table (docs/energy.md)",
)


def estimate(
    config: HardwareConfig,
    network: Trace | NetworkShapes,
    *,
    timeline_done: Callable[[Timeline], None] | None = None,
) -> EstimateReport:
    """Return what a network takes on a machine: cycles by cause, traffic, energy.

    network : a trace (its arrays stay unread, but for scales and zero points), or shapes alone
        (accelsim.importers.shape_table reads them from tables)
    timeline_done : called with the timeline, slices and counters included

    Raises UnsupportedLayerError (the hardware lacks what a layer needs), ShapeError, EnergyTableError; AccelsimError
    for arguments of another kind.

    >>> import accelsim
    >>> config = accelsim.load_config("configs/int8_ws.yaml")
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> estimate(config, trace).total_cycles == accelsim.simulate(config, trace).totals.total_cycles
    True
    """
    if not isinstance(config, HardwareConfig):
        raise AccelsimError(
            f"estimate: config is {type(config).__name__}; pass a HardwareConfig, from load_config(path)"
        )
    if not isinstance(network, Trace | NetworkShapes):
        raise AccelsimError(
            f"estimate: network is {type(network).__name__}; pass a Trace, from load_trace(path), or shapes, from "
            f"accelsim.estimation.network_shapes(path)"
        )
    shapes = NetworkShapes.of(network) if isinstance(network, Trace) else network
    table = configured_table(config)
    needs = network_needs(shapes, config)
    images = batch_size(shapes)
    memory = None
    if timeline_done is not None or has_memory(config):
        memory = network_time(needs, config, images=images, record=timeline_done is not None, processes=False)
        if timeline_done is not None:
            timeline_done(memory.timeline)
        memory = memory if has_memory(config) else None
    shares = network_shares(needs, config) if memory is None else memory.shares
    layers = [
        _layer(layer, need, share, shapes, config, table, None if memory is None else memory.timeline.layers[index])
        for index, (layer, need, share) in enumerate(zip(shapes.meta.layers, needs, shares, strict=True))
    ]
    return EstimateReport(
        config_name=config.name,
        config_digest=config.digest,
        network_name=shapes.meta.name,
        clock_mhz=config.clock_mhz,
        energy_table=table.name,
        energy_unit=table.unit,
        batch=images,
        layers=tuple(layers),
        timeline=None if memory is None else TimelineSummary.of(memory),
        assumptions=(*NOTES, *(() if memory is None else memory.notes), *table_notes(config)),
    )


def batch_size(network: NetworkShapes) -> int:
    """Return how many inferences a network's shapes are for.

    >>> batch_size(network_shapes("traces/digits_cnn_int8.npz", inputs=3))
    3
    """
    first = network.meta.tensors[network.meta.inputs[0]]
    return first.shape[0] if first.dims[0] == "batch" else 1


def network_shapes(
    path: str | Path, *, weights: str | None = None, activations: str | None = None, inputs: int | None = None
) -> NetworkShapes:
    """Return the shapes of whatever a file holds: a trace or a float network (``.npz``), a model (``.tflite``,
    ``.onnx``) or a table of shapes (``.csv``).

    weights, activations : formats where the file names none (a table, a float network, a float model), int8 by default;
        a quantized TFLite model gets them instead of its own
    inputs : of a trace, so many inferences of its batch; None: all. Any other file has one, or says how many

    Raises TraceError or ModelError for a damaged or unknown file; FormatError for formats that no operand can have;
    AccelsimError for formats of a file that has its own, and for `inputs` of what is no trace.

    >>> shapes = network_shapes("traces/shapes/llama7b_token2048.csv")
    >>> from accelsim.config.loader import load_config
    >>> report = estimate(load_config("configs/int8_ws.yaml"), shapes)  # one token of a language model
    >>> report.macs, report.layers[0].shape
    (7143948288, GemmShape(batch=1, m=1, k=4096, n=4096))
    """
    from accelsim.trace.reader import load_trace

    file, given = Path(path), {"weights": weights, "activations": activations}
    for what, name in given.items():
        if name is not None:
            check_operand_format(name, what)
    pair = weights or "int8", activations or "int8"
    if inputs is not None and (file.suffix.lower() != ".npz" or is_float_network(file)):
        raise AccelsimError(f"{file}: only a trace has a batch of inputs to take the first {inputs} of; leave that out")
    if file.suffix.lower() == ".npz":
        if is_float_network(file):
            return NetworkShapes.of(float_trace(file, *pair).head(1))
        named = [f"{what} {name!r}" for what, name in given.items() if name is not None]
        if named:
            raise AccelsimError(f"{file}: {' and '.join(named)}: a trace has formats of its own; leave them out")
        trace = load_trace(file)
        return NetworkShapes.of(trace if inputs is None else trace.head(inputs))
    if file.suffix.lower() == ".csv":
        from accelsim.importers.shape_table import read_shapes

        return NetworkShapes(read_shapes(file, weights=pair[0], activations=pair[1]))
    from accelsim.importers.api import model_builder, open_model

    model = open_model(file)
    if model.other_formats or any(given.values()):
        return NetworkShapes.of(float_trace(model, *pair))
    zeros = {each.name: np.zeros((1, *each.shape[1:]), np.float32) for each in model.inputs}
    return NetworkShapes.of(model_builder(model, zeros).build())


def check_operand_format(name: str, what: str) -> None:
    """Raise FormatError, which says what `what` may be, unless a name is that of a format of operands.

    >>> check_operand_format("int99", "--weights")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    accelsim.errors.FormatError: --weights 'int99' is no format of operands: int99: operands have 2 to 16 bits, ...
    """
    try:
        form = formats.get(name)
        if not isinstance(form, IntegerFormat) or form.is_operand:
            return
    except FormatError as error:
        raise FormatError(f"{what} {name!r} is no format of operands: {error}") from None
    others = [known for known in CATALOG if re.fullmatch(r"u?int\d+n?", known) is None]
    raise FormatError(
        f"{what} {name!r} is no format of operands; use int2 to int16, uint2 to uint16, int2n to int16n, "
        f"{', '.join(others)}"
    )


def is_float_network(file: Path) -> bool:
    """Return whether an archive is a float network, which has inputs; a damaged one is the trace reader's.

    >>> is_float_network(Path("traces/digits_cnn_float.npz")), is_float_network(Path("traces/digits_cnn_int8.npz"))
    (True, False)
    """
    import zipfile

    try:
        with zipfile.ZipFile(file) as archive:
            return "input.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def float_trace(
    source: Path | Model, weights: str, activations: str, data: Mapping[str, ArrayLike] | None = None
) -> Trace:
    """Return a float network's trace, all layers in two formats: of a network's file with its own inputs, or of an
    opened model.

    data : the model's, by input; None: ones with both signs, for shapes alone

    Raises NetworkError, ModelError.

    >>> trace = float_trace(Path("traces/digits_cnn_float.npz"), "int4", "int8")
    >>> trace.tensor_meta("conv1.weight").format
    'int4'
    """
    from accelsim.quantize.requantizer import Requantizer

    network = float_network(source, data)
    return Requantizer(network).trace({layer.name: (weights, activations) for layer in network.array_layers})


def float_network(source: Path | Model, data: Mapping[str, ArrayLike] | None = None) -> FloatNetwork:
    """Return the float network of a file with its own inputs, or of an opened model.

    data : the model's, by input; None: ones with both signs, for shapes alone

    Raises NetworkError, ModelError.

    >>> float_network(Path("traces/digits_cnn_float.npz")).inputs.shape
    (240, 8, 8, 1)
    """
    if isinstance(source, Path):
        from accelsim.quantize.network_file import load_network

        return load_network(source)
    from accelsim.importers.api import float_model

    signs = {each.name: np.ones((2, *each.shape[1:]), np.float32) for each in source.inputs}
    for each in signs.values():
        each[1] = -1
    network = float_model(source, signs if data is None else data, batch=None)
    return network.head(1) if data is None else network


def _layer(
    layer: Layer | VectorMeta,
    need: LayerNeeds,
    shares: Sequence[Share],
    shapes: NetworkShapes,
    config: HardwareConfig,
    table: EnergyTable,
    time: LayerTime | None,
) -> LayerEstimate:
    tensors = shapes.meta.tensors
    if isinstance(layer, VectorMeta):
        own, cycles = vector_work(layer, shapes).actions, CycleCounts(vector=need.vector_cycles)
    else:
        assert need.plan is not None
        own, cycles = _ppu(layer, need.plan, shapes, config), need.plan.cycles
    core_cycles, spent, cores = cycles.total, (cycles.total, cycles.array), 1
    if time is not None:
        cycles, core_cycles, spent, cores = time.cycles, time.core_cycles, upkeep_cycles(time), config.cores.count
    own += array_actions(shares) + traffic_actions(shares, config) + upkeep_actions(config, *spent, cores=cores)
    output, vector = tensors[layer.output], isinstance(layer, VectorMeta)
    first = layer.inputs[0] if isinstance(layer, VectorMeta) else layer.input
    second = (layer.inputs[1:2] or (None,))[0] if isinstance(layer, VectorMeta) else weight_name(layer)
    rate = config.array.rows * config.array.cols
    return LayerEstimate(
        name=layer.name,
        op=layer.operator if isinstance(layer, VectorMeta) else layer.op,
        shape=GemmShape(1, math.prod(output.shape[:-1]), 0, output.shape[-1]) if need.plan is None else need.plan.shape,
        macs=0 if isinstance(layer, VectorMeta) else macs(layer, tensors),
        input_format=tensors[first].format,
        weight_format="-" if second is None else tensors[second].format,
        output_format=output.format,
        cycles=cycles,
        core_cycles=core_cycles,
        peak_macs_per_cycle=(
            rate * config.array.lanes if need.plan is None else rate * need.plan.lanes / need.plan.step_cycles
        ),
        latency_us=cycles.total / config.clock_mhz,
        energy_pj=energy_account(own, table).by_component,
        actions=own,
        dram_read_bits=_bits(own, "dram_read_"),
        dram_write_bits=_bits(own, "dram_write_"),
        weight_bits=0 if need.weight is None or vector else need.weight.bits,
        activation_bits=sum(tensor.bits for tensor in need.inputs),
        output_bits=need.output.bits,
    )


def _bits(actions: Actions, operation: str) -> int:
    return sum(count for action, count in actions.items() if action.operation.startswith(operation))


def _ppu(layer: Layer, plan: LayerPlan, shapes: NetworkShapes, config: HardwareConfig) -> Actions:
    """Return the work behind the accumulators: zero points, requantization, activation, output format."""
    output = shapes.meta.tensors[layer.output]
    form = formats.get(output.format)
    float_acc = plan.summation.kind == "float32"
    zero_point = shapes.zero_points.get(layer.output, np.zeros((), np.int64))
    by_threshold = layer.activation == "threshold"
    channels = output.shape[-1]
    stage = OutputStage(
        rounding=layer.rounding,
        scale=None if layer.rounding is None else np.array(ANY_FACTOR),
        format=form,
        zero_point=np.zeros_like(zero_point) if by_threshold else zero_point,
        output_scale=np.ones(()),
        activation=layer.activation,
        clamp=None if layer.clamp is None else (layer.clamp.low, layer.clamp.high),
        thresholds=_thresholds(layer, shapes, channels) if by_threshold else None,
    )
    rows = math.prod(output.shape[:-1])
    try:
        work = stage_actions(rows, channels, stage, config.ppu, plan.acc_bits, float_acc=float_acc)
    except AccelsimError as error:
        raise type(error)(f"layer {layer.name!r}: {error}") from None
    return work + _zero_point_work(layer, plan, shapes)


def _thresholds(layer: Layer, shapes: NetworkShapes, channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    shape = (shapes.parameters or {}).get(f"layers/{layer.name}/thresholds", (channels, 1))
    return np.broadcast_to(np.arange(shape[-1], dtype=np.int64), shape).copy()


def _zero_point_work(layer: Layer, plan: LayerPlan, shapes: NetworkShapes) -> Actions:
    """Return what taking off data-dependent zero-point terms costs (accelsim.ppu.zero_point)."""
    w = shapes.zero_points.get(weight_name(layer), np.zeros((), np.int64))
    a = shapes.zero_points.get(layer.input, np.zeros((), np.int64))
    by_row, by_column = bool(w.any()), isinstance(layer, MatmulMeta) and bool(a.any())
    rows, columns = plan.shape.m - by_column, plan.shape.n - by_row
    outputs = plan.shape.batch * rows * columns
    counts: dict[Action, int] = {}
    if by_row:
        counts[Action("ppu", "mult", (plan.acc_bits, plan.widths.w))] = outputs if w.ndim else plan.shape.batch * rows
    if by_column:
        action = Action("ppu", "mult", (plan.acc_bits, plan.widths.a))
        counts[action] = counts.get(action, 0) + plan.shape.batch * columns
    if counts:
        counts[Action("ppu", "add", (plan.acc_bits,))] = outputs * (by_row + by_column)
    return Actions(counts)
