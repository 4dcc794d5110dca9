"""The command line: one thin function per command; results go to stdout, progress and errors to stderr.

Exit codes: 0 done; 1 our fault (a traceback: please report it); 2 the user's (one message, nothing written); 3 with
``--strict``, overflow or a mismatch was found; 130 interrupted (SIGINT, Ctrl-C); 143 terminated (SIGTERM).

A command is a function in one of this folder's modules, imported below in the order of the help.
"""

from __future__ import annotations

import sys

import typer

# isort: off
from accelsim.cli import run  # noqa: F401
from accelsim.cli import files  # noqa: F401
from accelsim.cli import models  # noqa: F401
from accelsim.cli import plan  # noqa: F401
from accelsim.cli import area  # noqa: F401
from accelsim.cli import energy  # noqa: F401
from accelsim.cli import plot  # noqa: F401
from accelsim.cli import estimate  # noqa: F401
from accelsim.cli import sweep  # noqa: F401
from accelsim.cli import costs  # noqa: F401
from accelsim.cli import search  # noqa: F401

# isort: on
from accelsim.cli.app import INTERRUPTED, TERMINATED, app
from accelsim.cli.startup import (
    Terminated,
    collect_rarely,
    end_quickly,
    ends_in_order,
    load_no_plugins,
    only_called_command,
)

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line (the ``accelsim`` command)."""
    collect_rarely()
    load_no_plugins()
    try:
        with ends_in_order(), only_called_command(app, sys.argv[1:]):
            app()
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except Terminated:
        typer.echo("terminated", err=True)
        sys.exit(TERMINATED)
    finally:
        end_quickly()
