"""The ways to compute a layer, as the cases call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine import ENGINES
from accelsim.mapping.contract import GemmOperands, LayerPlan

Work = Callable[[], Any]


def fast(operands: GemmOperands, plan: LayerPlan, *, watch: bool, extremes: bool = True) -> Work:
    """Return the fast engine's work."""
    return lambda: ENGINES["fast"].run(operands, plan, watch=watch, extremes=extremes)


def packed_xnor(operands: GemmOperands, plan: LayerPlan) -> Work:
    """Return the fast engine's work on binary lanes, but what happens before the clock starts: they are packed."""
    from accelsim.engine.fast_xnor import packed_gemms

    gemms = packed_gemms(operands, plan, operands.shape.k)
    if gemms is None:
        raise ValueError("these lanes are not binary")
    _ = [gemm.blocks for gemm in gemms]
    shape, bias = operands.shape, operands.bias.astype(np.int64)

    def work() -> NDArray[np.int64]:
        out = np.empty((shape.batch, shape.m, shape.n), np.int64)
        for b, gemm in enumerate(gemms):
            gemm.products(bias[b], out[b])
        return out

    return work


def stepped(operands: GemmOperands, plan: LayerPlan) -> Work:
    """Return the stepped engine's work: every register of every PE, every cycle, everything counted."""
    return lambda: ENGINES["stepped"].run(operands, plan)


def registers(operands: GemmOperands, plan: LayerPlan) -> Work:
    """Return the registers kernel's work: every register moved in every cycle, values and cycles, nothing else."""
    from accelsim.engine.registers import move_registers

    return lambda: move_registers(operands, plan)


def watched(operands: GemmOperands, plan: LayerPlan, *, threads: int = 1, history: bool = False) -> Work:
    """Return the watched kernel's work: overflows of each output, the first one's place and cycle, toggles of psums and
    accumulators; with `history`, overflows and toggles of every cycle.
    """
    from accelsim.engine.watched import watch_layer

    return lambda: watch_layer(operands, plan, threads=threads, history=history)
