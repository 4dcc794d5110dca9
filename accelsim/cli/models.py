"""`accelsim quantize`, `import` and `inspect`: from a model to a trace."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli.app import ModelPath, app, path, user_errors
from accelsim.cli.progress import Progress
from accelsim.errors import ModelError, UnsupportedLayerError

if TYPE_CHECKING:
    from accelsim.config.model import HardwareConfig
    from accelsim.trace.reader import Trace


class References(StrEnum):
    """Whose float values a trace keeps."""

    all = "all"
    outputs = "outputs"


@app.command()
def quantize(
    network: Annotated[Path, typer.Argument(metavar="NETWORK", help="A float network, .npz.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="TRACE", help="The trace to write, .npz.")],
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Formats by the name of a configuration; see docs/quantize.md.")
    ] = None,
    weights: Annotated[str | None, typer.Option(metavar="FORMAT", help="Of weights, e.g. mxfp4.")] = None,
    activations: Annotated[str | None, typer.Option(metavar="FORMAT", help="Of activations.")] = None,
    first: Annotated[
        str | None, typer.Option(metavar="W[/A]", help="Other formats for the first layer: weights/activations.")
    ] = None,
    last: Annotated[str | None, typer.Option(metavar="W[/A]", help="The same for the last layer.")] = None,
    layer: Annotated[
        list[str] | None, typer.Option(metavar="NAME=W[/A]", help="The same for a layer; may be repeated.")
    ] = None,
    output: Annotated[str | None, typer.Option(metavar="FORMAT", help="Of the network's outputs; int8.")] = None,
    rounding: Annotated[
        str | None, typer.Option(metavar="RULE", help="Requantization rule of integer layers; half_up.")
    ] = None,
    rules: Annotated[
        str, typer.Option(metavar="NAME", help="Algorithms of softmax, GELU and sums: ibert or tflite.")
    ] = "ibert",
    ranges: Annotated[
        str, typer.Option(metavar="RULE", help="How scales are chosen: minmax, mse or percentile[:P].")
    ] = "minmax",
    references: Annotated[
        References, typer.Option(help="Float values to keep: of all layers, or of the outputs.")
    ] = References.all,
    per_tensor: Annotated[bool, typer.Option("--per-tensor", help="One weight scale a tensor, not a channel.")] = False,
    batch: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N inputs.")] = None,
) -> None:
    """Quantize a float NETWORK into a trace.

    After training; scales come from its calibration inputs.
    """
    with user_errors():
        from accelsim.quantize.convert import trace_builder
        from accelsim.quantize.network_file import load_network
        from accelsim.quantize.options import read_options
        from accelsim.trace.reader import load_trace

        recipe, overrides = read_options(preset, weights, activations, first, last, output, layer or [])
        floats = load_network(network)
        if batch is not None:
            floats = floats.head(batch)
        builder = trace_builder(
            floats,
            **vars(recipe),
            overrides=overrides,
            rounding=rounding,
            rules=rules,
            ranges=ranges,
            references=references.value,
            per_channel=not per_tensor,
            name=None if preset is None else f"{floats.name}_{preset}",
        )
        written = load_trace(builder.save(out))
        typer.echo(f"{written.path}: {written.name}, {len(written.layers)} layers, digest {written.digest}")


@app.command("import")
def import_(
    model: ModelPath,
    inputs: Annotated[
        str, typer.Option(metavar="FILE[:ARRAY]", help="Its data, .npz: floats, or integer codes; labels if you like.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="TRACE", help="The trace to write, .npz.")],
    semantics: Annotated[
        str | None, typer.Option(metavar="NAME", help="tflite-reference, tflite-micro or onnxruntime; docs/import.md.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N inputs.")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="LAYER", help="The last layer to import, as inspect names it.")
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(metavar="'LAYER:W[/A], ...'", help="Quantize anew: formats by layer name or pattern."),
    ] = None,
    ranges: Annotated[
        str | None, typer.Option(metavar="RULE", help="With --formats: minmax, mse (default) or percentile[:P].")
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="With --formats: of the network's outputs; int8.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG", parser=path, help="With --formats: the hardware whose accuracy is reported."),
    ] = None,
) -> None:
    """Import a MODEL with its data as a trace.

    A quantized one as it is, or any in other number formats.
    """
    with user_errors():
        from accelsim.importers.api import float_model, model_builder, open_model, refitted
        from accelsim.importers.data import read_data
        from accelsim.trace.reader import load_trace

        if formats is None:
            _need_formats({"--ranges": ranges, "--output": output, "--config": config})
        elif semantics is not None:
            raise ModelError("--semantics is whose arithmetic a quantized file follows; with --formats there is none")
        hardware = None if config is None else _hardware(config)
        network = open_model(model)
        data, labels = read_data(inputs, network.inputs)
        if formats is None:
            builder = model_builder(network, data, semantics, until=until, batch=batch, labels=labels)
        else:
            floats = float_model(network, data, until=until, batch=batch, labels=labels)
            builder = refitted(floats, formats, ranges=ranges or "mse", output=output or "int8")
        lines = "" if formats is None else _accuracy(builder.build(), hardware)
        written = load_trace(builder.save(out))
        typer.echo(f"{written.path}: {written.name}, {len(written.layers)} layers, digest {written.digest}")
        if lines:
            typer.echo(lines)


def _hardware(config: Path) -> HardwareConfig:
    from accelsim.config.loader import load_config

    return load_config(config)


def _accuracy(trace: Trace, hardware: HardwareConfig | None) -> str:
    """Return in words the accuracy of a trace on hardware, or on a machine that takes (nearly) every format."""
    from accelsim.report.accuracy_line import accuracy_lines
    from accelsim.simulation import simulate

    chosen = hardware
    if chosen is None:
        from accelsim.config.any_format import any_format

        chosen = any_format()
    try:
        with Progress() as progress:
            return accuracy_lines(simulate(chosen, trace, watch=False, progress=progress))
    except UnsupportedLayerError as error:
        if hardware is not None:
            raise
        return f"accuracy: not measured, name the hardware with --config ({error})"


def _need_formats(given: dict[str, object]) -> None:
    """Raise ModelError for options that mean nothing without --formats."""
    for option, value in given.items():
        if value is not None:
            raise ModelError(f"{option} is for --formats, which quantizes anew; a quantized file is imported as it is")


@app.command()
def inspect(model: ModelPath) -> None:
    """List MODEL's layers, their cost, and what cannot be imported."""
    with user_errors():
        from accelsim.importers.api import open_model
        from accelsim.report.model_contents import print_model

        print_model(open_model(model))
