"""Pictures as SVG inside the page: they take the page's colours, light or dark, and need no other file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

from accelsim.plots import cycle_breakdown, energy_breakdown, new_figure, roofline, timeline, utilization_map
from accelsim.report.values import RunReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#010203"
"""What is drawn in this colour takes that of the page's text; no picture uses it otherwise."""


JOINED = 600
"""Slices of one layer closer to one another than this part of the run are drawn as one: nobody could see the gap."""


def pictures(report: RunReport, run_in_time: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
    """Return (title, SVG element) of every picture of the page.

    run_in_time : a timeline (`accelsim.plots.load_timeline`), which is drawn last
    """
    bars = 1.4 + 0.34 * min(len(report.layers), 80)
    drawings: list[tuple[str, tuple[float, float], Callable[[Axes], object]]] = [
        ("Where the energy went", (6.8, bars), lambda axes: energy_breakdown(report, axes)),
        ("Where the cycles went", (6.8, bars), lambda axes: cycle_breakdown(report, axes)),
        ("Roofline", (6.8, 4.4), lambda axes: roofline(report, axes)),
        ("Which PEs work", (5.6, 4.4), lambda axes: utilization_map(report, axes)),
    ]
    if run_in_time is not None:
        document = joined_slices(run_in_time)
        tracks = sum(event["name"] == "thread_name" for event in document["traceEvents"])
        size = (10.5, 1.2 + 0.5 * tracks)
        drawings.append(("What happened when", size, lambda axes: timeline(document, axes)))
    return [(title, _svg(place, size, draw)) for place, (title, size, draw) in enumerate(drawings)]


def joined_slices(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the timeline with a layer's slices on one track joined where the gap between them is too small to see.

    >>> layer = {"ph": "X", "name": "compute", "cat": "tile", "pid": 0, "tid": 0, "args": {"layer": "conv1"}}
    >>> slices = [{**layer, "ts": start, "dur": 9.0} for start in (0.0, 10.0, 50.0)]  # in microseconds
    >>> run = {"otherData": {"clock_mhz": 1.0, "makespan_cycles": 1000}, "traceEvents": slices}
    >>> [(each["ts"], each["dur"]) for each in joined_slices(run)["traceEvents"]]  # of 1000, a gap of 1 is not seen
    [(0.0, 19.0), (50.0, 9.0)]
    """
    meta = document["otherData"]
    gap = meta["makespan_cycles"] / meta["clock_mhz"] / JOINED
    kept: list[dict[str, Any]] = []
    last: dict[tuple[Any, ...], dict[str, Any]] = {}  # of each track, the slice that ended last
    for event in sorted(document["traceEvents"], key=lambda event: event.get("ts", 0.0)):
        if event["ph"] != "X":
            kept.append(event)
            continue
        track, kind = (event["pid"], event["tid"]), (event["cat"] == "wait", event["args"]["layer"])
        before = last.get(track)
        if before is not None and before["kind"] == kind and event["ts"] - before["ts"] - before["dur"] <= gap:
            before["dur"] = max(before["dur"], event["ts"] + event["dur"] - before["ts"])
        else:
            last[track] = {**event, "kind": kind}
            kept.append(last[track])
    return {**document, "traceEvents": kept}


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
