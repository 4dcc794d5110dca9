"""Which part of a layer an array works on at a time: the shares of cores, the pieces of a stream that is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from accelsim.mapping.contract import BlockScaling, GemmOperands, Int64, LayerPlan
from accelsim.memory.contract import LayerNeeds
from accelsim.memory.network import Share


@dataclass(frozen=True, eq=False)
class Piece:
    """Products, rows and columns of a layer's GEMMs that one array takes as a layer of its own.

    products, rows, columns : int64, which of the batch, of M and of N
    """

    products: Int64
    rows: Int64
    columns: Int64

    def of(self, operands: GemmOperands) -> GemmOperands:
        """Return the operands of this piece: all of K, of these products, rows and columns."""

        def left(array: Any) -> Any:
            return np.ascontiguousarray(array[self.products][:, self.rows])

        def right(array: Any) -> Any:
            return np.ascontiguousarray(array[self.products][..., self.columns])

        blocks = operands.blocks
        return replace(
            operands,
            a=left(operands.a),
            w=right(operands.w),
            bias=right(operands.bias),
            blocks=None if blocks is None else _scales(blocks, left, right),
            a_exponents=None if operands.a_exponents is None else left(operands.a_exponents),
            w_exponents=None if operands.w_exponents is None else right(operands.w_exponents),
        )


def array_pieces(shares: Sequence[Share], whole: LayerPlan) -> list[Piece] | None:
    """Return the pieces of a layer, one core's after another's; None where all of it is one piece.

    Tiles within one pass of the array go on where the tile before them stopped: they are no pieces. With
    ``memory.passes: split`` each tile of the stream enters anew: it is one.
    """
    found = [piece for share, own in _owned(shares, whole) for piece in _cut(share, own)]
    return None if len(found) == 1 else found


def _owned(shares: Sequence[Share], whole: LayerPlan) -> list[tuple[Share, Piece]]:
    """Return what each core owns: the shares follow one another along the dimension that was dealt out."""
    batch, rows, columns = (np.arange(size) for size in (whole.shape.batch, whole.shape.m, whole.shape.n))
    found, done, lines = [], [0, 0, 0], 0
    for share in shares:
        plan, windows = share.needs.plan, share.needs.windows
        assert plan is not None
        sizes = (plan.shape.batch, plan.shape.m, plan.shape.n)
        parts = [
            all_of if size == all_of.size else all_of[start : start + size]
            for all_of, size, start in zip((batch, rows, columns), sizes, done, strict=True)
        ]
        if windows is not None and sizes[1] < rows.size and _by_lines(shares, whole):  # the same lines of every image
            of_images = rows.reshape(windows.images, -1, windows.out_width)
            parts[1] = of_images[:, lines : lines + windows.out_height].ravel()
            lines += windows.out_height
        done = [start + size for start, size in zip(done, sizes, strict=True)]
        found.append((share, Piece(*parts)))
    return found


def _by_lines(shares: Sequence[Share], whole: LayerPlan) -> bool:
    """Return whether each core has some output lines of all images, not all lines of some."""
    needs: list[LayerNeeds] = [share.needs for share in shares]
    rows = {each.windows.images * each.windows.out_width for each in needs if each.windows is not None}
    lines = sum(each.windows.out_height for each in needs if each.windows is not None)
    return len(rows) == 1 and rows.pop() * lines == whole.shape.m


def _cut(share: Share, own: Piece) -> list[Piece]:
    """Return the pieces of the stream, each of which enters the array for itself."""
    plan, tiling = share.needs.plan, share.tiling
    assert plan is not None
    if tiling.entries == 1:
        return [own]
    stream, size = (own.columns, tiling.tile_n) if plan.transposed else (own.rows, tiling.tile_m)
    name = "columns" if plan.transposed else "rows"
    return [replace(own, **{name: stream[start : start + size]}) for start in range(0, stream.size, size)]


def _scales(blocks: BlockScaling, left: Callable[[Any], Any], right: Callable[[Any], Any]) -> BlockScaling:
    return replace(
        blocks,
        a_scales=left(blocks.a_scales),
        w_scales=right(blocks.w_scales),
        a_exponents=None if blocks.a_exponents is None else left(blocks.a_exponents),
        w_exponents=None if blocks.w_exponents is None else right(blocks.w_exponents),
    )
