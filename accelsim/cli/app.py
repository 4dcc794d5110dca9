"""What the commands share: the application itself, its arguments, and what a user's mistake looks like."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from accelsim._version import __version__
from accelsim.errors import AccelsimError

app = typer.Typer(
    help="Bit-accurate, cycle-level, energy-aware simulation of quantized neural-network accelerators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # to load Rich takes longer than all else that a help needs
)

USER_ERROR, STRICT_FAILURE, INTERRUPTED, TERMINATED = 2, 3, 130, 143


def path(text: str) -> Path:
    """Return a path that is given; an empty one would silently be the current folder."""
    if not text:
        raise typer.BadParameter("the path is empty; name one")
    return Path(text)


ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The hardware, YAML.", show_default=False)]
ModelPath = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A quantized model, .tflite or .onnx.", show_default=False)
]
NetworkPath = Annotated[
    Path,
    typer.Argument(
        metavar="NETWORK", help="A trace, a float network, a model, or a table of shapes (.csv).", show_default=False
    ),
]
WeightFormat = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FORMAT",
        help="Weights of what names no formats: a table, floats.",
        show_default="int8",
    ),
]
ActivationFormat = Annotated[
    str | None, typer.Option("--activations", metavar="FORMAT", help="Activations, likewise.", show_default="int8")
]
TracePath = Annotated[Path, typer.Argument(metavar="TRACE", help="The quantized layers, .npz.", show_default=False)]


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


def check_apart(files: dict[str, Path | None]) -> None:
    """Raise AccelsimError where two options name one file: the second would overwrite the first."""
    taken: dict[Path, str] = {}
    for option, file in files.items():
        if file is not None:
            other = taken.setdefault(file.resolve(), option)
            if other != option:
                raise AccelsimError(f"{option} {str(file)!r}: {other} names the same file; use another name")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"accelsim {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass
