"""`accelsim costs`."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from accelsim.cli.app import ConfigPath, app, path, user_errors
from accelsim.cli.progress import Progress
from accelsim.errors import SearchError


class CostName(StrEnum):
    """Costs that a layer has."""

    latency = "latency"
    energy = "energy"
    edp = "edp"


def bit_widths(text: str) -> list[int]:
    """Return the widths of ``2..8``, ``4,8`` or ``4``. Raises SearchError for anything else.

    >>> bit_widths("2..4,8")
    [2, 3, 4, 8]
    """
    found: set[int] = set()
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,3})\s*(?:(?:\.\.|-)\s*(\d{1,3})\s*)?", part)
        if ends is None or (ends[2] is not None and int(ends[2]) < int(ends[1])):
            raise SearchError(f"widths {text!r}: {part.strip()!r} is no width; write 2..8, or 4,8")
        found |= set(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
    return sorted(found)


@app.command()
def costs(
    config: ConfigPath,
    network: Annotated[
        Path, typer.Argument(metavar="NETWORK", help="A trace, a float network, a model, or a table of shapes (.csv).")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", parser=path, help="The table, .csv or .parquet.")],
    inputs: Annotated[
        str | None,
        typer.Option(metavar="FILE[:ARRAY]", help="A model's data: measure the SQNR of activations on them."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="With --inputs: only the first N.")] = 16,
    weight_bits: Annotated[str, typer.Option(metavar="BITS", help="Widths of weights: 2..8, or 4,8.")] = "2..8",
    activation_bits: Annotated[str, typer.Option(metavar="BITS", help="Widths of activations.")] = "2..8",
    outputs: Annotated[
        str, typer.Option(metavar="BITS", help="Width of what layers put out; same: as inputs.")
    ] = "same",
    haq: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path, help="HAQ's lookup table too, .npy [layers, 8, 8].")
    ] = None,
    haq_cost: Annotated[CostName, typer.Option(help="What the HAQ table holds: µs, pJ, or their product.")] = (
        CostName.latency
    ),
    hawq: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path, help="HAWQ's columns by width too, .json or .py.")
    ] = None,
) -> None:
    """Tabulate what each layer costs on CONFIG at each bit width.

    NETWORK's layers at each pair of weight and activation widths: for mixed-precision searches.
    """
    with user_errors():
        from accelsim.config.loader import load_config

        hardware = load_config(config)
        widths = bit_widths(weight_bits), bit_widths(activation_bits)
        wanted: int | Literal["same"] = "same" if outputs == "same" else bit_widths(outputs)[0]
        from accelsim.search.costs import cost_table
        from accelsim.search.exports import check_targets, haq_array, hawq_columns, save_costs, save_haq, save_hawq
        from accelsim.search.subject import open_subject

        check_targets(out, haq, hawq)
        with Progress() as progress:
            subject = open_subject(network, inputs, config=hardware, batch=batch)
            table = cost_table(
                hardware,
                subject.shapes,
                *widths,
                outputs=wanted,
                values=subject.values,
                activations=subject.activations,
                floats=subject.floats,
                progress=progress,
            )
        if haq is not None:  # what cannot be laid out is said before anything is written
            haq_array(table, haq_cost.value)
        if hawq is not None:
            hawq_columns(table)
        written = [save_costs(table, out)]
        if haq is not None:
            written.append(save_haq(table, haq, haq_cost.value))
        if hawq is not None:
            written.append(save_hawq(table, hawq))
        pairs = f"{len(table.weight_bits)} x {len(table.activation_bits)} pairs of widths"
        typer.echo(f"{', '.join(map(str, written))}: {len(table.layers)} layers x {pairs}")
        for note in table.notes:
            typer.echo(f"  {note}")
