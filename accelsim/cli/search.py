"""`accelsim search`."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli.app import ConfigPath, app, path, user_errors
from accelsim.cli.costs import bit_widths
from accelsim.cli.progress import Progress
from accelsim.errors import SearchError

if TYPE_CHECKING:
    from accelsim.search.run import Found


class MeasureName(StrEnum):
    """How a layer's sensitivity is measured."""

    kl = "kl"
    cross_entropy = "cross_entropy"
    noise = "noise"


class FrontCost(StrEnum):
    """What a front trades accuracy for."""

    latency = "latency"
    energy = "energy"
    size = "size"
    bops = "bops"


def _fixed(texts: list[str]) -> dict[str, tuple[int, int]]:
    found = {}
    for text in texts:
        match = re.fullmatch(r"(.+)=(\d{1,2})(?:/(\d{1,2}))?", text)
        if match is None:
            raise SearchError(f"--fix {text!r} is not LAYER=BITS or LAYER=W/A, such as conv1=8")
        found[match[1]] = int(match[2]), int(match[3] or match[2])
    return found


@app.command()
def search(
    config: ConfigPath,
    network: Annotated[
        Path, typer.Argument(metavar="NETWORK", help="A float network (.npz) or a model.", show_default=False)
    ],
    calibration: Annotated[
        int, typer.Option(min=1, metavar="N", help="Choose by the first N inputs; report accuracy on the others.")
    ],
    inputs: Annotated[str | None, typer.Option(metavar="FILE[:ARRAY]", help="A model's data, with labels.")] = None,
    latency: Annotated[str | None, typer.Option(metavar="LIMIT", help="Of one inference: µs, or a share: 70%.")] = None,
    energy: Annotated[str | None, typer.Option(metavar="LIMIT", help="Of one inference: pJ, or a share.")] = None,
    size: Annotated[str | None, typer.Option(metavar="LIMIT", help="Of all weights: bytes, or a share.")] = None,
    bops: Annotated[str | None, typer.Option(metavar="LIMIT", help="HAWQ-V3's bit operations, or a share.")] = None,
    front: Annotated[FrontCost | None, typer.Option(help="Trace the front of accuracy and this cost instead.")] = None,
    points: Annotated[int, typer.Option(min=2, max=1000, help="Points of the front.")] = 8,
    weight_bits: Annotated[str, typer.Option(metavar="BITS", help="Widths of weights: 2..8, or 4,8.")] = "2..8",
    activation_bits: Annotated[str, typer.Option(metavar="BITS", help="Widths of activations.")] = "2..8",
    measure: Annotated[
        MeasureName, typer.Option(help="What sensitivities are, measured on the calibration inputs.")
    ] = (MeasureName.kl),
    sensitivities: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Supplied ones: .csv of losses, .json of Hessian traces.")
    ] = None,
    save_sensitivities: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path, help="Keep what was measured, .csv.")
    ] = None,
    tie: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Layers that share widths: inputs, residual, depthwise.")
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option(metavar="LAYER=W[/A]", help="A layer's widths; may be repeated.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Search by N runs of the whole network instead (Optuna).")
    ] = None,
    storage: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path, help="With --trials: go on from what this file holds.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", parser=path, help="All points, .csv.")
    ] = None,
) -> None:
    """Find the best bit widths of each layer within limits.

    The widths of NETWORK's layers that cost least accuracy within limits on CONFIG.
    """
    with user_errors():
        from accelsim.config.loader import load_config

        hardware = load_config(config)
        given = {"latency": latency, "energy": energy, "size": size, "bops": bops}
        limits = {name: limit for name, limit in given.items() if limit is not None}
        if (front is None) == (not limits) and trials is None:
            raise SearchError(
                "say what to search for: one or more of --latency, --energy, --size, --bops; or --front COST"
            )
        if trials is None and storage is not None:
            raise SearchError("--storage keeps the trials of --trials N; without them there is nothing to keep")
        widths, fixed = (bit_widths(weight_bits), bit_widths(activation_bits)), _fixed(fix or [])
        from accelsim.report.files import check_file_path, save_text
        from accelsim.search.run import Search, frame_of
        from accelsim.search.sensitivity import read_sensitivities
        from accelsim.sweeps.worker import read_network

        for target in (out, save_sensitivities):
            if target is not None and check_file_path(target).suffix.lower() != ".csv":
                raise SearchError(f"{target}: is written as .csv; end the name so")
        floats = read_network(str(network), inputs, None)
        supplied = None if sensitivities is None else read_sensitivities(sensitivities, floats)
        with Progress() as progress:
            whole = Search(
                hardware,
                floats,
                calibration=calibration,
                weight_bits=widths[0],
                activation_bits=widths[1],
                sensitivities=supplied,
                measure=measure.value,
                ties=tie if tie is not None else ["inputs"],
                fixed=fixed,
                progress=progress,
            )
            if trials is not None:
                cost = "energy" if front is None else front.value
                found = whole.blackbox(trials, cost, limits, storage)
            elif front is not None:
                found = whole.front(front.value, points)
            else:
                found = [whole.find(limits)]
            found = [*found, whole.uniform(max(widths[0]), max(widths[1]))]
            if save_sensitivities is not None:
                save_text(whole.sensitivities.frame().to_csv(index=False), save_sensitivities)
        if out is not None:
            save_text(frame_of(found).to_csv(index=False), out)
        _print(found)


def _print(found: list[Found]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("widths", "accuracy", "latency µs", "energy µJ", "weights kB", "GBOPs"):
        table.add_column(title, justify="left" if title == "widths" else "right")
    for each in found:
        real = each.verified
        table.add_row(
            " ".join(map(str, each.widths.values())) if each.label == "found" else f"uniform {each.label}",
            "-" if real.accuracy is None else f"{real.accuracy:.2%}",
            f"{real.latency_us:,.2f}",
            f"{real.energy_pj / 1e6:,.3f}",
            f"{real.size_bytes / 1e3:,.1f}",
            f"{real.bops / 1e9:,.4g}",
        )
    Console().print(table)
    chosen = [each for each in found if each.label == "found"]
    if len(chosen) == 1:
        typer.echo(f"formats: {chosen[0].formats}")
        if chosen[0].verified.overflows:
            typer.echo(f"warning: {chosen[0].verified.overflows} sums did not fit their registers")
