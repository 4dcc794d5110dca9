"""Energy against bit-width, and what it does to the accuracy: one bar a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from accelsim.formats.catalog import get
from accelsim.plots.common import COMPONENT_COLORS, as_reports, energy_unit, ink_of, labels_of, tables_of
from accelsim.report.values import RunReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LINE = "\n"
MANY_RUNS = 8
"""More of them have their names upright."""


def weight_bits(report: RunReport) -> float:
    """Return the mean bits of a weight over the run's multiplications, block scales included."""
    macs = bits = 0.0
    for layer in report.layers:
        if layer.macs:
            macs += layer.macs
            bits += layer.macs * get(layer.weight_format).bits_per_element
    return bits / macs if macs else 0.0


def energy_by_width(
    reports: RunReport | Sequence[RunReport], axes: Axes, *, labels: Sequence[str] | None = None
) -> Axes:
    r"""Draw the energy of one inference by component, a bar a run, sorted by the bits of a weight.

    labels : of the reports, one each; None: what tells them apart

    Where runs know their accuracy, a second axis shows it. Returns `axes`; the second axis is `axes.child_axes[0]` or
    the figure's last. Raises ReportError where there is no report, or not one label for each.

    >>> import accelsim
    >>> from accelsim import plots
    >>> reports = []
    >>> for machine, network in (("int8_ws", "digits_cnn_int8"), ("int4_vsq", "digits_cnn_int4_vsq")):
    ...     trace = accelsim.load_trace(f"traces/{network}.npz").head(2)
    ...     reports.append(accelsim.simulate(accelsim.load_config(f"configs/{machine}.yaml"), trace))
    >>> figure, axes = plots.new_figure((6.0, 3.0))
    >>> axes = plots.energy_by_width(reports, axes)
    >>> [label.get_text() for label in axes.get_xticklabels()]
    ['4.25\nint4_vsq', '8\nint8_ws']
    """
    given = as_reports(reports)
    named = sorted(zip(given, labels_of(given, labels), strict=True), key=lambda pair: weight_bits(pair[0]))
    listed = [report for report, _ in named]
    totals = [report.totals for report in listed]
    scale, unit = energy_unit(max(total.energy_per_inference_pj for total in totals), listed)
    places = list(range(len(listed)))
    bottom = [0.0] * len(listed)
    for component, color in COMPONENT_COLORS.items():
        sizes = [
            total.energy_pj[component] / report.batch / scale for total, report in zip(totals, listed, strict=True)
        ]
        if any(sizes):
            axes.bar(places, sizes, bottom=bottom, color=color, label=component, width=0.7)
        bottom = [start + size for start, size in zip(bottom, sizes, strict=True)]
    many = len(listed) > MANY_RUNS
    ticks = [f"{weight_bits(report):.3g}{': ' if many else LINE}{label}" for report, label in named]
    axes.set_xticks(places, [tick.replace(LINE, " ") if many else tick for tick in ticks], fontsize=8)
    axes.tick_params(axis="x", labelrotation=90 if many else 0)
    axes.set_xlabel("bits of a weight, block scales included; run")
    axes.set_ylabel(f"energy of an inference, {unit} (modelled)")
    axes.set_title(f"Energy against bit-width, {tables_of(listed)}")
    axes.set_ylim(0, max(bottom) * 1.25 or 1.0)
    known = [
        (place, report.accuracy.simulated_accuracy)
        for place, report in zip(places, listed, strict=True)
        if report.accuracy is not None and report.accuracy.simulated_accuracy is not None
    ]
    shown = list(axes.get_legend_handles_labels()[0])
    if known:
        second = axes.twinx()
        where, accuracy = [place for place, _ in known], [100 * value for _, value in known]
        shown += second.plot(where, accuracy, ".--", color=ink_of(axes), linewidth=0.8, label="accuracy")
        second.set_ylabel("accuracy, % (simulated)")
        second.set_ylim(0, 105)
    beside = 1.12 if known else 1.01  # of the second axis and its label
    if shown:
        axes.legend(handles=shown, loc="upper left", bbox_to_anchor=(beside, 1.0), frameon=False, fontsize=8)
    return axes
