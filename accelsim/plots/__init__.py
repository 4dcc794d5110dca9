"""Pictures of reports: each is a function that takes reports and a matplotlib Axes, and returns the Axes.

    from accelsim import plots
    figure, axes = plt.subplots()
    plots.energy_breakdown(report, axes)

`accelsim plot KIND` draws the same to a PNG or SVG file. matplotlib is loaded when a picture is drawn.
"""

from __future__ import annotations

from accelsim.plots.breakdown import cycle_breakdown, energy_breakdown
from accelsim.plots.common import new_figure, save_figure
from accelsim.plots.prices import price_by_capacity, price_by_width, prices_figure
from accelsim.plots.roofline import roof_points, roofline
from accelsim.plots.timeline import load_timeline, timeline
from accelsim.plots.utilization import pe_utilization, utilization_map
from accelsim.plots.widths import energy_by_width

__all__ = [
    "cycle_breakdown",
    "energy_breakdown",
    "energy_by_width",
    "load_timeline",
    "new_figure",
    "pe_utilization",
    "price_by_capacity",
    "price_by_width",
    "prices_figure",
    "roof_points",
    "roofline",
    "save_figure",
    "timeline",
    "utilization_map",
]
