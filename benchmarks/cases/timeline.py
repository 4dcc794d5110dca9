"""The timeline of memory and DRAM."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.result import Goal, Row
from benchmarks.run import Case, Run

NAME = "ResNet-18, 16 x 16, timeline of memory and DRAM"


def _timeline(run: Run) -> Iterable[Row]:
    missing = "not built yet: the memory hierarchy and its timeline are issue 6"
    return [Row("timeline", NAME, goal=Goal("value", 0.3), missing=missing)]


CASES = (Case("timeline", "whole ResNet-18, 16 x 16: timeline of memory and DRAM", "0.3 s of CPU time", _timeline),)
