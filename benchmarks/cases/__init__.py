"""Every case, in the order of the page."""

from __future__ import annotations

from benchmarks.cases import (
    datapaths,
    gemm,
    growth,
    kernels,
    memory,
    networks,
    scale_sim,
    start,
    stepped,
    sweep,
    timeline,
    width_table,
)

CASES = (
    *kernels.CASES,
    *scale_sim.CASES,
    *gemm.CASES,
    *datapaths.CASES,
    *networks.CASES,
    *stepped.CASES,
    *timeline.CASES,
    *start.CASES,
    *width_table.CASES,
    *sweep.CASES,
    *memory.CASES,
    *growth.CASES,
)
