"""`accelsim run`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli.app import STRICT_FAILURE, ConfigPath, TracePath, app, check_apart, path, user_errors
from accelsim.cli.progress import Progress
from accelsim.cli.startup import load_numba_alone
from accelsim.errors import AccelsimError, did_you_mean

if TYPE_CHECKING:
    from accelsim.mapping.contract import GemmOperands, LayerPlan
    from accelsim.memory.contract import Timeline
    from accelsim.report.values import RunReport


class EngineName(StrEnum):
    """The engines by name; all give the same numbers."""

    auto = "auto"
    fast = "fast"
    stepped = "stepped"


@app.command()
def run(
    config: ConfigPath,
    trace: TracePath,
    engine: Annotated[EngineName, typer.Option(help="All engines give the same numbers.")] = EngineName.auto,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document only.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=path, help="Write report.json and outputs.npz into this folder."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path, help="Write one self-contained page of the run.")
    ] = None,
    timeline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=path, help="Write the run in time as Chrome trace JSON (Perfetto opens it)."
        ),
    ] = None,
    verify: Annotated[bool, typer.Option(help="Compare with an independent, slow integer reference.")] = False,
    activity: Annotated[
        bool, typer.Option("--activity", help="Measure zero operands and toggles; energy with and without (slower).")
    ] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 3 on overflow or a mismatch.")] = False,
    watch: Annotated[
        bool, typer.Option(help="Watch every addition; --no-watch proves overflow impossible where it can (faster).")
    ] = True,
    extremes: Annotated[
        bool,
        typer.Option(help="Give the largest sums; --no-extremes gives bounds, and still counts overflows (faster)."),
    ] = True,
    threads: Annotated[
        int, typer.Option(min=1, metavar="N", help="Threads that share a layer; numbers do not depend on it.")
    ] = 1,
    inputs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Run only the first N inputs of the batch.")
    ] = None,
    vcd: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=path, help="Write one layer's waveforms (up to 10,000 cycles, 1,024 PEs)."),
    ] = None,
    vcd_layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="The layer for --vcd; default: the first.")
    ] = None,
) -> None:
    """Run TRACE on CONFIG: latency, energy, overflow, outputs."""
    with user_errors(), ExitStack() as open_files:
        from accelsim.config.loader import load_config

        hardware = load_config(config)  # before what a mistake in it need not wait for: numpy, formats, traces
        from accelsim.report.files import OutputsWriter, save_report
        from accelsim.trace.reader import load_trace

        network = load_trace(trace)
        check_apart({"--html": html, "--timeline": timeline, "--vcd": vcd})
        # before the run, so that no result is lost to a folder that cannot be written
        outputs = None if out is None else open_files.enter_context(OutputsWriter(out))
        if inputs is not None:
            network = network.head(inputs)
        if html is not None:
            from accelsim.html.page import check_html_path

            check_html_path(html)
        if timeline is not None:
            from accelsim.report.files import check_file_path

            check_file_path(timeline)
        if vcd is not None and not vcd.name:
            raise AccelsimError(f"--vcd {str(vcd)!r}: name a file")
        if vcd_layer is not None and vcd is None:
            raise AccelsimError("--vcd-layer names a layer, but no --vcd FILE was given")
        if vcd is not None:
            vcd_layer = vcd_layer or network.layers[0].name
            known = [layer.name for layer in network.layers]
            if vcd_layer not in known:
                raise AccelsimError(
                    f"--vcd-layer {vcd_layer!r} is not a layer of {trace}{did_you_mean(vcd_layer, known)}; use one of "
                    + ", ".join(known)
                )

        def waveforms(layer: str, operands: GemmOperands, plan: LayerPlan) -> None:
            if vcd is not None and layer == vcd_layer:
                from accelsim.engine.vcd import write_vcd

                write_vcd(vcd, operands, plan, hardware.clock_mhz)

        times: list[Timeline] = []
        load_numba_alone()
        from accelsim.simulation import simulate

        with Progress() as progress:
            report = simulate(
                hardware,
                network,
                engine.value,
                watch=watch,
                extremes=extremes,
                threads=threads,
                verify=verify,
                activity=activity,
                progress=progress,
                inspect=waveforms if vcd is not None else None,
                keep_outputs="none",  # a terminal shows none: the memory is the largest layer's
                layer_done=None if outputs is None else outputs.add,
                timeline_done=None if timeline is None and html is None else times.append,
            )
        run_in_time = ""
        if times:
            from accelsim.memory.chrome_trace import chrome_trace

            run_in_time = chrome_trace(times[0], hardware.clock_mhz, f"{hardware.name}: {network.name}")
        if timeline is not None:  # after the run: one that fails leaves nothing behind
            from accelsim.report.files import save_text

            save_text(run_in_time, timeline)
        if as_json:
            typer.echo(report.to_json(indent=2))
        else:
            from accelsim.report.render import print_report

            print_report(report)
        if out is not None:
            save_report(report, out, outputs)
        if html is not None:
            from accelsim.html import save_html

            save_html(report, html, json.loads(run_in_time) if times else None)
    wrong = _what_is_wrong(report)
    if strict and wrong:
        typer.echo(f"strict: {wrong}", err=True)
        raise typer.Exit(STRICT_FAILURE)


def _what_is_wrong(report: RunReport) -> str:
    """Return in words which registers overflowed and how many codes differ from what they should be, or nothing."""
    totals = report.totals
    counts = {
        "psum overflows": totals.psum_overflows,
        "accumulator overflows": totals.accumulator_overflows,
        "output codes that are not what the trace expects": totals.mismatches,
        "output codes that the independent reference does not confirm": totals.verified,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
