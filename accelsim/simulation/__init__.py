"""One run: the stages meet here, and nothing else happens here.

`run` takes the caller's arguments and makes the report, `walk` goes from layer to layer; the rest are their tools.
"""

from __future__ import annotations

from accelsim.simulation.run import simulate

__all__ = ["simulate"]
