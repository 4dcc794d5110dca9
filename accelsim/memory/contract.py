"""What the memory stage exchanges: what a layer needs, how it is cut into tiles, and when everything happened.

::

    LayerNeeds ---planner--> LayerTiling ---SimPy--> Timeline
    (shapes, bits)           (tiles, traffic)        (every cycle of every core, by cause)

Values never change timing: all of this is a function of shapes, formats and the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from accelsim.mapping.contract import CycleCounts, Int64, LayerPlan

Operand = Literal["weight", "activation", "output", "accumulator"]
"""What a buffer holds."""


@dataclass(frozen=True)
class TensorNeed:
    """A tensor that a layer reads or writes.

    name : of the trace; two layers that name one tensor exchange it, on chip where it fits
    bits : packed size of all of it: elements at their true width, block scales and microexponents included
    """

    name: str
    bits: int


@dataclass(frozen=True)
class Windows:
    """How a convolution's rows m = (image, output row, output column) look at the pixels of its input.

    images, height, width, out_height, out_width : sizes; every pixel has the layer's channels
    kernel, stride, padding, dilation : (vertical, horizontal); padding before the first pixel
    """

    images: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def pixels(self) -> int:
        return self.images * self.height * self.width


@dataclass(frozen=True)
class LayerNeeds:
    """What one layer asks of the machine around the array.

    plan : its passes on the array; None for an operator of the vector unit
    inputs : activation tensors, in the layer's order; the first one streams through the activation buffer (of a matmul
        of two activations the second one goes through the weight buffer)
    weight : constant weights; None without
    parameter_bits : biases, requantization factors, thresholds, tables: loaded once, with the first tile
    output : what the layer writes
    vector_cycles, vector_passes : of the vector unit (plan is None): its cycles, and how often inputs stream past
    windows : of a convolution: rows of its GEMM are windows that overlap in the input tensor; None: rows of a matrix
    shared : how many of the layer's matrix products share each matrix of the first and of the second operand (a matmul
        that broadcasts; else 1)
    output_leaves : the output is a result of the network: it goes to DRAM even if a later layer finds it on chip
    """

    name: str
    plan: LayerPlan | None
    inputs: tuple[TensorNeed, ...]
    weight: TensorNeed | None
    parameter_bits: int
    output: TensorNeed
    vector_cycles: int = 0
    vector_passes: int = 1
    windows: Windows | None = None
    shared: tuple[int, int] = (1, 1)
    output_leaves: bool = False


@dataclass(frozen=True)
class LayerTiling:
    """A layer cut into tiles: what is resident together, one transfer and one piece of computation each, in order.

    All arrays are int64 of one entry a tile.

    order : loops from the outermost to the innermost, of the letters of "bmnk" that are tiled (for the reader)
    tile_m, tile_n, tile_k : sizes of a full tile of the GEMM
    weight_bits, activation_bits : to be loaded from DRAM before the tile can compute; 0 where the data is there already
        (the same tile of the operand as before, or a tensor that an earlier layer left on chip)
    store_bits : output codes that leave for DRAM after the tile (0 where the output stays on chip)
    spill_bits, refill_bits : accumulators that leave for DRAM unfinished, and come back
    load, fill, compute, drain, ppu : array cycles by cause; they add up, over the tiles, to the plan's exactly
    post : cycles in which the PPU takes the tile's results: `ppu` of them the array waits, the others run behind it
    weight_depth, activation_depth, output_depth : tiles that a buffer holds at once: 2 with ping-pong, else 1
    weight_resident_bits, activation_resident_bits, output_resident_bits, accumulator_resident_bits : what each tile
        occupies in the buffers
    on_chip_inputs : names of input tensors that an earlier layer left on chip
    output_on_chip : True where the output stays on chip for later layers, and never needs to be read back
    saved_bits : DRAM traffic that this saves, against storing and loading
    explanation : in words, why this tiling (for `accelsim plan`)
    tile_b : matrix products (groups of a convolution, heads) in a full tile
    entries : how often each stationary tile enters the array: 1 unless `memory.passes: split` has cut what streams past
    buffer_bits : the most that the layer's tiles hold at once: weights, activations, outputs, accumulators
    lower_bound_bits : traffic with each tensor once, nothing kept on chip
    tile_count : tiles in all. The arrays have an entry each, but where these are very many: then an entry stands for
        some neighbours together
    """

    name: str
    order: str
    tile_m: int
    tile_n: int
    tile_k: int
    weight_bits: Int64
    activation_bits: Int64
    store_bits: Int64
    spill_bits: Int64
    refill_bits: Int64
    load: Int64
    fill: Int64
    compute: Int64
    drain: Int64
    ppu: Int64
    post: Int64
    vector: Int64
    weight_depth: int
    activation_depth: int
    output_depth: int
    weight_resident_bits: Int64
    activation_resident_bits: Int64
    output_resident_bits: Int64
    accumulator_resident_bits: Int64
    on_chip_inputs: tuple[str, ...] = ()
    output_on_chip: bool = False
    saved_bits: int = 0
    explanation: str = ""
    tile_b: int = 1
    entries: int = 1
    buffer_bits: tuple[int, int, int, int] = (0, 0, 0, 0)
    lower_bound_bits: int = 0
    tile_count: int = 0

    @property
    def tiles(self) -> int:
        """Entries of the arrays."""
        return int(self.compute.size)

    @property
    def cycles(self) -> CycleCounts:
        """Array cycles by cause, without any stall: the plan's, and what entering again costs."""
        causes = ("load", "fill", "compute", "drain", "ppu", "vector")
        return CycleCounts(**{cause: int(getattr(self, cause).sum()) for cause in causes})

    @property
    def dram_read_bits(self) -> int:
        return int(self.weight_bits.sum() + self.activation_bits.sum() + self.refill_bits.sum())

    @property
    def dram_write_bits(self) -> int:
        return int(self.store_bits.sum() + self.spill_bits.sum())


