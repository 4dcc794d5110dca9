"""What mapping hands to the engines: the operands of a layer's GEMMs, and the plan of their passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Actions
from accelsim.config.model import Multiplier

Overflow = Literal["wrap", "saturate"]
Product = Literal["multiply", "xnor", "lookup", "accumulate", "shift"]
"""How a PE makes the products of a lane step; the sum is the same integer whichever it is (docs/numerics.md).

multiply : a multiplier a lane (parallel, fused, or bit-serial: `LayerPlan.multiplier`)
xnor : both operands are +1 or -1: XNOR and popcount of a word
lookup : w entered the array as an index, and was looked up at its edge; then as multiply
accumulate : w is an index: activations are added up an index, each sum is multiplied once by what the index stands for
shift : w is a power of two or zero: a shift and a sign
"""
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class CycleCounts:
    """Cycles of one core by cause; the causes add up exactly to `total`. The first six are the array's own (and the
    vector unit's), the others stalls: the core waits.

    load : stationary operands enter (not hidden behind compute)
    fill : the skewed wave travels to the far corner of the array
    compute : the far corner works: one lane step a cycle
    drain : output-stationary results leave (not hidden behind the next pass)
    ppu : the array waits for the PPU, and the PPU's pipeline empties after the layer's last result
    vector : the vector unit works (the array rests)
    dram : for data on its way to or from DRAM: latency, beats, and transfers ahead in the queue
    dma : for a DMA engine that sets up a transfer
    buffer : for a port of an on-chip buffer
    sync : for another core, or for the end of the run
    """

    load: int = 0
    fill: int = 0
    compute: int = 0
    drain: int = 0
    ppu: int = 0
    vector: int = 0
    dram: int = 0
    dma: int = 0
    buffer: int = 0
    sync: int = 0

    @property
    def total(self) -> int:
        return sum(self.by_cause().values())

    @property
    def array(self) -> int:
        """Cycles in which the array's own clock runs: load, fill, compute and drain."""
        return self.load + self.fill + self.compute + self.drain

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
    """Scales of the blocks along K: what the scale units multiply (VS-Quant), or powers of two that they add (MX), or
    both (NVFP4, whose scales are floats: significand and exponent).

    size : elements a block; K is a multiple of it
    a_scales : int32 [batch, M, K / size], not negative; VSQ: the integer; floats: the significand (MX: 1)
    w_scales : int32 [batch, K / size, N]
    product_shift : low bits dropped from each scale product; rounded half up: (a*w + 2^(shift-1)) >> shift; 0 with
        exponents
    a_scale_bits, w_scale_bits : widths of the stored scales
    a_exponents, w_exponents : int32, the shapes of a_scales and w_scales: each scale is also times 2**exponent; None
        (both) for integer scales
    significand_bits : width of each scale's significand, with exponents; 0: all of them are 1
    """

    size: int
    a_scales: Int32
    w_scales: Int32
    product_shift: int
    a_scale_bits: int
    w_scale_bits: int
    a_exponents: Int32 | None = None
    w_exponents: Int32 | None = None
    significand_bits: int = 0


@dataclass(frozen=True)
class Summation:
    """How a group's exact sum of products reaches the psum register, and what that register holds.

    integer : it is added as it is. psums, accumulators and bias are integers
    float32 : each block's sum (without blocks: each group's) is one addition to a float32 psum, rounded once (nearest,
        ties to even); so is each fold's psum to a float32 accumulator. A sum beyond the largest finite float32 is an
        overflow, and saturates there. Blocks of one group are added one after another, in the order of k
    fixed : each block's (group's) sum is shifted to units of 2**lsb_exponent, rounded by `rounding` ("truncate":
        towards -infinity, "toward_zero", "half_even"), and limited to 49 bits, +-(2**48 - 1). From there on all is as
        with integers: the blocks of a group are added exactly, and the sum is one addition to an integer psum

    unit_exponent : the lanes are integers in units of which a product of two weighs 2**unit_exponent; 0 for integer
    align_bits : None: the sum of products is exact, in those units. Else the lanes have exponents of their own
        (``a_exponents``, ``w_exponents``), and the products of a lane step's dot product (a block; without blocks: all
        lanes) are aligned: e = the largest exponent sum a_exponent + w_exponent among its products that are not zero;
        every product is shifted by its own exponent sum - e + align_bits, bits below that truncated towards zero; and
        the aligned integers are summed. The sum weighs 2**(e - align_bits + unit_exponent). A block lies within one
        lane step, and unit_exponent is 0
    """

    kind: Literal["integer", "float32", "fixed"] = "integer"
    lsb_exponent: int = 0
    rounding: Literal["truncate", "toward_zero", "half_even"] = "truncate"
    unit_exponent: int = 0
    align_bits: int | None = None


INTEGERS = Summation()
"""What integer layers have."""


