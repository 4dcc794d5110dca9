"""The walk over the layers: one layer from its inputs to its report, through all stages.

Memory is bounded by the largest layer and the tensors that a later layer still needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Actions
from accelsim.config.model import HardwareConfig
from accelsim.energy.account import energy_account
from accelsim.energy.data_aware import data_aware_account
from accelsim.energy.table import EnergyTable
from accelsim.energy.upkeep import upkeep_actions
from accelsim.engine.contract import ComputeResult, Engine
from accelsim.engine.piecewise import piecewise_activity
from accelsim.engine.watched import watch_layer, why_not_watched
from accelsim.errors import AccelsimError
from accelsim.formats.spec import QTensor
from accelsim.mapping.contract import CycleCounts, GemmOperands, GemmShape, LayerPlan
from accelsim.mapping.direct import direct_accumulators
from accelsim.mapping.lower import lower
from accelsim.mapping.plan import plan_operands
from accelsim.mapping.vector import operand_of, vector_cycles
from accelsim.memory.costs import array_actions, upkeep_cycles
from accelsim.memory.costs import traffic_actions as tile_traffic
from accelsim.memory.needs import network_needs
from accelsim.memory.network import NetworkTime, network_shares
from accelsim.memory.pieces import array_pieces
from accelsim.operators.registry import get as get_operator
from accelsim.operators.spec import TensorSpec
from accelsim.ppu.pipeline import OutputStage, post_process, rule_in_force
from accelsim.ppu.reference import post_process_reference
from accelsim.ppu.zero_point import apply_zero_points
from accelsim.report.accuracy import compare, fake_quant_distance, network_accuracy
from accelsim.report.fake_quant import fake_layer, on_grid
from accelsim.report.findings import NetworkAccuracy, OverflowReport
from accelsim.report.values import LayerReport
from accelsim.simulation.codes import codes_and_scales, differing_codes, quantization_steps
from accelsim.simulation.matrix import (
    idle_report,
    operand_names,
    output_stage,
    register_report,
    useful_macs,
    without_padding,
)
from accelsim.simulation.notes import spill_notes
from accelsim.trace.reader import Trace
from accelsim.trace.schema import Conv2dMeta, Layer, Step, VectorMeta

InspectCallback = Callable[[str, GemmOperands, LayerPlan], None]
"""Called with (layer name, operands, plan) before a layer runs: for waveforms."""

Float32 = NDArray[np.float32]
Bias = NDArray[np.int64] | Float32


class Walk:
    """One walk over a trace; between layers it keeps the tensors that are alive, integer and fake-quantized."""

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
        self.spills = spill_notes(self.shares, config)
        self.exponent_spans = (0, 0)  # the largest of any layer: what the machine is built for
        self.final_layer = next(layer.name for layer in trace.layers if layer.output == trace.outputs[-1])
        self.last_use = {name: i for i, layer in enumerate(trace.layers) for name in _tensors_read(layer)}

    def layer(self, index: int, layer: Layer) -> LayerReport:
        """Compute one layer from its inputs to its report; forget the tensors that nobody needs any more."""
        config, trace = self.config, self.trace
        first, second = operand_names(layer)
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
        corrected = without_padding(corrected, lowered, plan)
        stage = output_stage(layer, trace, lowered.operands)
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
            macs=useful_macs(lowered),
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
                psum=register_report(layer, lowered, computed.psum, config.array.psum, psum_cycle),
                accumulator=register_report(
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
            mismatches=None if expected is None else differing_codes(output, expected),
            verified=verified,
            rounding=rule_in_force(layer.rounding, config.ppu),
            rounding_requested=layer.rounding,
            accuracy=None if reference is None else compare(reference, output.dequantize()),
            fake_quant=fake_quant_distance(fake, output.dequantize(), quantization_steps(output)),
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
            output = trace.output_tensor(layer, *codes_and_scales(operator.run(inputs, spec, attributes), spec.shape))
        verified = None
        if self.verify:
            again = codes_and_scales(operator.oracle(inputs, spec, attributes), spec.shape)
            verified = differing_codes(output, trace.output_tensor(layer, *again))
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
                psum=idle_report(config.array.psum),
                accumulator=idle_report(config.accumulator),
                output_clamp=0,
            ),
            output_codes=output.codes,
            output_block_scales=output.block_scales,
            mismatches=None if expected is None else differing_codes(output, expected),
            verified=verified,
            accuracy=None if reference is None else compare(reference, output.dequantize()),
            fake_quant=fake_quant_distance(fake, output.dequantize(), quantization_steps(output)),
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
        first, second = operand_names(layer)
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
        for name in _tensors_read(layer):
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
        return differing_codes(output, self.trace.output_tensor(layer, codes, block_scales))


@contextmanager
def _naming(layer: Step) -> Iterator[None]:
    """Put the layer's name before the message of an error."""
    try:
        yield
    except AccelsimError as error:
        raise type(error)(f"layer {layer.name!r}: {error}") from None


def _tensors_read(layer: Step) -> tuple[str, ...]:
    """Return the names of all tensors that a layer reads."""
    return layer.inputs if isinstance(layer, VectorMeta) else operand_names(layer)
