"""Energy against bit-width, and what it does to the accuracy: one bar a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from accelsim.formats.catalog import get
from accelsim.plots.common import COMPONENT_COLORS, as_reports, energy_unit
from accelsim.report.values import RunReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def weight_bits(report: RunReport) -> float:
    """Return the mean bits of a weight over the run's multiplications, block scales included."""
    macs = bits = 0.0
    for layer in report.layers:
        if layer.macs:
            macs += layer.macs
            bits += layer.macs * get(layer.weight_format).bits_per_element
    return bits / macs if macs else 0.0


def energy_by_width(reports: RunReport | Sequence[RunReport], axes: Axes) -> Axes:
    r"""Draw the energy of one inference by component, a bar a run, sorted by the bits of a weight.

    Where runs know their accuracy, a second axis shows it. Returns `axes`; the second axis is `axes.child_axes[0]` or
    the figure's last. Raises ReportError where there is no report.

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
    listed = sorted(as_reports(reports), key=weight_bits)
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
    axes.set_xticks(places, [f"{weight_bits(report):.3g}\n{report.config_name}" for report in listed], fontsize=8)
    axes.set_xlabel("bits of a weight, block scales included; configuration")
    axes.set_ylabel(f"energy of an inference, {unit} (modelled)")
    axes.set_title("Energy against bit-width")
    axes.set_ylim(0, max(bottom) * 1.25)
    axes.legend(loc="upper left", bbox_to_anchor=(1.12, 1.0), frameon=False, fontsize=8)
    known = [
        (place, report.accuracy.simulated_accuracy)
        for place, report in zip(places, listed, strict=True)
        if report.accuracy is not None and report.accuracy.simulated_accuracy is not None
    ]
    if known:
        second = axes.twinx()
        second.plot([place for place, _ in known], [100 * value for _, value in known], "k.--", linewidth=0.8)
        second.set_ylabel("accuracy, % (simulated)")
        second.set_ylim(0, 105)
    return axes
