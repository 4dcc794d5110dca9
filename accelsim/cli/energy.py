"""`accelsim energy`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from accelsim.cli.app import app, path, user_errors
from accelsim.errors import EnergyTableError


@app.command()
def energy(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A shipped table's name, or a YAML file's path.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document only, sources included.")] = False,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print the table's file only: a start for a table of your own.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path, help="Draw the curves: PNG, SVG or PDF.")
    ] = None,
) -> None:
    """Print TABLE's prices, next to the published points.

    Curves over bit-width and capacity. A table of your own is a YAML file, `energy: {table: mine.yaml}` in the
    configuration; docs/energy.md has the formulas.
    """
    with user_errors():
        if as_json and as_yaml:
            raise EnergyTableError("--json and --yaml are two ways to print a table; choose one")
        if plot is not None:
            from accelsim.plots.common import check_picture_path

            check_picture_path(plot)
        from accelsim.energy.table import load_table, table_yaml
        from accelsim.report.price_page import price_document, print_prices

        found = load_table(table)
        if as_json:
            typer.echo(json.dumps(price_document(found), indent=2))
        elif as_yaml:
            typer.echo(table_yaml(table), nl=False)
        else:
            print_prices(found)
        if plot is not None:
            from accelsim.plots.common import save_figure
            from accelsim.plots.prices import prices_figure

            typer.echo(str(save_figure(prices_figure(found), plot)), err=True)