@dataclass(frozen=True)
class Slice:
    """Something that one resource did without a break: a bar of the timeline.

    track : "core 0", "ppu 0", "vector 0", "dma 0.1" (core 0's second engine), "dram"; slices of a track do not overlap
    name : "conv1 tile 3", "conv1 weights 3", or what the core waits for: "wait: dram"
    args : what else there is to say, by name
    """

    track: str
    name: str
    layer: str
    start_cycle: int
    end_cycle: int
    args: tuple[tuple[str, int | float | str], ...] = ()


@dataclass(frozen=True)
class LayerTime:
    """When a layer ran, and where its cycles went.

    start_cycle, end_cycle : a layer begins where the layer before it ended (the first at 0), so that the layers'
        spans add up to the makespan (layer-pipelined cores: see docs/memory.md)
    cycles : of the core that finished last, by cause; adds up to end_cycle - start_cycle exactly
    cores : the same of every core, idle time included; each adds up to end_cycle - start_cycle
    core_cycles : cycles that all cores together spent on the layer, waiting for its data included; over the layers
        these add up to the makespan times the cores
    """

    name: str
    start_cycle: int
    end_cycle: int
    cycles: CycleCounts
    cores: tuple[CycleCounts, ...]
    core_cycles: int


@dataclass(frozen=True)
class Timeline:
    """A whole run in time. `slices` and `counters` are empty unless they were asked for.

    cores : cycles of every core by cause; each adds up to the makespan
    dram_read_bits, dram_write_bits : traffic of all cores; whole bursts may move more
    dram_busy_cycles : cycles in which the channels move data
    transfers : of all DMA engines
    counters : {track: [(cycle, value), ...]}, e.g. "weight buffer, bytes", "DRAM, bytes per cycle"
    """

    makespan_cycles: int
    layers: tuple[LayerTime, ...]
    cores: tuple[CycleCounts, ...] = ()
    dram_read_bits: int = 0
    dram_write_bits: int = 0
    dram_busy_cycles: int = 0
    transfers: int = 0
    slices: tuple[Slice, ...] = ()
    counters: tuple[tuple[str, tuple[tuple[int, float], ...]], ...] = ()
