"""`accelsim plot`: pictures of saved reports."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli.app import app, path, user_errors
from accelsim.errors import ReportError

if TYPE_CHECKING:
    from accelsim.report.values import RunReport


class Picture(StrEnum):
    """What can be drawn."""

    energy = "energy"
    cycles = "cycles"
    roofline = "roofline"
    utilization = "utilization"
    widths = "widths"
    timeline = "timeline"


ONE_REPORT = {Picture.roofline, Picture.utilization, Picture.timeline}
SIZES = {Picture.utilization: (7.0, 5.5), Picture.roofline: (9.0, 5.5), Picture.widths: (9.0, 5.0)}


@app.command()
def plot(
    picture: Annotated[Picture, typer.Argument(help="What to draw.", show_default=False)],
    reports: Annotated[
        list[Path],
        typer.Argument(
            metavar="REPORT...",
            help="Folders of `run --out` (or files of `run --json`); timeline: the file of `run --timeline`.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", parser=path, help="PNG, SVG or PDF.")],
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="utilization: one layer only.")] = None,
) -> None:
    """Draw a picture of saved runs.

    Energy, cycles, a roofline, PE utilization, energy against bit-width, or a timeline.
    """
    with user_errors():
        from accelsim.plots.common import check_picture_path

        check_picture_path(out)
        if layer is not None and picture is not Picture.utilization:
            raise ReportError(f"--layer is for the picture 'utilization'; found {picture.value!r}")
        if picture in ONE_REPORT and len(reports) != 1:
            raise ReportError(f"the picture {picture.value!r} is of one report; found {len(reports)}")
        from accelsim import plots
        from accelsim.report.files import load_report

        if picture is Picture.timeline:
            figure, axes = plots.new_figure((10.0, 4.0))
            plots.timeline(plots.load_timeline(reports[0]), axes)
            typer.echo(str(plots.save_figure(figure, out)))
            return
        loaded = [load_report(folder) for folder in reports]
        if layer is not None:
            try:
                loaded[0].layer(layer)
            except KeyError as error:
                raise ReportError(str(error.args[0])) from None
        from accelsim.plots.common import are_told_apart

        labels = None if are_told_apart(loaded) else [str(folder) for folder in reports]
        figure, axes = plots.new_figure(SIZES.get(picture, (9.0, 1.5 + 0.45 * _bars(loaded))))
        if picture is Picture.energy:
            plots.energy_breakdown(loaded, axes, labels=labels)
        elif picture is Picture.cycles:
            plots.cycle_breakdown(loaded, axes, labels=labels)
        elif picture is Picture.roofline:
            plots.roofline(loaded[0], axes)
        elif picture is Picture.utilization:
            plots.utilization_map(loaded[0], axes, layer)
        else:
            plots.energy_by_width(loaded, axes, labels=labels)
        typer.echo(str(plots.save_figure(figure, out)))


def _bars(reports: list[RunReport]) -> int:
    """Return how many bars a breakdown has: layers of one report, or reports."""
    return min(80, max(3, len(reports[0].layers) if len(reports) == 1 else len(reports)))
