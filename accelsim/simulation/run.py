"""One run of a network on a machine: what the caller may ask for, and the report that comes back.

The report keeps output codes up to `KEPT_OUTPUTS_BYTES`, unless the caller asks for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from accelsim.config.model import HardwareConfig
from accelsim.energy.area import area_report
from accelsim.energy.scaling import configured_table, table_notes
from accelsim.engine import get_engine
from accelsim.errors import AccelsimError
from accelsim.memory.contract import Timeline
from accelsim.memory.needs import network_needs
from accelsim.memory.network import NetworkTime, has_memory, network_time
from accelsim.progress import ProgressCallback, layer_progress
from accelsim.report.timing import TimelineSummary
from accelsim.report.values import LayerReport, RunReport
from accelsim.simulation.notes import ASSUMPTIONS, MEMORY_ASSUMPTIONS, unmeasured_note
from accelsim.simulation.walk import InspectCallback, Walk
from accelsim.trace.reader import Trace
from accelsim.trace.schema import VectorMeta

LayerCallback = Callable[[LayerReport], None]
"""Called with each layer's report, output codes included, as soon as the layer is done."""

TimelineCallback = Callable[[Timeline], None]
"""Called with the run's timeline, slices and counters included, before the first layer runs."""

KeepOutputs = Literal["auto", "all", "last", "none"]

KEPT_OUTPUTS_BYTES = 256 << 20
"""With keep_outputs="auto", output codes of all layers stay in the report up to this size together."""


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
    walk = Walk(config, trace, get_engine(engine, threads), table, memory, **options, inspect=inspect)
    reports = []
    with layer_progress(progress) as tell:
        for index, layer in enumerate(trace.layers):
            tell(index, len(trace.layers), layer.name)
            report = walk.vector(index, layer) if isinstance(layer, VectorMeta) else walk.layer(index, layer)
            if layer_done is not None:
                layer_done(report)
            kept_report = report if layer.name in kept else replace(report, output_codes=None, output_block_scales=None)
            reports.append(kept_report)
        tell(len(trace.layers), len(trace.layers), "")
    array, area = config.array, area_report(config, exponent_spans=walk.exponent_spans)
    return RunReport(
        config_name=config.name,
        config_digest=config.digest,
        trace_name=trace.name,
        trace_digest=trace.digest,
        engine=walk.engine.name,
        clock_mhz=config.clock_mhz,
        peak_macs_per_cycle=array.rows * array.cols * array.lanes,
        area_um2=area.by_component_um2,
        area_node_nm=area.node_nm,
        energy_table=table.name,
        energy_table_digest=table.digest,
        energy_unit=table.unit,
        batch=trace.tensor_meta(trace.inputs[0]).shape[0],
        accuracy=walk.accuracy,
        network=next(layer.accuracy for layer in reports if layer.name == walk.final_layer),
        timeline=None if memory is None else TimelineSummary.of(memory),
        assumptions=(
            *(ASSUMPTIONS if memory is None else MEMORY_ASSUMPTIONS + memory.notes),
            *table_notes(config),
            *unmeasured_note(walk.unmeasured),
            *area.notes,
            *walk.spills,
            *remark,
        ),
        layers=tuple(reports),
        config=config.model_dump(mode="json"),
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


def _memory_of(config: HardwareConfig, trace: Trace, timeline_done: TimelineCallback | None) -> NetworkTime | None:
    """Return the network's time on the machine; None where memory makes no difference."""
    if timeline_done is None and not has_memory(config):
        return None
    images = trace.tensor_meta(trace.inputs[0]).shape[0]
    memory = network_time(network_needs(trace, config), config, images=images, record=timeline_done is not None)
    if timeline_done is not None:
        timeline_done(memory.timeline)
    return memory if has_memory(config) else None
