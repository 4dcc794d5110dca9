"""How long an operator of the vector unit takes on the configured hardware."""

from __future__ import annotations

from accelsim.config.model import HardwareConfig
from accelsim.formats.spec import QTensor
from accelsim.operators.spec import Operand, Work


def operand_of(tensor: QTensor) -> Operand:
    """Return a tensor as operators take it; its scale and zero point are one a tensor."""
    factors = float(tensor.scale), int(tensor.zero_point)
    return Operand(tensor.shape, tensor.format, *factors, tensor.codes, tensor.block_scales)


def vector_cycles(work: Work, config: HardwareConfig) -> int:
    """Return the cycles of an operator: each pass streams all elements through the lanes, and then the pipeline
    empties. What only moves addresses takes none.
    """
    if not work.passes:
        return 0
    return work.passes * (-(-work.elements // config.vector.lanes) + config.vector.latency_cycles)
