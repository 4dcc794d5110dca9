"""Codebook weights by K-means (Deep Compression; Han, Mao and Dally, ICLR 2016): a tensor stores indices, and shares
the few values that they stand for.

The shared values ("centroids") are kept as integers times one scale, so that what a decoder at the array's edge looks
up can enter an integer multiplier.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import FormatError, ShapeError
from accelsim.formats.discrete import mean, refuse_axis
from accelsim.formats.integer import MAX_OPERAND_BITS, IntegerFormat
from accelsim.formats.mixins import IntegerLanes, NoBlocks, NoZeroPoints
from accelsim.formats.spec import Codes, Datapath, Lanes, QTensor
from accelsim.formats.tensor import as_reals, make_qtensor, refuse_zero_points

MAX_INDEX_BITS = 8
DEFAULT_LANE_BITS = 8


@dataclass(frozen=True)
class CodebookFormat(IntegerLanes, NoBlocks, NoZeroPoints):
    """Indices of `index_bits` bits (1 to 8) into a table of 2**index_bits integers, one table a tensor.

    lane_bits : width of the table's integers (2 to 16), in the symmetric range; 8 where the name does not say

    >>> from accelsim import formats
    >>> tensor = formats.get("kmeans1").quantize([1.0, 1.0, -0.5, -0.5, 1.0])
    >>> tensor.codes.tolist(), tensor.codebook.tolist()
    ([1, 1, 0, 0, 1], [-64, 127])
    """

    index_bits: int
    lane_bits: int = DEFAULT_LANE_BITS

    def __post_init__(self) -> None:
        if not 1 <= self.index_bits <= MAX_INDEX_BITS:
            raise FormatError(f"{self.name}: indices have 1 to {MAX_INDEX_BITS} bits")
        if not 2 <= self.lane_bits <= MAX_OPERAND_BITS:
            raise FormatError(f"{self.name}: the codebook's integers have 2 to {MAX_OPERAND_BITS} bits")

    @property
    def name(self) -> str:
        return f"kmeans{self.index_bits}" + ("" if self.lane_bits == DEFAULT_LANE_BITS else f"_int{self.lane_bits}")

    @property
    def low(self) -> int:
        return -self.high

    @property
    def high(self) -> int:
        return (1 << (self.lane_bits - 1)) - 1

    @property
    def code_low(self) -> int:
        return 0

    @property
    def code_high(self) -> int:
        return (1 << self.index_bits) - 1

    @property
    def code_bits(self) -> int:
        return self.index_bits

    @property
    def datapath(self) -> Datapath:
        return "codebook"

    def quantize(
        self,
        array: ArrayLike,
        axis: int | None = None,
        *,
        channel_axis: int | None = None,
        scale: ArrayLike | None = None,
        zero_point: ArrayLike | None = None,
        asymmetric: bool = False,
        centroids: ArrayLike | None = None,
        iterations: int = 100,
        sparsity: float = 0.0,
    ) -> QTensor:
        """Cluster real numbers, store the index of each one's centroid, and round the centroids to integers.

        array : real numbers, any shape with at least one element
        axis, channel_axis, zero_point, asymmetric : refused: there is one codebook a tensor, without zero points
        scale : positive; of the codebook's integers, clamp(rint(centroid / scale)); None: max|centroid| / high
        centroids : at most 2**index_bits numbers to use instead of clustering; a tensor may use fewer than all
        iterations : of :func:`kmeans`, at most
        sparsity : in [0, 1): this fraction of the elements, rounded down, is pruned: those of the smallest magnitude
            (of equals, the first) become 0, one centroid is exactly 0, and the others serve the remaining elements

        Indices are chosen by the real centroids, before these are rounded. The codebook ascends; where it has fewer
        centroids than entries, the last one fills the rest.

        Raises:
        FormatError : NaN or infinity, a bad scale, an axis, a zero point, too many centroids, a sparsity out of range
        ShapeError : no elements, or centroids that are not a list of numbers
        """
        refuse_axis(self.name, axis, channel_axis)
        refuse_zero_points(self.name, zero_point, asymmetric)
        reals = as_reals(array)
        if not 0 <= sparsity < 1:
            raise FormatError(f"{self.name}: sparsity is {sparsity}; use a fraction of at least 0 and less than 1")
        entries = 1 << self.index_bits
        if centroids is not None:
            if sparsity:
                raise FormatError(f"{self.name}: centroids are given, so nothing is pruned; leave out sparsity")
            table = np.sort(as_reals(centroids))
            if table.ndim != 1 or table.size > entries:
                raise ShapeError(f"{self.name}: centroids have shape {table.shape}; pass (n,), n up to {entries}")
            indices = nearest(reals, table)
        elif sparsity:
            table, indices = _pruned(reals, entries, sparsity, iterations)
        else:
            table, indices = kmeans(reals, entries, iterations)
        padded = np.concatenate([table, np.full(entries - table.size, table[-1])])
        lanes = IntegerFormat(self.lane_bits, narrow=True).quantize(padded, scale=scale)
        return make_qtensor(indices, self, lanes.scale, codebook=lanes.codes)

    def dequantize(self, tensor: QTensor) -> NDArray[np.float64]:
        """Return the codebook's integer times scale, float64, rounded once."""
        return np.asarray(self.lanes(tensor).values * tensor.per_channel(tensor.scale))

    def lanes(self, tensor: QTensor) -> Lanes:
        """Return the codebook's integer of each index."""
        return look_up(tensor)


