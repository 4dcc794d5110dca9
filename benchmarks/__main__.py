"""``python -m benchmarks [FILE.json]``: how fast the engines are, as ratios to a limit measured in the same run.

The limit is the plain float32 matrix product of the same size by NumPy's BLAS, which computes the same products without
saying anything about registers. CPU seconds of one thread, medians of repeats.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from accelsim.config.model import Array, HardwareConfig, Register, ScaleUnit
from accelsim.engine import ENGINES
from accelsim.mapping.contract import BlockScaling, GemmOperands
from accelsim.mapping.plan import plan_operands

REPEATS = 5
M, K, N = 512, 512, 512


def cpu_seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median CPU time of `work` after one warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def operands(m: int, k: int, n: int, vector: int = 0) -> GemmOperands:
    """Return random int8 operands (int4 with scales, if `vector`)."""
    rng = np.random.default_rng(0)
    high = 8 if vector else 128
    a = rng.integers(-high, high, (1, m, k)).astype(np.int32)
    w = rng.integers(-high, high, (1, k, n)).astype(np.int32)
    blocks = None
    if vector:
        a_scales = rng.integers(0, 16, (1, m, k // vector)).astype(np.int32)
        w_scales = rng.integers(0, 16, (1, k // vector, n)).astype(np.int32)
        blocks = BlockScaling(vector, a_scales, w_scales, 2, 4, 4)
    bits = 4 if vector else 8
    return GemmOperands(a, w, np.zeros((1, n), np.int64), np.ones(k, np.bool_), bits, bits, blocks)


def machine(lanes: int = 1, acc_bits: int = 32) -> HardwareConfig:
    """Return a 16 x 16 weight-stationary array."""
    array = Array(rows=16, cols=16, dataflow="ws", lanes=lanes, scale_unit=ScaleUnit(product_bits=6))
    return HardwareConfig(
        name="bench", clock_mhz=1000.0, array=array, accumulator=Register(bits=acc_bits, overflow="saturate")
    )


def cases() -> dict[str, tuple[str, GemmOperands, HardwareConfig, bool, tuple[int, int, int]]]:
    """Return {case: (engine, operands, machine, watch, sizes)}."""
    big, small = (M, K, N), (64, 64, 64)
    return {
        "fast, proved (watch off)": ("fast", operands(*big), machine(), False, big),
        "fast, every addition watched": ("fast", operands(*big), machine(), True, big),
        "fast, 16-bit accumulators that saturate": ("fast", operands(*big), machine(acc_bits=16), True, big),
        "fast, VSQ vectors of 16, rounded scales": ("fast", operands(*big, 16), machine(16), True, big),
        "stepped, every register moved": ("stepped", operands(*small), machine(), True, small),
    }


def main() -> None:
    """Run every case; print a table; write JSON where a file is named."""
    rng = np.random.default_rng(0)
    a, w = (rng.integers(-128, 128, shape).astype(np.float32) for shape in ((M, K), (K, N)))
    limit = M * K * N / cpu_seconds(lambda: a @ w) / 1e9
    print(f"{platform.machine()}, {os.cpu_count()} cores, NumPy {np.__version__}; GMAC per CPU second, one thread")
    print(f"{'limit: plain float32 product':45s} {limit:8.2f}")
    results = {}
    for name, (engine, data, config, watch, (m, k, n)) in cases().items():
        plan = plan_operands(data, config)
        run = ENGINES[engine].run
        seconds = cpu_seconds(lambda run=run, data=data, plan=plan, watch=watch: run(data, plan, watch=watch))
        rate = m * k * n / seconds / 1e9
        results[name] = {"gmac_per_cpu_second": rate, "ratio_to_limit": rate / limit}
        print(f"{name:45s} {rate:8.3f}   {100 * rate / limit:6.1f} % of the limit")
    if len(sys.argv) > 1:
        document = {"machine": platform.processor(), "limit_gmac_per_cpu_second": limit, "cases": results}
        Path(sys.argv[1]).write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
