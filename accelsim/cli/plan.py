"""`accelsim plan`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from accelsim.cli.app import ActivationFormat, ConfigPath, NetworkPath, WeightFormat, app, user_errors


@app.command()
def plan(
    config: ConfigPath,
    network: NetworkPath,
    weights: WeightFormat = None,
    activations: ActivationFormat = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document only.")] = False,
    inputs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N inputs of a trace's batch.")
    ] = None,
) -> None:
    """Print how NETWORK's layers are cut into tiles for CONFIG, and why.

    Tiles for CONFIG's buffers, the order of the loops, and what crosses to and from DRAM; with several cores, what each
    of them does.
    """
    with user_errors():
        from accelsim.config.loader import load_config

        hardware = load_config(config)
        from accelsim.estimation import batch_size, check_operand_format, network_shapes
        from accelsim.memory.needs import network_needs
        from accelsim.memory.network import planned_shares
        from accelsim.report.plan_page import plan_document, print_plan

        for option, name in (("--weights", weights), ("--activations", activations)):
            if name is not None:
                check_operand_format(name, option)
        shapes = network_shapes(network, weights=weights, activations=activations, inputs=inputs)
        layers = network_needs(shapes, hardware)
        shares, notes = planned_shares(layers, hardware, images=batch_size(shapes))
        document = plan_document(hardware, shapes.meta.name, layers, shares, notes)
        if as_json:
            typer.echo(json.dumps(document, indent=2))
        else:
            print_plan(document)
