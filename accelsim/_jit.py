"""The only import of numba: one set of compile options, and where compiled kernels are kept.

The cache folder's name holds a digest of every kernel's source, so that arithmetic compiled from another version of a
kernel can never be run: a changed file means another folder. Only `*_kernels.py` modules, and `_*lanes.py`, import
this one.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numba.extending
from numba import types

__all__ = ["intrinsic", "njit", "types"]

intrinsic: Any = numba.extending.intrinsic
_config: Any = numba.config
F = TypeVar("F", bound=Callable[..., object])
KEPT_S = 30 * 24 * 3600


def _kernel_digest() -> str:
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in [Path(__file__), *sorted(package.glob("_*lanes.py")), *sorted(package.rglob("*_kernels.py"))]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _forget_unused(cache: Path) -> None:
    """Remove the compiled kernels of versions that nobody has used for a while: a new version has come."""
    for folder in cache.glob("kernels-*"):
        with contextlib.suppress(OSError):  # another process may be at it, too
            if time.time() - folder.stat().st_mtime > KEPT_S:
                shutil.rmtree(folder)


def _cache_folder() -> Path:
    """Return a folder that can be written: in the user's cache, or a private temporary one."""
    try:
        own_choice = os.environ.get("NUMBA_CACHE_DIR")
        base = Path(own_choice or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "accelsim" / f"kernels-{_kernel_digest()}"
        if not folder.exists():
            _forget_unused(folder.parent)
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)  # used now
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        # A new folder of our own, since compiled code is loaded from it: kernels are then compiled in every process.
        private = Path(tempfile.mkdtemp(prefix="accelsim-kernels-"))
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        return private


_FOLDER = str(_cache_folder())


def njit(function: F) -> F:
    """Compile `function` on its first call and keep the result on disk.

    Kernels trust their arguments: no bounds checks, NumPy's rules for division, no fast-math (float rounding is part
    of the result). They release the interpreter lock, so that threads can share a layer.
    """
    before = _config.CACHE_DIR
    _config.CACHE_DIR = _FOLDER
    try:  # the folder is read here; a user's own compiled functions keep theirs
        compiled = numba.njit(cache=True, nogil=True, boundscheck=False, error_model="numpy", fastmath=False)(function)
    finally:
        _config.CACHE_DIR = before
    return cast(F, compiled)
