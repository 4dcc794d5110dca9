"""How far a sweep is, and how long the rest will take: a bar on a terminal or in a notebook, else a plain line."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

SECONDS_BETWEEN_LINES = 10.0


class Ticker:
    """Counts points. `done` of `total` were there before; `shown` False: says nothing."""

    def __init__(self, done: int, total: int, *, shown: bool) -> None:
        self._before, self._done, self._total, self._failed = done, done, total, 0
        self._start = self._said = time.monotonic()
        self._bar: Any = None
        self._plain = False
        if shown and total > done:
            from rich.console import Console

            console = Console(stderr=True)
            if console.is_terminal or console.is_jupyter:
                self._bar = _bar(console)
                self._task = self._bar.add_task("points", total=total, completed=done)
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
        elif self._plain and kind is None:
            self._say()

    def step(self, *, failed: bool) -> None:
        """Take note that one more point is done."""
        self._done += 1
        self._failed += failed
        if self._bar is not None:
            text = f"points, {self._failed} failed" if self._failed else "points"
            self._bar.update(self._task, completed=self._done, description=text)
        elif self._plain and time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        elapsed = self._said - self._start
        computed = self._done - self._before
        left = elapsed / computed * (self._total - self._done) if computed else 0.0
        failed = f", {self._failed} failed" if self._failed else ""
        rest = f", about {left:.0f} s left" if self._done < self._total else ""
        print(f"{self._done}/{self._total} points{failed}, {elapsed:.0f} s{rest}", file=sys.stderr, flush=True)


def _bar(console: Any) -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)
