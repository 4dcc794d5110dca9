"""The tilings that a layer's passes allow: sizes and loop orders.

A layer is Y[b, m, n] = X[b, m, k] W[b, k, n]. Two of m, n and k are cut by the array into folds, and the third one
streams past (docs/timing.md); tiles are whole folds. The streaming dimension may be cut within one pass, innermost; or,
with `memory.passes: split`, anywhere, and then each pass is entered once for each of its pieces.

Model: docs/memory.md. All sizes are elements of the GEMM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from accelsim.config.model import HardwareConfig
from accelsim.mapping.contract import Int64, LayerPlan
from accelsim.mapping.cycles import PassCycles, pass_cycles, total_by_stream
from accelsim.memory.contract import LayerNeeds

DIMS = "bmnk"
ORDERS = tuple("".join(order) for order in permutations("mnk"))
"""Loops over tiles from the outermost to the innermost; b, over which nothing is reused, is always outermost."""
RELEVANT = {"weight": "nk", "activation": "mk", "output": "mn"}
STREAM = {"os": "k", "ws": "m", "is": "n"}
MOST_SIZES = 40
"""Sizes tried along a dimension; all balanced ones where there are no more."""
MOST_TILES = 1 << 24
"""Of a layer: tilings with more are not considered."""


@dataclass(frozen=True)
class Capacity:
    """What the buffers hold, in bits, and whether they have two halves."""

    weight: int
    activation: int
    output: int
    accumulator: int
    weight_halves: bool
    activation_halves: bool
    output_halves: bool
    accumulator_halves: bool

    @classmethod
    def of(cls, config: HardwareConfig, reserved_bits: int = 0) -> Capacity:
        """Return the configured buffers; `reserved_bits` of the activation buffer hold tensors of other layers."""
        buffers = config.buffers
        return cls(
            weight=8 * buffers.weight.size_bytes,
            activation=8 * buffers.activation.size_bytes - reserved_bits,
            output=8 * buffers.output.size_bytes,
            accumulator=8 * buffers.accumulator.size_bytes,
            weight_halves=buffers.weight.ping_pong,
            activation_halves=buffers.activation.ping_pong,
            output_halves=buffers.output.ping_pong,
            accumulator_halves=buffers.accumulator.ping_pong,
        )


@dataclass(frozen=True)
class Layer:
    """What of a layer matters for its tiles.

    sizes, quantum : by dimension; tiles are multiples of the quantum (a fold; 1 or a group along the stream)
    stream : the dimension that streams past
    may_split : the stream may be cut anywhere
    bits : packed size of what goes through each buffer, by operand; 0: it does not come from (go to) DRAM
    copies : by operand, how many matrix products share each of its matrices (broadcasting); the buffer has one where it
        holds the whole tensor, else each product loads its own
    channels : elements of K that are different channels of a pixel (K, of a matrix)
    """

    needs: LayerNeeds
    plan: LayerPlan
    config: HardwareConfig
    sizes: dict[str, int]
    quantum: dict[str, int]
    stream: str
    may_split: bool
    bits: dict[str, int]
    copies: dict[str, int]
    channels: int
    on_chip_input: bool

    @property
    def outputs(self) -> int:
        return self.sizes["b"] * self.sizes["m"] * self.sizes["n"]

    @property
    def pixels(self) -> int:
        return self.sizes["m"] if self.needs.windows is None else self.needs.windows.pixels

    def moved_bits(self, operand: str, level: int) -> int:
        """Return the bits of an operand, spread over all matrix products, where `level` loops lie outside of what its
        buffer keeps.
        """
        return self.bits[operand] * (1 if level == 0 else self.copies[operand])

    @property
    def elements(self) -> dict[str, int]:
        """Elements that each operand's bits are spread over."""
        s = self.sizes
        return {
            "weight": s["b"] * s["k"] * s["n"],
            "activation": s["b"] * self.pixels * self.channels,
            "output": self.outputs,
        }

    def pieces_cycles(self, size: int) -> PassCycles:
        """Return the cycles of all passes over a piece of `size` rows of the stream, entered anew."""
        piece = replace(self.plan.shape, **({} if self.stream == "k" else {self.stream: size}))
        return pass_cycles(piece, self.plan.passes, self.plan.steps, self.plan.step_cycles, self.config)

    def entry_cycles(self, sizes: Int64) -> Int64:
        """Return the cycles beyond the plan's where the stream is cut into pieces of each of `sizes`, entered anew."""
        plan, whole, rest = self.plan, self.sizes[self.stream] // sizes, self.sizes[self.stream] % sizes
        both = np.concatenate([sizes, rest])
        latency = self.config.ppu.latency_cycles  # the pipeline empties once a layer
        totals = np.array(total_by_stream(plan.passes, plan.steps, both, plan.step_cycles, self.config)) - latency
        of_whole, of_rest = np.split(totals, 2)
        extra: Int64 = whole * of_whole + np.where(rest > 0, of_rest, 0) + latency - plan.cycles.total
        return extra