@dataclass(frozen=True)
class GemmOperands:
    """The operands of one layer, lowered. Engines compute, for every batch b, row m and column n, in this order::

        part_g = sum of a[b,m,k] * w[b,k,n] over the k of lane group g          (exact; times block scales, if any)
        psum   = the fold's part_g, added one after another in the psum register (width, wrap or saturate)
        acc    = bias[b,n], then each fold's psum, added one after another in the accumulator (width, wrap or saturate)

    where the groups and folds are the plan's (`group`, `groups_per_fold`), and `summation` says what "added" means for
    numbers with exponents. A block's factor is a_scale * w_scale (rounded, see BlockScaling) times 2**(a_exponent +
    w_exponent).

    a : int32 [batch, M, K]   activations (lane values)
    w : int32 [batch, K, N]   weights (lane values; a codebook's indices are looked up already)
    bias : int64 [batch, N]   preloaded into the accumulators; may exceed their width (then the preload overflows).
                              float32 summation: float32 [batch, N]
    k_valid : bool [K]        False where K was padded to complete a block; both operands are zero there
    a_bits, w_bits : widths of the operands' formats at the multiplier, for pricing
    blocks : block scales, or None
    product : how PEs make products
    a_code_bits, w_code_bits : widths of the stored codes, where these are not the integers (a codebook's index, a power
        of two's exponent, a float); 0: they are
    summation : how groups are added
    a_exponents, w_exponents : int32, the shapes of a and w: each lane is also times 2**exponent. Only (and then both)
        with summation.align_bits
    exponent_spans : by how much the exponents of a's and w's lanes differ in the operands' formats; (0, 0): integers.
        Without align_bits the lanes are shifted by their exponents already
    """

    a: Int32
    w: Int32
    bias: Int64 | Float32
    k_valid: NDArray[np.bool_]
    a_bits: int
    w_bits: int
    blocks: BlockScaling | None = None
    product: Product = "multiply"
    a_code_bits: int = 0
    w_code_bits: int = 0
    summation: Summation = INTEGERS
    a_exponents: Int32 | None = None
    w_exponents: Int32 | None = None
    exponent_spans: tuple[int, int] = (0, 0)

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
    scale_product : what the dot product of a block is multiplied by; 0 without blocks, and for powers of two
    dot : a block's (or, without blocks, a lane step's) dot product, exact (or as wide as its alignment leaves it)
    psum, acc : the two registers
    a_code, w_code : stored codes, which the buffers hold
    a_exponent, w_exponent : exponents that move with each lane (floats); 0 for integers
    accumulator_sram : bytes of a bank, bits of a word and ports of the accumulator buffer: what a bit's price rests on
    """

    a: int
    w: int
    a_scale: int
    w_scale: int
    scale_product: int
    dot: int
    psum: int
    acc: int
    accumulator_sram: tuple[int, int, int]
    a_code: int
    w_code: int
    a_exponent: int = 0
    w_exponent: int = 0


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
class Tally:
    """Events of valid data; padding, bubbles and unused PEs are gated and do not count.

    products, tree_adds : multiplications, and additions within a step (of one block's lanes, or of all lanes)
    block_adds : additions to a block register (a block over several steps)
    block_sum_adds : additions of scaled blocks of one step to one another
    scaled_blocks : blocks that a scale unit multiplied
    psum_adds, acc_adds : additions to psum registers, and to accumulators
    stream_hops, other_hops : operand elements latched, of the operand that moves right and of the other
    stream_scale_hops, other_scale_hops : block scales latched
    psum_latches, block_latches : psums latched (additions and moves), block registers latched
    """

    products: int
    tree_adds: int
    block_adds: int
    block_sum_adds: int
    scaled_blocks: int
    psum_adds: int
    stream_hops: int
    other_hops: int
    stream_scale_hops: int
    other_scale_hops: int
    psum_latches: int
    block_latches: int
    acc_adds: int


@dataclass(frozen=True)
class LayerPlan:
    """How a layer's GEMMs run on the array. A function of shapes and configuration only: values never change timing.

    lanes : elements of K in one lane step of this layer: the PE's lanes, times what fusion gains; a word with xnor
    step_cycles : cycles of one lane step; 1, or what bit-serial operands take
    pieces : into how many pieces an activation and a weight are cut, one pair of which meets in a cycle: bits of serial
        operands, pieces of the ports' widths with fusion; step_cycles is their product
    multiplier : what the PE multiplies with, of the configuration
    product, summation : as in the operands
    transposed : True for `is`, which is `ws` of the transposed problem: the streamed operand is then W, row by row
    group : elements of K in one psum addition (the lanes of a PE, or a block if that is larger)
    steps_per_group : lane steps that feed one group (1 unless a block spans several steps)
    groups_per_fold : psum additions before the psum moves to the accumulator (os: all groups of K)
    psum_bits, psum_overflow, acc_bits, acc_overflow : the two registers' widths and policies
    widths : for pricing
    cycles, actions : closed form; the stepped engine must count the same
    tally : the events behind the actions
    edge : what the buffers feed
    arguments : besides shape and configuration, what the plan was made of: the keywords of `plan_layer`
    entry : actions of the stationary operand's way into the array, once for each pass (ws, is; they are in `actions`)
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
    step_cycles: int
    pieces: tuple[int, int]
    multiplier: Multiplier
    product: Product
    summation: Summation
    widths: Widths
    passes: Passes
    cycles: CycleCounts
    actions: Actions
    tally: Tally
    edge: EdgeTraffic
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    entry: Actions = Actions()  # noqa: RUF009 - immutable

    @property
    def transposed(self) -> bool:
        return self.dataflow == "is"

    @property
    def steps(self) -> int:
        """Lane steps that cover K, whole groups."""
        return -(-self.shape.k // self.group) * self.steps_per_group
