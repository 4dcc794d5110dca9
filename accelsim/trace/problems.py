"""Many problems, one message."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from accelsim.errors import TraceError, problem_list

MAX_SHOWN = 50


def file_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a Path; TraceError where it is no file name at all."""
    try:
        return Path(path)
    except TypeError:
        raise TraceError(f"path is {type(path).__name__}; pass a file name") from None


def trace_error(subject: str, problems: Sequence[str]) -> TraceError:
    """Return the one error for all problems of a trace; a flood of them is cut, and says so."""
    if len(problems) <= MAX_SHOWN:
        return TraceError(problem_list(subject, problems))
    lines = [f"  {problem}" for problem in problems[:MAX_SHOWN]]
    more = f"  and {len(problems) - MAX_SHOWN} more"
    return TraceError("\n".join([f"{subject}: {len(problems)} problems", *lines, more]))
