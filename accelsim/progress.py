"""How far a long call is, and how long the rest will take: a bar on a terminal or in a notebook, else a plain line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import Any

SECONDS_BETWEEN_LINES = 10.0

ProgressCallback = Callable[[int, int, str], None]
"""Called with (layers done, layers in all, name of the layer that runs now, or an empty string at the end)."""


class Ticker:
    """Counts what is done, `done` of `total` at the start. A context manager: the bar is there inside of it.

    shown : False: says nothing
    what : the word for what is counted, in the plural
    transient : the bar goes when all is done, and short calls say nothing where there is no bar
    """

    def __init__(self, done: int, total: int, *, shown: bool, what: str = "points", transient: bool = False) -> None:
        self._before, self._done, self._total, self._failed = done, done, total, 0
        self._start = self._said = time.monotonic()
        self._what, self._transient, self._doing = what, transient, ""
        self._bar: Any = None
        self._plain = False
        if shown and total > done:
            from rich.console import Console

            console = Console(stderr=True)
            # rich draws in notebooks by ipywidgets, and warns where they are missing
            if console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None):
                self._bar = _bar(console, transient)
                self._task = self._bar.add_task(what, total=total, completed=done)
            else:
                self._plain = True

    def __enter__(self) -> Ticker:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._plain and kind is None and not self._transient:
            self._say()

    def step(self, *, failed: bool = False) -> None:
        """Take note that one more is done."""
        self._failed += failed
        self._moved(self._done + 1)

    def reach(self, done: int, doing: str) -> None:
        """Take note that `done` are done, and what runs now (a name, or an empty string)."""
        self._doing = doing
        self._moved(done)

    def _moved(self, done: int) -> None:
        self._done = done
        if self._bar is not None:
            text = f"{self._what}, {self._failed} failed" if self._failed else self._doing or self._what
            self._bar.update(self._task, completed=done, description=text)
        elif self._plain and time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        elapsed = self._said - self._start
        computed = self._done - self._before
        left = elapsed / computed * (self._total - self._done) if computed else 0.0
        failed = f", {self._failed} failed" if self._failed else ""
        doing = f", now {self._doing}" if self._doing else ""
        rest = f", about {left:.0f} s left" if self._done < self._total else ""
        text = f"{self._done}/{self._total} {self._what}{failed}{doing}, {elapsed:.0f} s{rest}"
        print(text, file=sys.stderr, flush=True)


@contextmanager
def layer_progress(progress: ProgressCallback | bool | None, what: str = "layers") -> Iterator[ProgressCallback]:
    """Yield what to call before each layer: the caller's own function, a bar of ours (True), or nothing that speaks.

    The bar begins with the first call, which says how many layers there are, or whatever else is counted (`what`).
    """
    with ExitStack() as stack:
        ticker: Ticker | None = None

        def shown(done: int, total: int, layer: str) -> None:
            nonlocal ticker
            if ticker is None:
                ticker = stack.enter_context(Ticker(done, total, shown=True, what=what, transient=True))
            ticker.reach(done, layer)

        if progress is None or progress is False:
            yield lambda *_: None
        else:
            yield shown if progress is True else progress


def _bar(console: Any, transient: bool) -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=transient)
