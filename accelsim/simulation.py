"""One run, layer after layer: the stages meet here, and nothing else happens here.

Memory is bounded by the largest layer, the tensors that a later layer still needs, and the output codes that the report
keeps (`KEPT_OUTPUTS_BYTES`, unless the caller asks for all).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Actions
from accelsim.config.model import HardwareConfig, Register
from accelsim.energy.account import energy_account
from accelsim.energy.area import area_report
from accelsim.energy.data_aware import data_aware_account
from accelsim.energy.scaling import configured_table, table_notes
from accelsim.energy.table import EnergyTable
from accelsim.energy.upkeep import upkeep_actions
from accelsim.engine import get_engine
from accelsim.engine.contract import ComputeResult, Engine, RegisterWatch
from accelsim.engine.piecewise import piecewise_activity
from accelsim.engine.watched import watch_layer, why_not_watched
from accelsim.errors import AccelsimError
from accelsim.formats.spec import FLOATING, Codes, QTensor
from accelsim.mapping.contract import CycleCounts, GemmOperands, GemmShape, LayerPlan
from accelsim.mapping.direct import direct_accumulators
from accelsim.mapping.lower import LoweredLayer, lower
from accelsim.mapping.plan import plan_operands
from accelsim.mapping.vector import operand_of, vector_cycles
from accelsim.memory.contract import Timeline
from accelsim.memory.costs import array_actions, upkeep_cycles
from accelsim.memory.costs import traffic_actions as tile_traffic
from accelsim.memory.needs import network_needs
from accelsim.memory.network import NetworkTime, Share, has_memory, network_shares, network_time
from accelsim.memory.pieces import array_pieces
from accelsim.operators.registry import get as get_operator
from accelsim.operators.spec import Blocked, TensorSpec
from accelsim.ppu.padding import subtract_padding
from accelsim.ppu.pipeline import OutputStage, post_process, rule_in_force
from accelsim.ppu.reference import post_process_reference
from accelsim.ppu.zero_point import Corrected, apply_zero_points
from accelsim.progress import ProgressCallback, layer_progress
from accelsim.report.accuracy import compare, count_mismatches, fake_quant_distance, network_accuracy
from accelsim.report.fake_quant import fake_layer, on_grid
from accelsim.report.findings import NetworkAccuracy, OverflowPlace, OverflowReport, RegisterReport
from accelsim.report.timing import TimelineSummary
from accelsim.report.values import LayerReport, RunReport
from accelsim.trace.reader import Trace
from accelsim.trace.schema import Conv2dMeta, Layer, MatmulMeta, Step, VectorMeta

InspectCallback = Callable[[str, GemmOperands, LayerPlan], None]
"""Called with (layer name, operands, plan) before a layer runs: for waveforms."""

LayerCallback = Callable[[LayerReport], None]
"""Called with each layer's report, output codes included, as soon as the layer is done."""
TimelineCallback = Callable[[Timeline], None]
"""Called with the run's timeline, slices and counters included, before the first layer runs."""
KeepOutputs = Literal["auto", "all", "last", "none"]

KEPT_OUTPUTS_BYTES = 256 << 20
"""With keep_outputs="auto", output codes of all layers stay in the report up to this size together."""

Float32 = NDArray[np.float32]
Bias = NDArray[np.int64] | Float32

ASSUMPTIONS = (
    "cycles: stall-free array and buffers, layers one after another (docs/timing.md)",
    "memory: tiles that fit the buffers, planned for little traffic (docs/memory.md); an operand is read from its "
    "buffer for every pass that uses it; a buffer's capacity sets the price of a bit",
    "energy: modelled, counted actions times the prices of the named table (docs/energy.md)",
)
MEMORY_ASSUMPTIONS = (
    "cycles: layers are cut into tiles that fit the buffers; transfers hide behind computing where they can, and what "
    "does not hide is charged to what the array waits for (docs/memory.md)",
    "memory: DRAM moves whole bursts at its pins' bandwidth, in an order fixed before the run, without refresh or row "
    "misses; an operand is read from its buffer for every pass that uses it",
    ASSUMPTIONS[2],
)


