"""Pictures as SVG inside the page: they take the page's colours, light or dark, and need no other file."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Any

from accelsim.plots import cycle_breakdown, energy_breakdown, new_figure, roofline, utilization_map
from accelsim.report.values import RunReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#010203"
"""What is drawn in this colour takes that of the page's text; no picture uses it otherwise."""


def pictures(report: RunReport) -> list[tuple[str, str]]:
    """Return (title, SVG element) of every picture of the page."""
    bars = 1.4 + 0.34 * min(len(report.layers), 80)
    drawings: list[tuple[str, tuple[float, float], Callable[[Axes], object]]] = [
        ("Where the energy went", (6.8, bars), lambda axes: energy_breakdown(report, axes)),
        ("Where the cycles went", (6.8, bars), lambda axes: cycle_breakdown(report, axes)),
        ("Roofline", (6.8, 4.4), lambda axes: roofline(report, axes)),
        ("Which PEs work", (5.6, 4.4), lambda axes: utilization_map(report, axes)),
    ]
    return [(title, _svg(place, size, draw)) for place, (title, size, draw) in enumerate(drawings)]


def _svg(place: int, size: tuple[float, float], draw: Callable[[Axes], object]) -> str:
    from matplotlib import rc_context

    ink = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "lines.color"), INK
    )
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": f"picture{place}", "font.family": "sans-serif", **ink}
    with rc_context(style):
        figure, axes = new_figure(size)
        draw(axes)
        figure.patch.set_alpha(0.0)
        for part in figure.axes:
            part.patch.set_alpha(0.0)
        file = StringIO()
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return _alone(text[text.index("<svg") :].replace(INK, "currentColor"), f"p{place}-")


def _alone(svg: str, prefix: str) -> str:
    """Make a picture's identifiers its own, and let its width follow the page."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(xlink:href|href)="#', rf'\1="#{prefix}', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)  # it links to vocabularies on the network
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1])  # type: ignore[index]
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'style="max-width:{width:.0f}pt"', svg, count=1)
