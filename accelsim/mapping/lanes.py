"""An operand as the multipliers see it: integer lanes, on one grid or with exponents of their own, and block scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from accelsim.formats.spec import FLOATING, QTensor
from accelsim.mapping.contract import Int32


@dataclass(frozen=True, eq=False)
class OperandLanes:
    """The lanes of one operand; all arrays int32 and arranged alike.

    values : the tensor's shape
    exponents : of each lane, or None: none, or the values are shifted by them
    block_scales : the tensor's shape, last axis divided by the block size (rounded up); None: neither operand has any
    block_exponents : of each block scale; None: integer scales, or no blocks
    block_size : of the blocks, 0: none
    """

    values: Int32
    exponents: Int32 | None
    block_scales: Int32 | None
    block_exponents: Int32 | None
    block_size: int = 0

    @property
    def neutral_scale(self) -> int:
        """The scale of a block that is not there: integer scales are 0, significands 1 (the lanes are 0 anyway)."""
        return 0 if self.block_exponents is None else 1

    def mapped(self, arrange: Callable[[Int32], Int32]) -> OperandLanes:
        """Return the lanes with every array arranged anew."""
        return OperandLanes(
            arrange(self.values),
            None if self.exponents is None else arrange(self.exponents),
            None if self.block_scales is None else arrange(self.block_scales),
            None if self.block_exponents is None else arrange(self.block_exponents),
            self.block_size,
        )

    def completed(self, size: int) -> OperandLanes:
        """Return the lanes with the last axis completed by zeros to whole blocks."""
        missing = -self.values.shape[-1] % size if size else 0
        if not missing:
            return self
        padding = [(0, 0)] * (self.values.ndim - 1) + [(0, missing)]
        exponents = None if self.exponents is None else np.pad(self.exponents, padding)
        return OperandLanes(
            np.pad(self.values, padding), exponents, self.block_scales, self.block_exponents, self.block_size
        )


def operand_lanes(tensor: QTensor, size: int, *, own_exponents: bool) -> OperandLanes:
    """Return a tensor's lanes for products in blocks of `size` (0: none); its blocks run along the last axis.

    own_exponents : keep the lanes' exponents (they are zeros for integers); else shift the values onto the grid of the
        format's smallest exponent, where they fit int32 (accelsim.mapping.support)

    Where only the other operand has blocks, this one has scales of 1. Where either is a float, scales have exponents.
    """
    lanes, floating = tensor.lanes(), tensor.format.datapath in FLOATING
    values, exponents = lanes.values, lanes.exponents
    if own_exponents:
        exponents = np.zeros_like(values) if exponents is None else exponents
    elif exponents is not None:
        values, exponents = values << (exponents - tensor.format.exponent_range[0]), None
    scales, scale_exponents = lanes.block_scales, lanes.block_exponents
    if size and scales is None:
        scales = np.ones((*values.shape[:-1], -(-values.shape[-1] // size)), np.int32)
        scale_exponents = np.zeros_like(scales)
    elif scales is not None and floating and scale_exponents is None:
        scale_exponents = np.zeros_like(scales)
    return OperandLanes(values.astype(np.int32), exponents, scales, scale_exponents, size)