def layer_of(needs: LayerNeeds, config: HardwareConfig, *, on_chip: frozenset[str] = frozenset()) -> Layer:
    """Return what of a layer matters for its tiles. on_chip : tensors that are in the activation buffer already."""
    plan = needs.plan
    assert plan is not None
    shape, array = plan.shape, config.array
    sizes = {"b": shape.batch, "m": shape.m, "n": shape.n, "k": shape.k}
    fold_k = array.rows * plan.lanes
    quantum = {
        "os": {"m": array.rows, "n": array.cols, "k": plan.group},
        "ws": {"m": 1, "n": array.cols, "k": fold_k},
        "is": {"m": array.cols, "n": 1, "k": fold_k},
    }[plan.dataflow]
    second = needs.weight if needs.weight is not None else needs.inputs[1]
    first_here = needs.inputs[0].name in on_chip
    channels = shape.k
    if needs.windows is not None:
        channels = shape.k // math.prod(needs.windows.kernel)
    return Layer(
        needs=needs,
        plan=plan,
        config=config,
        sizes=sizes,
        quantum={"b": 1, **quantum},
        stream=STREAM[plan.dataflow],
        may_split=plan.dataflow != "os" and config.memory.passes == "split",
        bits={
            "weight": second.bits,
            "activation": 0 if first_here else needs.inputs[0].bits,
            "output": needs.output.bits,
        },
        copies={"weight": needs.shared[1], "activation": needs.shared[0], "output": 1},
        channels=channels,
        on_chip_input=first_here,
    )


def balanced_sizes(size: int, quantum: int, most: int = MOST_SIZES) -> Int64:
    """Return tile sizes that cut `size` into equal parts, in multiples of `quantum`, largest (all of it) first.

    Every number of parts has one: the smallest tile that needs no more parts. Beyond `most` of them, the largest ones
    are kept, and of the others an even choice on a logarithmic scale, the smallest tile included; which is the smallest
    one of no more than `MOST_TILES` parts.
    """
    whole = -(-size // quantum)
    quantum *= -(-whole // MOST_TILES)  # tiles of several folds where single ones would be too many
    folds = -(-size // quantum)
    root = math.isqrt(folds)
    units = {-(-folds // parts) for parts in range(1, root + 2)} | set(range(1, min(root + 2, folds) + 1))
    # Sizes that are no smallest tile of their number of parts waste room.
    kept = sorted({-(-folds // -(-folds // unit)) for unit in units}, reverse=True)
    if len(kept) > most:
        first, rest = kept[: most // 2], np.array(kept[most // 2 :])
        aims = np.geomspace(rest[0], rest[-1], most - most // 2)
        kept = first + sorted({int(rest[np.abs(rest - aim).argmin()]) for aim in aims}, reverse=True)
    return np.minimum(np.array(kept, np.int64) * quantum, size)


def candidate_sizes(layer: Layer, dim: str) -> Int64:
    """Return the tile sizes to try along a dimension, largest first; of a convolution's rows whole lines and, below one
    line, parts of it.
    """
    size, quantum, windows = layer.sizes[dim], layer.quantum[dim], layer.needs.windows
    if dim != "m" or windows is None or quantum > 1:
        return balanced_sizes(size, quantum)
    lines = balanced_sizes(size, windows.out_width)
    parts = balanced_sizes(windows.out_width, 1, MOST_SIZES // 4)
    sizes = np.unique(np.concatenate([lines, parts]))[::-1]
    return sizes[-(-size // sizes) <= MOST_TILES]


def edges(size: int, tile: int) -> tuple[Int64, Int64]:
    """Return the starts and ends of tiles along a dimension."""
    starts = np.arange(0, size, tile, dtype=np.int64)
    return starts, np.minimum(starts + tile, size)


def tile_channels(layer: Layer, starts: Int64, ends: Int64) -> Int64:
    """Return the channels that elements [start, end) of K touch; a tap's channels follow those of the tap before."""
    touched: Int64 = np.minimum(ends - starts, layer.channels)
    return touched