def simulate(
    config: HardwareConfig,
    trace: Trace,
    engine: Literal["auto", "fast", "stepped"] = "auto",
    *,
    watch: bool = True,
    extremes: bool = True,
    threads: int = 1,
    verify: bool = False,
    activity: bool = False,
    progress: ProgressCallback | bool | None = None,
    inspect: InspectCallback | None = None,
    keep_outputs: KeepOutputs = "auto",
    layer_done: LayerCallback | None = None,
    timeline_done: TimelineCallback | None = None,
) -> RunReport:
    """Run every layer of a trace on the configured hardware.

    config : the accelerator (:func:`accelsim.load_config`)
    trace : the quantized layers (:func:`accelsim.load_trace`, or ``TraceBuilder.build()``)
    engine : "stepped" moves every register in every cycle; "fast" uses closed forms and exact products; "auto" is
        "fast". All give the same numbers
    watch : watch every addition; False lets the fast engine prove overflow impossible where it can, in which case the
        report gives the bound instead of the peak
    extremes : look for the largest sums that registers of unlimited width would have held; False lets the fast engine
        give a bound instead, also where registers overflow, which it counts in any case: twice as fast there
    threads : how many share a layer's rows in the fast engine; numbers do not depend on it. One by default: searches
        and sweeps use a process for each core
    verify : also compute every layer with an independent, slow integer reference, and count differing codes
    activity : also measure what the data do: zero operands, toggles of registers (``layer.activity``), and what the
        work costs then (``layer.data_aware_energy_pj``, beside ``layer.energy_pj``); takes about a third longer
    progress : True: a bar with the layer that runs now, on a terminal or in a notebook; elsewhere a line every ten
        seconds, on stderr. Or a callback, see its type
    inspect, layer_done, timeline_done : callbacks, see their types
    keep_outputs : whose output codes stay in the report: "all" layers', the "last" (those that make the network's
        outputs), "none"; "auto": all up to 256 MiB together, beyond that the last ones, and the report's assumptions
        say so. Digests, counts and distances are of all codes in any case

    Returns a RunReport: ``report.layers[i]`` has ``name``, ``output_codes`` (integers, the output tensor's shape),
    ``cycles`` (by cause), ``energy_pj`` (by component), ``overflow``, ``sqnr_db``.

    Raises UnsupportedLayerError (the hardware lacks what a layer needs; the message names both sides), TraceError (an
    array of the trace is damaged), EnergyTableError (an action has no price); all are AccelsimError, and so is what
    arguments of another kind raise.

    >>> import accelsim
    >>> config = accelsim.load_config("configs/int8_ws.yaml")
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(8)
    >>> report = accelsim.simulate(config, trace)
    >>> [(layer.name, layer.cycles.total, layer.mismatches) for layer in report.layers]
    [('conv1', 260, 0), ('conv2', 3164, 0), ('fc1', 5103, 0), ('fc2', 322, 0)]
    """
    _check_arguments(config, trace, keep_outputs, threads)
    kept, remark = _kept_layers(trace, keep_outputs)
    table = configured_table(config)
    memory = _memory_of(config, trace, timeline_done)
    options = {"watch": watch, "extremes": extremes, "verify": verify, "activity": activity}
    run = _Run(config, trace, get_engine(engine, threads), table, memory, **options, inspect=inspect)
    reports = []
    with layer_progress(progress) as tell:
        for index, layer in enumerate(trace.layers):
            tell(index, len(trace.layers), layer.name)
            report = run.vector(index, layer) if isinstance(layer, VectorMeta) else run.layer(index, layer)
            if layer_done is not None:
                layer_done(report)
            kept_report = report if layer.name in kept else replace(report, output_codes=None, output_block_scales=None)
            reports.append(kept_report)
        tell(len(trace.layers), len(trace.layers), "")
    array, area = config.array, area_report(config, exponent_spans=run.exponent_spans)
    return RunReport(
        config_name=config.name,
        config_digest=config.digest,
        trace_name=trace.name,
        trace_digest=trace.digest,
        engine=run.engine.name,
        clock_mhz=config.clock_mhz,
        peak_macs_per_cycle=array.rows * array.cols * array.lanes,
        area_um2=area.by_component_um2,
        area_node_nm=area.node_nm,
        energy_table=table.name,
        energy_table_digest=table.digest,
        energy_unit=table.unit,
        batch=trace.tensor_meta(trace.inputs[0]).shape[0],
        accuracy=run.accuracy,
        network=next(layer.accuracy for layer in reports if layer.name == run.final_layer),
        timeline=None if memory is None else TimelineSummary.of(memory),
        assumptions=(
            *(ASSUMPTIONS if memory is None else MEMORY_ASSUMPTIONS + memory.notes),
            *table_notes(config),
            *_unmeasured(run.unmeasured),
            *area.notes,
            *run.remarks,
            *remark,
        ),
        layers=tuple(reports),
        config=config.model_dump(mode="json"),
    )


