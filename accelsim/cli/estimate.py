"""`accelsim estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli.app import (
    ActivationFormat,
    ConfigPath,
    NetworkPath,
    WeightFormat,
    app,
    check_apart,
    path,
    user_errors,
)

if TYPE_CHECKING:
    from accelsim.memory.contract import Timeline


@app.command()
def estimate(
    config: ConfigPath,
    network: NetworkPath,
    weights: WeightFormat = None,
    activations: ActivationFormat = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document only.")] = False,
    timeline: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=path, help="Write it in time as Chrome trace JSON (Perfetto opens it)."),
    ] = None,
    roofline: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=path, help="Draw every layer under the roofline: PNG, SVG or PDF."),
    ] = None,
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
        check_apart({"--timeline": timeline, "--roofline": roofline})
        if timeline is not None:
            from accelsim.report.files import check_file_path

            check_file_path(timeline)
        if roofline is not None:
            from accelsim.plots.common import check_picture_path

            check_picture_path(roofline)
        times: list[Timeline] = []
        report = run_estimate(
            hardware,
            network_shapes(network, weights=weights, activations=activations),
            timeline_done=None if timeline is None else times.append,
        )
        if timeline is not None:
            from accelsim.memory.chrome_trace import chrome_trace
            from accelsim.report.files import save_text

            title = f"{hardware.name}: {report.network_name}"
            save_text(chrome_trace(times[0], hardware.clock_mhz, title), timeline)
        if roofline is not None:
            from accelsim import plots

            figure, axes = plots.new_figure((9.0, 5.5))
            plots.roofline(report, axes)
            plots.save_figure(figure, roofline)
        if as_json:
            typer.echo(report.to_json(indent=2))
        else:
            print_estimate(report)
