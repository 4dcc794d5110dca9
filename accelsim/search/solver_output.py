"""What HiGHS prints by mistake, kept from the standard output.

SciPy 1.17's HiGHS has a debug line that no option silences: where the solution that it found is over a constraint by a
little more than its tolerance, it says that it solves once more with the integers fixed.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DEBUG_LINE = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n"
_ONE_AT_A_TIME = threading.Lock()  # the standard output is the process's


@contextmanager
def without_debug_line() -> Iterator[None]:
    """Drop the solver's debug line from what is written to the standard output inside; all else comes out at the end.

    C libraries write to the file descriptor, past `sys.stdout`; so the descriptor leads to a temporary file meanwhile.
    Where there is no descriptor 1, or on Windows, nothing is done.
    """
    with _ONE_AT_A_TIME:
        real = _duplicate()
        if real is None:
            yield
            return
        try:
            with tempfile.TemporaryFile() as kept:
                os.dup2(kept.fileno(), 1)
                try:
                    yield
                finally:
                    _flush()
                    os.dup2(real, 1)
                    kept.seek(0)
                    _write(kept.read().replace(DEBUG_LINE, b""))
        finally:
            os.close(real)


def _duplicate() -> int | None:
    """Return another descriptor of the standard output, to which all has gone that was written; None: it has none."""
    if os.name == "nt":
        return None
    try:
        _flush()
        return os.dup(1)
    except OSError:  # it is closed, or its reader has left
        return None


def _flush() -> None:
    """Let what Python and C have buffered go where the descriptor leads now."""
    with suppress(AttributeError, ValueError):  # there is no sys.stdout, or it is closed
        sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)


def _write(text: bytes) -> None:
    while text:
        text = text[os.write(1, text) :]