class _Run:
    """The tensors that are alive between layers, integer and fake-quantized."""

    def __init__(
        self,
        config: HardwareConfig,
        trace: Trace,
        engine: Engine,
        table: EnergyTable,
        memory: NetworkTime | None,
        *,
        watch: bool,
        extremes: bool,
        verify: bool,
        activity: bool,
        inspect: InspectCallback | None,
    ) -> None:
        self.config, self.trace, self.engine, self.table, self.memory = config, trace, engine, table, memory
        self.watch, self.extremes, self.verify, self.activity = watch, extremes, verify, activity
        self.inspect = inspect
        self.tensors: dict[str, QTensor] = {}
        self.fake: dict[str, Float32] = {}
        self.accuracy: NetworkAccuracy | None = None
        self.shares = network_shares(network_needs(trace, config), config) if memory is None else memory.shares
        self.unmeasured: list[str] = []  # layers whose psum toggles no engine counted
        self.remarks = _remarks(self.shares, config)
        self.exponent_spans = (0, 0)  # the largest of any layer: what the machine is built for
        self.final_layer = next(layer.name for layer in trace.layers if layer.output == trace.outputs[-1])
        self.last_use = {name: i for i, layer in enumerate(trace.layers) for name in _reads(layer)}

    def layer(self, index: int, layer: Layer) -> LayerReport:
        """Compute one layer from its inputs to its report; forget the tensors that nobody needs any more."""
        config, trace = self.config, self.trace
        first, second = _operands(layer)
        x, weight, bias = self._tensor(first), self._tensor(second), trace.bias(layer)
        lowered = lower(layer, x, weight, bias, config)
        plan = plan_operands(lowered.operands, config, layer=f"layer {layer.name!r}")
        (a_span, w_span), (a_widest, w_widest) = lowered.operands.exponent_spans, self.exponent_spans
        self.exponent_spans = max(a_span, a_widest), max(w_span, w_widest)
        if self.inspect is not None:
            self.inspect(layer.name, lowered.operands, plan)
        pieces = array_pieces(self.shares[index], plan) if self.activity else None
        whole = self.activity and pieces is None
        computed = self.engine.run(lowered.operands, plan, watch=self.watch, extremes=self.extremes, activity=whole)
        if pieces is not None:
            by_piece = piecewise_activity(lowered.operands, pieces, config, self.engine)
            computed = replace(computed, activity=by_piece)
        corrected = apply_zero_points(
            computed.acc,
            w_zero_point=lowered.zero_points.w,
            a_zero_point=lowered.zero_points.a,
            acc_bits=plan.acc_bits,
            overflow=plan.acc_overflow,
            k=plan.shape.k,
            w_bits=plan.widths.w,
            a_bits=plan.widths.a,
        )
        corrected = _without_padding(corrected, lowered, plan)
        stage = _output_stage(layer, trace, lowered.operands)
        with _naming(layer):
            processed = post_process(lowered.assemble(corrected.acc), stage, config.ppu, plan.acc_bits)
        output = trace.output_tensor(layer, processed.codes, processed.block_scales)
        verified = self._verify(layer, x, weight, bias, stage, output) if self.verify else None
        actions = corrected.actions + processed.actions + self._around(index, plan.cycles)
        actions += computed.actions if self.memory is None else array_actions(self.shares[index])
        cycles, core_cycles = self._time(index, computed.cycles)
        with _naming(layer):
            energy = energy_account(actions, self.table)
            by_data = None
            if computed.activity is not None:
                by_data = data_aware_account(actions, computed.activity, plan, self.table)
        if computed.activity is not None and computed.activity.psum_toggles is None:
            self.unmeasured.append(layer.name)
        psum_cycle, accumulator_cycle = self._earliest_cycles(computed, lowered.operands, plan)
        expected, reference = trace.expected(layer.output), trace.reference(layer.output)
        fake = self._fake(layer, x, weight, bias, output)
        self._keep(index, layer, output, fake, reference)
        return LayerReport.build(
            name=layer.name,
            op=layer.op,
            shape=plan.shape,
            macs=_useful_macs(lowered),
            input_format=x.format.name,
            weight_format=weight.format.name,
            output_format=output.format.name,
            cycles=cycles,
            core_cycles=core_cycles,
            peak_macs_per_cycle=plan.rows * plan.cols * plan.lanes / plan.step_cycles,
            clock_mhz=config.clock_mhz,
            actions=actions,
            energy=energy,
            activity=computed.activity,
            data_aware_energy=by_data,
            overflow=OverflowReport(
                psum=_register_report(layer, lowered, computed.psum, config.array.psum, psum_cycle),
                accumulator=_register_report(
                    layer,
                    lowered,
                    computed.accumulator.followed_by(corrected.watch),
                    config.accumulator,
                    accumulator_cycle,
                ),
                output_clamp=processed.saturated,
            ),
            output_codes=output.codes,
            output_block_scales=output.block_scales,
            mismatches=None if expected is None else _differing(output, expected),
            verified=verified,
            rounding=rule_in_force(layer.rounding, config.ppu),
            rounding_requested=layer.rounding,
            accuracy=None if reference is None else compare(reference, output.dequantize()),
            fake_quant=fake_quant_distance(fake, output.dequantize(), _steps(output)),
        )

    def vector(self, index: int, layer: VectorMeta) -> LayerReport:
        """Run an operator of the vector unit."""
        config, trace = self.config, self.trace
        operator = get_operator(layer.operator)
        attributes = operator.attributes.model_validate(layer.attributes)
        tensors = [self._tensor(name) for name in layer.inputs]
        inputs = [operand_of(tensor) for tensor in tensors]
        output_format, scale, zero_point = trace.output_factors(layer)
        spec = TensorSpec(trace.tensor_meta(layer.output).shape, output_format, float(scale), int(zero_point))
        with _naming(layer):
            operator.check(inputs, spec, attributes)
            output = trace.output_tensor(layer, *_parts(operator.run(inputs, spec, attributes), spec.shape))
        verified = None
        if self.verify:
            again = _parts(operator.oracle(inputs, spec, attributes), spec.shape)
            verified = _differing(output, trace.output_tensor(layer, *again))
        work = operator.work(inputs, spec, attributes)
        cycles, core_cycles = self._time(index, CycleCounts(vector=vector_cycles(work, config)))
        actions = work.actions + self._around(index, cycles)
        with _naming(layer):
            energy = energy_account(actions, self.table)
        expected, reference = trace.expected(layer.output), trace.reference(layer.output)
        reals = [
            self.fake.get(name, tensor.dequantize()).astype(np.float64)
            for name, tensor in zip(layer.inputs, tensors, strict=True)
        ]
        fake = on_grid(operator.real(reals, attributes), output)
        self._keep(index, layer, output, fake, reference)
        idle = RegisterWatch(0, None, 0, 0)
        return LayerReport.build(
            name=layer.name,
            op=layer.operator,
            shape=GemmShape(1, math.prod(spec.shape[:-1]), 0, spec.shape[-1]),
            macs=0,
            input_format=tensors[0].format.name,
            weight_format=tensors[1].format.name if len(tensors) > 1 else "-",
            output_format=output_format.name,
            cycles=cycles,
            core_cycles=core_cycles,
            peak_macs_per_cycle=config.array.rows * config.array.cols * config.array.lanes,
            clock_mhz=config.clock_mhz,
            actions=actions,
            energy=energy,
            overflow=OverflowReport(
                psum=_idle_report(idle, config.array.psum),
                accumulator=_idle_report(idle, config.accumulator),
                output_clamp=0,
            ),
            output_codes=output.codes,
            output_block_scales=output.block_scales,
            mismatches=None if expected is None else _differing(output, expected),
            verified=verified,
            accuracy=None if reference is None else compare(reference, output.dequantize()),
            fake_quant=fake_quant_distance(fake, output.dequantize(), _steps(output)),
        )

    def _time(self, index: int, own: CycleCounts) -> tuple[CycleCounts, int]:
        """Return the layer's cycles, and what all cores together spent on it."""
        if self.memory is None:
            return own, own.total
        time = self.memory.timeline.layers[index]
        return time.cycles, time.core_cycles

    def _around(self, index: int, own: CycleCounts) -> Actions:
        """Return the traffic of a layer's tiles, and what the machine costs while the layer runs."""
        traffic = tile_traffic(self.shares[index], self.config)
        if self.memory is None:
            return traffic + upkeep_actions(self.config, own.total, own.array)
        spent = upkeep_cycles(self.memory.timeline.layers[index])
        return traffic + upkeep_actions(self.config, *spent, cores=self.config.cores.count)

    def _tensor(self, name: str) -> QTensor:
        if name not in self.tensors:
            self.tensors[name] = self.trace.tensor(name)
        return self.tensors[name]

    def _fake(self, layer: Layer, x: QTensor, weight: QTensor, bias: Bias | None, output: QTensor) -> Float32:
        """Run the layer's fake-quantized twin; network inputs are the same in both worlds."""
        first, second = _operands(layer)
        fake_x = self.fake.get(first, x.dequantize().astype(np.float32))
        fake_weight = self.fake.get(second, weight.dequantize().astype(np.float32))
        unit = x.scale * weight.scale
        real_bias = None if bias is None else (bias * unit).astype(np.float32)
        thresholds = self.trace.thresholds(layer)
        real_thresholds = None if thresholds is None else thresholds.astype(np.float64) * unit.reshape(-1, 1)
        pad = float(layer.pad_value * x.scale) if isinstance(layer, Conv2dMeta) else 0.0
        return fake_layer(layer, fake_x, fake_weight, real_bias, output, thresholds=real_thresholds, pad=pad)

    def _keep(
        self, index: int, layer: Step, output: QTensor, fake: Float32, reference: NDArray[np.float64] | None
    ) -> None:
        for name in _reads(layer):
            if self.last_use[name] == index:
                self.tensors.pop(name, None)
                self.fake.pop(name, None)
        if layer.output in self.last_use:
            self.tensors[layer.output], self.fake[layer.output] = output, fake
        labels = self.trace.labels
        if layer.name == self.final_layer and labels is not None and len(output.shape) == 2:
            self.accuracy = network_accuracy(reference, output.dequantize(), labels)

    def _earliest_cycles(
        self, computed: ComputeResult, operands: GemmOperands, plan: LayerPlan
    ) -> tuple[int | None, int | None]:
        """Return when a psum, and when an accumulator, overflowed first; the engines say only where."""
        overflows = computed.psum.overflows + computed.accumulator.overflows
        if not (self.watch and overflows) or why_not_watched(operands, plan) is not None:
            return None, None
        watched = watch_layer(operands, plan)
        psum, accumulator = watched.psum.first, watched.accumulator.first
        return (
            None if psum is None else psum.array_cycle,
            None if accumulator is None else accumulator.array_cycle,
        )

    def _verify(
        self,
        layer: Layer,
        x: QTensor,
        weight: QTensor,
        bias: Bias | None,
        stage: OutputStage,
        output: QTensor,
    ) -> int:
        """Return how many output codes differ from the independent integer reference."""
        acc = direct_accumulators(layer, x, weight, bias, self.config)
        codes, block_scales = post_process_reference(acc, stage, self.config.ppu)
        return _differing(output, self.trace.output_tensor(layer, codes, block_scales))


