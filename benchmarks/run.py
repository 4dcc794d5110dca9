"""A case, and what a run of the cases gives it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.result import Row


@dataclass(frozen=True)
class Run:
    """How thorough to be.

    repeats : samples of each measurement
    quick : small sizes and no peer that takes minutes; for development, never for the page
    """

    repeats: int = 5
    quick: bool = False

    def say(self, text: str) -> None:
        """Tell the user what goes on, on stderr."""
        print(f"  {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Case:
    """One benchmark.

    name : what the command line calls it
    title : what is measured, and against what
    goal : what its rows have to reach, in words; "": nothing
    run : measures
    """

    name: str
    title: str
    goal: str
    run: Callable[[Run], Iterable[Row]]
