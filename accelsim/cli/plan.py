"""`accelsim plan`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from accelsim.cli.app import ConfigPath, TracePath, app, user_errors


@app.command()
def plan(
    config: ConfigPath,
    trace: TracePath,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document only.")] = False,
    inputs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N inputs of the batch.")
    ] = None,
) -> None:
    """Print how TRACE's layers are cut into tiles for CONFIG, and why.

    Tiles for CONFIG's buffers, the order of the loops, and what crosses to and from DRAM; with several cores, what each
    of them does.
    """
    with user_errors():
        from accelsim.config.loader import load_config

        hardware = load_config(config)
        from accelsim.memory.needs import network_needs
        from accelsim.memory.network import planned_shares
        from accelsim.report.plan_page import plan_document, print_plan
        from accelsim.trace.reader import load_trace

        network = load_trace(trace)
        if inputs is not None:
            network = network.head(inputs)
        layers = network_needs(network, hardware)
        images = network.tensor_meta(network.inputs[0]).shape[0]
        shares, notes = planned_shares(layers, hardware, images=images)
        document = plan_document(hardware, network.name, layers, shares, notes)
        if as_json:
            typer.echo(json.dumps(document, indent=2))
        else:
            print_plan(document)
