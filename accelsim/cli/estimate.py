"""`accelsim estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accelsim.cli.app import ConfigPath, app, user_errors


@app.command()
def estimate(
    config: ConfigPath,
    network: Annotated[Path, typer.Argument(metavar="NETWORK", help="A trace, a model, or a table of shapes (.csv).")],
    weights: Annotated[str, typer.Option(metavar="FORMAT", help="A table's weights, where it names none.")] = "int8",
    activations: Annotated[str, typer.Option(metavar="FORMAT", help="A table's activations.")] = "int8",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document only.")] = False,
) -> None:
    """Estimate cycles, traffic and energy from shapes alone.

    Those of NETWORK on CONFIG; no value is computed.
    """
    with user_errors():
        from accelsim.config.loader import load_config

        hardware = load_config(config)
        from accelsim.estimation import estimate as run_estimate
        from accelsim.estimation import network_shapes
        from accelsim.report.estimate_page import print_estimate

        report = run_estimate(hardware, network_shapes(network, weights=weights, activations=activations))
        if as_json:
            typer.echo(report.to_json(indent=2))
        else:
            print_estimate(report)
