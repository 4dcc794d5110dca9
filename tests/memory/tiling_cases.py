"""Layers and machines for the planner's tests, and an oracle that moves single elements."""

import math
from itertools import permutations, product

from hypothesis import strategies as st

from accelsim.config.loader import parse_config
from accelsim.mapping.contract import GemmShape
from accelsim.mapping.plan import plan_layer
from accelsim.memory.contract import LayerNeeds, TensorNeed

WIDE = 32
"""Bits of an element in random cases: the smallest buffers, of 64 bytes, hold 16 of them."""


def machine(dataflow="ws", rows=2, cols=2, buffers=None, memory=None, dram=None, **array):
    """A small machine; buffers by name, in bytes (64 or more)."""
    sizes = {"weight": 1 << 20, "activation": 1 << 20, "output": 1 << 20, "accumulator": 1 << 20} | (buffers or {})
    given = {name: size if isinstance(size, dict) else {"size_bytes": size} for name, size in sizes.items()}
    return parse_config(
        {
            "name": "small",
            "clock_mhz": 1000,
            "array": {"rows": rows, "cols": cols, "dataflow": dataflow, **array},
            "buffers": given,
            **({"memory": memory} if memory else {}),
            **({"dram": dram} if dram else {}),
        }
    )


def gemm(config, m, n, k, batch=1, *, name="layer", reads="x", writes="y", parameter_bits=0, bits=8):
    """A layer Y[m, n] = X[m, k] W[k, n]; its tensors have elements of `bits` bits."""
    plan = plan_layer(GemmShape(batch, m, k, n), config, a_bits=8, w_bits=8)
    return LayerNeeds(
        name=name,
        plan=plan,
        inputs=(TensorNeed(reads, batch * m * k * bits),),
        weight=TensorNeed(f"{name}.w", batch * k * n * bits),
        parameter_bits=parameter_bits,
        output=TensorNeed(writes, batch * m * n * bits),
    )


def traffic_of(tiling):
    return tiling.dram_read_bits + tiling.dram_write_bits


@st.composite
def small_cases(draw, passes=("whole", "split"), objective="traffic"):
    """A machine with buffers of a few elements, and a layer of ragged size."""
    dataflow = draw(st.sampled_from(["os", "ws", "is"]))
    sizes = {name: draw(st.integers(64, 160)) for name in ("weight", "activation", "output", "accumulator")}
    halves = {name: draw(st.booleans()) for name in sizes}
    config = machine(
        dataflow,
        rows=draw(st.integers(1, 3)),
        cols=draw(st.integers(1, 3)),
        buffers={name: {"size_bytes": size, "ping_pong": halves[name]} for name, size in sizes.items()},
        memory={"passes": draw(st.sampled_from(passes)), "objective": objective},
        skip_unused=draw(st.booleans()),
        double_buffered=draw(st.booleans()) and dataflow != "os",
    )
    shape = [draw(st.integers(1, most)) for most in (10, 10, 10, 2)]
    return config, gemm(config, *shape, bits=WIDE)


# -- the oracle: every tiling, and every element that it moves --------------------------------------------------------


