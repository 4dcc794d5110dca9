"""Where the energy and the cycles went: stacked bars, one a layer of one report, or one a report of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from accelsim.plots.common import (
    CAUSE_COLORS,
    COMPONENT_COLORS,
    SPARE_COLORS,
    as_reports,
    energy_unit,
    labels_of,
    shortened,
    tables_of,
)
from accelsim.report.values import RunReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def energy_breakdown(
    reports: RunReport | Sequence[RunReport], axes: Axes, *, labels: Sequence[str] | None = None
) -> Axes:
    """Draw energy by component: of every layer of one report (the whole batch), or of each report (one inference).

    labels : of several reports, one each; None: what tells them apart

    Returns `axes`. Raises ReportError where there is no report, or not one label for each.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(2)
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), trace)
    >>> from accelsim import plots
    >>> figure, axes = plots.new_figure((6.0, 3.0))  # or plt.subplots()
    >>> axes = plots.energy_breakdown(report, axes)
    >>> axes.get_xlabel()
    'energy, µJ for the batch of 2 (modelled, horowitz45)'
    >>> energy_uj = sum(bar.get_width() for bar in axes.patches)  # all bars together
    >>> bool(abs(energy_uj - report.totals.total_energy_pj / 1e6) < 1e-9)
    True
    """
    listed = as_reports(reports)
    if len(listed) == 1:
        names = [shortened(layer.name) for layer in listed[0].layers]
        bars: list[Mapping[str, float]] = [layer.energy_pj for layer in listed[0].layers]
        what = f"Energy by component, {shortened(listed[0].config_name)} on {shortened(listed[0].trace_name)}"
        per = f"for the batch of {listed[0].batch}"
    else:
        names = labels_of(listed, labels)
        bars = [{name: energy / report.batch for name, energy in report.totals.energy_pj.items()} for report in listed]
        what, per = "Energy of one inference by component", "an inference"
    scale, unit = energy_unit(max(sum(bar.values()) for bar in bars), listed)
    _stack(axes, names, [{key: value / scale for key, value in bar.items()} for bar in bars], COMPONENT_COLORS)
    axes.set_xlabel(f"energy, {unit} {per} (modelled, {tables_of(listed)})")
    axes.set_title(what)
    return axes


def cycle_breakdown(
    reports: RunReport | Sequence[RunReport], axes: Axes, *, labels: Sequence[str] | None = None
) -> Axes:
    """Draw cycles by cause: of every layer of one report, or of each report.

    labels : of several reports, one each; None: what tells them apart

    Returns `axes`. Raises ReportError where there is no report, or not one label for each.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(2)
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), trace)
    >>> from accelsim import plots
    >>> figure, axes = plots.new_figure((6.0, 3.0))  # or plt.subplots()
    >>> axes = plots.cycle_breakdown(report, axes)
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['conv1', 'conv2', 'fc1', 'fc2']
    >>> int(sum(bar.get_width() for bar in axes.patches)) == report.totals.total_cycles  # all bars together
    True
    """
    from matplotlib.ticker import EngFormatter

    listed = as_reports(reports)
    if len(listed) == 1:
        names = [shortened(layer.name) for layer in listed[0].layers]
        bars: list[Mapping[str, float]] = [layer.cycles.by_cause() for layer in listed[0].layers]
        what = f"Cycles by cause, {shortened(listed[0].config_name)} on {shortened(listed[0].trace_name)}"
    else:
        names = labels_of(listed, labels)
        bars = [report.totals.cycles.by_cause() for report in listed]
        what = "Cycles by cause"
    _stack(axes, names, bars, CAUSE_COLORS)
    axes.xaxis.set_major_formatter(EngFormatter())  # 40 k, 2.5 M
    axes.set_xlabel(f"cycles of the array clock, batch of {', '.join(dict.fromkeys(str(r.batch) for r in listed))}")
    axes.set_title(what)
    return axes


def _stack(axes: Axes, names: Sequence[str], bars: Sequence[Mapping[str, float]], colors: Mapping[str, str]) -> None:
    """Draw horizontal stacked bars, the first one on top; parts that are 0 everywhere are left out."""
    places = range(len(names))
    left = [0.0] * len(names)
    spare = iter(SPARE_COLORS * 10)
    for part in bars[0]:
        sizes = [float(bar[part]) for bar in bars]
        if any(sizes):
            axes.barh(places, sizes, left=left, label=part, color=colors.get(part) or next(spare), height=0.75)
        left = [start + size for start, size in zip(left, sizes, strict=True)]
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, max(left) * 1.02 or 1.0)
    if any(left):
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