def look_up(tensor: QTensor) -> Lanes:
    """Decode a tensor by its table."""
    assert tensor.codebook is not None  # make_qtensor saw to it
    return Lanes(np.asarray(tensor.codebook[tensor.codes - tensor.format.code_low], np.int32), None)


def kmeans(
    values: NDArray[np.float64], clusters: int, iterations: int = 100
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cluster numbers by Lloyd's algorithm from evenly spaced centroids over [min, max] ("linear initialization").

    In each iteration every value takes its :func:`nearest` centroid, and every centroid becomes the mean of its
    values; one without values stays where it is. Ends when no index changes, or after `iterations`. Means are exact
    sums rounded once, so that the order of the values does not matter.

    Returns (ascending centroids [clusters], index of each value in the shape of `values`).
    """
    if iterations < 1:
        raise FormatError(f"iterations={iterations}: K-means needs at least one")
    ordered = np.sort(values, axis=None)
    # Weighted ends instead of steps from the first: no overflow, and both ends are met exactly.
    place = np.linspace(0.0, 1.0, clusters)
    spaced = ordered[0] * (1 - place) + ordered[-1] * place
    centroids = np.maximum.accumulate(np.clip(spaced, ordered[0], ordered[-1]))
    bounds = _bounds(ordered, centroids)
    for _ in range(iterations):
        for cluster in range(clusters):
            members = ordered[bounds[cluster] : bounds[cluster + 1]]
            if members.size:
                centroids[cluster] = min(max(mean(members), members[0]), members[-1])  # rounding must not leave them
        moved = _bounds(ordered, centroids)
        if np.array_equal(moved, bounds):
            break
        bounds = moved
    return centroids, nearest(values, centroids)


def nearest(values: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many midpoints between neighbouring (ascending) centroids lie below each value: the index of the
    nearest centroid, the smaller one at a midpoint.
    """
    return np.asarray(np.searchsorted(_midpoints(centroids), values, side="left"), np.int64)


def huffman_bits(codes: Codes) -> int:
    """Return the bits of all codes in an optimal prefix code for them (Huffman); a lone symbol takes 1 bit each.

    The description of the code itself is not included.
    """
    counts = np.unique(codes, return_counts=True)[1].tolist()
    if len(counts) == 1:
        return int(counts[0])
    heapq.heapify(counts)
    total = 0
    while len(counts) > 1:  # each merge puts one more bit before everything below it
        merged = heapq.heappop(counts) + heapq.heappop(counts)
        total += merged
        heapq.heappush(counts, merged)
    return int(total)


def huffman_size_bits(tensor: QTensor) -> int:
    """Return the bits of a tensor whose codes are Huffman coded, its codebook included."""
    table = 0 if tensor.codebook is None else tensor.codebook.size * tensor.format.lane_bits
    return huffman_bits(tensor.codes) + table


def _pruned(
    reals: NDArray[np.float64], entries: int, sparsity: float, iterations: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    flat = reals.ravel()
    order = np.argsort(np.abs(flat), kind="stable")
    pruned = int(sparsity * flat.size)
    kept = np.sort(order[pruned:])
    centroids, kept_indices = kmeans(flat[kept], entries - 1, iterations)
    zero = int(np.searchsorted(centroids, 0.0))
    indices = np.full(flat.size, zero, np.int64)
    indices[kept] = kept_indices + (kept_indices >= zero)
    return np.insert(centroids, zero, 0.0), indices.reshape(reals.shape)


def _midpoints(centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(centroids[:-1] / 2 + centroids[1:] / 2)


def _bounds(ordered: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return where each cluster begins among ascending values, and their number."""
    inner = np.searchsorted(ordered, _midpoints(centroids), side="right")
    return np.concatenate([[0], inner, [ordered.size]]).astype(np.int64)