def _memory_of(config: HardwareConfig, trace: Trace, timeline_done: TimelineCallback | None) -> NetworkTime | None:
    """Return the network's time on the machine; None where memory makes no difference."""
    if timeline_done is None and not has_memory(config):
        return None
    images = trace.tensor_meta(trace.inputs[0]).shape[0]
    memory = network_time(network_needs(trace, config), config, images=images, record=timeline_done is not None)
    if timeline_done is not None:
        timeline_done(memory.timeline)
    return memory if has_memory(config) else None


def _kept_layers(trace: Trace, keep: KeepOutputs) -> tuple[set[str], tuple[str, ...]]:
    """Return the layers whose output codes the report keeps, and a remark where it keeps fewer than one may expect."""
    everything = {layer.name for layer in trace.layers}
    last = {layer.name for layer in trace.layers if layer.output in trace.outputs}
    if keep != "auto":
        return {"all": everything, "last": last, "none": set[str]()}[keep], ()
    shapes = [trace.tensor_meta(layer.output).shape for layer in trace.layers]
    size_bytes = sum(math.prod(shape) for shape in shapes) * np.dtype(np.int32).itemsize
    if size_bytes <= KEPT_OUTPUTS_BYTES:
        return everything, ()
    remark = (
        f"outputs: the codes of all layers take {size_bytes:,} bytes, more than {KEPT_OUTPUTS_BYTES:,}; the report "
        f'keeps those of the network\'s outputs (keep_outputs="all" keeps all, --out writes all)'
    )
    return last, (remark,)


