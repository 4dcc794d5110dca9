"""An energy table's prices over bit-width and capacity, the published points marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from accelsim.energy.curves import Curve, price_curves
from accelsim.energy.table import EnergyTable
from accelsim.plots.common import ink_of, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = {
    "add": ("#009E73", "-"),
    "mult": ("#0072B2", "-"),
    "semi_serial_mult": ("#CC79A7", "--"),
    "fused_mult": ("#D55E00", "--"),
    "serial_mult": ("#882255", "--"),
    "register_write": ("#999999", "-"),
    "sram_read": ("#E69F00", "-"),
    "sram_write": ("#666666", ":"),
}


def price_by_width(table: EnergyTable, axes: Axes) -> Axes:
    """Draw prices over operand width, both axes logarithmic, published points as circles; what is free is named in the
    legend only. Returns `axes`.

    >>> from accelsim import plots
    >>> from accelsim.energy.table import load_table
    >>> figure, axes = plots.new_figure((6.0, 4.0))
    >>> axes = plots.price_by_width(load_table("horowitz45"), axes)
    >>> axes.get_ylabel(), axes.get_lines()[0].get_label()
    ('energy of an operation, pJ', 'add, n bits (fit)')
    """
    _draw([curve for curve in price_curves(table) if curve.axis == "bits"], axes)
    axes.set_xlabel("operand width n, bits")
    axes.set_ylabel(_price_of(table, "operation"))
    axes.set_title(f"{plain(table.name)}: price over bit-width")
    axes.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    return axes


def price_by_capacity(table: EnergyTable, axes: Axes) -> Axes:
    """Draw the price of an SRAM bit over capacity, likewise. Returns `axes`.

    >>> from accelsim import plots
    >>> from accelsim.energy.table import load_table
    >>> figure, axes = plots.new_figure((6.0, 4.0))
    >>> axes = plots.price_by_capacity(load_table("horowitz45"), axes)
    >>> axes.get_title(), axes.get_xlabel()
    ('horowitz45: price of an SRAM bit', 'capacity of the SRAM')
    """
    _draw([curve for curve in price_curves(table) if curve.axis == "bytes"], axes)
    axes.set_xlabel("capacity of the SRAM")
    axes.set_ylabel(_price_of(table, "bit"))
    axes.set_title(f"{plain(table.name)}: price of an SRAM bit")
    places = [1 << 7, 1 << 10, 1 << 13, 1 << 16, 1 << 20, 1 << 24]
    axes.set_xticks(places, ["128 B", "1 KB", "8 KB", "64 KB", "1 MB", "16 MB"])
    return axes


def prices_figure(table: EnergyTable) -> Figure:
    """Return a figure of both pictures side by side.

    >>> from accelsim import plots
    >>> from accelsim.energy.table import load_table
    >>> figure = plots.prices_figure(load_table("eyeriss65"))  # a table of relative prices
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['price of an operation, relative', 'price of a bit, relative']
    """
    figure, axes = new_figure((12.0, 4.8))
    axes.remove()
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    price_by_width(table, left)
    price_by_capacity(table, right)
    figure.tight_layout()
    return figure


def _price_of(table: EnergyTable, what: str) -> str:
    """Return the label of a price axis; a relative table has no pJ."""
    if table.unit == "relative":
        return f"price of a{'n' if what == 'operation' else ''} {what}, relative"
    return f"energy of a{'n' if what == 'operation' else ''} {what}, pJ"


def _draw(curves: list[Curve], axes: Axes) -> None:
    for curve in curves:
        color, line = _STYLES[curve.operation]
        if "8 x n" in curve.label:
            line = ":"
        if "of 256" in curve.label:
            line = "--"
        drawn = [(place, price) for place, price in zip(curve.places, curve.prices, strict=True) if price > 0]
        label = f"{curve.label} ({curve.mark})" if drawn else f"{curve.label}: 0"
        axes.plot([place for place, _ in drawn], [price for _, price in drawn], line, color=color, label=label)
        points = [point for point in curve.points if point[1] > 0]
        if points:
            places, prices = zip(*points, strict=True)
            axes.plot(places, prices, "o", color=color, fillstyle="none", markersize=8, markeredgewidth=1.5)
    if any(point[1] > 0 for curve in curves for point in curve.points):
        axes.plot([], [], "o", color=ink_of(axes), fillstyle="none", label="published")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    if curves:
        axes.legend(fontsize=8, frameon=False)
    else:
        axes.text(0.5, 0.5, "nothing here is priced", transform=axes.transAxes, ha="center")
    axes.grid(linewidth=0.4, alpha=0.6)
