"""The command line: one thin function per command; results go to stdout, progress and errors to stderr.

Exit codes: 0 done; 1 our fault (a traceback: please report it); 2 the user's (one message, nothing written); 3 with
``--strict``, overflow or a mismatch was found; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim._version import __version__
from accelsim.errors import AccelsimError, did_you_mean

if TYPE_CHECKING:
    from accelsim.mapping.contract import GemmOperands, LayerPlan
    from accelsim.report.values import RunReport

app = typer.Typer(
    help="Bit-accurate, cycle-level, energy-aware simulation of quantized neural-network accelerators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

USER_ERROR, STRICT_FAILURE = 2, 3


def _path(text: str) -> Path:
    """Return a path that is given; an empty one would silently be the current folder."""
    if not text:
        raise typer.BadParameter("the path is empty; name one")
    return Path(text)


ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The hardware, YAML.", show_default=False)]
ModelPath = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A quantized model, .tflite or .onnx.", show_default=False)
]
TracePath = Annotated[Path, typer.Argument(metavar="TRACE", help="The quantized layers, .npz.", show_default=False)]


class EngineName(StrEnum):
    """The engines by name; all give the same numbers."""

    auto = "auto"
    fast = "fast"
    stepped = "stepped"


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the user's mistakes into one message on stderr and exit code 2."""
    try:
        yield
    except AccelsimError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_ERROR) from None
    except MemoryError as error:
        typer.echo(f"error: not enough memory: {error}", err=True)
        raise typer.Exit(USER_ERROR) from None
    except (BrokenPipeError, SystemExit):  # the reader of our output (head, less) has left; Rich says it by SystemExit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        raise typer.Exit from None
    except OSError as error:  # a file that cannot be read or written, a full disk
        place = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {place}{error.strerror or error}", err=True)
        raise typer.Exit(USER_ERROR) from None


class Progress:
    """Says on stderr which layer runs, and for how long: one line that rewrites itself on a terminal, else a line every
    ten seconds. A thread does it, so that a long layer speaks too (kernels release the interpreter lock).
    """

    def __init__(self, *, seconds_between_lines: float = 10.0) -> None:
        self._terminal = sys.stderr.isatty()
        self._pause = 0.5 if self._terminal else seconds_between_lines
        self._now = ""
        self._start = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True)

    def __call__(self, done: int, total: int, layer: str) -> None:
        """Take note that `done` of `total` layers are finished and that `layer` runs now (empty: none does)."""
        self._now = f"[{done}/{total}] {layer}" if layer else ""

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._terminal:
            self._write("\r\x1b[K")

    def _speak(self) -> None:
        while not self._done.wait(self._pause):
            if self._now:
                text = f"{self._now}, {time.monotonic() - self._start:.0f} s"
                self._write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")

    @staticmethod
    def _write(text: str) -> None:
        with suppress(OSError, ValueError):  # stderr may be closed: progress is never worth an error
            sys.stderr.write(text)
            sys.stderr.flush()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"accelsim {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command()
def run(
    config: ConfigPath,
    trace: TracePath,
    engine: Annotated[EngineName, typer.Option(help="All engines give the same numbers.")] = EngineName.auto,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document only.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=_path, help="Write report.json and outputs.npz into this folder."),
    ] = None,
    verify: Annotated[bool, typer.Option(help="Compare with an independent, slow integer reference.")] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 3 on overflow or a mismatch.")] = False,
    watch: Annotated[
        bool, typer.Option(help="Watch every addition; --no-watch proves overflow impossible where it can (faster).")
    ] = True,
    inputs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Run only the first N inputs of the batch.")
    ] = None,
    vcd: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=_path, help="Write one layer's waveforms (up to 10,000 cycles, 1,024 PEs)."
        ),
    ] = None,
    vcd_layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="The layer for --vcd; default: the first.")
    ] = None,
) -> None:
    """Run TRACE on CONFIG; report latency, energy, overflow and outputs."""
    with user_errors():
        from accelsim.config.loader import load_config

        hardware = load_config(config)  # before what a mistake in it need not wait for: numpy, formats, traces
        from accelsim.report.files import prepare_folder, save_report
        from accelsim.trace.reader import load_trace

        network = load_trace(trace)
        if out is not None:
            prepare_folder(out)  # before the run, so that no result is lost to a folder that cannot be written
        if inputs is not None:
            network = network.head(inputs)
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

        from accelsim.simulation import simulate

        with Progress() as progress:
            report = simulate(
                hardware,
                network,
                engine.value,
                watch=watch,
                verify=verify,
                progress=progress,
                inspect=waveforms if vcd is not None else None,
            )
        if as_json:
            typer.echo(report.to_json(indent=2))
        else:
            from accelsim.report.render import print_report

            print_report(report)
        if out is not None:
            save_report(report, out)
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


@app.command()
def show(config: ConfigPath) -> None:
    """Print CONFIG fully resolved, every default written out."""
    with user_errors():
        from accelsim.config.loader import dump_config, load_config

        typer.echo(dump_config(load_config(config)), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of configurations, with which editors complete and check them."""
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
    per_tensor: Annotated[bool, typer.Option("--per-tensor", help="One weight scale a tensor, not a channel.")] = False,
    batch: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N inputs.")] = None,
) -> None:
    """Quantize a float NETWORK into a trace (post-training; scales from its calibration inputs)."""
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
) -> None:
    """Import a quantized MODEL with its data as a trace."""
    with user_errors():
        from accelsim.importers.api import model_builder, open_model
        from accelsim.importers.data import read_data
        from accelsim.trace.reader import load_trace

        network = open_model(model)
        data, labels = read_data(inputs, network.inputs)
        builder = model_builder(network, data, semantics, until=until, batch=batch, labels=labels)
        written = load_trace(builder.save(out))
        typer.echo(f"{written.path}: {written.name}, {len(written.layers)} layers, digest {written.digest}")


@app.command()
def inspect(model: ModelPath) -> None:
    """List the layers of MODEL, what they cost, and what cannot be imported."""
    with user_errors():
        from accelsim.importers.api import open_model
        from accelsim.report.model_contents import print_model

        print_model(open_model(model))


def main() -> None:
    """Run the command line (the ``accelsim`` command)."""
    try:
        app()
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
