"""`accelsim estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accelsim.cli.app import ConfigPath, app, user_errors


@app.command()
def estimate(
    config: ConfigPath,
    network: Annotated[
        Path, typer.Argument(metavar="NETWORK", help="A trace, a float network, a model, or a table of shapes (.csv).")
    ],
    weights: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Weights of what names no formats: a table, floats.", show_default="int8"),
    ] = None,
    activations: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="Activations, likewise.", show_default="int8")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document only.")] = False,
) -> None:
    """Estimate cycles, traffic and energy from shapes alone.

    Those of NETWORK on CONFIG; no value is computed.
    """
    with user_errors():
        from accelsim.config.loader import load_config

        hardware = load_config(config)
        from accelsim.estimation import check_operand_format, network_shapes
        from accelsim.estimation import estimate as run_estimate
        from accelsim.report.estimate_page import print_estimate

        for option, name in (("--weights", weights), ("--activations", activations)):
            if name is not None:
                check_operand_format(name, option)
        report = run_estimate(hardware, network_shapes(network, weights=weights, activations=activations))
        if as_json:
            typer.echo(report.to_json(indent=2))
        else:
            print_estimate(report)
