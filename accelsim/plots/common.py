"""What all pictures share: colours that stay the same for the same thing, units, and how a file is written."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.errors import ReportError
from accelsim.report.values import RunReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which readers with any kind of colour vision can tell apart, and lighter mixtures of it.
COMPONENT_COLORS = {
    "mac": "#0072B2",
    "register": "#56B4E9",
    "accumulator": "#A6CEE3",
    "scale_unit": "#CC79A7",
    "decoder": "#E7B8D3",
    "ppu": "#009E73",
    "vector": "#8FD6BD",
    "buffer": "#E69F00",
    "dram": "#D55E00",
    "control": "#999999",
    "leakage": "#666666",
}
CAUSE_COLORS = {
    "compute": "#0072B2",
    "vector": "#009E73",
    "fill": "#56B4E9",
    "load": "#A6CEE3",
    "drain": "#CC79A7",
    "ppu": "#F0E442",
    "dram": "#D55E00",
    "dma": "#E69F00",
    "buffer": "#B8860B",
    "sync": "#999999",
}
SPARE_COLORS = ("#882255", "#44AA99", "#DDCC77", "#332288", "#117733", "#AA4499")

_ENERGY_UNITS = ((1.0, "pJ"), (1e3, "nJ"), (1e6, "µJ"), (1e9, "mJ"), (1e12, "J"))
FORMATS = (".png", ".svg", ".pdf")
LONGEST_NAME = 40
"""Letters of a name in a picture; longer ones lose their middle, since both ends tell layers apart."""


def as_reports(reports: RunReport | Sequence[RunReport]) -> list[RunReport]:
    """Return one report or several as a list. Raises ReportError where there is none."""
    listed = [reports] if isinstance(reports, RunReport) else list(reports)
    if not listed:
        raise ReportError("a picture needs at least one report; none was given")
    return listed


def energy_unit(largest_pj: float, reports: Sequence[RunReport]) -> tuple[float, str]:
    """Return (pJ in the unit, its name) in which `largest_pj` of these reports reads well; "relative" where they are.

    Raises ReportError where some are in pJ and others relative, or relative to different things.
    """
    kinds = {report.energy_table if report.energy_unit == "relative" else "pJ" for report in reports}
    if len(kinds) > 1:
        raise ReportError(f"energies in {' and '.join(sorted(kinds))} cannot share a picture; draw them apart")
    if kinds != {"pJ"}:
        return 1.0, "relative"
    fitting = [unit for unit in _ENERGY_UNITS if largest_pj >= unit[0]]
    return fitting[-1] if fitting else _ENERGY_UNITS[0]


def shortened(name: str) -> str:
    """Return a name as pictures show it, at most `LONGEST_NAME` letters long.

    >>> shortened("model.block_12.expanded_conv.depthwise.BatchNorm.FusedBatchNormV3")
    'model.block_12.expan…rm.FusedBatchNormV3'
    """
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME // 2]}…{name[len(name) - LONGEST_NAME // 2 + 1 :]}"
    return plain(name)


def plain(text: str) -> str:
    r"""Return a text that matplotlib writes as it is: in it a dollar begins no formula.

    >>> plain("$5 a chip, $6 a board")
    '\\$5 a chip, \\$6 a board'
    """
    return text.replace("$", r"\$")


def tables_of(reports: Sequence[RunReport]) -> str:
    """Return the names of the energy tables of these reports, each once, for a label."""
    return plain(", ".join(dict.fromkeys(report.energy_table for report in reports)))


def ink_of(axes: Axes) -> Any:
    """Return the colour in which the axes are labelled: lines of that colour show on light paper and on dark."""
    return axes.xaxis.label.get_color()


def labels_of(reports: Sequence[RunReport], labels: Sequence[str] | None = None) -> list[str]:
    """Return a name for each report: `labels`, or what tells them apart: configuration, trace, energy table, or
    nothing but their order.

    Raises ReportError where there are not as many labels as reports.
    """
    if labels is not None:
        if len(labels) != len(reports):
            raise ReportError(f"{len(labels)} labels for {len(reports)} reports; give one for each")
        return [shortened(label) for label in labels]
    configs, traces = ([shortened(name) for name in names] for names in _names_of(reports))
    both = [f"{config}\n{trace}" for config, trace in zip(configs, traces, strict=True)]
    priced = [f"{name}\n{plain(report.energy_table)}" for name, report in zip(both, reports, strict=True)]
    for names in (configs, traces, both, priced):
        if len(set(names)) == len(reports):
            return names
    return [f"{name}\nrun {place}" for place, name in enumerate(both, start=1)]


def are_told_apart(reports: Sequence[RunReport]) -> bool:
    """Return whether no two reports have the same configuration's and the same trace's name."""
    return len(set(zip(*_names_of(reports), strict=True))) == len(reports)


def _names_of(reports: Sequence[RunReport]) -> tuple[list[str], list[str]]:
    return [report.config_name for report in reports], [report.trace_name for report in reports]


def new_figure(size_inches: tuple[float, float]) -> tuple[Figure, Axes]:
    """Return a figure with one Axes that belongs to no window, whatever backend is configured.

    >>> figure, axes = new_figure((6.0, 3.0))
    >>> figure.get_size_inches().tolist(), axes.figure is figure
    ([6.0, 3.0], True)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_inches)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def save_figure(figure: Figure, path: str | Path) -> Path:
    r"""Write a figure as PNG, SVG or PDF, by the ending of `path`; whole or not at all.

    Raises ReportError for another ending, or where the file cannot be written.

    >>> figure, axes = new_figure((6.0, 3.0))
    >>> lines = axes.plot([8, 4, 2], [1.0, 0.6, 0.4])
    >>> save_figure(figure, "energy.png").read_bytes()[:4]
    b'\x89PNG'
    >>> save_figure(figure, "energy.gif")
    Traceback (most recent call last):
        ...
    accelsim.errors.ReportError: 'energy.gif': pictures are written as .png, .svg, .pdf; end the name in one of these
    """
    target = Path(path)
    check_picture_path(target)
    draft = target.with_name(f".{target.stem}.{uuid.uuid4().hex}{target.suffix}")
    try:
        figure.savefig(draft, dpi=150, bbox_inches="tight", metadata=_UNDATED.get(target.suffix.lower()))
        draft.replace(target)
    except OSError as error:
        raise ReportError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return target


# Equal pictures are equal files.
_UNDATED: dict[str, dict[str, str | None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def check_picture_path(path: Path) -> None:
    """Raise ReportError where a picture cannot be written to `path`: before the work, not after it."""
    if path.suffix.lower() not in FORMATS:
        raise ReportError(f"{str(path)!r}: pictures are written as {', '.join(FORMATS)}; end the name in one of these")
    if not path.parent.is_dir():
        raise ReportError(f"{path}: there is no folder {path.parent}")
