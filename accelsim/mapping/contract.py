"""What mapping hands to the engines: the operands of a layer's GEMMs, and the plan of their passes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Actions

Overflow = Literal["wrap", "saturate"]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class CycleCounts:
    """Array cycles by cause; the causes add up exactly to `total`.

    load : stationary operands enter (not hidden behind compute)
    fill : the skewed wave travels to the far corner of the array
    compute : the far corner works: one lane step a cycle
    drain : output-stationary results leave (not hidden behind the next pass)
    ppu : the array waits for the PPU, and the PPU's pipeline empties after the layer's last result
    """

    load: int = 0
    fill: int = 0
    compute: int = 0
    drain: int = 0
    ppu: int = 0

    @property
    def total(self) -> int:
        return sum(self.by_cause().values())

    def by_cause(self) -> dict[str, int]:
        """Return {cause: cycles}, in the order of the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __getitem__(self, cause: str) -> int:
        return self.by_cause()[cause]

    def __add__(self, other: CycleCounts) -> CycleCounts:
        mine, theirs = self.by_cause(), other.by_cause()
        return CycleCounts(**{cause: mine[cause] + theirs[cause] for cause in mine})


@dataclass(frozen=True)
class GemmShape:
    """Sizes of a layer's GEMMs: `batch` products Y[m, n] = X[m, k] W[k, n] of one shape.

    `k` counts the lowered reduction axis, zero padding that completes blocks included. Rows and columns of ones that
    measure zero-point sums are included in `m` and `n`.
    """

    batch: int
    m: int
    k: int
    n: int


@dataclass(frozen=True)
class BlockScaling:
    """Integer scales of the blocks along K (VS-Quant): what the scale units multiply.

    size : elements a block; K is a multiple of it
    a_scales : int32 [batch, M, K / size]
    w_scales : int32 [batch, K / size, N]
    product_shift : low bits dropped from each scale product; rounded half up: (a*w + 2^(shift-1)) >> shift
    a_scale_bits, w_scale_bits : widths of the stored scales
    """

    size: int
    a_scales: Int32
    w_scales: Int32
    product_shift: int
    a_scale_bits: int
    w_scale_bits: int


@dataclass(frozen=True)
class GemmOperands:
    """The operands of one layer, lowered. Engines compute, for every batch b, row m and column n, in this order::

        part_g = sum of a[b,m,k] * w[b,k,n] over the k of lane group g          (exact; times block scales, if any)
        psum   = the fold's part_g, added one after another in the psum register (width, wrap or saturate)
        acc    = bias[b,n], then each fold's psum, added one after another in the accumulator (width, wrap or saturate)

    where the groups and folds are the plan's (`group`, `groups_per_fold`).

    a : int32 [batch, M, K]   activations (lane values)
    w : int32 [batch, K, N]   weights (lane values)
    bias : int64 [batch, N]   preloaded into the accumulators; may exceed their width (then the preload overflows)
    k_valid : bool [K]        False where K was padded to complete a block; both operands are zero there
    a_bits, w_bits : widths of the operands' formats, for pricing
    blocks : block scales, or None for plain integers
    """

    a: Int32
    w: Int32
    bias: Int64
    k_valid: NDArray[np.bool_]
    a_bits: int
    w_bits: int
    blocks: BlockScaling | None = None

    @property
    def shape(self) -> GemmShape:
        batch, m, k = self.a.shape
        return GemmShape(batch, m, k, self.w.shape[2])


@dataclass(frozen=True)
class Passes:
    """Every pass of a layer, in order, as arrays of one entry a pass (the GEMMs of a batch one after another).

    batch : which GEMM
    row0, rows : first index and used extent along the array's rows (os: output rows m; ws, is: lane steps of K)
    col0, cols : first index and used extent along the array's columns (os, ws: n; is: m)
    """

    batch: Int64
    row0: Int64
    rows: Int64
    col0: Int64
    cols: Int64

    def __len__(self) -> int:
        return int(self.rows.size)


@dataclass(frozen=True)
class Widths:
    """Widths in bits of what a layer moves through the array, for pricing.

    a, w : operand lanes
    a_scale, w_scale : block scales; 0 without blocks
    scale_product : what the dot product of a block is multiplied by; 0 without blocks
    dot : a block's (or, without blocks, a lane step's) dot product, exact
    psum, acc : the two registers
    accumulator_bytes : capacity of the accumulator buffer, which sets the price of a bit
    """

    a: int
    w: int
    a_scale: int
    w_scale: int
    scale_product: int
    dot: int
    psum: int
    acc: int
    accumulator_bytes: int


@dataclass(frozen=True)
class EdgeTraffic:
    """Elements and block scales that enter the array's edges in a layer: of the operand that moves right, and of the
    other one. An element enters once for each pass that uses it.
    """

    stream: int
    stream_scales: int
    other: int
    other_scales: int


@dataclass(frozen=True)
class LayerPlan:
    """How a layer's GEMMs run on the array. A function of shapes and configuration only: values never change timing.

    transposed : True for `is`, which is `ws` of the transposed problem: the streamed operand is then W, row by row
    group : elements of K in one psum addition (the lanes of a PE, or a block if that is larger)
    steps_per_group : lane steps that feed one group (1 unless a block spans several steps)
    groups_per_fold : psum additions before the psum moves to the accumulator (os: all groups of K)
    psum_bits, psum_overflow, acc_bits, acc_overflow : the two registers' widths and policies
    widths : for pricing
    cycles, actions : closed form; the stepped engine must count the same
    edge : what the buffers feed
    """

    dataflow: Literal["os", "ws", "is"]
    shape: GemmShape
    rows: int
    cols: int
    lanes: int
    group: int
    steps_per_group: int
    groups_per_fold: int
    psum_bits: int
    psum_overflow: Overflow
    acc_bits: int
    acc_overflow: Overflow
    double_buffered: bool
    drain_overlap: bool
    skip_unused: bool
    widths: Widths
    passes: Passes
    cycles: CycleCounts
    actions: Actions
    edge: EdgeTraffic

    @property
    def transposed(self) -> bool:
        return self.dataflow == "is"
