"""`accelsim show`, `schema` and `check`: what files say, before anything runs."""

from __future__ import annotations

import typer

from accelsim.cli.app import ConfigPath, TracePath, app, user_errors


@app.command()
def show(config: ConfigPath) -> None:
    """Print CONFIG fully resolved, every default written out."""
    with user_errors():
        from accelsim.config.loader import dump_config, load_config

        typer.echo(dump_config(load_config(config)), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of configurations, for editors.

    Editors complete and check configurations with it.
    """
    from accelsim.config.loader import config_schema

    typer.echo(config_schema())


@app.command()
def check(trace: TracePath) -> None:
    """Validate TRACE, every array included, and list its layers."""
    with user_errors():
        from accelsim.report.contents import print_trace
        from accelsim.trace.reader import load_trace

        network = load_trace(trace)
        network.check_arrays()
        print_trace(network)
