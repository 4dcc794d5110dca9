"""`accelsim search`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli.app import ConfigPath, app, path, user_errors
from accelsim.cli.costs import bit_widths
from accelsim.cli.progress import Progress
from accelsim.errors import SearchError

if TYPE_CHECKING:
    from accelsim.search.run import Point
    from accelsim.search.sensitivity import Measure


POINTS, WIDTHS, BASE = 8, "2..8", "int8"


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


def _fixed_widths(texts: list[str]) -> dict[str, tuple[int, int]]:
    found = {}
    for text in texts:
        match = re.fullmatch(r"(.+)=(\d{1,2})(?:/(\d{1,2}))?", text)
        if match is None:
            raise SearchError(f"--fix {text!r} is not LAYER=BITS or LAYER=W/A, such as conv1=8")
        found[match[1]] = int(match[2]), int(match[3] or match[2])
    return found


def _fixed_formats(texts: list[str]) -> dict[str, str | tuple[str, str]]:
    found: dict[str, str | tuple[str, str]] = {}
    for text in texts:
        layer, equals, names = text.rpartition("=")
        if not layer or not equals:
            raise SearchError(f"--fix {text!r} is not LAYER=FORMAT or LAYER=W/A, such as conv1=int8")
        found[layer] = _pair(names, f"--fix {text!r}")
    return found


def _pair(text: str, where: str) -> str | tuple[str, str]:
    """Return a format's name, or (weights, activations) of ``W/A``."""
    words = [word.strip() for word in text.split("/")]
    if not all(words) or len(words) > 2:
        raise SearchError(f"{where}: {text.strip()!r} is not FORMAT or W/A, such as mx6 or int4/int8")
    return words[0] if len(words) == 1 else (words[0], words[1])


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
    front: Annotated[
        FrontCost | None, typer.Option(help="Trace the front of accuracy and this cost, within limits if any.")
    ] = None,
    points: Annotated[
        int | None, typer.Option(min=2, max=1000, help="With --front: so many points.", show_default=str(POINTS))
    ] = None,
    weight_bits: Annotated[
        str | None, typer.Option(metavar="BITS", help="Widths of weights: 2..8, or 4,8.", show_default=WIDTHS)
    ] = None,
    activation_bits: Annotated[
        str | None, typer.Option(metavar="BITS", help="Widths of activations.", show_default=WIDTHS)
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Choose among these formats instead of widths: int8,mx6,vsq4,int4/int8."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="With --formats: what layers have while others are tried; shares are of it.",
            show_default=BASE,
        ),
    ] = None,
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
            help="What shares a width or format: inputs, residual, depthwise, operands; may be repeated.",
            show_default="inputs",
        ),
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option(metavar="LAYER=W[/A]", help="A layer's widths, or formats; may be repeated.")
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
    """Find the best bit widths, or number formats, of each layer within limits.

    Those of NETWORK's layers that cost least accuracy within limits on CONFIG.
    """
    with user_errors():
        from accelsim.config.loader import load_config

        hardware = load_config(config)
        given = {"latency": latency, "energy": energy, "size": size, "bops": bops}
        limits = {name: limit for name, limit in given.items() if limit is not None}
        cost = _cost(limits, None if front is None else front.value, trials)
        _check_options(front, points, trials, storage, measure, sensitivities)
        if formats is not None or base is not None:
            integers = {
                "--weight-bits": weight_bits,
                "--activation-bits": activation_bits,
                "--bops": bops,
                "--front bops": front == FrontCost.bops or None,
                "--sensitivities": sensitivities,
                "--trials": trials,
            }
            _check_formats(formats, integers)
        widths = bit_widths(weight_bits or WIDTHS), bit_widths(activation_bits or WIDTHS)
        chosen = [_pair(each, "--formats") for each in (formats or "").split(",")] if formats is not None else []
        fixed_widths, fixed_formats = ({}, _fixed_formats(fix or [])) if chosen else (_fixed_widths(fix or []), {})
        from accelsim.report.files import check_file_path, save_text
        from accelsim.search.format_problem import pair_name
        from accelsim.search.format_search import FormatSearch
        from accelsim.search.run import Search, frame_of, on_front
        from accelsim.search.sensitivity import read_sensitivities
        from accelsim.sweeps.worker import read_network

        for target in (out, save_sensitivities):
            if target is not None and check_file_path(target).suffix.lower() != ".csv":
                raise SearchError(f"{target}: is written as .csv; end the name so")
        floats = read_network(str(network), inputs, None)
        supplied = None if sensitivities is None else read_sensitivities(sensitivities, floats, widths[0])
        how: Measure = "kl" if measure is None else measure.value
        with Progress() as progress:
            whole = (
                FormatSearch(
                    hardware,
                    floats,
                    calibration=calibration,
                    formats=chosen,
                    base=_pair(base or BASE, "--base"),
                    measure=how,
                    ties=tie or ("inputs",),
                    fixed=fixed_formats,
                    progress=progress,
                )
                if chosen
                else Search(
                    hardware,
                    floats,
                    calibration=calibration,
                    weight_bits=widths[0],
                    activation_bits=widths[1],
                    sensitivities=supplied,
                    measure=how,
                    ties=tie,
                    fixed=fixed_widths,
                    progress=progress,
                )
            )
            found: list[Point] = []
            if trials is not None and isinstance(whole, Search):
                found += whole.blackbox(trials, cost, limits, storage)
            elif front is not None:
                found += whole.front(cost, points or POINTS, limits)
            else:
                found.append(whole.find(limits))
            found.append(whole.reference())
            if save_sensitivities is not None:
                frame = whole.sensitivities.frame() if isinstance(whole, Search) else whole.frame()
                save_text(frame.to_csv(index=False), save_sensitivities)
        flags = on_front(found, [cost])
        if out is not None:
            save_text(frame_of(found, [cost]).to_csv(index=False), out)
        _print(found, flags)
        if isinstance(whole, FormatSearch):
            for pair, why in whole.nowhere.items():
                typer.echo(f"{pair_name(pair)} is for no layer: {why}")


