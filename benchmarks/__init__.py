"""Benchmarks: ratios to a peer or a limit that is measured in the same run. See docs/performance.md."""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before NumPy loads its BLAS: limits are those of one thread
