"""Progress of a long command, on stderr."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress


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
