"""Integer products where a bound shows that no register overflows: one pass converts, bounds and multiplies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.block_values import FLOAT32_EXACT
from accelsim.engine.tiles import exact_product
from accelsim.mapping.contract import GemmOperands, LayerPlan

Int64 = NDArray[np.int64]
# Products of int8 lanes, the longest sum of which is exact; also what stays in the cache of one piece of the weights.
PIECE = 1024
TILE_BYTES = 1 << 20  # of a tile's activations, and of its products
SHORTEST = 16  # pieces of K that a product is worth


@dataclass(frozen=True, eq=False)
class ProvedProducts:
    """acc : int64 [batch, M, N], sums of products and bias; the largest |a| times the largest |w|; what no psum, and no
    sum of all products, can exceed.
    """

    acc: Int64
    peak: int
    psum_bound: int
    sum_bound: int


def exact_products(operands: GemmOperands, plan: LayerPlan) -> ProvedProducts | None:
    """Return products of plain integers by float32 products over pieces of K; None where these are not exact.

    The bounds are row sums of |a| times the largest |w|, fold by fold.
    """
    from accelsim.engine import convert_kernels as kernels

    shape, fold = operands.shape, plan.group * plan.groups_per_fold
    if min(shape.batch, shape.m, shape.k, shape.n) == 0:
        return None
    folds, largest = -(-shape.k // fold), 0
    sums, peaks = np.zeros(folds, np.int64), np.zeros(folds, np.int64)
    out = np.empty((shape.batch, shape.m, shape.n), np.int64)
    pieces = -(-shape.k // PIECE)
    piece = -(-shape.k // pieces // 16) * 16 if pieces > 1 else shape.k
    tile = max(16, min(shape.m, TILE_BYTES // (4 * max(piece, shape.n)) // 16 * 16))
    a_room, w_room = np.empty(tile * piece, np.float32), np.empty((piece, shape.n), np.float32)
    room = np.empty((tile, shape.n), np.float32)
    bias = operands.bias.astype(np.int64)
    for b in range(shape.batch):
        running = np.zeros(shape.m, np.int64)
        a, w = np.ascontiguousarray(operands.a[b]), np.ascontiguousarray(operands.w[b])
        for start in range(0, shape.k, piece):
            length = min(piece, shape.k - start)
            floats = w_room[:length]
            found = np.zeros(folds, np.int64)
            kernels.convert_columns(w[start : start + length], start, fold, floats, found)
            peak = int(found.max())
            np.maximum(peaks, found, out=peaks)
            for m in range(0, shape.m, tile):
                rows = min(tile, shape.m - m)
                lanes = a_room[: rows * length].reshape(rows, length)
                a_peak = kernels.convert_rows(a, m, start, fold, running, lanes, sums)
                product = a_peak * peak
                step = length if product * length <= FLOAT32_EXACT else FLOAT32_EXACT // product
                if a_peak < 0 or step < SHORTEST:
                    return None
                largest = max(largest, a_peak)
                for k in range(0, length, step):
                    exact_product(lanes[:, k : k + step], floats[k : k + step], room[:rows])
                    kernels.add_products(room[:rows], bias[b], start + k == 0, out[b, m : m + rows])
    bounds = sums * peaks  # no more than `peak` times K, of which the caller refuses what leaves int64
    return ProvedProducts(out, largest * int(peaks.max()), int(bounds.max()), int(bounds.sum()))
