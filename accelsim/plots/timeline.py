"""A run in time: what every core, DMA engine, DRAM channel and PPU did when, from the file of ``run --timeline``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.errors import ReportError
from accelsim.plots.common import plain, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Paul Tol's light scheme: neighbours can be told apart, waits stay grey.
LAYER_COLORS = ("#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00")
WAIT_COLOR = "#BBBBBB"
IN_LEGEND = 2 * len(LAYER_COLORS)


def load_timeline(path: str | Path) -> dict[str, Any]:
    """Return the document that ``accelsim run --timeline`` wrote. Raises ReportError where it is something else.

    >>> import accelsim
    >>> from pathlib import Path
    >>> from accelsim.memory.chrome_trace import chrome_trace
    >>> config = accelsim.load_config("configs/int8_ws.yaml")
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> write = lambda run: Path("time.json").write_text(chrome_trace(run, config.clock_mhz))
    >>> report = accelsim.simulate(config, trace, timeline_done=write)
    >>> from accelsim import plots
    >>> document = plots.load_timeline("time.json")  # what `accelsim run --timeline time.json` writes too
    >>> document["otherData"]["makespan_cycles"] == report.timeline.makespan_cycles
    True
    """
    file = Path(path)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except IsADirectoryError:
        raise ReportError(
            f"{file}: a folder; a timeline is the file of 'accelsim run CONFIG TRACE --timeline FILE'"
        ) from None
    except OSError as error:
        raise ReportError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ReportError(f"{file}: not JSON; 'accelsim run CONFIG TRACE --timeline FILE' writes timelines") from None
    if not isinstance(document, dict) or "clock_mhz" not in (document.get("otherData") or {}):
        raise ReportError(f"{file}: not a timeline; 'accelsim run CONFIG TRACE --timeline FILE' writes one")
    if not _is_whole(document):
        raise ReportError(f"{file}: a damaged timeline; 'accelsim run CONFIG TRACE --timeline FILE' writes it anew")
    return document


def _is_whole(document: Mapping[str, Any]) -> bool:
    """Return whether everything that is drawn is there, and is a number where a number is drawn."""

    def number(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

    meta, events = document["otherData"], document.get("traceEvents")
    if not (number(meta["clock_mhz"]) and meta["clock_mhz"] > 0 and number(meta.get("makespan_cycles"))):
        return False
    if not isinstance(events, list):
        return False
    for event in events:
        if not isinstance(event, dict) or "ph" not in event or not isinstance(event.get("name"), str):
            return False
        if event["ph"] == "M" and event["name"] == "thread_name":
            found = isinstance(event.get("args"), dict) and isinstance(event["args"].get("name"), str)
            if not (found and number(event.get("pid")) and number(event.get("tid"))):
                return False
        if event["ph"] == "X":
            found = all(number(event.get(key)) for key in ("pid", "tid", "ts", "dur")) and "cat" in event
            if not (found and isinstance(event.get("args"), dict) and isinstance(event["args"].get("layer"), str)):
                return False
    return True


def timeline(document: Mapping[str, Any], axes: Axes) -> Axes:
    """Draw a timeline's slices, a row a track, in the colour of their layer; waits are grey.

    document : of `load_timeline`. Returns `axes`.

    >>> import accelsim
    >>> from pathlib import Path
    >>> from accelsim.memory.chrome_trace import chrome_trace
    >>> config = accelsim.load_config("configs/int8_ws.yaml")
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> write = lambda run: Path("time.json").write_text(chrome_trace(run, config.clock_mhz))
    >>> report = accelsim.simulate(config, trace, timeline_done=write)
    >>> from accelsim import plots
    >>> figure, axes = plots.new_figure((8.0, 3.0))
    >>> axes = plots.timeline(plots.load_timeline("time.json"), axes)
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['core 0', 'ppu 0', 'dma 0.0', 'dma 0.1', 'dram']
    """
    events = document["traceEvents"]
    tracks = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["ph"] == "M" and event["name"] == "thread_name"
    }
    slices = [event for event in events if event["ph"] == "X"]
    in_time = sorted(slices, key=lambda event: event["ts"])
    layers = [name for name in dict.fromkeys(event["args"]["layer"] for event in in_time) if name]
    colors = {layer: LAYER_COLORS[place % len(LAYER_COLORS)] for place, layer in enumerate(layers)}
    order = sorted(tracks, key=lambda key: (key[0] == 1, key))  # what all cores share goes below them
    for row, track in enumerate(order):
        own = [event for event in slices if (event["pid"], event["tid"]) == track]
        bars = [(event["ts"], event["dur"]) for event in own]
        inks = [
            WAIT_COLOR if event["cat"] == "wait" else colors.get(event["args"]["layer"], WAIT_COLOR) for event in own
        ]
        # An edge of a third of a point: a slice of a few cycles is still seen.
        axes.broken_barh(bars, (row - 0.4, 0.8), facecolors=inks, edgecolors=inks, linewidth=0.3)
    axes.set_yticks(range(len(order)), [tracks[track] for track in order])
    axes.set_ylim(max(1, len(order)) - 0.5, -0.5)
    meta = document["otherData"]
    axes.set_xlim(0, meta["makespan_cycles"] / meta["clock_mhz"] or 1.0)
    axes.set_xlabel(f"time, µs ({meta['makespan_cycles']:,} cycles at {meta['clock_mhz']:g} MHz)")
    axes.set_title(f"Timeline, {plain(str(meta.get('title', 'accelsim')))}")
    for row, track in enumerate(order):
        if tracks[track].startswith("core"):
            _name_spans(axes, row, [event for event in in_time if (event["pid"], event["tid"]) == track])
    from matplotlib.patches import Patch

    shown = [Patch(color=colors[layer], label=shortened(layer)) for layer in layers[:IN_LEGEND]]
    if len(layers) > IN_LEGEND:
        more = f"and {len(layers) - IN_LEGEND} more layers,\nin the same colours again"
        shown.append(Patch(facecolor="none", edgecolor="none", label=more))
    shown += [Patch(color=WAIT_COLOR, label="waits")]
    axes.legend(handles=shown, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return axes


def _name_spans(axes: Axes, row: int, events: Sequence[Mapping[str, Any]]) -> None:
    """Write a layer's name on a core's track where it works long enough: colours repeat, names do not."""
    spans: dict[str, tuple[float, float]] = {}
    for event in events:
        if event["cat"] != "wait" and event["args"]["layer"]:
            begin, end = event["ts"], event["ts"] + event["dur"]
            earlier = spans.get(event["args"]["layer"], (begin, end))
            spans[event["args"]["layer"]] = min(begin, earlier[0]), max(end, earlier[1])
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        # Layers that a core works on by turns share a stretch of time, which is nobody's then.
        alone = not any(begin < other_end and other < end for key, (other, other_end) in spans.items() if key != name)
        if alone:
            text = axes.text(
                (begin + end) / 2, row, shortened(name), ha="center", va="center", fontsize=7, color="black"
            )
            box = text.get_window_extent()
            left, right = (axes.transData.transform((edge, row))[0] for edge in (begin, end))
            if box.width > 0.95 * (right - left):
                text.remove()
