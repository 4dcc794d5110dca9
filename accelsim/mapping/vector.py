"""What an operator of the vector unit costs on the configured hardware: cycles, and traffic to buffers and DRAM."""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.actions import Action, Actions
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


def vector_traffic(work: Work, config: HardwareConfig, *, input_bits: Sequence[int], output_bits: int) -> Actions:
    """Return buffer and DRAM traffic, in bits, under the simple model of accelsim.mapping.traffic: every tensor crosses
    DRAM once, and each pass reads its inputs from the activation buffer. What only moves addresses has none.
    """
    if not work.passes:
        return Actions()
    kind, buffers, read = config.dram.kind, config.buffers, sum(input_bits)
    counts = {
        Action("dram", f"dram_read_{kind}"): read,
        Action("dram", f"dram_write_{kind}"): output_bits,
    }
    for operation, capacity, bits in (
        ("sram_write", buffers.activation.size_bytes, read),
        ("sram_read", buffers.activation.size_bytes, work.passes * read),
        ("sram_write", buffers.output.size_bytes, output_bits),
        ("sram_read", buffers.output.size_bytes, output_bits),
    ):
        action = Action("buffer", operation, (capacity,))
        counts[action] = counts.get(action, 0) + bits
    return Actions(counts)
