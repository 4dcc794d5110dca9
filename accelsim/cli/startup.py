"""What makes a command quick to start and to end. A process of our own may do this to Python's settings; a library may
not.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import typer


class Terminated(BaseException):
    """The process was asked to end (SIGTERM), as job schedulers and `kill` do."""


@contextmanager
def ends_in_order() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` inside, in place of ending the process at once, which leaves drafts of files
    behind and says nothing. A second one ends it at once. Where the process was begun with it ignored, it stays so.
    """

    def ask(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.getsignal(signal.SIGTERM)
    if before != signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def collect_rarely() -> None:
    """Let Python look for cyclic garbage rarely: modules that load make none, and looking takes a tenth of a start."""
    gc.set_threshold(50_000, 20, 100)


def load_no_plugins() -> None:
    """Let Pydantic not look through every installed package for plugins of its own; what a user has set stands."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def end_quickly() -> None:
    """Let Python's last search for cyclic garbage find nothing to look at: a quarter of a second after a run.

    What is still alive when a process ends goes with it; files are closed, and temporary ones gone, before this.
    """
    gc.freeze()


@contextmanager
def only_called_command(app: typer.Typer, arguments: Sequence[str]) -> Iterator[None]:
    """Let `app` have only the command that is called: Typer makes the options of every one it has, before it looks for
    the one that is wanted. Without a command, or with an unknown one, it has them all.
    """
    commands = app.registered_commands
    called = [command for command in commands if arguments and name_of(command) == arguments[0]]
    app.registered_commands = called or commands
    try:
        yield
    finally:
        app.registered_commands = commands


def name_of(command: typer.models.CommandInfo) -> str:
    """Return what a command is called by: its own name, or else its function's."""
    return command.name or getattr(command.callback, "__name__", "").replace("_", "-")


def load_numba_alone() -> None:
    """Load Numba so that it does not find SciPy, which takes as long to load as Numba itself.

    Numba wants SciPy's BLAS for kernels that multiply matrices. Ours have none.
    """
    if "scipy.linalg" in sys.modules or "numba.np.arraymath" in sys.modules:
        return
    sys.modules["scipy.linalg"] = None  # type: ignore[assignment]  # Python's own mark of a module that is not there
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules["scipy.linalg"]
