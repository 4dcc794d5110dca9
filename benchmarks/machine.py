"""What a run ran on: machine, versions, revision."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("accelsim", "numpy", "numba", "llvmlite", "pydantic", "threadpoolctl")
ROOT = Path(__file__).resolve().parents[1]


def processor() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
    wide = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_vpopcntdq") if flag in fields.get("flags", "")]
    return f"{name}, {' '.join(wide)}" if wide else name


def versions() -> dict[str, str]:
    """Return the versions of Python and of what the benchmarks use."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def blas() -> str:
    """Return the BLAS behind NumPy and its threads, as threadpoolctl sees them."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown (pip install threadpoolctl); OMP_NUM_THREADS=1"
    import numpy as np  # noqa: F401 (loads the BLAS)

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return ", ".join(
        f"{p['internal_api']} {p['version']} ({p.get('architecture', '?')}), {p['num_threads']} thread" for p in pools
    )


def revision() -> dict[str, Any]:
    """Return the git revision, and whether files differ from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {
            "revision": git("rev-parse", "HEAD"),
            "changed_files": len(git("status", "--porcelain", "--", "accelsim", "benchmarks").splitlines()),
            "sources": sources(),
        }
    except (OSError, subprocess.CalledProcessError):
        return {"revision": "unknown", "changed_files": None, "sources": sources()}


def sources() -> str:
    """Return a digest of what is measured: every file of the package."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "accelsim").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def description() -> dict[str, Any]:
    """Return all of it."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load_average": list(os.getloadavg()),
        "blas": blas(),
    }