def _cost(limits: dict[str, str], front: str | None, trials: int | None) -> str:
    """Return the cost that accuracy is traded for. Raises SearchError where options do not say, or contradict."""
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


def _check_formats(formats: str | None, integers: Mapping[str, object]) -> None:
    """Raise SearchError for options that say nothing beside named formats, or without them."""
    if formats is None:
        raise SearchError("--base is the base of --formats LIST; leave it out")
    given = [name for name, value in integers.items() if value is not None]
    if given:
        raise SearchError(
            f"--formats chooses among named formats, and {given[0]} is of integers' widths: leave one out"
        )


def _print(found: list[Point], flags: list[bool]) -> None:
    from rich.table import Table

    from accelsim.report.page import page_console, print_table

    table = Table(box=None, header_style="bold", pad_edge=False)
    rows = [each.row() for each in found]
    integers = "bops" in rows[0]
    what = "widths" if integers else "formats"
    for title in (what, "accuracy", "latency µs", "energy µJ", "weights kB", *["GBOPs"] * integers, "on front"):
        table.add_column(title, justify="left" if title == what else "right")
    for each, row, flag in zip(found, rows, flags, strict=True):
        table.add_row(
            " ".join(each.names) if each.label == "found" else f"uniform {each.label}",
            "-" if row["accuracy"] is None else f"{row['accuracy']:.2%}",
            f"{row['latency_us']:,.2f}",
            f"{row['energy_pj'] / 1e6:,.3f}",
            f"{row['size_bytes'] / 1e3:,.1f}",
            *([f"{row['bops'] / 1e9:,.4g}"] if integers else []),
            "yes" if flag else "no",
        )
    print_table(page_console(), table)
    chosen = [each for each in found if each.label == "found"]
    if len(chosen) == 1:
        typer.echo(f"formats: {chosen[0].formats}")
        if overflows := chosen[0].row()["overflows"]:
            typer.echo(f"warning: {overflows} sums did not fit their registers")
