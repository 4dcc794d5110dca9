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


POINTS = 8


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
    points: Annotated[
        int | None, typer.Option(min=2, max=1000, help="With --front: so many points.", show_default=str(POINTS))
    ] = None,
    weight_bits: Annotated[str, typer.Option(metavar="BITS", help="Widths of weights: 2..8, or 4,8.")] = "2..8",
    activation_bits: Annotated[str, typer.Option(metavar="BITS", help="Widths of activations.")] = "2..8",
    measure: Annotated[
        MeasureName | None,
        typer.Option(help="What sensitivities are, measured on the calibration inputs.", show_default="kl"),
    ] = None,
    sensitivities: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Supplied ones: .csv of losses, .json of Hessian traces.")
    ] = None,
    save_sensitivities: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path, help="Keep what was measured, .csv.")
    ] = None,
    tie: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="What shares a width: inputs, residual, depthwise, operands; may be repeated.",
            show_default="inputs",
        ),
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
        cost = _cost(limits, None if front is None else front.value, trials)
        _check_options(front, points, trials, storage, measure, sensitivities)
        widths, fixed = (bit_widths(weight_bits), bit_widths(activation_bits)), _fixed(fix or [])
        from accelsim.report.files import check_file_path, save_text
        from accelsim.search.run import Search, frame_of, on_front
        from accelsim.search.sensitivity import read_sensitivities
        from accelsim.sweeps.worker import read_network

        for target in (out, save_sensitivities):
            if target is not None and check_file_path(target).suffix.lower() != ".csv":
                raise SearchError(f"{target}: is written as .csv; end the name so")
        floats = read_network(str(network), inputs, None)
        supplied = None if sensitivities is None else read_sensitivities(sensitivities, floats, widths[0])
        with Progress() as progress:
            whole = Search(
                hardware,
                floats,
                calibration=calibration,
                weight_bits=widths[0],
                activation_bits=widths[1],
                sensitivities=supplied,
                measure="kl" if measure is None else measure.value,
                ties=tie,
                fixed=fixed,
                progress=progress,
            )
            if trials is not None:
                found = whole.blackbox(trials, cost, limits, storage)
            elif front is not None:
                found = whole.front(cost, POINTS if points is None else points)
            else:
                found = [whole.find(limits)]
            found = [*found, whole.uniform(max(widths[0]), max(widths[1]))]
            if save_sensitivities is not None:
                save_text(whole.sensitivities.frame().to_csv(index=False), save_sensitivities)
        flags = on_front(found, [cost])
        if out is not None:
            save_text(frame_of(found, [cost]).to_csv(index=False), out)
        _print(found, flags)


def _cost(limits: dict[str, str], front: str | None, trials: int | None) -> str:
    """Return the cost that accuracy is traded for. Raises SearchError where options do not say, or contradict."""
    if front is not None and limits and trials is None:
        given = " and ".join(f"--{name}" for name in limits)
        raise SearchError(
            f"--front {front} traces the whole front, from the cheapest to the widest, and takes no limit: leave out "
            f"{given}, or --front; --trials N searches a front within limits"
        )
    if front is not None:
        return front
    if not limits:
        raise SearchError("say what to search for: one or more of --latency, --energy, --size, --bops; or --front COST")
    if trials is not None and len(limits) > 1:
        raise SearchError(
            f"--trials trades accuracy for one cost, and {len(limits)} are limited: say for which, --front "
            f"{next(iter(limits))}"
        )
    return next(iter(limits))


def _check_options(
    front: FrontCost | None,
    points: int | None,
    trials: int | None,
    storage: Path | None,
    measure: MeasureName | None,
    sensitivities: Path | None,
) -> None:
    """Raise SearchError for an option that says nothing beside the others."""
    if trials is None and storage is not None:
        raise SearchError("--storage keeps the trials of --trials N; without them there is nothing to keep")
    if points is not None and (front is None or trials is not None):
        raise SearchError("--points are those of --front COST without --trials; leave it out")
    if measure is not None and sensitivities is not None:
        raise SearchError(
            "--measure says how sensitivities are measured, and --sensitivities supplies them: leave one out"
        )


def _print(found: list[Found], flags: list[bool]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("widths", "accuracy", "latency µs", "energy µJ", "weights kB", "GBOPs", "on front"):
        table.add_column(title, justify="left" if title == "widths" else "right")
    for each, flag in zip(found, flags, strict=True):
        real = each.verified
        table.add_row(
            " ".join(map(str, each.widths.values())) if each.label == "found" else f"uniform {each.label}",
            "-" if real.accuracy is None else f"{real.accuracy:.2%}",
            f"{real.latency_us:,.2f}",
            f"{real.energy_pj / 1e6:,.3f}",
            f"{real.size_bytes / 1e3:,.1f}",
            f"{real.bops / 1e9:,.4g}",
            "yes" if flag else "no",
        )
    Console().print(table)
    chosen = [each for each in found if each.label == "found"]
    if len(chosen) == 1:
        typer.echo(f"formats: {chosen[0].formats}")
        if chosen[0].verified.overflows:
            typer.echo(f"warning: {chosen[0].verified.overflows} sums did not fit their registers")
