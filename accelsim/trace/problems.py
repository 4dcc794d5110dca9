"""Many problems, one message."""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.errors import TraceError, problem_list

MAX_SHOWN = 50


def trace_error(subject: str, problems: Sequence[str]) -> TraceError:
    """Return the one error for all problems of a trace; a flood of them is cut, and says so."""
    if len(problems) <= MAX_SHOWN:
        return TraceError(problem_list(subject, problems))
    lines = [f"  {problem}" for problem in problems[:MAX_SHOWN]]
    more = f"  and {len(problems) - MAX_SHOWN} more"
    return TraceError("\n".join([f"{subject}: {len(problems)} problems", *lines, more]))
