"""Tilings by hand and at random, for the tests of the timeline."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from accelsim.memory.contract import LayerTiling
from accelsim.memory.machine import Ports, Surroundings
from accelsim.memory.program import Stage

PARTS = ("load", "fill", "compute", "drain", "ppu", "vector")
MOVES = ("weight_bits", "activation_bits", "store_bits", "spill_bits", "refill_bits")


def tiling(name="layer", tiles=1, *, depth=2, **columns):
    """A tiling; what is not given is zero. Resident bits are those that are moved."""
    zeros = [0] * tiles
    arrays = {key: np.array(columns.pop(key, zeros), np.int64) for key in (*PARTS, *MOVES)}
    arrays["post"] = np.array(columns.pop("post", arrays["ppu"]), np.int64)
    resident = {
        "weight_resident_bits": arrays["weight_bits"],
        "activation_resident_bits": arrays["activation_bits"],
        "output_resident_bits": arrays["store_bits"],
        "accumulator_resident_bits": arrays["spill_bits"],
    }
    depths = dict.fromkeys(("weight_depth", "activation_depth", "output_depth"), depth)
    return LayerTiling(
        **{"name": name, "order": "mnk", "tile_m": 1, "tile_n": 1, "tile_k": 1} | arrays | resident | depths | columns
    )


def column(tiles, most):
    return st.lists(st.one_of(st.just(0), st.integers(0, most)), min_size=tiles, max_size=tiles)


@st.composite
def tilings(draw, most_tiles=5):
    """Any tiling: refills never outnumber the spills before them."""
    tiles = draw(st.integers(0, most_tiles))
    parts = {name: draw(column(tiles, 9)) for name in PARTS}
    behind = [draw(st.integers(0, sum(parts[name][tile] for name in PARTS[:4]))) for tile in range(tiles)]
    parts["post"] = [waits + other for waits, other in zip(parts["ppu"], behind, strict=True)]
    moves = {name: draw(column(tiles, 200)) for name in MOVES}
    spilled = 0
    for tile in range(tiles):
        if moves["refill_bits"][tile]:
            if spilled:
                spilled -= 1
            else:
                moves["refill_bits"][tile] = 0
        spilled += moves["spill_bits"][tile] > 0
    depths = {name: draw(st.integers(1, 3)) for name in ("weight_depth", "activation_depth", "output_depth")}
    return replace(tiling("random", tiles, **parts, **moves), **depths)


@st.composite
def stage_lists(draw, cores=1, most_stages=4):
    """Stages of random tilings on random cores, each waiting for random earlier ones."""
    stages = []
    for index in range(draw(st.integers(1, most_stages))):
        earlier = st.lists(st.integers(0, index - 1), max_size=2) if index else st.just([])
        each = draw(tilings())
        bits = {name: np.array(draw(column(each.tiles, 300)), np.int64) for name in ("weight", "output", "accumulator")}
        stages.append(
            Stage(
                core=draw(st.integers(0, cores - 1)),
                layer=index,
                tiling=each,
                weight_after=tuple(draw(earlier)),
                activation_after=tuple(draw(earlier)),
                compute_after=tuple(draw(earlier)),
                array_bits=bits,
            )
        )
    return tuple(stages)


ports = st.builds(
    Ports,
    width_bits=st.one_of(st.none(), st.integers(1, 64)),
    banks=st.integers(1, 4),
    ports=st.integers(1, 2),
    size_bits=st.one_of(st.none(), st.integers(1, 500)),
)
surroundings = st.builds(
    Surroundings,
    engines=st.integers(1, 3),
    setup_cycles=st.integers(0, 9),
    latency_cycles=st.integers(0, 30),
    bytes_per_cycle=st.one_of(st.just(float("inf")), st.floats(0.25, 40)),
    burst_bytes=st.sampled_from([1, 8, 32]),
    channels=st.integers(1, 3),
    ports=st.dictionaries(st.sampled_from(["weight", "activation", "output", "accumulator"]), ports),
)
