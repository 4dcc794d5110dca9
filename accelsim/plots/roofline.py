"""The roofline: what each layer attains, under what the array and the memory allow.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures", CACM
52(4), 2009, doi 10.1145/1498765.1498785. Intensity is counted at the DRAM: operations for each byte that crosses it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.plots.common import ink_of, shortened
from accelsim.plots.point_names import name_points
from accelsim.report.estimates import EstimateReport, LayerEstimate
from accelsim.report.values import LayerReport, RunReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class RoofPoint:
    """One layer under the roof. A multiplication and an addition are two operations.

    intensity : operations for each byte of DRAM traffic; infinite where a layer has none (all of it stays on chip)
    attained, peak : operations a second of all cores together, the peak being that of the arrays in the layer's
        formats
    roof : what the layer could attain at most, the lower of peak and intensity * bandwidth. `attained` can be more:
        what is fetched for a layer while the one before it computes, or stored while the next one does, takes none of
        its own cycles
    bound : "compute" or "memory", whichever is the lower: which roof a layer is under, not what it waits for (far below
        the roof that may be something else, such as filling the array: the cycles by cause say it)

    >>> point = RoofPoint("fc", intensity=2.0, attained=1.5e9, peak=1e10, roof=2e9, bound="memory")
    >>> point.attained / point.roof  # of what the memory allows
    0.75
    """

    name: str
    intensity: float
    attained: float
    peak: float
    roof: float
    bound: str


def roof_points(report: RunReport | EstimateReport) -> list[RoofPoint]:
    """Return a point for every layer that multiplies on the array, of a run or of an estimate.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(2)
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), trace)
    >>> from accelsim import plots
    >>> for point in plots.roof_points(report):
    ...     print(point.name, point.bound, f"{point.peak / 1e9:.1f}", point.attained <= point.roof <= point.peak)
    conv1 memory 358.4 True
    conv2 compute 358.4 True
    fc1 memory 358.4 True
    fc2 memory 358.4 True
    """
    bandwidth = bandwidth_bytes_per_s(report)
    cores = 1 if report.timeline is None else len(report.timeline.cores)
    points = []
    for layer in report.layers:
        if layer.macs and layer.total_cycles:
            traffic = dram_bytes(layer)
            intensity = 2 * layer.macs / traffic if traffic else math.inf
            peak = 2 * layer.peak_macs_per_cycle * cores * report.clock_mhz * 1e6
            slope = math.inf if math.isinf(intensity) else intensity * bandwidth
            attained = 2 * layer.macs * cores / layer.core_cycles * report.clock_mhz * 1e6
            points.append(
                RoofPoint(
                    layer.name, intensity, attained, peak, min(peak, slope), "memory" if slope < peak else "compute"
                )
            )
    return points


def dram_bytes(layer: LayerReport | LayerEstimate) -> float:
    """Return the bytes that a layer moves between DRAM and chip, both ways."""
    moves = ("dram_read", "dram_write")  # not the cycles in which it only stands by
    return sum(count for action, count in layer.actions.items() if action.operation.startswith(moves)) / 8


def bandwidth_bytes_per_s(report: RunReport | EstimateReport) -> float:
    """Return the bandwidth of all DRAM channels together; infinite with ideal memory timing."""
    peak = None if report.timeline is None else report.timeline.peak_bytes_per_cycle
    return math.inf if peak is None else peak * report.clock_mhz * 1e6


def roofline(report: RunReport | EstimateReport, axes: Axes) -> Axes:
    """Draw the roof and every layer under it, on logarithmic axes, named where there is room. Returns `axes`.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(2)
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), trace)
    >>> from accelsim import plots
    >>> figure, axes = plots.new_figure((6.0, 3.0))  # or plt.subplots()
    >>> axes = plots.roofline(report, axes)
    >>> sorted(text.get_text() for text in axes.texts)
    ['DRAM, 12.8 GB/s', 'array, 358.4 GOP/s', 'conv1', 'conv2', 'fc1', 'fc2']
    """
    from matplotlib.ticker import LogFormatter

    points, bandwidth = roof_points(report), bandwidth_bytes_per_s(report)
    drawn = [point for point in points if math.isfinite(point.intensity)]
    peaks, ink = sorted({point.peak for point in points}), ink_of(axes)
    low = min((point.intensity for point in drawn), default=1.0) / 4
    high = max((point.intensity for point in drawn), default=100.0) * 4
    if math.isfinite(bandwidth) and peaks:
        low, high = min(low, peaks[0] / bandwidth / 4), max(high, peaks[-1] / bandwidth * 4)
    for peak in peaks:
        label = f"array, {peak / 1e9:,.4g} GOP/s"
        if math.isfinite(bandwidth):
            ridge = peak / bandwidth
            axes.plot(
                [low, ridge, high], [low * bandwidth / 1e9, peak / 1e9, peak / 1e9], "-", color=ink, linewidth=1.2
            )
        else:
            axes.plot([low, high], [peak / 1e9, peak / 1e9], "-", color=ink, linewidth=1.2)
        axes.annotate(label, (high, peak / 1e9), ha="right", va="bottom", fontsize=8)
    for bound, marker, color in (("compute", "o", "#0072B2"), ("memory", "s", "#D55E00")):
        chosen = [point for point in drawn if point.bound == bound]
        if chosen:
            axes.plot(
                [point.intensity for point in chosen],
                [point.attained / 1e9 for point in chosen],
                marker,
                color=color,
                label="under the array's roof" if bound == "compute" else "under the DRAM's roof",
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low / 1.25, high * 1.25)
    if drawn:  # at least a decade, so that small differences look small
        lowest = min(min(point.attained for point in drawn) / 2, peaks[-1] / 20)
        axes.set_ylim(lowest / 1e9, peaks[-1] * 2 / 1e9)
        if math.isfinite(bandwidth):
            at = max(low, lowest / bandwidth) * 1.3  # where the line comes into the picture
            axes.annotate(
                f"DRAM, {bandwidth / 1e9:,.4g} GB/s",
                (at, at * bandwidth / 1e9),
                ha="left",
                va="bottom",
                fontsize=8,
                xytext=(8, -6),
                textcoords="offset points",
            )
    for axis in (axes.xaxis, axes.yaxis):  # 200, not 2 x 10^2
        axis.set_major_formatter(LogFormatter())
        axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.5)))
    axes.set_xlabel("operations for each byte of DRAM traffic")
    axes.set_ylabel("attained, GOP/s (a MAC is two operations)")
    memory = "" if math.isfinite(bandwidth) else " (ideal memory: no bandwidth limit)"
    network = report.trace_name if isinstance(report, RunReport) else report.network_name
    axes.set_title(f"Roofline, {shortened(report.config_name)} on {shortened(network)}{memory}")
    axes.grid(which="both", linewidth=0.3, alpha=0.5)
    if drawn:
        axes.legend(frameon=False, loc="lower right")
    else:
        nothing = "no layer has both products and DRAM traffic"
        axes.annotate(nothing, (0.5, 0.5), xycoords="axes fraction", ha="center")
    _name_layers(report, drawn, axes)
    return axes


def _name_layers(report: RunReport | EstimateReport, drawn: list[RoofPoint], axes: Axes) -> None:
    """Name the points, those that take longest first, and say what a reader would wonder about."""
    cycles = {layer.name: layer.total_cycles for layer in report.layers}
    slowest_first = sorted(drawn, key=lambda point: -cycles[point.name])
    notes = []
    if any(point.attained > point.roof * (1 + 1e-9) for point in drawn):
        notes.append("above the roof: part of a layer's traffic takes the time of the layer before or after it")
    left_out = name_points(axes, [(point.intensity, point.attained / 1e9, point.name) for point in slowest_first])
    if left_out:
        notes.append(f"no room for the names of {left_out} layers")
    if notes:
        axes.annotate(
            "\n".join(notes),
            (0, 0),
            xycoords="axes fraction",
            xytext=(0, -36),
            textcoords="offset points",
            va="top",
            fontsize=7,
        )