def least_traffic(needs, config):
    """Return the least traffic in bits over all tilings that the model of docs/memory.md allows; None: none fits.

    Every size that is a multiple of the folds, every loop order, every choice of what a buffer keeps; loads are counted
    as the elements that are not in the buffer when a tile needs them.
    """
    shape, array = needs.plan.shape, config.array
    sizes = {"b": shape.batch, "m": shape.m, "n": shape.n, "k": shape.k}
    stream = {"os": "k", "ws": "m", "is": "n"}[array.dataflow]
    folds = {
        "os": {"m": array.rows, "n": array.cols, "k": needs.plan.group},
        "ws": {"m": 1, "n": array.cols, "k": array.rows * needs.plan.lanes},
        "is": {"m": array.cols, "n": 1, "k": array.rows * needs.plan.lanes},
    }[array.dataflow] | {"b": 1}
    choices = {dim: [folds[dim] * i for i in range(1, math.ceil(sizes[dim] / folds[dim]) + 1)] for dim in "bmnk"}
    best = None
    for tile in product(*(choices[dim] for dim in "bmnk")):
        tile = {dim: min(size, sizes[dim]) for dim, size in zip("bmnk", tile, strict=True)}
        for order in permutations("mnk"):
            order = "b" + "".join(order)
            one_pass = order[-1] == stream and all(tile[d] <= folds[d] for d in "bmnk" if d != stream)
            cut = tile[stream] < sizes[stream]
            if cut and not one_pass and (stream == "k" or config.memory.passes == "whole"):
                continue
            traffic = _traffic(sizes, tile, order, stream, config)
            if traffic is not None and (best is None or traffic < best):
                best = traffic
    return None if best is None else best + needs.parameter_bits


def _traffic(sizes, tile, order, stream, config):
    loops = [range(0, sizes[dim], tile[dim]) for dim in order]
    tiles = [dict(zip(order, starts, strict=True)) for starts in product(*loops)]
    total = 0
    for dims, buffer in (("bnk", config.buffers.weight), ("bmk", config.buffers.activation)):
        loads = [_loads(tiles, order, dims, level, sizes, tile, buffer) for level in range(5)]
        loads = [load for load in loads if load is not None]
        if not loads:
            return None
        total += min(loads)
    outputs = sizes["b"] * sizes["m"] * sizes["n"]
    largest = tile["b"] * tile["m"] * tile["n"]
    out = config.buffers.output
    twice = 2 if out.ping_pong else 1
    if outputs * WIDE > out.size_bytes * 8 and twice * largest * WIDE > out.size_bytes * 8:
        return None
    spilled = _spilled(tiles, order, stream, sizes, tile, config)
    return None if spilled is None else (total + outputs) * WIDE + spilled


def _parts(start, dims, sizes, tile):
    return product(*(range(start[dim], min(start[dim] + tile[dim], sizes[dim])) for dim in dims))


def _loads(tiles, order, dims, level, sizes, tile, buffer):
    """Elements loaded where the buffer is emptied whenever one of the outermost `level` loops advances."""
    held, loaded, most, scope, scopes = set(), 0, 0, None, 0
    for start in tiles:
        here = tuple(start[dim] for dim in order[:level])
        if here != scope:
            held, scope, scopes = set(), here, scopes + 1
        missing = set(_parts(start, dims, sizes, tile)) - held
        loaded += len(missing)
        held |= missing
        most = max(most, len(held))
    if most * (2 if buffer.ping_pong and scopes > 1 else 1) > buffer.size_bytes * 8 // WIDE:
        return None
    return loaded


def _spilled(tiles, order, stream, sizes, tile, config):
    """Bits of sums that travel, or None where they do not fit."""
    bits, buffer, cols = config.accumulator.bits, config.buffers.accumulator, config.array.cols
    room = buffer.size_bytes * 8
    if stream == "k":
        return 0 if min(tile["n"], cols) * bits <= room else None
    if tile["k"] >= sizes["k"]:
        stationary = "n" if stream == "m" else "m"
        return 0 if tile[stream] * min(tile[stationary], cols) * bits <= room else None
    # Between its first and its last tile an output is unfinished.
    unfinished, most = set(), 0
    for start in tiles:
        here = set(_parts(start, "bmn", sizes, tile))
        unfinished |= here
        most = max(most, len(unfinished))
        if start["k"] + tile["k"] >= sizes["k"]:
            unfinished -= here
    if most * bits <= room:
        return 0
    if order[-1] == "k" or tile["b"] * tile["m"] * tile["n"] * bits * (2 if buffer.ping_pong else 1) > room:
        return None
    rounds = math.ceil(sizes["k"] / tile["k"]) - 1
    return 2 * rounds * sizes["b"] * sizes["m"] * sizes["n"] * bits