def _unmeasured(layers: list[str]) -> tuple[str, ...]:
    """Return what a data-aware report says of psums that no engine measured."""
    if not layers:
        return ()
    return (
        f"energy: psum toggles of {', '.join(layers)} are not measured (the stepped engine does); by data, every other "
        f"bit of these psums is taken to change",
    )


def _check_arguments(config: object, trace: object, keep_outputs: object, threads: object) -> None:
    if not isinstance(config, HardwareConfig):
        raise AccelsimError(
            f"simulate: config is {type(config).__name__}; pass a HardwareConfig, from load_config(path)"
        )
    if not isinstance(trace, Trace):
        raise AccelsimError(f"simulate: trace is {type(trace).__name__}; pass a Trace, from load_trace(path)")
    if keep_outputs not in get_args(KeepOutputs):
        raise AccelsimError(f"simulate: keep_outputs={keep_outputs!r}; use one of {', '.join(get_args(KeepOutputs))}")
    if not isinstance(threads, int) or threads < 1:
        raise AccelsimError(f"simulate: threads={threads!r}; use a whole number from 1 on")


@contextmanager
def _naming(layer: Step) -> Iterator[None]:
    """Put the layer's name before the message of an error."""
    try:
        yield
    except AccelsimError as error:
        raise type(error)(f"layer {layer.name!r}: {error}") from None


