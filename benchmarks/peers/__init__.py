"""What accelsim is measured against. A peer that is not installed says how to install it."""

from __future__ import annotations

import os
from pathlib import Path


class NotInstalledError(Exception):
    """A peer is missing; the message says how to get it."""


def cache_folder(name: str) -> Path:
    """Return a folder of the user's cache for what a peer needs built or installed."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "accelsim-bench" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
