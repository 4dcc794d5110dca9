"""Errors that a user can cause; the message is written for the user.

Everything that is the user's to mend is an :class:`AccelsimError`: the command line prints its message on stderr and
exits with 2. Any other exception is our own fault: exit code 1, with a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class AccelsimError(Exception):
    """Base of every error that the user can mend; ``str(error)`` is the whole message.

    >>> import accelsim
    >>> try:
    ...     accelsim.load_config("configs/int8_sw.yaml")
    ... except accelsim.AccelsimError as error:
    ...     print(type(error).__name__, "-", error)
    ConfigError - configs/int8_sw.yaml: there is no such file; did you mean 'int8_ws.yaml'?
    """


class ConfigError(AccelsimError):
    """A configuration file is wrong; the message lists all of its problems.

    >>> from accelsim.config.loader import parse_config
    >>> try:
    ...     parse_config("{name: tiny, clock_mhz: fast, array: {rows: 2, cols: 2, dataflow: ws}}", "tiny.yaml")
    ... except ConfigError as error:
    ...     print(error)
    tiny.yaml: line 1: clock_mhz: 'fast' is not a number; use more than 0, up to 100000
    """


class TraceError(AccelsimError):
    """A trace is damaged, inconsistent or not a trace at all."""


class NetworkError(AccelsimError):
    """A float network is damaged or inconsistent, or cannot be quantized as asked."""


class ModelError(AccelsimError):
    """A model file is damaged, cannot be imported as asked, or does not fit the data."""


class FormatError(AccelsimError, ValueError):
    """A number format is unknown, or cannot represent what it was given."""


class ShapeError(AccelsimError, ValueError):
    """Arrays do not fit together."""


class UnsupportedLayerError(AccelsimError):
    """A layer needs what the configured hardware does not have."""


class EnergyTableError(AccelsimError):
    """An energy table is wrong, or lacks a price for an action that was counted."""


class ReportError(AccelsimError):
    """A saved report cannot be read back."""


class SweepError(AccelsimError):
    """A sweep's specification or results file is wrong, or what should run it cannot be reached."""


class SearchError(AccelsimError):
    """A table of costs or a search is asked for what does not exist, or cannot be reached."""


def did_you_mean(word: str, accepted: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the accepted word nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word, list(accepted), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def problem_list(subject: str, problems: Sequence[str]) -> str:
    """Return one message with every problem of `subject` (a file), one a line."""
    if len(problems) == 1:
        return f"{subject}: {problems[0]}"
    return "\n".join([f"{subject}: {len(problems)} problems", *(f"  {problem}" for problem in problems)])