def _remarks(shares: Sequence[Sequence[Share]], config: HardwareConfig) -> list[str]:
    """Say which layers' unfinished sums travel to DRAM and back."""
    remedy = "; memory.passes: split would keep them on chip" if config.memory.passes == "whole" else ""
    remarks = []
    for of_layer in shares:
        spilled_bits = sum(int(share.tiling.spill_bits.sum()) for share in of_layer)
        if spilled_bits:
            remarks.append(
                f"memory: layer {of_layer[0].needs.name} moves {spilled_bits // 8:,} bytes of unfinished sums to DRAM "
                "and back, which the accumulator buffer's "
                f"{config.buffers.accumulator.size_bytes:,} cannot keep{remedy}"
            )
    return remarks


def _idle_report(watch: RegisterWatch, register: Register) -> RegisterReport:
    return RegisterReport.from_watch(watch, bits=register.bits, policy=register.overflow, first=None)


def _reads(layer: Step) -> tuple[str, ...]:
    """Return the names of all tensors that a layer reads."""
    return layer.inputs if isinstance(layer, VectorMeta) else _operands(layer)


def _operands(layer: Layer) -> tuple[str, str]:
    """Return the names of what enters the activation port and the weight port."""
    return layer.input, layer.other if isinstance(layer, MatmulMeta) else layer.weight


