"""What the checks of a trace know and have found so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from accelsim.errors import did_you_mean
from accelsim.formats import Format
from accelsim.trace.problems import MAX_SHOWN
from accelsim.trace.schema import TraceMeta


@dataclass
class Check:
    """One pass over a trace.

    size_limit_bytes : the largest computed tensor that is accepted
    problems : one sentence each
    formats : of the tensors that are sound in themselves
    producers : {computed tensor: its layer}
    """

    meta: TraceMeta
    size_limit_bytes: int
    problems: list[str] = field(default_factory=list)
    formats: dict[str, Format] = field(default_factory=dict)
    producers: dict[str, str] = field(default_factory=dict)

    def say(self, where: str, problem: str) -> None:
        """Note a problem."""
        self.problems.append(f"{where}: {problem}")

    def near(self, word: str, accepted: Iterable[str]) -> str:
        """Return a hint at what may be meant, to put behind a problem; empty in a flood of them."""
        # The search is slow, and in a flood of problems nobody would see its result.
        return did_you_mean(word, accepted) if len(self.problems) < MAX_SHOWN else ""
