"""What makes a command quick to start. A process of our own may do this to Python's settings; a library may not."""

from __future__ import annotations

import gc
import sys


def collect_rarely() -> None:
    """Let Python look for cyclic garbage rarely: modules that load make none, and looking takes a tenth of a start."""
    gc.set_threshold(50_000, 20, 100)


def load_numba_alone() -> None:
    """Load Numba so that it does not find SciPy, which takes as long to load as Numba itself.

    Numba wants SciPy's BLAS for kernels that multiply matrices. Ours have none.
    """
    if "scipy.linalg" in sys.modules or "numba.np.arraymath" in sys.modules:
        return
    sys.modules["scipy.linalg"] = None  # type: ignore[assignment]  # Python's own mark of a module that is not there
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules["scipy.linalg"]