def _without_padding(corrected: Corrected, lowered: LoweredLayer, plan: LayerPlan) -> Corrected:
    """Return the accumulators less what padding bits added to binary sums, with all that was watched and done."""
    if lowered.padding is None or corrected.acc.dtype != np.int64:
        return corrected
    further = subtract_padding(
        corrected.acc.astype(np.int64, copy=False),
        lowered.padding,
        acc_bits=plan.acc_bits,
        overflow=plan.acc_overflow,
        k=plan.shape.k,
    )
    return Corrected(further.acc, corrected.watch.followed_by(further.watch), corrected.actions + further.actions)


def _output_stage(layer: Layer, trace: Trace, operands: GemmOperands) -> OutputStage:
    """Return what the layer asks of the PPU."""
    factors = trace.requantization(layer)
    acc_shift = operands.blocks.product_shift if operands.blocks is not None else 0
    if operands.summation.kind == "fixed":
        acc_shift = operands.summation.lsb_exponent
    output_format, output_scale, zero_point = trace.output_factors(layer)
    if layer.activation == "threshold":
        zero_point = np.zeros_like(zero_point)  # thresholds make codes as they are; what codes mean is the reader's
    return OutputStage(
        rounding=layer.rounding,
        scale=None if factors is None else factors.scale,
        multiplier=None if factors is None else factors.multiplier,
        shift=None if factors is None else factors.shift,
        format=output_format,
        zero_point=zero_point,
        output_scale=output_scale,
        activation=layer.activation,
        clamp=None if layer.clamp is None else (layer.clamp.low, layer.clamp.high),
        acc_shift=acc_shift,
        thresholds=trace.thresholds(layer),
    )


def _useful_macs(lowered: LoweredLayer) -> int:
    """Return multiply-accumulates that the layer asks for; sums of zero-point corrections are not among them."""
    shape, zero_points = lowered.operands.shape, lowered.zero_points
    rows = shape.m - (zero_points.a is not None)
    cols = shape.n - (zero_points.w is not None)
    return shape.batch * rows * cols * int(lowered.operands.k_valid.sum())


def _register_report(
    layer: Layer, lowered: LoweredLayer, watch: RegisterWatch, register: Register, earliest_cycle: int | None
) -> RegisterReport:
    first = None
    if watch.first is not None:
        index = lowered.output_index(*watch.first.index)
        first = OverflowPlace(layer=layer.name, index=index, k=watch.first.k, value=watch.first.value)
    return RegisterReport.from_watch(
        watch, bits=register.bits, policy=register.overflow, first=first, earliest_cycle=earliest_cycle
    )


def _parts(made: list[Any] | Codes | Blocked, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return what an operator made as codes and block scales."""
    if isinstance(made, Blocked):
        return made.codes, made.block_scales
    return np.asarray(made).reshape(shape), None


def _differing(output: QTensor, expected: QTensor) -> int:
    """Count differing codes and, where there are blocks, differing block scales."""
    count = count_mismatches(output.codes, expected.codes)
    if output.block_scales is not None and expected.block_scales is not None:
        count += count_mismatches(output.block_scales, expected.block_scales)
    return count


def _steps(output: QTensor) -> NDArray[np.float64]:
    """Return the size of a quantization step around each output element: for floats, of its binade."""
    step = np.broadcast_to(output.per_channel(output.scale), output.shape)
    if output.format.datapath not in FLOATING and output.format.blocks is None:
        return np.asarray(step)
    lanes = output.lanes()
    if lanes.exponents is not None:
        step = np.ldexp(step, lanes.exponents)
    factors = lanes.block_factors()
    if factors is None or output.format.blocks is None or output.block_axis is None:
        return np.asarray(step)
    spread = np.repeat(factors, output.format.blocks.size, axis=output.block_axis)
    scales = spread.take(np.arange(output.shape[output.block_axis]), axis=output.block_axis)
    # A vector of zeros has no scale: its step is the smallest one.
    return np.asarray(np.where(scales > 0, scales, 1.0) * step)
