"""`accelsim area`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from accelsim.cli.app import ConfigPath, app, user_errors


@app.command()
def area(
    config: ConfigPath,
    weights: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="Of weights, for the peak rate; default: the ports' integers.")
    ] = None,
    activations: Annotated[str | None, typer.Option(metavar="FORMAT", help="Of activations.")] = None,
    parts: Annotated[bool, typer.Option("--parts", help="Circuit by circuit, not by component.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document only, sources included.")] = False,
) -> None:
    """Print the modelled area of CONFIG's machine, and TOPS per mm2."""
    with user_errors():
        from accelsim.config.loader import load_config

        hardware = load_config(config)
        from accelsim.energy.density import density
        from accelsim.report.area_page import area_document, print_area

        found = density(hardware, weights, activations)
        if as_json:
            typer.echo(json.dumps(area_document(found), indent=2))
        else:
            print_area(found, parts=parts)
